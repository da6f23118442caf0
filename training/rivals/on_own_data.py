r"""Trains a detector of torchvision on your own data, beside ours, within a budget of CPU time.

    python -m training.rivals.on_own_data fcos --train train.json --validation val.json \
        --test test.json --weights vgg16_notop.h5 --cpu-minutes 45 --output fcos

It needs an environment of its own, with torch, torchvision, h5py and pycocotools, and nothing of this
project (docs/own_data.md). Images lie beside their COCO json, or in `images/` there.

The backbone is VGG-16, which starts from the same ImageNet weights as ours: Keras' file without the top
layers. `ssd300` is torchvision's SSD300. `fcos` is torchvision's FCOS on a feature pyramid of stages 4
and 5. Images are changed as users of these detectors do: mirrored, at random scales, in random colours; for
`ssd300`, crops and zooms, too.

The budget is CPU time of this process, of all its threads: it contains reading, training and judging. The
learning rate follows the share of the budget that is used: a cosine, after a short warm-up. At three
times the network is judged by `--validation`; the best one finds the objects of `--test`.

--output holds detections.json (COCO's form, for `unitbox evaluate`), history.json and weights.pt.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from training import command


def main() -> None:
    """Trains, and detects in the test images."""
    parser = _parser()
    command.call(parser, "training.rivals.torchvision_trained:run", vars(parser.parse_args()))


def _parser() -> argparse.ArgumentParser:
    parser = command.parser_of("training.rivals.on_own_data", __doc__)
    parser.add_argument("rival", choices=("fcos", "ssd300"))
    for name in ("train", "validation", "test"):
        parser.add_argument(f"--{name}", type=Path, required=True, help="COCO json")
    parser.add_argument("--weights", type=Path, required=True, help="Keras' VGG-16, h5")
    parser.add_argument("--output", type=Path, required=True, help="folder to write")
    parser.add_argument("--cpu-minutes", type=float, default=45, help="budget (default: 45)")
    parser.add_argument(
        "--side", type=int, default=224, help="short side of images; px, fcos only (default: 224)"
    )
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--learning-rate", type=float, default=1e-4, help="AdamW (default: 1e-4)")
    parser.add_argument(
        "--new-layers", type=float, default=5, help="factor of their learning rate (default: 5)"
    )
    parser.add_argument("--weight-decay", type=float, default=1e-4, help="AdamW (default: 1e-4)")
    parser.add_argument("--threads", type=int, default=1, help="of torch (default: 1)")
    parser.add_argument("--seed", type=int, default=0)
    return parser


if __name__ == "__main__":
    main()
