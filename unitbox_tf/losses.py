"""Box losses: the IoU loss of the paper with its gradient written out, its descendants, and the mean IoU as a metric.

Functions are elementwise, `[..., 4], [..., 4] -> [...]`, with the truth first, in pixels. `box_format`
gives the meaning of the four numbers. `"tblr"` are the distances from a pixel to the four sides of its
box, none negative. `"xyxy"` are corners, which may describe boxes that do not meet. Each function has a
Keras class, which `registry.LOSSES` names. `sample_weight` says which pixels count, and `reduction` how
they are combined: `"sum"` is the paper's, and `"mean_with_sample_weight"` is the mean over the pixels
that count. `docs/losses.md` compares the losses.

Common to all functions:

* They compute in float32, or in float64 for float64 input, and the value has this type. The gradient has
  the type of `y_pred`, cut to its finite range (float16 ends at 65,504).
* Only `y_pred` has a gradient.
* Where sides are equal, `min` and `max` have a kink. A side that is exactly right is not asked to
  grow: equations 5 and 6 of the paper have a strict `<`, and so have all losses here.
* If `y_true` is a box without area, there is no object: losses of overlap are 0, with no gradient.
* The stated ranges hold for boxes of no negative size, and for an `alpha` of 1.
* They raise `ValueError` for shapes that differ or do not end in 4, and `InvalidArgumentError` if this
  shows only when a graph runs. Broadcasting is the classic silent error of losses.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, ClassVar, Literal

import keras
import numpy as np
import tensorflow as tf

BoxFormat = Literal["tblr", "xyxy"]
MEAN = "mean_with_sample_weight"  # Keras' word for the mean over the pixels that count

# -ln IoU is infinite for boxes that share nothing, and the gradient of any IoU vanishes for a box of
# neither width nor height. A width (height) below this share of the true one therefore counts as this
# share: in the value of -ln IoU, and in the gradient of every area, so that every side is asked to grow.
# The share is relative, so losses stay independent of scale.
RELATIVE_FLOOR = 1e-4
# The floor for the gradient of -ln IoU, which grows as 1 / width. With the floor above, a learning rate
# that suits nearly right boxes would move a box of no size 10,000 times too far.
GRADIENT_FLOOR = 1e-2
# Offsets below this share of the diagonal have no angle: SIoU divides by the offset.
_NO_OFFSET = 1e-6


class _Overlap:
    """Measures of two boxes, each `[N]`. With this helper, each loss reads like its formula.

    It is made from `[4, N]` `tblr`, with the truth first: separate columns are three times as fast as slices
    of `[N, 4]`. Corners are distances from the point (0, 0) to the sides, so they need no case of their
    own. They may be negative, and the boxes may be apart.

    `h` and `w` are the predicted height and width, `g_h` and `g_w` the true ones, `C_h` and `C_w` the height
    and width of the smallest box around both, and `d_y` and `d_x` the offset of the centres. `inner_h` and
    `inner_w` are the height and width of the intersection; for boxes apart they are minus the gap.
    """

    def __init__(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> None:
        self._true, self._pred = y_true, y_pred
        self.h, self.w = _height_and_width(y_pred)
        self.g_h, self.g_w = _height_and_width(y_true)
        # Truth first: where both are equal, min and max pass the gradient to their first argument.
        self.inner_h, self.inner_w = _height_and_width(tf.minimum(y_true, y_pred))
        self.least_h, self.least_w = RELATIVE_FLOOR * self.g_h, RELATIVE_FLOOR * self.g_w

    @functools.cached_property
    def I(self) -> tf.Tensor:  # noqa: E743
        """Area of the intersection."""
        return _area(self.inner_h, self.inner_w, self.least_h, self.least_w)

    @functools.cached_property
    def U(self) -> tf.Tensor:
        """Area of the union."""
        X = _area(self.h, self.w, self.least_h, self.least_w)
        return X + self.g_h * self.g_w - self.I

    @functools.cached_property
    def IoU(self) -> tf.Tensor:
        return self.I / self.U

    @functools.cached_property
    def _outer(self) -> tuple[tf.Tensor, tf.Tensor]:
        return _height_and_width(tf.maximum(self._true, self._pred))

    @property
    def C_h(self) -> tf.Tensor:
        return self._outer[0]

    @property
    def C_w(self) -> tf.Tensor:
        return self._outer[1]

    @functools.cached_property
    def C(self) -> tf.Tensor:
        """Area of the smallest box around both."""
        return self.C_h * self.C_w

    @functools.cached_property
    def c2(self) -> tf.Tensor:
        """Square of the diagonal of the smallest box around both."""
        return tf.square(self.C_h) + tf.square(self.C_w)

    @functools.cached_property
    def _offset(self) -> tf.Tensor:
        return (self._pred - self._true) / 2  # [4, N]

    @functools.cached_property
    def d_y(self) -> tf.Tensor:
        return self._offset[1] - self._offset[0]

    @functools.cached_property
    def d_x(self) -> tf.Tensor:
        return self._offset[3] - self._offset[2]

    @functools.cached_property
    def rho2(self) -> tf.Tensor:
        """Square of the distance of the centres."""
        return tf.square(self.d_x) + tf.square(self.d_y)


def _height_and_width(y: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    t, b, l, r = tf.unstack(y)  # noqa: E741
    return t + b, l + r


@tf.custom_gradient
def _area(
    height: tf.Tensor, width: tf.Tensor, least_h: tf.Tensor, least_w: tf.Tensor
) -> tuple[tf.Tensor, Callable[[tf.Tensor], tuple[Any, ...]]]:
    """Height times width, or 0 if one is negative. Its gradient uses at least `least_h` and `least_w`."""
    exists = (height >= 0) & (width >= 0)

    def gradient(upstream: tf.Tensor) -> tuple[Any, ...]:
        upstream = tf.where(exists, upstream, 0)
        return (
            upstream * tf.maximum(width, least_w),
            upstream * tf.maximum(height, least_h),
            None,
            None,
        )

    return tf.where(exists, height * width, 0), gradient


@tf.custom_gradient
def _aspect(
    width: tf.Tensor, height: tf.Tensor, g_w: tf.Tensor, g_h: tf.Tensor
) -> tuple[tf.Tensor, Callable[[tf.Tensor], tuple[Any, ...]]]:
    """arctan(width / height). Its gradient grows as 1 / diagonal, and is bounded for a box of almost no size."""

    def sides() -> tuple[tf.Tensor, tf.Tensor]:
        return tf.maximum(width, RELATIVE_FLOOR * g_w), tf.maximum(height, RELATIVE_FLOOR * g_h)

    def gradient(upstream: tf.Tensor) -> tuple[Any, ...]:
        w, h = sides()
        least = GRADIENT_FLOOR**2 * (tf.square(g_w) + tf.square(g_h))
        share = upstream / tf.maximum(tf.square(w) + tf.square(h), least)
        return share * h, -share * w, None, None

    return tf.math.atan2(*sides()), gradient


@tf.custom_gradient
def _iou_loss(
    y_true: tf.Tensor, y_pred: tf.Tensor
) -> tuple[tf.Tensor, Callable[[tf.Tensor], tuple[None, tf.Tensor]]]:
    """-ln IoU `[N]` of `tblr` `[4, N]` and its gradient, under the paper's names."""

    def areas(floor: float) -> tuple[tf.Tensor, ...]:
        o = _Overlap(y_true, y_pred)
        least_h, least_w = floor * o.g_h, floor * o.g_w
        x_h, x_w = tf.maximum(o.h, least_h), tf.maximum(o.w, least_w)
        I_h, I_w = tf.maximum(o.inner_h, least_h), tf.maximum(o.inner_w, least_w)
        I = I_h * I_w  # noqa: E741
        return x_h, x_w, I_h, I_w, I, x_h * x_w + o.g_h * o.g_w - I

    def gradient(upstream: tf.Tensor) -> tuple[None, tf.Tensor]:
        # Computed again, which is cheaper than keeping it in memory. The gradient itself can be
        # differentiated, too.
        x_h, x_w, I_h, I_w, I, U = areas(GRADIENT_FLOOR)  # noqa: E741
        # (7): dL/dx = dX / U - (U + I) / (U I) dI.
        for_X, for_I = upstream / U, upstream * (1 / U + 1 / I)
        # (3): dX/dx_t = dX/dx_b = x_l + x_r.   (4): dX/dx_l = dX/dx_r = x_t + x_b.
        # (5): dI/dx_t = I_w if x_t < true x_t else 0, likewise b.   (6): dI/dx_l = I_h, likewise r.
        dX = tf.stack([for_X * x_w] * 2 + [for_X * x_h] * 2)
        dI = tf.stack([for_I * I_w] * 2 + [for_I * I_h] * 2)
        return None, dX - tf.where(y_pred < y_true, dI, 0)  # strictly smaller

    *_, I, U = areas(RELATIVE_FLOOR)  # noqa: E741
    return tf.math.log(U / I), gradient


