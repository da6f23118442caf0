"""Options of several commands that say how a model decodes, and what they change."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any


def add_options(parser: Any) -> None:
    """Adds the options to a parser or to a group of its arguments."""
    parser.add_argument("--max-side", type=int, help="photos are shrunk to this, in pixels")
    parser.add_argument(
        "--scales",
        type=float,
        nargs="+",
        help="sizes at which each photo is shown, as shares of that: 1 2 finds smaller objects",
    )
    parser.add_argument(
        "--largest-object",
        type=float,
        help="with several scales: longer ones, in pixels as shown, are left to a smaller scale",
    )
    parser.add_argument(
        "--nms-iou", type=float, help="of two boxes that overlap more, the better one is kept"
    )
    parser.add_argument("--max-detections", type=int, help="most objects in a photo, the best")


# That `add_options` offers.
FIELDS = ("max_side", "scales", "largest_object", "nms_iou", "max_detections")


def changes(options: argparse.Namespace, names: Sequence[str]) -> dict[str, Any]:
    """Those of the named fields of `DecodeConfig` that the command line gives."""
    given = {name: getattr(options, name) for name in names}
    if given.get("scales") is not None:
        given["scales"] = tuple(given["scales"])
    return {name: value for name, value in given.items() if value is not None}
