"""Publishes a run: its best weights in half precision, with their checksum and its configuration.

    python training/publish.py saved_models/RUN saved_models/NAME [--last] [--max-side 416 --scales 0.5 1]

The model card, NAME/README.md, is for people to write: data and their licence, results, what fails.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
from pathlib import Path

from unitbox_tf.cli import options

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="folder of a run")
    parser.add_argument("folder", type=Path, help="folder to write")
    parser.add_argument("--last", action="store_true", help="its last weights, not its best")
    options.add_decoding(parser)
    arguments = parser.parse_args()

    from unitbox_tf import config as configs
    from unitbox_tf import runs
    from unitbox_tf.detect import detector

    config = configs.load(arguments.run / runs.CONFIG_FILE)
    # Where things were on the machine that trained says nothing to others.
    config = dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, data="."),
        model=dataclasses.replace(config.model, weights=None),
        train=dataclasses.replace(config.train, output="saved_models", run=None, init=None),
        decode=dataclasses.replace(config.decode, **options.decoding(arguments)),
    )
    files = [runs.LAST_FILE] if arguments.last else [runs.BEST_FILE, runs.LAST_FILE]
    model = detector.load_model(arguments.run, config, files=files)
    runs.save_weights([(w.path, w.numpy()) for w in model.weights], arguments.folder)
    (arguments.folder / runs.CONFIG_FILE).write_text(config.to_json(), encoding="utf-8")
    size = (arguments.folder / runs.WEIGHTS_FILE).stat().st_size
    print(f"{arguments.folder}: {size / 1e6:.1f} MB of weights; now write its README.md")


if __name__ == "__main__":
    main()
