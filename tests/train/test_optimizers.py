import dataclasses
import json
from pathlib import Path

import keras
import numpy as np
import pytest

from unitbox_tf.config import Config
from unitbox_tf.presets import PRESETS
from unitbox_tf.train.optimizers import CountingAdam, CoupledSGD, optimizer


def test_steps_are_those_of_caffe(random):
    """v = m v - lr (g + decay w), w = w + v, as Caffe's SGDSolver computes them."""
    start, gradients = random.normal(size=5), random.normal(size=(10, 5))
    rate, momentum, decay = 0.1, 0.9, 0.02
    variable = keras.Variable(start.astype(np.float32))
    sgd = CoupledSGD(rate, momentum=momentum, coupled_weight_decay=decay)
    w, v = start.copy(), np.zeros(5)
    for g in gradients:
        sgd.apply([g.astype(np.float32)], [variable])
        v = momentum * v - rate * (g + decay * w)
        w = w + v
        np.testing.assert_allclose(variable.numpy(), w, rtol=1e-5, atol=1e-6)


def test_without_decay_it_is_the_sgd_of_keras(random):
    gradients = random.normal(size=(5, 3)).astype(np.float32)
    variables = []
    for sgd in (CoupledSGD(0.1, momentum=0.9), keras.optimizers.SGD(0.1, momentum=0.9)):
        variable = keras.Variable(np.ones(3, np.float32))
        for g in gradients:
            sgd.apply([g], [variable])
        variables.append(variable.numpy())
    np.testing.assert_array_equal(*variables)


def test_it_is_saved_with_its_decay():
    sgd = CoupledSGD(0.1, coupled_weight_decay=2e-4, global_clipnorm=20.0)
    again = keras.optimizers.deserialize(keras.optimizers.serialize(sgd))
    assert isinstance(again, CoupledSGD)
    assert (again.coupled_weight_decay, again.global_clipnorm) == (2e-4, 20.0)


@pytest.fixture(scope="module")
def goldens():
    """Where optimizers of other libraries go; see tests/references."""
    path = Path(__file__).parents[1] / "references" / "optimizers.json"
    return json.loads(path.read_text(encoding="utf-8"))


def trajectory(problem, sgd):
    A, b = np.array(problem["A"]), np.array(problem["b"])
    variable = keras.Variable(np.array(problem["start"], np.float64), dtype="float64")
    way = [variable.numpy()]
    for _ in range(problem["steps"]):
        sgd.apply([A @ variable.numpy() - b], [variable])
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
    sgd = CoupledSGD(
        problem["learning_rate"], momentum=momentum, coupled_weight_decay=problem["decay"]
    )
    way = trajectory(problem, sgd)
    # Rates are float32 here and there.
    np.testing.assert_allclose(way, goldens["trajectories"][name]["weights"], rtol=1e-6, atol=1e-6)


def test_with_momentum_decoupled_decay_goes_elsewhere(goldens):
    """Why the paper preset has its own optimizer: neither SGDW nor Keras' `weight_decay` is Caffe's."""
    ways = {name: np.array(way["weights"]) for name, way in goldens["trajectories"].items()}
    coupled, decoupled = ways["torch/SGD(momentum=0.9)"], ways["tfa/SGDW(momentum=0.9)"]
    assert np.abs(coupled[-1] - decoupled[-1]).max() > 0.1


def test_the_paper_presets_train_with_the_papers_optimiser():
    built = optimizer(PRESETS["paper"].train)
    assert isinstance(built, CoupledSGD)
    assert built.coupled_weight_decay == 2e-4
    assert built.momentum == 0.9
    assert float(built.learning_rate) == pytest.approx(1e-8)


def test_the_cosine_schedule_warms_up_and_ends_at_zero():
    settings = dataclasses.replace(
        Config().train,
        schedule="cosine",
        warmup=0.1,
        epochs=5,
        steps_per_epoch=20,
        learning_rate=0.5,
    )
    rate = optimizer(settings)._learning_rate
    assert [float(rate(step)) for step in (0, 5, 10, 100)] == pytest.approx([0, 0.25, 0.5, 0])


def adam_steps(adam, variable, gradients):
    for g in gradients:
        adam.apply([g], [variable])
    return variable.numpy()


