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
from unitbox_tf.datasets.classes import Rename
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
        """The quartiles of `values` `[N]`; None if there are no values."""
        if not len(values):
            return None
        return cls(*np.percentile(values, [0, 25, 50, 75, 100]).tolist())


@dataclasses.dataclass(frozen=True)
class Summary:
    """The contents of one source, or of several together.

    Attributes:
        name: the source as it is written.
        images: number of images that are present.
        without_objects: number of images without objects; ignored objects do not count.
        objects: number of objects that are not ignored.
        ignored: number of ignored objects.
        classes: number of objects of each class, by the class's name; ignored objects do not count.
        widths: widths of the images, in pixels; None if no image has a known size.
        heights: heights of the images, in pixels; None if no image has a known size.
        long_sides: the longer side of each object, in pixels; None without objects.
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
    """The outcome of `inspect`.

    Attributes:
        sources: a summary of each source.
        total: a summary of all sources.
        problems: items that could not be used.
    """

    sources: tuple[Summary, ...]
    total: Summary
    problems: Problems

    def table(self) -> str:
        """The counts in lines, with a column for each source, for people."""
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
        """The same facts as a dict for json."""
        return {
            "sources": [_plain(summary) for summary in self.sources],
            "total": _plain(self.total),
            "problems": dict(self.problems.counts),
        }


class _Counted(NamedTuple):
    """The numbers that a summary is made of. The numbers of several sources can be joined."""

    objects: np.ndarray  # how many are to be found in each image
    ignored: int
    classes: Counter[str]
    sizes: np.ndarray  # heights and widths `[N, 2]` of the images of known size
    long_sides: np.ndarray


def inspect(
    *sources_: str | sources.Source,
    classes: Sequence[str] | None = None,
    rename: Rename | None = None,
    data: str | Path = ".",
    problems: Problems | None = None,
) -> Inspection:
    """Counts images and objects, and measures them.

    Args:
        sources_: texts `FORMAT:PATH#SPLIT`, or opened sources.
        classes: only objects of these classes are counted; None counts all.
        rename: new names of classes: texts `old=new`, or a mapping.
        data: the folder that relative paths start from.
        problems: unusable items are added here.

    Raises:
        ValueError: there is no source, one is not of that form, nothing can be read at all, or no source has
            a class of `classes` or `rename`.
    """
    problems = Problems.of(problems)
    opened = sources.open_all(sources_, data, rename=rename)
    if not opened:
        raise ValueError("Expected at least one source as FORMAT:PATH#SPLIT. Received none")
    sources.check_choice(opened, classes)
    counted = [_count(source, classes, problems) for source in opened]
    joined = _Counted(
        np.concatenate([each.objects for each in counted]),
        sum(each.ignored for each in counted),
        sum((each.classes for each in counted), Counter()),
        np.concatenate([each.sizes for each in counted]),
        np.concatenate([each.long_sides for each in counted]),
    )
    each = [_summary(s.text, c) for s, c in zip(opened, counted, strict=True)]
    return Inspection(tuple(each), _summary("total", joined), problems)


def _count(source: sources.Source, chosen: Sequence[str] | None, problems: Problems) -> _Counted:
    annotations, names = sources.load_named(source, chosen, problems=problems)
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
    """Height and width as stated; if they are not, as in the header of the image."""
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
