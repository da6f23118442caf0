"""The batches of training, against those of the plainest pipeline, to the bit."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.images import CASES, chunk, encoded_as, exif, exif_jpeg, picture, with_chunks
from tests.train import plain
from unitbox_tf import images
from unitbox_tf.config import DataConfig
from unitbox_tf.datasets import tfrecord
from unitbox_tf.problems import Problems
from unitbox_tf.records import Annotation
from unitbox_tf.train import augment, decoding, order, pipeline, reading, targets

MAX_PIXELS = 4000
LETTERBOX = DataConfig(image_size=64)
CROPS = DataConfig(
    image_size=56,
    random_crop=True,
    object_size=(9.0, 50.0),
    stretch=1.6,
    flip=True,
    colour=0.4,
    blur=0.5,
    mosaic=0.4,
    mosaic_rows=(2, 3),
    min_object=4.0,
)


def contents():
    """Files of all formats, by name; some cannot be decoded, and their headers may be whole."""
    pixels = np.random.default_rng(5).integers(0, 256, (40, 60, 3), np.uint8)
    smooth = picture()
    found = {
        "plain.jpg": encoded_as("JPEG", pixels),
        "grey.jpg": encoded_as("JPEG", smooth, "L"),
        "cmyk.jpg": encoded_as("JPEG", smooth, "CMYK"),
        "progressive.jpg": encoded_as("JPEG", smooth, progressive=True),
        "plain.png": encoded_as("PNG", pixels),
        "palette.png": encoded_as("PNG", smooth, "P"),
        "alpha.png": encoded_as("PNG", smooth, "RGBA"),
        "turned.png": with_chunks(encoded_as("PNG", smooth), chunk(b"eXIf", exif(6))),
        "image.webp": encoded_as("WEBP", smooth),
        "image.gif": encoded_as("GIF", smooth),
        "image.bmp": encoded_as("BMP", smooth),
        "image.tif": encoded_as("TIFF", smooth),
        "large.jpg": encoded_as("JPEG", np.zeros((80, 60, 3), np.uint8)),
        "nonsense.jpg": b"no image",
        "empty.jpg": b"",
    }
    for orientation in range(1, 9):
        found[f"turned{orientation}.jpg"] = exif_jpeg(smooth, orientation, "big")
    found["cut.jpg"] = found["plain.jpg"][:-400]
    png = bytearray(found["plain.png"])
    png[len(png) // 2] ^= 0xFF
    found["damaged.png"] = bytes(png)
    return found


@pytest.fixture(scope="module")
def annotations(tmp_path_factory):
    """Images in files, in memory and in shards. Boxes overlap, leave the images, and lie outside some."""
    folder = tmp_path_factory.mktemp("images")
    random = np.random.default_rng(3)
    found = []
    for number, (name, content) in enumerate(contents().items()):
        (folder / name).write_bytes(content)
        corners = random.uniform(-15, 55, (number % 7, 2))
        boxes = np.concatenate([corners, corners + random.uniform(2, 40, corners.shape)], axis=1)
        objects = {
            "boxes": boxes,
            "classes": random.integers(0, 2, len(boxes)),
            "ignore": random.random(len(boxes)) < 0.2,
        }
        found.append(Annotation(name, folder / name, **objects))
        if number % 3 == 0:
            found.append(Annotation(f"{name} in memory", content, **objects))
    found += [Annotation(path.name, path, [[1, 2, 30, 28]]) for path in sorted(CASES.iterdir())]
    found.append(Annotation("gone", folder / "gone.jpg", []))
    whole = [a for a in found if isinstance(a.image, bytes) and len(a.image) > 10]
    tfrecord.write(whole, folder / "shards", "train", ["a", "b"], problems=Problems())
    in_shards = tfrecord.Shards(folder / "shards", "train").annotations(problems=Problems())
    return found + list(in_shards)


def training(annotations, data, count, start=0, padding=(103.939, 116.779, 123.68), stride=4):
    """Batches, problems, and what is known to be broken."""
    problems = Problems(logged=False)
    known = order.orders(len(annotations), 1, data.mosaic_rows)
    dataset = pipeline.training_dataset(
        annotations,
        data,
        labels=pipeline.Labels(2, equal_objects=True, share_power=0.5, stride=stride),
        padding=padding,
        batch_size=4,
        seed=1,
        start=start,
        known=known,
        max_pixels=MAX_PIXELS,
        problems=problems,
    )
    batches = [tf.nest.flatten(batch) for batch in dataset.take(count).as_numpy_iterator()]
    return batches, {(p.kind, p.where, p.message) for p in problems.found}, known[0].broken


def assert_same_bits(one, other):
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        assert a.shape == b.shape
        assert a.tobytes() == b.tobytes()


@pytest.mark.parametrize(
    ("data", "start", "more"),
    [
        (LETTERBOX, 0, {}),
        (LETTERBOX, 37, {"padding": (128.0, 0.0, 255.0), "stride": 1}),
        (
            dataclasses.replace(LETTERBOX, image_size=40, flip=True),
            5,
            {"padding": (0.1, 9.7, 250.3)},
        ),
        (
            dataclasses.replace(LETTERBOX, image_size=40, flip=True),
            5,
            {"padding": augment.BLACK},
        ),
        pytest.param(CROPS, 0, {}, marks=pytest.mark.slow),
        (CROPS, 91, {"padding": augment.BLACK, "stride": 1}),
    ],
    ids=["letterbox", "letterbox, later", "shrunk", "some are shrunk", "crops", "crops, later"],
)
def test_batches_are_those_of_the_plainest_pipeline_to_the_bit(
    annotations, data, start, more, monkeypatch
):
    """Over more than one pass, so that images are shown again when facts about them are known."""
    count = 2 * len(annotations) // 4 if data is LETTERBOX else len(annotations) // 4
    found, problems, broken = training(annotations, data, count, start, **more)
    with monkeypatch.context() as patch:
        plain.put_in_place(patch)
        expected, all_problems, all_broken = training(annotations, data, count, start, **more)
    for one, other in zip(found, expected, strict=True):
        assert_same_bits(one, other)
    if data is LETTERBOX and not start:
        assert {kind for kind, _, _ in problems} == {images.UNDECODABLE, "box outside its image"}
        assert problems == all_problems
        assert broken == all_broken


def test_validation_shows_the_same_bits(annotations, monkeypatch):
    def batches():
        problems = Problems(logged=False)
        dataset = pipeline.validation_dataset(
            annotations,
            LETTERBOX,
            size=48,
            labels=pipeline.Labels(2, stride=4),
            batch_size=4,
            max_pixels=MAX_PIXELS,
            problems=problems,
        )
        assert int(dataset.cardinality()) == -(-len(annotations) // 4)
        # Again, because validation comes after each epoch.
        found = [[tf.nest.flatten(b) for b in dataset.as_numpy_iterator()] for _ in range(2)]
        for first, second in zip(*found, strict=True):
            assert_same_bits(first, second)
        return found[0], {(p.kind, p.where, p.message) for p in problems.found}

    found, problems = batches()
    plain.put_in_place(monkeypatch)
    expected, all_problems = batches()
    assert problems == all_problems
    for one, other in zip(found, expected, strict=True):
        assert_same_bits(one, other)


def test_python_decodes_only_what_the_graph_does_not(annotations, monkeypatch):
    """Images that the graph decodes, from files, memory and shards, never reach Python's decoder."""
    decoded = []
    decode = images.decode_photo
    monkeypatch.setattr(
        images,
        "decode_photo",
        lambda content, *rest: decoded.append(content) or decode(content, *rest),
    )
    source = [a for a in annotations if a.name.startswith(("plain.", "turned", "grey", "cmyk"))]
    assert len(source) > 12
    training(source, LETTERBOX, len(source) // 2)
    assert not decoded
    monkeypatch.setattr("unitbox_tf.train.reading.GROUP_BYTES", 0)  # files are read in the graph
    files = [a for a in source if not isinstance(a.image, bytes)]
    training([a for a in files if hasattr(a.image, "suffix")], LETTERBOX, 3)
    assert not decoded
    training([a for a in source if isinstance(a.image, bytes)], LETTERBOX, 3)
    assert decoded


@pytest.mark.parametrize("count", [1, decoding.GROUP, decoding.GROUP + 1])
def test_data_sets_of_any_length_are_read_whole(count):
    source = [Annotation(str(n), np.full((9, 8, 3), n, np.uint8), []) for n in range(count)]
    found = [int(image[0, 0, 0]) for image, _ in reading.from_annotations(source)]
    assert found == list(range(count))


@st.composite
def scenes(draw):
    """A map of any size with boxes of all kinds: equal ones, on the points, cut, outside, without area, a crowd."""
    height, width = draw(st.integers(1, 90)), draw(st.integers(1, 90))
    count = draw(st.sampled_from([0, 1, 3, 12, 60]))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    largest = draw(st.sampled_from([3.0, 30.0, 200.0]))
    corners = random.uniform(-30, 90, (count, 2))
    boxes = np.concatenate([corners, corners + random.uniform(0.1, largest, (count, 2))], axis=1)
    if draw(st.booleans()):
        boxes = np.round(boxes * 2) / 2
    if draw(st.booleans()):
        boxes = np.clip(boxes, 0, [width, height, width, height])
    boxes[: count // 4] = [0, 0, width, height]
    boxes = np.float32(boxes[random.permutation(count)])
    boxes[count // 2 :, 2:] = np.maximum(boxes[count // 2 :, 2:], boxes[count // 2 :, :2])
    return height, width, boxes, random.integers(-1, 4, count), random.random(count) < 0.2


@pytest.mark.slow
@settings(max_examples=60)
@given(
    scenes(),
    st.sampled_from(["ellipse", "box"]),
    st.booleans(),
    st.sampled_from([0.0, 0.5, 1.0]),
    st.sampled_from([1, 2, 3, 4, 5, 8]),
    st.sampled_from([1, 3]),
)
def test_targets_are_those_of_painting_box_by_box_to_the_bit(
    scene, region, equal_objects, share_power, stride, num_classes
):
    height, width, boxes, classes, ignore = scene
    arguments = (boxes, classes.astype(np.int32), ignore, height, width)
    options = {
        "num_classes": num_classes,
        "region": region,
        "positive_weight": 3.0,
        "equal_objects": equal_objects,
        "share_power": share_power,
        "stride": stride,
    }
    found, expected = (
        [
            value.numpy()
            for value in tf.nest.flatten(encode(*map(tf.constant, arguments), **options))
        ]
        for encode in (targets.encode, plain.encode)
    )
    assert_same_bits(found, expected)
