"""Changes networks for inference: without batch normalisation, which takes time, and with what all formats know."""

from __future__ import annotations

import collections
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from unitbox_tf.network import layers

_NORMALISATIONS = (keras.layers.BatchNormalization, layers.BatchNormalization)
_OF_TRAINING = (
    "kernel_regularizer",
    "depthwise_regularizer",
    "bias_regularizer",
    "activity_regularizer",
    "kernel_constraint",
    "depthwise_constraint",
    "bias_constraint",
)


def folded(model: keras.Model) -> keras.Model:
    """A copy of a functional model for inference, with the same inputs and outputs.

    A convolution y = k * x + b with the normalisation g (y - m) / sqrt(v + e) + c after it becomes one convolution,
    with the kernel k s and the bias (b - m) s + c, where s is g / sqrt(v + e). This is exact except for rounding.
    `Conv2D` and `DepthwiseConv2D` are folded where nothing else reads their output, also in functional models within
    the model. A `Conv2D` with a group for each channel becomes a `DepthwiseConv2D`, one with a dilation a
    `layers.DilatedConv2D`, and the activation `gelu` a `layers.Gelu`. They compute the same, quickly, and converters
    know them. All other layers are in the copy as they are, with their names.

    The copy has its own weights. Layers that Keras cannot copy, such as a `Lambda`, are shared by both. A model without
    the layers above is returned as it is, not as a copy.
    """
    pairs = dict(_pairs(model))
    if not pairs and not any(
        _is_by_channel(each) or _is_dilated(each) or _is_gelu(each)
        for each in model._flatten_layers()
    ):
        return model
    normalisations = set(pairs.values())
    copies = list[tuple[keras.layers.Layer, keras.layers.Layer]]()
    skipped = list[keras.layers.Layer]()

    def copied(layer: keras.layers.Layer) -> keras.layers.Layer:
        if layer in normalisations:
            skipped.append(keras.layers.Identity())  # Keras wants a layer
            return skipped[-1]
        if _is_by_channel(layer):
            copy = _depthwise(layer, layer.use_bias or layer in pairs)
        elif _is_gelu(layer):
            copy = layers.Gelu(name=layer.name)
        else:
            copy = _copied(layer, with_bias=layer in pairs)
        # Other operations than layers, such as a plain +, have no weights.
        if isinstance(layer, keras.layers.Layer) and copy is not layer:
            copies.append((layer, copy))
        return copy

    def called(layer: keras.layers.Layer, x: keras.KerasTensor, *args: Any, **kwargs: Any) -> Any:
        return x if layer in skipped else layer(x, *args, **kwargs)

    # Keras would compile the copy of a compiled model; this one has the same layers and is not compiled.
    plain = keras.Model(model.input, model.output, name=model.name)
    result = keras.models.clone_model(
        plain, clone_function=copied, call_function=called, recursive=True
    )
    for layer, copy in copies:
        weights = _weights(layer, pairs[layer]) if layer in pairs else layer.get_weights()
        shapes = [each.shape for each in copy.weights]
        copy.set_weights([w.reshape(shape) for w, shape in zip(weights, shapes, strict=True)])
    return result


def _copied(layer: keras.layers.Layer, *, with_bias: bool) -> keras.layers.Layer:
    """A new layer like `layer`, as one operation if it is a dilated convolution.

    It is `layer` itself if Keras cannot make another one from its configuration, because that holds a Python function.
    """
    if with_bias or _is_dilated(layer):
        kind = layers.DilatedConv2D if _is_dilated(layer) else layer.__class__
        facts = layer.get_config()
        functions = {name: None for name in facts if name == "activation" or name in _OF_TRAINING}
        copy = kind.from_config({**facts, **functions, "use_bias": layer.use_bias or with_bias})
        copy.activation = layer.activation
        return copy
    try:
        return layer.__class__.from_config(layer.get_config())
    except (TypeError, ValueError):
        return layer


