"""A detector as one ONNX file, from an image of any size to boxes. Decoding (`peaks`) is included.

ONNX Runtime opens the file. It is optional: `pip install 'unitbox_tf[onnx]'`. Opening needs no TensorFlow.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from unitbox_tf import archives, files, formats, images, optional
from unitbox_tf.config import DecodeConfig
from unitbox_tf.detect import padding
from unitbox_tf.formats import CLASS_NAMES, DECODE_CONFIG, Exported, onnx_check
from unitbox_tf.limits import MAX_DETECTIONS, MAX_WEIGHTS_BYTES
from unitbox_tf.records import Detections

if TYPE_CHECKING:
    import tensorflow as tf

OPSET = 18
OUTPUTS = {"boxes", "scores", "classes", "num_detections"}
# Settings that are optional inputs of the file, and their types.
OPTIONS = {"score_threshold": np.float32, "nms_iou": np.float32, "max_detections": np.int32}


def save(
    model: Any, path: str | Path, card: str = "", *, decode: DecodeConfig | None = None
) -> None:
    """Writes `model` as an ONNX file, for ONNX Runtime and other programs that read ONNX.

    Inputs: `images` uint8 RGB `[B, H, W, 3]` of any size, and optionally `OPTIONS`. The outputs are
    those of `InferenceModule`. Class names, settings and model card are in the metadata, under the keys
    `CLASS_NAMES`, `DECODE_CONFIG` and `MODEL_CARD` of `formats`.

    Args:
        model: see `formats.Format`.
        path: the file.
        card: the model card.
        decode: settings that replace those of the model.

    Raises:
        ValueError: the decoder does not run in ONNX. `ellipse` does not: it has a loop that the
            converter cannot write.
        ImportError: tf2onnx is not installed.
    """
    decode = decode or model.decode
    formats.check_decoder(decode, FORMAT)
    tf2onnx = optional.load("tf2onnx", "onnx", "exporting to ONNX")
    importlib.import_module("tf2onnx.convert")
    import tensorflow as tf

    from unitbox_tf.detect import decoders, graph
    from unitbox_tf.formats import onnx_graph

    module = onnx_graph.module(model, decode)

    def detect(
        images: tf.Tensor, score_threshold: tf.Tensor, nms_iou: tf.Tensor, max_detections: tf.Tensor
    ) -> graph.Outputs:
        # ONNX has no operator that refuses a value.
        most = tf.clip_by_value(max_detections, 1, MAX_DETECTIONS)
        given = dict(zip(OPTIONS, (score_threshold, nms_iou, most), strict=True))
        return module.decoded(images, decoders.with_tensors(decode, **given))

    specs = [graph.IMAGES, *(tf.TensorSpec([], dtype, name) for name, dtype in OPTIONS.items())]
    with _garbage_collected():
        proto, _ = tf2onnx.convert.from_function(
            tf.function(detect, input_signature=specs, autograph=False),
            input_signature=specs,
            opset=OPSET,
        )
    onnx_graph.state_padding(proto.graph)
    if module.stride > 1:
        onnx_graph.simplify(proto.graph, onnx_graph.count_enlargements(model, decode))
    _give_defaults(proto, decode)
    for key, text in formats.description(model.class_names, decode, card).items():
        proto.metadata_props.add(key=key, value=text)
    proto.doc_string = "UnitBox detector: RGB images in, boxes x0, y0, x1, y1 in their pixels out"
    files.write(path, proto.SerializeToString())


@contextlib.contextmanager
def _garbage_collected() -> Iterator[None]:
    """Lets Python collect the garbage of tf2onnx while it converts: many copies of the weights, in cycles.

    Python collects old garbage when there are a quarter more old objects. In a program with millions of objects,
    that is never: converting took 9.7 GB instead of 4. So the objects that are there do not count meanwhile.
    """
    frozen_by_us = gc.get_freeze_count() == 0
    if frozen_by_us:
        gc.freeze()
    gc.collect()
    try:
        yield
    finally:
        if frozen_by_us:
            gc.unfreeze()
        gc.collect()


def _give_defaults(proto: Any, decode: DecodeConfig) -> None:
    """Makes inputs optional: an input with the name of a constant may be left out, and then has its value."""
    numpy_helper = importlib.import_module("onnx.numpy_helper")
    for name, dtype in OPTIONS.items():
        value = np.array(getattr(decode, name), dtype)
        proto.graph.initializer.append(numpy_helper.from_array(value, name))


def open(path: Path, *, trust: bool = False) -> Exported:
    """Opens a file that `save` wrote; see `formats.open_exported` for errors and `onnx_check` for what it may hold."""
    onnxruntime = optional.load("onnxruntime", "onnx", f"{path}: opening it")
    content = files.read(path, MAX_WEIGHTS_BYTES)
    onnx_check.check(path, content)
    with archives.reading(path, "an ONNX file"):
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # no warning about inputs with defaults, which are intended
        options.add_session_config_entry("session.load_model_format", "ONNX")
        # Threads that wait for work would spin, and take the processors from whatever reads the next image and from
        # other detectors: for a light network on a busy machine, half as much time of processors again for .93 of
        # the time of an image.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        session = onnxruntime.InferenceSession(
            content,
            options,
            providers=["CPUExecutionProvider"],
            enable_fallback=0,  # it would print errors, and try again
            read_config_from_model=0,
        )
        metadata = session.get_modelmeta().custom_metadata_map
        try:
            texts = metadata[CLASS_NAMES], metadata[DECODE_CONFIG]
        except KeyError as error:
            raise formats.foreign(path, "an ONNX file", error) from error
        names, decode = formats.described(path, *texts)
        outputs = [output.name for output in session.get_outputs()]
        given = [each.name for each in session.get_inputs()]
        optional_ = [each.name for each in session.get_overridable_initializers()]
        if given != ["images"] or set(OPTIONS) - set(optional_) or set(outputs) != OUTPUTS:
            why = f"it has the inputs {[*given, *optional_]!r:.200}, or other outputs"
            raise formats.foreign(path, "an ONNX file", why)

    def detect_batch(batch: np.ndarray, decode: DecodeConfig) -> list[Detections]:
        options = {name: np.array(getattr(decode, name), dtype) for name, dtype in OPTIONS.items()}
        found = session.run(outputs, {"images": batch, **options})
        sizes = [batch.shape[1:3]] * len(batch)
        return padding.unpad(dict(zip(outputs, found, strict=True)), sizes)

    def detect(image: np.ndarray, decode: DecodeConfig) -> Detections:
        return detect_batch(image[None], decode)[0]

    return Exported(detect, names, decode, tuple(OPTIONS), images.decode_with_pillow, detect_batch)


FORMAT = formats.Format("onnx", ".onnx", save, open, engine="onnx")
