"""The best score threshold, the metrics of each class, and the confusion matrix: which class is taken for which.

pycocotools computes average precision and recall, and supervision the confusion matrix. Without one of these
libraries its figures are absent, and a line in the log says what to install.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unitbox_tf import optional
from unitbox_tf.evaluation import coco, matching
from unitbox_tf.records import Annotation, Detections

logger = logging.getLogger(__name__)

IOU_THRESHOLD = 0.5
BACKGROUND = "background"
MOST_PRINTED = 12  # classes of a confusion matrix that is printed; more do not fit a line
METRICS = ("ap", "ap50", "ap75", "ar100", "recall")  # by pycocotools, in the order of the table


@dataclasses.dataclass(frozen=True)
class Confusion:
    """How often an object of one class is found as each class.

    Attributes:
        matrix: int `[C + 1, C + 1]`. Rows are the annotated classes, columns the detected ones. The last row
            has detections that are no object, the last column objects that are not found.
        class_names: the name of each class, without the background.
        score_threshold: the lowest score of the counted detections.
        iou_threshold: an object and a detection may belong together from this IoU on.
    """

    matrix: np.ndarray
    class_names: tuple[str, ...]
    score_threshold: float
    iou_threshold: float = IOU_THRESHOLD

    def to_dict(self) -> dict[str, Any]:
        """The matrix and its conditions for json."""
        return {
            "score_threshold": self.score_threshold,
            "iou_threshold": self.iou_threshold,
            "classes": [*self.class_names, BACKGROUND],
            "matrix": self.matrix.tolist(),
        }

    def lines(self) -> Iterator[str]:
        """The matrix for people."""
        names = [*self.class_names, BACKGROUND]
        yield (
            f"confusion matrix at score {self.score_threshold:.9g} and IoU {self.iou_threshold:g}: annotated "
            "classes in rows, detected classes in columns"
        )
        if len(self.class_names) > MOST_PRINTED:
            yield f"  {len(self.class_names)} classes: see results.json and confusion_matrix.png of --output"
            return
        rows = [
            ["", *names],
            *([name, *row] for name, row in zip(names, self.matrix.tolist(), strict=True)),
        ]
        yield from _aligned(rows)

    def figure(self) -> Any:
        """A drawing of the matrix, as a matplotlib figure. Colours are shares of a row.

        Raises:
            ImportError: matplotlib is not installed.
        """
        figures = optional.load("matplotlib.figure", "plots", "drawing a confusion matrix")
        names = [*self.class_names, BACKGROUND]
        side = min(3 + 0.45 * len(names), 30)
        figure = figures.Figure(figsize=(side + 1, side), layout="constrained")
        axes = figure.subplots()
        shares = self.matrix / np.maximum(self.matrix.sum(axis=1, keepdims=True), 1)
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        places = range(len(names))
        axes.set_xticks(places, names, rotation=90)
        axes.set_yticks(places, names)
        axes.set(xlabel="detected", ylabel="annotated")
        axes.set_title(
            f"score {self.score_threshold:.9g}, IoU {self.iou_threshold:g}", fontsize="medium"
        )
        for (row, column), count in np.ndenumerate(self.matrix):
            if count:
                colour = "white" if shares[row, column] > 0.5 else "black"
                axes.text(
                    column,
                    row,
                    str(count),
                    ha="center",
                    va="center",
                    color=colour,
                    fontsize="small",
                )
        return figure

    def image(self) -> np.ndarray:
        """`figure` as an RGB image uint8 `[H, W, 3]`."""
        figure = self.figure()
        figure.set_dpi(80)
        agg = optional.load(
            "matplotlib.backends.backend_agg", "plots", "drawing a confusion matrix"
        )
        canvas = agg.FigureCanvasAgg(figure)
        canvas.draw()
        return np.array(canvas.buffer_rgba())[..., :3]

    def plot(self, path: Path) -> None:
        """Writes `figure` as an image. The suffix of the path gives the format."""
        self.figure().savefig(path, dpi=110)


@dataclasses.dataclass(frozen=True)
class ClassMetrics:
    """The metrics of one class.

    Attributes:
        name: the name of the class.
        objects: the number of its objects, without ignored ones.
        metrics: by pycocotools; see `coco.Judgement.by_class`. Empty without this library.
        best_f1: the best score threshold for this class alone; None if none of its objects is found.
    """

    name: str
    objects: int
    metrics: Mapping[str, float]
    best_f1: matching.Best | None

    def to_dict(self) -> dict[str, Any]:
        """The metrics for json. Undefined ones are None."""
        metrics = {
            name: value if math.isfinite(value) else None for name, value in self.metrics.items()
        }
        return {
            "name": self.name,
            "objects": self.objects,
            **metrics,
            "best_f1": _dict(self.best_f1),
        }


@dataclasses.dataclass(frozen=True)
class ByClass:
    """The findings of `judge`.

    Attributes:
        best_f1: the best score threshold for all classes together; None if no object is found.
        classes: the metrics of each class.
        confusion: the confusion matrix at the threshold of `best_f1`, or of all judged detections if no object
            is found; None without supervision.
    """

    best_f1: matching.Best | None
    classes: tuple[ClassMetrics, ...]
    confusion: Confusion | None

    def to_dict(self) -> dict[str, Any]:
        """All of it for json. A matrix that is absent is left out."""
        found = {
            "best_f1": _dict(self.best_f1),
            "classes": [each.to_dict() for each in self.classes],
        }
        return (
            found
            if self.confusion is None
            else {**found, "confusion_matrix": self.confusion.to_dict()}
        )

    def lines(self, label: str) -> Iterator[str]:
        """All of it for people. `label` names the detector. A single class has no lines of its own."""
        yield f"best F1 of {label} at IoU {IOU_THRESHOLD:g}: {described(self.best_f1)}"
        if len(self.classes) == 1:
            return
        metrics = [name for name in METRICS if name in self.classes[0].metrics]
        rows = [["", "objects", *metrics, "threshold", "f1", "precision", "recall"]]
        for each in self.classes:
            figures = [_shown(each.metrics[name]) for name in metrics]
            rows.append([each.name, str(each.objects), *figures, *_cells(each)])
        yield ""
        yield f"classes of {label}; the last four columns are at the best F1 of each class"
        yield from _aligned(rows)
        if self.confusion is not None:
            yield ""
            yield from self.confusion.lines()


def judge(
    detections: Sequence[Detections],
    annotations: Sequence[Annotation],
    matches: matching.Matches,
    class_names: Sequence[str],
    by_coco: Callable[[], coco.Judgement],
    min_size: float = 0.0,
) -> ByClass:
    """Judges each class.

    Args:
        detections: one `Detections` for each annotation, in the same order.
        annotations: the truth.
        matches: the detections matched with the truth at `IOU_THRESHOLD`.
        class_names: the known names of classes. Classes after them get the names `class0`, `class1` ... by
            their number.
        by_coco: computes the metrics of pycocotools.
        min_size: as in `matching.match`.
    """
    known = [*matches.objects, *matches.classes.tolist()]
    names = [
        *class_names,
        *(f"class{n}" for n in range(len(class_names), max(known, default=-1) + 1)),
    ]
    best, missing = matches.best_f1(), {}
    metrics: Mapping[int, Mapping[str, float]] = {}
    try:
        metrics = by_coco().by_class() if annotations else {}
    except ImportError:
        missing["pycocotools"] = "AP and recall of each class"
    undefined = dict.fromkeys(next(iter(metrics.values()), {}), math.nan)
    confusion = None
    try:
        threshold = best.threshold if best else float(matches.scores.min(initial=0))
        confusion = confuse(detections, annotations, names, threshold, min_size)
    except ImportError:
        missing["supervision"] = "the confusion matrix"
    if missing:
        _say_what_to_install(tuple(missing.items()))
    classes = tuple(
        ClassMetrics(
            name,
            matches.objects.get(label, 0),
            metrics.get(label, undefined),
            matches.of_class(label).best_f1(),
        )
        for label, name in enumerate(names)
    )
    return ByClass(best, classes, confusion)


EXTRAS = {"pycocotools": "coco", "supervision": "supervision"}


@functools.cache
def _say_what_to_install(missing: tuple[tuple[str, str], ...]) -> None:
    libraries = " and ".join(library for library, _ in missing)
    extras = ",".join(EXTRAS[library] for library, _ in missing)
    logger.info(
        "Without %s, these are left out: %s: pip install 'unitbox_tf[%s]'",
        libraries,
        ", ".join(figures for _, figures in missing),
        extras,
    )


def confuse(
    detections: Sequence[Detections],
    annotations: Sequence[Annotation],
    class_names: Sequence[str],
    score_threshold: float,
    min_size: float = 0.0,
) -> Confusion:
    """The confusion matrix, by supervision.

    Detections of at least the threshold count. Detections of ignored objects, by the rules of `matching`, are
    left out first. In an image, an object and a detection belong together at most once, and from IoU 0.5 on.
    Pairs of one class are made first, then pairs of different classes, each time in the order of falling IoU.

    Args:
        detections: one `Detections` for each annotation, in the same order.
        annotations: the truth.
        class_names: the name of each class.
        score_threshold: the lowest score of counted detections.
        min_size: as in `matching.match`.

    Raises:
        ImportError: supervision is not installed.
    """
    supervision = optional.load("supervision", "supervision", "a confusion matrix")
    found_rows, true_rows = [], []
    for every, annotation in zip(detections, annotations, strict=True):
        found = every.above(score_threshold)
        image = matching.match_image(
            found, annotation, iou_threshold=IOU_THRESHOLD, min_size=min_size
        )
        found = found.select(~image.on_ignored)
        found_rows.append(np.column_stack([found.boxes, found.classes, found.scores]))
        true_rows.append(np.column_stack([image.truth, annotation.classes])[~image.ignore])
    made = supervision.ConfusionMatrix.from_tensors(
        found_rows,
        true_rows,
        list(class_names),
        conf_threshold=-math.inf,  # the lower ones are left out above
        # It takes pairs above its threshold, and computes IoU in single precision.
        iou_threshold=float(np.nextafter(np.float32(IOU_THRESHOLD), np.float32(0))),
    )
    return Confusion(made.matrix, tuple(class_names), score_threshold)


def described(best: matching.Best | None) -> str:
    """A score threshold and what it gives, in words."""
    if best is None:
        return "none, as no object is found"
    return (
        f"{best.f1:.4f} at score {best.threshold:.9g}, with precision {best.precision:.4f} and recall "
        f"{best.recall:.4f}"
    )


def _dict(best: matching.Best | None) -> dict[str, float] | None:
    return None if best is None else dataclasses.asdict(best)


def _cells(found: ClassMetrics) -> list[str]:
    best = found.best_f1
    if best is None:
        return ["none" if found.objects else "-", "-", "-", "-"]
    return [f"{best.threshold:.9g}", *map(_shown, (best.f1, best.precision, best.recall))]


def _shown(value: float) -> str:
    return f"{value:.4f}" if math.isfinite(value) else "-"


def _aligned(rows: Sequence[Sequence[Any]]) -> Iterator[str]:
    """The rows of a table, with names at the left and numbers at the right."""
    widths = [max(len(str(cell)) for cell in column) for column in zip(*rows, strict=True)]
    for name, *cells in rows:
        texts = [str(cell).rjust(width) for cell, width in zip(cells, widths[1:], strict=True)]
        yield "  ".join(["", str(name).ljust(widths[0]), *texts])
