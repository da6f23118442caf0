"""Annotations, or a `tf.data.Dataset` of a user's own, in; decoded images and their objects out.

Images are uint8 `[H, W, 3]`, and objects are as in `augment`. Here is what Python does; the graph is in `decoding`.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from unitbox_tf import boxes as box_ops
from unitbox_tf import images as image_ops
from unitbox_tf.limits import MAX_PIXELS
from unitbox_tf.problems import Problems
from unitbox_tf.records import Annotation
from unitbox_tf.train import augment, decoding, order

# The parts of an element in a user's data set: kind of numbers and shape. The first two are required.
ELEMENT = {
    "image": ("uint8", [None, None, 3]),
    "boxes": ("numbers", [None, 4]),
    "classes": ("whole numbers", [None]),
    "ignore": ("bool", [None]),
}
NEEDED = ("image", "boxes")
GROUP_BYTES = 1 << 23  # of encoded images that Python hands to the graph at once
_UNKNOWN = 9  # in place of an orientation: the image was not read yet


def from_annotations(
    annotations: Sequence[Annotation],
    *,
    max_pixels: int = MAX_PIXELS,
    problems: Problems | None = None,
) -> tf.data.Dataset:
    """Each image once, in order, with its objects. One that cannot be decoded is reported, and is one black pixel."""
    reader = Reader(annotations, max_pixels, problems)
    count = len(annotations)

    def load(index: int) -> tuple[Any, ...]:
        return reader.read(index) or reader.black(index)

    places = tf.data.Dataset.range(count)
    found = decoding.decoded(places, reader.look_up, load, reader.report)
    return found.apply(tf.data.experimental.assert_cardinality(count))


def in_order(
    annotations: Sequence[Annotation],
    shown: order.Order,
    places: tf.data.Dataset,
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
        places: the places in this order, int64 numbers without end: `tf.data.Dataset.counter(start)` for all.
        max_pixels: larger images are refused like images that cannot be decoded.
        problems: images that cannot be decoded are added here.
    """
    reader = Reader(annotations, max_pixels, problems, shown.broken)

    def look_up(places: Sequence[int]) -> decoding.Group:
        return reader.look_up([shown.at(place) for place in places])

    def load(place: int) -> tuple[Any, ...]:
        while True:
            found = reader.read(shown.at(place))
            if found is not None:
                return found

    found = decoding.decoded(places, look_up, load, reader.report)
    return found.apply(tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY))


class Reader:
    """Reads the images of annotations. Images that cannot be decoded are reported once each."""

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
        # Of each image, as in `decoding.Group`; it is found when the image is read for the first time.
        self._orientations = np.full(len(annotations), _UNKNOWN, np.uint8)
        self._reported = np.zeros(len(annotations), np.bool_)

    def look_up(self, indices: Sequence[int]) -> decoding.Group:
        """The facts by which the graph reads images. It gets the bytes of new ones, and of those that are no files."""
        annotations = [self._annotations[index] for index in indices]
        encoded, orientations, left = [], [], GROUP_BYTES
        for index, annotation in zip(indices, annotations, strict=True):
            content, orientation = self._content(index, annotation, left)
            left -= len(content)
            encoded.append(content)
            orientations.append(orientation)
        paths = [os.fsencode(a.image) if isinstance(a.image, Path) else b"" for a in annotations]
        boxes = np.concatenate([a.boxes for a in annotations]).astype(np.float32)
        return decoding.Group(
            index=np.array(indices, np.int64),
            encoded=np.array(encoded, object),
            path=np.array(paths, object),
            orientation=np.array(orientations, np.int32),
            report=~self._reported[np.array(indices)],
            ends=np.cumsum([len(a.boxes) for a in annotations]),
            boxes=np.clip(boxes, 0.0, np.float32(np.inf)),
            classes=np.concatenate([a.classes for a in annotations]),
            ignore=np.concatenate([a.ignore for a in annotations]),
        )

    def _content(self, index: int, annotation: Annotation, most: int) -> tuple[bytes, int]:
        """The bytes of an image that the graph does not read from a file, and its orientation.

        More than `most` bytes are not held in memory: the graph reads the file, or else Python decodes the image.
        """
        is_file = isinstance(annotation.image, Path)
        orientation = int(self._orientations[index])
        if orientation == decoding.IN_PYTHON or (is_file and orientation != _UNKNOWN):
            return b"", orientation
        try:
            content = annotation.encoded(self._max_pixels)
            if orientation == _UNKNOWN:
                found = image_ops.graph_orientation(content, self._max_pixels)
                orientation = decoding.IN_PYTHON if found is None else found
        except image_ops.UNREADABLE:  # which `read` reports
            content, orientation = b"", decoding.IN_PYTHON
        self._orientations[index] = orientation
        if orientation == decoding.IN_PYTHON:
            return b"", orientation
        if len(content) > most:
            return b"", orientation if is_file else decoding.IN_PYTHON
        return content, orientation

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

    def report(self, index: int, height: int, width: int) -> None:
        """Reports the boxes outside an image of `height` x `width`."""
        self._reported[index] = True
        within(self._annotations[index], height, width, problems=self._problems)

    def black(self, index: int) -> tuple[Any, ...]:
        """One black pixel without objects."""
        empty = self._annotations[index].select([])
        return tf.zeros([1, 1, 3], tf.uint8), empty.boxes, empty.classes, empty.ignore


