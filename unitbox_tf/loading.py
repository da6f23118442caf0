"""Opens a detector, whatever form it is in."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from unitbox_tf import config as configs
from unitbox_tf import formats, runs
from unitbox_tf.detect import detector


def load(path: str | Path, **decode: Any) -> detector.Detector:
    """The detector in a run's folder or an exported file of any format, or a published one, by its name.

    Opening an ONNX or LiteRT file imports no TensorFlow.

    Args:
        path: a run's folder, an exported SavedModel, ONNX or LiteRT file, or the name of a folder in
            `saved_models` of the repository, such as "faces".
        decode: fields of `DecodeConfig` to change, such as `decoder="ellipse"`. An exported file has
            its decoding inside, and only some fields can be changed: an error names them.

    Raises:
        ValueError: there is no detector, or a field is unknown or cannot be changed.
        ImportError: what opens files of this format is not installed.
    """
    path = runs.find(path)
    if (path / runs.CONFIG_FILE).is_file():
        config = configs.load(path / runs.CONFIG_FILE)
        config = dataclasses.replace(config, decode=formats.changed(config.decode, decode))
        return detector.from_model(detector.load_model(path, config), config)
    exported = formats.open_exported(path)
    if exported is None:
        raise ValueError(
            f"{path}: expected the folder of a run (with {runs.CONFIG_FILE}) or of a SavedModel (with "
            f"saved_model.pb), or a file that ends in {' or '.join(formats.suffixes())}"
            + ("" if path.exists() else f"; it does not exist, and {_published()}")
        )
    return _from_exported(path, exported, decode)


def _published() -> str:
    names = runs.names()
    if names:
        return f"published here is {', '.join(names)}"
    return f"published detectors come with the repository alone: {runs.FOLDER} has none"


def _from_exported(
    path: Path, exported: formats.Exported, changes: dict[str, Any]
) -> detector.Detector:
    decode = formats.changed(exported.decode, changes)
    fixed = [name for name in changes if name not in exported.options]
    if fixed:
        raise ValueError(
            f"{path} is an exported detector: only {', '.join(exported.options)} of its decoding can be "
            f"changed. Received: {fixed[0]}. Open the run's folder instead, or export it anew."
        )
    return detector.Detector(
        lambda image: exported.detect(image, decode),
        exported.class_names,
        decode,
        exported.decode_image,
    )
