"""What the network should predict: heatmaps painted from boxes (section 2 and figure 2 of the paper)."""

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
) -> tuple[Heatmaps, Heatmaps]:
    """Heatmaps of an image of `height` x `width` pixels, and their weights.

    A pixel is positive when its centre lies in the region of a box: the ellipse inscribed in it
        (figure 2) or the box itself.
    Where regions meet, the smaller object has the pixel: it lies in front more often, and it has
    fewer pixels to lose. A box that is to be ignored takes its whole box and, where it has the
    pixel, removes it from both losses.

    Args:
        boxes: `xyxy` `[N, 4]`, in pixels of the image.
        classes: `[N]` int32, below `num_classes`.
        ignore: `[N]` bool.
        height: of the image.
        width: of the image.
        num_classes: C, the number of confidence maps.
        region: which pixels of a box are positive.
        positive_weight: weight of positive pixels in the confidence loss; the others have 1.
        equal_objects: the weights of the distance loss of each object add up to 1, whatever its
            size; else each of its pixels has weight 1.

    Returns:
        Two dicts with the keys `"confidence"` and `"distances"`. Targets: `[H, W, C]`, 1 where an
        object of that class has the pixel, and `[H, W, 4]` `tblr` in pixels, 0 where no object has
        it. Weights: `[H, W]` each, 0 at pixels that do not count.
    """
    points = box_ops.pixel_centres(height, width)
    owner = _paint_owners(boxes, ignore, points, region)  # [H, W], -1 where nobody is
    painted = tf.concat([boxes, tf.zeros([1, 4])], axis=0)  # row N stands for "nobody", as -1 does
    index = tf.where(owner < 0, tf.shape(boxes)[0], owner)
    ignored = tf.gather(tf.concat([ignore, [False]], axis=0), index)
    positive = (owner >= 0) & ~ignored
    weight = tf.cast(positive, tf.float32)

    label = tf.gather(tf.concat([classes, [0]], axis=0), index)
    confidence = tf.one_hot(label, num_classes) * weight[..., None]
    distances = box_ops.boxes_to_distances(tf.gather(painted, index), points)
    targets = {"confidence": confidence, "distances": distances * weight[..., None]}
    pixels = tf.math.unsorted_segment_sum(weight, index, tf.shape(painted)[0])  # [N + 1]
    weights = {
        "confidence": tf.where(ignored, 0.0, tf.where(positive, positive_weight, 1.0)),
        "distances": tf.math.divide_no_nan(weight, tf.gather(pixels, index))
        if equal_objects
        else weight,
    }
    return targets, weights


def _paint_owners(
    boxes: tf.Tensor, ignore: tf.Tensor, points: tf.Tensor, region: Region
) -> tf.Tensor:
    """For each pixel `[H, W]` the index of the box that has it, -1 for none.

    A fold that carries one map: a stack of N maps would take gigabytes for the hundreds of faces
        that photos of crowds have.
    """
    # Large boxes first, so that a small one keeps its pixels.
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
        return tf.where(inside, index, owner)

    return tf.foldl(paint, order, initializer=tf.fill(tf.shape(points)[:2], -1))
