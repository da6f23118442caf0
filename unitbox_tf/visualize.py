"""Drawing: boxes on images, blurred faces, heatmaps, curves of a run. Images are RGB uint8 `[H, W, 3]`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np

from unitbox_tf import optional
from unitbox_tf.records import Detections

Shape = Literal["ellipse", "box"]  # the shape of the blurred region

TRUTH_COLOUR = (40, 200, 60)
IGNORED_COLOUR = (150, 150, 150)
DETECTION_COLOUR = (255, 60, 40)

BLUR_BLOCKS = 4  # colours along the longer side of the blurred region; nothing else is kept
SMALLEST_BLOCK = 4  # px of the image; smaller blocks would keep small faces visible
FINE = 8  # px; size of a block while it is smoothed, so that the work does not grow with the face

VALIDATION_METRICS = ("val_recall", "val_precision", "val_box_iou", "val_ap50", "val_ap75")


def draw_boxes(
    image: np.ndarray, boxes: np.ndarray, colour: tuple[int, int, int], labels: Sequence[str] = ()
) -> np.ndarray:
    """A copy of `image` with `boxes` `xyxy` `[N, 4]`, and a label above each box if there are `labels`.

    Boxes may reach beyond the image, however far.
    """
    image = image.copy()
    side = max(image.shape[:2])
    thickness = max(1, round(side / 300))
    scale = max(0.35, side / 1400)
    for index, box in enumerate(np.clip(boxes, -side, 2 * side)):  # OpenCV takes 32 bits
        x0, y0, x1, y1 = (round(float(value)) for value in box)
        cv2.rectangle(image, (x0, y0), (x1, y1), colour, thickness)
        if labels:
            at = (x0, max(y0 - 3, round(25 * scale)))
            cv2.putText(
                image, labels[index], at, cv2.FONT_HERSHEY_SIMPLEX, scale, colour, thickness
            )
    return image


def blur(
    image: np.ndarray,
    boxes: np.ndarray,
    margin: float = 0.25,
    shape: Shape = "ellipse",
) -> np.ndarray:
    """A copy of `image` in which the content of `boxes` is blurred: blocks of mean colours, then smoothed.

    This does not guarantee that nobody can be recognised. Detectors miss faces, and these stay visible.
    Hair, clothes and places also tell who somebody is. At most 4 x 4 mean colours of each box are kept.
    They do not give the face back, but may be enough to pick it from a few known images. If that matters,
    let a person check the result, and paint the boxes over.

    Args:
        image: uint8 `[H, W, 3]`.
        boxes: `xyxy` `[N, 4]`, in pixels of the image. Boxes outside are skipped.
        margin: each side of a box is moved outwards by this share of its width or height. From 0.21 on,
            the ellipse covers the whole box.
        shape: the blurred region: the widened box, or the ellipse inscribed in it.

    Raises:
        ValueError: `margin` is below 0, or the shape unknown.
    """
    if margin < 0 or shape not in ("ellipse", "box"):
        raise ValueError(
            f"Expected a margin from 0 and a shape of ellipse or box. Received: {margin}, {shape!r}"
        )
    image = image.copy()
    height, width = image.shape[:2]
    for x0, y0, x1, y1 in np.asarray(boxes, np.float64).reshape(-1, 4):
        wider, higher = margin * (x1 - x0), margin * (y1 - y0)
        # Whole pixels, outwards; one at least, however small the box.
        left, top = math.floor(x0 - wider), math.floor(y0 - higher)
        right, bottom = max(math.ceil(x1 + wider), left + 1), max(math.ceil(y1 + higher), top + 1)
        rows = slice(max(top, 0), max(min(bottom, height), 0))
        columns = slice(max(left, 0), max(min(right, width), 0))
        part = image[rows, columns]
        if not part.size:
            continue
        blurred = _blocks(part, max(right - left, bottom - top) / BLUR_BLOCKS)
        if shape == "ellipse":
            y = (2 * np.arange(rows.start, rows.stop) + 1 - top - bottom) / (bottom - top)
            x = (2 * np.arange(columns.start, columns.stop) + 1 - left - right) / (right - left)
            within = y[:, None] ** 2 + x**2 <= 1  # of pixel centres
            blurred = np.where(within[..., None], blurred, part)
        image[rows, columns] = blurred
    return image


def _blocks(image: np.ndarray, block: float) -> np.ndarray:
    """`image` as smoothed blocks of mean colours, each with sides of `block` pixels or more; same size as `image`."""
    height, width = image.shape[:2]
    block = max(block, SMALLEST_BLOCK)
    # Rounded down, so that a block covers more of the face, not less.
    columns, rows = max(1, int(width / block)), max(1, int(height / block))
    means = cv2.resize(image, (columns, rows), interpolation=cv2.INTER_AREA)
    size = (columns * FINE, rows * FINE)
    fine = cv2.resize(means, size, interpolation=cv2.INTER_NEAREST)
    fine = cv2.GaussianBlur(fine, (0, 0), FINE / 2, borderType=cv2.BORDER_REPLICATE)
    return cv2.resize(fine, (width, height), interpolation=cv2.INTER_LINEAR)


def draw_detections(
    image: np.ndarray, detections: Detections, class_names: Sequence[str]
) -> np.ndarray:
    """`image` with the boxes of `detections`, their scores and, if there are several classes, their class names."""
    names = class_names if len(class_names) > 1 else [""]
    labels = [
        f"{names[label]} {score:.2f}".strip()
        for label, score in zip(detections.classes, detections.scores, strict=True)
    ]
    return draw_boxes(image, detections.boxes, DETECTION_COLOUR, labels)


def draw_truth(
    image: np.ndarray,
    boxes: np.ndarray,
    ignore: np.ndarray,
    detections: Detections,
    class_names: Sequence[str],
) -> np.ndarray:
    """`image` with the true boxes (green; grey where ignored) and the detections (red, labelled)."""
    image = draw_boxes(image, boxes[ignore], IGNORED_COLOUR)
    image = draw_boxes(image, boxes[~ignore], TRUTH_COLOUR)
    return draw_detections(image, detections, class_names)


def heatmap(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """A map `[H, W]` in colours, from `low` (dark) to `high` (bright)."""
    scaled = np.clip((values - low) / max(high - low, 1e-6), 0, 1) * 255
    return cv2.applyColorMap(scaled.astype(np.uint8), cv2.COLORMAP_VIRIDIS)[..., ::-1]


def at_pixels(values: np.ndarray, stride: int, size: tuple[int, int]) -> np.ndarray:
    """A map `[h, w, ...]` at each pixel of an image of `size` (height, width): each point fills a square of `stride`.

    Point (i, j) is the middle of its square. Squares that reach beyond the image are cut.
    """
    if stride == 1:
        return values
    return values.repeat(stride, axis=0).repeat(stride, axis=1)[: size[0], : size[1]]


def heatmap_panel(
    image: np.ndarray,
    confidence: np.ndarray,
    distances: np.ndarray,
    stride: int = 1,
    size: tuple[int, int] | None = None,
) -> np.ndarray:
    """Side by side: `image`, its confidence (sigmoid of the best class' logit), and the long side of each pixel's box.

    Args:
        image: an image of any size; it is shown at the size at which the network saw it.
        confidence: logits `[h, w, C]`.
        distances: `tblr` `[h, w, 4]`.
        stride: pixels of the image that the network saw from one point of the maps to the next.
        size: height and width of this image; without it, those of the maps times `stride`.
    """
    height, width = size or (stride * confidence.shape[0], stride * confidence.shape[1])
    confidence, distances = (
        at_pixels(each, stride, (height, width)) for each in (confidence, distances)
    )
    probability = 0.5 * (1 + np.tanh(0.5 * confidence.max(axis=-1)))
    sides = np.maximum(distances[..., 0] + distances[..., 1], distances[..., 2] + distances[..., 3])
    shown = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    # Without an object, the predicted box means nothing: it is dimmed.
    sizes = heatmap(sides, 0, max(height, width)) * (0.25 + 0.75 * probability[..., None])
    return np.hstack([shown, heatmap(probability, 0, 1), sizes.astype(np.uint8)])


def tile(images: Sequence[np.ndarray], columns: int, height: int = 240) -> np.ndarray:
    """Images of any sizes in rows of `columns`, each `height` pixels high, on white.

    Very wide ones are squeezed to four times their height.
    """
    cells = []
    for image in images:
        width = round(image.shape[1] * height / image.shape[0])
        size = (min(max(1, width), 4 * height), height)
        cells.append(cv2.resize(image, size, interpolation=cv2.INTER_AREA))
    rows = [cells[i : i + columns] for i in range(0, len(cells), columns)]
    width = max(sum(cell.shape[1] + 4 for cell in row) for row in rows)
    canvas = np.full((len(rows) * (height + 4), width, 3), 255, np.uint8)
    for number, row in enumerate(rows):
        left = 0
        for cell in row:
            top = number * (height + 4)
            canvas[top : top + height, left : left + cell.shape[1]] = cell
            left += cell.shape[1] + 4
    return canvas


def save_history(
    history: Sequence[dict[str, Any]], path: Path, chosen_by: Sequence[str] = ()
) -> None:
    """Plots the metrics in `history`, a dict for each epoch, over training steps. `chosen_by` names further metrics.

    Raises:
        ImportError: matplotlib is not installed.
    """
    # Without pyplot, so that the plots of a notebook keep their backend.
    figure = optional.load("matplotlib.figure", "plots", "the plot of a run's curves").Figure(
        figsize=(11, 4)
    )
    left, right = figure.subplots(1, 2)
    steps = [row["iterations"] for row in history]
    panels = (
        (left, "loss", ("loss", "confidence_loss", "distances_loss", "val_loss")),
        (right, "validation", tuple(dict.fromkeys([*VALIDATION_METRICS, *chosen_by]))),
    )
    for axes, title, names in panels:
        for name in names:
            if any(name in row for row in history):
                axes.plot(steps, [row.get(name, np.nan) for row in history], label=name, marker=".")
        axes.set(title=title, xlabel="training step")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    right.set_ylim(0, 1.01)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
