"""A step of training, its input included, against forward and backward of the bare backbone.

Both have the same size, batch and precision. Photos are drawn from a seed, as JPEG of 640 px, and cut and changed as
the preset does. Times are those of the processors, or with a GPU those that pass. The products of matrices of 2,048 by
2,048 numbers in the same precision say how much of the hardware the backbone uses. Peak memory is measured apart, in a
process for each variant: that at the end of some steps less that before the first.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import resource
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from training.benchmarks.apart import call_apart
from training.benchmarks.backbones import multiply_adds
from training.benchmarks.resident import resident
from training.benchmarks.turns import quartiles, take_turns
from unitbox_tf.config import Config
from unitbox_tf.datasets import multiscale
from unitbox_tf.detect.model import UnitBox
from unitbox_tf.presets import PRESETS
from unitbox_tf.records import Annotation
from unitbox_tf.train import fit, pipeline
from unitbox_tf.train.steps import CheckedStep

NETWORKS = {"vgg16": "faces", "light": "faces_light"}  # by the preset that trains it
BACKBONE, STEP, WHOLE = "backbone", "step", "step and input"
PRODUCT = "product of matrices"
# Each has all before it. The last but one has the optimizer, and the last one the check of each gradient.
STAGES = ("and heads", "and losses", "Keras' step", "step")
PRODUCT_SIDE = 2048
PHOTOS, PHOTO_SIDE = 64, 640  # px
MEMORY_STEPS = 4


def benchmark(
    *,
    networks: Sequence[str],
    precisions: Sequence[str],
    side: int,
    batch: int,
    steps: int,
    xla: bool,
    stages: bool,
    rounds: int,
) -> dict[str, Any]:
    """Prints the table, and returns its numbers.

    Args:
        networks: names in `NETWORKS`.
        precisions: Keras' dtype policies.
        side: of training images; px.
        batch: images in a step.
        steps: in a turn.
        xla: True compiles both with XLA.
        stages: True measures the parts of a step in place of the step with its input.
        rounds: of taking turns.
    """
    if stages:
        return _benchmark_stages(networks, precisions, side, batch, steps, xla, rounds)
    print(
        "| network, precision | step / backbone | with input / backbone | memory / backbone's | "
        "backbone, share of the peak of products |\n|---|---|---|---|---|"
    )
    rows = {}
    for name in networks:
        for precision in precisions:
            row = call_apart(times, name, precision, side, batch, steps, xla, rounds)
            peak = {
                what: call_apart(peak_memory, what, name, precision, side, batch, xla)
                for what in (BACKBONE, WHOLE)
            }
            row |= {"bytes": peak, "memory": peak[WHOLE] / peak[BACKBONE]}
            rows[f"{name}, {precision}"] = row
            cells = [f"{m:.3f} ({low:.3f} to {high:.3f})" for low, m, high in row["ratio"].values()]
            print(
                f"| {name}, {precision} | {' | '.join(cells)} | {row['memory']:.2f} | {row['share_of_peak']:.2f} |",
                flush=True,
            )
    return {"rows": rows}


def _benchmark_stages(
    networks: Sequence[str],
    precisions: Sequence[str],
    side: int,
    batch: int,
    steps: int,
    xla: bool,
    rounds: int,
) -> dict[str, Any]:
    print(f"| network, precision | {' | '.join(STAGES)} |\n|---{'|---' * len(STAGES)}|")
    rows = {}
    for name in networks:
        for precision in precisions:
            row = call_apart(stage_times, name, precision, side, batch, steps, xla, rounds)
            rows[f"{name}, {precision}"] = {"ratio": row}
            cells = [f"{m:.2f} ({low:.2f} to {high:.2f})" for low, m, high in row.values()]
            print(f"| {name}, {precision} | {' | '.join(cells)} |", flush=True)
    return {"rows": rows}


def stage_times(
    name: str, precision: str, side: int, batch: int, steps: int, xla: bool, rounds: int
) -> dict[str, list[float]]:
    """The time of each of `STAGES` for the same batch, as a share of that of the bare backbone."""
    keras.config.set_dtype_policy(precision)
    config = config_of(name, side, batch)
    network = network_of(config)
    fixed = next(iter(batches(network, config, 1)))
    fit.compile_model(network, config, jit=xla)
    plain = network_of(config)
    fit.compile_model(plain, config, jit=xla)
    plain.make_train_function()
    bare = backbone_step(network, tf.cast(fixed[0], tf.float32), xla)
    only_maps = gradient_step(network, fixed, xla, losses=False)
    losses = gradient_step(network, fixed, xla, losses=True)
    learn = training_step(network, config, xla)
    variants: dict[str, Callable[[], object]] = {
        BACKBONE: lambda: [bare() for _ in range(steps)],
        "and heads": lambda: [only_maps() for _ in range(steps)],
        "and losses": lambda: [losses() for _ in range(steps)],
        "Keras' step": lambda: [
            float(plain.train_function(itertools.repeat(fixed, 1))["loss"]) for _ in range(steps)
        ],
        "step": lambda: [learn(fixed) for _ in range(steps)],
    }
    for run in variants.values():
        run()
    has_gpu = bool(tf.config.list_physical_devices("GPU"))
    seconds = take_turns(variants, rounds, time.perf_counter if has_gpu else time.process_time)
    return {each: quartiles(seconds[each], seconds[BACKBONE]) for each in STAGES}


def gradient_step(
    network: UnitBox, batch: Any, xla: bool, *, losses: bool
) -> Callable[[], np.ndarray]:
    """Forward and backward of the whole network: of its losses, or else of the squares of its maps."""
    images, truth, weights = batch
    variables = [each.value for each in network.trainable_variables]

    @tf.function(jit_compile=xla, autograph=False)
    def run() -> tf.Tensor:
        with tf.GradientTape() as tape:
            maps = network(images, training=True)
            if losses:
                loss = network.compute_loss(x=images, y=truth, y_pred=maps, sample_weight=weights)
            else:
                squares = [tf.reduce_mean(tf.square(tf.cast(m, tf.float32))) for m in maps.values()]
                loss = tf.add_n(squares)
        found = tape.gradient(loss, variables)
        return tf.add_n([tf.reduce_sum(each) for each in found if each is not None])

    return lambda: run().numpy()


def times(
    name: str, precision: str, side: int, batch: int, steps: int, xla: bool, rounds: int
) -> dict[str, Any]:
    """The ratios of a network, and the share of the peak that its backbone reaches."""
    keras.config.set_dtype_policy(precision)
    config = config_of(name, side, batch)
    network = network_of(config)
    fixed = next(iter(batches(network, config, 1)))
    bare = backbone_step(network, tf.cast(fixed[0], tf.float32), xla)
    learn = training_step(network, config, xla)

    def whole() -> None:
        for each in batches(network, config, steps):
            learn(each)

    variants: dict[str, Callable[[], object]] = {
        BACKBONE: lambda: [bare() for _ in range(steps)],
        STEP: lambda: [learn(fixed) for _ in range(steps)],
        WHOLE: whole,
        PRODUCT: products(precision),
    }
    for run in variants.values():
        run()
    has_gpu = bool(tf.config.list_physical_devices("GPU"))
    clock = time.perf_counter if has_gpu else time.process_time
    seconds = take_turns(variants, rounds, clock)
    # A sum of two products for each one forward, and twice as many backward.
    operations = 6 * batch * multiply_adds(taps(network), side, side)
    rate = steps * operations / np.array(seconds[BACKBONE])
    most = 2 * PRODUCT_SIDE**3 / np.array(seconds[PRODUCT])
    return {
        "ratio": {each: quartiles(seconds[each], seconds[BACKBONE]) for each in (STEP, WHOLE)},
        "share_of_peak": float(np.median(rate / most)),
        "backbone_seconds": float(np.median(seconds[BACKBONE])) / steps,
    }


def peak_memory(what: str, name: str, precision: str, side: int, batch: int, xla: bool) -> int:
    """Bytes that some steps take at most: on a GPU all, else those beyond what the process had before the first."""
    keras.config.set_dtype_policy(precision)
    config = config_of(name, side, batch)
    network = network_of(config)
    before = resident()
    if what == BACKBONE:
        run = backbone_step(network, tf.zeros([batch, side, side, 3]), xla)
        for _ in range(MEMORY_STEPS):
            run()
    else:
        learn = training_step(network, config, xla)
        for each in batches(network, config, MEMORY_STEPS):
            learn(each)
    gpus = tf.config.list_logical_devices("GPU")
    if gpus:
        return int(
            tf.config.experimental.get_memory_info(gpus[0].name.removeprefix("/device:"))["peak"]
        )
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit - before


def config_of(name: str, side: int, batch: int) -> Config:
    """The preset that trains a network, from random weights, at this size."""
    preset = PRESETS[NETWORKS[name]]
    model = dataclasses.replace(preset.model, weights=None, class_names=("object",))
    largest = min(preset.data.object_size[1], 0.9 * side)
    data = dataclasses.replace(
        preset.data, image_size=side, object_size=(preset.data.object_size[0], largest)
    )
    train = dataclasses.replace(preset.train, batch_size=batch)
    return dataclasses.replace(preset, model=model, data=data, train=train)


def network_of(config: Config) -> UnitBox:
    """The network, with random weights."""
    return UnitBox.from_settings(config.model, config.decode)


@functools.cache
def photos() -> list[Annotation]:
    """Drawn photos, as JPEG, with their objects."""
    return [multiscale.draw(number, PHOTO_SIDE) for number in range(PHOTOS)]


def batches(network: UnitBox, config: Config, count: int) -> tf.data.Dataset:
    """The first batches of training."""
    labels = pipeline.Labels(
        1,
        equal_objects=config.loss.reduction == "object_mean",
        share_power=fit.SHARE_POWERS[config.loss.confidence_shares],
        stride=network.map_stride,
    )
    dataset = pipeline.training_dataset(
        photos(), config.data, labels=labels, batch_size=config.train.batch_size, seed=0
    )
    return dataset.take(count)


def taps(network: UnitBox) -> keras.Model:
    """The bare backbone: the features that the network reads of preprocessed images."""
    backbone = network.backbone
    names = [*backbone.pyramid.values()] if network.neck == "top_down" else []
    names = names or [each for each in (backbone.confidence, backbone.distances) if each]
    return backbone.features(list(dict.fromkeys(names)), "taps")


def backbone_step(network: UnitBox, images: tf.Tensor, xla: bool) -> Callable[[], object]:
    """Forward and backward of the bare backbone."""
    model = taps(network)
    weights = [each.value for each in model.trainable_variables]

    @tf.function(jit_compile=xla)
    def run() -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            maps = keras.tree.flatten(model(images, training=True))
            loss = tf.add_n([tf.reduce_mean(tf.cast(each, tf.float32) ** 2) for each in maps])
        return [tf.reduce_sum(each) for each in tape.gradient(loss, weights)]

    return lambda: [each.numpy() for each in run()[-1:]]


def training_step(network: UnitBox, config: Config, xla: bool) -> Callable[[Any], object]:
    """The step that `fit` takes, for one batch."""
    fit.compile_model(network, config, jit=xla)
    CheckedStep(network)
    network.make_train_function()

    def learn(batch: Any) -> float:
        return float(network.train_function(itertools.repeat(batch, 1))["loss"])

    return learn


def products(precision: str) -> Callable[[], object]:
    """A product of two square matrices in the precision in which layers compute."""
    dtype = keras.DTypePolicy(precision).compute_dtype
    sides = tf.random.stateless_uniform([2, PRODUCT_SIDE, PRODUCT_SIDE], (0, 0))
    a, b = tf.unstack(tf.cast(sides, dtype))
    run = tf.function(lambda: tf.reduce_sum(tf.matmul(a, b)))
    return lambda: run().numpy()
