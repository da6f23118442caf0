"""WIDER FACE (Yang et al., CVPR 2016), in the folders that its authors publish.

    wider_face_split/wider_face_val_bbx_gt.txt   (or the file beside the image folders)
    WIDER_val/images/0--Parade/0_Parade_Parade_0_266.jpg ...

The list repeats: a photo's path, the number of its faces, and a line a face: `x y w h`, then six
attributes (blur, expression, illumination, invalid, occlusion, pose) which some copies lack. A
photo without a face has the count 0 and one line of zeros.
Faces marked invalid are too small or unclear to judge: they are kept and ignored.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from unitbox_tf.datasets import checks
from unitbox_tf.records import Annotation, Problems

INVALID = 7  # index of that attribute in a line


def read(root: Path, split: str, problems: Problems) -> Iterator[Annotation]:
    """The photos of `split` (`train` or `val`, the default) that are present below `root`."""
    split = split or "val"
    name = f"wider_face_{split}_bbx_gt.txt"
    candidates = [root / "wider_face_split" / name, root / name]
    listing = next((path for path in candidates if path.is_file()), None)
    if listing is None:
        raise ValueError(
            f"{root}: expected the list of faces as {' or '.join(map(str, candidates))}"
        )
    photos = root / f"WIDER_{split}" / "images"
    for name, where, rows in checks.listed_photos(
        listing, lambda line: line.endswith(".jpg"), problems
    ):
        boxes, ignore = [], []
        for row_where, row in rows:
            values = checks.numbers(row, [4, 10], row_where, problems)
            if values is None:
                continue
            x, y, width, height = values[:4]
            box = (x, y, x + width, y + height)
            if checks.has_area(box, row_where, problems):
                boxes.append(box)
                ignore.append(len(values) > INVALID and values[INVALID] == 1)
        photo = photos / name
        if checks.is_there(photo, photos, where, problems):
            yield Annotation(name, photo, np.array(boxes), ignore=np.array(ignore))
