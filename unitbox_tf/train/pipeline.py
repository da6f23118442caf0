"""Annotations in, batches for `model.fit` out: `(images, targets, weights)` as a `tf.data.Dataset`.

    annotation ─ reading ─ augment (or only fit) ─ mosaic ─ batch ─ targets.encode_batch

Images are resized before heatmaps are painted, so that these are exact at the size that the network sees.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, TypeAlias

import tensorflow as tf

from unitbox_tf.config import DataConfig
from unitbox_tf.limits import MAX_PIXELS
from unitbox_tf.problems import Problems
from unitbox_tf.records import Annotation
from unitbox_tf.train import augment, order, reading, targets


@dataclasses.dataclass(frozen=True)
class Labels:
    """How targets are encoded for a network and its losses; see `targets.encode`."""

    num_classes: int
    equal_objects: bool = False
    share_power: float = 0.0
    stride: int = 1


# An image float32 `[S, S, 3]`, or as `augment.fit_bytes` gives it.
Shown: TypeAlias = "tf.Tensor | tuple[tf.Tensor, tf.Tensor]"


def training_dataset(
    examples: Sequence[Annotation] | tf.data.Dataset,
    data: DataConfig,
    *,
    labels: Labels,
    padding: augment.Colour = augment.BLACK,
    batch_size: int,
    seed: int,
    start: int = 0,
    known: Sequence[order.Order] | None = None,
    elements: reading.Elements | None = None,
    max_pixels: int = MAX_PIXELS,
    problems: Problems | None = None,
) -> tf.data.Dataset:
    """Endless batches for training. They depend on the arguments alone, wherever they start.

    Args:
        examples: annotations, drawn in a random order that depends on `seed`; or a data set of elements
            as described by `reading.ELEMENT`, read in its own order, again and again.
        data: the settings of size, augmentation and labels.
        labels: how the targets are encoded.
        padding: the colour beyond the border of an image: the `mean_colour` of the backbone.
        batch_size: the number of images in a batch.
        seed: the seed of order and augmentation.
        start: the number of images that training has used before.
        known: the orders of annotations, which learn here what cannot be decoded; None makes them.
        elements: learns how many elements a data set in `examples` has.
        max_pixels: larger images are refused like images that cannot be decoded.
        problems: images that cannot be decoded are added here, and others take their place.

    Returns:
        Batches of images float32 `[B, S, S, 3]` from 0 to 255, and dicts of targets and weights as
        `targets.encode` makes them.
    """
    shown = shown_images(
        examples,
        data,
        padding=padding,
        seed=seed,
        start=start,
        known=known,
        elements=elements,
        max_pixels=max_pixels,
        problems=problems,
        num_classes=labels.num_classes,
    )
    return batches(shown, data, data.image_size, labels, batch_size)


def shown_images(
    examples: Sequence[Annotation] | tf.data.Dataset,
    data: DataConfig,
    *,
    num_classes: int,
    padding: augment.Colour = augment.BLACK,
    seed: int,
    start: int = 0,
    known: Sequence[order.Order] | None = None,
    elements: reading.Elements | None = None,
    max_pixels: int = MAX_PIXELS,
    problems: Problems | None = None,
) -> tf.data.Dataset:
    """The images of `training_dataset` (`Shown`), changed at random, with their objects; see there."""
    size = data.image_size
    problems = Problems.of(problems)
    if not isinstance(examples, tf.data.Dataset):
        known = known or order.orders(len(examples), seed, data.mosaic_rows)
    mosaics = order.Mosaics(data.mosaic, data.mosaic_rows)

    def changed(number: int, side: int, start: int) -> tf.data.Dataset:
        if known is None:
            images = reading.from_elements(
                examples, num_classes, start, elements, problems=problems
            )
        else:
            images = reading.in_order(
                examples, known[number], start, max_pixels=max_pixels, problems=problems
            )
        return _changed(images, data, side, padding, seed + number, start)

    earlier = mosaics.before(start)
    shown = changed(0, size, start - earlier)
    if data.mosaic:
        parts = []
        for kind, row in enumerate(data.mosaic_rows):
            first = row**2 * mosaics.of_kind_before(kind, start)
            parts.append(_mosaics(changed(1 + kind, -(-size // row), first), size, row))
        kinds = functools.partial(_kind, share=data.mosaic, count=len(parts))
        choices = tf.data.Dataset.counter(start).map(kinds)
        shown = tf.data.Dataset.choose_from_datasets([shown, *parts], choices)
    return shown


def _kind(place: tf.Tensor, share: float, count: int) -> tf.Tensor:
    """0 for a whole image, else one more than `order.Mosaics.at`, in a graph."""
    before, after = (
        tf.cast(tf.cast(number, tf.float64) * share, tf.int64) for number in (place, place + 1)
    )
    return tf.where(after > before, 1 + before % count, 0)


def validation_dataset(
    annotations: Sequence[Annotation],
    data: DataConfig,
    *,
    size: int,
    labels: Labels,
    padding: augment.Colour = augment.BLACK,
    batch_size: int,
    max_pixels: int = MAX_PIXELS,
    problems: Problems | None = None,
) -> tf.data.Dataset:
    """Batches like those of `training_dataset`, but of each image once, in order, shrunk to `size` x `size` pixels.

    An image that cannot be decoded becomes one black pixel, so that the length of the data set is known.
    If the length is unknown, Keras counts a batch too many in the means of the parts of the loss.
    """
    problems = Problems.of(problems)
    images = reading.from_annotations(annotations, max_pixels=max_pixels, problems=problems)
    as_bytes = augment.are_levels(padding)
    shown = images.map(
        lambda image, objects: _fit(image, objects, size, padding, as_bytes), tf.data.AUTOTUNE
    )
    return batches(shown, data, size, labels, batch_size)


def _fit(
    image: tf.Tensor, objects: augment.Objects, size: int, padding: augment.Colour, as_bytes: bool
) -> tuple[Shown, augment.Objects]:
    """The image as `augment.fit` shows it, or as `augment.fit_bytes` does."""
    if as_bytes:
        whole, floats, objects = augment.fit_bytes(image, objects, size, padding=padding)
        return (whole, floats), objects
    return augment.fit(image, objects, size, padding=padding)


def _changed(
    images: tf.data.Dataset,
    data: DataConfig,
    size: int,
    padding: augment.Colour,
    seed: int,
    start: int,
) -> tf.data.Dataset:
    """Images of `size` x `size` pixels with their objects, changed at random as `data` says."""
    makes_fractions = data.random_crop or data.colour or data.blur or data.mosaic
    as_bytes = augment.are_levels(padding) and not makes_fractions

    def change(count: tf.Tensor, example: tuple[tf.Tensor, augment.Objects]) -> Any:
        image, objects = example
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
                padding=padding,
            )
        else:
            image, objects = _fit(image, objects, size, padding, as_bytes)
        if data.flip and as_bytes:
            (whole, floats), before = image, objects
            whole, objects = augment.random_flip(whole, before, seeds[1])
            image = whole, augment.random_flip(floats, before, seeds[1])[0]
        elif data.flip:
            image, objects = augment.random_flip(image, objects, seeds[1])
        if data.colour:
            image = augment.random_colour(image, data.colour, seeds[2])
        if data.blur:
            image, objects = augment.random_blur(
                image, objects, data.blur, data.min_object, seeds[3]
            )
        return image, objects

    counts = tf.data.Dataset.counter(start)
    return tf.data.Dataset.zip(counts, images).map(change, tf.data.AUTOTUNE)


def _mosaics(parts: tf.data.Dataset, size: int, rows: int) -> tf.data.Dataset:
    """Images of `size` x `size` pixels, each of the next `rows` x `rows` of `parts`."""

    def join(images: tf.Tensor, objects: augment.Objects) -> tuple[tf.Tensor, augment.Objects]:
        count = rows * rows
        each = [{name: value[i] for name, value in objects.items()} for i in range(count)]
        return _cut(*augment.mosaic(images, each, rows), size)

    return parts.ragged_batch(rows * rows, drop_remainder=True).map(join, tf.data.AUTOTUNE)


def _cut(
    image: tf.Tensor, objects: augment.Objects, size: int
) -> tuple[tf.Tensor, augment.Objects]:
    """A mosaic that is too large without its last rows and columns."""
    image = tf.ensure_shape(image[:size, :size], [size, size, 3])
    return image, augment.clip_objects(objects, size, size)


def batches(
    examples: tf.data.Dataset,
    data: DataConfig,
    size: int,
    labels: Labels,
    batch_size: int,
) -> tf.data.Dataset:
    """Batches of images, targets and weights. The targets of all images of a batch are encoded at once."""

    def packed(image: Shown, objects: augment.Objects) -> tuple[Shown, tf.Tensor]:
        classes = tf.bitcast(objects["classes"], tf.float32)
        parts = [classes, tf.cast(objects["ignore"], tf.float32)]
        return image, tf.concat([objects["boxes"], tf.stack(parts, axis=1)], axis=1)

    def encode(images: Any, objects: tf.RaggedTensor) -> tuple[Any, ...]:
        if isinstance(images, tuple):
            images = _as_floats(*images)
        each = objects.values
        boxes, ignore = each[:, :4], each[:, 5] > 0
        small = tf.reduce_max(boxes[:, 2:] - boxes[:, :2], axis=-1) < data.min_object
        heatmaps, weights = targets.encode_batch(
            boxes,
            tf.bitcast(each[:, 4], tf.int32),
            ignore | small,
            tf.cast(objects.value_rowids(), tf.int32),
            tf.cast(objects.nrows(), tf.int32),
            size,
            size,
            region=data.region,
            positive_weight=data.positive_weight,
            **dataclasses.asdict(labels),
        )
        return images, heatmaps, weights

    found = examples.map(packed, tf.data.AUTOTUNE).ragged_batch(batch_size)
    return found.map(encode, tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)


def _as_floats(whole: tf.Tensor, floats: tf.RaggedTensor) -> tf.Tensor:
    """The images float32 `[B, S, S, 3]` of a batch of bytes and floats of `augment.fit_bytes`.

    A cast of a whole batch writes the floats once. If each image were cast, they would be copied into the batch, too.
    """
    values, numbers = floats.values, floats.value_rowids()
    count, left = tf.shape(whole)[0], tf.shape(values)[0]

    def mixed() -> tf.Tensor:
        images = tf.cast(whole, tf.float32)
        return tf.cond(
            left > 0,
            lambda: tf.tensor_scatter_nd_update(images, numbers[:, None], values),
            lambda: images,
        )

    return tf.ensure_shape(tf.cond(left == count, lambda: values, mixed), whole.shape)
