"""The losses against formulas written apart, other libraries, and in every place where they may run.

`CASES` lists every public function with the options that change it, and drives the tests that hold
for all; `test_every_public_loss_is_tested` fails when one is missing.
"""

import functools
import inspect
import json
import math
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.helpers.losses import CASES, OVERLAP, PLACED, gradient
from unitbox_tf import losses, registry

LOSSES = {name: case for name, case in CASES.items() if not name.startswith("iou ")}
OF_OVERLAP = {name: case for name, case in LOSSES.items() if "box_format" in case[1]}


FAMILY = [losses.iou_loss, *(getattr(losses, name) for name in OVERLAP)]

each_of_family = pytest.mark.parametrize("function", FAMILY)
each = pytest.mark.parametrize("case", CASES)
each_placed = pytest.mark.parametrize("case", PLACED)
each_loss = pytest.mark.parametrize("case", LOSSES)
each_loss_of_overlap = pytest.mark.parametrize("case", OF_OVERLAP)


def test_every_public_loss_is_tested():
    public = {
        name
        for name, value in vars(losses).items()
        if inspect.isfunction(value)
        and value.__module__ == losses.__name__
        and not name.startswith("_")
    }
    assert public == {function.__name__ for function, _ in CASES.values()}
    classes = {
        value
        for value in vars(losses).values()
        if inspect.isclass(value) and issubclass(value, losses.BoxLoss)
    }
    bases = {losses.BoxLoss, losses._PowerLoss}
    assert {registry.LOSSES[name] for name in registry.LOSSES} == classes - bases
    for name in registry.LOSSES:
        assert registry.LOSSES[name]().function.__name__ == f"{name}_loss"


# Formulas, plainly from corners, for autodiff: nothing of the module's code.


def edges(y, box_format):
    """x0, y0, x1, y1."""
    if box_format == "xyxy":
        return y[..., 0], y[..., 1], y[..., 2], y[..., 3]
    return -y[..., 2], -y[..., 0], y[..., 3], y[..., 1]


def plain(function, y_true, y_pred, box_format="tblr", alpha=1.0, beta=1.0):
    name = function.__name__
    if name == "l2_loss":
        return tf.add_n([(y_pred[..., i] - y_true[..., i]) ** 2 for i in range(4)])
    if name == "smooth_l1_loss":
        d = tf.abs(y_true - y_pred)
        return tf.reduce_sum(tf.where(d < beta, d**2 / (2 * beta), d - beta / 2), -1)
    (x0, y0, x1, y1), (X0, Y0, X1, Y1) = edges(y_pred, box_format), edges(y_true, box_format)
    w, h, W, H = x1 - x0, y1 - y0, X1 - X0, Y1 - Y0
    inner_w = tf.nn.relu(tf.minimum(x1, X1) - tf.maximum(x0, X0))
    inner_h = tf.nn.relu(tf.minimum(y1, Y1) - tf.maximum(y0, Y0))
    outer_w = tf.maximum(x1, X1) - tf.minimum(x0, X0)
    outer_h = tf.maximum(y1, Y1) - tf.minimum(y0, Y0)
    dx, dy = (X0 + X1 - x0 - x1) / 2, (Y0 + Y1 - y0 - y1) / 2
    intersection = inner_w * inner_h
    union = w * h + W * H - intersection
    iou = intersection / union
    if name == "iou":
        return iou
    if name == "iou_loss":
        return -tf.math.log(iou)
    closeness = (dx**2 + dy**2) / (outer_w**2 + outer_h**2)
    loss = 1 - iou**alpha
    if name == "giou_loss":
        enclosure = outer_w * outer_h
        return loss + tf.maximum((enclosure - union) / enclosure, 0) ** alpha
    if name == "diou_loss":
        return loss + closeness**alpha
    if name == "ciou_loss":
        v = (2 / math.pi * (tf.atan(W / H) - tf.atan(w / h))) ** 2
        weight = tf.stop_gradient(v / (1 - iou + v))
        return loss + closeness**alpha + (weight * v) ** alpha
    if name == "eiou_loss":
        sides = ((w - W) ** 2 / outer_w**2) ** alpha + ((h - H) ** 2 / outer_h**2) ** alpha
        return loss + closeness**alpha + sides
    if name == "siou_loss":
        # The paper's arcsin of |dy| over the distance, where it is as exact as the rest.
        theta = tf.atan2(tf.abs(dy), tf.abs(dx))
        angle = 1 - 2 * tf.sin(theta - math.pi / 4) ** 2
        gamma = 2 - angle
        distance = (1 - tf.exp(-gamma * (dx / outer_w) ** 2)) + (
            1 - tf.exp(-gamma * (dy / outer_h) ** 2)
        )
        omega_w = tf.abs(w - W) / tf.maximum(w, W)
        omega_h = tf.abs(h - H) / tf.maximum(h, H)
        shape = (1 - tf.exp(-omega_w)) ** 4 + (1 - tf.exp(-omega_h)) ** 4
        return loss + ((distance + shape) / 2) ** alpha
    assert name == "linear_iou_loss"
    return loss


def random_boxes(random, count, box_format="tblr"):
    """Truth and prediction, 1 to 1000 px, float64; corner boxes meet or not. No side equals its counterpart."""
    if box_format == "tblr":
        y_true, y_pred = random.uniform(0.5, 500, (2, count, 4))
    else:
        corner = random.uniform(0, 400, (2, count, 2))
        y_true, y_pred = np.concatenate(
            [corner, corner + random.uniform(1, 600, corner.shape)], axis=-1
        )
    assert np.abs(y_true - y_pred).min() > 0
    return tf.constant(y_true), tf.constant(y_pred)


def meet_well(y_true, y_pred, box_format):
    """True where boxes share more than 1 % of the true height and width: below, -ln IoU has its floors."""
    (x0, y0, x1, y1), (X0, Y0, X1, Y1) = edges(y_pred, box_format), edges(y_true, box_format)
    width, height = np.minimum(x1, X1) - np.maximum(x0, X0), np.minimum(y1, Y1) - np.maximum(y0, Y0)
    return (width > 0.01 * (X1 - X0)) & (height > 0.01 * (Y1 - Y0))


