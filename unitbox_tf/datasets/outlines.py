"""Numbers as files write them, and the boxes of polygons and masks in COCO's json."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

LARGEST_NUMBER = 1e300  # sums of such numbers are finite
LARGEST_MASK = 1 << 40  # pixels
LARGEST_SIDE = 2**31 - 1  # pixels of an image
LONGEST_NUMBER = 400  # characters; 1e300 has 301 digits
DEEPEST = 4  # lists in each other that are polygons: polygons of points
# Python reads 1_0, too.
PLAIN = re.compile(r"\s*[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?\s*", re.ASCII)
BETWEEN = re.compile(r"\s*[,;]\s*|\s+")  # what stands between numbers in a text


class Box(NamedTuple):
    """A box by its edges, in pixels."""

    x0: float
    y0: float
    x1: float
    y1: float

    @property
    def has_area(self) -> bool:
        """True if its width and its height are above 0."""
        return self.x1 > self.x0 and self.y1 > self.y0


def number(value: Any) -> float | None:
    """A finite number up to `LARGEST_NUMBER`, also one that is written as a text; None for anything else."""
    if isinstance(value, str):
        is_plain = len(value) <= LONGEST_NUMBER and PLAIN.fullmatch(value)
        value = float(value) if is_plain else None
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    # Also False for NaN. Whole numbers may have more digits than a float can hold.
    return float(value) if abs(value) <= LARGEST_NUMBER else None


def whole(value: Any) -> int | None:
    """A whole number, also as a float or as a text; None for anything else."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    found = number(value)
    return int(found) if found is not None and found.is_integer() else None


def size(height: Any, width: Any) -> tuple[int, int] | None:
    """Height and width as whole numbers of pixels from 1 to `LARGEST_SIDE`; None if one is none."""
    sides = whole(height), whole(width)
    if any(side is None or not 0 < side <= LARGEST_SIDE for side in sides):
        return None
    return sides  # type: ignore[return-value]


FLAGS = {"": False, "false": False, "no": False, "true": True, "yes": True}


def flag(value: Any) -> bool | None:
    """A mark: a number, a truth value, either of them as a text, or nothing (False); None for anything else."""
    if value is None or isinstance(value, bool):
        return bool(value)
    if isinstance(value, str) and value.strip().casefold() in FLAGS:
        return FLAGS[value.strip().casefold()]
    found = number(value)
    return None if found is None else bool(found)


def numbers(value: Any, deep: int = 1) -> list[float] | None:
    """The numbers in a list or in a text such as `[10, 10, 20, 20]`, also without brackets; None if one is none."""
    if isinstance(value, str):
        text = value.strip()
        if text[:1] + text[-1:] in ("[]", "()"):
            text = text[1:-1].strip()
        value = BETWEEN.split(text)
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], list | str):
        return numbers(value[0], deep + 1) if deep < DEEPEST else None
    if not isinstance(value, list):
        return None
    found = list(map(number, value))
    return None if None in found else found  # type: ignore[return-value]


def box_of(segmentation: Any) -> Box | None:
    """The tight box around COCO's `segmentation`; None if it cannot be read.

    Args:
        segmentation: a list of polygons `[x, y, x, y ...]` or `[[x, y], ...]`, one polygon, a mask
            `{"counts": ..., "size": [height, width]}`, or a list of masks.
    """
    if isinstance(segmentation, dict):
        return box_of_mask(segmentation)
    if not isinstance(segmentation, list):
        return None
    if any(isinstance(part, dict) for part in segmentation):
        masks = [box_of_mask(part) if isinstance(part, dict) else None for part in segmentation]
        return _around([mask for mask in masks if mask]) if all(masks) else None
    if not _are_polygons(segmentation):
        return None
    values = [number(value) for value in _flat(segmentation)]
    # A polygon in a list of polygons has an even count of numbers, so that all of them together do.
    if not values or None in values:
        return None
    x, y = values[0::2], values[1::2]
    return Box(min(x), min(y), max(x), max(y))  # type: ignore[type-var, arg-type]


def _flat(value: Any) -> Iterator[Any]:
    if isinstance(value, list):
        for part in value:
            yield from _flat(part)
    else:
        yield value


def _are_polygons(value: list[Any], depth: int = 1) -> bool:
    """True for an even count of numbers, points `[x, y]`, or a list of such lists."""
    if any(isinstance(part, list) for part in value):
        return depth < DEEPEST and all(
            isinstance(part, list) and _are_polygons(part, depth + 1) for part in value
        )
    return len(value) % 2 == 0


def _around(boxes: Sequence[Box]) -> Box:
    x0, y0, x1, y1 = zip(*boxes, strict=True)
    return Box(min(x0), min(y0), max(x1), max(y1))


def box_of_mask(mask: dict[str, Any]) -> Box | None:
    """The tight box around a mask as run lengths; None if it cannot be read or has no pixel.

    Source: cocodataset/cocoapi, common/maskApi.c: pixels are counted column by column, and the first
        run is of pixels outside. `counts` may be a text; see `_unpacked`.
    """
    size = numbers(mask.get("size"))
    counts = mask.get("counts")
    runs = _unpacked(counts) if isinstance(counts, str) else numbers(counts)
    if size is None or runs is None or len(size) != 2 or not size[0] * size[1] <= LARGEST_MASK:
        return None
    lengths = np.array(runs, np.float64)
    ends = np.cumsum(lengths)
    if not len(ends) or ends[-1] != size[0] * size[1] or (lengths != np.floor(lengths)).any():
        return None
    if (lengths < 0).any() or any(side != math.floor(side) or side < 1 for side in size):
        return None
    inside = np.flatnonzero(lengths[1::2]) * 2 + 1
    if not len(inside):
        return None
    height = int(size[0])
    first, last = ends[inside - 1].astype(np.int64), ends[inside].astype(np.int64) - 1
    x0, x1 = first // height, last // height
    # A run that goes on in the next column has the last row and the first one.
    crosses = x0 < x1
    y0, y1 = np.where(crosses, 0, first % height), np.where(crosses, height - 1, last % height)
    return Box(float(x0.min()), float(y0.min()), float(x1.max()) + 1, float(y1.max()) + 1)


def _unpacked(text: str) -> list[int] | None:
    """The run lengths in COCO's packed text; None if it is none.

    Each character has 6 bits from `0` on: 5 bits of a number, the low ones first, and 1 if the number goes
    on. Its fifth bit is its sign. From the fourth number on, numbers are differences to the number two
    places before.

    Source: cocodataset/cocoapi, common/maskApi.c, rleFrString.
    """
    runs: list[int] = []
    value = shift = 0
    for code in text.encode():
        bits = code - 48
        if not 0 <= bits < 64 or shift > 50:
            return None
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            if bits & 16:
                value -= 1 << shift
            runs.append(value + runs[-2] if len(runs) > 2 else value)
            value = shift = 0
    return None if shift else runs
