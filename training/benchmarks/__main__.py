"""Speed, memory and parity, as ratios measured in one run.

    python -m training.benchmarks losses [--jit]
    python -m training.benchmarks reading FORMAT:PATH#SPLIT [--data FOLDER]
    python -m training.benchmarks fddb DETECTIONS ANNOTATIONS SIZES
    python -m training.benchmarks wider_face GROUND_TRUTH RESULTS [RESULTS ...]
    python -m training.benchmarks shards [FORMAT:PATH#SPLIT] [--data FOLDER]
    python -m training.benchmarks serving SAVED_MODEL IMAGE
    python -m training.benchmarks load MODEL [--photo IMAGE] [--clients N ...] [--max-batch N]
    python -m training.benchmarks parity MODEL FORMAT:PATH#SPLIT --calibration IMAGES --output FOLDER
    python -m training.benchmarks backbones [NAME ...] [--counts]
    python -m training.benchmarks inference MODEL [MODEL ...] [--yunet FILE] [--processors] [--operators]
    python -m training.benchmarks normalisation [--batch N] [--side PX]
    python -m training.benchmarks train [--networks vgg16 light] [--precisions POLICY ...] [--xla] [--stages]
    python -m training.benchmarks detection MODEL [--batches 1 8]
    python -m training.benchmarks memory MODEL [MODEL ...] [--megapixels N ...]
    python -m training.benchmarks precision MODEL FORMAT:PATH#SPLIT [--data FOLDER] [--count N] [--sides PX ...]
    python -m training.benchmarks postprocess
    python -m training.benchmarks scaling
    python -m training.benchmarks startup [MODEL ...]
    python -m training.benchmarks compare STORED NEW
    python -m training.benchmarks batch MODEL [PHOTOS] [--count N] [--workers N ...]
    python -m training.benchmarks input [--photos FOLDER] [--sizes HEIGHTxWIDTH ...] [--boxes N ...] [--stages]
    python -m training.benchmarks endurance [MODEL] [--calls N]
    python -m training.benchmarks long_training [--steps 10000]
    python -m training.benchmarks stream [--count 1000000]
    python -m training.benchmarks plot_losses [--output FOLDER]

Variants take turns in a changing order, so that other programs on the machine slow all of them alike. A
ratio is taken within each round, and tables show the median and the quartiles. --json FILE writes the
numbers, with the settings and the machine.

losses: forward and backward of -ln IoU; see losses.py.

reading: a reader, annotations alone. fddb: reading and judging of an official result file, the folder
FDDB-folds and the json of sizes. wider_face: the same for the folder of the official .mat files and
for results. Each result is a folder in the official layout, or one .txt.gz with all images: a line
`# <event>/<image> <n>`, then n lines `x y w h score`. It shows average precision by the official and the
exact overlap, also for boxes with fractions. All three are compared with a bare read of the same files,
and with the plainest loop that makes numbers of their lines (for json, xml and csv: with Python's own
parser); see data.py.

shards: writing a data set as TFRecord shards, as `unitbox convert` does, and reading them with all
checksums, as training does before it begins; see shards.py.

serving: first call and later calls of an exported SavedModel, with and without its warm-up requests;
see serving.py.

load: latencies and throughput of `unitbox serve` under clients, and of the bare runtime; see load.py.

parity: boxes, scores, size and time of each export format beside the detector in Python; see parity.py.

backbones: multiply-adds, parameters and time of each backbone with each neck; see backbones.py.

inference: an image in memory to its boxes, in turns with OpenCV's YuNet, and the time of operators; see
inference.py.

batch: one process with the detector, and pipelines of Apache Beam with one and two workers; see batch.py.

normalisation: a training step of the light network with fused batch normalisation and with Keras'; see
normalisation.py.

train: a step of training with its input, and its memory, against the bare backbone; see train.py.

detection: bytes of photos to boxes, against the bare backbone in the same runtime; see detection.py.

memory: peak memory of detecting in a large photo, whole and in tiles; see memory.py.

precision: the ONNX file in OpenVINO, in bfloat16 beside float32, also in large images; see precision.py.

postprocess: heatmaps to boxes, with 1, 50 and 500 objects; see postprocess.py.

scaling: how costs grow with area, batch, boxes and workers; see scaling.py.

startup: importing, help, and a first detection in each format, as processes of their own; see startup.py.

compare: a json file against a stored one: what became slower by more than the spread; see compare.py.

input: the input pipeline of training, from files and shards to batches, against decoding alone; see input.py.

endurance: memory, traced functions and threads in thousands of detections; see endurance.py.

long_training: memory, open files and threads over many tiny steps of training; see long_training.py.

stream: memory and time of a million annotations that are written into shards and stream through the pipeline; see
stream.py.

plot_losses: the images of docs/losses.md; nothing is measured.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from training import command, outputs
from training.benchmarks.environment import environment


def main() -> None:
    """Runs one measurement. Only its own modules are imported, because judges need no TensorFlow."""
    parser = _parser()
    options = vars(parser.parse_args())
    if options.get("rounds", 1) < 1:
        parser.error(f"expected --rounds from 1, received {options['rounds']}")
    what, function, file = options.pop("what"), options.pop("function"), options.pop("json", None)
    # Readers and judges are measured, and the problems of their data are not of interest.
    level = logging.ERROR if ".data:" in function else logging.WARNING
    content = command.call(parser, function, options, level)
    if file:
        settings = {"what": what, **options}
        if what != "losses":  # whose settings are numbers
            settings = {name: str(value) for name, value in settings.items()}
        outputs.write_json(file, {"settings": settings, "environment": environment(), **content})


def _parser() -> argparse.ArgumentParser:
    parser = command.parser_of("training.benchmarks", __doc__)
    commands = parser.add_subparsers(dest="what", required=True, metavar="WHAT")

    def add(name: str, function: str, rounds: int, text: str) -> argparse.ArgumentParser:
        each = commands.add_parser(name, help=text)
        each.set_defaults(function=f"training.benchmarks.{function}")
        each.add_argument("--rounds", type=int, default=rounds, help="default: %(default)s")
        return each

    losses = add("losses", "losses:benchmark", 30, "-ln IoU, forward and backward")
    losses.add_argument("--batch", type=int, default=10)
    losses.add_argument("--height", type=int, default=480)
    losses.add_argument("--width", type=int, default=640)
    losses.add_argument("--positive", type=float, default=0.1, help="share of positive pixels")
    losses.add_argument("--jit", action="store_true", help="compile with XLA")

    shards = add("shards", "shards:benchmark", 9, "TFRecord shards and bare copies")
    shards.add_argument("source", nargs="?", help="FORMAT:PATH#SPLIT; default: random bytes")
    shards.add_argument("--data", type=Path, default=Path(), help="where paths start")
    shards.add_argument("--folder", type=Path, help="where to write; default: the system's")
    shards.add_argument("--count", type=int, default=1000, help="files of random bytes")
    shards.add_argument("--kilobytes", type=int, default=300, help="of each of these files")

    text = "multiply-adds, parameters and time of each backbone"
    backbones = add("backbones", "backbones:benchmark", 9, text)
    backbones.add_argument("names", nargs="*", metavar="NAME", help="default: all backbones")
    backbones.add_argument("--counts", action="store_true", help="leave the times out")

    text = "training with fused batch normalisation"
    normalisation = add("normalisation", "normalisation:benchmark", 9, text)
    normalisation.add_argument("--batch", type=int, default=8, help="images in a step")
    normalisation.add_argument("--side", type=int, default=416, help="of these images, px")

    written = (losses, shards, backbones, normalisation, _add_input(add), *_add_data(add))
    loads = (_add_inference(add), _add_batch(add), _add_load(add))
    for each in (*written, *loads, *_add_against_backbone(add), *_add_parts(add)):
        each.add_argument("--json", type=Path, help="file for the numbers")
    _add_exports(add)
    _add_precision(add)
    _add_endurance(commands)

    each = commands.add_parser("compare", help="a json file against a stored one")
    each.set_defaults(function="training.benchmarks.compare:compare")
    each.add_argument("stored", type=Path, help="json of an earlier measurement")
    each.add_argument("new", type=Path, help="json of the measurement to judge")

    plot = commands.add_parser("plot_losses", help="images of the losses and their gradients")
    plot.set_defaults(function="training.benchmarks.plot_losses:draw")
    plot.add_argument("--output", type=Path, default=Path("docs/losses"), help="folder to write")
    return parser


def _add_data(add: Callable[..., argparse.ArgumentParser]) -> list[argparse.ArgumentParser]:
    reading = add("reading", "data:benchmark_reading", 30, "a reader, annotations alone")
    reading.add_argument("source", help="FORMAT:PATH#SPLIT")
    reading.add_argument("--data", type=Path, default=Path(), help="where paths start")

    fddb = add("fddb", "data:benchmark_fddb", 9, "reading and judging of FDDB results")
    fddb.add_argument("detections", type=Path, help="official result file")
    fddb.add_argument("annotations", type=Path, help="the folder FDDB-folds")
    fddb.add_argument("sizes", type=Path, help="json of the images' sizes")

    text = "reading and judging of WIDER FACE results"
    wider = add("wider_face", "data:benchmark_wider_face", 9, text)
    wider.add_argument("ground_truth", type=Path, help="folder of the official .mat files")
    wider.add_argument("results", type=Path, nargs="+", help="folders, or .txt.gz")
    return [reading, fddb, wider]


def _add_input(add: Callable[..., argparse.ArgumentParser]) -> argparse.ArgumentParser:
    text = "the input pipeline of training, against decoding alone"
    each = add("input", "input:benchmark", 9, text)
    each.add_argument(
        "--photos", type=Path, help="folder of JPEG images; default: drawn from a seed"
    )
    each.add_argument("--count", type=int, default=64, help="of images; default: %(default)s")
    text = "of the images; default: 224x224 320x320 480x640"
    each.add_argument("--sizes", nargs="+", metavar="HEIGHTxWIDTH", help=text)
    each.add_argument("--boxes", nargs="+", type=int, default=[10, 500], help="in each image")
    places = ["files", "shards", "dataset"]
    text = "default: files shards; dataset: a tf.data.Dataset of a user's own"
    each.add_argument("--stored", nargs="+", choices=places, default=places[:2], help=text)
    each.add_argument("--stride", type=int, default=4, help="of targets; default: %(default)s")
    each.add_argument("--batch", type=int, default=8, help="images in a batch")
    text = "switch the stages on one after the other: what each of them adds"
    each.add_argument("--stages", action="store_true", help=text)
    return each


def _add_inference(add: Callable[..., argparse.ArgumentParser]) -> argparse.ArgumentParser:
    text = "from an image in memory to its boxes"
    inference = add("inference", "inference:benchmark", 60, text)
    inference.add_argument("models", nargs="+", metavar="MODEL", help="names or paths of detectors")
    inference.add_argument("--yunet", type=Path, help="the ONNX file of OpenCV's FaceDetectorYN")
    inference.add_argument("--photo", type=Path, help="an image; default: noise")
    inference.add_argument("--threads", type=int, default=2, help="of OpenCV; default: %(default)s")
    text = "time of processors, not time that passes"
    inference.add_argument("--processors", action="store_true", help=text)
    inference.add_argument("--operators", action="store_true", help="times of operators in .onnx")
    return inference


def _add_against_backbone(
    add: Callable[..., argparse.ArgumentParser],
) -> list[argparse.ArgumentParser]:
    """Networks and runtimes are checked where they are used, because naming them needs TensorFlow."""
    train = add("train", "train:benchmark", 7, "a step of training against the bare backbone")
    train.add_argument("--networks", nargs="+", default=["vgg16", "light"], metavar="NAME")
    precisions = ["float32", "mixed_bfloat16"]
    train.add_argument("--precisions", nargs="+", default=precisions, metavar="POLICY")
    train.add_argument("--side", type=int, default=192, help="of images, px; default: %(default)s")
    train.add_argument("--batch", type=int, default=8, help="images; default: %(default)s")
    train.add_argument("--steps", type=int, default=3, help="in a turn; default: %(default)s")
    train.add_argument("--xla", action="store_true", help="compile both with XLA")
    text = "switch the parts of a step on one after the other: what each of them adds"
    train.add_argument("--stages", action="store_true", help=text)

    detection = add("detection", "detection:benchmark", 15, "bytes to boxes against the backbone")
    detection.add_argument("model", help="folder of a run, or a published name")
    detection.add_argument("--runtimes", nargs="+", default=[], help="default: all", metavar="NAME")
    detection.add_argument("--batches", nargs="+", type=int, default=[1, 8], help="of photos")
    detection.add_argument("--photos", nargs="+", type=Path, default=[], help="default: drawn ones")
    return [train, detection]


def _add_parts(add: Callable[..., argparse.ArgumentParser]) -> list[argparse.ArgumentParser]:
    postprocess = add("postprocess", "postprocess:benchmark", 15, "decoders alone")
    scaling = add("scaling", "scaling:benchmark", 9, "how costs grow")
    startup = add("startup", "startup:benchmark", 9, "programs from their start to their end")
    startup.add_argument("models", nargs="*", metavar="MODEL", help="names or paths of detectors")
    return [postprocess, scaling, startup]


def _add_batch(add: Callable[..., argparse.ArgumentParser]) -> argparse.ArgumentParser:
    batch = add("batch", "batch:benchmark", 3, "pipelines of Apache Beam beside one process")
    batch.add_argument("model", help="a name or path of a detector")
    batch.add_argument("photos", type=Path, nargs="?", help="a folder; default: photos are made")
    batch.add_argument("--count", type=int, default=2000, help="photos; default: %(default)s")
    batch.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="default: 1 2")
    return batch


def _add_load(add: Callable[..., argparse.ArgumentParser]) -> argparse.ArgumentParser:
    load = add("load", "load:benchmark", 5, "clients of the server, and the bare runtime")
    load.add_argument("model", help="the name or the path of a detector")
    load.add_argument("--photo", type=Path, help="an image; default: noise of 640 x 480")
    load.add_argument("--clients", type=int, nargs="+", default=[1, 8, 64], help="at the same time")
    load.add_argument("--requests", type=int, default=128, help="of all clients, in a round")
    protocols = ["tensorflow", "open_inference"]
    load.add_argument("--protocol", choices=protocols, default=protocols[0])
    load.add_argument("--max-batch", type=int, default=1, help="option of the server")
    load.add_argument("--max-wait-ms", type=float, default=0.0, help="option of the server")
    return load


def _add_exports(add: Callable[..., argparse.ArgumentParser]) -> None:
    serving = add("serving", "serving:benchmark", 5, "calls of a SavedModel, warmed up or not")
    serving.add_argument("saved_model", type=Path, help="one with warm-up requests")
    serving.add_argument("photo", type=Path, help="an image to detect in")

    parity = add("parity", "parity:compare", 9, "each export format beside Python")
    parity.add_argument("model", help="folder of a run, or a published name")
    parity.add_argument("source", help="annotated images as FORMAT:PATH#SPLIT")
    parity.add_argument("--data", default=".", help="folder that the relative path starts from")
    parity.add_argument("--calibration", nargs="+", required=True, help="images for int8")
    parity.add_argument("--output", type=Path, required=True, help="folder to write")


def _add_precision(add: Callable[..., argparse.ArgumentParser]) -> None:
    text = "the ONNX file in OpenVINO, in bfloat16 beside float32"
    each = add("precision", "precision:compare", 5, text)
    each.add_argument("model", help="folder of a run, or a published name")
    each.add_argument("source", help="annotated images as FORMAT:PATH#SPLIT")
    each.add_argument("--data", default=".", help="folder that the relative path starts from")
    each.add_argument("--count", type=int, help="of images; default: all")
    text = "longer sides to which images are enlarged; 0, the default: as they are"
    each.add_argument("--sides", type=int, nargs="+", default=[0], metavar="PX", help=text)
    each.add_argument("--json", type=Path, help="file for the numbers")


def _add_endurance(commands: Any) -> None:
    long = commands.add_parser("long_training", help="memory and open files in many tiny steps")
    long.set_defaults(function="training.benchmarks.long_training:benchmark")
    long.add_argument("--steps", type=int, default=10_000, help="in all")
    long.add_argument("--epochs", type=int, default=4, help="in which they are taken")
    long.add_argument("--folder", type=Path, help="of the run; default: a temporary one")
    long.add_argument("--json", type=Path, help="file for the numbers")
    stream = commands.add_parser("stream", help="memory of annotations that stream from shards")
    stream.set_defaults(function="training.benchmarks.stream:benchmark")
    stream.add_argument("--count", type=int, default=1_000_000, help="default: %(default)s")
    stream.add_argument("--buffer", type=int, default=1024, help="of records; default: %(default)s")
    stream.add_argument("--folder", type=Path, help="where to write; default: the system's")
    stream.add_argument("--json", type=Path, help="file for the numbers")
    each = commands.add_parser("endurance", help="memory and threads in thousands of detections")
    each.set_defaults(function="training.benchmarks.endurance:benchmark")
    each.add_argument(
        "model", nargs="?", help="folder of a run, or a published name; default: none"
    )
    each.add_argument("--calls", type=int, default=10_000, help="detections; default: %(default)s")
    each.add_argument("--json", type=Path, help="file for the numbers")
    large = commands.add_parser("memory", help="peak memory of detecting in a large photo")
    large.set_defaults(function="training.benchmarks.memory:benchmark")
    large.add_argument("models", nargs="+", metavar="MODEL", help="names or paths of detectors")
    large.add_argument("--megapixels", nargs="+", type=float, default=[12, 100], help="12 100")
    large.add_argument("--json", type=Path, help="file for the numbers")


if __name__ == "__main__":
    main()
