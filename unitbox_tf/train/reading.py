"""Annotations, or a `tf.data.Dataset` of a user's own, in; decoded images and their objects out.

Images are uint8 `[H, W, 3]`, and objects are as in `augment`.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from unitbox_tf import boxes as box_ops
from unitbox_tf import images as image_ops
from unitbox_tf.limits import MAX_PIXELS
from unitbox_tf.problems import Problems
from unitbox_tf.records import Annotation
from unitbox_tf.train import augment, order

# The parts of an element in a user's data set: kind of numbers and shape. The first two are required.
ELEMENT = {
    "image": ("uint8", [None, None, 3]),
    "boxes": ("numbers", [None, 4]),
    "classes": ("whole numbers", [None]),
    "ignore": ("bool", [None]),
}
NEEDED = ("image", "boxes")
_OBJECT_TYPES = (tf.float32, tf.int32, tf.bool)  # of boxes, classes, ignore


def from_annotations(
    annotations: Sequence[Annotation],
    *,
    max_pixels: int = MAX_PIXELS,
    problems: Problems | None = None,
) -> tf.data.Dataset:
    """Each image once, in order, with its objects. One that cannot be decoded is reported, and is one black pixel."""
    reader = Reader(annotations, max_pixels, problems)

    def load(index: tf.Tensor) -> tuple[Any, ...]:
        return reader.read(int(index)) or reader.black(int(index))

    return tf.data.Dataset.range(len(annotations)).map(_in_graph(load), tf.data.AUTOTUNE)


def in_order(
    annotations: Sequence[Annotation],
    shown: order.Order,
    start: int = 0,
    *,
    max_pixels: int = MAX_PIXELS,
    problems: Problems | None = None,
) -> tf.data.Dataset:
    """Images without end, with their objects, as `shown` orders them.

    An image that cannot be decoded is reported once, and another one takes its place, so that the place of an
    image depends on nothing but `shown`.

    Args:
        annotations: the annotations to read.
        shown: their order.
        start: the place in this order of the first image.
        max_pixels: larger images are refused like images that cannot be decoded.
        problems: images that cannot be decoded are added here.
    """
    reader = Reader(annotations, max_pixels, problems, shown.broken)

    def load(place: tf.Tensor) -> tuple[Any, ...]:
        while True:
            found = reader.read(shown.at(int(place)))
            if found is not None:
                return found

    return tf.data.Dataset.counter(start).map(_in_graph(load), tf.data.AUTOTUNE)


class Reader:
    """Decodes the images of annotations. Images that cannot be decoded are reported once each."""

    def __init__(
        self,
        annotations: Sequence[Annotation],
        max_pixels: int,
        problems: Problems | None = None,
        broken: set[int] | None = None,
    ) -> None:
        """Images of more pixels cannot be decoded. `broken` gets the indices of all that cannot."""
        self._annotations = annotations
        self._max_pixels = max_pixels
        self._problems = Problems.of(problems)
        self._broken = set() if broken is None else broken

    def read(self, index: int) -> tuple[Any, ...] | None:
        """Image, boxes, classes and ignore of an annotation; None if its image cannot be decoded.

        Raises:
            ValueError: no image can be decoded.
        """
        annotation, most = self._annotations[index], self._max_pixels
        try:
            image = image_ops.decode_photo(annotation.encoded(most), most)
        except image_ops.UNREADABLE as error:
            self._problems.add(image_ops.UNDECODABLE, annotation.where, str(error))
            self._broken.add(index)
            if len(self._broken) == len(self._annotations):
                raise ValueError(
                    f"none of the {len(self._broken)} images can be decoded"
                ) from error
            return None
        annotation = within(annotation, image.shape[0], image.shape[1], problems=self._problems)
        return image, annotation.boxes, annotation.classes, annotation.ignore

    def black(self, index: int) -> tuple[Any, ...]:
        """One black pixel without objects."""
        empty = self._annotations[index].select([])
        return tf.zeros([1, 1, 3], tf.uint8), empty.boxes, empty.classes, empty.ignore


def _in_graph(load: Callable[[tf.Tensor], tuple[Any, ...]]) -> Callable[..., Any]:
    """`load` as a function in a graph. It is Python, because only Python can catch the error of a broken image."""

    def load_in_graph(number: tf.Tensor) -> tuple[tf.Tensor, augment.Objects]:
        image, *objects = tf.py_function(load, [number], [tf.uint8, *_OBJECT_TYPES])
        image.set_shape([None, None, 3])
        return image, _objects(*objects)

    return load_in_graph


class Elements:
    """The number of elements in a user's data set, which is known as soon as more elements than that were used."""

    def __init__(self, count: int | None = None) -> None:
        """`count` is the number if it is known."""
        self._count = count
        self.seen: set[int] = set()  # the numbers of elements that were read, from 0 in each pass

    def count(self, used: int) -> int | None:
        """The number of elements when `used` were used in all; None if it is not known."""
        if self._count is None and used > (most := max(self.seen, default=used) + 1):
            self._count = most
        return self._count


