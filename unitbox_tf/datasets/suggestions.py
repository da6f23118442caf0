"""Suggests the settings of sizes from the sizes of objects, and gives the reasons. docs/sizes.md explains the rules."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from unitbox_tf.datasets.shown import MAX_SHARE, Limits, scale_to_fit
from unitbox_tf.datasets.summary import Measured

FEW = (
    0.05  # share of the objects that may be smaller, and that may be larger, than what is aimed at
)
COMFORTABLE = 1.5  # objects of 1.5 times the smallest size that is found are found far more often
TYPICAL = 0.28  # share of the field of view at which boxes are at their best: 64 px of 228 px
LARGEST_SIDE = 2048  # px; larger images are better searched in tiles
MULTIPLE = 32  # of sides; VGG-16 pads to it anyway
STEP = 0.45  # the smallest ratio of a scale to the next
SMALLEST_CROP = 128  # px
MAX_ENLARGED = 2.0  # the largest scale


@dataclasses.dataclass(frozen=True)
class Suggestion:
    """A value for a setting, and the reason.

    Attributes:
        field: the name of the setting, as in `config`.
        value: a value of its type.
        reason: one or two sentences.
    """

    field: str
    value: Any
    reason: str

    @property
    def option(self) -> str:
        """The setting as it is written on the command line."""
        name = f"--{self.field.replace('_', '-')}"
        if isinstance(self.value, bool):
            return name if self.value else name.replace("--", "--no-", 1)
        values = self.value if isinstance(self.value, tuple) else (self.value,)
        return " ".join([name, *(f"{value:g}" for value in values)])


@dataclasses.dataclass(frozen=True)
class _Detection:
    """The settings of detection, and the longer side of each object at the scale at which it is found `[N]`."""

    suggestions: tuple[Suggestion, ...]
    seen: np.ndarray
    unseen: float  # share of the objects that have less than a stride at every scale


def suggest(measured: Measured, limits: Limits) -> tuple[Suggestion, ...]:
    """Suggestions for training and detection; none without objects in images of known size.

    Args:
        measured: the training images and their objects.
        limits: what the network can see.
    """
    sides, images = measured.of_known_size
    positive = sides[:, 1] > 0
    sides, images = sides[positive], images[positive]
    if not len(sides):
        return ()
    detection = _detection(sides, images, limits)
    return (*detection.suggestions, *_training(detection, limits))


def _detection(sides: np.ndarray, images: np.ndarray, limits: Limits) -> _Detection:
    long_sides, short_sides = sides.T
    max_side, why = _max_side(long_sides, short_sides, images, limits)
    found = [Suggestion("max_side", max_side, why)]
    factor = scale_to_fit(images, max_side)
    largest = MAX_ENLARGED if max_side < LARGEST_SIDE else 1.0  # tiles need less memory
    scales, why = _scales(long_sides * factor, short_sides * factor, largest, limits)
    found.append(Suggestion("scales", scales, why))
    if len(scales) > 1:
        left = limits.left_to_smaller_scale
        reason = (
            f"boxes are at their best up to {left} px; larger objects are left to a smaller scale"
        )
        found.append(Suggestion("largest_object", float(left), reason))
    seen = _at_their_scale(long_sides * factor, scales, limits)
    unseen = (short_sides * factor * scales[-1] < limits.stride).mean()
    return _Detection(tuple(found), seen, float(unseen))


def _max_side(
    long_sides: np.ndarray, short_sides: np.ndarray, images: np.ndarray, limits: Limits
) -> tuple[int, str]:
    """`max_side` at which objects have a size that the network sees well, and the reason."""

    def side_for(pixels: float, sides: np.ndarray, share: float) -> float:
        # The side at which this share of the objects has at most so many pixels. Images are not enlarged.
        return float(np.quantile(np.minimum(pixels * images / sides, images), share))

    needed = side_for(limits.smallest, short_sides, 1 - FEW)
    comfortable = side_for(COMFORTABLE * limits.smallest, short_sides, 1 - FEW)
    typical = side_for(TYPICAL * limits.field, long_sides, 0.5)
    # Objects that are larger than the network sees would have to be shrunk more.
    allowed = float(np.quantile(limits.largest * images / long_sides, FEW))
    side = needed
    reason = "{share:.0%} of the objects have a shorter side of at least {smallest} px"
    if needed <= allowed:
        side = min(max(comfortable, typical), max(allowed, needed))
        if side > needed:
            reason += "; the typical object has a longer side of {typical:.0f} px"
    side = min(side, LARGEST_SIDE)
    below, rounded = (round_(side / MULTIPLE) * MULTIPLE for round_ in (math.floor, math.ceil))
    if needed <= below <= allowed < rounded:
        rounded = below
    factor = scale_to_fit(images, rounded)
    too_small = (short_sides * factor < limits.smallest).mean()
    if too_small > FEW:
        place = (
            "larger images are better searched in tiles (--tile)"
            if needed > LARGEST_SIDE
            else "this shows the images at their full size"
        )
        reason = f"{place}; {too_small:.0%} of the objects have a shorter side below {limits.smallest} px"
    typical = float(np.median(long_sides * factor))
    return rounded, reason.format(share=1 - too_small, smallest=limits.smallest, typical=typical)


def _scales(
    long_sides: np.ndarray, short_sides: np.ndarray, largest: float, limits: Limits
) -> tuple[tuple[float, ...], str]:
    """The scales, at most `largest`, for objects with these sides at scale 1, and the reason."""
    large, small = float(np.quantile(long_sides, 1 - FEW)), float(np.quantile(short_sides, FEW))
    lowest = min(1.0, limits.largest / large)
    highest = min(max(1.0, limits.smallest / small), largest)
    highest = 1.0 if highest < 1.1 else highest  # a few pixels more are not worth a pass
    lowest = 1.0 if lowest > 0.9 else lowest
    reasons = []
    if lowest < 1:
        share = (long_sides > limits.largest).mean()
        reasons.append(
            f"{share:.0%} of the objects have a longer side above {limits.largest} px at scale 1, "
            "which the network cannot see whole"
        )
    if highest > 1:
        share = (short_sides < limits.smallest).mean()
        reasons.append(
            f"{share:.0%} of the objects have a shorter side below {limits.smallest} px even at scale 1"
        )
    scales = {1.0, *_steps(lowest, 1.0), *_steps(1.0, highest)}
    share = ((short_sides >= limits.smallest) & (long_sides <= limits.largest)).mean()
    return tuple(sorted(scales)), "; ".join(reasons) or (
        f"{share:.0%} of the objects have {limits.smallest} to {limits.largest} px at scale 1"
    )


def _steps(low: float, high: float) -> list[float]:
    """Scales from `low` to `high`, each at least `STEP` times the next."""
    count = math.ceil(math.log(low / high) / math.log(STEP) - 1e-9)
    return [round(low * (high / low) ** (i / count), 2) for i in range(count + 1)] if count else []


def _at_their_scale(
    long_sides: np.ndarray, scales: tuple[float, ...], limits: Limits
) -> np.ndarray:
    """The longer sides at the largest scale at which an object is not left to a smaller one."""
    seen = long_sides * scales[0]
    for scale in scales[1:]:
        shown = long_sides * scale
        seen = np.where(shown <= limits.left_to_smaller_scale, shown, seen)
    return seen


def _training(detection: _Detection, limits: Limits) -> list[Suggestion]:
    seen = detection.seen
    low, high = np.quantile(seen, [FEW / 2, 1 - FEW / 2]).tolist()
    # A little wider, so that the sizes that are met are not the ends of what was learned.
    low = max(round(0.875 * limits.smallest), math.floor(low / 1.1))
    high = min(limits.largest, max(math.ceil(1.1 * high), 2 * low))
    low = min(low, high // 2)
    size = max(SMALLEST_CROP, math.ceil(high / MAX_SHARE / MULTIPLE) * MULTIPLE)
    typical = round(min(max(float(np.median(seen)), low), high))
    found = [
        Suggestion(
            "random_crop",
            True,
            "crops show each object at all the sizes of object_size, not at one",
        ),
        Suggestion(
            "object_size",
            (float(low), float(high)),
            f"these are the sizes at which detection shows objects, within the {limits.smallest} to "
            f"{limits.largest} px that the network sees well",
        ),
        Suggestion(
            "image_size",
            size,
            f"a crop must hold an object of {high} px as {MAX_SHARE:.0%} of its side or less",
        ),
        Suggestion(
            "initial_box_size", float(typical), "detection shows the typical object at this size"
        ),
    ]
    if detection.unseen >= 0.01:
        smallest = round(1.25 * limits.stride)
        reason = (
            f"{detection.unseen:.0%} of the objects have a shorter side below {limits.stride} px in "
            "detection: the network cannot find them, and learns better without them"
        )
        found.append(Suggestion("min_object", float(smallest), reason))
    return found
