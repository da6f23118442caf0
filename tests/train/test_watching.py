import logging

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from unitbox_tf.config import Config, ModelConfig
from unitbox_tf.train import targets, watching


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def epochs_of(capsys, steps, verbose=2, first=0):
    """The printed lines of the rest of 3 epochs. A step takes 2 s, tracing 10 s more, and judging 6 s."""
    clock = Clock()
    line = watching.ProgressLine(batch_size=8, epochs=3, clock=clock)
    line.set_params({"verbose": verbose, "epochs": 3, "steps": steps})
    line.on_train_begin()
    printed = []
    for epoch in range(first, 3):
        line.on_epoch_begin(epoch)
        clock.now += 10 if epoch == first else 0
        for step in range(steps):
            clock.now += 2
            line.on_train_batch_end(step, {"loss": 1.0})
        clock.now += 6
        logs = {"loss": 1.0}
        line.on_epoch_end(epoch, logs)
        assert logs == {"loss": 1.0}
        printed.append(capsys.readouterr().out)
    return printed


def test_the_progress_line_has_the_speed_and_the_time_left_with_judging(capsys):
    first, second, third = epochs_of(capsys, steps=11)
    for text in (first, second, third):
        assert (
            "loss: 1.0000 - images_per_second: 4.0000" in text
        )  # 8 images in 2 s, without tracing
    assert "minutes_left: 0.9300" in first  # 2 epochs of 22 and 6 s
    assert "minutes_left: 0.4700" in second
    assert "minutes_left: 0.0000" in third
    [resumed] = epochs_of(capsys, steps=11, first=2)
    assert "minutes_left: 0.0000" in resumed


def test_one_step_is_measured_with_its_tracing(capsys):
    first, second, _ = epochs_of(capsys, steps=1)
    assert "images_per_second: 0.6700 - minutes_left: 0.6000" in first  # 12 s, then 2 x (12 + 6)
    assert "images_per_second: 4.0000 - minutes_left: 0.1300" in second


def test_the_bar_shows_the_time_left_within_an_epoch(capsys):
    first, second, _ = epochs_of(capsys, steps=3, verbose=1)
    assert first.count("images_per_second: 4.0000") == 1  # the first step of all traces
    # After a step of the second epoch: five steps of 2 s and two judgements of 6 s.
    assert "images_per_second: 4.0000 - minutes_left: 0.3700" in second


def test_a_quiet_run_prints_no_progress(capsys):
    assert epochs_of(capsys, steps=3, verbose=0) == ["", "", ""]


@pytest.mark.parametrize(("region", "stride"), [("ellipse", 1), ("box", 1), ("ellipse", 2)])
@given(seed=st.integers(0, 999), count=st.integers(0, 5))
def test_the_boxes_of_targets_are_those_that_were_encoded(region, stride, seed, count):
    random = np.random.default_rng(seed)
    corners = random.uniform(-4, 24, (count, 2))
    boxes = np.hstack([corners, corners + random.uniform(3, 12, (count, 2))]).astype(np.float32)
    classes = random.integers(0, 3, count).astype(np.int32)
    ignore = random.random(count) < 0.3
    maps, _ = targets.encode(
        tf.constant(boxes),
        tf.constant(classes),
        tf.constant(ignore),
        32,
        32,
        num_classes=3,
        region=region,
        stride=stride,
    )
    found, labels = watching.boxes_in_targets(**maps, stride=stride)
    expected = {(*box.round(1), label) for box, label in zip(boxes, classes, strict=True)}
    apart = [min((np.abs(box - b).max() for b in boxes), default=9) for box in found]
    assert all(distance < 0.01 for distance in apart)
    assert len(found) <= len(expected)
    # Each object that owns a pixel is there: those that no other hides.
    for index, (box, label) in enumerate(zip(boxes, classes, strict=True)):
        others = np.delete(boxes, index, axis=0)
        apart = (others[:, :2] >= box[2:]) | (others[:, 2:] <= box[:2])
        inside = (box[:2] >= 0).all() and (box[2:] <= 32).all()
        if inside and not ignore[index] and apart.any(axis=1).all():
            same = np.abs(found - box).max(axis=1) < 0.01 if len(found) else np.zeros(0, bool)
            assert labels[same].tolist() == [label]


@pytest.mark.parametrize("stride", [1, 4, 8])
def test_pictures_of_a_batch_have_its_boxes_and_its_dark_pixels(stride):
    """Images of 33 px, which is no multiple of the strides."""
    boxes = tf.constant([[4.0, 4, 20, 20], [22, 22, 30, 30]])
    maps, weights = targets.encode(
        boxes, tf.constant([1, 0]), tf.constant([False, True]), 33, 33, num_classes=2, stride=stride
    )
    batch = (
        tf.fill([6, 33, 33, 3], 200.0),
        {name: tf.stack([value] * 6) for name, value in maps.items()},
        {name: tf.stack([value] * 6) for name, value in weights.items()},
    )
    pictures = watching.draw_batch(batch, ("cat", "dog"), stride)
    assert len(pictures) == watching.PICTURES
    for picture in pictures:
        assert picture.dtype == np.uint8
        assert picture.shape == (33, 33, 3)
        assert picture[4, 12].tolist() == [40, 200, 60]  # green: the upper side of the box
        assert picture[26, 26].tolist() == [70, 70, 70]
        assert picture[2, 28].tolist() == [200, 200, 200]


def test_the_settings_are_a_table_with_each_of_them():
    table = watching.settings_table(Config(model=ModelConfig(class_names=("a|b",))))
    assert "| model | class_names | ('a&#124;b',) |" in table
    assert "| train | learning_rate | 0.001 |" in table
    assert len({line.count("|") for line in table.splitlines()}) == 1
    assert len(table.splitlines()) > 50


def test_warnings_of_retracing_are_left_out_and_others_are_not(caplog, monkeypatch):
    logger = logging.getLogger("tensorflow")
    monkeypatch.setattr(
        logger, "propagate", True
    )  # a library of another test may have turned both off
    monkeypatch.setattr(logger, "disabled", False)
    caplog.set_level(logging.WARNING, "tensorflow")
    text = "5 out of the last 5 calls to %s triggered tf.function retracing. Tracing is expensive"
    with watching.no_retracing_warnings():
        logger.warning(text, "step")
        logger.warning("another")
    assert [record.getMessage() for record in caplog.records] == ["another"]
    logger.warning(text, "step")
    assert len(caplog.records) == 2
