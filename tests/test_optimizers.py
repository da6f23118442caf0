import keras
import numpy as np

from unitbox_tf.optimizers import CoupledSGD


def test_steps_are_those_of_caffe(random):
    """v = m v - lr (g + decay w), w = w + v, as Caffe's SGDSolver computes them."""
    start, gradients = random.normal(size=5), random.normal(size=(10, 5))
    rate, momentum, decay = 0.1, 0.9, 0.02
    variable = keras.Variable(start.astype(np.float32))
    optimizer = CoupledSGD(rate, momentum=momentum, coupled_weight_decay=decay)
    w, v = start.copy(), np.zeros(5)
    for g in gradients:
        optimizer.apply([g.astype(np.float32)], [variable])
        v = momentum * v - rate * (g + decay * w)
        w = w + v
        np.testing.assert_allclose(variable.numpy(), w, rtol=1e-5, atol=1e-6)


def test_without_decay_it_is_the_sgd_of_keras(random):
    gradients = random.normal(size=(5, 3)).astype(np.float32)
    variables = []
    for optimizer in (CoupledSGD(0.1, momentum=0.9), keras.optimizers.SGD(0.1, momentum=0.9)):
        variable = keras.Variable(np.ones(3, np.float32))
        for g in gradients:
            optimizer.apply([g], [variable])
        variables.append(variable.numpy())
    np.testing.assert_array_equal(*variables)


def test_it_is_saved_with_its_decay():
    optimizer = CoupledSGD(0.1, coupled_weight_decay=2e-4, global_clipnorm=20.0)
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert isinstance(again, CoupledSGD)
    assert (again.coupled_weight_decay, again.global_clipnorm) == (2e-4, 20.0)
