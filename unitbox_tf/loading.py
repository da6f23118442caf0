"""Opens a detector, whatever form it is in."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from unitbox_tf import config as configs
from unitbox_tf import runs
from unitbox_tf.config import DecodeConfig
from unitbox_tf.detect import detector
from unitbox_tf.formats import runtimes


def load(path: str | Path, **decode: Any) -> detector.Detector:
    """The detector in `path`: a run's folder, an exported file of any format, or one that is published, by name.

    Args:
        path: a run's folder, an exported SavedModel, ONNX or LiteRT file, or the name of a folder in
            `saved_models` of the repository, such as "faces".
        decode: fields of `DecodeConfig` to change, such as `decoder="ellipse"`. An exported file has
            its decoding inside, of which only some can be changed: an error names them.

    Raises:
        ValueError: there is no detector, or a field is unknown or cannot be changed.
        ImportError: what opens files of this format is not installed.
    """
    path = runs.find(path)
    unknown = sorted(set(decode) - {field.name for field in dataclasses.fields(DecodeConfig)})
    if unknown:
        raise ValueError(f"Unknown field of DecodeConfig: {unknown[0]!r}")
    if (path / runs.CONFIG_FILE).is_file():
        config = configs.load(path / runs.CONFIG_FILE)
        config = dataclasses.replace(config, decode=dataclasses.replace(config.decode, **decode))
        return detector.from_model(detector.load_model(path, config), config)
    exported = runtimes.open_exported(path)
    if exported is None:
        raise ValueError(
            f"{path}: expected the folder of a run (with {runs.CONFIG_FILE}) or of a SavedModel (with "
            f"saved_model.pb), or a file that ends in {' or '.join(runtimes.SUFFIXES)}"
            + ("" if path.exists() else f"; it does not exist, and {_published()}")
        )
    return _from_exported(path, exported, decode)


def _published() -> str:
    names = runs.names()
    if names:
        return f"published here is {', '.join(names)}"
    return f"published detectors come with the repository alone: {runs.FOLDER} has none"


def _from_exported(
    path: Path, exported: runtimes.Exported, changes: dict[str, Any]
) -> detector.Detector:
    fixed = sorted(set(changes) - set(exported.options))
    if fixed:
        raise ValueError(
            f"{path} is an exported detector, of whose decoding only {', '.join(exported.options)} can be "
            f"changed. Received: {fixed[0]}. Open the run's folder instead, or export it anew."
        )
    decode = dataclasses.replace(exported.decode, **changes)
    configs.Config(decode=decode)  # raises where a value is none
    return detector.Detector(
        lambda image: exported.detect(image, decode), exported.class_names, decode
    )
