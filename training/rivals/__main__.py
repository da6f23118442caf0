r"""Compares our face detectors with others from the package index, on the same images, in one run.

    python -m training.rivals wider_face:wider/val_416 coco:wider/val_640 fddb:fddb#8 --data DATA \
        --ours faces faces:max_side=640 detector.onnx --yunet yunet.onnx --output compared

A detector of ours is a run's folder, a published name, or an ONNX or LiteRT file, with fields of its
`DecodeConfig` after colons. The others (catalogue.py) get a virtual environment each; one that cannot be
installed or stops is absent from the table, with the reason.

Each source is judged apart. The boxes of each detector are judged without changes, down to low scores,
which average precision needs. Time is measured on images of the first source, resized to 640 x 480, with
each detector's own thresholds, from the array of an image to boxes. In a round, all detectors get one
image, in a changing order, so that other programs on the machine slow all of them alike. Ratios to
CenterFace and YuNet are taken within each round; without them, ratios to the first of --ours.

--output holds table.md, table.json, and a folder for each source with curves.png and a folder for each
detector. Detections of the same detector, settings and images are not made again.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from training import command
from training.rivals import catalogue


def main() -> None:
    """Compares."""
    parser = _parser()
    options = vars(parser.parse_args())
    if not 0 <= options["min_size"] < float("inf") or options["rounds"] < 0:
        parser.error("expected a --min-size and --rounds from 0")
    command.call(parser, "training.rivals.comparison:compare", options)


def _parser() -> argparse.ArgumentParser:
    names = [rival.detector for rival in catalogue.RIVALS]
    parser = command.parser_of("training.rivals", __doc__)
    parser.add_argument(
        "sources", nargs="+", help="FORMAT:PATH#SPLIT, annotated faces; each is judged apart"
    )
    parser.add_argument("--data", type=Path, default=Path(), help="where paths of sources start")
    parser.add_argument(
        "--ours",
        nargs="+",
        required=True,
        metavar="RUN[:FIELD=VALUE...]",
        help="faces, saved_models/RUN:max_side=832, faces:scales=1,2, or detector.onnx",
    )
    parser.add_argument(
        "--rivals",
        dest="others",
        nargs="*",
        default=names,
        choices=names,
        help="some of the others; all by default",
    )
    parser.add_argument(
        "--yunet",
        type=Path,
        metavar="FILE",
        help="ONNX file of YuNet; without it, YuNet is left out",
    )
    parser.add_argument("--output", type=Path, required=True, help="folder to write")
    parser.add_argument(
        "--environments", type=Path, help="folder of environments; OUTPUT/environments by default"
    )
    parser.add_argument(
        "--min-size",
        type=float,
        default=16,
        help="faces with a shorter side are ignored; px (default: 16)",
    )
    parser.add_argument(
        "--photos", type=int, help="only so many images of each source, for a first look"
    )
    parser.add_argument(
        "--rounds", type=int, default=50, help="in which time is taken; 0: not at all (default: 50)"
    )
    return parser


if __name__ == "__main__":
    main()
