"""Says before training what cannot work: classes without objects, validation images that are trained on."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Sequence

import numpy as np

from unitbox_tf.config import Config, DataConfig
from unitbox_tf.datasets import duplicates, shown
from unitbox_tf.datasets.duplicates import Repeat
from unitbox_tf.datasets.summary import Measured, Summary, measure
from unitbox_tf.problems import Problems
from unitbox_tf.records import Annotation

logger = logging.getLogger(__name__)


def check(
    training: Sequence[Annotation] | None,
    validation: Sequence[Annotation],
    config: Config,
) -> None:
    """Logs a summary of the data of a run, and refuses data with which it cannot work.

    No image is decoded. Files are read only where others have the same length.

    Args:
        training: the training images; None if they stream, from a `tf.data.Dataset` or shards, and cannot be checked.
        validation: the validation images.
        config: the settings of the run, with the names of the classes of both.

    Raises:
        ValueError: no training image has an object; or a class has none, or validation images are among the
            training images, and the settings `absent_classes` and `shared_images` do not allow it.
    """
    if training is None:
        logger.info(
            "The training data streams, so it cannot be looked at before training: its classes, sizes and images "
            "are not checked"
        )
        return
    class_names = config.model.class_names
    # Images of odd size are used all the same, and unreadable ones are reported where they are decoded.
    unreported = Problems(logged=False)
    measured = measure(training, problems=unreported)
    summary = Summary.of("training", measured, class_names)
    both = [*training, *validation]
    shared = duplicates.shared_bytes(duplicates.same_bytes(both), len(training))
    found = obstacles(summary, both, shared, config.data)
    if found:
        raise ValueError(". ".join(found))
    judged = Summary.of("validation", measure(validation, problems=unreported), class_names)
    for each in (summary, judged):
        logger.info("%s", _in_words(each))
    for line in _sizes_in_words(measured, config):
        logger.info("%s", line)


def obstacles(
    training: Summary, annotations: Sequence[Annotation], shared: Sequence[Repeat], data: DataConfig
) -> list[str]:
    """The reasons for which training cannot work, each with a way out.

    Args:
        training: the summary of the training images.
        annotations: the training images and, after them, the validation images.
        shared: the validation images with the bytes of training images.
        data: the settings, which may allow it.
    """
    found = []
    absent = [name for name, count in training.classes.items() if not count]
    if not training.images:
        found.append(
            "there is no training image. Expected images with objects: the problems say what cannot be read"
        )
    elif not training.objects:
        found.append(
            f"none of the {training.images} training images has an object to learn (ignored objects do not "
            "count). Expected annotated objects: unitbox inspect shows what is read of each source"
        )
    elif absent and not data.absent_classes:
        found.append(
            f"no training image has an object of: {', '.join(absent)}. Expected objects of each class of "
            f"{', '.join(training.classes)}. Add images of them, leave them out with class_names "
            f"(--class-names) or classes (--classes {_quoted(training)}), or allow it with absent_classes "
            "(--absent-classes)"
        )
    if shared and not data.shared_images:
        first, other = annotations[shared[0].image], annotations[shared[0].other]
        count = len(annotations) - training.images
        pair = first.where if first.where == other.where else f"{first.where} is {other.where}"
        found.append(
            f"{len(shared)} of {count} validation images are among the training images, byte by byte, so they "
            f"cannot judge what is learned; the first: {pair}. Use other images, or "
            "allow it with shared_images (--shared-images)"
        )
    return found


def _quoted(training: Summary) -> str:
    """The classes with objects, as they are written on the command line."""
    return " ".join(shlex.quote(name) for name, count in training.classes.items() if count)


def _in_words(summary: Summary) -> str:
    named = ", ".join(f"{name} {count:,}" for name, count in summary.classes.items())
    return (
        f"{summary.name}: {summary.images:,} images ({summary.without_objects:,} without objects), "
        f"{summary.objects:,} objects" + (f": {named}" if len(summary.classes) > 1 else "")
    )


def _sizes_in_words(measured: Measured, config: Config) -> list[str]:
    sides, images = measured.of_known_size
    if not len(sides):
        return []
    trained = shown.in_training(sides[:, 0], images, config.data)
    side = config.decode.max_side
    factor = shown.scale_to_fit(images, side)
    lines = [
        f"sizes: training shows objects {_range(trained)} long; detection at max_side {side} shows them "
        f"{_range(sides[:, 0] * factor)} long at scale 1"
    ]
    stride = config.model.map_stride
    between = int((sides[:, 1] * factor <= stride).sum())
    if config.model.neck != "none" and between:
        lines.append(
            f"sizes: {between:,} of {len(sides):,} objects are then at most {stride} px wide or high, the map_stride: "
            "where such an object lies between the points of the map, it counts in no loss"
        )
    limits = shown.limits(config.model)
    if limits is not None:
        small = (sides[:, 1] * factor * max(config.decode.scales) < limits.smallest).mean()
        large = (sides[:, 0] * factor * min(config.decode.scales) > limits.largest).mean()
        if small or large:
            lines.append(
                f"sizes: {small:.1%} of the objects are below {limits.smallest} px at every scale of "
                f"detection, and {large:.1%} above {limits.largest} px: these are hard to find (unitbox "
                "inspect suggests settings)"
            )
    return lines


def _range(values: np.ndarray) -> str:
    low, middle, high = np.percentile(values, [5, 50, 95])
    return f"{low:.0f} to {high:.0f} px (typical {middle:.0f})"
