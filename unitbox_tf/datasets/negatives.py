"""A folder of photos that show no object: every pixel is background."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from unitbox_tf import images
from unitbox_tf.datasets import checks
from unitbox_tf.problems import Problems
from unitbox_tf.records import Annotation


def class_names(root: Path, split: str) -> None:
    """None: there are no objects to have a class."""


def read(
    root: Path, split: str, problems: Problems, *, photos: bool = True
) -> Iterator[Annotation]:
    """An annotation without boxes for each JPEG and PNG file below the folder `root / split`.

    The photos are the list: `photos` changes nothing.
    """
    found = checks.Photos(root, problems)
    for path in images.photos(root / split):
        name = path.relative_to(root).as_posix()
        photo = found.find(name, str(path))
        if photo is not None:
            yield Annotation(name, photo, np.zeros((0, 4)))
