"""How costs grow: detecting with the area of images and the batch, labels with the boxes, reading with the workers.

Each column is a ratio to its first row. "Power" is the slope between the first and the last row on a logarithmic scale:
1 where the cost grows in proportion, 0 where it does not grow. Times are those of the processors; those of workers are
times that pass.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from training.benchmarks.turns import quartiles, take_turns
from unitbox_tf.config import DecodeConfig, ModelConfig
from unitbox_tf.datasets import multiscale
from unitbox_tf.detect.graph import InferenceModule
from unitbox_tf.detect.model import UnitBox
from unitbox_tf.train import targets

SIDES = (160, 320, 640, 1280)  # px
BATCHES = (1, 2, 4, 8)
BOXES = (1, 10, 100, 500)
WORKERS = (1, 2, 4)  # threads that decode
SIDE = 320  # of images where something else grows; px
DECODED = 32  # images in a turn


def benchmark(*, rounds: int) -> dict[str, Any]:
    """Prints the tables, and returns their numbers.

    Args:
        rounds: of taking turns.
    """
    model = UnitBox.from_settings(
        ModelConfig(backbone="light", neck="top_down", class_names=("object",))
    )
    grown: dict[str, tuple[dict[float, Callable[[], object]], Callable[[], float]]] = {
        "area (px of the side)": (
            {side: _detecting(model, 1, side) for side in SIDES},
            _processors,
        ),
        "batch": ({count: _detecting(model, count, SIDE) for count in BATCHES}, _processors),
        "boxes": ({count: _labels(count) for count in BOXES}, _processors),
        "workers": ({count: _reading(count) for count in WORKERS}, time.perf_counter),
    }
    content = {}
    for name, (variants, clock) in grown.items():
        content[name] = _growth(name, variants, rounds, clock)
    return {"grows_with": content}


def _growth(
    name: str,
    variants: Mapping[float, Callable[[], object]],
    rounds: int,
    clock: Callable[[], float],
) -> dict[str, Any]:
    named = {f"{key:g}": run for key, run in variants.items()}
    for run in named.values():
        run()
    seconds = take_turns(named, rounds, clock)
    first, *_, last = named
    ratios = {key: quartiles(each, seconds[first]) for key, each in seconds.items()}
    amount = float(last) / float(first)
    if name.startswith("area"):
        amount **= 2
    power = math.log(ratios[last][1]) / math.log(amount)
    print(f"\n| {name} | time by that of the first (quartiles) |\n|---|---|")
    for key, (low, middle, high) in ratios.items():
        print(f"| {key} | {middle:.2f} ({low:.2f} to {high:.2f}) |")
    print(f"\nPower: {power:.2f}", flush=True)
    return {"ratio": ratios, "power": power}


_processors = time.process_time


def _detecting(model: UnitBox, count: int, side: int) -> Callable[[], object]:
    """Detects in arrays with the light network."""
    module = InferenceModule(model, DecodeConfig(max_side=max(SIDES)))
    spec = tf.TensorSpec([count, side, side, 3], tf.uint8)
    run = tf.function(module.detect_images).get_concrete_function(spec)
    random = np.random.default_rng(0)
    image = tf.constant(random.integers(0, 256, spec.shape, np.uint8))
    return functools.partial(run, image)


def _labels(count: int) -> Callable[[], object]:
    """Encodes the targets of so many boxes at full size, as VGG-16 without a neck needs them."""
    random = np.random.default_rng(0)
    corner = random.uniform(0, SIDE - 32, (count, 2))
    boxes = np.concatenate([corner, corner + random.uniform(8, 32, (count, 2))], axis=-1)
    encode = functools.partial(targets.encode, height=SIDE, width=SIDE)
    run = tf.function(encode)
    given = (
        tf.constant(boxes, tf.float32),
        tf.zeros([count], tf.int32),
        tf.zeros([count], tf.bool),
    )
    return functools.partial(run, *given)


def _reading(workers: int) -> Callable[[], object]:
    """Decodes JPEG files in so many threads of a `tf.data` pipeline."""
    encoded = [multiscale.draw(number, 640).encoded() for number in range(4)]
    images = tf.data.Dataset.from_tensor_slices(encoded).repeat().take(DECODED)
    decoded = images.map(tf.io.decode_jpeg, num_parallel_calls=workers)

    def run() -> int:
        return sum(len(image) for image in decoded.as_numpy_iterator())

    return run
