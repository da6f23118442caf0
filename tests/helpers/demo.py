"""The contents of the demo's page, without a network."""

import numpy as np

from unitbox_tf.demo import viewer as viewers


def seen_of(confidence, distances, size, shown=None, stride=1):
    photo = np.full((*size, 3), 128, np.uint8)
    maps = {"confidence": np.float32(confidence)[None], "distances": np.float32(distances)[None]}
    shown = shown or maps["confidence"].shape[1:3]
    return viewers.Seen(size, photo, (maps,), (shown,), stride, 0.0, 0.0)
