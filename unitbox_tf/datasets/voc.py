"""Pascal VOC's xml files (Everingham et al., IJCV 2010), one for each image.

Three layouts are known: that of VOC, that of VOC without lists, and xml files beside their images:

    ImageSets/Main/train.txt      annotations/a.xml ...     a.xml
    Annotations/2007_000027.xml   images/a.jpg ...          a.jpg ...
    JPEGImages/2007_000027.jpg

An image has the same name as its xml file. If there is no such image, or several with different suffixes,
`filename` in the xml names it. The objects of two xml files of one image are put together.

Corners are 1-based and inclusive: a box over the first pixel alone is `1 1 1 1` in the file, and
`0 0 1 1` here. So 1 is subtracted from `xmin` and `ymin`. Objects marked difficult are kept and ignored.
An object without `bndbox` has the box of its `polygon` or `robndbox`. An image with an object that cannot
be read is left out.

`labels.txt` (or `classes.txt`) names the classes in their order, one a line. Without such a file, the
classes of all xml files are in alphabetical order, so that all splits agree.
"""

from __future__ import annotations

import math
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import defusedxml.ElementTree
import numpy as np

from unitbox_tf import files, limits
from unitbox_tf.datasets import checks, outlines, writing
from unitbox_tf.datasets.base import DataSet, Format
from unitbox_tf.problems import Problem, Problems
from unitbox_tf.records import Annotation

CORNERS = ("xmin", "ymin", "xmax", "ymax")
FIRST_PIXEL = np.array([1.0, 1.0, 0.0, 0.0])  # the difference of VOC's corners from edges
DIFFICULT = {  # the words for it, in lower case
    **dict.fromkeys(("", "0", "0.0", "false", "no", "unspecified"), False),
    **dict.fromkeys(("1", "1.0", "true", "yes"), True),
}
MARK = re.compile(r"(?<!\s)\s{1,99}-?[01]$")  # of a class, in its list of images
FROM_ZERO = "corners from 0"
TWO_NAMES = "file name of another image"


class _Object(NamedTuple):
    """An object: its place in the file, class name, mark `difficult` as text, and corners as in the file."""

    where: str
    label: str
    difficult: str
    corners: tuple[float, float, float, float]


class _Xml(NamedTuple):
    """The content of an xml file.

    Attributes:
        folder: the folder of the image that the file states.
        filename: the name of the image that the file states.
        size: height and width, if they are stated.
        objects: the objects, as far as they can be read.
        whole: False if there are others.
        names: the class names of all objects, also of those that cannot be read.
        swapped: how many boxes had their corners swapped.
    """

    folder: str
    filename: str
    size: tuple[int, int] | None
    objects: tuple[_Object, ...]
    whole: bool
    names: frozenset[str]
    swapped: int


