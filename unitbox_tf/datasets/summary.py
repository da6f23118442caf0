"""Counts what is in images, and measures their objects."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from unitbox_tf import boxes as box_ops
from unitbox_tf import images
from unitbox_tf.problems import Problems
from unitbox_tf.records import Annotation

UNKNOWN_SIZE = "image of unknown size"
ODD_SIZE = "image of odd size"
SHORTEST = 32  # px; VGG-16 shrinks its images 32 times
NARROWEST = 5  # longer sides by shorter sides


class Quartiles(NamedTuple):
    """The smallest and the largest of some numbers, and the three that divide them into quarters."""

    minimum: float
    first: float
    median: float
    third: float
    maximum: float

    @classmethod
    def of(cls, values: np.ndarray) -> Quartiles | None:
        """The quartiles of `values` `[N]`; None if there are no values."""
        if not len(values):
            return None
        return cls(*np.percentile(values, [0, 25, 50, 75, 100]).tolist())

    def __str__(self) -> str:
        return " ".join(f"{value:.0f}" for value in self)


@dataclasses.dataclass(frozen=True, eq=False)
class Measured:
    """The sizes of images and of the objects in them. Ignored objects, and boxes without area, are left out.

    Attributes:
        sizes: height and width of each image `[M, 2]`; NaN if unknown.
        image: the index of each object's image `[N]`.
        classes: the class of each object `[N]`.
        sides: the longer and the shorter side of each object `[N, 2]`, in pixels of its image.
        ignored: number of ignored objects.
    """

    sizes: np.ndarray
    image: np.ndarray
    classes: np.ndarray
    sides: np.ndarray
    ignored: int

    @classmethod
    def join(cls, parts: Sequence[Measured]) -> Measured:
        """Several lists of images as one."""
        starts = np.cumsum([0, *(len(part.sizes) for part in parts)])
        places = [part.image + start for part, start in zip(parts, starts, strict=False)]
        return cls(
            sizes=np.concatenate([np.zeros([0, 2]), *(part.sizes for part in parts)]),
            image=np.concatenate([np.zeros(0, int), *places]),
            classes=np.concatenate([np.zeros(0, np.int32), *(part.classes for part in parts)]),
            sides=np.concatenate([np.zeros([0, 2]), *(part.sides for part in parts)]),
            ignored=sum(part.ignored for part in parts),
        )

    @property
    def of_known_size(self) -> tuple[np.ndarray, np.ndarray]:
        """The objects in images of known size: their sides `[K, 2]`, and the longer sides of their images `[K]`."""
        images_ = self.sizes.max(axis=1)[self.image]
        known = np.isfinite(images_)
        return self.sides[known], images_[known]


def measure(annotations: Sequence[Annotation], *, problems: Problems | None = None) -> Measured:
    """Measures images and objects.

    A size that is not stated is read from the header of the image. Images whose header cannot be read, that
    are shorter than 32 px, or more than 5 times as long as wide are added to `problems`.
    """
    problems = Problems.of(problems)
    sizes = np.array([_size(each, problems) for each in annotations], np.float64).reshape(-1, 2)
    kept = [~each.ignore for each in annotations]
    counts = [int(mask.sum()) for mask in kept]
    pairs = list(zip(annotations, kept, strict=True))
    boxes = np.concatenate([np.zeros([0, 4]), *(each.boxes[mask] for each, mask in pairs)])
    classes = [each.classes[mask] for each, mask in pairs]
    long_sides = box_ops.long_sides(boxes)
    short_sides = (boxes[:, 2:] - boxes[:, :2]).min(axis=1)
    return Measured(
        sizes=sizes,
        image=np.repeat(np.arange(len(counts)), counts),
        classes=np.concatenate([np.zeros(0, np.int32), *classes]),
        sides=np.stack([long_sides, short_sides], axis=-1),
        ignored=sum(int(each.ignore.sum()) for each in annotations),
    )


def _size(annotation: Annotation, problems: Problems) -> tuple[float, float]:
    """Height and width as stated; if they are not, as in the header of the image; NaN if it cannot be read."""
    try:
        height, width = annotation.size or images.photo_size(annotation.image)
    except (OSError, ValueError) as error:
        problems.add(UNKNOWN_SIZE, annotation.where, str(error))
        return np.nan, np.nan
    short, long = sorted((height, width))
    if short < SHORTEST or long > NARROWEST * short:
        problems.add(
            ODD_SIZE,
            annotation.where,
            f"expected sides of at least {SHORTEST} px, and at most {NARROWEST} times as long as wide. "
            f"Received: {width} x {height} px",
        )
    return height, width


@dataclasses.dataclass(frozen=True)
class Summary:
    """The contents of one source, or of several together.

    Attributes:
        name: the source as it is written.
        images: number of images that are present.
        without_objects: number of images without objects; ignored objects do not count.
        objects: number of objects that are not ignored.
        ignored: number of ignored objects.
        classes: number of objects of each class, by the class's name; ignored objects do not count.
        images_of_classes: number of images with an object of each class, by the class's name.
        per_image: objects in an image; None without images.
        widths: widths of the images, in pixels; None if no image has a known size.
        heights: heights of the images, in pixels; None if no image has a known size.
        long_sides: the longer side of each object, in pixels; None without objects.
        short_sides: the shorter side of each object, in pixels; None without objects.
    """

    name: str
    images: int
    without_objects: int
    objects: int
    ignored: int
    classes: dict[str, int]
    images_of_classes: dict[str, int]
    per_image: Quartiles | None
    widths: Quartiles | None
    heights: Quartiles | None
    long_sides: Quartiles | None
    short_sides: Quartiles | None

    @classmethod
    def of(cls, name: str, measured: Measured, class_names: Sequence[str]) -> Summary:
        """The summary of images and objects whose classes have these names."""
        counts = np.bincount(measured.image, minlength=len(measured.sizes))
        known = measured.sizes[np.isfinite(measured.sizes).all(axis=1)]
        pairs = np.unique(np.stack([measured.classes, measured.image]), axis=1)[0]
        objects = np.bincount(measured.classes, minlength=len(class_names)).tolist()
        images_ = np.bincount(pairs, minlength=len(class_names)).tolist()
        return cls(
            name=name,
            images=len(measured.sizes),
            without_objects=int((counts == 0).sum()),
            objects=len(measured.classes),
            ignored=measured.ignored,
            classes=dict(zip(class_names, objects, strict=True)),
            images_of_classes=dict(zip(class_names, images_, strict=True)),
            per_image=Quartiles.of(counts),
            widths=Quartiles.of(known[:, 1]),
            heights=Quartiles.of(known[:, 0]),
            long_sides=Quartiles.of(measured.sides[:, 0]),
            short_sides=Quartiles.of(measured.sides[:, 1]),
        )
