"""The graph that `formats.onnx` writes: resizing that ONNX can do, and less work for runtimes on CPUs.

A network whose maps have a stride is light, and what is around it counts. So `module` does the same as
`graph.InferenceModule` with fewer operations, and `simplify` replaces what the converter writes by operators that
ONNX Runtime computes faster. Neither changes a result by more than rounding.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from unitbox_tf.config import DecodeConfig
from unitbox_tf.detect import decoders, graph
from unitbox_tf.network import folding, heatmaps, layers

_TWICE = "twice"  # the constant with the factors of enlarging


def module(model: Any, decode: DecodeConfig) -> graph.InferenceModule:
    """The detector `model` as a module to convert."""
    network = folding.folded(model)
    if getattr(model, "map_stride", 1) > 1:
        return _AtStride(model, decode, network)
    return graph.InferenceModule(model, decode, resize_by_matrices, network)


def resize_by_matrices(images: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """`graph.resize` as two products of matrices: ONNX has no operator that averages all covered pixels."""
    shape = tf.shape(images)
    rows, columns = _weights(size[0], shape[1]), _weights(size[1], shape[2])
    x = tf.reshape(tf.cast(images, tf.float32), [shape[0], shape[1], shape[2] * 3])
    x = tf.reshape(tf.matmul(rows, x), [shape[0], size[0], shape[2], 3])
    # Products with only three columns would take several times as long.
    x = tf.reshape(tf.transpose(x, [0, 1, 3, 2]), [shape[0] * size[0] * 3, shape[2]])
    x = tf.matmul(x, columns, transpose_b=True)
    return tf.transpose(tf.reshape(x, [shape[0], size[0], 3, size[1]]), [0, 1, 3, 2])


def _weights(new: tf.Tensor, old: tf.Tensor) -> tf.Tensor:
    """The share of each of `old` pixels in each of `new` ones: triangles, `[new, old]`.

    Places are whole numbers up to their difference: a runtime that computes in bfloat16 would round a place of 1,000 px
    by up to 2 px.
    """
    new, old = tf.cast(new, tf.int64), tf.cast(old, tf.int64)
    # The unit is half a pixel of both, divided by `new`.
    apart = (2 * tf.range(new)[:, None] + 1) * old - (2 * tf.range(old) + 1) * new
    reach = tf.cast(2 * tf.maximum(new, old), tf.float32)
    weights = tf.maximum(1.0 - tf.abs(tf.cast(apart, tf.float32)) / reach, 0.0)
    return weights / tf.reduce_sum(weights, axis=1, keepdims=True)


class _AtStride(graph.InferenceModule):
    """A detector whose maps have a stride. Images are padded where they need it; both heads are one convolution."""

    def __init__(self, model: Any, decode: DecodeConfig, network: keras.Model) -> None:
        super().__init__(model, decode)
        preprocess = network.get_layer(heatmaps.PREPROCESS)
        heads = [network.get_layer(name) for name in heatmaps.HEADS]
        self._preprocess, self._to_distances = preprocess, network.get_layer("distances")
        self._features = keras.Model(preprocess.output, heads[0].input)
        self._kernel = np.concatenate([head.kernel.numpy() for head in heads], axis=-1)
        self._bias = np.concatenate([head.bias.numpy() for head in heads])

    def heatmaps_at(self, images: tf.Tensor, scale: float | tf.Tensor) -> graph.Outputs:
        shape, stride = tf.shape(images), self.stride
        size = decoders.shown_size(shape[1], shape[2], self._decode.max_side, scale)
        features = tf.cast(self._features(self._seen(images, size)), tf.float32)
        maps = tf.nn.conv2d(features, self._kernel, 1, "VALID")
        # All numbers are positive, because ONNX rounds quotients of negative numbers in another way.
        height, width = ((size[i] + stride - 1) // stride for i in (0, 1))
        maps = (maps + self._bias)[:, :height, :width]
        return {"confidence": maps[..., :-4], "distances": self._to_distances(maps[..., -4:])}

    def _seen(self, images: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
        """The images as the network gets them: resized, preprocessed and padded."""
        layer = self._preprocess
        if any(layer.mean):
            return layer(resize_by_matrices(images, size))
        bottom, right = ((layer.stride - size[i] % layer.stride) % layer.stride for i in (0, 1))
        same = tf.reduce_all(tf.equal(size, tf.shape(images)[1:3]))

        def unchanged() -> tf.Tensor:
            return tf.cast(images, tf.float32)

        def padded() -> tf.Tensor:
            x = tf.cond(same, unchanged, lambda: resize_by_matrices(images, size))
            return tf.pad(x, [[0, 0], [0, bottom], [0, right], [0, 0]])

        # The products take twice as long as a light network, and padding by nothing as long as a convolution.
        x = tf.cond(same & (bottom + right == 0), unchanged, padded)
        x = x[..., ::-1] if layer.channels == "bgr" else x
        return x if layer.scale == 1 else x * layer.scale


def count_enlargements(model: Any, decode: DecodeConfig) -> int:
    """How often the converted graph of a detector enlarges a map by `layers.Enlarge`: at each scale."""
    each = sum(isinstance(layer, layers.Enlarge) for layer in model.layers)
    return each * len(decode.scales)


def state_padding(proto: Any) -> None:
    """States the padding of convolutions with a dilation in a converted ONNX graph, in place.

    ONNX Runtime does not compute it for them.
    """
    for node in proto.node:
        old = _attributes(node) if node.op_type == "Conv" else {}
        dilations = old.get("dilations", [1])
        if old.get("auto_pad") == b"SAME_UPPER" and max(dilations) > 1:
            # TensorFlow has no dilation together with a stride, so the maps keep their size.
            totals = [
                d * (side - 1) for d, side in zip(dilations, old["kernel_shape"], strict=True)
            ]
            del old["auto_pad"]
            pads = [total // 2 for total in totals] + [-(-total // 2) for total in totals]
            _set(node, **old, pads=pads)


def simplify(proto: Any, enlargements: int) -> None:
    """Changes a converted ONNX graph of a network whose maps have a stride, in place; see the module.

    Args:
        proto: the graph.
        enlargements: how often it enlarges a map by `layers.Enlarge`. If it has other resizing of this kind, too, as a
            backbone of your own may, all of it stays as it is, since converted nodes do not tell where they come from.
    """
    resizing = [
        node
        for node in proto.node
        if node.op_type == "Resize" and _attributes(node)["mode"] == b"nearest"
    ]
    for node in resizing if len(resizing) == enlargements else []:
        _double(node)
    makers = {name: node for node in proto.node for name in node.output}
    constants = {each.name: each for each in proto.initializer}
    for node in list(proto.node):
        if node.op_type == "Conv" and node.input[1] in constants:
            before = makers.get(node.input[0])
            if before is not None and before.op_type == "Transpose":
                _read_interleaved(proto, before, node, constants[node.input[1]])
    proto.initializer.append(_array(np.array([1, 1, 2, 2], np.float32), _TWICE))
    _remove_unused(proto)


def _attributes(node: Any) -> dict[str, Any]:
    helper = importlib.import_module("onnx.helper")
    return {each.name: helper.get_attribute_value(each) for each in node.attribute}


def _set(node: Any, **attributes: Any) -> None:
    helper = importlib.import_module("onnx.helper")
    del node.attribute[:]
    node.attribute.extend(helper.make_attribute(name, attributes[name]) for name in attributes)


def _array(values: np.ndarray, name: str) -> Any:
    return importlib.import_module("onnx.numpy_helper").from_array(values, name)


def _double(node: Any) -> None:
    """Makes an enlargement (`layers.Enlarge`) a repetition by 2, which needs no sizes.

    ONNX Runtime does it without changing the layout of the map, and adds the other map in the convolution.
    """
    node.input[:] = [node.input[0], "", _TWICE]
    modes = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    _set(node, mode="nearest", **modes)


def _read_interleaved(proto: Any, transpose: Any, node: Any, kernel: Any) -> None:
    """Makes the first convolution read pixels as they lie in memory, as an image of one channel and width W * C.

    Its kernel and step are C times as wide. So the image is not transposed, which takes as long as this convolution.
    """
    arrays = importlib.import_module("onnx.numpy_helper")
    values, old = arrays.to_array(kernel), _attributes(node)
    filters, channels, height, width = values.shape
    steps, groups = old.get("strides", [1, 1]), old.get("group", 1)
    same = old.get("auto_pad") == b"SAME_UPPER"
    plain = same and groups == 1 and set(old.get("dilations", [1])) == {1}
    if not plain or _attributes(transpose)["perm"] != [0, 3, 1, 2]:
        return
    name = f"{node.output[0]}_interleaved"  # the kernel may be used at several scales
    wide = values.transpose(0, 2, 3, 1).reshape(filters, 1, height, width * channels)
    proto.initializer.append(_array(wide, name))
    place = list(proto.node).index(node)
    for each in reversed(_interleaved(transpose.input[0], name)):
        proto.node.insert(place, each)
    # Heights and widths are multiples of the steps, so the padding of "same" is known.
    around = [max(size - step, 0) for size, step in zip((height, width), steps, strict=True)]
    top, left = (total // 2 for total in around)
    bottom, right = around[0] - top, around[1] - left
    node.input[0], node.input[1] = f"{name}_image", name
    _set(
        node,
        kernel_shape=[height, width * channels],
        strides=[steps[0], steps[1] * channels],
        pads=[top, left * channels, bottom, right * channels],
    )


def _interleaved(values: str, name: str) -> list[Any]:
    """Nodes that turn `values` `[B, H, W, C]` into `[B, 1, H, W * C]`, called `name`_image."""
    helper = importlib.import_module("onnx.helper")
    parts = [f"{name}_{part}" for part in ("batch", "one", "height", "all")]
    # The shape is read off the values, although constants could say it: without a reader of its shape, OpenVINO loses
    # what an `If` gives when the graph runs for the first time.
    return [
        helper.make_node("Shape", [values], [parts[0]], start=0, end=1),
        helper.make_node("Constant", [], [parts[1]], value_ints=[1]),
        helper.make_node("Shape", [values], [parts[2]], start=1, end=2),
        helper.make_node("Constant", [], [parts[3]], value_ints=[-1]),
        helper.make_node("Concat", parts, [f"{name}_shape"], axis=0),
        helper.make_node("Reshape", [values, f"{name}_shape"], [f"{name}_image"]),
    ]


def _remove_unused(proto: Any) -> None:
    """Removes nodes and constants that nothing reads."""
    used = {each.name for each in proto.output}
    for node in reversed(list(proto.node)):
        if used.isdisjoint(node.output):
            proto.node.remove(node)
        else:
            used |= set(_inputs(node))
    for constant in list(proto.initializer):
        if constant.name not in used:
            proto.initializer.remove(constant)


def _inputs(node: Any) -> Iterator[str]:
    """Names that a node reads, also in its branches."""
    yield from node.input
    for each in node.attribute:
        for inner in (*([each.g] if each.HasField("g") else []), *each.graphs):
            for part in inner.node:
                yield from _inputs(part)
            yield from (output.name for output in inner.output)
