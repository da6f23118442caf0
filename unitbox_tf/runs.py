"""The names and meanings of the files in the folder of a run, or of a detector published in `saved_models/`.

A run has `config.json`, the weights of the best epoch, checkpoints, and reports of its training. A
published detector is known by name (`unitbox_tf.load("faces")`). It has `config.json`, `weights.npz`, the
SHA-256 of the weights in `weights.npz.sha256`, and a model card, `README.md`. Its weights are stored in half
precision, which halves the file. The network computes with them in single precision.

Importing this module does not import TensorFlow.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unitbox_tf import checkpoints, files, spelling, weights_files
from unitbox_tf import config as configs
from unitbox_tf.config import Config
from unitbox_tf.limits import MAX_CONFIG_BYTES, MAX_WEIGHTS_BYTES
from unitbox_tf.problems import PROBLEMS_FILE

KERAS_SUFFIX = ".keras"  # of files of `keras.Model.save`
_HERE = Path(__file__).parent
# Published detectors are inside the package in a wheel, and beside it in the repository: see setup.cfg.
FOLDER = _HERE / "saved_models"
if not FOLDER.is_dir():
    FOLDER = _HERE.parent / "saved_models"


@dataclasses.dataclass(frozen=True)
class Run:
    """The folder of a run or of a published detector; it need not exist."""

    folder: Path

    @classmethod
    def find(cls, name: str | os.PathLike[str]) -> Run:
        """The run in the folder `name`, or the published detector of that name; see `find`."""
        return cls(find(name))

    @property
    def config_file(self) -> Path:
        """The configuration."""
        return self.folder / "config.json"

    @property
    def best(self) -> Path:
        """The weights after the best epoch."""
        return self.folder / "best.weights.h5"

    @property
    def checkpoints(self) -> Path:
        """The folder of the newest checkpoints, to resume from."""
        return self.folder / "checkpoints"

    @property
    def bad_batches(self) -> Path:
        """The folder of batches whose loss or gradient was not finite."""
        return self.folder / "bad_batches"

    @property
    def history_file(self) -> Path:
        """Logs, one dict for each epoch."""
        return self.folder / "history.json"

    @property
    def curves(self) -> Path:
        """A plot of the logs."""
        return self.folder / "history.png"

    @property
    def saved_model(self) -> Path:
        """The best weights exported as a SavedModel."""
        return self.folder / "saved_model"

    @property
    def results(self) -> Path:
        """The metrics on all validation images, by decoder, for all classes and for each."""
        return self.folder / "results.json"

    @property
    def confusion(self) -> Path:
        """A drawing of the confusion matrix of the run's decoder."""
        return self.folder / "confusion_matrix.png"

    @property
    def pictures(self) -> Path:
        """Validation images with true boxes and detections."""
        return self.folder / "detections.jpg"

    @property
    def problems(self) -> Path:
        """Data that could not be used."""
        return self.folder / PROBLEMS_FILE

    @property
    def tensorboard(self) -> Path:
        """A folder for `tensorboard --logdir`."""
        return self.folder / "tensorboard"

    @property
    def weights(self) -> Path:
        """The weights of a published detector."""
        return self.folder / "weights.npz"

    @property
    def weights_digest(self) -> Path:
        """The SHA-256 of the weights, as `sha256sum --check` reads it."""
        return self.folder / "weights.npz.sha256"

    @property
    def card_file(self) -> Path:
        """The model card of a published detector."""
        return self.folder / "README.md"

    @property
    def has_weights(self) -> bool:
        """True if the folder holds weights: checkpoints, the best weights of a run, or published weights."""
        files_ = (self.best, self.weights, *checkpoints.stored(self.checkpoints))
        return any(path.is_file() for path in files_)

    @property
    def exists(self) -> bool:
        """True if the folder holds a run or a published detector."""
        return self.config_file.is_file()

    def config(self) -> Config:
        """The configuration. Raises `ValueError` if there is no usable one."""
        if not self.exists:
            what = self.config_file.name if self.folder.exists() else "folder"
            raise ValueError(
                f"{self.folder}: expected the folder of a run, with {self.config_file.name}, or a published name: "
                f"there is no such {what}; {published()}"
            )
        return configs.load(self.config_file)

    def history(self) -> list[dict[str, Any]]:
        """The logs of the finished epochs."""
        if not self.history_file.is_file():
            return []
        rows: list[dict[str, Any]] = json.loads(self.history_file.read_text(encoding="utf-8"))
        return rows

    def weights_of_training(self, *, last: bool = False) -> Path:
        """The file with the best weights; with the last weights if `last` is True or no best weights are stored.

        The last weights are the newest checkpoint.

        Raises:
            ValueError: there is none.
        """
        wanted = [] if last else [self.best]
        wanted += checkpoints.stored(self.checkpoints)[:1]
        found = next((path for path in wanted if path.is_file()), None)
        if found is None:
            missing = (
                "the run has stored no weights yet" if self.folder.is_dir() else "no such folder"
            )
            names = " or ".join([*([] if last else [self.best.name]), self.checkpoints.name])
            raise ValueError(f"{self.folder}: expected {names}: {missing}")
        return found

    def digest(self) -> str:
        """SHA-256 of the weights. It changes when the network is trained further, even if the name stays."""
        return files.digest(self.weights if self.weights.is_file() else self.weights_of_training())

    def card(self) -> str:
        """The model card: `README.md` of a published detector; for a run, a text of the known facts."""
        if self.card_file.is_file():
            return self.card_file.read_text(encoding="utf-8")
        config = self.config()
        data = config.data
        lines = [
            f"# UnitBox detector: {', '.join(config.model.class_names)}",
            "",
            f"Trained on {', '.join(data.train_sources)}; validated on {', '.join(data.validation_sources)}. "
            "Before you pass it on, add the terms of these images, what the detector is for, and what it is not for.",
        ]
        if self.results.is_file():
            lines += ["", "Metrics on the validation images, by decoder:", ""]
            results = json.loads(self.results.read_text(encoding="utf-8"))
            for decoder, metrics in results.items():
                known = (
                    f"{name} {value:.3f}"
                    for name, value in metrics.items()
                    if isinstance(value, int | float)
                )
                lines.append(f"* {decoder}: {', '.join(known)}")
        return "\n".join(lines) + "\n"

    def publish(self, config: Config, weights: Sequence[tuple[str, np.ndarray]]) -> None:
        """Writes a published detector into the folder. People write its model card themselves.

        Args:
            config: the configuration of the run. Paths on the machine that trained are left out.
            weights: the weights in the order of the model, each with its name.

        Raises:
            ValueError: a weight is not finite, or not in half precision.
        """
        weights_files.check_finite(self.weights, dict(weights))
        arrays = {
            f"{number:03} {name}": _half(name, values)
            for number, (name, values) in enumerate(weights)
        }
        config = dataclasses.replace(
            config,
            data=dataclasses.replace(config.data, data="."),
            model=dataclasses.replace(config.model, weights=None),
            train=dataclasses.replace(config.train, output="saved_models", run=None, init=None),
        )
        with files.replacing(self.weights) as partial:
            np.savez(partial, **arrays)  # type: ignore[arg-type]  # allow_pickle is a bool
        text = f"{files.digest(self.weights)}  {self.weights.name}\n"
        files.write(self.weights_digest, text)
        files.write(self.config_file, config.to_json())

    def read_weights(self, limit: int = MAX_WEIGHTS_BYTES) -> dict[str, np.ndarray]:
        """The weights of a published detector, as they are stored, by name, in the order of the model.

        Args:
            limit: the largest size of the file, in bytes.

        Raises:
            ValueError: the file is not the one that was published, or holds something else than arrays of numbers.
        """
        path, digest = self.weights, self.weights_digest
        if not digest.is_file():
            raise ValueError(
                f"{path}: expected its SHA-256 in {digest.name} beside it. Received: no such file. Get both again"
            )
        expected = files.read(digest, MAX_CONFIG_BYTES).decode("ascii", "replace").split()[:1]
        received = files.digest(path)
        if expected != [received]:
            stated = expected[0][:80] if expected else "none"
            raise ValueError(
                f"{path}: expected the SHA-256 in {digest.name}, {stated}. Received: {received}. The file is "
                "damaged or another; get it again"
            )
        stored = weights_files.read_npz(path, limit)
        return {name.partition(" ")[2]: values for name, values in stored.items()}


