"""The targets of the network: heatmaps painted from boxes (section 2 and figure 2 of the paper)."""

from __future__ import annotations

from typing import Literal

import tensorflow as tf

from unitbox_tf import boxes as box_ops

Region = Literal["ellipse", "box"]
Heatmaps = dict[str, tf.Tensor]


def encode(
    boxes: tf.Tensor,
    classes: tf.Tensor,
    ignore: tf.Tensor,
    height: int | tf.Tensor,
    width: int | tf.Tensor,
    *,
    num_classes: int = 1,
    region: Region = "ellipse",
    positive_weight: float = 1.0,
    equal_objects: bool = False,
    share_power: float = 0.0,
    stride: int = 1,
) -> tuple[Heatmaps, Heatmaps]:
    """Heatmaps of an image of `height` x `width` pixels, and their weights, at points `stride` pixels apart.

    A point is positive if it lies in the region of an object: the ellipse inscribed in the box (figure 2), or the
    box itself. Where regions overlap, the smaller object owns the point, because it is in front more often. An
    ignored object takes its whole box, and its points count in neither loss. With a stride of 1, the points are the
    centres of the pixels.

    A region may lie between the points of a larger stride. Then the object takes the point nearest to its centre. If
    this point lies outside its box, the point is ignored: the box cannot be predicted from there, but nothing is
    learned against it.

    Args:
        boxes: `xyxy` `[N, 4]`, in pixels of the image.
        classes: `[N]` int32, below `num_classes`.
        ignore: `[N]` bool.
        height: the height of the image.
        width: the width of the image.
        num_classes: C, the number of confidence maps.
        region: the positive points of a box.
        positive_weight: weight of positive points in the confidence loss. Other points have the weight 1.
        equal_objects: True makes the weights of each object in the distance loss add up to 1. False gives
            each point the weight 1.
        share_power: the weights of an object's n points in the confidence loss are divided by n to this power. With
            0, an object counts by its area, with 1/2 by the root of it, and with 1 all objects count the same.
        stride: pixels from one point of the maps to the next.

    Returns:
        Two dicts of `"confidence"` and `"distances"`. Targets: `[H, W, C]`, 1 if an object of that class
        owns the point, and `[H, W, 4]` `tblr` in pixels, 0 if no object owns it. Weights: `[H, W]` each,
        0 at points that do not count. With a stride, H and W are divided by it and rounded up.
    """
    points = box_ops.map_points(height, width, stride)
    owner = _paint_owners(boxes, ignore, points, region, stride)  # [H, W], -1 where nobody is
    index = tf.where(owner < 0, tf.shape(boxes)[0], owner)  # N stands for "nobody" from here on
    ignored = tf.gather(tf.concat([ignore, [False]], axis=0), index)
    box = tf.gather(tf.concat([boxes, tf.zeros([1, 4])], axis=0), index)
    distances = box_ops.boxes_to_distances(box, points)
    if stride > 1:
        ignored |= (owner >= 0) & tf.reduce_any(distances <= 0, axis=-1)
    counts = tf.cast((owner >= 0) & ~ignored, tf.float32)
    shares = _shares(counts, index, tf.shape(boxes)[0] + 1)
    positive = positive_weight * (tf.pow(shares, share_power) if share_power else 1.0)
    label = tf.gather(tf.concat([classes, [0]], axis=0), index)
    heatmaps = {
        "confidence": tf.one_hot(label, num_classes) * counts[..., None],
        "distances": distances * counts[..., None],
    }
    weights = {
        "confidence": tf.where(ignored, 0.0, tf.where(counts > 0, positive, 1.0)),
        "distances": shares if equal_objects else counts,
    }
    return heatmaps, weights


def _shares(counts: tf.Tensor, index: tf.Tensor, num_objects: tf.Tensor) -> tf.Tensor:
    """`counts` `[H, W]` divided by the number of points of each object, so that the sum over each object is 1."""
    pixels = tf.math.unsorted_segment_sum(counts, index, num_objects)
    return tf.math.divide_no_nan(counts, tf.gather(pixels, index))


def _paint_owners(
    boxes: tf.Tensor, ignore: tf.Tensor, points: tf.Tensor, region: Region, stride: int
) -> tf.Tensor:
    """For each point `[H, W]`, the index of the box that owns it; -1 for none.

    A fold needs only one map. A stack of N maps would take gigabytes for an image of a crowd with hundreds
    of faces.
    """
    # Large boxes first, so that a small one keeps its points.
    order = tf.argsort(box_ops.areas(boxes), direction="DESCENDING", stable=True)
    x, y = points[0, :, 0], points[:, 0, 1]

    def paint(owner: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
        x0, y0, x1, y1 = tf.unstack(boxes[index])
        # Distance from the centre as a share of the half width and height: 1 on the edge.
        dx = tf.abs(x - (x0 + x1) / 2) / ((x1 - x0) / 2)
        dy = tf.abs(y - (y0 + y1) / 2) / ((y1 - y0) / 2)
        inside = (dx < 1)[None, :] & (dy < 1)[:, None]
        if region == "ellipse":
            in_ellipse = tf.square(dx)[None, :] + tf.square(dy)[:, None] < 1
            inside &= in_ellipse | ignore[index]
        if stride > 1:
            lost = ~tf.reduce_any(inside) & (x0 < x1) & (y0 < y1)
            inside |= lost & _nearest(x, y, boxes[index], stride)
        return tf.where(inside, index, owner)

    return tf.foldl(paint, order, initializer=tf.fill(tf.shape(points)[:2], -1))


def _nearest(x: tf.Tensor, y: tf.Tensor, box: tf.Tensor, stride: int) -> tf.Tensor:
    """True `[H, W]` at the point nearest to the centre of a box, which is nowhere if the centre is outside the image.

    The points have the columns `x` `[W]` and the rows `y` `[H]`. Each stands for a square of `stride` pixels.
    """

    def holds(middle: tf.Tensor, centre: tf.Tensor) -> tf.Tensor:
        first = middle - stride / 2
        return (first <= centre) & (centre < first + stride)

    column, row = holds(x, (box[0] + box[2]) / 2), holds(y, (box[1] + box[3]) / 2)
    return column[None, :] & row[:, None]
