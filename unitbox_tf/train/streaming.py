"""Shards of TFRecords that are read while training, from any file system that TensorFlow opens; no index is kept.

    shards ─ several at a time ─ records ─ a buffer that mixes them ─ groups ─ Python: objects, header ─ graph: decode

The order is a function of seed and place: the order of the shards in each pass, the turns in which several of them are
read, and the mixing in the buffer. So training goes on at any image; the records before are read, but not decoded.

Memory holds the names of the shards, the buffer of records, still encoded, and some records of each open shard.

Python takes records apart, 16 in a call, with the code that reads shards for all other purposes, so that objects,
problems and errors are the same. `tf.io.parse_single_example` cannot say what is wrong with a record, and does not know
the exact boxes of `unitbox/annotation`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import logging
import os
import posixpath
import re
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from unitbox_tf import images as image_ops
from unitbox_tf import limits
from unitbox_tf.datasets import checks, sizes, tfrecord
from unitbox_tf.datasets import classes as by_name
from unitbox_tf.datasets import source as source_files
from unitbox_tf.datasets.source import Source
from unitbox_tf.limits import MAX_PIXELS
from unitbox_tf.problems import Problems
from unitbox_tf.records import Annotation
from unitbox_tf.train import decoding, order, reading

logger = logging.getLogger(__name__)

FORMAT = "tfrecord"
PARALLEL = 8  # shards that are read at the same time
CHUNK = 16  # records of a shard that are read at once
CHUNK_BYTES = 1 << 20  # after which a chunk ends
BUFFER = 1024  # records whose order is mixed


@dataclasses.dataclass(frozen=True)
class Streamed:
    """A source whose shards are read while training.

    Attributes:
        text: the source as it was written.
        paths: the shards, in order, as TensorFlow opens them.
        planned: the number of records of each shard; None if no plan says it.
        own_names: the names of the classes in `labels.txt`; None without it.
        names: the same after renaming.
    """

    text: str
    paths: tuple[str, ...]
    planned: tuple[int | None, ...]
    own_names: tuple[str, ...] | None
    names: tuple[str, ...] | None

    @property
    def num_classes(self) -> int:
        """The number of classes that an object may have."""
        return len(self.names) if self.names else tfrecord.LARGEST_CLASS + 1


def is_streamed(item: str | Source, stream: bool) -> bool:
    """True if a source streams: it has a URL, or it has shards and `stream` is set."""
    if isinstance(item, Source):
        return stream and item.format == FORMAT
    name, _, path = item.partition(":")
    return name == FORMAT and (stream or source_files.is_url(path))


def opened(
    item: str | Source, data: str | Path = ".", *, rename: by_name.Rename | None = None
) -> Streamed:
    """Lists the shards of a source of the format `tfrecord`. No shard is opened.

    Args:
        item: the text `tfrecord:PATH#SPLIT`, whose path may be a URL; or an opened source.
        data: the folder that relative paths start from.
        rename: new names of classes.

    Raises:
        ValueError: the folder has no shards of the split, or not all of them.
        OSError: the folder cannot be listed, as if no plug-in knows the scheme of the URL.
    """
    if isinstance(item, Source):
        text, root, split = item.text, str(item.root), item.split
        new_names = dict(item.rename)
    else:
        text = item
        _, path, split = source_files.parts(item, "source", [FORMAT])
        root = path if source_files.is_url(path) else os.path.join(data, path)
        new_names = by_name.renames(rename)
    try:
        folder, names = _listed(root)
        plan_of = functools.cache(functools.partial(_plan, folder, frozenset(_names(folder))))
        chosen = tfrecord.arranged(names, folder, split, plan_of) if folder == root else names
        planned = tuple(tfrecord.planned(name, plan_of) for name in chosen)
        own = _class_names(folder)
    except tf.errors.OpError as error:
        raise OSError(f"{root}, of the source {text!r}: {_reason(error)}") from error
    renamed = None if own is None else tuple(new_names.get(name, name) for name in own)
    return Streamed(text, tuple(_join(folder, name) for name in chosen), planned, own, renamed)


def _listed(root: str) -> tuple[str, list[str]]:
    """The folder, and the names of the files in it; of a shard itself, its folder and its name.

    Raises:
        ValueError: there is neither.
        tf.errors.OpError: no file system has it.
    """
    if tf.io.gfile.isdir(root):
        return root, _names(root)
    if tf.io.gfile.exists(root):
        folder, name = posixpath.split(root)
        return folder, [name]
    raise ValueError(f"{root}: no such folder, and no TFRecord file")


def _names(folder: str) -> list[str]:
    names = (name.rstrip("/") for name in tf.io.gfile.listdir(folder))
    return sorted(name for name in names if tfrecord.is_whole(name))


def _join(folder: str, name: str) -> str:
    return posixpath.join(folder, name)


def _plan(folder: str, names: frozenset[str], name: str) -> tfrecord.Plan | None:
    path = _join(folder, name)
    return tfrecord.Plan.parse(_read_small(path), path) if name in names else None


def _class_names(folder: str) -> tuple[str, ...] | None:
    names = set(_names(folder))
    for name in checks.LABEL_FILES:
        if name in names:
            content = _read_small(_join(folder, name))
            with tempfile.TemporaryDirectory() as copy:
                path = Path(copy) / name
                path.write_bytes(content)
                try:
                    return checks.listed_class_names(Path(copy))
                except ValueError as error:
                    raise ValueError(str(error).replace(copy, folder)) from error
    return None


def _read_small(path: str) -> bytes:
    """The bytes of a file that describes shards. Raises `limits.TooLarge`."""
    size = tf.io.gfile.stat(path).length
    if size > limits.MAX_SETTINGS_BYTES:
        raise limits.TooLarge(
            f"{path}: expected a file of at most {limits.MAX_SETTINGS_BYTES:,} bytes. Received: {size:,} bytes"
        )
    with tf.io.gfile.GFile(path, "rb") as file:
        content: bytes = file.read()
    return content


def _reason(error: tf.errors.OpError) -> str:
    """The message of an error of a file system, without the names of nodes of a graph."""
    return re.sub(r"\{\{.*?\}\} ", "", error.message or str(error))


def records(path: str, expected: int | None = None) -> Iterator[tuple[int, bytes]]:
    """Number, from 1, and data of each record of a shard. One is in memory at a time, and both checksums are verified.

    Raises:
        ValueError: the shard is damaged or cut off, or has another number of records than `expected`.
        OSError: it cannot be opened or read.
    """
    number = 0
    try:
        size = tf.io.gfile.stat(path).length
        with tf.io.gfile.GFile(path, "rb") as file:
            for number, record in tfrecord.records_in(file, size, path):
                yield number, record
    except tf.errors.OpError as error:
        raise OSError(f"{path}: after record {number}: {_reason(error)}") from error
    tfrecord.check_planned(path, number, expected)


class Stream:
    """The shards of sources as training images.

    Attributes:
        sources: the sources.
        failure: the first error that reading has raised, before TensorFlow has made another one of it; None without
            one.
    """

    def __init__(
        self,
        sources: Sequence[Streamed],
        class_names: Sequence[str],
        *,
        classes: Sequence[str] | None = None,
        counted: Sequence[str] | None = None,
        buffer: int = BUFFER,
    ) -> None:
        """Reads nothing yet.

        Args:
            sources: the sources.
            class_names: the class names of the model.
            classes: only objects of these classes are kept; None keeps all.
            counted: the names that sources without names count; None: `class_names`.
            buffer: the number of records in memory whose order is mixed.

        Raises:
            ValueError: a shard is there twice.
        """
        self.sources = tuple(sources)
        self.failure: Exception | None = None
        self._class_names = tuple(class_names)
        self._classes = None if classes is None else tuple(classes)
        self._counted = tuple(class_names if counted is None else counted)
        self._buffer = buffer
        self._shards = [path for source in sources for path in source.paths]
        if len(set(self._shards)) < len(self._shards):
            twice = next(path for path in self._shards if self._shards.count(path) > 1)
            raise ValueError(f"{twice}: expected each shard once, received it in two sources")
        self._source_of = [source for source in sources for _ in source.paths]
        self._counts = [count for source in sources for count in source.planned]
        self._expected = list(self._counts)
        self._tables = {source.text: self._table(source) for source in sources}

    def __len__(self) -> int:
        """The number of shards."""
        return len(self._shards)

    def count(self, index: int = 0, count: int = 1) -> int | None:
        """The number of records for the worker `index` of `count`; None as long as it is not known."""
        counts = [self._counts[shard] for shard in range(index, len(self), count)]
        return None if None in counts else sum(each for each in counts if each is not None)

    def annotations(
        self, most: int, *, max_pixels: int = MAX_PIXELS, problems: Problems | None = None
    ) -> list[Annotation]:
        """The first images with their objects, in memory, in the order of the shards: `most`, from all sources.

        Images are not decoded.

        Raises:
            ValueError: a record or an object cannot be used; see `images`.
        """
        problems = Problems.of(problems)
        found: list[Annotation] = []
        first = 0
        for place, source in enumerate(self.sources):
            wanted = (most * (place + 1)) // len(self.sources) - (most * place) // len(self.sources)
            of_source = self._from(range(first, first + len(source.paths)), max_pixels, problems)
            found += itertools.islice(of_source, wanted)
            first += len(source.paths)
        return found

    def _from(
        self, shards: Iterable[int], max_pixels: int, problems: Problems
    ) -> Iterator[Annotation]:
        for shard in shards:
            for number, record in records(self._shards[shard], self._expected[shard]):
                annotation = self._annotation(shard, number, record, problems)
                if annotation is not None:
                    size = _displayed_size(annotation.image)
                    annotation = self._checked(shard, annotation, size, problems)
                if annotation is not None:
                    yield annotation

    def images(
        self,
        seed: int,
        start: int = 0,
        *,
        known: reading.Elements | None = None,
        index: int = 0,
        count: int = 1,
        max_pixels: int = MAX_PIXELS,
        problems: Problems | None = None,
    ) -> tf.data.Dataset:
        """Images without end, uint8 `[H, W, 3]`, with their objects, in an order that depends on `seed` alone.

        An image that cannot be used is reported, and another one of the 16 beside it takes its place: one that cannot
        be decoded, whose objects cannot be read, or whose stated size is that of another image. If all 16 cannot be
        used, it is one black pixel. A shard that is damaged, a record that is no image with boxes, and an object of an
        unknown class raise `tf.errors.OpError` where they are read; the message names the shard and the record.
        `named_errors` makes an error of one line of it.

        Args:
            seed: the seed of the order.
            start: the number of images that were shown before. They are read, but not decoded. Whole passes are not
                read again.
            known: learns the number of records in a pass.
            index: the number of this worker, which reads each `count`-th shard.
            count: the number of workers.
            max_pixels: larger images are refused like images that cannot be decoded.
            problems: what cannot be used is added here.

        Raises:
            ValueError: there are fewer shards than workers, or `index` is none of them.
        """
        if not 0 <= index < count <= len(self):
            raise ValueError(
                f"expected a shard for each worker, and a worker below {count}. Received: {len(self)} shards, worker "
                f"{index}"
            )
        known = reading.Elements() if known is None else known
        shards = list(range(index, len(self), count))
        total = self._total(shards, start, known)
        passes, used = divmod(start, total) if total else (0, start)
        reader = _Reader(self, max_pixels, Problems.of(problems))
        groups = self._groups(shards, seed, passes, known).skip(used // decoding.GROUP)
        look_up = decoding.as_it_is(lambda *given: decoding.group_of(reader.look_up, given))
        found = decoding.from_groups(
            groups.map(look_up, tf.data.AUTOTUNE), used % decoding.GROUP, reader.load
        )
        return found.apply(tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY))

    def _total(self, shards: Sequence[int], start: int, known: reading.Elements) -> int | None:
        """The number of records in a pass. If it is not known, and `start` may lie beyond a pass, they are counted."""
        counts = [self._counts[shard] for shard in shards]
        if None not in counts:
            return sum(count for count in counts if count is not None)
        if not start:
            return None
        if known.count is not None:
            return known.count
        seen = 0
        for shard in shards:
            for _ in records(self._shards[shard], self._expected[shard]):
                seen += 1
                if seen > start:
                    return None  # the start lies in the first pass
        return seen

    def _groups(
        self, shards: Sequence[int], seed: int, passes: int, known: reading.Elements
    ) -> tf.data.Dataset:
        """Groups of shards, numbers in their shards, and data of records, from the pass `passes` on."""
        signature = tuple(tf.TensorSpec([None], kind) for kind in (tf.int64, tf.int64, tf.string))

        def mixed(number: np.int64) -> tuple[np.ndarray, np.int64]:
            places, mixing = order.of_pass(len(shards), seed, int(number))
            return np.array(shards, np.int64)[places], np.int64(mixing)

        def chunks(shard: tf.Tensor) -> tf.data.Dataset:
            read = functools.partial(self._chunks, shards=shards, known=known)
            return tf.data.Dataset.from_generator(read, output_signature=signature, args=[shard])

        def one_pass(number: tf.Tensor) -> tf.data.Dataset:
            tf.random.set_seed(1)  # of this graph: the order must not depend on the global seed
            order_of_shards, mixing = tf.numpy_function(mixed, [number], [tf.int64, tf.int64])
            read = tf.data.Dataset.from_tensor_slices(tf.ensure_shape(order_of_shards, [None]))
            at_once = min(PARALLEL, len(shards))
            read = read.interleave(
                chunks, at_once, 1, num_parallel_calls=at_once, deterministic=True
            )
            read = read.unbatch().shuffle(
                self._buffer, seed=tf.ensure_shape(mixing, []), reshuffle_each_iteration=False
            )
            return read.batch(decoding.GROUP)

        return tf.data.Dataset.counter(passes).flat_map(decoding.as_it_is(one_pass))

    def _chunks(
        self, shard: np.int64, shards: Sequence[int], known: reading.Elements
    ) -> Iterator[tuple[np.ndarray, ...]]:
        """Chunks of records of a shard: the shard, numbers and data of each. At the end, their number is kept."""
        numbers: list[int] = []
        found: list[bytes] = []
        filled, number = 0, 0

        def chunk() -> tuple[np.ndarray, ...]:
            return np.full(len(found), shard), np.array(numbers, np.int64), np.array(found, object)

        with self.noting():
            for number, record in records(self._shards[shard], self._expected[shard]):
                numbers.append(number)
                found.append(record)
                filled += len(record)
                if len(found) == CHUNK or filled > CHUNK_BYTES:
                    yield chunk()
                    numbers, found, filled = [], [], 0
            if found:
                yield chunk()
            self._counts[shard] = number
            self._learn(shards, known)

    def _learn(self, shards: Sequence[int], known: reading.Elements) -> None:
        """Tells `known` the number of records in a pass, once each shard was read. Raises `ValueError` if it is 0."""
        counts = [count for count in map(self._counts.__getitem__, shards) if count is not None]
        if len(counts) < len(shards):
            return
        total, before = sum(counts), known.count
        if not total:
            raise ValueError(
                f"{self._shards[shards[0]]}: expected records in the shards, found none"
            )
        if before not in (None, total):
            logger.warning(
                "The shards had %s records and have %s: they come in another order than without the interruption",
                before,
                total,
            )
        known.count = total

    @contextlib.contextmanager
    def noting(self) -> Iterator[None]:
        """Keeps an error as `failure`."""
        try:
            yield
        except Exception as error:
            self.failure = self.failure or error
            raise

    def _annotation(
        self, shard: int, number: int, record: bytes, problems: Problems
    ) -> Annotation | None:
        """The annotation of a record, with the classes of the model; None, after a report, if it cannot be used."""
        source, path = self._source_of[shard], self._shards[shard]
        with self.noting():
            found = tfrecord.read_record(
                record, path, number, source.num_classes, problems=problems
            )
            return None if found is None else self._with_classes(source, found, path)

    def _checked(
        self, shard: int, annotation: Annotation, size: tuple[int, int] | None, problems: Problems
    ) -> Annotation | None:
        """The annotation, if its boxes are those of its image; see `sizes.check_size`."""
        boxes = annotation.boxes
        plain = annotation.size in (None, size) or size is None
        if plain and not (len(boxes) and np.abs(boxes).max() <= sizes.LARGEST_SHARE):
            return annotation
        placed = self.placed(shard, annotation)
        found = sizes.check_size(placed, size, problems=problems)
        return None if found is None else dataclasses.replace(found, name=annotation.name)

    def placed(self, shard: int, annotation: Annotation) -> Annotation:
        """The annotation, for messages: its name begins with its shard."""
        return dataclasses.replace(annotation, name=f"{self._shards[shard]}: {annotation.name}")

    def _table(self, source: Streamed) -> np.ndarray:
        """The class of the model for each class of a source; -1 if it is left out, -2 if the model has none."""
        index = {name: place for place, name in enumerate(self._class_names)}
        names = self._counted if source.names is None else source.names
        left_out = set() if self._classes is None else set(names) - set(self._classes)
        return np.array(
            [-1 if name in left_out else index.get(name, -2) for name in names], np.int32
        )

    def _with_classes(self, source: Streamed, annotation: Annotation, path: str) -> Annotation:
        """The annotation with the classes of the model. Raises `ValueError` if the model lacks one."""
        table, classes = self._tables[source.text], annotation.classes
        if not len(classes):
            return annotation
        labels = table[np.minimum(classes, len(table) - 1)]
        if (classes >= len(table)).any() or (labels < -1).any():
            names = self._counted if source.names is None else source.names
            named = by_name.Named(path, [annotation], names, source.names is None)
            by_name.mapped(named, self._class_names, self._classes, self._counted)  # raises
        kept = labels >= 0
        if kept.all():
            if np.array_equal(labels, classes):
                return annotation
            return dataclasses.replace(annotation, classes=labels)
        return dataclasses.replace(annotation.select(kept), classes=labels[kept])


@contextlib.contextmanager
def named_errors(examples: Any) -> Iterator[None]:
    """Raises errors of a `Stream` as they were, `ValueError` or `OSError`, and not as TensorFlow passes them on."""
    try:
        yield
    except tf.errors.OpError as error:
        failure = examples.failure if isinstance(examples, Stream) else None
        if failure is None:
            raise
        raise failure from error


class _Reader:
    """Takes records apart for the graph, which decodes their images."""

    def __init__(self, stream: Stream, max_pixels: int, problems: Problems) -> None:
        self._stream = stream
        self._max_pixels = max_pixels
        self._problems = problems

    def look_up(
        self, shards: np.ndarray, numbers: np.ndarray, records: np.ndarray
    ) -> decoding.Group:
        """The facts of a group. Objects of an image that the graph does not decode are left out: `load` reads it."""
        encoded, orientations, boxes, classes, ignore = [], [], [], [], []
        for shard, number, record in zip(shards, numbers, records, strict=True):
            annotation, orientation = self._facts(int(shard), int(number), record)
            here = annotation is not None and orientation != decoding.IN_PYTHON
            encoded.append(annotation.image if annotation is not None and here else b"")
            orientations.append(orientation if here else decoding.IN_PYTHON)
            if annotation is not None and here:
                boxes.append(annotation.boxes)
                classes.append(annotation.classes)
                ignore.append(annotation.ignore)
            else:
                boxes.append(np.zeros((0, 4)))
                classes.append(np.zeros(0, np.int32))
                ignore.append(np.zeros(0, np.bool_))
        joined = np.concatenate(boxes).astype(np.float32)
        return decoding.Group(
            index=numbers,
            encoded=np.array(encoded, object),
            path=np.array([b""] * len(encoded), object),
            orientation=np.array(orientations, np.int32),
            report=np.zeros(len(encoded), np.bool_),
            ends=np.cumsum([len(each) for each in boxes]),
            boxes=np.clip(joined, 0.0, np.float32(np.inf)),
            classes=np.concatenate(classes),
            ignore=np.concatenate(ignore),
        )

    def _facts(self, shard: int, number: int, record: bytes) -> tuple[Annotation | None, int]:
        """The annotation of a record, None if it is left out; and the orientation of its image for the graph."""
        annotation = self._stream._annotation(shard, number, record, self._problems)
        if annotation is None:
            return None, decoding.IN_PYTHON
        try:
            header = image_ops.graph_header(annotation.encoded(), self._max_pixels)
        except image_ops.UNREADABLE:  # which `load` reports
            return annotation, decoding.IN_PYTHON
        if header is None:
            return annotation, decoding.IN_PYTHON
        found = self._stream._checked(shard, annotation, header.size, self._problems)
        if found is not None and _leaves(found, header.size):
            reading.within(self._stream.placed(shard, found), *header.size, problems=self._problems)
        return found, header.orientation

    def load(
        self, number: tf.Tensor, shards: tf.Tensor, numbers: tf.Tensor, records: tf.Tensor
    ) -> tuple[Any, ...]:
        """The image `number` of a group with its objects; if it cannot be used, the next one that can."""
        count = len(shards)
        for place in range(int(number), int(number) + count):
            at = place % count
            found = self._read(int(shards[at]), int(numbers[at]), records[at].numpy())
            if found is not None:
                return found
        boxes, classes, ignore = np.zeros((0, 4)), np.zeros(0, np.int32), np.zeros(0, np.bool_)
        return tf.zeros([1, 1, 3], tf.uint8), boxes, classes, ignore

    def _read(self, shard: int, number: int, record: bytes) -> tuple[Any, ...] | None:
        annotation = self._stream._annotation(shard, number, record, self._problems)
        if annotation is None:
            return None
        try:
            image = image_ops.decode_photo(annotation.encoded(), self._max_pixels)
        except image_ops.UNREADABLE as error:
            placed = self._stream.placed(shard, annotation)
            self._problems.add(image_ops.UNDECODABLE, placed.where, str(error))
            return None
        size = (image.shape[0], image.shape[1])
        found = self._stream._checked(shard, annotation, size, self._problems)
        if found is None:
            return None
        placed = self._stream.placed(shard, found)
        cut = reading.within(placed, *size, problems=self._problems)
        return image, cut.boxes, cut.classes, cut.ignore


def _leaves(annotation: Annotation, size: tuple[int, int]) -> bool:
    """True if a box that is not ignored may lie outside an image of this height and width, or have no area there."""
    boxes, (height, width) = annotation.boxes[~annotation.ignore], size
    first = np.maximum(boxes[:, :2], 0)
    last = np.minimum(boxes[:, 2:], (width, height))
    return bool((last <= first).any())


def _displayed_size(image: Any) -> tuple[int, int] | None:
    try:
        return image_ops.photo_size(image)
    except (OSError, ValueError):
        return None
