"""A detector as one ONNX file: photo of any size in, boxes out, decoding (`peaks`) included."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from unitbox_tf import formats, optional
from unitbox_tf.config import DecodeConfig
from unitbox_tf.detect import decoders
from unitbox_tf.detect.graph import IMAGES, OPTIONS, InferenceModule, Outputs
from unitbox_tf.formats import runtimes

OPSET = 18


def save(
    model: keras.Model,
    decode: DecodeConfig,
    class_names: Sequence[str],
    path: str | Path,
    card: str = "",
) -> None:
    """Writes `model` as an ONNX file, for ONNX Runtime and what else reads ONNX.

    Input: `images` uint8 RGB `[B, H, W, 3]` of any size; `score_threshold`, `nms_iou` and
    `max_detections` may be left out. Outputs are those of `InferenceModule`. Class names, settings and
    model card are in the metadata, under the keys that `runtimes` names.

    Raises:
        ValueError: the decoder is not `peaks`: ONNX has no loop that this package's tools can make of
            the other.
        ImportError: tf2onnx is not installed.
    """
    path = Path(path)
    formats.check_peaks(decode, "ONNX")
    tf2onnx = optional.load("tf2onnx", "onnx", "exporting to ONNX")
    importlib.import_module("tf2onnx.convert")
    module = InferenceModule(model, decode, resize=resize_by_matrices)

    def detect(
        images: tf.Tensor, score_threshold: tf.Tensor, nms_iou: tf.Tensor, max_detections: tf.Tensor
    ) -> Outputs:
        given = dict(
            zip(runtimes.ONNX_OPTIONS, (score_threshold, nms_iou, max_detections), strict=True)
        )
        return module.decoded(images, decoders.with_tensors(decode, **given))

    specs = [IMAGES, *(tf.TensorSpec([], OPTIONS[name], name) for name in runtimes.ONNX_OPTIONS)]
    proto, _ = tf2onnx.convert.from_function(
        tf.function(detect, input_signature=specs), input_signature=specs, opset=OPSET
    )
    _give_defaults(proto, decode)
    for key, text in runtimes.description(class_names, decode, card).items():
        proto.metadata_props.add(key=key, value=text)
    proto.doc_string = "UnitBox detector: RGB images in, boxes x0, y0, x1, y1 in their pixels out"
    formats.write(path, proto.SerializeToString())


def _give_defaults(proto: Any, decode: DecodeConfig) -> None:
    """An input of the same name as a constant of the graph may be left out, and has its value then."""
    numpy_helper = importlib.import_module("onnx.numpy_helper")
    for name in runtimes.ONNX_OPTIONS:
        value = np.array(getattr(decode, name), OPTIONS[name].as_numpy_dtype)
        proto.graph.initializer.append(numpy_helper.from_array(value, name))


def resize_by_matrices(images: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """`inference.resize` as two products of matrices, for which ONNX has operators: an averaging one it has not."""
    shape = tf.shape(images)
    rows, columns = _weights(size[0], shape[1]), _weights(size[1], shape[2])
    x = tf.reshape(tf.cast(images, tf.float32), [shape[0], shape[1], shape[2] * 3])
    x = tf.reshape(tf.matmul(rows, x), [shape[0] * size[0], shape[2], 3])
    return tf.reshape(tf.matmul(columns, x), [shape[0], size[0], size[1], 3])


def _weights(new: tf.Tensor, old: tf.Tensor) -> tf.Tensor:
    """What each of `old` pixels contributes to each of `new` ones: triangles, `[new, old]`."""
    new, old = tf.cast(new, tf.float32), tf.cast(old, tf.float32)
    ratio = old / new
    offsets = (tf.range(new)[:, None] + 0.5) * ratio - (tf.range(old) + 0.5)
    weights = tf.maximum(1.0 - tf.abs(offsets) / tf.maximum(ratio, 1.0), 0.0)
    return weights / tf.reduce_sum(weights, axis=1, keepdims=True)
