"""The paper's experiments, one command a figure; stopped at any moment, each goes on where it was.

    python training/figures.py figure4 letter search final --data DATA --weights VGG16 --output FOLDER

Runs are folders below --output, beside csv files of raw numbers and the plot.
"""

from __future__ import annotations

import argparse
import logging
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    figures = parser.add_subparsers(dest="figure", required=True)
    fourth = figures.add_parser("figure4", help="the IoU loss against l2")
    fourth.add_argument("stages", nargs="+", choices=["letter", "search", "final"])
    fourth.add_argument("--data", required=True, help="folder of fddb and other")
    fourth.add_argument(
        "--weights", required=True, help="'imagenet', or a file of VGG-16's weights"
    )
    fourth.add_argument("--output", type=Path, required=True, help="folder of the runs")
    fourth.add_argument("--letter-epochs", type=int, default=8, help="of 20 iterations")
    fourth.add_argument("--search-epochs", type=int, default=4, help="of 20 iterations")
    fourth.add_argument("--final-epochs", type=int, default=15, help="of 20 iterations")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")

    import figure4

    figure4.make(arguments)


if __name__ == "__main__":
    main()