def boxes_for(case, random, count):
    """`random_boxes`; only boxes that meet well where the plain formula is infinite for the others."""
    function, options = CASES[case]
    y_true, y_pred = random_boxes(random, count, options.get("box_format", "tblr"))
    if function is losses.iou_loss:
        chosen = meet_well(y_true, y_pred, options["box_format"])
        y_true, y_pred = y_true[chosen], y_pred[chosen]
    return y_true, y_pred


# Values and gradients


@each
def test_values_and_gradients_are_those_of_the_plain_formula(case, random):
    function, options = CASES[case]
    y_true, y_pred = boxes_for(case, random, 10_000)
    value, written = gradient(function, y_true, y_pred, **options)
    expected_value, expected = gradient(
        lambda t, p: plain(function, t, p, **options), y_true, y_pred
    )
    np.testing.assert_allclose(value, expected_value, rtol=1e-9, atol=1e-12)
    # Relative to the box: a side may have a gradient of 0 as the difference of larger terms.
    scale = np.abs(expected).max(axis=-1, keepdims=True) + 1e-12
    np.testing.assert_allclose(written / scale, expected / scale, rtol=0, atol=1e-8)


def test_the_gradient_of_the_paper_is_that_of_autodiff_side_by_side(random):
    y_true, y_pred = boxes_for("iou_loss tblr", random, 11_000)
    assert len(y_true) >= 10_000
    _, written = gradient(losses.iou_loss, y_true, y_pred)
    _, expected = gradient(lambda t, p: plain(losses.iou_loss, t, p), y_true, y_pred)
    np.testing.assert_allclose(written, expected, rtol=1e-10)


@each_loss
def test_gradients_are_those_of_finite_differences(case, random):
    function, options = CASES[case]
    y_true, y_pred = boxes_for(case, random, 60)
    # Away from kinks: equal sides, and the change from square to line of smooth L1.
    difference = np.abs(y_true - y_pred)
    beta = options.get("beta", 1.0)
    away = (difference > 0.05).all(-1) & (np.abs(difference - beta) > 0.05).all(-1)
    if options.get("box_format") == "xyxy":
        x0, y0, x1, y1 = np.moveaxis(np.stack([y_true, y_pred]), -1, 0)
        gap_x = np.minimum(x1[0], x1[1]) - np.maximum(x0[0], x0[1])
        gap_y = np.minimum(y1[0], y1[1]) - np.maximum(y0[0], y0[1])
        away &= (np.abs(gap_x) > 0.05) & (np.abs(gap_y) > 0.05)
    y_true, y_pred = y_true[away][:25], y_pred[away][:25]
    assert len(y_true) == 25

    fixed = y_pred

    def values(y):
        value = function(y_true, y, **options)
        if function is losses.ciou_loss:  # the weight is a constant of the differentiation
            return value - penalty(y) + penalty(y, weight_at=fixed)
        return value

    def penalty(y, weight_at=None):
        at = y if weight_at is None else weight_at
        iou = losses.iou(y_true, at, options["box_format"])
        v, v_at = aspect(y), aspect(at)
        return (v_at / (1 - iou + v_at) * v) ** options["alpha"]

    def aspect(y):
        (x0, y0, x1, y1), (X0, Y0, X1, Y1) = (edges(z, options["box_format"]) for z in (y, y_true))
        return (
            4 / math.pi**2 * (tf.atan((X1 - X0) / (Y1 - Y0)) - tf.atan((x1 - x0) / (y1 - y0))) ** 2
        )

    _, written = gradient(function, y_true, y_pred, **options)
    # Each row alone, so that differences are taken at the scale of its own value.
    step, numeric = 1e-3, np.zeros(written.shape)
    for i in range(4):
        for k, factor in ((-2, 1 / 12), (-1, -8 / 12), (1, 8 / 12), (2, -1 / 12)):
            moved = y_pred.numpy()
            moved[:, i] += k * step
            numeric[:, i] += factor * values(tf.constant(moved)).numpy() / step
    scale = np.abs(numeric).max(axis=-1, keepdims=True)
    # Values are near 1, so differences know slopes to 1e-16 / step.
    assert (np.abs(written - numeric) <= 1e-6 * scale + 1e-12).all()


@each_loss
def test_second_derivatives_are_those_of_the_plain_formula(case, random):
    function, options = CASES[case]
    y_true, y_pred = boxes_for(case, random, 50)

    def hessian(f, y):
        with tf.GradientTape(persistent=True) as outer:
            outer.watch(y)
            _, first = gradient(f, y_true, y, **options)
        return outer.batch_jacobian(first, y, experimental_use_pfor=False)

    written = hessian(function, y_pred)
    expected = hessian(lambda t, p, **o: plain(function, t, p, **o), y_pred)
    scale = np.abs(expected).max(axis=(1, 2), keepdims=True) + 1e-9
    np.testing.assert_allclose(written / scale, expected / scale, atol=1e-7)


def test_iou_loss_by_hand():
    # Boxes of 4 x 4 and 4 x 2, one within the other: IoU 8 / 16.
    y_true, y_pred = tf.constant([[2.0, 2, 2, 2]]), tf.constant([[2.0, 2, 1, 1]])
    # Equation 7 with X = 8, I = 8, U = 16: dL/dx_t = 2/16 - 0; dL/dx_l = 4/16 - (24/128) 4 = -1/2.
    value, g = gradient(losses.iou_loss, y_true, y_pred)
    assert value.numpy().item() == pytest.approx(np.log(2))
    assert g.numpy().tolist() == [[0.125, 0.125, -0.5, -0.5]]


