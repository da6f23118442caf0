"""Exported detectors: files that applications open without this package, one module a format."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

from unitbox_tf.config import Config, DecodeConfig

CALIBRATION_PHOTOS = 100  # more of them change the ranges of activations little


def model_card(folder: Path, config: Config) -> str:
    """The model card of a run or of a published detector: its `README.md`, or what is known of the run."""
    card = folder / "README.md"
    if card.is_file():
        return card.read_text(encoding="utf-8")
    data, results = config.data, folder / "results.json"
    lines = [
        f"# UnitBox detector: {', '.join(config.model.class_names)}",
        "",
        f"Trained on {', '.join(data.train_sources)}; validated on {', '.join(data.validation_sources)}. Whoever "
        "passes it on: add the terms of these photos, and what the detector is for and what it is not for.",
    ]
    if results.is_file():
        lines += ["", "On the validation photos, by decoder:", ""]
        for decoder, figures in json.loads(results.read_text(encoding="utf-8")).items():
            known = (f"{name} {value:.3f}" for name, value in figures.items() if value is not None)
            lines.append(f"* {decoder}: {', '.join(known)}")
    return "\n".join(lines) + "\n"


def check_peaks(decode: DecodeConfig, form: str) -> None:
    """Raises `ValueError` for the other decoder, which exists in TensorFlow only."""
    if decode.decoder != "peaks":
        raise ValueError(
            f"Expected the decoder 'peaks' for {form}. Received: {decode.decoder!r}, which only a SavedModel "
            "can have"
        )


def write(path: Path, content: bytes) -> None:
    """Writes a file, which appears complete or not at all; an earlier one in its place is replaced."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}-") as folder:
        complete = Path(folder) / path.name
        complete.write_bytes(content)
        os.replace(complete, path)
