"""A folder of images with boxes in COCO's object detection json (Lin et al., ECCV 2014).

Two layouts are known: a json file with its images beside it or in `images`, and COCO's own:

    instances.json                 annotations/instances_val2017.json
    images/1.jpg ...               val2017/000000000139.jpg ...

Boxes are `x y w h`. An annotation with `"iscrowd": 1` or `"ignore": 1` is kept and ignored. Classes
are numbered by ascending category id. Segmentations and keypoints are not read.
"""

from __future__ import annotations

import json
import math
from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from unitbox_tf.datasets import checks, writing
from unitbox_tf.datasets.base import DataSet, Format, Ids
from unitbox_tf.problems import Problems
from unitbox_tf.records import Annotation

MALFORMED = "malformed annotation"


class _Object(NamedTuple):
    image: Any
    category: Any
    box: tuple[float, float, float, float]  # x y w h
    ignore: bool
    area: float | None  # None if it is not stated, NaN if the stated value is unusable


class _Image(NamedTuple):
    """An image: its name, and its height and width if they are stated."""

    name: str
    size: tuple[int, int] | None


class _Objects(NamedTuple):
    """The objects of all images. The objects of one image are neighbours, in the order of the file.

    Attributes:
        ends: the index after the last object of each image. The objects of the next image begin there.
        places: the index of each object in the file.
        boxes: `xyxy` `[N, 4]` float64.
        classes: `[N]` int32.
        ignore: `[N]` bool.
        areas: `[N]` float64; NaN where none is stated.
    """

    ends: np.ndarray
    places: np.ndarray
    boxes: np.ndarray
    classes: np.ndarray
    ignore: np.ndarray
    areas: np.ndarray


class Coco(DataSet):
    """The json file `root`, or the one that `split` names, or the only one in the folder `root`."""

    def __init__(self, root: Path, split: str) -> None:
        """Parses the file. Raises `ValueError` if it is not COCO's json."""
        self._path, content = _content(root, split)
        self._split = split
        self._problems = Problems(logged=False)  # found while parsing
        categories = _categories(self._path, content)
        self._class_names = tuple(str(category.get("name", id)) for id, category in categories)
        self._classes = {id: index for index, (id, _) in enumerate(categories)}
        self._images = self._read_images(content["images"])
        self._objects = self._read_objects(content["annotations"])

    def class_names(self) -> tuple[str, ...]:
        """The names of the categories, by ascending id."""
        return self._class_names

    def ids(self) -> Ids:
        """The ids of images and categories. An image that is listed twice has the first id."""
        by_name: dict[str, Any] = {}
        for id, image in self._images.items():
            by_name.setdefault(image.name, id)
        return Ids({id: name for name, id in by_name.items()}, self._classes)

    def annotations(
        self, *, photos: bool = True, problems: Problems | None = None
    ) -> Iterator[Annotation]:
        """The images in the order of the file. Their arrays cannot be written to: they share memory."""
        problems = Problems.of(problems)
        problems.add_all(self._problems.found)
        beside, split = self._path.parent, self._split
        candidates = [beside / "images", beside.parent / split if split else beside, beside]
        folder = next(folder for folder in candidates if folder.is_dir())
        found = checks.Photos(folder, needed=photos, problems=problems)
        objects, begin = self._objects, 0
        for (name, size), end in zip(self._images.values(), objects.ends.tolist(), strict=True):
            those = slice(begin, end)
            begin = end
            boxes, areas = objects.boxes[those], objects.areas[those]
            places = [f"{self._path}: annotations[{i}]" for i in objects.places[those].tolist()]
            ignore = checks.ignored(boxes, objects.ignore[those], places, size, problems=problems)
            photo = found.find(name, f"{self._path}: image {name!r}")
            if photo is not None:
                known = None if np.isnan(areas).all() else areas
                labels = objects.classes[those]
                yield Annotation(name, photo, boxes, labels, ignore, size=size, areas=known)

    def _read_images(self, images: list[Any]) -> dict[Any, _Image]:
        """The usable images by id. Unusable ones are reported as problems."""
        known: dict[Any, _Image] = {}
        for index, image in enumerate(images):
            where = f"{self._path}: images[{index}]"
            try:
                key, name = image["id"], image["file_name"]
                if not isinstance(name, str):
                    raise TypeError(f"expected a file_name, received {name!r}")
                if key in known:
                    message = f"id {key!r} is that of {known[key].name!r} already, which is kept"
                    self._problems.add(checks.TWICE, where, message)
                    continue
                height, width = image.get("height"), image.get("width")
                stated = type(height) is int and type(width) is int and min(height, width) > 0
                known[key] = _Image(name, (height, width) if stated else None)
            except (KeyError, TypeError, AttributeError) as error:
                message = f"{error!r} in {str(image)[:200]}"
                self._problems.add("malformed image", where, message)
        return known

    def _read_objects(self, items: list[Any]) -> _Objects:
        """The objects as arrays. `items` is emptied on the way, so that memory holds few objects twice."""
        order = {id: index for index, id in enumerate(self._images)}
        images, places, classes = array("q"), array("q"), array("i")
        boxes, ignore, areas = array("d"), array("b"), array("d")
        for index, item in enumerate(items):
            items[index] = None
            if self._is_usable(item, f"{self._path}: annotations[{index}]"):
                images.append(order[item.image])
                places.append(index)
                classes.append(self._classes[item.category])
                boxes.extend(item.box)
                ignore.append(item.ignore)
                areas.append(math.nan if item.area is None else item.area)
        by_image = np.argsort(np.array(images, np.int64), kind="stable")
        corners = np.array(boxes, np.float64).reshape(-1, 4)[by_image]
        corners[:, 2:] += corners[:, :2]
        ends = np.cumsum(np.bincount(np.array(images, np.int64), minlength=len(order)))
        columns = (
            np.array(places, np.int64)[by_image],
            corners,
            np.array(classes, np.int32)[by_image],
            np.array(ignore, np.bool_)[by_image],
            np.array(areas, np.float64)[by_image],
        )
        for column in columns:
            column.flags.writeable = False  # annotations are views
        return _Objects(ends, *columns)

    def _is_usable(self, item: Any, where: str) -> bool:
        """True if it is an object of a known image and category. If not, this is reported as a problem."""
        if not isinstance(item, _Object):
            message = f"expected image_id, category_id and bbox of 4 finite numbers: {item!r:.200}"
            self._problems.add(MALFORMED, where, message)
        elif item.image not in self._images:
            self._problems.add(MALFORMED, where, f"no image has the id {item.image!r}")
        elif item.category not in self._classes:
            self._problems.add(MALFORMED, where, f"no category has the id {item.category!r}")
        else:
            if item.area is not None and math.isnan(item.area):
                message = "expected an area from 0; the area of its box is taken"
                self._problems.add("malformed area", where, message)
            return True
        return False


