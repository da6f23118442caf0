"""Checks that all readers share, so that every format is treated alike. `lists` has those of lists."""

from __future__ import annotations

import codecs
import itertools
import math
import os
import reprlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from unitbox_tf import files, images, limits, spelling
from unitbox_tf.datasets import names
from unitbox_tf.problems import Problems

LARGEST_NUMBER = 1e300  # in a list of objects: sums of such numbers are finite
MANY_SWAPPED = 5  # boxes
FEW_SWAPPED = 0.1  # share of the boxes; people who draw boxes backwards do it seldom or always
LINE_END = b"\n"
LABEL_FILES = ("labels.txt", "classes.txt")
LEAVES, UNUSABLE = names.LEAVES, names.UNUSABLE

OUTSIDE = "path outside the data set"  # kinds of problems that several modules report
TWICE = "image listed twice"
ABSENT = "image listed but absent"
ELSEWHERE = "images found by the ends of their paths"
MALFORMED = "malformed line"
LEAVE = "boxes that leave their images"
SWAPPED = "swapped corners"
UNREADABLE = "object that cannot be read"


def lines(path: Path, *, small: bool = False, problems: Problems | None = None) -> list[str]:
    """The lines of a text file in UTF-8. A line that is not UTF-8 is a problem; its wrong bytes become U+FFFD.

    Raises:
        ValueError: the file is in UTF-16 or UTF-32, in which no line can be read; or it has more bytes or lines
            than `limits` allow for a list, or for a `small` file about one image.
        OSError: it cannot be read, or is no regular file.
    """
    problems = Problems.of(problems)
    most = limits.MAX_IMAGE_FILE_BYTES if small else limits.MAX_ANNOTATION_BYTES
    raw = files.read(path, most)
    # UTF-32's mark of little-endian order begins with that of UTF-16.
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)):
        raise ValueError(f"{path}: expected text in UTF-8, received UTF-16 or UTF-32")
    raw = raw.removeprefix(codecs.BOM_UTF8).replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    if raw.count(LINE_END) > limits.MAX_LINES:
        raise limits.TooLarge(
            f"{path}: expected at most {limits.MAX_LINES:,} lines. Received: {raw.count(LINE_END):,}"
        )
    try:
        return raw.decode("utf-8").split("\n")
    except UnicodeDecodeError:
        return [
            _decoded(line, f"{path}:{n}", problems) for n, line in enumerate(raw.split(b"\n"), 1)
        ]


def _decoded(line: bytes, where: str, problems: Problems) -> str:
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        problems.add(
            "wrong encoding",
            where,
            f"expected UTF-8, received 0x{line[error.start]:02x} as byte {error.start + 1} of the line",
        )
        return line.decode("utf-8", errors="replace")


def numbers(
    text: str, counts: Sequence[int], where: str, *, problems: Problems | None = None
) -> list[float] | None:
    """The numbers in `text`, finite and up to `LARGEST_NUMBER`.

    Their number must be one of `counts`. If not, there is a problem, and the result is None.
    """
    values = floats(text.split())
    if values is not None and len(values) in counts:
        return values
    expected = " or ".join(map(str, counts))
    message = f"expected {expected} numbers, received {text.strip()[:200]!r}"
    Problems.of(problems).add(MALFORMED, where, message)
    return None


def floats(words: Sequence[str]) -> list[float] | None:
    """`words` as numbers up to `LARGEST_NUMBER`; None if one of them is none."""
    try:
        values = [float(word) for word in words]
    except ValueError:
        return None
    # Python, unlike the formats, reads 1_000 as a number.
    usable = all(map(math.isfinite, values)) and "_" not in "".join(words)
    return values if usable and max(map(abs, values), default=0) <= LARGEST_NUMBER else None


def fault_of_name(name: str) -> tuple[str, str] | None:
    """The reason why an image below a folder cannot have this name: kind of problem and message; None if it can."""
    if len(name) > limits.MAX_NAME:
        message = f"expected at most {limits.MAX_NAME:,} characters, received {len(name):,}: {name[:200]!r}"
        return "unusable name", message
    if names.LEAVES.search(name):
        return OUTSIDE, f"expected a path below the data set's folder, received {name[:200]!r}"
    if names.UNUSABLE.search(name) or os.path.normpath(name) == ".":
        return "unusable name", f"expected the name of an image, received {name[:200]!r}"
    return None