def find(name: str | os.PathLike[str]) -> Path:
    """The path of a detector. It need not exist.

    A text without a slash and without a suffix is the name of a published detector, and never a path: a folder that
    lies in the working folder by chance, or that somebody put there, does not take the place of a published
    detector. A `Path` is always a path.

    Raises:
        ValueError: a text looks like a name, and no detector of this name is published.
    """
    if not isinstance(name, str):
        return Path(name)
    looks_like_name = not {"/", os.sep, os.altsep} & set(name) and name not in ("", ".", "..")
    if looks_like_name and Run(FOLDER / name).weights.is_file():
        return FOLDER / name
    path = Path(name)
    if looks_like_name and not path.suffix:
        there = f". A file or folder of this name is here: write ./{name}" if path.exists() else ""
        raise ValueError(
            f"unknown detector {name!r}.{spelling.resembling(name, names())} Expected a published name or a path; "
            f"a text without a slash and without a suffix is a name, and {published()}{there}"
        )
    return path


def names() -> list[str]:
    """The names of the published detectors that are installed."""
    folders = FOLDER.iterdir() if FOLDER.is_dir() else ()
    return sorted(path.name for path in folders if Run(path).weights.is_file())


def published() -> str:
    """The names of the published detectors, for messages."""
    known = names()
    if known:
        return f"published here is {', '.join(known)}"
    return f"no published detector is installed: {FOLDER} has none"


def digest(model: str | os.PathLike[str]) -> str:
    """SHA-256 of the weights of a run or of a published detector, or of an exported file or folder."""
    run = Run.find(model)
    return run.digest() if run.exists else files.digest(run.folder)


def _half(name: str, values: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        half = values.astype(np.float16)
    if not np.isfinite(half).all():
        largest = float(np.abs(values).max())
        raise ValueError(f"{name}: expected values up to 65504 (float16). Received: {largest:g}")
    return half
