"""A detector's network as a LiteRT (TensorFlow Lite) file, float16 or int8; `numpy_decoder` does the rest.

The file holds the network up to its heads. Up-sampling and decoding are left to `numpy_decoder`: LiteRT's
operators for them have fixed sizes, so a file with them would work for one size of images only. Without
them, the input can be resized (`Interpreter.resize_tensor_input`) to any multiples of the stride. The
stored input is a square of `max_side`, for runtimes and accelerators that need one size.

LiteRT opens the file. It is optional: `pip install 'unitbox_tf[litert]'`. Opening needs no TensorFlow.
"""

from __future__ import annotations

import dataclasses
import functools
import io
import json
import os
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from unitbox_tf import archives, files, formats, images, optional
from unitbox_tf import config as configs
from unitbox_tf.archives import Unusable
from unitbox_tf.config import DecodeConfig
from unitbox_tf.formats import (
    CLASS_NAMES,
    DECODE_CONFIG,
    MODEL_CARD,
    Exported,
    litert_check,
    numpy_decoder,
)
from unitbox_tf.limits import MAX_SIDE, MAX_WEIGHTS_BYTES
from unitbox_tf.records import Detections

if TYPE_CHECKING:
    import keras

Precision = Literal["float16", "int8"]

PREPROCESSING = "preprocessing.json"  # in the file: the input that the network expects
HEATMAPS = "heatmaps.json"  # in the file: the meaning of its outputs
OPTIONS = (
    "max_side",
    "scales",
    "largest_object",
    "score_threshold",
    "nms_iou",
    "max_detections",
)  # settings that `numpy_decoder` uses


def save(
    model: Any,
    path: str | Path,
    card: str = "",
    *,
    decode: DecodeConfig | None = None,
    precision: Precision = "float16",
    calibration: Iterable[np.ndarray] = (),
) -> None:
    """Writes the network of `model` as a LiteRT file, and beside it `numpy_decoder.py`, which decodes.

    Input: an image float32 `[1, H, W, 3]` from `numpy_decoder.preprocess`, where H and W are multiples of
    the backbone's stride. Outputs: the confidence logits and the distances of the heads, before up-sampling, or
    before the exponential where the maps have a stride. The file is also a zip archive, which holds class names,
    settings and model card under the names `CLASS_NAMES`, `DECODE_CONFIG` and `MODEL_CARD` of `formats`, the
    preprocessing as `PREPROCESSING`, and the stride of the maps as `HEATMAPS`; `numpy_decoder.detect` explains both.

    Args:
        model: see `formats.Format`.
        path: the file.
        card: the model card.
        decode: settings that replace those of the model. `max_side` is the size of the stored input.
        precision: the number type of the weights. With int8, the network computes in 8-bit integers.
        calibration: RGB images uint8 `[H, W, 3]` that measure the range of each activation for int8.

    Raises:
        ValueError: the decoder does not run in LiteRT, or there are no images for int8.
    """
    path = Path(path)
    decode = decode or model.decode
    formats.check_decoder(decode, FORMAT)
    preprocessing = {
        "stride": model.backbone.stride,
        **dataclasses.asdict(model.backbone.preprocessing),
    }
    side = decode.max_side + -decode.max_side % model.backbone.stride
    shown = [_shown(image, side, preprocessing) for image in calibration]
    if precision == "int8" and not shown:
        raise ValueError("Expected images for calibration with int8. Received: none")
    inside = formats.description(model.class_names, decode, card)
    inside[PREPROCESSING] = json.dumps(preprocessing)
    inside[HEATMAPS] = json.dumps(meaning(model))
    content = _with_files(_converted(heads(model), side, precision, shown), inside)
    decoder = Path(numpy_decoder.__file__)
    files.write(path.parent / decoder.name, decoder.read_bytes())
    files.write(path, content)


def heads(model: keras.Model) -> keras.Model:
    """The network from preprocessed images to `[confidence, distances]`, without up-sampling.

    Preprocessing is left out, because float16 would round the mean colour that it subtracts.
    """
    import keras

    from unitbox_tf.network import folding, heatmaps, layers

    model = folding.folded(model)
    outputs = [model.get_layer(name).output for name in heatmaps.HEADS]
    network = keras.Model(model.get_layer(heatmaps.PREPROCESS).output, outputs)

    def copied(layer: keras.layers.Layer) -> keras.layers.Layer:
        return layers.Double(name=layer.name) if isinstance(layer, layers.Enlarge) else layer

    return keras.models.clone_model(network, clone_function=copied)


def meaning(model: Any) -> dict[str, Any]:
    """What the outputs of `heads` mean, as `numpy_decoder.detect` takes it."""
    stride = getattr(model, "map_stride", 1)
    return {"stride": stride, "unit": model.get_layer("distances").unit if stride > 1 else 1.0}


def _converted(
    network: keras.Model, side: int, precision: Precision, shown: list[np.ndarray]
) -> bytes:
    """The network as LiteRT holds it, for an input of `side` pixels; `shown` calibrates int8."""
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    spec = tf.TensorSpec([1, side, side, 3], tf.float32, "image")
    traced = tf.function(network, input_signature=[spec], autograph=False)
    function = traced.get_concrete_function()
    # Otherwise the converter makes the weights resource variables, which LiteRT leaves uninitialised.
    frozen = convert_variables_to_constants_v2(function)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([frozen], network)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if precision == "float16":
        converter.target_spec.supported_types = [tf.float16]
    else:
        converter.representative_dataset = lambda: ([image] for image in shown)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converted: bytes = converter.convert()
    return converted


