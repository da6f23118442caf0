"""Images with boxes in COCO's object detection json (Lin et al., ECCV 2014).

    instances.json                 annotations/instances_val2017.json
    images/1.jpg ...               val2017/000000000139.jpg ...

`coco_layouts` has all layouts that are known. Boxes are `x y w h`. An object without a box has the box of
its `segmentation`: polygons, or a mask. An annotation with `"iscrowd": 1` or `"ignore": 1` is kept
and ignored. Classes are numbered by ascending category id. Keypoints are not read.
"""

from __future__ import annotations

import functools
import itertools
import json
import math
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from unitbox_tf import limits
from unitbox_tf.datasets import checks, coco_layouts, json_files, lists, names, outlines, writing
from unitbox_tf.datasets.base import DataSet, Format, Ids
from unitbox_tf.problems import Problems
from unitbox_tf.records import Annotation

MALFORMED = "malformed annotation"
LIMIT = outlines.LARGEST_NUMBER
NUMBERS = frozenset({int, float})
FAR = 1.05  # a box leaves its image if an edge is beyond this multiple of the image's side


class _Object(NamedTuple):
    image: Any
    category: Any
    box: tuple[float, float, float, float]  # x y w h, the latter two from 0
    ignore: bool
    area: float | None  # None if it is not stated, NaN if the stated value is unusable


class _Unreadable(NamedTuple):
    """An object that cannot be read, but may name its image and its category."""

    image: Any
    category: Any
    message: str


class _Image(NamedTuple):
    """An image: its name (None if it cannot be used), and its height and width if they are stated."""

    name: str | None
    size: tuple[int, int] | None


class _Category(NamedTuple):
    id: int | str
    name: str
    above: Any  # the supercategory


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


class _Numbers:
    """Finds what has an id, also if the id is a text here and a number there.

    If no id is the same, an id of the same whole number is meant, or a name, if there is only one.

    Attributes:
        exact: the index of each id.
    """

    def __init__(self, ids: Sequence[int | str], names: Iterable[tuple[str, int]] = ()) -> None:
        """`names` are names that may stand in the place of ids, each with the index of what has it."""
        self.exact = {id: index for index, id in enumerate(ids)}
        self._names = names
        self._whole: dict[int, int | None] = {}
        for index, id in enumerate(ids):
            number = outlines.whole(id)
            if number is not None:
                self._whole[number] = None if number in self._whole else index

    @functools.cached_property
    def _named(self) -> dict[str, set[int]]:
        """The indices by name. Most files need none, so that they are made when one is needed."""
        found: dict[str, set[int]] = {}
        for name, index in self._names:
            found.setdefault(name, set()).add(index)
        return found

    def find(self, id: int | str | None) -> int | None:
        """The index of the id; None if it is unknown, or may mean several."""
        found = self.meanings(id)
        return next(iter(found)) if len(found) == 1 else None

    def meanings(self, id: int | str | None) -> set[int]:
        """The indices that the id may mean."""
        if id is None or id in self.exact:
            return set() if id is None else {self.exact[id]}
        number = outlines.whole(id)
        same = None if number is None else self._whole.get(number)
        named = self._named.get(id, set()) if isinstance(id, str) else set()
        return named | (set() if same is None else {same})