def test_the_family_by_hand():
    # 2 x 2 at the origin and 2 x 4 moved by (1, 1): I = 1, U = 11, C = 3 x 5 = 15; offset of the
    # centres (1, 2), diagonal^2 34.
    boxes = [[0.0, 0, 2, 2]], [[1.0, 1, 3, 5]]
    base = 1 - 1 / 11
    v = 4 / math.pi**2 * (math.atan(1) - math.atan(0.5)) ** 2
    gamma = 2 - math.sin(2 * math.atan2(2, 1))
    distance = 2 - math.exp(-gamma / 9) - math.exp(-gamma * 4 / 25)
    for loss, expected in (
        (losses.iou_loss, math.log(11)),
        (losses.linear_iou_loss, base),
        (losses.giou_loss, base + 4 / 15),
        (losses.diou_loss, base + 5 / 34),
        (losses.ciou_loss, base + 5 / 34 + v * v / (base + v)),
        (losses.eiou_loss, base + 5 / 34 + 0 / 9 + 4 / 25),
        (losses.siou_loss, base + (distance + (1 - math.exp(-0.5)) ** 4) / 2),
        (losses.iou, 1 / 11),
    ):
        assert loss(*boxes, "xyxy").numpy().item() == pytest.approx(expected, rel=1e-6)
    assert losses.l2_loss(*boxes).numpy().item() == 1 + 1 + 1 + 9
    assert losses.smooth_l1_loss(*boxes).numpy().item() == 0.5 * 3 + 2.5
    assert losses.smooth_l1_loss(*boxes, beta=4.0).numpy().item() == 3 / 8 + 9 / 8


# Other libraries: the golden files, how they were made and what is known of them are in
# tests/references. Each library adds its own small number to denominators.

REFERENCES = Path(__file__).parent / "references"
GOLDENS = {
    "tfa/giou_loss(iou)": (losses.linear_iou_loss, 1e-8),
    "keras_cv/IoULoss(linear)": (losses.linear_iou_loss, 5e-7),  # float32
    "mmdet/iou_loss(linear)": (losses.linear_iou_loss, 1e-8),
    "keras_cv/IoULoss(log)": (losses.iou_loss, 5e-7),
    "mmdet/iou_loss(log)": (losses.iou_loss, 1e-8),
    "torchvision/generalized_box_iou_loss": (losses.giou_loss, 1e-8),
    "tfa/giou_loss(giou)": (losses.giou_loss, 1e-8),
    "keras_cv/GIoULoss": (losses.giou_loss, 5e-7),
    "mmdet/giou_loss": (losses.giou_loss, 1e-8),
    "mmyolo/bbox_overlaps(giou)": (losses.giou_loss, 1e-8),
    "torchvision/distance_box_iou_loss": (losses.diou_loss, 1e-8),
    "mmdet/diou_loss": (losses.diou_loss, 1e-8),
    "easycv/YOLOX_IOULoss(diou)": (losses.diou_loss, 1e-8),
    "torchvision/complete_box_iou_loss": (losses.ciou_loss, 1e-7),
    "mmyolo/bbox_overlaps(ciou)": (losses.ciou_loss, 1e-7),
    "easycv/YOLOX_IOULoss(ciou)": (losses.ciou_loss, 1e-7),
    "mmdet/ciou_loss": (losses.ciou_loss, 1e-7),
    "easycv/YOLOX_IOULoss(eiou)": (losses.eiou_loss, 1e-7),
    "yolov6/IOUloss(siou)": (losses.siou_loss, 1e-8),
    "mmyolo/bbox_overlaps(siou)": (losses.siou_loss, 1e-8),
    "mmdet/siou_loss": (losses.siou_loss, 1e-8),
}
# Golden values that are not of the published formula; versions.json says why.
DEVIATING = {"keras_cv/CIoULoss", "easycv/YOLOX_IOULoss(siou)"}


@pytest.fixture(scope="module")
def goldens():
    return np.load(REFERENCES / "box_losses.npz")


def test_every_golden_value_is_compared(goldens):
    calls = json.loads((REFERENCES / "versions.json").read_text(encoding="utf-8"))["calls"]
    assert set(GOLDENS) | DEVIATING == set(calls)
    assert set(calls) < set(goldens.files)
    assert len(goldens["truth"]) == 10_000 + len(goldens["edge_names"])
    for loss in FAMILY:
        libraries = {
            key.split("/")[0] for key, (function, _) in GOLDENS.items() if function is loss
        }
        # Efficient IoU was found in one library only.
        assert len(libraries) >= (1 if loss is losses.eiou_loss else 2)


@pytest.mark.parametrize("name", GOLDENS)
def test_values_and_gradients_are_those_of_other_libraries(goldens, name):
    function, tolerance = GOLDENS[name]
    y_true, y_pred = (goldens[key].astype(np.float64) for key in ("truth", "prediction"))
    value, g = (tensor.numpy() for tensor in gradient(function, y_true, y_pred, box_format="xyxy"))
    expected, rows = goldens[name], goldens["gradient_rows"]
    same = np.ones(len(value), bool)
    if function is losses.iou_loss:  # they are infinite, or cut off, where boxes are apart
        same = losses.iou(y_true, y_pred, "xyxy").numpy() > 0
    elif name == "mmdet/ciou_loss":  # the weight of CIoU's second paper
        same = losses.iou(y_true, y_pred, "xyxy").numpy() > 0.5
    elif name == "easycv/YOLOX_IOULoss(eiou)":
        same = expected < 2
        assert (value[~same] >= 2 - tolerance).all()
    assert same.mean() > 0.3
    np.testing.assert_allclose(value[same], expected[same], rtol=tolerance, atol=tolerance)
    if f"{name}/gradient" in goldens:
        # Edge cases, which come last, sit on kinks, where each library has its own rule.
        rows = rows[rows < 10_000]
        kept = same[rows]
        if function is losses.iou_loss:
            kept &= meet_well(y_true, y_pred, "xyxy")[rows]
        if function is losses.ciou_loss:  # its slope is bounded for boxes of next to no size
            diagonal = [np.hypot(*(y[:, 2:] - y[:, :2]).T) for y in (y_pred, y_true)]
            kept &= (diagonal[0] > 0.01 * diagonal[1])[rows]
        assert kept.sum() > 300
        np.testing.assert_allclose(
            g[rows][kept],
            goldens[f"{name}/gradient"][: len(rows)][kept],
            rtol=10 * tolerance,
            atol=10 * tolerance,
        )


