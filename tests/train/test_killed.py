"""Runs that are killed, and what stopped runs leave behind."""

import dataclasses
import gc
import json
import os
import tempfile
from pathlib import Path

import keras
import numpy as np
import pytest

from tests.helpers import training
from unitbox_tf import checkpoints
from unitbox_tf.train import fit


@pytest.mark.parametrize(
    "kills",
    [pytest.param(3, marks=pytest.mark.slow), pytest.param(20, marks=pytest.mark.nightly)],
)
def test_a_run_that_is_killed_at_random_moments_ends_as_one_that_was_not(tmp_path, kills):
    assert training.killed(tmp_path, "whole", 0, seed=0) == []
    last = training.killed(tmp_path, "killed", kills, seed=1)
    assert len(last) == kills
    whole, again = tmp_path / "whole", tmp_path / "killed"
    history = [json.loads((run / "history.json").read_text()) for run in (whole, again)]
    assert history[0] == history[1]
    assert len(history[0]) == training.EPOCHS
    newest = [checkpoints.stored(run / "checkpoints")[0] for run in (whole, again)]
    with np.load(newest[0]) as one, np.load(newest[1]) as other:
        assert one.files == other.files
        for name in one.files:
            np.testing.assert_array_equal(one[name], other[name], err_msg=name)
    assert not list(again.rglob(".partial*"))


class Stop(keras.callbacks.Callback):
    """Ends training by an error in its second step."""

    def __init__(self, error):
        super().__init__()
        self.error = error

    def on_train_batch_end(self, batch, logs=None):
        if batch == 1:
            raise self.error


@pytest.mark.slow
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_run_that_was_stopped_leaves_nothing_open(whole, tmp_path, monkeypatch, error):
    """An error, and Ctrl-C, which SIGTERM equals. The first run opens what the process keeps."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    monkeypatch.setattr(fit, "finish", lambda *_, **__: (None, {}))
    found = []
    for number in range(3):
        train = dataclasses.replace(whole.train, run=str(number), checkpoint_minutes=0.0)
        try:
            fit.fit(dataclasses.replace(whole, train=train), callbacks=[Stop(error())])
        except RuntimeError:
            stopped = True
        else:
            stopped = error is KeyboardInterrupt
        assert stopped
        gc.collect()
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        found.append((len(os.listdir("/proc/self/fd")), len(children)))
    assert found[2] <= found[1]
    # TensorFlow deletes the source of converted functions when the process ends.
    left = [path.name for path in temporary.iterdir()]
    assert [name for name in left if not name.startswith("__autograph_generated_file")] == []
    partial = [path for path in Path(whole.train.output).rglob(".*") if path.name != ".lock"]
    assert partial == []
