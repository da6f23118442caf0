"""The ONNX file in OpenVINO, in bfloat16 beside float32, with images as they are and enlarged.

OpenVINO computes in bfloat16 where the processor can, unless it is told not to. Here both precisions are asked for. A
processor with AVX-512 and without bfloat16 gives the same results, but slowly, so the times say nothing there.
Enlarged images are those that the file shrinks again to its `max_side`. Differences are those of `parity`.
"""

from __future__ import annotations

import dataclasses
import functools
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

import unitbox_tf
from training.benchmarks import parity
from training.benchmarks.turns import quartiles, take_turns
from unitbox_tf import datasets, inputs
from unitbox_tf.problems import Problems
from unitbox_tf.progress import Progress
from unitbox_tf.records import Detections

PRECISIONS = {"float32": "f32", "bfloat16": "bf16"}


def compare(
    model: str, source: str, *, data: str, count: int | None, sides: Sequence[int], rounds: int
) -> dict[str, Any]:
    """Exports, detects, prints the table, and returns its numbers.

    Args:
        model: folder of a run, or a published name.
        source: annotated images, as FORMAT:PATH#SPLIT.
        data: folder from which the source's path starts.
        count: number of images, evenly over the source; None: all.
        sides: longer sides to which the images are enlarged, in pixels; 0: as they are.
        rounds: of taking time, each with one image.
    """
    problems = Problems()
    annotations = datasets.load([source], ("face",), data=data, problems=problems)
    problems.log_counts()
    annotations = annotations[:: max(1, len(annotations) // count) if count else 1][:count]
    images = [inputs.read_image(each.encoded()) for each in annotations]
    threshold = unitbox_tf.load(model).decode.score_threshold
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "detector.onnx"
        unitbox_tf.export(model, path, score_threshold=parity.LOWEST_SCORE)
        finds = {
            name: parity.open_openvino(path, {"INFERENCE_PRECISION_HINT": hint})
            for name, hint in PRECISIONS.items()
        }
    print(
        "| longer side | precision | AP .5 | its difference | pairs | largest box difference (px of the image) | of a "
        "score | without partner | time by float32's (quartiles) |\n|---|---|---|---|---|---|---|---|---|"
    )
    rows = {}
    for side in sides:
        given = [enlarged(image, side) for image in images]
        found = {
            name: [
                in_pixels_of(find(large), image)
                for large, image in Progress([*zip(given, images, strict=True)], name, len(given))
            ]
            for name, find in finds.items()
        }
        seconds = time_all(finds, given[:rounds])
        precisions = {name: parity.ap50(each, annotations) for name, each in found.items()}
        for name, each in found.items():
            row: dict[str, Any] = {
                **parity.differences(each, found["float32"], threshold),
                "ap50": precisions[name],
                "ap50_difference": precisions[name] - precisions["float32"],
                "time_ratio": quartiles(seconds[name], seconds["float32"]),
            }
            rows[f"{side or 'as they are'}, {name}"] = row
            low, middle, high = row["time_ratio"]
            print(
                f"| {side or 'as they are'} | {name} | {row['ap50']:.4f} | {row['ap50_difference']:+.4f} | "
                f"{row['pairs']} | {row['pixels']:.3f} | {row['scores']:.5f} | {row['without_partner']} | "
                f"{middle:.2f} ({low:.2f} to {high:.2f}) |",
                flush=True,
            )
    return {"images": len(images), "threshold": threshold, "rows": rows}


def enlarged(image: np.ndarray, side: int) -> np.ndarray:
    """The image with a longer side of `side` pixels; 0: as it is."""
    if not side:
        return image
    scale = side / max(image.shape[:2])
    return cv2.resize(image, None, fx=scale, fy=scale)


def in_pixels_of(found: Detections, image: np.ndarray) -> Detections:
    """Detections in an enlarged image, with boxes in pixels of the image."""
    height, width = image.shape[:2]
    ratio = np.divide([width, height] * 2, [*found.image_size[::-1]] * 2).astype(np.float32)
    return dataclasses.replace(found, boxes=found.boxes * ratio, image_size=(height, width))


def time_all(
    finds: Mapping[str, parity.Find], images: Sequence[np.ndarray]
) -> dict[str, list[float]]:
    """Seconds of processors of each precision, with one image a round."""
    following = {name: iter(images) for name in finds}
    variants = {
        name: functools.partial(lambda name, find: find(next(following[name])), name, find)
        for name, find in finds.items()
    }
    return take_turns(variants, len(images), time.process_time)
