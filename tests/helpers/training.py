"""A small run in a process of its own, which tells what it does so that a test can kill it at any moment.

python -m tests.helpers.training OUTPUT RUN
"""

from __future__ import annotations

import dataclasses
import os
import random
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
EPOCHS, STEPS = 3, 6


def train(output: Path, run: str) -> None:
    """Starts or resumes the run `output/run`."""
    import keras

    from tests.train.conftest import _two_layers
    from unitbox_tf import registry, runs
    from unitbox_tf.presets import PRESETS
    from unitbox_tf.train import fit

    class Tell(keras.callbacks.Callback):
        """Prints a line at each point of training."""

        def __getattribute__(self, name):
            if name.startswith("on_") and not name.startswith("on_predict"):
                print(name, flush=True)
            return super().__getattribute__(name)

    registry.BACKBONES.register("two_layers", _two_layers)
    smoke = PRESETS["smoke"]
    sources = {"train_sources": ("synthetic:#0-20",), "validation_sources": ("synthetic:#50-54",)}
    changes = {"random_crop": True, "flip": True, "colour": 0.3, "mosaic": 0.4, "image_size": 64}
    steps = {"epochs": EPOCHS, "steps_per_epoch": STEPS, "batch_size": 2, "checkpoint_minutes": 0.0}
    config = dataclasses.replace(
        smoke,
        model=dataclasses.replace(smoke.model, class_names=("object",), backbone="two_layers"),
        data=dataclasses.replace(smoke.data, **sources, **changes),
        train=dataclasses.replace(
            smoke.train, precision="float32", output=str(output), run=run, **steps
        ),
        decode=dataclasses.replace(smoke.decode, max_side=64, max_detections=20),
    )
    folder = runs.Run(output / run)
    # The end of a run, which takes longest, is not what is killed.
    fit.finish = lambda *_, **__: (None, {})
    fit.fit(config, callbacks=[Tell()], resume=folder.folder if folder.exists else None)


def killed(output: Path, run: str, kills: int, seed: int) -> list[str]:
    """Runs `train` in processes, of which the first `kills` are killed at random moments.

    Returns:
        The last words of each before it was killed.
    """
    chance, last = random.Random(seed), []
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, "-m", "tests.helpers.training", str(output), run]
    while True:
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, cwd=ROOT, env=environment, text=True
        ) as process:
            wanted = chance.randrange(1, 40) if len(last) < kills else sys.maxsize
            said = 0
            for line in process.stdout:
                said += line.startswith("on_")
                if said >= wanted:
                    time.sleep(chance.uniform(0, 0.05))
                    process.kill()
                    last.append(line.strip())
                    break
        if process.returncode == 0:
            return last
        if process.returncode > 0:
            raise RuntimeError(f"training failed with status {process.returncode}")


if __name__ == "__main__":
    train(Path(sys.argv[1]), sys.argv[2])