class Voc(DataSet):
    """The images in the list or the folder `split`. Without a split, all images that have an xml file."""

    def __init__(self, root: Path, split: str) -> None:
        """Parses all xml files if there is no `labels.txt`. Raises `ValueError` if there is no such list or folder."""
        self._root = root
        self._parsed: dict[Path, tuple[_Xml | None, list[Problem]]] = {}
        self._listing: Path | None = None
        folder = root
        listing = root / "ImageSets" / "Main" / f"{split}.txt"
        if split and listing.is_file():
            self._listing = listing
        elif split:
            folder = root / split
            if not folder.is_dir():
                raise ValueError(f"{root}: expected {listing} or {folder}: neither is there")
        self._annotations = _first_folder(folder, ["Annotations", "annotations"])
        self._photos = _first_folder(folder, ["JPEGImages", "images", "Images"], self._annotations)
        self._class_names = checks.listed_class_names(root) or self._all_names()

    def class_names(self) -> tuple[str, ...]:
        """The names in `labels.txt`; without it, the names in all xml files below `root`, in alphabetical order."""
        return self._class_names

    def annotations(
        self, *, photos: bool = True, problems: Problems | None = None
    ) -> Iterator[Annotation]:
        """The images in the order of the list; without a list, in the order of the names of the xml files."""
        problems = Problems.of(problems)
        labels = {name: index for index, name in enumerate(self._class_names)}
        found = checks.Photos(self._photos, needed=photos, problems=problems)
        for name, contents in self._by_image(found, problems).items():
            photo = found.find(name, contents[0][1])
            content = _joined([content for content, _ in contents], name, problems)
            if content is None or not _known(content, labels, problems):
                continue
            if photo is not None:
                if os.path.isfile(photo):  # the name in the xml file may have another form
                    name = found.below(photo)
                yield self._annotation(content, name, photo, labels, problems)
        read = [content for content, _ in self._parsed.values() if content is not None]
        swapped, total = sum(one.swapped for one in read), sum(len(one.objects) for one in read)
        checks.report_swapped(swapped, total, str(self._annotations), problems)

    def _by_image(
        self, found: checks.Photos, problems: Problems
    ) -> dict[str, list[tuple[_Xml, str]]]:
        """The names of the images, and the content and place of the xml files of each."""
        images: dict[str, list[tuple[_Xml, str]]] = {}
        inside = checks.Folder(self._annotations)
        read: dict[str, str] = {}
        for stem, where in self._stems(problems):
            fault = checks.fault_of_name(stem)
            if fault:
                problems.add(fault[0], where, fault[1])
                continue
            path = self._annotations / f"{stem}.xml"
            if stem in read:
                message = f"{stem!r} is listed at {read[stem]} already, which is kept"
                problems.add(checks.TWICE, where, message)
                continue
            read[stem] = where
            # Not Path.is_file, which raises for names that are too long.
            if not os.path.isfile(path):
                message = f"{path} does not exist: the image's objects are unknown"
                problems.add("annotations listed but absent", where, message)
                continue
            if not inside.contains(path):
                problems.add(checks.OUTSIDE, str(path), "a link that leaves the folder")
                continue
            content, known = self._parse(path)
            problems.add_all(known)
            if content is not None:
                name = self._image_name(found, stem, content, path, problems)
                images.setdefault(name, []).append((content, where))
        return images

    def _image_name(
        self, found: checks.Photos, stem: str, content: _Xml, path: Path, problems: Problems
    ) -> str:
        """The name of the image of an xml file: its own, or that of the image which `filename` states."""
        folder = os.path.dirname(stem)
        stated = content.filename.replace("\\", "/")
        last = stated.rpartition("/")[2]
        beside = os.path.join(folder, last)
        if last and checks.without_suffix(last) == os.path.basename(stem):
            if self._has(beside):
                return beside
        name = found.name_of(stem)
        if self._has(name):
            if last and self._has(beside) and not checks.fault_of_name(stated):
                message = f"filename is {stated!r}, another image; {name} is taken, as the xml file"
                problems.add(TWO_NAMES, str(path), message)
            return name
        if not last:
            return name
        in_folder = os.path.join(os.path.basename(content.folder), last)
        for candidate in (os.path.join(folder, stated), stated, in_folder, beside):
            if checks.fault_of_name(candidate) is None:
                for also in (candidate, found.name_of(checks.without_suffix(candidate))):
                    if self._has(also):
                        return also
        return os.path.join(folder, stated)

    def _has(self, name: str) -> bool:
        return os.path.isfile(os.path.join(self._photos, name)) and name != ""

    def _stems(self, problems: Problems) -> list[tuple[str, str]]:
        """The names of the xml files without suffix, and the places where they are listed."""
        if self._listing is None:
            return [
                (path.relative_to(self._annotations).with_suffix("").as_posix(), str(path))
                for path in sorted(self._annotations.rglob("*.xml"))
            ]
        text = enumerate(checks.lines(self._listing, problems=problems), 1)
        return [
            (self._stem(line.strip()), f"{self._listing}:{n}") for n, line in text if line.strip()
        ]

    def _stem(self, line: str) -> str:
        """The name of the xml file that a line of a list means: with a suffix, or with a mark of a class."""
        line = line.replace("\\", "/")
        unmarked = MARK.sub("", line)
        stems = (line, unmarked, checks.without_suffix(unmarked).removesuffix(".xml"))
        usable = (s for s in stems if checks.fault_of_name(s) is None)
        return next((s for s in usable if os.path.isfile(self._annotations / f"{s}.xml")), line)

    def _all_names(self) -> tuple[str, ...]:
        """The names of the objects in all xml files, so that classes are numbered alike in all splits."""
        names: set[str] = set()
        inside = checks.Folder(self._root)
        for path in sorted(self._root.rglob("*.xml")):
            content = self._parse(path)[0] if inside.contains(path) else None
            names.update(content.names if content else ())
        return tuple(sorted(names - {""}))

    def _parse(self, path: Path) -> tuple[_Xml | None, list[Problem]]:
        """The content of a file (None if it cannot be parsed), and the problems in it."""
        if path not in self._parsed:
            problems = Problems(logged=False)
            self._parsed[path] = _content(path, problems), problems.found
        return self._parsed[path]

    def _annotation(
        self, content: _Xml, name: str, photo: Path, labels: dict[str, int], problems: Problems
    ) -> Annotation:
        """The annotation of the image `photo`."""
        corners = np.array([item.corners for item in content.objects], np.float64)
        edges = corners.reshape(-1, 4) - FIRST_PIXEL
        from_zero = (edges[:, :2] < 0) & (edges[:, :2] >= -1)
        if from_zero.any():
            message = (
                "xmin or ymin is 0, but counts from 1 in this format: if all corners count from 0 here, boxes "
                "begin one pixel too early"
            )
            problems.add(FROM_ZERO, str(self._annotations), message)
            edges[:, :2][from_zero] = 0
        ignore = [_is_difficult(item.difficult, item.where, problems) for item in content.objects]
        places = [item.where for item in content.objects]
        ignored = checks.ignored(edges, ignore, places, content.size, problems=problems)
        classes = np.array([labels[item.label] for item in content.objects], np.int32)
        return Annotation(name, photo, edges, classes, ignored, size=content.size)