# Properties

sides = hnp.arrays(np.float64, (6, 4), elements=st.floats(0.5, 500))


@st.composite
def corner_boxes(draw):
    elements = st.floats(0.5, 500)
    corner, size = (draw(hnp.arrays(np.float64, (6, 2), elements=elements)) for _ in range(2))
    return np.concatenate([corner, corner + size], axis=1)


@each_of_family
@given(sides, sides, st.floats(0.01, 100))
def test_losses_are_unchanged_by_scale(function, y_true, y_pred, scale):
    np.testing.assert_allclose(
        function(y_true * scale, y_pred * scale),
        function(y_true, y_pred),
        rtol=1e-9,
        atol=1e-9,
    )


@each_of_family
@given(corner_boxes(), corner_boxes(), st.floats(-1000, 1000))
def test_losses_of_corners_are_unchanged_by_shifts(function, y_true, y_pred, shift):
    np.testing.assert_allclose(
        function(y_true + shift, y_pred + shift, "xyxy"),
        function(y_true, y_pred, "xyxy"),
        rtol=1e-9,
        atol=1e-9,
    )


@each_of_family
@given(sides, sides)
def test_losses_are_symmetric_and_zero_at_equality(function, a, b):
    # Within the floor: boxes here differ by a factor of 1000 in a side at most.
    np.testing.assert_allclose(function(a, b), function(b, a), rtol=1e-9, atol=1e-9)
    np.testing.assert_array_equal(function(a, a), 0)


@given(sides, sides)
def test_distances_and_corners_give_the_same(a, b):
    """Distances are taken from one point, corners from (0, 0)."""
    point = np.float64([300, 200])
    for function in FAMILY:
        corners = [
            np.stack(
                [
                    point[0] - y[:, 2],
                    point[1] - y[:, 0],
                    point[0] + y[:, 3],
                    point[1] + y[:, 1],
                ],
                axis=1,
            )
            for y in (a, b)
        ]
        np.testing.assert_allclose(function(a, b), function(*corners, "xyxy"), rtol=1e-9, atol=1e-9)


@given(sides, sides)
def test_iou_loss_is_minus_the_logarithm_of_the_metric(a, b):
    np.testing.assert_allclose(np.exp(-losses.iou_loss(a, b)), losses.iou(a, b), rtol=1e-9)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@given(corner_boxes(), corner_boxes())
def test_bounds(dtype, a, b):
    a, b, rounding = a.astype(dtype), b.astype(dtype), 3 * np.finfo(dtype).eps
    iou = losses.iou(a, b, "xyxy").numpy()
    assert (iou >= 0).all()
    assert (iou <= 1).all()
    value = {function: function(a, b, "xyxy").numpy() for function in FAMILY}
    assert (value[losses.iou_loss] >= 0).all()
    for function, upper in zip(FAMILY[1:], (1, 2, 2, 3, 4, 2.1), strict=True):
        assert (value[function] >= -rounding).all()
        assert (value[function] <= upper).all()
    # GIoU <= IoU, and the others, too: they add to 1 - IoU.
    for function in FAMILY[2:]:
        assert (1 - value[function] <= iou + rounding).all()


@given(sides, sides)
def test_iou_loss_shrinks_on_the_straight_way_to_the_truth(y_true, y_pred):
    """I / X and I / G grow with every step, so 1 / IoU = X / I + G / I - 1 shrinks."""
    way = np.stack([y_pred + share * (y_true - y_pred) for share in np.linspace(0, 1, 21)])
    values = losses.iou_loss(np.broadcast_to(y_true, way.shape), way)
    assert (np.diff(values, axis=0) <= 1e-12).all()


# Ties


def test_a_side_that_is_exactly_right_is_not_asked_to_grow():
    y = tf.constant([[3.0, 4.0, 5.0, 6.0]])
    for function in FAMILY:
        _, g = gradient(function, y, y)
        # Strict < in equations 5 and 6, in the whole family: what is left of each is dX / U > 0.
        # GIoU also gains what the union gains, dX / C.
        expected = 0 if function is losses.giou_loss else [[1 / 7, 1 / 7, 1 / 11, 1 / 11]]
        np.testing.assert_allclose(g, np.broadcast_to(expected, (1, 4)), rtol=1e-6)
    # One side too short, the others right: it alone is asked to grow.
    _, g = gradient(losses.iou_loss, y, y - [[1.0, 0, 0, 0]])
    assert (np.sign(g) == [[-1, 1, 1, 1]]).all()


# Safety

EDGES = {
    "all zero": [0.0, 0, 0, 0],
    "no height": [0.0, 0, 1, 1],
    "no width": [1.0, 1, 0, 0],
    "one side each": [0.0, 1, 0, 1],
    "one side": [1.0, 0, 1, 1],
    "exact": [1.0, 2, 3, 1],
    "large": [50.0, 60, 70, 80],
}


