"""Shards in TensorFlow's TFRecord format: few large files instead of many small ones, with checksums.

    labels.txt                        the classes' names, one a line, in their order
    train.shards.json                 the plan of a split: a checksum, and the number of images in each shard
    train-00000-of-00012.tfrecord     records: an image, byte by byte as it was, and its annotation

A record is a `tf.train.Example`. Its feature `unitbox/annotation` holds an `Annotation` to the last bit.
The other features are those of the TensorFlow Object Detection API, for other tools: there, boxes are
float32, as shares of the image's width and height. Shards of other tools with these features can be read.

Images are not held in memory: an annotation says where in a shard its image lies. A record has the length
as uint64, the CRC of the length, the data, and the CRC of the data
(tensorflow/core/lib/io/record_writer.h). This module writes and reads records itself, because its
checksum is six times as fast as TensorFlow's, which takes as long as copying. TensorFlow is imported
only where the features of other tools are read or written.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import itertools
import json
import logging
import operator
import os
import re
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import google_crc32c
import numpy as np

from unitbox_tf import files, image_formats, images, limits
from unitbox_tf.datasets import checks, outlines, writing
from unitbox_tf.datasets.base import DataSet, Format
from unitbox_tf.files import Part
from unitbox_tf.problems import Problems
from unitbox_tf.records import Annotation

logger = logging.getLogger(__name__)

SHARD_BYTES = 1 << 27  # of images in a shard, if it has more than one
LARGEST_RECORD = (1 << 31) - 1  # bytes; protocol buffers end here
SMALLEST_OBJECT = 37  # bytes of an object in our own feature: box, class and mark
LARGEST_FEATURE = 10 * limits.MAX_OBJECTS  # bytes of a list of numbers; a varint has 10
LARGEST_SHARE = 2.0  # of an image's side; boxes may end a little outside
LARGEST_CLASS = np.iinfo(np.int32).max
PLAN_SUFFIX = ".shards.json"
VERSION = 1  # the form of records; shards of two versions are not mixed
HEADER, FOOTER = 12, 4  # bytes before and after the data in a record
SHARD_NAME = re.compile(  # as this module names them, and as the Object Detection API does
    r"(?P<split>.+?)(\.(tfrecords?|record))?-(?P<index>\d{5,})-of-(?P<count>\d{5,})"
    r"(\.(tfrecords?|record))?"
)
WHOLE_NAME = re.compile(r"(?P<split>.+)\.(tfrecords?|record)")

PHOTO, OWN = "image/encoded", "unitbox/annotation"
CORNERS = ("xmin", "ymin", "xmax", "ymax")
# Arrays of `Annotation`.
EXACT = {"boxes": "<f8", "classes": "<i4", "ignore": "|u1", "ellipses": "<f8", "areas": "<f8"}
ATTRIBUTE = "attributes/"  # begins the names of arrays that are attributes
# The errors that Python raises for content of an unexpected form.
MALFORMED = (ValueError, TypeError, AttributeError, LookupError, ArithmeticError, RecursionError)
CUT_OFF = "cut off or damaged, or no TFRecord file without compression"
DAMAGED = "damaged, or no TFRecord file without compression: its checksum is another"
AGAIN = "if `unitbox convert` wrote it, delete it and run the same command again"


# Reading


class Shards(DataSet):
    """The shard `root`, or the shards of the split in the folder `root`, or all shards there."""

    def __init__(self, root: Path, split: str) -> None:
        self._root, self._split = root, split

    def class_names(self) -> tuple[str, ...] | None:
        """The names in `labels.txt`; None without it."""
        folder = self._root.parent if self._root.is_file() else self._root
        return checks.listed_class_names(folder)

    def annotations(
        self, *, photos: bool = True, problems: Problems | None = None
    ) -> Iterator[Annotation]:
        """The images in the order of the shards. Both checksums of each record are verified.

        Raises:
            ValueError: a shard is missing, cut off or damaged, or has a record that is no image with
                boxes. Records after the damage cannot be found, so reading does not go on.
        """
        problems = Problems.of(problems)
        names = self.class_names()
        num_classes = len(names) if names else LARGEST_CLASS + 1
        for path in _shards(self._root, self._split):
            number = 0
            for number, offset, record in _records(path):
                annotation = read_record(
                    record, str(path), number, num_classes, Part(path, offset, 0), problems=problems
                )
                if annotation is not None:
                    yield annotation
            check_planned(str(path), number, _planned(path))


def read_record(
    record: bytes,
    path: str,
    number: int,
    num_classes: int,
    part: Part | None = None,
    *,
    problems: Problems | None = None,
) -> Annotation | None:
    """The annotation in a record; None, after a report, if it has no usable name or an object that cannot be read.

    Args:
        record: the data of the record.
        path: the shard, for messages.
        number: the number of the record in the shard, from 1.
        num_classes: the number of classes; an object of another class cannot be read.
        part: where the data begin in the shard, of which the image becomes a part; None holds its bytes in memory.
        problems: what cannot be used is added here.

    Raises:
        ValueError: the record is no image with boxes.
    """
    problems = Problems.of(problems)
    where = f"{path}: record {number}"
    try:
        facts = _facts(record, part)
        faults = _faults(facts, num_classes)
        annotation = None if faults else Annotation(**facts)
    except MALFORMED as error:
        raise ValueError(f"{where}: expected an image with its boxes: {error}") from error
    fault = checks.fault_of_name(facts["name"])
    if fault:
        problems.add(fault[0], where, fault[1])
        return None
    for index, message in faults.items():
        checks.unreadable(problems, f"{path}: {facts['name']}, object {index + 1}", message)
    return None if annotation is None else _checked(annotation, path, problems)


def check_planned(path: str, received: int, expected: int | None) -> None:
    """Raises `ValueError` if a shard has another number of records than planned. None is any number."""
    if expected not in (None, received):
        raise ValueError(
            f"{path}: expected {expected} records, received {received}: it is cut off; {AGAIN}"
        )


def _faults(facts: Mapping[str, Any], num_classes: int) -> dict[int, str]:
    """The faults of objects that cannot be read, by their index."""
    boxes, classes = facts["boxes"].reshape(-1, 4), facts["classes"]
    if len(classes) != len(boxes):
        return {}  # `Annotation` refuses them
    usable = np.isfinite(boxes).all(axis=1) & (classes >= 0) & (classes < num_classes)
    return {
        index: f"expected a finite box and a class from 0 to {num_classes - 1}, received "
        f"{boxes[index].tolist()}, class {classes[index]}"
        for index in np.flatnonzero(~usable).tolist()
    }


def _checked(annotation: Annotation, path: str, problems: Problems) -> Annotation:
    """`annotation`, whose boxes without area are ignored and reported."""
    where, count = f"{path}: {annotation.name}", len(annotation.boxes)
    places = [f"{where}, object {number}" for number in range(1, count + 1)]
    boxes, ignore, size = annotation.boxes, annotation.ignore, annotation.size
    ignored = checks.ignored(boxes, ignore, places, size, problems=problems)
    if np.array_equal(ignored, ignore):
        return annotation
    return dataclasses.replace(annotation, ignore=ignored)


def _shards(root: Path, split: str) -> list[Path]:
    """The shards, in order. Raises `ValueError` if one is missing or there is none."""
    if root.is_file():
        return [root]
    if not root.is_dir():
        raise ValueError(f"{root}: no such folder, and no TFRecord file")
    names = [path.name for path in _whole_files(root)]
    folder, shards = checks.Folder(root), []
    for name in arranged(names, str(root), split, lambda plan: Plan.read(root / plan)):
        path = root / name
        if os.path.lexists(path) and not os.path.isfile(path):
            raise ValueError(f"{path}: expected a shard. Received: no regular file")
        if not folder.contains(path):
            raise ValueError(f"{path}: is a link that leaves the folder")
        shards.append(path)
    return shards


def arranged(
    names: Iterable[str], root: str, split: str, plan_of: Callable[[str], Plan | None]
) -> list[str]:
    """The names of the shards of a split, or of all splits if it is empty, in order.

    Args:
        names: the names of the files in the folder, sorted.
        root: the folder, for messages.
        split: the split; empty for all.
        plan_of: gives the plan in a file; None if there is no such file.

    Raises:
        ValueError: a shard is missing or there is none, or two files are the same shard.
    """
    names = list(names)
    found: dict[str, dict[tuple[int, int], str]] = {}  # by split; by index and count
    for name in names:
        if name.endswith(PLAN_SUFFIX):
            found.setdefault(name.removesuffix(PLAN_SUFFIX), {})
        elif match := SHARD_NAME.fullmatch(name) or WHOLE_NAME.fullmatch(name):
            key = int(match.groupdict().get("index", 0)), int(match.groupdict().get("count", 1))
            other = found.setdefault(match["split"], {}).setdefault(key, name)
            if other != name:
                raise ValueError(f"{root}/{name}: expected one of this and {other}, not both")
    there, shards = set(names), []
    for each in found if not split else {split} & found.keys():
        parts, plan = found[each], plan_of(f"{each}{PLAN_SUFFIX}")
        counts = {count for _, count in parts} if plan is None else {len(plan.photos)}
        if len(counts) != 1:
            expected = f"shards {each}-00000-of-N.tfrecord of one N"
            raise ValueError(f"{root}: expected {expected}, found N of {sorted(counts)}")
        (count,) = counts
        for index in range(count):
            name = parts.get((index, count), _shard_name(each, index, count))
            if name not in there:
                raise ValueError(
                    f"{root}/{name}: no such file, one of {count} shards. If "
                    "`unitbox convert` was interrupted, run the same command again: it goes on"
                )
            shards.append(name)
    if not shards:
        name = f"{split or 'NAME'}-00000-of-00001.tfrecord"
        known = checks.known_splits(split, sorted(found))
        raise ValueError(f"{root}: expected shards as {name}, found none. {known}")
    return shards


def planned(name: str, plan_of: Callable[[str], Plan | None]) -> int | None:
    """The number of records that a shard should have; None if no plan says it. `plan_of` is as for `arranged`."""
    match = SHARD_NAME.fullmatch(name)
    plan = plan_of(f"{match['split']}{PLAN_SUFFIX}") if match else None
    if match is None or plan is None:
        return None
    index, count = int(match["index"]), int(match["count"])
    return plan.photos[index] if index < count == len(plan.photos) else None


def _planned(path: Path) -> int | None:
    return planned(path.name, lambda plan: Plan.read(path.parent / plan))


def _records(path: Path) -> Iterator[tuple[int, int, bytes]]:
    """The records of a shard: number (from 1), begin of the data in the file, data. One is in memory at a time.

    Raises `ValueError` where the file is cut off or damaged.
    """
    with files.open_regular(path) as headers, files.open_regular(path) as file:
        for number, (offset, length) in enumerate(_lengths(path, headers), 1):
            header, record, footer = file.read(HEADER), file.read(length), file.read(FOOTER)
            if len(record) + len(footer) != length + FOOTER:
                raise ValueError(f"{path}: record {number}: the file changes while it is read")
            if header[8:] != _checksum(header[:8]) or footer != _checksum(record):
                raise ValueError(
                    f"{path}: record {number}, at byte {offset - HEADER}: {DAMAGED}; {AGAIN}"
                )
            yield number, offset, record


def records_in(file: Any, size: int, path: str) -> Iterator[tuple[int, bytes]]:
    """Number, from 1, and data of each record in a file that is read once, from its begin to its end.

    Args:
        file: has a method `read`.
        size: the length of the file in bytes.
        path: the file, for messages.

    Raises:
        ValueError: the file is cut off or damaged.
    """
    at, number = 0, 0
    while at < size:
        number += 1
        where = f"{path}: record {number}, at byte {at}"
        header = file.read(HEADER)
        length = int.from_bytes(header[:8], "little")
        if len(header) < HEADER or at + HEADER + length + FOOTER > size or length > LARGEST_RECORD:
            raise ValueError(f"{where}: {CUT_OFF}: the file ends at byte {size}; {AGAIN}")
        body = file.read(length + FOOTER)
        if len(body) < length + FOOTER:
            raise ValueError(f"{path}: record {number}: the file changes while it is read")
        record = body[:length]
        if header[8:] != _checksum(header[:8]) or body[length:] != _checksum(record):
            raise ValueError(f"{where}: {DAMAGED}; {AGAIN}")
        yield number, record
        at += HEADER + length + FOOTER


def _checksum(*parts: bytes) -> bytes:
    """The CRC-32C of these bytes together, in the form that records have: turned and shifted, 4 bytes."""
    crc = functools.reduce(google_crc32c.extend, parts, 0)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def _lengths(path: Path, file: BinaryIO) -> Iterator[tuple[int, int]]:
    """Begin and length, in bytes, of the data of each record, from the headers alone.

    Raises `ValueError` where the file ends within a record.
    """
    size, offset, number = os.fstat(file.fileno()).st_size, HEADER, 0
    while offset - HEADER < size:
        number += 1
        file.seek(offset - HEADER)
        length = int.from_bytes(file.read(8), "little")
        if offset + length + FOOTER > size or length > LARGEST_RECORD:
            raise ValueError(
                f"{path}: record {number}, at byte {offset - HEADER}: {CUT_OFF}: the file ends at byte {size}; "
                f"{AGAIN}"
            )
        yield offset, length
        offset += length + FOOTER + HEADER


def _facts(record: bytes, part: Part | None) -> dict[str, Any]:
    """The fields of the annotation in a record, whose data begin at `part`. Its image is in memory if that is None.

    Raises one of `MALFORMED` if there is none.
    """
    spans = {}
    for name, begin, end in _features(record):
        spans[name] = begin, end
        if OWN in spans and PHOTO in spans:  # as `write` has them, first
            break
    else:
        if PHOTO not in spans:
            raise ValueError(f"received no feature {PHOTO!r}, but {sorted(spans)[:20]}")
    begin, end = _only_bytes(record, *spans[PHOTO])
    photo = record[begin:end] if part is None else Part(part.path, part.offset + begin, end - begin)
    if OWN not in spans:
        return _usual(record, spans, photo)
    begin, end = _only_bytes(record, *spans[OWN])
    checks.check_count((end - begin) // SMALLEST_OBJECT, "received")
    at = begin + 4 + int.from_bytes(record[begin : begin + 4], "little")
    facts = json.loads(record[begin + 4 : at])
    arrays: dict[str, Any] = {}
    attributes = {}
    for name, count in facts["arrays"]:
        is_attribute = name.startswith(ATTRIBUTE)
        values = np.frombuffer(record, "<i4" if is_attribute else EXACT[name], count, at).copy()
        at += values.nbytes
        if is_attribute:
            attributes[name.removeprefix(ATTRIBUTE)] = values
        else:
            arrays[name] = values
    if at != end:
        raise ValueError(f"received arrays of {at - end:+} bytes")
    size = _size(facts["size"]) if facts["size"] else None
    name = facts["name"].encode().decode()  # half characters are no text
    return {"name": name, "image": photo, "size": size, "attributes": attributes or None, **arrays}


def _size(sides: Sequence[Any]) -> tuple[int, int]:
    """Height and width in a record. Raises `ValueError` if they are those of no image."""
    height, width = map(operator.index, sides)
    if not (0 < min(height, width) and max(height, width) <= outlines.LARGEST_SIDE):
        raise ValueError(f"expected a height and width above 0, received {width} x {height}")
    return height, width


def _usual(
    record: bytes, spans: Mapping[str, tuple[int, int]], photo: Part | bytes
) -> dict[str, Any]:
    """The fields from the Object Detection API's features alone: classes count from 1, boxes are shares."""

    def values(name: str) -> Sequence[Any]:
        begin, end = spans.get(name, (0, 0))
        if end - begin > LARGEST_FEATURE:
            raise ValueError(
                f"expected at most {LARGEST_FEATURE:,} bytes in the feature {name!r}, received {end - begin:,}"
            )
        return _values(record[begin:end])

    for name in ("image/filename", "image/height", "image/width"):
        if len(values(name)) != 1:
            raise ValueError(f"received {len(values(name))} values of {name!r}")
    size = _size([values(f"image/{side}")[0] for side in ("height", "width")])
    corners = [values(f"image/object/bbox/{side}") for side in CORNERS]
    shares = np.array(corners, np.float64).T.reshape(-1, 4)
    # Numbers of pixels are no shares: they must not become boxes far outside.
    shares = np.where(np.abs(shares) <= LARGEST_SHARE, shares, np.nan)
    shares = np.sort(shares.reshape(-1, 2, 2), axis=1).reshape(-1, 4)  # corners that were swapped
    boxes = shares * (size[::-1] * 2)
    numbers = map(operator.index, values("image/object/class/label"))  # floats are refused
    labels = np.array(list(numbers), np.int64) - 1
    ignore = np.zeros(len(boxes), np.bool_)
    for flag in ("image/object/is_crowd", "image/object/difficult"):
        marks = np.array(list(map(operator.index, values(flag))), np.int64)
        if len(marks) not in (0, len(boxes)):
            raise ValueError(f"received {len(marks)} values of {flag!r} for {len(boxes)} boxes")
        if len(marks):
            ignore |= marks != 0
    name = values("image/filename")[0].decode()
    classes = labels.clip(-1, LARGEST_CLASS)
    facts = {"boxes": boxes, "classes": classes, "ignore": ignore}
    return {"name": name, "image": photo, "size": size, **facts}


