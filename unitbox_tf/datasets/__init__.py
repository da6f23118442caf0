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


def load(sources: Iterable[str], data: str | Path, problems: Problems) -> list[Annotation]:
    """All annotations of `sources`, each written `READER:PATH#SPLIT`; relative paths start at `data`.

    Raises:
        ValueError: a source is not of that form, its reader is unknown, its path does not exist, or
            nothing in it is usable.
    """
    annotations: list[Annotation] = []
    for source in sources:
        name, colon, rest = source.partition(":")
        if not colon or name not in READERS:
            raise ValueError(
                f"Expected a source as READER:PATH#SPLIT with a reader of {sorted(READERS)}. Received: {source!r}"
            )
        path, _, split = rest.partition("#")
        root = Path(data) / path
        if path and not root.exists():
            raise ValueError(
                f"{root}: no such file or folder, needed for the source {source!r}. "
                "Give the folder that relative paths start from with --data, or another source."
            )
        before = len(annotations)
        annotations.extend(READERS[name](root, split, problems))
        if len(annotations) == before:
            problems.log_counts()
            raise ValueError(f"{source!r}: nothing usable was found in {root}")
    return annotations
