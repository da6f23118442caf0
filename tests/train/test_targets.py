import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from unitbox_tf import boxes as box_ops
from unitbox_tf.train import targets


@st.composite
def scenes(draw):
    """Image sizes and boxes, some of which overlap, leave the image or are to be ignored."""
    height, width = draw(st.integers(1, 70)), draw(st.integers(1, 70))
    corner = st.floats(-20, 60, width=32)
    size = st.floats(0.5, 50, width=32)
    rows = draw(st.lists(st.tuples(corner, corner, size, size, st.booleans()), max_size=8))
    boxes = np.array([(x, y, x + w, y + h) for x, y, w, h, _ in rows], np.float32).reshape(-1, 4)
    return height, width, boxes, np.array([row[4] for row in rows], bool)


def encode(boxes, ignore, height, width, classes=None, **more):
    classes = np.zeros(len(boxes), np.int32) if classes is None else classes
    heatmaps, weights = targets.encode(
        tf.constant(boxes, tf.float32),
        tf.constant(classes),
        tf.constant(ignore),
        height,
        width,
        **more,
    )
    return {k: v.numpy() for k, v in heatmaps.items()}, {k: v.numpy() for k, v in weights.items()}


def owners(boxes, ignore, height, width, region):
    """The owner of each pixel by the plain rule, pixel by pixel."""
    areas = box_ops.areas(boxes)
    result = np.full((height, width), -1)
    for i in range(height):
        for j in range(width):
            best = np.inf
            for n, (x0, y0, x1, y1) in enumerate(boxes.astype(np.float64)):
                dx = abs(j + 0.5 - (x0 + x1) / 2) / ((x1 - x0) / 2)
                dy = abs(i + 0.5 - (y0 + y1) / 2) / ((y1 - y0) / 2)
                box = region == "box" or ignore[n]
                inside = dx < 1 and dy < 1 if box else dx**2 + dy**2 < 1
                if inside and areas[n] <= best:
                    result[i, j], best = n, areas[n]
    return result


@pytest.mark.parametrize("region", ["ellipse", "box"])
@given(scenes())
def test_every_positive_pixel_decodes_to_a_ground_truth_box(region, scene):
    height, width, boxes, ignore = scene
    heatmaps, weights = encode(boxes, ignore, height, width, region=region)
    positive = weights["distances"] > 0
    np.testing.assert_array_equal(positive, heatmaps["confidence"][..., 0] == 1)
    decoded = box_ops.distances_to_boxes(
        heatmaps["distances"], box_ops.pixel_centres(height, width)
    ).numpy()[positive]
    for box in decoded:
        assert np.abs(boxes[~ignore] - box).max(axis=1).min() < 1e-3
    assert (heatmaps["distances"][positive] > 0).all()
    assert (heatmaps["distances"][~positive] == 0).all()


@pytest.mark.parametrize("region", ["ellipse", "box"])
def test_the_smallest_box_owns_a_pixel(random, region):
    height, width = 41, 53
    corner = random.uniform(-10, 45, (12, 2))
    boxes = np.concatenate([corner, corner + random.uniform(1, 30, (12, 2))], 1).astype(np.float32)
    ignore = random.uniform(size=12) < 0.3
    heatmaps, weights = encode(boxes, ignore, height, width, region=region, positive_weight=3.0)
    expected = owners(boxes, ignore, height, width, region)
    positive = (expected >= 0) & ~ignore[expected]
    ignored = (expected >= 0) & ignore[expected]
    assert positive.any()
    assert ignored.any()
    np.testing.assert_array_equal(weights["distances"], positive)
    np.testing.assert_array_equal(
        weights["confidence"], np.where(ignored, 0, np.where(positive, 3, 1))
    )
    decoded = box_ops.distances_to_boxes(
        heatmaps["distances"], box_ops.pixel_centres(height, width)
    ).numpy()
    np.testing.assert_allclose(decoded[positive], boxes[expected[positive]], atol=1e-3)


