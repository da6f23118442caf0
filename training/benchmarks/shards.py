"""TFRecord shards, against bare copies and reads of the same bytes.

Times are processor seconds, and all files stay in the page cache. With a disk that is slower than memory,
all ratios come nearer to 1.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from training.benchmarks.turns import quartiles, take_turns
from unitbox_tf import datasets
from unitbox_tf.datasets import tfrecord
from unitbox_tf.problems import Problems
from unitbox_tf.records import Annotation

COPY, READ = "bare copy into one file", "bare read of the shards"
WRITTEN = {COPY: "one", "copy of each file": "each", "writing shards": "shards"}


def benchmark(
    source: str | None,
    *,
    data: Path,
    folder: Path | None,
    count: int,
    kilobytes: int,
    rounds: int,
) -> dict[str, Any]:
    """Prints the table; returns its numbers.

    Args:
        source: FORMAT:PATH#SPLIT of images that are files; None: files of random bytes.
        data: folder from which its path starts.
        folder: where to write; None: the system's folder for temporary files.
        count: files of random bytes.
        kilobytes: of each of them.
        rounds: of taking turns.

    Raises:
        ValueError: the source has no images, or some that are not files.
    """
    with tempfile.TemporaryDirectory(prefix="shards-", dir=folder) as name:
        temporary = Path(name)
        class_names: tuple[str, ...] | None = None
        if source:
            opened = datasets.open(source, data)
            annotations = opened.annotations(problems=Problems())
            class_names = opened.class_names()
        else:
            annotations = random_photos(temporary / "photos", count, kilobytes)
        paths = [a.image for a in annotations if isinstance(a.image, Path)]
        if len(paths) < len(annotations) or not paths:
            raise ValueError(f"Expected images that are files. Received: {source!r}")
        jobs = shard_jobs(annotations, class_names or ("object",), paths, temporary)
        seconds = time_jobs(jobs, temporary, rounds)
        megabytes = sum(path.stat().st_size for path in paths) / 1e6

    print(f"{len(paths):,} images, {megabytes:.0f} MB, {rounds} rounds")
    print(f"{'':30}{'CPU seconds':>12}{'ratio [quartiles]':>26}")
    rows = {}
    for job, values in seconds.items():
        base = COPY if job in WRITTEN else READ
        low, ratio, high = quartiles(values, seconds[base])
        rows[job] = {"base": base, "ratio_quartiles": [low, ratio, high]}
        print(f"{job:30}{np.median(values):>12.4f}{f'{ratio:.2f} [{low:.2f}, {high:.2f}]':>26}")
    return {"results": [{"photos": len(paths), "megabytes": megabytes, "rows": rows}]}


def time_jobs(
    jobs: Mapping[str, Callable[[], Any]], folder: Path, rounds: int
) -> dict[str, list[float]]:
    """Seconds of each job in each round. Jobs write into `folder`."""

    def clear(job: str) -> None:
        if job in WRITTEN:
            shutil.rmtree(folder / WRITTEN[job], ignore_errors=True)

    for job in jobs.values():  # fills the caches; reads need the files of the writes
        job()
    # Reads are timed after writes, which begin with an empty folder.
    writes = {name: job for name, job in jobs.items() if name in WRITTEN}
    reads = {name: job for name, job in jobs.items() if name not in WRITTEN}
    seconds = take_turns(writes, rounds, time.process_time, clear)
    return seconds | take_turns(reads, rounds, time.process_time)


def random_photos(folder: Path, count: int, kilobytes: int) -> list[Annotation]:
    """Files of random bytes, which nobody decodes, with two boxes each."""
    folder.mkdir()
    random = np.random.default_rng(0)
    annotations = []
    for number in range(count):
        path = folder / f"{number}.jpg"
        path.write_bytes(random.bytes(1000 * kilobytes))
        boxes = np.array([[10.5, 20, 110, 220.25], [300, 50, 420, 170]])
        annotations.append(Annotation(path.name, path, boxes, size=(480, 640)))
    return annotations


def shard_jobs(
    annotations: Sequence[Annotation],
    class_names: Sequence[str],
    paths: Sequence[Path],
    folder: Path,
) -> dict[str, Callable[[], Any]]:
    """The jobs that are timed, by name."""
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

    problems = Problems()
    return {
        COPY: copy_into_one,
        "copy of each file": copy_each,
        "writing shards": lambda: tfrecord.write(
            annotations, folder / "shards", "train", class_names, problems=problems
        ),
        READ: read_bare,
        "read of each file": read_each,
        "reading shards": lambda: sum(
            1 for _ in tfrecord.Shards(folder / "shards", "train").annotations(problems=problems)
        ),
    }
