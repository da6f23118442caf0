"""Annotations in, batches for `model.fit` out: `(images, targets, weights)` as a `tf.data.Dataset`.

    annotation ─ reading ─ augment (or only fit) ─ mosaic ─ batch ─ targets.encode_batch

Images are resized before heatmaps are painted, so that these are exact at the size that the network sees.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import tensorflow as tf

from unitbox_tf.config import DataConfig
from unitbox_tf.limits import MAX_PIXELS
from unitbox_tf.problems import Problems
from unitbox_tf.records import Annotation
from unitbox_tf.train import augment, decoding, order, reading, targets
from unitbox_tf.train.streaming import Stream


@dataclasses.dataclass(frozen=True)
class Labels:
    """How targets are encoded for a network and its losses; see `targets.encode`."""

    num_classes: int
    equal_objects: bool = False
    share_power: float = 0.0
    stride: int = 1


CHUNK = 1 << 20  # places that are counted at once

# An image float32 `[S, S, 3]`, or as `augment.fit_bytes` gives it.
Shown: TypeAlias = "tf.Tensor | tuple[tf.Tensor, tf.Tensor]"


def training_dataset(
    examples: Sequence[Annotation] | tf.data.Dataset | Stream,
    data: DataConfig,
    *,
    labels: Labels,
    padding: augment.Colour = augment.BLACK,
    batch_size: int,
    seed: int,
    start: int = 0,
    known: Sequence[order.Order] | None = None,
    elements: reading.Elements | None = None,
    share: order.Share | None = None,
    max_pixels: int = MAX_PIXELS,
    problems: Problems | None = None,
) -> tf.data.Dataset:
    """Endless batches for training. They depend on the arguments alone, wherever they start.

    Args:
        examples: annotations, drawn in a random order that depends on `seed`; or a data set of elements
            as described by `reading.ELEMENT`, read in its own order, again and again; or shards, whose order
            depends on `seed`, too.
        data: the settings of size, augmentation and labels.
        labels: how the targets are encoded.
        padding: the colour beyond the border of an image: the `mean_colour` of the backbone.
        batch_size: the number of images in a batch; with `share`, in that of all workers together.
        seed: the seed of order and augmentation.
        start: the number of images that training has used before.
        known: the orders of annotations, which learn here what cannot be decoded; None makes them.
        elements: learns how many elements a data set or the shards in `examples` have.
        share: the places whose images are shown, and the devices, each of which gets a batch; None shows all. Workers
            that share a `Stream` read shards of their own, so together they show other images than one alone.
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
        share=share,
        max_pixels=max_pixels,
        problems=problems,
        num_classes=labels.num_classes,
    )
    size = share.size_of_device if share else batch_size
    return batches(shown, data, data.image_size, labels, size)