def _shown(image: np.ndarray, side: int, preprocessing: Mapping[str, Any]) -> np.ndarray:
    """An image as the network sees it, `[1, side, side, 3]`."""
    shrink = side / max(image.shape[:2])
    height, width = (max(1, round(length * shrink)) for length in image.shape[:2])
    seen = numpy_decoder.preprocess(numpy_decoder.resize(image, height, width), preprocessing)
    bottom, right = (side - length for length in seen.shape[:2])
    return np.pad(seen, [(0, bottom), (0, right), (0, 0)])[None]


def _with_files(model: bytes, inside: dict[str, str]) -> bytes:
    """The model with files at its end, as an archive: TensorFlow Lite's way to keep labels with a model."""
    content = io.BytesIO()
    content.write(model)
    with zipfile.ZipFile(content, "a") as archive:
        for name, text in inside.items():
            archive.writestr(name, text)
    return content.getvalue()


def open(path: Path, *, trust: bool = False) -> Exported:
    """Opens a file that `save` wrote; see `formats.open_exported` for errors. `litert_check` checks it."""
    content = files.read(path, MAX_WEIGHTS_BYTES)
    inside = _files(path, content)
    names, decode = formats.described(path, inside[CLASS_NAMES], inside[DECODE_CONFIG])
    preprocessing = _preprocessing(path, inside[PREPROCESSING])
    heatmaps = _heatmaps(path, inside[HEATMAPS])
    opened = interpreter(path, content)
    with archives.reading(path, "a LiteRT file"):
        shapes = sorted(int(each["shape"][-1]) for each in opened.get_output_details())
    if shapes != sorted([len(names), 4]):
        why = f"its outputs have {shapes} channels for {len(names)} classes"
        raise formats.foreign(path, "a LiteRT file", why)
    run = network(opened)

    def detect(image: np.ndarray, decode: DecodeConfig) -> Detections:
        settings = dataclasses.asdict(decode)
        found = numpy_decoder.detect(run, image, settings, preprocessing, heatmaps)
        return Detections(
            found["boxes"],
            found["scores"].astype(np.float32),
            found["classes"].astype(np.int32),
            (image.shape[0], image.shape[1]),
        )

    return Exported(detect, names, decode, OPTIONS, images.decode_with_pillow)


def _files(path: Path, content: bytes) -> dict[str, bytes]:
    """The files at the end of the model."""
    known = {CLASS_NAMES, DECODE_CONFIG, MODEL_CARD, PREPROCESSING, HEATMAPS}
    try:
        inside = archives.members(path, content, known.__contains__)
    except Unusable as error:
        raise formats.foreign(path, "a LiteRT file", error) from error
    if absent := known - {MODEL_CARD} - set(inside):
        raise formats.foreign(path, "a LiteRT file", f"it has no {min(absent)}")
    return inside


def _preprocessing(path: Path, content: bytes) -> dict[str, Any]:
    """The input that the network expects, as `numpy_decoder.preprocess` takes it."""
    where = f"{path}: {PREPROCESSING}"
    values = configs.parse(configs.decoded(content, where), where)
    try:
        stride, channels = values["stride"], values["channels"]
        numbers = [*values["mean"], values["scale"]]
        usable = type(stride) is int and 1 <= stride <= MAX_SIDE and channels in ("rgb", "bgr")
        usable = usable and len(numbers) == 4 and bool(np.isfinite(numbers).all())
    except (KeyError, TypeError, ValueError, OverflowError):
        usable = False
    if not usable:
        raise ValueError(
            f"{where}: expected stride, channels, mean and scale. Received: {values!r:.200}"
        )
    return {"stride": stride, "channels": channels, "mean": numbers[:3], "scale": numbers[3]}


def _heatmaps(path: Path, content: bytes) -> dict[str, Any]:
    """The meaning of the outputs, as `numpy_decoder.detect` takes it."""
    where = f"{path}: {HEATMAPS}"
    values = configs.parse(configs.decoded(content, where), where)
    try:
        stride, unit = values["stride"], float(values["unit"])
        usable = type(stride) is int and 1 <= stride <= MAX_SIDE and 0 < unit <= MAX_SIDE
    except (KeyError, TypeError, ValueError, OverflowError):
        usable = False
    if not usable:
        raise ValueError(f"{where}: expected stride and unit. Received: {values!r:.200}")
    return {"stride": stride, "unit": unit}


def interpreter(path: Path, content: bytes | None = None) -> Any:
    """LiteRT's interpreter of a file; see `formats.open_exported` for errors.

    Args:
        path: the file.
        content: its bytes, if they were read.
    """
    litert = optional.load("ai_edge_litert.interpreter", "litert", f"{path}: opening it")
    content = files.read(path, MAX_WEIGHTS_BYTES) if content is None else content
    litert_check.check(path, content)
    with archives.reading(path, "a LiteRT file"):
        opened = litert.Interpreter(model_content=content, num_threads=os.cpu_count())
        opened.allocate_tensors()
    return opened


def network(opened: Any) -> numpy_decoder.Network:
    """The network in an interpreter, for `numpy_decoder.detect`."""
    [image] = opened.get_input_details()

    def run(padded: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if tuple(opened.get_input_details()[0]["shape"]) != (1, *padded.shape):
            opened.resize_tensor_input(image["index"], [1, *padded.shape])
            opened.allocate_tensors()
        opened.set_tensor(image["index"], padded[None])
        opened.invoke()
        maps = {o["name"]: o["index"] for o in opened.get_output_details()}
        confidence, distances = sorted(maps)  # names end in :0 and :1
        return tuple(opened.get_tensor(maps[name])[0] for name in (confidence, distances))

    return run


FORMAT = formats.Format("litert", ".tflite", save, open, engine="numpy")
INT8 = formats.Format(
    "litert-int8",
    ".tflite",
    functools.partial(save, precision="int8"),
    open,
    engine="numpy",
    calibrated=True,
)
