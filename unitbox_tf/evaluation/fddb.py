"""The official evaluation of FDDB: discrete and continuous ROC curves (Jain and Learned-Miller, 2010).

V. Jain, E. Learned-Miller: FDDB: A Benchmark for Face Detection in Unconstrained Settings.
Technical report UM-CS-2010-009, University of Massachusetts, Amherst. The rules that the report
leaves open are those of its C++ program:

* **Regions** are sets of pixels of the image, drawn as OpenCV draws them. A rectangle includes the
  pixels of both corners. An ellipse has an integer centre, integer half axes and an angle in whole
  degrees. The overlap of two regions is their common area divided by the area that they cover together.
* **Matching**: for each image and each distinct score in it, detections of at least that score and
  faces are paired one to one, so that the sum of overlaps is largest. A pair must overlap.
  The discrete score counts the pairs that overlap by more than 0.5. The continuous score adds up the
  overlaps of all pairs. Both have the same false positives: detections that the discrete score does
  not count.
* **Sweep**: a curve has a row for each distinct score of all images. At a threshold, an image contributes
  its counts at its smallest score that is not below the threshold. Both scores are divided by the number
  of all faces.

Pairings here are optimal. The pairings of the C++ program are not always: docs/fddb.md says how much
this matters. If several pairings are optimal, one of them is taken.

Detections of an image are an array `[K, 5]`, rows `x y w h score`, or `[K, 6]`, rows `ra rb theta cx
cy score`: half axes, angle in radians of the first from the x axis, centre. Annotations are `[N, 5]`,
rows `ra rb theta cx cy`. All lengths are pixels of the image. Sizes are `(height, width)`.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np

from unitbox_tf import files, images, limits, optional
from unitbox_tf.datasets import checks, json_files, lists
from unitbox_tf.datasets.fddb import NUM_FOLDS
from unitbox_tf.problems import Problems

MATCH_OVERLAP = 0.5  # a pair counts as a true positive above this
NUM_IMAGES = 2845  # of the ten folds
NO_DETECTIONS = sys.float_info.max  # the threshold at which an image without detections is listed
MAX_PIXELS = 2**26  # of an image, so that a wrong size cannot exhaust memory
MAX_COORDINATE = 1e6  # pixels; far beyond it OpenCV's integers overflow
MAX_SIZES_BYTES = 2**24  # of a json of sizes; that of the whole FDDB has 109 kB

Size = tuple[int, int]


def read_annotations(
    folder: Path,
    folds: Iterable[int] = range(1, NUM_FOLDS + 1),
    *,
    problems: Problems | None = None,
) -> dict[str, np.ndarray]:
    """The ellipses `[N, 5]` of each image in `folder/FDDB-fold-XX-ellipseList.txt`, in the order of the folds.

    The images are not needed. Unusable lines and absent folds are problems. Faces in unusable lines are
    left out of the number of faces.
    """
    problems = Problems.of(problems)
    annotations: dict[str, np.ndarray] = {}
    for fold in folds:
        path = folder / f"FDDB-fold-{fold:02d}-ellipseList.txt"
        if not path.is_file():
            problems.add("fold listed but absent", str(path), "no such file")
            continue
        for name, rows in _listed(path, annotations, problems):
            ellipses = []
            for where, text in rows:
                values = checks.numbers(text, [5, 6], where, problems=problems)
                if values is not None and _is_ellipse(values, where, problems):
                    ellipses.append(values[:5])
            annotations[name] = np.array(ellipses, np.float64).reshape(-1, 5)
    return annotations


def read_detections(path: Path, *, problems: Problems | None = None) -> dict[str, np.ndarray]:
    """The detections of each image, `[K, 5]` rectangles or `[K, 6]` ellipses, in an official result file.

    The file has these lines for each image: its name, the number of its detections, and one line for each
    detection. It holds either rectangles or ellipses. Rows of another length than most are problems and
    left out. So are rows that are no numbers, ellipses with a negative half axis, and images listed twice.
    A rectangle of negative width or height is a problem, but is kept, because OpenCV draws it.

    Args:
        path: the file, or a folder with `fold-01-out.txt` to `fold-10-out.txt`, or some of them.
        problems: receives unusable rows and images, with file and line.

    Raises:
        ValueError: there is no such file, or none of the ten in the folder.
    """
    problems = Problems.of(problems)
    paths = [path]
    if path.is_dir():
        paths = [fold for fold in _fold_results(path) if fold.is_file()]
    if not paths or not paths[0].is_file():
        raise ValueError(
            f"{path}: expected a result file, or a folder with fold-01-out.txt to "
            f"fold-{NUM_FOLDS}-out.txt"
        )
    rows: dict[str, list[tuple[str, str, list[float]]]] = {}
    for file in paths:
        for name, lines in _listed(file, rows, problems):
            parsed = [
                (*line, checks.numbers(line[1], [5, 6], line[0], problems=problems))
                for line in lines
            ]
            rows[name] = [(where, text, row) for where, text, row in parsed if row is not None]
    lengths = [len(row) for found in rows.values() for _, _, row in found]
    length = 6 if lengths.count(6) > lengths.count(5) else 5
    return {
        name: np.array(
            [
                row
                for where, text, row in found
                if _has_length(row, length, text, where, problems)
                and (_is_ellipse if length == 6 else _is_rectangle)(row, where, problems)
            ],
            np.float64,
        ).reshape(-1, length)
        for name, found in rows.items()
    }


def write_detections(
    detections: Mapping[str, np.ndarray],
    path: Path,
    folds: Mapping[int, Iterable[str]] | None = None,
) -> None:
    """Writes detections in the official form, so that `read_detections` gives the same numbers, every bit.

    Args:
        detections: for each image `[K, 5]` rectangles or `[K, 6]` ellipses.
        path: the file to write; with `folds`, the folder for `fold-XX-out.txt`.
        folds: for each fold the names of its images. Images without detections are listed with 0.

    Raises:
        ValueError: an array has another shape or a number that is not finite, rectangles and ellipses
            are mixed, a name cannot be listed, or an image with detections is in none of the folds.
    """
    lengths = {_checked(rows, name).shape[1] for name, rows in detections.items() if len(rows)}
    if len(lengths) > 1:
        raise ValueError(f"{path}: expected only rectangles or only ellipses. Received: both")
    for name in detections:
        if name != name.strip() or len(name.splitlines()) != 1:
            raise ValueError(f"{path}: expected an image's name on one line. Received: {name!r}")
    if folds is None:
        files.write(path, "".join(_result(n, rows) for n, rows in detections.items()))
        return
    listed = {fold: list(names) for fold, names in folds.items()}
    unlisted = set(detections) - {name for names in listed.values() for name in names}
    if unlisted:
        raise ValueError(
            f"{path}: {len(unlisted)} images with detections are in none of the folds, "
            f"{sorted(unlisted)[0]!r} is one"
        )
    path.mkdir(parents=True, exist_ok=True)
    results = _fold_results(path)
    for fold, names in listed.items():
        text = "".join(_result(name, detections.get(name, ())) for name in names)
        files.write(results[fold - 1], text)


def _fold_results(folder: Path) -> list[Path]:
    return [folder / f"fold-{fold:02d}-out.txt" for fold in range(1, NUM_FOLDS + 1)]


def _result(name: str, rows: np.ndarray | Sequence[Sequence[float]]) -> str:
    # repr is the shortest text that reads as the same number.
    lines = [" ".join(repr(float(value)) for value in row) for row in rows]
    return "\n".join([name, str(len(lines)), *lines, ""])


def _listed(
    path: Path, known: Mapping[str, object], problems: Problems
) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    for listed in lists.listed_photos(
        path, lambda line: "/" in line, whole=False, problems=problems
    ):
        if listed.name in known:
            message = f"{listed.name!r} was listed before"
            problems.add("image listed twice", f"{path}:{listed.line}", message)
        else:
            numbered = enumerate(listed.rows, listed.first)
            yield listed.name, [(f"{path}:{line}", row) for line, row in numbered]


def _has_length(row: list[float], length: int, text: str, where: str, problems: Problems) -> bool:
    if len(row) != length:
        form = "rectangles" if length == 5 else "ellipses"
        message = f"expected {length} numbers, most rows being {form}, received {text.strip()!r}"
        problems.add("rectangles and ellipses mixed", where, message)
    return len(row) == length


def _is_ellipse(row: Sequence[float], where: str, problems: Problems) -> bool:
    if min(row[:2]) < 0 or max(row[0], row[1], abs(row[3]), abs(row[4])) > MAX_COORDINATE:
        message = f"expected half axes from 0 and lengths up to {MAX_COORDINATE:g}, received "
        problems.add("impossible ellipse", where, message + " ".join(map(repr, row[:5])))
        return False
    return True


def _is_rectangle(row: Sequence[float], where: str, problems: Problems) -> bool:
    if max(map(abs, row[:4])) > MAX_COORDINATE:
        message = f"expected lengths up to {MAX_COORDINATE:g}, received "
        problems.add("impossible rectangle", where, message + " ".join(map(repr, row[:4])))
        return False
    if min(row[2:4]) < 0:
        problems.add(
            "rectangle of negative size",
            where,
            f"expected a width and height from 0, received {row[2]:g} x {row[3]:g}; kept",
        )
    return True


def read_sizes(path: Path) -> dict[str, Size]:
    """Heights and widths of images from a json object of `name: [width, height]`.

    The file replaces the images. Raises `ValueError`, which names the image, for any other content.
    """
    content = json_files.parse(files.read(path, MAX_SIZES_BYTES), str(path))
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected a json object of name: [width, height]")
    sizes = {}
    for name, size in content.items():
        if not (isinstance(size, list) and len(size) == 2):
            raise ValueError(
                f"{path}: {name!r}: expected [width, height]. Received: {checks.shown(size)}"
            )
        sizes[name] = _checked_size((size[1], size[0]), f"{path}: {name!r}")
    return sizes


def sizes_of_photos(
    folder: Path, names: Iterable[str], *, problems: Problems | None = None
) -> dict[str, Size]:
    """Heights and widths of the images `folder/NAME.jpg`, read from their headers, as displayed.

    An image that is absent, outside `folder` or unreadable is a problem and left out.
    """
    problems = Problems.of(problems)
    photos, sizes = checks.Photos(folder, problems=problems), {}
    for name in names:
        path = photos.find(f"{name}.jpg", name)
        if path is not None:
            try:
                sizes[name] = _checked_size(images.photo_size(path), str(path))
            except (OSError, ValueError) as error:
                problems.add("image that cannot be read", str(path), str(error))
    return sizes


def _checked_size(size: Size, where: str) -> Size:
    if not all(isinstance(side, int | np.integer) and side > 0 for side in size):
        raise ValueError(f"{where}: expected sides in whole pixels above 0. Received: {size!r}")
    if size[0] * size[1] > MAX_PIXELS:
        raise ValueError(f"{where}: expected at most {MAX_PIXELS} pixels. Received: {size!r}")
    return size


def rectangles_to_ellipses(rows: np.ndarray, scale: float = 1.0) -> np.ndarray:
    """The upright ellipses `[K, 6]` inscribed in rectangles `[K, 5]`, their half axes times `scale`; scores stay.

    Faces are ellipses in FDDB. The tight rectangle around an ellipse overlaps it by about pi / 4. Ellipses
    may improve the continuous score; this depends on how tight a detector's boxes are. A `scale` of
    2 / sqrt(pi) keeps the area. A negative width or height counts as drawn, from corner to corner.
    """
    x, y, width, height, score = np.asarray(rows, np.float64).reshape(-1, 5).T
    upright = np.full_like(x, math.pi / 2)
    half_axes = scale * abs(height) / 2, scale * abs(width) / 2
    return np.stack([*half_axes, upright, x + width / 2, y + height / 2, score], axis=-1)


def rectangle_pixels(rows: np.ndarray, size: Size) -> np.ndarray:
    """The pixels of rectangles `x y w h` `[K, 4]` in an image, as `xyxy` `[K, 4]` int64 with exclusive ends.

    Both corners are rounded, half to even, and both belong to the rectangle: a rectangle of 5 x 3 has
    6 x 4 pixels, and one of 0 x 0 has one pixel. Pixels outside the image do not count.
    """
    near = rows[:, :2]
    corners = np.stack([near, near + rows[:, 2:4]], axis=1)  # [K, 2, 2]
    # The original keeps corners as float.
    corners = np.rint(corners.astype(np.float32)).astype(np.int64)
    pixels = np.concatenate([corners.min(axis=1), corners.max(axis=1) + 1], axis=1)
    height, width = size
    return np.clip(pixels, 0, [width, height, width, height])


@dataclasses.dataclass(frozen=True)
class _Region:
    """The pixels of an ellipse: a mask `[h, w]` of 0 and 1 whose upper left pixel is `(left, top)`."""

    left: int
    top: int
    mask: np.ndarray

    @property
    def area(self) -> int:
        return int(np.count_nonzero(self.mask))

    def shared_with(self, other: _Region) -> int:
        """The number of common pixels."""
        left, top = max(self.left, other.left), max(self.top, other.top)
        height = min(self.top + self.mask.shape[0], other.top + other.mask.shape[0]) - top
        width = min(self.left + self.mask.shape[1], other.left + other.mask.shape[1]) - left
        if height <= 0 or width <= 0:
            return 0
        a, b = (
            region.mask[
                top - region.top : top - region.top + height,
                left - region.left : left - region.left + width,
            ]
            for region in (self, other)
        )
        return int(np.count_nonzero(a & b))


def _draw_ellipse(row: np.ndarray, size: Size) -> _Region:
    """The region of the ellipse `ra rb theta cx cy` in an image of `size`, in a mask as small as it can be.

    If the mask ends before the ellipse, the image ends there, too. OpenCV cuts the outline at that border,
    which moves single pixels there.
    """
    height, width = size
    axes = int(row[0]), int(row[1])  # the original truncates half axes, and rounds the rest
    x, y = (int(value) for value in np.rint(row[3:5].astype(np.float32)))
    angle = round(math.degrees(row[2])) % 360
    reach = max(axes) + 2
    left, right = (min(max(side, 0), width) for side in (x - reach, x + reach + 1))
    top, bottom = (min(max(side, 0), height) for side in (y - reach, y + reach + 1))
    mask = np.zeros((bottom - top, right - left), np.uint8)
    if mask.size:
        cv2.ellipse(mask, (x - left, y - top), axes, angle, 0, 360, 1, cv2.FILLED)
    return _Region(left, top, mask)


def overlaps(detections: np.ndarray, ellipses: np.ndarray, size: Size) -> np.ndarray:
    """Overlap `[K, N]` of the regions of detections `[K, 5 or 6]` with faces `[N, 5]` in an image of `size`.

    0 where both are outside the image.
    """
    faces = [_draw_ellipse(row, size) for row in np.asarray(ellipses, np.float64)]
    shared = np.zeros((len(detections), len(faces)), np.int64)
    if detections.shape[1] == 5:
        pixels = rectangle_pixels(detections, size)
        areas = (pixels[:, 2:] - pixels[:, :2]).prod(axis=1)
        for n, face in enumerate(faces):
            shared[:, n] = _shared_with_rectangles(face, pixels)
    else:
        areas = np.zeros(len(detections), np.int64)
        for k, row in enumerate(detections):
            region = _draw_ellipse(row, size)
            areas[k] = region.area
            shared[k] = [region.shared_with(face) for face in faces]
    face_areas = np.array([face.area for face in faces], np.int64)
    union = areas[:, None] + face_areas - shared
    return np.divide(shared, union, out=np.zeros(shared.shape), where=union > 0)


def _shared_with_rectangles(face: _Region, pixels: np.ndarray) -> np.ndarray:
    """The number `[K]` of pixels of `face` in rectangles `pixels` `xyxy` `[K, 4]`, each from four sums at corners."""
    if not face.mask.size:
        return np.zeros(len(pixels), np.int64)
    height, width = face.mask.shape
    corners = pixels - [face.left, face.top, face.left, face.top]
    x0, y0, x1, y1 = np.clip(corners, 0, [width, height, width, height]).T
    sums = cv2.integral(face.mask).astype(np.int64)  # [h + 1, w + 1]
    return sums[y1, x1] - sums[y0, x1] - sums[y1, x0] + sums[y0, x0]


@dataclasses.dataclass(frozen=True)
class ImageResult:
    """The counts of one image at each of its distinct scores, from the highest down.

    Attributes:
        thresholds: `[T]`, descending.
        true_positives: `[T]`, pairs with an overlap above 0.5.
        false_positives: `[T]`, the other detections of at least that score.
        overlap: `[T]`, the sum of the overlaps of all pairs.
    """

    thresholds: np.ndarray
    true_positives: np.ndarray
    false_positives: np.ndarray
    overlap: np.ndarray


def evaluate_image(detections: np.ndarray, ellipses: np.ndarray, size: Size) -> ImageResult:
    """Pairs detections `[K, 5 or 6]` and faces `[N, 5]` of one image of `size` at each distinct score."""
    if not len(detections):
        return ImageResult(*np.zeros((4, 0)))
    order = np.argsort(-detections[:, -1], kind="stable")
    scores = detections[order, -1]
    pair_overlaps = overlaps(detections[order], ellipses, size)
    # A threshold takes all detections of one score or none.
    ends = np.flatnonzero(np.append(scores[1:] != scores[:-1], True))
    hits, total = _match(pair_overlaps, ends)
    return ImageResult(scores[ends], hits, ends + 1 - hits, total)


def _match(pair_overlaps: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each threshold, the number of pairs with an overlap above 0.5, and the sum of the overlaps of all pairs.

    Args:
        pair_overlaps: `[K, N]`, detections from the highest score down.
        ends: `[T]`, the last detection that each threshold takes.
    """
    hits, total = np.zeros(len(ends), np.int64), np.zeros(len(ends))
    touching = pair_overlaps > 0
    shares = touching.T.astype(np.int64) @ touching  # [N, N]
    # Faces that share no detection are matched separately. Then nearly every face is alone.
    components = _scipy("sparse.csgraph").connected_components
    count, labels = components(shares, directed=False) if shares.size else (0, [])
    for label in range(count):
        columns = pair_overlaps[:, np.asarray(labels) == label]
        if columns.shape[1] == 1:
            best = np.maximum.accumulate(columns[:, 0])[ends]
            hits += best > MATCH_OVERLAP
            total += best
        else:
            _match_together(columns, ends, hits, total)
    return hits, total


