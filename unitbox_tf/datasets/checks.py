"""What every reader checks, so that each data set is judged alike."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from unitbox_tf.records import Problems

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png"})


def numbers(text: str, counts: Sequence[int], where: str, problems: Problems) -> list[float] | None:
    """The finite numbers in `text`, of which there must be one of `counts`; else a problem and None."""
    try:
        values = [float(word) for word in text.split()]
    except ValueError:
        values = []
    if len(values) in counts and all(map(math.isfinite, values)):
        return values
    expected = " or ".join(map(str, counts))
    problems.add("malformed line", where, f"expected {expected} numbers, received {text.strip()!r}")
    return None


def listed_photos(
    path: Path, is_name: Callable[[str], bool], problems: Problems
) -> Iterator[tuple[str, str, list[tuple[str, str]]]]:
    """The photos in a list that repeats: a photo's name, the number of its objects, a line for each of them.

    This is how FDDB and WIDER FACE list their photos. Where the number is missing, the photo's
    objects are unknown: a problem, and the next line that `is_name` begins the next photo. A list
    that ends early is a problem, too. The one line of zeros that WIDER FACE has for a photo without
    a face is skipped.

    Yields:
        The name, its place (`path:line`), and for each object its place and its line.
    """
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    at = 0
    while at < len(lines):
        name, where = lines[at].strip(), f"{path}:{at + 1}"
        at += 1
        if not name:
            continue
        text, count_where = (lines[at].strip() if at < len(lines) else ""), f"{path}:{at + 1}"
        if not text.isdecimal():
            message = f"expected a count of objects, received {text!r}"
            problems.add("malformed line", count_where, message)
            while at < len(lines) and not is_name(lines[at].strip()):
                at += 1
            continue
        first, last = at + 1, at + 1 + int(text)
        if last > len(lines):
            message = f"expected {text} lines of objects, the file ends after {len(lines) - first}"
            problems.add("file ends early", count_where, message)
        at = min(last, len(lines))
        yield name, where, [(f"{path}:{n + 1}", lines[n]) for n in range(first, at)]
        if first == last and at < len(lines) and set(lines[at].split()) == {"0"}:
            at += 1


def has_area(box: Sequence[float], where: str, problems: Problems) -> bool:
    """Whether the `xyxy` box has a positive width and height; else a problem."""
    width, height = box[2] - box[0], box[3] - box[1]
    if width > 0 and height > 0:
        return True
    problems.add(
        "box without area",
        where,
        f"expected a width and height above 0, received {width:g} x {height:g}",
    )
    return False


def is_there(path: Path, root: Path, where: str, problems: Problems) -> bool:
    """Whether the photo `path` exists below `root`; else a problem."""
    if not path.resolve().is_relative_to(root.resolve()):
        problems.add("path outside the data set", where, f"{path} is not below {root}")
    elif not path.is_file():
        problems.add("photo listed but absent", where, f"{path} does not exist")
    else:
        return True
    return False


def photos(folder: Path) -> list[Path]:
    """All JPEG and PNG files in `folder` and the folders below it, sorted."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
