"""The detections in a set of images, and the three forms of files in which detections are exchanged.

| form | description |
|---|---|
| `coco` | a json list of `image_id` or `file_name`, `category_name` or `category_id`, `bbox`, `score` |
| `fddb` | FDDB's result file, or a folder with `fold-01-out.txt` to `fold-10-out.txt` |
| `wider_face` | WIDER FACE's folder, with a file `<event>/<image>.txt` for each image |

A `bbox` is x, y, width, height. `coco` may also be a json object with `images`, `categories`, and such a list
as `annotations`. Classes are found by name where there are names. `_Categories` says what numbers mean.

Numbers are kept as they stand in the file, in double precision and uncut, so that the protocols give
the official metrics.
"""

from __future__ import annotations

import dataclasses
import itertools
import logging
import os
import posixpath
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from unitbox_tf import boxes as box_ops
from unitbox_tf import files, runs, spelling
from unitbox_tf.datasets import Ids, Source, checks, json_files
from unitbox_tf.evaluation import fddb, wider_face
from unitbox_tf.problems import Problems
from unitbox_tf.records import Annotation, Detections

logger = logging.getLogger(__name__)

LARGEST = 1e9  # pixels, and score: no honest detection comes near
NOT_ANNOTATED = "detections of an image that is not annotated"
WITHOUT_RESULT = "image without result"
MALFORMED = "malformed detection"
FAR = 1.05  # a box ends beyond its image if it does by this multiple of the image's side
MOST_FOLDERS = 100  # in the name of an image
MANY_BEYOND = 0.2  # share of the boxes of which this is no chance


@dataclasses.dataclass(frozen=True)
class Results:
    """The detections of a set of images.

    Attributes:
        rows: for each image, in the order of its annotations, `x y w h score` `[K, 5]` or, for
            ellipses, `ra rb theta cx cy score` `[K, 6]`, float64 in pixels. None if the file does not
            mention the image; protocols take this for no detections.
        classes: for each image `[K]` int32.
        class_names: the names of these classes; empty if nobody named them.
    """

    rows: tuple[np.ndarray | None, ...]
    classes: tuple[np.ndarray, ...]
    class_names: tuple[str, ...] = ()

    @classmethod
    def of(cls, detections: Sequence[Detections]) -> Results:
        """The detections of a detector of this package."""
        return cls(
            tuple(found.rectangles() for found in detections),
            tuple(np.asarray(found.classes, np.int32) for found in detections),
        )

    def of_classes(self, kept: Collection[int]) -> Results:
        """Only the detections of the classes with these indices."""
        masks = [np.isin(labels, list(kept)) for labels in self.classes]
        rows = (
            None if each is None else each[mask]
            for each, mask in zip(self.rows, masks, strict=True)
        )
        classes = (labels[mask] for labels, mask in zip(self.classes, masks, strict=True))
        return Results(tuple(rows), tuple(classes), self.class_names)

    def rectangles(self, index: int) -> np.ndarray:
        """`x y w h score` `[K, 5]` of one image. An ellipse gives the tight box around it."""
        rows = self.rows[index]
        if rows is None:
            return np.zeros((0, 5))
        if rows.shape[1] == 5:
            return rows
        boxes = box_ops.ellipses_to_boxes(rows[:, :5])
        return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2], rows[:, 5:]], axis=1)

    def detections(self, sizes: Sequence[tuple[int, int]]) -> list[Detections]:
        """A `Detections` for each image, best first. `sizes` are the heights and widths of the images."""
        found = []
        for index, size in enumerate(sizes):
            rows = self.rectangles(index)
            order = np.argsort(-rows[:, 4], kind="stable")
            rows = rows[order]
            boxes = np.concatenate([rows[:, :2], rows[:, :2] + rows[:, 2:4]], axis=1)
            found.append(Detections(boxes, rows[:, 4], self.classes[index][order], size))
        return found

    @property
    def num_detections(self) -> int:
        """The number of detections in all images."""
        return sum(len(classes) for classes in self.classes)

    @property
    def num_without(self) -> int:
        """The number of images that the results do not mention."""
        return sum(rows is None for rows in self.rows)


