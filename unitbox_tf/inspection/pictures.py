"""Draws annotated images, and the images and targets with which training feeds the network.

Pictures are RGB uint8 `[H, W, 3]`. Targets and ignored pixels are those of `train.pipeline`, drawn as they are.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence

import cv2
import numpy as np
import tensorflow as tf

from unitbox_tf import boxes as box_ops
from unitbox_tf import images as image_ops
from unitbox_tf import registry, visualize
from unitbox_tf.config import Config, ModelConfig
from unitbox_tf.limits import MAX_PIXELS
from unitbox_tf.problems import Problems
from unitbox_tf.records import Annotation
from unitbox_tf.train import pipeline, reading

# Colours of the classes, in turn. They differ in hue and in brightness, on images as well.
COLOURS = (
    (40, 200, 60),
    (240, 130, 20),
    (60, 130, 255),
    (235, 60, 170),
    (250, 220, 40),
    (40, 210, 220),
    (160, 90, 240),
    (220, 50, 50),
)
LONGEST = 480  # px; longer sides are shrunk to it in pictures
LABEL = 18  # letters of a class name that are drawn
SMALLEST = 256  # px; smaller training images are enlarged in pictures


def colour(label: int) -> tuple[int, int, int]:
    """The colour of class `label`."""
    return COLOURS[label % len(COLOURS)]


def chosen(annotations: Sequence[Annotation], num_classes: int, count: int) -> list[Annotation]:
    """At most `count` annotations, spread evenly: two of each class, one without objects, and others."""
    present = [set(each.classes[~each.ignore].tolist()) for each in annotations]
    wanted: dict[int, None] = {}
    for label in range(num_classes):
        wanted.update(dict.fromkeys(_spread([i for i, p in enumerate(present) if label in p], 2)))
    wanted.update(dict.fromkeys(_spread([i for i, p in enumerate(present) if not p], 1)))
    wanted.update(dict.fromkeys(_spread(range(len(annotations)), count)))
    return [annotations[index] for index in sorted(list(wanted)[:count])]


def _spread(items: Sequence[int], count: int) -> list[int]:
    places = np.linspace(0, len(items) - 1, min(len(items), count)).round().astype(int)
    return [items[place] for place in places]


def annotated(
    annotation: Annotation, class_names: Sequence[str], max_pixels: int = MAX_PIXELS
) -> np.ndarray:
    """The image with its boxes in the colours of their classes, ignored ones in grey.

    Raises:
        TooLarge: it has more than `max_pixels`.
        OSError: the file cannot be read.
        ValueError: the image cannot be decoded.
    """
    image = image_ops.decode_photo(annotation.encoded(max_pixels), max_pixels).numpy()
    image, scale = shrunk(image, LONGEST)
    boxes = annotation.boxes * scale
    image = visualize.draw_boxes(image, boxes[annotation.ignore], visualize.IGNORED_COLOUR)
    for label in range(len(class_names)):
        mine = (annotation.classes == label) & ~annotation.ignore
        named = [_label(class_names[label])] * int(mine.sum()) if len(class_names) > 1 else []
        image = visualize.draw_boxes(image, boxes[mine], colour(label), named)
    return image


def _label(name: str) -> str:
    # OpenCV draws ASCII only.
    return name.encode("ascii", "replace").decode()[:LABEL].replace("\0", "?")


def shrunk(image: np.ndarray, longest: int) -> tuple[np.ndarray, float]:
    """The image with sides of at most `longest` pixels, and the factor."""
    scale = min(1.0, longest / max(image.shape[:2]))
    height, width = (max(1, round(side * scale)) for side in image.shape[:2])
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), scale


@dataclasses.dataclass(frozen=True)
class Shown:
    """One training image as the network gets it.

    Attributes:
        image: with all random changes.
        confidence: the target of the confidence on the dimmed image, in the colours of the classes; pixels
            that do not count are hatched. Each point of the map fills a square of its stride.
        distances: the boxes to which the distances at the objects' points lead, and the four distances at one
            point of each.
    """

    image: np.ndarray
    confidence: np.ndarray
    distances: np.ndarray


def batch(
    annotations: Sequence[Annotation],
    config: Config,
    num_classes: int,
    count: int,
    *,
    problems: Problems | None = None,
) -> list[Shown]:
    """The first `count` training images, from the pipeline that `fit` uses.

    Raises:
        ValueError: no image can be decoded.
    """
    most, stride = config.decode.max_pixels, _map_stride(config.model)
    reading.readable(annotations, enough=1, max_pixels=most, problems=problems)
    examples = pipeline.training_dataset(
        annotations,
        config.data,
        labels=pipeline.Labels(num_classes, stride=stride),
        padding=_padding(config),
        batch_size=count,
        seed=config.train.seed,
        max_pixels=most,
        problems=problems,
    )
    images, targets, weights = next(iter(examples))
    return [
        _drawn(image.numpy(), stride, *(each.numpy() for each in maps))
        for image, *maps in zip(
            images,
            targets["confidence"],
            targets["distances"],
            weights["confidence"],
            weights["distances"],
            strict=True,
        )
    ]


def _map_stride(model: ModelConfig) -> int:
    """Pixels of the image from one point of the network's maps to the next."""
    return 1 if model.neck == "none" else model.map_stride


