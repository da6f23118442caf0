import dataclasses

import numpy as np
import pytest

from unitbox_tf import images as image_ops
from unitbox_tf import visualize
from unitbox_tf.config import ModelConfig
from unitbox_tf.datasets import synthetic
from unitbox_tf.inspection import pictures
from unitbox_tf.presets import PRESETS
from unitbox_tf.records import Annotation

FACES = PRESETS["faces"]


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """The colour of padding is all that is needed of the backbone."""
    monkeypatch.setattr(pictures, "_padding", lambda config: (10.0, 20.0, 30.0))


def config(**settings):
    plain = {"random_crop": False, "mosaic": 0.0, "colour": 0.0, "flip": False, "min_object": 0.0}
    data = dataclasses.replace(FACES.data, **{**plain, "image_size": 96, **settings})
    return dataclasses.replace(FACES, data=data)


def annotation(boxes, classes=None, ignore=None, size=(96, 96), name="a"):
    grey = np.full((*size, 3), 128, np.uint8)
    return Annotation(name, grey, boxes, classes, ignore, size=size)


def test_the_pictures_chosen_have_every_class_and_an_empty_image():
    given = [annotation([[0, 0, 9, 9]], [0], name=str(number)) for number in range(100)]
    given[57] = annotation([[0, 0, 9, 9]], [2], name="rare")
    given[58] = annotation([[0, 0, 9, 9]], [1], [True], name="ignored")
    found = [each.name for each in pictures.chosen(given, 3, 6)]
    assert len(found) == 6
    assert {"rare", "ignored"} <= set(found)
    assert len(set(found)) == 6
    assert pictures.chosen(given[:2], 3, 6) == given[:2]
    assert pictures.chosen([], 3, 6) == []