def _scipy(module: str) -> Any:
    return optional.load(f"scipy.{module}", "fddb", "FDDB's protocol")


def require() -> None:
    """Raises `ImportError`, which says what to install, if the library that pairs detections is missing."""
    _scipy("optimize")


def _match_together(
    pair_overlaps: np.ndarray, ends: np.ndarray, hits: np.ndarray, total: np.ndarray
) -> None:
    """Adds the best pairing for each threshold to `hits` and `total`; arguments as for `_match`."""
    assign = _scipy("optimize").linear_sum_assignment
    first = 0
    rows = np.zeros(0, np.int64)
    matched = np.zeros(0)
    for index, end in enumerate(ends):
        new = first + np.flatnonzero(pair_overlaps[first : end + 1].any(axis=1))
        first = end + 1
        if len(new):
            # A detection that is out of the best pairing stays out when others join: pairs change
            # along paths that start at those others. So the problem stays as small as the faces.
            rows = np.concatenate([rows, new])
            chosen, faces = assign(pair_overlaps[rows], maximize=True)
            matched = pair_overlaps[rows[chosen], faces]
            rows = rows[chosen[matched > 0]]
        hits[index] += np.count_nonzero(matched > MATCH_OVERLAP)
        total[index] += matched.sum()


@dataclasses.dataclass(frozen=True)
class Curves:
    """Both ROC curves of a set of images, a row for each distinct score, ascending.

    Attributes:
        discrete: `[R, 3]` true positive rate, number of false positives, threshold.
        continuous: `[R, 2]` sum of overlaps divided by the number of faces, number of false positives.
        num_images: number of judged images, including images without detections.
        num_faces: number of faces in these images.
        num_detections: number of detections in these images.
    """

    discrete: np.ndarray
    continuous: np.ndarray
    num_images: int
    num_faces: int
    num_detections: int


