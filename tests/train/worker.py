"""A process that trains, alone or as a worker: `python -m tests.train.worker FOLDER EPOCHS RESUME SEED`."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

from tests.train.conftest import two_layers
from unitbox_tf.presets import PRESETS
from unitbox_tf.train import fit

BATCH = 6


def main(folder: str, epochs: str, resume: str, seed: str) -> None:
    """Trains a run `FOLDER/runs/a`, or goes on with it if `resume` is `yes`."""
    smoke = PRESETS["smoke"]
    config = dataclasses.replace(
        smoke,
        model=dataclasses.replace(smoke.model, class_names=("object",)),
        data=dataclasses.replace(
            smoke.data,
            train_sources=("synthetic:#0-13",),
            validation_sources=("synthetic:#100-104",),
            image_size=64,
        ),
        train=dataclasses.replace(
            smoke.train,
            steps_per_epoch=2,
            batch_size=BATCH,
            precision="float32",
            device="cpu",
            ema_momentum=0.9,
            checkpoint_minutes=0.0,
            schedule="constant",  # another number of epochs changes nothing
            warmup=0.0,
        ),
    )
    with two_layers(config, Path(folder)) as known:
        train = dataclasses.replace(known.train, epochs=int(epochs), seed=int(seed))
        run = Path(train.output) / str(train.run)
        done = fit.fit(
            dataclasses.replace(known, train=train), resume=run if resume == "yes" else None
        )
    print("results of", sorted(done.results))


if __name__ == "__main__":
    main(*sys.argv[1:])
