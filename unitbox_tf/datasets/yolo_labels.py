"""YOLO's label files: where the file of an image is, and what its lines say.

A line is one object. All but the class are shares of the image's width and height:

    0 0.5 0.5 0.2 0.1                    class, centre x, centre y, width, height
    0 0.5 0.5 0.2 0.1 0.91               the same, and a confidence
    0 0.5 0.5 0.2 0.1 0.91 17            the same, and the number of a track
    0 0.1 0.1 0.3 0.1 0.3 0.2 ...        class, and x and y of three or more points
    0 0.5 0.5 0.2 0.1 0.4 0.5 2 ...      a box and keypoints, where `kpt_shape` says how many
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from unitbox_tf import images
from unitbox_tf.datasets import checks
from unitbox_tf.problems import Problems

SLACK = 1e-3  # shares may lie beyond 0 and 1 by this much, from rounding, and are cut
PIXELS = 1.5  # larger numbers are no shares with an error, but another unit
LARGEST_CLASS = 2**31 - 1
MOST_WORDS = 20  # in the name of a class that begins a line
NO_LABELS = frozenset({*checks.LABEL_FILES, "notes.txt"})  # files of other kinds beside labels
IMAGE_FOLDERS = ("images", "jpegimages")  # in lower case; the folder `labels` is in their place
# "0 0,5 0,5 0,2 0,1": commas in the numbers, and not between them.
DECIMAL_COMMAS = re.compile(r"\S+(\s+-?\d*,\d+){4,}")
SEPARATORS = re.compile(r"\s*[,;]\s*|\s+")


class Row(NamedTuple):
    """One object: the index of its class, its edges `xyxy` in pixels, and its place in the file."""

    label: int
    box: tuple[float, float, float, float]
    where: str


class _Unreadable(ValueError):
    """The line is no object. The text says what was expected and what came."""


def read(
    path: Path,
    size: tuple[int, int],
    names: Mapping[str, int] | None,
    keypoints: int | None,
    problems: Problems,
) -> list[Row] | None:
    """The objects in a label file; None, after reports, if one of them cannot be read.

    Args:
        path: the file.
        size: height and width of the image in pixels.
        names: the indices of the class names, if they are known. A line may begin with a name.
        keypoints: how many numbers follow each box for its keypoints; None if the set has none.
        problems: each line that cannot be read is added here.
    """
    try:
        lines = checks.lines(path, small=True, problems=problems)
        checks.check_count(len(lines), str(path))
    except (OSError, ValueError) as error:
        checks.unreadable(problems, str(path), str(error))
        return None
    rows: list[Row] = []
    whole = True
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            label, words = _label(_words(line), names)
            rows.append(Row(label, _box(words, size, keypoints), where))
        except _Unreadable as error:
            checks.unreadable(problems, where, f"{error}, received {line.strip()[:200]!r}")
            whole = False
    return rows if whole else None


def _words(line: str) -> list[str]:
    line = line.strip().rstrip(",;").rstrip()
    if DECIMAL_COMMAS.fullmatch(line):
        line = line.replace(",", ".")
    return SEPARATORS.split(line)


def _label(words: list[str], names: Mapping[str, int] | None) -> tuple[int, list[str]]:
    """The index of the class that the line begins with, and the other words."""
    value = _number(words[0])
    if value is None:
        for count in range(min(len(words) - 4, MOST_WORDS), 0, -1):  # a name may have several words
            name = " ".join(words[:count])
            if names and name in names:
                return names[name], words[count:]
        known = f", one of {checks.some_of(names)}" if names else ""
        raise _Unreadable(f"expected the number of a class{known}")
    if not (value.is_integer() and 0 <= value < (len(names) if names else LARGEST_CLASS)):
        known = f"a class from 0 to {len(names) - 1}" if names else "a class of 0 or more"
        raise _Unreadable(f"expected {known}")
    return int(value), words[1:]


def _number(word: str) -> float | None:
    # Python, unlike the format, reads 1_000 as a number.
    try:
        value = float(word)
    except ValueError:
        return None
    return value if np.isfinite(value) and "_" not in word else None


def _box(
    words: Sequence[str], size: tuple[int, int], keypoints: int | None
) -> tuple[float, float, float, float]:
    """The box of an object `xyxy` in pixels, from the numbers after its class."""
    found = [_number(word) for word in words]
    values = [value for value in found if value is not None]
    if len(values) < len(found):
        raise _Unreadable("expected numbers")
    count = len(values)
    if keypoints is not None:
        if count not in (4, 5, *range(4 + keypoints, 7 + keypoints)):
            raise _Unreadable(
                f"expected 5 numbers, or {5 + keypoints} with the keypoints of kpt_shape"
            )
        return _box_of_centre(values[:4], size)
    if count == 6 and _has_track(values, words[-1]):
        count = 5
    if count in (4, 5):
        if count == 5 and not -SLACK <= values[4] <= 1 + SLACK:
            raise _Unreadable("expected a confidence from 0 to 1 as the sixth number")
        return _box_of_centre(values[:4], size)
    if count >= 6 and count % 2 == 0:
        height, width = size
        points = np.reshape(_shares(values), (-1, 2)) * [width, height]
        (x0, y0), (x1, y1) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
        return x0, y0, x1, y1
    raise _Unreadable(
        "expected a class and 4 numbers for a box, or x and y of 3 or more points "
        "(a box with keypoints needs kpt_shape in data.yaml)"
    )


def _has_track(values: Sequence[float], last: str) -> bool:
    """True if six numbers are a box, a confidence and the number of a track, and not three points."""
    if not last.isdecimal():
        return False
    if values[-1] > 1:
        return True
    # The last point may lie on the border. Then the first four numbers are hardly ever a box in the image.
    centre, sides = np.array(values[:2]), np.array(values[2:4])
    low, high = centre - sides / 2, centre + sides / 2
    return bool((sides > 0).all() and (low >= -SLACK).all() and (high <= 1 + SLACK).all())


def _box_of_centre(
    values: Sequence[float], size: tuple[int, int]
) -> tuple[float, float, float, float]:
    height, width = size
    x, y, across, down = _shares(values)
    x, y, across, down = x * width, y * height, across * width, down * height
    return x - across / 2, y - down / 2, x + across / 2, y + down / 2


def _shares(values: Sequence[float]) -> list[float]:
    """`values`, cut to 0 and 1 where they lie beyond by a rounding error."""
    if max(values) > PIXELS:
        raise _Unreadable("expected shares of the image from 0 to 1, and not pixels")
    if min(values) < -SLACK or max(values) > 1 + SLACK:
        raise _Unreadable("expected shares of the image from 0 to 1")
    return [min(max(value, 0.0), 1.0) for value in values]


class Labels:
    """Finds the label files of images: in the folder `labels` parallel to `images`, or else beside the image.

    The label file of `a.jpg` is `a.txt` or `a.jpg.txt`. Names that differ in nothing but upper and lower
    case, or in the form of their accents (NFC, NFD), are the same, if no other image has the name exactly.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._files: dict[Path, dict[str, Path]] = {}
        self._stems: dict[Path, set[str]] = {}

    def of(self, photo: Path) -> Path | None:
        """The label file of an image; None if it has none."""
        for folder in label_folders(photo.parent, self._root):
            files = self._in(folder)
            for name in (photo.stem, photo.name):
                if name in files:
                    return files[name]
                # The labels of an image that is called notes.jpg, and no notes.
                if f"{name}.txt".lower() in NO_LABELS and os.path.isfile(folder / f"{name}.txt"):
                    return folder / f"{name}.txt"
            # Keys of the other kind end in a zero, which no name has.
            alike = files.get(f"{_plain(photo.stem)}\0")
            if alike is not None and alike.stem not in self._photos_in(photo.parent):
                return alike
        return None

    def _in(self, folder: Path) -> dict[str, Path]:
        if folder not in self._files:
            names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
            paths = [
                folder / name
                for name in names
                if name.lower().endswith(".txt") and name.lower() not in NO_LABELS
            ]
            plain = [f"{_plain(path.stem)}\0" for path in paths]
            counts = Counter(plain)
            alike = {k: p for k, p in zip(plain, paths, strict=True) if counts[k] == 1}
            self._files[folder] = alike | {path.stem: path for path in paths}
        return self._files[folder]

    def _photos_in(self, folder: Path) -> set[str]:
        if folder not in self._stems:
            parts = map(os.path.splitext, os.listdir(folder))
            self._stems[folder] = {a for a, b in parts if b.lower() in images.IMAGE_SUFFIXES}
        return self._stems[folder]


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def label_folders(folder: Path, root: Path) -> list[Path]:
    """The folders in which the labels of the images in `folder` may be, the first one first."""
    parts = folder.relative_to(root).parts
    at = [n for n, part in enumerate(parts) if part.lower() in IMAGE_FOLDERS]
    if not at:
        return [folder]
    return [
        *(root.joinpath(*parts[: at[-1]], n, *parts[at[-1] + 1 :]) for n in ("labels", "Labels")),
        folder,
    ]
