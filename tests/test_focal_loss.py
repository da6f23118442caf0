"""The focal loss against Keras, formulas written apart, and finite differences."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from unitbox_tf import losses


def value_and_gradient(loss, y_true, logits, weight=None):
    logits = tf.constant(logits)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        value = loss(y_true, logits, weight)
    return value.numpy(), tape.gradient(value, logits).numpy()


def by_formula(y_true, logits, gamma):
    """-|y - p|^gamma ((1 - y) log(1 - p) + y log p) of Generalized Focal Loss, equation 4, in float64."""
    y, z = np.float64(y_true), np.float64(logits)
    log_p, log_not = -np.logaddexp(0, -z), -np.logaddexp(0, z)
    return -(np.abs(y - np.exp(log_p)) ** gamma) * ((1 - y) * log_not + y * log_p)


@pytest.fixture
def maps(random):
    """Hard targets, logits and weights of points; some points are ignored."""
    y_true = (random.uniform(size=(2, 5, 6, 3)) < 0.2).astype(np.float32)
    logits = random.normal(0, 3, (2, 5, 6, 3)).astype(np.float32)
    weight = random.choice([0, 0.5, 1, 3], (2, 5, 6)).astype(np.float32)
    return y_true, logits, weight


def test_hard_targets_give_what_keras_gives(maps):
    y_true, logits, weight = maps
    keras_loss = keras.losses.BinaryFocalCrossentropy(gamma=2.0, from_logits=True, reduction="sum")
    expected = value_and_gradient(keras_loss, y_true, logits, weight)
    found = value_and_gradient(losses.FocalLoss(reduction="sum"), y_true, logits, weight)
    for a, b in zip(expected, found, strict=True):
        np.testing.assert_allclose(3 * a, b, rtol=1e-4, atol=1e-6)  # Keras averages the 3 classes


@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.0, 3.5])
@pytest.mark.parametrize("soft", [False, True])
def test_values_are_those_of_the_formula_and_gradients_those_of_finite_differences(
    random, maps, gamma, soft
):
    y_true, logits, weight = maps
    if soft:
        y_true = y_true * random.uniform(0.1, 1, y_true.shape).astype(np.float32)
    loss = losses.FocalLoss(gamma, reduction="sum")
    value, gradient = value_and_gradient(loss, y_true, logits, weight)
    weights = weight[..., None]
    np.testing.assert_allclose(
        value, (weights * by_formula(y_true, logits, gamma)).sum(), rtol=1e-5
    )
    step = 1e-5
    up, down = (by_formula(y_true, logits + sign * np.float64(step), gamma) for sign in (1, -1))
    np.testing.assert_allclose(gradient, weights * (up - down) / (2 * step), rtol=1e-3, atol=1e-5)


def test_a_soft_target_is_where_the_loss_is_least():
    logits = np.linspace(-3, 3, 601, dtype=np.float32)
    found = by_formula(0.7, logits, 2.0)
    assert 1 / (1 + np.exp(-logits[found.argmin()])) == pytest.approx(0.7, abs=0.01)
    _, gradient = value_and_gradient(
        losses.FocalLoss(reduction="sum"), [[0.7]], np.float32([[np.log(0.7 / 0.3)]])
    )
    assert abs(gradient.item()) < 1e-6


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("size", [0.0, 20.0, 100.0, 60000.0])
@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.0])
def test_extreme_logits_are_finite(dtype, size, gamma):
    y_true = np.float32([[0], [1], [0.3]]).repeat(2, 1)
    logits = tf.cast([[-size, size]] * 3, dtype)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        value = losses.FocalLoss(gamma)(y_true, logits)
    assert np.isfinite(value.numpy())
    assert np.isfinite(tape.gradient(value, logits).numpy().astype(np.float32)).all()
    assert value.dtype == tf.float32
    if size == 60000.0:
        wrong = by_formula(1, -float(logits[0, 1]), 0)
        assert value.numpy() > 0.5 * wrong / 4  # a confident error is not forgotten


def test_the_mean_is_that_over_the_weights_of_positive_targets(maps):
    y_true, logits, weight = maps
    total, _ = value_and_gradient(losses.FocalLoss(reduction="sum"), y_true, logits, weight)
    mean, _ = value_and_gradient(losses.FocalLoss(), y_true, logits, weight)
    assert mean == pytest.approx(total / (y_true.sum(axis=-1) * weight).sum(), rel=1e-5)
    # A soft target counts as one, so that the loss does not grow where boxes are bad.
    soft, _ = value_and_gradient(losses.FocalLoss(), 0.1 * y_true, logits, weight)
    total, _ = value_and_gradient(losses.FocalLoss(reduction="sum"), 0.1 * y_true, logits, weight)
    assert soft == pytest.approx(total / (y_true.sum(axis=-1) * weight).sum(), rel=1e-5)
    # Without an object, it is the sum.
    nothing = np.zeros_like(y_true)
    total, _ = value_and_gradient(losses.FocalLoss(reduction="sum"), nothing, logits)
    assert value_and_gradient(losses.FocalLoss(), nothing, logits)[0] == pytest.approx(total)
    assert losses.FocalLoss()(y_true, logits).numpy() == pytest.approx(
        losses.FocalLoss()(y_true, logits, np.ones_like(weight)).numpy()
    )


def test_ignored_points_change_nothing(random, maps):
    y_true, logits, weight = maps
    ignored = weight == 0
    others = np.where(ignored[..., None], random.normal(0, 9, logits.shape), logits)
    expected, gradient = value_and_gradient(losses.FocalLoss(), y_true, logits, weight)
    truth = np.where(ignored[..., None], 1 - y_true, y_true)
    found, _ = value_and_gradient(losses.FocalLoss(), truth, others.astype(np.float32), weight)
    assert found == pytest.approx(expected, rel=1e-6)
    assert not gradient[ignored].any()


def test_graphs_with_and_without_xla_give_what_eager_gives(maps):
    loss = losses.FocalLoss()
    for jit in (False, True):
        compiled = tf.function(lambda *given: loss(*given), jit_compile=jit)
        np.testing.assert_allclose(compiled(*maps), loss(*maps), rtol=1e-5)


@pytest.mark.parametrize("reduction", ["sum", "positive_mean"])
def test_it_is_stored_with_its_options(reduction):
    loss = losses.FocalLoss(1.5, reduction=reduction)
    again = keras.losses.deserialize(keras.losses.serialize(loss))
    assert isinstance(again, losses.FocalLoss)
    assert again.get_config() == loss.get_config()
    assert again.get_config()["reduction"] == reduction


def test_options_that_cannot_be_used_are_refused():
    with pytest.raises(ValueError, match=r"gamma of 0, or of at least 1.*gamma=0\.5"):
        losses.FocalLoss(0.5)
    with pytest.raises(ValueError, match=r"'sum' or 'positive_mean'.*'mean'"):
        losses.FocalLoss(reduction="mean")
