"""Finds images that are there more than once: the same bytes, or nearly the same pixels.

Bytes are compared by their digests, and only where their lengths are equal, so most files are not read.
Pixels are compared by a perceptual hash of 256 bits: the signs of the low frequencies of the image's cosine
transform. OpenCV has the transform. The library ImageHash computes the like, but brings SciPy and PyWavelets.
With 64 bits, the usual number, some different images are as near as copies with other brightness. With 256
bits, they are apart: see `NEAR`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from unitbox_tf import images as image_ops
from unitbox_tf.files import Part
from unitbox_tf.limits import MAX_PIXELS
from unitbox_tf.problems import Problems
from unitbox_tf.progress import Progress
from unitbox_tf.records import Annotation

SIDE = 32  # px; side of the grey image of which a hash is made
BITS = 256
# Largest number of different bits of near-duplicates. It was searched on 1,214 images (blood cells, people with
# masks, WIDER FACE). Copies in JPEG of quality 30, at .5 to 2 times the size, squeezed to a square, or 20 %
# brighter differ in at most 28 bits, and copies cropped by 2 % at each side in at most 52. Pairs with up to 57
# bits show the same scene a moment later. The nearest pairs of different scenes differ in 58 and more.
NEAR = 48
LAST = 256  # bytes at the end of a file, which nearly always tell images of one length apart
FLAT = 3.0  # levels of grey; the signs of an image with a smaller standard deviation are those of noise
_BLOCK = (
    64  # hashes that are compared with all others at a time, so that the bits stay in the cache
)


class Repeat(NamedTuple):
    """An image that is there already.

    Attributes:
        image: index of the image.
        other: index of the image that it repeats.
        distance: number of different bits; None if the bytes are the same.
    """

    image: int
    other: int
    distance: int | None


def same_bytes(annotations: Sequence[Annotation]) -> list[list[int]]:
    """Groups of two or more indices of `annotations` whose images have the same bytes.

    Each step looks only at images that the step before it could not tell apart: lengths, last bytes, digests.
    A file that cannot be read is in no group: readers and `reading.readable` report it.
    """
    groups: list[list[int]] = [list(range(len(annotations)))]
    for key in (_length, _last_bytes, _digest):
        groups = [part for group in groups for part in _split(annotations, group, key)]
    return sorted(groups)


def _split(
    annotations: Sequence[Annotation],
    group: Iterable[int],
    key: Callable[[Path | Part | bytes], object],
) -> Iterator[list[int]]:
    """The parts of two or more of `group` whose images have the same key."""
    known: dict[Path | Part | bytes, object] = {}
    parts: dict[object, list[int]] = {}
    for index in group:
        image = annotations[index].image
        if image not in known:  # a file that is listed often is read once
            try:
                known[image] = key(image)
            except (OSError, ValueError):  # the latter: a NUL in the name
                known[image] = None
        if known[image] is not None:
            parts.setdefault(known[image], []).append(index)
    return (part for part in parts.values() if len(part) > 1)


def _length(image: Path | Part | bytes) -> int:
    if isinstance(image, Path):
        return image.stat().st_size
    return image.length if isinstance(image, Part) else len(image)


def _last_bytes(image: Path | Part | bytes) -> bytes:
    if isinstance(image, bytes):
        return image[-LAST:]
    if isinstance(image, Path):
        image = Part(image, 0, image.stat().st_size)
    length = min(LAST, image.length)
    return dataclasses.replace(
        image, offset=image.offset + image.length - length, length=length
    ).read()


def _digest(image: Path | Part | bytes) -> bytes:
    if isinstance(image, Path):
        image = image_ops.read_file(image)
    encoded = image.read() if isinstance(image, Part) else image
    return hashlib.blake2b(encoded, digest_size=16).digest()


def repeats_of_bytes(groups: Iterable[Sequence[int]], first: int, last: int) -> list[Repeat]:
    """The repeats among the indices from `first` to below `last`: each but the first of a group repeats that one."""
    found = []
    for group in groups:
        inside = [index for index in group if first <= index < last]
        found += [Repeat(index, inside[0], None) for index in inside[1:]]
    return found


def shared_bytes(groups: Iterable[Sequence[int]], boundary: int) -> list[Repeat]:
    """The images from `boundary` on that repeat an image before it."""
    return [
        Repeat(index, group[0], None)
        for group in groups
        for index in group
        if group[0] < boundary <= index
    ]


def hashes(
    annotations: Sequence[Annotation],
    *,
    max_pixels: int = MAX_PIXELS,
    problems: Problems | None = None,
) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """The hashes of the images.

    Args:
        annotations: the images.
        max_pixels: larger images are refused like images that cannot be decoded.
        problems: images that cannot be decoded are added here.

    Returns:
        The hashes uint64 `[N, 4]`; a mask `[N]`, True for images that can be compared; and the indices of
        images of one colour, which cannot: all of them would look alike.
    """
    problems = Problems.of(problems)
    values = np.zeros((len(annotations), BITS // 64), np.uint64)
    usable, flat = np.zeros(len(annotations), bool), []
    for index, annotation in enumerate(Progress(annotations, "comparing images", len(annotations))):
        try:
            grey = _grey(annotation.encoded(max_pixels), max_pixels)
        except image_ops.UNREADABLE as error:
            problems.add(image_ops.UNDECODABLE, annotation.where, str(error))
            continue
        if grey.std() < FLAT:
            flat.append(index)
        else:
            values[index], usable[index] = _hash(grey), True
    return values, usable, flat


def _grey(encoded: bytes, max_pixels: int) -> np.ndarray:
    """The image float32 `[SIDE, SIDE]`, as displayed. Raises `ValueError` if it cannot be decoded."""
    pixels = image_ops.decode_with_pillow(encoded, max_pixels, smallest=4 * SIDE)
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    return small.astype(np.float32)


def _low_frequencies() -> np.ndarray:
    """The places of the `BITS` lowest frequencies in the transform `[SIDE * SIDE]`, without the mean."""
    row, column = np.divmod(np.arange(SIDE * SIDE), SIDE)
    return np.lexsort((row, row + column))[1 : BITS + 1]


_PLACES = _low_frequencies()


def _hash(grey: np.ndarray) -> np.ndarray:
    """The hash uint64 `[4]` of a grey image `[SIDE, SIDE]`."""
    return np.packbits(cv2.dct(grey).ravel()[_PLACES] > 0).view(np.uint64)


def repeats_of_pixels(values: np.ndarray, usable: np.ndarray, limit: int = NEAR) -> list[Repeat]:
    """For each image that is near to an earlier one: the nearest earlier image.

    Args:
        values: hashes uint64 `[N, 4]`.
        usable: mask `[N]`; other images are left out.
        limit: the largest number of different bits, at most 128.
    """
    places = np.flatnonzero(usable)
    mine = values[places]
    near = _nearest(mine, mine, limit, earlier=True)
    return [Repeat(int(places[i]), int(places[j]), d) for i, j, d in near]


def shared_pixels(
    values: np.ndarray, usable: np.ndarray, boundary: int, limit: int = NEAR
) -> list[Repeat]:
    """For each image from `boundary` on that is near to one before it: the nearest of these."""
    places = np.flatnonzero(usable)
    before, after = places[places < boundary], places[places >= boundary]
    near = _nearest(values[after], values[before], limit, earlier=False)
    return [Repeat(int(after[i]), int(before[j]), d) for i, j, d in near]


def _nearest(
    mine: np.ndarray, others: np.ndarray, limit: int, *, earlier: bool
) -> Iterator[tuple[int, int, int]]:
    """For each of `mine` `[N, 4]` within `limit` of one of `others` `[M, 4]`: its index, that of the nearest, the bits.

    With `earlier`, only others with a smaller index count. Every pair is compared: chunks with an index,
    as for hashes of 64 bits, would need 49 chunks here, and the bits of 30,000 images take 3 seconds,
    of the minutes that decoding takes. The second half of the bits is counted only for pairs whose first
    half is within the limit.
    """
    first = np.ascontiguousarray(others[:, :2].T)  # [2, M]
    for start in range(0, len(mine), _BLOCK):
        block = mine[start : start + _BLOCK]
        end = start + len(block) if earlier else len(others)
        bits = np.bitwise_count(block[:, :1] ^ first[0, :end])
        bits += np.bitwise_count(block[:, 1:2] ^ first[1, :end])
        rows, columns = np.nonzero(bits <= limit)
        if earlier:
            kept = columns < rows + start
            rows, columns = rows[kept], columns[kept]
        rest = np.bitwise_count(block[rows, 2:] ^ others[columns, 2:]).sum(axis=1, dtype=int)
        distance = bits[rows, columns] + rest
        order = np.lexsort((columns, distance, rows))
        order = order[distance[order] <= limit]
        for _, found in itertools.groupby(order.tolist(), key=lambda place: rows[place]):
            best = next(found)
            yield start + int(rows[best]), int(columns[best]), int(distance[best])
