"""Detects thousands of times in images of changing sizes: memory, traced functions, and threads.

Each image is encoded, so that decoding is part of a call. Memory is the resident memory of the process at the end of
the warm-up and of the whole run. Threads share one detector, and must find what one thread finds.
"""

from __future__ import annotations

import concurrent.futures
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from training.benchmarks.resident import resident
from unitbox_tf import images
from unitbox_tf.config import DecodeConfig
from unitbox_tf.detect import graph, padding
from unitbox_tf.detect.detector import Detector
from unitbox_tf.detect.model import UnitBox
from unitbox_tf.progress import Progress
from unitbox_tf.records import Detections

SIZES = 400  # of images, all different
LONGEST = 400  # px; the longest side of an image
THREADS = 8


def tiny_network(shown: tf.Tensor, training: bool) -> graph.Outputs:
    """Heatmaps that depend on the image, at no cost: bright pixels are objects."""
    grey = tf.reduce_mean(shown, axis=-1, keepdims=True)
    return {"confidence": grey / 16 - 8, "distances": tf.tile(grey / 16, [1, 1, 1, 4])}


def benchmark(model: str | None, *, calls: int) -> dict[str, Any]:
    """Prints and returns the figures.

    Args:
        model: folder of a run, or a published name; None takes a network that costs no time.
        calls: number of detections.
    """
    found = measure(model, calls)
    for name, value in found.items():
        print(f"{name}: {value}")
    return found


def measure(model: str | None, calls: int) -> dict[str, Any]:
    """The figures of `calls` detections, of which the first fifth is the warm-up."""
    network: Any = UnitBox.from_preset(model) if model else tiny_network
    decode = network.decode if model else DecodeConfig(max_side=64)
    module = graph.InferenceModule(network, decode)

    def detect(image: np.ndarray) -> Detections:
        return padding.unpad(module.detect_images(image[None]), [image.shape[:2]])[0]

    detector = Detector(detect, ("object",), decode)
    photos = pictures(SIZES, LONGEST)
    warm_up, before = calls // 5, 0
    for call in Progress(range(calls), "detecting", calls):
        detector(photos[call % len(photos)])
        if call == warm_up:
            before = resident()
    after = resident()
    chosen = photos[: max(THREADS, min(len(photos), calls // 10))]
    return {
        "calls": calls,
        "sizes": len(photos),
        "memory_after_warm_up_mb": round(before / 2**20, 1),
        "memory_at_end_mb": round(after / 2**20, 1),
        "growth_percent": round(100 * (after / before - 1), 2),
        "traces": traces(module),
        "threads_differ": differences(detector, chosen),
    }


def pictures(count: int, longest: int) -> list[bytes]:
    """Encoded images of different sizes, by turns as JPEG and PNG: grey, with bright rectangles."""
    random = np.random.default_rng(0)
    found = []
    for index in range(count):
        height, width = random.integers(8, longest, 2)
        image = np.full((height, width, 3), 60, np.uint8)
        for _ in range(3):
            top, left = random.integers(height), random.integers(width)
            image[top : top + height // 4, left : left + width // 4] = random.integers(100, 256, 3)
        encode = tf.io.encode_jpeg if index % 2 else tf.io.encode_png
        found.append(encode(image).numpy())
    return found


def traces(module: graph.InferenceModule) -> dict[str, int]:
    """How often TensorFlow has traced each function that a detection calls."""
    functions = {
        "detect_images": module.detect_images,
        "heatmaps_at": module.heatmaps_at,
        "decode": images.graph_decoder(),
    }
    return {name: f.experimental_get_tracing_count() for name, f in functions.items()}


def differences(detector: Detector, photos: Sequence[bytes]) -> int:
    """In how many images threads that detect at the same time find something else than one thread does."""
    alone = [detector(photo) for photo in photos]
    with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
        together = list(pool.map(detector, photos))
    return sum(one != other for one, other in zip(alone, together, strict=True))
