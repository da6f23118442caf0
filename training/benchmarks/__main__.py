"""Speed and memory, as ratios measured in one run.

    python training/benchmark.py losses [--jit]
    python training/benchmark.py reading FORMAT:PATH#SPLIT [--data FOLDER]
    python training/benchmark.py fddb DETECTIONS ANNOTATIONS SIZES
    python training/benchmark.py wider_face GROUND_TRUTH RESULTS [RESULTS ...]
    python training/benchmark.py shards [FORMAT:PATH#SPLIT] [--data FOLDER]

Variants take turns in an order that changes, so that what else the machine does meets all of them;
a ratio is taken within each round, and tables show the median and the quartiles. --json FILE writes
the numbers.

losses: forward and backward of -ln IoU; see benchmark_losses.py.

reading: a reader, annotations alone. fddb: reading and judging of an official result file, the folder
FDDB-folds and the json of sizes. wider_face: the same of the folder of the official .mat files and
of results, each a folder in the official layout or one .txt.gz with all images: a line
`# <event>/<image> <n>`, then n lines `x y w h score`; with average precision by the official and the
exact overlap, also of boxes with fractions. These are compared with a bare read of the same files,
and with the plainest loop that makes numbers of their lines (of json, xml and csv: with Python's
own parser); see benchmark_data.py.

shards: writing a data set as TFRecord shards, as `unitbox convert` does, and reading them with all
checksums, as training does before it begins; see benchmark_shards.py.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


def main() -> None:
    """Reads the command line. What is not asked for is not imported: judges do without TensorFlow."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_subparsers(dest="what", required=True)

    of_losses = what.add_parser("losses", help="-ln IoU, forward and backward")
    of_losses.add_argument("--batch", type=int, default=10)
    of_losses.add_argument("--height", type=int, default=480)
    of_losses.add_argument("--width", type=int, default=640)
    of_losses.add_argument("--positive", type=float, default=0.1, help="share of positive pixels")
    of_losses.add_argument("--jit", action="store_true", help="compile with XLA")
    of_losses.add_argument("--memory-of", help=argparse.SUPPRESS)

    of_reading = what.add_parser("reading", help="a reader, annotations alone")
    of_reading.add_argument("source", help="FORMAT:PATH#SPLIT")
    of_reading.add_argument("--data", type=Path, default=Path(), help="where paths start")

    of_fddb = what.add_parser("fddb", help="reading and judging of FDDB results")
    of_fddb.add_argument("detections", type=Path, help="official result file")
    of_fddb.add_argument("annotations", type=Path, help="the folder FDDB-folds")
    of_fddb.add_argument("sizes", type=Path, help="json of the photos' sizes")

    of_wider = what.add_parser("wider_face", help="reading and judging of WIDER FACE results")
    of_wider.add_argument("ground_truth", type=Path, help="folder of the official .mat files")
    of_wider.add_argument("results", type=Path, nargs="+", help="folders, or .txt.gz")

    of_shards = what.add_parser("shards", help="TFRecord shards and bare copies")
    of_shards.add_argument("source", nargs="?", help="FORMAT:PATH#SPLIT; default: random bytes")
    of_shards.add_argument("--data", type=Path, default=Path(), help="where paths start")
    of_shards.add_argument("--folder", type=Path, help="where to write; default: the system's")
    of_shards.add_argument("--count", type=int, default=1000, help="files of random bytes")
    of_shards.add_argument("--kilobytes", type=int, default=300, help="of each of these files")

    commands = {of_losses: 30, of_reading: 30, of_fddb: 9, of_wider: 9, of_shards: 9}
    for each, rounds in commands.items():
        each.add_argument("--rounds", type=int, default=rounds)
        each.add_argument("--json", type=Path, help="file for the numbers")
    arguments = parser.parse_args()
    if arguments.rounds < 1:
        parser.error(f"expected --rounds from 1, received {arguments.rounds}")
    try:
        _run(arguments)
    except (ValueError, OSError) as error:
        parser.error(str(error))


def _run(arguments: argparse.Namespace) -> None:
    """Imports and calls what is asked for."""
    if arguments.what == "losses":
        from training.benchmarks import losses

        losses.benchmark(arguments)
    elif arguments.what == "shards":
        from training.benchmarks import shards

        shards.benchmark_shards(arguments)
    else:
        from training.benchmarks import data

        {
            "reading": data.benchmark_reading,
            "fddb": data.benchmark_fddb,
            "wider_face": data.benchmark_wider_face,
        }[arguments.what](arguments)


if __name__ == "__main__":
    main()
