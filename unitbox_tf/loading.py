"""Opens a detector, whatever form it is in."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from unitbox_tf import files, formats, images, runs, settings
from unitbox_tf.config import DecodeConfig
from unitbox_tf.detect import padding
from unitbox_tf.detect.detector import Detector
from unitbox_tf.records import Detections
from unitbox_tf.runs import KERAS_SUFFIX as KERAS_SUFFIX

if TYPE_CHECKING:
    from unitbox_tf.detect.model import UnitBox


def load(path: str | os.PathLike[str], *, trust: bool = False, **decode: Any) -> Detector:
    """Opens a detector: a published detector by name, a run's folder, or a Keras or exported file of any format.

    Opening an ONNX or LiteRT file imports no TensorFlow.

    Args:
        path: the name of a published detector, such as "faces", or the path of a run's folder, of a `.keras` file
            of a `UnitBox` model, or of an exported SavedModel, ONNX or LiteRT file. A text without a slash and
            without a suffix is a name, and never a path: write "./detector" or `Path("detector")` for a folder.
        trust: opens a SavedModel whoever made it. Its graph is a program, which may read and write files.
            Without `trust`, a SavedModel is only opened if its graph has nothing but what `export` writes.
        decode: fields of `DecodeConfig` to change, such as `decoder="ellipse"`. An exported file has
            its decoding inside. Only some of the fields can be changed; an error names them.

    Raises:
        ValueError: there is no detector, or a field is unknown, unusable or cannot be changed.
        ImportError: the library that opens files of this format is not installed.
    """
    model = _model(path, decode)
    if model is not None:
        return model.detector()
    opened = _exported(path, trust, decode)
    return Detector(
        lambda image: opened.detect(image, opened.decode),
        opened.class_names,
        opened.decode,
        opened.decode_image,
    )


def open_adjustable(
    path: str | os.PathLike[str], *, trust: bool = False, **decode: Any
) -> formats.Exported:
    """Opens a detector in any form, so that its settings can differ from image to image.

    Arguments and errors are those of `load`. The detections are those of a detector that is loaded with the same
    settings.
    """
    model = _model(path, decode)
    if model is None:
        return _exported(path, trust, decode)
    return _adjustable(model)


def _adjustable(model: UnitBox) -> formats.Exported:
    import tensorflow as tf

    from unitbox_tf.detect import graph

    module = graph.InferenceModule(model, model.decode)
    options = graph.options()

    def detect_batch(batch: np.ndarray, decode: DecodeConfig) -> list[Detections]:
        if decode == model.decode:
            found = module.detect_images(batch)
        else:
            given = {name: tf.constant(getattr(decode, name), t) for name, t in options.items()}
            found = module.detect(batch, **given)
        return padding.unpad(found, [batch.shape[1:3]] * len(batch))

    def detect(image: np.ndarray, decode: DecodeConfig) -> Detections:
        return detect_batch(image[None], decode)[0]

    return formats.Exported(
        detect, model.class_names, model.decode, tuple(options), images.decode_photo, detect_batch
    )


def _model(path: str | os.PathLike[str], decode: dict[str, Any]) -> UnitBox | None:
    """The model of a published detector, a run or a `.keras` file; None if `path` is none of these."""
    settings.changed(DecodeConfig(), decode)  # names unknown fields before anything is opened
    run = runs.Run.find(path)
    if not (run.exists or (run.folder.suffix == KERAS_SUFFIX and run.folder.is_file())):
        return None
    from unitbox_tf.detect.model import UnitBox

    return UnitBox.from_preset(run.folder, **decode)


def _exported(
    name: str | os.PathLike[str], trust: bool, changes: dict[str, Any]
) -> formats.Exported:
    """An exported detector, with some of its settings changed."""
    run = runs.Run.find(name)
    path = run.folder
    exported = formats.open_exported(path, trust=trust)
    if exported is None:
        _check_regular(path)
        raise ValueError(
            f"{path}: expected the folder of a run (with {run.config_file.name}) or of a SavedModel (with "
            f"saved_model.pb), or a file that ends in {', '.join((KERAS_SUFFIX, *formats.suffixes()))}"
            + ("" if path.exists() else f"; it does not exist, and {runs.published()}")
        )
    options = (*exported.options, "max_pixels")  # which matters before the file gets the image
    fixed = sorted(set(changes) - set(options))
    if fixed:
        raise ValueError(
            f"{path} is an exported detector: only {', '.join(options)} of its decoding can be "
            f"changed. Received: {fixed[0]}. Open the run's folder instead, or export it again."
        )
    return dataclasses.replace(exported, decode=settings.changed(exported.decode, changes))


def _check_regular(path: Path) -> None:
    """Raises `ValueError` if a file of a known suffix is a named pipe, a device or a folder."""
    if path.suffix in (KERAS_SUFFIX, *formats.suffixes()) and path.exists():
        try:
            files.open_regular(path).close()
        except files.SpecialFile as error:
            raise ValueError(str(error)) from error
