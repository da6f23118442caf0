"""From heatmaps to detections: the paper's decoder, and one that separates objects whose blobs touch.

Both take a batch of the model's predictions, `confidence` `[B, h, w, C]` logits and `distances` `[B, h, w, 4]` in
pixels of the image as shown. Point (i, j) of the maps is at ((j + .5) * stride, (i + .5) * stride) in this image, in
whose pixels boxes are returned. Maps are read as they are, and never enlarged. Both decoders run in graphs, where the
settings `score_threshold`, `nms_iou`, `blob_threshold` and `max_detections` may be tensors.
"""

from __future__ import annotations

import dataclasses
import math
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf

from unitbox_tf import boxes as box_ops
from unitbox_tf import registry
from unitbox_tf.config import DecodeConfig

SMOOTHING = 5  # px; side of the square over which confidence is averaged before peaks are sought
CANDIDATES = 4  # times max_detections: the number of peaks that non-maximum suppression is given
TILT = 2e-5  # logit for each pixel; more than rounding changes logits, too little to change a score
TILT_PERIOD = 16  # px
SCORE_PATCH = (
    4  # px; side of the patch around an ellipse's centre whose mean confidence is the score
)
AROUND = 2  # points of maps with a stride; how far from a peak boxes are averaged
ALIKE = 0.5  # the smallest IoU with the box of a peak at which a box near it is averaged
TINY = 1e-30  # the sum of scores up to which nothing is averaged
NEVER = 1e9  # is subtracted from the logit of a point that is no peak; its evidence is 0 then


@dataclasses.dataclass(frozen=True)
class Decoder:
    """A way to read boxes off heatmaps, and facts about it.

    Attributes:
        find: maps `confidence`, `distances`, the settings and the stride of these maps to boxes `xyxy`
            `[B, N, 4]` in pixels of the image as shown, and their evidence `[B, N, C]`, see `suppress`.
        options: fields of `DecodeConfig` that it reads.
        engines: where it can run: "tensorflow", with `find`; "onnx", where ONNX has operators for all of `find`;
            "numpy", where `formats.numpy_decoder` does the same. An export format names its engine.
        once: True if it finds an object at most once in a scale.
    """

    find: Callable[[tf.Tensor, tf.Tensor, DecodeConfig, int], tuple[tf.Tensor, tf.Tensor]]
    options: tuple[str, ...]
    engines: tuple[str, ...] = ("tensorflow",)
    once: bool = False


def shown_size(
    height: tf.Tensor, width: tf.Tensor, max_side: int, scale: float | tf.Tensor
) -> tf.Tensor:
    """Height and width int32 `[2]` at which an image is shown to the network.

    A larger image is shrunk to `max_side` pixels. The size is then multiplied by `scale`.
    """
    size = tf.cast(tf.stack([height, width]), tf.float32)
    scale *= tf.minimum(1.0, max_side / tf.reduce_max(size))
    return tf.maximum(tf.cast(tf.round(size * scale), tf.int32), 1)


def decode_scales(
    maps: Sequence[Mapping[str, tf.Tensor]], size: tf.Tensor, config: DecodeConfig, stride: int = 1
) -> dict[str, tf.Tensor]:
    """Detections of `config.decoder` in the heatmaps of the same images at all `config.scales`. Runs in graphs.

    Args:
        maps: the model's predictions at each scale, `confidence` and `distances`.
        size: height and width `[2]` of the images.
        config: the settings of decoding.
        stride: pixels of the shown image from one point of the heatmaps to the next.

    Returns:
        The same dict as `suppress`. Boxes are in pixels of the images and cut to them.
    """
    decoder: Decoder = registry.DECODERS[config.decoder]
    size = tf.cast(size, tf.float32)
    parts = []
    for scale, heatmaps in zip(config.scales, maps, strict=True):
        confidence, distances = heatmaps["confidence"], heatmaps["distances"]
        boxes, evidence = decoder.find(confidence, distances, config, stride)
        limit = largest_object(scale, config)
        evidence = tf.where(box_ops.long_sides(boxes)[..., None] > limit, 0.0, evidence)
        shown = tf.cast(_shown(confidence, size, scale, config, stride), tf.float32)
        ratio = tf.tile(tf.reverse(size / shown, [0]), [2])  # x, y, x, y
        parts.append((boxes * ratio, evidence))
    boxes, evidence = (tf.concat(part, axis=1) for part in zip(*parts, strict=True))
    limits = tf.tile(tf.reverse(size, [0]), [2])
    if stride > 1:
        # The last points of a row and column may lie beyond the image, and so may all of their boxes.
        inside = box_ops.areas(tf.clip_by_value(boxes, 0.0, limits)) > 0
        evidence = tf.where(inside[..., None], evidence, 0.0)
    if decoder.once and len(config.scales) == 1:
        # Only another scale could repeat a box.
        config = with_tensors(config, nms_iou=1.0)
    found = suppress(boxes, evidence, config)
    return {**found, "boxes": tf.clip_by_value(found["boxes"], 0.0, limits)}


