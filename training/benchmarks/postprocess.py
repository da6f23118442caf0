"""The decoders alone: from heatmaps to boxes, with few and many objects.

The maps are those that a perfect network would give for objects on a grid: a confidence that falls from the centre of
each object, and its exact distances. So the boxes are checked, too: a decoder that misses objects is not fast. The base
of the ratios is the same decoder on maps with one object.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from training.benchmarks.turns import VGA, quartiles, take_turns
from unitbox_tf import boxes as box_ops
from unitbox_tf import registry
from unitbox_tf.config import DecodeConfig
from unitbox_tf.detect import decoders

COUNTS = (1, 50, 500)
STRIDES = (1, 4)
SHARE = 0.6  # of a cell of the grid that its object fills


def benchmark(*, rounds: int, counts: tuple[int, ...] = COUNTS) -> dict[str, Any]:
    """Prints the table, and returns its numbers.

    Args:
        rounds: of taking turns.
        counts: the numbers of objects.
    """
    rows: dict[str, Any] = {}
    print(
        "| decoder | stride | objects | time by that of one object (quartiles) | ms, median |\n|---|---|---|---|---|"
    )
    for name in registry.DECODERS:
        for stride in STRIDES:
            variants = {str(count): decoding(name, stride, count) for count in counts}
            seconds = take_turns(variants, rounds, time.process_time)
            for count in variants:
                ratio = quartiles(seconds[count], seconds[str(counts[0])])
                milliseconds = 1000 * float(np.median(seconds[count]))
                rows[f"{name}, stride {stride}, {count} objects"] = {
                    "ratio": ratio,
                    "cpu_ms": milliseconds,
                }
                low, middle, high = ratio
                print(
                    f"| `{name}` | {stride} | {count} | {middle:.2f} ({low:.2f} to {high:.2f}) | {milliseconds:.1f} |",
                    flush=True,
                )
    return {"rows": rows}


def decoding(name: str, stride: int, count: int) -> Callable[[], object]:
    """Decodes maps with so many objects; it has run once.

    Raises:
        ValueError: not all objects were found.
    """
    truth = grid(count)
    maps = heatmaps(truth, stride)
    # In maps of stride 1, each object of a crowd has thousands of pixels.
    config = DecodeConfig(decoder=name, max_side=max(VGA), max_detections=max(COUNTS))
    size = tf.constant(VGA[::-1])

    @tf.function
    def decode(confidence: tf.Tensor, distances: tf.Tensor) -> dict[str, tf.Tensor]:
        shown = {"confidence": confidence, "distances": distances}
        return decoders.decode_scales([shown], size, config, stride)

    run = functools.partial(decode, **maps)
    found = run()
    boxes = found["boxes"][0, : int(found["num_detections"][0])].numpy()
    overlaps = box_ops.pairwise_iou(boxes, truth)
    if len(boxes) != count or overlaps.max(axis=0).min() < 0.9:
        raise ValueError(
            f"{name}: expected the {count} objects of the maps. Received: {len(boxes)}"
        )
    return run


def grid(count: int) -> np.ndarray:
    """Boxes `xyxy` `[count, 4]` side by side in an image of `VGA`; they do not touch."""
    width, height = VGA
    columns = int(np.ceil(np.sqrt(count * width / height)))
    rows = -(-count // columns)
    cell = np.array([width / columns, height / rows])
    places = np.stack([np.arange(count) % columns, np.arange(count) // columns], axis=-1)
    centres = (places + 0.5) * cell
    half = SHARE * cell / 2
    return np.concatenate([centres - half, centres + half], axis=-1).astype(np.float32)


def heatmaps(truth: np.ndarray, stride: int) -> dict[str, tf.Tensor]:
    """Maps of a perfect network: logits fall from 6 at the centre of each object to -6 between objects."""
    width, height = VGA
    points = np.asarray(box_ops.map_points(height, width, stride))  # [h, w, 2]
    confidence = np.full(points.shape[:2], -6.0, np.float32)
    distances = np.zeros((*points.shape[:2], 4), np.float32)
    for box in truth:
        centre, half = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) / 2
        away = np.sqrt((((points - centre) / half) ** 2).sum(axis=-1))
        inside = away < 1
        confidence[inside] = 6 - 5 * away[inside]
        sides = np.asarray(
            box_ops.boxes_to_distances(np.broadcast_to(box, (*inside.shape, 4)), points)
        )
        distances[inside] = sides[inside]
    return {
        "confidence": tf.constant(confidence[None, ..., None]),
        "distances": tf.constant(distances[None]),
    }
