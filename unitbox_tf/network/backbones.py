"""Backbones: networks that the heads stand on, and what each expects of an image."""

from __future__ import annotations

import dataclasses
from typing import Literal


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """How an image, RGB from 0 to 255, becomes what a backbone expects.

    Attributes:
        channels: the order of colours.
        mean: is subtracted from the colours, in that order.
        scale: the difference is multiplied by it.
    """

    channels: Literal["rgb", "bgr"]
    mean: tuple[float, float, float]
    scale: float


VGG16_STRIDE = 32  # of the last pooling; heights and widths are padded to a multiple of it
# The ImageNet weights of VGG-16 expect this mean subtracted.
VGG16_PREPROCESSING = Preprocessing("bgr", (103.939, 116.779, 123.68), 1.0)
