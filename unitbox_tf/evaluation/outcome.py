"""The outcome of an evaluation: its facts and metrics as a table, as json, and in a folder."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unitbox_tf import files
from unitbox_tf.datasets import Source
from unitbox_tf.evaluation import matching, protocols, results
from unitbox_tf.evaluation.by_class import ByClass
from unitbox_tf.evaluation.results import Results
from unitbox_tf.problems import PROBLEMS_FILE, Problems
from unitbox_tf.records import Annotation, Detections, coco_rows

CONFUSION_FILE = "confusion_matrix.png"
WORST_AND_BEST = 12  # images that `Evaluation.save` draws, half of them the worst


@dataclasses.dataclass(frozen=True)
class Judged:
    """The outcome of one decoder, or of a file of detections.

    Attributes:
        annotations: the judged images.
        results: the objects found in these images.
        detections: the same as `Detections`; None if they are from a file. `results` keeps its numbers.
        report: the metrics, and a function that saves the curves.
    """

    annotations: Sequence[Annotation]
    results: Results
    detections: Sequence[Detections] | None
    report: protocols.Report


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """The outcome of `evaluate`.

    Attributes:
        facts: the conditions of the metrics: detector, protocol, annotations, images.
        judged: the outcome of each decoder by its name, or of a file of detections by the file's name.
        class_names: the names of the classes: the detector's; for detections from files, those of the
            annotations, and then those that only detections have; empty if nobody named them.
        sources: the sources of the annotations.
        problems: items that could not be used.
    """

    facts: dict[str, Any]
    judged: dict[str, Judged]
    class_names: tuple[str, ...]
    sources: tuple[Source, ...]
    problems: Problems

    @property
    def metrics(self) -> dict[str, dict[str, float]]:
        """The metrics by name, for each decoder. Undefined metrics are NaN."""
        return {label: row.report.metrics for label, row in self.judged.items()}

    @property
    def detections(self) -> dict[str, Sequence[Detections] | None]:
        """The objects that each decoder found in the images of `annotations`; None if they are from a file."""
        return {label: row.detections for label, row in self.judged.items()}

    @property
    def annotations(self) -> dict[str, Sequence[Annotation]]:
        """The judged images for each decoder. Unreadable images are left out."""
        return {label: row.annotations for label, row in self.judged.items()}

    @functools.cached_property
    def by_class(self) -> dict[str, ByClass]:
        """The best score threshold, the metrics of each class and the confusion matrix, for each decoder.

        Empty for protocols that know one class, `fddb` and `wider_face`.
        """
        made = {label: row.report.by_class for label, row in self.judged.items()}
        return {label: make(self.class_names) for label, make in made.items() if make is not None}

    def table(self) -> str:
        """The facts and the metrics in lines, for people."""
        parts = [*described(self.facts), "", table(self.metrics)]
        for label, found in self.by_class.items():
            parts += ["", *found.lines(label)]
        return "\n".join(parts)

    def to_dict(self) -> dict[str, Any]:
        """Facts, metrics and `by_class` as a dict for json. Undefined metrics are None."""
        metrics = {label: plain(row) for label, row in self.metrics.items()}
        by_class = {label: found.to_dict() for label, found in self.by_class.items()}
        return {**self.facts, "metrics": metrics, **({"by_class": by_class} if by_class else {})}

    def save(self, folder: str | Path) -> None:
        """Writes `results.json`, and for each decoder a folder with detections, curves, and drawn images.

        Raises:
            ValueError: the folder has files, as nothing is overwritten.
            OSError: something cannot be written.
        """
        folder = check_output(folder)
        folder.mkdir(parents=True, exist_ok=True)
        files.write(folder / "results.json", json.dumps(self.to_dict(), indent=1) + "\n")
        for label, row in self.judged.items():
            part = folder / label
            part.mkdir(exist_ok=True)
            _save_detections(row, self.sources, self.class_names, part / "detections.json")
            row.report.save(part, label)
            if label in self.by_class:
                draw_confusion(self.by_class[label], part / CONFUSION_FILE)
            if row.detections is not None and "model" in self.facts:  # it has read the images
                most = self.facts["model"]["max_pixels"]
                _draw_worst_and_best(row.detections, row.annotations, self.class_names, part, most)
        if self.problems.found:
            self.problems.save(folder / PROBLEMS_FILE)


def plain(metrics: Mapping[str, float]) -> dict[str, float | None]:
    """Metrics for json. Undefined ones are None."""
    return {name: value if math.isfinite(value) else None for name, value in metrics.items()}


def draw_confusion(found: ByClass, path: Path) -> None:
    """Draws the confusion matrix if there is one. Without matplotlib, a line in the log says how to get it."""
    if found.confusion is not None:
        protocols.draw(found.confusion.plot, path)


def check_output(folder: str | Path) -> Path:
    """The folder as a path. Raises `ValueError` if it has files."""
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder}: expected a new or empty folder, as nothing is overwritten")
    return folder


def described(facts: Mapping[str, Any]) -> Iterator[str]:
    """The facts of an evaluation in lines."""

    def line(title: str, text: str) -> str:
        return f"{title:>15}  {text}"

    annotations, images = facts["annotations"], facts["images"]
    options = "".join(f", {name} {value}" for name, value in facts["options"].items())
    yield line("detector", facts["detector"])
    yield line("protocol", f"{facts['protocol']}: {protocols.TITLES[facts['protocol']]}{options}")
    yield line(
        "annotations",
        f"{' '.join(annotations['sources']) or 'in memory'}: {counted(annotations['images'], 'image')}, "
        f"{counted(annotations['objects'], 'object')} and {annotations['ignored']} ignored, version "
        f"{annotations['digest']}",
    )
    unreadable = images.get("unreadable", 0)
    broken = f", {unreadable} of them cannot be read" if unreadable else ""
    yield line(
        "images",
        f"{images['present']} present{broken}, {images['absent']} absent; {_sizes(images)}"
        + (_shown_as(facts["model"]) if "model" in facts else ""),
    )
    if "detections" in facts:
        found = facts["detections"]
        without = found["images_without_result"]
        more = f"; of {counted(without, 'image')} there is no result" if without else ""
        yield line(
            "detections", f"{found['detections']} in {counted(found['images_with'], 'image')}{more}"
        )
    if (images["absent"] and annotations["images"] == images["present"]) or unreadable:
        yield line("", "judged on a part of the images: not to be compared with published metrics")


def _sizes(images: Mapping[str, Any]) -> str:
    if not images["widths"]:
        return "of unknown size"
    width, height = ("-".join(map(str, sorted({*images[side]}))) for side in ("widths", "heights"))
    return f"{width} x {height} px"


def _shown_as(model: Mapping[str, Any]) -> str:
    """The size at which the model is shown images, in words."""
    text = f", shown shrunk to fit {model['max_side']} px"
    if model["scales"] != [1.0]:
        text += f", at scales {' '.join(f'{scale:g}' for scale in model['scales'])} of that"
        if model["largest_object"]:
            text += f", objects up to {model['largest_object']:g} px but at the smallest"
    return text


def table(metrics: Mapping[str, Mapping[str, float]]) -> str:
    """The metrics of several detectors, with a line for each metric and a column for each detector."""
    names = list(next(iter(metrics.values())))
    width = max(map(len, names))
    columns = [max(len(label), 10) for label in metrics]
    titles = (label.rjust(column) for label, column in zip(metrics, columns, strict=True))
    lines = ["  ".join([" " * width, *titles])]
    for name in names:
        cells = (
            _shown(row[name]).rjust(column)
            for row, column in zip(metrics.values(), columns, strict=True)
        )
        lines.append("  ".join([name.ljust(width), *cells]))
    return "\n".join(lines)


def _shown(value: float) -> str:
    """A metric. A mean of nothing is undefined. The score that nothing reaches is infinite: there is none."""
    if isinstance(value, int):
        return str(value)
    return f"{value:.4f}" if math.isfinite(value) else "undefined" if math.isnan(value) else "none"


def counted(count: int, noun: str) -> str:
    """A number of things in words: 1 image, 2 images."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _save_detections(
    row: Judged, sources: Sequence[Source], class_names: Sequence[str], path: Path
) -> None:
    """Writes COCO's results, with the ids of the COCO json if that is the source of the annotations."""
    images: dict[str, Any] = {}
    ids = sources[0].ids() if len(sources) == 1 else None
    if ids is not None:
        images = ids.by_image
    categories = results.category_ids(sources, class_names) if class_names else None
    rows: list[dict[str, Any]] = []
    for index, annotation in enumerate(row.annotations):
        found, labels = row.results.rectangles(index), row.results.classes[index]
        image_id = images.get(annotation.name)
        rows += coco_rows(annotation.name, found, labels, image_id, categories, class_names)
    files.write(path, json.dumps(rows))


