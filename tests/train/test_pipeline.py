import dataclasses

import cv2
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.images import exif_jpeg, picture
from unitbox_tf import boxes as box_ops
from unitbox_tf import images
from unitbox_tf.config import DataConfig
from unitbox_tf.datasets import synthetic
from unitbox_tf.problems import Problems
from unitbox_tf.records import Annotation
from unitbox_tf.train import order, pipeline, reading

SIZE = 75  # no multiple of 32, and odd
AUGMENTED = DataConfig(
    image_size=SIZE,
    random_crop=True,
    object_size=(16.0, 60.0),
    flip=True,
    colour=0.3,
    mosaic=0.5,
    min_object=5.0,
)


def annotations(count=8):
    return [synthetic.draw(number) for number in range(count)]


def batches(data=AUGMENTED, count=3, source=None, problems=None, **more):
    more = {"labels": pipeline.Labels(1), "batch_size": 4, "seed": 1, **more}
    dataset = pipeline.training_dataset(
        source or annotations(), data, problems=problems or Problems(), **more
    )
    return list(dataset.take(count).as_numpy_iterator())


@st.composite
def annotated_photos(draw):
    """An image of any size, and boxes that do not touch; some leave it."""
    height, width = draw(st.integers(40, 150)), draw(st.integers(40, 150))
    boxes = []
    for left in range(0, width - 30, 40):
        if draw(st.booleans()):
            x, y = left + draw(st.integers(-3, 5)), draw(st.integers(-10, height - 25))
            boxes.append((x, y, x + draw(st.integers(20, 30)), y + draw(st.integers(20, 60))))
    png = cv2.imencode(".png", np.zeros((height, width), np.uint8))[1].tobytes()
    return Annotation("photo", png, boxes), height, width


# Each example builds a pipeline, which takes far longer than an image does.
@pytest.mark.slow
@settings(max_examples=8)
@given(
    st.lists(annotated_photos(), min_size=4, max_size=6),
    st.integers(33, 130),
    st.sampled_from(["ellipse", "box"]),
)
def test_every_heatmap_decodes_to_the_boxes_it_was_made_from(photos, size, region):
    dataset = pipeline.validation_dataset(
        [annotation for annotation, _, _ in photos],
        DataConfig(region=region),
        size=size,
        labels=pipeline.Labels(1),
        batch_size=1,
        problems=Problems(),
    )
    points = box_ops.pixel_centres(size, size)
    batches = dataset.as_numpy_iterator()
    for (annotation, height, width), (_, targets, weights) in zip(photos, batches, strict=True):
        sides = np.float32([width, height])  # as the graph computes: the sides are rounded
        scale = np.minimum(np.float32(1), np.float32(size) / sides.max())
        shown = np.tile(np.round(sides * scale) / sides, 2)
        truth = box_ops.clip(annotation.boxes, height, width) * shown
        positive = weights["distances"][0] > 0
        decoded = box_ops.distances_to_boxes(targets["distances"][0], points).numpy()[positive]
        for box in decoded:
            assert np.abs(truth - box).max(axis=1).min() < 0.01
        for box in truth:
            assert np.abs(decoded - box).max(axis=1).min() < 0.01


def test_boxes_lie_on_the_objects_after_all_augmentation():
    """The image inside the heatmap's ellipses looks like the objects: dark core, light rim."""
    colourless = dataclasses.replace(AUGMENTED, colour=0.0)
    for pictures, targets, _ in batches(colourless):
        inside = targets["confidence"][..., 0] > 0
        distances = np.where(targets["distances"] > 0, targets["distances"], np.nan)
        t, b, l, r = np.moveaxis(distances, -1, 0)  # noqa: E741
        off_centre = np.hypot((t - b) / (t + b), (l - r) / (l + r))
        core = inside & (off_centre < 0.2)
        assert pictures[core].mean() < 100
        assert pictures[inside & (off_centre > 0.75)].mean() > 130


@pytest.mark.slow
def test_the_seed_fixes_the_batches():
    first, again, other = batches(), batches(), batches(seed=2)
    for (a, _, _), (b, _, _), (c, _, _) in zip(first, again, other, strict=True):
        np.testing.assert_array_equal(a, b)
        assert (a != c).any()


@pytest.mark.parametrize(
    ("data", "parts"),
    [
        (AUGMENTED, {1, 4}),
        pytest.param(
            dataclasses.replace(AUGMENTED, mosaic=0.6, mosaic_rows=(2, 3)),
            {1, 4, 9},
            marks=pytest.mark.slow,
        ),
        pytest.param(
            DataConfig(image_size=SIZE, mosaic=1.0, mosaic_rows=(3,)), {9}, marks=pytest.mark.slow
        ),
    ],
)
def test_training_that_goes_on_sees_what_it_would_have_seen(data, parts):
    """At any image, also within a batch of another size and where images are broken."""
    source = [*annotations(5), Annotation("broken", b"no image", [])]
    known = order.orders(len(source), 1, data.mosaic_rows)
    whole = batches(data, count=9, source=source, batch_size=2, known=known)
    for start, count, size in ((4, 3, 2), (10, 1, 4), (17, 1, 1)):
        more = batches(data, count=count, source=source, batch_size=size, start=start)
        for index in range(3):
            one, other = ([batch[index] for batch in found] for found in (whole, more))
            tf.nest.map_structure(
                lambda a, b, start=start: np.testing.assert_array_equal(
                    a[start : start + len(b)], b
                ),
                *(
                    tf.nest.map_structure(lambda *each: np.concatenate(each), *parts)
                    for parts in (one, other)
                ),
            )
    mosaics = order.Mosaics(data.mosaic, data.mosaic_rows)
    names = order.names(source, known, mosaics, range(18))
    assert {len(each) for each in names} == parts
    assert not any("broken" in each for each in names)


