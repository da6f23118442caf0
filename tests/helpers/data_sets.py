"""Files and shorthands of the tests of readers and writers."""

from pathlib import Path

import cv2
import numpy as np

from unitbox_tf import registry


def photo(path, content=b"an image, as far as most readers care"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def png(height, width):
    return cv2.imencode(".png", np.zeros((height, width), np.uint8))[1].tobytes()


def where(problems):
    return [(p.kind, p.where.rsplit("/", 1)[-1]) for p in problems.found]


def read(form, root, split, problems=None, **more):
    """The annotations of a data set, opened anew."""
    opened = registry.DATASETS[form].open(Path(root), split)
    return list(opened.annotations(problems=problems, **more))


def class_names(form, root, split):
    return registry.DATASETS[form].open(Path(root), split).class_names()