@keras.saving.register_keras_serializable("unitbox_tf")
def iou_loss(y_true: Any, y_pred: Any, box_format: BoxFormat = "tblr") -> tf.Tensor:
    """-ln IoU `[...]`, the IoU loss of the paper (Algorithm 1), with its gradient (equations 3 to 7).

    The loss starts at 0. It grows as the logarithm of the area of a box that is too large. A predicted or
    common height or width below `RELATIVE_FLOOR` of the true one counts as this floor. So the loss of a
    box that is too small, of no size, or apart is as if it met 1e-4 of the true height (width): 9.2, or
    18.4 for both, and more if the box is large. Below `GRADIENT_FLOOR` of a height or width, the gradient
    is the one at this floor. It asks wrong sides to move towards the truth, each by at most
    100 / height (width) more than for a box that is nearly right.

    Source: Yu et al., UnitBox: An Advanced Object Detection Network, ACM MM 2016.
    """
    y_true, y_pred = _checked(y_true, y_pred)
    return _shaped(_iou_loss(*_as_tblr(y_true, y_pred, box_format)), y_pred)


@keras.saving.register_keras_serializable("unitbox_tf")
def linear_iou_loss(
    y_true: Any, y_pred: Any, box_format: BoxFormat = "tblr", alpha: float = 1.0
) -> tf.Tensor:
    """1 - IoU^alpha `[...]`, 0 to 1. Boxes apart have the loss 1 and no gradient.

    A box of no size has almost no gradient, since IoU grows from 0 with the area.

    Source: `alpha` is the power of He et al., Alpha-IoU, NeurIPS 2021 (3 there), in all losses.
    """
    o, shaped = _overlap(y_true, y_pred, box_format, alpha)
    return shaped(1 - _power(o.IoU, alpha))