def evaluate(
    detections: Mapping[str, np.ndarray],
    annotations: Mapping[str, np.ndarray],
    sizes: Mapping[str, Size],
    *,
    problems: Problems | None = None,
) -> Curves:
    """The ROC curves of `detections` on the images of `annotations`, all of FDDB or any part of it.

    Args:
        detections: for each image `[K, 5]` rectangles or `[K, 6]` ellipses, in any order. An absent image
            counts as one without detections, and is a problem. An empty array is no problem.
        annotations: for each image the ellipses `[N, 5]` of its faces. Detections of other images are
            problems and left out.
        sizes: for each image with detections its height and width, from `read_sizes` or
            `sizes_of_photos`.
        problems: receives images that only `detections` or only `annotations` have.

    Raises:
        ValueError: there is no face at all, an image has no size, or an array is not as described.
        ImportError: scipy is not installed.
    """
    problems = Problems.of(problems)
    num_faces = sum(len(ellipses) for ellipses in annotations.values())
    if not num_faces:
        raise ValueError(f"Expected annotated faces. Received: none in {len(annotations)} images")
    for name in detections:
        if name not in annotations:
            problems.add(
                "detections of an image that is not annotated", name, "not in the folds; left out"
            )
    results, num_detections = [], 0
    for name, ellipses in annotations.items():
        if name not in detections:
            problems.add("image without result", name, "not among the detections; taken as none")
        found = _checked(detections.get(name, ()), name)
        truth = _checked_annotation(ellipses, name)
        if len(found) and name not in sizes:
            raise ValueError(f"{name}: expected the size of each image with detections; has none")
        size = _checked_size(sizes[name], name) if len(found) else (1, 1)  # then nothing is drawn
        results.append(evaluate_image(found, truth, size))
        num_detections += len(found)
    thresholds, true_positives, false_positives, overlap = _sweep(results)
    return Curves(
        np.stack([true_positives / num_faces, false_positives, thresholds], axis=-1),
        np.stack([overlap / num_faces, false_positives], axis=-1),
        len(annotations),
        num_faces,
        num_detections,
    )


