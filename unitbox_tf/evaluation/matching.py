"""Recall, precision, average precision and box quality, by greedy matching at one IoU threshold.

The rules are those of the COCO evaluation (Lin et al., ECCV 2014; pycocotools), and `average_precision`
agrees with it exactly. Within an image and a class, detections in the order of their scores take the free
object that they overlap most. A detection that overlaps only an ignored object counts neither way.
Precision is made monotone and averaged at 101 recalls.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from unitbox_tf import boxes as box_ops
from unitbox_tf import optional
from unitbox_tf.records import Annotation, Detections

RECALLS = np.linspace(0, 1, 101)


@dataclasses.dataclass(frozen=True)
class Curve:
    """Precision and recall of a detector at each threshold of its scores, the highest first; each `[T]`.

    Attributes:
        thresholds: the distinct scores.
        precision: share of the detections that found an object.
        recall: share of the objects found; NaN without objects.
        false_positives: mean number of false positives in an image.
    """

    thresholds: np.ndarray
    precision: np.ndarray
    recall: np.ndarray
    false_positives: np.ndarray

    @property
    def miss_rate(self) -> np.ndarray:
        """Share of the objects that are not found."""
        return 1 - self.recall


@dataclasses.dataclass(frozen=True)
class Best:
    """The score threshold with the best F1, and what it gives. See `Matches.best_f1`.

    Attributes:
        threshold: the score threshold.
        f1: the harmonic mean of precision and recall.
        precision: share of the detections that found an object.
        recall: share of the objects found.
    """

    threshold: float
    f1: float
    precision: float
    recall: float


@dataclasses.dataclass(frozen=True)
class Matches:
    """The detections of a set of images, best first, each with the object that it found.

    Attributes:
        scores: `[D]`, descending.
        hits: `[D]` bool, True if the detection found an object. Detections of ignored objects are left
            out.
        overlaps: `[D]` IoU with the object found; 0 if none was found.
        classes: `[D]`.
        objects: the number of objects of each class, without ignored ones.
        num_images: the number of images.
    """

    scores: np.ndarray
    hits: np.ndarray
    overlaps: np.ndarray
    classes: np.ndarray
    objects: Mapping[int, int]
    num_images: int

    @property
    def num_objects(self) -> int:
        """The number of objects of all classes, without ignored ones."""
        return sum(self.objects.values())

    def recall(self, score_threshold: float = 0.0) -> float:
        """Share of the objects found by detections with at least this score; NaN without objects."""
        found = int(self.hits[self.scores >= score_threshold].sum())
        return found / self.num_objects if self.num_objects else float("nan")

    def precision(self, score_threshold: float = 0.0) -> float:
        """Share of the detections with at least this score that found an object; NaN without detections."""
        hits = self.hits[self.scores >= score_threshold]
        return float(hits.mean()) if len(hits) else float("nan")

    def mean_iou(self, score_threshold: float = 0.0) -> float:
        """Mean IoU of objects and the detections that found them; NaN where nothing was found."""
        chosen = self.overlaps[self.hits & (self.scores >= score_threshold)]
        return float(chosen.mean()) if len(chosen) else float("nan")

    def threshold_at(self, false_positives_per_image: float) -> float:
        """The lowest score threshold with at most this mean number of false positives; infinite if there is none."""
        false_positives = np.cumsum(~self.hits)
        allowed = self._last_of_score & (
            false_positives <= false_positives_per_image * self.num_images
        )
        return float(self.scores[allowed].min()) if allowed.any() else float("inf")

    @property
    def _last_of_score(self) -> np.ndarray:
        """The last detection of each score, `[D]` bool: a threshold takes all detections of one score or none."""
        return np.append(self.scores[1:] != self.scores[:-1], True)[: len(self.scores)]

    def curve(self) -> Curve:
        """Precision, recall and false positives an image at each distinct score, classes taken together."""
        found, last = np.cumsum(self.hits), self._last_of_score
        taken = np.arange(1, len(found) + 1)
        recall = found / self.num_objects if self.num_objects else np.full(len(found), np.nan)
        false_positives = (taken - found) / max(self.num_images, 1)
        return Curve(self.scores[last], (found / taken)[last], recall[last], false_positives[last])

    def best_f1(self) -> Best | None:
        """The score threshold with the best F1; None if no detection found an object.

        With H detections that found an object among D detections of at least the threshold, and N objects,
        precision is H / D, recall is H / N and F1 is 2 H / (D + N). Classes are taken together. Detections of
        ignored objects count neither way. A threshold takes all detections of one score or none.

        The highest of equally good scores is chosen, which has the fewest false positives. All thresholds from
        this score down to above the next lower one take the same detections, so nothing is interpolated. The
        number with the fewest decimals between both scores is chosen, nearest to their middle: 0.6 between 0.57
        and 0.64. Without a lower score, the score itself is the threshold.
        """
        if not self.hits.any():
            return None
        last = self._last_of_score
        found = np.cumsum(self.hits)[last]
        taken = np.arange(1, len(self.scores) + 1)[last]
        f1 = 2 * found / (taken + self.num_objects)
        scores, best = (
            self.scores[last],
            int(np.argmax(f1)),
        )  # the first of equals has the highest score
        threshold = float(scores[best])
        if best + 1 < len(scores):
            threshold = _roundest(float(scores[best + 1]), threshold)
        hits = int(found[best])
        return Best(threshold, float(f1[best]), hits / int(taken[best]), hits / self.num_objects)

    def of_class(self, label: int) -> Matches:
        """The detections and objects of one class."""
        chosen = self.classes == label
        return dataclasses.replace(
            self,
            scores=self.scores[chosen],
            hits=self.hits[chosen],
            overlaps=self.overlaps[chosen],
            classes=self.classes[chosen],
            objects={label: self.objects.get(label, 0)},
        )

    def average_precision(self) -> float:
        """Area under the precision-recall curve, as COCO computes it: the mean over classes; NaN without objects."""
        present = [label for label, count in self.objects.items() if count]
        each = [_average_precision(self.hits[self.classes == c], self.objects[c]) for c in present]
        return float(np.mean(each)) if each else float("nan")


def _roundest(low: float, high: float) -> float:
    """The number with the fewest decimals between `low` and `high`, nearest to their middle; `high` if there is none.

    It is between them in single precision, too, in which detectors compare their scores.
    """
    for decimals in range(18):
        number = round((low + high) / 2, decimals)
        if low < number < high and np.float32(low) < np.float32(number) < np.float32(high):
            return number
    return high


def _average_precision(hits: np.ndarray, num_objects: int) -> float:
    found = np.cumsum(hits)
    recall = found / num_objects
    precision = found / np.arange(1, len(found) + 1)
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    index = np.searchsorted(recall, RECALLS, side="left")
    return float(np.append(precision, 0.0)[np.minimum(index, len(precision))].mean())


def match(
    detections: Sequence[Detections],
    annotations: Sequence[Annotation],
    *,
    iou_threshold: float = 0.5,
    min_size: float = 0.0,
) -> Matches:
    """Matches the detections of each image with its objects.

    Args:
        detections: one `Detections` for each annotation, in the same order.
        annotations: the truth. Its boxes are cut to the image first, as detections are.
        iou_threshold: an object counts as found from this IoU on.
        min_size: objects whose shorter side is less, in pixels, are ignored, and so are unmatched
            detections of that size.

    Raises:
        ValueError: the numbers of detections and annotations differ.
    """
    if len(detections) != len(annotations):
        raise ValueError(
            f"Expected detections of {len(annotations)} images. Received: {len(detections)}"
        )
    scores, hits, overlaps, classes = [np.zeros(0)], [np.zeros(0, bool)], [np.zeros(0)], []
    objects: Counter[int] = Counter()
    for found, annotation in zip(detections, annotations, strict=True):
        one = match_image(found, annotation, iou_threshold=iou_threshold, min_size=min_size)
        objects.update(annotation.classes[~one.ignore].tolist())
        counted = ~one.on_ignored
        scores.append(found.scores[counted])
        overlaps.append(one.overlaps[counted])
        hits.append(one.overlaps[counted] > 0)
        classes.append(found.classes[counted])
    all_scores = np.concatenate(scores)
    order = np.argsort(-all_scores, kind="stable")
    return Matches(
        all_scores[order],
        np.concatenate(hits)[order],
        np.concatenate(overlaps)[order],
        np.concatenate([np.zeros(0, int), *classes])[order],
        objects,
        len(annotations),
    )


class ImageMatches(NamedTuple):
    """The objects and detections of one image.

    Attributes:
        truth: `xyxy` `[N, 4]`, the boxes of the objects, cut to the image.
        ignore: `[N]` bool. True if the object is ignored.
        overlaps: `[K]` IoU of each detection with the object that it found; 0 if none was found.
        on_ignored: `[K]` bool. True if the detection counts neither way.
    """

    truth: np.ndarray
    ignore: np.ndarray
    overlaps: np.ndarray
    on_ignored: np.ndarray


def match_image(
    found: Detections,
    annotation: Annotation,
    *,
    iou_threshold: float = 0.5,
    min_size: float = 0.0,
) -> ImageMatches:
    """Matches the detections of one image with its objects. The options are those of `match`."""
    truth, ignore = cut_truth(annotation, found.image_size, min_size)
    overlaps, on_ignored = np.zeros(len(found)), np.zeros(len(found), bool)
    for label in np.unique(found.classes):
        chosen, wanted = np.flatnonzero(found.classes == label), annotation.classes == label
        chosen = chosen[np.argsort(-found.scores[chosen], kind="stable")]
        boxes = found.boxes[chosen]
        overlap, ignored = _match_class(boxes, truth[wanted], ignore[wanted], iou_threshold)
        ignored |= (overlap == 0) & (_shorter_side(boxes) < min_size)
        overlaps[chosen], on_ignored[chosen] = overlap, ignored
    return ImageMatches(truth, ignore, overlaps, on_ignored)


def cut_truth(
    annotation: Annotation, image_size: tuple[int, int], min_size: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """The boxes `xyxy` `[N, 4]` cut to the image, and `[N]` bool, True if an object is ignored; see `match`."""
    truth = box_ops.clip(annotation.boxes, *image_size)
    # The part of a box outside the image cannot be found.
    ignore = annotation.ignore | (_shorter_side(truth) < min_size) | (box_ops.areas(truth) <= 0)
    return truth, ignore


def _shorter_side(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, 2:] - boxes[:, :2]).min(axis=1)


def _match_class(
    boxes: np.ndarray, truth: np.ndarray, ignore: np.ndarray, iou_threshold: float
) -> tuple[np.ndarray, np.ndarray]:
    """For each detection, best first: IoU with the object found (else 0), and True if that object is ignored."""
    iou = box_ops.pairwise_iou(boxes, truth)
    free = np.ones(len(truth), bool)
    overlap, ignored = np.zeros(len(boxes)), np.zeros(len(boxes), bool)
    for i in range(len(boxes)):
        # Objects come before ignored ones, however much the detection overlaps those.
        for candidates in (free & ~ignore, free & ignore):
            best = int(np.argmax(np.where(candidates, iou[i], -1.0))) if len(truth) else -1
            if best >= 0 and candidates[best] and iou[i, best] >= iou_threshold:
                free[best] = False
                ignored[i] = ignore[best]
                overlap[i] = 0.0 if ignore[best] else iou[i, best]
                break
    return overlap, ignored


def plot(curves: Mapping[str, Curve], path: Path) -> None:
    """Draws precision over recall, and miss rate over false positives an image (Dollar et al., PAMI 2012).

    Args:
        curves: the curves of detectors, by name.
        path: the image file to write. Its suffix gives the format.

    Raises:
        ImportError: matplotlib is not installed.
    """
    figures = optional.load("matplotlib.figure", "plots", "drawing curves")
    figure = figures.Figure(figsize=(11, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name, curve in curves.items():
        left.step(curve.recall, curve.precision, where="post", label=name)
        # The axis is logarithmic: points without a false positive stand at its left edge.
        false_positives = np.maximum(curve.false_positives, FEWEST_DRAWN)
        right.step(false_positives, curve.miss_rate, where="post", label=name)
    left.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.01))
    right.set(xlabel="false positives an image", ylabel="miss rate", xscale="log", ylim=(0, 1.01))
    right.set_xlim(left=FEWEST_DRAWN)
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    figure.savefig(path, dpi=110)


FEWEST_DRAWN = 1e-3  # false positives an image, the left edge of `plot`
FALSE_POSITIVES = 0.1  # an image, at which `summarize` states recall and box quality
EVALUATED_SCORE = 0.05  # lowest score of judged detections: curves need low scores


def summarize(
    detections: Sequence[Detections], annotations: Sequence[Annotation], min_size: float = 0.0
) -> dict[str, float]:
    """The metrics of the protocol `summary`. The arguments are those of `match`.

    Returns:
        `images` and `objects`, their numbers. `threshold`, the lowest score with at most 0.1 false
        positives in an image on average. At this threshold: `recall` at IoU 0.5, `mean_iou` of objects and
        the detections that found them, and `false_positives` in an image. `ap50` and `ap75`, average
        precision at IoU 0.5 and 0.75.
    """
    at50 = match(detections, annotations, iou_threshold=0.5, min_size=min_size)
    at75 = match(detections, annotations, iou_threshold=0.75, min_size=min_size)
    threshold = at50.threshold_at(FALSE_POSITIVES)
    wrong = int((~at50.hits[at50.scores >= threshold]).sum())
    return {
        "images": at50.num_images,
        "objects": at50.num_objects,
        "threshold": threshold,
        "recall": at50.recall(threshold),
        "false_positives": wrong / max(at50.num_images, 1),
        "mean_iou": at50.mean_iou(threshold),
        "ap50": at50.average_precision(),
        "ap75": at75.average_precision(),
    }
