"""A folder of images with boxes in COCO's object detection json (Lin et al., ECCV 2014).

Two layouts are known: a json file with its images beside it or in `images`, and COCO's own:

    instances.json                 annotations/instances_val2017.json
    images/1.jpg ...               val2017/000000000139.jpg ...

Boxes are `x y w h`. An annotation with `"iscrowd": 1` or `"ignore": 1` is kept and ignored. Classes
are numbered by ascending category id. Segmentations and keypoints are not read.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from unitbox_tf.datasets import checks, writing
from unitbox_tf.problems import Problems
from unitbox_tf.records import Annotation

MALFORMED = "malformed annotation"


class _Object(NamedTuple):
    image: Any
    category: Any
    box: tuple[float, float, float, float]  # x y w h
    ignore: bool
    area: float | None  # None where it is not stated, NaN where that is no area


@dataclasses.dataclass(frozen=True)
class Ids:
    """What the numbers in results stand for: names of images, indices of classes."""

    images: dict[Any, str]
    categories: dict[Any, int]


def class_names(root: Path, split: str) -> tuple[str, ...]:
    """The names of the categories, by ascending id."""
    path, content = _content(root, split, _without_annotation)
    return tuple(str(category.get("name", id)) for id, category in _categories(path, content))


def ids(root: Path, split: str) -> Ids:
    """The ids of images and categories; of those that are listed twice, the first, as `read` has it."""
    path, content = _content(root, split, _without_annotation)
    images: dict[Any, str] = {}
    names: set[str] = set()
    for image in content["images"]:
        with contextlib.suppress(KeyError, TypeError):  # `read` reports it
            if image["id"] not in images and image["file_name"] not in names:
                images[image["id"]] = image["file_name"]
                names.add(image["file_name"])
    categories = {id: index for index, (id, _) in enumerate(_categories(path, content))}
    return Ids(images, categories)


def read(
    root: Path, split: str, problems: Problems, *, photos: bool = True
) -> Iterator[Annotation]:
    """The images of the json file `root`, or of that which `split` names, or of the only one in `root`.

    With `photos`, only images that are present.
    """
    path, content = _content(root, split, _object)
    images, objects = content["images"], content["annotations"]
    classes = {id: index for index, (id, _) in enumerate(_categories(path, content))}
    names: dict[Any, tuple[str, tuple[int, int] | None]] = {}
    for index, image in enumerate(images):
        where = f"{path}: images[{index}]"
        try:
            key, name = image["id"], image["file_name"]
            if not isinstance(name, str):
                raise TypeError(f"expected a file_name, received {name!r}")
            if key in names:
                message = f"id {key!r} is that of {names[key][0]!r} already, which is kept"
                problems.add(checks.TWICE, where, message)
                continue
            height, width = image.get("height"), image.get("width")
            stated = type(height) is int and type(width) is int and min(height, width) > 0
            names[key] = name, (height, width) if stated else None
        except (KeyError, TypeError, AttributeError) as error:
            problems.add("malformed image", where, f"{error!r} in {str(image)[:200]}")

    by_image: dict[Any, list[int]] = defaultdict(list)
    for index, item in enumerate(objects):
        where = f"{path}: annotations[{index}]"
        if not isinstance(item, _Object):
            message = f"expected image_id, category_id and bbox of 4 finite numbers: {item!r:.200}"
            problems.add(MALFORMED, where, message)
        elif item.image not in names:
            problems.add(MALFORMED, where, f"no image has the id {item.image!r}")
        elif item.category not in classes:
            problems.add(MALFORMED, where, f"no category has the id {item.category!r}")
        else:
            by_image[item.image].append(index)

    beside = path.parent
    candidates = [beside / "images", beside.parent / split if split else beside, beside]
    folder = next(folder for folder in candidates if folder.is_dir())
    found = checks.Photos(folder, problems, needed=photos)
    for key, (name, size) in names.items():
        chosen = by_image.pop(key, [])
        rows = [objects[index] for index in chosen]
        boxes = np.array([row.box for row in rows], np.float64).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        places = [f"{path}: annotations[{index}]" for index in chosen]
        ignore = checks.ignored(boxes, [row.ignore for row in rows], places, size, problems)
        photo = found.find(name, f"{path}: image {name!r}")
        if photo is not None:
            labels = [classes[row.category] for row in rows]
            areas = np.array([row.area for row in rows], np.float64)  # NaN for None
            for row, place in zip(rows, places, strict=True):
                if row.area is not None and math.isnan(row.area):
                    message = "expected an area from 0; that of its box is taken"
                    problems.add("malformed area", place, message)
            known = None if np.isnan(areas).all() else areas
            yield Annotation(name, photo, boxes, np.array(labels), ignore, size=size, areas=known)


def _content(
    root: Path, split: str, hook: Callable[[dict[str, Any]], Any]
) -> tuple[Path, dict[str, Any]]:
    """The json file and what is in it, each object as `hook` makes it."""
    path = checks.file_of(root, split, ".json", [f"annotations/instances_{split}.json"])
    try:
        # Objects are made small while they are read: polygons would take many times the memory.
        content = json.loads(path.read_text(encoding="utf-8-sig"), object_hook=hook)
    except json.JSONDecodeError as error:
        where = f"{path}:{error.lineno}"
        raise ValueError(f"{where}: not valid JSON: {error.msg} at column {error.colno}") from error
    except (ValueError, RecursionError) as error:  # not UTF-8, numbers of 5,000 digits, [[[[...
        raise ValueError(f"{path}: not valid JSON: {error}") from error
    expected = ("images", "annotations", "categories")
    if not isinstance(content, dict) or not all(isinstance(content.get(k), list) for k in expected):
        raise ValueError(f"{path}: expected COCO's images, annotations and categories")
    return path, content


def _without_annotation(item: dict[str, Any]) -> dict[str, Any] | None:
    """A json object; None where it is an annotation, which then takes neither time nor memory."""
    return None if "bbox" in item and "image_id" in item else item


def _object(item: dict[str, Any]) -> Any:
    """A json object: an `_Object` where it is an annotation, or what it was where that is malformed."""
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
    problems: Problems,
    *,
    photos: writing.PhotosAs = "copy",
) -> writing.Written:
    """Writes `annotations` as `split.json` (`instances.json` if empty) and `images/`.

    Images and categories are numbered from 1. Objects to be ignored have `"iscrowd": 1`, the only
    flag that COCO's own evaluation heeds, and `"ignore": 1`.
    """
    stem = writing.usable_split(split or "instances")
    images: list[dict[str, Any]] = []
    objects: list[dict[str, Any]] = []
    holds = ("ignore", "classes", "areas")
    with writing.destination(root, class_names, problems, holds=holds, photos=photos) as out:
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