def _sweep(results: Iterable[ImageResult]) -> tuple[np.ndarray, ...]:
    """Thresholds, ascending, and the sums over images at each: true and false positives, overlap; `[R]` each."""
    scores, steps = [np.zeros(0)], [np.zeros((0, 3))]
    for result in results:
        if len(result.thresholds):
            levels = [result.true_positives, result.false_positives, result.overlap]
            # The changes when a sinking threshold reaches a score.
            scores.append(result.thresholds)
            steps.append(np.diff(np.stack(levels, axis=-1), axis=0, prepend=0.0))
        else:
            scores.append(np.array([NO_DETECTIONS]))
            steps.append(np.zeros((1, 3)))
    thresholds, index = np.unique(np.concatenate(scores), return_inverse=True)
    rows = np.zeros((len(thresholds), 3))
    np.add.at(rows, index, np.concatenate(steps))
    rows = np.cumsum(rows[::-1], axis=0)[::-1]
    return thresholds, rows[:, 0], rows[:, 1], rows[:, 2]


def _checked(rows: object, name: str) -> np.ndarray:
    """Detections `[K, 5 or 6]` as float64; `[0, 5]` for none. Raises `ValueError` if they cannot be judged."""
    array = np.asarray(rows, np.float64)
    if not array.size:
        return np.zeros((0, 5))
    if array.ndim != 2 or array.shape[1] not in (5, 6):
        raise ValueError(f"{name}: expected detections [K, 5 or 6]. Received: {array.shape}")
    if array.shape[1] == 6:
        _checked_annotation(array[:, :5], name)
        bounded = array[:, 5]
    else:
        bounded = array
    if not np.isfinite(bounded).all() or (
        array.shape[1] == 5 and np.abs(array[:, :4]).max() > MAX_COORDINATE
    ):
        raise ValueError(f"{name}: expected finite numbers, and pixels up to {MAX_COORDINATE:g}")
    return array


