"""The sizes at which the network is shown objects, and the sizes of objects that it can see.

Sizes are in pixels of the image as the network gets it: shrunk to `image_size` or cut out of it in training,
shrunk to `max_side` times each of the `scales` in detection.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from unitbox_tf.config import DataConfig, ModelConfig

MIN_SHARE = 0.5  # the long side of an image takes at least this share of a random crop's side
MAX_SHARE = 0.9  # the object that a random crop is made for takes at most this share of its side
LEVELS = (0.1, 0.3, 0.5, 0.7, 0.9)  # shares of the range `object_size` that stand for all of it


@dataclasses.dataclass(frozen=True)
class Limits:
    """The sizes of objects that a network can see.

    Attributes:
        stride: pixels from one number of the confidence map to the next.
        field: side of the square of pixels that the distances at one pixel depend on.
    """

    stride: int
    field: int

    @property
    def smallest(self) -> int:
        """The shorter side from which most objects are found: two strides, as two peaks need a gap."""
        return 2 * self.stride

    @property
    def largest(self) -> int:
        """The longer side from which objects are missed: three quarters of the field (docs/sizes.md)."""
        return 3 * self.field // 4

    @property
    def left_to_smaller_scale(self) -> int:
        """The longer side up to which boxes are at their best: 100 px in a field of 228 px (docs/sizes.md)."""
        return round(0.44 * self.field / 10) * 10


# By the number of 3 x 3 convolutions and poolings before each tap; a test computes them from the layers.
_VGG_STRIDE = {"before_pool": 8, "after_pool": 16}
_VGG_FIELD = {"before_pool": 228, "after_pool": 276}


def limits(model: ModelConfig) -> Limits | None:
    """The sizes that the network of these settings can see; None unless it is VGG-16 without a neck."""
    if model.backbone != "vgg16" or model.neck != "none":
        return None
    return Limits(_VGG_STRIDE[model.confidence_tap], _VGG_FIELD[model.distances_tap])


def scale_to_fit(long_sides: np.ndarray, side: float) -> np.ndarray:
    """The factor by which images with these longer sides are shrunk to `side`. They are never enlarged."""
    return np.minimum(1.0, side / long_sides)


def crop_scale(
    objects: np.ndarray, images: np.ndarray, wanted: float, data: DataConfig
) -> np.ndarray:
    """The factor at which a random crop shows the object that it is made for (`augment.random_crop`).

    Args:
        objects: the longer sides of the objects `[N]`.
        images: the longer sides of their images `[N]`.
        wanted: the longer side that is drawn from `data.object_size`.
        data: the settings. `stretch` is left out.
    """
    fits = data.image_size / images
    lowest = np.minimum(MIN_SHARE * fits, data.max_enlargement)
    return np.clip(wanted / objects, lowest, data.max_enlargement)


def in_training(objects: np.ndarray, images: np.ndarray, data: DataConfig) -> np.ndarray:
    """The longer sides of objects as training shows them.

    Args:
        objects: the longer sides of the objects `[N]`.
        images: the longer sides of their images `[N]`.
        data: the settings. Mosaics, in which all is smaller, are left out.

    Returns:
        With `random_crop`, `[N * 5]`: each object as the one that a crop is made for, at five sizes that stand
        for `object_size`. Otherwise `[N]`.
    """
    if not data.random_crop:
        return objects * scale_to_fit(images, data.image_size)
    low, high = data.object_size[0], min(data.object_size[1], MAX_SHARE * data.image_size)
    sizes = [
        objects * crop_scale(objects, images, low * (high / low) ** level, data) for level in LEVELS
    ]
    return np.concatenate(sizes)
