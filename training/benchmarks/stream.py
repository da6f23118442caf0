"""Annotations through the writer of shards, and back through the streaming reader and the input pipeline.

Images are tiny, so that what a record costs and keeps is not hidden behind its pixels. Memory is the resident memory of
the process, without garbage, at tenths of the way. Writing and reading have a process of their own. In each tenth, the
pipeline and bare reading of some shards take turns; times are those of the processors.
"""

from __future__ import annotations

import functools
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tensorflow as tf

from training.benchmarks.apart import call_apart
from training.benchmarks.resident import resident
from training.benchmarks.turns import quartiles
from unitbox_tf.config import DataConfig
from unitbox_tf.datasets import tfrecord
from unitbox_tf.problems import Problems
from unitbox_tf.records import Annotation
from unitbox_tf.train import pipeline, streaming

TENTHS = 10
SHARDS = 64
SIDE = 16  # px of an image
BATCH = 32
BARE, PARSED, PIPELINE = "bare reading", "bare reading, parsed", "pipeline"
FEATURES = {
    "image/encoded": tf.io.FixedLenFeature([], tf.string),
    "unitbox/annotation": tf.io.FixedLenFeature([], tf.string),
    "image/object/class/label": tf.io.VarLenFeature(tf.int64),
    **{f"image/object/bbox/{side}": tf.io.VarLenFeature(tf.float32) for side in tfrecord.CORNERS},
}


def benchmark(count: int, buffer: int, folder: Path | None) -> dict[str, Any]:
    """Prints the table; returns its numbers.

    Args:
        count: of annotations.
        buffer: records in memory that are mixed.
        folder: where to write; None: the system's folder for temporary files.

    Raises:
        ValueError: there are too few annotations to take tenths of.
    """
    if count < TENTHS * BATCH:
        raise ValueError(f"Expected --count from {TENTHS * BATCH}. Received: {count}")
    with tempfile.TemporaryDirectory(prefix="stream-", dir=folder) as name:
        shards = Path(name) / "shards"
        written = call_apart(write, shards, count)
        read = call_apart(read_all, shards, count, buffer)
    megabytes = written.pop("megabytes")
    print(f"{count:,} annotations, {megabytes:.0f} MB in {SHARDS} shards, a buffer of {buffer:,}")
    print(
        "| | resident memory at tenths of the way, MB | growth from 10 % to 100 % | a record, µs |"
    )
    print("|---|---|---|---|")
    for title, found in (("writing", written), ("reading", read)):
        memory = " ".join(f"{each:.0f}" for each in found["megabytes_at_tenths"])
        growth, time_ = f"{found['growth']:+.1%}", found["microseconds"]
        print(f"| {title} | {memory} | {growth} | {time_:.0f} |")
    for variant, (low, middle, high) in read["ratios"].items():
        print(f"{variant} / {BARE}: {middle:.1f} ({low:.1f} to {high:.1f})")
    print(f"images/s of a processor in the pipeline: {1e6 / read['microseconds']:.0f}")
    return {
        "results": {"count": count, "megabytes": megabytes, "writing": written, "reading": read}
    }


def write(folder: Path, count: int) -> dict[str, Any]:
    """Writes `count` annotations with one object each; returns memory and time."""
    memory: list[float] = []
    image = _image()

    def each() -> Iterator[Annotation]:
        random = np.random.default_rng(0)
        for number in range(count):
            corner = random.uniform(0, SIDE / 2, 2)
            box = np.concatenate([corner, corner + random.uniform(2, SIDE / 2, 2)])
            yield Annotation(f"{number:09}.png", image, box, size=(SIDE, SIDE))
            if (number + 1) * TENTHS // count > len(memory):
                memory.append(resident() / 1e6)
                print(f"written {number + 1:,}: {memory[-1]:.0f} MB", flush=True)

    before = time.process_time()
    shard_bytes = -(-count // SHARDS) * len(image)
    tfrecord.write_once(each(), folder, "train", ("object",), shard_bytes=shard_bytes)
    seconds = time.process_time() - before
    megabytes = sum(path.stat().st_size for path in folder.iterdir()) / 1e6
    return {**_figures(memory, seconds, count), "megabytes": megabytes}


def _image() -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    return cv2.imencode(".png", pixels)[1].tobytes()


def read_all(folder: Path, count: int, buffer: int) -> dict[str, Any]:
    """Reads as many images as there are, in batches for training; returns memory, times and ratios."""
    source = streaming.opened(f"tfrecord:file://{folder}#train")
    stream = streaming.Stream([source], ("object",), buffer=buffer)
    batches = iter(
        pipeline.training_dataset(
            stream,
            DataConfig(image_size=SIDE),
            labels=pipeline.Labels(1, stride=4),
            batch_size=BATCH,
            seed=0,
            problems=Problems(),
        )
    )
    next(batches)  # makes the graphs
    some = source.paths[:: -(-len(source.paths) // TENTHS)]  # a shard for each tenth
    memory: list[float] = []
    seconds: dict[str, list[float]] = {BARE: [], PARSED: [], PIPELINE: []}
    steps = np.diff(np.linspace(0, count // BATCH, TENTHS + 1).astype(int))
    for tenth, number in enumerate(steps):
        path = some[tenth % len(some)]
        jobs: dict[str, Callable[[], int]] = {
            PIPELINE: functools.partial(_draw, batches, number),
            BARE: functools.partial(_records, path, parse=False),
            PARSED: functools.partial(_records, path, parse=True),
        }
        for name, job in jobs.items():
            before = time.process_time()
            images = job()
            seconds[name].append((time.process_time() - before) / images)
        memory.append(resident() / 1e6)
        print(f"read {(tenth + 1) * count // TENTHS:,}: {memory[-1]:.0f} MB", flush=True)
    total = float(np.dot(seconds[PIPELINE], steps)) * BATCH
    ratios = {name: quartiles(seconds[name], seconds[BARE]) for name in (PARSED, PIPELINE)}
    return {**_figures(memory, total, count // BATCH * BATCH), "ratios": ratios}


def _draw(batches: Iterator[Any], number: int) -> int:
    """The number of images in the next batches."""
    for _ in range(number):
        next(batches)
    return int(number) * BATCH


def _records(path: str, parse: bool) -> int:
    """The number of records in a shard, as TensorFlow reads them, one by one."""
    records = tf.data.TFRecordDataset(path)
    if parse:
        records = records.map(lambda record: tf.io.parse_single_example(record, FEATURES))
    # Counts in the graph: a step of Python for each record would take longer than the record.
    return int(records.reduce(np.int64(0), lambda number, _: number + 1))


def _figures(memory: Sequence[float], seconds: float, count: int) -> dict[str, Any]:
    return {
        "megabytes_at_tenths": [round(each, 1) for each in memory],
        "growth": memory[-1] / memory[0] - 1,
        "microseconds": 1e6 * seconds / count,
    }
