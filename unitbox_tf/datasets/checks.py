"""What every reader checks, so that each data set is judged alike."""

from __future__ import annotations

import math
from collections.abc import Sequence
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


def listed_lines(lines: Sequence[str], at: int, path: Path, problems: Problems) -> range | None:
    """The indices of the lines that belong to a photo whose count of objects is line `at` of the file `path`.

    None, and a problem, where there is no count; up to the end of the file, and a problem, where it ends early.
    """
    text = lines[at].strip() if at < len(lines) else ""
    if not text.isdecimal():
        where = f"{path}:{at + 1}"
        problems.add("malformed line", where, f"expected a count of objects, received {text!r}")
        return None
    first, last = at + 1, at + 1 + int(text)
    if last > len(lines):
        missing = f"expected {text} lines of objects, the file ends after {len(lines) - first}"
        problems.add("file ends early", f"{path}:{at + 1}", missing)
    return range(first, min(last, len(lines)))


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
