"""Exported detectors: files that applications open without this package, one module a format."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from unitbox_tf.config import DecodeConfig

CALIBRATION_PHOTOS = 100  # more of them change the ranges of activations little


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
