"""A detector as a SavedModel, decoding included, for TensorFlow and TensorFlow Serving."""

from __future__ import annotations

import dataclasses
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from unitbox_tf.config import DecodeConfig
from unitbox_tf.detect.graph import ENCODED, IMAGES, InferenceModule
from unitbox_tf.formats.runtimes import MODEL_CARD

WARM_UP_FILE = "tf_serving_warmup_requests"  # in `assets.extra`: where TensorFlow Serving looks
WARM_UP_SIZES = ((480, 640), (640, 480))  # heights and widths of the photos in warm-up records


def save(
    model: keras.Model,
    decode: DecodeConfig,
    class_names: Sequence[str],
    path: str | Path,
    card: str = "",
) -> None:
    """Writes `model` as a SavedModel that opens where this package is not installed.

    Signatures, all of which return what `InferenceModule` describes: `serving_default` and `images`
    take uint8 RGB images `[B, H, W, 3]` of any size, `encoded` encoded JPEG or PNG photos `[B]`;
    `images_with_options` and `encoded_with_options` take `inference.OPTIONS`, too, whose defaults stand
    in the signature. `heatmaps` returns what the network predicts. The functions `detect` and
    `detect_encoded` are the same for Python, where TensorFlow fills in defaults of functions only.

    The functions `class_names`, `decode_config` (JSON) and `model_card` tell what the model is.
    `assets.extra` has warm-up requests for TensorFlow Serving, and the model card as a file.

    The folder appears complete or not at all; an earlier export in its place is replaced when the new one
    is complete.

    Raises:
        ValueError: `path` holds something else, which is left as it is.
    """
    path = Path(path)
    is_export = (path / "saved_model.pb").is_file()
    if path.is_symlink():
        raise ValueError(f"{path} is a link: it is left as it is. Name the folder itself.")
    if path.exists() and not is_export and not (path.is_dir() and not any(path.iterdir())):
        raise ValueError(
            f"{path} exists and is no SavedModel: it is left as it is. Name a new folder."
        )
    module = InferenceModule(model, decode)
    module.class_names = _constant(list(class_names))
    module.decode_config = _constant(json.dumps(dataclasses.asdict(decode)))
    module.model_card = _constant(card)

    def encoded(encoded: tf.Tensor) -> dict[str, tf.Tensor]:
        return module.detect_encoded(encoded)

    signatures = {
        "serving_default": module.detect_images,
        "images": module.detect_images,
        "images_with_options": module.detect,
        "encoded": tf.function(encoded, input_signature=[ENCODED]),
        "encoded_with_options": module.detect_encoded,
        "heatmaps": module.heatmaps,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}-") as folder:
        complete = Path(folder) / path.name
        tf.saved_model.save(module, str(complete), signatures=signatures)
        extra = complete / "assets.extra"
        extra.mkdir()
        (extra / MODEL_CARD).write_text(card, encoding="utf-8")
        with tf.io.TFRecordWriter(str(extra / WARM_UP_FILE)) as writer:
            for record in warm_up_records():
                writer.write(record)
        if path.exists():  # moved aside, and deleted with the temporary folder
            os.replace(path, Path(folder) / "earlier")
        os.replace(complete, path)


def _constant(value: str | list[str]) -> tf.types.experimental.PolymorphicFunction:
    """A function without arguments that returns `value`: how a SavedModel keeps text."""
    return tf.function(lambda: tf.constant(value), input_signature=[])


def warm_up_records() -> list[bytes]:
    """Requests, a serialized `PredictionLog` each, that TensorFlow Serving runs before it answers the first client.

    Source: TensorFlow Serving, "SavedModel Warmup".
    """
    # Imported here: writing a SavedModel is the only thing that needs it.
    from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

    records = []
    for height, width in WARM_UP_SIZES:
        image = np.full((height, width, 3), 127, np.uint8)
        inputs = {
            "serving_default": (IMAGES.name, image[None]),
            "images": (IMAGES.name, image[None]),
            "encoded": (ENCODED.name, [tf.io.encode_jpeg(image).numpy()]),
        }
        for signature, (name, value) in inputs.items():
            request = predict_pb2.PredictRequest()
            request.model_spec.name = "unitbox"
            request.model_spec.signature_name = signature
            request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
            log = prediction_log_pb2.PredictionLog()
            log.predict_log.request.CopyFrom(request)
            records.append(log.SerializeToString())
    return records