def _first_folder(folder: Path, names: Sequence[str], default: Path | None = None) -> Path:
    return next((folder / n for n in names if (folder / n).is_dir()), default or folder)


def _joined(contents: Sequence[_Xml], name: str, problems: Problems) -> _Xml | None:
    """The content of all xml files of an image; None, if an object of it cannot be read, or after a report."""
    first = contents[0]
    if not all(content.whole for content in contents):
        return None
    if len(contents) == 1:
        return first
    sizes = {content.size for content in contents} - {None}
    if len(sizes) > 1:
        message = (
            f"expected one size in the xml files of this image, received {sorted(sizes)!r:.200}"  # type: ignore[type-var]
        )
        checks.unreadable(problems, name, message)
        return None
    objects = list(first.objects)
    known = {(item.label, item.corners) for item in objects}
    for content in contents[1:]:  # an object that is in two files is one object
        new = [item for item in content.objects if (item.label, item.corners) not in known]
        known.update((item.label, item.corners) for item in new)
        objects += new
    return first._replace(objects=tuple(objects), size=next(iter(sizes), None))


def _known(content: _Xml, labels: dict[str, int], problems: Problems) -> bool:
    """False, after reports, if `labels.txt` lacks the class of an object."""
    unknown = [item for item in content.objects if item.label not in labels]
    for item in unknown:
        message = f"expected a name of {checks.some_of(labels)}, received {item.label!r:.200}"
        checks.unreadable(problems, item.where, message)
    return not unknown


def _is_difficult(text: str, where: str, problems: Problems) -> bool:
    if text.lower() not in DIFFICULT:
        message = f"expected difficult to be 0 or 1, received {text!r}: ignored"
        problems.add("malformed object", where, message)
    return DIFFICULT.get(text.lower(), True)


