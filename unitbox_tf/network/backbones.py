"""Backbones: the networks whose features the heads read.

Each backbone states its taps, stride and preprocessing here, once. The model, the exported files and the
NumPy decoder take them from here.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import keras

from unitbox_tf.config import ModelConfig
from unitbox_tf.network import weights as network_weights


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """How an RGB image from 0 to 255 becomes the input of a backbone: `(channels - mean) * scale`.

    Attributes:
        channels: the order of the channels.
        mean: is subtracted from the channels, in this order.
        scale: is multiplied afterwards.
    """

    channels: Literal["rgb", "bgr"] = "rgb"
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    scale: float = 1.0

    def __post_init__(self) -> None:
        """Raises `ValueError` if a value is unusable."""
        if self.channels not in ("rgb", "bgr") or len(self.mean) != 3:
            raise ValueError(
                f"Expected channels 'rgb' or 'bgr', and a mean of 3 numbers. Received: {self}"
            )

    @property
    def mean_colour(self) -> tuple[float, float, float]:
        """The RGB colour that becomes 0."""
        first, second, third = self.mean
        return self.mean if self.channels == "rgb" else (third, second, first)


@keras.saving.register_keras_serializable("unitbox_tf")
class Backbone:
    """A network that turns preprocessed images into feature maps.

    Attributes:
        model: a Keras model of images `[B, H, W, 3]` of any height and width that are multiples of `stride`.
        confidence: name of the layer of `model` that the confidence branch reads; None if the backbone serves
            the neck `top_down` alone.
        distances: name of the layer that the distances branch reads; it may be the same.
        stride: the largest factor by which `model` shrinks a map on the way to the layers that are named. Heights
            and widths of images are padded to multiples of it.
        preprocessing: turns images into the input of `model`.
        pyramid: names of layers by the stride of their maps, for the neck `top_down`, such as
            `{4: "stage1", 8: "stage2"}`. Each stride is twice the one before. Empty if there is none.
    """

    def __init__(
        self,
        model: keras.Model,
        *,
        confidence: str | None = None,
        distances: str | None = None,
        stride: int,
        preprocessing: Preprocessing | None = None,
        pyramid: Mapping[int, str] | None = None,
    ) -> None:
        """The arguments are the attributes. Without `preprocessing`, `model` gets RGB from 0 to 255.

        Raises:
            ValueError: a fact is unusable, or the maps of `model` contradict it: `model` has no layer of this name,
                its images have one size only, or the maps of a layer do not have the stride that is stated.
        """
        if not isinstance(stride, int) or stride < 1:
            raise ValueError(f"Expected a whole stride of at least 1. Received: {stride}")
        if (confidence is None) != (distances is None):
            raise ValueError(
                "Expected the layers that both branches read, confidence and distances, or none. Received: "
                f"{confidence!r} and {distances!r}"
            )
        self.model = model
        self.confidence = confidence
        self.distances = distances
        self.stride = stride
        self.preprocessing = preprocessing or Preprocessing()
        # The keys are texts in the json of a Keras file.
        self.pyramid = dict(sorted((int(key), name) for key, name in (pyramid or {}).items()))
        self._check_names()
        self._check_maps()

    def _check_names(self) -> None:
        taps = [name for name in (self.confidence, self.distances) if name is not None]
        names = [layer.name for layer in self.model.layers]
        for name in (*taps, *self.pyramid.values()):
            if name not in names:
                raise ValueError(
                    f"Expected the name of a layer of {self.model.name!r}. Received: {name!r}. It has {names}"
                )
        if not taps and not self.pyramid:
            raise ValueError(
                "Expected layers that the network reads: confidence and distances, pyramid, or all. Received: none"
            )
        strides = list(self.pyramid)
        if any(b != 2 * a for a, b in itertools.pairwise(strides)):
            raise ValueError(f"Expected a pyramid whose strides double. Received: {strides}")

    def _check_maps(self) -> None:
        """Compares the strides that are stated with the sizes of the maps of a small image, which is not computed."""
        if tuple(self.model.input_shape[1:]) != (None, None, 3):
            raise ValueError(
                "Expected a model of images of any size, with the input keras.Input((None, None, 3)). Received: "
                f"{self.model.name!r} with an input of the shape {self.model.input_shape}"
            )
        taps = [name for name in (self.confidence, self.distances) if name is not None]
        # Three strides, because a convolution without padding then loses a part of the map that shows.
        side = 3 * self.stride
        image = keras.KerasTensor((1, side, side, 3))
        names = [*taps, *self.pyramid.values()]
        maps = self.features(names, "features").compute_output_spec(image)
        for name, stride, spec in zip(
            names, [*(None for _ in taps), *self.pyramid], keras.tree.flatten(maps), strict=True
        ):
            _check_map(name, stride, self.stride, side, tuple(spec.shape[1:]))

    def features(self, taps: Sequence[str], name: str) -> keras.Model:
        """The part of the network up to the layers `taps`, as a model called `name`. Weights are shared."""
        outputs = [self.model.get_layer(tap).output for tap in taps]
        return keras.Model(self.model.input, outputs, name=name)

    def copy(self) -> Backbone:
        """A copy with its own weights, which have the same values."""
        model = keras.models.clone_model(self.model)
        model.set_weights(self.model.get_weights())
        return Backbone(model, **self._facts())

    def get_config(self) -> dict[str, Any]:
        """The configuration for Keras' files, without weights."""
        model = keras.saving.serialize_keras_object(self.model)
        facts = {**self._facts(), "preprocessing": dataclasses.asdict(self.preprocessing)}
        facts["pyramid"] = {str(stride): name for stride, name in self.pyramid.items()}
        return {"model": model, **facts}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Backbone:
        """The backbone of a configuration by `get_config`, with random weights."""
        given = config["preprocessing"]
        preprocessing = Preprocessing(**{**given, "mean": tuple(given["mean"])})
        model = keras.saving.deserialize_keras_object(config["model"])
        return cls(**{**config, "model": model, "preprocessing": preprocessing})

    def _facts(self) -> dict[str, Any]:
        names = ("confidence", "distances", "stride", "preprocessing", "pyramid")
        return {name: getattr(self, name) for name in names}


