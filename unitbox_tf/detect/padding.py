"""Takes the padding off the detections that graphs return. Importing this module does not import TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from unitbox_tf import boxes as box_ops
from unitbox_tf.records import Detections


def unpad(padded: Mapping[str, Any], image_sizes: Sequence[tuple[int, int]]) -> list[Detections]:
    """A `Detections` for each image.

    Args:
        padded: arrays or tensors as `decoders.decode_scales` returns them.
        image_sizes: height and width of each image.
    """
    arrays = {name: np.asarray(value) for name, value in padded.items()}
    return [
        Detections(
            box_ops.clip(arrays["boxes"][i, :count], *size),
            arrays["scores"][i, :count],
            arrays["classes"][i, :count],
            size,
        )
        for i, (count, size) in enumerate(zip(arrays["num_detections"], image_sizes, strict=True))
    ]
