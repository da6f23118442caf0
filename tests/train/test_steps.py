import keras
import numpy as np
import pytest
import tensorflow as tf

from unitbox_tf import losses
from unitbox_tf.train.average import Average
from unitbox_tf.train.steps import CheckedStep, first_names


def network(optimizer, checked=True, jit=False, confidence_weight=1.0):
    """A network with statistics and noise, that is compiled as training does it."""
    keras.utils.set_random_seed(1)
    image = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(4, 3, padding="same", name="first")(image)
    x = keras.layers.BatchNormalization(name="norm")(x)
    x = keras.layers.Dropout(0.2, seed=3, name="noise")(x)
    outputs = {
        "confidence": keras.layers.Conv2D(1, 1, name="confidence_head")(x),
        "distances": keras.layers.Conv2D(
            4, 1, name="distances_head", activation="softplus", bias_initializer="ones"
        )(x),
    }
    model = keras.Model(image, outputs)
    model.compile(
        optimizer,
        loss={
            "confidence": keras.losses.BinaryCrossentropy(from_logits=True),
            "distances": losses.IoULoss(),
        },
        loss_weights={"confidence": confidence_weight, "distances": 1.0},
        weighted_metrics={"confidence": [], "distances": [losses.MeanIoU()]},
        jit_compile=jit,
    )
    step = CheckedStep(model, Average(model, 0.9)) if checked else None
    model.make_train_function()
    return model, step


def batch(value=0.5):
    random = np.random.default_rng(0)
    images = random.uniform(0, 1, (2, 8, 8, 3)).astype(np.float32)
    images[0, 0, 0, 0] = value
    truth = {
        "confidence": random.integers(0, 2, (2, 8, 8, 1)).astype(np.float32),
        "distances": random.uniform(1, 5, (2, 8, 8, 4)).astype(np.float32),
    }
    weights = {name: np.ones([2, 8, 8], np.float32) for name in truth}
    return iter(tf.data.Dataset.from_tensors((images, truth, weights)).repeat())


def values(model, step=None):
    variables = [*model.variables, *model.optimizer.variables]
    variables += step.average.variables if step else []
    variables += [variable for metric in model.metrics for variable in metric.variables]
    return [variable.numpy() for variable in variables]


def sgd():
    return keras.optimizers.SGD(0.1, momentum=0.9, global_clipnorm=1.0)


def test_a_step_is_that_of_keras():
    ours, step = network(sgd())
    theirs, _ = network(sgd(), checked=False)
    for _ in range(3):
        a, b = (dict(model.train_function(batch())) for model in (ours, theirs))
        assert {name: float(a[name]) for name in b} == {name: float(b[name]) for name in b}
    for a, b in zip(values(ours), values(theirs), strict=True):
        np.testing.assert_array_equal(a, b)
    assert (int(step.steps), int(step.bad)) == (3, 0)


@pytest.mark.parametrize("jit", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_step_that_is_not_finite_changes_nothing(jit):
    model, step = network(sgd(), jit=jit)
    start = [variable.numpy() for variable in step.average.variables]
    good = dict(model.train_function(batch()))
    same = [np.array_equal(a, b) for a, b in zip(start, step.average.variables, strict=True)]
    assert sum(same) <= 1  # batch normalisation takes the bias before it away
    before = values(model, step)
    for bad in (np.nan, np.inf):
        logs = dict(model.train_function(batch(bad)))
        for a, b in zip(before, values(model, step), strict=True):
            np.testing.assert_array_equal(a, b)
        assert {name: float(logs[name]) for name in good} == {n: float(good[n]) for n in good}
    assert (int(step.steps), int(step.bad)) == (3, 2)
    wrong = step.not_finite()
    assert {"loss", "confidence_loss"} <= set(wrong["loss"])
    assert {"first/kernel", "confidence_head/kernel"} <= set(wrong["gradients"])
    model.train_function(batch())
    assert (int(step.steps), int(step.bad)) == (4, 2)
    assert all(np.isfinite(value).all() for value in values(model, step))


def test_gradients_that_are_not_finite_are_named_where_the_loss_is_finite():
    @tf.custom_gradient
    def spoiled(x):
        return x, lambda gradient: gradient * np.float32(np.inf)

    image = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(2, 1, name="first")(image)
    model = keras.Model(
        image,
        {
            "confidence": keras.layers.Conv2D(1, 1, name="confidence_head")(
                keras.layers.Lambda(spoiled, output_shape=(None, None, 2))(x)
            ),
        },
    )
    model.compile("sgd", loss={"confidence": "mse"}, run_eagerly=True)
    step = CheckedStep(model)
    model.make_train_function()
    one = tf.ones([1, 4, 4, 3]), {"confidence": tf.ones([1, 4, 4, 1])}
    model.train_function(iter(tf.data.Dataset.from_tensors(one)))
    assert step.not_finite() == {"loss": [], "gradients": ["first/kernel", "first/bias"]}


def test_what_the_scaling_of_the_loss_leaves_out_is_not_bad_until_the_scale_is_1():
    optimizer = keras.optimizers.LossScaleOptimizer(sgd(), initial_scale=2.0**127)
    model, step = network(optimizer, confidence_weight=100.0)
    model.train_function(batch())  # which overflows, as the loss is multiplied
    assert int(step.bad) == 0
    assert int(optimizer.inner_optimizer.iterations) == 0
    assert float(optimizer.dynamic_scale) == 2.0**126
    optimizer.dynamic_scale.assign(1.0)
    model.train_function(batch(np.nan))
    assert int(step.bad) == 1
    assert all(np.isfinite(value).all() for value in values(model))


def test_a_message_has_not_too_many_names():
    assert first_names(["a", "b"]) == "a, b"
    assert first_names(list("abcdefg")) == "a, b, c, d, e and 2 more"
