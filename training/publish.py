"""Publishes a run: its best weights in half precision, with their checksum and its configuration.

    python -m training.publish saved_models/RUN saved_models/NAME [--last] [--max-side 416 --scales 0.5 1]

The model card, NAME/README.md, is for people to write: data and their licence, results, what fails.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from training import command
from unitbox_tf import config as configs
from unitbox_tf import files, runs
from unitbox_tf.cli import decoding


def main() -> None:
    """Reads the command line, and publishes."""
    parser = command.parser_of("training.publish", __doc__)
    parser.add_argument("run", type=Path, help="folder of a run")
    parser.add_argument("folder", type=Path, help="folder to write")
    parser.add_argument("--last", action="store_true", help="its last weights, not its best")
    parser.add_argument("--score-threshold", type=float, help="lowest score of a detection")
    decoding.add_options(parser)
    arguments = parser.parse_args()
    changes = decoding.changes(arguments, (*decoding.FIELDS, "score_threshold"))
    options = {"run": arguments.run, "folder": arguments.folder, "last": arguments.last, **changes}
    command.call(parser, "training.publish:publish", options)
    size = (arguments.folder / runs.WEIGHTS_FILE).stat().st_size
    print(f"{arguments.folder}: {size / 1e6:.1f} MB of weights; now write its README.md")


def publish(run: Path, folder: Path, *, last: bool = False, **decode: Any) -> None:
    """Writes the published folder.

    Args:
        run: folder of a run.
        folder: folder to write.
        last: publishes the last weights, not the best.
        decode: fields of `DecodeConfig` to change.
    """
    from unitbox_tf.detect import detector

    config = configs.load(run / runs.CONFIG_FILE)
    # Paths on the machine that trained say nothing to others.
    config = dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, data="."),
        model=dataclasses.replace(config.model, weights=None),
        train=dataclasses.replace(config.train, output="saved_models", run=None, init=None),
        decode=dataclasses.replace(config.decode, **decode),
    )
    weights = [runs.LAST_FILE] if last else [runs.BEST_FILE, runs.LAST_FILE]
    model = detector.load_model(run, config, files=weights)
    runs.save_weights([(w.path, w.numpy()) for w in model.weights], folder)
    files.write(folder / runs.CONFIG_FILE, config.to_json())


if __name__ == "__main__":
    main()