@pytest.mark.parametrize(
    ("size", "dtype"),
    [
        (size, dtype)
        for size in (1e-20, 1e-15, 1e-10, 1e-3, 1.0, 30.0, 1e4, 1e15)
        for dtype in ("float16", "bfloat16", "float32", "float64")
        if (size, dtype) != (1e15, "float16")
    ],
)
def test_values_and_gradients_are_finite_at_the_edges(size, dtype):
    # float16 ends at 65,504; the truth has a side of 3.
    fitting = [e for e in EDGES if dtype != "float16" or max(3, *EDGES[e]) * size < 65_504]
    y_true = tf.cast([np.float64([1, 2, 3, 1]) * size] * len(fitting), dtype)
    y_pred = tf.cast(np.float64([EDGES[edge] for edge in fitting]).reshape(-1, 4) * size, dtype)
    for function, options in LOSSES.values():
        if options.get("box_format") == "xyxy":
            continue
        values, gradients = gradient(function, y_true, y_pred, **options)
        assert gradients.dtype == y_pred.dtype
        assert values.dtype == (tf.float64 if dtype == "float64" else tf.float32)
        rows = zip(fitting, values.numpy(), tf.cast(gradients, tf.float64).numpy(), strict=True)
        for edge, value, g in rows:
            assert np.isfinite(value), (edge, function.__name__, options)
            assert np.isfinite(g).all(), (edge, function.__name__, options)
            if edge == "exact":
                assert value == 0
            elif (
                function in FAMILY
                and edge != "large"
                and options.get("alpha", 1.0) == 1  # IoU^3 is flat at 0
                and size > 1e-11  # below, areas are too small for float32: no object
                and dtype != "float16"  # which has no number for the smallest of these slopes
            ):
                # Something is missing, so something is asked to grow.
                assert (g < 0).any(), (edge, function.__name__, options)


CORNER_EDGES = {
    "exact": [10.0, 10, 20, 30],
    "touching a side": [20.0, 10, 40, 30],
    "touching a corner": [20.0, 30, 40, 50],
    "apart": [25.0, 12, 40, 28],
    "far apart": [500.0, 700, 600, 900],
    "a point": [15.0, 15, 15, 15],
    "a point outside": [0.0, 0, 0, 0],
    "a line": [10.0, 15, 20, 15],
    "inside out": [20.0, 30, 10, 10],
    "same centre": [14.0, 18, 16, 22],
}


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("size", [1e-3, 1.0, 30.0])
def test_corner_boxes_that_do_not_meet_are_finite(size, dtype):
    y_true = tf.cast([np.float64([10, 10, 20, 30]) * size] * len(CORNER_EDGES), dtype)
    y_pred = tf.cast(np.float64(list(CORNER_EDGES.values())) * size, dtype)
    for function, options in LOSSES.values():
        if options.get("box_format") == "xyxy":
            value, g = gradient(function, y_true, y_pred, **options)
            finite = np.isfinite(value) & np.isfinite(tf.cast(g, tf.float64)).all(axis=-1)
            failed = [edge for edge, well in zip(CORNER_EDGES, finite, strict=True) if not well]
            assert not failed, (function.__name__, options)


@pytest.mark.parametrize("function", [losses.iou_loss, *FAMILY[2:]])
def test_boxes_apart_are_asked_to_approach(function):
    value, g = gradient(
        function,
        tf.constant([[10.0, 10, 20, 30]]),
        tf.constant([[32.0, 12, 40, 28]]),
        box_format="xyxy",
    )
    assert value.numpy().item() > 1
    assert g.numpy()[0, 0] > 0  # its left side is too far right


def test_the_loss_of_a_box_of_no_size_is_bounded():
    value = losses.iou_loss([[5.0, 5, 5, 5]], [[0.0] * 4])
    assert value.numpy().item() == pytest.approx(-2 * math.log(1e-4), rel=1e-3)  # 18.4


def descent(function, y_true, rate, steps):
    """IoU `[steps, N]` in plain gradient descent from distances of 0, behind a ReLU as in the network."""

    @tf.function(autograph=False)
    def step(y_pred):
        _, g = gradient(function, y_true, y_pred)
        y_pred = tf.nn.relu(y_pred - rate * g)
        return y_pred, losses.iou(y_true, y_pred)

    y_pred, reached = tf.zeros_like(y_true), []
    for _ in range(steps):
        y_pred, iou = step(y_pred)
        reached.append(iou.numpy())
    return np.stack(reached)


@each_of_family
def test_ten_steps_of_plain_descent_raise_the_iou_of_boxes_of_no_size(function, random):
    y_true = tf.constant(random.uniform(5, 80, (200, 4)))
    assert (descent(function, y_true, 10.0, 10)[-1] > 0).all()


def test_plain_descent_from_no_box_at_all_finds_the_box(random):
    y_true = tf.constant(random.uniform(20, 40, (200, 4)))
    for rate in (5.0, 20.0):  # near the truth, a step then moves each side by 0.1 to 0.3 px
        reached = descent(losses.iou_loss, y_true, rate, 500).mean(axis=1)
        assert reached[9] > 0.05
        assert reached[-1] > 0.9


@pytest.mark.parametrize("function", [losses.eiou_loss, losses.siou_loss])
def test_losses_of_the_sides_find_the_box_from_none(function, random):
    y_true = tf.constant(random.uniform(20, 40, (200, 4)))
    assert descent(function, y_true, 20.0, 1000)[-1].mean() > 0.8


def test_the_slope_of_the_loss_of_a_box_of_no_size_is_a_hundred_times_that_of_a_good_one():
    _, g = gradient(losses.iou_loss, tf.constant([[5.0, 5, 5, 5]]), tf.constant([[0.0] * 4]))
    np.testing.assert_allclose(g, [[-10.0] * 4], rtol=0.02)  # 100 / height


@each_loss_of_overlap
def test_where_there_is_no_true_box_there_is_neither_loss_nor_gradient(case):
    function, options = CASES[case]
    nan = np.nan
    y_pred = tf.constant([[0.0] * 4, [1, 2, 3, 4], [nan] * 4, [nan, 1, np.inf, 2]])
    for y_true in (
        [0.0] * 4,
        [0.0, 0, 1, 1] if options["box_format"] == "tblr" else [3.0, 3, 3, 9],
    ):
        value, g = gradient(function, tf.constant([y_true] * 4), y_pred, **options)
        assert value.numpy().tolist() == [0] * 4
        assert not g.numpy().any()
    assert losses.iou(np.zeros((1, 4)), np.ones((1, 4))).numpy().tolist() == [0]


def test_only_the_prediction_has_a_gradient():
    y_true, y_pred = tf.constant([[2.0, 2, 2, 2]]), tf.constant([[2.0, 3, 1, 1]])
    for function, options in LOSSES.values():
        with tf.GradientTape() as tape:
            tape.watch([y_true, y_pred])
            value = function(y_true, y_pred, **options)
        by_true, by_pred = tape.gradient(value, [y_true, y_pred])
        assert by_true is None
        assert by_pred is not None


