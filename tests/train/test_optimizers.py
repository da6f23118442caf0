import json
from pathlib import Path

import keras
import numpy as np
import pytest

from unitbox_tf.train.optimizers import CoupledSGD


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


@pytest.fixture(scope="module")
def goldens():
    """Where optimizers of other libraries go; see tests/references."""
    path = Path(__file__).parents[1] / "references" / "optimizers.json"
    return json.loads(path.read_text(encoding="utf-8"))


def trajectory(problem, optimizer):
    A, b = np.array(problem["A"]), np.array(problem["b"])
    variable = keras.Variable(np.array(problem["start"], np.float64), dtype="float64")
    way = [variable.numpy()]
    for _ in range(problem["steps"]):
        optimizer.apply([A @ variable.numpy() - b], [variable])
        way.append(variable.numpy())
    return way


@pytest.mark.parametrize(
    ("name", "momentum"),
    [
        ("torch/SGD(momentum=0.9)", 0.9),
        ("torch/SGD(momentum=0.0)", 0.0),
        # Its decay is decoupled, which without momentum is the same.
        ("tfa/SGDW(momentum=0.0)", 0.0),
    ],
)
def test_coupled_decay_is_that_of_other_libraries(goldens, name, momentum):
    problem = goldens["problem"]
    optimizer = CoupledSGD(
        problem["learning_rate"], momentum=momentum, coupled_weight_decay=problem["decay"]
    )
    way = trajectory(problem, optimizer)
    # Rates are float32 here and there.
    np.testing.assert_allclose(way, goldens["trajectories"][name]["weights"], rtol=1e-6, atol=1e-6)


def test_with_momentum_decoupled_decay_goes_elsewhere(goldens):
    """Why the paper preset has its own optimizer: neither SGDW nor Keras' `weight_decay` is Caffe's."""
    ways = {name: np.array(way["weights"]) for name, way in goldens["trajectories"].items()}
    coupled, decoupled = ways["torch/SGD(momentum=0.9)"], ways["tfa/SGDW(momentum=0.9)"]
    assert np.abs(coupled[-1] - decoupled[-1]).max() > 0.1
