import keras
import numpy as np
import pytest
import tensorflow as tf

from unitbox_tf.train.average import Average


@pytest.fixture
def model():
    """Weights of a convolution, and the gains and statistics of batch normalisation."""
    image = keras.Input((4, 4, 3))
    x = keras.layers.Conv2D(2, 1)(image)
    return keras.Model(image, keras.layers.BatchNormalization()(x))


def change(model, random):
    for weight in model.weights:
        weight.assign(random.normal(size=weight.shape))


def values(variables):
    return [variable.numpy() for variable in variables]


def test_it_is_the_moving_average_of_tensorflow_of_all_weights(model, random):
    average = Average(model, 0.5)
    steps = tf.Variable(0, dtype=tf.int64)
    theirs = tf.train.ExponentialMovingAverage(0.5, num_updates=steps)
    plain = [tf.Variable(weight.numpy()) for weight in model.weights]
    theirs.apply(plain)  # which takes the values of the start
    update = tf.function(average.update)
    for step in range(20):
        steps.assign(step)
        change(model, random)
        for variable, weight in zip(plain, model.weights, strict=True):
            variable.assign(weight)
        update(steps)
        theirs.apply(plain)
        for ours, variable in zip(average.variables, plain, strict=True):
            np.testing.assert_allclose(ours, theirs.average(variable), rtol=1e-4, atol=1e-6)
    names = [weight.name for weight in average.weights]
    assert {"kernel", "gamma", "moving_mean", "moving_variance"} <= set(names)


def test_a_weight_that_never_changes_stays_exact(model):
    model.weights[0].assign(np.full(model.weights[0].shape, 0.1))
    average = Average(model, 0.999)
    for step in range(50):
        average.update(tf.constant(step))
    np.testing.assert_array_equal(average.variables[0], model.weights[0])


def test_it_is_shown_in_the_model_and_hidden_again(model, random):
    average = Average(model, 0.9)
    change(model, random)
    average.update(tf.constant(3))
    before, averaged = values(model.weights), values(average.variables)
    assert not np.allclose(before[0], averaged[0])
    average.hide()  # which changes nothing, as it is not shown
    with average.shown():
        for a, b in zip(values(model.weights), averaged, strict=True):
            np.testing.assert_array_equal(a, b)
        average.show()  # once more
    for a, b in zip(before, values(model.weights), strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(averaged, values(average.variables), strict=True):
        np.testing.assert_array_equal(a, b)


def test_an_interruption_while_it_is_put_in_loses_no_weight(model, random, monkeypatch):
    average = Average(model, 0.9)
    change(model, random)
    average.update(tf.constant(3))
    before = values(model.weights)
    kind, assign = type(model.weights[0]), type(model.weights[0]).assign

    def interrupted(self, value):
        if self is average.weights[2]:
            raise KeyboardInterrupt
        return assign(self, value)

    with monkeypatch.context() as patch:
        patch.setattr(kind, "assign", interrupted)
        with pytest.raises(KeyboardInterrupt):
            average.show()
        with pytest.raises(KeyboardInterrupt):
            average.hide()
    average.hide()
    for a, b in zip(before, values(model.weights), strict=True):
        np.testing.assert_array_equal(a, b)