def test_the_weights_of_equal_objects_add_up_to_one_each(random):
    boxes = np.float32([[2, 2, 40, 30], [20, 10, 30, 24], [45, 5, 48, 8], [-9, -9, -1, -1]])
    ignore = np.array([False, False, False, False])
    _, weights = encode(boxes, ignore, 41, 53, equal_objects=True)
    owner = owners(boxes, ignore, 41, 53, "ellipse")
    sums = [weights["distances"][owner == n].sum() for n in range(4)]
    np.testing.assert_allclose(sums, [1, 1, 1, 0], rtol=1e-5)  # the last lies outside
    assert np.unique(weights["distances"][owner == 0]).size == 1
    assert not weights["distances"][owner < 0].any()
    _, ignored = encode(boxes, ~ignore, 41, 53, equal_objects=True)
    assert not ignored["distances"].any()


def test_each_class_has_its_map():
    boxes = np.float32([[0, 0, 10, 10], [20, 0, 30, 10]])
    heatmaps, _ = encode(
        boxes, [False, False], 10, 30, np.int32([2, 0]), num_classes=3, region="box"
    )
    assert heatmaps["confidence"].shape == (10, 30, 3)
    assert heatmaps["confidence"].sum(axis=(0, 1)).tolist() == [100, 0, 100]
    assert (heatmaps["confidence"][:, :10, 2] == 1).all()


def test_the_ellipse_fills_the_share_of_the_box_that_an_ellipse_does():
    heatmaps, _ = encode(np.float32([[10, 20, 210, 170]]), [False], 200, 250)
    assert heatmaps["confidence"].mean() * 200 * 250 == pytest.approx(
        np.pi / 4 * 200 * 150, rel=2e-3
    )


def test_centres_on_the_edge_are_outside():
    edge = np.float32([[0.5, 0.5, 10.5, 10.5]])  # its sides go through centres of pixels
    box, _ = encode(edge, [False], 12, 12, region="box")
    assert (box["confidence"][1:10, 1:10] == 1).all()
    assert box["confidence"].sum() == 81
    ellipse, weights = encode(edge, [False], 12, 12)
    # From the middle, 3 / 5 to the one side and 4 / 5 to the other is on the circle.
    offset = np.arange(12) - 5
    inside = (offset[:, None] / 5) ** 2 + (offset / 5) ** 2 < 1 - 1e-9
    assert not inside[8, 9]
    np.testing.assert_array_equal(ellipse["confidence"][..., 0], inside)
    assert ellipse["confidence"].shape == (12, 12, 1)
    assert (weights["confidence"] == 1).all()
    np.testing.assert_array_equal(weights["distances"], inside)


def test_of_boxes_of_one_size_the_last_owns_a_pixel():
    boxes = np.float32([[0, 0, 10, 10], [4, 0, 14, 10], [2, 0, 12, 10]])
    heatmaps, _ = encode(
        boxes, [False] * 3, 10, 14, np.int32([0, 1, 2]), num_classes=3, region="box"
    )
    assert heatmaps["confidence"].argmax(axis=-1)[5].tolist() == [0] * 2 + [2] * 10 + [1] * 2
    assert (heatmaps["confidence"].sum(axis=-1) == 1).all()
    middle = heatmaps["distances"][5, 6]
    assert middle.tolist() == [5.5, 4.5, 4.5, 5.5]


def test_an_image_without_objects_is_background():
    heatmaps, weights = encode(np.zeros((0, 4), np.float32), np.zeros(0, bool), 7, 9)
    assert not heatmaps["confidence"].any()
    assert not heatmaps["distances"].any()
    assert (weights["confidence"] == 1).all()
    assert not weights["distances"].any()


def test_hundreds_of_objects(random):
    corner = random.uniform(0, 300, (1500, 2))
    boxes = np.concatenate([corner, corner + random.uniform(3, 20, (1500, 2))], axis=1)
    heatmaps, _ = encode(boxes.astype(np.float32), np.zeros(1500, bool), 320, 320)
    assert 0.2 < heatmaps["confidence"].mean() < 1