@each
def test_shapes_that_would_broadcast_are_refused(case):
    function, options = CASES[case]
    with pytest.raises(ValueError, match=r"Expected y_true and y_pred of one shape \[..., 4\]"):
        function(np.ones((1, 4)), np.ones((3, 4)), **options)
    for scalar_or_not_four in (np.ones((3, 1)), np.float64(3)):
        with pytest.raises(ValueError, match="one shape"):
            function(scalar_or_not_four, scalar_or_not_four, **options)
    # Shapes that are known only when the graph runs.
    graph = tf.function(
        lambda t, p: function(t, p, **options),
        input_signature=[tf.TensorSpec([None, 4], tf.float64)] * 2,
        autograph=False,
    )
    with pytest.raises(tf.errors.InvalidArgumentError, match="one shape"):
        graph(np.ones((1, 4)), np.ones((3, 4)))


@pytest.mark.parametrize("gather", [True, False])
@pytest.mark.parametrize("in_graph", [True, False])
def test_classes_refuse_shapes_that_differ(gather, in_graph):
    loss = make("l2", gather)

    def call(t, p, w):
        return loss(t, p, sample_weight=w)

    if in_graph:
        heatmap = tf.TensorSpec([None, None, None, 4], tf.float32)
        weights = tf.TensorSpec([None, None, None], tf.float32)
        call = tf.function(call, input_signature=[heatmap, heatmap, weights], autograph=False)
    large, small = tf.ones([1, 6, 6, 4]), tf.ones([1, 4, 4, 4])
    error = tf.errors.InvalidArgumentError if in_graph else ValueError
    with pytest.raises(error, match="one shape"):
        call(large, small, tf.ones([1, 4, 4]))
    with pytest.raises(error, match="sample_weight"):
        call(small, small, tf.ones([1, 6, 6]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"box_format": "xywh"}, "Expected box_format 'tblr' or 'xyxy'. Received: .*'xywh'"),
        ({"alpha": 0.5}, "Expected alpha of at least 1.*Received: alpha=0.5"),
        ({"alpha": math.nan}, "Expected alpha of at least 1"),
    ],
)
def test_options_that_cannot_be_used_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        losses.giou_loss(np.ones((1, 4)), np.ones((1, 4)), **options)
    with pytest.raises(ValueError, match=message):
        losses.GIoULoss(**options)


def test_smooth_l1_refuses_a_beta_of_zero():
    with pytest.raises(ValueError, match="Expected beta above 0"):
        losses.SmoothL1Loss(beta=0)


# The same everywhere


@pytest.fixture(scope="module")
def expected():
    """For each case float32 inputs, and the value and gradient that Python gives eagerly."""
    random, result = np.random.default_rng(5), {}
    for case, (function, options) in PLACED.items():
        y_true, y_pred = (tf.cast(y, tf.float32) for y in boxes_for(case, random, 100))
        result[case] = y_true, y_pred, *gradient(function, y_true, y_pred, **options)
    return result


def assert_same(actual, expected):
    for a, b in zip(actual, expected, strict=True):
        scale = np.abs(b).max(axis=-1, keepdims=True) if np.ndim(b) == 2 else 1.0
        scale = np.where(scale == 0, 1.0, scale)  # no gradient at all
        np.testing.assert_allclose(a / scale, b / scale, rtol=3e-5, atol=3e-5)


@pytest.mark.parametrize("jit_compile", [False, True])
@each_placed
def test_graphs_give_what_eager_gives(case, jit_compile, expected):
    function, options = CASES[case]
    y_true, y_pred, *result = expected[case]

    @tf.function(jit_compile=jit_compile, autograph=False)
    def graph(t, p):
        return gradient(function, t, p, **options)

    assert_same(graph(y_true, y_pred), result)


@each_placed
def test_data_pipelines_give_what_eager_gives(case, expected):
    function, options = CASES[case]
    y_true, y_pred, *result = expected[case]
    pipeline = tf.data.Dataset.from_tensors((y_true, y_pred)).map(
        lambda t, p: gradient(function, t, p, **options)
    )
    assert_same(next(iter(pipeline)), result)


@pytest.mark.slow
def test_saved_models_give_what_eager_gives(expected, tmp_path):
    module = tf.Module()
    signature = [tf.TensorSpec([None, 4], tf.float32)] * 2
    names = {case: f"case_{index}" for index, case in enumerate(PLACED)}

    def stored(function, options, with_gradient):
        def call(t, p):
            if with_gradient:
                return gradient(function, t, p, **options)
            return function(t, p, **options)

        return tf.function(call, input_signature=signature, autograph=False)

    for case, name in names.items():
        setattr(module, name, stored(*PLACED[case], True))
        # Without its gradient, which is then taken of what was loaded.
        setattr(module, f"{name}_value", stored(*PLACED[case], False))
    tf.saved_model.save(module, tmp_path)
    loaded = tf.saved_model.load(tmp_path)
    for case, name in names.items():
        y_true, y_pred, *result = expected[case]
        assert_same(getattr(loaded, name)(y_true, y_pred), result)
        assert_same(gradient(getattr(loaded, f"{name}_value"), y_true, y_pred), result)


@pytest.mark.slow
def test_two_devices_give_what_one_gives(expected, tmp_path):
    """`MirroredStrategy` needs its devices before TensorFlow starts, so it has a process of its own."""
    np.savez(
        tmp_path / "boxes.npz",
        **{case: np.stack(values[:2]) for case, values in expected.items()},
    )
    subprocess.run(
        [sys.executable, "-m", "tests.losses_on_two_devices", str(tmp_path)],
        check=True,
        cwd=Path(__file__).parent.parent,
    )
    found = np.load(tmp_path / "found.npz")
    for case, (_, _, *result) in expected.items():
        assert_same([found[f"{case}/value"], found[f"{case}/gradient"]], result)
    for name in registry.LOSSES:
        # Both halves are added up; means are those of two means.
        assert found[f"{name}/sum"] == pytest.approx(found[f"{name}/sum of all"], rel=1e-4)
        assert found[f"{name}/mean"] == pytest.approx(found[f"{name}/mean of halves"], rel=1e-4)


