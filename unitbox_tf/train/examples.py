"""The forms of training and validation data that `fit` takes, and the one form in which training uses them.

* A sequence of `Annotation`: images in memory or in files, with their objects.
* A sequence of sources: texts as in the configuration, `FORMAT:PATH#SPLIT`, or opened ones.
* A `tf.data.Dataset` of dicts, one image each: `"image"` uint8 `[H, W, 3]`, `"boxes"` `xyxy` `[N, 4]` in
  pixels, and if wanted `"classes"` `[N]`, 0 where missing, and `"ignore"` `[N]` bool.

A data set for training streams through augmentation, and nothing of it is kept. It is read in its own order,
again and again, so shuffle it. With `config.data.mosaic`, it is read twice at the same time. Its first
element is read before training. The first `config.train.validation_images` elements of a data set for
validation are kept in memory, encoded as PNG. Its other elements are not read. An unusable element raises
`ValueError` before training, and `tf.errors.InvalidArgumentError` later.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf

from unitbox_tf import datasets
from unitbox_tf.config import Config, Protocol
from unitbox_tf.datasets.source import GIVEN_IN_PYTHON, Source
from unitbox_tf.evaluation import protocols
from unitbox_tf.problems import Problems
from unitbox_tf.records import Annotation
from unitbox_tf.train import reading

logger = logging.getLogger(__name__)

STREAM = f"a tf.data.Dataset {GIVEN_IN_PYTHON}"
Given: TypeAlias = Sequence[Annotation] | Sequence[str | Source] | tf.data.Dataset


@dataclasses.dataclass(frozen=True)
class Training:
    """The training data of a run.

    Attributes:
        examples: annotations, or a data set of elements as described by `reading.ELEMENT`.
        origin: the origin of the examples, for the stored configuration and the model card: sources that can
            be read again, or words that end in `GIVEN_IN_PYTHON`.
    """

    examples: list[Annotation] | tf.data.Dataset
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


def training(given: Given | None, config: Config, *, problems: Problems | None = None) -> Training:
    """The training data from the caller or, if `given` is None, from `config`.

    Raises:
        ValueError: it cannot be used, or none of its images can be decoded.
    """
    problems = Problems.of(problems)
    num_classes = len(config.model.class_names)
    if isinstance(given, tf.data.Dataset):
        reading.check_elements(given)
        # Reading the first element shows errors at once: wrong classes, or no elements.
        _not_empty(reading.annotations_of(given, 1, num_classes), "train", given)
        return Training(given, (STREAM,))
    sources = config.data.train_sources if given is None else given
    found, _, origin = _annotations(sources, "train", config, problems=problems)
    reading.readable(found, enough=1, problems=problems)
    logger.info("%d training images", len(found))
    return Training(found, origin)


def validation(
    given: Given | None, config: Config, *, problems: Problems | None = None
) -> Validation:
    """The validation data from the caller or, if `given` is None, from `config`.

    A `tf.data.Dataset` gives its first `validation_images` elements.

    Raises:
        ValueError: it cannot be used, none of its images can be decoded, or it lacks facts that the
            validation protocol needs.
    """
    problems = Problems.of(problems)
    count = config.train.validation_images
    sources: list[Source] = []
    if isinstance(given, tf.data.Dataset):
        found = reading.annotations_of(given, count, len(config.model.class_names))
        _not_empty(found, "validation", given)
        origin: tuple[str, ...] = (STREAM,)
    else:
        texts = config.data.validation_sources if given is None else given
        found, sources, origin = _annotations(texts, "validation", config, problems=problems)
    chosen = np.linspace(0, len(found) - 1, min(len(found), count)).round().astype(int)
    watched = reading.readable([found[index] for index in chosen], problems=problems)
    made = Validation(found, watched, sources, origin)
    made.judge(found, config.train.validation_protocol, problems=problems)  # says what it lacks
    logger.info("%d validation images, of which %d judge each epoch", len(found), len(watched))
    return made


def _annotations(
    given: Any, argument: str, config: Config, *, problems: Problems
) -> tuple[list[Annotation], list[Source], tuple[str, ...]]:
    """The annotations in `given`, the data sets that they are from, and their origin in words."""
    items = list(given) if isinstance(given, Iterable) and not isinstance(given, str) else [given]
    names = config.model.class_names
    _not_empty(items, argument, given)
    if all(isinstance(item, Annotation) for item in items):
        reading.check_classes(items, len(names))
        return items, [], (f"{len(items)} annotations {GIVEN_IN_PYTHON}",)
    if isinstance(given, str) or not all(isinstance(item, str | Source) for item in items):
        kinds = sorted({type(item).__name__ for item in items})
        received = repr(given) if isinstance(given, str) else ", ".join(kinds)
        raise ValueError(
            f"{argument}: expected a sequence of Annotation, a sequence of sources, or a "
            f"tf.data.Dataset. Received: {received}"
        )
    sources = datasets.open_all(items, config.data.data)
    found = datasets.load(sources, names, data=config.data.data, problems=problems)
    return found, sources, tuple(source.text_below(config.data.data) for source in sources)


def _not_empty(found: Sequence[Any], argument: str, given: Any) -> None:
    if not found:
        raise ValueError(f"{argument}: expected at least one image. Received: {given!r}")
