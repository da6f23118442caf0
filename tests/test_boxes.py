import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from unitbox_tf import boxes as box_ops

numbers = st.floats(0, 500, width=32)


@given(hnp.arrays(np.float32, 4, elements=numbers), hnp.arrays(np.float32, 2, elements=numbers))
def test_distances_to_boxes_inverts_boxes_to_distances(box, point):
    distances = box_ops.boxes_to_distances(box, point)
    np.testing.assert_allclose(box_ops.distances_to_boxes(distances, point), box, atol=1e-3)


@given(
    hnp.arrays(np.float32, 2, elements=numbers),
    hnp.arrays(np.float32, 2, elements=st.floats(1, 500, width=32)),
    hnp.arrays(np.float32, 2, elements=numbers),
)
def test_all_distances_are_positive_exactly_inside_the_box(corner, size, point):
    box = np.concatenate([corner, corner + size])
    inside = (point > box[:2]).all() and (point < box[2:]).all()
    assert bool((box_ops.boxes_to_distances(box, point).numpy() > 0).all()) == inside


def test_distances_are_top_bottom_left_right():
    distances = box_ops.boxes_to_distances(np.float32([10, 20, 40, 80]), np.float32([13, 25]))
    assert distances.numpy().tolist() == [5, 55, 3, 27]


def test_distances_of_many_boxes_are_those_of_each(random):
    corner = random.uniform(0, 90, (3, 2, 2)).astype(np.float32)
    boxes = np.concatenate([corner, corner + random.uniform(1, 90, (3, 2, 2))], axis=-1)
    boxes, points = boxes.astype(np.float32), random.uniform(0, 99, (3, 2, 2)).astype(np.float32)
    distances = box_ops.boxes_to_distances(boxes, points).numpy()
    (x, y), (x0, y0, x1, y1) = np.moveaxis(points, -1, 0), np.moveaxis(boxes, -1, 0)
    np.testing.assert_array_equal(distances, np.stack([y - y0, y1 - y, x - x0, x1 - x], axis=-1))
    again = box_ops.distances_to_boxes(distances, points).numpy()
    np.testing.assert_allclose(again, boxes, atol=1e-4)


def test_pixel_centres_are_xy_at_half_pixels():
    centres = box_ops.pixel_centres(2, 3).numpy()
    assert centres.shape == (2, 3, 2)
    assert centres[1, 2].tolist() == [2.5, 1.5]


def test_pairwise_iou_agrees_with_pycocotools(random):
    mask = pytest.importorskip("pycocotools.mask")
    corners = random.uniform(0, 50, (2, 40, 2))
    sizes = random.uniform(0.1, 40, (2, 40, 2))
    xywh = np.concatenate([corners, sizes], axis=-1)
    xyxy = np.concatenate([corners, corners + sizes], axis=-1)
    expected = mask.iou(xywh[0], xywh[1], [0] * 40)
    np.testing.assert_allclose(box_ops.pairwise_iou(xyxy[0], xyxy[1]), expected, atol=1e-12)


def test_pairwise_iou_of_boxes_without_area_is_zero():
    assert box_ops.pairwise_iou(np.zeros((1, 4)), np.zeros((2, 4))).tolist() == [[0, 0]]


def test_pairwise_iou_takes_lists_and_computes_in_double_precision():
    far = 2.0**24  # where single precision knows no halves
    found = box_ops.pairwise_iou([(far, 0, far + 1, 1)], [(far + 0.5, 0, far + 1, 1), (0, 0, 1, 1)])
    assert found.tolist() == [[0.5, 0]]
    assert found.dtype == np.float64
    large, small = np.float32([[0, 0, 4097, 4097]]), np.float32([[0, 0, 1, 1]])
    # In single precision, the area would be 1 less.
    assert box_ops.pairwise_iou(large, small)[0, 0] == 1 / 4097**2
    assert box_ops.pairwise_iou(small, large)[0, 0] == 1 / 4097**2


def test_clip_leaves_no_area_of_a_box_outside():
    clipped = box_ops.clip(np.array([[-30, -5, -10, 5], [-5, 2, 200, 300]]), height=50, width=100)
    assert clipped.tolist() == [[0, 0, 0, 5], [0, 2, 100, 50]]
    assert clipped.dtype == np.float32


def test_boxes_have_their_ellipses_inscribed(random):
    corner = random.uniform(-50, 900, (50, 2))
    boxes = np.concatenate([corner, corner + random.uniform(0.1, 300, (50, 2))], axis=1)
    ellipses = box_ops.boxes_to_ellipses(boxes)
    assert (ellipses[:, 0] >= ellipses[:, 1]).all()
    np.testing.assert_allclose(box_ops.ellipses_to_boxes(ellipses), boxes, atol=1e-9)


def test_boxes_of_ellipses_touch_their_outlines(random):
    ellipses = random.uniform([5, 5, -3, 0, 0], [50, 50, 3, 100, 100], (20, 5))
    turn = np.linspace(0, 2 * np.pi, 20001)
    for (a, b, angle, x, y), box in zip(ellipses, box_ops.ellipses_to_boxes(ellipses), strict=True):
        along, across = a * np.cos(turn), b * np.sin(turn)
        xs = x + along * np.cos(angle) - across * np.sin(angle)
        ys = y + along * np.sin(angle) + across * np.cos(angle)
        outline = [xs.min(), ys.min(), xs.max(), ys.max()]
        np.testing.assert_allclose(box, outline, atol=1e-4)


def test_long_sides_are_those_of_arrays_and_tensors():
    boxes = np.float32([[0, 0, 3, 7], [1, 5, 9, 6], [4, 4, 4, 4], [-2, 3, -1, 9]])
    assert box_ops.long_sides(boxes).tolist() == [7, 8, 0, 6]
    assert box_ops.long_sides(tf.constant(boxes)).numpy().tolist() == [7, 8, 0, 6]


def test_areas_are_those_of_arrays_and_tensors():
    boxes = np.float32([[0, 0, 3, 7], [1, 5, 9, 6], [4, 4, 4, 4], [-2, 3, -1, 9]])
    assert box_ops.areas(boxes).tolist() == [21, 8, 0, 6]
    assert box_ops.areas(tf.constant(boxes)).numpy().tolist() == [21, 8, 0, 6]
