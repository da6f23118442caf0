"""The records that modules exchange: an annotated image, and the detections in an image.

Importing this module does not import TensorFlow.
"""

from __future__ import annotations

import csv
import dataclasses
import functools
import io
import operator
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas
    import supervision

from unitbox_tf import images, optional
from unitbox_tf.files import Part
from unitbox_tf.limits import MAX_PIXELS


@dataclasses.dataclass(frozen=True, eq=False)
class Annotation:
    """One image and the objects in it.

    Two annotations are equal if all their values are equal. Since arrays can be changed, an annotation
    has no hash: it cannot be in a set or be the key of a dict. Use its `name` instead.

    Attributes:
        name: identifies the image in its data set and in messages; for files, the path below the
            data set's root.
        image: the file, a part of a file, or the bytes of an image file. A text is the path of a file. An RGB
            array uint8 `[H, W, 3]` becomes the bytes of a PNG, which has the same pixels.
        boxes: `xyxy` `[N, 4]` float64, in pixels of the image as displayed, with its EXIF orientation
            applied. The type is double because formats hold `x` and `w`: in float32, `x + w - x` does
            not give a written `w` of 23.7 back. Judges compute in double, too.
        classes: `[N]` int32, indices into the data set's class names; zeros if left out.
        ignore: `[N]` bool. True if a box is neither an object nor background: it takes no part in the
            loss, and finding it or not does not count. False if left out. Readers set it for boxes
            without area. Only such boxes may have `x1 <= x0` or `y1 <= y0`.
        size: height and width of the image in pixels; None if the format does not state them.
        ellipses: `[N, 5]` float64 as in `boxes.ellipses_to_boxes`, if objects are annotated as
            ellipses (FDDB).
        attributes: further facts about each object, by name, `[N]` int32 each (WIDER FACE).
        areas: `[N]` float64, the area of the object itself in pixels, if the format states it. An object
            need not fill its box. COCO sorts objects by this area. NaN for objects without it.
    """

    name: str
    image: Path | Part | bytes  # other forms are converted
    boxes: np.ndarray
    classes: np.ndarray = None  # type: ignore[assignment]  # filled in below
    ignore: np.ndarray = None  # type: ignore[assignment]
    size: tuple[int, int] | None = None
    ellipses: np.ndarray | None = None
    attributes: Mapping[str, np.ndarray] | None = None
    areas: np.ndarray | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str):
            raise ValueError(f"Expected an image's name as a text. Received: {self.name!r:.200}")
        boxes = self._rows("boxes", self.boxes, 4)
        if not np.isfinite(boxes).all():
            wrong = boxes[~np.isfinite(boxes).all(axis=1)][0].tolist()
            raise ValueError(f"{self.name}: expected boxes of finite numbers. Received: {wrong}")
        count = len(boxes)
        changes: dict[str, Any] = {
            "image": self._checked_image(),
            "boxes": boxes,
            "classes": np.zeros(count, np.int32),
            "ignore": np.zeros(count, np.bool_),
        }
        if self.classes is not None:
            classes = self._one_a_box("classes", self.classes, count, _int32)
            if (classes < 0).any():
                raise ValueError(f"{self.name}: expected classes from 0. Received: {classes.min()}")
            changes["classes"] = classes
        if self.ignore is not None:
            changes["ignore"] = self._one_a_box("ignore", self.ignore, count, _bools)
        if self.ellipses is not None:
            ellipses = self._rows("ellipses", self.ellipses, 5)
            changes["ellipses"] = self._one_a_box("ellipses", ellipses, count, np.asarray)
        if self.areas is not None:
            changes["areas"] = self._one_a_box("areas", self.areas, count, _doubles)
        if self.attributes is not None:
            changes["attributes"] = {
                name: self._one_a_box(name, value, count, functools.partial(_int32, what=name))
                for name, value in self.attributes.items()
            }
        if self.size is not None:
            changes["size"] = _checked_size(self.size, f"{self.name}: ")
        for name, value in changes.items():
            object.__setattr__(self, name, value)

    def _checked_image(self) -> Path | Part | bytes:
        image: Any = self.image
        if isinstance(image, Path | Part | bytes):
            return image
        if isinstance(image, str | os.PathLike):
            return Path(image)
        if isinstance(image, np.ndarray):
            try:
                return images.encode_png(image)
            except ValueError as error:
                raise ValueError(f"{self.name}: {error}") from error
        raise ValueError(
            f"{self.name}: expected an image as the path of a file, a Part of a file, the bytes of an image "
            f"file, or an RGB array uint8 [H, W, 3]. Received: {type(image).__name__}"
        )

    def _rows(self, name: str, value: Any, width: int) -> np.ndarray:
        """`value` as float64 `[N, width]`. One row may lack the first axis, and so may several in a row."""
        try:
            array = np.asarray(value, np.float64)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"{self.name}: expected {name} as numbers [N, {width}]. Received: {error}"
            ) from error
        if array.size and (array.shape[-1:] != (width,) or array.ndim > 2):
            if array.ndim != 1 or array.size % width:
                raise ValueError(
                    f"{self.name}: expected {name} [N, {width}]. Received: shape {list(array.shape)}"
                )
        return array.reshape(-1, width)

    def _one_a_box(
        self, name: str, value: Any, count: int, to_array: Callable[[Any], np.ndarray]
    ) -> np.ndarray:
        try:
            array = to_array(value)
        except ValueError as error:
            raise ValueError(f"{self.name}: {error}") from error
        if array.ndim == 0 or len(array) != count:
            received = "one number" if array.ndim == 0 else len(array)
            raise ValueError(
                f"{self.name}: expected {count} {name}, one for each box, received {received}"
            )
        if array.ndim != 1 and name != "ellipses":
            raise ValueError(
                f"{self.name}: expected {name} [{count}]. Received: shape {list(array.shape)}"
            )
        return array

    def __eq__(self, other: object) -> bool:
        if type(other) is not Annotation:
            return NotImplemented
        mine, theirs = self.attributes or {}, other.attributes or {}
        return (
            (self.name, self.image, self.size) == (other.name, other.image, other.size)
            and mine.keys() == theirs.keys()
            and all(_equal(values, theirs[name]) for name, values in mine.items())
            and all(
                _equal(getattr(self, name), getattr(other, name))
                for name in ("boxes", "classes", "ignore", "ellipses", "areas")
            )
        )

    __hash__ = None  # type: ignore[assignment]  # arrays can be changed

    def select(self, which: Any) -> Annotation:
        """Only the objects at `which`, a mask or indices."""
        attributes = self.attributes
        return dataclasses.replace(
            self,
            boxes=self.boxes[which],
            classes=self.classes[which],
            ignore=self.ignore[which],
            ellipses=None if self.ellipses is None else self.ellipses[which],
            attributes=attributes and {name: value[which] for name, value in attributes.items()},
            areas=None if self.areas is None else self.areas[which],
        )

    @property
    def object_areas(self) -> np.ndarray:
        """`[N]` float64: `areas`, or the area of the box if none is stated; 0 for boxes without area."""
        of_boxes = np.maximum(self.boxes[:, 2:] - self.boxes[:, :2], 0).prod(axis=1)
        return (
            of_boxes if self.areas is None else np.where(np.isnan(self.areas), of_boxes, self.areas)
        )

    @property
    def where(self) -> str:
        """The place of the image for messages: its file, or its name, or both if it is a part of a file."""
        if isinstance(self.image, Part):
            return f"{self.image.path}: {self.name}"
        return self.name if isinstance(self.image, bytes) else str(self.image)

    def encoded(self, max_pixels: int = MAX_PIXELS) -> bytes:
        """The encoded image. Raises `OSError` if its file cannot be read, and the errors of `images.read_file`."""
        if isinstance(self.image, Part):
            return self.image.read()
        if isinstance(self.image, bytes):
            return self.image
        return images.read_file(self.image, max_pixels)


