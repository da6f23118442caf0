"""Compares the exported formats with the detector in Python, in one run: detections, size and time.

A model is exported in every format, unless the export is there. Each export detects in the images.
table.md and table.json are written with

* the largest difference of a box (px of the image) and of a score, between detections that are each
  other's best match, and the number of detections without partner, for scores above the model's threshold,
* average precision at IoU 0.5, down to low scores, and its difference from Python's,
* the size of the file, and the median time of an image of 640 x 480, as a ratio to Python. The exports take
  turns, image by image, in a changing order. Absolute times would depend on the machine.

Parity is also judged on some of the images resized to odd and tiny sizes.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

import unitbox_tf
from training import outputs
from training.benchmarks.turns import VGA, quartiles, take_turns
from unitbox_tf import boxes as box_ops
from unitbox_tf import cli, datasets, files, inputs
from unitbox_tf.detect import padding
from unitbox_tf.evaluation import matching
from unitbox_tf.problems import Problems
from unitbox_tf.progress import Progress
from unitbox_tf.records import Annotation, Detections

PYTHON = "Python"
FILES = {  # by the name of the row: the export, and options of `unitbox export`
    "SavedModel": ("saved_model", []),
    "ONNX": ("detector.onnx", []),
    "OpenVINO, float32": ("detector.onnx", []),
    "OpenVINO, its default": ("detector.onnx", []),
    "LiteRT float16": ("detector.tflite", []),
    "LiteRT int8": ("int8/detector.tflite", ["--format", "litert-int8"]),
}
ODD_SIZES = ((1, 1), (17, 31), (1, 2000), (2000, 1), (3, 3), (33, 500))  # heights and widths
LOWEST_SCORE = 0.05  # for average precision
PARTNER = 0.5  # IoU from which two detections are of the same object

Find = Callable[[np.ndarray], Detections]


def compare(
    model: str, source: str, *, data: str, calibration: Sequence[str], output: Path, rounds: int
) -> None:
    """Exports, detects, measures, and writes the table.

    Args:
        model: folder of a run, or a published name.
        source: annotated images, as FORMAT:PATH#SPLIT.
        data: folder from which the source's path starts.
        calibration: images for int8.
        output: folder to write.
        rounds: of taking time.
    """
    problems = Problems()
    annotations = datasets.load([source], ("face",), data=data, problems=problems)
    problems.log_counts()
    paths = export_all(model, calibration, output)
    threshold = unitbox_tf.load(model).decode.score_threshold
    detectors: dict[str, Find] = {PYTHON: unitbox_tf.load(model, score_threshold=LOWEST_SCORE)}
    detectors |= {name: open_export(name, path) for name, path in paths.items()}
    for find in detectors.values():  # reports an export that does not run before the long part
        find(np.zeros((40, 60, 3), np.uint8))
    images = [inputs.read_image(a.encoded()) for a in annotations]
    odd = [cv2.resize(images[i % len(images)], size[::-1]) for i, size in enumerate(ODD_SIZES)]
    vga = [cv2.resize(image, VGA) for image in images[:rounds]]
    found = {
        name: [find(image) for image in Progress([*images, *odd], name, len(images) + len(odd))]
        for name, find in detectors.items()
    }
    seconds = time_all(detectors, vga)
    precisions = {name: ap50(each[: len(images)], annotations) for name, each in found.items()}
    rows = {
        name: {
            **differences(found[name], found[PYTHON], threshold),
            "ap50": precisions[name],
            "ap50_difference": precisions[name] - precisions[PYTHON],
            "megabytes": size_of(paths[name]) / 1e6 if name in paths else None,
            "time_ratio": quartiles(seconds[name], seconds[PYTHON]),
            "milliseconds": 1000 * float(np.median(seconds[name])),
        }
        for name in detectors
    }
    facts = {"photos": len(images), "odd_sizes": ODD_SIZES, "threshold": threshold, "rows": rows}
    outputs.write_json(output / "table.json", facts)
    files.write(output / "table.md", markdown(rows))
    print(markdown(rows))


def export_all(model: str, calibration: Sequence[str], output: Path) -> dict[str, Path]:
    """The exports by the name of the row. Exports that are there are not made again."""
    paths = {}
    for name, (file, options) in FILES.items():
        paths[name] = path = output / file
        if not path.exists():
            images = ["--calibration", *calibration] if options else []
            lowest = ["--score-threshold", str(LOWEST_SCORE)]
            if cli.main(["export", model, str(path), *lowest, *options, *images]):
                raise ValueError(f"{path}: could not be exported")
    return paths


def open_export(name: str, path: Path) -> Find:
    """The detector of a row."""
    if not name.startswith("OpenVINO"):
        return unitbox_tf.load(path, score_threshold=LOWEST_SCORE)
    # By default it computes in bfloat16 where the processor can, which moves boxes by pixels.
    hints = {"INFERENCE_PRECISION_HINT": "f32"} if name.endswith("float32") else {}
    if unitbox_tf.load(path).decode.score_threshold != LOWEST_SCORE:
        raise ValueError(f"{path}: expected an export with --score-threshold {LOWEST_SCORE}")
    return open_openvino(path, hints)


def open_openvino(path: Path, hints: Mapping[str, str]) -> Find:
    """The ONNX file in OpenVINO, with the thresholds in it: OpenVINO takes inputs with defaults for constants."""
    import openvino

    compiled = openvino.Core().compile_model(path, "CPU", dict(hints))

    def find(image: np.ndarray) -> Detections:
        outputs = compiled({"images": image[None]})
        names = ("boxes", "scores", "classes", "num_detections")
        named = {name: outputs[name] for name in names}
        return padding.unpad(named, [image.shape[:2]])[0]

    return find


def time_all(detectors: Mapping[str, Find], images: Sequence[np.ndarray]) -> dict[str, list[float]]:
    """Seconds of each detector, with one image a round. The first round makes graphs and is left out."""

    def one(find: Find, following: Iterator[np.ndarray]) -> None:
        find(next(following))

    variants = {
        name: functools.partial(one, find, itertools.cycle(images))
        for name, find in detectors.items()
    }
    seconds = take_turns(variants, len(images) + 1)
    return {name: values[1:] for name, values in seconds.items()}


def differences(
    found: Sequence[Detections], expected: Sequence[Detections], threshold: float
) -> dict[str, float | int]:
    """Largest differences between partners, one of them above the threshold, and detections without partner."""
    boxes, scores, alone, pairs = 0.0, 0.0, 0, 0
    for a, b in zip(found, expected, strict=True):
        iou = np.where(a.classes[:, None] == b.classes, box_ops.pairwise_iou(a.boxes, b.boxes), 0)
        best = {
            (i, int(iou[i].argmax())) for i in range(len(a)) if iou.size and iou[i].max() >= PARTNER
        }
        best &= {(int(iou[:, j].argmax()), j) for j in range(len(b)) if iou.size}
        kept = [(i, j) for i, j in best if max(a.scores[i], b.scores[j]) >= threshold]
        pairs += len(kept)
        alone += sum(a.scores[i] >= threshold for i in set(range(len(a))) - {i for i, _ in best})
        alone += sum(b.scores[j] >= threshold for j in set(range(len(b))) - {j for _, j in best})
        for i, j in kept:
            boxes = max(boxes, float(np.abs(a.boxes[i] - b.boxes[j]).max()))
            scores = max(scores, float(abs(a.scores[i] - b.scores[j])))
    return {"pairs": pairs, "without_partner": int(alone), "pixels": boxes, "scores": scores}


def ap50(found: Sequence[Detections], annotations: Sequence[Annotation]) -> float:
    """Average precision at IoU 0.5 over faces of at least 16 px."""
    return matching.summarize(found, annotations, 16.0)["ap50"]


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def markdown(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """The table."""
    lines = [
        "| | compared | largest box difference (px) | of a score | without partner | AP .5 | its difference | MB | "
        "time of a VGA image, by Python's (quartiles) |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        low, middle, high = row["time_ratio"]
        size = "" if row["megabytes"] is None else f"{row['megabytes']:.1f}"
        same = name == PYTHON or math.isnan(row["ap50"])
        lines.append(
            f"| {name} | {row['pairs']} | {row['pixels']:.3f} | {row['scores']:.5f} | "
            f"{row['without_partner']} | {row['ap50']:.4f} | "
            f"{'' if same else format(row['ap50_difference'], '+.4f')} | {size} | "
            f"{middle:.2f} ({low:.2f} to {high:.2f}) |"
        )
    return "\n".join(lines) + "\n"