def _values(feature: bytes) -> Sequence[Any]:
    """The values of a serialized Feature."""
    import tensorflow as tf
    from google.protobuf.message import DecodeError

    try:
        message = tf.train.Feature.FromString(feature)
    except DecodeError as error:
        raise ValueError(str(error)) from error
    kind = message.WhichOneof("kind")
    return getattr(message, kind).value if kind else ()


# This module reads and writes the bytes of a `tf.train.Example` itself, so that images are not copied
# on the way: Example { features = 1 { entries of a map = 1 { name = 1, Feature = 2 } } }, and a Feature
# has a list of bytes = 1, of floats = 2 or of integers = 3, each { values = 1 }.
# Source: protobuf.dev, Encoding; tensorflow/core/example/{example,feature}.proto.


def _features(record: bytes) -> Iterator[tuple[str, int, int]]:
    """Name, begin and end of each feature of an Example. Raises `ValueError` if the record is no Example."""
    for _, first, last in _fields(record, 0, len(record), 1):
        for _, begin, end in _fields(record, first, last, 1):
            parts = {number: (a, b) for number, a, b in _fields(record, begin, end)}
            if 1 not in parts or 2 not in parts:
                raise ValueError("received a feature without name or value")
            yield record[slice(*parts[1])].decode(), *parts[2]


