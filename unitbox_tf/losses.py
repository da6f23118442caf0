"""The losses of section 2 of the paper, with the gradient of the IoU loss written out, and the mean IoU as a metric.

Functions are elementwise, `[..., 4], [..., 4] -> [...]`, on distances `tblr` in pixels (see
`boxes.py`), truth first. Which pixels count, and how they are added up, is Keras' business: pass
`sample_weight` (1 at positive pixels, 0 elsewhere) and
choose a `reduction`: `"sum"` is the paper's (over all pixels of the batch),
`"mean_with_sample_weight"` the mean over positive pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

# A predicted box narrower (lower) than this share of the true one is treated as that narrow (low).
# -ln IoU is infinite for a box of no width, and its gradient vanishes for one of neither width nor
# height; with the floor such a box loses at most 2 ln(1 / RELATIVE_FLOOR) = 18.4, and the gradient,
# taken at the floor, is finite and asks every side to grow. Being relative, it keeps the loss independent
# of scale.
RELATIVE_FLOOR = 1e-4


class _Overlap:
    """The quantities of Algorithm 1 for two boxes that share a pixel, under the paper's names.

    `X` predicted area, `G` true area (the paper's X with a tilde), `I_h`, `I_w` height and width of
    the intersection, `I` its area, `U` the area of the union; `x_h`, `x_w` height and width of the
    predicted box. All `[...]`. Where the truth has no area (no object at the pixel) everything is
    1, so that what is computed from it stays finite.
    """

    def __init__(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> None:
        g_h, g_w = y_true[..., 0] + y_true[..., 1], y_true[..., 2] + y_true[..., 3]
        self.valid = (g_h > 0) & (g_w > 0)
        g_h, g_w = tf.where(self.valid, g_h, 1), tf.where(self.valid, g_w, 1)
        inner = tf.minimum(y_true, y_pred)

        def floored(size: tf.Tensor, true_size: tf.Tensor) -> tf.Tensor:
            return tf.where(self.valid, tf.maximum(size, RELATIVE_FLOOR * true_size), 1)

        self.I_h = floored(inner[..., 0] + inner[..., 1], g_h)
        self.I_w = floored(inner[..., 2] + inner[..., 3], g_w)
        self.x_h = floored(y_pred[..., 0] + y_pred[..., 1], g_h)
        self.x_w = floored(y_pred[..., 2] + y_pred[..., 3], g_w)
        self.X = self.x_h * self.x_w
        self.G = g_h * g_w
        self.I = self.I_h * self.I_w
        self.U = self.X + self.G - self.I


@tf.custom_gradient
def _iou_loss(
    y_true: tf.Tensor, y_pred: tf.Tensor
) -> tuple[tf.Tensor, Callable[[tf.Tensor], tuple[None, tf.Tensor]]]:
    o = _Overlap(y_true, y_pred)
    loss = -tf.math.log(o.I / o.U)

    def gradient(upstream: tf.Tensor) -> tuple[None, tf.Tensor]:
        grows = tf.cast(y_pred < y_true, y_pred.dtype)  # (5), (6): strictly smaller
        # (3): dX/dx_t = dX/dx_b = x_l + x_r.   (4): dX/dx_l = dX/dx_r = x_t + x_b.
        dX = tf.stack([o.x_w, o.x_w, o.x_h, o.x_h], axis=-1)
        # (5): dI/dx_t = I_w if x_t < true x_t else 0, likewise b.   (6): dI/dx_l = I_h, likewise r.
        dI = tf.stack([o.I_w, o.I_w, o.I_h, o.I_h], axis=-1) * grows
        # (7): dL/dx = dX / U - (U + I) / (U I) dI.
        U, I = o.U[..., None], o.I[..., None]  # noqa: E741
        dL = dX / U - (U + I) / (U * I) * dI
        weight = tf.where(o.valid, upstream, 0)[..., None]
        return None, weight * tf.where(o.valid[..., None], dL, 0)

    return loss, gradient


def iou_loss(y_true: Any, y_pred: Any) -> tf.Tensor:
    """-ln IoU `[...]` of the boxes that the distances `tblr` `[..., 4]` describe (Algorithm 1).

    The gradient with respect to `y_pred` is the paper's, equations 3 to 7, with the paper's rule at
    the kink: a side that is exactly right is not asked to grow (strict `<`). There is no gradient
    with respect to `y_true`. 0 where `y_true` describes no box. Independent of scale; from 0 on,
    growing as the logarithm of the area of a box that is too large. A predicted height or width
    below `RELATIVE_FLOOR` of the true one counts as that much: a box that is too small, or of no
    size, loses at most 18.4, and the gradient there is finite and points outwards.
    """
    y_true, y_pred = _checked(y_true, y_pred)
    return _iou_loss(y_true, y_pred)


def l2_loss(y_true: Any, y_pred: Any) -> tf.Tensor:
    """Sum `[...]` of the squared differences of the four distances `tblr` `[..., 4]` (equation 2): no 1/2, no mean."""
    y_true, y_pred = _checked(y_true, y_pred)
    return tf.reduce_sum(tf.math.squared_difference(y_pred, y_true), axis=-1)


def iou(y_true: Any, y_pred: Any) -> tf.Tensor:
    """IoU `[...]`, 0 to 1, of the boxes that the distances `tblr` `[..., 4]` describe; 0 where there is no true box."""
    y_true, y_pred = _checked(y_true, y_pred)
    inner = tf.minimum(y_true, y_pred)

    def area(distances: tf.Tensor) -> tf.Tensor:
        t, b, l, r = tf.unstack(distances, axis=-1)  # noqa: E741
        return (t + b) * (l + r)

    intersection = area(inner)
    return tf.math.divide_no_nan(intersection, area(y_true) + area(y_pred) - intersection)


def _checked(y_true: Any, y_pred: Any) -> tuple[tf.Tensor, tf.Tensor]:
    """Both as tensors of one floating type; broadcasting, the classic silent error of losses, is refused."""
    y_pred = tf.convert_to_tensor(y_pred)
    y_true = tf.cast(tf.convert_to_tensor(y_true), y_pred.dtype)
    if not y_true.shape.is_compatible_with(y_pred.shape) or y_pred.shape[-1] != 4:
        raise ValueError(
            "Expected y_true and y_pred of one shape [..., 4]. "
            f"Received: y_true.shape={y_true.shape}, y_pred.shape={y_pred.shape}"
        )
    return y_true, y_pred


@keras.saving.register_keras_serializable("unitbox_tf")
class IoULoss(keras.losses.Loss):
    """`iou_loss` as a Keras loss for distance heatmaps `[B, H, W, 4]`, with `sample_weight` `[B, H, W]`."""

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        return iou_loss(y_true, y_pred)


@keras.saving.register_keras_serializable("unitbox_tf")
class L2Loss(keras.losses.Loss):
    """`l2_loss` as a Keras loss for distance heatmaps `[B, H, W, 4]`, with `sample_weight` `[B, H, W]`."""

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        return l2_loss(y_true, y_pred)


DISTANCE_LOSSES: dict[str, type[keras.losses.Loss]] = {"iou": IoULoss, "l2": L2Loss}


@keras.saving.register_keras_serializable("unitbox_tf")
class MeanIoU(keras.metrics.MeanMetricWrapper):
    """Mean IoU of predicted and true box over pixels, weighted by `sample_weight` (1 at positive pixels)."""

    def __init__(self, name: str = "iou", dtype: Any = None) -> None:
        super().__init__(fn=iou, name=name, dtype=dtype)

    def get_config(self) -> dict[str, Any]:
        return {"name": self.name, "dtype": self.dtype}
