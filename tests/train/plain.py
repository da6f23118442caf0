"""The input pipeline in its plainest form, to which the one in use must be equal to the bit.

Python decodes each image, an image is always resized and padded, and each box is painted over the whole map.
"""

import tensorflow as tf

from unitbox_tf import boxes as box_ops
from unitbox_tf.train import augment, decoding, reading, targets


def from_annotations(annotations, **options):
    reader = _reader(annotations, **options)

    def load(index):
        return reader.read(int(index)) or reader.black(int(index))

    return tf.data.Dataset.range(len(annotations)).map(_in_python(load))


def in_order(annotations, shown, places, **options):
    reader = _reader(annotations, broken=shown.broken, **options)

    def load(place):
        while True:
            found = reader.read(shown.at(int(place)))
            if found is not None:
                return found

    return places.map(_in_python(load))


def _reader(annotations, *, max_pixels, problems, broken=None):
    return reading.Reader(annotations, max_pixels, problems, broken)


def _in_python(load):
    def load_in_graph(number):
        image, *objects = tf.py_function(load, [number], [tf.uint8, *decoding.OBJECT_TYPES])
        image.set_shape([None, None, 3])
        return image, decoding.named(*objects)

    return load_in_graph


def place(image, objects, window, scale, size, *, padding=augment.BLACK):
    image_size = tf.cast(tf.shape(image)[:2], tf.float32)
    first = tf.clip_by_value(tf.floor(window[::-1]) - 1, 0, image_size - 1)
    last = tf.clip_by_value(tf.math.ceil(window[::-1] + size / scale) + 1, first + 1, image_size)
    y0, x0 = tf.unstack(tf.cast(first, tf.int32))
    y1, x1 = tf.unstack(tf.cast(last, tf.int32))
    part = image[y0:y1, x0:x1]
    part_size = tf.maximum(tf.round((last - first) * scale), 1)
    true_scale = part_size / (last - first)
    part = tf.image.resize(part, tf.cast(part_size, tf.int32), antialias=True)
    corner = tf.round((first - window[::-1]) * scale)
    image = _paste(part, tf.cast(corner, tf.int32), size, padding)
    shift = tf.reverse(corner - first * true_scale, [0])
    boxes = objects["boxes"] * tf.tile(true_scale[::-1], [2]) + tf.tile(shift, [2])
    return image, augment.clip_objects({**objects, "boxes": boxes}, size, size)


def fit_bytes(image, objects, size, *, padding=augment.BLACK):
    image, objects = augment.fit(image, objects, size, padding=padding)
    return tf.zeros([size, size, 3], tf.uint8), _of_any_number(image[None]), objects


def _of_any_number(images):
    return tf.raw_ops.PlaceholderWithDefault(input=images, shape=[None, *images.shape[1:]])


def _paste(part, corner, size, padding):
    start = tf.maximum(-corner, 0)
    corner = tf.maximum(corner, 0)
    part = part[start[0] : start[0] + size - corner[0], start[1] : start[1] + size - corner[1]]
    shape = tf.shape(part)
    after = size - corner - shape[:2]
    borders = [[corner[0], after[0]], [corner[1], after[1]], [0, 0]]
    return tf.ensure_shape(tf.pad(part - padding, borders) + padding, [size, size, 3])


def random_flip(image, objects, seed):
    width = tf.cast(tf.shape(image)[-2], tf.float32)
    flip = tf.random.stateless_uniform([], seed) < 0.5
    x0, y0, x1, y1 = tf.unstack(objects["boxes"], axis=-1)
    mirrored = tf.stack([width - x1, y0, width - x0, y1], axis=-1)
    boxes = tf.where(flip, mirrored, objects["boxes"])
    image = tf.cond(flip, lambda: image[..., ::-1, :], lambda: image)
    return image, {**objects, "boxes": boxes}


def random_colour(image, strength, seed):
    brightness, contrast, saturation = tf.unstack(
        tf.random.stateless_uniform([3], seed, -strength, strength)
    )
    grey = tf.image.rgb_to_grayscale(image)
    image = grey + (image - grey) * (1 + saturation)
    mean = tf.reduce_mean(grey)
    image = mean + (image - mean) * (1 + contrast)
    return tf.clip_by_value(image * (1 + brightness), 0.0, 255.0)


def mosaic(images, objects, rows):
    size = tf.shape(images)[1]
    lines = [tf.concat(tf.unstack(images[r * rows : (r + 1) * rows]), axis=1) for r in range(rows)]
    step = tf.cast(size, tf.float32)
    moved = []
    for index, part in enumerate(objects):
        shift = tf.stack([index % rows * step, index // rows * step] * 2)
        moved.append({**part, "boxes": part["boxes"] + shift})
    merged = {name: tf.concat([part[name] for part in moved], axis=0) for name in moved[0]}
    return tf.concat(lines, axis=0), merged


def encode_batch(boxes, classes, ignore, images, count, height, width, **options):
    def of_image(number):
        own = images == number
        each = (tf.boolean_mask(values, own) for values in (boxes, classes, ignore))
        return encode(*each, height, width, **options)

    maps = {"confidence": tf.float32, "distances": tf.float32}
    return tf.map_fn(of_image, tf.range(count), fn_output_signature=(maps, dict(maps)))


def encode(
    boxes,
    classes,
    ignore,
    height,
    width,
    *,
    num_classes=1,
    region="ellipse",
    positive_weight=1.0,
    equal_objects=False,
    share_power=0.0,
    stride=1,
):
    points = box_ops.map_points(height, width, stride)
    owner = _paint_owners(boxes, ignore, points, region, stride)
    index = tf.where(owner < 0, tf.shape(boxes)[0], owner)
    ignored = tf.gather(tf.concat([ignore, [False]], axis=0), index)
    box = tf.gather(tf.concat([boxes, tf.zeros([1, 4])], axis=0), index)
    distances = box_ops.boxes_to_distances(box, points)
    if stride > 1:
        ignored |= (owner >= 0) & tf.reduce_any(distances <= 0, axis=-1)
    counts = tf.cast((owner >= 0) & ~ignored, tf.float32)
    pixels = tf.math.unsorted_segment_sum(counts, index, tf.shape(boxes)[0] + 1)
    shares = tf.math.divide_no_nan(counts, tf.gather(pixels, index))
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


def _paint_owners(boxes, ignore, points, region, stride):
    order = tf.argsort(box_ops.areas(boxes), direction="DESCENDING", stable=True)
    x, y = points[0, :, 0], points[:, 0, 1]

    def paint(owner, index):
        x0, y0, x1, y1 = tf.unstack(boxes[index])
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


def _nearest(x, y, box, stride):
    def holds(middle, centre):
        first = middle - stride / 2
        return (first <= centre) & (centre < first + stride)

    column, row = holds(x, (box[0] + box[2]) / 2), holds(y, (box[1] + box[3]) / 2)
    return column[None, :] & row[:, None]


def put_in_place(monkeypatch):
    """Makes `pipeline` use this module."""
    for module, names in (
        (reading, ("in_order", "from_annotations")),
        (augment, ("place", "fit_bytes", "random_flip", "random_colour", "mosaic")),
        (targets, ("encode_batch",)),
    ):
        for name in names:
            monkeypatch.setattr(module, name, globals()[name])
