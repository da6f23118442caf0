"""WIDER FACE (Yang et al., CVPR 2016), in the folders that its authors publish.

    wider_face_split/wider_face_val_bbx_gt.txt   (or the file beside the image folders)
    WIDER_val/images/0--Parade/0_Parade_Parade_0_266.jpg ...

The list has these lines for each image: its path, the number of its faces, and one line for each face.
The line of a face is `x y w h` and six attributes, which some copies of the list lack. An image without
a face has the number 0 and one line of zeros. Faces marked invalid are too small or unclear to judge:
they are kept and ignored.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from unitbox_tf import images
from unitbox_tf.datasets import checks, lists, writing
from unitbox_tf.datasets.base import DataSet, Format
from unitbox_tf.problems import Problems
from unitbox_tf.records import Annotation

ATTRIBUTES = ("blur", "expression", "illumination", "invalid", "occlusion", "pose")
INVALID = ATTRIBUTES.index("invalid")
NO_FACE = "0 " * 10  # the list's line for an image without a face


class WiderFace(DataSet):
    """The list of a split: `train`, or `val` (the default)."""

    usual_class = "face"

    def __init__(self, root: Path, split: str) -> None:
        """Raises `ValueError` if there is no list."""
        split = split or "val"
        name = f"wider_face_{split}_bbx_gt.txt"
        candidates = [root / "wider_face_split" / name, root / name]
        path = next((path for path in candidates if path.is_file()), None)
        if path is None:
            lists = [*root.glob("wider_face_split/*_bbx_gt.txt"), *root.glob("*_bbx_gt.txt")]
            known = sorted({one.name[len("wider_face_") : -len("_bbx_gt.txt")] for one in lists})
            raise ValueError(
                f"{root}: expected the list of faces as {' or '.join(map(str, candidates))}. "
                + checks.known_splits(split, known)
            )
        self._path, self._photos = path, root / f"WIDER_{split}" / "images"

    def annotations(
        self, *, photos: bool = True, problems: Problems | None = None
    ) -> Iterator[Annotation]:
        """The images in the order of the list."""
        problems = Problems.of(problems)
        found = checks.Photos(self._photos, needed=photos, problems=problems)
        listed = lists.listed_photos(self._path, _is_name, problems=problems)
        pairs = [(self._path, one) for one in listed]
        yield from lists.read(pairs, found, str, _annotation, problems)


def _is_name(line: str) -> bool:
    return line.lower().endswith(tuple(images.IMAGE_SUFFIXES))


def _annotation(
    path: Path, listed: lists.Listed, photo: Path, problems: Problems
) -> Annotation | None:
    """The image `photo`; None, after a report, if one of its objects cannot be read."""
    read = lists.objects(path, listed, [4, 10], problems=problems)
    if read is None:
        return None
    table, places = read
    boxes, facts = table[:, :4], table[:, 4:]
    known = ~np.isnan(facts[:, 0])
    attributes = None
    if known.any():
        facts = np.where(known[:, None], facts, 0.0)
        usable = ((facts == np.floor(facts)) & (np.abs(facts) < 2**31)).all(axis=1)
        for index in np.flatnonzero(~usable).tolist():
            message = f"expected attributes that are whole numbers, received {facts[index]}"
            checks.unreadable(problems, places[index], message)
        if not usable.all():
            return None
        if known.all():
            attributes = dict(zip(ATTRIBUTES, facts.T, strict=True))
        else:
            message = "only some faces have attributes: only 'invalid' is used"
            problems.add("attributes incomplete", f"{path}:{listed.line}", message)
    ignore = facts[:, INVALID] == 1  # never of NaN
    boxes[:, 2:] += boxes[:, :2]
    ignored = checks.ignored(boxes, ignore, places, None, problems=problems)
    return Annotation(listed.name, photo, boxes, ignore=ignored, attributes=attributes)


def write(
    annotations: Iterable[Annotation],
    root: Path,
    split: str,
    class_names: Sequence[str],
    *,
    photos: writing.PhotosAs = "copy",
    problems: Problems | None = None,
) -> writing.Written:
    """Writes `annotations` as the list and the images of `split` (`val` if empty).

    Ignored objects are written as invalid. Unknown attributes are written as 0, since the official list
    has no way to leave them out.
    """
    split = writing.usable_split(split or "val")
    holds = ("ignore", *ATTRIBUTES)
    entries = []
    with writing.destination(
        root, class_names, holds=holds, photos=photos, problems=problems
    ) as out:
        for annotation in map(out.held, annotations):
            name = out.photo(annotation, f"WIDER_{split}/images")
            if name is not None:
                out.count(annotation)
                rows = _rows(annotation)
                entries.append("\n".join([name, str(len(rows)), *(rows or [NO_FACE]), ""]))
        out.write(f"wider_face_split/wider_face_{split}_bbx_gt.txt", "".join(entries))
    return out.written


def _rows(annotation: Annotation) -> list[str]:
    boxes = annotation.boxes
    sizes = boxes[:, 2:] - boxes[:, :2]
    known = annotation.attributes or {}
    columns = {name: known.get(name, np.zeros(len(boxes), int)) for name in ATTRIBUTES}
    # The official list has faces without area that are not marked invalid: they are ignored anyway.
    if "invalid" in known:
        flat = (sizes <= 0).any(axis=1)
        columns["invalid"] = np.where(flat, columns["invalid"], annotation.ignore)
    else:
        columns["invalid"] = annotation.ignore
    table = np.stack([columns[name].astype(int) for name in ATTRIBUTES], axis=1).tolist()
    numbers = np.concatenate([boxes[:, :2], sizes], axis=1).tolist()
    return [
        # The official list also has a space at the end.
        " ".join([*map(writing.number, box), *map(str, facts), ""])
        for box, facts in zip(numbers, table, strict=True)
    ]


FORMAT = Format(WiderFace, write)
