"""WIDER FACE: average precision at IoU 0.5 on its easy, medium and hard faces.

This is the protocol of Yang et al., CVPR 2016, as the authors' MATLAB code (`wider_eval_tools`, 2015)
carries it out. Where paper and code differ, the code counts, because it made the published metrics. This
module reproduces all its unusual rules, and so every row of its curves:

* Faces of the other difficulties are ignored, and so are all faces of an image that has none of this
  difficulty. Detections of ignored faces count neither way, however many there are.
* A detection is compared with one face only, whether this face was found before or not. A second
  detection of a face is false.
* Scores are stretched to 0 to 1 over the whole set, in single precision. There are 1,000 thresholds.
* The truth is of class int32, and so is all arithmetic with it: corners of the intersection, areas
  and the *quotient* are rounded, half away from zero. IoU is 0 or 1 (2 and more for tiny boxes with
  fractions). If several faces have an IoU of at least 0.5, the first in the file is taken, not the
  best. `iou="exact"` computes in floating point and takes the best.
* Widths are x1 - x0 + 1, in both kinds of IoU.

Rows of detections are `x y w h score` `[K, 5]` in pixels of the image, images are `event/image.jpg`.
"""

from __future__ import annotations

import dataclasses
import io
import itertools
import logging
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from unitbox_tf import files, limits, optional
from unitbox_tf.evaluation import mat_files
from unitbox_tf.problems import Problems
from unitbox_tf.records import Detections

logger = logging.getLogger(__name__)

DIFFICULTIES = ("easy", "medium", "hard")
NUM_THRESHOLDS = 1000
THRESHOLDS = 1 - np.arange(1, NUM_THRESHOLDS + 1) / NUM_THRESHOLDS  # of stretched scores
IOU_THRESHOLD = 0.5
SINGLE = np.finfo(np.float32)
INT32 = np.iinfo(np.int32)
PAIRS_AT_ONCE = 2**18  # of a detection and a face: 2 MB a matrix, whatever the number of boxes
LISTED = 5  # names in a message
# No folder above, no drive, no line break: names become paths, and lines of files.
NAME = re.compile(r"(?!\.{1,2}/)[^/\\:\x00-\x1f]+/[^/\\:\x00-\x1f]+\.jpg")


@dataclasses.dataclass(frozen=True)
class GroundTruth:
    """The annotated faces.

    Attributes:
        names: `event/image.jpg`, in the official order.
        boxes: for each image all its faces, `x y w h` `[N, 4]` int32, in the order of the file.
        counted: for each difficulty and image `[N]` bool, True for faces that count; the others are ignored.
    """

    names: tuple[str, ...]
    boxes: tuple[np.ndarray, ...]
    counted: Mapping[str, tuple[np.ndarray, ...]]

    def __post_init__(self) -> None:
        if set(self.counted) != set(DIFFICULTIES):
            raise ValueError(f"Expected faces of {DIFFICULTIES}. Received: {tuple(self.counted)}")
        for what in (self.boxes, *self.counted.values()):
            if len(what) != len(self.names):
                raise ValueError(f"Expected {len(self.names)} images. Received: {len(what)}")
        for name in self.names:
            _check_name(name)
        if len(set(self.names)) < len(self.names):
            twice = next(n for n in self.names if self.names.count(n) > 1)
            raise ValueError(f"Expected each image once. Received twice: {twice}")
        for i, (name, boxes) in enumerate(zip(self.names, self.boxes, strict=True)):
            if boxes.dtype != np.int32 or boxes.shape != (len(boxes), 4):
                raise ValueError(
                    f"{name}: expected boxes [N, 4] of int32, on which the official arithmetic "
                    f"rests; received {list(boxes.shape)} of {boxes.dtype}"
                )
            for difficulty, masks in self.counted.items():
                if masks[i].dtype != np.bool_ or masks[i].shape != (len(boxes),):
                    raise ValueError(
                        f"{name}: expected a bool for each of {len(boxes)} faces ({difficulty}), "
                        f"received {list(masks[i].shape)} of {masks[i].dtype}"
                    )

    def select(self, names: Sequence[str]) -> GroundTruth:
        """Only the images `names`, in that order. Raises `ValueError` if one is not there."""
        known = {name: index for index, name in enumerate(self.names)}
        unknown = [name for name in names if name not in known]
        if unknown:
            raise ValueError(
                f"Expected images of the ground truth, such as {self.names[0]}. Received "
                f"{len(unknown)} others: {', '.join(unknown[:LISTED])}"
            )
        chosen = [known[name] for name in names]
        counted = {
            difficulty: tuple(masks[index] for index in chosen)
            for difficulty, masks in self.counted.items()
        }
        return GroundTruth(tuple(names), tuple(self.boxes[index] for index in chosen), counted)

    def num_faces(self, difficulty: str) -> int:
        """The number of faces that count."""
        return sum(int(mask.sum()) for mask in self.counted[difficulty])


