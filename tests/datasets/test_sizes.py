"""Boxes belong to the image as displayed: stated sizes are compared with the images."""

import dataclasses
import io
import json
import logging

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

import unitbox_tf
from tests.helpers.data_sets import png
from unitbox_tf import boxes as box_ops
from unitbox_tf import cli, datasets
from unitbox_tf.datasets import sizes
from unitbox_tf.files import Part
from unitbox_tf.problems import Problems
from unitbox_tf.records import Annotation

HEIGHT, WIDTH = 60, 90


def jpeg(orientation, box=(20, 30, 50, 55), height=HEIGHT, width=WIDTH):
    """A black JPEG with a white box, in pixels before turning, and its EXIF orientation."""
    pixels = np.zeros([height, width, 3], np.uint8)
    x0, y0, x1, y1 = box
    pixels[y0:y1, x0:x1] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", exif=exif, quality=95)
    return file.getvalue()


def white_box(encoded):
    """The white box in the image as displayed."""
    with Image.open(io.BytesIO(encoded)) as opened:
        white = np.asarray(ImageOps.exif_transpose(opened).convert("L")) > 128
    rows, columns = np.flatnonzero(white.any(axis=1)), np.flatnonzero(white.any(axis=0))
    return [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_turn_with_the_pixels(orientation):
    box = (20, 30, 50, 55)
    given = Annotation("p", jpeg(orientation, box), [box], size=(HEIGHT, WIDTH))
    found = sizes.turned(given, orientation)
    np.testing.assert_allclose(found.boxes, [white_box(given.image)])
    with Image.open(io.BytesIO(given.image)) as opened:
        width, height = ImageOps.exif_transpose(opened).size
    assert found.size == (height, width)


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_a_size_before_turning_is_found_said_and_mended(orientation):
    box = (20, 30, 50, 55)
    given = Annotation("p", jpeg(orientation, box), [box], size=(HEIGHT, WIDTH))
    problems = Problems()
    [found] = datasets.check_sizes([given], problems=problems)
    np.testing.assert_allclose(found.boxes, [white_box(given.image)])
    assert found.size == (WIDTH, HEIGHT)
    assert problems.counts == {sizes.BEFORE_TURNING: 1}
    assert "; its box was turned into" in str(problems.found[0])
    assert datasets.check_sizes([found], problems=problems) == [found]
    assert problems.counts == {sizes.BEFORE_TURNING: 1}


def test_right_sizes_unknown_sizes_and_absent_images_are_kept(tmp_path):
    image = png(20, 30)
    shard = tmp_path / "shard"
    shard.write_bytes(b"xx" + image)
    given = [
        Annotation("right", image, [[1, 2, 9, 9]], size=(20, 30)),
        Annotation("unstated", image, [[1, 2, 9, 9]]),
        Annotation("absent", tmp_path / "gone.jpg", [[1, 2, 9, 9]], size=(5, 5)),
        Annotation("broken", b"no image", [[1, 2, 9, 9]], size=(5, 5)),
        Annotation("in a shard", Part(shard, 2, len(image)), [[1, 2, 9, 9]], size=(20, 30)),
    ]
    problems = Problems()
    assert datasets.check_sizes(given, problems=problems) == given
    assert not problems.found


def test_an_image_of_another_size_is_left_out_with_both_sizes():
    image = png(20, 30)
    halved = Annotation("halved", image, [[1, 2, 9, 9]], size=(40, 60))
    swapped = Annotation("swapped", image, [[1, 2, 9, 9]], size=(30, 20))  # without an orientation
    empty = Annotation("empty", image, [], size=(40, 60))
    problems = Problems()
    found = datasets.check_sizes([halved, swapped, empty], problems=problems)
    assert found == [dataclasses.replace(empty, size=(20, 30))]
    assert [problem.where for problem in problems.found] == ["halved", "swapped"]
    message = problems.found[0].message
    assert "60 x 40 pixels, as stated with its boxes, the image has 30 x 20" in message
    assert message.endswith("the image is left out")


def drawn(name, orientation, box, size=(HEIGHT, WIDTH), stated=None):
    """An annotation of an image of `size` before turning."""
    height, width = size
    return Annotation(
        name, jpeg(orientation, height=height, width=width), [box], size=stated or size
    )


def test_boxes_that_leave_the_size_before_turning_are_those_of_the_image_as_displayed():
    beyond, inside = drawn("p", 6, (5, 50, 30, 85)), drawn("q", 8, (5, 20, 30, 40))
    upright = drawn("r", 3, (5, 20, 30, 40))
    problems = Problems()
    found = datasets.check_sizes([beyond, inside, upright], problems=problems)
    assert [each.boxes.tolist() for each in found] == [
        each.boxes.tolist() for each in (beyond, inside, upright)
    ]
    assert [each.size for each in found] == [(WIDTH, HEIGHT), (WIDTH, HEIGHT), (HEIGHT, WIDTH)]
    assert problems.counts == {sizes.AS_DISPLAYED: 2}


def test_where_both_kinds_of_boxes_occur_only_certain_ones_are_used():
    displayed, before = drawn("p", 6, (5, 50, 30, 85)), drawn("q", 6, (50, 5, 85, 30))
    neither = drawn("r", 6, (5, 5, 30, 30))
    problems = Problems()
    found = datasets.check_sizes([displayed, before, neither], problems=problems)
    np.testing.assert_allclose(
        [each.boxes[0] for each in found], [(5, 50, 30, 85), (30, 50, 55, 85)]
    )
    assert problems.counts == {
        sizes.AS_DISPLAYED: 1,
        sizes.BEFORE_TURNING: 1,
        sizes.UNCERTAIN: 1,
    }


@pytest.mark.parametrize(
    ("orientation", "size"), [(3, (HEIGHT, WIDTH)), (2, (60, 90)), (6, (60, 60))]
)
def test_images_whose_size_does_not_tell_follow_the_others_of_their_source(orientation, size):
    box = (20, 30, 50, 55)
    given = drawn("q", orientation, box, size)
    before = drawn("p", 6, box)
    problems = Problems()
    _, found = datasets.check_sizes([before, given], problems=problems)
    np.testing.assert_allclose(found.boxes, [white_box(given.image)])
    assert [problem.where for problem in problems.found] == ["p", "q"]
    as_displayed = drawn("r", 6, (20, 30, 50, 55), stated=(WIDTH, HEIGHT))
    problems = Problems()
    found = datasets.check_sizes([before, given, as_displayed], problems=problems)
    assert [each.name for each in found] == ["p", "r"]
    assert problems.counts[sizes.UNCERTAIN] == 1
    assert datasets.check_sizes([given, as_displayed]) == [given, as_displayed]


def test_boxes_as_shares_are_an_error():
    shares = [
        Annotation("p", png(480, 640), [[0.1, 0.2, 0.5, 0.9]]),
        Annotation("q", png(480, 640), []),
    ]
    with pytest.raises(
        ValueError, match=r"my set: expected boxes in pixels\. Received: boxes as shares"
    ):
        datasets.check_sizes(shares, name="my set")
    pixels = [*shares, Annotation("r", png(480, 640), [[3, 4, 50, 60]])]
    problems = Problems()
    assert datasets.check_sizes(pixels, problems=problems) == pixels[1:]
    assert [(each.kind, each.where) for each in problems.found] == [(sizes.SHARES, "p")]
    tiny = [Annotation("p", png(9, 9), [[0, 0, 1, 1]])]
    assert datasets.check_sizes(tiny) == tiny


@pytest.mark.parametrize(("count", "largest", "said"), [(10, 99, 1), (10, 150, 0), (9, 99, 0)])
def test_boxes_that_look_like_per_cent_are_reported(count, largest, said):
    image, problems = png(240, 320), Problems()
    given = [Annotation(f"{n}", image, [[10, 20, largest, 90]]) for n in range(count)]
    assert datasets.check_sizes(given, problems=problems) == given
    assert problems.counts[sizes.PER_CENT] == said


def raw_space(folder):
    """A COCO set as a tool writes it that ignores EXIF."""
    (folder / "images").mkdir(parents=True)
    (folder / "images" / "p.jpg").write_bytes(jpeg(6))
    content = {
        "images": [{"id": 1, "file_name": "p.jpg", "height": HEIGHT, "width": WIDTH}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [20, 30, 30, 25]}],
        "categories": [{"id": 1, "name": "object"}],
    }
    (folder / "instances.json").write_text(json.dumps(content))
    return f"coco:{folder}"


