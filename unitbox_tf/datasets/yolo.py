"""YOLO's text files, one for each image, with or without the `data.yaml` of Ultralytics and Roboflow.

    data.yaml                 train: images/train, val: images/val, names: [cat, dog]
    images/train/a.jpg ...
    labels/train/a.txt ...    one line for each object: class, centre x, centre y, width, height

`yolo_labels` says what lines are read. The labels of `.../images/...` are in `.../labels/...`, or else beside
the image. An image without a label file has no objects. An image with an object that cannot be read is
left out.

A split is a folder of images or a list of their paths. Instead of `data.yaml`, darknet's `obj.data` may
name the splits. Without both, images are in `images/SPLIT`, `SPLIT/images` or `SPLIT`, or listed in `SPLIT.txt`;
and `classes.txt`, `labels.txt` or `obj.names` names the classes, in the root or beside the labels.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from unitbox_tf import images
from unitbox_tf.datasets import checks, writing, yolo_labels, yolo_settings
from unitbox_tf.datasets.base import DataSet, Format
from unitbox_tf.problems import Problems
from unitbox_tf.records import Annotation

DIGITS = 10  # decimals of written shares: a millionth of a pixel in an image of 10,000
FAR = 0.05  # a box ends far beyond its image if it does by this share of the image's side
MANY_BEYOND = 0.2  # share of the boxes of which this is no chance
ALSO = {"val": "valid", "valid": "val"}  # two words for one split


class Yolo(DataSet):
    """The images of the split that the settings or a folder name; all images if the split is empty."""

    def __init__(self, root: Path, split: str) -> None:
        """Parses `data.yaml`, if there is one. Raises `ValueError` if it cannot be used."""
        self._path, self._settings = yolo_settings.find(root)
        self._root, self._split = Path(os.path.normpath(self._path.parent)), split
        settings = self._settings or {}
        self._keypoints = yolo_settings.keypoint_numbers(self._path, settings)
        self._names = self._all_names(settings)
        self._labels = {name: label for label, name in enumerate(self._names or ())} or None

    def _all_names(self, settings: dict[str, Any]) -> tuple[str, ...] | None:
        """The class names in the settings or in a list, which must agree if both are there."""
        names = yolo_settings.names(self._path, settings)
        listed = yolo_settings.listed_names(self._root, self._split)
        if names and listed:
            file, others = listed
            if any(a != b for a, b in zip(names, others, strict=False)):
                raise ValueError(
                    f"{self._path}: expected the classes of {file}, {', '.join(others)[:200]}, received "
                    f"{', '.join(names)[:200]}: mend or delete the file that is wrong"
                )
        names = names or (listed[1] if listed else None)
        if settings and names is None:
            raise ValueError(f"{self._path}: expected names, a list or map of the names of classes")
        return names

    def class_names(self) -> tuple[str, ...] | None:
        """The names in `data.yaml` or in a list such as `classes.txt`; None without any of these files."""
        return self._names

    def annotations(
        self, *, photos: bool = True, problems: Problems | None = None
    ) -> Iterator[Annotation]:
        """The images. `photos` has no effect, because the image files themselves are the list.

        If a text file lists the images, absent ones are always reported: without the image's size, its
        boxes cannot be computed in pixels.
        """
        problems = Problems.of(problems)
        found = checks.Photos(self._root, problems=problems)
        labels = yolo_labels.Labels(self._root)
        used: set[Path] = set()
        seen: list[Path] = []
        boxes = _Beyond()
        base = _base(self._root, self._settings, self._path, problems)
        sources = _sources(self._root, self._split, self._settings, self._path, base, problems)
        # The name of an image is its path below the only folder, or below the root.
        top = sources[0] if len(sources) == 1 and sources[0].is_dir() else self._root
        inside = checks.Folder(self._root)
        for name, where in _listed(sources, base, self._root, problems):
            photo = found.find(name, where)
            if photo is None:
                continue
            seen.append(photo)
            label = labels.of(photo)
            if label is not None and not inside.contains(label):
                problems.add(checks.OUTSIDE, str(label), "a link that leaves the folder")
                continue
            if label in used:
                message = f"{photo} is a second image of this name: both have these objects"
                problems.add("labels of two images", str(label), message)
            used.update([label] if label else [])
            annotation = self._annotation(photo, _name(photo, top, self._root), label, problems)
            if annotation is not None:
                boxes.add(annotation)
                yield annotation
        _report_unused(sources, self._root, used, problems)
        boxes.report(self._path, problems)
        if seen and not used:
            _check_elsewhere(self._root, seen)
            message = (
                "expected a label file (.txt) of some image, found none: all are images without objects. "
                "Is the format another one?"
            )
            problems.add("data set without labels", str(self._root), message)

    def _annotation(
        self, photo: Path, name: str, label: Path | None, problems: Problems
    ) -> Annotation | None:
        """The annotation of an image; None, after a report, if its size or one of its objects is unknown."""
        try:
            size = images.photo_size(photo)
        except (OSError, ValueError) as error:
            problems.add("image of unknown size", str(photo), str(error))
            return None
        rows: list[yolo_labels.Row] | None = []
        if label is not None:
            rows = yolo_labels.read(label, size, self._labels, self._keypoints, problems)
        if rows is None:
            return None
        boxes = np.array([row.box for row in rows], np.float64).reshape(-1, 4)
        places, none = [row.where for row in rows], np.zeros(len(rows), bool)
        ignore = checks.ignored(boxes, none, places, size, problems=problems)
        return Annotation(name, photo, boxes, [row.label for row in rows], ignore, size=size)  # type: ignore[arg-type]


class _Beyond:
    """Counts boxes that end far beyond their images, as corners do that are read as a centre and sides."""

    def __init__(self) -> None:
        self._far = self._all = 0

    def add(self, annotation: Annotation) -> None:
        """Counts the boxes of an image."""
        assert annotation.size is not None
        sides = np.array(annotation.size[::-1])
        low, high = annotation.boxes[:, :2] / sides, annotation.boxes[:, 2:] / sides
        self._far += int(((low < -FAR) | (high > 1 + FAR)).any(axis=1).sum())
        self._all += len(annotation.boxes)

    def report(self, path: Path, problems: Problems) -> None:
        """Adds a problem if it is a large part of the boxes."""
        if self._far > max(1, MANY_BEYOND * self._all):  # one may be a slip
            message = (
                f"{self._far} of {self._all} boxes end far beyond their images: expected centre x, centre y, "
                "width, height; are they corners x0 y0 x1 y1, or x and y of a corner?"
            )
            problems.add(checks.LEAVE, str(path.parent), message)


def _check_elsewhere(root: Path, photos: Sequence[Path]) -> None:
    """Raises `ValueError` if the label files of these images are where they are not looked for."""
    stems = {photo.stem: photo for photo in reversed(photos)}
    finder = yolo_labels.Labels(root)
    # Labels of images of another split, whose names may be the same.
    owned = {finder.of(photo) for photo in images.photos(root) if photo.stem in stems}
    for label in sorted(root.rglob("*.txt")):
        photo = stems.get(label.stem)
        if photo is not None and label not in owned:
            place = yolo_labels.label_folders(photo.parent, root)[0] / label.name
            raise ValueError(
                f"{root}: no image has a label file, but {label} has the name of {photo}. Expected it as {place}"
            )


def _name(photo: Path, top: Path, root: Path) -> str:
    return photo.relative_to(top if photo.is_relative_to(top) else root).as_posix()


def _sources(
    root: Path,
    split: str,
    settings: dict[str, Any] | None,
    path: Path,
    base: Path,
    problems: Problems,
) -> list[Path]:
    """The folders of images and lists of images of the split. Raises `ValueError` if there are none."""
    keys = [key for key in yolo_settings.SPLITS if (settings or {}).get(key)]
    if settings is None or not (split or keys):
        return [_unnamed(root, split, path)]
    if split:
        keys = [next((key for key in (split, ALSO.get(split, split)) if key in settings), split)]
    sources: list[Path] = []
    for key in keys:
        value = settings.get(key)
        if not value:
            known = [name for name in yolo_settings.SPLITS if settings.get(name)]
            empty = ", which has no folder there" if key in settings else ""
            raise ValueError(
                f"{path}: expected one of the splits {', '.join(known) or '(there is none)'}, "
                f"received {key!r}{empty}"
            )
        for entry in value if isinstance(value, list) else [value]:
            text = str(entry)[:1000]
            source = yolo_settings.resolve(text, [base, root], root)
            if source is None:
                message = f"expected a folder or list in {base}, received {text[:200]!r}"
                problems.add("images listed but absent", f"{path}: {key}", message)
            elif source not in sources:
                sources.append(source)
    return sources


def _unnamed(root: Path, split: str, path: Path) -> Path:
    """The folder or list of a split that no settings name."""
    if split and checks.LEAVES.search(split):
        raise ValueError(f"Expected a split inside {root}. Received: {split!r}")
    named = [f"images/{split}", f"{split}/images", split] if split else ["images", "."]
    found = [root / name for name in named if (root / name).is_dir()]
    found += [root / f"{split}.txt"] if split and (root / f"{split}.txt").is_file() else []
    if not found:
        raise ValueError(
            f"{root}: expected {path.name} or a folder {' or '.join(named)}: none is there"
        )
    return found[0]


def _base(root: Path, settings: dict[str, Any] | None, path: Path, problems: Problems) -> Path:
    """The folder that `path` in `data.yaml` names; `root` if it lies outside, as after data were moved."""
    stated = str((settings or {}).get("path") or ".")[:1000]
    base = yolo_settings.resolve(stated, [root], root)
    if base is not None and base.is_dir():
        return base
    # A path that ends in the name of this very folder means it.
    if stated.replace("\\", "/").rstrip("/").rpartition("/")[2] != root.resolve().name:
        message = f"expected a folder in {root}, received {stated[:200]!r}: {root} is used"
        problems.add(checks.OUTSIDE, f"{path}: path", message)
    return root


def _listed(
    sources: Iterable[Path], base: Path, root: Path, problems: Problems
) -> Iterator[tuple[str, str]]:
    """The names of images below `root`, and the places where they are listed."""
    for source in sources:
        if source.is_dir():
            for photo in images.photos(source):
                yield photo.relative_to(root).as_posix(), str(photo)
            continue
        for number, line in enumerate(checks.lines(source, problems=problems), 1):
            name = line.strip()
            if not name:
                continue
            # As Ultralytics has it, "./" is the folder of the list.
            bases = [source.parent, base, root] if name[:2] == "./" else [base, source.parent, root]
            known = yolo_settings.resolve(name, bases, root)
            yield known.relative_to(root).as_posix() if known else name, f"{source}:{number}"


def _report_unused(
    sources: Iterable[Path], root: Path, used: set[Path], problems: Problems
) -> None:
    """Reports label files without an image."""
    for folder in dict.fromkeys(
        folder
        for source in sources
        if source.is_dir()
        for folder in yolo_labels.label_folders(source, root)
    ):
        if folder != root and folder.is_dir():
            for label in sorted(folder.rglob("*.txt")):
                if label not in used and label.name.lower() not in yolo_labels.NO_LABELS:
                    problems.add("labels without an image", str(label), "no image has this name")


def write(
    annotations: Iterable[Annotation],
    root: Path,
    split: str,
    class_names: Sequence[str],
    *,
    photos: writing.PhotosAs = "copy",
    problems: Problems | None = None,
) -> writing.Written:
    """Writes `annotations` as `images/SPLIT`, `labels/SPLIT` (`train` if empty) and `data.yaml`.

    Boxes are cut to their images, because other readers refuse boxes that leave them. Each cut is reported.
    """
    problems = Problems.of(problems)
    split = writing.usable_split(split or "train")
    holds = ("classes",)
    with writing.destination(
        root, class_names, holds=holds, photos=photos, problems=problems
    ) as out:
        (out.folder / "images" / split).mkdir(parents=True)
        for annotation in map(out.held, annotations):
            size = out.size(annotation)
            if size is None:
                continue
            name = out.photo(annotation, f"images/{split}", by_stem=True)
            if name is None:
                continue
            annotation = _inside(annotation, size, problems)
            out.count(annotation)
            rows = _shares(annotation, size)
            out.write(f"labels/{split}/{os.path.splitext(name)[0]}.txt", rows)
        names = dict(enumerate(out.class_names))
        settings = {split: f"images/{split}", "names": names}
        out.write(
            yolo_settings.YAML_FILES[0],
            yaml.safe_dump(settings, allow_unicode=True, sort_keys=False),
        )
    return out.written


def _inside(annotation: Annotation, size: tuple[int, int], problems: Problems) -> Annotation:
    """`annotation` with its boxes cut to the image, and without boxes outside. Both are reported."""
    height, width = size
    clipped = np.clip(annotation.boxes, 0, [width, height, width, height])
    # Rounding a share moves a box by less than this. Such boxes are not cut, so that the same is read back.
    cut = (np.abs(clipped - annotation.boxes) > 1e-5).any(axis=1)
    boxes = np.where(cut.reshape(-1, 1), clipped, annotation.boxes)
    left = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    kinds = np.where(left, "box cut to its image", "box outside its image").tolist()
    for index in np.flatnonzero(cut | ~left).tolist():
        place = f"{annotation.where}, object {index + 1}"
        problems.add(kinds[index], place, f"{annotation.boxes[index]} in {width} x {height} pixels")
    return dataclasses.replace(annotation.select(left), boxes=boxes[left])


def _shares(annotation: Annotation, size: tuple[int, int]) -> str:
    """The lines of a label file."""
    height, width = size
    boxes = annotation.boxes
    centres, sizes = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    shares = np.concatenate([centres, sizes], axis=1) / [width, height, width, height]
    return "".join(
        " ".join([str(label), *(writing.number(share, DIGITS) for share in row)]) + "\n"
        for label, row in zip(annotation.classes.tolist(), shares.tolist(), strict=True)
    )


FORMAT = Format(Yolo, write)
