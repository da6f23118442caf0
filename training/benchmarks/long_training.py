"""Many tiny steps of training in one process: memory, open files and threads must stay as they are."""

from __future__ import annotations

import dataclasses
import os
import tempfile
from pathlib import Path
from typing import Any

import keras

from training.benchmarks.resident import resident
from unitbox_tf import registry
from unitbox_tf.config import Config
from unitbox_tf.network.backbones import Backbone, Preprocessing
from unitbox_tf.presets import PRESETS
from unitbox_tf.train import fit

NARROW = "narrow"  # a backbone of two layers


def benchmark(steps: int, epochs: int, folder: Path | None) -> dict[str, Any]:
    """Trains a network of a few hundred weights, and prints facts of the process 20 times.

    Args:
        steps: the number of steps in all.
        epochs: the number of epochs in which they are taken.
        folder: the folder for the run; None takes a temporary one.

    Returns:
        `process`: the facts; `growth`: how much more memory is taken at the end than after half of the steps, as
        a share.
    """
    registry.BACKBONES.register(NARROW, _narrow)
    facts = Facts(max(1, steps // 20))
    with tempfile.TemporaryDirectory() as temporary:
        output = folder or Path(temporary)
        fit.fit(_config(output, steps // epochs, epochs), callbacks=[facts])
    middle, last = (facts.found[number]["memory"] for number in (len(facts.found) // 2, -1))
    growth = last / middle - 1
    print(f"memory at the end against the middle: {growth:+.2%}")
    return {"process": facts.found, "growth": growth}


class Facts(keras.callbacks.Callback):
    """Collects the facts of the process after so many steps, again and again."""

    def __init__(self, every: int) -> None:
        super().__init__()
        self.found: list[dict[str, Any]] = []
        self._every = every
        self._steps = 0

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Adds the facts, and prints them."""
        self._steps += 1
        if self._steps % self._every == 0:
            self.found.append({"steps": self._steps, **process()})
            print(self.found[-1], flush=True)


def process() -> dict[str, Any]:
    """Resident memory in MB, open files, threads and children of this process."""
    tasks = list(Path("/proc/self/task").iterdir())
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text("utf-8").split()
    return {
        "memory": round(resident() / 2**20, 1),
        "open_files": len(list(Path("/proc/self/fd").iterdir())),
        "threads": len(tasks),
        "children": len(children),
    }


def _narrow(config: Any, seed: int = 0) -> Backbone:
    image = keras.Input((None, None, 3))
    options = {"strides": 2, "padding": "same", "activation": "relu"}
    first = keras.layers.Conv2D(4, 3, name="first", **options)(image)
    second = keras.layers.Conv2D(6, 3, name="second", **options)(first)
    model = keras.Model(image, second, name=NARROW)
    colours = Preprocessing("bgr", (10.0, 20.0, 30.0), 0.5)
    return Backbone(model, confidence="first", distances="second", stride=4, preprocessing=colours)


def _config(output: Path, steps: int, epochs: int) -> Config:
    smoke = PRESETS["smoke"]
    data: dict[str, Any] = {
        "train_sources": ("synthetic:#0-40",),
        "validation_sources": ("synthetic:#100-104",),
    }
    train: dict[str, Any] = {
        "steps_per_epoch": steps,
        "epochs": epochs,
        "batch_size": 2,
        "precision": "float32",
        "checkpoint_minutes": 0.2,
    }
    return dataclasses.replace(
        smoke,
        model=dataclasses.replace(smoke.model, class_names=("object",), backbone=NARROW),
        data=dataclasses.replace(smoke.data, image_size=32, mosaic=0.3, flip=True, **data),
        train=dataclasses.replace(smoke.train, output=str(output), run="endurance", **train),
        decode=dataclasses.replace(smoke.decode, max_side=32, max_detections=20),
    )
