"""The detector as one graph: images or encoded photos in, boxes in pixels of the original out; saved as a SavedModel.

The same functions serve `detector.Detector`, so that a detector in Python and its exported file
agree.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import keras
import tensorflow as tf

from unitbox_tf import input_pipeline, postprocess
from unitbox_tf.config import DecodeConfig

Outputs = dict[str, tf.Tensor]


def shown_size(
    height: tf.Tensor, width: tf.Tensor, max_side: int, scale: float | tf.Tensor
) -> tf.Tensor:
    """Height and width int32 `[2]` at which an image is shown to the network.

    It is shrunk, where it is larger, to at most `max_side` pixels, and that is multiplied by `scale`.
    """
    size = tf.cast(tf.stack([height, width]), tf.float32)
    scale *= tf.minimum(1.0, max_side / tf.reduce_max(size))
    return tf.maximum(tf.cast(tf.round(size * scale), tf.int32), 1)


class InferenceModule(tf.Module):
    """A model with everything around it: resizing before, decoding after.

    Each function returns a dict, padded with zeros to K = `decode.max_detections`, best first:
    `boxes` `xyxy` `[B, K, 4]` in pixels of the original image and cut to it, `scores` `[B, K]`,
    `classes` `[B, K]` int32, `num_detections` `[B]` int32.
    """

    def __init__(
        self, model: keras.Model, decode: DecodeConfig, class_names: Sequence[str]
    ) -> None:
        """`class_names` are those of the model's confidence maps."""
        super().__init__(name="unitbox")
        self.model = model
        self._decode = decode
        self._class_names = list(class_names)

    @tf.function(input_signature=[])
    def class_names(self) -> tf.Tensor:
        """Names `[C]` of the classes."""
        return tf.constant(self._class_names)

    @tf.function(input_signature=[])
    def decode_config(self) -> tf.Tensor:
        """The settings of the decoding inside, as JSON text."""
        return tf.constant(json.dumps(dataclasses.asdict(self._decode)))

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8, "images")])
    def heatmaps(self, images: tf.Tensor) -> Outputs:
        """What the network predicts, at the size at which it is shown `images`: `confidence` logits and `distances`."""
        return self.heatmaps_at(images, 1.0)

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, None, None, 3], tf.uint8, "images"),
            tf.TensorSpec([], tf.float32, "scale"),
        ]
    )
    def heatmaps_at(self, images: tf.Tensor, scale: float | tf.Tensor) -> Outputs:
        """The same at another scale, such as one of `decode.scales`."""
        shape = tf.shape(images)
        size = shown_size(shape[1], shape[2], self._decode.max_side, scale)
        return self.model(tf.image.resize(images, size, antialias=True), training=False)

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8, "images")])
    def detect(self, images: tf.Tensor) -> Outputs:
        """Detections in RGB images uint8 `[B, H, W, 3]` of one size."""
        size = tf.cast(tf.shape(images)[1:3], tf.float32)
        maps = [self.heatmaps_at(images, scale) for scale in self._decode.scales]
        return postprocess.peaks_of_scales(maps, size, self._decode)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "encoded")])
    def detect_encoded(self, encoded: tf.Tensor) -> Outputs:
        """Detections in encoded JPEG or PNG photos `[B]` of any sizes; a JPEG's EXIF orientation is applied first.

        One photo after the other, so that what is found in one does not depend on which others come
        with it.
        """
        k = self._decode.max_detections

        def detect_one(photo: tf.Tensor) -> Outputs:
            image = input_pipeline.decode_image(photo)
            return {name: value[0] for name, value in self.detect(image[None]).items()}

        return tf.map_fn(
            detect_one,
            encoded,
            fn_output_signature={
                "boxes": tf.TensorSpec([k, 4], tf.float32),
                "scores": tf.TensorSpec([k], tf.float32),
                "classes": tf.TensorSpec([k], tf.int32),
                "num_detections": tf.TensorSpec([], tf.int32),
            },
        )


def save(
    model: keras.Model, decode: DecodeConfig, class_names: Sequence[str], path: str | Path
) -> None:
    """Writes `model` as a SavedModel, decoding (`peaks`) included, that opens where this package is not installed.

    Signatures: `serving_default` and `images` take uint8 RGB images `[B, H, W, 3]` of any size,
    `encoded` takes encoded JPEG or PNG photos `[B]`; both return what `InferenceModule` describes.
    The functions `class_names` and `decode_config` tell what classes mean and how decoding is set.
    The folder appears complete or not at all; an earlier export in its place is replaced.

    Raises:
        ValueError: `path` holds something else, which is left as it is.
    """
    path = Path(path)
    is_export = (path / "saved_model.pb").is_file()
    if path.exists() and not is_export and not (path.is_dir() and not any(path.iterdir())):
        raise ValueError(
            f"{path} exists and is no SavedModel: it is left as it is. Name a new folder."
        )
    module = InferenceModule(model, decode, class_names)
    signatures = {
        "serving_default": module.detect,
        "images": module.detect,
        "encoded": module.detect_encoded,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}-") as folder:
        complete = Path(folder) / path.name
        tf.saved_model.save(module, str(complete), signatures=signatures)
        if path.exists():
            shutil.rmtree(path)
        os.replace(complete, path)
