"""Sources: data sets, or parts of them, as `FORMAT:PATH#SPLIT`."""

from __future__ import annotations

import copy
import functools
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from unitbox_tf import files, registry, spelling
from unitbox_tf.datasets import checks, sizes
from unitbox_tf.datasets import classes as by_name
from unitbox_tf.datasets.base import DataSet, Ids
from unitbox_tf.datasets.classes import Named, Rename
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
        rename: the new names of classes, by their names in the data set.
    """

    def __init__(self, text: str, data: str | Path = ".", *, rename: Rename | None = None) -> None:
        """Takes the text apart. Its path is relative to the folder `data`.

        Raises:
            ValueError: the text or `rename` has another form, the format is unknown, or the path does not
                exist.
            OSError: the path is neither a folder nor a regular file, or cannot be opened.
        """
        name, path, split = parts(text, "source", registry.DATASETS)
        if not isinstance(data, str | os.PathLike):
            raise ValueError(f"data: expected the path of a folder. Received: {data!r:.200}")
        if is_url(path):
            raise ValueError(
                f"{text!r}: expected a path. Received: a URL. Only training reads from URLs, and only shards: "
                "tfrecord:gs://bucket/folder#train"
            )
        root = Path(data) / path
        if path and not root.exists():
            raise ValueError(
                f"{root}: no such file or folder, needed for the source {text!r}.{_beside(root)} Give the "
                "folder that relative paths start from as data (--data), or another source."
            )
        if path and not root.is_dir():
            files.open_regular(root).close()  # reading a pipe would wait
        self.text, self.format, self.root, self.split = text, name, root, split
        self.rename: Mapping[str, str] = by_name.renames(rename)
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

    def renamed(self, rename: Rename) -> Source:
        """The same source with other new names of classes. It shares the files that were read."""
        other = copy.copy(self)
        other.rename = by_name.renames(rename)
        return other

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
            ValueError: nothing can be read, or none of the objects can be read.
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
        _check_objects(self, annotations, known)
        return list(annotations)

    def report_empty(self, problems: Problems) -> None:
        """Adds the problem that the source has no image."""
        message = f"no image of the format {self.format} found in {self.root}. Is the format or the path another one?"
        problems.add("source without anything usable", self.text, message)

    def class_names(self) -> tuple[str, ...] | None:
        """The names of the classes, renamed, in the order of their indices; None where the format has none."""
        stated = self._opened.class_names()
        return None if stated is None else tuple(self.rename.get(name, name) for name in stated)

    def own_names(self, annotations: Sequence[Annotation]) -> tuple[str, ...]:
        """The names of the classes before renaming. If the format has none, they are made up."""
        stated = self._opened.class_names()
        if stated is not None:
            return stated
        return by_name.made_up(by_name.num_classes(annotations), self._opened.usual_class)

    def named(self, annotations: Sequence[Annotation]) -> Named:
        """`annotations` of this source with the names of their classes.

        A source without names counts, unless one of the names that are made up for it is renamed.
        """
        own = self.own_names(annotations)
        counted = self._opened.class_names() is None and not self.rename.keys() & set(own)
        names = tuple(self.rename.get(name, name) for name in own)
        return Named(self.text, annotations, names, counted, self._opened.usual_class)

    def ids(self) -> Ids | None:
        """The numbers of images and categories in files of results; None where the format has none."""
        return self._opened.ids()


def _check_objects(
    source: Source, annotations: Iterable[Annotation], problems: Iterable[Problem]
) -> None:
    """Raises `ValueError` if objects are listed, but none could be read: training would learn that nothing is there."""
    unreadable = [problem for problem in problems if problem.kind == checks.UNREADABLE]
    if unreadable and not any(len(annotation.boxes) for annotation in annotations):
        raise ValueError(
            f"none of the objects in {source.text!r} can be read ({len(unreadable)} problems). The first: "
            f"{unreadable[0]}"
        )


def _beside(path: Path) -> str:
    """The end of a message that suggests a name like that of `path` in the same folder."""
    try:
        names = os.listdir(path.parent)
    except OSError:
        return ""
    return spelling.resembling(path.name, names)


def is_url(path: str) -> bool:
    """True if a path begins with the scheme of a file system, as `gs://`."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", path) is not None


