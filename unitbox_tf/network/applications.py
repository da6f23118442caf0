"""Backbones of `keras.applications`, with or without their ImageNet weights."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import keras

from unitbox_tf.config import ModelConfig
from unitbox_tf.network.backbones import CAFFE, Backbone, Preprocessing, application

STRIDES = (4, 8, 16, 32)
_SIDE = 256  # px; of the image for which the strides of layers are computed


@dataclasses.dataclass(frozen=True)
class _Application:
    """A network of `keras.applications`: its class, the preprocessing that it lacks, and further arguments."""

    name: str
    preprocessing: Preprocessing = dataclasses.field(default_factory=Preprocessing)
    options: dict[str, Any] = dataclasses.field(default_factory=dict)


def _build(source: _Application, config: ModelConfig, seed: int = 0) -> Backbone:
    """The backbone. Its pyramid are the last layers at strides 4 to 32; the branches read those at 8 and 16.

    Raises:
        ValueError: `config.weights` are not available or do not fit, or `config.width` is not 1.
    """
    if config.width != 1:
        raise ValueError(
            f"width: expected 1 with the backbone {config.backbone}. Received: {config.width}"
        )
    keras.utils.set_random_seed(seed)
    model = application(source.name, config.weights, **source.options)
    fixed = getattr(keras.applications, source.name)(
        include_top=False, weights=None, input_shape=(_SIDE, _SIDE, 3), **source.options
    )
    ends = {}
    for layer, same in zip(model.layers, fixed.layers, strict=True):
        shape = same.output.shape
        if len(shape) == 4 and shape[1] in [_SIDE // stride for stride in STRIDES]:
            ends[_SIDE // shape[1]] = layer.name
    pyramid = {stride: ends[stride] for stride in STRIDES}
    return Backbone(
        model,
        confidence=pyramid[8],
        distances=pyramid[16],
        stride=32,
        preprocessing=source.preprocessing,
        pyramid=pyramid,
    )


def _entry(name: str, *options: Any, **more: Any) -> functools.partial[Backbone]:
    return functools.partial(_build, _Application(name, *options, **more))


# Except for ResNet, they preprocess images themselves.
MOBILENET_V3_SMALL = _entry("MobileNetV3Small")
MOBILENET_V3_LARGE = _entry("MobileNetV3Large")
EFFICIENTNET_V2_B0 = _entry("EfficientNetV2B0")
CONVNEXT_TINY = _entry("ConvNeXtTiny")
RESNET50 = _entry("ResNet50", CAFFE)