def _draw_worst_and_best(
    detections: Sequence[Detections],
    annotations: Sequence[Annotation],
    class_names: Sequence[str],
    folder: Path,
    max_pixels: int,
) -> None:
    """Draws the worst and the best images, and all their boxes once more without the images.

    The boxes may be published even if the images may not. Detections are those at 0.1 false positives in
    an image.
    """
    from unitbox_tf import images, visualize

    threshold = matching.match(detections, annotations).threshold_at(matching.FALSE_POSITIVES)
    detections = [found.above(threshold) for found in detections]
    order = worst_first(detections, annotations)
    half = min(WORST_AND_BEST // 2, len(order))
    chosen = [("worst", i, order[i]) for i in range(half)]
    chosen += [("best", i, order[-1 - i]) for i in range(min(half, len(order) - half))]
    blank = []
    for kind, rank, index in chosen:
        annotation, found = annotations[index], detections[index]
        image = images.decode_with_pillow(annotation.encoded(max_pixels), max_pixels)
        boxes = (annotation.boxes, annotation.ignore, found, class_names)
        picture = visualize.draw_truth(image, *boxes)
        images.save_image(picture, folder / f"{kind}-{rank + 1}.jpg")
        blank.append(visualize.draw_truth(np.full_like(image, 238), *boxes))
    if blank:
        tiles = visualize.tile(blank, WORST_AND_BEST // 2)
        images.save_image(tiles, folder / "boxes.png")


def worst_first(detections: Sequence[Detections], annotations: Sequence[Annotation]) -> list[int]:
    """Indices of images by the mean IoU of objects and detections. Missed objects and false detections count 0."""
    quality = []
    for found, annotation in zip(detections, annotations, strict=True):
        matches = matching.match([found], [annotation])
        wrong = int((~matches.hits).sum())
        count = matches.num_objects + wrong
        quality.append(float(matches.overlaps.sum()) / count if count else 1.0)
    return sorted(range(len(quality)), key=lambda index: quality[index])
