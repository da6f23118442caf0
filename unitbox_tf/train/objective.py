"""The losses of a configuration, for one device and for several that share each batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from unitbox_tf import losses, registry
from unitbox_tf.config import LossConfig
from unitbox_tf.train import quality


def losses_of(settings: LossConfig, reduction: str, *, gather: bool) -> dict[str, Any]:
    """The losses of confidence and distances.

    Args:
        settings: they name the losses.
        reduction: `"sum"`, or `losses.MEAN`.
        gather: see `losses.BoxLoss`.
    """
    kind = registry.LOSSES[settings.distance_loss]
    options: dict[str, Any] = {"alpha": settings.alpha} if kind.takes_alpha else {}
    distances = kind(reduction=reduction, **options)
    distances.gather = gather
    confidence: keras.losses.Loss
    if settings.confidence_loss == "focal":
        each = "sum" if reduction == "sum" else "positive_mean"
        confidence = losses.FocalLoss(reduction=each)  # type: ignore[arg-type]
    else:
        confidence = keras.losses.BinaryCrossentropy(from_logits=True, reduction=reduction)
    return {"confidence": confidence, "distances": distances}


def loss_weights(settings: LossConfig) -> dict[str, float]:
    """The factors of confidence and distances in the loss."""
    return {"confidence": settings.confidence_weight, "distances": settings.distance_weight}


class SharedLosses:
    """The part of the loss of each device, where several share a batch. The parts add up to the loss of the batch.

    A mean is over all pixels that count in the whole batch. Keras takes the mean of the means of the devices, in which
    a pixel counts more on a device with few objects.
    """

    def __init__(self, settings: LossConfig) -> None:
        """`settings` are those of the losses."""
        self._losses = losses_of(settings, "sum", gather=True)
        self._means = settings.reduction != "sum"
        self._focal = settings.confidence_loss == "focal"
        self._quality = settings.confidence_target == "iou"
        self._weights = loss_weights(settings)

    def __call__(
        self,
        truth: Mapping[str, tf.Tensor],
        predicted: Mapping[str, tf.Tensor],
        weights: Mapping[str, tf.Tensor],
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """The part of the loss, and those of its two terms before they are weighted. For a replica context."""
        if self._quality:
            truth = quality.with_quality(truth, predicted)
        terms = {
            name: tf.cast(loss(truth[name], predicted[name], weights[name]), tf.float32)
            for name, loss in self._losses.items()
        }
        if self._means:
            divisors = _summed([self._counted(name, truth, weights) for name in terms])
            if self._focal:  # as `losses.FocalLoss` divides
                divisors[0] = tf.maximum(divisors[0], 1.0)
            terms = {
                name: tf.math.divide_no_nan(term, divisor)
                for (name, term), divisor in zip(terms.items(), divisors, strict=True)
            }
        loss = tf.add_n([self._weights[name] * term for name, term in terms.items()])
        return loss, terms

    def _counted(
        self, name: str, truth: Mapping[str, tf.Tensor], weights: Mapping[str, tf.Tensor]
    ) -> tf.Tensor:
        """The sum of the weights that this device divides a term by."""
        weight = tf.cast(weights[name], tf.float32)
        if name == "confidence" and self._focal:
            weight *= tf.reduce_sum(tf.cast(truth[name] > 0, tf.float32), axis=-1)
        return tf.reduce_sum(weight)


def _summed(numbers: list[tf.Tensor]) -> list[tf.Tensor]:
    """Each number, added up over the devices."""
    context = tf.distribute.get_replica_context()
    return tf.unstack(context.all_reduce(tf.distribute.ReduceOp.SUM, tf.stack(numbers)))
