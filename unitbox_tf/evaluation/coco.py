"""COCO's evaluation (Lin et al., ECCV 2014), computed by pycocotools, for the annotations of any reader.

`matching` gives the same average precision at one IoU threshold, in plain steps. This module gives the
metrics that papers print: averaged over thresholds, and by the size of objects.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from unitbox_tf import optional
from unitbox_tf.evaluation import matching
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


LARGEST_AREA = 1e10  # px, as in pycocotools


def evaluate(
    detections: Sequence[Detections], annotations: Sequence[Annotation]
) -> dict[str, float]:
    """The twelve metrics of COCO, by the names in `FIGURES`. Arguments and errors are those of `judge`."""
    return judge(detections, annotations).figures


class Judgement:
    """A finished run of pycocotools."""

    def __init__(self, run: Any) -> None:
        """`run` is a COCOeval that has accumulated."""
        self._run = run

    @functools.cached_property
    def figures(self) -> dict[str, float]:
        """The twelve metrics of COCO, by the names in `FIGURES`; NaN if there is no such object."""
        with contextlib.redirect_stdout(io.StringIO()):
            self._run.summarize()
        return dict(zip(FIGURES, _defined(self._run.stats).tolist(), strict=True))

    def by_class(self) -> dict[int, dict[str, float]]:
        """The metrics of each class, whose mean over classes is the metric of all; NaN without objects.

        Returns:
            For each class of an annotated object: `ap50`, `ap75`, and `recall`, the share of the objects
            that all judged detections find at IoU 0.5. If COCO's ten thresholds were judged, also `ap` and
            `ar100`, their means over the thresholds.
        """
        params = self._run.params
        at = {round(float(iou), 2): index for index, iou in enumerate(params.iouThrs)}
        # Objects of all sizes, and the largest number of detections.
        precision = _defined(self._run.eval["precision"][:, :, :, 0, -1]).mean(axis=1)  # [T, K]
        recall = _defined(self._run.eval["recall"][:, :, 0, -1])
        rows: dict[str, np.ndarray] = {}
        if len(at) > 2:
            rows |= {"ap": precision.mean(axis=0), "ar100": recall.mean(axis=0)}
        rows |= {"ap50": precision[at[0.5]], "ap75": precision[at[0.75]], "recall": recall[at[0.5]]}
        return {
            label: {name: float(values[index]) for name, values in rows.items()}
            for index, label in enumerate(params.catIds)
        }


def _defined(figures: np.ndarray) -> np.ndarray:
    """The figures with NaN where pycocotools has -1."""
    return np.where(figures < 0, np.nan, figures)


def judge(detections: Sequence[Detections], annotations: Sequence[Annotation]) -> Judgement:
    """COCO's evaluation.

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
    return _judge(detections, annotations, _truth_rows(annotations), _found_rows(detections))


def judge_as_matching(
    detections: Sequence[Detections], annotations: Sequence[Annotation], min_size: float = 0.0
) -> Judgement:
    """The evaluation by pycocotools at IoU 0.5 and 0.75, by the rules of `matching`.

    An ignored object takes one detection, as an object does, instead of all detections that lie in it.
    All detections of an image count. Arguments and errors are those of `judge` and of `matching.match`.
    """
    truth = _rows_as_matching(annotations, detections, min_size)
    # An area is a shorter side here, so that pycocotools ignores what is outside its range of areas.
    found = ({**row, "area": min(row["bbox"][2:])} for row in _found_rows(detections))
    most = max([1, *map(len, detections)])
    settings = {
        "iouThrs": np.array([0.5, 0.75]),
        "areaRng": [[min_size, LARGEST_AREA]],
        "areaRngLbl": ["all"],
        "maxDets": [most],
    }
    return _judge(detections, annotations, truth, found, **settings)


def _rows_as_matching(
    annotations: Sequence[Annotation], detections: Sequence[Detections], min_size: float
) -> Iterator[dict[str, Any]]:
    for number, (annotation, found) in enumerate(zip(annotations, detections, strict=True)):
        truth, ignore = matching.cut_truth(annotation, found.image_size, min_size)
        cut = dataclasses.replace(annotation, boxes=truth)
        for row, ignored in zip(_rows(number, cut), ignore, strict=True):
            yield {**row, "iscrowd": 0, "area": -1.0 if ignored else min(row["bbox"][2:])}


def _judge(
    detections: Sequence[Detections],
    annotations: Sequence[Annotation],
    truth_rows: Iterable[dict[str, Any]],
    found_rows: Iterable[dict[str, Any]],
    **settings: Any,
) -> Judgement:
    """Runs pycocotools. `settings` are fields of its parameters."""
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
        for target, rows in ((truth, truth_rows), (found, found_rows)):
            # Ids start at 1: COCOeval takes 0 for "not matched".
            numbered = [{**row, "id": number} for number, row in enumerate(rows, 1)]
            target.dataset = {"images": images, "categories": categories, "annotations": numbered}
            target.createIndex()
        run = _pycocotools("cocoeval").COCOeval(truth, found, "bbox")
        for name, value in settings.items():
            setattr(run.params, name, value)
        run.evaluate()
        run.accumulate()
    return Judgement(run)


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