def form_of(path: Path) -> str:
    """The form of the file or folder `path`.

    Raises:
        ValueError: it has none of the forms.
    """
    if os.path.lexists(path) and not path.is_dir():
        with files.open_regular(path) as file:
            if b"\0" in file.read(1 << 12):
                raise ValueError(f"{path}: expected text: COCO's json, or FDDB's result file")
        return "coco" if path.suffix.lower() == ".json" else "fddb"
    if path.is_dir():
        if any(path.glob("fold-*-out.txt")):
            return "fddb"
        found = [folder for folder in sorted(path.iterdir()) if runs.Run(folder).exists]
        if found:
            raise ValueError(
                f"{path}: expected a run, not the folder of {len(found)}: name one, such as {found[0]}"
            )
        if any(path.glob("*/*.txt")):
            return "wider_face"
    raise ValueError(
        f"{path}: "
        + ("" if path.exists() else "no such file or folder. ")
        + "Expected detections: a json list as of COCO, a result file of FDDB or a folder with fold-01-out.txt ..., "
        "or a folder of WIDER FACE with a file <event>/<image>.txt for each image"
    )


def read(
    path: Path,
    annotations: Sequence[Annotation],
    sources: Sequence[Source] = (),
    *,
    class_names: Sequence[str] = (),
    problems: Problems | None = None,
) -> Results:
    """Reads the detections in `path`. `form_of` tells the form.

    Args:
        path: see the table above.
        annotations: the annotations of the judged images. The result has the same order.
        sources: the sources of the annotations. A COCO json says what the numbers in results mean.
        class_names: the names of the annotations' classes; without them, those of the sources. Classes
            that only detections have are added to them in the result.
        problems: unusable detections, detections of unknown images, and images without any result are
            added here.

    Raises:
        ValueError: the form is unknown, no detection belongs to an annotated image or to a class of the
            annotations, or the numbers of classes can mean two things.
    """
    problems = Problems.of(problems)
    form, known_before = form_of(path), len(problems.found)
    names = _Names(annotations)
    categories = _Categories(path, annotations, sources, class_names)
    found = _READ[form](path, names, sources, categories, problems)
    if not found and len(problems.found) > known_before:
        problems.log_counts()
        such = f" such as {annotations[0].name!r}" if annotations else ""
        raise ValueError(
            f"{path}: expected detections of images{such}, found none (read as results in the form "
            f"of {form}); the first problem: {problems.found[known_before]}"
        )
    # COCO's form has no row for an image without detections. In the other forms, a missing image is a problem.
    absent = np.zeros((0, 5)) if form == "coco" else None
    nothing = absent, np.zeros(0, np.int32)
    each = [found.get(index, nothing) for index in range(len(annotations))]
    for annotation, (rows, _) in zip(annotations, each, strict=True):
        if rows is None and form == "fddb":  # the reader of WIDER FACE has reported the file
            problems.add(WITHOUT_RESULT, annotation.name, "not among the detections; taken as none")
    return Results(
        tuple(rows for rows, _ in each), tuple(labels for _, labels in each), categories.all_names
    )


def category_ids(sources: Sequence[Source], class_names: Sequence[str]) -> dict[int, Any]:
    """The id of each class in the COCO json of the sources, by the class's index in `class_names`.

    Other classes get numbers that no category has. Without such a json, classes are numbered from 1.
    """
    known = _ids_of(sources)
    by_name = {name: id for id, name in known.items()}
    free = 1 + max((id for id in known if isinstance(id, int)), default=0)
    found: dict[int, Any] = {}
    for index, name in enumerate(class_names):
        if name in by_name:
            found[index] = by_name[name]
        else:
            found[index] = free
            free += 1
    return found


