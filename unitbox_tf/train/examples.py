"""The forms of training and validation data that `fit` takes, and the one form in which training uses them.

* A sequence of `Annotation`: images in memory or in files, with their objects.
* A sequence of sources: texts as in the configuration, `FORMAT:PATH#SPLIT`, or opened ones.
* A sequence of sources that stream: shards with a URL (`tfrecord:gs://bucket/shards#train`), or any shards to train on
  with `config.data.stream`. Training reads them as described in `streaming`, and keeps no annotation. The first
  `config.train.validation_images` images of shards with a URL are validated, and kept in memory.
* A `tf.data.Dataset` of dicts, one image each: `"image"` uint8 `[H, W, 3]`, `"boxes"` `xyxy` `[N, 4]` in
  pixels, and if wanted `"classes"` `[N]`, 0 where missing, and `"ignore"` `[N]` bool.

A data set for training streams through augmentation, and nothing of it is kept. It is read in its own
order, again and again, so shuffle it. With `config.data.mosaic`, it is read twice at the same time, and
once more for each further number of `config.data.mosaic_rows`. Its first element is read before
training. The first `config.train.validation_images` elements of a data set for validation are kept in
memory, encoded as PNG. Its other elements are not read. An unusable element raises `ValueError` before
training, and `tf.errors.InvalidArgumentError` later.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf

from unitbox_tf import datasets, runs
from unitbox_tf.config import Config, Protocol
from unitbox_tf.datasets import classes as by_name
from unitbox_tf.datasets import source as source_files
from unitbox_tf.datasets.source import GIVEN_IN_PYTHON, Source
from unitbox_tf.evaluation import protocols
from unitbox_tf.problems import Problems
from unitbox_tf.records import Annotation
from unitbox_tf.train import reading, streaming
from unitbox_tf.train.streaming import Stream, Streamed

logger = logging.getLogger(__name__)

FIRST = 64  # images of sources that stream, which are looked at before training
STREAM = f"a tf.data.Dataset {GIVEN_IN_PYTHON}"
Given: TypeAlias = Sequence[Annotation] | Sequence[str | Source | Streamed] | tf.data.Dataset


@dataclasses.dataclass(frozen=True)
class Training:
    """The training data of a run.

    Attributes:
        examples: annotations, a data set of elements as described by `reading.ELEMENT`, or shards.
        origin: the origin of the examples, for the stored configuration and the model card: sources that can
            be read again, or words that end in `GIVEN_IN_PYTHON`.
    """

    examples: list[Annotation] | tf.data.Dataset | Stream
    origin: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Validation:
    """The validation data of a run.

    Attributes:
        annotations: all annotations. They judge the best weights when training has ended.
        watched: the annotations that judge each epoch.
        sources: the data sets of the annotations, which some protocols need; empty if they are from memory.
        origin: as in `Training`.
    """

    annotations: list[Annotation]
    watched: list[Annotation]
    sources: list[Source]
    origin: tuple[str, ...]

    def judge(
        self,
        annotations: Sequence[Annotation],
        protocol: Protocol,
        *,
        problems: Problems | None = None,
    ) -> protocols.Judge:
        """The protocol for some of the annotations. Errors are those of `protocols.make`."""
        return protocols.make(protocol, annotations, self.sources, problems=problems)


def opened(given: Given | None, argument: str, config: Config) -> Given:
    """The data from the caller or, if `given` is None, from `config`. Sources are opened, and read only once.

    Args:
        given: see `Given`.
        argument: `train` or `validation`.
        config: the settings; they say how classes are renamed.

    Raises:
        ValueError: `given` is of another kind, or a source cannot be opened.
    """
    if isinstance(given, tf.data.Dataset):
        return given
    if given is None:
        given = getattr(config.data, f"{argument}_sources")
    items = list(given) if isinstance(given, Iterable) and not isinstance(given, str) else [given]
    _not_empty(items, argument, given)
    if all(isinstance(item, Annotation) for item in items):
        return items
    if isinstance(given, str) or not all(
        isinstance(item, str | Source | Streamed) for item in items
    ):
        kinds = sorted({type(item).__name__ for item in items})
        received = repr(given) if isinstance(given, str) else ", ".join(kinds)
        raise ValueError(
            f"{argument}: expected a sequence of Annotation, a sequence of sources, or a "
            f"tf.data.Dataset. Received: {received}"
        )
    return _opened(items, argument, config)


def _opened(items: Sequence[Any], argument: str, config: Config) -> list[Any]:
    """Each item opened: as `Streamed` if it streams, else as `Source`.

    Raises:
        ValueError: only some of the training sources stream.
    """
    data, rename = config.data, config.data.rename or None
    stream = data.stream and argument == "train"
    found: list[Any] = []
    for item in items:
        if isinstance(item, Streamed):
            found.append(item)
        elif streaming.is_streamed(item, stream):
            found.append(streaming.opened(item, data.data, rename=rename))
        else:
            found.append(datasets.open(item, data.data, rename=rename))
    apart = [each.text for each in found if isinstance(each, Source)]
    if (argument == "train" and 0 < len(apart) < len(found)) or (stream and apart):
        raise ValueError(
            "stream (--stream): expected all training sources as shards (tfrecord), since all stream or none. "
            f"Received: {', '.join(apart)}. Convert the others to shards first: unitbox convert"
        )
    return found


def with_class_names(
    config: Config, train: Given, validation: Given, resume: str | Path | None = None
) -> Config:
    """`config` with the names of the classes: its own, those of the resumed run, or those of the training data.

    Args:
        config: the settings.
        train: the training data, as `opened` gives it.
        validation: the validation data, as `opened` gives it.
        resume: the folder of a run to go on with, which keeps its names.

    Raises:
        ValueError: the names are not known, differ from those of the resumed run, or no source has a class
            that is chosen (`classes`) or renamed (`rename`).
    """
    names, chosen = config.model.class_names, config.data.classes or None
    if resume is not None and runs.Run(Path(resume)).exists:
        kept = runs.Run(Path(resume)).config().model.class_names
        if names not in ((), kept):
            raise ValueError(
                f"class_names (--class-names): a resumed run keeps its classes, {', '.join(kept)}, in this "
                f"order. Received: {', '.join(names)}"
            )
        names = kept
    taught, judged = _sources(train), _sources(validation)
    streams = [*_streams(train), *_streams(validation)]
    if (chosen or config.data.rename) and not [*taught, *judged, *streams]:
        raise ValueError(
            "classes (--classes) and rename (--rename) are for sources. Received: data given in Python, whose "
            "classes are indices into class_names"
        )
    if streams:
        _check_rename(config, taught + judged, streams)
    else:
        source_files.check_rename(taught + judged)
    known = Problems(logged=False)  # reported where the annotations are used
    if chosen and taught:
        chosen = datasets.class_names(taught, classes=chosen, problems=known)  # checks them
    elif chosen and _streams(train):
        chosen = by_name.checked_choice(chosen, names or _union(_streams(train)), "no source has")
    if not names:
        names = _names_of(train, chosen, known)
        logger.info("classes: %s", ", ".join(names))
    return dataclasses.replace(config, model=dataclasses.replace(config.model, class_names=names))


def _names_of(train: Given, chosen: Sequence[str] | None, problems: Problems) -> tuple[str, ...]:
    """The names of the classes of training data. Data given in Python has only numbers: one class is `object`.

    Raises:
        ValueError: data given in Python has several classes.
    """
    if isinstance(train, tf.data.Dataset):
        return ("object",)  # its elements are checked where they are read
    if _streams(train):
        return tuple(chosen) if chosen else _union(_streams(train))
    taught = _sources(train)
    if taught:
        return datasets.class_names(taught, classes=chosen, problems=problems)
    count = by_name.num_classes(item for item in train if isinstance(item, Annotation))
    if count > 1:
        raise ValueError(
            f"class_names: expected the names of the {count} classes, as training data given in Python has "
            'only their indices: ModelConfig(class_names=("cat", "dog")). Received none'
        )
    return ("object",)


def _sources(given: Given) -> list[Source]:
    """The sources in data that `opened` gave; none if it is from Python."""
    if isinstance(given, tf.data.Dataset):
        return []
    return [item for item in given if isinstance(item, Source)]


def _streams(given: Given) -> list[Streamed]:
    """The sources that stream, in data that `opened` gave."""
    if isinstance(given, tf.data.Dataset):
        return []
    return [item for item in given if isinstance(item, Streamed)]


def _union(streams: Sequence[Streamed]) -> tuple[str, ...]:
    """The names of the classes of all sources. Raises `ValueError` if none has names: shards are not read to count."""
    names = dict.fromkeys(name for stream in streams for name in stream.names or ())
    if not names:
        raise ValueError(
            "class_names (--class-names): expected the names of the classes, or labels.txt beside the shards, since "
            f"shards that stream are not read before. Received neither for {', '.join(s.text for s in streams)}"
        )
    return tuple(names)


def _check_rename(config: Config, sources: Sequence[Source], streams: Sequence[Streamed]) -> None:
    """Raises `ValueError` if a name that is to be renamed occurs in none of the sources."""
    rename, known = by_name.renames(config.data.rename), Problems(logged=False)
    if rename:
        own = [each.own_names(each.annotations(problems=known)) for each in sources]
        own += [each.own_names for each in streams if each.own_names is not None]
        by_name.check_renamed(rename, own)


def _stream(streams: Sequence[Streamed], config: Config, counted: Sequence[str]) -> Stream:
    data = config.data
    return Stream(
        streams,
        config.model.class_names,
        classes=data.classes or None,
        counted=counted,
        buffer=data.stream_buffer,
    )


def _first(
    streams: Sequence[Streamed],
    most: int,
    config: Config,
    counted: Sequence[str],
    problems: Problems,
) -> list[Annotation]:
    """The first images of sources that stream, with sizes that are checked as those of other sources."""
    found = _stream(streams, config, counted).annotations(
        most, max_pixels=config.decode.max_pixels, problems=problems
    )
    return datasets.check_sizes(found, problems=problems)


def training(given: Given | None, config: Config, *, problems: Problems | None = None) -> Training:
    """The training data from the caller or, if `given` is None, from `config`, which names the classes.

    Raises:
        ValueError: it cannot be used, or none of its images can be decoded.
    """
    problems = Problems.of(problems)
    given = opened(given, "train", config)
    num_classes = len(config.model.class_names)
    if isinstance(given, tf.data.Dataset):
        reading.check_elements(given)
        # Reading the first element shows errors at once: wrong classes, or no elements.
        _not_empty(reading.annotations_of(given, 1, num_classes), "train", given)
        return Training(given, (STREAM,))
    streams = _streams(given)
    if streams:
        counted = _counted(config, given)
        some = _first(streams, FIRST, config, counted, problems)
        _not_empty(some, "train", [each.text for each in streams])
        reading.readable(some, enough=1, max_pixels=config.decode.max_pixels, problems=problems)
        stream = _stream(streams, config, counted)
        images = stream.count()
        of = "an unknown number of" if images is None else f"{images:,}"
        logger.info("%s training images stream from %d shards", of, len(stream))
        return Training(stream, tuple(each.text for each in streams))
    found, _, origin = _annotations(given, config, _counted(config, given), problems=problems)
    reading.readable(found, enough=1, max_pixels=config.decode.max_pixels, problems=problems)
    logger.info("%d training images", len(found))
    return Training(found, origin)


def validation(
    given: Given | None,
    config: Config,
    *,
    train: Given | None = None,
    problems: Problems | None = None,
) -> Validation:
    """The validation data from the caller or, if `given` is None, from `config`, which names the classes.

    A `tf.data.Dataset` gives its first `validation_images` elements, and so do sources that stream. `train` is the
    training data, which says what sources without names count, if only some classes are trained on.

    Raises:
        ValueError: it cannot be used, none of its images can be decoded, or it lacks facts that the
            validation protocol needs.
    """
    problems = Problems.of(problems)
    given = opened(given, "validation", config)
    count = config.train.validation_images
    sources: list[Source] = []
    if isinstance(given, tf.data.Dataset):
        found = reading.annotations_of(given, count, len(config.model.class_names))
        _not_empty(found, "validation", given)
        origin: tuple[str, ...] = (STREAM,)
    else:
        counted = _counted(config, opened(train, "train", config))
        found, origin = [], ()
        apart = [item for item in given if not isinstance(item, Streamed)]
        if apart:
            found, sources, origin = _annotations(apart, config, counted, problems=problems)
        streams = _streams(given)
        if streams:
            some = _first(streams, count, config, counted, problems)
            _not_empty(some, "validation", [each.text for each in streams])
            found = [*found, *some]
            origin = (*origin, *(each.text for each in streams))
    chosen = np.linspace(0, len(found) - 1, min(len(found), count)).round().astype(int)
    watched = reading.readable(
        [found[index] for index in chosen], max_pixels=config.decode.max_pixels, problems=problems
    )
    made = Validation(found, watched, sources, origin)
    made.judge(found, config.train.validation_protocol, problems=problems)  # says what it lacks
    logger.info("%d validation images, of which %d judge each epoch", len(found), len(watched))
    return made


def _annotations(
    given: Given, config: Config, counted: Sequence[str], *, problems: Problems
) -> tuple[list[Annotation], list[Source], tuple[str, ...]]:
    """The annotations in `given`, the data sets that they are from, and their origin in words."""
    names, sources = config.model.class_names, _sources(given)
    if not sources:
        items: list[Any] = list(given)
        reading.check_classes(items, len(names))
        found = datasets.check_sizes(items, problems=problems)
        _not_empty(found, "annotations", problems.found)
        return found, [], (f"{len(items)} annotations {GIVEN_IN_PYTHON}",)
    found = source_files.load_opened(
        sources, names, config.data.classes or None, counted, problems=problems
    )
    return found, sources, tuple(source.text_below(config.data.data) for source in sources)


def _counted(config: Config, train: Given) -> tuple[str, ...]:
    """The names that sources without names count.

    They are the names of the model. If these are the chosen classes of the training data, they are all
    classes of this data.
    """
    names, taught = config.model.class_names, _sources(train)
    if config.data.classes and config.data.classes == names and _streams(train):
        named = [each for each in _streams(train) if each.names is not None]
        return _union(named) if named else names
    if config.data.classes and config.data.classes == names and taught:
        return datasets.class_names(taught, problems=Problems(logged=False))
    return names


def _not_empty(found: Sequence[Any], argument: str, given: Any) -> None:
    if not found:
        raise ValueError(f"{argument}: expected at least one image. Received: {given!r}")
