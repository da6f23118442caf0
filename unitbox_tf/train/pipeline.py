"""Annotations in, batches for `model.fit` out: `(images, targets, weights)` as a `tf.data.Dataset`.

    annotation ─ read, decode ─ augment (or only fit) ─ mosaic ─ targets.encode ─ batch

Photos are resized before they are labelled, so that heatmaps are exact at the size that the network
sees.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from unitbox_tf import boxes as box_ops
from unitbox_tf import images as image_ops
from unitbox_tf.config import DataConfig
from unitbox_tf.problems import Problems
from unitbox_tf.records import Annotation
from unitbox_tf.train import augment, targets


def training_dataset(
    annotations: Sequence[Annotation],
    data: DataConfig,
    *,
    num_classes: int,
    equal_objects: bool = False,
    batch_size: int,
    seed: int,
    problems: Problems,
    start: int = 0,
) -> tf.data.Dataset:
    """Endless batches for training, in a random order that is a function of `seed`.

    Args:
        annotations: what to draw from.
        data: size, augmentation and labels.
        num_classes: of the model.
        equal_objects: whether each object has the same weight in the distance loss, or each pixel.
        batch_size: images a batch.
        seed: of order and augmentation.
        problems: photos that cannot be decoded are added here and left out.
        start: how many images earlier runs have used, so that a resumed run sees others.

    Returns:
        Batches of images float32 `[B, S, S, 3]` from 0 to 255, and dicts of targets and weights as
        `targets.encode` makes them.
    """
    size = data.image_size
    examples = _changed(annotations, data, size, seed, start, problems)
    if data.mosaic:
        quarters = _changed(annotations, data, (size + 1) // 2, seed + 1, start, problems)
        four = quarters.ragged_batch(4, drop_remainder=True).map(
            lambda images, objects: _cut(
                *augment.mosaic(
                    images, [{name: value[i] for name, value in objects.items()} for i in range(4)]
                ),
                size,
            ),
            tf.data.AUTOTUNE,
        )
        examples = tf.data.Dataset.sample_from_datasets(
            [examples, four], [1 - data.mosaic, data.mosaic], seed=seed + start
        )
    return _batches(examples, data, size, num_classes, equal_objects, batch_size).prefetch(
        tf.data.AUTOTUNE
    )


def validation_dataset(
    annotations: Sequence[Annotation],
    data: DataConfig,
    *,
    size: int,
    num_classes: int,
    equal_objects: bool = False,
    batch_size: int,
    problems: Problems,
) -> tf.data.Dataset:
    """Each photo once, in order, shrunk to fit `size` x `size` pixels: what `training_dataset` yields otherwise."""
    photos = _photos(annotations, problems)
    examples = photos.map(
        lambda image, objects: augment.fit(image, objects, size), tf.data.AUTOTUNE
    )
    return _batches(examples, data, size, num_classes, equal_objects, batch_size).prefetch(
        tf.data.AUTOTUNE
    )


def _changed(
    annotations: Sequence[Annotation],
    data: DataConfig,
    size: int,
    seed: int,
    start: int,
    problems: Problems,
) -> tf.data.Dataset:
    """Endless images of `size` x `size` pixels with their objects, changed at random as `data` says."""

    def change(count: tf.Tensor, photo: tuple[tf.Tensor, augment.Objects]) -> Any:
        image, objects = photo
        seeds = tf.random.split(tf.stack([tf.constant(seed, tf.int64), count]), 4)
        if data.random_crop:
            image, objects = augment.random_crop(
                image,
                objects,
                size,
                data.object_size,
                data.max_enlargement,
                seeds[0],
                stretch=data.stretch,
            )
        else:
            image, objects = augment.fit(image, objects, size)
        if data.flip:
            image, objects = augment.random_flip(image, objects, seeds[1])
        if data.colour:
            image = augment.random_colour(image, data.colour, seeds[2])
        if data.blur:
            image, objects = augment.random_blur(
                image, objects, data.blur, data.min_object, seeds[3]
            )
        return image, objects

    photos = _photos(annotations, problems, shuffle=seed + start).repeat()
    counts = tf.data.Dataset.counter(start)
    return tf.data.Dataset.zip(counts, photos).map(change, tf.data.AUTOTUNE)


def within(annotation: Annotation, height: int, width: int, problems: Problems) -> Annotation:
    """`annotation` with its boxes cut to its photo of `height` x `width`; those outside are left out and reported.

    Those to be ignored are left out without another report: their readers have told of boxes
    without area, and the others have no pixel to take out of the loss.
    """
    boxes = box_ops.clip(annotation.boxes, height, width)
    # Not by the area, which is positive where width and height both are negative.
    inside = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    for index in np.flatnonzero(~inside & ~annotation.ignore):
        problems.add(
            "box outside its photo",
            f"{annotation.where}, object {index + 1}",
            f"expected a box in {width} x {height} pixels, received {annotation.boxes[index]}",
        )
    return dataclasses.replace(annotation.select(inside), boxes=boxes[inside])


def _photos(
    annotations: Sequence[Annotation], problems: Problems, shuffle: int | None = None
) -> tf.data.Dataset:
    """Decoded photos and their objects; those that cannot be decoded are left out, reported and counted once each."""
    broken: set[int] = set()

    def load(index: tf.Tensor) -> tuple[Any, ...]:
        annotation = annotations[int(index)]
        try:
            image = image_ops.decode_photo(annotation.encoded())
        except (OSError, ValueError) as error:
            image = tf.zeros([0, 0, 3], tf.uint8)
            broken.add(int(index))
            problems.add(image_ops.UNDECODABLE, annotation.where, str(error))
            if len(broken) == len(annotations):
                raise ValueError(f"none of the {len(broken)} photos can be decoded") from error
        else:
            annotation = within(annotation, image.shape[0], image.shape[1], problems)
        return image, annotation.boxes, annotation.classes, annotation.ignore

    def load_in_graph(index: tf.Tensor) -> tuple[tf.Tensor, augment.Objects]:
        types = [tf.uint8, tf.float32, tf.int32, tf.bool]
        # Python, because only Python can catch the error of a photo that is broken.
        image, boxes, classes, ignore = tf.py_function(load, [index], types)
        image.set_shape([None, None, 3])
        boxes.set_shape([None, 4])
        classes.set_shape([None])
        ignore.set_shape([None])
        return image, {"boxes": boxes, "classes": classes, "ignore": ignore}

    indices = tf.data.Dataset.range(len(annotations))
    if shuffle is not None:
        indices = indices.shuffle(len(annotations), seed=shuffle)
    return indices.map(load_in_graph, tf.data.AUTOTUNE).filter(
        lambda image, objects: tf.size(image) > 0
    )


def _cut(
    image: tf.Tensor, objects: augment.Objects, size: int
) -> tuple[tf.Tensor, augment.Objects]:
    """A mosaic of an odd size without its last row and column."""
    image = tf.ensure_shape(image[:size, :size], [size, size, 3])
    return image, augment.clip_objects(objects, size, size)


def _batches(
    examples: tf.data.Dataset,
    data: DataConfig,
    size: int,
    num_classes: int,
    equal_objects: bool,
    batch_size: int,
) -> tf.data.Dataset:
    def encode(image: tf.Tensor, objects: augment.Objects) -> tuple[Any, ...]:
        boxes = objects["boxes"]
        small = tf.reduce_max(boxes[:, 2:] - boxes[:, :2], axis=-1) < data.min_object
        heatmaps, weights = targets.encode(
            boxes,
            objects["classes"],
            objects["ignore"] | small,
            size,
            size,
            num_classes=num_classes,
            region=data.region,
            positive_weight=data.positive_weight,
            equal_objects=equal_objects,
        )
        return image, heatmaps, weights

    return examples.map(encode, tf.data.AUTOTUNE).batch(batch_size)
