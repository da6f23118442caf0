"""A step of the light network, with the fused batch normalisation of this package and with that of Keras.

A step is the forward and backward pass of a batch, without images, optimizer and losses' weights. Times are those of
the processors, as ratios to float32 with Keras' normalisation.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from training.benchmarks.turns import quartiles, take_turns
from unitbox_tf.config import ModelConfig
from unitbox_tf.detect.model import UnitBox
from unitbox_tf.network import layers

KINDS = {
    "Keras": keras.layers.BatchNormalization.call,
    "fused": layers.BatchNormalization.call,
}
PRECISIONS = ("float32", "mixed_bfloat16")
BASE = "float32, Keras"


def benchmark(*, batch: int = 8, side: int = 416, rounds: int = 9) -> dict[str, Any]:
    """Prints the table, and returns its numbers.

    Args:
        batch: images in a step.
        side: their height and width, px.
        rounds: of taking turns.
    """
    given = keras.mixed_precision.dtype_policy()
    fused = layers.BatchNormalization.call
    variants = {}
    try:
        for precision in PRECISIONS:
            for kind, call in KINDS.items():
                keras.mixed_precision.set_dtype_policy(precision)
                layers.BatchNormalization.call = call  # type: ignore[method-assign]
                variants[f"{precision}, {kind}"] = step(batch, side)
    finally:
        keras.mixed_precision.set_dtype_policy(given)
        layers.BatchNormalization.call = fused  # type: ignore[method-assign]
    seconds = take_turns(variants, rounds, clock=time.process_time)
    ratios = {name: quartiles(each, seconds[BASE]) for name, each in seconds.items()}
    print("| precision, normalisation | time |\n|---|---|")
    for name, (low, middle, high) in ratios.items():
        print(f"| {name} | {middle:.2f} ({low:.2f} to {high:.2f}) |")
    return {"batch": batch, "side": side, "ratios": ratios}


def step(batch: int, side: int) -> Callable[[], object]:
    """A step on random images, which has run once."""
    model = UnitBox.from_settings(
        ModelConfig(backbone="light", neck="top_down", class_names=("object",))
    )
    images = tf.random.stateless_uniform([batch, side, side, 3], (0, 0), 0.0, 255.0)

    @tf.function
    def run() -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            maps = model(images, training=True)
            loss = tf.reduce_mean(maps["confidence"] ** 2) + tf.reduce_mean(maps["distances"])
        gradients = tape.gradient(loss, [each.value for each in model.trainable_variables])
        return [tf.reduce_sum(each) for each in gradients]

    run()
    return run