def _content(path: Path, problems: Problems) -> _Xml | None:
    """The content of the xml file; None, after a report, if it cannot be parsed."""
    try:
        content = files.read(path, limits.MAX_IMAGE_FILE_BYTES)
        tree = defusedxml.ElementTree.fromstring(content)
    except ElementTree.ParseError as error:
        line = error.position[0]
        problems.add(
            "malformed xml", f"{path}:{line}", f"not valid XML, {error}: the image is left out"
        )
        return None
    except defusedxml.DefusedXmlException:
        message = "expected no document type with entities: the image is left out"
        problems.add("malformed xml", str(path), message)
        return None
    except (ValueError, LookupError, OSError) as error:
        problems.add("malformed xml", str(path), f"{error}: the image is left out")
        return None
    for element in tree.iter():
        if (
            not element.tag.isalpha() or not element.tag.islower()
        ):  # a namespace, or capital letters
            element.tag = element.tag.rpartition("}")[2].lower()
    if tree.tag != "annotation":
        message = f"expected the element annotation, received {tree.tag!r:.100}: no file of VOC"
        problems.add("malformed xml", str(path), message)
        return None
    objects, names, whole = [], set(), True
    swapped: list[bool] = []
    for index, item in enumerate(_objects(tree), 1):
        where = f"{path}: object {index}"
        try:
            label = sys.intern(_only(item, "name"))
            names.add(label)
            difficult = sys.intern(_text(item, "difficult"))
            objects.append(_Object(where, label, difficult, _corners(item, swapped)))
        except ValueError as error:
            checks.unreadable(problems, where, str(error))
            whole = False
    without = _boxes_outside(tree)
    if without:
        message = f"expected the element object around each bndbox, received {without} without it"
        checks.unreadable(problems, str(path), message)
        whole = False
    size = _size(tree, path, problems)
    folder, filename = _text(tree, "folder"), _text(tree, "filename")
    return _Xml(folder, filename, size, tuple(objects), whole, frozenset(names), len(swapped))


def _objects(tree: Any) -> Iterator[Any]:
    """The objects, also in elements around them, but no parts of objects."""
    left = list(reversed(tree))
    while left:
        element = left.pop()
        if element.tag == "object":
            yield element
        else:
            left.extend(reversed(element))


def _boxes_outside(tree: Any) -> int:
    """The number of boxes that are not in an object."""
    left, count = [tree], 0
    while left:
        element = left.pop()
        count += element.tag == "bndbox"
        if element.tag != "object":
            left.extend(element)
    return count


def _size(tree: Any, path: Path, problems: Problems) -> tuple[int, int] | None:
    """Height and width; None if they are not stated."""
    if tree.find("size") is None:
        return None
    stated = [_text(tree, f"size/{side}") for side in ("height", "width")]
    size = outlines.size(*map(_number, stated))
    if size is not None:
        return size
    message = f"expected a height and width above 0, received {stated!r:.200}"
    problems.add("malformed size", str(path), message)
    return None


def _text(element: Any, name: str) -> str:
    return (element.findtext(name) or "").strip()


def _only(element: Any, name: str) -> str:
    """The text of the child `name`. Raises `ValueError` if there is none, or two that differ."""
    texts = {(child.text or "").strip() for child in element.findall(name)}
    text = texts.pop() if len(texts) == 1 else ""
    if not text:
        raise ValueError(f"expected one {name}, received {sorted(texts) or 'none'!s:.200}")
    return text


def _corners(item: Any, swapped: list[bool]) -> tuple[float, float, float, float]:
    """The corners of an object as in the file, in their order. Raises `ValueError` if they are unknown.

    Each box whose corners were swapped is added to `swapped`.
    """
    if item.find("bndbox") is not None:
        found = {_bndbox(child, swapped) for child in item.iterfind("bndbox")}
        if len(found) > 1:
            raise ValueError(f"expected one bndbox, received {sorted(found)!r:.200}")
        return found.pop()
    if item.find("robndbox") is not None:
        return _rotated(item)
    points = [_points(polygon) for polygon in item.iterfind("polygon")]
    if not points:
        raise ValueError("expected a bndbox, polygon or robndbox, received none")
    x, y = [value for each in points for value in each[0]], [v for each in points for v in each[1]]
    return min(x), min(y), max(x), max(y)


def _bndbox(element: Any, swapped: list[bool]) -> tuple[float, float, float, float]:
    texts = [_only(element, corner) for corner in CORNERS]
    x0, y0, x1, y1 = _numbers(texts, "4 numbers in bndbox")
    # A box without width has an xmax of xmin - 1, as boxes include their last pixel.
    swapped += [True] if x0 - 1 > x1 or y0 - 1 > y1 else []
    if x0 - 1 > x1:
        x0, x1 = x1, x0
    if y0 - 1 > y1:
        y0, y1 = y1, y0
    return x0, y0, x1, y1


