"""The parser of the command line. A function adds each command. Nothing here imports the commands' modules."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import unitbox_tf
from unitbox_tf import config as configs
from unitbox_tf import registry, spelling
from unitbox_tf.cli import options
from unitbox_tf.limits import MAX_BATCH, MAX_CONNECTIONS
from unitbox_tf.presets import PRESETS
from unitbox_tf.settings import above, at_least, between

DEFAULT_PRESET = "smoke"
# The settings in each group of `Config`.
GROUPS: dict[str, Any] = {
    "data": configs.DataConfig,
    "model": configs.ModelConfig,
    "loss": configs.LossConfig,
    "train": configs.TrainConfig,
    "decode": configs.DecodeConfig,
}

MODEL = (
    "a detector: the name of a published detector, such as faces, or the path of a run's folder or of an exported "
    "file or folder; a word without a slash and without a suffix is a name, so write ./detector for a folder here"
)
SOURCES = "annotated images, each source as FORMAT:PATH#SPLIT, such as coco:photos/instances.json"
# The arguments of each command in short. Its help describes all options.
USAGES = {
    "fit": "[PRESET | --config FILE | --resume RUN] [--FIELD VALUE ...]",
    "detect": "MODEL INPUT ... [--OPTION VALUE ...]",
    "evaluate": "MODEL_OR_DETECTIONS SOURCE ... [--OPTION VALUE ...]",
    "inspect": "SOURCE ... [--OPTION VALUE ...]",
    "convert": "SOURCE DESTINATION [--OPTION VALUE ...]",
    "export": "MODEL OUTPUT [--OPTION VALUE ...]",
    "demo": "[MODEL] [--OPTION VALUE ...]",
    "serve": "MODEL [--OPTION VALUE ...]",
}
DATA = "folder that relative paths of sources start from (default: the current folder)"


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The options in the arguments of `unitbox`; `command` is the name of the command.

    Raises:
        SystemExit: help was asked for, or the arguments are wrong. The text has been printed.
    """
    parser = make(arguments)
    named = arguments[0] if arguments else ""
    if named and not named.startswith("-") and named not in COMMANDS:
        near = spelling.resembling(named, COMMANDS)
        parser.error(f"unknown command {named!r}.{near} Expected one of: {', '.join(COMMANDS)}")
    return parser.parse_args(arguments)