def _ids_of(sources: Sequence[Source]) -> dict[Any, str]:
    """The class name, renamed, of each category id in the sources' json files. Empty if the files disagree."""
    found: dict[Any, str] = {}
    for source in sources:
        ids, names = source.ids(), source.class_names()
        for id, index in (ids.categories if ids else {}).items():
            name = (names or ())[index]
            if found.setdefault(id, name) != name:
                return {}
    return found


class _Categories:
    """Finds the classes of detections in COCO's form.

    A name decides. Numbers without a name are either the ids of the json that has the annotations, or
    count the classes from 1, as detectors do that do not know this json:

    * Rows with `image_id` alone are COCO's own form: their numbers are the ids of the json.
    * Rows with `file_name`: whichever of the two fits all rows. If both fit and differ, it is an error.
    * Without a json of ids, numbers count the classes.

    Attributes:
        all_names: the names of the annotations' classes, and then of those that only detections have.
    """

    def __init__(
        self,
        path: Path,
        annotations: Sequence[Annotation],
        sources: Sequence[Source],
        class_names: Sequence[str],
    ) -> None:
        stated = dict.fromkeys(n for source in sources for n in source.class_names() or ())
        self._path, self._of_data = path, tuple(class_names or stated)
        self._index = {name: index for index, name in enumerate(self._of_data)}
        self._by_id = {
            id: self._index[name] for id, name in _ids_of(sources).items() if name in self._index
        }
        seen = [int(a.classes.max()) + 1 for a in annotations if len(a.classes)]
        count = len(self._of_data) or max([1, *seen])
        self._by_number: dict[Any, int] = {number: number - 1 for number in range(1, count + 1)}
        self._numbers: Mapping[Any, int] = self._by_id or self._by_number

    @property
    def all_names(self) -> tuple[str, ...]:
        return tuple(self._index) if self._of_data else ()

    @property
    def words(self) -> str:
        """The known numbers, in words."""
        if self._numbers is self._by_number:
            return f"they count from 1 to {len(self._by_number)}, in the order of the classes"
        return f"the ids of the annotations are {self._listed(self._numbers)}"

    def _listed(self, numbers: Mapping[Any, int]) -> str:
        names = self._of_data
        each = (f"{n!r} for {names[i]}" if names else repr(n) for n, i in list(numbers.items())[:9])
        return ", ".join(each) + (" ..." if len(numbers) > 9 else "")

    def learn(self, rows: Sequence[_Row]) -> None:
        """Takes up the names in the rows, and finds out what numbers without names mean.

        Raises:
            ValueError: no name is that of an annotated class, or numbers can mean two things.
        """
        named = Counter(row.label for row in rows if row.label is not None)
        if self._of_data and named:
            self._check_names(named)
            for name in named:
                self._index.setdefault(name, len(self._index))
        unnamed = [row for row in rows if row.label is None or not self._of_data]
        if self._by_id and any(row.name is not None for row in unnamed):
            self._numbers = self._meaning({row.category for row in unnamed})

    def _check_names(self, named: Mapping[str, int]) -> None:
        others = [name for name in named if name not in self._index]
        if len(others) == len(named):
            first = next(iter(others))
            old = spelling.closest(first, self._of_data) or self._of_data[0]
            raise ValueError(
                f"{self._path}: none of its detections has a class of the annotations: "
                f"{', '.join(others[:9])}. Expected some of {', '.join(self._of_data[:20])}."
                f"{spelling.resembling(first, self._of_data)} If one class has two names, rename that of "
                f"the annotations: rename (--rename '{old}={first}')"
            )
        if others:
            each = ", ".join(f"{name} {named[name]}" for name in others[:9])
            message = (
                "%s: the annotations lack classes of some detections, which count as false: %s"
            )
            logger.info(message, self._path, each)

    def _meaning(self, used: set[Any]) -> Mapping[Any, int]:
        """The numbers that fit all rows."""
        of_json, counting = used <= self._by_id.keys(), used <= self._by_number.keys()
        if of_json and counting and any(self._by_id[n] != self._by_number[n] for n in used):
            raise ValueError(
                f"{self._path}: category_id can mean two things, without category_name: the ids of the "
                f"annotations ({self._listed(self._by_id)}), or numbers from 1 in the order of the classes "
                f"({self._listed(self._by_number)}). Give category_name in each row, as `unitbox detect` does, "
                "or the json's image_id in place of file_name if the ids are those of the json"
            )
        if not of_json and counting:
            message = "%s: category_id counts the classes (%s), as the ids of the annotations (%s) do not fit"
            logger.info(
                message, self._path, self._listed(self._by_number), self._listed(self._by_id)
            )
            return self._by_number
        return self._by_id

    def label(self, row: _Row) -> int | None:
        """The index of the row's class; None if it has none."""
        if row.label is not None and self._of_data:
            return self._index[row.label]
        if self._numbers is self._by_number and type(row.category) is not int:
            return None
        return self._numbers.get(row.category)

    def one_class(self) -> int:
        """The class of detections in forms that know only faces."""
        return self._index.get("face", 0)


