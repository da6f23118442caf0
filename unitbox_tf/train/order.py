"""The order in which training shows images: a function of the seed and of the place in the order, and of nothing else.

So training goes on at any image without a state of its order, and the images of each batch are known afterwards.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from unitbox_tf.records import Annotation


class Order:
    """All images once, mixed, then all again in another order, without end.

    Attributes:
        broken: the indices of images that are known to be unusable; it may grow. Another image, drawn at random, takes
            the place of such an image, wherever it comes.
    """

    def __init__(self, count: int, seed: int) -> None:
        """The order of `count` images."""
        self.broken: set[int] = set()
        self._count = count
        self._seed = seed
        # Readers are at most a few images apart, so they are in the same pass or in two that follow each other.
        self._pass = functools.lru_cache(maxsize=3)(self._mixed)

    def at(self, place: int) -> int:
        """The index of the image at a place from 0 on, as far as broken images are known."""
        number, place_in_pass = divmod(place, self._count)
        index = int(self._pass(number)[place_in_pass])
        if index in self.broken:
            return self._instead(place)
        return index

    def _mixed(self, number: int) -> np.ndarray:
        """The order of the images in a pass. NumPy promises that the raw numbers of a generator never change."""
        raw = _generator(self._seed, number, 0).random_raw(self._count)
        order: np.ndarray = np.argsort(raw, kind="stable").astype(np.uint32)
        return order

    def _instead(self, place: int) -> int:
        """The first image that is not known to be broken, of images drawn for this place."""
        drawn = _generator(self._seed, place, 1)
        while len(self.broken) < self._count:
            index = int(drawn.random_raw()) % self._count
            if index not in self.broken:
                return index
        raise ValueError(f"none of the {self._count} images can be decoded")


def of_pass(count: int, seed: int, number: int) -> tuple[np.ndarray, int]:
    """The order of `count` shards in a pass, int64 `[count]`, and a seed from 1 on for mixing their records."""
    raw = _generator(seed, number, 2).random_raw(count + 1)
    return np.argsort(raw[:count], kind="stable"), 1 + int(raw[count] % (2**31 - 2))


def _generator(seed: int, number: int, purpose: int) -> np.random.Philox:
    return np.random.Philox(np.random.SeedSequence([seed, number, purpose]))


@dataclasses.dataclass(frozen=True)
class Share:
    """The places that one of several workers shows: its part of each batch.

    So the workers together show the images of each batch that one worker alone would show.

    Attributes:
        index: the number of the worker, from 0 on.
        count: the number of workers.
        batch_size: the number of images in a batch of all workers together.
        devices: the number of devices of a worker. Each takes a part of the worker's part.
    """

    index: int
    count: int
    batch_size: int
    devices: int = 1

    def __post_init__(self) -> None:
        parts = self.count * self.devices
        if not 0 <= self.index < self.count or self.batch_size % parts:
            raise ValueError(
                f"expected a worker below {self.count}, and a batch that {parts} devices can share. "
                f"Received: worker {self.index}, batch_size {self.batch_size}"
            )

    @property
    def size(self) -> int:
        """The number of images in the part of this worker."""
        return self.batch_size // self.count

    @property
    def size_of_device(self) -> int:
        """The number of images in the part of a device."""
        return self.size // self.devices

    def has(self, place: Any) -> Any:
        """True if the worker shows the image at a place: a number, or a tensor of numbers."""
        return place % self.batch_size // self.size == self.index


class Mosaics:
    """The images of training that are put together from several: a share of them, evenly spread.

    Their kinds, by the images in a row, take turns.
    """

    def __init__(self, share: float, rows: Sequence[int]) -> None:
        """`share` is between 0 and 1; `rows` has the number of images in a row for each kind."""
        self._share = share
        self._rows = tuple(rows)

    def before(self, place: Any) -> Any:
        """The number of mosaics before an image of training: a number, or an int64 tensor of them in a graph."""
        if isinstance(place, tf.Tensor):
            return tf.cast(tf.cast(place, tf.float64) * self._share, tf.int64)
        return int(place * self._share)

    def of_kind_before(self, kind: int, place: Any) -> Any:
        """The number of mosaics of a kind, a place in `rows`, before an image of training."""
        return (self.before(place) + len(self._rows) - 1 - kind) // len(self._rows)

    def at(self, place: int) -> int | None:
        """The kind of the image of training at this place; None if it is no mosaic."""
        before = self.before(place)
        return before % len(self._rows) if self.before(place + 1) > before else None

    def kind_at(self, place: tf.Tensor) -> tf.Tensor:
        """0 for a whole image, else one more than `at`, in a graph."""
        before = self.before(place)
        return tf.where(self.before(place + 1) > before, 1 + before % len(self._rows), 0)

    def parts(self, kind: int) -> int:
        """The number of images in a mosaic of a kind."""
        return self._rows[kind] ** 2


def orders(count: int, seed: int, rows: Sequence[int]) -> list[Order]:
    """The order of whole images, and those of the parts of each kind of mosaics."""
    return [Order(count, seed + number) for number in range(1 + len(rows))]


def names(
    annotations: Sequence[Annotation], known: Sequence[Order], mosaics: Mosaics, places: range
) -> list[list[str]]:
    """The names of the images that training shows at `places`; a mosaic has several.

    Args:
        annotations: the training images.
        known: their orders, which have shown these places, so that the broken images are known.
        mosaics: the mosaics among the images of training.
        places: the places, counted in images of training.
    """
    whole, *parts = known
    found = []
    for place in places:
        kind = mosaics.at(place)
        if kind is None:
            indices = [whole.at(place - mosaics.before(place))]
        else:
            count = mosaics.parts(kind)
            first = count * mosaics.of_kind_before(kind, place)
            indices = [parts[kind].at(first + number) for number in range(count)]
        found.append([annotations[index].where for index in indices])
    return found