def _is_gelu(layer: keras.layers.Layer) -> bool:
    """True for the activation that is computed with the complementary error function, which ONNX does not have."""
    return type(layer) is keras.layers.Activation and layer.activation is keras.activations.gelu


def _is_by_channel(layer: keras.layers.Layer) -> bool:
    """True for a convolution with a group for each channel. TensorFlow compiles it for CPUs, which ONNX cannot hold."""
    return (
        type(layer) is keras.layers.Conv2D
        and layer.groups > 1
        and layer.kernel.shape[-2] == 1
        and len(set(layer.strides))
        == 1  # others are not known to TensorFlow's depthwise convolution
        and layer.data_format == "channels_last"
    )


def _is_dilated(layer: keras.layers.Layer) -> bool:
    """True for a convolution with a dilation, all of whose channels are in one group."""
    return (
        type(layer) is keras.layers.Conv2D
        and max(layer.dilation_rate) > 1
        and layer.groups == 1
        and layer.padding in ("same", "valid")
        and layer.data_format == "channels_last"
    )


def _depthwise(layer: keras.layers.Conv2D, use_bias: bool) -> keras.layers.DepthwiseConv2D:
    """The same convolution. Its kernel `[h, w, C, M]` is `layer`'s `[h, w, 1, C * M]` in another shape."""
    return keras.layers.DepthwiseConv2D(
        layer.kernel_size,
        layer.strides,
        layer.padding,
        depth_multiplier=layer.filters // layer.groups,
        dilation_rate=layer.dilation_rate,
        activation=layer.activation,
        use_bias=use_bias,
        name=layer.name,
        dtype=layer.dtype_policy,
    )


def _pairs(model: keras.Model) -> Iterator[tuple[keras.layers.Layer, keras.layers.Layer]]:
    """Each convolution that can be folded, with the normalisation after it."""
    makers = {id(layer.output): layer for layer in model.operations if _is_convolution(layer)}
    readers = collections.Counter(id(tensor) for tensor in model.outputs)
    for layer in model.operations:
        for node in layer._inbound_nodes:
            readers.update(id(tensor) for tensor in node.input_tensors)
    for layer in model.operations:
        if hasattr(layer, "operations"):
            yield from _pairs(layer)
        if type(layer) in _NORMALISATIONS and _is_called_once(layer):
            maker = makers.get(id(layer.input))
            if maker is not None and readers[id(layer.input)] == 1 and layer.axis in (-1, 3):
                yield maker, layer


def _is_convolution(layer: keras.layers.Layer) -> bool:
    """True for a convolution without an activation, which is used at one place."""
    return (
        type(layer) in (keras.layers.Conv2D, keras.layers.DepthwiseConv2D)
        and layer.activation is keras.activations.linear
        and layer.data_format == "channels_last"
        and _is_called_once(layer)
    )


def _is_called_once(layer: keras.layers.Layer) -> bool:
    return len(layer._inbound_nodes) == 1


def _weights(
    convolution: keras.layers.Layer, normalisation: keras.layers.BatchNormalization
) -> list[np.ndarray]:
    """Kernel and bias of both layers together. They are computed in float64, since the variance can be tiny."""
    kernel, *bias = (np.float64(values) for values in convolution.get_weights())
    statistics = (normalisation.moving_mean, normalisation.moving_variance)
    mean, variance = (np.float64(values) for values in statistics)
    scale = 1 / np.sqrt(variance + normalisation.epsilon)
    if normalisation.scale:
        scale *= np.float64(normalisation.gamma)
    shift = (sum(bias) - mean) * scale
    if normalisation.center:
        shift += np.float64(normalisation.beta)
    depthwise = isinstance(convolution, keras.layers.DepthwiseConv2D)
    # The last two lengths of a depthwise kernel are the channels of the input and their multiplier.
    kernel *= scale.reshape(kernel.shape[-2:]) if depthwise else scale
    return [kernel.astype(np.float32), shift.astype(np.float32)]