_Found = dict[int, tuple[np.ndarray, np.ndarray]]  # by index of the image


class _Names:
    """Finds images by the names that results have for them.

    Attributes:
        all: the names, in order.
        sizes: height and width of the images where they are stated.
    """

    def __init__(self, annotations: Sequence[Annotation]) -> None:
        self.all = [annotation.name for annotation in annotations]
        self.sizes = [annotation.size for annotation in annotations]
        self._files = [annotation.where.replace("\\", "/") for annotation in annotations]
        self._index: dict[str, int] = {}
        self._by_stem: dict[str, list[int]] = {}
        for index, name in enumerate(self.all):
            if name in self._index:
                raise ValueError(
                    f"Expected images of different names, to which results refer. Received twice: {name!r}"
                )
            self._index[name] = index
            self._by_stem.setdefault(checks.without_suffix(name), []).append(index)

    def find(self, name: str) -> int | None:
        """The index of the image `name`, which may lack its suffix, or have folders before it.

        None if it fits no image, or several equally well.
        """
        name = name.replace("\\", "/")
        if name in self._index:
            return self._index[name]
        end = checks.without_suffix(name)
        if end.count("/") > MOST_FOLDERS:
            return None
        while end not in self._by_stem:  # the longest path that fits decides
            _, slash, end = end.partition("/")
            if not slash:
                return None
        fitting = self._by_stem[end]
        return fitting[0] if len(fitting) == 1 else None

    def others(self, names: Iterable[str]) -> dict[str, str]:
        """The names that end like the name of an annotated image, but are not this image, each with the name that is.

        Raises:
            ValueError: two names may equally well be one annotated image.
        """
        meant: dict[
            int, dict[str, list[str]]
        ] = {}  # by image and form: the names as they are written
        for name in names:
            index = self.find(name)
            if index is not None:
                form = posixpath.normpath(name.replace("\\", "/"))
                meant.setdefault(index, {}).setdefault(form, []).append(name)
        found: dict[str, str] = {}
        for index, written in meant.items():
            ranks = {form: self._rank(form, index) for form in written}
            best = [form for form, rank in ranks.items() if rank == max(ranks.values())]
            if len(best) > 1:
                raise ValueError(
                    f"Expected detections of one image named {self.all[index]!r}. Received those of {best[0]!r} and "
                    f"{best[1]!r}: leave out those of the image that is not annotated"
                )
            for form in written.keys() - set(best):
                found |= dict.fromkeys(written[form], best[0])
        return found

    def _rank(self, form: str, index: int) -> tuple[bool, int]:
        """How well a name fits an image: exactly, or else by how many parts of the path of its file."""
        pairs = zip(
            reversed(form.split("/")), reversed(self._files[index].split("/")), strict=False
        )
        same = itertools.takewhile(lambda pair: pair[0] == pair[1], pairs)
        return form == self.all[index], sum(1 for _ in same)


