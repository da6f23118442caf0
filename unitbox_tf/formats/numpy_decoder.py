"""All steps around the network of a UnitBox detector, in NumPy alone: from an image to boxes.

This is for runtimes whose files hold only the network, such as LiteRT. The module imports nothing from
unitbox_tf, so this file can be copied into an application, beside the model.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

SMOOTHING = 5  # px; side of the square over which confidence is averaged before peaks are sought
TILT, TILT_PERIOD = 2e-5, 16  # logit for each pixel, px; a tilt gives flat tops one maximum
LARGEST = 8.0  # exponents of distances beyond it count as it
AROUND, ALIKE = 2, 0.5  # points, IoU; near a peak, boxes like its own are averaged
TINY = 1e-30  # the sum of scores up to which nothing is averaged
CANDIDATES = 4  # times max_detections: the number of peaks that non-maximum suppression is given

Network = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


def detect(
    network: Network,
    image: np.ndarray,
    settings: Mapping[str, Any],
    preprocessing: Mapping[str, Any],
    heatmaps: Mapping[str, Any],
) -> dict[str, Any]:
    """Objects in one image, found as the decoder `peaks` of unitbox_tf finds them.

    Args:
        network: maps an image float32 `[H, W, 3]` from `preprocess` to confidence logits `[h, w, C]` and
            distances `[h, w, 4]`, see `heatmaps`.
        image: RGB uint8 `[H, W, 3]`, of any size.
        settings: `max_side`, `scales`, `largest_object`, `score_threshold`, `nms_iou` and
            `max_detections`, as `unitbox_tf.config.DecodeConfig` explains them. The exported file has
            them in `decode_config.json`.
        preprocessing: the input that the network expects, see `preprocess`. The exported file has it in
            `preprocessing.json`.
        heatmaps: the maps of the network. The exported file has it in `heatmaps.json`. `stride` is the number of
            pixels from one point of the maps to the next. With 1, the two maps may have any sizes: both are
            up-sampled to the image, and distances are in pixels. With more, they are read as they are, and a
            distance is `unit` pixels times e to the number in the map.

    Returns:
        `boxes` `xyxy` `[K, 4]` in pixels of `image` and cut to it, `scores` `[K]`, `classes` `[K]`, best
        first.
    """
    height, width = image.shape[:2]
    stride, parts = heatmaps["stride"], []
    for scale in settings["scales"]:
        # In single precision, like the graph, so that halves are rounded alike.
        shrink = np.float32(min(1.0, settings["max_side"] / max(height, width))) * np.float32(scale)
        h, w = (max(1, int(np.rint(np.float32(side) * shrink))) for side in (height, width))
        padded = preprocess(resize(image, h, w), preprocessing)
        maps: Iterable[np.ndarray] = network(padded)
        if stride == 1:
            maps = (upsample(each, *padded.shape[:2]) for each in maps)
        confidence, distances = (each[: -(-h // stride), : -(-w // stride)] for each in maps)
        boxes, logits, classes = find_peaks(confidence, distances, settings, heatmaps)
        if settings["largest_object"] is not None and scale != min(settings["scales"]):
            kept = (boxes[:, 2:] - boxes[:, :2]).max(axis=1, initial=0) <= settings[
                "largest_object"
            ]
            boxes, logits, classes = boxes[kept], logits[kept], classes[kept]
        parts.append((boxes * ([width / w, height / h] * 2), logits, classes))
    boxes, logits, classes = (np.concatenate(part) for part in zip(*parts, strict=True))
    # The last points of a row and column may lie beyond the image, and so may all of their boxes.
    cut = np.clip(boxes, 0, [width, height] * 2)
    inside = (cut[:, 2:] > cut[:, :2]).all(axis=1)
    boxes, logits, classes = boxes[inside], logits[inside], classes[inside]
    kept = suppress(boxes, logits, classes, settings)
    scores = 0.5 * (1 + np.tanh(0.5 * logits[kept]))  # the sigmoid, without overflow
    boxes = np.clip(boxes[kept], 0, [width, height] * 2).astype(np.float32)
    return {"boxes": boxes, "scores": scores, "classes": classes[kept]}


def preprocess(image: np.ndarray, preprocessing: Mapping[str, Any]) -> np.ndarray:
    """An RGB image, 0 to 255, as the network expects it.

    Args:
        image: `[H, W, 3]`.
        preprocessing: `channels` is the order of colours, "rgb" or "bgr". `mean` is subtracted, in this
            order. The difference is multiplied by `scale`. Height and width are padded to multiples of
            `stride`, with zeros at the bottom and at the right.
    """
    ordered = image[..., ::-1] if preprocessing["channels"] == "bgr" else image
    seen = ordered.astype(np.float32, copy=False)
    if any(preprocessing["mean"]):
        seen = seen - np.array(preprocessing["mean"], np.float32)
    if preprocessing["scale"] != 1:
        seen = seen * np.float32(preprocessing["scale"])
    bottom, right = (-side % preprocessing["stride"] for side in image.shape[:2])
    return np.pad(seen, [(0, bottom), (0, right), (0, 0)]) if bottom or right else seen


def resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resizes bilinearly to float32. When it shrinks, a new pixel is the weighted mean of those it covers."""
    if image.shape[:2] == (height, width):
        return image.astype(np.float32)
    rows, columns = _weights(height, image.shape[0]), _weights(width, image.shape[1])
    shrunk = np.tensordot(rows, image.astype(np.float32), axes=(1, 0))  # [height, W, 3]
    return np.tensordot(shrunk, columns, axes=(1, 1)).transpose(0, 2, 1)


