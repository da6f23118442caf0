"""Writes a data set in another format."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unitbox_tf import registry
from unitbox_tf.datasets import source as sources
from unitbox_tf.datasets import writing
from unitbox_tf.datasets.classes import Rename
from unitbox_tf.problems import PROBLEMS_FILE, Problems
from unitbox_tf.progress import Progress
from unitbox_tf.records import Annotation


@dataclasses.dataclass(frozen=True)
class Conversion:
    """The outcome of `convert`.

    Attributes:
        root: the folder that was written.
        read: how many images, boxes and ignored boxes the source has.
        written: how many of them were written.
        problems: items that could not be read or written. They are also in `problems_file`.
        problems_file: the file of problems; None if there are none.
    """

    root: Path
    read: writing.Written
    written: writing.Written
    problems: Problems
    problems_file: Path | None

    def table(self) -> str:
        """The outcome in lines, for people."""
        lines = [
            f"{title:>10}  {counts.images} images, {counts.boxes} boxes, {counts.ignored} of them ignored"
            for title, counts in (("read", self.read), ("written", self.written))
        ]
        lines.append(f"{'to':>10}  {self.root}")
        lines += [f"{count:>10}  x {kind}" for kind, count in self.problems.counts.items()]
        if self.problems_file:
            lines.append(f"{'all':>10}  in {self.problems_file}")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """The same facts as a dict for json."""
        return {
            "output": str(self.root),
            "read": self.read._asdict(),
            "written": self.written._asdict(),
            "problems": dict(self.problems.counts),
            "problems_file": str(self.problems_file) if self.problems_file else None,
        }


def writable() -> list[str]:
    """The names of the formats in which data sets can be written."""
    return sorted(name for name in registry.DATASETS if registry.DATASETS[name].write)


def convert(
    source: str | sources.Source,
    destination: str,
    *,
    classes: Sequence[str] | None = None,
    rename: Rename | None = None,
    data: str | Path = ".",
    photos: writing.PhotosAs = "copy",
    problems: Problems | None = None,
) -> Conversion:
    """Writes a data set in another format. Sizes and boxes are checked as in `sizes.check_sizes`.

    Args:
        source: a text `FORMAT:PATH#SPLIT`, or an opened source.
        destination: a new folder as `FORMAT:PATH#SPLIT`, not relative to `data`.
        classes: only objects of these classes are written, numbered in this order; None writes all.
        rename: new names of classes: texts `old=new`, or a mapping.
        data: the folder that the source's relative path starts from.
        photos: whether image files are copied (`"copy"`), hard-linked (`"link"`), or left out
            (`"none"`). In the last case the files may be absent.
        problems: items that cannot be read or written are added here.

    Raises:
        ValueError: the source or the destination has another form, the source has nothing usable or no class
            of `classes` or `rename`, or the destination has files or cannot hold the names of the classes.
        OSError: a file cannot be read or written.
    """
    problems = Problems.of(problems)
    source = sources.open(source, data, rename=rename)
    if photos not in typing.get_args(writing.PhotosAs):
        raise ValueError(
            f"Expected images as one of {typing.get_args(writing.PhotosAs)}. Received: {photos!r}"
        )
    form, path, split = sources.parts(destination, "destination", writable())
    if not path:
        raise ValueError(
            f"Expected a destination as FORMAT:PATH#SPLIT with a path. Received: {destination!r}"
        )
    there = photos != "none"
    known_before = len(problems.found)
    [(annotations, _)], names = sources.load_each(
        [source], classes, photos=there, problems=problems
    )
    if not annotations:
        problems.log_counts()
        first = (
            f". The first problem: {problems.found[known_before]}"
            if problems.found[known_before:]
            else ""
        )
        raise ValueError(f"nothing usable was found in {source.text!r}: {source.root}{first}")
    try:
        writing.check_class_names(names)
    except ValueError as error:
        raise ValueError(f"{source.root}: {error}") from error
    root = Path(path)
    written = registry.DATASETS[form].write(
        Progress(annotations, "writing", len(annotations)),
        root,
        split,
        names,
        photos=photos,
        problems=problems,
    )
    problems_file = root / PROBLEMS_FILE if problems.found else None
    if problems_file:
        problems.add_to(problems_file)
    return Conversion(root, _counts(annotations), written, problems, problems_file)


def _counts(annotations: Sequence[Annotation]) -> writing.Written:
    boxes = sum(len(a.boxes) for a in annotations)
    return writing.Written(len(annotations), boxes, sum(int(a.ignore.sum()) for a in annotations))
