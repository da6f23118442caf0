"""Detects in millions of photos, and writes rows into shards. It goes on where it was stopped."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from unitbox_tf import files, runs
from unitbox_tf.batch import pipeline, storage
from unitbox_tf.batch import plan as plans
from unitbox_tf.batch import workers as processes
from unitbox_tf.detect import folders, video_reading
from unitbox_tf.problems import Problems
from unitbox_tf.progress import Progress

logger = logging.getLogger(__name__)

SHARD_SIZE = 1000  # photos: minutes of work, and a megabyte of rows


@dataclasses.dataclass(frozen=True)
class Summary:
    """The outcome of `detect_into`.

    Attributes:
        output: the folder.
        photos: the number of photos of the job.
        earlier: how many of them earlier calls had finished.
        broken: how many of them could not be read.
        shards: the number of files with rows.
        problems: the photos that could not be read.
    """

    output: str
    photos: int
    earlier: int
    broken: int
    shards: int
    problems: Problems


def find(names: Iterable[str | os.PathLike[str]], output: str) -> list[str]:
    """The named photos, each once, in the order of the names.

    Args:
        names: photos, folders and patterns, of this machine or remote, and lists: `@FILE` is a text file with a photo
            in each line.
        output: see `folders.find`.

    Raises:
        ValueError: a name stands for no photo, or for a video, a stream or a webcam.
        FileNotFoundError: no named file exists.
    """
    found: dict[str, None] = {}
    local: list[str] = []
    for each in names:
        name = os.fspath(each)
        if name.startswith(storage.LIST_PREFIX):
            found.update(dict.fromkeys(storage.read_list(name[len(storage.LIST_PREFIX) :])))
        elif storage.is_remote(name) and not video_reading.is_stream(name):
            found.update(dict.fromkeys(storage.find_remote(name)))
        else:
            local.append(name)
    if local:
        images, clips = folders.find(local, output)
        if clips:
            raise ValueError(f"expected photos, which --runner takes. Received: {clips[0]}")
        found.update(dict.fromkeys(path.as_posix() for path in images))
    return list(found)


def detect_into(
    model: str | os.PathLike[str],
    names: Iterable[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    *,
    runner: str = "direct",
    workers: int = 1,
    beam_options: Sequence[str] = (),
    shard_size: int = SHARD_SIZE,
    restart: bool = False,
    tile: int | None = None,
    trust: bool = False,
    progress: bool = False,
    prepare: Callable[[], object] | None = None,
    **decode: Any,
) -> Summary:
    """Detects in photos by a pipeline of Apache Beam, and writes a row of json for each into a folder.

    The same call goes on where an earlier call was stopped, tries photos again that could not be read, and adds
    photos that are new. Each photo has one row, in `detections-*.jsonl` or `problems-*.jsonl`, also if workers were
    killed.

    Args:
        model: see `loading.load`. Each worker opens it, at the same path.
        names: see `find`.
        output: the folder to write, on this machine or remote.
        runner: a name of `pipeline.RUNNERS`.
        workers: how many processes the direct runner has on this machine. Other runners have options for this.
        beam_options: options of Beam and of the runner, such as "--flink_master=localhost:8081".
        shard_size: how many photos have their rows in one file.
        restart: deletes the files that earlier calls wrote, and begins again.
        tile: see `folders.detect_into`.
        trust: see `loading.load`.
        progress: shows a bar on a terminal, with the direct runner.
        prepare: is called first in each process of the direct runner. It is a function of a module.
        decode: see `loading.load`.

    Raises:
        ValueError: the detector, the photos or the folder cannot be used, or the folder has results of other settings.
        OSError: files of the job cannot be read or written, or workers failed.
        ImportError: Apache Beam is not installed.
        RuntimeError: the runner gave up.
    """
    output = os.fspath(output)
    if not isinstance(model, str):
        model = str(Path(model).absolute())  # a text without a slash would be a published name
    storage.beam_options(beam_options)  # before remote photos are listed
    photos = find(names, output)
    job = pipeline.Job(model, runs.digest(model), decode, trust, tile, output)
    settings = _settings(job)
    folder = storage.folder(output)
    with _alone(folder):
        if restart:
            plans.clear(folder)
        folder.remove_partial()
        plan = plans.open_plan(folder, settings, photos, shard_size)
        left = plan.left()
        earlier = plan.num_photos - sum(shard.photos for shard in left)
        if earlier:
            logger.info("%d of %d photos were done before", earlier, plan.num_photos)
        if runner == "direct":
            try:
                _run_here(plan, job, workers, beam_options, prepare, progress)
            finally:
                folder.remove_partial()  # of workers that were ended
        elif left:
            pipeline.run(job, left, runner, beam_options)
        return _summary(plan, earlier)


def _run_here(
    plan: plans.Plan,
    job: pipeline.Job,
    workers: int,
    options: Sequence[str],
    prepare: Callable[[], object] | None,
    progress: bool,
) -> None:
    """Runs the processes of this machine to their end."""
    total = len(plan.without_rows())
    # Closed, so that no worker outlives an interruption.
    with contextlib.closing(processes.run(plan, job, workers, options, prepare)) as done:
        for _ in Progress(done, "files of rows", total) if progress else done:
            pass


def _settings(job: pipeline.Job) -> dict[str, Any]:
    """The settings by which a job is recognised. The detector is opened, so that wrong options are found at once."""
    detector = job.load()
    decode = dataclasses.asdict(detector.decode)
    decode.pop("max_pixels")  # does not change what is found in a photo that was read
    settings = {"weights": job.digest, "class_names": detector.class_names, **decode}
    return settings | {"tile": job.tile}


@contextlib.contextmanager
def _alone(folder: storage.Folder) -> Iterator[None]:
    """Lets no other process of this machine write into the folder. Remote file systems have no locks."""
    if storage.is_remote(folder.path):
        yield
        return
    try:
        Path(folder.path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"{folder.path}: expected a folder to write: {error}") from error
    with files.locked(folder.path, "writes into"):
        yield


def _summary(plan: plans.Plan, earlier: int) -> Summary:
    """Counts what is in the folder. Raises `RuntimeError` if a runner said that it was done, and was not."""
    absent = plan.without_rows()
    if absent:
        raise RuntimeError(f"expected {absent[0].rows_file} in {plan.folder.path}. Received: none")
    problems = Problems()
    for shard in plan.with_problems():
        for line in plan.folder.read(shard.problems_file).splitlines():
            problem = json.loads(line)
            problems.add(problem["kind"], problem["path"], problem["reason"])
    return Summary(
        plan.folder.path,
        plan.num_photos,
        earlier,
        problems.counts.total(),
        len(plan.shards),
        problems,
    )
