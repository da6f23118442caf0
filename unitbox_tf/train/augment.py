"""Random changes of an image that keep its boxes exact, and plain resizing without random changes.

All functions run in a graph on one image: `image` uint8 or float `[H, W, 3]` from 0 to 255, and
`objects`, a dict of `boxes` `xyxy` `[N, 4]` float32, `classes` `[N]` int32 and `ignore` `[N]` bool.
Random changes take a `seed` `[2]` int32 and depend only on it.
"""

from __future__ import annotations

import math

import tensorflow as tf

from unitbox_tf import boxes as box_ops
from unitbox_tf.datasets.shown import MAX_SHARE, MIN_SHARE

Objects = dict[str, tf.Tensor]
Colour = tuple[float, float, float]  # RGB from 0 to 255

BLACK: Colour = (0.0, 0.0, 0.0)
MIN_VISIBLE = 0.4  # objects with a smaller visible share in a crop are ignored
MAX_BLUR = 2.5  # factor by which a blurred image may have been enlarged
MIN_SIDE = 1.0  # px; a sliver that is narrower is dropped


def select(objects: Objects, keep: tf.Tensor) -> Objects:
    """Only the objects where `keep` `[N]` bool is True."""
    return {name: tf.boolean_mask(value, keep) for name, value in objects.items()}


def place(
    image: tf.Tensor,
    objects: Objects,
    window: tf.Tensor,
    scale: tf.Tensor,
    size: int,
    *,
    padding: Colour = BLACK,
) -> tuple[tf.Tensor, Objects]:
    """The window of the image whose top left is `window` `xy` `[2]`, enlarged to a square of `size` pixels.

    `scale` is one number, or two for height and width `[2]`. The window may reach beyond the image; pixels
    there have the colour `padding`. Objects with a visible share below `MIN_VISIBLE` are ignored. Objects
    outside the window are dropped.

    Returns:
        The image float32 `[size, size, 3]`, and its objects in its pixels.
    """
    part, part_size, corner, objects = _placed(image, objects, window, scale, size)
    return _shown(part, part_size, corner, size, padding), objects


def _placed(
    image: tf.Tensor, objects: Objects, window: tf.Tensor, scale: tf.Tensor, size: int
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, Objects]:
    """The part of the image that `place` shows, the size to give it, its top left in the result, and the objects."""
    image_size = tf.cast(tf.shape(image)[:2], tf.float32)  # height, width
    # The part of the image to show, in whole pixels, one more on each side for the interpolation.
    first = tf.clip_by_value(tf.floor(window[::-1]) - 1, 0, image_size - 1)
    last = tf.clip_by_value(tf.math.ceil(window[::-1] + size / scale) + 1, first + 1, image_size)
    y0, x0 = tf.unstack(tf.cast(first, tf.int32))
    y1, x1 = tf.unstack(tf.cast(last, tf.int32))
    part = image[y0:y1, x0:x1]
    part_size = tf.maximum(tf.round((last - first) * scale), 1)
    # The result has whole pixels. So this is the real scale of the resizing, and the boxes must share it.
    true_scale = part_size / (last - first)
    corner = tf.round((first - window[::-1]) * scale)  # of the part in the result, y and x
    shift = tf.reverse(corner - first * true_scale, [0])
    boxes = objects["boxes"] * tf.tile(true_scale[::-1], [2]) + tf.tile(shift, [2])
    objects = clip_objects({**objects, "boxes": boxes}, size, size)
    return part, tf.cast(part_size, tf.int32), tf.cast(corner, tf.int32), objects


def _shown(
    part: tf.Tensor, part_size: tf.Tensor, corner: tf.Tensor, size: int, padding: Colour
) -> tf.Tensor:
    """`part` resized to `part_size` (height, width), on a square canvas float32 of `size` pixels as `_paste` makes it.

    Resizing to the same size gives the same numbers, and takes several times as long as decoding.
    """
    # Numbers of a byte are a quarter of the memory, which takes longer than all else.
    as_bytes = part.dtype == tf.uint8 and are_levels(padding)

    def unchanged() -> tf.Tensor:
        if as_bytes:
            return tf.cast(_paste(part, corner, size, padding), tf.float32)
        return _paste(_rounded(tf.cast(part, tf.float32), padding), corner, size, padding)

    shown = tf.cond(
        _keeps_size(part, part_size),
        unchanged,
        lambda: _resized(part, part_size, corner, size, padding),
    )
    return tf.ensure_shape(shown, [size, size, 3])