def shown_images(
    examples: Sequence[Annotation] | tf.data.Dataset | Stream,
    data: DataConfig,
    *,
    num_classes: int,
    padding: augment.Colour = augment.BLACK,
    seed: int,
    start: int = 0,
    known: Sequence[order.Order] | None = None,
    elements: reading.Elements | None = None,
    share: order.Share | None = None,
    max_pixels: int = MAX_PIXELS,
    problems: Problems | None = None,
) -> tf.data.Dataset:
    """The images of `training_dataset` (`Shown`), changed at random, with their objects; see there."""
    size = data.image_size
    problems = Problems.of(problems)
    if not isinstance(examples, tf.data.Dataset | Stream):
        known = known or order.orders(len(examples), seed, data.mosaic_rows)
    mosaics = order.Mosaics(data.mosaic, data.mosaic_rows)

    def changed(number: int, side: int, first: int, shown: tf.data.Dataset) -> tf.data.Dataset:
        """`shown` says of each image from the place `first` on, in the order `number`, if it is shown."""
        places = _places(first, shown if share else None)
        if isinstance(examples, Stream):
            own = share is not None and share.count > 1
            images = examples.images(
                seed + number,
                _shown_before(share, mosaics, number, start) if share and own else first,
                known=None if own else elements,
                index=share.index if share else 0,
                count=share.count if share else 1,
                max_pixels=max_pixels,
                problems=problems,
            )
        elif known is None:
            images = reading.from_elements(
                examples,
                num_classes,
                first,
                elements,
                shown=shown if share else None,
                problems=problems,
            )
        else:
            images = reading.in_order(
                examples, known[number], places, max_pixels=max_pixels, problems=problems
            )
        return _changed(images, data, side, padding, seed + number, places)

    every = tf.data.Dataset.counter(start)
    has = decoding.as_it_is(share.has if share else lambda place: True)
    mine = every if share is None else every.filter(has)
    whole = every.filter(_of_kind(mosaics, 0)).map(has)
    shown = changed(0, size, start - mosaics.before(start), whole)
    if data.mosaic:
        parts = []
        for kind, row in enumerate(data.mosaic_rows):
            first = row**2 * mosaics.of_kind_before(kind, start)
            of_kind = every.filter(_of_kind(mosaics, 1 + kind)).map(has)
            each_part = of_kind.flat_map(functools.partial(_repeated, row**2))
            joined = changed(1 + kind, -(-size // row), first, each_part)
            parts.append(_mosaics(joined, size, row))
        kinds = mine.map(decoding.as_it_is(mosaics.kind_at))
        shown = tf.data.Dataset.choose_from_datasets([shown, *parts], kinds)
    return shown


def _places(first: int, shown: tf.data.Dataset | None) -> tf.data.Dataset:
    """The places from `first` on, without end: those that are `shown`, or all."""
    places = tf.data.Dataset.counter(first)
    if shown is None:
        return places
    pairs = tf.data.Dataset.zip(places, shown).filter(lambda _, is_shown: is_shown)
    return pairs.map(lambda place, _: place)


def _shown_before(share: order.Share, mosaics: order.Mosaics, kind: int, place: int) -> int:
    """The number of images that `share` has shown before a place: whole ones for the kind 0, else parts of mosaics."""
    found = 0
    for first in range(0, place, CHUNK):
        places = tf.range(first, min(first + CHUNK, place), dtype=tf.int64)
        shown = share.has(places) & (mosaics.kind_at(places) == kind)
        found += int(tf.math.count_nonzero(shown))
    return found * (mosaics.parts(kind - 1) if kind else 1)


def _of_kind(mosaics: order.Mosaics, kind: int) -> Callable[[tf.Tensor], tf.Tensor]:
    """Says of a place if its image is of a kind; see `order.Mosaics.kind_at`."""
    is_kind: Callable[[tf.Tensor], tf.Tensor] = decoding.as_it_is(
        lambda place: mosaics.kind_at(place) == kind
    )
    return is_kind


def _repeated(count: int, value: tf.Tensor) -> tf.data.Dataset:
    return tf.data.Dataset.from_tensors(value).repeat(count)


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

    def fitted(image: tf.Tensor, objects: augment.Objects) -> tuple[Shown, augment.Objects]:
        return _fit(image, objects, size, padding, as_bytes)

    shown = images.map(decoding.as_it_is(fitted), tf.data.AUTOTUNE)
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
    places: tf.data.Dataset,
) -> tf.data.Dataset:
    """Images of `size` x `size` pixels with their objects, changed at random as `data` and their `places` say."""
    makes_fractions = data.random_crop or data.colour or data.blur or data.mosaic
    as_bytes = augment.are_levels(padding) and not makes_fractions

    def change(place: tf.Tensor, example: tuple[tf.Tensor, augment.Objects]) -> Any:
        image, objects = example
        seeds = tf.random.split(tf.stack([tf.constant(seed, tf.int64), place]), 4)
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

    return tf.data.Dataset.zip(places, images).map(decoding.as_it_is(change), tf.data.AUTOTUNE)


def _mosaics(parts: tf.data.Dataset, size: int, rows: int) -> tf.data.Dataset:
    """Images of `size` x `size` pixels, each of the next `rows` x `rows` of `parts`."""

    def join(images: tf.Tensor, objects: augment.Objects) -> tuple[tf.Tensor, augment.Objects]:
        count = rows * rows
        each = [{name: value[i] for name, value in objects.items()} for i in range(count)]
        return _cut(*augment.mosaic(images, each, rows), size)

    images = parts.ragged_batch(rows * rows, drop_remainder=True)
    return images.map(decoding.as_it_is(join), tf.data.AUTOTUNE)


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

    found = examples.map(decoding.as_it_is(packed), tf.data.AUTOTUNE).ragged_batch(batch_size)
    return found.map(decoding.as_it_is(encode), tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)


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
