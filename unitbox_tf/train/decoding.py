"""Decodes the images of training in the graph; Python looks up what to decode, for a group of images at a time.

    places ─ look_up (Python, a group) ─ decode (graph) ─┬─ image and objects
                                            else load (Python) ─┘

Python decodes an image only if TensorFlow does not decode its format, or failed to: only Python can say why, and take
another image in its place. A call of Python holds a lock that stops all others, so a call for each image would let a
GPU wait.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from unitbox_tf import image_graph
from unitbox_tf.train import augment

Example = tuple[tf.Tensor, augment.Objects]

GROUP = 16  # images that Python looks up in one call
IN_PYTHON = 0  # in place of an orientation: Python decodes the image
OBJECT_TYPES = (tf.float32, tf.int32, tf.bool)  # of boxes, classes, ignore

# Functions of a pipeline have no Python to convert into a graph. TensorFlow would rewrite all that they call.
as_it_is = tf.autograph.experimental.do_not_convert


class Group(NamedTuple):
    """The facts that Python knows about n images and their M objects.

    Attributes:
        index: `[n]` int64, of each image among the annotations.
        encoded: `[n]`, the bytes of the files; empty where the graph reads `path`.
        path: `[n]`, the paths of the files.
        orientation: `[n]` int32, from 1 to 8 as in EXIF, or `IN_PYTHON`.
        report: `[n]` bool, True where boxes outside the image are not reported yet.
        ends: `[n]` int64, the place after the last object of each image.
        boxes: `xyxy` `[M, 4]` float32, at least 0, but not cut to the right and the bottom of the image.
        classes: `[M]` int32.
        ignore: `[M]` bool.
    """

    index: Any
    encoded: Any
    path: Any
    orientation: Any
    report: Any
    ends: Any
    boxes: Any
    classes: Any
    ignore: Any


_SPECS = Group(
    index=tf.TensorSpec([None], tf.int64),
    encoded=tf.TensorSpec([None], tf.string),
    path=tf.TensorSpec([None], tf.string),
    orientation=tf.TensorSpec([None], tf.int32),
    report=tf.TensorSpec([None], tf.bool),
    ends=tf.TensorSpec([None], tf.int64),
    boxes=tf.TensorSpec([None, 4], tf.float32),
    classes=tf.TensorSpec([None], tf.int32),
    ignore=tf.TensorSpec([None], tf.bool),
)


def decoded(
    places: tf.data.Dataset,
    look_up: Callable[[Sequence[int]], Group],
    load: Callable[[int], Sequence[Any]],
    report: Callable[[int, int, int], None],
) -> tf.data.Dataset:
    """Images uint8 `[H, W, 3]` with their objects, as `augment` has them, in the order of `places`.

    Args:
        places: int64 numbers, the places of the images.
        look_up: gives the group of images at some places.
        load: decodes the image at a place: image, boxes, classes and ignore, cut to the image.
        report: is called with the index of an image, its height and its width, if boxes are outside of it.
    """

    def group_at(places: tf.Tensor) -> tuple[tf.Tensor, Group]:
        types = [spec.dtype for spec in _SPECS]
        parts = tf.numpy_function(lambda places: tuple(look_up(places.tolist())), [places], types)
        for part, spec in zip(parts, _SPECS, strict=True):
            part.set_shape(spec.shape)
        return places, Group(*parts)

    def each(places: tf.Tensor, group: Group) -> tf.data.Dataset:
        numbers = tf.data.Dataset.range(tf.size(group.index, tf.int64))
        same = tf.data.Dataset.from_tensors((places, group)).repeat()
        return tf.data.Dataset.zip(numbers, same)

    def read(number: tf.Tensor, of_group: tuple[tf.Tensor, Group]) -> Example:
        places, group = of_group
        image = _decode(number, group)
        image, objects = tf.cond(
            tf.size(image) > 0,
            lambda: _finish(image, number, group, report),
            lambda: _in_python(load, places[number]),
        )
        return tf.ensure_shape(image, [None, None, 3]), named(**objects)

    groups = places.batch(GROUP).map(as_it_is(group_at), tf.data.AUTOTUNE)
    return groups.flat_map(as_it_is(each)).map(as_it_is(read), tf.data.AUTOTUNE)


def _in_python(load: Callable[[int], Sequence[Any]], place: tf.Tensor) -> Example:
    types = [tf.uint8, *OBJECT_TYPES]
    image, *objects = tf.py_function(lambda place: load(int(place)), [place], types)
    return tf.ensure_shape(image, [None, None, 3]), named(*objects)


def named(boxes: tf.Tensor, classes: tf.Tensor, ignore: tf.Tensor) -> augment.Objects:
    """The objects from `tf.py_function`, with their shapes, which it does not know."""
    boxes.set_shape([None, 4])
    classes.set_shape([None])
    ignore.set_shape([None])
    return {"boxes": boxes, "classes": classes, "ignore": ignore}


def _decode(number: tf.Tensor, group: Group) -> tf.Tensor:
    """Image `number` of a group as TensorFlow decodes it, not turned; without pixels if it does not decode it.

    The only way to catch an error in a graph is a data set. This one is made anew for each image, and its function
    with it. So the function has nothing else to do.
    """
    content = group.encoded[number]
    is_here = tf.strings.length(content) > 0
    is_file = ~is_here & (group.orientation[number] != IN_PYTHON)

    def only_if(wanted: tf.Tensor, value: tf.Tensor) -> tf.data.Dataset:
        return tf.data.Dataset.from_tensors(value).take(tf.cast(wanted, tf.int64))

    encoded = only_if(is_file, group.path[number]).map(tf.io.read_file)
    found = encoded.concatenate(only_if(is_here, content)).map(image_graph.decode)
    nothing = tf.data.Dataset.from_tensors(tf.zeros([0, 0, 3], tf.uint8))
    return found.ignore_errors().concatenate(nothing).take(1).get_single_element()


def _finish(
    image: tf.Tensor, number: tf.Tensor, group: Group, report: Callable[[int, int, int], None]
) -> Example:
    """`image` turned as it is displayed, and its objects."""
    image = image_graph.turn(image, group.orientation[number])
    start = tf.where(number > 0, group.ends[tf.maximum(number - 1, 0)], 0)
    own = slice(start, group.ends[number])
    boxes, ignore = group.boxes[own], group.ignore[own]

    height, width = tf.unstack(tf.shape(image)[:2])
    boxes = tf.minimum(boxes, tf.cast(tf.stack([width, height, width, height]), tf.float32))
    # The area does not tell: it is positive if both width and height are negative.
    inside = tf.reduce_all(boxes[:, 2:] > boxes[:, :2], axis=1)
    objects = {"boxes": boxes, "classes": group.classes[own], "ignore": ignore}

    def call() -> tf.Tensor:
        def report_one(*numbers: np.ndarray) -> np.bool_:
            report(*map(int, numbers))
            return np.True_

        done = tf.numpy_function(report_one, [group.index[number], height, width], tf.bool)
        return tf.ensure_shape(done, [])

    wanted = tf.reduce_any(~inside & ~ignore) & group.report[number]
    with tf.control_dependencies([tf.cond(wanted, call, lambda: False)]):
        image = tf.identity(image)
    objects = tf.cond(
        tf.reduce_all(inside), lambda: objects, lambda: augment.select(objects, inside)
    )
    return image, objects


def from_groups(
    groups: tf.data.Dataset,
    start: int,
    load: Callable[..., Sequence[Any]],
) -> tf.data.Dataset:
    """As `decoded`, of groups whose records are at hand, without the first `start` images, which are not decoded.

    Args:
        groups: pairs of a tuple of tensors and of the `Group` that Python has found in them. Boxes outside their
            images have been reported.
        start: the number of images that are left out.
        load: is called with the number of an image in its group and with the tensors, and decodes the image, or
            another one: image, boxes, classes and ignore, cut to the image.
    """

    def each(given: tuple[tf.Tensor, ...], group: Group) -> tf.data.Dataset:
        numbers = tf.data.Dataset.range(tf.size(group.index, tf.int64))
        same = tf.data.Dataset.from_tensors((given, group)).repeat()
        return tf.data.Dataset.zip(numbers, same)

    def in_python(number: tf.Tensor, given: tuple[tf.Tensor, ...]) -> Example:
        types = [tf.uint8, *OBJECT_TYPES]
        image, *objects = tf.py_function(load, [number, *given], types)
        return tf.ensure_shape(image, [None, None, 3]), named(*objects)

    def read(number: tf.Tensor, of_group: tuple[tuple[tf.Tensor, ...], Group]) -> Example:
        given, group = of_group
        image = _decode(number, group)
        image, objects = tf.cond(
            tf.size(image) > 0,
            lambda: _finish(image, number, group, lambda *_: None),
            lambda: in_python(number, given),
        )
        return tf.ensure_shape(image, [None, None, 3]), named(**objects)

    return groups.flat_map(as_it_is(each)).skip(start).map(as_it_is(read), tf.data.AUTOTUNE)


def group_of(
    look_up: Callable[..., Group], given: Sequence[tf.Tensor]
) -> tuple[tuple[tf.Tensor, ...], Group]:
    """The tensors, and the group that `look_up` finds in them in Python, in a graph."""
    types = [spec.dtype for spec in _SPECS]
    parts = tf.numpy_function(lambda *arrays: tuple(look_up(*arrays)), list(given), types)
    for part, spec in zip(parts, _SPECS, strict=True):
        part.set_shape(spec.shape)
    return tuple(given), Group(*parts)
