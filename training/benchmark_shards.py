"""TFRecord shards, against bare copies and reads of the same bytes.

Seconds are of the processor, and all files stay in the page cache: with a disk that is slower than
memory, all ratios come nearer to 1.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from benchmark_data import save
from turns import quartiles, take_turns

from unitbox_tf import datasets
from unitbox_tf.datasets import tfrecord
from unitbox_tf.records import Annotation

COPY, READ = "bare copy into one file", "bare read of the shards"
WRITTEN = {COPY: "one", "copy of each file": "each", "writing shards": "shards"}


def benchmark_shards(arguments: argparse.Namespace) -> None:
    """Prints the table, and writes the numbers where `--json` says."""
    with tempfile.TemporaryDirectory(prefix="shards-", dir=arguments.folder) as name:
        folder = Path(name)
        if arguments.source:
            source = datasets.open(arguments.source, arguments.data)
            annotations = source.annotations()
            class_names = source.class_names() or ("object",)
        else:
            annotations = random_photos(folder / "photos", arguments.count, arguments.kilobytes)
            class_names = ("object",)
        paths = [a.image for a in annotations if isinstance(a.image, Path)]
        if len(paths) < len(annotations) or not paths:
            raise SystemExit(f"Expected photos that are files. Received: {arguments.source!r}")
        jobs = shard_jobs(annotations, class_names, paths, folder)

        def clear(job: str) -> None:
            if job in WRITTEN:
                shutil.rmtree(folder / WRITTEN[job], ignore_errors=True)

        for job in jobs.values():  # fills the caches; reads need what is written
            job()
        # Reads are timed after writes, which begin with an empty folder.
        writes = {job: call for job, call in jobs.items() if job in WRITTEN}
        reads = {job: call for job, call in jobs.items() if job not in WRITTEN}
        seconds = take_turns(writes, arguments.rounds, time.process_time, clear)
        seconds |= take_turns(reads, arguments.rounds, time.process_time)
        megabytes = sum(path.stat().st_size for path in paths) / 1e6

    print(f"{len(paths):,} photos, {megabytes:.0f} MB, {arguments.rounds} rounds")
    print(f"{'':30}{'CPU seconds':>12}{'ratio [quartiles]':>26}")
    rows = {}
    for job, values in seconds.items():
        base = COPY if job in WRITTEN else READ
        low, ratio, high = quartiles(values, seconds[base])
        rows[job] = {"base": base, "ratio_quartiles": [low, ratio, high]}
        print(f"{job:30}{np.median(values):>12.4f}{f'{ratio:.2f} [{low:.2f}, {high:.2f}]':>26}")
    save(arguments, [{"photos": len(paths), "megabytes": megabytes, "rows": rows}])


def random_photos(folder: Path, count: int, kilobytes: int) -> list[Annotation]:
    """Files of random bytes, which nobody decodes, with two boxes each."""
    folder.mkdir()
    random = np.random.default_rng(0)
    annotations = []
    for number in range(count):
        path = folder / f"{number}.jpg"
        path.write_bytes(random.bytes(1000 * kilobytes))
        boxes = [[10.5, 20, 110, 220.25], [300, 50, 420, 170]]
        annotations.append(Annotation(path.name, path, boxes, size=(480, 640)))
    return annotations


def shard_jobs(
    annotations: Sequence[Annotation],
    class_names: Sequence[str],
    paths: Sequence[Path],
    folder: Path,
) -> dict[str, Callable[[], Any]]:
    """What is timed, by name."""
    buffer = bytearray(1 << 20)

    def copy_into_one() -> None:
        (folder / "one").mkdir()
        with (folder / "one/all").open("wb") as target:
            for path in paths:
                with path.open("rb") as file:
                    shutil.copyfileobj(file, target, 1 << 20)

    def copy_each() -> None:
        (folder / "each").mkdir()
        for number, path in enumerate(paths):
            shutil.copyfile(path, folder / f"each/{number}")

    def read_bare() -> None:
        for path in sorted((folder / "shards").glob("*.tfrecord")):
            with path.open("rb", buffering=0) as file:
                while file.readinto(buffer):
                    pass

    def read_each() -> None:
        for path in paths:
            path.read_bytes()

    return {
        COPY: copy_into_one,
        "copy of each file": copy_each,
        "writing shards": lambda: tfrecord.write(
            annotations, folder / "shards", "train", class_names
        ),
        READ: read_bare,
        "read of each file": read_each,
        "reading shards": lambda: sum(
            1 for _ in tfrecord.Shards(folder / "shards", "train").annotations()
        ),
    }
