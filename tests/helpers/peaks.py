"""The peaks of confidence, by their definition."""

import numpy as np
import scipy.ndimage


def smoothed(logits):
    """The mean over 5 x 5 pixels within a map `[H, W]`, less the tilt."""
    total, count = (
        scipy.ndimage.convolve(values.astype(np.float64), np.ones((5, 5)), mode="constant")
        for values in (logits, np.ones_like(logits))
    )
    y, x = np.indices(logits.shape)
    return total / count - 2e-5 * (y % 16 + x % 16)


def peaks(confidence):
    """Logits of a map `[H, W, C]` at the local maxima of each class; -inf elsewhere."""
    smooth = np.stack([smoothed(logits) for logits in np.moveaxis(confidence, -1, 0)], axis=-1)
    most = scipy.ndimage.maximum_filter(smooth, (3, 3, 1), mode="constant", cval=-np.inf)
    return np.where(smooth >= most, smooth, -np.inf)
