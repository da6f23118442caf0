"""Peak memory of detecting in one large photo, whole and in tiles, above that of the process before.

Each measurement is a process of its own, which has opened the detector and found something in a photo of 640 x 480
before. The photo is a JPEG file, so that decoding counts. Linux alone tells the peak.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

import unitbox_tf
from training.benchmarks.apart import call_apart
from training.benchmarks.resident import peak_above
from training.benchmarks.turns import VGA
from unitbox_tf import images

WAYS = {"whole": False, "tiles": True}


def benchmark(models: Sequence[str], *, megapixels: Sequence[float]) -> dict[str, Any]:
    """Prints the table, and returns its numbers.

    Args:
        models: detectors as `unitbox_tf.load` takes them.
        megapixels: millions of pixels of the photos, which have four pixels in a row to three in a column.

    Raises:
        ValueError: the system does not tell the peak.
    """
    print(
        "| detector | megapixels | | peak above the process before, MB | bytes a pixel | process before, MB |\n"
        "|---|---|---|---|---|---|"
    )
    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        small, large = Path(folder) / "small.jpg", Path(folder) / "large.jpg"
        call_apart(draw, VGA[0] * VGA[1], small)
        for millions in megapixels:
            pixels = call_apart(draw, round(millions * 1e6), large)
            for model in models:
                for way in WAYS:
                    row = call_apart(measure, model, small, large, pixels, way)
                    rows[f"{Path(model).name}, {millions:g} megapixels, {way}"] = row
                    print(
                        f"| {Path(model).name} | {millions:g} | {way} | {row['peak'] / 1e6:.0f} | "
                        f"{row['peak'] / pixels:.1f} | {row['before'] / 1e6:.0f} |",
                        flush=True,
                    )
    return {"rows": rows}


def draw(pixels: int, path: Path) -> int:
    """Writes a JPEG file of coloured noise of few frequencies, from a seed; returns the number of its pixels."""
    width, height = (round((pixels * ratio) ** 0.5) for ratio in (4 / 3, 3 / 4))
    noise = np.random.default_rng(0).integers(0, 256, (15, 20, 3), np.uint8)
    images.save_image(cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC), path)
    return width * height


def measure(model: str, small: Path, large: Path, pixels: int, way: str) -> dict[str, int]:
    """Bytes that the process has before, and at most beyond them while it detects."""
    find = unitbox_tf.load(model, max_pixels=pixels)
    find = find.tiled() if WAYS[way] else find
    find(small)
    before, peak = peak_above(lambda: find(large))
    return {"before": before, "peak": peak}
