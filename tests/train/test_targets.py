import numpy as np
import pytest
import tensorflow as tf
from hypothesis import example, given
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
@example((1, 1, np.float32([[0, 0, 1, 2], [0, 0.5, 1, 1.6]]), np.array([False, False])))
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
    # Rounding decides whether a pixel whose centre is on the side of a box lies inside. Its distance is 0.
    x, y = np.moveaxis(np.asarray(box_ops.pixel_centres(height, width)), -1, 0)
    on_side = np.zeros([height, width], bool)
    for x0, y0, x1, y1 in boxes[~ignore]:
        on_side |= np.minimum(abs(x - x0), abs(x - x1)) < 1e-6
        on_side |= np.minimum(abs(y - y0), abs(y - y1)) < 1e-6
    assert (heatmaps["distances"][positive] >= 0).all()
    assert (heatmaps["distances"][positive & ~on_side] > 0).all()
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


def sampled(heatmaps, weights, stride):
    """The full-size maps at the points of a map of an odd `stride`, which are centres of pixels."""
    every = (slice(stride // 2, None, stride),) * 2
    return [{name: value[every] for name, value in maps.items()} for maps in (heatmaps, weights)]


@pytest.mark.parametrize("stride", [3, 5])
@pytest.mark.parametrize("region", ["ellipse", "box"])
def test_targets_at_a_stride_are_the_full_size_ones_at_its_points(random, region, stride):
    """For an odd stride, the points coincide. Objects are large enough to own one, and some are ignored or cut."""
    height, width = stride * 21, stride * 26
    corner = random.uniform(-8, 50, (14, 2))
    boxes = np.concatenate([corner, corner + random.uniform(9, 30, (14, 2))], 1).astype(np.float32)
    ignore, classes = np.arange(14) % 5 == 4, np.arange(14, dtype=np.int32) % 3
    options = {"num_classes": 3, "region": region, "positive_weight": 3.0}
    full = sampled(*encode(boxes, ignore, height, width, classes, **options), stride)
    coarse = encode(boxes, ignore, height, width, classes, stride=stride, **options)
    assert full[0]["confidence"].any(axis=(0, 1)).all()
    assert (full[1]["confidence"] == 0).any()
    for a, b in zip(full, coarse, strict=True):
        for name in a:
            np.testing.assert_allclose(a[name], b[name], atol=1e-5, err_msg=name)


@pytest.mark.parametrize("stride", [2, 4, 8])
def test_targets_at_an_even_stride_lie_between_those_of_the_pixels_around(stride):
    """Distances are linear: at a point between four pixels of an object, they are the mean of theirs."""
    box = np.float32([[3, 6, 59, 45]])
    full, _ = encode(box, [False], 50, 70)
    coarse, _ = encode(box, [False], 50, 70, stride=stride)
    height, width = -(-50 // stride), -(-70 // stride)  # rounded up
    assert coarse["confidence"].shape == (height, width, 1)
    checked = 0
    for i in range(50 // stride):
        for j in range(70 // stride):
            y, x = (stride * i + stride // 2, stride * j + stride // 2)
            around = full["confidence"][y - 1 : y + 1, x - 1 : x + 1]
            if around.min() == around.max():
                assert coarse["confidence"][i, j] == around.min()
                expected = full["distances"][y - 1 : y + 1, x - 1 : x + 1].mean(axis=(0, 1))
                np.testing.assert_allclose(coarse["distances"][i, j], expected, atol=1e-4)
                checked += 1
    assert checked > 0.7 * (50 // stride) * (70 // stride)


def test_targets_at_a_stride_by_hand():
    """An image of 14 x 18 px at stride 4: four rows of points at 2, 6, 10, 14, and five columns up to 18."""
    boxes = np.float32([[1, 1, 13, 9], [8, 4, 12, 8], [13, 9, 19, 15]])
    maps, weights = encode(
        boxes,
        [False, False, True],
        14,
        18,
        np.int32([0, 1, 0]),
        num_classes=2,
        region="box",
        positive_weight=2.0,
        share_power=0.5,
        equal_objects=True,
        stride=4,
    )
    first = [[1, 1, 1, 0, 0], [1, 1, 0, 0, 0], [0] * 5, [0] * 5]
    second = [[0] * 5, [0, 0, 1, 0, 0], [0] * 5, [0] * 5]
    np.testing.assert_array_equal(maps["confidence"], np.stack([first, second], axis=-1))
    assert maps["distances"][0, 1].tolist() == [1, 7, 5, 7]
    assert maps["distances"][1, 2].tolist() == [2, 2, 2, 2]
    share = 1 / 5  # five points of the first object
    root = 2 * np.sqrt(share)
    np.testing.assert_allclose(
        weights["confidence"],
        [[root, root, root, 1, 1], [root, root, 2, 1, 1], [1, 1, 1, 0, 0], [1, 1, 1, 0, 0]],
        rtol=1e-6,
    )
    np.testing.assert_allclose(weights["distances"].sum(), 2)
    np.testing.assert_allclose(weights["distances"][0, :3], share)


@pytest.mark.parametrize("region", ["ellipse", "box"])
@pytest.mark.parametrize("stride", [4, 8])
@given(
    x=st.floats(0, 60, width=32),
    y=st.floats(0, 50, width=32),
    w=st.floats(0.25, 16, width=32),
    h=st.floats(0.25, 16, width=32),
    ignore=st.booleans(),
)
def test_an_object_between_the_points_takes_the_nearest_one_or_it_is_ignored(
    region, stride, x, y, w, h, ignore
):
    """Whole objects in the image: none is learned as background."""
    box = np.float32([[x, y, min(x + w, 61), min(y + h, 51)]])
    maps, weights = encode(box, [ignore], 51, 61, region=region, stride=stride)
    touched = weights["confidence"] * (1 - maps["confidence"][..., 0]) == 0
    assert touched.any()
    positive = maps["confidence"][..., 0] > 0
    assert (maps["distances"][positive] > 0).all()
    points = box_ops.map_points(51, 61, stride).numpy()
    inside = ((points > box[0, :2]) & (points < box[0, 2:])).all(axis=-1)
    if inside.any() and not ignore:
        assert positive.any()
    if not inside.any():
        assert not positive.any()
        [[row, column]] = np.argwhere(weights["confidence"] == 0)
        centre = (box[0, :2] + box[0, 2:]) / 2
        apart = np.linalg.norm(points - centre, axis=-1)
        assert apart[row, column] == pytest.approx(apart.min(), abs=1e-4)


def test_nothing_is_painted_for_an_object_outside_or_without_area():
    boxes = np.float32([[-9, -9, -1, -1], [20, 20, 20, 25], [30, 9, 26, 9], [70, 3, 72, 5]])
    maps, weights = encode(boxes, [False, True, True, False], 32, 48, stride=8)
    assert not maps["confidence"].any()
    assert (weights["confidence"] == 1).all()


@pytest.mark.parametrize("stride", [1, 4])
def test_an_object_counts_in_the_confidence_as_a_power_of_its_points(stride):
    boxes = np.float32([[2, 2, 42, 34], [45, 5, 57, 17]])
    for power in (0.0, 0.5, 1.0):
        maps, weights = encode(
            boxes,
            [False] * 2,
            40,
            60,
            np.int32([0, 1]),
            num_classes=2,
            positive_weight=3.0,
            share_power=power,
            stride=stride,
        )
        for label in range(2):
            own = maps["confidence"][..., label] > 0
            expected = 3 * own.sum() ** (1 - power)
            assert weights["confidence"][own].sum() == pytest.approx(expected, rel=1e-5)
        assert (weights["confidence"][~maps["confidence"].any(axis=-1)] == 1).all()