def _keeps_size(part: tf.Tensor, part_size: tf.Tensor) -> tf.Tensor:
    return tf.reduce_all(part_size == tf.shape(part)[:2])


def _resized(
    part: tf.Tensor, part_size: tf.Tensor, corner: tf.Tensor, size: int, padding: Colour
) -> tf.Tensor:
    resized = tf.image.resize(part, part_size, antialias=True)
    return _paste(_rounded(resized, padding), corner, size, padding)


def are_levels(colour: Colour) -> bool:
    """True if a colour has whole numbers from 0 to 255, with which `_rounded` changes no whole number."""
    return all(number in range(256) for number in colour)


def _rounded(image: tf.Tensor, padding: Colour) -> tf.Tensor:
    """`image - padding + padding` as float32 rounds it: the bits that padding the difference with zeros gives.

    A change of the last bit would change every training.
    """
    if padding == BLACK:
        return image
    shape = tf.shape(image)
    row = tf.tile(padding, shape[1:2])  # numbers of whole rows are quicker than those of pixels
    numbers = tf.reshape(image, [shape[0], -1])
    return tf.reshape((numbers - row) + row, shape)


def _paste(part: tf.Tensor, corner: tf.Tensor, size: int, padding: Colour) -> tf.Tensor:
    """`part` on a square canvas of the colour `padding`, with its top left at `corner` (y, x) and cut to the canvas."""
    start = tf.maximum(-corner, 0)
    corner = tf.maximum(corner, 0)
    part = part[start[0] : start[0] + size - corner[0], start[1] : start[1] + size - corner[1]]
    shape = tf.shape(part)
    after = size - corner - shape[:2]
    colour = tf.cast(padding, part.dtype)

    def wide() -> tf.Tensor:
        left, right = (_area(shape[0], side, colour) for side in (corner[1], after[1]))
        return tf.concat([left, part, right], axis=1)

    def high() -> tf.Tensor:
        top, bottom = (_area(side, size, colour) for side in (corner[0], after[0]))
        return tf.concat([top, lines, bottom], axis=0)

    lines = tf.cond(shape[1] < size, wide, lambda: part)
    return tf.ensure_shape(tf.cond(shape[0] < size, high, lambda: lines), [size, size, 3])


def _area(height: int | tf.Tensor, width: int | tf.Tensor, colour: tf.Tensor) -> tf.Tensor:
    """An image `[height, width, 3]` of one colour."""
    return tf.reshape(tf.tile(colour, [height * width]), [height, width, 3])


def clip_objects(objects: Objects, height: int | tf.Tensor, width: int | tf.Tensor) -> Objects:
    """`objects` cut to an image. Objects with too small a visible share are ignored; invisible ones are dropped."""
    boxes = objects["boxes"]
    limits = tf.cast(tf.stack([width, height, width, height]), tf.float32)
    clipped = tf.clip_by_value(boxes, 0.0, limits)
    visible = box_ops.areas(clipped) / tf.maximum(box_ops.areas(boxes), 1e-6)
    ignore = objects["ignore"] | (visible < MIN_VISIBLE)
    side = tf.reduce_min(clipped[:, 2:] - clipped[:, :2], axis=-1)
    whole = visible > 0.999  # a whole object stays, however narrow
    return select({**objects, "boxes": clipped, "ignore": ignore}, whole | (side >= MIN_SIDE))


def fit(
    image: tf.Tensor, objects: Objects, size: int, *, padding: Colour = BLACK
) -> tuple[tf.Tensor, Objects]:
    """The whole image, shrunk (never enlarged) so that its long side is at most `size`, at the top left of a square.

    The rest of the square has the colour `padding`.
    """
    return place(image, objects, tf.zeros([2]), _fits(image, size), size, padding=padding)


