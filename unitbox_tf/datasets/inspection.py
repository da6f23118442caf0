"""Counts what is in data sets: images, objects, classes, sizes."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from unitbox_tf import boxes as box_ops
from unitbox_tf import images
from unitbox_tf.datasets import source as sources
from unitbox_tf.problems import Problems
from unitbox_tf.progress import Progress
from unitbox_tf.records import Annotation

QUARTILES = ("minimum", "first quartile", "median", "third quartile", "maximum")


class Quartiles(NamedTuple):
    """The smallest and the largest of some numbers, and the three that divide them into quarters."""

    minimum: float
    first: float
    median: float
    third: float
    maximum: float

    @classmethod
    def of(cls, values: np.ndarray) -> Quartiles | None:
        """Of `values` `[N]`; None if there are none."""
        if not len(values):
            return None
        return cls(*np.percentile(values, [0, 25, 50, 75, 100]).tolist())


@dataclasses.dataclass(frozen=True)
class Summary:
    """What is in one source, or in several.

    Attributes:
        name: the source as it is written.
        images: images that are present.
        without_objects: images in which no object is to be found: ignored ones do not count.
        objects: objects to be found.
        ignored: objects that are neither objects nor background.
        classes: how many objects of each class are to be found, by the class's name.
        widths: of the images, in pixels; None if there is no image of known size.
        heights: likewise.
        long_sides: the longer side of each object to be found, in pixels; None without objects.
    """

    name: str
    images: int
    without_objects: int
    objects: int
    ignored: int
    classes: dict[str, int]
    widths: Quartiles | None
    heights: Quartiles | None
    long_sides: Quartiles | None


@dataclasses.dataclass(frozen=True)
class Inspection:
    """What `inspect` found.

    Attributes:
        sources: a summary of each.
        total: a summary of all of them.
        problems: what could not be used.
    """

    sources: tuple[Summary, ...]
    total: Summary
    problems: Problems

    def table(self) -> str:
        """All of it in lines, a source a column, for people."""
        columns = [*self.sources, self.total] if len(self.sources) > 1 else [*self.sources]
        classes = list(self.total.classes)
        rows: list[list[str]] = [
            ["", *(column.name for column in columns)],
            ["images", *(str(column.images) for column in columns)],
            ["  without objects", *(str(column.without_objects) for column in columns)],
            ["  width", *(_range(column.widths) for column in columns)],
            ["  height", *(_range(column.heights) for column in columns)],
            ["objects", *(str(column.objects) for column in columns)],
            *([f"  {name}", *(str(c.classes.get(name, 0)) for c in columns)] for name in classes),
            ["  longer side", *(_range(column.long_sides) for column in columns)],
            ["ignored objects", *(str(column.ignored) for column in columns)],
        ]
        widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
        lines = [
            "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])])
            for row in rows
        ]
        lines += ["", f"Sizes are in pixels: {', '.join(QUARTILES)}."]
        lines += [f"{count} x {kind}" for kind, count in self.problems.counts.items()]
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """All of it as json can hold it."""
        return {
            "sources": [_plain(summary) for summary in self.sources],
            "total": _plain(self.total),
            "problems": dict(self.problems.counts),
        }


class _Counted(NamedTuple):
    """What summaries are made of; those of several sources can be joined."""

    objects: np.ndarray  # how many are to be found in each image
    ignored: int
    classes: Counter[str]
    sizes: np.ndarray  # heights and widths `[N, 2]` of the images of known size
    long_sides: np.ndarray


def inspect(
    *sources_: str | sources.Source, data: str | Path = ".", problems: Problems | None = None
) -> Inspection:
    """Counts images and objects, and measures them.

    Args:
        sources_: each written `FORMAT:PATH#SPLIT`, or opened.
        data: the folder that relative paths start from.
        problems: what cannot be used is added here.

    Raises:
        ValueError: there is no source, one is not of that form, or nothing can be read at all.
    """
    problems = Problems.of(problems)
    opened = sources.open_all(sources_, data)
    if not opened:
        raise ValueError("Expected at least one source as FORMAT:PATH#SPLIT. Received none")
    counted = [_count(source, problems) for source in opened]
    joined = _Counted(
        np.concatenate([each.objects for each in counted]),
        sum(each.ignored for each in counted),
        sum((each.classes for each in counted), Counter()),
        np.concatenate([each.sizes for each in counted]),
        np.concatenate([each.long_sides for each in counted]),
    )
    each = [_summary(s.text, c) for s, c in zip(opened, counted, strict=True)]
    return Inspection(tuple(each), _summary("total", joined), problems)


def _count(source: sources.Source, problems: Problems) -> _Counted:
    annotations = source.annotations(problems=problems)
    names = sources.names_of_classes(source, annotations)
    classes: Counter[str] = Counter()
    sides, sizes = [np.zeros(0)], []
    for annotation in Progress(annotations, f"measuring {source.text}", len(annotations)):
        found = annotation.select(~annotation.ignore)
        classes.update(names[label] for label in found.classes.tolist())
        sides.append(box_ops.long_sides(found.boxes))
        size = _size(annotation, problems)
        if size is not None:
            sizes.append(size)
    counts = np.array([int((~a.ignore).sum()) for a in annotations], int)
    ignored = sum(int(a.ignore.sum()) for a in annotations)
    ordered = Counter({name: classes[name] for name in names})
    table = np.array(sizes, np.float64).reshape(-1, 2)
    return _Counted(counts, ignored, ordered, table, np.concatenate(sides))


def _size(annotation: Annotation, problems: Problems) -> tuple[int, int] | None:
    """Height and width as stated, else as in the header of the image."""
    if annotation.size is not None:
        return annotation.size
    try:
        return images.photo_size(annotation.image)
    except (OSError, ValueError) as error:
        problems.add("image of unknown size", annotation.where, str(error))
        return None


def _summary(name: str, counted: _Counted) -> Summary:
    return Summary(
        name=name,
        images=len(counted.objects),
        without_objects=int((counted.objects == 0).sum()),
        objects=int(counted.objects.sum()),
        ignored=counted.ignored,
        classes=dict(counted.classes),
        widths=Quartiles.of(counted.sizes[:, 1]),
        heights=Quartiles.of(counted.sizes[:, 0]),
        long_sides=Quartiles.of(counted.long_sides),
    )


def _range(quartiles: Quartiles | None) -> str:
    return " ".join(f"{value:.0f}" for value in quartiles) if quartiles else "-"


def _plain(summary: Summary) -> dict[str, Any]:
    fields: Sequence[str] = [field.name for field in dataclasses.fields(Summary)]
    values = {name: getattr(summary, name) for name in fields}
    return {
        name: value._asdict() if isinstance(value, Quartiles) else value
        for name, value in values.items()
    }
