"""Images drawn from a seed: one to three bright-rimmed ellipses ("objects") on a busy background. No file is needed.

They are for tests and for a newcomer's first run. A detector learns this task from random weights in
minutes. The background has the same colours, and straight-edged shapes of the same sizes, so only
its form tells an object from the background.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from unitbox_tf import boxes as box_ops
from unitbox_tf import images
from unitbox_tf.datasets.base import DataSet, Format
from unitbox_tf.problems import Problems
from unitbox_tf.records import Annotation

SIZE = 96  # side of an image, in pixels
OBJECT_SIZE = (20.0, 56.0)  # shortest and longest axis of an object, in pixels
MAX_OBJECTS = 3
MOST_IMAGES = 1_000_000  # each takes a kilobyte of memory or more
LONGEST_RANGE = 40  # characters
GAP = 4.0  # px between the boxes of two objects: the paper's decoder finds touching ones as one


class Synthetic(DataSet):
    """The images with the numbers in the split, written `first-last` (last excluded). There are no files.

    The number of an image is its seed: the same number always gives the same image, and ranges that
    do not meet have no image in common.
    """

    usual_class = "object"

    def __init__(self, root: Path, split: str) -> None:
        """Raises `ValueError` if the split is no range."""
        self._numbers = numbers_of(split)

    def annotations(
        self, *, photos: bool = True, problems: Problems | None = None
    ) -> Iterator[Annotation]:
        """The images, drawn as they are asked for."""
        return map(draw, self._numbers)


def numbers_of(split: str) -> range:
    """The numbers of a split that is written `first-last`; raises `ValueError` if it is no range."""
    first, dash, last = split.partition("-")
    usable = dash and first.isdecimal() and last.isdecimal() and len(split) <= LONGEST_RANGE
    if not usable or not 0 < int(last) - int(first) <= MOST_IMAGES:
        raise ValueError(
            f"Expected a range of synthetic images like '0-1000', at most {MOST_IMAGES:,} images. Received: "
            f"{split!r:.200}"
        )
    return range(int(first), int(last))


def draw(number: int) -> Annotation:
    """Image `number` as a PNG, with the boxes of its objects."""
    generator = np.random.default_rng(number)
    image = _background(generator)
    boxes: list[np.ndarray] = []
    for _ in range(generator.integers(1, MAX_OBJECTS + 1)):
        ellipse = _place(generator, boxes)
        if ellipse is not None:
            boxes.append(box_ops.ellipses_to_boxes(ellipse[None])[0])
            _draw_ellipse(image, ellipse, generator)
    image = np.clip(image + generator.normal(0, 6, image.shape), 0, 255).astype(np.uint8)
    encoded = images.encode_png(image)
    return Annotation(f"synthetic/{number}", encoded, np.array(boxes), size=(SIZE, SIZE))


def _background(generator: np.random.Generator) -> np.ndarray:
    coarse = generator.uniform(40, 215, (4, 4, 3)).astype(np.float32)
    image = cv2.resize(coarse, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)
    for _ in range(generator.integers(2, 7)):
        corners = generator.uniform(0, SIZE, 2) + generator.uniform(-28, 28, (3, 2))
        cv2.fillPoly(image, [corners.astype(np.int32)], generator.uniform(0, 255, 3).tolist())
    return image


def _place(generator: np.random.Generator, taken: list[np.ndarray]) -> np.ndarray | None:
    """A random ellipse inside the image and clear of the boxes `taken`; None if no place is found."""
    low, high = np.log(OBJECT_SIZE)
    for _ in range(20):
        axes = np.exp(generator.uniform(low, high, 2)) / 2
        ellipse = np.array([*axes, generator.uniform(0, np.pi), *generator.uniform(0, SIZE, 2)])
        box = box_ops.ellipses_to_boxes(ellipse[None])
        inside = box.min() >= 1 and box.max() <= SIZE - 1
        grown = box + np.array([-GAP, -GAP, GAP, GAP])
        if inside and not (taken and box_ops.pairwise_iou(grown, np.array(taken)).any()):
            return ellipse
    return None


def _draw_ellipse(image: np.ndarray, ellipse: np.ndarray, generator: np.random.Generator) -> None:
    """Fills the ellipse with one colour and rims it with another, with sub-pixel accuracy."""
    bits = 4
    a, b, angle, x, y = ellipse
    centre = (
        round((x - 0.5) * 2**bits),
        round((y - 0.5) * 2**bits),
    )  # OpenCV's pixels have their centre at 0
    for share, colour in (
        (1.0, generator.uniform(190, 255, 3)),
        (0.7, generator.uniform(0, 130, 3)),
    ):
        axes = (round(a * share * 2**bits), round(b * share * 2**bits))
        cv2.ellipse(
            image,
            centre,
            axes,
            float(np.degrees(angle)),
            0,
            360,
            colour.tolist(),
            -1,
            cv2.LINE_AA,
            bits,
        )


FORMAT = Format(Synthetic)