def _only_bytes(record: bytes, begin: int, end: int) -> tuple[int, int]:
    """Begin and end of the one value in a Feature of bytes."""
    values = [
        (a, b)
        for _, first, last in _fields(record, begin, end, 1)
        for _, a, b in _fields(record, first, last, 1)
    ]
    if len(values) != 1:
        raise ValueError(f"received {len(values)} values of a feature that has one")
    return values[0]


def _fields(
    data: bytes, at: int, end: int, only: int | None = None
) -> Iterator[tuple[int, int, int]]:
    """Number, begin and end of each field in a message. All fields must have a length."""
    while at < end:
        key, at = _varint(data, at)
        length, at = _varint(data, at)
        if key & 7 != 2 or at + length > end:
            raise ValueError("received no tf.train.Example")
        if only is None or key >> 3 == only:
            yield key >> 3, at, at + length
        at += length


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """The number of variable length that begins at `at`, and its end."""
    value = 0
    for shift in range(0, 64, 7):
        if at >= len(data):
            break
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise ValueError("received no tf.train.Example")


def _key(number: int, length: int) -> bytes:
    """The bytes before a field of this length."""
    encoded = bytearray([number << 3 | 2])
    while length > 127:
        encoded.append(length & 127 | 128)
        length >>= 7
    encoded.append(length)
    return bytes(encoded)


