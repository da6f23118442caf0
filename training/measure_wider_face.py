"""WIDER FACE AP by the official and by the exact overlap, and the seconds each takes, for docs/wider_face.md.

    python training/measure_wider_face.py GROUND_TRUTH RESULTS [RESULTS ...]

GROUND_TRUTH is the folder of the official .mat files; RESULTS a folder in the official layout, or
one .txt.gz with all images: a line `# <event>/<image> <n>`, then n lines `x y w h score`. Each set
is also measured with fractions: all four numbers of each box moved by up to half a pixel.
"""

from __future__ import annotations

import argparse
import gzip
import time
from pathlib import Path

import numpy as np

from unitbox_tf.evaluation import wider_face
from unitbox_tf.records import Problems


def read(path: Path, truth: wider_face.GroundTruth) -> dict[str, np.ndarray]:
    """Rows `x y w h score` by image."""
    if path.is_dir():
        return wider_face.read_detections(path, truth.names, Problems())
    images: dict[str, list[list[float]]] = {}
    with gzip.open(path, "rt", encoding="ascii") as file:
        for line in file:
            if line.startswith("# "):
                rows = images.setdefault(f"{line.split()[1]}.jpg", [])
            else:
                rows.append([float(word) for word in line.split()])
    return {name: np.array(rows).reshape(-1, 5) for name, rows in images.items()}


def moved(detections: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same with fractions."""
    random = np.random.default_rng(0)
    return {
        name: rows + np.pad(random.uniform(-0.5, 0.5, (len(rows), 4)), [(0, 0), (0, 1)])
        for name, rows in detections.items()
    }


def measure(
    name: str, detections: dict[str, np.ndarray], truth: wider_face.GroundTruth
) -> dict[str, float]:
    """Prints a line an overlap, and gives the seconds of each."""
    seconds, curves = {}, {}
    for iou in ("official", "exact"):
        start = time.process_time()
        curves[iou] = wider_face.evaluate(detections, truth, iou)
        seconds[iou] = time.process_time() - start
    for iou, own in curves.items():
        cells = [f"{own[d].average_precision:.6f}" for d in wider_face.DIFFICULTIES]
        if iou == "exact":
            for i, d in enumerate(wider_face.DIFFICULTIES):
                change = own[d].average_precision - curves["official"][d].average_precision
                cells[i] += f" ({change:+.6f})"
        print(f"| {name} | {iou} | {' | '.join(cells)} | {seconds[iou]:.1f} |", flush=True)
    return seconds


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("ground_truth", type=Path)
    parser.add_argument("results", type=Path, nargs="+")
    arguments = parser.parse_args()
    truth = wider_face.read_ground_truth(arguments.ground_truth)
    print(
        "| detections | overlap | easy | medium | hard | CPU seconds |\n|---|---|---|---|---|---|"
    )
    for path in arguments.results:
        start = time.process_time()
        detections = read(path, truth)
        reading = time.process_time() - start
        name = path.name.removesuffix(".txt.gz").removeprefix("detections_")
        measure(name, detections, truth)
        measure(f"{name}, fractions", moved(detections), truth)
        boxes = sum(map(len, detections.values()))
        print(f"{name}: {boxes:,} boxes of {len(detections):,} images read in {reading:.1f} s")


if __name__ == "__main__":
    main()
