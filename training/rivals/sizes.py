r"""Counts recall by the size of faces, in one pass at one scale, on photos that are composed for it.

    python -m training.rivals.sizes --faces fddb:fddb#8 --scenes negatives:other/nonface_scenes --data DATA \
        --ours faces faces_light --output sizes

Each face is shown at each size in a scene without faces: composed.py tells how. The faces are the largest ones of
their photos, so that few of them are enlarged much. A detector of ours gets the photos at scale 1, as the network sees
them. Other detectors get them as they are, and some of them look at several scales by themselves.

Recall is that at IoU 0.5, at the score with 0.1 false positives a photo, and once more at the detector's own
threshold. Intervals are of 95 %: Wilson's for recall, 1.96 standard errors for the mean IoU of faces that are found,
and a bootstrap over faces for flatness: the largest minus the smallest recall over a range of sizes.

--output holds sizes.md, sizes.json, sizes.png, the photos, and a folder for each detector. Photos and detections that
are there are not made again.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from training import command
from training.rivals import catalogue

SIZES = (12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 400, 600)


def main() -> None:
    """Measures."""
    parser = _parser()
    options = vars(parser.parse_args())
    if options["count"] < 1 or min(options["sizes"]) <= 0:
        parser.error("expected --count from 1 and --sizes above 0")
    command.call(parser, "training.rivals.by_size:measure", options)


def _parser() -> argparse.ArgumentParser:
    parser = command.parser_of("training.rivals.sizes", __doc__)
    parser.add_argument("--faces", nargs="+", required=True, help="annotated, FORMAT:PATH#SPLIT")
    parser.add_argument("--scenes", nargs="+", required=True, help="photos without faces, likewise")
    parser.add_argument("--data", type=Path, default=Path(), help="where paths of sources start")
    parser.add_argument(
        "--ours",
        nargs="+",
        required=True,
        metavar="RUN[:FIELD=VALUE...]",
        help="faces, saved_models/RUN, or detector.onnx",
    )
    parser.add_argument(
        "--rivals",
        dest="others",
        nargs="*",
        default=[],
        choices=[rival.detector for rival in catalogue.RIVALS],
        help="others to measure as well (default: none)",
    )
    parser.add_argument("--yunet", type=Path, metavar="FILE", help="ONNX file of YuNet")
    parser.add_argument("--output", type=Path, required=True, help="folder to write")
    parser.add_argument(
        "--environments", type=Path, help="folder of environments; OUTPUT/environments by default"
    )
    parser.add_argument(
        "--sizes", nargs="+", type=float, default=list(SIZES), help="long sides of faces; px"
    )
    parser.add_argument("--count", type=int, default=100, help="faces of each size (default: 100)")
    parser.add_argument(
        "--side", type=int, default=640, help="of the composed photos; px (default: 640)"
    )
    parser.add_argument("--seed", type=int, default=0)
    return parser


if __name__ == "__main__":
    main()