def test_boxes_are_drawn_where_they_are_in_the_colours_of_their_classes():
    boxes = [[100, 200, 500, 700], [600, 100, 900, 300], [20, 20, 80, 90]]
    given = annotation(boxes, [0, 1, 1], [False, False, True], (800, 1000))
    drawn = pictures.annotated(given, ("cat", "dog"))
    assert drawn.shape == (384, 480, 3)
    for (x0, y0, x1, y1), colour in zip(
        np.multiply(boxes, 0.48).round().astype(int).tolist(),
        (pictures.colour(0), pictures.colour(1), (150, 150, 150)),
        strict=True,
    ):
        assert tuple(drawn[(y0 + y1) // 2, x0]) == tuple(drawn[y1, (x0 + x1) // 2]) == colour


@pytest.mark.parametrize("name", ["\0", "猫" * 40, "<b>", "%s\n", "\udcff"])
def test_any_class_name_can_be_drawn(name):
    given = annotation([[5, 5, 50, 50]])
    drawn, unnamed = (pictures.annotated(given, (text, "other")) for text in (name, ""))
    assert drawn.shape == unnamed.shape
    assert (drawn != unnamed).any()  # the label


def test_images_that_cannot_be_decoded_are_left_out(tmp_path):
    good = annotation([[5, 5, 50, 50]])
    broken = [
        dataclasses.replace(good, image=b"x"),
        dataclasses.replace(good, image=tmp_path / "g"),
    ]
    assert [each for each, _ in pictures.drawable([broken[0], good, broken[1]], ("a",))] == [good]


def test_targets_are_those_of_the_pipeline():
    given = annotation([[8, 16, 56, 64], [60, 60, 90, 90]], [1, 0], [False, True])
    [shown] = pictures.batch([given], config(), 2, 1)
    assert shown.image.shape == (288, 288, 3)  # three pixels for one
    assert (shown.image == 128).all()
    ellipse = tuple(64 // 4 + np.multiply(pictures.colour(1), 3) // 4)
    confidence = shown.confidence[1::3, 1::3]
    mine = (confidence == ellipse).all(axis=-1)
    y, x = np.nonzero(mine)
    assert (x.min(), x.max(), y.min(), y.max()) == (8, 55, 16, 63)
    assert mine.sum() == pytest.approx(np.pi * 24**2, rel=0.01)  # the ellipse in the box
    grey = (confidence == (150, 150, 150)).all(axis=-1)
    y, x = np.nonzero(grey)
    assert (x.min(), x.max(), y.min(), y.max()) == (60, 89, 60, 89)
    assert 0.4 < grey.sum() / 900 < 0.6  # hatched
    # The box, and the lines from its middle.
    distances = shown.distances
    assert tuple(distances[3 * 64, 3 * 40]) == tuple(distances[3 * 20, 3 * 8]) == pictures.colour(1)
    lines = (distances == visualize.DETECTION_COLOUR).all(axis=-1)
    assert lines[3 * 39 : 3 * 41].sum(axis=1).max() >= 3 * 48  # from the left side to the right one
    assert lines[:, 3 * 31 : 3 * 33].sum(axis=0).max() >= 3 * 48
    assert (distances[3 * 60 + 2 :, 3 * 70 :] == 128).all()  # nothing is drawn of the ignored box


def test_targets_of_a_stride_are_drawn_where_their_points_are():
    """An object of 8 to 56 px owns the points 10, 14, ..., 54: squares of 4 px from 8 to 56 px."""
    given = annotation([[8, 16, 56, 64], [60, 60, 90, 90]], [1, 0], [False, True], (94, 94))
    light = ModelConfig(backbone="light", neck="top_down", map_stride=4)
    chosen = dataclasses.replace(config(region="box", image_size=94), model=light)
    [shown] = pictures.batch([given], chosen, 2, 1)
    assert shown.image.shape == shown.confidence.shape == (3 * 94, 3 * 94, 3)
    painted = tuple(64 // 4 + np.multiply(pictures.colour(1), 3) // 4)
    y, x = np.nonzero((shown.confidence[1::3, 1::3] == painted).all(axis=-1))
    assert (x.min(), x.max() + 1, y.min(), y.max() + 1) == (8, 56, 16, 64)
    assert len(x) == 48 * 48
    grey = (shown.confidence[1::3, 1::3] == (150, 150, 150)).all(axis=-1)
    y, x = np.nonzero(grey)
    # The last point in it is at 86: 90 is on its side.
    assert (x.min(), x.max() + 1, y.min(), y.max() + 1) == (60, 88, 60, 88)
    distances = shown.distances
    assert tuple(distances[3 * 20, 3 * 8]) == tuple(distances[3 * 20, 3 * 56]) == pictures.colour(1)
    middle = [(x, y) for x in (30, 34) for y in (38, 42)]
    marked = [tuple(distances[3 * y, 3 * x]) == visualize.DETECTION_COLOUR for x, y in middle]
    assert sum(marked) >= 1


@pytest.mark.slow
def test_random_changes_are_those_of_the_settings():
    given = [synthetic.draw(number) for number in range(4)]
    cropped = pictures.batch(given, config(random_crop=True, mosaic=1.0, image_size=64), 1, 4)
    assert len(cropped) == 4
    assert cropped[0].image.shape == (256, 256, 3)
    whole = pictures.batch(given, config(), 1, 4)
    originals = [image_ops.decode_photo(each.image).numpy() for each in given]
    for shown in whole:
        errors = [np.abs(shown.image[1::3, 1::3].astype(int) - each).max() for each in originals]
        assert min(errors) <= 1


def test_images_without_objects_give_empty_targets():
    [shown] = pictures.batch([annotation([])], config(), 1, 1)
    assert (shown.confidence == 64).all()
    np.testing.assert_array_equal(shown.distances, shown.image)


def test_if_nothing_can_be_decoded_it_is_an_error():
    with pytest.raises(ValueError, match="none of the 1 images can be decoded"):
        pictures.batch([dataclasses.replace(annotation([]), image=b"x")], config(), 1, 1)
