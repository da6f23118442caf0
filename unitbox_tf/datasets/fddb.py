"""FDDB, the Face Detection Data Set and Benchmark (Jain and Learned-Miller, 2010).

    FDDB-folds/FDDB-fold-01-ellipseList.txt ... FDDB-fold-10-ellipseList.txt
    originalPics/2002/08/11/big/img_591.jpg ...

An ellipse list repeats: a photo's name without its suffix, the number of its faces, and a line a
face: half axis a, half axis b, angle of a in radians, centre x, centre y, 1. A face's box is the
tight box around its ellipse.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from unitbox_tf import boxes as box_ops
from unitbox_tf.datasets import checks
from unitbox_tf.records import Annotation, Problems

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
            chosen.extend(range(int(first), int(last if dash else first) + 1))
        except ValueError:
            chosen.append(0)
    if not chosen or not set(chosen) <= set(range(1, NUM_FOLDS + 1)):
        raise ValueError(
            f"Expected FDDB folds like '8', '1-7' or '1-3,8', from 1 to 10. Received: {split!r}"
        )
    return chosen


def read(root: Path, split: str, problems: Problems) -> Iterator[Annotation]:
    """The photos of the chosen `folds` that are present below `root`."""
    for fold in folds(split):
        path = root / "FDDB-folds" / f"FDDB-fold-{fold:02d}-ellipseList.txt"
        if not path.is_file():
            problems.add("fold listed but absent", str(path), "no such file")
            continue
        yield from _read_fold(path, root / "originalPics", problems)


def _read_fold(path: Path, photos: Path, problems: Problems) -> Iterator[Annotation]:
    for name, where, rows in checks.listed_photos(path, lambda line: "/" in line, problems):
        boxes = []
        for row_where, row in rows:
            values = checks.numbers(row, [5, 6], row_where, problems)
            if values is not None:
                box = box_ops.ellipses_to_boxes(np.array([values[:5]]))[0]
                if checks.has_area(box, row_where, problems):
                    boxes.append(box)
        photo = photos / f"{name}.jpg"
        if checks.is_there(photo, photos, where, problems):
            yield Annotation(name, photo, np.array(boxes))