def _before_bytes(name: str, length: int) -> bytes:
    """The bytes before the only value, of this length, in the entry of a feature."""
    value = _key(1, length)
    value = _key(1, len(value) + length) + value
    key = name.encode()
    value = _key(1, len(key)) + key + _key(2, len(value) + length) + value
    return _key(1, len(value) + length) + value


# Writing


class Plan(NamedTuple):
    """The plan for the shards of a split. It is written first, so that later runs can go on.

    Attributes:
        digest: checksum of all annotations and of the lengths of their images.
        photos: the number of images in each shard.
    """

    digest: str
    photos: list[int]

    @staticmethod
    def read(path: Path) -> Plan | None:
        """The plan in a file; None if there is no such file. Raises `ValueError` if it is no plan."""
        if not os.path.lexists(path):
            return None
        return Plan.parse(files.read(path, limits.MAX_SETTINGS_BYTES), str(path))

    @staticmethod
    def parse(encoded: bytes, path: str) -> Plan:
        """The plan in the bytes of the file `path`. Raises `ValueError` if it is no plan."""
        try:
            content = json.loads(encoded)
            version, digest, photos = (content[key] for key in ("version", "digest", "photos"))
            if not all(type(count) is int and count >= 0 for count in [version, *photos]):
                raise ValueError(f"received {version!r:.50} and {photos!r:.50}")
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise ValueError(
                f"{path}: expected version, digest and images: {error!r:.300}"
            ) from error
        if version != VERSION:
            raise ValueError(f"{path}: expected shards of version {VERSION}, received {version}")
        return Plan(digest, photos)

    def write(self, path: Path) -> None:
        """Writes it as a whole or not at all."""
        text = json.dumps({"version": VERSION, **self._asdict()}) + "\n"
        with _complete(path) as partial:
            partial.write_text(text, encoding="utf-8")