def _checked_annotation(ellipses: object, name: str) -> np.ndarray:
    """Ellipses `[N, 5]` as float64. Raises `ValueError` if they cannot be drawn."""
    array = np.asarray(ellipses, np.float64)
    if not array.size:
        return np.zeros((0, 5))
    if array.ndim != 2 or array.shape[1] != 5:
        raise ValueError(f"{name}: expected ellipses [N, 5]. Received: {array.shape}")
    lengths = array[:, [0, 1, 3, 4]]
    if not np.isfinite(array).all() or np.abs(lengths).max() > MAX_COORDINATE:
        raise ValueError(f"{name}: expected finite numbers, and pixels up to {MAX_COORDINATE:g}")
    if array[:, :2].min() < 0:
        raise ValueError(f"{name}: expected half axes from 0. Received: {array[:, :2].min():g}")
    return array


def rate_at(curve: np.ndarray, false_positives: float) -> float:
    """The highest true positive rate of a `curve` `[R, 2 or 3]` with at most `false_positives`; 0 if there is none."""
    rates = curve[curve[:, 1] <= false_positives, 0]
    return float(rates.max()) if len(rates) else 0.0


def save_curves(curves: Curves, prefix: str | Path) -> tuple[Path, Path]:
    """Writes `PREFIXDiscROC.txt` and `PREFIXContROC.txt` as the C++ program does, and returns the two paths.

    Six significant digits, the default of C++ streams.
    """
    paths = Path(f"{prefix}DiscROC.txt"), Path(f"{prefix}ContROC.txt")
    for path, rows in zip(paths, (curves.discrete, curves.continuous), strict=True):
        lines = [" ".join(f"{value:.6g}" for value in row) + "\n" for row in rows.tolist()]
        files.write(path, "".join(lines))
    return paths


