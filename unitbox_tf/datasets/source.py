"""Sources: data sets, or parts of them, as `FORMAT:PATH#SPLIT`."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from unitbox_tf import registry
from unitbox_tf.datasets.base import DataSet, Ids
from unitbox_tf.problems import Problem, Problems
from unitbox_tf.progress import Progress
from unitbox_tf.records import Annotation

GIVEN_IN_PYTHON = "given in Python"  # ends the stored origin of data that no source can read again


class Source:
    """A data set, or a part of it. Its files are read once, when they are first needed.

    Attributes:
        text: the source as it was written.
        format: a name in `registry.DATASETS`.
        root: a file or folder.
        split: a part of the data set in the format's own words; an empty text is all of it.
    """

    def __init__(self, text: str, data: str | Path = ".") -> None:
        """Takes the text apart. Its path is relative to the folder `data`.

        Raises:
            ValueError: the text has another form, the format is unknown, or the path does not exist.
        """
        name, path, split = parts(text, "source", registry.DATASETS)
        if not isinstance(data, str | os.PathLike):
            raise ValueError(f"data: expected the path of a folder. Received: {data!r:.200}")
        root = Path(data) / path
        if path and not root.exists():
            raise ValueError(
                f"{root}: no such file or folder, needed for the source {text!r}. Give the "
                "folder that relative paths start from as data (--data), or another source."
            )
        self.text, self.format, self.root, self.split = text, name, root, split
        self._read: dict[bool, tuple[list[Annotation], list[Problem]]] = {}

    def text_below(self, data: str | Path) -> str:
        """The source as it is written where relative paths start from the folder `data`."""
        path = self.text.partition(":")[2].partition("#")[0]
        root = self.root.resolve()
        if (
            root == (Path(data) / path).resolve() or not root.exists()
        ):  # synthetic images need no folder
            return self.text
        split = f"#{self.split}" if self.split else ""
        return f"{self.format}:{root}{split}"

    def __repr__(self) -> str:
        return f"Source({self.text!r})"

    @functools.cached_property
    def _opened(self) -> DataSet:
        opened: DataSet = registry.DATASETS[self.format].open(self.root, self.split)
        return opened

    def annotations(
        self, *, photos: bool = True, problems: Problems | None = None
    ) -> list[Annotation]:
        """The images and their objects, in the order of the files.

        Args:
            photos: returns only images whose files are present. If False, files may be absent.
            problems: unusable items are added here, at each call.

        Raises:
            ValueError: nothing can be read.
        """
        problems = Problems.of(problems)
        if photos not in self._read:
            found = Problems(logged=False)
            try:
                reading = self._opened.annotations(photos=photos, problems=found)
                read = list(Progress(reading, f"reading {self.text}", None))
            finally:
                problems.add_all(found.found)
            self._read[photos] = read, found.found
        annotations, known = self._read[photos]
        problems.add_all(known)
        return list(annotations)

    def class_names(self) -> tuple[str, ...] | None:
        """The names of the classes, in the order of their indices; None where the format has none."""
        return self._opened.class_names()

    def ids(self) -> Ids | None:
        """The numbers of images and categories in files of results; None where the format has none."""
        return self._opened.ids()


def parts(text: str, argument: str, formats: Iterable[str]) -> tuple[str, str, str]:
    """Format, path and split of the text `FORMAT:PATH#SPLIT`, which is the caller's `argument`.

    Raises:
        ValueError: it is no text, has another form, or its format is not one of `formats`.
    """
    name, colon, rest = text.partition(":") if isinstance(text, str) else ("", "", "")
    if not colon or name not in formats:
        raise ValueError(
            f"Expected a {argument} as FORMAT:PATH#SPLIT with a format of {sorted(formats)}. "
            f"Received: {text!r:.200}"
        )
    path, _, split = rest.partition("#")
    return name, path, split


def open(source: str | Source, data: str | Path = ".") -> Source:
    """Opens the source `FORMAT:PATH#SPLIT`, whose path is relative to `data`. A `Source` is returned as it is.

    Raises:
        ValueError: the text has another form, the format is unknown, or the path does not exist.
    """
    if isinstance(source, str) and ":" not in source and source.endswith(GIVEN_IN_PYTHON):
        raise ValueError(
            f"{source!r} is no source: this run was trained on data given in Python. Give train= and "
            "validation= of unitbox_tf.fit again, or name sources (train_sources, validation_sources)."
        )
    return source if isinstance(source, Source) else Source(source, data)


def open_all(
    sources: str | Source | Iterable[str | Source], data: str | Path = "."
) -> list[Source]:
    """One or several sources; see `open`."""
    if isinstance(sources, str | Source) or not isinstance(sources, Iterable):
        sources = [sources]  # also unusable values, which `open` refuses
    return [open(source, data) for source in sources]


def load(
    sources: str | Source | Iterable[str | Source],
    class_names: Sequence[str] | None = None,
    *,
    data: str | Path = ".",
    photos: bool = True,
    problems: Problems | None = None,
) -> list[Annotation]:
    """All annotations of `sources`.

    A source without anything usable is a problem, and so is a source with several classes whose names
    are not the first of `class_names`. An error is raised only if no source has anything usable.

    Args:
        sources: texts `FORMAT:PATH#SPLIT`, or opened sources.
        class_names: the class names of the model; None allows any classes.
        data: the folder that relative paths start from.
        photos: returns only images whose files are present. If False, files may be absent.
        problems: unusable items are added here.

    Raises:
        ValueError: a source has another form, an unknown format, a path that does not exist, or more
            classes than `class_names`; or no source has anything usable.
    """
    problems = Problems.of(problems)
    opened = open_all(sources, data)
    annotations: list[Annotation] = []
    for source in opened:
        found = source.annotations(photos=photos, problems=problems)
        if not found:
            message = f"nothing found in {source.root}"
            problems.add("source without anything usable", source.text, message)
        if class_names is not None:
            _check_classes(source, found, tuple(class_names), problems)
        annotations.extend(found)
    if not annotations:
        problems.log_counts()
        texts = [source.text for source in opened]
        raise ValueError(f"nothing usable was found in {texts}, looked for below {data}")
    return annotations


def _check_classes(
    source: Source, found: Sequence[Annotation], class_names: tuple[str, ...], problems: Problems
) -> None:
    names = source.class_names() or ()
    most = num_classes(found)
    if most > len(class_names):
        raise ValueError(
            f"{source.text!r} has objects of at least {most} classes, but the model has {len(class_names)}. "
            "Expected a model with as many classes: name them in training as class_names (--class-names), "
            "in the data set's order" + (f": {', '.join(names)}" if names else "")
        )
    if len(names) > 1 and names != class_names[: len(names)]:
        message = f"they are {', '.join(names)}, and taken for {', '.join(class_names)}"
        problems.add("classes of other names than the model's", source.text, message)


def num_classes(annotations: Iterable[Annotation]) -> int:
    """One more than the highest class of an object; 0 without objects."""
    return max((int(a.classes.max()) + 1 for a in annotations if len(a.classes)), default=0)


def names_of_classes(source: Source, annotations: Sequence[Annotation]) -> tuple[str, ...]:
    """The class names of the source. If it has none, `object`, or `class0`, `class1` ... for several classes."""
    count = num_classes(annotations)
    made_up = tuple(f"class{index}" for index in range(count)) if count > 1 else ("object",)
    return source.class_names() or made_up