def write(
    annotations: Iterable[Annotation],
    root: Path,
    split: str,
    class_names: Sequence[str],
    *,
    photos: writing.PhotosAs = "copy",
    problems: Problems | None = None,
) -> writing.Written:
    """Writes `annotations` into shards `split-00000-of-N.tfrecord` (`photos-...` if empty) of about `SHARD_BYTES`.

    Unlike the other formats, shards may be written in several runs. A shard appears when it is
    complete, and a later run keeps the shards that are there. `root` may have other splits of the same
    classes. Annotations are read twice; an iterator is made into a list.

    Raises:
        ValueError: `root` has other files, or shards of other annotations or classes; images are not
            to be copied; or an image changes while it is written.
        OSError: an image or shard cannot be read or written.
    """
    problems = Problems.of(problems)
    stem = writing.usable_split(split or "photos")
    if photos != "copy":
        raise ValueError(
            "Expected images to be copied, as shards hold them: neither --link nor --no-photos. "
            f"Received: photos={photos!r}"
        )
    writing.check_class_names(class_names)
    if isinstance(annotations, Iterator):
        annotations = list(annotations)
    out = writing.Destination(root, root, class_names, frozenset(), photos, problems=problems)
    lengths, plan = _make_plan(annotations, out, problems)
    _claim(root, stem, plan, out)
    kept = (
        (annotation, length)
        for annotation, length in zip(annotations, lengths, strict=True)
        if length is not None
    )
    finished = 0
    for index, count in enumerate(plan.photos):
        path = root / _shard_name(stem, index, len(plan.photos))
        some = itertools.islice(kept, count)
        if _is_whole(path, count):
            finished += 1
            for _ in some:
                pass
        else:
            _write_shard(path, some, out.class_names)
    if finished:
        logger.info("%d of %d shards were there already and are kept", finished, len(plan.photos))
    next(kept, None)  # only images that are left out remain
    return out.written


