"""Backbones: the networks whose features the heads read.

Each backbone states its taps, stride and preprocessing here, once. The model, the exported files and the
NumPy decoder take them from here.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
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
        confidence: name of the layer of `model` that the confidence branch reads.
        distances: name of the layer that the distances branch reads; it may be the same.
        stride: the largest factor by which `model` shrinks a map on the way to both layers. Heights and
            widths of images are padded to multiples of it.
        preprocessing: turns images into the input of `model`.
        pyramid: names of layers by the stride of their maps, for `network.top_down`, such as
            `{4: "stage1", 8: "stage2"}`. Each stride is twice the one before.
    """

    def __init__(
        self,
        model: keras.Model,
        *,
        confidence: str,
        distances: str,
        stride: int,
        preprocessing: Preprocessing | None = None,
        pyramid: Mapping[int, str] | None = None,
    ) -> None:
        """The arguments are the attributes. Without `preprocessing`, `model` gets RGB from 0 to 255.

        Raises:
            ValueError: `model` has no layer of this name, `stride` is below 1, or strides of `pyramid` do not double.
        """
        pyramid = {int(stride): name for stride, name in (pyramid or {}).items()}
        for name in (confidence, distances, *pyramid.values()):
            if name not in [layer.name for layer in model.layers]:
                raise ValueError(
                    f"Expected the name of a layer of {model.name!r}. Received: {name!r}. It has "
                    f"{[layer.name for layer in model.layers]}"
                )
        if not isinstance(stride, int) or stride < 1:
            raise ValueError(f"Expected a whole stride of at least 1. Received: {stride}")
        self.model = model
        self.confidence = confidence
        self.distances = distances
        self.stride = stride
        strides = list(pyramid)
        if any(b != 2 * a for a, b in itertools.pairwise(strides)):
            raise ValueError(f"Expected a pyramid whose strides double. Received: {strides}")
        self.preprocessing = preprocessing or Preprocessing()
        self.pyramid = pyramid

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
_FILES = {"VGG16": " (vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5)"}
# The ImageNet weights of VGG and ResNet expect BGR, from which this mean is subtracted, as Caffe had it.
CAFFE = Preprocessing("bgr", (103.939, 116.779, 123.68))


def vgg16(config: ModelConfig, seed: int = 0) -> Backbone:
    """VGG-16 without its fully connected layers (Simonyan and Zisserman, 2015), the paper's backbone.

    `config.width` is a factor of all numbers of channels; only the width 1 has ImageNet weights.

    Raises:
        ValueError: `config.weights` are not available or do not fit.
    """
    if config.width == 1:
        model = application("VGG16", config.weights)
    elif config.weights is None:
        model = _narrow_vgg16(config.width)
    else:
        raise ValueError(
            f"weights={config.weights!r}: expected None with the width {config.width}: these weights have width 1"
        )
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


def _narrow_vgg16(width: float) -> keras.Model:
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
    build = getattr(keras.applications, name)
    own = "imagenet" if weights == "imagenet" else None
    try:
        model = build(include_top=False, weights=own, input_shape=(None, None, 3), **options)
    except Exception as error:  # Keras raises a bare Exception when a download fails
        raise ValueError(
            f"The ImageNet weights of {name} could not be downloaded ({error}). Without network, get the file"
            f"{_FILES.get(name, '')} elsewhere and name it as weights (--weights)."
        ) from error
    if weights not in (None, "imagenet"):
        kind = f"the weights of keras.applications.{name} without its top"
        network_weights.load(model, str(weights), kind)
    return model
