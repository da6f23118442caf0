"""A folder of images that show no object: every pixel is background."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from unitbox_tf import images
from unitbox_tf.datasets import checks
from unitbox_tf.datasets.base import DataSet, Format
from unitbox_tf.problems import Problems
from unitbox_tf.records import Annotation


class Negatives(DataSet):
    """The images below the folder `root / split`. The format has no objects, and so no classes."""

    def __init__(self, root: Path, split: str) -> None:
        """Raises `ValueError` if there is no such folder."""
        self._root, self._split = root, split
        if not (root / split).is_dir():
            known = sorted(path.name for path in root.glob("*/"))
            raise ValueError(
                f"{root}: expected a folder {split!r}: no such folder. {checks.known_splits(split, known)}"
            )

    def annotations(
        self, *, photos: bool = True, problems: Problems | None = None
    ) -> Iterator[Annotation]:
        """An annotation without boxes for each file. The files are the list: `photos` changes nothing."""
        found = checks.Photos(self._root, problems=problems)
        for path in images.photos(self._root / self._split):
            name = path.relative_to(self._root).as_posix()
            photo = found.find(name, str(path))
            if photo is not None:
                yield Annotation(name, photo, np.zeros((0, 4)))


FORMAT = Format(Negatives)
