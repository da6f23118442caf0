"""The detections in a set of images, and the three forms of files in which detections are exchanged.

| form | description |
|---|---|
| `coco` | a json list of `image_id` or `file_name`, `category_id`, `bbox` (x, y, width, height), `score` |
| `fddb` | FDDB's result file, or a folder with `fold-01-out.txt` to `fold-10-out.txt` |
| `wider_face` | WIDER FACE's folder, with a file `<event>/<image>.txt` for each image |

Numbers are kept as they stand in the file, in double precision and uncut, so that the protocols give
the official metrics.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from unitbox_tf import boxes as box_ops
from unitbox_tf import runs
from unitbox_tf.datasets import Ids, Source, checks
from unitbox_tf.evaluation import fddb, wider_face
from unitbox_tf.problems import Problems
from unitbox_tf.records import Annotation, Detections

LARGEST = 1e9  # pixels, and score: no honest detection comes near
NOT_ANNOTATED = "detections of an image that is not annotated"
WITHOUT_RESULT = "image without result"
MALFORMED = "malformed detection"


@dataclasses.dataclass(frozen=True)
class Results:
    """The detections of a set of images.

    Attributes:
        rows: for each image, in the order of its annotations, `x y w h score` `[K, 5]` or, for
            ellipses, `ra rb theta cx cy score` `[K, 6]`, float64 in pixels. None if the file does not
            mention the image; protocols take this for no detections.
        classes: for each image `[K]` int32.
    """

    rows: tuple[np.ndarray | None, ...]
    classes: tuple[np.ndarray, ...]

    @classmethod
    def of(cls, detections: Sequence[Detections]) -> Results:
        """The detections of a detector of this package."""
        return cls(
            tuple(found.rectangles() for found in detections),
            tuple(np.asarray(found.classes, np.int32) for found in detections),
        )

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
    if path.is_file():
        with path.open("rb") as file:
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
    problems: Problems | None = None,
) -> Results:
    """Reads the detections in `path`. `form_of` tells the form.

    Args:
        path: see the table above.
        annotations: the annotations of the judged images. The result has the same order.
        sources: the sources of the annotations. A COCO json says what the numbers in results mean.
        problems: unusable detections, detections of unknown images, and images without any result are
            added here.

    Raises:
        ValueError: the form is unknown, or no detection belongs to an annotated image.
    """
    problems = Problems.of(problems)
    form, known_before = form_of(path), len(problems.found)
    names = _Names(annotations, _num_classes(annotations, sources))
    found = _READ[form](path, names, sources, problems)
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
    return Results(tuple(rows for rows, _ in each), tuple(labels for _, labels in each))


def _num_classes(annotations: Sequence[Annotation], sources: Sequence[Source]) -> int:
    """The number of classes that are named or occur."""
    named = [len(source.class_names() or ()) for source in sources]
    seen = [int(a.classes.max()) + 1 for a in annotations if len(a.classes)]
    return max([1, *named, *seen])


_Found = dict[int, tuple[np.ndarray, np.ndarray]]  # by index of the image


class _Names:
    """Finds images by the names that results have for them.

    Attributes:
        all: the names, in order.
        num_classes: the number of classes of annotated objects. Detections have no other classes.
    """

    def __init__(self, annotations: Sequence[Annotation], num_classes: int = 1) -> None:
        self.all = [annotation.name for annotation in annotations]
        self.num_classes = num_classes
        self._index: dict[str, int] = {}
        self._by_last_part: dict[str, list[int]] = {}
        for index, name in enumerate(self.all):
            if name in self._index:
                raise ValueError(
                    f"Expected images of different names, to which results refer. Received twice: {name!r}"
                )
            self._index[name] = index
            self._by_last_part.setdefault(
                checks.without_suffix(name).rpartition("/")[2], []
            ).append(index)

    def find(self, name: str) -> int | None:
        """The index of the image `name`, which may lack its suffix, or have folders before it.

        None if it fits no image, or several equally well.
        """
        name = name.replace("\\", "/")
        if name in self._index:
            return self._index[name]
        stem = checks.without_suffix(name)
        fitting: dict[int, list[int]] = {}  # by length of what fits
        for index in self._by_last_part.get(stem.rpartition("/")[2], []):
            known = checks.without_suffix(self.all[index])
            if f"/{stem}".endswith(f"/{known}"):
                fitting.setdefault(len(known), []).append(index)
        # The longest path that fits decides.
        longest = fitting[max(fitting)] if fitting else []
        return longest[0] if len(longest) == 1 else None


class _Row(NamedTuple):
    """A row of COCO's results."""

    image: Any
    name: Any
    category: Any
    values: tuple[float, float, float, float, float]  # x y w h score


