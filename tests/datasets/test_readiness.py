import dataclasses
import logging

import numpy as np
import pytest

from unitbox_tf.config import Config, DataConfig, DecodeConfig, ModelConfig
from unitbox_tf.datasets import readiness, synthetic
from unitbox_tf.records import Annotation

NAMES = ("cat", "dog")


def config(**settings):
    return Config(data=DataConfig(**settings), model=ModelConfig(class_names=NAMES))


def images(first, last, label=None):
    found = []
    for number in range(first, last):
        each = synthetic.draw(number)
        classes = np.full(len(each.boxes), number % 2 if label is None else label)
        found.append(dataclasses.replace(each, classes=classes))
    return found


def test_good_data_is_summed_up_in_a_few_lines(caplog):
    caplog.set_level(logging.INFO, "unitbox_tf")
    readiness.check(images(0, 10), images(10, 14), config())
    lines = [record.message for record in caplog.records]
    assert len(lines) == 3
    assert lines[0].startswith("training: 10 images (0 without objects), ")
    assert ": cat " in lines[0]
    assert lines[1].startswith("validation: 4 images")
    assert "training shows objects" in lines[2]
    assert "max_side 416" in lines[2]
    assert all(record.levelno == logging.INFO for record in caplog.records)


def test_objects_that_are_hard_to_find_are_counted(caplog):
    caplog.set_level(logging.INFO, "unitbox_tf")
    small = dataclasses.replace(Config(), decode=DecodeConfig(max_side=24))
    small = dataclasses.replace(small, model=ModelConfig(class_names=NAMES))
    readiness.check(images(0, 10), images(10, 14), small)
    assert "of the objects are below 16 px at every scale of detection" in caplog.text


def test_objects_that_may_lie_between_the_points_of_a_map_are_counted(caplog):
    caplog.set_level("INFO")
    boxes = [[9, 9, 13, 40], [9, 50, 16, 57], [20, 9, 24.5, 20]]
    given = [
        Annotation(str(number), synthetic.draw(number).image, boxes, size=(96, 96))
        for number in range(2)
    ]
    light = ModelConfig(class_names=("object",), backbone="light", neck="top_down")
    for model, line in (
        (light, "2 of 6 objects are then at most 4 px wide or high, the map_stride"),
        (dataclasses.replace(light, map_stride=8), "6 of 6 objects are then at most 8 px"),
        (ModelConfig(class_names=("object",)), None),
    ):
        caplog.clear()
        readiness.check(given, images(10, 11, 0), dataclasses.replace(config(), model=model))
        assert (line or "hard to find") in caplog.text
        assert ("map_stride" in caplog.text) == (line is not None)


def test_no_image_at_all_is_refused():
    with pytest.raises(ValueError, match="there is no training image"):
        readiness.check([], images(0, 2), config())


def test_a_class_without_objects_is_refused_by_its_name():
    given = images(0, 4, label=0), images(10, 14)
    with pytest.raises(ValueError, match=r"no training image has an object of: dog\. .*--absent-"):
        readiness.check(*given, config())
    readiness.check(*given, config(absent_classes=True))


def test_ignored_objects_do_not_count():
    given = [dataclasses.replace(each, ignore=each.classes == 1) for each in images(0, 4)]
    with pytest.raises(ValueError, match=r"no training image has an object of: dog\."):
        readiness.check(given, images(10, 14), config())


@pytest.mark.parametrize("allowed", [False, True])
def test_no_object_at_all_is_refused_whatever_is_allowed(allowed):
    empty = [each.select([]) for each in images(0, 3)]
    with pytest.raises(ValueError, match="none of the 3 training images has an object to learn"):
        readiness.check(empty, images(10, 11), config(absent_classes=allowed))


def test_validation_images_among_the_training_images_are_refused(tmp_path):
    training = images(0, 6)
    (tmp_path / "copy.png").write_bytes(training[3].image)
    copy = Annotation("val/copy", tmp_path / "copy.png", [])
    with pytest.raises(ValueError, match="1 of 3 validation images are among the train") as error:
        readiness.check(training, [*images(10, 12), copy], config())
    assert f"{tmp_path / 'copy.png'} is synthetic/3" in str(error.value)
    assert "--shared-images" in str(error.value)
    readiness.check(training, [*images(10, 12), copy], config(shared_images=True))


def test_repeats_within_training_are_allowed():
    twice = images(0, 4)
    readiness.check([*twice, *twice], images(10, 12), config())


def test_an_image_that_is_there_twice_is_named_once(tmp_path):
    [image] = images(0, 1)
    (tmp_path / "a.png").write_bytes(image.encoded())
    image = dataclasses.replace(image, image=tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"the first: \S*a\.png\. Use other images"):
        readiness.check([image, *images(1, 4)], [image], config())


def test_all_reasons_are_given_at_once():
    with pytest.raises(ValueError, match=r"object of: dog\. .*\(--absent-classes\)\. 1 of 1 valid"):
        readiness.check(images(0, 2, label=0), images(0, 1), config())


def test_images_that_are_unreadable_or_of_odd_size_stop_nothing_and_are_not_reported(
    tmp_path, caplog
):
    caplog.set_level(logging.WARNING, "unitbox_tf")
    gone = Annotation("gone", tmp_path / "gone.png", [])
    odd = Annotation("odd", synthetic.draw(9).image, [[0, 0, 9, 9]], size=(9, 9))
    broken = Annotation("broken", b"no image", [[0, 0, 9, 9]])
    readiness.check([*images(0, 4), broken, gone, odd], [*images(5, 6), gone], config())
    assert not [each for each in caplog.records if each.levelno >= logging.WARNING]


def test_a_stream_cannot_be_looked_at_and_that_is_said(caplog):
    caplog.set_level(logging.INFO, "unitbox_tf")
    readiness.check(None, images(0, 2), config())
    assert "cannot be looked at before training" in caplog.text