def _content(root: Path, split: str) -> tuple[Path, dict[str, Any]]:
    """The json file and its content, with an `_Object` in place of each usable annotation."""
    path = checks.file_of(root, split, ".json", [f"annotations/instances_{split}.json"])
    try:
        # Objects are made small while they are read: polygons would take many times the memory.
        content = json.loads(path.read_text(encoding="utf-8-sig"), object_hook=_object)
    except json.JSONDecodeError as error:
        where = f"{path}:{error.lineno}"
        raise ValueError(f"{where}: not valid JSON: {error.msg} at column {error.colno}") from error
    except (ValueError, RecursionError) as error:  # not UTF-8, numbers of 5,000 digits, [[[[...
        raise ValueError(f"{path}: not valid JSON: {error}") from error
    expected = ("images", "annotations", "categories")
    if not isinstance(content, dict) or not all(isinstance(content.get(k), list) for k in expected):
        raise ValueError(f"{path}: expected COCO's images, annotations and categories")
    return path, content


def _object(item: dict[str, Any]) -> Any:
    """A json object. A usable annotation becomes an `_Object`; anything else stays as it is."""
    if "bbox" not in item:
        item.pop("segmentation", None)
        return item
    try:
        image, category, box = item["image_id"], item["category_id"], item["bbox"]
        hash((image, category))
        if all(type(value) in (int, float) for value in box):
            x, y, width, height = map(float, box)
            if math.isfinite(x + y + width + height):
                ignore = bool(item.get("iscrowd", 0)) or bool(item.get("ignore", 0))
                area = item.get("area")
                if area is not None:
                    usable = isinstance(area, int | float) and math.isfinite(area) and area >= 0
                    area = float(area) if usable else math.nan
                return _Object(image, category, (x, y, width, height), ignore, area)
    except (KeyError, TypeError, ValueError, OverflowError):
        pass
    return item


def _categories(path: Path, content: dict[str, Any]) -> list[tuple[Any, dict[str, Any]]]:
    """Ids and categories, by ascending id."""
    try:
        return sorted(((c["id"], c) for c in content["categories"]), key=lambda pair: pair[0])
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path}: expected categories with ids: {error!r}") from error


def write(
    annotations: Iterable[Annotation],
    root: Path,
    split: str,
    class_names: Sequence[str],
    *,
    photos: writing.PhotosAs = "copy",
    problems: Problems | None = None,
) -> writing.Written:
    """Writes `annotations` as `split.json` (`instances.json` if empty) and `images/`.

    Images and categories are numbered from 1. Ignored objects have `"ignore": 1` and
    `"iscrowd": 1`; COCO's own evaluation heeds only the latter.
    """
    stem = writing.usable_split(split or "instances")
    images: list[dict[str, Any]] = []
    objects: list[dict[str, Any]] = []
    holds = ("ignore", "classes", "areas")
    with writing.destination(
        root, class_names, holds=holds, photos=photos, problems=problems
    ) as out:
        for annotation in map(out.held, annotations):
            name = out.photo(annotation, "images")
            if name is None:
                continue
            out.count(annotation)
            size = out.size(annotation)
            stated = {"height": size[0], "width": size[1]} if size else {}
            images.append({"id": len(images) + 1, "file_name": name, **stated})
            boxes = annotation.boxes.copy()
            boxes[:, 2:] -= boxes[:, :2]
            rows = (boxes, annotation.classes, annotation.ignore, annotation.object_areas)
            for box, label, ignore, area in zip(*(row.tolist() for row in rows), strict=True):
                x, y, width, height = map(_rounded, box)
                objects.append(
                    {
                        "id": len(objects) + 1,
                        "image_id": len(images),
                        "category_id": label + 1,
                        "bbox": [x, y, width, height],
                        "area": _rounded(area),
                        "iscrowd": int(ignore),
                        "ignore": int(ignore),
                    }
                )
        categories = [{"id": i, "name": name} for i, name in enumerate(out.class_names, 1)]
        content = {"images": images, "annotations": objects, "categories": categories}
        out.write(f"{stem}.json", json.dumps(content, ensure_ascii=False) + "\n")
    return out.written


def _rounded(value: float) -> float | int:
    """Six decimals; whole numbers without any."""
    value = round(value, 6)
    return int(value) if value.is_integer() else value


FORMAT = Format(Coco, write)
