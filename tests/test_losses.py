import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from unitbox_tf import losses

sides = hnp.arrays(np.float64, (6, 4), elements=st.floats(0.5, 500))


def random_distances(random, count):
    """Boxes from 1 to 1000 px; no side of one is as long as that of the other, where min has a kink."""
    y_true, y_pred = random.uniform(0.5, 500, (2, count, 4))
    assert np.abs(y_true - y_pred).min() > 0
    return tf.constant(y_true), tf.constant(y_pred)


def plain_iou_loss(y_true, y_pred):
    """-ln IoU of corner boxes, for autodiff: nothing of the module's code."""

    def edges(y):
        return -y[..., 2], -y[..., 0], y[..., 3], y[..., 1]

    (x0, y0, x1, y1), (X0, Y0, X1, Y1) = edges(y_pred), edges(y_true)
    height = tf.minimum(y1, Y1) - tf.maximum(y0, Y0)
    width = tf.minimum(x1, X1) - tf.maximum(x0, X0)
    union = (x1 - x0) * (y1 - y0) + (X1 - X0) * (Y1 - Y0) - height * width
    return -tf.math.log(height * width / union)


def gradient(function, y_true, y_pred):
    with tf.GradientTape() as tape:
        tape.watch(y_pred)
        value = function(y_true, y_pred)
    return value, tape.gradient(value, y_pred)


