"""Detectors that are published in `saved_models/`, known by name: `unitbox_tf.load("faces")`.

A published folder has `config.json`, `weights.npz`, its SHA-256 in `weights.npz.sha256`, and a model
card, `README.md`. Weights are stored in half precision, which halves the file; they are computed with
in single precision.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from unitbox_tf.config import Config

_HERE = Path(__file__).parent
# A wheel has the published detectors inside the package, the repository has them beside it: see setup.cfg.
FOLDER = next(
    (
        folder
        for folder in (_HERE / "saved_models", _HERE.parent / "saved_models")
        if folder.is_dir()
    ),
    _HERE / "saved_models",
)
WEIGHTS_FILE = "weights.npz"
DIGEST_FILE = f"{WEIGHTS_FILE}.sha256"
CONFIG_FILE = "config.json"
BEST_FILE = "best.weights.h5"
LAST_FILE = "last.keras"
SAVED_MODEL_FOLDER = "saved_model"


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