@dataclasses.dataclass
class Elements:
    """Facts about a user's data set, or about records in shards, which reading finds. All its readers share them.

    Attributes:
        count: the number of elements in a pass; None until a pass was read.
        reported: the numbers of elements whose boxes outside their images were reported.
    """

    count: int | None = None
    reported: set[int] = dataclasses.field(default_factory=set)


def from_elements(
    elements: tf.data.Dataset,
    num_classes: int,
    start: int = 0,
    known: Elements | None = None,
    *,
    shown: tf.data.Dataset | None = None,
    problems: Problems | None = None,
) -> tf.data.Dataset:
    """The images of a user's data set without end, in its order, with their objects.

    `check_elements` has passed the data set. `within` cuts boxes to their images. An element that
    `checked_element` refuses raises `tf.errors.InvalidArgumentError` where it is read. The graph reads an element
    without either; Python reads one with a box outside its image, to report it, and one that cannot be used.

    Args:
        elements: the data set.
        num_classes: the number of classes.
        start: the number of elements that were used before. Elements of whole passes are not read again if `known`
            tells how many a pass has.
        known: learns the number of elements.
        shown: for each element from `start` on, True if it is to be shown. All are read. None shows all.
        problems: boxes outside their images are added here.
    """
    problems = Problems.of(problems)
    known = Elements() if known is None else known

    def examine(number: tf.Tensor, is_again: tf.Tensor, *parts: tf.Tensor) -> tuple[Any, ...]:
        index, (height, width, _) = int(number), parts[0].numpy()
        annotation = checked_element(index, parts[0].numpy(), *parts[1:], num_classes=num_classes)
        if is_again or index in known.reported:  # another reader of mosaics may have reported it
            annotation, _ = _cut(annotation, height, width)
        else:
            annotation = within(annotation, height, width, problems=problems)
            known.reported.add(index)
        return annotation.boxes, annotation.classes, annotation.ignore

    def objects_of(
        number: tf.Tensor, is_again: tf.Tensor, element: Mapping[str, tf.Tensor]
    ) -> tuple[tf.Tensor, augment.Objects]:
        image, *objects = parts_of(element)

        def in_python() -> Sequence[tf.Tensor]:
            given = [number, is_again, tf.shape(image), *objects]
            return tf.py_function(examine, given, decoding.OBJECT_TYPES)

        if all(part.shape.rank for part in objects) and objects[0].shape[-1] == 4:
            is_plain, plain = _plain(tf.shape(image), *objects, num_classes=num_classes)
            found = tf.cond(is_plain, lambda: plain, in_python)
        else:
            found = in_python()
        return tf.ensure_shape(image, [None, None, 3]), decoding.named(*found)

    def counted(
        state: tuple[tf.Tensor, ...], element: tuple[tf.Tensor, Any]
    ) -> tuple[tuple[tf.Tensor, ...], tuple[Any, ...]]:
        """Adds to each element if it was read before: shuffling changes numbers, but a pass has each element once.

        The state is the number of the last element, how many were read, and how many a pass has, or -1.
        """
        (last, read, length), (number, content) = state, element

        def learn(last: np.int64) -> np.int64:
            known.count = int(last) + 1
            return last + 1

        def call() -> tf.Tensor:
            return tf.ensure_shape(tf.numpy_function(learn, [last], tf.int64), [])

        length = tf.cond((number == 0) & (last >= 0), call, lambda: length)
        is_again = (length >= 0) & (read >= length)
        return (number, read + 1, length), (number, is_again, content)

    used = start if known.count is None else start % known.count
    rest = elements.enumerate().repeat().skip(used)
    state = [tf.constant(each, tf.int64) for each in (-1, 0, known.count or -1)]
    rest = rest.scan(tuple(state), decoding.as_it_is(counted))
    if shown is not None:
        pairs = tf.data.Dataset.zip(rest, shown).filter(lambda _, is_shown: is_shown)
        rest = pairs.map(decoding.as_it_is(lambda element, _: element))
    return rest.map(decoding.as_it_is(objects_of), tf.data.AUTOTUNE)


def _plain(
    shape: tf.Tensor, boxes: tf.Tensor, classes: tf.Tensor, ignore: tf.Tensor, *, num_classes: int
) -> tuple[tf.Tensor, list[tf.Tensor]]:
    """True if an element with an image of this shape needs no report; and its objects, cut to the image."""
    exact, count = tf.cast(boxes, tf.float32), tf.shape(boxes)[0]
    cut = tf.clip_by_value(exact, 0.0, tf.cast(tf.gather(shape, [1, 0, 1, 0]), tf.float32))
    labels = tf.cast(classes, tf.int64)
    is_plain = (
        tf.reduce_all(shape > 0)
        & (tf.size(classes) == count)
        & (tf.size(ignore) == count)
        & tf.reduce_all(tf.math.is_finite(exact))
        & tf.reduce_all(cut[:, 2:] > cut[:, :2])
        & tf.reduce_all((labels >= 0) & (labels < num_classes))
    )
    return is_plain, [cut, tf.cast(labels, tf.int32), ignore]


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