def from_elements(
    elements: tf.data.Dataset,
    num_classes: int,
    start: int = 0,
    known: Elements | None = None,
    *,
    problems: Problems | None = None,
) -> tf.data.Dataset:
    """The images of a user's data set without end, in its order, with their objects.

    `check_elements` has passed the data set. `within` cuts boxes to their images. An element that
    `checked_element` refuses raises `tf.errors.InvalidArgumentError` where it is read.

    Args:
        elements: the data set.
        num_classes: the number of classes.
        start: the number of elements that were used before. Elements of whole passes are not read again if `known`
            tells how many a pass has.
        known: learns the number of elements.
        problems: boxes outside their images are added here.
    """
    problems = Problems.of(problems)
    known = Elements() if known is None else known

    def examine(number: tf.Tensor, *parts: tf.Tensor) -> tuple[Any, ...]:
        index, (height, width, _) = int(number), parts[0].numpy()
        annotation = checked_element(index, parts[0].numpy(), *parts[1:], num_classes=num_classes)
        if index in known.seen:  # elements have no names, and shuffling changes their order
            annotation, _ = _cut(annotation, height, width)
        else:
            annotation = within(annotation, height, width, problems=problems)
        known.seen.add(index)
        return annotation.boxes, annotation.classes, annotation.ignore

    def examine_in_graph(number: tf.Tensor, element: Mapping[str, tf.Tensor]) -> tuple[Any, ...]:
        image, boxes, classes, ignore = parts_of(element)
        found = tf.py_function(
            examine, [number, tf.shape(image), boxes, classes, ignore], _OBJECT_TYPES
        )
        return tf.ensure_shape(image, [None, None, 3]), _objects(*found)

    count = known.count(start)
    used = start if count is None else start % count
    return elements.enumerate().repeat().skip(used).map(examine_in_graph, tf.data.AUTOTUNE)


def _objects(boxes: tf.Tensor, classes: tf.Tensor, ignore: tf.Tensor) -> augment.Objects:
    """The objects from `tf.py_function`, with their shapes, which it does not know."""
    boxes.set_shape([None, 4])
    classes.set_shape([None])
    ignore.set_shape([None])
    return {"boxes": boxes, "classes": classes, "ignore": ignore}


def check_elements(elements: tf.data.Dataset) -> None:
    """Raises `ValueError` if the elements of a user's data set do not have the form of `ELEMENT`."""
    spec = elements.element_spec
    form = ", ".join(f'"{name}": {kind} {shape}' for name, (kind, shape) in ELEMENT.items())
    expected = (
        f"Expected a tf.data.Dataset of dicts {{{form}}}, one image each, of which classes and ignore "
        "may be missing. Received"
    )
    if not isinstance(spec, dict) or not set(NEEDED) <= set(spec) <= set(ELEMENT):
        raise ValueError(f"{expected}: {spec}")
    for name, part in spec.items():
        kind, shape = ELEMENT[name]
        if not (
            isinstance(part, tf.TensorSpec)
            and part.shape.is_compatible_with(shape)
            and _is_kind(part.dtype, kind)
        ):
            raise ValueError(f"{expected} as {name}: {part}")


def _is_kind(dtype: tf.DType, kind: str) -> bool:
    if kind == "numbers":
        return bool(dtype.is_floating or dtype.is_integer)
    return bool(dtype.is_integer) if kind == "whole numbers" else dtype == kind


