"""Detection in images much larger than those of training: in overlapping tiles, and once in the whole image.

A detector shrinks a large image to the size that its network is shown, and small objects vanish. Tiles
show small objects at full size. But they cut objects that lie on their borders, and objects larger
than a tile never fit. The rules are therefore:

* A box that a border inside the image cuts is left out where another tile shows its object in full.
  Otherwise it gives way to every box of the same object that is not cut, whatever the scores, and to
  larger parts of the object, since a larger part is nearer to the object.
* Large objects are found in a pass over the whole image. Where a tile and the whole image both show an
  object in full, the box of the tile stays, since the tile shows the object larger.

Tiles are searched one after the other: besides the image, memory holds one tile, and boxes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from unitbox_tf import boxes as box_ops
from unitbox_tf.records import Detections

# Shares of a box's side. A border that is nearer than this to a side cuts the box: boxes of cut objects
# end near the border, but not exactly on it.
TOUCHING = 0.05


def tiles(height: int, width: int, tile: int, overlap: int) -> np.ndarray:
    """Tiles `xyxy` `[T, 4]` int64 that cover an image of `height` x `width` pixels, row by row.

    They are squares of `tile` pixels, spread evenly; they are cut where the image is smaller.
    Neighbours share at least `overlap` pixels, so an object of at most that size fits into one of them.

    Raises:
        ValueError: `overlap` is not from 0 to less than `tile`, or a size is below 1.
    """
    if not 0 <= overlap < tile:
        raise ValueError(
            f"Expected an overlap from 0 to less than the tile's side. Received: {overlap} of {tile}"
        )
    if min(height, width) < 1:
        raise ValueError(f"Expected a height and width from 1. Received: {height} x {width}")
    tops, lefts = _starts(height, tile, overlap), _starts(width, tile, overlap)
    top, left = (grid.ravel() for grid in np.meshgrid(tops, lefts, indexing="ij"))
    bottom, right = np.minimum(top + tile, height), np.minimum(left + tile, width)
    return np.stack([left, top, right, bottom], axis=1)


def _starts(length: int, tile: int, overlap: int) -> np.ndarray:
    more = max(length - tile, 0)
    count = 1 - (-more // (tile - overlap))
    # Rounded down, steps are still at most tile - overlap, which is an integer.
    return np.arange(count) * more // max(count - 1, 1)


def detect_tiled(
    detect: Callable[[np.ndarray], Detections],
    image: np.ndarray,
    tile: int,
    overlap: int | None = None,
    nms_iou: float = 0.4,
) -> Detections:
    """Detections in the tiles of `image` and in the whole of it, merged.

    An image that is no larger than a tile is searched once.

    Args:
        detect: maps an RGB image uint8 `[H, W, 3]` to detections in its pixels, such as a `Detector`.
        image: `[H, W, 3]`.
        tile: the side of a tile, in pixels. A tile of the detector's `decode.max_side` is not shrunk,
            so it shows the smallest objects; twice that side is four times as fast.
        overlap: the width, in pixels, that two neighbours share; a quarter of the tile if None. Objects
            up to this size fit into a tile. Larger ones should be found in the whole image.
        nms_iou: two boxes of one class that overlap more are taken for the same object. If both are
            cut, or both are not, the one with the higher score is kept.

    Returns:
        Best first; there is no limit to their number.

    Raises:
        ValueError: as `tiles` does.
    """
    height, width = image.shape[:2]
    views = tiles(height, width, tile, tile // 4 if overlap is None else overlap)
    found = detect(image)
    if len(views) == 1:
        return found
    parts, seen_in = [found], [np.tile([[0, 0, width, height]], (len(found), 1))]
    for view in views:
        left, top, right, bottom = view
        found = detect(image[top:bottom, left:right])
        boxes = found.boxes + np.array([left, top, left, top], found.boxes.dtype)
        parts.append(dataclasses.replace(found, boxes=boxes))
        seen_in.append(np.tile(view, (len(found), 1)))
    found = Detections(
        np.concatenate([part.boxes for part in parts]),
        np.concatenate([part.scores for part in parts]),
        np.concatenate([part.classes for part in parts]),
        (height, width),
    )
    return found.select(_kept(found, np.concatenate(seen_in), views, nms_iou))


def _kept(found: Detections, seen_in: np.ndarray, views: np.ndarray, nms_iou: float) -> np.ndarray:
    """The indices of the detections that stay, best first. `seen_in` is the view `[N, 4]` of each detection."""
    boxes, picture = found.boxes.astype(np.float64), np.array([0, 0, *found.image_size[::-1]])
    cut = _cut(boxes, seen_in, picture)
    # A box that is not cut holds its whole object. A cut box holds only the part that its tile shows.
    says = np.where(cut[:, None], seen_in, picture)
    from_tile = (seen_in != picture).any(axis=1)
    order = np.lexsort([-found.scores, np.where(cut, -box_ops.areas(boxes), 0), ~from_tile, cut])
    kept: dict[int, list[int]] = {}
    for index in order:
        if cut[index] and not _cut(boxes[index], views, picture).all():
            continue  # another tile shows it in full
        others = kept.setdefault(int(found.classes[index]), [])
        mine = _within(boxes[index], says[others])
        theirs = _within(boxes[others], says[index])
        if not (_iou(mine, theirs) > nms_iou).any():
            others.append(index)
    chosen = np.sort(np.array([index for each in kept.values() for index in each], int))
    return chosen[np.argsort(-found.scores[chosen], kind="stable")]


def _cut(boxes: np.ndarray, views: np.ndarray, picture: np.ndarray) -> np.ndarray:
    """True if `views` `[..., 4]` cut `boxes` `[..., 4]`: a border within the image lies at a side of the box."""
    sides = boxes[..., 2:] - boxes[..., :2]
    before = boxes[..., :2] - views[..., :2] <= TOUCHING * sides
    after = views[..., 2:] - boxes[..., 2:] <= TOUCHING * sides
    before &= views[..., :2] > picture[:2]
    after &= views[..., 2:] < picture[2:]
    return (before | after).any(axis=-1)


def _within(boxes: np.ndarray, views: np.ndarray) -> np.ndarray:
    """The parts of `boxes` `[..., 4]` inside `views` `[..., 4]`. Boxes outside give a box without area."""
    low, high = views[..., [0, 1, 0, 1]], views[..., [2, 3, 2, 3]]
    return np.clip(boxes, low, high)


def _iou(boxes_a: np.ndarray, boxes_b: np.ndarray) -> np.ndarray:
    """Intersection over union `[N]` of each of `boxes_a` with that of `boxes_b`; 0 where the union is empty."""
    low = np.maximum(boxes_a[..., :2], boxes_b[..., :2])
    high = np.minimum(boxes_a[..., 2:], boxes_b[..., 2:])
    shared = np.maximum(high - low, 0).prod(axis=-1)
    union = box_ops.areas(boxes_a) + box_ops.areas(boxes_b) - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
