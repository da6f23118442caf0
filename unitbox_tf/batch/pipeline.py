"""The pipeline: shards in, files of rows out.

    shards -> reshuffled -> read the plan -> RunInference: read, decode and detect -> write

A whole shard goes through the pipeline as one element, and its file is written as soon as its last photo is done.
Rows of single photos would have to be grouped by shard before they are written. Runners finish the groups of a batch
pipeline when all input has been seen: a job that is stopped after a million photos would have written none of them.
Because an attempt writes whole files, under names that only depend on the shard, a runner may try a shard again, or in
two places at once, and each photo still has one row.

Photos are shown to the detector one by one. Batches of images of one size take 0.95 of the time on a processor, which
is not worth that photos wait for others of their size.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from unitbox_tf import images, loading, runs
from unitbox_tf.batch import storage
from unitbox_tf.batch.plan import Shard
from unitbox_tf.detect.detector import Detector
from unitbox_tf.detect.folders import UNREAD
from unitbox_tf.limits import BYTES_PER_PIXEL
from unitbox_tf.records import Detections

INFERENCE = ".ml.inference.base"
# Where each runner is. `DirectRunner` would download a program, and start it: this one is what it falls back to.
RUNNERS = {
    "direct": "apache_beam.runners.portability.fn_api_runner.FnApiRunner",
    "flink": "FlinkRunner",
    "spark": "SparkRunner",
    "dataflow": "DataflowRunner",
}


@dataclasses.dataclass(frozen=True)
class Job:
    """Everything that a worker has to know. It is sent to workers, so it is small.

    Attributes:
        model: the detector, as `loading.load` takes it. It is the same file on each worker.
        digest: `runs.digest` of the detector.
        decode: fields of `DecodeConfig` to change.
        trust: see `loading.load`.
        tile: see `folders.detect_into`.
        output: the folder of the job.
    """

    model: str
    digest: str
    decode: Mapping[str, Any]
    trust: bool
    tile: int | None
    output: str

    def load(self) -> Detector:
        """The detector. Raises `ValueError` if it is another one than where the job began."""
        digest = runs.digest(self.model)
        if digest != self.digest:
            raise ValueError(
                f"{self.model}: expected the detector with the SHA-256 {self.digest}, with which the job began. "
                f"Received: {digest}. Install the same file on each worker"
            )
        detector = loading.load(self.model, trust=self.trust, **self.decode)
        return detector if self.tile is None else detector.tiled(self.tile or None)


class Todo(NamedTuple):
    """A shard before detection: the names of its photos, and the rows that an earlier run has written, by name."""

    shard: Shard
    names: list[str]
    rows: dict[str, str]


class Done(NamedTuple):
    """A shard after detection: lines of json, each with its end."""

    shard: Shard
    rows: list[str]
    problems: list[str]


def run(job: Job, shards: Sequence[Shard], runner: str, options: Sequence[str] = ()) -> None:
    """Runs the pipeline for some shards of a job, and waits for its end.

    Args:
        job: the job, whose plan has been written.
        shards: of the plan.
        runner: a name of `RUNNERS`.
        options: for Beam's `PipelineOptions`, such as "--flink_master=localhost:8081".

    Raises:
        RuntimeError: the runner gave up.
        OSError: a file of the job cannot be read or written.
    """
    beam = storage.beam()
    pipeline = beam.Pipeline(runner=RUNNERS[runner], options=storage.beam_options(options))
    _ = (
        pipeline
        | "shards" >> beam.Create(list(map(tuple, shards)))
        | "spread over workers" >> beam.Reshuffle()
        | "read the plan" >> beam.Map(opened, job.output)
        | "detect" >> storage.beam(INFERENCE).RunInference(handler(job))
        | "write" >> beam.Map(write, job.output)
    )
    state = pipeline.run().wait_until_finish()
    if state != beam.runners.runner.PipelineState.DONE:
        raise RuntimeError(f"expected that the runner {runner} ends as DONE. Received: {state}")


def opened(fields: tuple[int, int, int, int], output: str) -> Todo:
    """The work that is left for a `Shard` of these fields. Rows that it has stay; problems are looked at again."""
    folder, shard = storage.folder(output), Shard(*fields)
    rows = {}
    if folder.has(shard.problems_file) and folder.has(shard.rows_file):
        for line in folder.read(shard.rows_file).decode().splitlines(keepends=True):
            rows[json.loads(line)["path"]] = line
    return Todo(shard, shard.names(folder), rows)


def handler(job: Job) -> Any:
    """Beam's `ModelHandler` of a job: a process loads the detector once, and its threads share it.

    It takes `Todo` and gives `Done`.
    """
    inference = storage.beam(INFERENCE)

    class Handler(inference.ModelHandler):  # type: ignore[name-defined]
        """Beam sends the class to workers by value, because it is made where Beam is installed."""

        def load_model(self) -> Detector:
            return job.load()

        def run_inference(
            self, batch: Sequence[Todo], model: Detector, inference_args: Any = None
        ) -> list[Done]:
            return [detect(todo, model) for todo in batch]

        def get_num_bytes(self, batch: Sequence[Todo]) -> int:
            return sum(todo.shard.length for todo in batch)

    return Handler(min_batch_size=1, max_batch_size=1)


def detect(todo: Todo, detector: Detector) -> Done:
    """Detects in the photos of a shard. One that cannot be read becomes a problem."""
    rows, problems = [], []
    for name in todo.names:
        line = todo.rows.get(name)
        if line is None:
            try:
                line = row(name, look(name, detector), detector.class_names)
            except images.UNREADABLE as error:
                kind = UNREAD if isinstance(error, OSError) else images.UNDECODABLE
                reason = str(error).removeprefix(f"{name}: ")
                problems.append(_line({"path": name, "kind": kind, "reason": reason}))
                continue
        rows.append(line)
    return Done(todo.shard, rows, problems)


def look(name: str, detector: Detector) -> Detections:
    """The objects in a photo, local or remote. See `Detector.__call__` for errors."""
    if not storage.is_remote(name):
        return detector(name)
    most = detector.decode.max_pixels * BYTES_PER_PIXEL
    return detector(storage.read_remote(name, most))


def row(name: str, found: Detections, class_names: Sequence[str]) -> str:
    """The line of a photo. Numbers have the digits that give the same number in single precision."""
    height, width = found.image_size
    return _line(
        {
            "path": name,
            "width": width,
            "height": height,
            "boxes": found.boxes.tolist(),
            "scores": found.scores.tolist(),
            "classes": [class_names[label] for label in found.classes],
        }
    )


def _line(content: Mapping[str, Any]) -> str:
    return json.dumps(content) + "\n"


def write(done: Done, output: str) -> int:
    """Writes the files of a shard, and returns its number.

    It counts as finished when it has rows and no problems. So problems are written before rows, and deleted after.
    """
    folder = storage.folder(output)
    shard = done.shard
    if done.problems:
        folder.write(shard.problems_file, "".join(done.problems).encode())
    folder.write(shard.rows_file, "".join(done.rows).encode())
    if not done.problems and folder.has(shard.problems_file):
        folder.delete([shard.problems_file])
    return shard.number
