"""COCO's evaluation (Lin et al., ECCV 2014), computed by pycocotools, for the annotations of any reader.

`matching` gives the same average precision at one IoU threshold, in plain steps. This module gives the
metrics that papers print: averaged over thresholds, and by the size of objects.
"""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from unitbox_tf import optional
from unitbox_tf.records import Annotation, Detections

# In the order of COCOeval.stats: average precision at IoU 0.5 to 0.95, at 0.5 and at 0.75, and for
# objects with an area below 32^2 px, up to 96^2 px and above; then average recall with 1, 10 and
# 100 detections in each image, and by size.
FIGURES = (
    "ap",
    "ap50",
    "ap75",
    "ap_small",
    "ap_medium",
    "ap_large",
    "ar1",
    "ar10",
    "ar100",
    "ar_small",
    "ar_medium",
    "ar_large",
)


def evaluate(
    detections: Sequence[Detections], annotations: Sequence[Annotation]
) -> dict[str, float]:
    """The twelve metrics of COCO, by the names in `FIGURES`; NaN if there is no such object.

    The 100 best detections of an image count. Ignored objects are crowds in COCO's words. A detection
    counts neither way if the share of its area in a crowd is at least the IoU threshold. The size of an
    object is its area if the annotations state it, as COCO's do, and else the area of its box.

    Args:
        detections: one `Detections` for each annotation, in the same order.
        annotations: the truth.

    Raises:
        ValueError: the numbers of detections and annotations differ, or there is no annotation.
        ImportError: pycocotools is not installed.
    """
    if not annotations or len(detections) != len(annotations):
        raise ValueError(
            f"Expected annotations, and detections of as many images. Received: {len(annotations)} "
            f"annotations, detections of {len(detections)} images"
        )
    make = _pycocotools("coco").COCO
    truth, found = make(), make()
    labels = np.unique(np.concatenate([a.classes for a in annotations])).tolist()
    images = [{"id": number} for number in range(len(annotations))]
    categories = [{"id": label} for label in labels]
    with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does
        for target, rows in (
            (truth, _truth_rows(annotations)),
            (found, _found_rows(detections)),
        ):
            # Ids start at 1: COCOeval takes 0 for "not matched".
            numbered = [{**row, "id": number} for number, row in enumerate(rows, 1)]
            target.dataset = {"images": images, "categories": categories, "annotations": numbered}
            target.createIndex()
        run = _pycocotools("cocoeval").COCOeval(truth, found, "bbox")
        run.evaluate()
        run.accumulate()
        run.summarize()
    figures = np.where(run.stats < 0, np.nan, run.stats)
    return dict(zip(FIGURES, figures.tolist(), strict=True))


def _pycocotools(module: str) -> Any:
    return optional.load(f"pycocotools.{module}", "coco", "COCO's protocol")


def require() -> None:
    """Raises `ImportError`, which says what to install, if pycocotools is missing."""
    _pycocotools("cocoeval")


def _side(near: float, far: float) -> float:
    """`far - near`, rounded to the number that was read: 52.5, although 29.6 + 52.5 - 29.6 is an ulp less.

    Otherwise an overlap that equals a threshold exactly would be lost. Boxes with few decimals have such
    overlaps.
    """
    side = far - near
    short = round(side, 6)
    return short if abs(short - side) <= 4 * math.ulp(max(abs(near), abs(far))) else side


def _rows(number: int, item: Annotation | Detections) -> Iterator[dict[str, Any]]:
    boxes = np.asarray(item.boxes, np.float64)
    for (x0, y0, x1, y1), label in zip(boxes.tolist(), item.classes, strict=True):
        width, height = _side(x0, x1), _side(y0, y1)
        yield {
            "image_id": number,
            "category_id": int(label),
            "bbox": [x0, y0, width, height],
            "area": width * height,
        }


def _truth_rows(annotations: Sequence[Annotation]) -> Iterator[dict[str, Any]]:
    for number, annotation in enumerate(annotations):
        areas = annotation.object_areas.tolist()
        facts = zip(_rows(number, annotation), annotation.ignore, areas, strict=True)
        for row, ignore, area in facts:
            yield {**row, "iscrowd": int(ignore), "area": area}


def _found_rows(detections: Sequence[Detections]) -> Iterator[dict[str, Any]]:
    for number, item in enumerate(detections):
        for row, score in zip(_rows(number, item), item.scores, strict=True):
            yield {**row, "iscrowd": 0, "score": float(score)}
