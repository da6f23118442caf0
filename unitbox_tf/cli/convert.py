"""`unitbox convert`: a data set in another format."""

from __future__ import annotations

import argparse
from pathlib import Path

from unitbox_tf import datasets
from unitbox_tf.cli import output
from unitbox_tf.datasets import writing
from unitbox_tf.problems import Problems
from unitbox_tf.progress import Progress

PROBLEMS_FILE = "problems.txt"  # in the folder that is written


def run(options: argparse.Namespace) -> int:
    """The command; returns the exit status."""
    source = datasets.parse(options.source, options.data)
    form, _, rest = options.destination.partition(":")
    path, _, split = rest.partition("#")
    if form not in datasets.WRITERS or not path:
        raise ValueError(
            "Expected a destination as FORMAT:PATH#SPLIT with a format of "
            f"{sorted(datasets.WRITERS)}. Received: {options.destination!r}"
        )
    problems = Problems()
    photos: writing.PhotosAs = "link" if options.link else "none" if options.no_photos else "copy"
    reading = source.read(problems, photos=not options.no_photos)
    annotations = list(Progress(reading, "reading", None))
    if not annotations:
        problems.log_counts()
        raise ValueError(f"nothing usable was found in {options.source!r}: {source.root}")
    names = source.class_names()
    if not names:
        most = max((int(a.classes.max()) for a in annotations if len(a.classes)), default=0)
        names = tuple(f"class{index}" for index in range(most + 1)) if most else ("object",)
    root = Path(path)
    progress = Progress(annotations, "writing", len(annotations))
    written = datasets.WRITERS[form](progress, root, split, names, problems, photos=photos)

    boxes = sum(len(a.boxes) for a in annotations)
    ignored = sum(int(a.ignore.sum()) for a in annotations)
    lines, result = [], {"output": root, "problems": dict(problems.counts)}
    for title, counts in (("read", (len(annotations), boxes, ignored)), ("written", written)):
        photos_, boxes_, ignored_ = counts
        result[title] = dict(zip(("images", "boxes", "ignored"), counts, strict=True))
        lines.append(f"{title:>10}  {photos_} photos, {boxes_} boxes, {ignored_} of them ignored")
    lines.append(f"{'to':>10}  {root}")
    lines += [f"{count:>10}  x {kind}" for kind, count in problems.counts.items()]
    if problems.found:
        problems.add_to(root / PROBLEMS_FILE)
        lines.append(f"{'all':>10}  in {root / PROBLEMS_FILE}")
    output.show(result, "\n".join(lines))
    return 0
