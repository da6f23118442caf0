"""The targets of the network: heatmaps painted from boxes (section 2 and figure 2 of the paper).

Painting touches only the points in the window of each box, and only points that an object owns are computed. The
other points of a map have a constant.
"""

from __future__ import annotations

import sys
from typing import Literal, NamedTuple

import tensorflow as tf

from unitbox_tf import boxes as box_ops

Region = Literal["ellipse", "box"]
Heatmaps = dict[str, tf.Tensor]

LANES = 16  # numbers of float32 in the longest vector of a processor that TensorFlow computes with
NOBODY = (0.0, -0.0, 0.0, -0.0)  # distances of a point that no object owns


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

    Time and memory grow with the points in the boxes, memory up to a few times that of the maps.

    Args:
        boxes: `xyxy` `[N, 4]`, in pixels of the image. A box without area takes no point.
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
    found = encode_batch(
        boxes,
        classes,
        ignore,
        tf.zeros_like(classes),
        1,
        height,
        width,
        num_classes=num_classes,
        region=region,
        positive_weight=positive_weight,
        equal_objects=equal_objects,
        share_power=share_power,
        stride=stride,
    )
    heatmaps, weights = ({name: value[0] for name, value in maps.items()} for maps in found)
    return heatmaps, weights


def encode_batch(
    boxes: tf.Tensor,
    classes: tf.Tensor,
    ignore: tf.Tensor,
    images: tf.Tensor,
    count: int | tf.Tensor,
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
    """The targets of `encode` for each of `count` images of one size, to the bit: `[B, H, W, C]`, `[B, H, W, 4]`, ...

    A graph takes most of its time for starting operations, which are as many for a batch as for an image.

    Args:
        boxes: of all images, `xyxy` `[N, 4]`, in pixels of their images.
        classes: `[N]` int32.
        ignore: `[N]` bool.
        images: int32 `[N]`, the number in the batch of the image of each object.
        count: B, the number of images.
        height: of an image.
        width: of an image.
        num_classes: see `encode`, also for the rest.
        region: the positive points of a box.
        positive_weight: weight of positive points.
        equal_objects: True gives each object the same weight.
        share_power: of the pixels of an object.
        stride: pixels from one point to the next.
    """
    rows, columns = -(-height // stride), -(-width // stride)
    objects, size = tf.shape(boxes)[0], rows * columns
    points = count * size
    # Large boxes first, so that a small one keeps its points: of the boxes at a point, the last one owns it.
    order = tf.argsort(box_ops.areas(boxes), direction="DESCENDING", stable=True)
    boxes, classes, ignore, images = (
        tf.gather(values, order) for values in (boxes, classes, ignore, images)
    )
    # [B * H * W], below 0: nobody
    owners = _paint_owners(boxes, ignore, images * size, points, rows, columns, region, stride)
    place = tf.cast(tf.where(owners >= 0)[:, 0], tf.int32)  # [K], the points that are owned
    index = tf.gather(owners, place)  # of their boxes

    ignored = tf.gather(ignore, index)
    image = tf.gather(images, index)
    in_image = place - image * size
    distances = box_ops.boxes_to_distances(
        tf.gather(boxes, index), _points(in_image, columns, stride)
    )  # [K, 4]
    if stride > 1:
        ignored |= tf.reduce_any(distances <= 0, axis=-1)
    counts = tf.cast(~ignored, tf.float32)
    shares = tf.math.divide_no_nan(1.0, tf.math.unsorted_segment_sum(counts, index, objects))  # [N]
    positive: float | tf.Tensor = positive_weight
    if share_power:
        positive *= _powers(shares, share_power, index, image, in_image, owners, size)
    label = tf.cast(tf.gather(classes, index), tf.int64)
    cell = tf.cast(place, tf.int64) * num_classes + label
    cell = tf.where((label >= 0) & (label < num_classes), cell, -1)

    heatmaps = {
        "confidence": tf.math.unsorted_segment_sum(
            counts, cell, tf.cast(points, tf.int64) * num_classes
        ),
        "distances": _put(distances * counts[:, None], place, tf.tile([NOBODY], [points, 1])),
    }
    weights = {
        "confidence": _put(tf.where(ignored, 0.0, positive), place, tf.ones([points])),
        "distances": tf.math.unsorted_segment_sum(
            counts * tf.gather(shares, index) if equal_objects else counts, place, points
        ),
    }
    shapes = {
        "confidence": [count, rows, columns, num_classes],
        "distances": [count, rows, columns, 4],
    }
    return (
        {name: tf.reshape(value, shapes[name]) for name, value in heatmaps.items()},
        {name: tf.reshape(value, [count, rows, columns]) for name, value in weights.items()},
    )


def _points(place: tf.Tensor, columns: int | tf.Tensor, stride: int) -> tf.Tensor:
    """The points `xy` `[K, 2]` with the numbers `place` `[K]`, which count them row by row."""
    row = place // columns
    return _middles(tf.stack([place - row * columns, row], axis=-1), stride)


def _middles(numbers: tf.Tensor, stride: int) -> tf.Tensor:
    """The positions in pixels of columns or rows of a map, as `box_ops.map_points` has them."""
    return (tf.cast(numbers, tf.float32) + 0.5) * stride


def _powers(
    shares: tf.Tensor,
    power: float,
    index: tf.Tensor,
    image: tf.Tensor,
    place: tf.Tensor,
    owners: tf.Tensor,
    size: int | tf.Tensor,
) -> tf.Tensor:
    """`shares` `[N]` of the objects `index` `[K]` to a power, with the bits of a power of each whole map.

    TensorFlow computes the numbers at the end of an array that do not fill a vector of the processor by another
    function, whose last bit may differ. Such numbers are the last ones of each map of `size` points.
    """
    full = tf.pow(tf.pad(shares, [[0, -tf.shape(shares)[0] % LANES]]), power)
    rest = size % LANES
    if isinstance(rest, int) and not rest:
        return tf.gather(full, index)
    owner = tf.reshape(owners, [-1, size])[:, size - rest :]
    of_owner = tf.gather(tf.pad(shares, [[0, 1]]), tf.where(owner < 0, tf.size(shares), owner))
    last = tf.reshape(tf.map_fn(lambda numbers: tf.pow(numbers, power), of_owner), [-1])
    from_end = place - (size - rest)
    return tf.where(
        from_end < 0,
        tf.gather(full, index),
        tf.gather(tf.pad(last, [[0, 1]]), tf.where(from_end < 0, 0, image * rest + from_end)),
    )


def _put(values: tf.Tensor, place: tf.Tensor, ground: tf.Tensor) -> tf.Tensor:
    """`ground` `[H * W, ...]` with `values` `[K, ...]` at the places `[K]`.

    A scatter takes ten times as long.
    """
    return tf.dynamic_stitch([tf.range(tf.shape(ground)[0]), place], [ground, values])


def _paint_owners(
    boxes: tf.Tensor,
    ignore: tf.Tensor,
    starts: tf.Tensor,
    points: int | tf.Tensor,
    rows: int | tf.Tensor,
    columns: int | tf.Tensor,
    region: Region,
    stride: int,
) -> tf.Tensor:
    """For each of the `points` of all maps, the index of the last box that has it; a negative number for none.

    `starts` `[N]` has the first point of the map of each box. Boxes are painted in groups whose windows have `points`
    points at most, because the boxes of a crowd may each cover the whole image.
    """
    windows = _windows(boxes, rows, columns, stride)  # [N, 4]
    sides = windows[:, 2:] - windows[:, :2]
    most = tf.cast(points, tf.int64)
    ends = tf.cumsum(tf.reduce_prod(tf.cast(sides, tf.int64), axis=1))  # of the points of each box
    whole = region == "box"

    def paint(first: tf.Tensor, owners: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        before = tf.where(first > 0, ends[tf.maximum(first - 1, 0)], 0)
        last = tf.searchsorted(ends, [before + most], side="right")[0]
        group = slice(first, last)
        found = _paint(
            boxes[group],
            ignore[group] | whole,
            windows[group],
            starts[group],
            points,
            rows,
            columns,
            stride,
        )
        return last, tf.maximum(owners, found + first)

    start = (tf.constant(0), tf.fill([points], -1))
    count = tf.shape(boxes)[0]
    return tf.while_loop(lambda first, _: first < count, paint, start, parallel_iterations=1)[1]


def _windows(
    boxes: tf.Tensor, rows: int | tf.Tensor, columns: int | tf.Tensor, stride: int
) -> tf.Tensor:
    """First column and row, and those after the last, int32 `[N, 4]`, of all points that may be inside each box.

    A point is added on each side, because a rounded position may lie inside where the exact one does not.
    """
    limits = tf.cast(tf.stack([columns, rows]), tf.float32)
    first = tf.clip_by_value(tf.floor(boxes[:, :2] / stride - 0.5), 0.0, limits)
    after = tf.clip_by_value(tf.math.ceil(boxes[:, 2:] / stride - 0.5) + 1, first, limits)
    has_area = tf.reduce_all(boxes[:, 2:] > boxes[:, :2], axis=1, keepdims=True)
    after = tf.where(has_area, after, first)
    return tf.cast(tf.concat([first, after], axis=1), tf.int32)


def _paint(
    boxes: tf.Tensor,
    whole: tf.Tensor,
    windows: tf.Tensor,
    starts: tf.Tensor,
    points: int | tf.Tensor,
    rows: int | tf.Tensor,
    columns: int | tf.Tensor,
    stride: int,
) -> tf.Tensor:
    """For each of the `points`, the index of the last of `boxes` `[N, 4]` that has it; a negative number for none.

    `whole` `[N]` says which take their box and not their ellipse, `windows` are from `_windows`, and `starts` from
    `_paint_owners`.
    """
    count = tf.shape(boxes)[0]
    row, owner = _unpair(
        _ranges(_pair(windows[:, 1], tf.range(count)), _pair(windows[:, 3], tf.range(count)))
    )
    down = _Sides.of(boxes[:, 1::2], whole, owner).squares(row, stride)
    first, last = _columns(
        _Sides.of(boxes[:, ::2], whole, owner), down, tf.gather(windows[:, ::2], owner), stride
    )
    before = row * columns + tf.gather(starts, owner)
    place, index = _unpair(_ranges(_pair(before + first, owner), _pair(before + last, owner)))
    if stride > 1:
        found = tf.math.unsorted_segment_sum(last - first, owner, count)
        sides = windows[:, 2:] - windows[:, :2]
        lost = (found == 0) & tf.reduce_all(sides > 0, axis=1)
        centre = (boxes[:, :2] + boxes[:, 2:]) / 2
        nearest = _nearest(centre, rows, columns, stride)
        nearest = tf.where(lost & (nearest >= 0), starts + nearest, -1)
        place = tf.concat([place, nearest], axis=0)
        index = tf.concat([index, tf.range(count)], axis=0)
    return tf.math.unsorted_segment_max(index, place, points)


class _Sides(NamedTuple):
    """The boxes of lines `[L]` in one direction."""

    centre: tf.Tensor
    radius: tf.Tensor  # half the side
    whole: tf.Tensor

    @classmethod
    def of(cls, sides: tf.Tensor, whole: tf.Tensor, owner: tf.Tensor) -> _Sides:
        """The values of the boxes `owner` `[L]` among boxes with the `sides` `[N, 2]`."""
        centre, radius = (sides[:, 0] + sides[:, 1]) / 2, (sides[:, 1] - sides[:, 0]) / 2
        return cls(*(tf.gather(values, owner) for values in (centre, radius, whole)))

    def squares(self, numbers: tf.Tensor, stride: int) -> tf.Tensor:
        """The squares of the distances of columns or rows from the centres, as shares of half the sides.

        A point is inside if the squares of both directions add up to less than 1. So the squares of a box that is
        taken `whole` are 0 inside and 2 outside.
        """
        offset = tf.abs(_middles(numbers, stride) - self.centre) / self.radius
        return tf.where(self.whole, tf.where(offset < 1, 0.0, 2.0), tf.square(offset))


def _columns(
    across: _Sides, down: tf.Tensor, windows: tf.Tensor, stride: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """The first column inside on each line, and the one after the last; int32 `[L]` each.

    The columns inside a box are neighbours, since squares grow to both sides of the centre, rounded as they are. So it
    is enough to compute where they end, and to test the columns there: their number grows or shrinks until it is right.

    Args:
        across: the boxes of the lines.
        down: the squares `[L]` of the rows.
        windows: the columns that may be inside, `[L, 2]`, the first and the one after the last.
        stride: pixels from one point to the next.
    """
    low, high = tf.unstack(windows, axis=1)
    reach = across.radius * tf.where(across.whole, 1.0, tf.sqrt(tf.maximum(1 - down, 0.0)))

    def from_left(position: tf.Tensor) -> tf.Tensor:
        """The first column of the window at a position or right of it."""
        number = tf.math.ceil(position / stride - 0.5)
        limits = tf.cast(low, tf.float32), tf.cast(high, tf.float32)
        return tf.cast(tf.clip_by_value(number, *limits), tf.int32)

    def inside(column: tf.Tensor) -> tf.Tensor:
        return across.squares(column, stride) + down < 1

    def more(wanted: tf.Tensor) -> tf.Tensor:
        return tf.cast(wanted, tf.int32)

    middle = from_left(across.centre)

    def correct(_: tf.Tensor, first: tf.Tensor, last: tf.Tensor) -> tuple[tf.Tensor, ...]:
        left = more((first > low) & inside(first - 1)) - more((first < middle) & ~inside(first))
        right = more((last < high) & inside(last)) - more((last > middle) & ~inside(last - 1))
        changes = tf.reduce_any((left != 0) | (right != 0))
        return changes, first - left, last + right

    guess = from_left(across.centre - reach), from_left(across.centre + reach)
    start = (tf.constant(True), tf.minimum(guess[0], middle), tf.maximum(guess[1], middle))
    _, first, last = tf.while_loop(lambda wrong, *_: wrong, correct, start, parallel_iterations=1)
    return first, last


def _nearest(
    centres: tf.Tensor, rows: int | tf.Tensor, columns: int | tf.Tensor, stride: int
) -> tf.Tensor:
    """The number of the point nearest to each of `centres` `xy` `[N, 2]`; -1 if the centre is outside the image.

    Each point stands for a square of `stride` pixels.
    """

    def holding(count: int | tf.Tensor, centre: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        firsts = _middles(tf.range(count), stride) - stride / 2
        number = tf.searchsorted(firsts, centre, side="right") - 1
        return number, (number >= 0) & (centre < tf.gather(firsts, tf.maximum(number, 0)) + stride)

    column, in_columns = holding(columns, centres[:, 0])
    row, in_rows = holding(rows, centres[:, 1])
    return tf.where(in_columns & in_rows, row * columns + column, -1)


def _ranges(starts: tf.Tensor, limits: tf.Tensor) -> tf.Tensor:
    """The numbers from each of `starts` `[N]` to before each of `limits` `[N]`, one range after another."""
    return tf.raw_ops.RaggedRange(starts=starts, limits=limits, deltas=tf.ones([], starts.dtype))[1]


def _pair(low: tf.Tensor, high: tf.Tensor) -> tf.Tensor:
    """Two int32 of at least 0 in an int64: a range then counts `low`, and repeats `high` for each number."""
    return tf.cast(high, tf.int64) * (1 << 32) + tf.cast(low, tf.int64)


def _unpair(pairs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """`low` and `high` of each of `pairs` `[N]`."""
    low, high = tf.unstack(tf.bitcast(pairs, tf.int32), axis=1)
    return (low, high) if sys.byteorder == "little" else (high, low)
