"""The metrics of one detector: average precision, recall, and recall by the size of faces."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import Any

from unitbox_tf import boxes as box_ops
from unitbox_tf.evaluation import matching
from unitbox_tf.records import Annotation, Detections

SIZES = (24.0, 32.0, 48.0, 96.0)  # shorter sides at which recall by size is divided; px


def judge(
    detections: Sequence[Detections], annotations: Sequence[Annotation], min_size: float
) -> tuple[matching.Curve, dict[str, Any]]:
    """The curve at IoU 0.5; the metrics of `matching.summarize`, and `recall_by_size` at its threshold."""
    figures: dict[str, Any] = {**matching.summarize(detections, annotations, min_size)}
    edges = [min_size, *(edge for edge in SIZES if edge > min_size), math.inf]
    figures["recall_by_size"] = recall_by_size(detections, annotations, edges, figures["threshold"])
    return matching.match(detections, annotations, min_size=min_size).curve(), figures


def recall_by_size(
    detections: Sequence[Detections],
    annotations: Sequence[Annotation],
    edges: Sequence[float],
    threshold: float,
) -> dict[str, dict[str, float]]:
    """Recall at IoU 0.5 of objects by their shorter side, from each of `edges` to below the next, in pixels.

    Objects of other sizes are ignored, as COCO does with its areas. Where faces of two sizes compete
    for one box, the sum over sizes may so be one more than what was found of all.

    Returns:
        by size, such as `16-24` or `96+`: `objects`, and their `recall` by detections with at least
        the score `threshold`.
    """
    found: dict[str, dict[str, float]] = {}
    for low, high in itertools.pairwise(edges):
        chosen = []
        for result, annotation in zip(detections, annotations, strict=True):
            boxes = box_ops.clip(annotation.boxes, *result.image_size)  # as `match` does
            side = (boxes[:, 2:] - boxes[:, :2]).min(axis=1)
            outside = (side < low) | (side >= high)
            chosen.append(dataclasses.replace(annotation, ignore=annotation.ignore | outside))
        matches = matching.match(detections, chosen)
        name = f"{low:g}+" if high == math.inf else f"{low:g}-{high:g}"
        found[name] = {"objects": matches.num_objects, "recall": matches.recall(threshold)}
    return found