def _check_map(
    name: str, stated: int | None, largest: int, side: int, shape: tuple[int, ...]
) -> None:
    """Raises `ValueError` if a layer makes a map of an image of `side` pixels that does not have the stride stated.

    Args:
        name: the name of the layer.
        stated: the stride of its map; None for any that divides `largest`.
        largest: the stride of the backbone.
        side: height and width of the image, a multiple of `largest`.
        shape: height, width and channels of the map.
    """
    actual = None
    if len(shape) == 3 and shape[0] == shape[1] and shape[0] and side % shape[0] == 0:
        actual = side // shape[0]
    if actual is None or largest % actual or stated not in (None, actual):
        what = f"{stated}" if stated else f"{largest}, or of a divisor of it,"
        raise ValueError(
            f"Expected a map of stride {what} from the layer {name!r} of a backbone of stride {largest}. Received: "
            f"a map of the shape {shape} of an image of {side} x {side} px"
        )


def check_settings(config: ModelConfig, *unused: str) -> None:
    """Raises `ValueError` if settings ask for something that the backbone of `config` does not have.

    Args:
        config: the settings.
        unused: names of the fields that the backbone does not heed, which must have their defaults.
    """
    for name in unused:
        default, received = getattr(ModelConfig, name), getattr(config, name)
        if received != default:
            raise ValueError(
                f"{name}: expected {default!r} with the backbone {config.backbone}, which has no other. Received: "
                f"{received!r}"
            )