def _rotated(item: Any) -> tuple[float, float, float, float]:
    """The box around the rotated rectangle of roLabelImg, whose angle is in radians."""
    texts = [_only(item.find("robndbox"), name) for name in ("cx", "cy", "w", "h", "angle")]
    x, y, width, height, angle = _numbers(texts, "5 numbers in robndbox")
    if abs(angle) > 2 * math.pi:
        raise ValueError(f"expected an angle in radians, received {angle:g}")
    sine, cosine = abs(math.sin(angle)), abs(math.cos(angle))
    across, down = (width * cosine + height * sine) / 2, (width * sine + height * cosine) / 2
    return x - across, y - down, x + across, y + down


def _points(polygon: Any) -> tuple[list[float], list[float]]:
    """The x and y of a polygon, in elements `x` and `y`, or `x1`, `y1`, `x2` and so on."""
    texts: dict[str, list[str]] = {"x": [], "y": []}
    for element in polygon.iter():
        if re.fullmatch(r"[xy]\d*", element.tag):
            texts[element.tag[0]].append(element.text or "")
    x, y = texts["x"], texts["y"]
    if len(x) != len(y) or len(x) < 3:
        raise ValueError(
            f"expected x and y of 3 or more points in polygon, received {len(x)} and {len(y)}"
        )
    return _numbers(x, "numbers in polygon"), _numbers(y, "numbers in polygon")


def _numbers(texts: Sequence[str], expected: str) -> list[float]:
    found = [_number(text) for text in texts]
    values = [value for value in found if value is not None]
    if len(values) < len(found):
        raise ValueError(f"expected {expected}, received {list(texts)!r:.200}")
    return values


def _number(text: str) -> float | None:
    """A number; one comma may be in the place of the point."""
    text = text.strip()
    if len(text) > outlines.LONGEST_NUMBER:
        return None
    if text.count(",") == 1 and "." not in text:
        text = text.replace(",", ".")
    try:
        value = float(text)
    except ValueError:
        return None
    usable = math.isfinite(value) and abs(value) <= checks.LARGEST_NUMBER and "_" not in text
    return value if usable else None


def write(
    annotations: Iterable[Annotation],
    root: Path,
    split: str,
    class_names: Sequence[str],
    *,
    photos: writing.PhotosAs = "copy",
    problems: Problems | None = None,
) -> writing.Written:
    """Writes `annotations` in VOC's own layout with the list `split` (`trainval` if empty), and `labels.txt`."""
    split = writing.usable_split(split or "trainval")
    stems = []
    holds = ("ignore", "classes")
    with writing.destination(
        root, class_names, holds=holds, photos=photos, problems=problems
    ) as out:
        for annotation in map(out.held, annotations):
            name = out.photo(annotation, "JPEGImages", by_stem=True)
            if name is None:
                continue
            out.count(annotation)
            stems.append(os.path.splitext(name)[0])
            tree = _tree(annotation, name, out.size(annotation), out.class_names)
            text = ElementTree.tostring(tree, encoding="unicode")
            out.write(f"Annotations/{stems[-1]}.xml", f"{text}\n")
        out.write(f"ImageSets/Main/{split}.txt", "".join(f"{stem}\n" for stem in stems))
        out.write_labels()
    return out.written


def _tree(
    annotation: Annotation, name: str, size: tuple[int, int] | None, class_names: Sequence[str]
) -> ElementTree.Element:
    tree = ElementTree.Element("annotation")

    def add(parent: ElementTree.Element, tag: str, text: str) -> None:
        ElementTree.SubElement(parent, tag).text = text

    add(tree, "filename", os.path.basename(name))
    if size:
        sides = ElementTree.SubElement(tree, "size")
        for tag, value in (("width", size[1]), ("height", size[0]), ("depth", 3)):
            add(sides, tag, str(value))
    boxes = annotation.boxes
    low, high = np.minimum(boxes[:, :2], boxes[:, 2:]), np.maximum(boxes[:, :2], boxes[:, 2:])
    corners = (np.concatenate([low, high], axis=1) + FIRST_PIXEL).tolist()
    for box, label, ignore in zip(corners, annotation.classes, annotation.ignore, strict=True):
        item = ElementTree.SubElement(tree, "object")
        add(item, "name", class_names[label])
        add(item, "difficult", str(int(ignore)))
        bounds = ElementTree.SubElement(item, "bndbox")
        for tag, value in zip(CORNERS, box, strict=True):
            add(bounds, tag, writing.number(value))
    ElementTree.indent(tree)
    return tree


FORMAT = Format(Voc, write)
