"""The paper's experiments, with a command for each figure. A stopped experiment goes on where it was.

    python -m training.paper figure4 letter search final --data DATA --weights VGG16 --output FOLDER
    python -m training.paper scales                      --output FOLDER
    python -m training.paper scales  --set faces         --data DATA --output FOLDER
    python -m training.paper figure5 train measure       --data DATA --weights VGG16 --output FOLDER
    python -m training.paper figure5 measure --runs NAME=RUN ... --data DATA --output FOLDER
    python -m training.paper ablations                   --data DATA --weights VGG16 --output FOLDER
    python -m training.paper figure6 --runs NAME=RUN ... --data DATA --curves CURVES --output FOLDER

Runs are folders below --output, beside csv or json files of raw numbers, tables and plots. `scales` is figure 4
with objects of many sizes in one image. The ablations and the training of figure 5 start from the search of
figure 4, and figure 5 also from its final runs: give them the same --output.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from training import command
from unitbox_tf import registry


def main() -> None:
    """Runs one experiment."""
    parser = _parser()
    options = vars(parser.parse_args())
    command.call(parser, options.pop("function"), options)


def _parser() -> argparse.ArgumentParser:
    parser = command.parser_of("training.paper", __doc__)
    figures = parser.add_subparsers(required=True, metavar="FIGURE")
    fourth = figures.add_parser("figure4", help="the IoU loss against l2")
    fourth.set_defaults(function="training.paper.figure4:make")
    fourth.add_argument("stages", nargs="+", choices=["letter", "search", "final"])
    fourth.add_argument("--letter-epochs", type=int, default=6, help="of 20 iterations")
    fourth.add_argument("--final-epochs", type=int, default=15, help="of 20 iterations")

    _add_scales(figures)

    fifth = figures.add_parser("figure5", help="one portrait at six sizes")
    fifth.set_defaults(function="training.paper.figure5:make")
    fifth.add_argument("stages", nargs="+", choices=["train", "measure"])
    fifth.add_argument("--epochs", type=int, default=15, help="of 20 iterations")
    fifth.add_argument(
        "--runs", nargs="+", default=[], metavar="NAME=RUN", help="networks to measure beside these"
    )
    fifth.add_argument("--picture", type=Path, help="a portrait to draw the boxes in")
    fifth.add_argument(
        "--pixel",
        type=float,
        nargs=2,
        default=(0.5, 0.5),
        metavar=("X", "Y"),
        help="where its boxes are read, as shares of width and height",
    )

    sixth = figures.add_parser("figure6", help="ROC curves on FDDB over published ones")
    sixth.set_defaults(function="training.paper.figure6:make")
    sixth.add_argument("--runs", nargs="+", required=True, metavar="NAME=RUN")
    sixth.add_argument("--sources", nargs="+", default=["fddb:fddb#8"], help="images of FDDB")
    sixth.add_argument("--curves", type=Path, help="folder of published curves")
    sixth.add_argument("--decoder", choices=list(registry.DECODERS), default="ellipse")

    ablations = figures.add_parser("ablations", help="one change at a time")
    ablations.set_defaults(function="training.paper.ablations:make")
    ablations.add_argument("--rows", nargs="+", default=[], help="some of them; default: all")
    ablations.add_argument("--seeds", type=int, nargs="+", default=[0, 1], help="of each row")
    ablations.add_argument("--epochs", type=int, default=8, help="of 20 iterations")

    for figure in (fourth, fifth, sixth, ablations):
        figure.add_argument("--data", required=True, help="folder of fddb and other")
        figure.add_argument("--output", type=Path, required=True, help="folder of the runs")
    for figure in (fourth, fifth, ablations):
        figure.add_argument(
            "--weights",
            required=figure is not fifth,
            help="'imagenet', or a file of VGG-16's weights; measuring figure 5 needs none",
        )
        figure.add_argument(
            "--search-epochs", type=int, default=3, help="of 20 iterations, of figure 4's search"
        )
    return parser


def _add_scales(figures: Any) -> None:
    scales = figures.add_parser("scales", help="the IoU loss against l2 with objects of many sizes")
    scales.set_defaults(function="training.paper.scales:make")
    scales.add_argument("--output", type=Path, required=True, help="folder of the runs")
    scales.add_argument(
        "--set",
        dest="kind",
        choices=["multiscale", "faces"],
        default="multiscale",
        help="multiscale: drawn from seeds; faces: the data of the preset faces_light (default: multiscale)",
    )
    scales.add_argument("--data", default=".", help="folder of the data sets; faces needs it")
    scales.add_argument("--losses", nargs="+", choices=list(registry.LOSSES), default=["iou", "l2"])
    scales.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of final runs")
    scales.add_argument("--network", choices=["light", "vgg"], default="light")
    scales.add_argument("--width", type=float, default=0.5, help="of the network (default: 0.5)")
    scales.add_argument("--side", type=int, default=320, help="of images; px (default: 320)")
    scales.add_argument("--images", type=int, default=1500, help="synthetic ones to train on")
    scales.add_argument("--batch-size", type=int, default=4)
    scales.add_argument("--steps", type=int, default=2400, help="of a final run (default: 2400)")


if __name__ == "__main__":
    main()
