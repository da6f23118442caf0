"""YOLO's text files, one for each image, with or without the `data.yaml` of Ultralytics and Roboflow.

    data.yaml                 train: images/train, val: images/val, names: [cat, dog]
    images/train/a.jpg ...
    labels/train/a.txt ...    one line for each object: class, centre x, centre y, width, height

Numbers are shares of the image's width and height, so each image's header is read. The labels of
`.../images/...` are in `.../labels/...`, or else beside the image. An image without a label file has no
objects. Without `data.yaml`, images are in `images/SPLIT`, `SPLIT/images` or `SPLIT`, and
`labels.txt` or `classes.txt` names the classes. Polygons (lines with more numbers) are reported and
left out.
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
from unitbox_tf.datasets import checks, writing
from unitbox_tf.datasets.base import DataSet, Format
from unitbox_tf.problems import Problems
from unitbox_tf.records import Annotation

SETTINGS = ("data.yaml", "data.yml", "dataset.yaml")
SPLITS = ("train", "val", "test")
DIGITS = 10  # decimals of written shares: a millionth of a pixel in an image of 10,000


class Yolo(DataSet):
    """The images of the split that `data.yaml` or a folder names; all images if the split is empty."""

    def __init__(self, root: Path, split: str) -> None:
        """Parses `data.yaml`, if there is one. Raises `ValueError` if it cannot be used."""
        self._path, self._settings = _settings(root)
        self._root, self._split = self._path.parent, split
        self._names = (
            _names(self._path, self._settings)
            if self._settings
            else checks.listed_class_names(self._root)
        )

    def class_names(self) -> tuple[str, ...] | None:
        """The names in `data.yaml`, `labels.txt` or `classes.txt`; None without any of these files."""
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
        used: set[Path] = set()
        seen = False
        sources = _sources(self._root, self._split, self._settings, self._path, problems)
        # The name of an image is its path below the only folder, or below the root.
        top = sources[0] if len(sources) == 1 and sources[0].is_dir() else self._root
        inside = checks.Folder(self._root)
        for name, where in _listed(sources, self._root, problems):
            photo = found.find(name, where)
            if photo is None:
                continue
            seen = True
            label = _label_file(photo, self._root)
            if label is not None and not inside.contains(label):
                problems.add(checks.OUTSIDE, str(label), "a link that leaves the folder")
                continue
            used.update([label] if label else [])
            rows = _rows(label, self._names, problems) if label else []
            annotation = _annotation(photo, photo.relative_to(top).as_posix(), rows, problems)
            if annotation is not None:
                yield annotation
        _report_unused(sources, self._root, used, problems)
        if seen and not used:
            message = "no image has a label file: is this another format?"
            problems.add("data set without labels", str(self._root), message)


def _annotation(
    photo: Path, name: str, rows: Sequence[tuple[list[float], str]], problems: Problems
) -> Annotation | None:
    """The annotation of an image with these label lines; None, after a report, if its size is unknown."""
    try:
        height, width = images.photo_size(photo)
    except (OSError, ValueError) as error:
        problems.add("image of unknown size", str(photo), str(error))
        return None
    table = np.array([row for row, _ in rows], np.float64).reshape(-1, 5)
    centres, sizes = table[:, 1:3] * [width, height], table[:, 3:5] * [width, height]
    boxes = np.concatenate([centres - sizes / 2, centres + sizes / 2], axis=1)
    places, none = [place for _, place in rows], np.zeros(len(rows), bool)
    ignore = checks.ignored(boxes, none, places, (height, width), problems=problems)
    labels = table[:, 0].astype(int)
    return Annotation(name, photo, boxes, labels, ignore, size=(height, width))


def _settings(root: Path) -> tuple[Path, dict[str, Any] | None]:
    """The path and content of `data.yaml`. Without the file, its path in `root`, and None."""
    path = root
    if not root.is_file():
        paths = [root / name for name in SETTINGS]
        path = next((path for path in paths if path.is_file()), paths[0])
        if not path.is_file():
            return path, None
    try:
        content = yaml.safe_load(checks.read_small(path))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise ValueError(
            f"{where}: not valid YAML: {' '.join(str(error).split())[:300]}"
        ) from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected train, val and names, received {content!r:.100}")
    return path, content


def _names(path: Path, settings: dict[str, Any]) -> tuple[str, ...]:
    names = settings.get("names")
    if isinstance(names, dict):
        if sorted(names, key=str) != sorted(range(len(names)), key=str):
            raise ValueError(
                f"{path}: expected names numbered from 0, received {list(names)!r:.200}"
            )
        names = [names[index] for index in range(len(names))]
    # str() is not called on everything: an alias bomb is small until it is written out.
    if not isinstance(names, list) or not all(isinstance(n, str | int | float) for n in names):
        raise ValueError(f"{path}: expected names, a list or map of the names of classes")
    return tuple(str(name) for name in names)


def _sources(
    root: Path, split: str, settings: dict[str, Any] | None, path: Path, problems: Problems
) -> list[Path]:
    """The folders of images and lists of images of the split. Raises `ValueError` if there are none."""
    if settings is None:
        named = [f"images/{split}", f"{split}/images", split] if split else ["images", "."]
        if split and checks.LEAVES.search(split):
            raise ValueError(f"Expected a split inside {root}. Received: {split!r}")
        found = [root / name for name in named if (root / name).is_dir()]
        if not found:
            raise ValueError(
                f"{root}: expected {path.name} or a folder {' or '.join(named)}: none is there"
            )
        return found[:1]
    keys = [split] if split else [key for key in SPLITS if settings.get(key)]
    base = _base(root, settings.get("path"), path, problems)
    sources: list[Path] = []
    for key in keys:
        value = settings.get(key)
        if value is None:
            known = [name for name in SPLITS if name in settings]
            raise ValueError(f"{path}: expected a split of {known}, received {key!r}")
        for entry in value if isinstance(value, list) else [value]:
            source = _below(base, str(entry)[:1000])
            if source is None:
                message = (
                    f"{key}: expected a folder or list in {base}, received {str(entry)[:200]!r}"
                )
                problems.add("images listed but absent", f"{path}: {key}", message)
            elif source not in sources:
                sources.append(source)
    return sources


def _base(root: Path, stated: Any, path: Path, problems: Problems) -> Path:
    """The folder that `path` in `data.yaml` names; `root` if it lies outside, as after data were moved."""
    if not stated or stated == ".":
        return root
    base = _below(root, str(stated)[:1000])
    if base is not None and os.path.isdir(base):
        return base
    message = f"expected a folder in {root}, received {str(stated)[:200]!r}: {root} is used"
    problems.add(checks.OUTSIDE, f"{path}: path", message)
    return root


def _below(root: Path, name: str) -> Path | None:
    """The file or folder `name` in `root`; None if it does not exist or lies outside."""
    # Roboflow writes ../train/images for a folder beside the file.
    for candidate in (name, name.removeprefix("../")):
        inside = not checks.LEAVES.search(candidate) and not checks.UNUSABLE.search(candidate)
        # Not Path.exists, which raises for names that are too long.
        if inside and os.path.exists(root / candidate):
            return root / os.path.normpath(candidate)
    return None


def _listed(sources: Iterable[Path], root: Path, problems: Problems) -> Iterator[tuple[str, str]]:
    """The names of images below `root`, and the places where they are listed."""
    for source in sources:
        if source.is_dir():
            for photo in images.photos(source):
                yield photo.relative_to(root).as_posix(), str(photo)
        else:
            for number, line in enumerate(checks.lines(source, problems=problems), 1):
                if line.strip():
                    yield line.strip(), f"{source}:{number}"


def _label_file(photo: Path, root: Path) -> Path | None:
    beside = photo.with_suffix(".txt")
    parts = list(beside.relative_to(root).parts)
    folders = parts[:-1]
    if "images" in folders:
        last = len(folders) - 1 - folders[::-1].index("images")
        apart = root.joinpath(*parts[:last], "labels", *parts[last + 1 :])
        if apart.is_file():
            return apart
    return beside if beside.is_file() else None


def _rows(
    path: Path, names: Sequence[str] | None, problems: Problems
) -> list[tuple[list[float], str]]:
    """The lines of a label file, and their places."""
    try:
        lines = checks.lines(path, small=True, problems=problems)
    except (OSError, ValueError) as error:
        problems.add("malformed labels", str(path), str(error))
        return []
    rows = []
    for number, line in enumerate(lines, 1):
        where = f"{path}:{number}"
        words = line.split()
        if not words:
            continue
        if len(words) >= 7 and len(words) % 2:
            message = f"expected 5 numbers, received a polygon of {len(words) // 2} points"
            problems.add("polygon", where, message)
            continue
        values = checks.numbers(line, [5], where, problems=problems)
        if values is None:
            continue
        label, *box = values
        if not (label.is_integer() and 0 <= label < (len(names) if names else 2**31)):
            expected = f"0 to {len(names) - 1}" if names else "0 or more"
            problems.add("unknown class", where, f"expected {expected}, received {words[0]!r}")
        elif min(box[:2]) < 0 or max(box) > 1:
            message = f"expected shares of the image from 0 to 1, received {line.strip()!r}"
            problems.add(checks.MALFORMED, where, message)
        else:
            rows.append((values, where))
    return rows


def _report_unused(
    sources: Iterable[Path], root: Path, used: set[Path], problems: Problems
) -> None:
    """Reports label files without an image."""
    for source in sources:
        parts = source.relative_to(root).parts
        folders = {source}
        if "images" in parts:
            last = len(parts) - 1 - parts[::-1].index("images")
            folders.add(root.joinpath(*parts[:last], "labels", *parts[last + 1 :]))
        for folder in folders:
            if folder != root and folder.is_dir():
                for label in sorted(folder.rglob("*.txt")):
                    if label not in used and label.name not in checks.LABEL_FILES:
                        problems.add(
                            "labels without an image", str(label), "no image has this name"
                        )


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
        out.write(SETTINGS[0], yaml.safe_dump(settings, allow_unicode=True, sort_keys=False))
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