def test_sources_are_mended_wherever_they_are_used(tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    source = raw_space(tmp_path / "set")
    [found] = datasets.load(source, ["object"])
    expected = [white_box(jpeg(6))]
    np.testing.assert_allclose(found.boxes, expected)
    assert (
        "the stated size, 90 x 60, is that before the EXIF orientation 6 is applied" in caplog.text
    )
    assert cli.main(["convert", source, f"csv:{tmp_path / 'csv'}"]) == 0
    [written] = datasets.open(f"csv:{tmp_path / 'csv'}").annotations()
    np.testing.assert_allclose(written.boxes, expected)
    assert unitbox_tf.inspect(source).problems.counts[sizes.BEFORE_TURNING] == 1


def test_shares_in_a_source_are_an_error_of_the_source(tmp_path):
    source = raw_space(tmp_path / "set")
    path = tmp_path / "set" / "instances.json"
    path.write_text(path.read_text().replace("[20, 30, 30, 25]", "[0.2, 0.5, 0.3, 0.4]"))
    with pytest.raises(ValueError, match=r"coco:.*set: expected boxes in pixels\."):
        datasets.load(source, ["object"])


coordinates = st.lists(st.floats(0, 500), min_size=4, max_size=4)


@given(coordinates, st.integers(1, 8), st.floats(-4, 4))
def test_turning_keeps_area_and_ellipses_in_their_boxes(corners, orientation, angle):
    x0, x1 = sorted(corners[:2])
    y0, y1 = sorted(corners[2:])
    ellipse = [x1 - x0 + 1, y1 - y0 + 1, angle, x0, y0]
    box = box_ops.ellipses_to_boxes(np.array([ellipse]))
    given = Annotation("p", b"", box, size=(400, 500), ellipses=[ellipse])
    found = sizes.turned(given, orientation)
    np.testing.assert_allclose(found.object_areas, given.object_areas, rtol=1e-9)
    np.testing.assert_allclose(
        box_ops.ellipses_to_boxes(found.ellipses), found.boxes, atol=1e-6, rtol=1e-9
    )
