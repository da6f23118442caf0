"""Runs in processes of their own, which are killed."""

import json

import numpy as np
import pytest

from tests.helpers import training
from unitbox_tf import checkpoints


@pytest.mark.slow
@pytest.mark.parametrize("kills", [3])
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