class Coco(DataSet):
    """The json file `root`, or the one that `split` names, or the only one in the folder `root`."""

    def __init__(self, root: Path, split: str) -> None:
        """Parses the file.

        Raises:
            ValueError: it is not COCO's json, or two images or two categories have one id.
        """
        self._path = coco_layouts.json_file(root, split)
        self._places = coco_layouts.photo_folders(self._path, root, split)
        self._problems = Problems(logged=False)  # found while parsing
        content = _content(self._path)
        categories = _categories(self._path, content["categories"])
        self._images = self._read_images(content["images"])
        self._left_out: set[int] = set()  # images with an object that cannot be read
        objects, used = self._read_objects(content["annotations"], categories)
        self._class_names, self._classes = self._named(categories, used)
        lookup = np.array([self._classes.get(each.id, -1) for each in categories], np.int32)
        self._objects = _sorted(objects, lookup, len(self._images))
        self._leave_out_crowded()
        _check_edges(self._path, self._objects, list(self._images.values()), self._problems)

    def class_names(self) -> tuple[str, ...]:
        """The names of the categories, by ascending id. Categories of one name are one class.

        A supercategory of all others that no object has, as Roboflow writes it, is no class.
        """
        return self._class_names

    def ids(self) -> Ids:
        """The ids of images and categories. An image that is listed twice has two ids."""
        files = self._files(False, Problems(logged=False))
        named = {id: name for id, (_, name) in zip(self._images, files, strict=True) if name}
        return Ids(named, self._classes)

    def annotations(
        self, *, photos: bool = True, problems: Problems | None = None
    ) -> Iterator[Annotation]:
        """The images in the order of the file. Their arrays cannot be written to: they share memory."""
        problems = Problems.of(problems)
        problems.add_all(self._problems.found)
        files = self._files(photos, problems)
        same: dict[Path, list[int]] = {}
        for index, (path, _) in enumerate(files):
            if path is not None:
                same.setdefault(path, []).append(index)
        ids, images = list(self._images), list(self._images.values())
        for path, indices in same.items():
            sizes = {images[index].size for index in indices} - {None}
            if len(sizes) > 1:
                message = (
                    f"expected one size, the file is listed with {sorted(filter(None, sizes))}"
                )
                problems.add(checks.TWICE, str(path), f"{message}: the image is left out")
            own = sorted({str(images[index].name) for index in indices})
            alike = names.in_capitals(own)
            if alike:
                message = f"expected an image of its own for each of {own}: the image is left out"
                problems.add(checks.TWICE, str(path), message)
            if alike or len(sizes) > 1 or not self._left_out.isdisjoint(indices):
                continue
            for index in indices[1:]:
                message = f"has the file of the id {ids[indices[0]]!r}: their objects are joined"
                problems.add(
                    checks.TWICE, f"{self._path}: image with the id {ids[index]!r}", message
                )
            name = files[indices[0]][1]
            yield lists.joined(
                [self._annotation(i, images[i].size, path, name, problems) for i in indices]
            )

    def _annotation(
        self, index: int, size: tuple[int, int] | None, path: Path, name: str, problems: Problems
    ) -> Annotation:
        """The image at `index`, which has the file `path`, and its objects."""
        objects = self._objects
        own = slice(int(objects.ends[index - 1]) if index else 0, int(objects.ends[index]))
        boxes, classes, areas = objects.boxes[own], objects.classes[own], objects.areas[own]
        places = [f"{self._path}: annotations[{i}]" for i in objects.places[own].tolist()]
        ignore = checks.ignored(boxes, objects.ignore[own], places, size, problems=problems)
        known = None if np.isnan(areas).all() else areas
        return Annotation(name, path, boxes, classes, ignore, size=size, areas=known)

    def _files(self, needed: bool, problems: Problems) -> list[tuple[Path | None, str]]:
        """The file of each image, and its name. An image that cannot be used has neither."""
        (first, *others), root = self._places
        photos = checks.Photos(first, others=others, root=root, needed=needed, problems=problems)
        listed = [
            (image.name, f"{self._path}: image {image.name!r}")
            for image in self._images.values()
            if image.name is not None
        ]
        found = iter(photos.find_all(listed))
        paths = [next(found) if image.name is not None else None for image in self._images.values()]
        return [(path, photos.below(path) if path else "") for path in paths]

    def _read_images(self, images: list[Any]) -> dict[int | str, _Image]:
        """The images by id. Unusable ones are reported as problems."""
        known: dict[int | str, _Image] = {}
        for index, image in enumerate(images):
            where = f"{self._path}: images[{index}]"
            id = _id(image.get("id")) if isinstance(image, dict) else None
            name = image.get("file_name") if isinstance(image, dict) else None
            if id is None or not isinstance(name, str):
                message = f"expected an id and a file_name, received {checks.shown(image)}"
                self._problems.add("malformed image", where, f"{message}: the image is left out")
                name = None
            if id is None:
                continue
            if id in known and known[id].name != name:
                raise ValueError(
                    f"{where}: expected an id of its own for {name!r:.200}: {known[id].name!r:.200} has "
                    f"the id {id!r}, too, so nobody knows which objects belong to which image"
                )
            if id not in known:
                known[id] = _Image(name, outlines.size(image.get("height"), image.get("width")))
        return known

    def _read_objects(
        self, items: list[Any], categories: Sequence[_Category]
    ) -> tuple[list[array[Any]], set[int]]:
        """The columns of `_Objects` in the order of the file, with images before them; and the categories in use.

        `items` is emptied on the way, so that memory holds few objects twice.
        """
        images = _Numbers(list(self._images), self._names_for_ids())
        labels = _Numbers([category.id for category in categories])
        columns: list[array[Any]] = [array(code) for code in "qqdibd"]
        belongs, places, boxes, classes, ignore, areas = columns
        used: set[int] = set()
        first = items[0] if items else None
        for index, item in enumerate(items):
            items[index] = None
            if not isinstance(item, _Object):
                self._leave_out(item, index, images, labels, used)
                continue
            image = images.exact.get(item.image)
            label = labels.exact.get(item.category)
            if image is None or label is None:
                image, label = images.find(item.image), labels.find(item.category)
                if image is None or label is None:
                    self._leave_out(item, index, images, labels, used)
                    continue
            used.add(label)
            belongs.append(image)
            places.append(index)
            boxes.extend(item.box)
            classes.append(label)
            ignore.append(item.ignore)
            areas.append(math.nan if item.area is None else item.area)
            if item.area is not None and math.isnan(item.area):
                message = "expected an area from 0; the area of its box is taken"
                self._problems.add("malformed area", f"{self._path}: annotations[{index}]", message)
        if items and self._images and not (belongs or self._left_out):
            stated = getattr(first, "image", None)
            raise ValueError(
                f"{self._path}: expected the ids of images as image_id, such as "
                f"{', '.join(map(repr, list(self._images)[:3]))}. None of the {len(items)} annotations has "
                f"one; the first has {checks.shown(stated)}"
            )
        return columns, used

    def _names_for_ids(self) -> Iterator[tuple[str, int]]:
        """The names of files that scripts write as image_id instead of the id, also without their suffix."""
        for index, image in enumerate(self._images.values()):
            if image.name is not None:
                last = image.name.replace("\\", "/").rpartition("/")[2]
                for name in {image.name, last, checks.without_suffix(last)}:
                    yield name, index

    def _leave_out(
        self, item: Any, index: int, images: _Numbers, labels: _Numbers, used: set[int]
    ) -> None:
        """Reports an object that cannot be used, and leaves its image out, if the object names it."""
        where = f"{self._path}: annotations[{index}]"
        named = isinstance(item, _Object | _Unreadable)
        image = images.find(item.image) if named else None
        label = labels.find(item.category) if named else None
        if label is not None:
            used.add(label)
        several = images.meanings(item.image) if named and image is None else ()
        if several:
            names = [list(self._images.values())[i].name for i in sorted(several)[:3]]
            raise ValueError(
                f"{where}: expected an image_id of one image, received {checks.shown(item.image)}, which may mean "
                f"{names}: write the ids of images"
            )
        if image is None:
            received = repr(item.image) if named else f"{checks.shown(item)}"
            message = f"expected the image_id of an image, received {received}: belongs to no image"
            self._problems.add(MALFORMED, where, f"{message}, and is not used")
            return
        self._left_out.add(image)
        if isinstance(item, _Unreadable):
            message = item.message
        else:
            known = ", ".join(map(repr, itertools.islice(labels.exact, 20)))
            message = f"expected the category_id of a category ({known}), received {checks.shown(item.category)}"
        checks.unreadable(self._problems, where, message)

    def _leave_out_crowded(self) -> None:
        """Reports images with more objects than `limits` allow, and leaves them out."""
        counts = np.diff(self._objects.ends, prepend=0)
        for index in np.flatnonzero(counts > limits.MAX_OBJECTS).tolist():
            self._left_out.add(index)
            message = f"expected at most {limits.MAX_OBJECTS:,} objects in an image, received {counts[index]:,}"
            where = f"{self._path}: image with the id {next(itertools.islice(self._images, index, None))!r}"
            checks.unreadable(self._problems, where, message)

    def _named(
        self, categories: Sequence[_Category], used: set[int]
    ) -> tuple[tuple[str, ...], dict[Any, int]]:
        """The names of the classes, and the class of each category that is one."""
        names: dict[str, int] = {}
        classes: dict[Any, int] = {}
        above = Counter(each.above for each in categories if isinstance(each.above, str))
        for index, category in enumerate(categories):
            others = above[category.name] - (category.above == category.name)
            if 0 < others == len(categories) - 1 and index not in used:
                continue
            if category.name in names:
                message = f"{category.name!r} is the name of several categories: they are one class"
                self._problems.add("categories of one name", f"{self._path}: categories", message)
            classes[category.id] = names.setdefault(category.name, len(names))
        return tuple(names), classes