def unreadable(problems: Problems, where: str, message: str) -> None:
    """Reports an object that cannot be read; `message` says what was expected, and what came.

    The image of the object must be left out: training would learn that nothing is there.
    """
    problems.add(UNREADABLE, where, f"{message}: the image is left out")


def ignored(
    boxes: np.ndarray,
    ignore: np.ndarray | Sequence[bool],
    places: Sequence[str],
    size: tuple[int, int] | None,
    *,
    problems: Problems | None = None,
) -> np.ndarray:
    """`ignore` `[N]`, with True also for boxes that cannot be found: boxes without area or outside their image.

    Each such box is a problem at its place in `places`. Boxes that are partly outside stay as they
    are: training and judging cut them.
    """
    problems = Problems.of(problems)
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    ignore = np.array(ignore, np.bool_).reshape(-1)
    flat = (boxes[:, 2:] <= boxes[:, :2]).any(axis=1)
    for index in np.flatnonzero(flat).tolist():
        width, height = boxes[index, 2:] - boxes[index, :2]
        problems.add(
            "box without area",
            places[index],
            f"expected a width and height above 0, received {width:g} x {height:g}: ignored",
        )
    if size is None:
        return ignore | flat
    outside = (boxes[:, 2:] <= 0).any(axis=1) | (boxes[:, :2] >= size[::-1]).any(axis=1)
    for index in np.flatnonzero(outside & ~flat).tolist():
        text = " ".join(f"{value:g}" for value in boxes[index])
        message = f"expected a box in {size[1]} x {size[0]} pixels, received {text}: ignored"
        problems.add("box outside its image", places[index], message)
    return ignore | flat | outside


def report_swapped(swapped: int, total: int, where: str, problems: Problems) -> None:
    """Reports if many boxes of a set had their second corner before the first: it may be width and height."""
    if swapped >= MANY_SWAPPED and swapped > FEW_SWAPPED * total:
        message = (
            f"the second corner of {swapped} of {total} boxes lies before the first, so the corners were swapped. "
            "If these are width and height, write x + width and y + height"
        )
        problems.add(SWAPPED, where, message)


_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxlist, _SHORT.maxdict = 3, 10, 10
_SHORT.maxstring = _SHORT.maxother = 200


def shown(value: object) -> str:
    """A value of a file for messages, at most 200 characters of it, however long or deep it is."""
    return _SHORT.repr(value)[:200]


def some_of(known: Iterable[object]) -> str:
    """The first of the values that something may have, for messages: a list may be long."""
    return repr(list(itertools.islice(known, 20)))


def check_count(count: int, where: str) -> None:
    """Raises `TooLarge` if an image has more objects than `limits` allow."""
    if count > limits.MAX_OBJECTS:
        raise limits.TooLarge(
            f"{where}: expected at most {limits.MAX_OBJECTS:,} objects in an image. Received: {count:,}"
        )


def file_of(root: Path, split: str, suffix: str) -> Path:
    """The file `root`, or `split + suffix` in the folder `root`, or the only such file there.

    Raises `ValueError` if there is none, or if there are several and no `split` names one.
    """
    if root.is_file():
        return root
    found = sorted(root.glob(f"*{suffix}"))
    if split:
        path = root / f"{split}{suffix}"
        if not path.is_file():
            known = [path.stem for path in found]
            raise ValueError(f"expected {path}: no such file. {known_splits(split, known)}")
        return path
    if len(found) != 1:
        names = [path.name for path in found]
        raise ValueError(
            f"{root}: expected one {suffix[1:]} file, found {names}; "
            f"name one after '#', without {suffix}"
        )
    return found[0]


