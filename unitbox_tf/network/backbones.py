"""Backbones: the networks whose features the heads read.

Each backbone states its taps, stride and preprocessing here, once. The model, the exported files and the
NumPy decoder take them from here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
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
        confidence: name of the layer of `model` that the confidence branch reads.
        distances: name of the layer that the distances branch reads; it may be the same.
        stride: the largest factor by which `model` shrinks a map on the way to both layers. Heights and
            widths of images are padded to multiples of it.
        preprocessing: turns images into the input of `model`.
    """

    def __init__(
        self,
        model: keras.Model,
        *,
        confidence: str,
        distances: str,
        stride: int,
        preprocessing: Preprocessing | None = None,
    ) -> None:
        """The arguments are the attributes. Without `preprocessing`, `model` gets RGB from 0 to 255.

        Raises:
            ValueError: `model` has no layer of this name, or `stride` is below 1.
        """
        for name in (confidence, distances):
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
        self.preprocessing = preprocessing or Preprocessing()

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
        return {"model": model, **facts}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Backbone:
        """The backbone of a configuration by `get_config`, with random weights."""
        given = config["preprocessing"]
        preprocessing = Preprocessing(**{**given, "mean": tuple(given["mean"])})
        model = keras.saving.deserialize_keras_object(config["model"])
        return cls(**{**config, "model": model, "preprocessing": preprocessing})

    def _facts(self) -> dict[str, Any]:
        names = ("confidence", "distances", "stride", "preprocessing")
        return {name: getattr(self, name) for name in names}


# Layers of VGG-16 at "the end of stage" 4 and 5, which the paper leaves open.
_VGG_CONFIDENCE = {"before_pool": "block4_conv3", "after_pool": "block4_pool"}
_VGG_DISTANCES = {"before_pool": "block5_conv3", "after_pool": "block5_pool"}
# The ImageNet weights expect BGR, from which this mean is subtracted.
_VGG_PREPROCESSING = Preprocessing("bgr", (103.939, 116.779, 123.68))


def vgg16(config: ModelConfig, seed: int = 0) -> Backbone:
    """VGG-16 without its fully connected layers (Simonyan and Zisserman, 2015), the paper's backbone.

    Raises:
        ValueError: `config.weights` are not available or do not fit.
    """
    weights = config.weights
    if weights not in (None, "imagenet") and not Path(str(weights)).is_file():
        raise ValueError(
            f"weights={weights!r}: no such file. Expected None, 'imagenet' or a weights file of "
            "keras.applications.VGG16 without its top (vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5)."
        )
    model = _vgg16("imagenet" if weights == "imagenet" else None)
    if weights not in (None, "imagenet"):
        kind = "the weights of keras.applications.VGG16 without its top"
        network_weights.load(model, str(weights), kind)
    if weights is None:
        # Keras uses Glorot's initialisation for VGG-16, with which 13 layers do not train.
        convolutions = [layer for layer in model.layers if layer.weights]
        for index, layer in enumerate(convolutions):
            layer.kernel.assign(keras.initializers.HeNormal(seed=seed + index)(layer.kernel.shape))
    return Backbone(
        model,
        confidence=_VGG_CONFIDENCE[config.confidence_tap],
        distances=_VGG_DISTANCES[config.distances_tap],
        stride=32,  # of the last pooling
        preprocessing=_VGG_PREPROCESSING,
    )


def _vgg16(weights: str | None) -> keras.Model:
    try:
        return keras.applications.VGG16(
            include_top=False, weights=weights, input_shape=(None, None, 3)
        )
    except Exception as error:  # Keras raises a bare Exception when a download fails
        raise ValueError(
            f"The ImageNet weights of VGG-16 could not be downloaded ({error}). Without network, get the file "
            "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5 elsewhere and name it as weights (--weights)."
        ) from error
