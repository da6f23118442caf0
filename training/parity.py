r"""What each exported format gives and costs, beside the detector in Python, in one run.

    python training/parity.py faces 'wider_face:wider/val_416#val' --data DATA \
        --calibration DATA/fddb/originalPics --output parity

Exports MODEL to --output in every format (an export that is there already is used), finds the objects of
the photos with each, and writes table.md and table.json:

* the largest difference of a box (px of the photo) and of a score between detections of the two that
  are each other's best match, and how many have no partner; of those above the model's threshold,
* average precision at IoU 0.5, down to low scores, and its difference from that in Python,
* the size of the file, and the median time of a photo of 640 x 480, as a ratio to Python taken
  photo by photo in an order that changes: an absolute time is that of the machine.

Beside the photos as they are, parity is judged on some of them resized to odd and tiny sizes.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import cv2
import numpy as np
from turns import quartiles, take_turns

import unitbox_tf
from unitbox_tf import boxes as box_ops
from unitbox_tf import cli, datasets
from unitbox_tf.detect import decoders
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
VGA = (640, 480)
LOWEST_SCORE = 0.05  # for average precision
PARTNER = 0.5  # IoU from which two detections are of the same object

Find = Callable[[np.ndarray], Detections]


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="folder of a run, or a published name")
    parser.add_argument("source", help="annotated photos as FORMAT:PATH#SPLIT")
    parser.add_argument("--data", default=".", help="folder that the relative path starts from")
    parser.add_argument("--calibration", nargs="+", required=True, help="photos for int8")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=9, help="of timing")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        compare(arguments)
    except (ValueError, OSError) as error:
        parser.exit(1, f"parity.py: error: {error}\n")


def compare(arguments: argparse.Namespace) -> None:
    """Exports, detects, measures, and writes the table."""
    problems = Problems()
    annotations = datasets.load(
        [arguments.source], ("face",), data=arguments.data, problems=problems
    )
    problems.log_counts()
    paths = export_all(arguments)
    reference = unitbox_tf.load(arguments.model, score_threshold=LOWEST_SCORE)
    threshold = unitbox_tf.load(arguments.model).decode.score_threshold
    detectors: dict[str, Find] = {PYTHON: reference}
    for name, path in paths.items():
        if name.startswith("OpenVINO"):
            # By default it computes in bfloat16 where the processor can, which moves boxes by pixels.
            hints = {"INFERENCE_PRECISION_HINT": "f32"} if name.endswith("float32") else {}
            detectors[name] = open_openvino(path, hints)
        else:
            detectors[name] = unitbox_tf.load(path, score_threshold=LOWEST_SCORE)
    for find in detectors.values():  # what does not run is said before the long part
        find(np.zeros((40, 60, 3), np.uint8))
    images = [unitbox_tf.detector.read_image(a.encoded()) for a in annotations]
    odd = [cv2.resize(images[i % len(images)], size[::-1]) for i, size in enumerate(ODD_SIZES)]
    vga = [cv2.resize(image, VGA) for image in images[: arguments.rounds]]
    found = {
        name: [find(image) for image in Progress([*images, *odd], name, len(images) + len(odd))]
        for name, find in detectors.items()
    }
    seconds = time_all(detectors, vga)
    rows = {}
    for name in detectors:
        row: dict[str, Any] = differences(found[name], found[PYTHON], threshold)
        row["ap50"] = ap50(found[name][: len(images)], annotations)
        row["ap50_difference"] = row["ap50"] - ap50(found[PYTHON][: len(images)], annotations)
        row["megabytes"] = size_of(paths[name]) / 1e6 if name in paths else None
        row["time_ratio"] = quartiles(seconds[name], seconds[PYTHON])
        row["milliseconds"] = 1000 * float(np.median(seconds[name]))
        rows[name] = row
    facts = {"photos": len(images), "odd_sizes": ODD_SIZES, "threshold": threshold, "rows": rows}
    (arguments.output / "table.json").write_text(json.dumps(facts, indent=1) + "\n")
    (arguments.output / "table.md").write_text(markdown(rows))
    print(markdown(rows))


def export_all(arguments: argparse.Namespace) -> dict[str, Path]:
    """The exports, by name of the row; those that are there are not made again."""
    paths = {}
    for name, (file, options) in FILES.items():
        paths[name] = path = arguments.output / file
        if not path.exists():
            calibration = ["--calibration", *arguments.calibration] if options else []
            lowest = ["--score-threshold", str(LOWEST_SCORE)]
            if cli.main(["export", arguments.model, str(path), *lowest, *options, *calibration]):
                raise ValueError(f"{path}: could not be exported")
    return paths


def open_openvino(path: Path, hints: Mapping[str, str]) -> Find:
    """The ONNX file in OpenVINO, which takes inputs with defaults for constants."""
    import openvino

    if unitbox_tf.load(path).decode.score_threshold != LOWEST_SCORE:
        raise ValueError(f"{path}: expected an export with --score-threshold {LOWEST_SCORE}")
    compiled = openvino.Core().compile_model(path, "CPU", dict(hints))

    def find(image: np.ndarray) -> Detections:
        outputs = compiled({"images": image[None]})
        names = ("boxes", "scores", "classes", "num_detections")
        named = {name: outputs[name] for name in names}
        return decoders.unpad(named, [image.shape[:2]])[0]

    return find


def time_all(detectors: Mapping[str, Find], images: Sequence[np.ndarray]) -> dict[str, list[float]]:
    """Seconds of each detector, a photo a round; the first round, in which graphs are made, is left out."""
    numbers = {name: 0 for name in detectors}

    def one(name: str) -> None:
        detectors[name](images[numbers[name] % len(images)])
        numbers[name] += 1

    variants = {name: lambda name=name: one(name) for name in detectors}
    seconds = take_turns(variants, len(images) + 1)  # type: ignore[arg-type]
    return {name: values[1:] for name, values in seconds.items()}


def differences(
    found: Sequence[Detections], expected: Sequence[Detections], threshold: float
) -> dict[str, float | int]:
    """Largest differences between partners, one of which has the threshold's score; and those without partner."""
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
        "time of a VGA photo, by Python's (quartiles) |",
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


if __name__ == "__main__":
    main()