def _weights(new: int, old: int) -> np.ndarray:
    """The share of each of `old` pixels in each of `new` ones: triangles, `[new, old]`."""
    ratio = old / new
    centres = (np.arange(new) + 0.5) * ratio
    offsets = np.abs(centres[:, None] - (np.arange(old) + 0.5))
    weights = np.maximum(1 - offsets / max(ratio, 1), 0)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def upsample(values: np.ndarray, height: int, width: int) -> np.ndarray:
    """A map `[h, w, C]`, bilinear, at a larger size. The outermost values continue at its border."""
    for axis, size in enumerate((height, width)):
        last = values.shape[axis] - 1
        position = np.clip((np.arange(size) + 0.5) * (last + 1) / size - 0.5, 0, last)
        low = position.astype(int)
        share = (
            (position - low).astype(np.float32).reshape([-1 if a == axis else 1 for a in range(3)])
        )
        below, above = (values.take(i, axis) for i in (low, np.minimum(low + 1, last)))
        values = below + (above - below) * share
    return values


def find_peaks(
    confidence: np.ndarray,
    distances: np.ndarray,
    settings: Mapping[str, Any],
    heatmaps: Mapping[str, Any],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes `[N, 4]` in pixels, logits and classes `[N]` at the local maxima of the logits, best first.

    `heatmaps` is that of `detect`. Maps of stride 1 are smoothed before. In maps with a stride, each box is the mean of
    the boxes near its peak that are like its own, weighted by their scores.
    """
    y, x = (np.arange(size, dtype=np.float32) % TILT_PERIOD for size in confidence.shape[:2])
    smooth = _smoothed(confidence) if heatmaps["stride"] == 1 else confidence
    smooth = smooth - np.float32(TILT) * (y[:, None] + x)[..., None]
    rows, columns, classes = np.nonzero(smooth >= _over_windows(smooth, 3, np.maximum, -np.inf))
    logits = smooth[rows, columns, classes]
    order = np.argsort(-logits, kind="stable")[: CANDIDATES * settings["max_detections"]]
    rows, columns, classes, logits = rows[order], columns[order], classes[order], logits[order]
    boxes = _boxes(distances, rows, columns, heatmaps)
    if heatmaps["stride"] > 1:
        boxes = _averaged(boxes, rows, columns, classes, confidence, distances, heatmaps)
    with np.errstate(divide="ignore"):  # 0 and 1 are allowed
        lowest = np.subtract(
            *np.log([settings["score_threshold"], 1 - settings["score_threshold"]])
        )
    found = (logits > lowest) & (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    return boxes[found], logits[found], classes[found]


def _boxes(
    distances: np.ndarray, rows: np.ndarray, columns: np.ndarray, heatmaps: Mapping[str, Any]
) -> np.ndarray:
    """The boxes `[..., 4]` that points of the map, `[...]`, predict."""
    x, y = ((places + 0.5) * heatmaps["stride"] for places in (columns, rows))
    top, bottom, left, right = np.moveaxis(_pixels(distances[rows, columns], heatmaps), -1, 0)
    return np.stack([x - left, y - top, x + right, y + bottom], axis=-1)


def _averaged(
    boxes: np.ndarray,
    rows: np.ndarray,
    columns: np.ndarray,
    classes: np.ndarray,
    confidence: np.ndarray,
    distances: np.ndarray,
    heatmaps: Mapping[str, Any],
) -> np.ndarray:
    """The mean of the boxes near each peak that are like its own, weighted by their scores, `[N, 4]`."""
    y, x = np.mgrid[-AROUND : AROUND + 1, -AROUND : AROUND + 1].reshape(2, 1, -1)
    height, width = confidence.shape[:2]
    y, x = rows[:, None] + y, columns[:, None] + x  # [N, P]
    exists = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    y, x = np.clip(y, 0, height - 1), np.clip(x, 0, width - 1)
    theirs, own = _boxes(distances, y, x, heatmaps), boxes[:, None]
    scores = 0.5 * (1 + np.tanh(0.5 * confidence[y, x, classes[:, None]]))
    low, high = np.maximum(own[..., :2], theirs[..., :2]), np.minimum(own[..., 2:], theirs[..., 2:])
    shared = np.maximum(high - low, 0).prod(axis=-1)
    areas, areas_own = ((b[..., 2:] - b[..., :2]).prod(axis=-1) for b in (theirs, own))
    weights = np.where(exists & (shared >= ALIKE * (areas + areas_own - shared)), scores, 0)
    total = weights.sum(axis=1, keepdims=True)
    mean = (theirs * weights[..., None]).sum(axis=1) / np.maximum(total, TINY)
    return np.where(total > TINY, mean, boxes)


def _smoothed(confidence: np.ndarray) -> np.ndarray:
    """The mean over the square around each pixel, as far as it lies in the map."""
    count = _over_windows(np.ones_like(confidence), SMOOTHING, np.add, 0)
    return _over_windows(confidence, SMOOTHING, np.add, 0) / count


def _pixels(distances: np.ndarray, heatmaps: Mapping[str, Any]) -> np.ndarray:
    """Distances in pixels from the numbers of the network."""
    if heatmaps["stride"] == 1:
        return np.maximum(distances, 0)
    return heatmaps["unit"] * np.exp(np.minimum(distances, LARGEST))


def _over_windows(values: np.ndarray, side: int, combine: np.ufunc, outside: float) -> np.ndarray:
    """`combine` over the square around each pixel of a map `[H, W, C]`, with `outside` beyond its border."""
    for axis in (0, 1):
        around = [(side // 2, side // 2) if a == axis else (0, 0) for a in range(3)]
        padded = np.pad(values, around, constant_values=outside)
        size = values.shape[axis]
        shifted = (
            padded[i : i + size] if axis == 0 else padded[:, i : i + size] for i in range(side)
        )
        values = functools.reduce(combine, shifted)
    return values


def suppress(
    boxes: np.ndarray, logits: np.ndarray, classes: np.ndarray, settings: Mapping[str, Any]
) -> list[int]:
    """Indices, best first, of boxes that overlap no better one of their class by more than `nms_iou`."""
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    left, kept = np.argsort(-logits, kind="stable"), list[int]()
    while len(left) and len(kept) < settings["max_detections"]:
        best, left = left[0], left[1:]
        kept.append(int(best))
        low = np.maximum(boxes[left, :2], boxes[best, :2])
        high = np.minimum(boxes[left, 2:], boxes[best, 2:])
        shared = np.maximum(high - low, 0).prod(axis=1)
        apart = shared <= settings["nms_iou"] * (areas[left] + areas[best] - shared)
        left = left[apart | (classes[left] != classes[best])]
    return kept