# Layers of VGG-16 at "the end of stage" 4 and 5, which the paper leaves open.
_VGG_CONFIDENCE = {"before_pool": "block4_conv3", "after_pool": "block4_pool"}
_VGG_DISTANCES = {"before_pool": "block5_conv3", "after_pool": "block5_pool"}
_VGG_PYRAMID = {
    4: "block3_conv3",
    8: "block4_conv3",
    16: "block5_conv3",
    32: "block5_pool",
}
_VGG_BLOCKS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))  # channels and convolutions
# Files with the ImageNet weights of networks of `keras.applications`.
_FILES = {
    "VGG16": "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5",
    "MobileNetV3Small": "weights_mobilenet_v3_small_224_1.0_float_no_top_v2.h5",
    "MobileNetV3Large": "weights_mobilenet_v3_large_224_1.0_float_no_top_v2.h5",
    "EfficientNetV2B0": "efficientnetv2-b0_notop.h5",
    "ConvNeXtTiny": "convnext_tiny_notop.h5",
    "ResNet50": "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5",
}
# The ImageNet weights of VGG and ResNet expect BGR, from which this mean is subtracted, as Caffe had it.
CAFFE = Preprocessing("bgr", (103.939, 116.779, 123.68))


def vgg16(config: ModelConfig, seed: int = 0) -> Backbone:
    """VGG-16 without its fully connected layers (Simonyan and Zisserman, 2015), the paper's backbone.

    `config.width` is a factor of all numbers of channels; only the width 1 has ImageNet weights.

    Raises:
        ValueError: `config.weights` are not available or do not fit.
    """
    if config.width != 1 and config.weights is not None:
        raise ValueError(
            f"weights: expected None with the width {config.width}, because the weights of VGG-16 have the width 1. "
            f"Received: {config.weights!r}"
        )
    model = application("VGG16", config.weights) if config.width == 1 else _narrow(config.width)
    if config.weights is None:
        # Keras uses Glorot's initialisation for VGG-16, with which 13 layers do not train.
        convolutions = [layer for layer in model.layers if layer.weights]
        for index, layer in enumerate(convolutions):
            layer.kernel.assign(keras.initializers.HeNormal(seed=seed + index)(layer.kernel.shape))
    return Backbone(
        model,
        confidence=_VGG_CONFIDENCE[config.confidence_tap],
        distances=_VGG_DISTANCES[config.distances_tap],
        stride=32,  # of the last pooling
        preprocessing=CAFFE,
        pyramid=_VGG_PYRAMID,
    )


def _narrow(width: float) -> keras.Model:
    """VGG-16 without its top, whose numbers of channels are multiplied by `width`, with random weights."""
    image = x = keras.Input((None, None, 3))
    for block, (channels, convolutions) in enumerate(_VGG_BLOCKS, 1):
        for number in range(1, convolutions + 1):
            x = keras.layers.Conv2D(
                max(1, round(width * channels)),
                3,
                padding="same",
                activation="relu",
                name=f"block{block}_conv{number}",
            )(x)
        x = keras.layers.MaxPooling2D(2, name=f"block{block}_pool")(x)
    return keras.Model(image, x, name="vgg16")


def application(name: str, weights: str | None, **options: Any) -> keras.Model:
    """A network of `keras.applications` without its top, for images of any size.

    Args:
        name: its class, such as "VGG16".
        weights: None for random ones, "imagenet" to download them, or the path of a weights file.
        options: further arguments of the class.

    Raises:
        ValueError: the weights are not available or do not fit.
    """
    network = getattr(keras.applications, name)
    build = functools.partial(network, include_top=False, input_shape=(None, None, 3), **options)
    file = f" ({_FILES[name]})"
    if weights == "imagenet":
        try:
            return build(weights=weights)
        except Exception as error:  # Keras raises a bare Exception when a download fails
            raise ValueError(
                f"The ImageNet weights of {name} could not be downloaded ({error}). Without network, get the file"
                f"{file} elsewhere and name it as weights (--weights)."
            ) from error
    kind = f"the weights of keras.applications.{name} without its top"
    if weights is not None and not Path(weights).is_file():
        raise ValueError(
            f"weights={weights!r}: no such file. Expected None, 'imagenet' or a file of {kind}{file}"
        )
    model = build(weights=None)
    if weights is not None:
        network_weights.load(model, weights, kind)
    return model
