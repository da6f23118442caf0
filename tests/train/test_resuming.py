"""A run that was stopped and resumed ends as one that was not, bit for bit."""

import dataclasses
import errno
import json
import os
import shutil
import subprocess
import sys

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.train.conftest import learner, make_eager, two_layers
from unitbox_tf import checkpoints, files, runs
from unitbox_tf.train import callbacks, fit, loop, state


def changed(config, **settings):
    return dataclasses.replace(config, train=dataclasses.replace(config.train, **settings))


def stored(run):
    """All that a run has learned: the arrays of its newest checkpoint, its best weights, and its history."""
    with np.load(checkpoints.stored(run / "checkpoints")[0]) as content:
        arrays = {name: content[name] for name in content.files}
    arrays |= {f"best/{name}": value for name, value in best(run).items()}
    return arrays, json.loads((run / "history.json").read_text())


def best(run):
    """The stored weights of the best epoch, by layer and number."""
    found = {}
    with h5py.File(run / "best.weights.h5") as file:
        file.visititems(
            lambda name, item: found.update({name: item[()]} if hasattr(item, "dtype") else {})
        )
    return found


def same(one, other):
    (a, a_history), (b, b_history) = stored(one), stored(other)
    assert a_history == b_history
    assert a.keys() == b.keys()
    for name, values in a.items():
        np.testing.assert_array_equal(values, b[name], err_msg=name)


class Stop(keras.callbacks.Callback):
    """Ends training by an error in a step, counted over all epochs from 1 on, or in a validation."""

    def __init__(self, error, step=None, validation=None):
        super().__init__()
        self.error, self.step, self.validation = error, step, validation

    def on_train_batch_end(self, batch, logs=None):
        self._stop(self.step)

    def on_test_begin(self, logs=None):
        self._stop(self.validation)

    def _stop(self, step):
        if step is not None and int(self.model.optimizer.iterations) == step:
            raise self.error


@pytest.fixture
def plain(whole, monkeypatch):
    """Two epochs of three steps, with everything that is random. They are judged by their loss alone."""
    return make_plain(whole, monkeypatch)


def make_plain(whole, monkeypatch):
    monkeypatch.setattr(fit, "_callbacks", lambda *_: [])
    monkeypatch.setattr(fit, "finish", lambda *_, **__: (None, {}))
    data = dataclasses.replace(
        whole.data,
        random_crop=True,
        flip=True,
        colour=0.3,
        mosaic=0.4,
        mosaic_rows=(3,),
        absent_classes=True,
    )
    more = {"epochs": 2, "steps_per_epoch": 3, "optimizer": "adam", "weight_decay": 0.0}
    more["ema_momentum"] = 0.6
    return changed(dataclasses.replace(whole, data=data), checkpoint_minutes=0.0, **more)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_weights_and_another_one_others(plain):
    one, same_seed, other = (
        fit.fit(changed(plain, run=run, seed=seed, epochs=1)).folder
        for run, seed in (("one", 3), ("same", 3), ("other", 4))
    )
    same(one, same_seed)
    with pytest.raises(AssertionError):
        same(one, other)


@pytest.mark.slow
def test_a_run_that_was_stopped_anywhere_ends_as_one_that_was_not(plain):
    uninterrupted = fit.fit(plain).folder
    config = changed(plain, run="stopped")
    stops = [
        Stop(RuntimeError("killed"), step=1),
        Stop(KeyboardInterrupt(), validation=3),
        Stop(RuntimeError("killed"), step=5),
    ]
    resume = None
    for stop in stops:
        if isinstance(stop.error, KeyboardInterrupt):
            done = fit.fit(config, callbacks=[stop], resume=resume)
            assert done.interrupted
        else:
            with pytest.raises(RuntimeError, match="killed"):
                fit.fit(config, callbacks=[stop], resume=resume)
        resume = uninterrupted.with_name("stopped")
    done = fit.fit(config, resume=resume)
    assert not done.interrupted
    same(uninterrupted, done.folder)
    assert len(checkpoints.stored(done.folder / "checkpoints")) == 2