class _Row(NamedTuple):
    """A row of COCO's results."""

    image: Any
    name: Any
    category: Any
    label: str | None  # the name of the category
    values: tuple[float, float, float, float, float]  # x y w h score


def _row(item: dict[str, Any]) -> Any:
    """A json object. A usable detection becomes a `_Row`; anything else stays as it is."""
    try:
        box, score = item["bbox"], item["score"]
        values = tuple(map(float, (*box, score)))
        numbers = all(type(value) in (int, float) for value in (*box, score))
        if numbers and len(values) == 5 and all(abs(value) <= LARGEST for value in values):
            image, name = item.get("image_id"), item.get("file_name")
            label = item.get("category_name")
            category = item["category_id"] if label is None else item.get("category_id")
            hash((image, category))
            if label is None or isinstance(label, str):
                return _Row(image, name, category, label, values)
    except (KeyError, TypeError, ValueError, OverflowError):
        pass
    item.pop("segmentation", None)
    return item


def _read_coco(
    path: Path,
    names: _Names,
    sources: Sequence[Source],
    categories: _Categories,
    problems: Problems,
) -> _Found:
    """If the only source is a COCO json, the numbers of images are those of this json."""
    rows = _coco_rows(path)
    categories.learn([row for row in rows if isinstance(row, _Row)])
    ids = sources[0].ids() if len(sources) == 1 else None
    written = dict.fromkeys(_written(row, ids) for row in rows if isinstance(row, _Row))
    others = names.others(name for name in written if name is not None)
    found: dict[int, list[_Row]] = {}
    labels: dict[int, list[int]] = {}
    for number, row in enumerate(rows):
        where = f"{path}: [{number}]"
        if not isinstance(row, _Row):
            message = (
                "expected image_id or file_name, category_name or category_id, a score, and a bbox of 4 "
                f"numbers up to {LARGEST:g}: {checks.shown(row)}"
            )
            problems.add(MALFORMED, where, message)
            continue
        if min(row.values[2:4]) < 0:
            message = f"expected a width and height from 0, received {row.values[2:4]}"
            problems.add(MALFORMED, where, message)
            continue
        name = _written(row, ids)
        if name in others:
            message = (
                f"{name!r:.200} is not annotated: the annotated image is {others[name]!r:.200}"
            )
            problems.add(NOT_ANNOTATED, where, message)
            continue
        index = _image(row, names, ids)
        if index is None:
            problems.add(NOT_ANNOTATED, where, _unknown(row, ids))
            continue
        label = categories.label(row)
        if label is None:
            message = f"no category has the id {row.category!r:.200}: {categories.words}"
            problems.add(MALFORMED, where, message)
            continue
        found.setdefault(index, []).append(row)
        labels.setdefault(index, []).append(label)
    read = {
        index: (np.array([row.values for row in each]), np.array(labels[index], np.int32))
        for index, each in found.items()
    }
    _report_beyond(path, read, names, problems)
    return read


def _report_beyond(path: Path, found: _Found, names: _Names, problems: Problems) -> None:
    """Reports if many boxes end far beyond their images: they are corners, or those of larger images."""
    beyond = total = 0
    for index, (rows, _) in found.items():
        size = names.sizes[index]
        if size is not None:
            beyond += int(
                (rows[:, :2] + rows[:, 2:4] > np.array(size[::-1]) * FAR).any(axis=1).sum()
            )
            total += len(rows)
    if beyond > max(1, MANY_BEYOND * total):
        message = (
            f"{beyond} of {total} boxes end beyond their images: expected x y width height in pixels of the image; "
            "are they corners, or of images of another size?"
        )
        problems.add(checks.LEAVE, str(path), message)


