"""A folder of photos that show no object: every pixel is background."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from unitbox_tf.datasets import checks
from unitbox_tf.records import Annotation, Problems


def read(root: Path, split: str, problems: Problems) -> Iterator[Annotation]:
    """An annotation without boxes for each JPEG and PNG file below the folder `root / split`."""
    for path in checks.photos(root / split):
        yield Annotation(path.relative_to(root).as_posix(), path, np.zeros((0, 4)))
