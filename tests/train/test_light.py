"""A run of a light network with a map at a stride, from the settings to the results, and its checked step."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from unitbox_tf import runs
from unitbox_tf.detect.model import UnitBox
from unitbox_tf.presets import PRESETS
from unitbox_tf.train import fit, steps, targets
from unitbox_tf.train.average import Average


@pytest.fixture(scope="module")
def light(tiny_config):
    """The recipe of `faces_light` with a network a quarter as wide and images of 64 px."""
    preset = PRESETS["faces_light"]
    tiny = tiny_config.train
    return dataclasses.replace(
        preset,
        data=dataclasses.replace(
            preset.data,
            train_sources=tiny_config.data.train_sources,
            validation_sources=tiny_config.data.validation_sources,
            absent_classes=True,
            image_size=64,
            object_size=(9.0, 50.0),
        ),
        model=dataclasses.replace(
            preset.model, class_names=("object", "other"), width=0.25, neck_channels=8
        ),
        loss=dataclasses.replace(preset.loss, confidence_target="iou"),
        train=dataclasses.replace(
            preset.train,
            epochs=1,
            steps_per_epoch=2,
            batch_size=4,
            precision="float32",
            output=tiny.output,
            run="light",
        ),
        decode=dataclasses.replace(preset.decode, max_side=64, max_detections=20),
    )


@pytest.fixture(scope="module")
def light_run(light):
    """A run of it, but for the judging and exporting of its best weights."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fit, "finish", lambda *_, **__: (None, {}))
        return fit.fit(light)


@pytest.mark.slow
def test_a_light_run_learns_and_is_judged_at_the_stride_of_its_map(light_run):
    [row] = light_run.history
    for name in ("loss", "val_loss", "val_confidence_loss", "val_distances_loss", "val_ap50"):
        assert np.isfinite(row[name]), name
    stored = runs.Run(light_run.folder).config()
    assert stored.train.ema_momentum == PRESETS["faces_light"].train.ema_momentum
    assert UnitBox.from_preset(light_run.folder).map_stride == 4


@pytest.mark.slow
def test_a_light_run_is_judged_with_each_decoder_and_exported(light, light_run):
    done = fit.fit(light, resume=light_run.folder)
    assert done.history == light_run.history
    assert set(done.results) == {"peaks", "ellipse"}
    assert done.results["peaks"]["images"] == 4
    assert (done.folder / "saved_model" / "saved_model.pb").is_file()
    assert done.model.map_stride == 4


@pytest.mark.slow
def test_tensorboard_shows_its_batches_at_the_size_of_the_images(light_run):
    loader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    [path] = (light_run.folder / "tensorboard" / "settings").glob("events.*")
    events = loader.EventAccumulator(str(path), {"images": 0, "tensors": 0})
    events.Reload()
    assert "batch/0" in events.Tags()["tensors"]
    width, height, *_ = tf.make_ndarray(events.Tensors("batch/0")[0].tensor_proto)
    assert (int(width), int(height)) == (64, 64)


@pytest.mark.slow
def test_the_validation_loss_is_that_of_the_stored_weights_at_the_stride(light, light_run):
    """The stored weights are the average, which is judged."""
    model = UnitBox.from_preset(light_run.folder)
    fit.compile_model(model, light, False)
    captured = []

    def looked_at(found, config, shown, judged, *_):
        captured.append(fit._batches(found.model, config, shown, judged, found.state, None)[1])
        raise InterruptedError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fit, "_learn", looked_at)
        with pytest.raises(InterruptedError):
            fit.fit(dataclasses.replace(light, train=dataclasses.replace(light.train, run="b")))
    [validation] = captured
    images, maps, weights = next(iter(validation))
    assert maps["confidence"].shape == (4, 16, 16, 2)
    reported = model.test_on_batch(images, maps, weights, return_dict=True)
    [row] = light_run.history
    assert reported["loss"] == pytest.approx(row["val_loss"], rel=1e-4)


@pytest.fixture
def eager_step(light):
    """A checked step of the light network that runs without being traced, with its average and a batch."""
    model = UnitBox.from_settings(light.model, light.decode)
    fit.compile_model(model, light, False)
    model.run_eagerly = True
    average = Average(model, 0.9)
    step = steps.CheckedStep(model, average)
    model.make_train_function(force=True)
    boxes = tf.constant([[4.0, 5, 30, 28], [36, 30, 44, 41]])
    maps, weights = targets.encode(
        boxes, tf.constant([0, 1]), tf.constant([False] * 2), 64, 64, num_classes=2, stride=4
    )

    def batch(value):
        image = np.random.default_rng(0).uniform(0, 255, (2, 64, 64, 3)).astype(np.float32)
        image[0, 0, 0, 0] = value
        both = [{name: tf.stack([x, x]) for name, x in each.items()} for each in (maps, weights)]
        return iter(tf.data.Dataset.from_tensors((image, *both)))

    return model, step, average, batch


def everything(model, average):
    variables = [*model.variables, *model.optimizer.variables, *average.variables]
    variables += [variable for metric in model.metrics for variable in metric.variables]
    return [variable.numpy() for variable in variables]


def test_a_bad_step_changes_neither_statistics_nor_the_average_and_a_good_one_both(eager_step):
    model, step, average, batch = eager_step
    before = everything(model, average)
    model.train_function(batch(np.nan))
    assert (int(step.steps), int(step.bad)) == (1, 1)
    for a, b in zip(before, everything(model, average), strict=True):
        np.testing.assert_array_equal(a, b)
    model.train_function(batch(1.0))
    assert (int(step.steps), int(step.bad)) == (2, 1)
    share = 1 - 2 / 11  # of step 1: 1 - (1 + 1) / (10 + 1)
    old = dict(zip(map(id, model.variables), before, strict=False))
    changed = set()
    for weight, mean in zip(average.weights, average.variables, strict=True):
        start = old[id(weight)]
        expected = start + share * (weight.numpy() - start)
        np.testing.assert_allclose(mean, expected, rtol=1e-5, atol=1e-6, err_msg=weight.path)
        if not np.array_equal(weight, start):
            changed.add(weight.name)
    assert {"kernel", "gamma", "moving_mean", "moving_variance"} <= changed
