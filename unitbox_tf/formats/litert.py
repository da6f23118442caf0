"""A detector's network as a LiteRT (TensorFlow Lite) file, float16 or int8; `numpy_decoder` is the rest.

The file holds the network up to its heads. Up-sampling and decoding are left to `numpy_decoder`, since
with them inside the file would work at one size of photos only: LiteRT's operators for them have their
sizes fixed. So the input can be resized (`Interpreter.resize_tensor_input`) to any multiples of 32; as
stored it is square, of `max_side`, for runtimes and accelerators that want one size.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import keras
import numpy as np
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from unitbox_tf import formats
from unitbox_tf.config import DecodeConfig
from unitbox_tf.formats import numpy_decoder, runtimes
from unitbox_tf.network.model import STRIDE

Precision = Literal["float16", "int8"]


def save(
    model: keras.Model,
    decode: DecodeConfig,
    class_names: Sequence[str],
    path: str | Path,
    card: str = "",
    *,
    precision: Precision = "float16",
    calibration: Iterable[np.ndarray] = (),
) -> None:
    """Writes the network of `model` as a LiteRT file, and beside it `numpy_decoder.py`, which decodes.

    Input: an image float32 `[1, H, W, 3]`, as `numpy_decoder.preprocess` makes it, H and W multiples of
    32. Outputs: the confidence logits and the distances, as the heads give them, before up-sampling. Class names,
    settings and model card are in the file, as in any zip archive, under the names in `runtimes`.

    Args:
        model: from `unitbox_tf.model.unitbox`.
        decode: the settings; its `max_side` is the size of the input as stored.
        class_names: of the model's confidence maps.
        path: the file.
        card: the model card.
        precision: of the weights. With int8, network and activations are computed in 8-bit integers.
        calibration: RGB images uint8 `[H, W, 3]`, from which int8 learns the range of each activation.

    Raises:
        ValueError: the decoder is not `peaks`, or there are no photos for int8.
    """
    path = Path(path)
    formats.check_peaks(decode, "LiteRT")
    side = decode.max_side + -decode.max_side % STRIDE
    shown = [_shown(photo, side) for photo in calibration]
    if precision == "int8" and not shown:
        raise ValueError("Expected photos for calibration with int8. Received: none")
    network = heads(model)
    spec = tf.TensorSpec([1, side, side, 3], tf.float32, "image")
    function = tf.function(network, input_signature=[spec]).get_concrete_function()
    # Else the converter makes resource variables of the weights, which LiteRT leaves uninitialised.
    frozen = convert_variables_to_constants_v2(function)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([frozen], network)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if precision == "float16":
        converter.target_spec.supported_types = [tf.float16]
    else:
        converter.representative_dataset = lambda: ([image] for image in shown)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    content = _with_files(converter.convert(), runtimes.description(class_names, decode, card))
    decoder = Path(numpy_decoder.__file__)
    formats.write(path.parent / decoder.name, decoder.read_bytes())
    formats.write(path, content)


def heads(model: keras.Model) -> keras.Model:
    """The network from what `model.Preprocess` gives to `[confidence, distances]`, which are not up-sampled.

    Float16 would round the colours that are subtracted there, so the decoder does that, too.
    """
    names = ("confidence_head", "distances_head")
    outputs = [model.get_layer(name).output for name in names]
    return keras.Model(model.get_layer("preprocess").output, outputs)


def _shown(photo: np.ndarray, side: int) -> np.ndarray:
    """A photo as the network sees it, `[1, side, side, 3]`."""
    shrink = side / max(photo.shape[:2])
    height, width = (max(1, round(length * shrink)) for length in photo.shape[:2])
    seen = numpy_decoder.preprocess(numpy_decoder.resize(photo, height, width))
    bottom, right = (side - length for length in seen.shape[:2])
    return np.pad(seen, [(0, bottom), (0, right), (0, 0)])[None]


def _with_files(model: bytes, files: dict[str, str]) -> bytes:
    """The model with files at its end, as an archive: TensorFlow Lite's way to keep labels with a model."""
    content = io.BytesIO()
    content.write(model)
    with zipfile.ZipFile(content, "a") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return content.getvalue()