def _sorted(columns: Sequence[array[Any]], lookup: np.ndarray, num_images: int) -> _Objects:
    """The objects sorted by image. `lookup` has the class of each category, by its index."""
    kinds = (np.int64, np.int64, np.float64, np.int32, np.bool_, np.float64)
    arrays: list[np.ndarray] = list(map(np.array, columns, kinds))
    images, places, boxes, classes, ignore, areas = arrays
    order = np.argsort(images, kind="stable")
    corners = boxes.reshape(-1, 4)[order]
    corners[:, 2:] += corners[:, :2]
    ends = np.cumsum(np.bincount(images, minlength=num_images))
    sorted_ = _Objects(
        ends, places[order], corners, lookup[classes[order]], ignore[order], areas[order]
    )
    for column in sorted_:
        column.flags.writeable = False  # annotations are views
    return sorted_


def _check_edges(
    path: Path, objects: _Objects, images: Sequence[_Image], problems: Problems
) -> None:
    """Reports if most boxes leave their images: their numbers are corners, or are of larger images."""
    nothing = (math.nan, math.nan)
    sides = np.array([(image.size or nothing)[::-1] for image in images]).reshape(-1, 2)
    limits = np.repeat(sides, np.diff(objects.ends, prepend=0), axis=0) * FAR
    chosen = ~objects.ignore & ~np.isnan(limits[:, :1]).any(axis=1)
    limits, first, last = limits[chosen], objects.boxes[chosen, :2], objects.boxes[chosen, 2:]
    beyond = np.any(last > limits, axis=1)
    count, total = int(beyond.sum()), len(limits)
    if count * 2 <= total:
        return
    corners = ((last - first > first) & (last - first <= limits)).all(axis=1)
    reason = (
        "they look like the corners x0 y0 x1 y1"
        if corners.mean() > 0.9
        else "were they drawn on larger images?"
    )
    message = f"{count} of {total} boxes end beyond their images: expected x y width height; "
    problems.add(checks.LEAVE, f"{path}: annotations", message + reason)


