"""The parts that `in_tensorflow.py` and `in_torch.py` share: how a call and its environment are told."""

from __future__ import annotations

import json
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np


class Parts:
    """The golden values that one environment makes, with the call that made each."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, name
        with np.load(folder / "pairs.npz") as pairs:
            self.prediction, self.truth = pairs["prediction"], pairs["truth"]
            self.rows = pairs["rows"]
        self.problem: dict[str, Any] = json.loads((folder / "problem.json").read_text())
        self.arrays: dict[str, np.ndarray] = {}
        self.calls: dict[str, dict[str, str]] = {}
        self.trajectories: dict[str, dict[str, Any]] = {}

    def add(
        self,
        key: str,
        package: str,
        call: str,
        values: np.ndarray,
        gradient: np.ndarray | None = None,
        deviation: str = "",
    ) -> None:
        """Keep `values` `[N]` and `gradient` `[N, 4]` under `key`."""
        assert values.shape == self.truth.shape[:1], (key, values.shape)
        self.arrays[key] = values
        if gradient is not None:
            self.arrays[f"{key}/gradient"] = gradient[self.rows]
        self.calls[key] = {"package": _with_version(package), "call": call}
        if deviation:
            self.calls[key]["deviation"] = deviation

    def add_trajectory(self, key: str, package: str, call: str, weights: list[np.ndarray]) -> None:
        """Keep the weights before the first step and after each."""
        told = {"package": _with_version(package), "call": call}
        self.trajectories[key] = {**told, "weights": np.stack(weights).tolist()}

    def write(self) -> None:
        """Hand everything to `make_goldens.py`."""
        np.savez(self.folder / f"{self.name}.npz", **self.arrays)  # type: ignore[arg-type]
        packages = {d.metadata["Name"]: d.version for d in metadata.distributions()}
        environment = {
            "python": platform.python_version(),
            "packages": dict(sorted(packages.items(), key=lambda item: item[0].lower())),
        }
        said = {
            "environment": environment,
            "calls": self.calls,
            "trajectories": self.trajectories,
        }
        (self.folder / f"{self.name}.json").write_text(json.dumps(said))


def _with_version(package: str) -> str:
    return f"{package} {metadata.version(package)}"