def test_iou_gradient_is_that_of_autodiff(random):
    y_true, y_pred = random_distances(random, 10_000)
    value, written = gradient(losses.iou_loss, y_true, y_pred)
    expected_value, expected = gradient(plain_iou_loss, y_true, y_pred)
    np.testing.assert_allclose(value, expected_value, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(written, expected, rtol=1e-10)


def test_iou_gradient_is_that_of_finite_differences(random):
    y_true, y_pred = random_distances(random, 20)
    away = np.abs(y_true - y_pred).min(axis=1) > 0.01
    y_true, y_pred = y_true[away], y_pred[away]
    theory, numeric = tf.test.compute_gradient(
        lambda y: losses.iou_loss(y_true, y), [y_pred], delta=1e-4
    )
    np.testing.assert_allclose(theory[0], numeric[0], rtol=1e-6, atol=1e-9)


def test_iou_loss_by_hand():
    # Boxes of 4 x 4 and 4 x 2, one within the other: IoU 8 / 16.
    loss = losses.iou_loss([[2.0, 2.0, 2.0, 2.0]], [[2.0, 2.0, 1.0, 1.0]])
    assert loss.numpy() == pytest.approx(np.log(2))
    # Equation 7 with X = 8, I = 8, U = 16: dL/dx_t = 2/16 - 0; dL/dx_l = 4/16 - (24/128) 4 = -1/2.
    _, g = gradient(
        losses.iou_loss, tf.constant([[2.0, 2, 2, 2]]), tf.constant([[2.0, 2.0, 1.0, 1.0]])
    )
    assert g.numpy().tolist() == [[0.125, 0.125, -0.5, -0.5]]


@given(sides, sides, st.floats(0.01, 100))
def test_iou_loss_is_unchanged_by_scale(y_true, y_pred, scale):
    np.testing.assert_allclose(
        losses.iou_loss(y_true * scale, y_pred * scale),
        losses.iou_loss(y_true, y_pred),
        rtol=1e-9,
        atol=1e-9,
    )


@given(sides, sides)
def test_iou_loss_is_symmetric_and_zero_at_equality(a, b):
    # Within the floor: boxes here differ by a factor of 1000 in a side at most.
    np.testing.assert_allclose(losses.iou_loss(a, b), losses.iou_loss(b, a), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(losses.iou_loss(a, a), 0, atol=1e-12)


@given(sides, sides)
def test_iou_loss_is_minus_the_logarithm_of_the_metric(a, b):
    np.testing.assert_allclose(np.exp(-losses.iou_loss(a, b)), losses.iou(a, b), rtol=1e-9)


def test_a_side_that_is_exactly_right_is_not_asked_to_grow():
    y = tf.constant([[3.0, 4.0, 5.0, 6.0]])
    _, g = gradient(losses.iou_loss, y, y)
    # Strict < in equations 5 and 6: what is left is dX / U > 0.
    assert (g.numpy() > 0).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("size", [1e-3, 1.0, 30.0, 1e4])
@pytest.mark.parametrize(
    "sides", [(0, 0, 0, 0), (0, 0, 1, 1), (1, 1, 0, 0), (0, 1, 0, 1), (1, 0, 1, 1)]
)
def test_where_sides_are_zero_the_loss_is_finite_and_asks_them_to_grow(dtype, size, sides):
    y_true = tf.constant([[size, 2 * size, 3 * size, size]], dtype)
    y_pred = tf.constant([sides], dtype) * tf.cast(size / 2, dtype)
    value, g = gradient(losses.iou_loss, y_true, y_pred)
    assert np.isfinite(value).all()
    assert 0 < value.numpy().item() < 18.5
    assert np.isfinite(g).all()
    assert (g.numpy()[y_pred.numpy() == 0] < 0).all()


def test_plain_descent_from_no_box_at_all_finds_the_box(random):
    y_true = tf.constant(random.uniform(5, 80, (200, 4)), tf.float32)
    y_pred = tf.zeros_like(y_true)
    reached = []
    for _ in range(300):
        _, g = gradient(losses.iou_loss, y_true, y_pred)
        y_pred = tf.nn.relu(y_pred - tf.clip_by_value(50 * g, -1.0, 1.0))  # at most a pixel a step
        reached.append(losses.iou(y_true, y_pred).numpy())
    assert (np.diff([step.mean() for step in reached[:100]]) > 0).all()
    assert reached[-1].min() > 0.8


def test_pixels_without_an_object_have_neither_loss_nor_gradient():
    value, g = gradient(losses.iou_loss, tf.zeros([2, 4]), tf.constant([[0.0] * 4, [1, 2, 3, 4]]))
    assert value.numpy().tolist() == [0, 0]
    assert not g.numpy().any()
    assert losses.iou(np.zeros((1, 4)), np.ones((1, 4))).numpy().tolist() == [0]


def test_l2_loss_is_the_plain_sum_of_squares():
    assert losses.l2_loss([[1.0, 2, 3, 4]], [[2.0, 2, 1, 0]]).numpy().tolist() == [1 + 0 + 4 + 16]


@pytest.mark.parametrize("loss", ["iou_loss", "l2_loss", "iou"])
def test_shapes_that_would_broadcast_are_refused(loss):
    with pytest.raises(ValueError, match=r"Expected y_true and y_pred of one shape \[..., 4\]"):
        getattr(losses, loss)(np.ones((1, 4)), np.ones((3, 4)))
    with pytest.raises(ValueError, match="one shape"):
        getattr(losses, loss)(np.ones((3, 1)), np.ones((3, 1)))


def heatmaps(random):
    y_true, y_pred = random.uniform(1, 50, (2, 2, 5, 7, 4)).astype(np.float32)
    weight = (random.uniform(size=(2, 5, 7)) < 0.3).astype(np.float32)
    return y_true * weight[..., None], y_pred, weight


@pytest.mark.parametrize("name", losses.DISTANCE_LOSSES)
def test_reductions_sum_over_pixels_or_average_over_positive_ones(random, name):
    y_true, y_pred, weight = heatmaps(random)
    loss = losses.DISTANCE_LOSSES[name]
    function = {"iou": losses.iou_loss, "l2": losses.l2_loss}[name]
    total = float((function(y_true, y_pred).numpy() * weight).sum())
    summed = loss(reduction="sum")(y_true, y_pred, sample_weight=weight)
    assert float(summed) == pytest.approx(total, rel=1e-5)
    mean = loss(reduction="mean_with_sample_weight")(y_true, y_pred, sample_weight=weight)
    assert float(mean) == pytest.approx(total / weight.sum(), rel=1e-5)


def test_a_batch_without_positive_pixels_has_no_loss():
    zeros = np.zeros((1, 4, 4, 4), np.float32)
    loss = losses.IoULoss(reduction="mean_with_sample_weight")
    assert float(loss(zeros, zeros + 3, sample_weight=np.zeros((1, 4, 4)))) == 0


def test_mean_iou_is_the_mean_over_positive_pixels(random):
    y_true, y_pred, weight = heatmaps(random)
    metric = losses.MeanIoU()
    metric.update_state(y_true, y_pred, sample_weight=weight)
    expected = losses.iou(y_true, y_pred).numpy()[weight > 0].mean()
    assert float(metric.result()) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_graphs_give_what_eager_gives(random, jit_compile):
    y_true, y_pred = (tf.cast(y, tf.float32) for y in random_distances(random, 100))
    eager = gradient(losses.iou_loss, y_true, y_pred)
    graph = tf.function(
        lambda t, p: gradient(losses.iou_loss, t, p), jit_compile=jit_compile, autograph=False
    )(y_true, y_pred)
    for a, b in zip(eager, graph, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("name", losses.DISTANCE_LOSSES)
def test_losses_are_saved_by_name(name):
    loss = losses.DISTANCE_LOSSES[name](reduction="sum")
    again = keras.losses.deserialize(keras.losses.serialize(loss))
    assert type(again) is type(loss)
    assert again.reduction == "sum"
