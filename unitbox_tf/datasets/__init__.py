"""Readers: files of a data set in, `Annotation`s out; and writers, the other way. One module a format.

All have the same functions:

    read(root: Path, split: str, problems: Problems, *, photos: bool = True) -> Iterator[Annotation]
    class_names(root: Path, split: str) -> tuple[str, ...] | None
    write(annotations, root: Path, split: str, class_names, problems, *, photos="copy")

`split` names a part of the data set in the format's own words; an empty string is all of it. What
cannot be used is added to `problems` with file and line, and left out, or kept to be ignored where
it is a box without area or outside its photo. A reader raises `ValueError` only where nothing could
be read at all. With `photos=False` photos need not exist: annotations are complete.

What lists name is read only if it lies in the data set's folder, links followed. Where a format
fixes the names of folders and lists (`images`, `annotations`), these may themselves be links.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from unitbox_tf.datasets import (
    coco,
    csv_table,
    fddb,
    negatives,
    synthetic,
    tfrecord,
    voc,
    wider_face,
    writing,
    yolo,
)
from unitbox_tf.problems import Problems
from unitbox_tf.records import Annotation


class Reader(Protocol):
    """Annotations of the split; see the module."""

    def __call__(
        self, root: Path, split: str, problems: Problems, *, photos: bool = True
    ) -> Iterator[Annotation]:
        """Reads."""


class ClassNames(Protocol):
    """Names of the classes, in the order of their indices; None where the format has none."""

    def __call__(self, root: Path, split: str) -> tuple[str, ...] | None:
        """Reads."""


class Writer(Protocol):
    """Writes a data set into the new folder `root`, all of it or nothing (`tfrecord` goes on); says how much it was.

    Photos are copied, hard-linked (`photos="link"`) or left where they are (`"none"`).
    """

    def __call__(
        self,
        annotations: Iterable[Annotation],
        root: Path,
        split: str,
        class_names: Sequence[str],
        problems: Problems,
        *,
        photos: writing.PhotosAs = "copy",
    ) -> writing.Written:
        """Writes."""


READERS: dict[str, Reader] = {
    "coco": coco.read,
    "csv": csv_table.read,
    "fddb": fddb.read,
    "negatives": negatives.read,
    "synthetic": synthetic.read,
    "tfrecord": tfrecord.read,
    "voc": voc.read,
    "wider_face": wider_face.read,
    "yolo": yolo.read,
}

CLASS_NAMES: dict[str, ClassNames] = {
    "coco": coco.class_names,
    "csv": csv_table.class_names,
    "fddb": fddb.class_names,
    "negatives": negatives.class_names,
    "synthetic": synthetic.class_names,
    "tfrecord": tfrecord.class_names,
    "voc": voc.class_names,
    "wider_face": wider_face.class_names,
    "yolo": yolo.class_names,
}

WRITERS: dict[str, Writer] = {
    "coco": coco.write,
    "csv": csv_table.write,
    "fddb": fddb.write,
    "tfrecord": tfrecord.write,
    "voc": voc.write,
    "wider_face": wider_face.write,
    "yolo": yolo.write,
}


@dataclasses.dataclass(frozen=True)
class Source:
    """A data set, or a part of it: what is written `FORMAT:PATH#SPLIT`."""

    format: str
    root: Path
    split: str

    def read(self, problems: Problems, *, photos: bool = True) -> Iterator[Annotation]:
        """Its annotations."""
        return READERS[self.format](self.root, self.split, problems, photos=photos)

    def class_names(self) -> tuple[str, ...] | None:
        """The names of its classes; None where the format has none."""
        return CLASS_NAMES[self.format](self.root, self.split)


def parse(source: str, data: str | Path) -> Source:
    """What `source` stands for; its path is relative to `data`.

    Raises:
        ValueError: it is not of the form, its format is unknown, or its path does not exist.
    """
    name, colon, rest = source.partition(":")
    if not colon or name not in READERS:
        raise ValueError(
            "Expected a source as FORMAT:PATH#SPLIT with a format of "
            f"{sorted(READERS)}. Received: {source!r}"
        )
    path, _, split = rest.partition("#")
    root = Path(data) / path
    if path and not root.exists():
        raise ValueError(
            f"{root}: no such file or folder, needed for the source {source!r}. Give the "
            "folder that relative paths start from with --data, or another source."
        )
    return Source(name, root, split)


def load(
    sources: Iterable[str],
    data: str | Path,
    problems: Problems,
    class_names: Sequence[str],
    *,
    photos: bool = True,
) -> list[Annotation]:
    """All annotations of `sources`, each written `FORMAT:PATH#SPLIT`; relative paths start at `data`.

    A source of which nothing is usable is a problem like others, unless nothing is left at all; so is
    one with several classes that are not `class_names`, those of the model, in their order.
    With `photos=False`, photos may be absent.

    Raises:
        ValueError: a source is not of that form, its reader is unknown, its path does not exist, it has more classes
            than `class_names`, or none of them has anything usable.
    """
    annotations: list[Annotation] = []
    for text in sources:
        source = parse(text, data)
        found = list(source.read(problems, photos=photos))
        if not found:
            message = f"nothing found in {source.root}"
            problems.add("source without anything usable", text, message)
        most = max((int(a.classes.max()) + 1 for a in found if len(a.classes)), default=0)
        names = source.class_names() or ()
        if most > len(class_names):
            raise ValueError(
                f"{text!r} has objects of at least {most} classes, but the model has {len(class_names)}. "
                "Expected a model of as many, named in training by --class-names in the data set's order"
                + (f": {', '.join(names)}" if names else "")
            )
        if len(names) > 1 and names != tuple(class_names)[: len(names)]:
            message = f"they are {', '.join(names)}, and taken for {', '.join(class_names)}"
            problems.add("classes of other names than the model's", text, message)
        annotations.extend(found)
    if not annotations:
        problems.log_counts()
        raise ValueError(f"nothing usable was found in {list(sources)}, looked for below {data}")
    return annotations