def fit_bytes(
    image: tf.Tensor, objects: Objects, size: int, *, padding: Colour = BLACK
) -> tuple[tf.Tensor, tf.Tensor, Objects]:
    """The image of `fit` as bytes if it keeps its size: they are a quarter of the memory.

    Args:
        image: uint8 `[H, W, 3]`.
        objects: the objects.
        size: the side of the square.
        padding: a colour that `are_levels`.

    Returns:
        Bytes uint8 `[S, S, 3]`, which count if there are no floats; floats `[0, S, S, 3]` or `[1, S, S, 3]`; and the
        objects.
    """
    window = tf.zeros([2])
    part, part_size, corner, objects = _placed(image, objects, window, _fits(image, size), size)
    bytes_, floats = tf.cond(
        _keeps_size(part, part_size),
        lambda: (_paste(part, corner, size, padding), tf.zeros([0, size, size, 3])),
        lambda: (
            tf.zeros([size, size, 3], tf.uint8),
            _resized(part, part_size, corner, size, padding)[None],
        ),
    )
    return bytes_, tf.ensure_shape(floats, [None, size, size, 3]), objects


def _fits(image: tf.Tensor, size: int) -> tf.Tensor:
    """The scale at which a whole image fits a square, at most 1."""
    return tf.minimum(1.0, size / tf.cast(tf.reduce_max(tf.shape(image)[:2]), tf.float32))


def random_crop(
    image: tf.Tensor,
    objects: Objects,
    size: int,
    object_size: tuple[float, float],
    max_enlargement: float,
    seed: tf.Tensor,
    *,
    stretch: float = 1.0,
    padding: Colour = BLACK,
) -> tuple[tf.Tensor, Objects]:
    """A random square of the image at a random scale, `size` pixels wide.

    First, the image is stretched: the ratio of height to width changes by a factor between 1 / `stretch`
    and `stretch` (the logarithm is uniform), and the area stays. Then one object is chosen. The scale
    gives it a long side drawn from `object_size` (the logarithm is uniform, at most 90 % of `size`), and
    the square is placed so that the object is in it. Without objects, the scale is between half and twice
    the scale at which the image fits the square. Pixels beyond the image have the colour `padding`.
    """
    seeds = tf.random.split(seed, 4)
    ratio = tf.random.stateless_uniform([], seeds[3], -math.log(stretch), math.log(stretch))
    stretched = tf.exp(tf.stack([ratio, -ratio]) / 2)  # height, width
    # From here until the window is cut, all numbers are pixels of the stretched image.
    shape = tf.cast(tf.shape(image)[:2], tf.float32) * stretched
    box, has_object = _random_box(objects, shape, stretched, seeds[0])
    box_size = box[2:] - box[:2]

    high = min(object_size[1], MAX_SHARE * size)
    low = min(object_size[0], high)  # the images of a mosaic may be smaller than the smallest size
    wanted = tf.exp(tf.random.stateless_uniform([], seeds[1], tf.math.log(low), tf.math.log(high)))
    zoom = tf.pow(2.0, tf.random.stateless_uniform([], seeds[1], -1.0, 1.0))
    fits = size / tf.reduce_max(shape)
    scale = tf.where(has_object, wanted / tf.reduce_max(box_size), fits * zoom)
    # A much smaller image would leave most of the square empty. Mosaics make small objects instead.
    scale = tf.clip_by_value(scale, tf.minimum(MIN_SHARE * fits, max_enlargement), max_enlargement)
    window = _random_window(box, shape, size / scale, seeds[2])
    corner = window / stretched[::-1]
    return place(image, objects, corner, scale * stretched, size, padding=padding)


