"""Lists of images that FDDB and WIDER FACE have, and images that a list has several times."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from unitbox_tf import limits
from unitbox_tf.datasets import checks
from unitbox_tf.problems import Problems
from unitbox_tf.records import Annotation

AT_ONCE = 10_000  # lines that are parsed together


class Listed(NamedTuple):
    """An image in a list: name, number of the name's line, lines of the objects, number of the first line."""

    name: str
    line: int
    rows: list[str]
    first: int


def listed_photos(
    path: Path,
    is_name: Callable[[str], bool],
    *,
    whole: bool = True,
    problems: Problems | None = None,
) -> Iterator[Listed]:
    """The images in a list that repeats: an image's name, the number of its objects, a line for each of them.

    FDDB and WIDER FACE list their images in this way. WIDER FACE has one line of zeros for an image
    without a face; this line is skipped. Where the list is broken, a problem is reported, and reading
    goes on at the next line that `is_name`. A list is broken where the number of objects is missing,
    or where there are fewer or more lines than this number says.

    Args:
        path: the list.
        is_name: tells names from objects.
        whole: an image whose objects are more or fewer than stated is left out. If False, the objects that
            are there are kept, up to the stated number.
        problems: broken places are added here.
    """
    found = Problems.of(problems)
    text = checks.lines(path, problems=found)
    at = 0
    end = ": the image is left out" if whole else ""

    def report(kind: str, line: int, message: str) -> None:
        found.add(kind, f"{path}:{line}", message)

    while at < len(text):
        name, line = text[at].strip(), at + 1
        at += 1
        if not name:
            continue
        count_text = text[at].strip() if at < len(text) else ""
        if not (count_text.isdecimal() and len(count_text) < 20):
            message = f"expected a count of objects, received {count_text[:200]!r}"
            report(checks.MALFORMED, at + 1, f"{message}: the image is left out")
            at = _next_name(text, at, is_name)
            continue
        first, count = at + 1, int(count_text)
        rows = text[first : _next_name(text, first, is_name, first + count)]
        while rows and not rows[-1].strip() and first + len(rows) == len(text):
            rows.pop()  # empty lines at the end of the file
        at = first + len(rows)
        broken = True
        if len(rows) < count:
            if at < len(text) and is_name(text[at].strip()):
                message = f"expected {count} lines of objects, the next image follows {len(rows)}"
                report("image ends early", first, message + end)
            else:
                message = f"expected {count} lines of objects, the file ends after {len(rows)}"
                report("file ends early", first, message + end)
        else:
            if count == 0 and at < len(text) and set(text[at].split()) == {"0"}:
                at += 1
            broken = at < len(text) and _is_object(text[at], is_name)
            if broken:
                message = f"expected {count} lines of objects, received more: {text[at][:200]!r}"
                report("image ends late", at + 1, message + end)
                at = _next_name(text, at, is_name)
        if not (broken and whole):
            yield Listed(name, line, rows, first + 1)


def _next_name(
    text: Sequence[str], at: int, is_name: Callable[[str], bool], end: int = sys.maxsize
) -> int:
    """The index of the next line that is a name, from `at` on; `end`, or that of the last line, if there is none."""
    end = min(end, len(text))
    return next((n for n in range(at, end) if is_name(text[n].strip())), end)


def _is_object(line: str, is_name: Callable[[str], bool]) -> bool:
    """True if the line has numbers instead of a name."""
    words = line.split()
    return bool(words) and not is_name(line.strip()) and checks.floats(words[:1]) is not None


