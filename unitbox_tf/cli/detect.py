"""`unitbox detect`: objects in images and videos, as COCO's results and as images."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator

from unitbox_tf import loading, runs
from unitbox_tf.cli import options as cli_options
from unitbox_tf.cli import output
from unitbox_tf.detect import folders
from unitbox_tf.problems import PROBLEMS_FILE


def run(options: argparse.Namespace) -> int:
    """Runs the command, and returns the exit status: 1 if an input could not be read."""
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