@dataclasses.dataclass(frozen=True, eq=False)
class Detections:
    """The objects found in one image, best first.

    Lists become arrays. Two `Detections` are equal if all their values are equal. Since arrays can be
    changed, they have no hash.

    Attributes:
        boxes: `xyxy` `[K, 4]` float32, in pixels of the image and cut to it. Arrays of float64 stay
            float64, so that the numbers in the file of another detector are kept.
        scores: `[K]` float32 from 0 to 1, or float64.
        classes: `[K]` int32.
        image_size: height and width of the image, in pixels.
    """

    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray
    image_size: tuple[int, int]

    def __post_init__(self) -> None:
        boxes, scores = _floats(self.boxes, "boxes"), _floats(self.scores, "scores")
        classes = _int32(self.classes)
        if not boxes.size and boxes.ndim == 1:
            boxes = boxes.reshape(0, 4)
        count = len(scores) if scores.ndim == 1 else -1
        if boxes.shape != (count, 4) or classes.shape != (count,):
            raise ValueError(
                "Expected boxes [K, 4], and K scores and classes. Received shapes: "
                f"{list(boxes.shape)}, {list(scores.shape)} and {list(classes.shape)}"
            )
        if not (np.isfinite(boxes).all() and np.isfinite(scores).all()):
            raise ValueError(
                "Expected boxes and scores of finite numbers. Received NaN or infinity"
            )
        changes = (boxes, scores, classes, _checked_size(self.image_size))
        for name, value in zip(("boxes", "scores", "classes", "image_size"), changes, strict=True):
            object.__setattr__(self, name, value)

    def __eq__(self, other: object) -> bool:
        if type(other) is not Detections:
            return NotImplemented
        return self.image_size == other.image_size and all(
            _equal(getattr(self, name), getattr(other, name))
            for name in ("boxes", "scores", "classes")
        )

    __hash__ = None  # type: ignore[assignment]  # arrays can be changed

    def __len__(self) -> int:
        return len(self.scores)

    def above(self, score_threshold: float) -> Detections:
        """Only the detections whose score is at least `score_threshold`."""
        return self.select(self.scores >= score_threshold)

    def select(self, keep: np.ndarray) -> Detections:
        """Only the detections at `keep`, a mask `[K]` or indices, in their order."""
        return dataclasses.replace(
            self, boxes=self.boxes[keep], scores=self.scores[keep], classes=self.classes[keep]
        )

    def rectangles(self) -> np.ndarray:
        """Rows `x y w h score` `[K, 5]` float64."""
        boxes = self.boxes.astype(np.float64)
        sides = boxes[:, 2:] - boxes[:, :2]
        return np.concatenate([boxes[:, :2], sides, self.scores[:, None]], axis=1)

    def to_coco(
        self,
        file_name: str | os.PathLike[str] | None = None,
        image_id: int | str | None = None,
        category_ids: Mapping[int, int] | None = None,
        class_names: Sequence[str] = (),
    ) -> list[dict[str, Any]]:
        """COCO's results: one dict for each detection, ready for `json.dump`. Lists of several images may be joined.

        Args:
            file_name: the image's file name, a text or a path; left out if None.
            image_id: the image's id in COCO's annotations, which pycocotools needs; left out if None.
            category_ids: COCO's number of each class; None numbers the classes from 1 in their order.
            class_names: the names of the classes. Each row then has its `category_name`, by which
                `evaluate` finds the class, whatever its number is. Without names it is left out.

        Raises:
            ValueError: neither `file_name` nor `image_id` is given, so the rows would name no image; an id
                has another type; or a class has no id or no name.
        """
        if file_name is None and image_id is None:
            raise ValueError("Expected file_name or image_id. Received neither")
        return coco_rows(
            file_name, self.rectangles(), self.classes, image_id, category_ids, class_names
        )

    def to_csv(
        self, class_names: Sequence[str] = (), image: str | None = None, header: bool = True
    ) -> str:
        """A table `image,x0,y0,x1,y1,class,score`, one line for each detection, with every number to its last bit.

        Args:
            class_names: names for the column `class`; without them it has the numbers of the classes.
            image: the image's name; None leaves this column out.
            header: True names the columns in the first line. Tables of several images may be joined if
                only the first has this line.

        Raises:
            ValueError: the class of a detection has no name.
        """
        columns = self._columns(class_names, image)
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        if header:
            table.writerow(columns)
        # Python's floats: their digits give the same number in single and in double precision.
        values = [np.asarray(column).tolist() for column in columns.values()]
        table.writerows(zip(*values, strict=True))
        return text.getvalue()

    def to_pandas(
        self, class_names: Sequence[str] = (), image: str | None = None
    ) -> pandas.DataFrame:
        """A `pandas.DataFrame` with the columns of `to_csv`. Arguments and errors are the same.

        Raises:
            ImportError: pandas is not installed.
        """
        return optional.load("pandas", "pandas", "Detections.to_pandas").DataFrame(
            self._columns(class_names, image)
        )

    def to_supervision(self, class_names: Sequence[str] = ()) -> supervision.Detections:
        """`Detections` of the library supervision. Class names, if given, are in `data["class_name"]`.

        Raises:
            ImportError: supervision is not installed.
            ValueError: the class of a detection has no name.
        """
        names = {"class_name": self._names(class_names)} if class_names else {}
        return optional.load("supervision", "supervision", "Detections.to_supervision").Detections(
            xyxy=self.boxes.copy(),
            confidence=self.scores.copy(),
            class_id=self.classes.astype(int),
            data=names,
        )

    def _columns(self, class_names: Sequence[str], image: str | None) -> dict[str, Any]:
        return {
            **({} if image is None else {"image": [image] * len(self)}),
            **dict(zip(("x0", "y0", "x1", "y1"), self.boxes.T, strict=True)),
            "class": self._names(class_names) if class_names else self.classes,
            "score": self.scores,
        }

    def _names(self, class_names: Sequence[str]) -> np.ndarray:
        """The class name of each detection, `[K]`."""
        if len(self) and self.classes.max() >= len(class_names):
            raise ValueError(
                f"Expected a name for each class up to {self.classes.max()}. "
                f"Received: {list(class_names)}"
            )
        return np.array(class_names)[self.classes]