# Classes


def heatmaps(random):
    y_true, y_pred = random.uniform(1, 50, (2, 2, 5, 7, 4)).astype(np.float32)
    weight = (random.uniform(size=(2, 5, 7)) < 0.3) * random.uniform(0.5, 2, (2, 5, 7))
    return y_true * (weight > 0)[..., None].astype(np.float32), y_pred, weight.astype(np.float32)


def make(name, gather=True, **options):
    """The loss of that name, which gathers the pixels that count or masks the others."""
    loss = registry.LOSSES[name](**options)
    loss.gather = gather
    return loss


each_class = pytest.mark.parametrize("name", list(registry.LOSSES))


@functools.cache  # several tests share what is traced and compiled
def step_of(name, reduction, gather, jit_compile):
    """Value and gradient of truth, prediction and weight; eager where `jit_compile` is None."""
    loss = make(name, gather, reduction=reduction)

    def step(t, p, w):
        return gradient(lambda t, p: loss(t, p, sample_weight=w), t, p)

    if jit_compile is None:
        return step
    return tf.function(step, jit_compile=jit_compile, autograph=False)


@pytest.mark.parametrize("gather", [True, False])
@each_class
def test_reductions_sum_over_pixels_or_average_over_positive_ones(random, name, gather):
    y_true, y_pred, weight = heatmaps(random)
    total = float((getattr(losses, f"{name}_loss")(y_true, y_pred).numpy() * weight).sum())
    for reduction, expected in (
        ("sum", total),
        ("mean_with_sample_weight", total / weight.sum()),
        ("sum_over_batch_size", total / weight.size),
    ):
        made = make(name, gather, reduction=reduction)
        value = made(y_true, y_pred, sample_weight=weight)
        assert float(value) == pytest.approx(expected, rel=1e-5)
        assert float(made(y_true, y_pred, weight[..., None])) == pytest.approx(expected, rel=1e-5)
    each = make(name, gather, reduction="none")(y_true, y_pred, weight)
    assert each.shape == weight.shape
    assert float(tf.reduce_sum(each)) == pytest.approx(total, rel=1e-5)
    unweighted = make(name, gather)(y_true + 1, y_pred)
    assert float(unweighted) == pytest.approx(
        getattr(losses, f"{name}_loss")(y_true + 1, y_pred).numpy().mean(), rel=1e-5
    )


def test_weights_of_images_hold_for_their_pixels(random):
    y_true, y_pred, _ = heatmaps(random)
    loss = losses.L2Loss(reduction="sum")
    expected = float(tf.reduce_sum(losses.l2_loss(y_true[1], y_pred[1]))) * 3
    assert float(loss(y_true, y_pred, sample_weight=[0.0, 3.0])) == pytest.approx(
        expected, rel=1e-5
    )
    with pytest.raises(ValueError, match=r"Expected sample_weight of shape \(2, 5, 7\).*\(7, 5\)"):
        loss(y_true, y_pred, sample_weight=np.ones((7, 5)))


@pytest.mark.parametrize("jit_compile", [False, None])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "int32"])
@each_class
def test_predictions_of_other_types_keep_weights_and_finite_gradients(name, dtype, jit_compile):
    y_true = tf.constant([[5.0, 5, 5, 5], [4, 4, 4, 4], [0.01, 0.01, 0.01, 0.01]])
    y_pred = tf.constant([[7.0, 5, 5, 5], [4, 4, 4, 4], [0, 0, 0, 0]])
    weight = tf.constant([1 / 3, 1 / 60_000, 0.25])  # no such number in bfloat16
    step = step_of(name, "sum", True, jit_compile)
    expected, _ = step(y_true, y_pred, weight)
    value, g = step(y_true, tf.cast(y_pred, dtype), weight)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    if dtype != "int32":
        assert g.dtype == dtype
        assert np.isfinite(tf.cast(g, tf.float32)).all()


@pytest.mark.parametrize("reduction", ["sum", "mean_with_sample_weight", "mean", "none"])
@pytest.mark.parametrize("weighted", [True, False])
def test_masks_of_keras_are_obeyed(random, reduction, weighted):
    class Plain(keras.losses.Loss):
        def call(self, y_true, y_pred):
            return losses.l2_loss(y_true, y_pred)

    y_true, y_pred, weight = map(tf.constant, heatmaps(random))
    results = []
    for loss in (losses.L2Loss(reduction=reduction), Plain(reduction=reduction)):
        masked = tf.identity(y_pred)
        masked._keras_mask = tf.reshape(tf.range(70) % 3 > 0, [2, 5, 7])
        results.append(loss(y_true, masked, sample_weight=weight if weighted else None))
    np.testing.assert_allclose(*results, rtol=1e-5)


@pytest.mark.parametrize(
    ("gather", "jit_compile"),
    [
        (True, None),
        (True, False),
        # Training never does it, and XLA takes long to compile it.
        pytest.param(True, True, marks=pytest.mark.slow),
        (False, None),
        (False, False),
        (False, True),
    ],
)
@each_class
def test_nan_at_pixels_without_weight_does_no_harm(random, name, gather, jit_compile):
    y_true, y_pred, weight = heatmaps(random)
    step = step_of(name, "mean_with_sample_weight", gather, jit_compile)
    weight[:, 0], weight[:, 1, 0] = 0, -0.5  # a negative weight counts
    clean = step(*map(tf.constant, (y_true, y_pred, weight)))
    assert np.isfinite(clean[0]).all()
    y_true[:, 0], y_true[:, 0, 0] = 5, np.nan  # objects, ignored
    y_pred[:, 0, 1], y_pred[:, 0, 2] = np.nan, np.inf
    for a, b in zip(step(*map(tf.constant, (y_true, y_pred, weight))), clean, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)
    assert not clean[1].numpy()[weight == 0].any()


