"""Composes photos: one annotated face at a stated size in a scene without faces, so that recall by size can be counted.

The photo of the face is scaled as a whole, so that the long side of the face has the size asked for, and laid
over a scene, with the face at a random place inside. What is outside the square is cut off. So a face keeps its
surroundings, and one size differs from another in nothing else.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from unitbox_tf import boxes as box_ops
from unitbox_tf import files, inputs
from unitbox_tf.evaluation import matching
from unitbox_tf.records import Annotation, Detections

JPEG_QUALITY = 95
LARGEST_SHARE = 0.97  # of the square's side, that a face may take


@dataclasses.dataclass(frozen=True)
class Face:
    """A face in a photo.

    Attributes:
        photo: the photo with all its objects.
        index: of the face among them.
        long_side: of the face, in pixels of the photo.
    """

    photo: Annotation
    index: int
    long_side: float


def faces(annotations: Sequence[Annotation], count: int) -> list[Face]:
    """The `count` largest faces by their long side, one of each photo, the largest first.

    Faces that are ignored or cut by the border of their photo are left out.

    Raises:
        ValueError: there are none.
    """
    found = []
    for annotation in annotations:
        height, width = inputs.read_image(annotation.encoded()).shape[:2]
        boxes = annotation.boxes
        inside = (boxes >= 0).all(axis=1) & (boxes[:, 2:] <= [width, height]).all(axis=1)
        longs = np.where(inside & ~annotation.ignore, box_ops.long_sides(boxes), 0)
        if longs.max(initial=0) > 0:
            index = int(longs.argmax())
            found.append(Face(annotation, index, float(longs[index])))
    if not found:
        raise ValueError(
            f"Expected photos with whole faces. Received: {len(annotations)} photos without one"
        )
    return sorted(found, key=lambda face: -face.long_side)[:count]


def compose(
    face: Face, size: float, scene: np.ndarray, side: int, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A square with the face at a size.

    Args:
        face: the face.
        size: its long side in the square; px. It is off by as much as whole pixels of the photo make it.
        scene: RGB uint8 `[H, W, 3]`, cut to the square.
        side: of the square; px.
        generator: of the place.

    Returns:
        RGB uint8 `[side, side, 3]`; the boxes `xyxy` `[N, 4]` of the objects in it, the face first; and `[N]`, True
        for those that are ignored: all but the face.
    """
    photo = inputs.read_image(face.photo.encoded())
    scale = size / face.long_side
    shape = np.maximum(1, np.round(np.array(photo.shape[1::-1]) * scale)).astype(int)  # x, y
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    scaled = cv2.resize(photo, shape.tolist(), interpolation=method)
    boxes = face.photo.boxes * np.tile(shape / photo.shape[1::-1], 2)
    own = boxes[face.index]
    room = side - (own[2:] - own[:2])
    x, y = np.floor(generator.uniform(0, np.maximum(room, 0)) - own[:2]).astype(int).tolist()
    image = _cover(scene, side)
    left, top = max(0, x), max(0, y)
    part = scaled[top - y : side - y, left - x : side - x]
    image[top : top + part.shape[0], left : left + part.shape[1]] = part
    order = [face.index, *(i for i in range(len(boxes)) if i != face.index)]
    moved = box_ops.clip(boxes[order] + [x, y, x, y], side, side).astype(np.float64)
    seen = box_ops.areas(moved) > 0
    return image, moved[seen], (np.arange(len(boxes)) > 0)[seen]


def _cover(scene: np.ndarray, side: int) -> np.ndarray:
    """The middle of a scene, scaled to fill a square."""
    height, width = scene.shape[:2]
    scale = side / min(height, width)
    shape = (max(side, round(width * scale)), max(side, round(height * scale)))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    scaled = cv2.resize(scene, shape, interpolation=method)
    top, left = (scaled.shape[0] - side) // 2, (scaled.shape[1] - side) // 2
    return scaled[top : top + side, left : left + side].copy()


def write_all(
    chosen: Sequence[Face],
    scenes: Sequence[Annotation],
    sizes: Sequence[float],
    side: int,
    seed: int,
    folder: Path,
) -> Iterator[Annotation]:
    """Writes a photo of each face at each size as JPEG, size by size, unless it is there, and yields its annotation.

    Its name tells its pixels apart from those of all others.

    Args:
        chosen: the faces.
        scenes: photos without faces, drawn at random.
        sizes: long sides of faces; px.
        side: of the photos; px.
        seed: of scenes and places.
        folder: for the files.

    Raises:
        ValueError: a size does not fit into the photos.
    """
    if max(sizes) > LARGEST_SHARE * side:
        raise ValueError(
            f"Expected sizes up to {LARGEST_SHARE:.0%} of the side of the photos, {LARGEST_SHARE * side:.0f} px. "
            f"Received: {max(sizes):g}"
        )
    folder.mkdir(parents=True, exist_ok=True)
    for size in sizes:
        for number, face in enumerate(chosen):
            generator = np.random.default_rng([seed, number, round(size * 100)])
            scene = inputs.read_image(scenes[int(generator.integers(len(scenes)))].encoded())
            image, boxes, ignore = compose(face, size, scene, side, generator)
            quality = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
            encoded = cv2.imencode(".jpg", image[..., ::-1], quality)[1].tobytes()
            # Detections that are kept belong to a name, so the name belongs to the pixels.
            name = f"{size:g}-{number}-{hashlib.sha256(encoded).hexdigest()[:12]}.jpg"
            file = folder / name
            if not file.is_file():
                files.write(file, encoded)
            yield Annotation(name, file, boxes, ignore=ignore, size=(side, side))


@dataclasses.dataclass(frozen=True)
class Found:
    """What a detector found of the faces; arrays are `[S, F]`, by size and face.

    Attributes:
        scores: score of the detection that found the face, at IoU 0.5; 0 if none did.
        overlaps: IoU of that detection and the face; 0 if none did.
        threshold: lowest score with at most 0.1 false positives in a photo.
    """

    scores: np.ndarray
    overlaps: np.ndarray
    threshold: float

    def hits(self, threshold: float | None = None) -> np.ndarray:
        """`[S, F]`, True if the face was found with at least the score `threshold`; None takes the attribute."""
        lowest = self.threshold if threshold is None else threshold
        return (self.overlaps > 0) & (self.scores >= lowest)


def find(
    detections: Sequence[Detections], annotations: Sequence[Annotation], num_sizes: int
) -> Found:
    """What was found.

    Args:
        detections: `Detections` of the photos, in the order of `write_all`.
        annotations: the photos.
        num_sizes: how many sizes there are.
    """
    scores, overlaps = np.zeros(len(annotations)), np.zeros(len(annotations))
    for number, (found, annotation) in enumerate(zip(detections, annotations, strict=True)):
        matched = matching.match_image(found, annotation)
        if len(found) and matched.overlaps.max() > 0:
            best = int(matched.overlaps.argmax())
            scores[number], overlaps[number] = found.scores[best], matched.overlaps[best]
    threshold = matching.match(detections, annotations).threshold_at(matching.FALSE_POSITIVES)
    shape = (num_sizes, -1)
    return Found(scores.reshape(shape), overlaps.reshape(shape), threshold)
