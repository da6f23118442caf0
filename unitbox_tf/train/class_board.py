"""Shows the metrics of each class and the confusion matrix in TensorBoard."""

from __future__ import annotations

import dataclasses
import functools
import logging
import math

import tensorflow as tf

from unitbox_tf.evaluation.by_class import ByClass, Confusion

logger = logging.getLogger(__name__)


def show(found: ByClass) -> None:
    """Writes scalars and an image with the default writer and step of `tf.summary`.

    Scalars are `best_f1/f1`, `best_f1/threshold` and so on, and for each class `class_ap50/NAME`,
    `class_recall/NAME` and so on. Undefined metrics are left out. The image is `confusion_matrix`.
    """
    if found.best_f1 is not None:
        for name, value in dataclasses.asdict(found.best_f1).items():
            tf.summary.scalar(f"best_f1/{name}", value)
    for each in found.classes:
        best = {} if each.best_f1 is None else {"best_f1": each.best_f1.f1}
        for name, value in {**each.metrics, **best}.items():
            if math.isfinite(value):
                tf.summary.scalar(f"class_{name}/{each.name}", value)
    if found.confusion is not None:
        _show_confusion(found.confusion)


def _show_confusion(confusion: Confusion) -> None:
    try:
        image = confusion.image()
    except ImportError as error:
        _log_once(f"The confusion matrix is not drawn: {error}")
    else:
        tf.summary.image("confusion_matrix", image[None])


@functools.cache
def _log_once(message: str) -> None:
    logger.info("%s", message)