def parts(text: str, argument: str, formats: Iterable[str]) -> tuple[str, str, str]:
    """Format, path and split of the text `FORMAT:PATH#SPLIT`, which is the caller's `argument`.

    Raises:
        ValueError: it is no text, has another form, or its format is not one of `formats`.
    """
    name, colon, rest = text.partition(":") if isinstance(text, str) else ("", "", "")
    if not colon or name not in formats:
        near = spelling.resembling(name, formats)
        raise ValueError(
            f"Expected a {argument} as FORMAT:PATH#SPLIT with a format of {sorted(formats)}. "
            f"Received: {text!r:.200}.{near}"
        )
    path, _, split = rest.partition("#")
    return name, path, split


def open(source: str | Source, data: str | Path = ".", *, rename: Rename | None = None) -> Source:
    """Opens the source `FORMAT:PATH#SPLIT`, whose path is relative to `data`. A `Source` is returned as it is.

    Args:
        source: the text, or an opened source.
        data: the folder that the relative path starts from.
        rename: new names of classes: texts `old=new`, or a mapping. None changes nothing.

    Raises:
        ValueError: the text or `rename` has another form, the format is unknown, or the path does not exist.
    """
    if isinstance(source, str) and ":" not in source and source.endswith(GIVEN_IN_PYTHON):
        raise ValueError(
            f"{source!r} is no source: this run was trained on data given in Python. Give train= and "
            "validation= of unitbox_tf.fit again, or name sources (train_sources, validation_sources)."
        )
    if isinstance(source, Source):
        return source if rename is None else source.renamed(rename)
    return Source(source, data, rename=rename)


def open_all(
    sources: str | Source | Iterable[str | Source],
    data: str | Path = ".",
    *,
    rename: Rename | None = None,
) -> list[Source]:
    """One or several sources; see `open`."""
    if isinstance(sources, str | Source) or not isinstance(sources, Iterable):
        sources = [sources]  # also unusable values, which `open` refuses
    if rename is not None and not isinstance(rename, Mapping):
        rename = by_name.renames(rename)  # it may be an iterator
    return [open(source, data, rename=rename) for source in sources]


def load(
    sources: str | Source | Iterable[str | Source],
    class_names: Sequence[str] | None = None,
    *,
    classes: Sequence[str] | None = None,
    rename: Rename | None = None,
    data: str | Path = ".",
    photos: bool = True,
    problems: Problems | None = None,
) -> list[Annotation]:
    """All annotations of `sources`, with the class indices of `class_names`.

    Classes are matched by name. Sources without names count: their class 0 is the first of `class_names`.
    Sizes and boxes are checked as in `sizes.check_sizes`. A source without anything usable is a problem.

    Args:
        sources: texts `FORMAT:PATH#SPLIT`, or opened sources.
        class_names: the class names of the model; None: the names that the function `class_names` gives.
        classes: only objects of these classes are kept; objects of other classes are background. None
            keeps all.
        rename: new names of classes: texts `old=new`, or a mapping. They come before all else.
        data: the folder that relative paths start from.
        photos: returns only images whose files are present. If False, files may be absent.
        problems: unusable items are added here.

    Raises:
        ValueError: a source has another form, an unknown format, a path that does not exist, or objects of
            a class that is not among `class_names`; no source has a class of `classes` or `rename`; no
            source has anything usable; or boxes are shares of the image.
    """
    problems = Problems.of(problems)
    opened, parts = _opened_parts(sources, data, rename, photos, problems)
    union = by_name.union(parts)
    counted = union if class_names is None else tuple(class_names)
    if classes is not None:
        classes = chosen(classes, parts, counted)
    names = tuple(class_names or classes or union)
    if classes is not None:
        by_name.checked_choice(classes, names, "the model lacks")
    return load_opened(opened, names, classes, counted, photos=photos, problems=problems)


def load_opened(
    sources: Sequence[Source],
    class_names: Sequence[str],
    classes: Sequence[str] | None = None,
    counted: Sequence[str] | None = None,
    *,
    photos: bool = True,
    problems: Problems | None = None,
) -> list[Annotation]:
    """As `load`, of opened sources, which may lack some of the chosen classes.

    Args:
        sources: the sources, which know how their classes are renamed.
        class_names: the class names of the model.
        classes: only objects of these classes are kept; None keeps all.
        counted: the names that sources without names count; None: `class_names`.
        photos: returns only images whose files are present.
        problems: unusable items are added here.

    Raises:
        ValueError: see `load`.
    """
    problems = Problems.of(problems)
    by_name.say_alike(class_names, problems)
    known_before = len(problems.found)
    annotations: list[Annotation] = []
    for source, part in zip(sources, _named(sources, photos, problems), strict=True):
        if not part.annotations:
            source.report_empty(problems)
        found = by_name.mapped(part, class_names, classes, counted)
        annotations.extend(sizes.check_sizes(found, problems=problems, name=source.text))
    if not annotations:
        problems.log_counts()
        more = problems.found[known_before:] or problems.found
        first = f". The first problem: {more[0]}" if more else ""
        texts = [source.text for source in sources]
        raise ValueError(f"nothing usable was found in {texts}{first}")
    return annotations