def read_curve(path: Path) -> np.ndarray:
    """A curve file, ours or as published: `[R, 2]`, or `[R, 3]` with thresholds, in the order of its rows.

    Published files vary. Some have tabs, blank lines, a fourth column (the number of faces), no
    thresholds in a discrete curve, or ascending rows. Some have the false positives before the rate: then
    the first column has values above 1, and the second has none.

    Raises:
        ValueError: the file has no rows, rows of different lengths, or something that is not a number.
    """
    rows: list[list[float]] = []
    content = files.read(path, limits.MAX_IMAGE_FILE_BYTES).decode("utf-8", "replace")
    for number, line in enumerate(content.splitlines(), 1):
        words = line.split()
        if not words:
            continue
        try:
            row = [float(word) for word in words]
        except ValueError:
            row = []
        if not 2 <= len(row) <= 4 or not all(map(math.isfinite, row)):
            raise ValueError(f"{path}:{number}: expected 2 to 4 numbers. Received: {line!r}")
        if rows and len(row) != len(rows[0]):
            raise ValueError(
                f"{path}:{number}: expected {len(rows[0])} numbers, as in the first row. "
                f"Received: {line!r}"
            )
        rows.append(row)
    if not rows:
        raise ValueError(f"{path}: expected rows of a curve. Received: none")
    curve = np.array(rows)[:, :3]
    if curve[:, 0].max() > 1 >= curve[:, 1].max():
        curve[:, :2] = curve[:, 1::-1]
    return curve


