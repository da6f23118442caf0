"""A table of boxes as CSV: `image,x0,y0,x1,y1,class`, and `ignore` (0 or 1) if there is such a column.

    boxes.csv                     image,x0,y0,x1,y1,class,ignore
    labels.txt                    a.jpg,10,20,40.5,60,cat,0
    images/a.jpg ...              b.jpg,,,,,,

A row is a box, its edges in pixels; one with nothing but `image` says that the photo has no object.
Photos are in `images`, or else beside the table. `labels.txt`, where it is present, has the names
of the classes, one a line, in their order; else that is the alphabet's.
"""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from unitbox_tf.datasets import checks, writing
from unitbox_tf.problems import Problems
from unitbox_tf.records import Annotation

COLUMNS = ["image", "x0", "y0", "x1", "y1", "class"]
IGNORE = {"": False, "0": False, "1": True}


def class_names(root: Path, split: str) -> tuple[str, ...]:
    """The names in `labels.txt`, or those in the table in the order of the alphabet."""
    path = checks.file_of(root, split, ".csv")
    return checks.listed_class_names(path.parent) or _sorted_names(_rows(path, Problems()))


def _sorted_names(rows: Iterable[tuple[int, list[str]]]) -> tuple[str, ...]:
    return tuple(sorted({row[5].strip() for _, row in rows} - {""}))


def read(
    root: Path, split: str, problems: Problems, *, photos: bool = True
) -> Iterator[Annotation]:
    """The photos of the table `root`, or of `split.csv` or the only table in `root`.

    With `photos`, only those that are present. The rows of a photo need not be neighbours.
    """
    path = checks.file_of(root, split, ".csv")
    table = list(_rows(path, problems))
    names = checks.listed_class_names(path.parent) or _sorted_names(table)
    labels = {name: index for index, name in enumerate(names)}
    by_photo: dict[str, list[tuple[int, list[str]]]] = {}
    for line, row in table:
        by_photo.setdefault(os.path.normpath(row[0]) if row[0] else "", []).append((line, row))
    beside = path.parent
    folder = beside / "images" if (beside / "images").is_dir() else beside
    found = checks.Photos(folder, problems, needed=photos)
    for rows in by_photo.values():
        first, name = rows[0][0], rows[0][1][0]
        boxes, classes, ignore, places = [], [], [], []
        for line, row in rows:
            where = f"{path}:{line}"
            if any(cell.strip() for cell in row[1:]):
                values = _box(row, labels, where, problems)
                if values is not None:
                    boxes.append(values)
                    classes.append(labels[row[5].strip()])
                    ignore.append(IGNORE[row[6].strip()])
                    places.append(where)
        ignored = checks.ignored(np.array(boxes), ignore, places, None, problems)
        photo = found.find(name, f"{path}:{first}")
        if photo is not None:
            yield Annotation(name, photo, np.array(boxes), np.array(classes), ignored)


def _rows(path: Path, problems: Problems) -> Iterator[tuple[int, list[str]]]:
    """Numbers of lines and rows of seven cells. Lines that are no such row are problems.

    Raises `ValueError` if the header is another.
    """
    has_ignore = False
    for number, line in enumerate(checks.lines(path, problems), 1):
        try:
            # Line by line: a quote that is not closed would swallow the rest of the table.
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
    problems: Problems,
    *,
    photos: writing.PhotosAs = "copy",
) -> writing.Written:
    """Writes `annotations` as `split.csv` (`boxes.csv` if empty), `labels.txt` and `images/`."""
    stem = writing.usable_split(split or "boxes")
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow([*COLUMNS, "ignore"])
    holds = ("ignore", "classes")
    with writing.destination(root, class_names, problems, holds=holds, photos=photos) as out:
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
