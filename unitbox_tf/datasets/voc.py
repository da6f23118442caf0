"""Pascal VOC's xml files (Everingham et al., IJCV 2010), one a photo.

Three layouts are known: that of VOC, that of VOC without lists, and xml files beside their photos:

    ImageSets/Main/train.txt      annotations/a.xml ...     a.xml
    Annotations/2007_000027.xml   images/a.jpg ...          a.jpg ...
    JPEGImages/2007_000027.jpg

A photo is the one that is named as its xml file; where there is none, `filename` in the xml says.

Corners are 1-based and inclusive: a box over the first pixel alone is `1 1 1 1`, here `0 0 1 1`; so
1 is taken off `xmin` and `ymin`. Objects marked difficult are kept and ignored.

Classes are numbered as in `labels.txt` (or `classes.txt`), where it is present, one a line; else in
the order of the alphabet, over all xml files, so that all splits agree.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import defusedxml.ElementTree
import numpy as np

from unitbox_tf.datasets import checks, writing
from unitbox_tf.problems import Problems
from unitbox_tf.records import Annotation

CORNERS = ("xmin", "ymin", "xmax", "ymax")
FIRST_PIXEL = np.array([1.0, 1.0, 0.0, 0.0])  # what VOC's corners have more than edges
MALFORMED = "malformed object"


def class_names(root: Path, split: str) -> tuple[str, ...]:
    """The names in `labels.txt`, or those in all xml files below `root` in the order of the alphabet."""
    listed = checks.listed_class_names(root)
    if listed:
        return listed
    names: set[str] = set()
    inside = checks.Folder(root)
    for path in sorted(root.rglob("*.xml")):
        tree = _parse(path, Problems(), inside)
        if tree is not None:
            names.update(_text(item, "name") for item in tree.iterfind("object"))
    return tuple(sorted(names - {""}))


def read(
    root: Path, split: str, problems: Problems, *, photos: bool = True
) -> Iterator[Annotation]:
    """The photos of the list `split`, or of the folder `split`, or, if it is empty, all that have an xml file.

    With `photos`, only those that are present.
    """
    labels = {name: index for index, name in enumerate(class_names(root, split))}
    folder = root
    listing = root / "ImageSets" / "Main" / f"{split}.txt"
    if split and not listing.is_file():
        folder = root / split
        if not folder.is_dir():
            raise ValueError(f"{root}: expected {listing} or {folder}: neither is there")
    annotations = _first_folder(folder, ["Annotations", "annotations"])
    photo_folder = _first_folder(folder, ["JPEGImages", "images"], annotations)
    found = checks.Photos(photo_folder, problems, needed=photos)
    inside = checks.Folder(annotations)
    if split and folder == root:
        text = enumerate(checks.lines(listing, problems), 1)
        stems = [(line.strip(), f"{listing}:{n}") for n, line in text if line.strip()]
    else:
        paths = sorted(annotations.rglob("*.xml"))
        stems = [(p.relative_to(annotations).with_suffix("").as_posix(), str(p)) for p in paths]
    for stem, where in stems:
        fault = checks.fault_of_name(stem)
        if fault:
            problems.add(fault[0], where, fault[1])
            continue
        path = annotations / f"{stem}.xml"
        # Not Path.is_file, which raises for names that are too long.
        if not os.path.isfile(path):
            message = f"{path} does not exist: the photo's objects are unknown"
            problems.add("annotations listed but absent", where, message)
            continue
        tree = _parse(path, problems, inside)
        if tree is None:
            continue
        name = _text(tree, "filename")
        folder_of_stem = os.path.dirname(stem)
        stated = os.path.join(folder_of_stem, name) if name else f"{stem}.jpg"
        photo_name = found.name_of(stem)
        if not os.path.isfile(photo_folder / photo_name):
            photo_name = stated
        photo = found.find(photo_name, where)
        annotation = _annotation(tree, path, photo_name, photo or Path(), labels, problems)
        if photo is not None:
            yield annotation


def _first_folder(folder: Path, names: Sequence[str], default: Path | None = None) -> Path:
    return next((folder / n for n in names if (folder / n).is_dir()), default or folder)


def _parse(path: Path, problems: Problems, inside: checks.Folder) -> Any:
    """The root of the xml file, or None, which is reported."""
    if not inside.contains(path):
        problems.add(checks.OUTSIDE, str(path), "a link that leaves the folder")
        return None
    try:
        return defusedxml.ElementTree.fromstring(checks.read_small(path))
    except ElementTree.ParseError as error:
        line = error.position[0]
        problems.add("malformed xml", f"{path}:{line}", f"{error}: the photo's objects are unknown")
    except (ValueError, LookupError, OSError) as error:  # entities and external files are refused
        problems.add("malformed xml", str(path), f"{error}: the photo's objects are unknown")
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
    tree: Any, path: Path, name: str, photo: Path, labels: dict[str, int], problems: Problems
) -> Annotation:
    size = None
    if tree.find("size") is not None:
        stated = [_text(tree, f"size/{side}") for side in ("height", "width")]
        if all(text.isdecimal() and 0 < len(text.lstrip("0")) < 10 for text in stated):
            size = int(stated[0]), int(stated[1])
        else:
            message = f"expected a height and width above 0, received {stated}"
            problems.add("malformed size", str(path), message)
    boxes, classes, ignore, places = [], [], [], []
    for index, item in enumerate(tree.iterfind("object"), 1):
        where = f"{path}: object {index}"
        corners = [_number(_text(item, f"bndbox/{corner}")) for corner in CORNERS]
        label, difficult = _text(item, "name"), _text(item, "difficult")
        if None in corners:
            texts = [_text(item, f"bndbox/{corner}") for corner in CORNERS]
            problems.add(MALFORMED, where, f"expected 4 numbers in bndbox, received {texts}")
            continue
        if label not in labels:
            message = f"expected a name of {list(labels)[:20]}, received {label!r}"
            problems.add("unknown class", where, message)
            continue
        if difficult not in ("", "0", "1"):
            message = f"expected difficult to be 0 or 1, received {difficult!r}: ignored"
            problems.add(MALFORMED, where, message)
        boxes.append(corners)
        classes.append(labels[label])
        ignore.append(difficult not in ("", "0"))
        places.append(where)
    edges = np.array(boxes, np.float64).reshape(-1, 4) - FIRST_PIXEL
    ignored = checks.ignored(edges, ignore, places, size, problems)
    return Annotation(name, photo, edges, np.array(classes), ignored, size=size)


def write(
    annotations: Iterable[Annotation],
    root: Path,
    split: str,
    class_names: Sequence[str],
    problems: Problems,
    *,
    photos: writing.PhotosAs = "copy",
) -> writing.Written:
    """Writes `annotations` in VOC's own layout with the list `split` (`trainval` if empty), and `labels.txt`."""
    split = writing.usable_split(split or "trainval")
    stems = []
    holds = ("ignore", "classes")
    with writing.destination(root, class_names, problems, holds=holds, photos=photos) as out:
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
