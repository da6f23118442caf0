"""Looks at data sets before training: what is in them, what the network can see of it, what is there twice."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unitbox_tf import images as image_ops
from unitbox_tf.config import Config
from unitbox_tf.datasets import classes as by_name
from unitbox_tf.datasets import duplicates, readiness, shown, words
from unitbox_tf.datasets import source as sources
from unitbox_tf.datasets.classes import Rename
from unitbox_tf.datasets.duplicates import Repeat
from unitbox_tf.datasets.shown import Limits
from unitbox_tf.datasets.suggestions import Suggestion, suggest
from unitbox_tf.datasets.summary import Measured, Quartiles, Summary, measure
from unitbox_tf.presets import PRESETS
from unitbox_tf.problems import Problems
from unitbox_tf.records import Annotation

DEFAULT_PRESET = "faces"  # the recipe for real images
RARE = 10  # a class with so many times fewer objects than the most frequent one is called rare

Given = str | sources.Source | Iterable[str | sources.Source]


@dataclasses.dataclass(frozen=True)
class Shown:
    """The sizes at which the network is shown objects, in training or at one scale of detection.

    Attributes:
        name: where they are shown.
        long_sides: the longer sides, in pixels as shown.
        unseen: share of the objects with a shorter side below a stride; None if the limits are unknown.
        small: share of the objects with a shorter side below two strides, with those above.
        large: share of the objects with a longer side above three quarters of the field of view.
        beyond: share of the objects with a longer side above the field of view.
    """

    name: str
    long_sides: Quartiles
    unseen: float | None
    small: float | None
    large: float | None
    beyond: float | None

    @classmethod
    def of(
        cls, name: str, long_sides: np.ndarray, short_sides: np.ndarray, limits: Limits | None
    ) -> Shown | None:
        """The sizes `[N]` against the limits; None without objects."""
        quartiles = Quartiles.of(long_sides)
        if quartiles is None:
            return None
        if limits is None:
            return cls(name, quartiles, None, None, None, None)
        return cls(
            name,
            quartiles,
            unseen=float((short_sides < limits.stride).mean()),
            small=float((short_sides < limits.smallest).mean()),
            large=float((long_sides > limits.largest).mean()),
            beyond=float((long_sides > limits.field).mean()),
        )


@dataclasses.dataclass(frozen=True)
class Duplicates:
    """Images that are there more than once. Indices are those of `Inspection.annotations`.

    Attributes:
        training: training images that repeat an earlier one.
        validation: validation images that repeat an earlier one.
        shared: validation images that repeat a training image.
        flat: images of one colour, which are compared by their bytes alone.
        compared: False if only bytes were compared.
    """

    training: tuple[Repeat, ...]
    validation: tuple[Repeat, ...]
    shared: tuple[Repeat, ...]
    flat: tuple[int, ...]
    compared: bool


@dataclasses.dataclass(frozen=True)
class Inspection:
    """The outcome of `inspect`.

    Attributes:
        sources: a summary of each source of training images.
        total: a summary of all training images.
        validation_sources: a summary of each source of validation images.
        validation: a summary of all validation images; None if there is no such source.
        shown: the sizes at which training and each scale of detection show the training objects.
        limits: what the network can see; None if it is not known for the backbone.
        unfit: share of the objects that have a good size at no scale of detection; None if unknown.
        duplicates: images that are there more than once.
        obstacles: reasons for which `fit` refuses the data.
        suggestions: settings of sizes, with reasons.
        remarks: what else is worth knowing, in sentences.
        problems: items that could not be used.
        annotations: the training images and, after them, the validation images.
        class_names: the names of the classes of `annotations`.
        config: the settings by which sizes were judged.
    """

    sources: tuple[Summary, ...]
    total: Summary
    validation_sources: tuple[Summary, ...]
    validation: Summary | None
    shown: tuple[Shown, ...]
    limits: Limits | None
    unfit: float | None
    duplicates: Duplicates
    obstacles: tuple[str, ...]
    suggestions: tuple[Suggestion, ...]
    remarks: tuple[str, ...]
    problems: Problems
    annotations: tuple[Annotation, ...] = dataclasses.field(repr=False)
    class_names: tuple[str, ...]
    config: Config = dataclasses.field(repr=False)

    @property
    def training_images(self) -> Sequence[Annotation]:
        """The training images."""
        return self.annotations[: self.total.images]

    def table(self) -> str:
        """The facts in lines, for people."""
        return words.table(self)

    @property
    def options(self) -> str:
        """The suggestions as options of `unitbox fit`."""
        return " ".join(suggestion.option for suggestion in self.suggestions)

    def to_dict(self) -> dict[str, Any]:
        """All facts as a dict for json."""
        places = [annotation.where for annotation in self.annotations]

        def named(repeats: Iterable[Repeat]) -> list[dict[str, Any]]:
            return [
                {"image": places[each.image], "other": places[each.other], "bits": each.distance}
                for each in repeats
            ]

        twice = self.duplicates
        return {
            "sources": [_plain(each) for each in self.sources],
            "total": _plain(self.total),
            "validation_sources": [_plain(each) for each in self.validation_sources],
            "validation": _plain(self.validation) if self.validation else None,
            "shown": [_plain(each) for each in self.shown],
            "limits": dataclasses.asdict(self.limits) if self.limits else None,
            "unfit": self.unfit,
            "duplicates": {
                "training": named(twice.training),
                "validation": named(twice.validation),
                "shared": named(twice.shared),
                "flat": [places[index] for index in twice.flat],
                "compared": twice.compared,
            },
            "obstacles": list(self.obstacles),
            "suggestions": [
                {"field": each.field, "value": each.value, "reason": each.reason}
                for each in self.suggestions
            ],
            "options": self.options,
            "remarks": list(self.remarks),
            "problems": dict(self.problems.counts),
            "problems_found": [dataclasses.asdict(each) for each in self.problems.found],
        }


def _plain(facts: Any) -> dict[str, Any]:
    values = {field.name: getattr(facts, field.name) for field in dataclasses.fields(facts)}
    return {
        name: value._asdict() if isinstance(value, Quartiles) else value
        for name, value in values.items()
    }


def inspect(
    *sources_: str | sources.Source,
    validation: Given = (),
    config: Config = PRESETS[DEFAULT_PRESET],
    classes: Sequence[str] | None = None,
    rename: Rename | None = None,
    data: str | Path = ".",
    pixels: bool = True,
    problems: Problems | None = None,
) -> Inspection:
    """Counts and measures images and objects, finds duplicates, and suggests settings.

    Args:
        sources_: training images: texts `FORMAT:PATH#SPLIT`, or opened sources.
        validation: sources of validation images. None of them may be among the training images.
        config: the settings by which sizes are judged.
        classes: only objects of these classes are counted; None takes those of `config`, or all.
        rename: new names of classes: texts `old=new`, or a mapping; None takes those of `config`.
        data: the folder that relative paths start from.
        pixels: decodes every image, and compares their pixels. False reads their headers and compares their
            bytes alone, in a fraction of the time.
        problems: unusable items are added here.

    Raises:
        ValueError: there is no source, one is not of that form, nothing can be read at all, or no source has
            a class of `classes` or `rename`.
    """
    problems = Problems.of(problems)
    classes = classes if classes is not None else config.data.classes or None
    rename = by_name.renames(config.data.rename if rename is None else rename)
    opened = sources.open_all(sources_, data, rename=rename)
    if not opened:
        raise ValueError("Expected at least one source as FORMAT:PATH#SPLIT. Received none")
    judging = sources.open_all(validation, data, rename=rename)
    read, names = sources.load_each([*opened, *judging], classes, problems=problems)
    sets = [each.annotations for each in read]
    measured = [measure(each, problems=problems) for each in sets]
    summaries = [
        _only(Summary.of(source.text, each, names), own)
        for source, each, (_, own) in zip((*opened, *judging), measured, read, strict=True)
    ]
    joined = Measured.join(measured[: len(opened)])
    total = Summary.of("total", joined, names)
    judged = Summary.of("validation", Measured.join(measured[len(opened) :]), names)
    annotations = tuple(annotation for each in sets for annotation in each)
    most = config.decode.max_pixels if pixels else None
    twice = _duplicates(annotations, total.images, most, problems)
    limits = shown.limits(config.model)
    exact = [each for each in twice.shared if each.distance is None]
    found = readiness.obstacles(total, annotations, exact, config.data)
    return Inspection(
        sources=tuple(summaries[: len(opened)]),
        total=total,
        validation_sources=tuple(summaries[len(opened) :]),
        validation=judged if judging else None,
        shown=_shown(joined, config, limits),
        limits=limits,
        unfit=_unfit(joined, config, limits),
        duplicates=twice,
        obstacles=tuple(found),
        suggestions=() if limits is None else suggest(joined, limits),
        remarks=tuple(_remarks(total, judged if judging else None)),
        problems=problems,
        annotations=annotations,
        class_names=names,
        config=config,
    )


def _only(summary: Summary, own: Sequence[str]) -> Summary:
    """The summary of a source with its own classes alone."""
    return dataclasses.replace(
        summary,
        classes={name: summary.classes[name] for name in own},
        images_of_classes={name: summary.images_of_classes[name] for name in own},
    )


def _duplicates(
    annotations: Sequence[Annotation], boundary: int, max_pixels: int | None, problems: Problems
) -> Duplicates:
    """Duplicates among the training images, which end at `boundary`, the validation images, and between both.

    Pixels are compared of images with at most `max_pixels`; if it is None, bytes alone are compared.
    """
    count = len(annotations)
    groups = duplicates.same_bytes(annotations)
    training = duplicates.repeats_of_bytes(groups, 0, boundary)
    validation = duplicates.repeats_of_bytes(groups, boundary, count)
    shared = duplicates.shared_bytes(groups, boundary)
    flat: list[int] = []
    if max_pixels is None:
        _check_headers(annotations, problems)
    else:
        values, usable, flat = duplicates.hashes(
            annotations, max_pixels=max_pixels, problems=problems
        )

        def among(start: int, end: int, known: list[Repeat]) -> list[Repeat]:
            # Files with the same bytes are known already, and would only be found again.
            kept = usable[start:end].copy()
            kept[[repeat.image - start for repeat in known]] = False
            near = duplicates.repeats_of_pixels(values[start:end], kept)
            return [Repeat(i + start, j + start, bits) for i, j, bits in near]

        training += among(0, boundary, training)
        validation += among(boundary, count, validation)
        kept = usable.copy()
        kept[[repeat.image for repeat in shared]] = False
        shared += duplicates.shared_pixels(values, kept, boundary)
    return Duplicates(
        tuple(training), tuple(validation), tuple(shared), tuple(flat), max_pixels is not None
    )


def _check_headers(annotations: Sequence[Annotation], problems: Problems) -> None:
    """Reports images that cannot be read. Images of unknown size are reported where they are measured."""
    for annotation in annotations:
        if annotation.size is not None:
            try:
                image_ops.photo_size(annotation.image)
            except (OSError, ValueError) as error:
                problems.add(image_ops.UNDECODABLE, annotation.where, str(error))


def _shown(measured: Measured, config: Config, limits: Limits | None) -> tuple[Shown, ...]:
    sides, images = measured.of_known_size
    data, decode = config.data, config.decode
    long_sides = shown.in_training(sides[:, 0], images, data)
    ratios = sides[:, 1] / np.maximum(sides[:, 0], 1e-9)
    short_sides = long_sides * np.tile(ratios, len(long_sides) // max(len(ratios), 1))
    way = "crops of" if data.random_crop else "images of at most"
    name = f"training, {way} {data.image_size} px"
    found = [Shown.of(name, long_sides, short_sides, limits)]
    fitted = sides * shown.scale_to_fit(images, decode.max_side)[:, None]
    for scale in decode.scales:
        name = f"detection, max_side {decode.max_side}, scale {scale:g}"
        long_sides, short_sides = (fitted * scale).T
        found.append(Shown.of(name, long_sides, short_sides, limits))
    return tuple(each for each in found if each is not None)


def _unfit(measured: Measured, config: Config, limits: Limits | None) -> float | None:
    """The share of the objects that the network can see well at no scale of detection."""
    sides, images = measured.of_known_size
    if limits is None or not len(sides):
        return None
    fitted = sides * shown.scale_to_fit(images, config.decode.max_side)[:, None]
    fits = np.zeros(len(sides), bool)
    for scale in config.decode.scales:
        long_sides, short_sides = (fitted * scale).T
        fits |= (short_sides >= limits.smallest) & (long_sides <= limits.largest)
    return float((~fits).mean())


def _alike(names: Iterable[str]) -> Iterable[list[str]]:
    """The names in groups of those that differ only in capital letters."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(name.casefold(), []).append(name)
    return groups.values()


def _remarks(total: Summary, validation: Summary | None) -> Iterable[str]:
    if not total.objects:
        return
    alike = [names for names in _alike(total.classes) if len(names) > 1]
    if alike:
        yield (
            "classes whose names differ only in capital letters: "
            f"{'; '.join(', '.join(names) for names in alike)}. If they are one class, rename (--rename "
            f"{shlex.quote(f'{alike[0][1]}={alike[0][0]}')})"
        )
    most = max(total.classes.values())
    rare = [name for name, count in total.classes.items() if 0 < count * RARE < most]
    if rare:
        yield (
            f"rare classes, each with less than a {RARE}th of the objects of the most frequent one: "
            f"{', '.join(rare)}. Classes have no weights: add images of them"
        )
    if not total.without_objects:
        yield (
            "every training image has an object: add images without any (a source of negatives) if the detector "
            "finds objects where none are"
        )
    if validation is not None:
        absent = [n for n, count in validation.classes.items() if not count and total.classes[n]]
        if absent:
            yield f"no validation image has an object of {', '.join(absent)}: it is not judged"
