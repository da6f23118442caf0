"""A detector as a SavedModel, decoding included, for TensorFlow and TensorFlow Serving."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from unitbox_tf import archives, files, formats, images
from unitbox_tf.config import DecodeConfig
from unitbox_tf.detect import padding
from unitbox_tf.formats import MODEL_CARD, Exported, saved_graph
from unitbox_tf.records import Detections

if TYPE_CHECKING:
    import tensorflow as tf

MARKER = saved_graph.GRAPH_FILE  # the file that each SavedModel has
WARM_UP_FILE = "tf_serving_warmup_requests"  # in `assets.extra`, where TensorFlow Serving looks
WARM_UP_SIZES = ((480, 640), (640, 480))  # heights and widths of the images in warm-up records


def save(
    model: Any, path: str | Path, card: str = "", *, decode: DecodeConfig | None = None
) -> None:
    """Writes `model` as a SavedModel that opens where this package is not installed.

    All signatures return what `InferenceModule` describes. `images` takes uint8 RGB images `[B, H, W, 3]` of any
    size. `serving_default` and `encoded` take encoded images `[B]` of the formats that `image_graph.decode_image`
    lists.
    `images_with_options` and `encoded_with_options` take `graph.options()`, too; their defaults stand in the
    signature. Those of `encoded_with_options` are scalars or vectors `[B]`. `heatmaps` returns the heatmaps of the
    network. The functions `detect` and `detect_encoded` are the same for Python, where TensorFlow fills in defaults of
    functions only.

    The functions `class_names`, `decode_config` (JSON) and `model_card` describe the model, and `map_stride` gives the
    number of pixels of the image as shown from one point of the heatmaps to the next.
    `assets.extra` has warm-up requests for TensorFlow Serving, the model card as a file, and the SHA-256 of all
    files, `saved_graph.DIGESTS`.

    The folder appears complete or not at all. An earlier export is replaced when the new one is complete.

    Args:
        model: see `formats.Format`.
        path: the folder.
        card: the model card.
        decode: settings that replace those of the model.

    Raises:
        ValueError: `path` is something else than a SavedModel and is left as it is, or the decoder does
            not run in a SavedModel.
    """
    path = Path(path)
    decode = decode or model.decode
    formats.check_decoder(decode, FORMAT)
    is_export = (path / MARKER).is_file()
    if path.is_symlink():
        raise ValueError(f"{path} is a link: it is left as it is. Name the folder itself.")
    if path.exists() and not is_export and not (path.is_dir() and not any(path.iterdir())):
        raise ValueError(
            f"{path} exists and is no SavedModel: it is left as it is. Name a new folder."
        )
    import tensorflow as tf

    from unitbox_tf.detect.graph import ENCODED, InferenceModule
    from unitbox_tf.network import folding

    module = InferenceModule(model, decode, network=folding.folded(model))
    module.class_names = _constant(list(model.class_names))
    module.decode_config = _constant(json.dumps(dataclasses.asdict(decode)))
    module.model_card = _constant(card)
    module.map_stride = _constant(module.stride)

    def encoded(encoded: tf.Tensor) -> dict[str, tf.Tensor]:
        return module.detect_encoded(encoded)

    without_options = tf.function(encoded, input_signature=[ENCODED], autograph=False)
    signatures = {
        "serving_default": without_options,
        "images": module.detect_images,
        "images_with_options": module.detect,
        "encoded": without_options,
        "encoded_with_options": module.detect_encoded,
        "heatmaps": module.heatmaps,
    }
    try:
        with files.replacing(path) as partial:
            tf.saved_model.save(module, str(partial), signatures=signatures)
            extra = partial / "assets.extra"
            extra.mkdir()
            (extra / MODEL_CARD).write_text(card, encoding="utf-8")
            with tf.io.TFRecordWriter(str(extra / WARM_UP_FILE)) as writer:
                for record in warm_up_records():
                    writer.write(record)
            saved_graph.write_digests(partial)
    except tf.errors.OpError as error:  # "PATH; No space left on device [Op:SaveV2]"
        reason = error.message.rpartition("; ")[2].partition(" [Op:")[0]
        raise OSError(f"{path}: the SavedModel cannot be written: {reason}") from error


def _constant(value: str | list[str] | int) -> Any:
    """A function without arguments that returns `value`. In this way a SavedModel keeps text and numbers."""
    import tensorflow as tf

    return tf.function(lambda: tf.constant(value), input_signature=[], autograph=False)


def warm_up_records() -> list[bytes]:
    """Serialized `PredictionLog`s: requests that TensorFlow Serving runs before it answers the first client.

    Source: TensorFlow Serving, "SavedModel Warmup", and its files prediction_log.proto, predict.proto and
        model.proto, from which the numbers of fields come.
    """
    import tensorflow as tf

    from unitbox_tf.detect.graph import ENCODED, IMAGES

    records = []
    for height, width in WARM_UP_SIZES:
        image = np.full((height, width, 3), 127, np.uint8)
        photo = [tf.io.encode_jpeg(image).numpy()]
        inputs = {
            "serving_default": (ENCODED.name, photo),
            "images": (IMAGES.name, image[None]),
            "encoded": (ENCODED.name, photo),
        }
        for signature, (name, value) in inputs.items():
            tensor = tf.make_tensor_proto(value).SerializeToString()
            model_spec = _field(1, b"unitbox") + _field(3, signature.encode())
            entry = _field(1, name.encode()) + _field(2, tensor)  # of the map of inputs
            request = _field(1, model_spec) + _field(2, entry)
            records.append(_field(6, _field(1, request)))  # PredictionLog.predict_log.request
    return records


def _field(number: int, content: bytes) -> bytes:
    """A field of a Protocol Buffers message that holds text, bytes or a message.

    Source: Protocol Buffers, "Encoding": a key (number and wire type 2), the length, the content.
    """
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    """A number in groups of seven bits, the lowest first; all but the last have their top bit set."""
    groups = bytearray()
    while value > 127:
        groups.append(value & 127 | 128)
        value >>= 7
    return bytes([*groups, value])


def open(path: Path, *, trust: bool = False) -> Exported:
    """Opens a folder that `save` wrote; see `formats.open_exported` for errors.

    Args:
        path: the folder.
        trust: opens it without `saved_graph.check`, which says what a graph may contain. The digests of the files
            are compared if there are any.
    """
    if trust:
        saved_graph.check_digests(path, needed=False)
    else:
        saved_graph.check(path)
    import tensorflow as tf

    with archives.reading(path, "a SavedModel"):
        loaded = tf.saved_model.load(str(path))
        try:
            stored_names = json.dumps([name.decode() for name in loaded.class_names().numpy()])
            stored_decode = loaded.decode_config().numpy()
            detect_with = loaded.signatures["images_with_options"]
        except (KeyError, AttributeError) as error:
            raise formats.foreign(path, "a SavedModel", error) from error
    names, decode = formats.described(path, stored_names, stored_decode)
    _, inputs = detect_with.structured_input_signature
    fields = (field.name for field in dataclasses.fields(DecodeConfig))
    dtypes = {name: inputs[name].dtype for name in fields if name in inputs}

    def detect_batch(batch: np.ndarray, decode: DecodeConfig) -> list[Detections]:
        options = {n: tf.constant(getattr(decode, n), dtype) for n, dtype in dtypes.items()}
        found = detect_with(images=tf.constant(batch), **options)
        return padding.unpad(found, [batch.shape[1:3]] * len(batch))

    def detect(image: np.ndarray, decode: DecodeConfig) -> Detections:
        return detect_batch(image[None], decode)[0]

    return Exported(detect, names, decode, tuple(dtypes), images.decode_photo, detect_batch)


FORMAT = formats.Format("saved_model", "", save, open, marker=MARKER)