def objects(
    path: Path, listed: Listed, counts: Sequence[int], *, problems: Problems | None = None
) -> tuple[np.ndarray, list[str]] | None:
    """The lines of an image's objects as a table, and their places; None, after a report, if a line is malformed.

    Args:
        path: the list.
        listed: the image in it.
        counts: how many numbers a line may have.
        problems: malformed lines are added here.

    Returns:
        The table `[N, max(counts)]` float64, NaN where a line has fewer numbers, and `N` places.
    """
    problems = Problems.of(problems)
    width, rows = max(counts), listed.rows
    if len(rows) > limits.MAX_OBJECTS:
        place = f"{path}:{listed.line}"
        message = (
            f"expected at most {limits.MAX_OBJECTS:,} objects in an image, received {len(rows):,}"
        )
        checks.unreadable(problems, place, message)
        return None
    if len(rows) > AT_ONCE:
        return _in_parts(path, listed, counts, problems)
    places = [f"{path}:{line}" for line in range(listed.first, listed.first + len(rows))]
    # All lines at once where they have the same form, as nearly always: this takes half the time.
    words = " ; ".join(rows).split()
    each = (len(words) + 1) // max(len(rows), 1)
    if each - 1 in counts and words[each - 1 :: each] == [";"] * (len(rows) - 1):
        del words[each - 1 :: each]
        values = checks.floats(words)
        if values is not None:
            table = np.full((len(rows), width), np.nan)
            table[:, : each - 1] = np.reshape(values, (len(rows), -1))
            return table, places
    read = []
    for place, row in zip(places, rows, strict=True):
        values = checks.floats(row.split())
        if values is None or len(values) not in counts:
            expected = " or ".join(map(str, counts))
            message = f"expected {expected} numbers, received {row.strip()[:200]!r}"
            checks.unreadable(problems, place, message)
        else:
            read.append(values + [np.nan] * (width - len(values)))
    if len(read) < len(rows):
        return None
    return np.reshape(np.array(read, np.float64), (-1, width)), places


def _in_parts(
    path: Path, listed: Listed, counts: Sequence[int], problems: Problems
) -> tuple[np.ndarray, list[str]] | None:
    """`objects` of many lines, some at a time, so that memory holds few words."""
    parts = [
        objects(
            path,
            listed._replace(rows=listed.rows[at : at + AT_ONCE], first=listed.first + at),
            counts,
            problems=problems,
        )
        for at in range(0, len(listed.rows), AT_ONCE)
    ]
    read = [part for part in parts if part is not None]
    if len(read) < len(parts):
        return None
    return np.concatenate([table for table, _ in read]), [p for _, places in read for p in places]


def read(
    listed: Sequence[tuple[Path, Listed]],
    photos: checks.Photos,
    name_of: Callable[[str], str],
    annotation: Callable[[Path, Listed, Path, Problems], Annotation | None],
    problems: Problems,
) -> Iterator[Annotation]:
    """The annotations of the images in lists that `listed_photos` has read.

    Args:
        listed: the images, each with the list in which it stands.
        photos: finds the images.
        name_of: gives the name of an image's file for its name in the list.
        annotation: makes the annotation of an image with this file; None, after a report, if an object
            cannot be read. Then the image is left out.
        problems: images that are listed twice are added here.
    """
    places = [f"{path}:{one.line}" for path, one in listed]
    names = [name_of(one.name) for _, one in listed]
    same: dict[Path, list[int]] = {}
    for index, photo in enumerate(photos.find_all(list(zip(names, places, strict=True)))):
        if photo is not None:
            same.setdefault(photo, []).append(index)
    for photo, indices in same.items():
        parts = [annotation(*listed[index], photo, problems) for index in indices]
        for index in indices[1:]:
            message = f"is listed at {places[indices[0]]} already: the objects of both are joined"
            problems.add(checks.TWICE, places[index], f"{listed[index][1].name!r} {message}")
        whole = [part for part in parts if part is not None]
        if len(whole) == len(parts):
            yield joined(whole)


def joined(parts: Sequence[Annotation]) -> Annotation:
    """The annotation of an image that is listed several times. An object that was listed before is left out.

    `parts` is not empty.
    """
    first = parts[0]
    if len(parts) == 1:
        return first
    areas = [np.full(len(p.boxes), np.nan) if p.areas is None else p.areas for p in parts]
    common = set.intersection(*(set(part.attributes or {}) for part in parts))
    whole = dataclasses.replace(
        first,
        boxes=np.concatenate([part.boxes for part in parts]),
        classes=np.concatenate([part.classes for part in parts]),
        ignore=np.concatenate([part.ignore for part in parts]),
        size=next((part.size for part in parts if part.size), None),
        ellipses=None
        if any(part.ellipses is None for part in parts)
        else np.concatenate([part.ellipses for part in parts if part.ellipses is not None]),
        attributes={
            name: np.concatenate([(part.attributes or {})[name] for part in parts])
            for name in sorted(common)
        }
        or None,
        areas=None if all(part.areas is None for part in parts) else np.concatenate(areas),
    )
    known: set[tuple[float, ...]] = set()
    kept: list[bool] = []
    for part in parts:
        rows = [*map(tuple, np.column_stack([part.boxes, part.classes]).tolist())]
        kept += [row not in known for row in rows]
        known.update(rows)
    return whole.select(np.array(kept, np.bool_))