@keras.saving.register_keras_serializable("unitbox_tf")
def giou_loss(
    y_true: Any, y_pred: Any, box_format: BoxFormat = "tblr", alpha: float = 1.0
) -> tf.Tensor:
    """1 - GIoU `[...]`, 0 to 2: 1 - IoU^alpha + ((C - U) / C)^alpha.

    C is the area of the smallest box around both. Boxes apart approach each other. A box of no size
    within the true one has almost no gradient, as in `linear_iou_loss`.

    Source: Rezatofighi et al., Generalized Intersection over Union, CVPR 2019, Algorithm 1.
    """
    o, shaped = _overlap(y_true, y_pred, box_format, alpha)
    return shaped(1 - _power(o.IoU, alpha) + _power((o.C - o.U) / o.C, alpha))


@keras.saving.register_keras_serializable("unitbox_tf")
def diou_loss(
    y_true: Any, y_pred: Any, box_format: BoxFormat = "tblr", alpha: float = 1.0
) -> tf.Tensor:
    """1 - DIoU `[...]`, 0 to 2: 1 - IoU^alpha + (rho^2 / c^2)^alpha.

    rho is the distance of the centres, c the diagonal of the smallest box around both. Boxes apart
    approach each other. If a box has no size, only its centre moves.

    Source: Zheng et al., Distance-IoU Loss, AAAI 2020, equation 7.
    """
    o, shaped = _overlap(y_true, y_pred, box_format, alpha)
    return shaped(1 - _power(o.IoU, alpha) + _power(o.rho2 / o.c2, alpha))


@keras.saving.register_keras_serializable("unitbox_tf")
def ciou_loss(
    y_true: Any, y_pred: Any, box_format: BoxFormat = "tblr", alpha: float = 1.0
) -> tf.Tensor:
    """1 - CIoU `[...]`, 0 to 3: 1 - IoU^alpha + (rho^2 / c^2)^alpha + (beta v)^alpha.

    v, 0 to 1, compares the aspects (equation 9). Its weight beta = v / (1 - IoU + v) (equation 11, called
    alpha there) is a constant under differentiation, as in the authors' code. Their code also leaves
    1 / (w^2 + h^2) out of the gradient of v. Here this gradient is exact, except for boxes whose diagonal
    is below `GRADIENT_FLOOR` of the true one.

    Source: Zheng et al., Distance-IoU Loss, AAAI 2020, equations 8 to 11.
    """
    o, shaped = _overlap(y_true, y_pred, box_format, alpha)
    aspect = _aspect(o.w, o.h, o.g_w, o.g_h)
    v = 4 / math.pi**2 * tf.square(tf.math.atan2(o.g_w, o.g_h) - aspect)
    beta = tf.stop_gradient(tf.math.divide_no_nan(v, 1 - o.IoU + v))
    return shaped(1 - _power(o.IoU, alpha) + _power(o.rho2 / o.c2, alpha) + _power(beta * v, alpha))


