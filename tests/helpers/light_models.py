"""A detector of some kilobytes whose maps have a stride, with random weights."""

from __future__ import annotations

import keras
import numpy as np

from unitbox_tf.config import DecodeConfig, ModelConfig
from unitbox_tf.detect.model import UnitBox

DECODE = DecodeConfig(
    max_side=64, scales=(0.5, 1.0), largest_object=30.0, score_threshold=0.3, max_detections=50
)


def model(map_stride: int = 4) -> UnitBox:
    """It finds something in every image, and its normalisation is none that could be left out."""
    config = ModelConfig(
        class_names=("cat", "dog"),
        backbone="light",
        width=0.25,
        neck="top_down",
        neck_channels=8,
        map_stride=map_stride,
        initial_box_size=16.0,
    )
    built, random = UnitBox.from_settings(config, DECODE, seed=3), np.random.default_rng(8)
    for layer in built._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization):
            size = layer.gamma.shape
            values = (
                random.uniform(0.7, 1.3, size),
                random.normal(0, 0.3, size),
                random.normal(0, 0.3, size),
            )
            layer.set_weights([*values, random.uniform(0.5, 2, size)])
    # The first normalisation gets pixels from 0 to 255.
    first = next(each for each in built._flatten_layers() if each.name == "stem_conv_bn")
    first.moving_variance.assign(first.moving_variance * 150.0**2)
    for name, spread in (("confidence_head", 0.3), ("distances_head", 0.04)):
        head = built.get_layer(name)
        head.set_weights([random.normal(0, spread, weight.shape) for weight in head.weights])
    return built
