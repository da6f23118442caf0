"""FDDB, the Face Detection Data Set and Benchmark (Jain and Learned-Miller, 2010).

    FDDB-folds/FDDB-fold-01-ellipseList.txt ... FDDB-fold-10-ellipseList.txt
    originalPics/2002/08/11/big/img_591.jpg ...

An ellipse list has these lines for each image: its name without suffix, the number of its faces, and
one line for each face: half axis a, half axis b, angle of a in radians, centre x, centre y, 1. The
box of a face is the tight box around its ellipse.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from unitbox_tf import boxes as box_ops
from unitbox_tf.datasets import checks, lists, writing
from unitbox_tf.datasets.base import DataSet, Format
from unitbox_tf.problems import Problems
from unitbox_tf.records import Annotation

NUM_FOLDS = 10


def folds(split: str) -> list[int]:
    """The folds that `split` names: `""` all ten, `"8"` one, `"1-7"` or `"1-3,8"` several.

    Raises `ValueError` for anything else.
    """
    if not split:
        return list(range(1, NUM_FOLDS + 1))
    chosen: list[int] = []
    for part in split.split(","):
        first, dash, last = part.partition("-")
        try:
            ends = int(first), int(last if dash else first)
        except ValueError:
            ends = 0, 0
        chosen.extend(range(ends[0], ends[1] + 1) if max(map(abs, ends)) <= NUM_FOLDS else [0])
    if not chosen or not set(chosen) <= set(range(1, NUM_FOLDS + 1)):
        raise ValueError(
            f"Expected FDDB folds like '8', '1-7' or '1-3,8', from 1 to 10. Received: {split!r}"
        )
    return chosen


class Fddb(DataSet):
    """The folds that the split names; see `folds`."""

    usual_class = "face"

    def __init__(self, root: Path, split: str) -> None:
        """Raises `ValueError` if the split names no folds."""
        self._root, self._folds = root, folds(split)

    def annotations(
        self, *, photos: bool = True, problems: Problems | None = None
    ) -> Iterator[Annotation]:
        """The images of the folds, fold by fold."""
        problems = Problems.of(problems)
        found = checks.Photos(self._root / "originalPics", needed=photos, problems=problems)
        listed: list[tuple[Path, lists.Listed]] = []
        for fold in self._folds:
            path = self._root / "FDDB-folds" / f"FDDB-fold-{fold:02d}-ellipseList.txt"
            if path.is_file():
                listed += [
                    (path, one) for one in lists.listed_photos(path, _is_name, problems=problems)
                ]
            else:
                problems.add("fold listed but absent", str(path), "no such regular file")
        yield from lists.read(listed, found, found.name_of, _annotation, problems)


def _is_name(line: str) -> bool:
    return "/" in line


def _annotation(
    path: Path, listed: lists.Listed, photo: Path, problems: Problems
) -> Annotation | None:
    """The image `photo`; None, after a report, if one of its objects cannot be read."""
    read = lists.objects(path, listed, [5, 6], problems=problems)
    if read is None:
        return None
    ellipses, places = read[0][:, :5], read[1]
    boxes = box_ops.ellipses_to_boxes(ellipses)
    flat = (ellipses[:, :2] <= 0).any(axis=1)
    boxes[flat] = np.tile(ellipses[flat, 3:], 2)
    none = np.zeros(len(boxes), bool)
    ignore = checks.ignored(boxes, none, places, None, problems=problems)
    return Annotation(listed.name, photo, boxes, ignore=ignore, ellipses=ellipses)


def write(
    annotations: Iterable[Annotation],
    root: Path,
    split: str,
    class_names: Sequence[str],
    *,
    photos: writing.PhotosAs = "copy",
    problems: Problems | None = None,
) -> writing.Written:
    """Writes `annotations` as the folds that `split` names, the same number of images to each, in order.

    An object without an ellipse gets the ellipse inscribed in its box. The lists of names that FDDB's
    own evaluator reads are written as well.
    """
    chosen = sorted(set(folds(split)))
    holds = ("ellipses",)
    with writing.destination(
        root, class_names, holds=holds, photos=photos, problems=problems
    ) as out:
        names, entries = [], []
        for annotation in map(out.held, annotations):
            file = out.photo(annotation, "originalPics", by_stem=True)
            if file is None:
                continue
            ellipses = annotation.ellipses
            if ellipses is None:
                ellipses = box_ops.boxes_to_ellipses(annotation.boxes)
            name = os.path.splitext(file)[0]
            rows = [" ".join(f"{value:.6f}" for value in row) + "  1\n" for row in ellipses]
            out.count(annotation)
            names.append(name)
            entries.append(f"{name}\n{len(rows)}\n{''.join(rows)}")
        parts = np.array_split(np.arange(len(names)), len(chosen))
        for fold, part in zip(chosen, parts, strict=True):
            stem = f"FDDB-folds/FDDB-fold-{fold:02d}"
            out.write(f"{stem}.txt", "".join(f"{names[i]}\n" for i in part))
            out.write(f"{stem}-ellipseList.txt", "".join(entries[i] for i in part))
    return out.written


FORMAT = Format(Fddb, write)
