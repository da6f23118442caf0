"""Readers: files of a data set in, `Annotation`s out. One module a format.

All have the same function:

    read(root: Path, split: str, problems: Problems) -> Iterator[Annotation]

`split` names a part of the data set in the reader's own words; an empty string is all of it. What
cannot be used is added to `problems` with file and line, and left out; a reader raises `ValueError`
only where nothing could be read at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from unitbox_tf.datasets import coco, fddb, negatives, synthetic, wider_face
from unitbox_tf.records import Annotation, Problems

Reader = Callable[[Path, str, Problems], Iterator[Annotation]]

READERS: dict[str, Reader] = {
    "coco": coco.read,
    "fddb": fddb.read,
    "negatives": negatives.read,
    "synthetic": synthetic.read,
    "wider_face": wider_face.read,
}


def load(
    sources: Iterable[str], data: str | Path, problems: Problems, num_classes: int
) -> list[Annotation]:
    """All annotations of `sources`, each written `READER:PATH#SPLIT`; relative paths start at `data`.

    A source of which nothing is usable is a problem like others, unless nothing is left at all.

    Raises:
        ValueError: a source is not of that form, its reader is unknown, its path does not exist, it has more classes
            than `num_classes`, or none of them has anything usable.
    """
    annotations: list[Annotation] = []
    for source in sources:
        name, colon, rest = source.partition(":")
        if not colon or name not in READERS:
            raise ValueError(
                "Expected a source as READER:PATH#SPLIT with a reader of "
                f"{sorted(READERS)}. Received: {source!r}"
            )
        path, _, split = rest.partition("#")
        root = Path(data) / path
        if path and not root.exists():
            raise ValueError(
                f"{root}: no such file or folder, needed for the source {source!r}. Give the "
                "folder that relative paths start from with --data, or another source."
            )
        found = list(READERS[name](root, split, problems))
        if not found:
            problems.add("source without anything usable", source, f"nothing found in {root}")
        most = max((int(a.classes.max()) + 1 for a in found if len(a.classes)), default=0)
        if most > num_classes:
            raise ValueError(
                f"{source!r} has objects of at least {most} classes, but the model has {num_classes}. "
                "Name as many with --class-names, in the order of the data set's category ids."
            )
        annotations.extend(found)
    if not annotations:
        problems.log_counts()
        raise ValueError(f"nothing usable was found in {list(sources)}, looked for below {data}")
    return annotations