def parts_of(element: Mapping[str, tf.Tensor]) -> tuple[tf.Tensor, ...]:
    """Image, boxes, classes and ignore of one element; missing classes are 0, and a missing ignore is False."""
    count = tf.shape(element["boxes"])[:1]
    classes = element.get("classes", tf.zeros(count, tf.int32))
    ignore = element.get("ignore", tf.zeros(count, tf.bool))
    return element["image"], element["boxes"], classes, ignore


def checked_element(
    index: int,
    shape: Sequence[int],
    boxes: tf.Tensor,
    classes: tf.Tensor,
    ignore: tf.Tensor,
    *,
    num_classes: int,
    image: bytes = b"",
) -> Annotation:
    """The element `index` of a user's data set as an annotation.

    Raises:
        ValueError: its image has no pixels, its parts do not fit together, or a class has no name.
    """
    name = f"element {index}"
    if 0 in shape:
        raise ValueError(f"{name}: expected an image with pixels. Received: shape {list(shape)}")
    annotation = Annotation(name, image, boxes.numpy(), classes.numpy(), ignore.numpy())
    check_classes([annotation], num_classes)
    return annotation


def check_classes(annotations: Sequence[Annotation], num_classes: int) -> None:
    """Raises `ValueError` if the class of an object is not below `num_classes`."""
    for annotation in annotations:
        unnamed = annotation.classes[(annotation.classes < 0) | (annotation.classes >= num_classes)]
        if len(unnamed):
            raise ValueError(
                f"{annotation.where}: expected classes from 0 to {num_classes - 1}, the named classes of the "
                f"model (class_names). Received: {unnamed[0]}"
            )


def annotations_of(elements: tf.data.Dataset, count: int, num_classes: int) -> list[Annotation]:
    """The first `count` elements of a user's data set, in memory, their images as PNG.

    Raises:
        ValueError: see `check_elements` and `checked_element`.
    """
    check_elements(elements)
    found = []
    for index, element in enumerate(itertools.islice(elements, count)):
        image, boxes, classes, ignore = parts_of(element)
        encoded = tf.io.encode_png(image).numpy() if tf.size(image) else b""
        annotation = checked_element(
            index, image.shape, boxes, classes, ignore, num_classes=num_classes, image=encoded
        )
        found.append(annotation)
    return found


def within(
    annotation: Annotation, height: int, width: int, *, problems: Problems | None = None
) -> Annotation:
    """`annotation` with its boxes cut to its image of `height` x `width`. Boxes outside are left out and reported.

    Ignored boxes are left out without a report. Readers have reported boxes without area before, and the
    other ignored boxes have no pixel to take out of the loss.
    """
    problems = Problems.of(problems)
    cut, outside = _cut(annotation, height, width)
    for index in outside:
        problems.add(
            "box outside its image",
            f"{annotation.where}, object {index + 1}",
            f"expected a box in {width} x {height} pixels, received {annotation.boxes[index]}",
        )
    return cut


def _cut(annotation: Annotation, height: int, width: int) -> tuple[Annotation, np.ndarray]:
    """`annotation` within an image of `height` x `width`, and the indices of boxes outside that are not ignored."""
    boxes = box_ops.clip(annotation.boxes, height, width)
    # The area does not tell: it is positive if both width and height are negative.
    inside = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    cut = dataclasses.replace(annotation.select(inside), boxes=boxes[inside])
    return cut, np.flatnonzero(~inside & ~annotation.ignore)


def readable(
    annotations: Sequence[Annotation],
    *,
    enough: int | None = None,
    max_pixels: int = MAX_PIXELS,
    problems: Problems | None = None,
) -> list[Annotation]:
    """The annotations whose images can be decoded, at most `enough`. The others are reported.

    Images with more than `max_pixels` are refused.

    Raises:
        ValueError: no image can be decoded.
    """
    problems = Problems.of(problems)
    found: list[Annotation] = []
    first_error = ""
    for annotation in annotations:
        if len(found) == enough:
            break
        try:
            image_ops.decode_photo(annotation.encoded(max_pixels), max_pixels)
        except image_ops.UNREADABLE as error:
            first_error = first_error or f"{annotation.where}: {error}"
            problems.add(image_ops.UNDECODABLE, annotation.where, str(error))
        else:
            found.append(annotation)
    if not found:
        raise ValueError(
            f"none of the {len(annotations)} images can be decoded; the first: {first_error}"
        )
    return found
