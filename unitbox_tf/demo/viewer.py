"""A detector that shows its heatmaps of an image, and the detections that settings make of them."""

from __future__ import annotations

import dataclasses
import os
import time
from typing import Any

import cv2
import numpy as np
import tensorflow as tf

from unitbox_tf import images, visualize
from unitbox_tf.config import DecodeConfig
from unitbox_tf.detect import decoders, graph, padding
from unitbox_tf.detect.model import UnitBox
from unitbox_tf.records import Detections

IMAGE_SIDE = 1200  # px; long side of the image on the page, at most


@dataclasses.dataclass(frozen=True)
class Seen:
    """An image and the answer of the network, which does not depend on thresholds.

    Attributes:
        size: height and width of the image, in pixels.
        image: RGB uint8 `[H, W, 3]`, shrunk to `IMAGE_SIDE`.
        maps: the heatmaps at each scale: `confidence` logits `[1, h, w, C]`, `distances`
            `[1, h, w, 4]` in pixels of the image as shown to the network.
        shown: height and width at which the network was shown the image, at each scale.
        stride: pixels of the image as shown from one point of the maps to the next.
        reading: the time to decode the image, in ms.
        network: the time of the network, in ms.
    """

    size: tuple[int, int]
    image: np.ndarray
    maps: tuple[dict[str, np.ndarray], ...]
    shown: tuple[tuple[int, int], ...]
    stride: int
    reading: float
    network: float


class Viewer:
    """A detector that keeps heatmaps apart from their decoding, so that other settings need no network.

    Attributes:
        decode: the settings of decoding to start from.
        class_names: the names of the classes.
    """

    def __init__(self, run: str | os.PathLike[str], **decode: Any) -> None:
        """Opens a detector.

        Args:
            run: the path of a run's folder, or the name of a published detector.
            decode: fields of `DecodeConfig` to change.

        Raises:
            ValueError: the folder has no run. An exported SavedModel cannot be used: its decoding is fixed.
        """
        model = UnitBox.from_preset(run, **decode)
        self.decode, self.class_names = model.decode, model.class_names
        self._module = graph.InferenceModule(model, self.decode)
        # Graphs are traced now, because the times of the first image are shown.
        blank = cv2.imencode(".png", np.zeros((64, 64, 3), np.uint8))[1].tobytes()
        self.find(self.see(blank), self.decode)

    def _predict(self, image: np.ndarray) -> tuple[dict[str, np.ndarray], ...]:
        scales = [self._module.heatmaps_at(image[None], scale) for scale in self.decode.scales]
        return tuple({name: value.numpy() for name, value in maps.items()} for maps in scales)

    def see(self, encoded: bytes) -> Seen:
        """Runs the network on an encoded image.

        Raises:
            ValueError: it cannot be decoded, or has more than `decode.max_pixels`.
            MemoryError: memory does not suffice.
        """
        start = time.perf_counter()
        image = images.decode_photo(encoded, self.decode.max_pixels).numpy()
        read = time.perf_counter()
        maps = self._predict(image)
        predicted = time.perf_counter()
        size = (image.shape[0], image.shape[1])
        return Seen(
            size,
            fit(image, IMAGE_SIDE),
            maps,
            tuple(self._shown(size, scale) for scale in self.decode.scales),
            self._module.stride,
            1e3 * (read - start),
            1e3 * (predicted - read),
        )

    def _shown(self, size: tuple[int, int], scale: float) -> tuple[int, int]:
        height, width = decoders.shown_size(*size, self.decode.max_side, scale).numpy().tolist()
        return height, width

    def find(self, seen: Seen, decode: DecodeConfig) -> Detections:
        """The detections that `Detector` finds in the image with these settings, at the scales of `self.decode`."""
        found = decoders.decode_scales(seen.maps, tf.constant(seen.size), decode, seen.stride)
        return padding.unpad(found, [seen.size])[0]


def fit(image: np.ndarray, side: int) -> np.ndarray:
    """`image` shrunk, where it is larger, to a long side of `side` pixels."""
    scale = min(1.0, side / max(image.shape[:2]))
    height, width = (max(1, round(length * scale)) for length in image.shape[:2])
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)


def confidence_map(seen: Seen, index: int) -> np.ndarray:
    """Probabilities `[H, W]` of the best class at the pixels that the network was shown at scale number `index`."""
    logits = seen.maps[index]["confidence"][0].max(axis=-1)
    return visualize.at_pixels(0.5 * (1 + np.tanh(0.5 * logits)), seen.stride, seen.shown[index])


def distance_maps(seen: Seen, index: int) -> np.ndarray:
    """Distances `tblr` `[H, W, 4]`, in pixels of the image, at the pixels of `confidence_map`."""
    (height, width), shown = seen.size, seen.shown[index]
    distances = visualize.at_pixels(seen.maps[index]["distances"][0], seen.stride, shown)
    rows, columns = height / shown[0], width / shown[1]
    return distances * np.array([rows, rows, columns, columns], np.float32)
