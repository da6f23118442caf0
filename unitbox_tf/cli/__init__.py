"""The console script `unitbox`: `fit`, `detect`, `evaluate`, `convert`, `export`, `demo`, a module each."""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import sys
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unitbox_tf import config as configs
from unitbox_tf.cli import decoding

INTERRUPTED = 130  # exit status after Ctrl-C, as of shells


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit status: 0, or 1 where something failed, with a message on standard error."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    for noisy in ("absl", "tensorflow", "matplotlib", "httpx"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    try:
        if arguments[:1] == ["fit"]:  # its options are the fields of the configuration
            return _command("fit").run(arguments[1:])
        options = _parser().parse_args(arguments)
        return _command(options.command).run(options)
    except (ValueError, OSError, ImportError) as error:  # the last names what to install
        print(f"unitbox: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("unitbox: interrupted", file=sys.stderr)
        return INTERRUPTED


def _command(name: str) -> Any:
    """The module of a command. Imported here, so that `--help` and wrong options answer at once."""
    return importlib.import_module(f"unitbox_tf.cli.{name}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="unitbox", description="UnitBox object detection.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    commands.add_parser(
        "fit", help="train: unitbox fit [PRESET] [--field value ...]; see unitbox fit --help"
    )

    detect = commands.add_parser("detect", help="find objects in photos and videos")
    detect.set_defaults(command="detect")
    detect.add_argument(
        "model",
        type=Path,
        help="folder of a run, an exported SavedModel, .onnx or .tflite, or the name of a published detector: "
        "faces",
    )
    detect.add_argument(
        "inputs",
        metavar="INPUT",
        nargs="+",
        help="photos, folders of photos, quoted patterns such as 'holiday/*.jpg', videos, numbers of webcams",
    )
    detect.add_argument(
        "--output",
        type=Path,
        default=Path("found"),
        help="folder for what is found, default: %(default)s; the same command goes on where it was stopped",
    )
    detect.add_argument(
        "--restart",
        action="store_true",
        help="delete what an earlier command has found there, and begin anew",
    )
    detect.add_argument(
        "--tile",
        type=int,
        nargs="?",
        const=0,
        metavar="SIDE",
        help="look at tiles of large pictures, too, of SIDE pixels (default: the model's max_side)",
    )
    detect.add_argument(
        "--blur",
        nargs="?",
        const="ellipse",
        choices=["ellipse", "box"],
        help="blur what is found instead of drawing boxes; what is missed stays as it is",
    )
    detect.add_argument("--score-threshold", type=float, help="lowest score of a detection")
    detect.add_argument("--decoder", choices=["peaks", "ellipse"], help="default: the run's")
    decoding.add_options(detect)

    evaluate = commands.add_parser(
        "evaluate", help="judge a detector, or a file of detections, on annotated photos"
    )
    evaluate.set_defaults(command="evaluate")
    evaluate.add_argument(
        "detector",
        type=Path,
        metavar="MODEL_OR_DETECTIONS",
        help="a detector as for `unitbox detect`; or detections of any detector: COCO's json, "
        "FDDB's result file or folder, WIDER FACE's folder",
    )
    evaluate.add_argument("sources", nargs="+", help="annotated photos as FORMAT:PATH#SPLIT")
    evaluate.add_argument("--data", default=".", help="folder that relative paths start from")
    evaluate.add_argument(
        "--protocol",
        choices=typing.get_args(configs.Protocol),
        default="summary",
        help="by which it is judged; docs/evaluation.md tells about them",
    )
    evaluate.add_argument(
        "--output", type=Path, help="folder for results.json, detections, curves, pictures"
    )
    evaluate.add_argument(
        "--present",
        action="store_true",
        help="of detections in files: only annotated photos that are there, as of a model",
    )
    of_model = evaluate.add_argument_group("of a model")
    of_model.add_argument(
        "--decoder", choices=["peaks", "ellipse", "both"], help="default: both that it has"
    )
    decoding.add_options(of_model)
    of_protocol = evaluate.add_argument_group("of a protocol")
    of_protocol.add_argument(
        "--min-size",
        type=float,
        help="summary: ignore objects with a shorter side below, in pixels",
    )
    of_protocol.add_argument(
        "--shape",
        choices=["rectangle", "ellipse"],
        help="fddb: boxes as they are (default), or as the ellipses inscribed in them",
    )
    of_protocol.add_argument(
        "--iou",
        choices=["official", "exact"],
        help="wider_face: overlap rounded as by the original (default), or not",
    )
    of_protocol.add_argument(
        "--ground-truth",
        type=Path,
        help="wider_face: folder of wider_face_val.mat and of the lists of easy, medium, hard faces",
    )
    of_protocol.add_argument(
        "--image-sizes",
        type=Path,
        help="fddb, summary: json of name: [width, height], in place of photos",
    )
    of_protocol.add_argument(
        "--curves",
        type=Path,
        help="fddb, wider_face: folder with curves of other detectors, to draw beside",
    )

    convert = commands.add_parser("convert", help="write a data set in another format")
    convert.set_defaults(command="convert")
    convert.add_argument("source", help="annotated photos as FORMAT:PATH#SPLIT")
    convert.add_argument("destination", help="new folder as FORMAT:PATH#SPLIT")
    convert.add_argument(
        "--data", default=".", help="folder that SOURCE's relative path starts from"
    )
    photos = convert.add_mutually_exclusive_group()
    photos.add_argument("--link", action="store_true", help="hard-link photos, do not copy them")
    photos.add_argument(
        "--no-photos", action="store_true", help="annotations alone; photos may be absent"
    )

    export = commands.add_parser("export", help="write a detector as a file for applications")
    export.set_defaults(command="export")
    export.add_argument("model", type=Path, help="folder of a run, or a published name")
    export.add_argument("output", type=Path, help="file or, for a SavedModel, folder to write")
    export.add_argument(
        "--format",
        choices=["saved_model", "onnx", "litert", "litert-int8"],
        help="default: by the name of OUTPUT, .onnx or .tflite (float16), else a SavedModel",
    )
    export.add_argument(
        "--calibration",
        type=Path,
        nargs="+",
        help="litert-int8: photos, or folders of them, like those that it is for",
    )
    export.add_argument("--decoder", choices=["peaks", "ellipse"], help="default: the run's")
    export.add_argument("--score-threshold", type=float, help="lowest score of a detection")
    decoding.add_options(export)

    demo = commands.add_parser("demo", help="serve a page to try a detector on photos")
    demo.set_defaults(command="demo")
    demo.add_argument(
        "model",
        type=Path,
        nargs="?",
        default=Path("faces"),
        help="folder of a run, or a published name; default: faces",
    )
    demo.add_argument(
        "--host", default="127.0.0.1", help="address to listen at; default: this machine alone"
    )
    demo.add_argument("--port", type=int, help="default: the first that is free from 7860 on")
    demo.add_argument(
        "--max-upload-mb", type=float, default=20, help="of a photo's file; default: %(default)g"
    )
    demo.add_argument(
        "--max-megapixels",
        type=float,
        default=50,
        help="of a photo, in million pixels; default: %(default)g",
    )
    decoding.add_options(demo)
    return parser