@dataclasses.dataclass(frozen=True)
class Curve:
    """Precision and recall of one difficulty at falling thresholds.

    Attributes:
        precision: `[1000]`; NaN where there is no detection yet.
        recall: `[1000]`, not falling; NaN if no face counts.
        num_faces: the number of faces that count; None if a file does not say it.
    """

    precision: np.ndarray
    recall: np.ndarray
    num_faces: int | None = None

    @property
    def average_precision(self) -> float:
        """Area under the curve with monotone precision, as a sum over all steps of recall (VOCap)."""
        recall = np.concatenate([[0.0], self.recall, [1.0]])
        precision = np.concatenate([[0.0], self.precision, [0.0]])
        precision = np.fmax.accumulate(precision[::-1])[::-1]  # as MATLAB's max, it passes over NaN
        step = np.flatnonzero(recall[1:] != recall[:-1]) + 1
        return float(((recall[step] - recall[step - 1]) * precision[step]).sum())


# Truth -------------------------------------------------------------------------------------------


def read_ground_truth(folder: Path) -> GroundTruth:
    """Reads the official annotations of the validation images: `wider_face_val.mat` and a file for each difficulty.

    Args:
        folder: holds `wider_face_val.mat`, `wider_easy_val.mat`, `wider_medium_val.mat`,
            `wider_hard_val.mat`.

    Raises:
        ValueError: a file is missing or has another content. The message names the file.
    """
    path = folder / "wider_face_val.mat"
    events, files, faces = _load(path, ["event_list", "file_list", "face_bbx_list"])
    names, boxes = _names(path, events, files), _boxes(path, faces)
    if len(names) != len(boxes):
        raise ValueError(f"{path}: expected faces of {len(names)} images, received {len(boxes)}")
    counted = {}
    for difficulty in DIFFICULTIES:
        other = folder / f"wider_{difficulty}_val.mat"
        # The original takes names and faces from each file anew.
        events, files, faces, listed = _load(
            other, ["event_list", "file_list", "face_bbx_list", "gt_list"]
        )
        if _names(other, events, files) != names:
            raise ValueError(f"{other}: expected the images of {path.name}, received others")
        same = [np.array_equal(a, b) for a, b in zip(_boxes(other, faces), boxes, strict=False)]
        if len(same) != len(boxes) or not all(same):
            raise ValueError(f"{other}: expected the faces of {path.name}, received others")
        counted[difficulty] = _masks(other, listed, names, boxes)
    try:
        return GroundTruth(names, boxes, counted)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _load(path: Path, variables: Sequence[str]) -> list[np.ndarray]:
    """Variables of a .mat file, all of which must be cell arrays."""
    if not os.path.lexists(path):
        raise ValueError(f"{path}: expected a .mat file, found none")
    content = mat_files.load(path, variables)
    for name in variables:
        if name not in content:
            raise ValueError(f"{path}: expected a variable {name}, found none")
        if not _is_cell(content[name]):
            raise ValueError(f"{path}: expected {name} to be a cell array of events")
    return [content[name].ravel() for name in variables]


def _is_cell(value: object) -> bool:
    """True if it is a cell array with one row or one column."""
    if not isinstance(value, np.ndarray) or value.dtype != object:
        return False
    return value.size == max(value.shape, default=0)


def _by_image(path: Path, events: np.ndarray, name: str) -> Iterator[tuple[int, Any]]:
    """The number of the event and the content of each cell of a cell array of cell arrays."""
    for event, images in enumerate(events):
        if not _is_cell(images) and np.size(images):
            raise ValueError(f"{path}: expected {name}{{{event + 1}}} to be a cell array of images")
        for image in np.ravel(images):
            yield event, image