def _content(path: Path) -> dict[str, Any]:
    """The content of the json file, with an `_Object` or an `_Unreadable` in place of each annotation."""
    # Objects are made small while they are read: polygons would take many times the memory.
    content = json_files.read(path, _object)
    expected = ("images", "annotations", "categories")
    if not isinstance(content, dict) or not all(isinstance(content.get(k), list) for k in expected):
        raise ValueError(f"{path}: expected COCO's images, annotations and categories")
    return content


def _object(item: dict[str, Any]) -> Any:
    """A json object. An annotation becomes an `_Object` or an `_Unreadable`; anything else stays as it is."""
    # Some tools give images an image_id, and some give objects a file_name.
    is_image = "file_name" in item and item.keys().isdisjoint(("bbox", "category_id"))
    if is_image or item.keys().isdisjoint(("image_id", "bbox")):
        item.pop("segmentation", None)
        return item
    image, category = _id(item.get("image_id")), _id(item.get("category_id"))
    if category is None:
        message = f"expected a category_id, received {checks.shown(item.get('category_id'))}"
        return _Unreadable(image, None, message)
    box = _box(item)
    if box is None:
        received = f"{checks.shown(item.get('bbox'))} and {checks.shown(item.get('segmentation'))}"
        message = "expected a bbox of 4 finite numbers, or a segmentation that is one, received "
        return _Unreadable(image, category, message + received)
    ignore, crowd = item.get("ignore", 0), item.get("iscrowd", 0)
    if type(ignore) is not int or type(crowd) is not int:
        ignore, crowd = outlines.flag(ignore), outlines.flag(crowd)
        if ignore is None or crowd is None:
            received = f"{checks.shown(item.get('iscrowd'))} and {checks.shown(item.get('ignore'))}"
            message = f"expected an iscrowd and ignore of 0 or 1, received {received}"
            return _Unreadable(image, category, message)
    area = item.get("area")
    if area is not None and (type(area) is not float or not 0 <= area <= LIMIT):
        area = outlines.number(area)
        area = math.nan if area is None or area < 0 else area
    if not (ignore or crowd) and min(box[2:]) < 0:  # corners that were swapped
        x, y, width, height = box
        box = min(x, x + width), min(y, y + height), abs(width), abs(height)
    return _Object(image, category, box, bool(ignore or crowd), area)


