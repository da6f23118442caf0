"""A table of boxes as CSV: `image,x0,y0,x1,y1,class`, and `ignore` (0 or 1) if there is such a column.

    boxes.csv                     image,x0,y0,x1,y1,class,ignore
    labels.txt                    a.jpg,10,20,40.5,60,cat,0
    images/a.jpg ...              b.jpg,,,,,,

Each row is a box, with its edges in pixels. A row with nothing but `image` is an image without
objects. Images are in `images`, or else beside the table. `labels.txt` names the classes in their
order, one a line. Without this file, the classes are in alphabetical order.

Columns may have another order, and the names that other tools give them (`HEADERS`). Other columns are
not read. Cells may be separated by semicolons or tabs; with semicolons, numbers may have a comma.
"""

from __future__ import annotations

import csv
import io
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from unitbox_tf import limits
from unitbox_tf.datasets import checks, outlines, writing
from unitbox_tf.datasets.base import DataSet, Format
from unitbox_tf.problems import Problems
from unitbox_tf.records import Annotation

MOST_ROWS = 5_000_000  # each takes up to a kilobyte of memory while a table is read
COLUMNS = ["image", "x0", "y0", "x1", "y1", "class"]
# The names of columns that are understood, without capital letters, spaces, hyphens and underscores.
HEADERS = {
    "image": ("image", "filename", "imagename", "imagepath", "imageid", "file", "path", "img"),
    "class": ("class", "classname", "label", "labelname", "category", "categoryname", "name"),
    "ignore": ("ignore", "iscrowd", "difficult"),
    "width": ("width", "imagewidth"),
    "height": ("height", "imageheight"),
}
# The columns of boxes: all four of a line. The last line has a corner and two sides.
CORNERS = (
    ("x0", "y0", "x1", "y1"),
    ("xmin", "ymin", "xmax", "ymax"),
    ("x1", "y1", "x2", "y2"),
    ("left", "top", "right", "bottom"),
)
SIDES = ("bboxx", "bboxy", "bboxwidth", "bboxheight")


class _Row(NamedTuple):
    """A row of the table: the number of its line, and its cells by the names of our columns.

    `cells` is None if the row cannot be split into cells. Only then there is the `text` of the line.
    """

    line: int
    text: str
    cells: dict[str, str] | None


class _Image(NamedTuple):
    """The rows of an image: its name, the line of the first row, its objects with their lines, and its size.

    It is not `usable` if one of its objects cannot be read.
    """

    name: str
    first: int
    boxes: np.ndarray
    classes: np.ndarray
    ignore: np.ndarray
    lines: np.ndarray
    size: tuple[int, int] | None
    usable: bool


class Table(DataSet):
    """The table `root`, or `split.csv` in the folder `root`, or the only table there."""

    def __init__(self, root: Path, split: str) -> None:
        """Parses the table. Raises `ValueError` if its header is none."""
        self._path = checks.file_of(root, split, ".csv")
        self._problems = Problems(logged=False)  # found while parsing
        rows = list(_rows(self._path, self._problems))
        named = {row.cells["class"] for row in rows if row.cells and "class" in row.cells}
        listed = checks.listed_class_names(self._path.parent)
        self._class_names = listed or tuple(sorted(named - {""})) or None
        self._swapped = 0
        self._images = list(self._read(rows))
        total = sum(len(image.boxes) for image in self._images)
        checks.report_swapped(self._swapped, total, str(self._path), self._problems)

    def class_names(self) -> tuple[str, ...] | None:
        """The names in `labels.txt`; without it, the names in the table, in alphabetical order; None without any."""
        return self._class_names

    def annotations(
        self, *, photos: bool = True, problems: Problems | None = None
    ) -> Iterator[Annotation]:
        """The images in the order in which the table first names them."""
        problems = Problems.of(problems)
        problems.add_all(self._problems.found)
        beside = self._path.parent
        folder = beside / "images" if (beside / "images").is_dir() else beside
        found = checks.Photos(folder, root=beside, needed=photos, problems=problems)
        paths = found.find_all([(one.name, f"{self._path}:{one.first}") for one in self._images])
        same: dict[Path, list[_Image]] = {}
        for path, image in zip(paths, self._images, strict=True):
            if path is not None:
                same.setdefault(path, []).append(image)
        for path, parts in same.items():
            if not all(part.usable for part in parts):
                continue
            name, size = found.below(path), next((part.size for part in parts if part.size), None)
            columns = [np.concatenate([part[i] for part in parts]) for i in range(2, 6)]
            boxes, classes, ignore, lines = columns
            places = [f"{self._path}:{line}" for line in lines.tolist()]
            ignored = checks.ignored(boxes, ignore, places, size, problems=problems)
            yield Annotation(name, path, boxes, classes, ignored, size=size)

    def _read(self, rows: Sequence[_Row]) -> Iterator[_Image]:
        """The images with the objects that can be read. The rows of an image need not be neighbours."""
        by_image: dict[str, list[_Row]] = {}
        for row in rows:
            if row.cells is not None:
                by_image.setdefault(row.cells["image"], []).append(row)
        # Nobody knows whose object stands in a line that cannot be split.
        lost = "\n".join(row.text for row in rows if row.cells is None)
        parts = _parts(lost)
        labels = {name: index for index, name in enumerate(self._class_names or ("",))}
        for name, own in by_image.items():
            objects = [row for row in own if _has_object(row)]
            read = [self._object(row, labels) for row in objects]
            table = np.array([each for each in read if each], np.float64).reshape(-1, 6)
            lines = np.array([row.line for row in objects], np.int64)[: len(table)]
            columns = table[:, :4], table[:, 4].astype(np.int32), table[:, 5].astype(np.bool_)
            usable = None not in read and not _parts(name) <= parts
            if len(read) > limits.MAX_OBJECTS:
                message = f"expected at most {limits.MAX_OBJECTS:,} objects in an image, received {len(read):,}"
                checks.unreadable(self._problems, f"{self._path}:{own[0].line}", message)
                usable = False
            yield _Image(name, own[0].line, *columns, lines, _size(own), usable)

    def _object(self, row: _Row, labels: dict[str, int]) -> tuple[float, ...] | None:
        """Edges, class and ignore of the object in a row; None, after a report, if it cannot be read."""
        where, cells = f"{self._path}:{row.line}", row.cells or {}
        values = [outlines.number(cells[side]) for side in COLUMNS[1:5]]
        label, ignore = labels.get(cells.get("class", "")), outlines.flag(cells.get("ignore"))
        if None in values:
            received = [cells[side] for side in COLUMNS[1:5]]
            message = f"expected 4 numbers as the edges of a box, received {received}"
        elif label is None:
            known = f"a class of {checks.some_of(labels)}"
            message = f"expected {known}, received {cells.get('class', '')!r:.200}"
        elif ignore is None:
            message = f"expected an ignore of 0 or 1, received {cells['ignore']!r:.200}"
        else:
            x0, y0, x1, y1 = values
            if not ignore:  # corners that were swapped
                self._swapped += x0 > x1 or y0 > y1  # type: ignore[operator]
                (x0, x1), (y0, y1) = sorted([x0, x1]), sorted([y0, y1])  # type: ignore[type-var]
            return x0, y0, x1, y1, label, ignore  # type: ignore[return-value]
        checks.unreadable(self._problems, where, message)
        return None


