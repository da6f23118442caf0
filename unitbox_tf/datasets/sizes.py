"""Compares the sizes of images as annotations state them with the images themselves.

Boxes are in pixels of the image as displayed. A tool that ignores the EXIF orientation writes sizes and boxes
of the image before it is turned. Then the stated size tells, unless the image is square. Such boxes are turned
here. A script may write such sizes with boxes of the image as displayed, though: then some boxes leave the stated
size. Boxes that belong to an image of another size are never used, as nobody knows where their objects are.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import os
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from unitbox_tf import images
from unitbox_tf.problems import Problems
from unitbox_tf.progress import Progress
from unitbox_tf.records import Annotation

BEFORE_TURNING = "boxes of the image before turning; turned"  # kinds of problems
AS_DISPLAYED = "size of the image before turning, boxes of the image as displayed"
UNCERTAIN = "boxes of the image before turning or as displayed"
SHARES = "boxes as shares of their image"
PER_CENT = "boxes that look like per cent"
OTHER_SIZE = "image of another size than stated"
SLACK = 1.0  # px by which boxes may leave an image, from rounding
LARGEST_SHARE = 1.5  # boxes with no higher coordinate are shares of the image, not pixels
SMALLEST_IMAGE = 32  # pixels of the longer side, from which on such boxes are told from tiny ones
MANY_IMAGES = 10  # whose boxes are not all in one corner by chance
LARGE_IMAGE = 200  # px of the shorter side
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
    | the same, but boxes of the source leave it | kept as of the image as displayed, which is reported |
    | any other | the image is left out, which is reported; without objects it is kept |

    The size of a square image, or of one that is only mirrored or upside down, does not tell. Where boxes of other
    images of the source are turned, those of such an image are turned, too. If other sizes of the source are as
    displayed, nobody knows, and the image is left out. Both are reported.

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
    _report_per_cent(annotations, problems, name)
    annotations = [each for each in annotations if not _has_shares(each, problems)]
    stated = [annotation for annotation in annotations if annotation.size is not None]
    measured: dict[int, tuple[int, int] | None] = {}
    with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
        found = pool.map(_displayed_size, stated)
        for annotation, size in zip(
            Progress(stated, f"sizes of {name}", len(stated)), found, strict=True
        ):
            measured[id(annotation)] = size
    spaces = _spaces(annotations, measured)
    checked = (_checked(a, measured.get(id(a)), spaces.get(id(a)), problems) for a in annotations)
    return [annotation for annotation in checked if annotation is not None]


def check_size(
    annotation: Annotation, size: tuple[int, int] | None, *, problems: Problems | None = None
) -> Annotation | None:
    """The annotation as `check_sizes` gives it, if it is the only one of its source; None if it is left out.

    So it does without other images of the source, which would tell about boxes of an image that is square, mirrored
    or upside down. Boxes as shares of the image are no error here: the image is left out.

    Args:
        annotation: an image with its boxes.
        size: height and width of the image as displayed; None if its header cannot be read.
        problems: what was turned or left out is added here.
    """
    problems = Problems.of(problems)
    if _has_shares(annotation, problems):
        return None
    if size is None or annotation.size in (None, size):
        return annotation
    spaces = _spaces([annotation], {id(annotation): size})
    return _checked(annotation, size, spaces.get(id(annotation)), problems)


class _Space(NamedTuple):
    """In which image the boxes of an annotation are, if it is not just the image as displayed.

    Attributes:
        kind: `BEFORE_TURNING`, `AS_DISPLAYED` or `UNCERTAIN`.
        orientation: the EXIF orientation of the image.
    """

    kind: str
    orientation: int


def _spaces(
    annotations: Sequence[Annotation], measured: dict[int, tuple[int, int] | None]
) -> dict[int, _Space]:
    """The spaces of the boxes of annotations by their id, where the source states sizes before turning."""
    with_boxes = [a for a in annotations if len(a.boxes) and measured.get(id(a))]
    swapped: list[tuple[Annotation, int, bool, bool]] = []
    for annotation in with_boxes:
        size = measured[id(annotation)]
        if size and annotation.size == size[::-1] != size:
            orientation = images.orientation(annotation.image)
            if orientation in images.TURNED:
                fits = _fits(annotation, size[::-1]), _fits(annotation, size)
                swapped.append((annotation, orientation, *fits))
    # Boxes that lie in only one of the two images tell how the others were drawn.
    before = any(in_stated and not in_displayed for _, _, in_stated, in_displayed in swapped)
    displayed = any(in_displayed and not in_stated for _, _, in_stated, in_displayed in swapped)
    spaces = {}
    for annotation, orientation, in_stated, in_displayed in swapped:
        kind = AS_DISPLAYED if displayed else BEFORE_TURNING
        if in_stated != in_displayed:
            kind = BEFORE_TURNING if in_stated else AS_DISPLAYED
        elif before and displayed:
            kind = UNCERTAIN
        spaces[id(annotation)] = _Space(kind, orientation)
    if swapped and not displayed:
        same = [a for a in with_boxes if a.size == measured[id(a)]]
        with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
            found = list(pool.map(lambda a: images.orientation(a.image), same))
        turned_ = [each in images.TURNED for each in found]
        square = [a.size is not None and a.size[0] == a.size[1] for a in same]
        mixed = any(t and not s for t, s in zip(turned_, square, strict=True))
        for annotation, orientation, t, s in zip(same, found, turned_, square, strict=True):
            if orientation != 1 and (s or not t):
                kind = UNCERTAIN if mixed else BEFORE_TURNING
                spaces[id(annotation)] = _Space(kind, orientation)
    return spaces


def _fits(annotation: Annotation, size: tuple[int, int]) -> bool:
    """True if all boxes end in an image of this height and width."""
    return bool((annotation.boxes[:, 2:] <= np.array(size[::-1]) + SLACK).all())


def _displayed_size(annotation: Annotation) -> tuple[int, int] | None:
    """Height and width of the image; None if it is absent or unreadable, which is reported where it is decoded."""
    try:
        return images.photo_size(annotation.image)
    except (OSError, ValueError):
        return None


def _checked(
    annotation: Annotation,
    size: tuple[int, int] | None,
    space: _Space | None,
    problems: Problems,
) -> Annotation | None:
    """The annotation with the real size and its boxes turned if need be; None if the boxes are not of the image."""
    stated = annotation.size
    if size is None or stated is None or (size == stated and space is None):
        return annotation
    if not len(annotation.boxes):
        return dataclasses.replace(annotation, size=size)
    height, width = stated
    if space is None:
        problems.add(
            OTHER_SIZE,
            annotation.where,
            f"expected an image of {width} x {height} pixels, as stated with its boxes, the image has "
            f"{size[1]} x {size[0]}: the image is left out",
        )
        return None
    if size == stated:
        how = (
            f"other images of the source have the size before turning, this one has the EXIF orientation "
            f"{space.orientation}, of which its size does not tell"
        )
    else:
        how = (
            f"the stated size, {width} x {height}, is that before the EXIF orientation {space.orientation} "
            "is applied"
        )
    count = len(annotation.boxes)
    boxes = "its box was" if count == 1 else f"its {count} boxes were"
    displayed = f"the {size[1]} x {size[0]} pixels of the image as displayed"
    outcome = {
        BEFORE_TURNING: f"{boxes} turned into {displayed}",
        AS_DISPLAYED: f"but boxes of the source lie outside it: its boxes are taken for those in {displayed}. "
        "Mend the sizes: those as displayed are expected",
        UNCERTAIN: "and other images of the source tell nothing certain about its boxes: the image is left out",
    }[space.kind]
    problems.add(space.kind, annotation.where, f"{how}; {outcome}")
    if space.kind == UNCERTAIN:
        return None
    if space.kind == AS_DISPLAYED:
        return dataclasses.replace(annotation, size=size)
    return turned(annotation, space.orientation)


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


def _has_shares(annotation: Annotation, problems: Problems) -> bool:
    """True, after a report, if all boxes of one image are shares of it, as of a part of a set that was joined."""
    boxes = annotation.boxes
    if not len(boxes) or np.abs(boxes).max() > LARGEST_SHARE:
        return False
    size = _displayed_size(annotation) or annotation.size
    if size is None or max(size) < SMALLEST_IMAGE or not (boxes[:, 2:] > boxes[:, :2]).all(1).any():
        return False
    problems.add(
        SHARES,
        annotation.where,
        f"expected boxes in pixels of {size[1]} x {size[0]}, received no number above {LARGEST_SHARE:g}: the "
        "image is left out",
    )
    return True


def _report_per_cent(annotations: Sequence[Annotation], problems: Problems, name: str) -> None:
    """Reports boxes that all lie in the first 100 pixels of many larger images: they may be per cent."""
    some = [each for each in annotations if len(each.boxes)]
    if len(some) < MANY_IMAGES or any(not 0 <= e.boxes.min() <= e.boxes.max() <= 100 for e in some):
        return
    sizes = [_displayed_size(each) or each.size for each in some[:100]]
    if all(size is not None and min(size) > LARGE_IMAGE for size in sizes):
        message = (
            "no number of any box is above 100, though the images are larger: are the boxes per cent of width "
            "and height, as Label Studio counts them? Pixels are expected"
        )
        problems.add(PER_CENT, name, message)


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
