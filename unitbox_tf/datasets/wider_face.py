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
    lines = listing.read_text(encoding="utf-8", errors="replace").splitlines()
    at = 0
    while at < len(lines):
        name, where = lines[at].strip(), f"{listing}:{at + 1}"
        at += 1
        if not name:
            continue
        listed = checks.listed_lines(lines, at, listing, problems)
        if listed is None:  # the photo's faces are unknown: go on to the next name
            while at < len(lines) and not lines[at].rstrip().endswith(".jpg"):
                at += 1
            continue
        boxes, ignore = [], []
        for number in listed:
            values = checks.numbers(lines[number], [4, 10], f"{listing}:{number + 1}", problems)
            if values is None:
                continue
            x, y, width, height = values[:4]
            box = (x, y, x + width, y + height)
            if checks.has_area(box, f"{listing}:{number + 1}", problems):
                boxes.append(box)
                ignore.append(len(values) > INVALID and values[INVALID] == 1)
        at = listed.stop
        if not listed and at < len(lines) and set(lines[at].split()) <= {"0"}:
            at += 1  # the dummy line of a photo without a face
        photo = photos / name
        if checks.is_there(photo, photos, where, problems):
            yield Annotation(name, photo, np.array(boxes), ignore=np.array(ignore))