def _names(path: Path, events: np.ndarray, files: np.ndarray) -> tuple[str, ...]:
    if len(events) != len(files):
        raise ValueError(f"{path}: expected {len(events)} events in file_list, found {len(files)}")

    def text(value: Any) -> str:
        if isinstance(value, np.ndarray) and value.dtype.kind == "U" and value.size == 1:
            return str(value.item())
        raise ValueError(f"{path}: expected the name of an event or image, received {value!r}")

    pairs = _by_image(path, files, "file_list")
    names = tuple(f"{text(events[event])}/{text(image)}.jpg" for event, image in pairs)
    if not names:
        raise ValueError(f"{path}: expected images in file_list, found none")
    for name in names:
        _check_name(name, f"{path}: ")
    return names


def _boxes(path: Path, faces: np.ndarray) -> tuple[np.ndarray, ...]:
    boxes = []
    for _, value in _by_image(path, faces, "face_bbx_list"):
        if not isinstance(value, np.ndarray) or value.dtype != np.int32:
            kind = getattr(value, "dtype", type(value).__name__)
            raise ValueError(f"{path}: expected face_bbx_list to hold int32, received {kind}")
        if value.size and (value.ndim != 2 or value.shape[1] != 4):
            raise ValueError(f"{path}: expected faces as N x 4, received {list(value.shape)}")
        boxes.append(np.ascontiguousarray(value).reshape(-1, 4))
    return tuple(boxes)


def _masks(
    path: Path, listed: np.ndarray, names: Sequence[str], boxes: Sequence[np.ndarray]
) -> tuple[np.ndarray, ...]:
    indices = [value for _, value in _by_image(path, listed, "gt_list")]
    if len(indices) != len(boxes):
        raise ValueError(f"{path}: expected {len(boxes)} images in gt_list, found {len(indices)}")
    masks = []
    for name, value, faces in zip(names, indices, boxes, strict=True):
        mask = np.zeros(len(faces), bool)
        numbers = np.ravel(value)
        if numbers.size:
            valid = numbers.dtype.kind in "uif" and np.isin(numbers, np.arange(1, len(faces) + 1))
            # A repeated index would count a face twice in the denominator.
            if not np.all(valid) or len(np.unique(numbers)) < len(numbers):
                raise ValueError(
                    f"{path}: {name}: expected different faces from 1 to {len(faces)} in gt_list, "
                    f"received {numbers.tolist()}"
                )
            mask[numbers.astype(int) - 1] = True
        masks.append(mask)
    return tuple(masks)


# Results -----------------------------------------------------------------------------------------


def detections_to_rows(detections: Detections) -> np.ndarray:
    """`x y w h score` `[K, 5]` float64, in pixels of the image."""
    boxes = detections.boxes.astype(np.float64)
    return np.concatenate(
        [boxes[:, :2], boxes[:, 2:] - boxes[:, :2], detections.scores[:, None]], axis=1
    )


def read_detections(
    folder: Path, names: Iterable[str], *, problems: Problems | None = None
) -> dict[str, np.ndarray]:
    """Reads results in the official layout: a file `<event>/<image>.txt` for each image.

    Line 1 is a name, and line 2 the number of detections. Then each detection has a line: `x y w h score`.
    The order is free. Like the original, this function ignores line 1, numbers after the fifth, and lines
    after the last detection. An image has no detections if its file is missing, malformed or ends early.
    All this is reported to `problems`, and so are files that belong to no image. Unlike in the original,
    numbers that are not finite in single precision make a file malformed.

    Args:
        folder: holds a folder for each event.
        names: the images, `GroundTruth.names`.
        problems: everything that is left out is added here.

    Returns:
        Rows `[K, 5]` float64 for each image with a usable file.

    Raises:
        ValueError: there is no result file at all, so `folder` must be the wrong one.
    """
    problems = Problems.of(problems)
    listed = {_result_file(name): name for name in names}
    root = folder.resolve()
    found: dict[str, np.ndarray] = {}
    any_there = False
    for file, name in listed.items():
        path = folder / file
        if not path.is_file():
            problems.add("no result file", str(path), f"{name} has no detections")
            continue
        any_there = True
        if not path.resolve().is_relative_to(root):
            problems.add("path outside the results", str(path), f"it is not below {folder}")
            continue
        rows = _read_rows(path, problems)
        if rows is not None:
            found[name] = rows
    if not any_there:
        raise ValueError(
            f"{folder}: expected result files such as {next(iter(listed), '<event>/<image>.txt')}, "
            "found none"
        )
    for path in sorted(folder.glob("*/*.txt")):
        if path.relative_to(folder).as_posix() not in listed:
            problems.add("result file of no image", str(path), "the ground truth has no such image")
    return found


