"""Opens a detector, whatever form it is in."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from unitbox_tf import files, formats, runs, settings
from unitbox_tf.config import DecodeConfig
from unitbox_tf.detect.detector import Detector
from unitbox_tf.runs import KERAS_SUFFIX as KERAS_SUFFIX


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
    settings.changed(DecodeConfig(), decode)  # names unknown fields before anything is opened
    run = runs.Run.find(path)
    path = run.folder
    if run.exists or (path.suffix == KERAS_SUFFIX and path.is_file()):
        from unitbox_tf.detect.model import UnitBox

        return UnitBox.from_preset(path, **decode).detector()
    exported = formats.open_exported(path, trust=trust)
    if exported is None:
        _check_regular(path)
        raise ValueError(
            f"{path}: expected the folder of a run (with {run.config_file.name}) or of a SavedModel (with "
            f"saved_model.pb), or a file that ends in {', '.join((KERAS_SUFFIX, *formats.suffixes()))}"
            + ("" if path.exists() else f"; it does not exist, and {runs.published()}")
        )
    return _from_exported(path, exported, decode)


def _check_regular(path: Path) -> None:
    """Raises `ValueError` if a file of a known suffix is a named pipe, a device or a folder."""
    if path.suffix in (KERAS_SUFFIX, *formats.suffixes()) and path.exists():
        try:
            files.open_regular(path).close()
        except files.SpecialFile as error:
            raise ValueError(str(error)) from error


def _from_exported(path: Path, exported: formats.Exported, changes: dict[str, Any]) -> Detector:
    options = (*exported.options, "max_pixels")  # which matters before the file gets the image
    fixed = sorted(set(changes) - set(options))
    if fixed:
        raise ValueError(
            f"{path} is an exported detector: only {', '.join(options)} of its decoding can be "
            f"changed. Received: {fixed[0]}. Open the run's folder instead, or export it again."
        )
    decode = settings.changed(exported.decode, changes)
    return Detector(
        lambda image: exported.detect(image, decode),
        exported.class_names,
        decode,
        exported.decode_image,
    )
