"""From heatmaps to detections: the paper's decoder, and one that tells objects apart whose blobs touch.

Both take a batch of what the model predicts, `confidence` `[B, H, W, C]` logits and `distances`
`[B, H, W, 4]` pixels, and return boxes in pixels of these maps. Both run in graphs; `score_threshold`,
`nms_iou`, `blob_threshold` and `max_detections` of the configuration may be tensors there.
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
CANDIDATES = 4  # so many times max_detections peaks go into non-maximum suppression
TILT = 2e-5  # a pixel; above what rounding does to logits, and of no weight in a score
TILT_PERIOD = 16  # px
SCORE_PATCH = (
    4  # px; side of the patch around an ellipse's centre whose mean confidence is the score
)


@dataclasses.dataclass(frozen=True)
class Decoder:
    """A way to read boxes off heatmaps, and what is known of it.

    Attributes:
        find: maps `confidence`, `distances` and the settings to boxes `xyxy` `[B, N, 4]` in pixels of
            the heatmaps, and their evidence `[B, N, C]`, see `suppress`.
        options: fields of `DecodeConfig` that it reads.
        formats: names of the export formats in which it runs.
        once: whether it finds an object at most once in a scale.
    """

    find: Callable[[tf.Tensor, tf.Tensor, DecodeConfig], tuple[tf.Tensor, tf.Tensor]]
    options: tuple[str, ...]
    formats: tuple[str, ...]
    once: bool


def decode_scales(
    maps: Sequence[Mapping[str, tf.Tensor]], size: tf.Tensor, config: DecodeConfig
) -> dict[str, tf.Tensor]:
    """What `config.decoder` finds in the heatmaps of the same images at all of `config.scales`. Runs in graphs.

    Args:
        maps: what the model predicts at each scale, `confidence` and `distances`.
        size: height and width `[2]` of the images.
        config: of the decoder.

    Returns:
        What `suppress` does, boxes in pixels of the images and cut to them.
    """
    decoder: Decoder = registry.DECODERS[config.decoder]
    size = tf.cast(size, tf.float32)
    parts = []
    for scale, heatmaps in zip(config.scales, maps, strict=True):
        confidence, distances = heatmaps["confidence"], heatmaps["distances"]
        boxes, evidence = decoder.find(confidence, distances, config)
        limit = largest_object(scale, config)
        evidence = tf.where(box_ops.long_sides(boxes)[..., None] > limit, 0.0, evidence)
        shown = tf.cast(tf.shape(confidence)[1:3], tf.float32)
        ratio = tf.tile(tf.reverse(size / shown, [0]), [2])  # x, y, x, y
        parts.append((boxes * ratio, evidence))
    boxes, evidence = (tf.concat(part, axis=1) for part in zip(*parts, strict=True))
    if decoder.once and len(config.scales) == 1:
        # Only another scale could repeat a box.
        config = with_tensors(config, nms_iou=1.0)
    found = suppress(boxes, evidence, config)
    limits = tf.tile(tf.reverse(size, [0]), [2])
    return {**found, "boxes": tf.clip_by_value(found["boxes"], 0.0, limits)}


def with_tensors(config: Any, **changes: Any) -> Any:
    """The fields of a `DecodeConfig` with some changed, also to tensors, which no check can look at."""
    return types.SimpleNamespace(**{**vars(config), **changes})


def find_peaks(
    confidence: tf.Tensor, distances: tf.Tensor, config: DecodeConfig
) -> tuple[tf.Tensor, tf.Tensor]:
    """Boxes `xyxy` `[B, N, 4]` at the local maxima of each class' confidence, and their evidence `[B, N, C]`.

    Evidence is -ln(1 - score), see `suppress`. Each box has it in one class, 0 in the others; N is at
    most `CANDIDATES * config.max_detections`.
    """
    shape = tf.shape(confidence)
    num_pixels, num_classes = shape[1] * shape[2], confidence.shape[-1]
    # Sigmoids of large objects reach 1 in float32 over wide areas: logits still have one maximum.
    smooth = tf.nn.avg_pool2d(confidence, SMOOTHING, 1, "SAME") - _tilt(shape[1], shape[2])
    peak = smooth >= tf.nn.max_pool2d(smooth, 3, 1, "SAME")
    evidence = tf.where(peak, tf.nn.softplus(smooth), 0)  # [B, H, W, C]
    evidence = tf.reshape(evidence, [shape[0], num_pixels * num_classes])
    most = num_pixels * num_classes
    count = tf.minimum(CANDIDATES * tf.minimum(config.max_detections, most), most)
    evidence, index = tf.math.top_k(evidence, count)  # [B, N]
    pixel = index // num_classes

    centres = tf.reshape(box_ops.pixel_centres(shape[1], shape[2]), [num_pixels, 2])
    sides = tf.gather(tf.reshape(distances, [shape[0], num_pixels, 4]), pixel, batch_dims=1)
    boxes = box_ops.distances_to_boxes(sides, tf.gather(centres, pixel))  # [B, N, 4]
    return boxes, evidence[..., None] * tf.one_hot(index % num_classes, num_classes)


def _tilt(height: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
    """What is taken from logits `[1, height, width, 1]`, so that tops that are flat have one maximum.

    At the border of an image, up-sampling makes areas of equal logits, up to half of `TILT_PERIOD` wide.
    Rounding, which is another in each runtime, would choose among their pixels.
    """
    y, x = (tf.cast(tf.range(size) % TILT_PERIOD, tf.float32) for size in (height, width))
    return TILT * (y[:, None] + x)[None, :, :, None]


def suppress(boxes: tf.Tensor, evidence: tf.Tensor, config: DecodeConfig) -> dict[str, tf.Tensor]:
    """Non-maximum suppression, class by class, of boxes `xyxy` `[B, N, 4]` with evidence `[B, N, C]`. Runs in graphs.

    Evidence is -ln(1 - score), the softplus of a logit: it ranks scores that are 1 in float32.

    Returns:
        Padded with zeros to K = `config.max_detections`, best first: `boxes` `xyxy` `[B, K, 4]`,
        `scores` `[B, K]`, `classes` `[B, K]` int32 and `num_detections` `[B]` int32.
    """
    # A distance head that predicts nothing makes a box of no area, which would never be suppressed.
    evidence = tf.where(box_ops.areas(boxes)[..., None] > 0, evidence, 0)
    kept = tf.image.combined_non_max_suppression(
        boxes[:, :, None, :],
        evidence,
        max_output_size_per_class=config.max_detections,
        max_total_size=config.max_detections,
        iou_threshold=config.nms_iou,
        score_threshold=-tf.math.log(1.0 - tf.cast(config.score_threshold, tf.float32)),
        clip_boxes=False,
    )
    return {
        "boxes": kept.nmsed_boxes,
        "scores": 1.0 - tf.exp(-kept.nmsed_scores),
        "classes": tf.cast(kept.nmsed_classes, tf.int32),
        "num_detections": kept.valid_detections,
    }


def largest_object(scale: float, config: DecodeConfig) -> float:
    """The longest side, in pixels as shown, of what is to be found at one of the scales; inf for the smallest."""
    if config.largest_object is None or scale == min(config.scales):
        return math.inf
    return config.largest_object


def find_blobs(
    confidence: tf.Tensor, distances: tf.Tensor, config: DecodeConfig
) -> tuple[tf.Tensor, tf.Tensor]:
    """Boxes `xyxy` `[B, N, 4]` at the centres of each class' blobs of confidence, and their evidence `[B, N, C]`.

    The paper's decoder (section 3): threshold, fit an ellipse to each blob, read the box at its centre
    pixel. Objects whose blobs touch are found as one; a blob gives one box.

    The ellipse is the one with the blob's moments, whose centre is the mean of the blob's pixels: in a
    graph there is no other fit, and this one stays within the blob's bounds whatever its shape. The
    score, which the paper does not state, is the mean confidence over a small patch around that pixel.
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
    row, column = (tf.cast(value, tf.float32) + 0.5 for value in (y, x))
    boxes = tf.stack([column - left, row - top, column + right, row + bottom], axis=-1)

    offset = tf.range(SCORE_PATCH) - SCORE_PATCH // 2
    rows, columns = y[:, None, None] + offset[:, None], x[:, None, None] + offset
    exists = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    patch = tf.clip_by_value(rows, 0, height - 1) * width + tf.clip_by_value(columns, 0, width - 1)
    values = tf.gather(
        tf.reshape(probability, [-1]), patch + plane[:, None, None] * (height * width)
    )
    weights = tf.cast(exists, values.dtype)
    scores = tf.reduce_sum(values * weights, [1, 2]) / tf.reduce_sum(weights, [1, 2])
    of_class = tf.one_hot(plane % num_classes, num_classes, on_value=True, off_value=False)
    evidence = tf.where(of_class, -tf.math.log1p(-scores)[:, None], 0)  # [M, C]; infinite at 1

    def of_images(values: tf.Tensor) -> tf.Tensor:
        return tf.RaggedTensor.from_value_rowids(values, image, batch, validate=False).to_tensor()

    return of_images(boxes), of_images(evidence)