def _read_rows(path: Path, problems: Problems) -> np.ndarray | None:
    """Rows `[K, 5]` of one file; None, and a problem, if the original finds its format invalid."""
    kind = "malformed result file"
    try:
        raw = files.read(path, limits.MAX_IMAGE_FILE_BYTES)
        with io.TextIOWrapper(io.BytesIO(raw), encoding="utf-8", errors="replace") as file:
            # MATLAB's textscan skips blank lines.
            lines = ((n, line.strip()) for n, line in enumerate(file, 1) if line.strip())
            _, title = next(lines, (1, ""))
            line, text = next(lines, (2, ""))
            count = _numbers(text)
            if count is None or len(count) != 1 or not count[0].is_integer() or count[0] < 0:
                message = f"expected the number of detections, received {text[:80]!r}"
                problems.add(kind, f"{path}:{line}", message)
                return None
            rows = []
            # The count may be any number; the file bounds the memory.
            for line, text in itertools.islice(lines, min(int(count[0]), 2**62)):
                row = _numbers(text)
                if row is None or len(row) < 5:
                    message = f"expected x y w h score, finite numbers, received {text[:80]!r}"
                    problems.add(kind, f"{path}:{line}", message)
                    return None
                if min(row[2:4]) < 0:
                    message = f"expected a width and height of at least 0: {text[:80]!r} is kept"
                    problems.add("negative size", f"{path}:{line}", message)
                rows.append(row[:5])
            if len(rows) < count[0]:
                message = f"expected {count[0]:.0f} detections, the file ends after {len(rows)}"
                problems.add(kind, f"{path}:{line}", message)
                return None
            line, text = next(lines, (0, ""))
            if line:
                message = f"expected the end after {len(rows)} detections, received {text[:80]!r}"
                problems.add("lines after the last detection", f"{path}:{line}", message)
    except (OSError, limits.TooLarge) as error:
        problems.add("result file cannot be read", str(path), str(error))
        return None
    # Other tools write the image with or without event and suffix.
    if re.split(r"[/\\]", title)[-1].removesuffix(".jpg") != path.stem:
        message = f"expected the name of the image {path.stem}, received {title[:80]!r}"
        problems.add("result file with another name inside", f"{path}:1", message)
    return np.array(rows, np.float64).reshape(-1, 5)


def _numbers(text: str) -> list[float] | None:
    """The numbers of a line between blanks or commas; None unless all are numbers and the first five are finite."""
    if not text.isascii() or "_" in text:  # which Python's float accepts
        return None
    try:
        values = [float(word) for word in text.replace(",", " ").split()]
    except ValueError:
        return None
    return values if all(abs(value) <= SINGLE.max for value in values[:5]) else None


def write_detections(detections: Mapping[str, np.ndarray], folder: Path) -> None:
    """Writes the official layout, a file for each image. Reading it gives the same numbers, bit by bit.

    Args:
        detections: rows `x y w h score` `[K, 5]` by image `event/image.jpg`. Give images without
            detections an empty array, or they have no file.
        folder: absent or empty, so that results of two runs are not mixed. It appears when it is complete.

    Raises:
        ValueError: `folder` has files, or a name or rows have another form.
    """
    folder = folder.absolute()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder}: expected an empty folder, or none")
    rows = {_result_file(name): _rows(name, value) for name, value in detections.items()}
    with files.replacing(folder) as partial:
        partial.mkdir()
        for file, values in rows.items():
            path = partial / file
            path.parent.mkdir(exist_ok=True)
            lines = [path.stem, str(len(values)), *(" ".join(map(_text, v)) for v in values)]
            path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        if folder.exists():
            folder.rmdir()  # fails if it is not empty any more


def _text(value: float) -> str:
    """The shortest digits that read as the same number."""
    return repr(float(value)).removesuffix(".0")


def _check_name(name: str, where: str = "") -> None:
    if not NAME.fullmatch(name):
        raise ValueError(f"{where}expected an image as event/image.jpg, received {name!r}")


def _result_file(name: str) -> str:
    _check_name(name)
    return f"{name.removesuffix('.jpg')}.txt"


