"""A target of the confidence that knows how good the predicted box is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from unitbox_tf import losses

SMALLEST = 1e-6  # target at a point of an object


def learn_quality(model: keras.Model) -> None:
    """Lets the confidence of `model` learn the IoU of the box at its point, in training and in validation.

    At a point of an object, the target of the object's class becomes the IoU of the box that is predicted there with
    the true one. So a score says how good a box is, and the best of several boxes is kept. The IoU is a constant
    when the loss is differentiated: boxes are not made worse to agree with their confidence.

    Both losses need to be known for this, so it is put before `model.compute_loss`. `CheckedStep` and
    `model.evaluate` use that.

    Source: Li et al., Generalized Focal Loss, NeurIPS 2020, section 3.1; Zhang et al., VarifocalNet, CVPR 2021.
    """
    plain = model.compute_loss

    def compute_loss(
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> tf.Tensor:
        return plain(x, with_quality(y, y_pred), y_pred, sample_weight, training)

    model.compute_loss = compute_loss


def with_quality(
    truth: Mapping[str, tf.Tensor], predicted: Mapping[str, tf.Tensor]
) -> dict[str, tf.Tensor]:
    """The targets `truth` of `targets.encode`, with the IoU of the boxes in `predicted` where the confidence is 1."""
    boxes = tf.stop_gradient(predicted["distances"])
    quality = losses.iou(tf.cast(truth["distances"], boxes.dtype), boxes)[..., None]
    # The focal loss is divided by the weights of points with a target above 0. A bad box must not remove its point.
    quality = tf.maximum(quality, SMALLEST)
    confidence = truth["confidence"]
    return {**truth, "confidence": confidence * tf.cast(quality, confidence.dtype)}
