"""Opens exported detectors of every format: what `Detector` needs of each.

ONNX and LiteRT run in libraries of their own, which are optional: `pip install 'unitbox_tf[onnx]'` and
`'unitbox_tf[litert]'`.
"""

from __future__ import annotations

import dataclasses
import json
import os
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from unitbox_tf import optional
from unitbox_tf.config import Config, DecodeConfig
from unitbox_tf.detect import decoders, graph
from unitbox_tf.formats import numpy_decoder
from unitbox_tf.records import Detections

ONNX_SUFFIX, LITERT_SUFFIX = ".onnx", ".tflite"
SUFFIXES = (ONNX_SUFFIX, LITERT_SUFFIX)
# Fields of the settings that are inputs of exported files, in which they may be left out.
ONNX_OPTIONS = ("score_threshold", "nms_iou", "max_detections")
# What an exported file says of itself: keys of the metadata in ONNX, names of files in LiteRT.
CLASS_NAMES, DECODE_CONFIG, MODEL_CARD = "class_names.json", "decode_config.json", "model_card.md"


def description(class_names: Sequence[str], decode: DecodeConfig, card: str) -> dict[str, str]:
    """What an exported ONNX or LiteRT file says of itself, as text by `CLASS_NAMES` and the other keys."""
    settings = json.dumps(dataclasses.asdict(decode))
    return {CLASS_NAMES: json.dumps(list(class_names)), DECODE_CONFIG: settings, MODEL_CARD: card}


@dataclasses.dataclass(frozen=True)
class Exported:
    """An exported file that is open.

    Attributes:
        detect: maps an RGB image uint8 `[H, W, 3]` and settings to detections in its pixels.
        class_names: of the classes in `Detections.classes`.
        decode: the settings with which it was exported.
        options: fields of `decode` that `detect` heeds; it has the others inside.
    """

    detect: Callable[[np.ndarray, DecodeConfig], Detections]
    class_names: tuple[str, ...]
    decode: DecodeConfig
    options: tuple[str, ...]


def open_exported(path: Path) -> Exported | None:
    """The exported detector in `path`, a SavedModel's folder or a file; None if it is neither.

    Raises:
        ValueError: `path` is such a file, but not one that this package exported.
        ImportError: what opens files of this format is not installed.
    """
    if (path / "saved_model.pb").is_file():
        return open_saved_model(path)
    if path.is_file() and path.suffix in SUFFIXES:
        return {ONNX_SUFFIX: open_onnx, LITERT_SUFFIX: open_litert}[path.suffix](path)
    return None


def open_saved_model(path: Path) -> Exported:
    """A SavedModel of `export.saved_model`; see `open_exported` for errors."""
    loaded = tf.saved_model.load(str(path))
    try:
        names = json.dumps([name.decode() for name in loaded.class_names().numpy()])
        decode = loaded.decode_config().numpy()
        detect_with = loaded.signatures["images_with_options"]
    except (KeyError, AttributeError) as error:
        raise _foreign(path, "a SavedModel", error) from error

    def detect(image: np.ndarray, decode: DecodeConfig) -> Detections:
        options = {
            name: tf.constant(getattr(decode, name), dtype) for name, dtype in graph.OPTIONS.items()
        }
        found = detect_with(images=tf.constant(image[None]), **options)
        return decoders.unpad(found, [image.shape[:2]])[0]

    return Exported(detect, *_described(path, names, decode), tuple(graph.OPTIONS))


def open_onnx(path: Path) -> Exported:
    """An ONNX file of `export.onnx`; see `open_exported` for errors."""
    onnxruntime = optional.load("onnxruntime", "onnx", f"{path}: opening it")
    try:
        quiet = onnxruntime.SessionOptions()
        quiet.log_severity_level = 3  # that inputs have defaults is what is wanted, no warning
        session = onnxruntime.InferenceSession(path, quiet, providers=["CPUExecutionProvider"])
        metadata = session.get_modelmeta().custom_metadata_map
        described = _described(path, metadata[CLASS_NAMES], metadata[DECODE_CONFIG])
    except KeyError as error:
        raise _foreign(path, "an ONNX file", error) from error
    except Exception as error:  # onnxruntime has no public class of errors
        raise ValueError(f"{path}: expected an ONNX file: {error}") from error
    outputs = [output.name for output in session.get_outputs()]

    def detect(image: np.ndarray, decode: DecodeConfig) -> Detections:
        options = {
            name: np.array(getattr(decode, name), graph.OPTIONS[name].as_numpy_dtype)
            for name in ONNX_OPTIONS
        }
        found = session.run(outputs, {"images": image[None], **options})
        return decoders.unpad(dict(zip(outputs, found, strict=True)), [image.shape[:2]])[0]

    return Exported(detect, *described, ONNX_OPTIONS)


def open_litert(path: Path) -> Exported:
    """A LiteRT file of `export.litert`; see `open_exported` for errors."""
    try:
        with zipfile.ZipFile(path) as content:
            described = _described(path, content.read(CLASS_NAMES), content.read(DECODE_CONFIG))
    except (zipfile.BadZipFile, KeyError) as error:
        raise _foreign(path, "a LiteRT file", error) from error
    network = litert_network(litert_interpreter(path))

    def detect(image: np.ndarray, decode: DecodeConfig) -> Detections:
        found = numpy_decoder.detect(network, image, dataclasses.asdict(decode))
        return Detections(
            found["boxes"],
            found["scores"].astype(np.float32),
            found["classes"].astype(np.int32),
            (image.shape[0], image.shape[1]),
        )

    options = ("max_side", "scales", "largest_object", "score_threshold", "nms_iou")
    return Exported(detect, *described, (*options, "max_detections"))


def litert_interpreter(path: Path) -> Any:
    """LiteRT's interpreter of a file; see `open_exported` for errors."""
    litert = optional.load("ai_edge_litert.interpreter", "litert", f"{path}: opening it")
    try:
        interpreter = litert.Interpreter(str(path), num_threads=os.cpu_count())
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"{path}: expected a LiteRT file: {error}") from error
    return interpreter


def litert_network(interpreter: Any) -> numpy_decoder.Network:
    """The network in an interpreter, for `numpy_decoder.detect`."""
    [image] = interpreter.get_input_details()

    def network(padded: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if tuple(interpreter.get_input_details()[0]["shape"]) != (1, *padded.shape):
            interpreter.resize_tensor_input(image["index"], [1, *padded.shape])
            interpreter.allocate_tensors()
        interpreter.set_tensor(image["index"], padded[None])
        interpreter.invoke()
        maps = {o["name"]: o["index"] for o in interpreter.get_output_details()}
        confidence, distances = sorted(maps)  # names end in :0 and :1
        return tuple(interpreter.get_tensor(maps[n])[0] for n in (confidence, distances))

    return network


def _described(
    path: Path, class_names: str | bytes, decode: str | bytes
) -> tuple[tuple[str, ...], DecodeConfig]:
    """Class names and settings from the JSON in the file `path`."""
    inside = json.dumps({"decode": json.loads(decode)})
    return tuple(json.loads(class_names)), Config.from_json(inside, str(path)).decode


def _foreign(path: Path, kind: str, error: Exception) -> ValueError:
    return ValueError(f"{path}: {kind}, but none that unitbox_tf exported: {error}")