def plot(
    curves: Mapping[str, Curves],
    path: Path,
    *,
    score: Literal["discrete", "continuous"] = "discrete",
    others: Mapping[str, Path] | None = None,
    max_false_positives: float = 2000,
) -> None:
    """Draws ROC curves over those of `others`, and writes them to `path`, whose suffix gives the format.

    The legend gives the rate at the right end, best first. If the images are only a part of FDDB, the
    title says that the curves of `others`, if there are any, cannot be compared.

    Args:
        curves: the results of `evaluate` by the detectors' names; at least one.
        path: the image to write.
        score: the curve to draw.
        others: for each other detector its name and its file of the same kind of curve.
        max_false_positives: the right end of the axis; publications end at 2,000.

    Raises:
        ValueError: `score` is neither, or a file is not a curve.
        ImportError: matplotlib is not installed.
    """
    figures = optional.load("matplotlib.figure", "plots", "drawing curves")
    colormaps = optional.load("matplotlib", "plots", "drawing curves").colormaps
    if score not in ("discrete", "continuous"):
        raise ValueError(f"Expected 'discrete' or 'continuous'. Received: {score!r}")
    drawn = [(name, read_curve(file), "") for name, file in (others or {}).items()]
    for (name, own), style in zip(curves.items(), itertools.cycle(("-", "--", "-.", ":"))):
        drawn.append((name, own.discrete if score == "discrete" else own.continuous, style))
    drawn.sort(key=lambda item: -rate_at(item[1], max_false_positives))
    figure = figures.Figure(figsize=(10, max(5.5, 0.18 * len(drawn))), layout="constrained")
    axes = figure.add_subplot()
    colours = colormaps["turbo"](np.linspace(0.05, 0.95, len(drawn)))
    for (name, curve, style), colour in zip(drawn, colours, strict=True):
        axes.plot(
            curve[:, 1],
            curve[:, 0],
            label=f"{rate_at(curve, max_false_positives):.3f} {name}",
            color="black" if style else colour,
            linestyle=style or "-",
            linewidth=2.5 if style else 1,
            zorder=3 if style else 2,
        )
    first = next(iter(curves.values()))
    title = f"FDDB, {score} score, {first.num_images} images, {first.num_faces} faces"
    if others and first.num_images < NUM_IMAGES:
        title += "\nNot all of FDDB: not to be compared with the published curves"
    axes.set(
        xlim=(0, max_false_positives),
        ylim=(0, 1),
        xlabel="false positives",
        ylabel="true positive rate" if score == "discrete" else "overlap / faces",
        title=title,
    )
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    figure.savefig(path, dpi=120)