def test_the_average_is_judged_and_stored_as_the_best_and_taken_from_the_last_checkpoint(
    plain, eager, monkeypatch
):
    """Statistics of batch normalisation included; training itself goes on with its own weights."""
    seen = {"judged": [], "trained": []}

    class Look(keras.callbacks.Callback):
        def on_test_end(self, logs=None):
            seen["trained"].append(self.model.get_weights())

        def on_train_batch_begin(self, batch, logs=None):
            seen["trained"].append(self.model.get_weights())

    class Judge(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            with average.shown():
                seen["judged"] = self.model.get_weights()

    average = None

    def judging(*settings):
        nonlocal average
        *_, average, _ = settings
        return [Judge()]

    monkeypatch.setattr(fit, "_callbacks", judging)
    run = fit.fit(changed(plain, epochs=1), callbacks=[Look()]).folder
    arrays, _ = stored(run)
    weights, averages = (
        {name.split(" ")[1]: arrays[name] for name in arrays if name.startswith(group)}
        for group in ("model/", "average/")
    )
    assert {"normal/moving_mean", "normal/gamma"} <= set(averages)
    assert any(not np.allclose(weights[name], averages[name]) for name in averages)
    for a, b in zip(seen["judged"], averages.values(), strict=True):
        np.testing.assert_array_equal(a, b)
    # After judging, the weights are those of training: the checkpoint has them.
    for a, b in zip(seen["trained"][-1], [weights[name] for name in averages], strict=True):
        np.testing.assert_array_equal(a, b)
    model, loaded = (fit.UnitBox.from_settings(plain.model, plain.decode) for _ in range(2))
    model.load_run(run)
    loaded.load_run(run, last=True)
    for a, b, c in zip(model.get_weights(), loaded.get_weights(), averages.values(), strict=True):
        np.testing.assert_array_equal(a, c)
        np.testing.assert_array_equal(b, c)


def test_a_checkpoint_without_an_average_does_not_go_on_with_one(plain, begun):
    without = learner(changed(plain, ema_momentum=None), begun.folder).state
    assert without.is_restored
    assert without.step.average is None
    without.store()
    with pytest.raises(ValueError, match="was trained with another average"):
        learner(plain, begun.folder)


@pytest.fixture(scope="module")
def stopped(tiny_config, tmp_path_factory):
    """A folder with a run that was stopped after its first epoch and two more steps."""
    folder = tmp_path_factory.mktemp("stopped")
    with two_layers(tiny_config, folder) as whole, pytest.MonkeyPatch.context() as patch:
        config = make_plain(whole, patch)
        make_eager(patch)
        with pytest.raises(RuntimeError, match="killed"):
            fit.fit(config, callbacks=[Stop(RuntimeError("killed"), step=5)])
    return folder


@pytest.fixture
def begun(stopped, plain, eager):
    """The run in `stopped`, copied to where `plain` has its run."""
    folder = runs.Path(plain.train.output) / plain.train.run
    shutil.copytree(stopped / "runs" / "a", folder)
    return runs.Run(folder)


def test_a_damaged_checkpoint_and_a_lost_history_are_made_up_for(plain, begun, tmp_path, caplog):
    copy = tmp_path / "elsewhere"
    shutil.copytree(begun.folder, copy)
    expected = fit.fit(plain, resume=begun.folder).folder
    newest, before = checkpoints.stored(copy / "checkpoints")
    newest.write_bytes(newest.read_bytes()[: newest.stat().st_size // 2])
    (copy / "history.json").unlink()
    (copy / "best.weights.h5").unlink()
    (copy / "checkpoints" / ".partial-01234567-step-00000006.npz").touch()
    found = fit.fit(plain, resume=copy).folder
    assert f"Taking the one before: {before}" in caplog.text
    same(expected, found)
    assert (copy / "best.weights.h5").is_file()
    assert not list((copy / "checkpoints").glob(".partial*"))


def test_an_epoch_begins_anew_if_its_length_changed_and_a_new_learning_rate_is_taken(
    plain, eager, caplog
):
    first = changed(plain, schedule="constant", warmup=0.0)
    more = changed(first, steps_per_epoch=2, learning_rate=0.5)
    rates = []

    class Rates(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            rates.append((batch, float(self.model.optimizer.learning_rate)))

    folder = runs.Path(plain.train.output) / "a"
    with pytest.raises(RuntimeError, match="killed"):
        fit.fit(first, callbacks=[Stop(RuntimeError("killed"), step=5)])
    done = fit.fit(more, resume=folder, callbacks=[Rates()])
    assert rates == [(0, 0.5), (1, 0.5)]
    assert "Epoch 2 begins anew" in caplog.text
    assert [row["iterations"] for row in done.history] == [3, 7]


def test_other_data_are_warned_of(plain, begun, caplog):
    caplog.clear()
    found = learner(plain, begun.folder).state
    found.training_images = 12
    found.take_images(12)
    assert not [record for record in caplog.records if record.levelname == "WARNING"]
    found.take_images(3)
    assert "had 12 images and have 3: they come in another order" in caplog.text


def test_fewer_epochs_than_are_finished_are_refused_and_as_many_only_finish(plain, begun, caplog):
    caplog.set_level("INFO")
    done = fit.fit(plain, resume=begun.folder)
    before = begun.config_file.read_text()
    with pytest.raises(ValueError, match=r"\(--epochs\): expected at least 2.*Received: 1"):
        fit.fit(changed(plain, epochs=1), resume=begun.folder)
    assert begun.config_file.read_text() == before
    again = fit.fit(plain, resume=begun.folder)
    assert again.history == done.history
    assert "All 2 epochs are finished" in caplog.text


def test_a_run_that_was_killed_before_its_first_checkpoint_starts_anew(plain, eager, caplog):
    caplog.set_level("INFO")
    plain = changed(plain, epochs=1, steps_per_epoch=1)
    expected = fit.fit(plain).folder
    killed = expected.with_name("b")
    for resume in (None, killed):
        killed.mkdir()
        files.write(killed / "config.json", plain.to_json())
        (killed / "checkpoints").mkdir()
        (killed / "checkpoints" / ".partial-01234567-step-00000001.npz").write_bytes(b"half")
        done = fit.fit(changed(plain, run="b"), resume=resume)
        assert done.folder == killed
        same(expected, killed)
        shutil.rmtree(killed)
    assert "was stopped before its first checkpoint. It starts anew" in caplog.text


def test_a_run_that_is_killed_when_it_has_stored_its_first_best_weights_goes_on(
    plain, eager, monkeypatch
):
    expected = fit.fit(plain).folder
    config = changed(plain, run="b", checkpoint_minutes=1000.0)
    store_best = callbacks.StoreRun._store_best

    def killed(self):
        store_best(self)
        raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(callbacks.StoreRun, "_store_best", killed)
        with pytest.raises(RuntimeError, match="killed"):
            fit.fit(config)
    with pytest.raises(ValueError, match=r"go on with it: name it as resume \(--resume\)"):
        fit.fit(config)
    done = fit.fit(config, resume=expected.with_name("b"))
    same(expected, done.folder)


def test_an_interruption_before_the_first_step_leaves_no_folder(plain, eager, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "train", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fit.fit(plain)
    assert not runs.Path(plain.train.output).exists()


def test_a_second_process_is_refused_at_once(plain, begun):
    before = sorted(path.name for path in begun.folder.rglob("*"))
    program = (
        "import sys, time; from unitbox_tf import files\n"
        f"with files.locked({str(begun.folder)!r}, 'trains in'):\n"
        "    print('locked', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"locked\n"
        with pytest.raises(ValueError, match="another process trains in this folder"):
            fit.fit(plain, resume=begun.folder)
        process.kill()
    assert sorted(path.name for path in begun.folder.rglob("*")) == before
    assert len(fit.fit(plain, resume=begun.folder).history) == 2


def test_a_run_that_another_process_has_made_meanwhile_is_not_spoiled(plain, begun):
    with pytest.raises(ValueError, match="exists already"), fit._locked(begun.folder, new=True):
        pass
    assert begun.has_weights


FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("name", ["best.weights.h5", "step-00000006.npz", "history.json"])
def test_a_full_disk_ends_training_with_the_old_files_whole(plain, begun, monkeypatch, name):
    """Whichever file it is that cannot be written."""
    sync = files._sync

    def full(path):
        if path.name.endswith(name):
            raise OSError(*FULL.args)
        sync(path)

    write = files.Path.write_bytes

    def write_full(path, content):
        if path.name.endswith(name) and path.name != name:
            write(path, content[: len(content) // 2])
            raise OSError(*FULL.args)
        return write(path, content)

    before = {path: path.read_bytes() for path in begun.folder.rglob("*") if path.is_file()}
    with monkeypatch.context() as patch:
        patch.setattr(files, "_sync", full)
        patch.setattr(files.Path, "write_bytes", write_full)
        # The history is also written when training begins.
        with pytest.raises(OSError, match=rf"no space left: training has ended.*{name}|{name}"):
            fit.fit(plain, resume=begun.folder)
    kept = {path for path in before if path.name.endswith((name, "5.npz"))}
    assert all(path.read_bytes() == before[path] for path in kept)
    assert not [path for path in begun.folder.rglob(".partial*")]
    assert len(fit.fit(plain, resume=begun.folder).history) == 2


def test_tensorflow_says_in_words_alone_that_a_disk_is_full():
    assert fit._is_full(tf.errors.ResourceExhaustedError(None, None, "x; No space left on device"))
    assert not fit._is_full(tf.errors.InternalError(None, None, "something else"))
    assert not fit._is_full(FileNotFoundError(errno.ENOENT, "absent"))


class Spoil(keras.callbacks.Callback):
    """Makes a weight infinite before a step."""

    def __init__(self, *steps):
        super().__init__()
        self.steps, self.kept = steps, None

    def on_train_batch_begin(self, batch, logs=None):
        self.kept = None
        if int(self.model.optimizer.iterations) in self.steps:
            self.steps = self.steps[1:]
            weight = self.model.trainable_variables[0]
            self.kept = weight.numpy()
            weight.assign(np.full_like(self.kept, np.inf))

    def on_train_batch_end(self, batch, logs=None):
        if self.kept is not None:
            self.model.trainable_variables[0].assign(self.kept)


def test_bad_batches_are_skipped_and_reported_up_to_a_number(plain, eager, monkeypatch, caplog):
    written = []
    monkeypatch.setattr(state.State, "write", lambda self, path: written.append(path.name))
    config = changed(plain, skip_bad_batches=1)
    done = fit.fit(config, callbacks=[Spoil(1)])
    assert [row["iterations"] for row in done.history] == [3, 6]
    assert "Skipped a batch (1 of 1): not finite at step 2 of epoch 1: " in caplog.text
    [report] = (done.folder / "bad_batches").glob("*/report.json")
    assert report.parent.name == "step-2"
    content = json.loads(report.read_text())
    assert (content["steps"], content["epoch"], content["step_of_epoch"]) == (2, 1, 2)
    assert content["not_finite"]["gradients"]
    assert "state.npz" in written
    with pytest.raises(state.Diverged, match=r"\(--learning-rate\).*step-4 names the images"):
        fit.fit(changed(config, run="b"), callbacks=[Spoil(1, 2)])


def test_the_names_of_a_bad_batch_are_those_of_its_images(plain, monkeypatch):
    monkeypatch.setattr(fit.pipeline, "training_dataset", lambda *_, **__: None)
    monkeypatch.setattr(fit.pipeline, "validation_dataset", lambda *_, **__: None)

    class Seen(Exception):
        pass

    def learn(found, config, shown, judged, *_):
        found.state.step.steps.assign(4)
        _, _, names = fit._batches(found.model, config, shown, judged, found.state, None)
        raise Seen(names(range(8, 10)))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fit, "_learn", learn)
        with pytest.raises(Seen) as found:
            fit.fit(plain)
        stream = tf.data.Dataset.from_generator(
            lambda: iter([{"image": np.zeros((9, 9, 3), np.uint8), "boxes": np.zeros((0, 4))}]),
            output_signature={
                "image": tf.TensorSpec([None, None, 3], tf.uint8),
                "boxes": tf.TensorSpec([None, 4], tf.float64),
            },
        )
        with pytest.raises(Seen) as elements:
            fit.fit(changed(plain, run="c"), train=stream)
    [names] = found.value.args
    assert [len(each) for each in names] == [1, 9]
    assert all("synthetic/" in name for each in names for name in each)
    assert elements.value.args[0][0] == ["element 8 of all that were shown"]


def test_weights_that_are_not_finite_are_not_stored(plain, begun, monkeypatch):
    before = [path.read_bytes() for path in checkpoints.stored(begun.checkpoints)]
    stored_as_usual = callbacks.StoreRun.on_train_batch_end

    def spoiled(self, batch, logs=None):
        self.model.trainable_variables[0].assign(self.model.trainable_variables[0] * np.nan)
        stored_as_usual(self, batch, logs)

    monkeypatch.setattr(callbacks.StoreRun, "on_train_batch_end", spoiled)
    with pytest.raises(state.Diverged, match="kernel are not finite after step 6"):
        fit.fit(plain, resume=begun.folder)
    assert [path.read_bytes() for path in checkpoints.stored(begun.checkpoints)] == before


def test_a_checkpoint_is_stored_when_the_last_one_is_old(tmp_path):
    now, counted = [100.0], []
    begun = type("State", (), {"store": lambda self: counted.append(now[0])})()
    average = callbacks.JudgeAverage(None)
    store = callbacks.StoreRun(
        tmp_path, begun, "summary", minutes=2.0, average=average, clock=lambda: now[0]
    )
    now[0] = 1000.0  # tracing and reading took long
    store.on_train_begin()
    for _ in range(8):
        now[0] += 50.0
        store.on_train_batch_end(0)
    assert counted == [1150.0, 1300.0]