def _shown(
    confidence: tf.Tensor, size: tf.Tensor, scale: float, config: DecodeConfig, stride: int
) -> tf.Tensor:
    """Height and width `[2]` of the image that the network was shown."""
    if stride == 1:
        return tf.shape(confidence)[1:3]
    return shown_size(size[0], size[1], config.max_side, scale)


def with_tensors(config: Any, **changes: Any) -> Any:
    """The fields of a `DecodeConfig`, some of them changed. New values are not checked and may be tensors."""
    return types.SimpleNamespace(**{**vars(config), **changes})


def find_peaks(
    confidence: tf.Tensor, distances: tf.Tensor, config: DecodeConfig, stride: int = 1
) -> tuple[tf.Tensor, tf.Tensor]:
    """Boxes `xyxy` `[B, N, 4]` at the local maxima of each class' confidence, and their evidence `[B, N, C]`.

    A maximum is no smaller than the eight points around it. Maps of stride 1, which were enlarged, are smoothed first.
    In maps with a stride, each box is the mean of the boxes near its peak, see `_averaged`.
    Evidence is -ln(1 - score), see `suppress`. Each box has evidence in one class, and 0 in the others. N
    is at most `CANDIDATES * config.max_detections`, and no larger than the image with the most peaks above
    `config.score_threshold` needs.
    """
    shape = tf.shape(confidence)
    num_points, num_classes = shape[1] * shape[2], confidence.shape[-1]
    # In float32, sigmoids of large objects reach 1 over wide areas. Logits still have one maximum.
    smooth = tf.nn.avg_pool2d(confidence, SMOOTHING, 1, "SAME") if stride == 1 else confidence
    smooth -= _tilt(shape[1], shape[2])
    # Only the best peaks get evidence and a box, because most points are none.
    no_peak = tf.cast(smooth < tf.nn.max_pool2d(smooth, 3, 1, "SAME"), tf.float32)
    logits = tf.reshape(smooth - NEVER * no_peak, [shape[0], num_points * num_classes])
    most = num_points * num_classes
    count = tf.minimum(CANDIDATES * tf.minimum(config.max_detections, most), most)
    logits, index = tf.math.top_k(logits, count)
    above = tf.nn.softplus(logits) > _least_evidence(config)
    few = tf.maximum(tf.reduce_max(tf.reduce_sum(tf.cast(above, tf.int32), axis=1)), 1)
    logits, index = logits[:, :few], index[:, :few]  # [B, N]
    evidence, point = tf.nn.softplus(logits), index // num_classes

    places = tf.stack([point % shape[2], point // shape[2]], axis=-1)  # x, y
    sides = tf.gather(tf.reshape(distances, [shape[0], num_points, 4]), point, batch_dims=1)
    boxes = box_ops.distances_to_boxes(
        sides, (tf.cast(places, tf.float32) + 0.5) * stride
    )  # [B, N, 4]
    if stride > 1:
        boxes = _averaged(boxes, places, index % num_classes, confidence, distances, stride)
    return boxes, evidence[..., None] * tf.one_hot(index % num_classes, num_classes)


def _averaged(
    boxes: tf.Tensor,
    places: tf.Tensor,
    classes: tf.Tensor,
    confidence: tf.Tensor,
    distances: tf.Tensor,
    stride: int,
) -> tf.Tensor:
    """The mean of the boxes up to `AROUND` points from each peak that are `ALIKE` its own, weighted by their scores.

    Points next to each other see almost the same, and each has errors of its own. Gidaris and Komodakis average the
    boxes that suppression discards in this way ("box voting", ICCV 2015, section 4).

    Args:
        boxes: the boxes of the peaks, `[B, N, 4]`.
        places: x and y of the peaks in the maps, int32 `[B, N, 2]`.
        classes: the class of each peak, int32 `[B, N]`.
        confidence: logits, `[B, h, w, C]`.
        distances: `[B, h, w, 4]` in pixels.
        stride: pixels from one point of the maps to the next.
    """
    shape = tf.shape(confidence)
    num_points, num_classes = shape[1] * shape[2], confidence.shape[-1]
    steps = range(-AROUND, AROUND + 1)
    near = places[:, :, None] + tf.constant([(x, y) for y in steps for x in steps])  # [B, N, P, 2]
    size = tf.stack([shape[2], shape[1]])
    exists = tf.reduce_all((near >= 0) & (near < size), axis=-1)
    near = tf.clip_by_value(near, 0, size - 1)
    point = near[..., 1] * shape[2] + near[..., 0]
    sides = tf.gather(tf.reshape(distances, [shape[0], num_points, 4]), point, batch_dims=1)
    theirs = box_ops.distances_to_boxes(sides, (tf.cast(near, tf.float32) + 0.5) * stride)
    logits = tf.reshape(confidence, [shape[0], num_points * num_classes])
    scores = tf.sigmoid(
        tf.gather(logits, point * num_classes + classes[..., None], batch_dims=1)
    )  # [B, N, P]

    own = boxes[:, :, None]
    low, high = tf.maximum(own[..., :2], theirs[..., :2]), tf.minimum(own[..., 2:], theirs[..., 2:])
    shared = box_ops.areas(tf.concat([low, tf.maximum(low, high)], axis=-1))
    union = box_ops.areas(own) + box_ops.areas(theirs) - shared
    weights = tf.where(exists & (shared >= ALIKE * union), scores, 0.0)
    total = tf.reduce_sum(weights, axis=-1, keepdims=True)
    mean = tf.reduce_sum(theirs * weights[..., None], axis=2) / tf.maximum(total, TINY)
    return tf.where(total > TINY, mean, boxes)


def _tilt(height: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
    """A tilt `[1, height, width, 1]` to subtract from logits, so that flat tops have one maximum.

    At the border of an image, up-sampling makes areas of equal logits, up to half of `TILT_PERIOD` wide.
    Without the tilt, rounding would choose among their pixels, and each runtime rounds in its own way.
    """
    y, x = (tf.cast(tf.range(size) % TILT_PERIOD, tf.float32) for size in (height, width))
    return TILT * (y[:, None] + x)[None, :, :, None]


def suppress(boxes: tf.Tensor, evidence: tf.Tensor, config: DecodeConfig) -> dict[str, tf.Tensor]:
    """Non-maximum suppression, class by class, of boxes `xyxy` `[B, N, 4]` with evidence `[B, N, C]`. Runs in graphs.

    Evidence is -ln(1 - score), the softplus of a logit. It also ranks scores that are 1 in float32.

    Returns:
        Padded with zeros to K = `config.max_detections`, best first: `boxes` `xyxy` `[B, K, 4]`,
        `scores` `[B, K]`, `classes` `[B, K]` int32 and `num_detections` `[B]` int32.
    """
    # If the distance head predicts nothing, boxes have no area, and would never be suppressed. Nor would NaN.
    evidence = tf.where((box_ops.areas(boxes)[..., None] > 0) & (evidence > 0), evidence, 0)
    kept = tf.image.combined_non_max_suppression(
        boxes[:, :, None, :],
        evidence,
        max_output_size_per_class=config.max_detections,
        max_total_size=config.max_detections,
        iou_threshold=config.nms_iou,
        score_threshold=_least_evidence(config),
        clip_boxes=False,
    )
    return {
        "boxes": kept.nmsed_boxes,
        "scores": 1.0 - tf.exp(-kept.nmsed_scores),
        "classes": tf.cast(kept.nmsed_classes, tf.int32),
        "num_detections": kept.valid_detections,
    }


def _least_evidence(config: DecodeConfig) -> tf.Tensor:
    """The evidence of `config.score_threshold`."""
    return -tf.math.log(1.0 - tf.cast(config.score_threshold, tf.float32))


def largest_object(scale: float, config: DecodeConfig) -> float:
    """The longest side, in pixels as shown, of objects that a scale may find; inf for the smallest scale."""
    if config.largest_object is None or scale == min(config.scales):
        return math.inf
    return config.largest_object


def find_blobs(
    confidence: tf.Tensor, distances: tf.Tensor, config: DecodeConfig, stride: int = 1
) -> tuple[tf.Tensor, tf.Tensor]:
    """Boxes `xyxy` `[B, N, 4]` at the centres of each class' blobs of confidence, and their evidence `[B, N, C]`.

    The paper's decoder (section 3): threshold, fit an ellipse to each blob, read the box at its centre
    pixel. A blob gives one box, so objects whose blobs touch are found as one.

    The ellipse has the moments of the blob, and its centre is the mean of the blob's pixels. There is no
    other fit in graphs, and this centre stays within the blob's bounds for any shape. The paper does not
    state the score; here it is the mean confidence over a small patch around the centre.
    """
    shape = tf.shape(confidence)
    batch, height, width = shape[0], shape[1], shape[2]
    num_classes = confidence.shape[-1]
    probability = tf.transpose(tf.sigmoid(confidence), [0, 3, 1, 2])
    probability = tf.reshape(probability, [batch * num_classes, height, width])
    labels = tf.reshape(label_components(probability >= config.blob_threshold), [-1])

    pixels = tf.range(tf.size(labels))
    is_first = labels == pixels  # one pixel a blob
    blob = tf.gather(tf.cumsum(tf.cast(is_first, tf.int32)) - 1, tf.maximum(labels, 0))
    inside = tf.boolean_mask(pixels, labels >= 0)
    positions = tf.stack([inside // width % height, inside % width], axis=-1)  # [P, 2]: y, x
    centre = tf.math.unsorted_segment_mean(
        tf.cast(positions, tf.float64),  # sums of large blobs exceed what float32 holds exactly
        tf.boolean_mask(blob, labels >= 0),
        tf.reduce_sum(tf.cast(is_first, tf.int32)),
    )
    y, x = tf.unstack(tf.cast(tf.round(centre), tf.int32), axis=-1)  # [M], of all images
    plane = tf.boolean_mask(pixels, is_first) // (height * width)
    image = plane // num_classes

    top, bottom, left, right = tf.unstack(
        tf.gather_nd(tf.cast(distances, tf.float32), tf.stack([image, y, x], axis=-1)), axis=-1
    )
    row, column = ((tf.cast(value, tf.float32) + 0.5) * stride for value in (y, x))
    boxes = tf.stack([column - left, row - top, column + right, row + bottom], axis=-1)

    side = max(1, SCORE_PATCH // stride)
    offset = tf.range(side) - side // 2
    rows, columns = y[:, None, None] + offset[:, None], x[:, None, None] + offset
    exists = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    patch = tf.clip_by_value(rows, 0, height - 1) * width + tf.clip_by_value(columns, 0, width - 1)
    values = tf.gather(
        tf.reshape(probability, [-1]), patch + plane[:, None, None] * (height * width)
    )
    weights = tf.cast(exists, values.dtype)
    scores = tf.reduce_sum(values * weights, [1, 2]) / tf.reduce_sum(weights, [1, 2])
    of_class = tf.one_hot(plane % num_classes, num_classes, on_value=True, off_value=False)
    of_class &= (scores >= 0)[:, None]  # not NaN
    evidence = tf.where(of_class, -tf.math.log1p(-scores)[:, None], 0)  # [M, C]; infinite at 1

    def of_images(values: tf.Tensor) -> tf.Tensor:
        return tf.RaggedTensor.from_value_rowids(values, image, batch, validate=False).to_tensor()

    return _best(of_images(boxes), of_images(evidence), config)


def _best(
    boxes: tf.Tensor, evidence: tf.Tensor, config: DecodeConfig
) -> tuple[tf.Tensor, tf.Tensor]:
    """The boxes with the most evidence, as many as `find_peaks` gives: noise can make a blob of every fourth pixel."""
    total = tf.shape(boxes)[1]
    count = tf.minimum(CANDIDATES * tf.minimum(config.max_detections, total), total)
    _, index = tf.math.top_k(tf.reduce_max(evidence, axis=-1), count)
    return tf.gather(boxes, index, batch_dims=1), tf.gather(evidence, index, batch_dims=1)


def label_components(mask: tf.Tensor) -> tf.Tensor:
    """The connected components of a mask bool `[N, H, W]`, of pixels that touch at a side or a corner.

    Returns:
        int32 `[N, H, W]`: at each pixel of a component, the largest index of the component's pixels,
        counted over the whole mask; -1 outside.
    """
    shape = tf.shape(mask)
    start = tf.where(mask, tf.reshape(tf.range(tf.size(mask)), shape), -1)

    def largest_around(labels: tf.Tensor) -> tf.Tensor:
        padded = tf.pad(labels, [[0, 0], [0, 0], [1, 1]], constant_values=-1)
        labels = tf.maximum(labels, tf.maximum(padded[:, :, :-2], padded[:, :, 2:]))
        padded = tf.pad(labels, [[0, 0], [1, 1], [0, 0]], constant_values=-1)
        return tf.maximum(labels, tf.maximum(padded[:, :-2], padded[:, 2:]))

    def grow(labels: tf.Tensor, _: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        # A label is the index of a pixel of the same component. Taking the label of that pixel instead
        # doubles the reach, so blobs of any size take a dozen rounds.
        grown = tf.where(mask, largest_around(labels), -1)
        for _ in range(2):
            flat = tf.reshape(grown, [-1])
            grown = tf.where(mask, tf.gather(flat, tf.maximum(grown, 0)), -1)
        return grown, tf.reduce_any(grown != labels)

    labels, _ = tf.while_loop(lambda _, changed: changed, grow, (start, tf.reduce_any(mask)))
    return labels


PEAKS = Decoder(
    find_peaks,
    ("score_threshold", "nms_iou", "max_detections"),
    engines=("tensorflow", "onnx", "numpy"),
)
ELLIPSE = Decoder(
    find_blobs,
    ("score_threshold", "nms_iou", "max_detections", "blob_threshold"),
    once=True,
)