def make(arguments: Sequence[str]) -> options.Parser:
    """The parser. `arguments` may name the settings whose values the help of `fit` shows as defaults."""
    parser = options.Parser(prog="unitbox", description="Object detection with UnitBox.")
    parser.add_argument("--version", action="version", version=f"unitbox {unitbox_tf.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    for name, (summary, add) in COMMANDS.items():
        command = commands.add_parser(name, help=summary, description=f"{_capital(summary)}.")
        # Short, because it also stands before the message about wrong usage.
        command.usage = f"unitbox {name} {USAGES[name]}"
        if name == "fit":
            _add_fit(command, *_start(arguments))
        else:
            add(command)
        _add_common(command, has_result=name not in ("demo", "serve"))
    return parser


def _add_common(parser: options.Parser, has_result: bool) -> None:
    group = parser.add_argument_group("output")
    group.add_argument(
        "--quiet",
        action="store_true",
        help="show no progress, and log only warnings; use it in scripts. Results and errors are still printed",
    )
    if has_result:
        group.add_argument(
            "--json",
            action="store_true",
            help="print the result as one json object on standard output, and everything else on "
            "standard error; use it if a program reads the result",
        )


def _start(arguments: Sequence[str]) -> tuple[str, configs.Config]:
    """The settings whose values `fit --help` shows, and words for where they come from.

    They are those of the file, run or preset that the arguments name, or else of the default preset.
    """
    if {"-h", "--help"} & set(arguments):
        file, run = _value(arguments, "--config"), _value(arguments, "--resume")
        init = _value(arguments, "--init")
        with contextlib.suppress(ValueError, OSError):  # the command itself reports them
            if file is not None:
                return f"of {file}", configs.load(file)
            if run is not None:
                from unitbox_tf import runs

                return f"of the run {run}", runs.Run(Path(run)).config()
            if init is not None and not set(PRESETS) & {*arguments[1:2]}:
                from unitbox_tf import runs

                return f"of {init}", runs.Run.find(init).config()
    first = arguments[1] if len(arguments) > 1 else ""
    name = first if first in PRESETS else DEFAULT_PRESET
    return f"of the preset {name}", PRESETS[name]


def _value(arguments: Sequence[str], option: str) -> str | None:
    """The value of an option in arguments that are not parsed yet; None if it is not given."""
    for text, following in zip(arguments, [*arguments[1:], None], strict=True):
        if text == option:
            return following
        if text.startswith(f"{option}="):
            return text.partition("=")[2]
    return None


def _add_fit(
    parser: options.Parser,
    origin: str = f"of the preset {DEFAULT_PRESET}",
    shown: configs.Config = PRESETS[DEFAULT_PRESET],
) -> None:
    parser.description = (
        "Train a detector. Start from a preset, a configuration file or an earlier run, and change any of "
        f"its settings by an option. The defaults shown are those {origin}."
    )
    start = parser.add_mutually_exclusive_group()
    start.add_argument(
        "preset",
        metavar="PRESET",
        nargs="?",
        type=options.one_of("preset", PRESETS),
        help=f"settings to start from, one of: {', '.join(PRESETS)} (default: {DEFAULT_PRESET}, which trains "
        "on synthetic images in minutes)",
    )
    start.add_argument(
        "--config",
        metavar="FILE",
        type=Path,
        help="start from a configuration file, such as the config.json of a run; use it to repeat a run or to "
        "keep your own settings. Missing fields have their defaults",
    )
    start.add_argument(
        "--resume",
        metavar="RUN",
        type=Path,
        help="go on with the run in this folder, with its settings, weights and optimizer; use it after an "
        "interruption, or with --epochs to train longer",
    )
    for name, cls in GROUPS.items():
        first_line = (cls.__doc__ or "").splitlines()[0]
        group = parser.add_argument_group(name, first_line)
        options.add_settings(group, cls, getattr(shown, name))


def _add_detect(parser: options.Parser) -> None:
    parser.add_argument("model", metavar="MODEL", type=options.detector, help=MODEL)
    parser.add_argument(
        "inputs",
        metavar="INPUT",
        nargs="+",
        help="images, folders, quoted patterns such as 'holiday/*.jpg', videos, rtsp://..., numbers of webcams",
    )
    parser.add_argument(
        "--output",
        metavar="FOLDER",
        default="found",
        help="folder for the results (default: %(default)s); the same command goes on where it was stopped",
    )
    parser.add_argument(
        "--restart",
        action="store_true",
        help="delete the results of an earlier command there, and begin again; use it after settings changed",
    )
    parser.add_argument(
        "--tile",
        type=options.number(int, at_least(1)),
        nargs="?",
        const=0,
        metavar="SIDE",
        help="also search tiles of SIDE pixels in large images (default of SIDE: the detector's max_side); use "
        "it for small objects in large images",
    )
    parser.add_argument(
        "--blur",
        nargs="?",
        const="ellipse",
        choices=["ellipse", "box"],
        help="blur objects instead of drawing boxes, in ellipses (the default) or boxes; objects that are not "
        "found stay visible",
    )
    options.add_trust(parser)
    options.add_decoding(parser.add_argument_group("decoding", "How boxes are found."))
    _add_pipeline(
        parser.add_argument_group("pipeline", "For millions of photos; docs/batch.md describes it.")
    )


def _add_pipeline(group: Any) -> None:
    group.add_argument(
        "--runner",
        choices=["direct", "flink", "spark", "dataflow"],
        help="detect by a pipeline of Apache Beam, on this machine (direct) or on a cluster, and write rows of json "
        "instead of images; inputs are photos, also remote ones such as gs://..., and lists as @FILE",
    )
    group.add_argument(
        "--workers",
        metavar="N",
        type=options.number(int, at_least(1)),
        help="direct: number of processes (default: 1)",
    )
    group.add_argument(
        "--shard-size",
        metavar="N",
        type=options.number(int, at_least(1)),
        help="number of photos whose rows are in one file (default: 1000); a worker that is killed loses at most so "
        "many",
    )
    group.add_argument(
        "--beam-options",
        metavar="NAME[=VALUE]",
        nargs="+",
        help="options of Apache Beam and of the runner, without their dashes, such as "
        "flink_master=localhost:8081",
    )


def _add_evaluate(parser: options.Parser) -> None:
    parser.add_argument(
        "detector",
        metavar="MODEL_OR_DETECTIONS",
        type=options.detector,
        help=f"{MODEL}; or detections of any detector: COCO's json, FDDB's result file or folder, WIDER "
        "FACE's folder",
    )
    parser.add_argument("sources", metavar="SOURCE", nargs="+", type=options.source, help=SOURCES)
    parser.add_argument("--data", metavar="FOLDER", default=".", help=DATA)
    options.add_classes(parser, "judge by")
    parser.add_argument(
        "--protocol",
        choices=typing.get_args(configs.Protocol),
        default="summary",
        help="protocol that judges (default: %(default)s); take the protocol of the published metrics that you "
        "compare with. docs/evaluation.md describes all",
    )
    parser.add_argument(
        "--output",
        metavar="FOLDER",
        type=Path,
        help="new folder for results.json, detections, curves and images (default: none is written)",
    )
    parser.add_argument(
        "--present",
        action="store_true",
        help="with detections: judge only by the annotated images that are there, as with a model; use it "
        "if you have only a part of a data set",
    )
    options.add_trust(parser)
    options.add_decoding(
        parser.add_argument_group("decoding", "With a model: how boxes are found.")
    )
    _add_protocol_options(parser.add_argument_group("protocols", "Options of single protocols."))


def _add_protocol_options(group: Any) -> None:
    group.add_argument(
        "--min-size",
        metavar="X",
        type=options.number(float, at_least(0)),
        help="summary: ignore objects whose shorter side is below this, in pixels; set it to the smallest size "
        "that matters to you (default: 0)",
    )
    group.add_argument(
        "--shape",
        choices=["rectangle", "ellipse"],
        help="fddb: take boxes as they are (the default), or as the ellipses inscribed in them, which fit "
        "the annotated ellipses better",
    )
    group.add_argument(
        "--iou",
        choices=["official", "exact"],
        help="wider_face: round overlaps as the original program does (the default, to compare with "
        "published metrics), or not",
    )
    group.add_argument(
        "--ground-truth",
        metavar="FOLDER",
        type=Path,
        help="wider_face: folder of wider_face_val.mat and of the lists of easy, medium and hard faces; "
        "set it if they are not beside the annotations",
    )
    group.add_argument(
        "--image-sizes",
        metavar="FILE",
        type=Path,
        help="fddb, summary: json of name: [width, height]; set it if the images are absent",
    )
    group.add_argument(
        "--curves",
        metavar="FOLDER",
        type=Path,
        help="fddb, wider_face: folder with curves of other detectors, to draw beside this one's",
    )


def _add_convert(parser: options.Parser) -> None:
    parser.add_argument(
        "source",
        metavar="SOURCE",
        type=options.source,
        help=SOURCES.replace("each source", "a source"),
    )
    parser.add_argument(
        "destination",
        metavar="DESTINATION",
        type=options.destination,
        help="new folder as FORMAT:PATH#SPLIT, such as yolo:converted",
    )
    parser.add_argument("--data", metavar="FOLDER", default=".", help=f"{DATA}; only for SOURCE")
    options.add_classes(parser, "write")
    photos = parser.add_mutually_exclusive_group()
    photos.add_argument(
        "--link",
        action="store_true",
        help="hard-link images instead of copying them; use it to save time and space on one disk",
    )
    photos.add_argument(
        "--no-photos",
        action="store_true",
        help="write only annotations; use it if images are absent or stay elsewhere",
    )


def _add_inspect(parser: options.Parser) -> None:
    parser.add_argument(
        "sources",
        metavar="SOURCE",
        nargs="+",
        type=options.source,
        help=SOURCES.replace("annotated images", "training images"),
    )
    parser.add_argument(
        "--validation",
        metavar="SOURCE",
        nargs="+",
        type=options.source,
        default=[],
        help="validation images, written in the same way; they are also looked for among the training images",
    )
    parser.add_argument("--data", metavar="FOLDER", default=".", help=DATA)
    parser.add_argument(
        "--quick",
        action="store_true",
        help="decode no image, and compare images byte by byte alone; use it for large data sets",
    )
    parser.add_argument(
        "--output",
        metavar="FOLDER",
        type=Path,
        help="new folder for a page (index.html) with annotated images, training images as the network gets them "
        "and their targets; for the pictures as PNG; and for all facts as json (default: none is written)",
    )
    start = parser.add_mutually_exclusive_group()
    start.add_argument(
        "--preset",
        type=options.one_of("preset", PRESETS),
        metavar="PRESET",
        default="faces",
        help=f"settings by which sizes are judged, one of: {', '.join(PRESETS)} (default: %(default)s, the recipe "
        "for real images)",
    )
    start.add_argument(
        "--config",
        metavar="FILE",
        type=Path,
        help="take these settings from a configuration file, such as the config.json of a run",
    )
    group = parser.add_argument_group("settings", "Settings of training and detection to try.")
    sources = ("data", "train_sources", "validation_sources")
    options.add_settings(group, configs.DataConfig, "the preset's", without=sources)
    detection = ("max_side", "scales", "largest_object")
    rest = [f.name for f in dataclasses.fields(configs.DecodeConfig) if f.name not in detection]
    options.add_settings(group, configs.DecodeConfig, "the preset's", without=rest)


def _add_export(parser: options.Parser) -> None:
    parser.add_argument(
        "model",
        metavar="MODEL",
        type=options.detector,
        help="the name of a published detector, such as faces, or the path of a run's folder",
    )
    parser.add_argument(
        "output", metavar="OUTPUT", type=Path, help="file or, for a SavedModel, folder to write"
    )
    parser.add_argument(
        "--format",
        metavar=f"{{{','.join(registry.FORMATS)}}}",
        type=options.one_of("format", registry.FORMATS),
        help="format to write (default: by the name of OUTPUT, .onnx or .tflite, else saved_model); take "
        "litert-int8 for small processors",
    )
    parser.add_argument(
        "--calibration",
        metavar="PATH",
        type=Path,
        nargs="+",
        help="litert-int8: images, or folders of images, like those of the application; they measure the ranges "
        "of its whole numbers",
    )
    options.add_decoding(
        parser.add_argument_group("decoding", "How boxes are found; the file keeps these settings.")
    )


def _add_host(parser: options.Parser) -> None:
    """The address of the servers `demo` and `serve`."""
    parser.add_argument(
        "--host",
        metavar="ADDRESS",
        default="127.0.0.1",
        help="address to listen at (default: %(default)s, which only this machine can reach); 0.0.0.0 "
        "lets other machines in, without a password",
    )


def _add_demo(parser: options.Parser) -> None:
    parser.add_argument(
        "model",
        metavar="MODEL",
        type=options.detector,
        nargs="?",
        default="faces_light",
        help="the name of a published detector, or the path of a run's folder (default: %(default)s)",
    )
    _add_host(parser)
    parser.add_argument(
        "--port",
        metavar="N",
        type=options.number(int, between(1, 65535)),
        help="port to listen at (default: the first free port from 7860 on)",
    )
    parser.add_argument(
        "--public-host",
        metavar="NAME",
        nargs="+",
        default=[],
        help="names under which browsers reach the page through a proxy, such as demo.example.org; requests "
        "for other names than these and the address are refused",
    )
    parser.add_argument(
        "--max-upload-mb",
        metavar="X",
        type=options.number(float, above(0)),
        default=20.0,
        help="largest file of an image, in megabytes (default: %(default)g); raise it for large images",
    )
    options.add_decoding(parser.add_argument_group("decoding", "How boxes are found at first."))


def _add_serve(parser: options.Parser) -> None:
    parser.add_argument("model", metavar="MODEL", type=options.detector, help=MODEL)
    _add_host(parser)
    parser.add_argument(
        "--port",
        metavar="N",
        type=options.number(int, between(0, 65535)),
        default=8501,
        help="port to listen at (default: %(default)s, that of TensorFlow Serving); 0 takes any free port",
    )
    parser.add_argument(
        "--public-host",
        metavar="NAME",
        nargs="+",
        default=[],
        help="further names by which clients and proxies call this server, such as the name of a container; requests "
        "for other names than these and the address are refused",
    )
    parser.add_argument(
        "--name",
        metavar="NAME",
        help="name of the detector in paths, such as /v1/models/NAME (default: that of MODEL)",
    )
    parser.add_argument(
        "--max-request-mb",
        metavar="X",
        type=options.number(float, above(0)),
        default=32.0,
        help="largest body of a request, in megabytes (default: %(default)g); json makes a photo a third larger",
    )
    parser.add_argument(
        "--max-photos",
        metavar="N",
        type=options.number(int, between(1, MAX_BATCH)),
        default=32,
        help="largest number of photos in a request (default: %(default)s)",
    )
    parser.add_argument(
        "--max-requests",
        metavar="N",
        type=options.number(int, between(1, MAX_CONNECTIONS)),
        default=64,
        help="largest number of requests that arrive, wait or are searched at the same time (default: %(default)s); "
        "others are told to come again",
    )
    parser.add_argument(
        "--max-batch",
        metavar="N",
        type=options.number(int, between(1, MAX_BATCH)),
        default=1,
        help="largest number of photos of one size that go through the network together (default: %(default)s); raise "
        "it with a GPU. Photos may be those of several requests",
    )
    parser.add_argument(
        "--max-wait-ms",
        metavar="X",
        type=options.number(float, between(0, 1000)),
        default=0.0,
        help="with --max-batch: milliseconds to wait for more photos (default: %(default)g)",
    )
    options.add_trust(parser)
    options.add_decoding(
        parser.add_argument_group("decoding", "How boxes are found if a request does not say it.")
    )


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


COMMANDS: dict[str, tuple[str, Callable[[options.Parser], None]]] = {
    "fit": ("train a detector", _add_fit),
    "detect": ("find objects in images and videos", _add_detect),
    "evaluate": ("judge a detector, or a file of detections, on annotated images", _add_evaluate),
    "inspect": (
        "look at data sets before training: sizes, duplicates, pictures, suggested settings",
        _add_inspect,
    ),
    "convert": ("write annotated images in another format", _add_convert),
    "export": ("write a detector as a file for applications", _add_export),
    "demo": ("serve a page to try a detector on images", _add_demo),
    "serve": ("serve a detector to programs, as TensorFlow Serving and KServe do", _add_serve),
}
