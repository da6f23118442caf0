"""Files and shorthands of the tests of readers and writers."""

import cv2
import numpy as np


def photo(path, content=b"a photo, as far as most readers care"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def png(height, width):
    return cv2.imencode(".png", np.zeros((height, width), np.uint8))[1].tobytes()


def where(problems):
    return [(p.kind, p.where.rsplit("/", 1)[-1]) for p in problems.found]