def test_small_objects_are_ignored():
    data = DataConfig(image_size=96, min_object=1000.0)
    for _, targets, weights in batches(data):
        assert not targets["confidence"].any()
        assert (weights["confidence"] == 0).any()
        assert not weights["distances"].any()


def test_validation_shows_each_photo_once_in_order():
    source = annotations(5)
    dataset = pipeline.validation_dataset(
        source, DataConfig(), size=64, labels=pipeline.Labels(1), batch_size=2, problems=Problems()
    )
    assert int(dataset.cardinality()) == 3
    shown = np.concatenate([batch[0] for batch in dataset.as_numpy_iterator()])
    assert shown.shape == (5, 64, 64, 3)
    for image, annotation in zip(shown, source, strict=True):
        decoded = images.decode_photo(annotation.image)
        expected = tf.image.resize(decoded, (64, 64), antialias=True)
        np.testing.assert_allclose(image, expected, atol=0.1)


@pytest.mark.parametrize(
    "data", [AUGMENTED, DataConfig(image_size=SIZE)], ids=["augmented", "plain"]
)
def test_photos_that_cannot_be_decoded_are_left_out_and_reported(data, tmp_path):
    good = annotations(6)
    png = good[0].image
    truncated, empty = tmp_path / "truncated.jpg", tmp_path / "empty.jpg"
    truncated.write_bytes(exif_jpeg(picture(), 1, "big")[:300])
    empty.write_bytes(b"")
    broken = [
        Annotation("truncated", truncated, []),
        Annotation("empty", empty, []),
        Annotation("gone", tmp_path / "gone.jpg", []),
        Annotation("half a png", png[: len(png) // 2], []),
    ]
    problems = Problems()
    found = batches(data, count=12, source=good + broken, problems=problems)
    assert all(batch[0].shape == (4, SIZE, SIZE, 3) for batch in found)
    gone = str(tmp_path / "gone.jpg")
    assert {p.where for p in problems.found} == {str(truncated), str(empty), gone, "half a png"}
    assert problems.counts == {images.UNDECODABLE: 4}
    assert len(found) == 12


@pytest.mark.parametrize(
    "data", [AUGMENTED, DataConfig(image_size=SIZE)], ids=["augmented", "plain"]
)
def test_boxes_that_leave_the_photo_are_cut_and_those_outside_are_reported(data):
    png = annotations(1)[0].image
    boxes = [[-200, 0, -100, 50], [10, -90, 50, -20], [60, 50, 300, 400], [-9, -9, 30, 20]]
    problems = Problems()
    source = [Annotation("photo", png, boxes)]
    found = batches(data, count=10, source=source, problems=problems)
    assert any(targets["confidence"].any() for _, targets, _ in found)
    assert [p.where for p in problems.found] == ["photo, object 1", "photo, object 2"]
    kept = reading.within(source[0], 96, 96, problems=problems)
    assert kept.boxes.tolist() == [[60, 50, 96, 96], [0, 0, 30, 20]]


@pytest.mark.parametrize(
    "data", [AUGMENTED, DataConfig(image_size=SIZE)], ids=["augmented", "plain"]
)
def test_ignored_boxes_without_area_change_nothing(data):
    """WIDER FACE has them. A box of negative width and height would cover the whole image."""
    (plain,) = annotations(1)
    odd = np.array([[0, 0, 0, 0], [40, 40, 20, 20], [20.5, 30.5, 20.5, 50], [9, 9, 7, 32]])
    count = len(plain.boxes)
    dirty = Annotation(
        plain.name,
        plain.image,
        np.concatenate([plain.boxes, odd]),
        ignore=[False] * count + [True] * len(odd),
        ellipses=np.ones((count + len(odd), 5)),
    )
    problems = Problems()
    for a, b in zip(
        batches(data, source=[plain]),
        batches(data, source=[dirty], problems=problems),
        strict=True,
    ):
        tf.nest.map_structure(np.testing.assert_array_equal, a, b)
    assert not problems.found


@pytest.mark.parametrize("change", [{"flip": True}, {"colour": 0.5}, {"mosaic": 1.0}])
def test_each_change_is_optional_by_itself(change):
    plain = DataConfig(image_size=96)
    (a, *_), (b, *_) = batches(plain, 1)[0], batches(dataclasses.replace(plain, **change), 1)[0]
    assert a.shape == b.shape
    assert np.abs(a - b).mean() > 1


def test_if_no_photo_can_be_decoded_it_is_an_error_and_no_endless_search():
    broken = [Annotation(str(number), b"nonsense", []) for number in range(3)]
    with pytest.raises(tf.errors.InvalidArgumentError, match="none of the 3 images can be decoded"):
        batches(source=broken)
