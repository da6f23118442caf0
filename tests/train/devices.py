"""Trains a network on one device and on two, and prints how much they differ. A process of its own needs it.

    TF_ENABLE_ONEDNN_OPTS=0 python -m tests.train.devices

TensorFlow divides a processor into devices only at its start, and oneDNN computes on the first of them alone.
"""

from __future__ import annotations

import json

import keras
import numpy as np
import tensorflow as tf

from unitbox_tf.config import Config, LossConfig, TrainConfig
from unitbox_tf.network.layers import BatchNormalization
from unitbox_tf.train import fit
from unitbox_tf.train.average import Average
from unitbox_tf.train.distribution import Distribution, started
from unitbox_tf.train.objective import SharedLosses
from unitbox_tf.train.shared_step import SharedStep
from unitbox_tf.train.steps import CheckedStep

BATCH, SIDE, STEPS = 4, 8, 3
CASES = {
    "mean": LossConfig(reduction="mean"),
    "sum": LossConfig(reduction="sum", distance_weight=0.01),
    "giou": LossConfig(distance_loss="giou", reduction="object_mean", confidence_weight=3.0),
    "focal": LossConfig(confidence_loss="focal"),
    "focal sum": LossConfig(confidence_loss="focal", reduction="sum"),
    "quality": LossConfig(confidence_loss="focal", confidence_target="iou"),
}


def network(config: Config) -> keras.Model:
    """A network with both kinds of batch normalisation, compiled as training does it."""
    keras.utils.set_random_seed(1)
    image = keras.Input((SIDE, SIDE, 3))
    x = keras.layers.Conv2D(4, 3, padding="same", name="first")(image)
    x = BatchNormalization(name="ours")(x)
    x = keras.layers.BatchNormalization(name="of_keras")(x)
    softplus = {"activation": "softplus", "bias_initializer": "ones"}
    outputs = {
        "confidence": keras.layers.Conv2D(1, 1, name="confidence_head")(x),
        "distances": keras.layers.Conv2D(4, 1, name="distances_head", **softplus)(x),
    }
    model = keras.Model(image, outputs)
    fit.compile_model(model, config, False)
    return model


def batches(value: float = 0.0) -> tf.data.Dataset:
    """Batches, most of whose objects are in the first half."""
    random = np.random.default_rng(0)
    images = random.normal(3, 1, (STEPS, BATCH, SIDE, SIDE, 3)).astype(np.float32)
    images[1, -1, 0, 0, 0] += value  # on the second device
    share = np.array([0.7, 0.6, 0.1, 0.0])[:, None, None]
    counts = (random.uniform(size=(STEPS, BATCH, SIDE, SIDE)) < share).astype(np.float32)
    truth = {
        "confidence": counts[..., None],
        "distances": random.uniform(1, 5, (STEPS, BATCH, SIDE, SIDE, 4)).astype(np.float32),
    }
    weighted = random.uniform(0.1, 2, (2, STEPS, BATCH, SIDE, SIDE)).astype(np.float32)
    weights = {"confidence": weighted[0], "distances": counts * weighted[1]}
    return tf.data.Dataset.from_tensor_slices((images, truth, weights))


def trained(
    loss: LossConfig, together: Distribution | None, value: float = 0.0
) -> tuple[list[np.ndarray], dict[str, float], CheckedStep | SharedStep]:
    """All variables after training, the running means, and the step."""
    config = Config(loss=loss, train=TrainConfig(learning_rate=0.05, clip_norm=1.0, seed=1))
    step: CheckedStep | SharedStep
    if together is None:
        model = network(config)
        step = CheckedStep(model, Average(model, 0.5))
        model.make_train_function()
        iterator = iter(batches(value))
    else:
        with together.strategy.scope():
            model = network(config)
        together.synchronise(model)
        judged = keras.Model(model.inputs, model.output)
        fit.compile_model(judged, config, False)
        shared, average = SharedLosses(loss), Average(model, 0.5)
        step = SharedStep(model, judged, shared, together.strategy, BATCH, average)
        parts = batches(value).unbatch().batch(BATCH // together.devices)
        iterator = iter(together.distributed(parts))
    for _ in range(STEPS):
        model.train_function(iterator)
    variables = [*model.variables, *model.optimizer.variables, *step.average.variables]
    values = [variable.numpy() for variable in variables]
    if together is not None:
        for variable in model.variables:
            first, second = (each.numpy() for each in variable.value.values)
            np.testing.assert_array_equal(first, second)
    return values, step.means(), step


def clipped_by_keras(together: Distribution) -> float:
    """The step of Keras' own optimizer at rate 1, limited to a norm of 1, where two devices have gradients 1 and 3."""
    with together.strategy.scope():
        weight = keras.Variable(0.0)
        optimizer = keras.optimizers.SGD(1.0, global_clipnorm=1.0)
        optimizer.build([weight])

    def step() -> None:
        device = tf.distribute.get_replica_context().replica_id_in_sync_group
        optimizer.apply_gradients([(tf.cast(1 + 2 * device, tf.float32), weight)])

    tf.function(lambda: together.strategy.run(step), autograph=False)()
    return float(weight.numpy())


def main() -> None:
    """Prints, for each case, the largest difference of a variable and of a running mean, relative to its size."""
    settings = TrainConfig(device="cpu", devices=2, batch_size=BATCH)
    together = started(settings, [])
    assert together is not None
    assert together.devices == 2
    found = {}
    for name, loss in CASES.items():
        one, means, _ = trained(loss, None)
        two, same_means, _ = trained(loss, together)
        pairs = list(zip(one, two, strict=True))
        pairs += [(np.array(means[key]), np.array(same_means[key])) for key in means]
        found[name] = max(
            float(np.abs(a - b).max() / max(1e-3, float(np.abs(a).max()))) for a, b in pairs
        )
    _, means, alone = trained(CASES["mean"], None, np.nan)
    _, same_means, step = trained(CASES["mean"], together, np.nan)
    found["bad steps"] = [int(alone.bad), int(step.bad), int(step.steps)]
    found["not finite"] = [alone.not_finite(), step.not_finite()]
    found["means beside a bad step"] = [means, same_means]
    found["clipped by keras"] = clipped_by_keras(together)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