def test_nan_at_pixels_without_weight_is_not_in_the_mean_iou(random):
    y_true, y_pred, weight = heatmaps(random)
    y_true += 1
    expected = np.average(losses.iou(y_true, y_pred).numpy(), weights=weight)
    y_pred[weight == 0] = np.nan
    metric = losses.MeanIoU()
    metric.update_state(y_true, y_pred, sample_weight=weight)
    assert float(metric.result()) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("jit_compile", [None, False])
@pytest.mark.parametrize("reduction", ["sum", "mean_with_sample_weight"])
@each_class
def test_batches_with_no_or_only_positive_pixels(random, name, reduction, jit_compile):
    y_true, y_pred = (
        tf.constant(y) for y in random.uniform(1, 50, (2, 2, 5, 7, 4)).astype(np.float32)
    )
    step = step_of(name, reduction, True, jit_compile)
    value, g = step(tf.zeros_like(y_true), y_pred, tf.zeros([2, 5, 7]))
    assert float(value) == 0
    assert not g.numpy().any()
    value, g = step(y_true, y_pred, tf.ones([2, 5, 7]))
    assert np.isfinite(float(value))
    assert np.isfinite(g).all()
    assert g.numpy().any(axis=-1).all()


def test_each_object_weighs_the_same_by_its_weights():
    """Mean over objects: the weights of `targets.encode(equal_objects=True)`, by hand."""
    y_true = np.full((1, 1, 10, 4), 5, np.float32)
    y_pred = np.where(np.arange(10)[:, None] < 8, y_true, 4).astype(np.float32)
    weight = np.where(np.arange(10) < 8, 1 / 8, 1 / 2).astype(np.float32)[None, None]
    loss = losses.L2Loss()
    # The object of eight pixels is right, that of two is wrong by 1 px at each side.
    assert float(loss(y_true, y_pred, sample_weight=weight)) == pytest.approx((0 + 4) / 2)
    assert float(loss(y_true, y_pred, sample_weight=np.ones((1, 1, 10)))) == pytest.approx(8 / 10)


def test_mean_iou_is_the_mean_over_positive_pixels(random):
    y_true, y_pred, weight = heatmaps(random)
    weight = (weight > 0).astype(np.float32)
    metric = losses.MeanIoU()
    metric.update_state(y_true, y_pred, sample_weight=weight)
    expected = losses.iou(y_true, y_pred).numpy()[weight > 0].mean()
    assert float(metric.result()) == pytest.approx(expected, rel=1e-5)


OPTIONS = {
    "iou": {"box_format": "xyxy"},
    **{name: {"box_format": "xyxy", "alpha": 2.0} for name in ("linear_iou", "giou", "diou")},
    **{name: {"box_format": "xyxy", "alpha": 3.0} for name in ("ciou", "eiou", "siou")},
    "l2": {},
    "smooth_l1": {"beta": 2.0},
}


@each_class
def test_losses_are_saved_with_models(name, tmp_path):
    loss = make(name, gather=False, reduction="sum", dtype="float64", **OPTIONS[name])
    inputs = keras.Input([4])
    model = keras.Model(inputs, keras.layers.Dense(4)(inputs))
    model.compile("sgd", loss=loss)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras").loss
    assert type(again) is type(loss)
    assert again.get_config() == loss.get_config()
    assert (again.reduction, again.dtype) == ("sum", "float64")
    assert "gather" not in again.get_config()  # what is fast depends on who goes on
    assert again.options == OPTIONS[name]
    boxes = np.float32([[1, 1, 5, 5]]), np.float32([[2, 1, 5, 9]])
    assert float(again(*boxes)) == float(loss(*boxes))


@each_class
def test_classes_take_the_options_of_their_functions_as_keywords_alone(name):
    parameters = list(inspect.signature(registry.LOSSES[name]).parameters.values())
    assert {parameter.kind for parameter in parameters} == {inspect.Parameter.KEYWORD_ONLY}
    function = inspect.signature(getattr(losses, f"{name}_loss")).parameters.values()
    expected = {option.name: option.default for option in list(function)[2:]}
    expected |= {"reduction": "mean_with_sample_weight", "name": None, "dtype": None}
    assert {parameter.name: parameter.default for parameter in parameters} == expected
    with pytest.raises(TypeError, match="positional"):
        registry.LOSSES[name]("xyxy")
    for absent in {"box_format", "alpha", "beta", "gather"} - set(expected):
        with pytest.raises(TypeError, match=absent):
            registry.LOSSES[name](**{absent: 1})


@keras.saving.register_keras_serializable("tests")
class L3Loss(losses.BoxLoss):
    """A loss of a user, with an option of its own."""

    def __init__(self, *, power=3.0, **common):
        super().__init__(l3_loss, power=power, **common)


def l3_loss(y_true, y_pred, power):
    return tf.reduce_sum(tf.abs(y_pred - y_true) ** power, axis=-1)


def test_a_class_of_a_user_weighs_pixels_and_is_saved_as_ours(random):
    y_true, y_pred, weight = heatmaps(random)
    y_pred[weight == 0] = np.nan
    loss = L3Loss(power=2.0, name="mine")
    expected = losses.L2Loss()(y_true, y_pred, sample_weight=weight)
    for gather in (True, False):
        loss.gather = gather
        assert float(loss(y_true, y_pred, sample_weight=weight)) == pytest.approx(float(expected))
    again = keras.losses.deserialize(keras.losses.serialize(loss))
    assert isinstance(again, L3Loss)
    assert (again.options, again.name) == ({"power": 2.0}, "mine")


@each
def test_functions_are_saved_with_models(case, tmp_path):
    function, _ = CASES[case]
    inputs = keras.Input([4])
    model = keras.Model(inputs, keras.layers.Dense(4)(inputs))
    model.compile("sgd", loss=function)
    model.save(tmp_path / "model.keras")
    assert keras.saving.load_model(tmp_path / "model.keras").loss is function