def _rows(name: str, value: np.ndarray) -> np.ndarray:
    """`[K, 5]` float64, or a `ValueError`."""
    rows = np.asarray(value, np.float64)
    if not rows.size:
        return np.zeros((0, 5))
    if rows.ndim != 2 or rows.shape[1] != 5:
        raise ValueError(f"{name}: expected x y w h score [K, 5], received {list(rows.shape)}")
    bad = np.flatnonzero(~(np.abs(rows) <= SINGLE.max).all(axis=1))
    if len(bad):
        raise ValueError(
            f"{name}: expected finite numbers, received {rows[bad[0]].tolist()} in row {bad[0]}"
        )
    return rows


# Evaluation --------------------------------------------------------------------------------------


def evaluate(
    detections: Mapping[str, np.ndarray],
    truth: GroundTruth,
    iou: Literal["official", "exact"] = "official",
) -> dict[str, Curve]:
    """The curves of one detector.

    Args:
        detections: rows `x y w h score` `[K, 5]` by image, in any order and with scores of any scale. An
            absent image has no detections, but its faces count.
        truth: the faces.
        iou: "official" rounds as the original does. "exact" computes in floating point, and takes the best
            face, not the first.

    Returns:
        A curve for "easy", "medium" and "hard". If all scores are the same positive number, stretching
        gives 0/0. Then nothing is found, as in the original, and average precision is 0.

    Raises:
        ValueError: detections of an image that `truth` does not have, or rows of another shape, or
            numbers that are not finite in single precision.
    """
    if iou not in ("official", "exact"):
        raise ValueError(f"Expected iou to be 'official' or 'exact'. Received: {iou!r}")
    unknown = sorted(set(detections) - set(truth.names))
    if unknown:
        raise ValueError(
            f"Expected detections of the {len(truth.names)} images of the ground truth, such as "
            f"{truth.names[0]}. Received {len(unknown)} others: {', '.join(unknown[:LISTED])}"
        )
    scores = [np.zeros(0)]
    proposals, hits = ([np.zeros((len(DIFFICULTIES), 0), bool)] for _ in range(2))
    for i, name in enumerate(truth.names):
        rows = _rows(name, detections.get(name, np.zeros((0, 5))))
        rows = rows[np.argsort(-rows[:, 4], kind="stable")]
        counted = np.stack([truth.counted[difficulty][i] for difficulty in DIFFICULTIES])
        proposed, hit = _match_image(rows[:, :4], truth.boxes[i], counted, iou)
        scores.append(rows[:, 4])
        proposals.append(proposed)
        hits.append(hit)
    stretched = _stretch(np.concatenate(scores))
    order = np.argsort(-stretched, kind="stable")
    # In each image, scores fall with the rows. So "up to the last row with at least this score" means
    # "all rows with at least this score", and the sum over images needs no loop over images.
    taken = np.searchsorted(-stretched[order], -THRESHOLDS, side="right")
    num_proposals, num_hits = (
        np.concatenate([np.zeros((len(DIFFICULTIES), 1), int), flags.cumsum(axis=1)], axis=1)
        for flags in (np.concatenate(x, axis=1)[:, order] for x in (proposals, hits))
    )
    curves = {}
    for i, difficulty in enumerate(DIFFICULTIES):
        num_faces = truth.num_faces(difficulty)
        found = num_hits[i, taken]
        with np.errstate(invalid="ignore"):
            precision, recall = found / num_proposals[i, taken], found / np.float64(num_faces)
        curves[difficulty] = Curve(precision, recall, num_faces)
    return curves


def _match_image(
    found: np.ndarray, faces: np.ndarray, counted: np.ndarray, iou: str
) -> tuple[np.ndarray, np.ndarray]:
    """Two masks `[D, K]`: detections that count as proposals, and detections that are the first to find a counted face.

    Args:
        found: `x y w h` `[K, 4]`, best first.
        faces: `[N, 4]` int32.
        counted: for each difficulty `[D, N]`.
        iou: as in `evaluate`.
    """
    if not len(faces):  # an image without any face, which WIDER FACE does not have, takes no part
        return (np.zeros((len(counted), len(found)), bool),) * 2
    best, overlap = _best_faces(found, faces, iou)
    counts = counted[:, best]  # [D, K]
    matched = overlap >= IOU_THRESHOLD
    index = np.flatnonzero(matched)
    first = np.zeros(len(found), bool)
    first[index[np.unique(best[index], return_index=True)[1]]] = True
    return ~matched | counts, first & counts


