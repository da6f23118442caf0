"""Images drawn from a seed, with textured objects of very different sizes in one image. No file is needed.

They test what a detector does with objects of many sizes: the paper's claim about its loss. An object is an
ellipse with a dark core in a brighter rim, with a long side of 8 px up to 78 % of the image's side (250 px at 320).
The logarithm of the long side is uniform; large objects that find no free place are left out. Between the objects
are others that only differ in form: ellipses without a core, or with a bright one, and rectangles with a dark
one. Contrast, colour, light, texture, sharpness and noise change from image to image.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from unitbox_tf import boxes as box_ops
from unitbox_tf.datasets import synthetic
from unitbox_tf.datasets.base import DataSet, Format
from unitbox_tf.problems import Problems
from unitbox_tf.records import Annotation

SIDE = 320  # of an image, in pixels, where the split states none
SMALLEST_SIDE, LARGEST_SIDE = 32, 4096
SMALLEST = 8.0  # long side of an object, in pixels
LARGEST = 0.78  # of an object, as a share of the image's side
OBJECTS, OTHERS = (3, 9), (2, 7)  # fewest and most that are tried in an image
SMALLEST_RECTANGLE = 20.0  # smaller ones cannot be told from ellipses
GAP = 2.0  # px between things
TRIES = 30
JPEG_QUALITY = 92


class MultiScale(DataSet):
    """The images with the numbers in the split, written `first-last` (last excluded) or `first-last/side`.

    The number of an image is its seed. There are no files.
    """

    usual_class = "object"

    def __init__(self, root: Path, split: str) -> None:
        """Raises `ValueError` if the split is no range, or the side is out of bounds."""
        numbers, slash, side = split.partition("/")
        self._numbers = synthetic.numbers_of(numbers)
        stated = int(side) if side.isdecimal() and len(side) < 6 else 0
        self._side = stated if slash else SIDE
        if not SMALLEST_SIDE <= self._side <= LARGEST_SIDE:
            raise ValueError(
                f"Expected a range and a side of {SMALLEST_SIDE} to {LARGEST_SIDE} px, like '0-1000/160'. Received: "
                f"{split!r:.200}"
            )

    def annotations(
        self, *, photos: bool = True, problems: Problems | None = None
    ) -> Iterator[Annotation]:
        """The images, drawn as they are asked for."""
        return (draw(number, self._side) for number in self._numbers)


def draw(number: int, side: int = SIDE) -> Annotation:
    """Image `number` of `side` x `side` pixels as a JPEG, with the boxes of its objects."""
    generator = np.random.default_rng([number, side])
    image = _background(generator, side)
    low, high = np.log(SMALLEST), np.log(LARGEST * side)
    sizes = np.exp(generator.uniform(low, high, generator.integers(OBJECTS[0], OBJECTS[1] + 1)))
    boxes: list[np.ndarray] = []
    for size in sorted(sizes, reverse=True):  # a large one finds no place among small ones
        ellipse = _place(generator, size, side, boxes)
        if ellipse is not None:
            boxes.append(box_ops.ellipses_to_boxes(ellipse[None])[0])
            _draw(image, ellipse, generator, _dark_core(generator))
    taken = list(boxes)
    for _ in range(generator.integers(OTHERS[0], OTHERS[1] + 1)):
        ellipse = _place(generator, np.exp(generator.uniform(low, high)), side, taken)
        if ellipse is not None:
            taken.append(box_ops.ellipses_to_boxes(ellipse[None])[0])
            _draw_other(image, ellipse, generator)
    if generator.random() < 0.3:
        image = cv2.GaussianBlur(image, (0, 0), generator.uniform(0.5, 1.0))
    noise = np.float32(generator.uniform(3, 14))
    image += noise * generator.standard_normal(image.shape, np.float32)
    pixels = np.clip(image, 0, 255).astype(np.uint8)
    encoded = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1]
    truth = np.array(boxes).reshape(-1, 4)
    return Annotation(f"multiscale/{side}/{number}", encoded.tobytes(), truth, size=(side, side))


def _background(generator: np.random.Generator, side: int) -> np.ndarray:
    """Smooth colours with textures of two sizes and straight-edged shapes, float32 `[side, side, 3]`."""
    image = np.zeros((side, side, 3), np.float32)
    for cells, strength in ((4, 55), (24, 18), (80, 10)):
        grey = generator.normal(0, 0.8 * strength, (cells, cells, 1))
        coarse = (grey + generator.normal(0, 0.6 * strength, (cells, cells, 3))).astype(np.float32)
        image += cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)
    image += generator.uniform(70, 180)
    for _ in range(generator.integers(3, 9)):
        size = np.exp(generator.uniform(np.log(8), np.log(side / 2)))
        corners = generator.uniform(0, side, 2) + generator.uniform(-size, size, (3, 2))
        cv2.fillPoly(image, [corners.astype(np.int32)], generator.uniform(0, 255, 3).tolist())
    return image


def _place(
    generator: np.random.Generator, size: float, side: int, taken: list[np.ndarray]
) -> np.ndarray | None:
    """An ellipse inside the image whose box has the long side `size` and is clear of `taken`; None without a place."""
    for _ in range(TRIES):
        ratio, tilt = generator.uniform(0.6, 1), generator.uniform(-0.5, 0.5)
        angle = tilt + np.pi / 2 * (generator.random() < 0.75)  # most are upright, as faces are
        ellipse = np.array([1.0, ratio, angle, 0.0, 0.0])
        box = box_ops.ellipses_to_boxes(ellipse[None])[0]
        half = (box[2:] - box[:2]) / 2
        scale = size / 2 / half.max()
        half *= scale
        if 2 * half.max() > side - 2:
            return None
        centre = generator.uniform(half + 1, side - 1 - half)
        box = np.concatenate([centre - half, centre + half])
        grown = box + np.array([-GAP, -GAP, GAP, GAP])
        if not (taken and box_ops.pairwise_iou(grown[None], np.array(taken)).any()):
            return np.array([scale, ratio * scale, angle, *centre])
    return None


def _dark_core(generator: np.random.Generator) -> list[tuple[float, np.ndarray]]:
    """Shares of the axes and colours of an object, from outside in."""
    core, tint = generator.uniform(10, 130), generator.normal(0, 30, (2, 3))
    rim = core + generator.uniform(55, 120)
    return [(1.0, rim + tint[0]), (generator.uniform(0.5, 0.75), core + tint[1])]


def _draw_other(image: np.ndarray, ellipse: np.ndarray, generator: np.random.Generator) -> None:
    """Draws something that is no object into the ellipse or into the rectangle around it."""
    rim, core = _dark_core(generator)
    kind = generator.integers(3)
    if kind == 0:
        _draw(image, ellipse, generator, [rim])
    elif kind == 1 or 2 * ellipse[1] < SMALLEST_RECTANGLE:
        _draw(image, ellipse, generator, [(1.0, core[1]), (core[0], rim[1])])
    else:
        _draw(image, ellipse, generator, [rim, core], rectangle=True)


def _draw(
    image: np.ndarray,
    ellipse: np.ndarray,
    generator: np.random.Generator,
    parts: list[tuple[float, np.ndarray]],
    rectangle: bool = False,
) -> None:
    """Fills ellipses, or rectangles of the same axes, one in the other, with sub-pixel edges, light and texture."""
    a, b, angle, x, y = ellipse
    light = generator.uniform(-0.25, 0.25, 2)
    cells = max(2, round(generator.uniform(3, 12)))
    texture = generator.normal(0, generator.uniform(4, 16), (cells, cells)).astype(np.float32)
    reach = int(np.ceil(np.hypot(a, b))) + 2
    left, top = (max(0, int(value) - reach) for value in (x, y))
    part = image[top : int(y) + reach, left : int(x) + reach]
    rows, columns = part.shape[:2]
    ramp = 1 + (
        light[0] * (np.arange(columns) + left - x) / a
        + light[1] * (np.arange(rows)[:, None] + top - y) / a
    )
    grain = cv2.resize(texture, (columns, rows), interpolation=cv2.INTER_CUBIC)
    for share, colour in parts:
        mask = _mask((rows, columns), (x - left, y - top), (a * share, b * share), angle, rectangle)
        filled = (colour * ramp[..., None] + grain[..., None]).astype(np.float32)
        part += mask[..., None] * (filled - part)


def _mask(
    shape: tuple[int, int],
    centre: tuple[float, float],
    axes: tuple[float, float],
    angle: float,
    rectangle: bool,
) -> np.ndarray:
    """The share of each pixel inside the ellipse or the rectangle, float32 `[H, W]`, by distance from the edge."""
    x = np.arange(shape[1], dtype=np.float32) + np.float32(0.5 - centre[0])
    y = np.arange(shape[0], dtype=np.float32)[:, None] + np.float32(0.5 - centre[1])
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    u = (x * cos + y * sin) / np.float32(axes[0])
    v = (y * cos - x * sin) / np.float32(axes[1])
    if rectangle:
        inside = np.minimum((1 - np.abs(u)) * axes[0], (1 - np.abs(v)) * axes[1])
    else:
        radius = np.sqrt(u**2 + v**2)
        slope = np.sqrt((u / axes[0]) ** 2 + (v / axes[1]) ** 2) / np.maximum(radius, 1e-6)
        inside = (1 - radius) / np.maximum(slope, 1e-6)
    return np.clip(inside + 0.5, 0, 1).astype(np.float32)


FORMAT = Format(MultiScale)
