"""Backbones of `keras.applications`, with or without their ImageNet weights."""

from __future__ import annotations

import dataclasses
import functools

import keras

from unitbox_tf.config import ModelConfig
from unitbox_tf.network import backbones
from unitbox_tf.network.backbones import Backbone, Preprocessing

STRIDES = (4, 8, 16, 32)
# Of the channels RGB of ImageNet, from 0 to 1.
MEAN = (0.485, 0.456, 0.406)
DEVIATION = (0.229, 0.224, 0.225)


@dataclasses.dataclass(frozen=True)
class _Application:
    """A network of `keras.applications`.

    Attributes:
        name: its class.
        ends: the layers that end its strides 4, 8 and 16. Its output has stride 32.
        read: True if these layers read the ends, which are outputs of no layer.
        preprocessing: what the network expects. MobileNet takes RGB from 0 to 255, and preprocesses it itself.
        normalise: True if the network expects the channels of ImageNet, with mean 0 and variance 1.
    """

    name: str
    ends: tuple[str, str, str]
    read: bool = False
    preprocessing: Preprocessing = dataclasses.field(default_factory=Preprocessing)
    normalise: bool = False


def _build(source: _Application, config: ModelConfig, seed: int = 0) -> Backbone:
    """The backbone. The branches read strides 8 and 16. `stride4` to `stride32` are the names of its layers to read.

    Raises:
        ValueError: `config.weights` are not available or do not fit, or the settings ask for what only VGG-16 has.
    """
    backbones.check_settings(config, "width", "confidence_tap", "distances_tap")
    options = {"include_preprocessing": False, "input_tensor": _normalised()}
    model = backbones.application(
        source.name, config.weights, **(options if source.normalise else {})
    )
    if config.weights is None:
        _initialise(model, seed)
    layers = [model.get_layer(name) for name in source.ends]
    ends = [*(layer.input if source.read else layer.output for layer in layers), model.output]
    # The names of many layers of `keras.applications` depend on what a program made before.
    names = [f"stride{stride}" for stride in STRIDES]
    named = [
        keras.layers.Activation("linear", name=name)(end)
        for name, end in zip(names, ends, strict=True)
    ]
    return Backbone(
        keras.Model(model.input, named, name=config.backbone),
        confidence=names[1],
        distances=names[2],
        stride=STRIDES[-1],
        preprocessing=source.preprocessing,
        pyramid=dict(zip(STRIDES, names, strict=True)),
    )


def _normalised() -> keras.KerasTensor:
    """An image with the mean and variance of ImageNet taken away.

    The networks would do so with `keras.layers.Normalization`, whose numbers become inputs of an ONNX file.
    """
    scale = [1 / (255 * deviation) for deviation in DEVIATION]
    offset = [-mean / deviation for mean, deviation in zip(MEAN, DEVIATION, strict=True)]
    return keras.layers.Rescaling(scale, offset, name="normalise")(keras.Input((None, None, 3)))


def _initialise(model: keras.Model, seed: int) -> None:
    """Draws the kernels anew, each with a seed of its own, as Keras draws them without one."""
    for number, layer in enumerate(model._flatten_layers(include_self=False)):
        kind = "depthwise" if isinstance(layer, keras.layers.DepthwiseConv2D) else "kernel"
        initializer = getattr(layer, f"{kind}_initializer", None)
        if initializer is not None:
            settings = {**initializer.get_config(), "seed": seed + number}
            layer.kernel.assign(type(initializer).from_config(settings)(layer.kernel.shape))


def _entry(source: _Application) -> functools.partial[Backbone]:
    return functools.partial(_build, source)


MOBILENET_V3_SMALL = _entry(
    _Application(
        "MobileNetV3Small",
        ("expanded_conv_project_bn", "expanded_conv_2_add", "expanded_conv_7_add"),
    )
)
MOBILENET_V3_LARGE = _entry(
    _Application(
        "MobileNetV3Large", ("expanded_conv_2_add", "expanded_conv_5_add", "expanded_conv_11_add")
    )
)
EFFICIENTNET_V2_B0 = _entry(
    _Application("EfficientNetV2B0", ("block2b_add", "block3b_add", "block5e_add"), normalise=True)
)
# Its residual sums are no layers.
_DOWN = "convnext_tiny_downsampling_block"
CONVNEXT_TINY = _entry(
    _Application(
        "ConvNeXtTiny", (f"{_DOWN}_0", f"{_DOWN}_1", f"{_DOWN}_2"), read=True, normalise=True
    )
)
RESNET50 = _entry(
    _Application(
        "ResNet50",
        ("conv2_block3_out", "conv3_block4_out", "conv4_block6_out"),
        preprocessing=backbones.CAFFE,
    )
)
