"""Compares the sizes of images as annotations state them with the images themselves.

Boxes are in pixels of the image as displayed. A tool that ignores the EXIF orientation writes sizes and boxes
of the image before it is turned. Then the stated size tells, unless the image is square. Such boxes are turned
here. Boxes that belong to an image of another size are never used, as nobody knows where their objects are.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import os
from collections.abc import Sequence

import numpy as np

from unitbox_tf import images
from unitbox_tf.problems import Problems
from unitbox_tf.progress import Progress
from unitbox_tf.records import Annotation

BEFORE_TURNING = "boxes of the image before turning; turned"  # kinds of problems
OTHER_SIZE = "image of another size than stated"
LARGEST_SHARE = 1.5  # boxes with no higher coordinate are shares of the image, not pixels
SMALLEST_IMAGE = 32  # pixels of the longer side, from which on such boxes are told from tiny ones
THREADS = min(8, 2 * (os.cpu_count() or 1))


def check_sizes(
    annotations: Sequence[Annotation],
    *,
    problems: Problems | None = None,
    name: str = "the annotations",
) -> list[Annotation]:
    """The annotations whose boxes belong to their images as displayed.

    | stated size | outcome |
    |---|---|
    | none, or that of the image as displayed | kept |
    | that of the image before its EXIF orientation is applied | boxes are turned, which is reported |
    | any other | the image is left out, which is reported; without objects it is kept |

    Images that are absent, or whose header cannot be read, are kept.

    Args:
        annotations: those of one source.
        problems: boxes that were turned, and images that are left out, are added here.
        name: the source in messages.

    Raises:
        ValueError: all boxes are shares of the width and height, not pixels.
    """
    problems = Problems.of(problems)
    _check_pixels(annotations, name)
    stated = [annotation for annotation in annotations if annotation.size is not None]
    measured: dict[int, tuple[int, int] | None] = {}
    with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
        found = pool.map(_displayed_size, stated)
        for annotation, size in zip(
            Progress(stated, f"sizes of {name}", len(stated)), found, strict=True
        ):
            measured[id(annotation)] = size
    checked = (_checked(a, measured.get(id(a)), problems) for a in annotations)
    return [annotation for annotation in checked if annotation is not None]


def _displayed_size(annotation: Annotation) -> tuple[int, int] | None:
    """Height and width of the image; None if it is absent or unreadable, which is reported where it is decoded."""
    try:
        return images.photo_size(annotation.image)
    except (OSError, ValueError):
        return None


def _checked(
    annotation: Annotation, size: tuple[int, int] | None, problems: Problems
) -> Annotation | None:
    """The annotation with the real size and its boxes turned if need be; None if the boxes are not of the image."""
    stated = annotation.size
    if size is None or stated is None or size == stated:
        return annotation
    if not len(annotation.boxes):
        return dataclasses.replace(annotation, size=size)
    height, width = stated
    orientation = images.orientation(annotation.image) if stated == size[::-1] else 1
    if orientation in images.TURNED:
        count = len(annotation.boxes)
        problems.add(
            BEFORE_TURNING,
            annotation.where,
            f"the stated size, {width} x {height}, is that before the EXIF orientation {orientation} is "
            f"applied; {'its box was' if count == 1 else f'its {count} boxes were'} turned into the "
            f"{size[1]} x {size[0]} pixels of the image as displayed",
        )
        return turned(annotation, orientation)
    problems.add(
        OTHER_SIZE,
        annotation.where,
        f"expected an image of {width} x {height} pixels, as stated with its boxes, the image has "
        f"{size[1]} x {size[0]}: the image is left out",
    )
    return None


def turned(annotation: Annotation, orientation: int) -> Annotation:
    """The annotation of an image before turning, in the space of the image as displayed.

    Args:
        annotation: has the size of the image before turning.
        orientation: as in EXIF (Exif 2.32, 4.6.4 A), 1 to 8.
    """
    assert annotation.size is not None
    height, width = annotation.size
    linear, offset = _motion(orientation, height, width)
    corners = annotation.boxes.reshape(-1, 2, 2) @ linear.T + offset
    boxes = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
    # A box of negative size stays one: it is ignored, and must not become an object.
    backwards = (annotation.boxes[:, 2:] < annotation.boxes[:, :2]).any(axis=1)
    boxes[backwards] = boxes[backwards][:, [2, 3, 0, 1]]
    ellipses = annotation.ellipses
    if ellipses is not None:
        half_axes, angles, centres = ellipses[:, :2], ellipses[:, 2], ellipses[:, 3:]
        along = np.stack([np.cos(angles), np.sin(angles)], axis=1) @ linear.T
        angles = np.arctan2(along[:, 1], along[:, 0])
        ellipses = np.concatenate([half_axes, angles[:, None], centres @ linear.T + offset], axis=1)
    size = (width, height) if orientation in images.TURNED else (height, width)
    return dataclasses.replace(annotation, boxes=boxes, ellipses=ellipses, size=size)


def _motion(orientation: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """The matrix `[2, 2]` and the offset `[2]` that take a point `xy` of the image to its place as displayed."""
    x, y = np.array([1.0, 0.0]), np.array([0.0, 1.0])
    rows, offset = {
        1: ((x, y), (0, 0)),
        2: ((-x, y), (width, 0)),
        3: ((-x, -y), (width, height)),
        4: ((x, -y), (0, height)),
        5: ((y, x), (0, 0)),
        6: ((-y, x), (height, 0)),
        7: ((-y, -x), (height, width)),
        8: ((y, -x), (0, width)),
    }[orientation]
    return np.stack(rows), np.array(offset, np.float64)


def _check_pixels(annotations: Sequence[Annotation], name: str) -> None:
    """Raises `ValueError` if all boxes of the annotations are shares of their images."""
    with_boxes = [annotation for annotation in annotations if len(annotation.boxes)]
    if not with_boxes or any(np.abs(a.boxes).max() > LARGEST_SHARE for a in with_boxes):
        return
    some = with_boxes[:100]
    sizes = [_displayed_size(annotation) or annotation.size for annotation in some]
    known = [max(size) for size in sizes if size is not None]
    has_area = any((a.boxes[:, 2:] > a.boxes[:, :2]).all(axis=1).any() for a in some)
    if not known or min(known) < SMALLEST_IMAGE or not has_area:
        return
    box = some[0].boxes[0].tolist()
    raise ValueError(
        f"{name}: expected boxes in pixels. Received: boxes as shares of the image, no number above "
        f"{LARGEST_SHARE:g}, such as x0 y0 x1 y1 {' '.join(f'{value:.4g}' for value in box)} in "
        f"{some[0].where}. Multiply x and width by the width of the image in pixels, y and height by its "
        "height; or write the shares as yolo, whose boxes are shares"
    )