@keras.saving.register_keras_serializable("unitbox_tf")
def eiou_loss(
    y_true: Any, y_pred: Any, box_format: BoxFormat = "tblr", alpha: float = 1.0
) -> tf.Tensor:
    """1 - IoU^alpha + (rho^2 / c^2)^alpha + ((w - w~)^2 / C_w^2)^alpha + the same of h; `[...]`, 0 to 4.

    C_w is the width of the smallest box around both. Boxes apart approach each other. A box of no size
    grows, because of the terms of width and height.

    Source: Zhang et al., Focal and Efficient IOU Loss, Neurocomputing 2022, without its focal weight.
    """
    o, shaped = _overlap(y_true, y_pred, box_format, alpha)
    width = tf.square((o.w - o.g_w) / o.C_w)
    height = tf.square((o.h - o.g_h) / o.C_h)
    terms = sum(_power(term, alpha) for term in (o.rho2 / o.c2, width, height))
    return shaped(1 - _power(o.IoU, alpha) + terms)


@keras.saving.register_keras_serializable("unitbox_tf")
def siou_loss(
    y_true: Any, y_pred: Any, box_format: BoxFormat = "tblr", alpha: float = 1.0
) -> tf.Tensor:
    """1 - IoU^alpha + ((Delta + Omega) / 2)^alpha `[...]`, 0 to 2.1.

    Distance cost Delta = sum over x, y of 1 - exp(-gamma d^2 / C^2), with gamma = 2 - Lambda and the
    angle cost Lambda = sin(2 theta), theta the direction from centre to centre. Shape cost Omega =
    sum over w, h of (1 - exp(-|w - w~| / max(w, w~)))^4. Boxes apart approach each other. A box of no
    size grows, because of the shape cost.

    Source: Gevorgyan, SIoU Loss, arXiv 2205.12740. Lambda is printed there as 1 - 2 sin^2(arcsin x -
    pi / 4), the same.
    """
    o, shaped = _overlap(y_true, y_pred, box_format, alpha)
    square = tf.maximum(o.rho2, _NO_OFFSET**2 * o.c2)
    gamma = 2 - 2 * tf.abs(o.d_x * o.d_y) / square
    distance = 2 - sum(
        tf.exp(-gamma * tf.square(d / size)) for d, size in ((o.d_x, o.C_w), (o.d_y, o.C_h))
    )
    shape = sum(
        (1 - tf.exp(-tf.abs(size - true) / tf.maximum(true, size))) ** 4
        for size, true in ((o.w, o.g_w), (o.h, o.g_h))
    )
    return shaped(1 - _power(o.IoU, alpha) + _power((distance + shape) / 2, alpha))


@keras.saving.register_keras_serializable("unitbox_tf")
def l2_loss(y_true: Any, y_pred: Any) -> tf.Tensor:
    """Sum `[...]` of the squared differences of the four numbers `[..., 4]` of either format: no 1/2, no mean.

    Source: UnitBox, equation 2.
    """
    y_true, y_pred = _checked(y_true, y_pred)
    return tf.reduce_sum(tf.math.squared_difference(y_pred, y_true), axis=-1)


@keras.saving.register_keras_serializable("unitbox_tf")
def smooth_l1_loss(y_true: Any, y_pred: Any, beta: float = 1.0) -> tf.Tensor:
    """Sum `[...]` over the four numbers `[..., 4]` of either format: d^2 / (2 beta) if |d| < beta, else |d| - beta / 2.

    Source: Girshick, Fast R-CNN, ICCV 2015, equations 2 and 3, with `beta` = 1 pixel.
    """
    _check_options(beta=beta)
    y_true, y_pred = _checked(y_true, y_pred)
    size = tf.abs(y_pred - y_true)
    inner = tf.minimum(tf.cast(beta, size.dtype), size)
    return tf.reduce_sum(tf.square(inner) / (2 * beta) + (size - inner), axis=-1)


@keras.saving.register_keras_serializable("unitbox_tf")
def iou(y_true: Any, y_pred: Any, box_format: BoxFormat = "tblr") -> tf.Tensor:
    """IoU `[...]`, 0 to 1, of `[..., 4]` each; 0 where there is no true box."""
    y_true, y_pred = _checked(y_true, y_pred)
    o = _Overlap(*(_to_tblr(y, box_format) for y in (y_true, y_pred)))
    value = tf.where(_has_area(o.g_h, o.g_w), tf.math.divide_no_nan(o.I, o.U), 0)
    return _shaped(value, y_pred)