def known_splits(split: str, known: Sequence[str]) -> str:
    """The sentences of a message that say which splits there are, and which of them may be meant by `split`."""
    if not known:
        return "There are no splits"
    near = spelling.closest(split, known)
    meant = f" Did you mean {near!r}?" if near else ""
    return f"There are {some_of(known)}.{meant}"


def listed_class_names(folder: Path) -> tuple[str, ...] | None:
    """The class names in `labels.txt` or `classes.txt` in `folder`, one a line; None without such a file.

    Raises `ValueError` if a name is empty or appears twice, or the file is not UTF-8.
    """
    path = next((folder / name for name in LABEL_FILES if os.path.lexists(folder / name)), None)
    if path is None:
        return None
    problems = Problems(logged=False)
    found = name_list(path, problems)
    if problems.found:
        raise ValueError(str(problems.found[0]))
    return found


def name_list(path: Path, problems: Problems | None = None) -> tuple[str, ...]:
    """The class names in a text file, one a line. Lines that are not UTF-8 are `problems`.

    Raises `ValueError` if a name is empty, too long, has control characters or appears twice.
    """
    text = "\n".join(lines(path, small=True, problems=problems)).rstrip()
    found = tuple(line.strip() for line in text.split("\n"))
    number = first_unusable(found)
    if number is not None:
        raise ValueError(
            f"{path}:{number + 1}: expected the name of another class: {found[number]!r:.200}"
        )
    return found


def first_unusable(names: Sequence[str]) -> int | None:
    """The index of the first name of a class that is empty, too long, there before or no text; None without one."""
    known: set[str] = set()
    for number, name in enumerate(names):
        if not name or len(name) > limits.MAX_NAME or name in known or UNUSABLE.search(name):
            return number
        known.add(name)
    return None


