"""Detectors that are published in `saved_models/`, known by name: `unitbox_tf.load("faces")`.

A published folder has `config.json`, `weights.npz`, its SHA-256 in `weights.npz.sha256`, and a model
card, `README.md`. Weights are stored in half precision, which halves the file; they are computed with
in single precision.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parents[1] / "saved_models"  # of the repository; wheels do not have it
WEIGHTS_FILE = "weights.npz"
DIGEST_FILE = f"{WEIGHTS_FILE}.sha256"


def find(name: str | Path) -> Path:
    """The path `name` if it exists, else the published folder of that name, else `name`."""
    path = Path(name)
    if not path.exists() and len(path.parts) == 1 and (FOLDER / path / WEIGHTS_FILE).is_file():
        return FOLDER / path
    return path


def names() -> list[str]:
    """Those of the published detectors that are there."""
    return sorted(path.parent.name for path in FOLDER.glob(f"*/{WEIGHTS_FILE}"))


def save_weights(weights: Sequence[tuple[str, np.ndarray]], folder: Path) -> None:
    """Writes weights, in the order of the model, each with its name, and their SHA-256.

    Raises:
        ValueError: a value has no finite counterpart in half precision.
    """
    arrays = {}
    for number, (name, values) in enumerate(weights):
        with np.errstate(over="ignore"):
            half = values.astype(np.float16)
        if not np.isfinite(half).all():
            largest = float(np.abs(values).max())
            raise ValueError(
                f"{name}: expected values up to 65504 (float16). Received: {largest:g}"
            )
        arrays[f"{number:03} {name}"] = half
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / WEIGHTS_FILE, **arrays)  # type: ignore[arg-type]  # allow_pickle is a bool
    text = f"{_sha256(folder / WEIGHTS_FILE)}  {WEIGHTS_FILE}\n"  # as sha256sum --check reads it
    (folder / DIGEST_FILE).write_text(text, encoding="ascii")


def read_weights(folder: Path) -> list[tuple[str, np.ndarray]]:
    """Names and values, float32, in the order of the model.

    Raises:
        ValueError: the file is not the one that was published.
    """
    path, digest = folder / WEIGHTS_FILE, folder / DIGEST_FILE
    expected = digest.read_text(encoding="ascii").split()[:1] if digest.is_file() else []
    received = _sha256(path)
    if expected != [received]:
        stated = expected[0] if expected else "none"
        raise ValueError(
            f"{path}: expected the SHA-256 in {DIGEST_FILE}, {stated}, received {received}: the file is "
            "damaged or another; get it again"
        )
    with np.load(path) as content:
        return [(name.split(" ", 1)[1], content[name].astype(np.float32)) for name in content]


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