def _overlap(
    y_true: Any, y_pred: Any, box_format: BoxFormat, alpha: float
) -> tuple[_Overlap, Callable[[tf.Tensor], tf.Tensor]]:
    """The overlap, and a function that gives a loss `[N]` the shape `[...]` of the input."""
    _check_options(alpha=alpha)
    y_true, y_pred = _checked(y_true, y_pred)
    overlap = _Overlap(*_as_tblr(y_true, y_pred, box_format))
    return overlap, functools.partial(_shaped, y_pred=y_pred)


def _check_options(box_format: str = "tblr", alpha: float = 1.0, beta: float = 1.0) -> None:
    if box_format not in ("tblr", "xyxy"):
        raise ValueError(
            f"Expected box_format 'tblr' or 'xyxy'. Received: box_format={box_format!r}"
        )
    if not 1 <= alpha < math.inf:
        raise ValueError(
            "Expected alpha of at least 1: below, the gradient of a power is infinite at 0. "
            f"Received: alpha={alpha}"
        )
    if not 0 < beta < math.inf:
        raise ValueError(f"Expected beta above 0. Received: beta={beta}")


def _power(x: tf.Tensor, alpha: float) -> tf.Tensor:
    # Rounding can make 0 negative, such as C - U if one box holds the other. Clipping is right only
    # here, where the slope at 0 is 0. Elsewhere, XLA might clip one half of a gradient and not the other,
    # because it rounds again wherever it needs a number.
    return x if alpha == 1 else tf.maximum(x, 0) ** alpha


def _as_tblr(
    y_true: tf.Tensor, y_pred: tf.Tensor, box_format: BoxFormat
) -> tuple[tf.Tensor, tf.Tensor]:
    """Both `[..., 4]` as `[4, N]` `tblr`. Without a true box, both become the same box: no loss, no gradient."""
    y_true, y_pred = _to_tblr(y_true, box_format), _to_tblr(y_pred, box_format)
    valid = _has_area(*_height_and_width(y_true))
    # The prediction is replaced, not only its loss: otherwise NaN in it would make the gradient NaN.
    return tf.where(valid, y_true, 1), tf.where(valid, y_pred, 1)


