import dataclasses

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from unitbox_tf import boxes as box_ops
from unitbox_tf.datasets import wider_face
from unitbox_tf.detect import tiling
from unitbox_tf.evaluation import matching
from unitbox_tf.records import Annotation, Detections

TILE, OVERLAP = 100, 30
SIZE = (260, 330)
NMS_IOU = 0.4


def positions(height, width):
    """An image whose pixels say where they are, so that a detector knows where its tile lies."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x % 256, y % 256, x // 256 + 16 * (y // 256)], axis=-1).astype(np.uint8)


def corner(image):
    x, y, high = (int(value) for value in image[0, 0])
    return x + 256 * (high % 16), y + 256 * (high // 16)


class PerfectDetector:
    """Finds what is visible of known boxes; and, in the whole image, only those from a size on.

    A part has a higher score than a whole box, as it may with a real detector.
    """

    def __init__(self, known, classes=None, size=SIZE, smallest_in_whole=0.0):
        self.known = np.asarray(known, np.float32).reshape(-1, 4)
        self.classes = np.zeros(len(self.known), np.int32) if classes is None else classes
        self.size, self.smallest_in_whole = size, smallest_in_whole
        self.shapes = []

    def __call__(self, image):
        self.shapes.append(image.shape[:2])
        left, top = corner(image)
        height, width = image.shape[:2]
        boxes = box_ops.clip(self.known - np.float32([left, top, left, top]), height, width)
        visible = box_ops.areas(boxes) > 0
        if (height, width) == self.size:
            visible &= box_ops.long_sides(self.known) >= self.smallest_in_whole
        whole = np.isclose(box_ops.areas(boxes), box_ops.areas(self.known))
        scores = np.where(whole, 0.6, 0.9) + 0.09 * np.arange(len(boxes)) / (len(boxes) + 1)
        found = Detections(boxes, scores.astype(np.float32), self.classes, (height, width))
        return found.select(visible)


def detect(detector, tile=TILE, overlap=OVERLAP):
    return tiling.detect_tiled(detector, positions(*detector.size), tile, overlap, NMS_IOU)


def as_set(boxes, classes):
    return sorted(
        (*box, label) for box, label in zip(boxes.tolist(), classes.tolist(), strict=True)
    )


@st.composite
def known_boxes(draw, longest, shortest=2.0, count=12):
    """Boxes in the image whose coordinates are exact in float32."""
    eighth = st.integers(0, 10**6).map(lambda value: value / 10**6)
    boxes = []
    for _ in range(draw(st.integers(1, count))):
        width, height = (shortest + draw(eighth) * (longest - shortest) for _ in range(2))
        x, y = draw(eighth) * (SIZE[1] - width), draw(eighth) * (SIZE[0] - height)
        boxes.append([x, y, x + width, y + height])
    return np.floor(np.array(boxes) * 8) / 8


def apart(boxes, iou):
    """The boxes of `boxes` that overlap none before them by more."""
    chosen = []
    for box in boxes:
        if not (box_ops.pairwise_iou(np.array(chosen).reshape(-1, 4), box[None]) > iou).any():
            chosen.append(box)
    return np.array(chosen)


@given(st.integers(1, 700), st.integers(1, 700), st.integers(1, 200), st.floats(0, 0.99), st.data())
def test_tiles_cover_every_pixel_and_share_the_overlap(height, width, tile, share, data):
    overlap = int(share * tile)
    assume(height * width / (tile - overlap) ** 2 < 2000)
    views = tiling.tiles(height, width, tile, overlap)
    covered = np.zeros((height, width), bool)
    for left, top, right, bottom in views:
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= height
        assert (bottom - top, right - left) == (min(tile, height), min(tile, width))
        covered[top:bottom, left:right] = True
    assert covered.all()
    assert len(np.unique(views, axis=0)) == len(views)
    # Any square of the overlap's size is in full in a tile.
    side_y, side_x = min(overlap, height), min(overlap, width)
    y = data.draw(st.integers(0, height - side_y))
    x = data.draw(st.integers(0, width - side_x))
    low, high = (views[:, :2] <= [x, y]), (views[:, 2:] >= [x + side_x, y + side_y])
    assert (low & high).all(axis=1).any()


def test_there_are_no_more_tiles_than_needed():
    assert len(tiling.tiles(100, 100, 100, 30)) == 1
    assert tiling.tiles(50, 101, 100, 30).tolist() == [[0, 0, 100, 50], [1, 0, 101, 50]]
    assert len(tiling.tiles(170, 170, 100, 30)) == 4
    assert len(tiling.tiles(171, 170, 100, 30)) == 6


@pytest.mark.parametrize(("tile", "overlap"), [(100, 100), (100, -1), (0, 0)])
def test_an_overlap_that_no_tiles_can_have_is_refused(tile, overlap):
    with pytest.raises(ValueError, match=f"an overlap from 0 .* Received: {overlap} of {tile}"):
        tiling.detect_tiled(PerfectDetector([]), positions(200, 200), tile, overlap)


@given(known_boxes(OVERLAP / (1 + 2 * tiling.TOUCHING) - 0.25), st.sampled_from([0.0, 20.0, 1e9]))
def test_boxes_smaller_than_the_overlap_are_found_exactly(boxes, smallest_in_whole):
    known = apart(boxes, NMS_IOU - 0.01)
    classes = np.arange(len(known), dtype=np.int32) % 2
    detector = PerfectDetector(known, classes, smallest_in_whole=smallest_in_whole)
    found = detect(detector)
    assert as_set(found.boxes, found.classes) == as_set(known, classes)
    assert found.image_size == SIZE
    assert (np.diff(found.scores) <= 0).all()


@given(known_boxes(OVERLAP))
@example(np.array([[50.0, 60, 80, 90]]))  # at the borders of two tiles, and as large as the overlap
def test_up_to_the_overlap_boxes_that_lie_apart_are_found_exactly(boxes):
    known = apart(boxes, 0.0)
    found = detect(PerfectDetector(known, smallest_in_whole=1e9))
    assert as_set(found.boxes, found.classes) == as_set(known, np.zeros(len(known)))


@given(known_boxes(OVERLAP * 0.9), known_boxes(250.0, shortest=TILE + 1.0, count=3))
def test_larger_boxes_come_from_the_whole_picture_and_leave_no_parts(small, large):
    known = apart(np.concatenate([large, small]), NMS_IOU - 0.01)
    found = detect(PerfectDetector(known, smallest_in_whole=TILE))
    assert as_set(found.boxes, found.classes) == as_set(known, np.zeros(len(known)))


def test_of_an_object_that_no_view_shows_in_full_the_largest_part_stays():
    # Of its 90 pixels, the second tile of the row shows 57, the third 75, the fourth 18.
    known, size = [[100, 20, 190, 60]], (100, 330)
    assert tiling.tiles(*size, TILE, OVERLAP)[:, 0].tolist() == [0, 57, 115, 172, 230]
    found = detect(PerfectDetector(known, size=size, smallest_in_whole=1e9))
    assert found.boxes.tolist() == [[115, 20, 190, 60]]


class Finds:
    """Finds in each view what is written down for it, boxes `xyxy` in pixels of the image with scores."""

    def __init__(self, **by_view):
        self.by_view = by_view

    def __call__(self, image):
        left, top = corner(image)
        view = "whole" if image.shape[:2] == SIZE else f"x{left}y{top}"
        rows = np.array(self.by_view.get(view, [])).reshape(-1, 5).astype(np.float32)
        boxes = rows[:, :4] - np.float32([left, top, left, top])
        found = Detections(boxes, rows[:, 4], np.zeros(len(rows), np.int32), image.shape[:2])
        return found


def detect_as(**by_view):
    # Tiles are at 0, 57, 115, 172 and 230 of 330, and at 0, 53, 106 and 160 of 260.
    return tiling.detect_tiled(Finds(**by_view), positions(*SIZE), TILE, OVERLAP, NMS_IOU)


def test_a_part_does_not_stand_in_for_an_object_that_the_tile_which_shows_it_in_full_did_not_find():
    part = [80, 10, 99.5, 40, 0.99]  # at the right border of the first tile, which cuts it
    assert len(detect_as(x0y0=[part])) == 0
    assert len(detect_as(x57y0=[part])) == 1


def test_a_part_gives_way_to_the_whole_object_whatever_their_scores():
    whole, part = [20, 10, 260, 90, 0.6], [20, 10, 98, 90, 0.99]
    assert detect_as(whole=[whole], x0y0=[part]).boxes.tolist() == [whole[:4]]


def test_what_a_tile_shows_in_full_is_better_known_than_in_the_whole_picture():
    rough, exact = [20, 10, 70, 60, 0.9], [20, 10, 60, 55, 0.6]
    assert detect_as(whole=[rough], x0y0=[exact]).boxes.tolist() == [exact[:4]]


def test_borders_of_the_picture_cut_nothing():
    # Were it taken for a part, the box from the whole image would stay.
    rough, exact = [5, 5, 50, 50, 0.9], [0, 0, 40, 44, 0.6]
    assert detect_as(whole=[rough], x0y0=[exact]).boxes.tolist() == [exact[:4]]
    rough, exact = [280, 210, 325, 255, 0.9], [290, 216, 330, 260, 0.6]
    assert detect_as(whole=[rough], x230y160=[exact]).boxes.tolist() == [exact[:4]]


def test_a_part_with_another_class_stays():
    known = np.array([[60.0, 10, 85, 40], [61, 10, 86, 40]])
    found = detect(PerfectDetector(known, np.array([0, 1])))
    assert as_set(found.boxes, found.classes) == as_set(known, np.array([0, 1]))


@pytest.mark.parametrize("size", [(100, 100), (40, 99), (1, 1)])
def test_a_picture_no_larger_than_a_tile_is_shown_once(size):
    detector = PerfectDetector([[0, 0, 1, 1]], size=size)
    found = detect(detector)
    assert detector.shapes == [size]
    assert found.boxes.tolist() == [[0, 0, 1, 1]]
    assert found.image_size == size


def test_no_view_but_the_whole_picture_is_larger_than_a_tile():
    detector = PerfectDetector([])
    found = detect(detector)
    assert len(found) == 0
    assert found.boxes.shape == (0, 4)
    assert detector.shapes[0] == SIZE
    assert set(detector.shapes[1:]) == {(TILE, TILE)}
    assert len(detector.shapes) == 1 + len(tiling.tiles(*SIZE, TILE, OVERLAP))


def test_boxes_in_full_are_thinned_as_tensorflow_does(random):
    import tensorflow as tf

    low = random.uniform(0, 200, (300, 2))
    boxes = np.concatenate([low, low + random.uniform(5, 60, (300, 2))], axis=1).astype(np.float32)
    scores = random.permutation(300).astype(np.float32) / 300

    def whole_only(image):
        found = Detections(boxes, scores, np.zeros(300, np.int32), image.shape[:2])
        return found if image.shape[:2] == SIZE else found.above(2)

    found = tiling.detect_tiled(whole_only, positions(*SIZE), TILE, OVERLAP, NMS_IOU)
    kept = tf.image.non_max_suppression(boxes, scores, 300, NMS_IOU).numpy()
    assert 50 < len(kept) < 250
    np.testing.assert_array_equal(found.boxes, boxes[kept])


@pytest.mark.slow
def test_tiling_finds_in_a_mosaic_what_is_found_in_its_photos(data):
    """docs/large_pictures.md has what this prints."""
    import unitbox_tf
    from unitbox_tf import inputs

    find = unitbox_tf.load("faces_light", max_side=416)
    photos = list(wider_face.WiderFace(data("wider/val_416"), "val").annotations())
    order = np.random.default_rng(0).permutation(len(photos))[:64]
    side, columns = 416, 4
    size = (columns * side,) * 2
    truth = []
    found = {"each image by itself": [], "mosaic": [], "mosaic in tiles": []}
    for chosen in order.reshape(-1, columns**2):
        mosaic = np.zeros((*size, 3), np.uint8)
        boxes, ignore, alone = [], [], []
        for index, photo in enumerate(photos[i] for i in chosen):
            row, column = divmod(index, columns)
            place = np.float32([column, row, column, row]) * side
            image = inputs.read_image(photo.encoded())
            mosaic[row * side : (row + 1) * side, column * side : (column + 1) * side] = image
            boxes.append(photo.boxes + place)
            ignore.append(photo.ignore)
            one = find(image)
            alone.append(dataclasses.replace(one, boxes=one.boxes + place, image_size=size))
        truth.append(
            Annotation("mosaic", b"", np.concatenate(boxes), ignore=np.concatenate(ignore))
        )
        found["each image by itself"].append(
            Detections(
                np.concatenate([each.boxes for each in alone]),
                np.concatenate([each.scores for each in alone]),
                np.concatenate([each.classes for each in alone]),
                size,
            )
        )
        found["mosaic"].append(find(mosaic))
        found["mosaic in tiles"].append(tiling.detect_tiled(find, mosaic, side))
    recall = {}
    for name, detections in found.items():
        matches = matching.match(detections, truth, iou_threshold=0.5, min_size=16)
        recall[name] = matches.recall()
        print(f"{name}: recall {recall[name]:.3f}, precision {matches.precision():.3f}", end=" ")
        print(f"of {matches.num_objects} faces")
    assert recall["mosaic in tiles"] > recall["each image by itself"] - 0.03
    assert recall["mosaic in tiles"] > recall["mosaic"] + 0.3
