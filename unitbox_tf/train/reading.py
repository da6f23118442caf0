"""Annotations, or a `tf.data.Dataset` of a user's own, in; decoded images and their objects out.

Images are uint8 `[H, W, 3]`, and objects are as in `augment`.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from unitbox_tf import boxes as box_ops
from unitbox_tf import images as image_ops
from unitbox_tf.limits import MAX_PIXELS
from unitbox_tf.problems import Problems
from unitbox_tf.records import Annotation
from unitbox_tf.train import augment

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
    shuffle: int | None = None,
    same_count: bool = False,
    max_pixels: int = MAX_PIXELS,
    problems: Problems | None = None,
) -> tf.data.Dataset:
    """Each image once, with its objects. Images that cannot be decoded are reported once each.

    Args:
        annotations: the annotations to read.
        shuffle: seed of a random order, which differs each time; None keeps the order of `annotations`.
        same_count: True makes an image that cannot be decoded one black pixel; False leaves it out.
        max_pixels: larger images are refused like images that cannot be decoded.
        problems: images that cannot be decoded are added here.
    """
    known = Problems.of(problems)
    broken: set[int] = set()

    def load(index: tf.Tensor) -> tuple[Any, ...]:
        annotation = annotations[int(index)]
        try:
            image = image_ops.decode_photo(annotation.encoded(max_pixels), max_pixels)
        except image_ops.UNREADABLE as error:
            image = tf.zeros([1, 1, 3] if same_count else [0, 0, 3], tf.uint8)
            annotation = annotation.select([])
            broken.add(int(index))
            known.add(image_ops.UNDECODABLE, annotation.where, str(error))
            if len(broken) == len(annotations):
                raise ValueError(f"none of the {len(broken)} images can be decoded") from error
        annotation = within(annotation, image.shape[0], image.shape[1], problems=known)
        return image, annotation.boxes, annotation.classes, annotation.ignore

    def load_in_graph(index: tf.Tensor) -> tuple[tf.Tensor, augment.Objects]:
        # Python, because only Python can catch the error of an image that is broken.
        image, *objects = tf.py_function(load, [index], [tf.uint8, *_OBJECT_TYPES])
        image.set_shape([None, None, 3])
        return image, _objects(*objects)

    indices = tf.data.Dataset.range(len(annotations))
    if shuffle is not None:
        indices = indices.shuffle(len(annotations), seed=shuffle)
    images = indices.map(load_in_graph, tf.data.AUTOTUNE)
    return images if same_count else images.filter(lambda image, objects: tf.size(image) > 0)


def from_elements(
    elements: tf.data.Dataset, num_classes: int, *, problems: Problems | None = None
) -> tf.data.Dataset:
    """The images of a user's data set, in its order, with their objects. `check_elements` has passed the data set.

    `within` cuts boxes to their images. An element that `checked_element` refuses raises
    `tf.errors.InvalidArgumentError` where it is read.
    """
    known = Problems.of(problems)
    reported: set[int] = set()

    def examine(number: tf.Tensor, *parts: tf.Tensor) -> tuple[Any, ...]:
        index, (height, width, _) = int(number), parts[0].numpy()
        annotation = checked_element(index, parts[0].numpy(), *parts[1:], num_classes=num_classes)
        if index in reported:  # elements have no names, and shuffling changes their order
            annotation, _ = _cut(annotation, height, width)
        else:
            annotation = within(annotation, height, width, problems=known)
        reported.add(index)
        return annotation.boxes, annotation.classes, annotation.ignore

    def examine_in_graph(number: tf.Tensor, element: Mapping[str, tf.Tensor]) -> tuple[Any, ...]:
        image, boxes, classes, ignore = parts_of(element)
        found = tf.py_function(
            examine, [number, tf.shape(image), boxes, classes, ignore], _OBJECT_TYPES
        )
        return tf.ensure_shape(image, [None, None, 3]), _objects(*found)

    return elements.enumerate().map(examine_in_graph, tf.data.AUTOTUNE)


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