def coco_rows(
    file_name: str | os.PathLike[str] | None,
    rows: np.ndarray,
    classes: np.ndarray,
    image_id: int | str | None = None,
    category_ids: Mapping[int, int] | None = None,
    class_names: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """COCO's results of one image: `image_id`, `file_name`, `category_id`, `category_name`, `bbox`, `score`.

    Args:
        file_name: the image's file name; left out if None. A path is written with slashes.
        rows: `x y w h score` `[K, 5]` in pixels of the image, written without changes.
        classes: `[K]`, from 0.
        image_id: the image's id; left out if None.
        category_ids: the number of each class; None numbers the classes from 1 in their order.
        class_names: the names of the classes; the category's name is left out without them.

    Raises:
        ValueError: an id is no number or text, or a class has no id or no name.
    """
    known: dict[str, Any] = {}
    if image_id is not None:
        known["image_id"] = _plain_id(image_id, "image_id")
    if file_name is not None:
        path = isinstance(file_name, os.PathLike)
        known["file_name"] = Path(file_name).as_posix() if path else str(file_name)
    categories = {
        label: _category(label, category_ids, class_names) for label in set(classes.tolist())
    }
    return [
        {**known, **categories[label], "bbox": row[:4], "score": row[4]}
        for row, label in zip(rows.tolist(), classes.tolist(), strict=True)
    ]


def _category(
    label: int, category_ids: Mapping[int, int] | None, class_names: Sequence[str]
) -> dict[str, Any]:
    """The id and, if it is known, the name of a class in COCO's results."""
    if category_ids is not None and label not in category_ids:
        raise ValueError(
            f"Expected category_ids with a number for the class {label}. Received: {dict(category_ids)}"
        )
    number = label + 1 if category_ids is None else category_ids[label]
    category: dict[str, Any] = {"category_id": _plain_id(number, "category_ids")}
    if len(class_names):
        if label >= len(class_names):
            raise ValueError(
                f"Expected a name for each class up to {label}. Received: {list(class_names)}"
            )
        category["category_name"] = str(class_names[label])
    return category


def _plain_id(value: Any, argument: str) -> int | str:
    """An id as Python's integer or text, which json can hold."""
    if isinstance(value, str):
        return str(value)  # also NumPy's text
    try:
        return operator.index(value)
    except TypeError:
        raise ValueError(
            f"Expected {argument} as whole numbers or texts. Received: {value!r:.200}"
        ) from None


def _equal(one: np.ndarray | None, other: np.ndarray | None) -> bool:
    """True if both have the same values (NaN equals NaN), or both are None."""
    if one is None or other is None:
        return one is other
    return np.array_equal(one, other, equal_nan=one.dtype.kind == "f")


def _floats(values: Any, name: str) -> np.ndarray:
    """`values` as float32. Arrays of float64 stay as they are."""
    if isinstance(values, np.ndarray) and values.dtype in (np.float32, np.float64):
        return values
    try:
        return np.asarray(values, np.float32)
    except (TypeError, ValueError) as error:
        raise ValueError(f"Expected {name} as an array of numbers. Received: {error}") from error


def _doubles(values: Any) -> np.ndarray:
    try:
        return np.asarray(values, np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"Expected numbers. Received: {error}") from error


def _int32(values: Any, what: str = "classes") -> np.ndarray:
    """`values` as int32. Raises `ValueError` if one is no whole number."""
    if isinstance(values, np.ndarray) and values.dtype == np.int32:
        return values
    return _exactly(values, np.int32, f"{what} as whole numbers")


def _bools(values: Any) -> np.ndarray:
    """`values` as bool. Raises `ValueError` if one is neither a bool nor 0 or 1."""
    if isinstance(values, np.ndarray) and values.dtype == np.bool_:
        return values
    return _exactly(values, np.bool_, "ignore as True or False")


def _exactly(values: Any, dtype: Any, expected: str) -> np.ndarray:
    """`values` in another type. Raises `ValueError` if that changes a value."""
    try:
        given = np.asarray(values)
        with np.errstate(invalid="ignore"):  # NaN is refused below
            changed = given.astype(dtype)
        same = np.array_equal(given, changed)
    except (TypeError, ValueError) as error:
        raise ValueError(f"Expected {expected}. Received: {error}") from error
    if not same:
        raise ValueError(f"Expected {expected}. Received: {given.tolist()!r:.200}")
    return changed


def _checked_size(size: Any, where: str = "") -> tuple[int, int]:
    """Height and width as Python's integers."""
    try:
        height, width = map(operator.index, size)
        if min(height, width) > 0:
            return height, width
    except (TypeError, ValueError):
        pass
    raise ValueError(
        f"{where}{'e' if where else 'E'}xpected a height and width above 0, in whole pixels, received {size!r}"
    )