def write_once(
    annotations: Iterable[Annotation],
    root: Path,
    split: str,
    class_names: Sequence[str],
    *,
    shard_bytes: int | None = None,
    problems: Problems | None = None,
) -> writing.Written:
    """Writes shards as `write` does, but reads each annotation once and keeps none: memory does not grow.

    The folder appears at the end, as a whole. An interrupted run begins anew. Two images of one name are both written.

    Args:
        annotations: the images, such as a generator gives them one after another.
        root: a new or empty folder.
        split: the split; empty for `photos`.
        class_names: the names of the classes.
        shard_bytes: the bytes of images after which a shard ends; None: `SHARD_BYTES`.
        problems: images that cannot be written are added here.

    Raises:
        ValueError: `root` has files, or an object has a class without a name.
        OSError: an image cannot be read, or a shard cannot be written.
    """
    problems = Problems.of(problems)
    stem = writing.usable_split(split or "photos")
    writing.check_class_names(class_names)
    if os.path.lexists(root) and (not root.is_dir() or any(root.iterdir())):
        raise ValueError(f"{root}: expected a new or empty folder, as nothing is overwritten")
    shard_bytes = shard_bytes or SHARD_BYTES
    out = writing.Destination(root, root, class_names, frozenset(), "copy", problems=problems)
    digest = hashlib.sha256(repr(out.class_names).encode())
    photos: list[int] = []
    filled = 0
    with _complete(root) as folder, contextlib.ExitStack() as opened:
        folder.mkdir()
        for annotation in annotations:
            out.check_classes(annotation)
            fault = checks.fault_of_name(annotation.name)
            if fault:
                problems.add(fault[0], annotation.where, fault[1])
                continue
            length = _length(annotation.image)
            if not photos or filled + length > shard_bytes:
                opened.close()
                file = opened.enter_context((folder / str(len(photos))).open("xb"))
                photos.append(0)
                filled = 0
            _write_record(file, annotation, length, out.class_names)
            out.count(annotation)
            photos[-1] += 1
            filled += length
            own = _own(annotation)
            digest.update(struct.pack("<QQ", length, len(own)) + own)
        opened.close()
        for index in range(len(photos)):
            (folder / str(index)).rename(folder / _shard_name(stem, index, len(photos)))
        Plan(digest.hexdigest(), photos).write(folder / f"{stem}{PLAN_SUFFIX}")
        names = "".join(f"{name}\n" for name in out.class_names)
        (folder / checks.LABEL_FILES[0]).write_text(names, encoding="utf-8")
    return out.written