class Folder:
    """A folder that tells whether files lie in it, after symbolic links are followed.

    The folder itself may be a link: its owner made it one.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._root = os.path.realpath(path)
        self._known: dict[str, bool] = {}

    def contains(self, path: Path) -> bool:
        """True if the file `path` lies in the folder after links are followed."""
        parent = os.path.dirname(path)
        if parent not in self._known:  # few of many images have a folder of their own
            self._known[parent] = self._is_below(os.path.realpath(parent))
        if not self._known[parent]:
            return False
        return not os.path.islink(path) or self._is_below(os.path.realpath(path))

    def _is_below(self, path: str) -> bool:
        return path == self._root or path.startswith(os.path.join(self._root, ""))


class Photos:
    """Finds the images of a data set by the names in its lists, and takes no file outside the data set.

    A name is a path below one of the folders of images, or below the data set's root. Names that other
    tools and other systems write are understood; see `names.Names.find`.

    A name is refused, and reported as a problem, if it leaves the data set (also through a symbolic
    link), has control characters, or names no file.
    """

    def __init__(
        self,
        folder: Path,
        *,
        others: Sequence[Path] = (),
        root: Path | None = None,
        needed: bool = True,
        problems: Problems | None = None,
    ) -> None:
        """Knows where the images are.

        Args:
            folder: has the images. Names in lists are paths below this folder.
            others: further folders that may have images, in the order in which they are searched.
            root: the folder of the whole data set, which is searched last; None if it is `folder`.
            needed: absent images are a problem.
            problems: refused names are added here.
        """
        tops = list(dict.fromkeys([folder, *others, root or folder]))
        self._folders = [Folder(top) for top in tops]
        self._names = names.Names(tops)
        self._problems = Problems.of(problems)
        self._needed = needed
        self._listed: dict[Path, str] = {}
        self._stems: dict[str, dict[str, str]] = {}
        self._replaced: set[str] = set()  # what files found by the end of a path have before it

    def find(self, name: str, where: str) -> Path | None:
        """The file of the image `name`; None if it is refused. The name stands at `where`.

        A file that was found before is refused, too: the first of two is kept.
        """
        path = self._checked(name, where, self._names.find(name))
        if path is None:
            return None
        if path in self._listed:
            message = f"{name!r} is listed at {self._listed[path]} already, which is kept"
            self._problems.add(TWICE, where, message)
            return None
        self._listed[path] = where
        return path

    def find_all(self, listed: Sequence[tuple[str, str]]) -> list[Path | None]:
        """The files of all names in a list, each with its place; None for a name that is refused.

        Several names may have one file. Since all names are known, a path of another machine is
        understood, too, if it ends with the path of a file here that no other name means. This is reported.
        """
        found = [self._names.find(name) for name, _ in listed]
        ends = [
            self._names.find_end(name) if path is None and not names.UNUSABLE.search(name) else None
            for path, (name, _) in zip(found, listed, strict=True)
        ]
        meant: dict[str, set[str]] = {}  # by file, the names
        for path, end, (name, _) in zip(found, ends, listed, strict=True):
            if path or end:
                meant.setdefault(path or end or "", set()).add(names.forms(name)[-1])
        unclear = {
            end: sorted(meant[end])[:4] for end in set(filter(None, ends)) if len(meant[end]) > 1
        }
        chosen: list[Path | None] = []
        for path, end, (name, where) in zip(found, ends, listed, strict=True):
            file = path or end
            if file and file in unclear:
                others = [each for each in unclear[file] if each != names.forms(name)[-1]][:3]
                message = f"expected an image of its own for {name[:200]!r}: {file} may also be"
                self._problems.add(ABSENT, where, f"{message} {others}")
                chosen.append(None)
                continue
            if end:
                self._report_end(name, where, end)
            chosen.append(self._checked(name, where, file))
        return chosen

    def below(self, path: Path) -> str:
        """The name of an image that was found: its path below the folder that has it, with slashes."""
        text = os.fspath(path)
        for folder in self._folders:
            before = os.path.join(folder.path, "")
            if text.startswith(before):
                return text[len(before) :].replace(os.sep, "/")
        return text

    def name_of(self, stem: str, default: str = ".jpg") -> str:
        """The name of the image `stem`, for formats without suffixes. `default` is the suffix if there is no file."""
        if fault_of_name(stem):
            return stem
        folder, _, last = stem.rpartition("/")
        if folder not in self._stems:
            listing = self._names.listing(os.path.join(self._folders[0].path, folder))
            parts = map(os.path.splitext, sorted(listing.names, reverse=True))
            self._stems[folder] = {a: b for a, b in parts if b.lower() in images.IMAGE_SUFFIXES}
        return stem + self._stems[folder].get(last, default)

    def _checked(self, name: str, where: str, found: str | None) -> Path | None:
        """The file `found` for `name`; None, after a report, if there is none or it lies outside."""
        fault = None if found else fault_of_name(name)
        if fault:
            self._problems.add(fault[0], where, fault[1])
            return None
        path = Path(found) if found else self._absent(name)
        if not any(folder.contains(path) for folder in self._folders):
            self._problems.add(OUTSIDE, where, f"{path} is a link that leaves the folder")
            return None
        if self._needed and not found:
            there = os.path.lexists(path)
            message = "is no regular file, or a link to none" if there else "does not exist"
            self._problems.add(ABSENT, where, f"{path} {message}")
            return None
        return path

    def _absent(self, name: str) -> Path:
        """The place where an image that is absent should be."""
        parts = name.replace("\\", "/").split("/")
        first = self._folders[0].path
        return first.joinpath(*(parts[1:] if parts[0] == first.name and parts[1:] else parts))

    def _report_end(self, name: str, where: str, end: str) -> None:
        """Reports that `name` has more than the path of its file `end`: once for all names with the same before it."""
        form, below = names.forms(name)[-1], self.below(Path(end))
        before = form.rsplit("/", below.count("/") + 1)[0]
        if before not in self._replaced:
            self._replaced.add(before)
            message = (
                f"{name[:200]!r} is not in the data set: {end} is taken, and so are files for all "
                f"names that begin with {before[:200]!r}"
            )
            self._problems.add(ELSEWHERE, where, message)


def without_suffix(name: str) -> str:
    """The name of an image without a suffix of `images.FORMATS` at its end."""
    stem, dot, suffix = name.rpartition(".")
    return stem if dot and f".{suffix.lower()}" in images.IMAGE_SUFFIXES else name