def _row(item: dict[str, Any]) -> Any:
    """A json object. A usable detection becomes a `_Row`; anything else stays as it is."""
    try:
        box, score = item["bbox"], item["score"]
        values = tuple(map(float, (*box, score)))
        numbers = all(type(value) in (int, float) for value in (*box, score))
        if numbers and len(values) == 5 and all(abs(value) <= LARGEST for value in values):
            image, name = item.get("image_id"), item.get("file_name")
            hash((image, item["category_id"]))
            return _Row(image, name, item["category_id"], values)
    except (KeyError, TypeError, ValueError, OverflowError):
        pass
    item.pop("segmentation", None)
    return item


def _read_coco(path: Path, names: _Names, sources: Sequence[Source], problems: Problems) -> _Found:
    """If the only source is a COCO json, the numbers of images and categories are those of this json.

    Otherwise images are found by name, and categories are numbered from 1 in the order of classes.
    """
    rows = _coco_rows(path)
    ids = sources[0].ids() if len(sources) == 1 else None
    found: dict[int, list[_Row]] = {}
    labels: dict[int, list[int]] = {}
    for number, row in enumerate(rows):
        where = f"{path}: [{number}]"
        if not isinstance(row, _Row):
            message = (
                "expected image_id or file_name, category_id, a score, and a bbox of 4 numbers up to "
                f"{LARGEST:g}: {row!r:.200}"
            )
            problems.add(MALFORMED, where, message)
            continue
        if min(row.values[2:4]) < 0:
            message = f"expected a width and height from 0, received {row.values[2:4]}"
            problems.add(MALFORMED, where, message)
            continue
        index = _image(row, names, ids)
        if index is None:
            problems.add(NOT_ANNOTATED, where, _unknown(row, ids))
            continue
        label = _label(row.category, ids, names.num_classes)
        if label is None:
            message = f"no category has the id {row.category!r:.200}"
            if ids is None:
                message += f": they count from 1 to {names.num_classes}, in the order of classes"
            problems.add(MALFORMED, where, message)
            continue
        found.setdefault(index, []).append(row)
        labels.setdefault(index, []).append(label)
    return {
        index: (np.array([row.values for row in each]), np.array(labels[index], np.int32))
        for index, each in found.items()
    }


def _coco_rows(path: Path) -> list[Any]:
    """The rows of COCO's results, a `_Row` for each usable detection."""
    try:
        # Rows are made small while they are read.
        rows = json.loads(path.read_text(encoding="utf-8-sig"), object_hook=_row)
    except json.JSONDecodeError as error:
        where = f"{path}:{error.lineno}"
        raise ValueError(f"{where}: not valid JSON: {error.msg} at column {error.colno}") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not valid JSON: {error}") from error
    if not isinstance(rows, list):
        received = (
            f"an object with {sorted(rows)[:9]}" if isinstance(rows, dict) else f"{rows!r:.80}"
        )
        raise ValueError(f"{path}: expected COCO's results, a list of objects, received {received}")
    return rows


def _image(row: _Row, names: _Names, ids: Ids | None) -> int | None:
    candidates = [row.name, row.image]
    if ids is not None and row.image in ids.images:
        candidates.insert(0, ids.images[row.image])
    for name in candidates:
        if isinstance(name, str):
            return names.find(name)
    return None


def _unknown(row: _Row, ids: Ids | None) -> str:
    """The message for a row with an unknown image."""
    name = row.name if row.name is not None else row.image
    message = f"no image, or more than one, has the id or name {name!r:.200}"
    if ids is None and row.name is None and type(row.image) is int:
        message += ": only a COCO json as the one source says what numbers mean; give file_name"
    return message


def _label(category: Any, ids: Ids | None, num_classes: int) -> int | None:
    if ids is not None:
        return ids.categories.get(category)
    return category - 1 if type(category) is int and 1 <= category <= num_classes else None


def _read_fddb(path: Path, names: _Names, sources: Sequence[Source], problems: Problems) -> _Found:
    return _by_name(path, fddb.read_detections(path, problems=problems), names, problems)


def _read_wider_face(
    path: Path, names: _Names, sources: Sequence[Source], problems: Problems
) -> _Found:
    try:
        rows = wider_face.read_detections(path, names.all, problems=problems)
    except ValueError as error:
        raise ValueError(
            f"{path}: read as results in the form of WIDER FACE, whose images are named event/image.jpg: "
            f"{error}"
        ) from error
    return _by_name(path, rows, names, problems)


def _by_name(
    path: Path, rows: Mapping[str, np.ndarray], names: _Names, problems: Problems
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
            found[index] = values, np.zeros(len(values), np.int32)
    return found


_READ: dict[str, Callable[[Path, _Names, Sequence[Source], Problems], _Found]] = {
    "coco": _read_coco,
    "fddb": _read_fddb,
    "wider_face": _read_wider_face,
}