def _parts(text: str) -> set[str]:
    """The text between commas and quotes: all parts of a name are there if the name is."""
    return {part.strip() for part in re.split(r'[,;\t\n"]', text)} - {""}


def _has_object(row: _Row) -> bool:
    cells = row.cells or {}
    return any(cells.get(name) for name in COLUMNS[1:])


def _size(rows: Sequence[_Row]) -> tuple[int, int] | None:
    """Height and width of an image as the first row states them; None if it does not."""
    cells = rows[0].cells or {}
    return outlines.size(cells.get("height"), cells.get("width"))


def _rows(path: Path, problems: Problems) -> Iterator[_Row]:
    """The rows below the header. Lines with another number of cells are problems.

    Raises `ValueError` if the header lacks a column.
    """
    lines = checks.lines(path, problems=problems)
    if len(lines) > MOST_ROWS:
        raise limits.TooLarge(
            f"{path}: expected at most {MOST_ROWS:,} rows. Received: {len(lines):,}. Make several tables of it"
        )
    comma, columns = _header(path, lines[0])
    for number, line in enumerate(lines[1:], 2):
        try:
            # Line by line, because a quote that is not closed would swallow the rest of the table.
            cells = next(csv.reader([line], delimiter=comma, strict=True), [])
            fault = f"expected {len(columns)} cells, received {len(cells)}"
        except csv.Error as error:
            cells, fault = [""], str(error)
        if len(cells) == len(columns) and cells[columns.index("image")].strip():
            yield _Row(number, "", _usual(dict(zip(columns, cells, strict=True)), comma))
        elif cells and line.strip():
            if len(cells) == len(columns):
                fault = "expected the name of an image, received none"
            message = f"{fault}: {line[:200]!r}: images that the line may mean are left out"
            problems.add(checks.MALFORMED, f"{path}:{number}", message)
            yield _Row(number, line, None)


def _header(path: Path, line: str) -> tuple[str, list[str]]:
    """The character that separates cells, and our names for the columns; columns that are not read have an empty name.

    Raises `ValueError` if a column is missing, or if two columns have one meaning.
    """
    for comma in ",;\t":
        try:
            given = next(csv.reader([line], delimiter=comma), [])
        except csv.Error as error:
            raise ValueError(
                f"{path}:1: expected a header, received {line!r:.200}: {error}"
            ) from error
        plain = [re.sub(r"[\s_-]", "", cell).casefold() for cell in given]
        for edges in (*CORNERS, SIDES):
            if set(edges) <= set(plain):
                ours = dict(zip(edges, SIDES if edges == SIDES else COLUMNS[1:5], strict=True))
                ours |= {name: own for own, names in HEADERS.items() for name in names}
                columns = [ours.get(name, "") for name in plain]
                used = [name for name in columns if name]
                if "image" in used and len(set(used)) == len(used):
                    return comma, columns
    accepted = " or ".join(",".join(edges) for edges in CORNERS[1:])
    raise ValueError(
        f"{path}:1: expected the header {','.join(COLUMNS)}[,ignore] (also with {accepted}, and in "
        f"another order), received {line!r:.200}"
    )


def _usual(cells: dict[str, str], comma: str) -> dict[str, str]:
    """The cells without spaces around them, with edges for sides, and with points in numbers."""
    cells = {name: cell.strip() for name, cell in cells.items() if name}
    for name in ("image", "class"):  # which many rows have in common
        if name in cells:
            cells[name] = sys.intern(cells[name])
    if comma == ";":
        numbers = {*COLUMNS[1:5], *SIDES}
        cells = {n: cell.replace(",", ".") if n in numbers else cell for n, cell in cells.items()}
    if SIDES[0] in cells:
        x, y, width, height = (cells[name] for name in SIDES)
        cells |= {"x0": x, "y0": y, "x1": _sum(x, width), "y1": _sum(y, height)}
    return cells


def _sum(first: str, second: str) -> str:
    """The sum of two numbers; `second` as it is if one is no number."""
    values = outlines.number(first), outlines.number(second)
    return second if None in values else repr(sum(values))  # type: ignore[arg-type]


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
