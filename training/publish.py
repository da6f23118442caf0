"""Publishes a run: its best weights in half precision, with their checksum and its configuration.

    python -m training.publish saved_models/RUN saved_models/NAME [--last] [--max-side 416 --scales 0.5 1]
    python -m training.publish saved_models/RUN saved_models/NAME --average saved_models/OTHER

People write the model card, NAME/README.md, themselves: data and their licence, metrics, and failures.
"""

from __future__ import annotations

from pathlib import Path

from training import command
from unitbox_tf import runs
from unitbox_tf.cli import options as decode_options


def main() -> None:
    """Reads the command line, and publishes."""
    parser = command.parser_of("training.publish", __doc__)
    parser.add_argument("run", type=Path, help="folder of a run")
    parser.add_argument("folder", type=Path, help="folder to write")
    parser.add_argument(
        "--last", action="store_true", help="take the weights of the last epoch, not the best"
    )
    parser.add_argument(
        "--average",
        nargs="+",
        type=Path,
        default=[],
        metavar="RUN",
        help="runs of the same network, started one from the other: the mean of all weights is published",
    )
    decode_options.add_decoding(parser)
    arguments = parser.parse_args()
    changes = decode_options.decoding(arguments)
    names = ("run", "folder", "last", "average")
    options = {name: getattr(arguments, name) for name in names} | changes
    command.call(parser, "unitbox_tf.detect.model:publish", options)
    size = runs.Run(arguments.folder).weights.stat().st_size
    print(f"{arguments.folder}: {size / 1e6:.1f} MB of weights; now write its README.md")


if __name__ == "__main__":
    main()
