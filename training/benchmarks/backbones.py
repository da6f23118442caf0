"""Multiply-adds, parameters and time of the detector on each backbone, with each neck.

A detector is measured from the preprocessed image of VGA size to its heads, with batch normalisation folded, as
exports have it: without up-sampling and decoding. Times are those of TensorFlow, as ratios to `vgg16` without a neck,
which takes turns with the others.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from training.benchmarks.turns import VGA, quartiles, take_turns
from unitbox_tf import registry
from unitbox_tf.config import ModelConfig
from unitbox_tf.detect.model import UnitBox
from unitbox_tf.network import heatmaps
from unitbox_tf.network.folding import folded

BASE = ("vgg16", "none")
NECKS = ("none", "top_down")


def benchmark(
    *, names: Sequence[str] = (), counts: bool = False, rounds: int = 9
) -> dict[str, Any]:
    """Prints the table, and returns its numbers.

    Args:
        names: the backbones; none given: all that are registered.
        counts: leaves the times out, which take the longest.
        rounds: of taking turns.
    """
    rows = {
        (name, neck): count(name, neck) for name in names or registry.BACKBONES for neck in NECKS
    }
    if not counts:
        for key, ratios in _times([*rows], rounds).items():
            rows[key]["time"] = ratios
    print_table(rows)
    return {"rows": [{"backbone": name, "neck": neck, **row} for (name, neck), row in rows.items()]}


def count(name: str, neck: str) -> dict[str, Any]:
    """Multiply-adds at VGA size and parameters of the detector of one class on a backbone."""
    network = heads(name, neck)
    width, height = VGA
    return {
        "multiply_adds": multiply_adds(network, height, width),
        "parameters": network.count_params(),
    }


def heads(name: str, neck: str) -> keras.Model:
    """The network of a detector of one class, from the preprocessed image to its heads, with random weights."""
    config = ModelConfig(backbone=name, neck=neck, class_names=("object",))  # type: ignore[arg-type]  # checked
    model = UnitBox.from_settings(config)
    outputs = [model.get_layer(each).output for each in heatmaps.HEADS]
    return folded(keras.Model(model.get_layer(heatmaps.PREPROCESS).output, outputs))


def multiply_adds(network: keras.Model, height: int, width: int, channels: int = 3) -> int:
    """The multiplications of convolutions and matrix products for an image `[1, height, width, channels]`."""
    spec = tf.TensorSpec([1, height, width, channels], tf.float32)
    graph = _function(network).get_concrete_function(spec).graph
    return sum(map(_multiplications, graph.get_operations()))


def _function(network: keras.Model) -> Any:
    return tf.function(lambda image: network(image, training=False))


def _multiplications(operation: tf.Operation) -> int:
    """Those of one operation: the numbers that it gives, times the products that each of them is a sum of."""
    if operation.type == "StatefulPartitionedCall":  # as of a convolution in groups
        function = operation.graph._get_function(operation.get_attr("f").name)
        return sum(map(_multiplications, function.graph.get_operations()))
    if operation.type not in ("Conv2D", "DepthwiseConv2dNative", "MatMul"):
        return 0
    given = math.prod(operation.outputs[0].shape.as_list())
    kernel = operation.inputs[1].shape.as_list()
    if operation.type == "MatMul":
        return given * kernel[1 if operation.get_attr("transpose_b") else 0]
    return given * math.prod(kernel[: 3 if operation.type == "Conv2D" else 2])


def _times(rows: Iterable[tuple[str, str]], rounds: int) -> dict[tuple[str, str], list[float]]:
    """Quartiles of the ratio of each row's time to that of `BASE`."""
    runs = {" ".join(key): _run(*key) for key in {BASE: None, **dict.fromkeys(rows)}}
    for run in runs.values():
        run()  # the first run of each takes longer
    seconds = take_turns(runs, rounds)
    base = seconds[" ".join(BASE)]
    return {key: quartiles(seconds[" ".join(key)], base) for key in rows}


def _run(name: str, neck: str) -> Callable[[], object]:
    """Runs a network in TensorFlow on a random image."""
    width, height = VGA
    spec = tf.TensorSpec([1, height, width, 3], tf.float32)
    function = _function(heads(name, neck)).get_concrete_function(spec)
    image = tf.constant(np.random.default_rng(0).uniform(0, 255, spec.shape), tf.float32)
    return lambda: [each.numpy() for each in keras.tree.flatten(function(image))]


def print_table(rows: Mapping[tuple[str, str], Mapping[str, Any]]) -> None:
    """The rows as a table of Markdown."""
    head = ["backbone", "neck", "multiply-adds, G", "parameters, M"]
    timed = any("time" in row for row in rows.values())
    head += ["time"] if timed else []
    print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}")
    for (name, neck), row in rows.items():
        cells = [f"`{name}`", f"`{neck}`"]
        cells += [f"{row['multiply_adds'] / 1e9:.2f}", f"{row['parameters'] / 1e6:.2f}"]
        if timed:
            low, middle, high = row["time"]
            cells.append(f"{middle:.3f} ({low:.3f} to {high:.3f})")
        print(f"| {' | '.join(cells)} |")