def class_names(
    sources: str | Source | Iterable[str | Source],
    *,
    classes: Sequence[str] | None = None,
    rename: Rename | None = None,
    data: str | Path = ".",
    photos: bool = True,
    problems: Problems | None = None,
) -> tuple[str, ...]:
    """The names of the classes of `sources` together, in the order of the sources; with `classes`, these.

    If no source has names, they are made up: the format's usual name or `object` for one class, or
    `class0`, `class1` ... The arguments and errors are those of `load`.
    """
    problems = Problems.of(problems)
    _, parts = _opened_parts(sources, data, rename, photos, problems)
    union = by_name.union(parts)
    return union if classes is None else chosen(classes, parts, union)


def _opened_parts(
    sources: str | Source | Iterable[str | Source],
    data: str | Path,
    rename: Rename | None,
    photos: bool,
    problems: Problems,
) -> tuple[list[Source], list[Named]]:
    """The opened sources, and their annotations with the names of their classes."""
    opened = open_all(sources, data, rename=rename)
    parts = _named(opened, photos, problems)
    if rename is not None:
        check_rename(opened, photos=photos)
    return opened, parts


def check_rename(sources: Sequence[Source], *, photos: bool = True) -> None:
    """Raises `ValueError` if a name that is to be renamed occurs in none of the sources."""
    rename = {old: new for source in sources for old, new in source.rename.items()}
    if rename:
        known = Problems(logged=False)  # reported where the annotations are used
        own = [
            source.own_names(source.annotations(photos=photos, problems=known))
            for source in sources
        ]
        by_name.check_renamed(rename, own)


def chosen(
    classes: Sequence[str], parts: Sequence[Named], counted: Sequence[str]
) -> tuple[str, ...]:
    """`classes`, checked. `counted` are the names that sources without names count.

    Raises:
        ValueError: no source has one of them.
    """
    known = [name for part in parts if not part.counted for name in part.names]
    for part in parts:
        if part.counted:
            known += [str(part.usual)] if part.usual in counted else counted[: part.most]
    return by_name.checked_choice(classes, list(dict.fromkeys(known)), "no source has")


def _named(sources: Sequence[Source], photos: bool, problems: Problems) -> list[Named]:
    return [
        source.named(source.annotations(photos=photos, problems=problems)) for source in sources
    ]


class Loaded(NamedTuple):
    """The annotations of one source.

    Attributes:
        annotations: the annotations, with the class indices of all sources together.
        names: the names of the classes of this source.
    """

    annotations: list[Annotation]
    names: tuple[str, ...]


def load_each(
    sources: Sequence[Source],
    classes: Sequence[str] | None = None,
    *,
    photos: bool = True,
    problems: Problems | None = None,
) -> tuple[list[Loaded], tuple[str, ...]]:
    """The annotations of each source, and the names of the classes of all sources together.

    Args:
        sources: the sources, which know how their classes are renamed.
        classes: only objects of these classes are kept, and the names are these; None keeps all.
        photos: returns only images whose files are present.
        problems: unusable items are added here.

    Raises:
        ValueError: nothing can be read, no source has a class that is to be kept or renamed, or boxes are
            shares of the image.
    """
    problems = Problems.of(problems)
    parts = _named(sources, photos, problems)
    check_rename(sources, photos=photos)
    union = by_name.union(parts)
    names = union if classes is None else chosen(classes, parts, union)
    by_name.say_alike(names, problems)
    loaded = []
    for source, part in zip(sources, parts, strict=True):
        if not part.annotations:
            source.report_empty(problems)
        found = by_name.mapped(part, names, classes, union)
        checked = sizes.check_sizes(found, problems=problems, name=source.text)
        own = set(by_name.names_of(part, union))
        loaded.append(Loaded(checked, tuple(name for name in names if name in own)))
    return loaded, names