def _make_plan(
    annotations: Iterable[Annotation], out: writing.Destination, problems: Problems
) -> tuple[list[int | None], Plan]:
    """The length of each image in bytes, and the plan. A length is None for an image that is left out and reported."""
    digest = hashlib.sha256(repr(out.class_names).encode())
    lengths: list[int | None] = []
    photos, filled = [0], 0
    for annotation in annotations:
        out.check_classes(annotation)
        lengths.append(None)
        if out.new_name(annotation) is None:
            continue
        try:
            length = _length(annotation.image)
        except FileNotFoundError:
            problems.add(checks.ABSENT, annotation.where, "no such file")
            continue
        out.count(annotation)
        lengths[-1] = length
        if photos[-1] and filled + length > SHARD_BYTES:
            photos.append(0)
            filled = 0
        photos[-1] += 1
        filled += length
        own = _own(annotation)
        digest.update(struct.pack("<QQ", length, len(own)) + own)
    return lengths, Plan(digest.hexdigest(), photos)


def _claim(root: Path, stem: str, plan: Plan, out: writing.Destination) -> None:
    """Prepares `root` for these shards, and deletes the partial files of an interrupted run.

    Raises `ValueError` if it has anything else.
    """
    path = root / f"{stem}{PLAN_SUFFIX}"
    listed = _whole_files(root) if root.is_dir() else []
    there = [path for path in listed if path.name.endswith(PLAN_SUFFIX)]
    if root.exists() and not there and (listed or not root.is_dir()):
        raise ValueError(
            f"{root}: expected a new or empty folder, or one of shards, as nothing is overwritten"
        )
    if path in there:
        if Plan.read(path) != plan:
            raise ValueError(
                f"{path}: shards of other images, boxes or classes have been begun here: expected the "
                "same, to go on; write to another folder, or delete this one"
            )
    elif any(SHARD_NAME.fullmatch(p.name) and p.name.startswith(f"{stem}-") for p in listed):
        raise ValueError(f"{root}: has shards of {stem!r} of which {path.name} says nothing")
    names = checks.listed_class_names(root) if there else None
    if names not in (None, out.class_names):
        raise ValueError(f"{root}: has shards of the classes {names}, received {out.class_names}")
    root.mkdir(parents=True, exist_ok=True)
    if path not in there:
        plan.write(path)
    if names is None:
        with _complete(root / checks.LABEL_FILES[0]) as partial:
            partial.write_text("".join(f"{name}\n" for name in out.class_names), encoding="utf-8")
    for partial in root.iterdir():
        match = SHARD_NAME.fullmatch(files.whole_name(partial) or "")
        if match and match["split"] == stem:  # another split may be written at this moment
            partial.unlink()


def _whole_files(folder: Path) -> list[Path]:
    """The files in `folder`, sorted, without those that an interrupted run leaves."""
    return [path for path in sorted(folder.iterdir()) if is_whole(path.name)]


def is_whole(name: str) -> bool:
    """False for the name of a file that an interrupted run leaves."""
    return files.whole_name(Path(name)) is None


@contextlib.contextmanager
def _complete(path: Path) -> Iterator[Path]:
    """`files.replacing`, with errors that name the file."""
    try:
        with files.replacing(path) as partial:
            yield partial
    except OSError as error:
        if error.filename is None:  # no space left, say
            raise OSError(f"{path}: {error.strerror}") from error
        if files.whole_name(Path(error.filename)) == path.name:
            raise OSError(
                f"{path}: {error.strerror}; expected that nothing else writes to the folder"
            ) from error
        raise


def _shard_name(stem: str, index: int, count: int) -> str:
    return f"{stem}-{index:05}-of-{count:05}.tfrecord"