def label_components(mask: tf.Tensor) -> tf.Tensor:
    """The connected components of a mask bool `[N, H, W]`, of pixels that touch at a side or a corner.

    Returns:
        int32 `[N, H, W]`: at each pixel of a component the largest index, counted over all of the
        mask, of its pixels; -1 outside.
    """
    shape = tf.shape(mask)
    start = tf.where(mask, tf.reshape(tf.range(tf.size(mask)), shape), -1)

    def largest_around(labels: tf.Tensor) -> tf.Tensor:
        padded = tf.pad(labels, [[0, 0], [0, 0], [1, 1]], constant_values=-1)
        labels = tf.maximum(labels, tf.maximum(padded[:, :, :-2], padded[:, :, 2:]))
        padded = tf.pad(labels, [[0, 0], [1, 1], [0, 0]], constant_values=-1)
        return tf.maximum(labels, tf.maximum(padded[:, :-2], padded[:, 2:]))

    def grow(labels: tf.Tensor, _: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        # A label is the index of a pixel of the same component: with the label of that pixel in its
        # place the reach doubles, and blobs of any size take a dozen rounds.
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
    formats=("saved_model", "onnx", "litert"),
    once=False,
)
ELLIPSE = Decoder(
    find_blobs,
    ("score_threshold", "nms_iou", "max_detections", "blob_threshold"),
    formats=("saved_model",),
    once=True,
)
