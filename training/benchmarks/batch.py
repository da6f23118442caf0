"""Times a pipeline of Apache Beam beside one process with the detector, on the same photos.

Each run is a new process, which opens the detector, detects in all photos, and writes their rows. A run with a single
photo takes the time of the start; the rate counts the other photos and the time beyond the start. Time that passes
says little on a machine with other programs: the time of processors, of all processes of a run together, is in the
table beside it.
"""

from __future__ import annotations

import functools
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

import unitbox_tf
from training.benchmarks.apart import call_apart
from training.benchmarks.turns import quartiles, take_turns
from unitbox_tf import images
from unitbox_tf.batch import job, pipeline

SIZE = (320, 240)  # width and height of photos that are made
ALONE = "one process, without Beam"


def benchmark(
    model: str, photos: Path | None, *, count: int, workers: Sequence[int], rounds: int
) -> dict[str, Any]:
    """Prints the table, and returns its numbers.

    Args:
        model: a detector as `unitbox_tf.load` takes it.
        photos: a folder; without it, photos are made.
        count: of photos, from the first in the folder on.
        workers: numbers of processes of the direct runner.
        rounds: of taking turns.

    Raises:
        ValueError: there are fewer than two photos.
    """
    with tempfile.TemporaryDirectory(prefix="batch-") as name:
        folder = Path(name)
        paths = images.photos(photos) if photos else made(folder / "photos", count)
        paths = paths[:count]
        if len(paths) < 2:
            raise ValueError(f"Expected at least two photos. Received: {len(paths)} in {photos}")
        (folder / "all").write_text("".join(f"{path.absolute()}\n" for path in paths))
        (folder / "first").write_text(f"{paths[0].absolute()}\n")
        variants = {ALONE: 0, **{f"direct runner, {n} workers": n for n in workers}}
        shard = -(-len(paths) // (4 * max(workers)))  # so that each worker has several
        runs = {
            (kind, which): functools.partial(run, model, folder, which, number, shard)
            for kind, number in variants.items()
            for which in ("first", "all")
        }
        processors: dict[Any, list[float]] = {each: [] for each in runs}

        def timed(each: tuple[str, str]) -> None:
            before = processor_seconds()
            runs[each]()
            processors[each].append(processor_seconds() - before)

        jobs: Any = {each: functools.partial(timed, each) for each in runs}
        passed: Any = take_turns(jobs, rounds)
    return show(list(variants), len(paths), passed, processors)


def show(kinds: Sequence[str], count: int, passed: Any, processors: Any) -> dict[str, Any]:
    """Prints the table of the seconds of all runs, and returns its numbers."""
    print(f"{count:,} photos\n")
    print("| | start, s | photos/s | ratio [quartiles] | processors, ms a photo | ratio |")
    print("|---|---|---|---|---|---|")
    rows = {}
    for kind in kinds:
        rates = [each / (count - 1) for each in beyond(passed, kind)]
        work = [each / (count - 1) for each in beyond(processors, kind)]
        base = [each / (count - 1) for each in beyond(passed, ALONE)]
        low, middle, high = quartiles(base, rates)
        works = quartiles(work, [each / (count - 1) for each in beyond(processors, ALONE)])
        start = float(np.median(passed[kind, "first"]))
        rows[kind] = {
            "start_seconds": start,
            "photos_per_second": 1 / float(np.median(rates)),
            "ratio_quartiles": [low, middle, high],
            "processor_seconds_a_photo": float(np.median(work)),
            "processor_ratio_quartiles": works,
        }
        print(
            f"| {kind} | {start:.1f} | {1 / np.median(rates):.1f} | {middle:.2f} [{low:.2f}, {high:.2f}] "
            f"| {1000 * np.median(work):.1f} | {works[1]:.2f} |"
        )
    return {"results": [{"photos": count, "rows": rows}]}


def beyond(seconds: Any, kind: str) -> list[float]:
    """Seconds of a kind of run beyond those of its start, in each round."""
    pairs = zip(seconds[kind, "all"], seconds[kind, "first"], strict=True)
    return [whole - start for whole, start in pairs]


def processor_seconds() -> float:
    """The time that processors have spent on all processes that this one has waited for, and on theirs."""
    times = os.times()
    return times.children_user + times.children_system


def made(folder: Path, count: int) -> list[Path]:
    """JPEG files of coloured noise of few frequencies, as in photos, from a seed."""
    folder.mkdir()
    random = np.random.default_rng(0)
    paths = []
    for number in range(count):
        small = random.integers(0, 256, (15, 20, 3), np.uint8)
        path = folder / f"{number:06}.jpg"
        images.save_image(cv2.resize(small, SIZE, interpolation=cv2.INTER_CUBIC), path)
        paths.append(path)
    return paths


def run(model: str, folder: Path, which: str, workers: int, shard_size: int) -> None:
    """Detects in the photos of a list, in new processes."""
    if workers:
        call_apart(detect_in_pipeline, model, folder, which, workers, shard_size)
    else:
        call_apart(detect_alone, model, folder, which)


def detect_alone(model: str, folder: Path, which: str) -> None:
    """Writes the rows of all photos, in this process."""
    detector = unitbox_tf.load(model)
    with (folder / "rows").open("w") as file:
        for name in (folder / which).read_text().splitlines():
            file.write(pipeline.row(name, detector(name), detector.class_names))


def detect_in_pipeline(model: str, folder: Path, which: str, workers: int, shard_size: int) -> None:
    """Writes the rows of all photos, by a pipeline.

    Raises:
        ValueError: they are not those of the detector alone.
    """
    output = folder / f"out-{which}"
    job.detect_into(
        model, [f"@{folder / which}"], output, workers=workers, shard_size=shard_size, restart=True
    )
    paths = sorted(output.glob("detections-*.jsonl"))
    names = [json.loads(line)["path"] for path in paths for line in path.open()]
    if names != (folder / which).read_text().splitlines():
        raise ValueError(f"expected a row for each photo. Received: {len(names)} rows")