def _is_whole(path: Path, count: int) -> bool:
    """True if the shard has that many records, by their headers. A power cut after renaming may have damaged it."""
    if not path.is_file():
        return False
    with files.open_regular(path) as file:
        try:
            return sum(1 for _ in _lengths(path, file)) == count
        except ValueError:
            return False


def _write_shard(
    path: Path, annotations: Iterable[tuple[Annotation, int]], class_names: Sequence[str]
) -> None:
    """Writes annotations, each with the length of its image."""
    with _complete(path) as partial, partial.open("xb") as file:
        for annotation, length in annotations:
            _write_record(file, annotation, length, class_names)


def _write_record(
    file: BinaryIO, annotation: Annotation, length: int, class_names: Sequence[str]
) -> None:
    parts = _example(annotation, length, class_names)
    header = struct.pack("<Q", sum(map(len, parts)))
    file.writelines([header, _checksum(header), *parts, _checksum(*parts)])


def _length(image: Path | Part | bytes) -> int:
    if isinstance(image, Part):
        return image.length
    return len(image) if isinstance(image, bytes) else os.stat(image).st_size


def _own(annotation: Annotation) -> bytes:
    """An annotation to the last bit: the length of a json text as uint32, this json, and the arrays that it lists."""
    arrays = {name: (getattr(annotation, name), dtype) for name, dtype in EXACT.items()}
    for name, values in (annotation.attributes or {}).items():
        arrays[ATTRIBUTE + name] = values, "<i4"
    listed, content = [], []
    for name, (values, dtype) in arrays.items():
        if values is not None:
            listed.append((name, values.size))
            content.append(values.astype(dtype).tobytes())
    size = annotation.size and [int(side) for side in annotation.size]
    facts = json.dumps({"name": annotation.name, "size": size, "arrays": listed}).encode()
    return b"".join([struct.pack("<I", len(facts)), facts, *content])


def _example(annotation: Annotation, length: int, class_names: Sequence[str]) -> list[bytes]:
    """A serialized Example of the annotation and its image, in parts, one of which is the image.

    Raises `ValueError` if the image has another length than `length`.
    """
    photo = annotation.encoded()
    if len(photo) != length:
        raise ValueError(
            f"{annotation.where}: expected {length} bytes, received {len(photo)}: the image has changed "
            "while shards were written"
        )
    own = _own(annotation)
    before = _before_bytes(OWN, len(own)) + own + _before_bytes(PHOTO, length)
    after = _usual_features(annotation, photo, class_names)
    return [_key(1, len(before) + length + len(after)) + before, photo, after]


def _usual_features(annotation: Annotation, photo: bytes, class_names: Sequence[str]) -> bytes:
    """The serialized features of the Object Detection API, without the image."""
    import tensorflow as tf

    filename = writing.file_name(annotation).encode()
    labels = annotation.classes.tolist()
    message = tf.train.Features()
    usual = message.feature
    usual["image/filename"].bytes_list.value.append(filename)
    usual["image/source_id"].bytes_list.value.append(filename)
    form = (image_formats.kind_of(photo) or "JPEG").lower().encode()
    usual["image/format"].bytes_list.value.append(form)
    usual["image/object/class/label"].int64_list.value.extend([label + 1 for label in labels])
    texts = [class_names[label].encode() for label in labels]
    usual["image/object/class/text"].bytes_list.value.extend(texts)
    usual["image/object/is_crowd"].int64_list.value.extend(annotation.ignore.astype(int).tolist())
    size = _displayed_size(annotation, photo)
    if size is not None:
        usual["image/height"].int64_list.value.append(size[0])
        usual["image/width"].int64_list.value.append(size[1])
        shares = annotation.boxes / (size[::-1] * 2)
        for name, values in zip(CORNERS, shares.T.tolist(), strict=True):
            usual[f"image/object/bbox/{name}"].float_list.value.extend(values)
    return message.SerializeToString(deterministic=True)


def _displayed_size(annotation: Annotation, photo: bytes) -> tuple[int, int] | None:
    """Height and width as stated; if they are not, as in the image's header; None if it cannot be read."""
    if annotation.size is not None and max(annotation.size) < 1 << 31:
        return annotation.size
    try:
        return images.photo_size(photo)
    except ValueError:
        return None


FORMAT = Format(Shards, write)