def _has_area(height: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
    """True if the area of a true box is large enough to compute with: in float32, for sides from about 1e-11."""
    smallest = np.finfo(height.dtype.as_numpy_dtype).tiny / (_NO_OFFSET**2 * RELATIVE_FLOOR)
    return (height > 0) & (width > 0) & (height * width > smallest)


def _to_tblr(y: tf.Tensor, box_format: BoxFormat) -> tf.Tensor:
    _check_options(box_format)
    columns = tf.transpose(tf.reshape(y, [-1, 4]))
    if box_format == "tblr":
        return columns
    x0, y0, x1, y1 = tf.unstack(columns)
    return tf.stack([-y0, y1, -x0, x1])


def _shaped(value: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
    """`value` `[N]` in the shape `[...]` that belongs to `y_pred` `[..., 4]`."""
    return tf.ensure_shape(tf.reshape(value, tf.shape(y_pred)[:-1]), y_pred.shape[:-1])


def _checked(y_true: Any, y_pred: Any) -> tuple[tf.Tensor, tf.Tensor]:
    """Both in the type for computing, after a check that they have one shape `[..., 4]`."""
    y_pred, y_true = tf.convert_to_tensor(y_pred), tf.convert_to_tensor(y_true)
    _check_shapes(y_true, y_pred)
    if y_pred.dtype not in (tf.float32, tf.float64):
        y_pred = _widened(y_pred)
    return tf.stop_gradient(tf.cast(y_true, y_pred.dtype)), y_pred


def _check_shapes(y_true: tf.Tensor, y_pred: tf.Tensor) -> None:
    """Refuses shapes other than one `[..., 4]`. Dimensions that are unknown now are checked when the graph runs."""
    is_box = y_pred.shape.rank != 0 and y_pred.shape[-1:].is_compatible_with([4])
    if not is_box or not y_true.shape.is_compatible_with(y_pred.shape):
        raise ValueError(
            "Expected y_true and y_pred of one shape [..., 4]. "
            f"Received: y_true.shape={y_true.shape}, y_pred.shape={y_pred.shape}"
        )
    if not (y_true.shape.is_fully_defined() and y_pred.shape.is_fully_defined()):
        tf.debugging.assert_equal(
            tf.shape(y_true), tf.shape(y_pred), "Expected y_true and y_pred of one shape [..., 4]"
        )


@tf.custom_gradient
def _widened(y: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
    """`y` as float32. Its gradient, which may be too large for float16, is cut to the finite range of its type."""
    return tf.cast(y, tf.float32), lambda upstream: tf.saturate_cast(upstream, y.dtype)


@keras.saving.register_keras_serializable("unitbox_tf")
class FocalLoss(keras.losses.Loss):
    """Focal cross-entropy `[...]` of logits `[..., C]`, added up over the classes, with a target from 0 to 1 for each.

    |y - p|^gamma weights the cross-entropy of each number, where y is the target and p the predicted probability. So
    numbers that are right already count little, and the many points without an object do not drown the few with
    one. It computes in float32. Numbers with a `sample_weight` of 0 cost nothing.

    Source: Lin et al., Focal Loss for Dense Object Detection, ICCV 2017, equation 4, without its alpha, for targets
        of 0 and 1; section 4.1 for the division. Li et al., Generalized Focal Loss, NeurIPS 2020, equation 4, for
        targets between them.
    """

    def __init__(
        self,
        gamma: float = 2.0,
        *,
        reduction: Literal["sum", "positive_mean"] = "positive_mean",
        name: str = "focal_loss",
        dtype: Any = None,
    ) -> None:
        """A loss for `model.compile` or to be called.

        Args:
            gamma: the exponent: 0, which is the cross-entropy, or at least 1.
            reduction: `"sum"`, or `"positive_mean"`: the sum divided by the weights of the targets above 0, or by 1
                if these are less.
            name: the name in logs.
            dtype: see `keras.losses.Loss`.

        Raises:
            ValueError: an argument is another one.
        """
        if gamma != 0 and not 1 <= gamma < math.inf:
            raise ValueError(
                f"Expected gamma of 0, or of at least 1: between, the gradient is infinite. Received: gamma={gamma}"
            )
        if reduction not in ("sum", "positive_mean"):
            raise ValueError(
                f"Expected reduction 'sum' or 'positive_mean'. Received: reduction={reduction!r}"
            )
        super().__init__(name=name, reduction="sum", dtype=dtype)
        self.gamma = gamma
        self._divides = reduction == "positive_mean"

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> tf.Tensor:
        y_true = tf.cast(y_true, tf.float32)
        total = super().__call__(y_true, y_pred, sample_weight)
        if not self._divides:
            return total
        positive = tf.reduce_sum(tf.cast(y_true > 0, tf.float32), axis=-1)
        if sample_weight is not None:
            positive *= tf.cast(sample_weight, tf.float32)
        return total / tf.cast(tf.maximum(tf.reduce_sum(positive), 1.0), total.dtype)

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        y_true, logits = tf.cast(y_true, tf.float32), tf.cast(y_pred, tf.float32)
        entropy = tf.nn.sigmoid_cross_entropy_with_logits(labels=y_true, logits=logits)
        if self.gamma:
            entropy *= tf.pow(tf.abs(y_true - tf.sigmoid(logits)), self.gamma)
        return tf.reduce_sum(entropy, axis=-1)

    def get_config(self) -> dict[str, Any]:
        reduction = "positive_mean" if self._divides else "sum"
        return {
            "gamma": self.gamma,
            "reduction": reduction,
            "name": self.name,
            "dtype": self.dtype,
        }


class BoxLoss(keras.losses.Loss):
    """Base of the Keras losses of this module, for `[..., 4]`, such as distance heatmaps `[B, H, W, 4]`.

    A class of your own derives from it, gives its function to the constructor, and is added with
    `registry.LOSSES.register("name", MyLoss)`. All arguments of the classes are keywords: the options
    of the function, then the arguments of Keras.

    Pixels with a `sample_weight` of 0 are left out: they cost nothing, and NaN there does no harm.
    `sample_weight` has the shape `[...]` or `[..., 1]`, or only leading axes, such as `[B]`. Without it,
    means are over all pixels, also those without an object.

    Attributes:
        function: the loss of each pixel.
        options: further arguments of the function.
        gather: True gathers and computes only the pixels that count. False computes all pixels and masks
            them. The value is the same. Gathering is faster, except with XLA, for which training sets
            False. It is not part of the stored configuration.
        looks_everywhere: True if the function reads the prediction where there is no true box. Losses of
            overlap do not.
        takes_alpha: True if the constructor takes the power `alpha`, which training hands on.
    """

    gather: bool = True
    looks_everywhere: ClassVar[bool] = True
    takes_alpha: ClassVar[bool] = False

    def __init__(
        self,
        function: Callable[..., tf.Tensor],
        *,
        reduction: str = MEAN,
        name: str | None = None,
        dtype: Any = None,
        **options: Any,
    ) -> None:
        """A loss for `model.compile` or to be called.

        Args:
            function: maps truth and prediction `[..., 4]` to losses `[...]`.
            reduction: `"sum"`, `"mean_with_sample_weight"` (the sum divided by the sum of the
                weights) or another of Keras.
            name: the name in logs; None takes the name of the function.
            dtype: the type to which Keras casts truth and prediction; None takes `floatx`.
            options: further arguments of the function, stored with the loss.
        """
        super().__init__(name=name or function.__name__, reduction=reduction, dtype=dtype)
        self.function, self.options = function, options

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        return self.function(y_true, y_pred, **self.options)

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> tf.Tensor:
        mask = getattr(y_pred, "_keras_mask", None)
        y_true, y_pred = tf.convert_to_tensor(y_true), tf.convert_to_tensor(y_pred)
        _check_shapes(y_true, y_pred)
        if y_pred.dtype.size < 4:  # Keras would cast it with a gradient that float16 may not hold
            y_pred = _widened(y_pred)
        if sample_weight is not None:
            sample_weight = _weights_of_pixels(y_pred, sample_weight)
            if mask is None and self.gather and self.reduction in _OF_WEIGHTED_PIXELS:
                gathered = _gather(y_true, y_pred, sample_weight)
                if gathered[0].shape[0] != 0:  # Keras does not reduce the loss of no pixel
                    return super().__call__(*gathered)
            y_true, y_pred = _mask(y_true, y_pred, sample_weight, self.looks_everywhere)
        if mask is not None:
            y_pred._keras_mask = mask  # other tensors do not carry it on
        return super().__call__(y_true, y_pred, sample_weight)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "dtype": self.dtype, **self.options}


_OF_WEIGHTED_PIXELS = ("sum", MEAN)  # reductions that need no other pixels


def _weights_of_pixels(y_pred: tf.Tensor, sample_weight: Any) -> tf.Tensor:
    """`sample_weight` with the shape `[...]` and a type for fractions, for `y_pred` `[..., 4]`."""
    weight = tf.convert_to_tensor(sample_weight)
    weight = tf.cast(weight, tf.float64 if y_pred.dtype == tf.float64 else tf.float32)
    shape = y_pred.shape[:-1]
    if weight.shape.rank == y_pred.shape.rank and weight.shape[-1] == 1:
        weight = weight[..., 0]
    known = weight.shape.rank is not None and shape.rank is not None
    if not known or not shape[: weight.shape.rank].is_compatible_with(weight.shape):
        raise ValueError(
            f"Expected sample_weight of shape {shape}, with or without a last axis of 1, or of its "
            f"leading axes. Received: sample_weight.shape={weight.shape}"
        )
    missing = shape.rank - weight.shape.rank
    if missing:
        weight = tf.reshape(weight, tf.concat([tf.shape(weight), [1] * missing], axis=0))
        weight = tf.broadcast_to(weight, tf.shape(y_pred)[:-1])
    if not (weight.shape.is_fully_defined() and shape.is_fully_defined()):
        one_each = tf.debugging.assert_equal(
            tf.shape(weight), tf.shape(y_pred)[:-1], "Expected a sample_weight for each pixel"
        )
        with tf.control_dependencies([one_each]):
            weight = tf.identity(weight)
    return weight


def _gather(y_true: tf.Tensor, y_pred: tf.Tensor, weight: tf.Tensor) -> tuple[tf.Tensor, ...]:
    """The pixels that count: `[N, 4]`, `[N, 4]` and their weights `[N]`."""
    weight = tf.reshape(weight, [-1])
    pixels = tf.where(weight != 0)[:, 0]
    rows = (tf.reshape(y, [-1, 4]) for y in (y_true, y_pred))
    return *(_rows_at(y, pixels) for y in rows), tf.gather(weight, pixels)


@tf.custom_gradient
def _rows_at(
    y: tf.Tensor, pixels: tf.Tensor
) -> tuple[tf.Tensor, Callable[[tf.Tensor], tuple[tf.Tensor, None]]]:
    """`tf.gather` with a dense gradient. No row is taken twice, so the gradient needs no sum."""

    def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, None]:
        return tf.scatter_nd(pixels[:, None], upstream, tf.shape(y, out_type=pixels.dtype)), None

    return tf.gather(y, pixels), gradient


def _mask(
    y_true: tf.Tensor, y_pred: tf.Tensor, weight: tf.Tensor, prediction: bool
) -> tuple[tf.Tensor, tf.Tensor]:
    """All pixels. Pixels that do not count get no true box and, if asked, no `prediction` either."""
    counts = (weight != 0)[..., None]
    y_true = tf.where(counts, y_true, tf.zeros([], y_true.dtype))
    if prediction:
        y_pred = tf.where(counts, y_pred, tf.zeros([], y_pred.dtype))
    return y_true, y_pred


@keras.saving.register_keras_serializable("unitbox_tf")
class IoULoss(BoxLoss):
    """`iou_loss` as a Keras loss."""

    looks_everywhere = False

    def __init__(
        self,
        *,
        box_format: BoxFormat = "tblr",
        reduction: str = MEAN,
        name: str | None = None,
        dtype: Any = None,
    ) -> None:
        """`box_format` is explained in `iou_loss`, and the other arguments in `BoxLoss`."""
        _check_options(box_format=box_format)
        super().__init__(
            iou_loss, reduction=reduction, name=name, dtype=dtype, box_format=box_format
        )


class _PowerLoss(BoxLoss):
    """Base of the losses with a power; `formula` is the function."""

    formula: ClassVar[Callable[..., tf.Tensor]]
    looks_everywhere = False
    takes_alpha = True

    def __init__(
        self,
        *,
        box_format: BoxFormat = "tblr",
        alpha: float = 1.0,
        reduction: str = MEAN,
        name: str | None = None,
        dtype: Any = None,
    ) -> None:
        """`box_format` and the power `alpha` are those of the function. `BoxLoss` explains the other arguments."""
        _check_options(box_format=box_format, alpha=alpha)
        super().__init__(
            type(self).formula,
            reduction=reduction,
            name=name,
            dtype=dtype,
            box_format=box_format,
            alpha=alpha,
        )


@keras.saving.register_keras_serializable("unitbox_tf")
class LinearIoULoss(_PowerLoss):
    """`linear_iou_loss` as a Keras loss."""

    formula = staticmethod(linear_iou_loss)


@keras.saving.register_keras_serializable("unitbox_tf")
class GIoULoss(_PowerLoss):
    """`giou_loss` as a Keras loss."""

    formula = staticmethod(giou_loss)


@keras.saving.register_keras_serializable("unitbox_tf")
class DIoULoss(_PowerLoss):
    """`diou_loss` as a Keras loss."""

    formula = staticmethod(diou_loss)


@keras.saving.register_keras_serializable("unitbox_tf")
class CIoULoss(_PowerLoss):
    """`ciou_loss` as a Keras loss."""

    formula = staticmethod(ciou_loss)


@keras.saving.register_keras_serializable("unitbox_tf")
class EIoULoss(_PowerLoss):
    """`eiou_loss` as a Keras loss."""

    formula = staticmethod(eiou_loss)


@keras.saving.register_keras_serializable("unitbox_tf")
class SIoULoss(_PowerLoss):
    """`siou_loss` as a Keras loss."""

    formula = staticmethod(siou_loss)


@keras.saving.register_keras_serializable("unitbox_tf")
class L2Loss(BoxLoss):
    """`l2_loss` as a Keras loss."""

    def __init__(
        self, *, reduction: str = MEAN, name: str | None = None, dtype: Any = None
    ) -> None:
        """The arguments are those of `BoxLoss`."""
        super().__init__(l2_loss, reduction=reduction, name=name, dtype=dtype)


@keras.saving.register_keras_serializable("unitbox_tf")
class SmoothL1Loss(BoxLoss):
    """`smooth_l1_loss` as a Keras loss."""

    def __init__(
        self,
        *,
        beta: float = 1.0,
        reduction: str = MEAN,
        name: str | None = None,
        dtype: Any = None,
    ) -> None:
        """`beta`, in pixels, is explained in `smooth_l1_loss`, and the other arguments in `BoxLoss`."""
        _check_options(beta=beta)
        super().__init__(smooth_l1_loss, reduction=reduction, name=name, dtype=dtype, beta=beta)


@keras.saving.register_keras_serializable("unitbox_tf")
class MeanIoU(keras.metrics.MeanMetricWrapper):
    """Mean IoU of predicted and true boxes over pixels, weighted by `sample_weight`. Weight 0 leaves a pixel out."""

    def __init__(self, name: str = "iou", dtype: Any = None) -> None:
        super().__init__(fn=iou, name=name, dtype=dtype)

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        if sample_weight is not None:
            y_true, y_pred = tf.convert_to_tensor(y_true), tf.convert_to_tensor(y_pred)
            sample_weight = _weights_of_pixels(y_pred, sample_weight)
            y_true, y_pred = _mask(y_true, y_pred, sample_weight, prediction=False)
        super().update_state(y_true, y_pred, sample_weight)

    def get_config(self) -> dict[str, Any]:
        return {"name": self.name, "dtype": self.dtype}