def test_a_variable_that_was_frozen_at_first_is_treated_as_if_training_began_with_it(random):
    gradients = random.normal(size=(6, 4)).astype(np.float32)
    start = np.ones(4, np.float32)
    expected = adam_steps(keras.optimizers.Adam(0.1), keras.Variable(start), gradients)
    counting = CountingAdam(0.1)
    late, always = keras.Variable(start), keras.Variable(start)
    counting.build([late, always])
    before = [variable.numpy() for variable in counting.variables]
    for g in gradients:
        counting.apply([g], [always])
    np.testing.assert_array_equal(always.numpy(), expected)
    np.testing.assert_array_equal(late.numpy(), start)
    touched = [
        not np.array_equal(old, new.numpy())
        for old, new in zip(before, counting.variables, strict=True)
    ]
    assert sum(touched) == 4  # iterations; two moments and the count of the variable that learned
    for g in gradients:
        counting.apply([g, g], [late, always])
    np.testing.assert_allclose(late.numpy(), expected, rtol=1e-5)
    # The optimizer of Keras would take larger steps.
    plain = keras.optimizers.Adam(0.1)
    late, always = keras.Variable(start), keras.Variable(start)
    plain.build([late, always])
    plain.iterations.assign(10_000)
    plain.apply([gradients[0], gradients[0]], [late, always])
    assert np.abs(late.numpy() - start).max() > 0.3


def test_the_optimizer_is_kept_as_it_was_without_freezing():
    faces = PRESETS["faces"].train
    assert type(optimizer(faces)) is keras.optimizers.Adam
    frozen = optimizer(dataclasses.replace(faces, freeze_epochs=1))
    again = keras.optimizers.deserialize(keras.optimizers.serialize(frozen))
    assert type(again) is CountingAdam
    assert again.get_config() == frozen.get_config()


LIGHT = dataclasses.replace(PRESETS["faces_light"].train, schedule="constant", warmup=0.0)


def named(name, values):
    return keras.Variable(np.float32(values), name=name)


@pytest.mark.parametrize("freeze_epochs", [0, 2])
def test_adamw_decays_weights_by_themselves_but_neither_biases_nor_gains(freeze_epochs):
    """Without a gradient, only the decay is left: w (1 - learning_rate weight_decay)."""
    settings = dataclasses.replace(LIGHT, freeze_epochs=freeze_epochs)
    names = ("kernel", "bias", "gamma", "beta", "depthwise_kernel")
    variables = [named(name, [2.0, -3.0]) for name in names]
    adamw = optimizer(settings)
    adamw.build(variables)
    adamw.apply([np.zeros(2, np.float32)] * len(variables), variables)
    decayed = np.float32([2.0, -3.0]) * (1 - settings.learning_rate * settings.weight_decay)
    for variable in variables:
        expected = decayed if variable.name.endswith("kernel") else [2.0, -3.0]
        np.testing.assert_allclose(variable.numpy(), expected, rtol=1e-6)


@pytest.mark.parametrize("freeze_epochs", [0, 2])
def test_adamw_takes_the_steps_of_keras(random, freeze_epochs):
    settings = dataclasses.replace(
        LIGHT, freeze_epochs=freeze_epochs, learning_rate=0.1, weight_decay=0.3, clip_norm=1.0
    )
    gradients = random.normal(size=(6, 4)).astype(np.float32) * 3
    theirs = keras.optimizers.AdamW(0.1, weight_decay=0.3, global_clipnorm=1.0)
    expected = adam_steps(theirs, named("kernel", [1, 2, 3, 4]), gradients)
    found = adam_steps(optimizer(settings), named("kernel", [1, 2, 3, 4]), gradients)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_adamw_warms_up_and_its_decay_follows_the_schedule():
    settings = dataclasses.replace(
        PRESETS["faces_light"].train, epochs=1, steps_per_epoch=20, warmup=0.1, learning_rate=0.5
    )
    adamw, weight, steps = optimizer(settings), named("kernel", [1.0]), []
    for _ in range(20):
        before = float(weight.numpy()[0])
        rate = float(adamw.learning_rate) if adamw.built else 0.0
        adamw.apply([np.zeros(1, np.float32)], [weight])
        steps.append((rate, 1 - float(weight.numpy()[0]) / before))
    assert steps[0][1] == 0
    assert max(rate for rate, _ in steps) == pytest.approx(0.5)
    assert steps[-1][0] < 0.01
    for rate, decay in steps:
        assert decay == pytest.approx(rate * settings.weight_decay, abs=1e-6)
    assert adamw.global_clipnorm == settings.clip_norm == 10.0