def _padding(config: Config) -> tuple[float, float, float]:
    """The colour beyond the border of an image, which the backbone states."""
    build = registry.BACKBONES[config.model.backbone]
    backbone = build(dataclasses.replace(config.model, weights=None), seed=0)
    colour_: tuple[float, float, float] = backbone.preprocessing.mean_colour
    return colour_


def _drawn(
    image: np.ndarray,
    stride: int,
    confidence: np.ndarray,
    distances: np.ndarray,
    confidence_weights: np.ndarray,
    distance_weights: np.ndarray,
) -> Shown:
    """Pictures of an image `[S, S, 3]` and its maps `[s, s, C]`, `[s, s, 4]`, `[s, s]` and `[s, s]` of a stride."""
    size = (image.shape[0], image.shape[1])
    pixels = np.clip(np.rint(image), 0, 255).astype(np.uint8)
    zoom = max(1, -(-SMALLEST // len(image)))
    large = np.repeat(np.repeat(pixels, zoom, axis=0), zoom, axis=1)
    return Shown(
        large,
        _confidence(
            pixels,
            visualize.at_pixels(confidence, stride, size),
            visualize.at_pixels(confidence_weights, stride, size),
            zoom,
        ),
        _distances(large, confidence, distances, distance_weights, zoom, stride),
    )


def _confidence(
    image: np.ndarray, confidence: np.ndarray, weights: np.ndarray, zoom: int
) -> np.ndarray:
    shown = image // 2
    for label in range(confidence.shape[-1]):
        mine = confidence[..., label] > 0
        shown[mine] = shown[mine] // 4 + np.multiply(colour(label), 3, dtype=int) // 4
    row, column = np.indices(weights.shape)
    hatched = (weights == 0) & ((row + column) // 2 % 2 == 0)
    shown[hatched] = visualize.IGNORED_COLOUR
    return np.repeat(np.repeat(shown, zoom, axis=0), zoom, axis=1)


def _distances(
    image: np.ndarray,
    confidence: np.ndarray,
    distances: np.ndarray,
    weights: np.ndarray,
    zoom: int,
    stride: int,
) -> np.ndarray:
    image = image.copy()
    rows, columns = np.nonzero(weights > 0)
    points = (np.stack([columns, rows], axis=-1) + 0.5) * stride
    boxes = box_ops.distances_to_boxes(
        tf.constant(distances[rows, columns]), tf.constant(points, tf.float32)
    ).numpy()
    for box, mine in _objects(boxes):
        middle = mine[np.abs(points[mine] - (box[:2] + box[2:]) / 2).sum(axis=-1).argmin()]
        label = int(confidence[rows[middle], columns[middle]].argmax())
        image = visualize.draw_boxes(image, box[None] * zoom, colour(label))
        _draw_distances(image, points[middle] * zoom, box * zoom)
    return image


def _objects(boxes: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Each different box of `boxes` `[N, 4]`, and the indices of its pixels. Rounding hides the errors of float32."""
    different, owners = np.unique(boxes.round(1), axis=0, return_inverse=True)
    for index, box in enumerate(different):
        yield box, np.flatnonzero(owners.ravel() == index)


def _draw_distances(image: np.ndarray, point: np.ndarray, box: np.ndarray) -> None:
    """Draws the four distances of a point to the sides of a box into `image`."""
    x, y = (round(float(value)) for value in point)
    x0, y0, x1, y1 = (round(float(value)) for value in box)
    for end in ((x, y0), (x, y1), (x0, y), (x1, y)):
        cv2.line(image, (x, y), end, visualize.DETECTION_COLOUR, 1)
    cv2.circle(image, (x, y), 2, visualize.DETECTION_COLOUR, -1)


def drawable(
    annotations: Iterable[Annotation], class_names: Sequence[str], max_pixels: int = MAX_PIXELS
) -> Iterator[tuple[Annotation, np.ndarray]]:
    """Each annotation with its picture. Images that cannot be decoded are left out: they are among the problems."""
    for annotation in annotations:
        try:
            yield annotation, annotated(annotation, class_names, max_pixels)
        except image_ops.UNREADABLE:
            continue
