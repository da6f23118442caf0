"""A table of boxes as CSV: `image,x0,y0,x1,y1,class`, and `ignore` (0 or 1) if there is such a column.

    boxes.csv                     image,x0,y0,x1,y1,class,ignore
    labels.txt                    a.jpg,10,20,40.5,60,cat,0
    images/a.jpg ...              b.jpg,,,,,,

Each row is a box, with its edges in pixels. A row with nothing but `image` is an image without
objects. Images are in `images`, or else beside the table. `labels.txt` names the classes in their
order, one a line. Without this file, the classes are in alphabetical order.
"""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from unitbox_tf.datasets import checks, writing
from unitbox_tf.datasets.base import DataSet, Format
from unitbox_tf.problems import Problems
from unitbox_tf.records import Annotation

COLUMNS = ["image", "x0", "y0", "x1", "y1", "class"]
IGNORE = {"": False, "0": False, "1": True}


class _Image(NamedTuple):
    """The rows of an image: its name, the line of the first row, and the usable objects with their lines."""

    name: str
    first: int
    boxes: np.ndarray
    classes: np.ndarray
    ignore: np.ndarray
    lines: np.ndarray


class Table(DataSet):
    """The table `root`, or `split.csv` in the folder `root`, or the only table there."""

    def __init__(self, root: Path, split: str) -> None:
        """Parses the table. Raises `ValueError` if its header is not the expected one."""
        self._path = checks.file_of(root, split, ".csv")
        self._problems = Problems(logged=False)  # found while parsing
        rows = list(_rows(self._path, self._problems))
        listed = checks.listed_class_names(self._path.parent)
        self._class_names = listed or tuple(sorted({row[5].strip() for _, row in rows} - {""}))
        self._images = self._read(rows)

    def class_names(self) -> tuple[str, ...]:
        """The names in `labels.txt`; without it, the names in the table, in alphabetical order."""
        return self._class_names

    def annotations(
        self, *, photos: bool = True, problems: Problems | None = None
    ) -> Iterator[Annotation]:
        """The images in the order in which the table first names them."""
        problems = Problems.of(problems)
        problems.add_all(self._problems.found)
        beside = self._path.parent
        folder = beside / "images" if (beside / "images").is_dir() else beside
        found = checks.Photos(folder, needed=photos, problems=problems)
        for name, first, boxes, classes, ignore, lines in self._images:
            places = [f"{self._path}:{line}" for line in lines.tolist()]
            ignored = checks.ignored(boxes, ignore, places, None, problems=problems)
            photo = found.find(name, f"{self._path}:{first}")
            if photo is not None:
                yield Annotation(name, photo, boxes, classes, ignored)

    def _read(self, rows: list[tuple[int, list[str]]]) -> list[_Image]:
        """The images. The rows of an image need not be neighbours."""
        labels = {name: index for index, name in enumerate(self._class_names)}
        by_image: dict[str, list[tuple[int, list[str]]]] = {}
        for line, row in rows:
            by_image.setdefault(os.path.normpath(row[0]) if row[0] else "", []).append((line, row))
        images = []
        for own in by_image.values():
            first, name = own[0][0], own[0][1][0]
            boxes, classes, ignore, lines = [], [], [], []
            for line, row in own:
                if any(cell.strip() for cell in row[1:]):
                    values = _box(row, labels, f"{self._path}:{line}", self._problems)
                    if values is not None:
                        boxes.append(values)
                        classes.append(labels[row[5].strip()])
                        ignore.append(IGNORE[row[6].strip()])
                        lines.append(line)
            columns = (
                np.array(boxes, np.float64).reshape(-1, 4),
                np.array(classes, np.int32),
                np.array(ignore, np.bool_),
                np.array(lines, np.int64),
            )
            images.append(_Image(name, first, *columns))
        return images


def _rows(path: Path, problems: Problems) -> Iterator[tuple[int, list[str]]]:
    """Line numbers, and rows of seven cells. Other lines are problems.

    Raises `ValueError` if the header is not the expected one.
    """
    has_ignore = False
    for number, line in enumerate(checks.lines(path, problems=problems), 1):
        try:
            # Line by line, because a quote that is not closed would swallow the rest of the table.
            row = next(csv.reader([line], strict=True), [])
        except csv.Error as error:
            problems.add(checks.MALFORMED, f"{path}:{number}", f"{error}: {line[:200]!r}")
            continue
        if number == 1:
            header = [cell.strip() for cell in row]
            if header not in (COLUMNS, [*COLUMNS, "ignore"]):
                raise ValueError(
                    f"{path}:1: expected the header {','.join(COLUMNS)}[,ignore], received {line!r:.200}"
                )
            has_ignore = len(header) == 7
        elif len(row) != 6 + has_ignore and row:
            message = f"expected {6 + has_ignore} cells, received {len(row)}: {line[:200]!r}"
            problems.add(checks.MALFORMED, f"{path}:{number}", message)
        elif row:
            yield number, [*row, ""][:7]


def _box(
    row: list[str], labels: dict[str, int], where: str, problems: Problems
) -> list[float] | None:
    try:
        values = [float(cell) for cell in row[1:5] if "_" not in cell]
    except ValueError:
        values = []
    if len(values) != 4 or not all(map(math.isfinite, values)):
        problems.add(checks.MALFORMED, where, f"expected 4 numbers, received {row[1:5]}")
    elif row[6].strip() not in IGNORE:
        problems.add(checks.MALFORMED, where, f"expected an ignore of 0 or 1, received {row[6]!r}")
    elif row[5].strip() not in labels:
        message = f"expected a class of {list(labels)[:20]}, received {row[5]!r}"
        problems.add("unknown class", where, message)
    else:
        return values
    return None


def write(
    annotations: Iterable[Annotation],
    root: Path,
    split: str,
    class_names: Sequence[str],
    *,
    photos: writing.PhotosAs = "copy",
    problems: Problems | None = None,
) -> writing.Written:
    """Writes `annotations` as `split.csv` (`boxes.csv` if empty), `labels.txt` and `images/`."""
    stem = writing.usable_split(split or "boxes")
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow([*COLUMNS, "ignore"])
    holds = ("ignore", "classes")
    with writing.destination(
        root, class_names, holds=holds, photos=photos, problems=problems
    ) as out:
        for annotation in map(out.held, annotations):
            name = out.photo(annotation, "images")
            if name is None:
                continue
            out.count(annotation)
            rows = (annotation.boxes.tolist(), annotation.classes, annotation.ignore)
            for box, label, ignore in zip(*rows, strict=True):
                cells = map(writing.number, box)
                table.writerow([name, *cells, out.class_names[label], int(ignore)])
            if not len(annotation.boxes):
                table.writerow([name, *[""] * 6])
        out.write(f"{stem}.csv", text.getvalue())
        out.write_labels()
    return out.written


FORMAT = Format(Table, write)