def _best_faces(found: np.ndarray, faces: np.ndarray, iou: str) -> tuple[np.ndarray, np.ndarray]:
    """For each detection the face with the largest overlap (the first of several), and this overlap: `[K]`."""
    best, overlap = np.zeros(len(found), int), np.zeros(len(found))
    step = max(1, PAIRS_AT_ONCE // len(faces))
    for start in range(0, len(found), step):
        part = slice(start, start + step)
        overlaps = (_int32_overlaps if iou == "official" else _overlaps)(found[part], faces)
        best[part] = overlaps.argmax(axis=1)
        overlap[part] = overlaps.max(axis=1)
    return best, overlap


def _overlaps(found: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """IoU `[K, N]`. A box from 0 to 9 has the width 10."""
    x, y, w, h = found.T[:, :, None]  # [K, 1]
    face_x, face_y, face_w, face_h = faces.astype(np.float64).T
    common_w = np.minimum(x + w, face_x + face_w) - np.maximum(x, face_x) + 1
    common_h = np.minimum(y + h, face_y + face_h) - np.maximum(y, face_y) + 1
    common = common_w * common_h
    union = (face_w + 1) * (face_h + 1) + (w + 1) * (h + 1) - common
    # Where they have pixels in common, both areas are positive and the union is at least as large.
    return np.divide(
        common, union, out=np.zeros_like(common), where=(common_w > 0) & (common_h > 0)
    )


def _int32_overlaps(found: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """IoU `[K, N]` in the arithmetic of MATLAB's int32: each result is rounded, and cut to the range of int32.

    Float64 holds every sum and quotient of two int32 well enough to round it correctly. It also holds
    every product that is not cut.
    """
    x0, y0, w, h = found.T[:, :, None]  # [K, 1]
    x1, y1 = x0 + w, y0 + h
    area = (x1 - x0 + 1) * (y1 - y0 + 1)  # of class double, which is not rounded
    face_x0, face_y0, face_w, face_h = faces.astype(np.float64).T
    face_x1, face_y1 = _int32(face_x0 + face_w), _int32(face_y0 + face_h)
    face_area = _int32(_size(face_x0, face_x1) * _size(face_y0, face_y1))
    # Rounding after the maximum gives the same, and [K] has fewer numbers than [K, N].
    common_w = _size(np.maximum(face_x0, _int32(x0)), np.minimum(face_x1, _int32(x1)))
    common_h = _size(np.maximum(face_y0, _int32(y0)), np.minimum(face_y1, _int32(y1)))
    common = _int32(common_w * common_h)
    union = _int32(_int32(face_area + area) - common)
    with np.errstate(divide="ignore", invalid="ignore"):  # a union of 0 gives the largest int32
        quotient = _int32(common / union)
    return np.where((common_w > 0) & (common_h > 0), quotient, 0.0)


def _size(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    return _int32(_int32(high - low) + 1)


def _int32(values: np.ndarray) -> np.ndarray:
    """Rounds to integers, half away from zero, within the range of int32. The type stays float64."""
    whole = np.trunc(values)
    # floor(x + 0.5) would round the number just below 0.5 to 1.
    rounded = whole + np.copysign(np.abs(values - whole) >= 0.5, values)
    return np.clip(rounded, INT32.min, INT32.max)


def _stretch(scores: np.ndarray) -> np.ndarray:
    """Scores from 0 (the lowest) to 1 (the highest), computed in single precision, as float64."""
    single = scores.astype(np.float32)
    # The original starts its search here, so the highest score is above 0 in any case.
    lowest = single.min(initial=SINGLE.max)
    highest = single.max(initial=SINGLE.tiny)
    if len(scores) and highest == lowest:
        logger.warning("All scores are %g: the official stretching makes NaN of them", highest)
    with np.errstate(invalid="ignore", over="ignore"):
        spread = highest - lowest
        if np.isinf(spread):
            raise ValueError(
                f"Expected scores that span at most {SINGLE.max:g}. Received: {lowest:g} to {highest:g}"
            )
        return ((single - lowest) / spread).astype(np.float64)


# Curves ------------------------------------------------------------------------------------------


def save_curves(curves: Mapping[str, Curve], folder: Path, name: str) -> None:
    """Writes `wider_pr_info_<name>_<difficulty>_val.txt` for each: rows `precision recall`, 17 digits.

    Args:
        curves: the curves by difficulty.
        folder: made if absent. Older files are replaced.
        name: the detector's name.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for difficulty, curve in curves.items():
        rows = zip(curve.precision.tolist(), curve.recall.tolist(), strict=True)
        text = "".join(" ".join(_digits(value) for value in row) + "\n" for row in rows)
        path = folder / f"wider_pr_info_{name}_{difficulty}_val.txt"
        files.write(path, text)


def _digits(value: float) -> str:
    return "NaN" if math.isnan(value) else f"{value:.17g}"


def read_curves(folder: Path) -> dict[str, Curve]:
    """Reads the curves of one detector: a file `wider_pr_info_<name>_<difficulty>_val` for each difficulty.

    A file is `.txt` as `save_curves` writes it, or `.mat` as the original writes it (`pr_cruve`
    `[1000, 2]`, in version 7.3, which the original asks for, or older).

    Raises:
        ValueError: a difficulty has no file or several, or a file is no curve. The message names it.
    """
    curves = {}
    for difficulty in DIFFICULTIES:
        pattern = f"wider_pr_info_*_{difficulty}_val"
        paths = [path for suffix in ("txt", "mat") for path in folder.glob(f"{pattern}.{suffix}")]
        if len(paths) != 1:
            found = ", ".join(sorted(path.name for path in paths)) or "none"
            raise ValueError(f"{folder}: expected one file {pattern}.txt or .mat, found {found}")
        values = _read_curve(paths[0])
        if values.ndim != 2 or values.shape[1] != 2 or not len(values):
            shape = list(values.shape)
            raise ValueError(f"{paths[0]}: expected rows of precision and recall, received {shape}")
        finite = values[~np.isnan(values)]
        if ((finite < 0) | (finite > 1)).any():
            raise ValueError(f"{paths[0]}: expected precision and recall from 0 to 1")
        curves[difficulty] = Curve(values[:, 0], values[:, 1])
    return curves


def _read_curve(path: Path) -> np.ndarray:
    try:
        if path.suffix == ".txt":
            text = files.read(path, limits.MAX_IMAGE_FILE_BYTES).decode("utf-8", "replace")
            if not text.strip():
                raise ValueError("received an empty file")
            return np.loadtxt(io.StringIO(text), ndmin=2)
        return mat_files.load_curve(path)
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: expected a precision-recall curve, {error}") from error


def plot(
    curves: Mapping[str, Curve],
    path: Path,
    name: str = "ours",
    others: Mapping[str, Mapping[str, Curve]] | None = None,
) -> None:
    """Draws precision over recall, in a panel for each difficulty, with the best detector first in the legend.

    As in the original's plot, average precision is cut, not rounded, to three decimals.

    Args:
        curves: the curves by difficulty.
        path: the image file to write. Its suffix gives the format.
        name: the detector's name.
        others: curves of other detectors (`read_curves`), by name.

    Raises:
        ImportError: matplotlib is not installed.
    """
    figures = optional.load("matplotlib.figure", "plots", "drawing curves")
    others = {label: other for label, other in (others or {}).items() if label != name}
    # A detector has the same colour in all panels, but not the same place in the legends.
    colors = {label: f"C{i}" for i, label in enumerate(others)} | {name: "black"}
    figure = figures.Figure(figsize=(5.5 * len(curves), 4.5), layout="constrained")
    panels = figure.subplots(1, len(curves), squeeze=False, sharey=True)[0]
    for axes, (difficulty, own) in zip(panels, curves.items(), strict=True):
        drawn = {name: own} | {label: other[difficulty] for label, other in others.items()}
        for label, curve in sorted(drawn.items(), key=lambda item: -item[1].average_precision):
            axes.plot(
                curve.recall,
                curve.precision,
                label=f"{label} {f'{curve.average_precision:.9f}'[:5]}",
                color=colors[label],
                linewidth=2.5 if label == name else 1.5,
                zorder=3 if label == name else 2,
            )
        faces = "" if own.num_faces is None else f", {own.num_faces:,} faces"
        axes.set(title=f"{difficulty}{faces}", xlabel="recall", xlim=(0, 1), ylim=(0, 1))
        axes.grid(alpha=0.3)
        axes.legend(loc="lower left", fontsize="small")
    panels[0].set_ylabel("precision")
    figure.savefig(path, dpi=120)
