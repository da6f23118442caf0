"""From heatmaps to detections: the paper's decoder, and one that runs inside a graph.

Both take a batch of what the model predicts, `confidence` `[B, H, W, C]` logits and `distances`
`[B, H, W, 4]` pixels, and return boxes in pixels of these maps.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import tensorflow as tf

from unitbox_tf import boxes as box_ops
from unitbox_tf.config import DecodeConfig
from unitbox_tf.records import Detections

SMOOTHING = 5  # px; side of the square over which confidence is averaged before peaks are sought
CANDIDATES = 4  # so many times max_detections peaks go into non-maximum suppression
SCORE_PATCH = (
    4  # px; side of the patch around an ellipse's centre whose mean confidence is the score
)


def decode_peaks(
    confidence: tf.Tensor, distances: tf.Tensor, config: DecodeConfig
) -> dict[str, tf.Tensor]:
    """Boxes at the local maxima of each class' confidence, thinned by non-maximum suppression. Runs in graphs.

    Returns:
        What `suppress` does.
    """
    return suppress(*find_peaks(confidence, distances, config), config)


def find_peaks(
    confidence: tf.Tensor, distances: tf.Tensor, config: DecodeConfig
) -> tuple[tf.Tensor, tf.Tensor]:
    """Boxes `xyxy` `[B, N, 4]` at the local maxima of each class' confidence, and their scores `[B, N, C]`.

    Each box has a score in one class, 0 in the others; N is at most `CANDIDATES * config.max_detections`.
    """
    shape = tf.shape(confidence)
    num_pixels, num_classes = shape[1] * shape[2], confidence.shape[-1]
    # Sigmoids of large objects reach 1 in float32 over wide areas: logits still have one maximum.
    smooth = tf.nn.avg_pool2d(confidence, SMOOTHING, 1, "SAME")
    peak = smooth >= tf.nn.max_pool2d(smooth, 3, 1, "SAME")
    scores = tf.where(peak, tf.sigmoid(smooth), 0)  # [B, H, W, C]
    scores = tf.reshape(scores, [shape[0], num_pixels * num_classes])
    count = tf.minimum(CANDIDATES * config.max_detections, num_pixels * num_classes)
    scores, index = tf.math.top_k(scores, count)  # [B, N]
    pixel = index // num_classes

    centres = tf.reshape(box_ops.pixel_centres(shape[1], shape[2]), [num_pixels, 2])
    sides = tf.gather(tf.reshape(distances, [shape[0], num_pixels, 4]), pixel, batch_dims=1)
    boxes = box_ops.distances_to_boxes(sides, tf.gather(centres, pixel))  # [B, N, 4]
    return boxes, scores[..., None] * tf.one_hot(index % num_classes, num_classes)


def suppress(boxes: tf.Tensor, scores: tf.Tensor, config: DecodeConfig) -> dict[str, tf.Tensor]:
    """Non-maximum suppression, class by class, of boxes `xyxy` `[B, N, 4]` with scores `[B, N, C]`. Runs in graphs.

    Returns:
        Padded with zeros to K = `config.max_detections`, best first: `boxes` `xyxy` `[B, K, 4]`,
        `scores` `[B, K]`, `classes` `[B, K]` int32 and `num_detections` `[B]` int32.
    """
    # A distance head that predicts nothing makes a box of no area, which would never be suppressed.
    scores = tf.where(box_ops.areas(boxes)[..., None] > 0, scores, 0)
    kept = tf.image.combined_non_max_suppression(
        boxes[:, :, None, :],
        scores,
        max_output_size_per_class=config.max_detections,
        max_total_size=config.max_detections,
        iou_threshold=config.nms_iou,
        score_threshold=config.score_threshold,
        clip_boxes=False,
    )
    return {
        "boxes": kept.nmsed_boxes,
        "scores": kept.nmsed_scores,
        "classes": tf.cast(kept.nmsed_classes, tf.int32),
        "num_detections": kept.valid_detections,
    }


def largest_object(scale: float, config: DecodeConfig) -> float:
    """The longest side, in pixels as shown, of what is to be found at one of the scales; inf for the smallest."""
    if config.largest_object is None or scale == min(config.scales):
        return math.inf
    return config.largest_object


def peaks_of_scales(
    maps: Sequence[Mapping[str, tf.Tensor]], size: tf.Tensor, config: DecodeConfig
) -> dict[str, tf.Tensor]:
    """What the peaks decoder finds in heatmaps of the same images at all of `config.scales`. Runs in graphs.

    Args:
        maps: what the model predicts at each of the scales.
        size: height and width of the images, float32 `[2]`.
        config: of the decoder.

    Returns:
        What `suppress` does, the boxes in pixels of the images and cut to them.
    """
    peaks = []
    for scale, predicted in zip(config.scales, maps, strict=True):
        confidence, distances = predicted["confidence"], predicted["distances"]
        boxes, scores = find_peaks(confidence, distances, config)
        limit = largest_object(scale, config)
        scores = tf.where(box_ops.long_sides(boxes)[..., None] > limit, 0.0, scores)
        shown = tf.cast(tf.shape(confidence)[1:3], tf.float32)
        ratio = tf.tile(tf.reverse(size / shown, [0]), [2])  # x, y, x, y
        peaks.append((boxes * ratio, scores))
    boxes, scores = (tf.concat(parts, axis=1) for parts in zip(*peaks, strict=True))
    found = suppress(boxes, scores, config)
    limits = tf.tile(tf.reverse(size, [0]), [2])
    return {**found, "boxes": tf.clip_by_value(found["boxes"], 0.0, limits)}


def ellipses_of_scales(
    maps: Sequence[Mapping[str, Any]], image_size: tuple[int, int], config: DecodeConfig
) -> Detections:
    """What the paper's decoder finds in heatmaps of one image, `[1, H, W, ...]`, at all of `config.scales`.

    Boxes are in pixels of the image, whose height and width are `image_size`.
    """
    height, width = image_size
    parts = []
    for scale, predicted in zip(config.scales, maps, strict=True):
        confidence, distances = predicted["confidence"], predicted["distances"]
        found = decode_ellipses(confidence, distances, config)[0]
        limit = largest_object(scale, config)
        found = found.select(box_ops.long_sides(found.boxes) <= limit)
        ratio = np.array([width / confidence.shape[2], height / confidence.shape[1]] * 2)
        boxes = box_ops.clip(found.boxes * ratio, height, width)
        parts.append(dataclasses.replace(found, boxes=boxes, image_size=image_size))
    if len(parts) == 1:  # the paper's decoder as it is, without suppression
        return parts[0]
    return merge(parts, maps[0]["confidence"].shape[-1], config)


def merge(parts: Sequence[Detections], num_classes: int, config: DecodeConfig) -> Detections:
    """Detections of one image from several passes, in the same pixels, as one: thinned by `suppress`."""
    boxes = np.concatenate([part.boxes for part in parts])
    classes = np.concatenate([part.classes for part in parts])
    scores = np.concatenate([part.scores for part in parts])[:, None] * np.eye(num_classes)[classes]
    kept = suppress(tf.constant(boxes[None]), tf.constant(scores[None], tf.float32), config)
    return unpad(kept, [parts[0].image_size])[0]


def unpad(padded: dict[str, tf.Tensor], image_sizes: Sequence[tuple[int, int]]) -> list[Detections]:
    """The output of `decode_peaks` as one `Detections` an image; `image_sizes` are heights and widths."""
    arrays = {name: np.asarray(value) for name, value in padded.items()}
    return [
        Detections(
            box_ops.clip(arrays["boxes"][i, :count], *size),
            arrays["scores"][i, :count],
            arrays["classes"][i, :count],
            size,
        )
        for i, (count, size) in enumerate(zip(arrays["num_detections"], image_sizes, strict=True))
    ]


def decode_ellipses(
    confidence: np.ndarray, distances: np.ndarray, config: DecodeConfig
) -> list[Detections]:
    """The paper's decoder (section 3): threshold, fit an ellipse to each blob, read the box at its centre pixel.

    The score, which the paper does not state, is the mean confidence over a small patch around that
    pixel. Objects whose blobs touch are found as one. No non-maximum suppression is needed: a blob
    gives one box.
    """
    confidence, distances = np.asarray(confidence, np.float32), np.asarray(distances, np.float32)
    return [_decode_ellipses(c, d, config) for c, d in zip(confidence, distances, strict=True)]


def _decode_ellipses(
    confidence: np.ndarray, distances: np.ndarray, config: DecodeConfig
) -> Detections:
    height, width, num_classes = confidence.shape
    probability = 0.5 * (1 + np.tanh(0.5 * confidence))  # the sigmoid, without overflow
    rows = []
    for label in range(num_classes):
        mask = (probability[..., label] >= config.blob_threshold).astype(np.uint8)
        contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        for contour in contours:
            x, y = _centre_pixel(contour.reshape(-1, 2))
            top, bottom, left, right = distances[y, x]
            box = (x + 0.5 - left, y + 0.5 - top, x + 0.5 + right, y + 0.5 + bottom)
            half = SCORE_PATCH // 2
            patch = probability[max(y - half, 0) : y + half, max(x - half, 0) : x + half, label]
            score = float(patch.mean()) if patch.size else float(probability[y, x, label])
            if top + bottom > 0 and left + right > 0 and score >= config.score_threshold:
                rows.append((score, label, box))
    rows.sort(key=lambda row: -row[0])
    rows = rows[: config.max_detections]
    return Detections(
        box_ops.clip(np.array([box for _, _, box in rows]).reshape(-1, 4), height, width),
        np.array([score for score, _, _ in rows], np.float32),
        np.array([label for _, label, _ in rows], np.int32),
        (height, width),
    )


def _centre_pixel(contour: np.ndarray) -> tuple[int, int]:
    """Column and row of the centre of the ellipse fitted to a blob's contour `xy` `[N, 2]`."""
    low, high = contour.min(axis=0), contour.max(axis=0)
    centre = (low + high) / 2
    if len(contour) >= 5:  # an ellipse has five parameters
        fitted = np.array(cv2.fitEllipse(contour.astype(np.float32))[0])
        # A fit to a thin or ragged blob can lie anywhere; one outside the blob is no centre of it.
        if np.isfinite(fitted).all() and (fitted >= low).all() and (fitted <= high).all():
            centre = fitted
    x, y = np.rint(centre).astype(int)
    return int(x), int(y)