def _random_box(
    objects: Objects, shape: tf.Tensor, stretched: tf.Tensor, seed: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """The box of one object of a stretched image of `shape` (height, width), and True if there is an object."""
    candidates = tf.boolean_mask(objects["boxes"], ~objects["ignore"])
    candidates *= tf.tile(stretched[::-1], [2])
    num_candidates = tf.shape(candidates)[0]
    # Without objects, the box is as large as the image, and at any place.
    whole = tf.stack([0.0, 0.0, shape[1], shape[0]])
    candidates = tf.concat([candidates, whole[None]], axis=0)
    index = tf.random.stateless_uniform([], seed, 0, tf.maximum(num_candidates, 1), tf.int32)
    return candidates[index], num_candidates > 0


def _random_window(box: tf.Tensor, shape: tf.Tensor, side: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """The top left `xy` of a square of `side` pixels. The centre of `box` is at least half a box from its border.

    If possible, the square lies within the image of `shape` (height, width), because padding teaches nothing.
    """
    margin = tf.minimum(box[2:] - box[:2], side) / 2
    share = tf.random.stateless_uniform([2], seed)
    window = (box[:2] + box[2:]) / 2 - margin - share * (side - 2 * margin)
    room = shape[::-1] - side
    return tf.where(room > 0, tf.clip_by_value(window, 0.0, tf.maximum(room, 0)), window)


def random_flip(image: tf.Tensor, objects: Objects, seed: tf.Tensor) -> tuple[tf.Tensor, Objects]:
    """The image `[..., H, W, 3]` or, every other time, its mirror image."""
    width = tf.cast(tf.shape(image)[-2], tf.float32)
    flip = tf.random.stateless_uniform([], seed) < 0.5
    x0, y0, x1, y1 = tf.unstack(objects["boxes"], axis=-1)
    mirrored = tf.stack([width - x1, y0, width - x0, y1], axis=-1)
    boxes = tf.where(flip, mirrored, objects["boxes"])
    image = tf.cond(flip, lambda: tf.reverse(image, [-2]), lambda: image)
    return image, {**objects, "boxes": boxes}


def random_colour(image: tf.Tensor, strength: float, seed: tf.Tensor) -> tf.Tensor:
    """The image with brightness, contrast and saturation each changed by up to the share `strength`."""
    brightness, contrast, saturation = tf.unstack(
        tf.random.stateless_uniform([3], seed, -strength, strength)
    )
    grey = tf.image.rgb_to_grayscale(image)
    mean = tf.reduce_mean(grey)
    # Three equal numbers for each pixel. A product with 1 is exact, and quicker than TensorFlow's broadcasting.
    grey = tf.reshape(tf.matmul(tf.reshape(grey, [-1, 1]), tf.ones([1, 3])), tf.shape(image))
    image = grey + (image - grey) * (1 + saturation)
    image = mean + (image - mean) * (1 + contrast)
    # `tf.clip_by_value` goes over the numbers twice.
    return tf.raw_ops.ClipByValue(
        t=image * (1 + brightness), clip_value_min=0.0, clip_value_max=255.0
    )


def random_blur(
    image: tf.Tensor, objects: Objects, share: float, min_object: float, seed: tf.Tensor
) -> tuple[tf.Tensor, Objects]:
    """With probability `share`, blurs the image as if it had been enlarged by a factor of up to `MAX_BLUR`.

    The logarithm of the factor is uniform. Objects are ignored if their long side would have been below
    `min_object` pixels before the enlargement.
    """
    seeds = tf.random.split(seed, 2)
    wanted = tf.random.stateless_uniform([], seeds[0]) < share
    factor = tf.exp(tf.random.stateless_uniform([], seeds[1], 0.0, math.log(MAX_BLUR)))
    factor = tf.where(wanted, factor, 1.0)

    def blurred() -> tf.Tensor:
        shape = tf.shape(image)[:2]
        small = tf.cast(tf.math.ceil(tf.cast(shape, tf.float32) / factor), tf.int32)
        shrunk = tf.image.resize(image, small, antialias=True)
        return tf.ensure_shape(tf.image.resize(shrunk, shape), image.shape)

    image = tf.cond(wanted, blurred, lambda: tf.cast(image, tf.float32))
    boxes = objects["boxes"]
    tiny = tf.reduce_max(boxes[:, 2:] - boxes[:, :2], axis=-1) < min_object * factor
    return image, {**objects, "ignore": objects["ignore"] | tiny}


def mosaic(images: tf.Tensor, objects: list[Objects], rows: int) -> tuple[tf.Tensor, Objects]:
    """Square images `[rows * rows, S, S, 3]` side by side in one `[rows * S, rows * S, 3]`, with the objects of all."""
    size = tf.shape(images)[1]
    lines = [tf.concat(tf.unstack(images[r * rows : (r + 1) * rows]), axis=1) for r in range(rows)]
    step = tf.cast(size, tf.float32)
    moved = []
    for index, part in enumerate(objects):
        shift = tf.stack([index % rows * step, index // rows * step] * 2)
        moved.append({**part, "boxes": part["boxes"] + shift})
    merged = {name: tf.concat([part[name] for part in moved], axis=0) for name in moved[0]}
    return tf.concat(lines, axis=0), merged