def _id(value: Any) -> int | str | None:
    """An id, whole numbers as such; None if it is none."""
    return value if type(value) in (int, str) else outlines.whole(value)


def _box(item: dict[str, Any]) -> tuple[float, float, float, float] | None:
    """The box `x y w h` of an annotation: its `bbox`, or that of its `segmentation` if it has no usable one."""
    box = item.get("bbox")
    if type(box) is list and len(box) == 4:  # nearly always; this takes half the time
        x, y, width, height = box
        if {type(x), type(y), type(width), type(height)} <= NUMBERS:
            inside = -LIMIT <= x <= LIMIT and -LIMIT <= y <= LIMIT
            if inside and 0 < width <= LIMIT and 0 < height <= LIMIT:
                return x, y, width, height
    try:
        values = outlines.numbers(box) or []
        around = outlines.box_of(item.get("segmentation"))
    except RecursionError:
        return None
    usable = len(values) == 4
    if usable and values[2] > 0 and values[3] > 0:
        return tuple(values)  # type: ignore[return-value]
    if around and (around.has_area or not usable):
        return around.x0, around.y0, around.x1 - around.x0, around.y1 - around.y0
    if not usable:
        return None
    x, y, width, height = values
    return x, y, width, height


def _categories(path: Path, items: Sequence[Any]) -> list[_Category]:
    """The categories by ascending id. Raises `ValueError` if one has no id, or two have the same."""
    found: dict[int | str, _Category] = {}
    for item in items:
        id = _id(item.get("id")) if isinstance(item, dict) else None
        if id is None:
            raise ValueError(f"{path}: expected categories with ids, received {checks.shown(item)}")
        stated = item.get("name")
        name = "" if stated is None else str(stated).strip()  # 0 is a name, too
        if id in found and found[id].name != (name or str(id)):
            raise ValueError(
                f"{path}: expected an id of its own for the category {name!r}: {found[id].name!r} has the "
                f"id {id!r}, too, so nobody knows which objects are which"
            )
        found[id] = _Category(id, name or str(id), item.get("supercategory"))
    # Whole numbers first: they cannot be compared with texts.
    ids = sorted(
        found, key=lambda id: (isinstance(id, str), 0 if isinstance(id, str) else id, str(id))
    )
    return [found[id] for id in ids]


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