def _coco_rows(path: Path) -> list[Any]:
    """The rows of COCO's results, a `_Row` for each usable detection."""
    rows = json_files.read(path, _row)  # rows are made small while they are read
    if isinstance(rows, dict) and isinstance(rows.get("annotations"), list):
        return _rows_of_object(path, rows)
    if not isinstance(rows, list):
        received = (
            f"an object with {checks.some_of(rows)}"
            if isinstance(rows, dict)
            else checks.shown(rows)
        )
        raise ValueError(f"{path}: expected COCO's results, a list of objects, received {received}")
    return rows


def _rows_of_object(path: Path, content: Mapping[str, Any]) -> list[Any]:
    """The rows of a whole COCO json whose annotations have scores, with the names that it states itself."""
    rows: list[Any] = content["annotations"]
    if rows and not any(isinstance(row, _Row) for row in rows):
        raise ValueError(
            f"{path}: expected detections: a score in each of its annotations. Received annotations such as "
            f"{checks.shown(rows[0])}"
        )
    try:
        labels = {item["id"]: item["name"] for item in content.get("categories", ())}
        names = {item["id"]: item["file_name"] for item in content.get("images", ())}
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"{path}: expected categories with id and name, and images with id and file_name: {error!r}"
        ) from error
    return [
        row._replace(
            label=row.label or labels.get(row.category), name=row.name or names.get(row.image)
        )
        if isinstance(row, _Row)
        else row
        for row in rows
    ]


def _written(row: _Row, ids: Ids | None) -> str | None:
    """The name of the row's image, as it is written; None if there is only an id."""
    if isinstance(row.name, str):
        return row.name
    known = ids is not None and row.image in ids.images
    return row.image if isinstance(row.image, str) and not known else None


def _image(row: _Row, names: _Names, ids: Ids | None) -> int | None:
    """The index of the row's image: by its name, or else by its id. None if it is not known."""
    if isinstance(row.name, str):
        found = names.find(row.name)
        if found is not None:
            return found
    image = ids.images.get(row.image, row.image) if ids is not None else row.image
    return names.find(image) if isinstance(image, str) else None


def _unknown(row: _Row, ids: Ids | None) -> str:
    """The message for a row with an unknown image."""
    name = row.name if row.name is not None else row.image
    message = f"no image, or more than one, has the id or name {name!r:.200}"
    if ids is None and row.name is None and type(row.image) is int:
        message += ": only a COCO json as the one source says what numbers mean; give file_name"
    return message


def _read_fddb(
    path: Path,
    names: _Names,
    sources: Sequence[Source],
    categories: _Categories,
    problems: Problems,
) -> _Found:
    rows = fddb.read_detections(path, problems=problems)
    return _by_name(path, rows, names, categories, problems)


def _read_wider_face(
    path: Path,
    names: _Names,
    sources: Sequence[Source],
    categories: _Categories,
    problems: Problems,
) -> _Found:
    try:
        rows = wider_face.read_detections(path, names.all, problems=problems)
    except ValueError as error:
        raise ValueError(
            f"{path}: read as results in the form of WIDER FACE, whose images are named event/image.jpg: "
            f"{error}"
        ) from error
    return _by_name(path, rows, names, categories, problems)


def _by_name(
    path: Path,
    rows: Mapping[str, np.ndarray],
    names: _Names,
    categories: _Categories,
    problems: Problems,
) -> _Found:
    """The detections by image, for the two forms that have only one class."""
    found: _Found = {}
    for name, values in rows.items():
        index = names.find(name)
        if index is None:
            message = (
                f"no image, or more than one, has this name; {len(values)} detections left out"
            )
            problems.add(NOT_ANNOTATED, f"{path}: {name}", message)
        elif index in found:
            message = f"is {names.all[index]!r}, which has detections already"
            problems.add("image listed twice", f"{path}: {name}", message)
        else:
            found[index] = values, np.full(len(values), categories.one_class(), np.int32)
    return found


_READ: dict[str, Callable[[Path, _Names, Sequence[Source], _Categories, Problems], _Found]] = {
    "coco": _read_coco,
    "fddb": _read_fddb,
    "wider_face": _read_wider_face,
}
