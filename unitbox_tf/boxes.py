"""Geometry of boxes and of the distances that UnitBox predicts. The package states its conventions here, once.

* **Boxes** are `xyxy`: left, top, right, bottom edges in pixels, `x0 < x1` and `y0 < y1`. Edges are
  positions, not pixel indices: the box of a whole image of `W x H` pixels is `(0, 0, W, H)`, and
  areas are plain products.
* **Points** are `xy`. Pixel `(row i, column j)` has its centre at `(j + 0.5, i + 0.5)`.
* **Distances** are `tblr`: how far the top, bottom, left and right sides of a box are from a point,
  the order of the paper's equation 1. With pixel centres, all four are positive exactly when the
  pixel's centre lies inside the box, so a distance of zero can only mean "no box here".

Functions of tensors run in TensorFlow graphs. Functions for readers and judges use NumPy, so that they
need no import of TensorFlow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import tensorflow as tf


def map_points(height: int | tf.Tensor, width: int | tf.Tensor, stride: int) -> tf.Tensor:
    """Points `xy` `[h, w, 2]` of a map of `stride` over an image of `height` x `width` pixels; the last may be outside.

    A stride of 1 gives the centres of the pixels.
    """
    return pixel_centres(-(-height // stride), -(-width // stride)) * stride


def pixel_centres(height: int | tf.Tensor, width: int | tf.Tensor) -> tf.Tensor:
    """Points `xy` `[height, width, 2]` at the centres of the pixels of an image."""
    import tensorflow as tf

    grid = tf.stack(tf.meshgrid(tf.range(width), tf.range(height)), axis=-1)  # [height, width, 2]
    return tf.cast(grid, tf.float32) + 0.5


def boxes_to_distances(boxes: tf.Tensor, points: tf.Tensor) -> tf.Tensor:
    """Distances `tblr` `[..., 4]` from `points` `xy` `[..., 2]` to the sides of `boxes` `xyxy` `[..., 4]`, in pixels.

    All four are positive exactly when the point lies inside the box (equation 1 of the paper).
    """
    import tensorflow as tf

    left, top = tf.unstack(points - boxes[..., :2], axis=-1)
    right, bottom = tf.unstack(boxes[..., 2:] - points, axis=-1)
    return tf.stack([top, bottom, left, right], axis=-1)


def distances_to_boxes(distances: tf.Tensor, points: tf.Tensor) -> tf.Tensor:
    """Boxes `xyxy` `[..., 4]` whose sides are `distances` `tblr` `[..., 4]` away from `points` `xy` `[..., 2]`.

    The inverse of `boxes_to_distances`.
    """
    import tensorflow as tf

    top, bottom, left, right = tf.unstack(distances, axis=-1)
    x, y = tf.unstack(points, axis=-1)
    return tf.stack([x - left, y - top, x + right, y + bottom], axis=-1)


def areas(boxes: Any) -> Any:
    """Areas `[...]` of `boxes` `xyxy` `[..., 4]`, in square pixels. Takes and returns NumPy arrays or tensors."""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def long_sides(boxes: Any) -> Any:
    """The longer side `[...]` of `boxes` `xyxy` `[..., 4]`. Takes and returns NumPy arrays or tensors."""
    width, height = boxes[..., 2] - boxes[..., 0], boxes[..., 3] - boxes[..., 1]
    return (width + height + abs(width - height)) / 2


def pairwise_iou(boxes_a: np.ndarray, boxes_b: np.ndarray) -> np.ndarray:
    """Intersection over union `[N, M]` of every box of `boxes_a` `[N, 4]` with every box of `boxes_b` `[M, 4]`, `xyxy`.

    0 where the union is empty.
    """
    boxes_a = np.asarray(boxes_a, np.float64)
    boxes_b = np.asarray(boxes_b, np.float64)
    low = np.maximum(boxes_a[:, None, :2], boxes_b[None, :, :2])
    high = np.minimum(boxes_a[:, None, 2:], boxes_b[None, :, 2:])
    intersection = np.maximum(high - low, 0.0).prod(axis=-1)  # [N, M]
    union = areas(boxes_a)[:, None] + areas(boxes_b)[None, :] - intersection
    return np.divide(intersection, union, out=np.zeros_like(intersection), where=union > 0)


def clip(boxes: np.ndarray, height: float, width: float) -> np.ndarray:
    """`boxes` `xyxy` `[..., 4]` cut to an image of `height` x `width` pixels. A box outside has no area afterwards."""
    limits = np.array([width, height, width, height], np.float32)
    return np.clip(np.asarray(boxes, np.float32), 0.0, limits)


def ellipses_to_boxes(ellipses: np.ndarray) -> np.ndarray:
    """Tight boxes `xyxy` `[N, 4]` around `ellipses` `[N, 5]`: half axis a, half axis b, angle, centre x, centre y.

    The angle is measured from the x axis to half axis a, in radians (FDDB's annotation format). The
    half width of the box is `sqrt((a cos)^2 + (b sin)^2)`, its half height `sqrt((a sin)^2 + (b
    cos)^2)`.
    """
    a, b, angle, x, y = np.asarray(ellipses, np.float64).reshape(-1, 5).T
    half_width = np.hypot(a * np.cos(angle), b * np.sin(angle))
    half_height = np.hypot(a * np.sin(angle), b * np.cos(angle))
    return np.stack([x - half_width, y - half_height, x + half_width, y + half_height], axis=-1)


def boxes_to_ellipses(boxes: np.ndarray) -> np.ndarray:
    """The ellipses `[N, 5]` inscribed in `boxes` `xyxy` `[N, 4]`, half axis a being the longer one.

    `ellipses_to_boxes` gives the boxes back.
    """
    x0, y0, x1, y1 = np.asarray(boxes, np.float64).reshape(-1, 4).T
    half_width, half_height = (x1 - x0) / 2, (y1 - y0) / 2
    a, b = np.maximum(half_width, half_height), np.minimum(half_width, half_height)
    angle = np.where(half_height > half_width, np.pi / 2, 0.0)
    return np.stack([a, b, angle, (x0 + x1) / 2, (y0 + y1) / 2], axis=-1)
