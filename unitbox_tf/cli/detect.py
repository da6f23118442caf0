"""`unitbox detect`: objects in images and videos, as COCO's results and as images, or as rows by a pipeline."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator

from unitbox_tf import loading, runs
from unitbox_tf.batch import job
from unitbox_tf.cli import options as cli_options
from unitbox_tf.cli import output, quiet_start
from unitbox_tf.detect import folders
from unitbox_tf.problems import PROBLEMS_FILE

PIPELINE = ("workers", "shard_size", "beam_options")  # options that mean nothing without --runner


def run(options: argparse.Namespace) -> int:
    """Runs the command, and returns the exit status: 1 if an input could not be read."""
    if options.runner:
        return _run_pipeline(options)
    for name in PIPELINE:
        if getattr(options, name) is not None:
            raise argparse.ArgumentTypeError(f"--{name.replace('_', '-')} needs --runner")
    # FFmpeg's own words about broken frames would run through the bar.
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    folders.find(options.inputs, options.output)  # reports wrong inputs at once
    detector = loading.load(options.model, trust=options.trust, **cli_options.decoding(options))
    try:
        summary = folders.detect_into(
            detector,
            options.inputs,
            options.output,
            restart=options.restart,
            tile=options.tile,
            blur=options.blur,
            digest=runs.digest(options.model),
            progress=True,
        )
    except KeyboardInterrupt:
        print("unitbox: the same command goes on with the remaining inputs", file=sys.stderr)
        raise
    images = summary.images
    result = {
        "output": summary.output,
        "images": images and images._asdict(),
        "videos": [video._asdict() for video in summary.videos],
        "problems": dict(summary.problems.counts),
    }
    output.show(result, "\n".join(_described(summary, detector.decode.score_threshold)))
    if not summary.problems.found:
        return 0
    if images and images.broken:
        print(
            f"unitbox: {images.broken} of {images.images} images could not be read", file=sys.stderr
        )
    print(f"unitbox: see {summary.output / PROBLEMS_FILE}", file=sys.stderr)
    return 1


def _run_pipeline(options: argparse.Namespace) -> int:
    if options.blur:
        raise argparse.ArgumentTypeError("--blur writes images, and --runner writes none")
    if options.workers and options.runner != "direct":
        raise argparse.ArgumentTypeError(
            f"--workers is for --runner direct; {options.runner} takes its own option by --beam-options"
        )
    given = {name: getattr(options, name) for name in ("workers", "shard_size")}
    try:
        summary = job.detect_into(
            options.model,
            options.inputs,
            options.output,
            runner=options.runner,
            beam_options=[f"--{text}" for text in options.beam_options or ()],
            restart=options.restart,
            tile=options.tile,
            trust=options.trust,
            progress=True,
            prepare=quiet_start.install,
            **{name: value for name, value in given.items() if value is not None},
            **cli_options.decoding(options),
        )
    except KeyboardInterrupt:
        print("unitbox: the same command goes on with the remaining photos", file=sys.stderr)
        raise
    rows = f"{summary.output.rstrip('/')}/detections-*.jsonl"
    result = {**vars(summary), "problems": dict(summary.problems.counts)}
    output.show(
        result,
        f"{summary.photos - summary.broken} photos have rows in {summary.shards} files: {rows}",
    )
    if not summary.broken:
        return 0
    print(
        f"unitbox: {summary.broken} of {summary.photos} photos could not be read\n"
        f"unitbox: see {rows.replace('detections', 'problems')}",
        file=sys.stderr,
    )
    return 1


def _described(summary: folders.Summary, threshold: float) -> Iterator[str]:
    if summary.images:
        images, _, broken, objects, results = summary.images
        yield f"{objects} objects in {images - broken} images: {results}"
        if not objects and images > broken:
            yield (
                f"no object has a score of at least {threshold:g}: a lower --score-threshold finds more"
            )
    for name, path, frames, objects in summary.videos:
        yield f"{name}: {objects} found in {frames} frames: {path}"
