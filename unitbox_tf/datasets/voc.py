"""Pascal VOC's xml files (Everingham et al., IJCV 2010), one for each image.

Three layouts are known: that of VOC, that of VOC without lists, and xml files beside their images:

    ImageSets/Main/train.txt      annotations/a.xml ...     a.xml
    Annotations/2007_000027.xml   images/a.jpg ...          a.jpg ...
    JPEGImages/2007_000027.jpg

An image has the same name as its xml file. If there is no such image, `filename` in the xml names it.

Corners are 1-based and inclusive: a box over the first pixel alone is `1 1 1 1` in the file, and
`0 0 1 1` here. So 1 is subtracted from `xmin` and `ymin`. Objects marked difficult are kept and ignored.

`labels.txt` (or `classes.txt`) names the classes in their order, one a line. Without such a file, the
classes of all xml files are in alphabetical order, so that all splits agree.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import defusedxml.ElementTree
import numpy as np

from unitbox_tf.datasets import checks, writing
from unitbox_tf.datasets.base import DataSet, Format
from unitbox_tf.problems import Problem, Problems
from unitbox_tf.records import Annotation

CORNERS = ("xmin", "ymin", "xmax", "ymax")
FIRST_PIXEL = np.array([1.0, 1.0, 0.0, 0.0])  # the difference of VOC's corners from edges
MALFORMED = "malformed object"


class _Xml(NamedTuple):
    """The content of an xml file. Objects without four corners are left out.

    Attributes:
        filename: the name of the image that the file states.
        size: height and width, if they are stated.
        numbers: the place of each object in the file, from 1.
        labels: the class names `[N]`.
        difficult: the marks `[N]` as texts.
        edges: boxes `xyxy` `[N, 4]`.
        names: the class names of all objects, also of those that are left out.
    """

    filename: str
    size: tuple[int, int] | None
    numbers: tuple[int, ...]
    labels: tuple[str, ...]
    difficult: tuple[str, ...]
    edges: np.ndarray
    names: frozenset[str]


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
        self._photos = _first_folder(folder, ["JPEGImages", "images"], self._annotations)
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
        inside = checks.Folder(self._annotations)
        for stem, where in self._stems(problems):
            fault = checks.fault_of_name(stem)
            if fault:
                problems.add(fault[0], where, fault[1])
                continue
            path = self._annotations / f"{stem}.xml"
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
            if content is None:
                continue
            name = found.name_of(stem)
            if not os.path.isfile(self._photos / name):
                stated = content.filename
                name = os.path.join(os.path.dirname(stem), stated) if stated else f"{stem}.jpg"
            photo = found.find(name, where)
            annotation = _annotation(content, path, name, photo or Path(), labels, problems)
            if photo is not None:
                yield annotation

    def _stems(self, problems: Problems) -> list[tuple[str, str]]:
        """The names of the xml files without suffix, and the places where they are listed."""
        if self._listing is None:
            return [
                (path.relative_to(self._annotations).with_suffix("").as_posix(), str(path))
                for path in sorted(self._annotations.rglob("*.xml"))
            ]
        text = enumerate(checks.lines(self._listing, problems=problems), 1)
        return [(line.strip(), f"{self._listing}:{n}") for n, line in text if line.strip()]

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


def _first_folder(folder: Path, names: Sequence[str], default: Path | None = None) -> Path:
    return next((folder / n for n in names if (folder / n).is_dir()), default or folder)


def _content(path: Path, problems: Problems) -> _Xml | None:
    """The content of the xml file; None, after a report, if it cannot be parsed."""
    try:
        tree = defusedxml.ElementTree.fromstring(checks.read_small(path))
    except ElementTree.ParseError as error:
        line = error.position[0]
        problems.add("malformed xml", f"{path}:{line}", f"{error}: the image's objects are unknown")
        return None
    except (ValueError, LookupError, OSError) as error:  # entities and external files are refused
        problems.add("malformed xml", str(path), f"{error}: the image's objects are unknown")
        return None
    numbers, labels, difficult, boxes = [], [], [], []
    names = set()
    for index, item in enumerate(tree.iterfind("object"), 1):
        label = sys.intern(_text(item, "name"))
        names.add(label)
        texts = [_text(item, f"bndbox/{corner}") for corner in CORNERS]
        corners = [_number(text) for text in texts]
        if None in corners:
            message = f"expected 4 numbers in bndbox, received {texts}"
            problems.add(MALFORMED, f"{path}: object {index}", message)
            continue
        numbers.append(index)
        labels.append(label)
        difficult.append(sys.intern(_text(item, "difficult")))
        boxes.append(corners)
    return _Xml(
        _text(tree, "filename"),
        _size(tree, path, problems),
        tuple(numbers),
        tuple(labels),
        tuple(difficult),
        np.array(boxes, np.float64).reshape(-1, 4) - FIRST_PIXEL,
        frozenset(names),
    )


def _size(tree: Any, path: Path, problems: Problems) -> tuple[int, int] | None:
    """Height and width; None if they are not stated."""
    if tree.find("size") is None:
        return None
    stated = [_text(tree, f"size/{side}") for side in ("height", "width")]
    if all(text.isdecimal() and 0 < len(text.lstrip("0")) < 10 for text in stated):
        return int(stated[0]), int(stated[1])
    message = f"expected a height and width above 0, received {stated}"
    problems.add("malformed size", str(path), message)
    return None


def _text(element: Any, name: str) -> str:
    return (element.findtext(name) or "").strip()


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and "_" not in text else None


def _annotation(
    content: _Xml, path: Path, name: str, photo: Path, labels: dict[str, int], problems: Problems
) -> Annotation:
    """The annotation of the image `photo`. Objects of unknown classes are reported and left out."""
    chosen, classes, ignore, places = [], [], [], []
    objects = zip(content.numbers, content.labels, content.difficult, strict=True)
    for index, (number, label, difficult) in enumerate(objects):
        where = f"{path}: object {number}"
        if label not in labels:
            message = f"expected a name of {list(labels)[:20]}, received {label!r}"
            problems.add("unknown class", where, message)
            continue
        if difficult not in ("", "0", "1"):
            message = f"expected difficult to be 0 or 1, received {difficult!r}: ignored"
            problems.add(MALFORMED, where, message)
        chosen.append(index)
        classes.append(labels[label])
        ignore.append(difficult not in ("", "0"))
        places.append(where)
    edges = content.edges[chosen]
    ignored = checks.ignored(edges, ignore, places, content.size, problems=problems)
    return Annotation(name, photo, edges, np.array(classes), ignored, size=content.size)


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
    corners = (annotation.boxes + FIRST_PIXEL).tolist()
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
