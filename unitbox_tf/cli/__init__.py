"""The console script `unitbox`: `fit`, `detect`, `evaluate`, `convert`, `export`.

Modules that import TensorFlow are imported by the command that needs them, so that `--help` and
wrong options answer at once.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import os
import sys
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unitbox_tf import config as configs
from unitbox_tf import datasets
from unitbox_tf.cli.progress import Progress
from unitbox_tf.datasets import checks, writing
from unitbox_tf.records import Problems

logger = logging.getLogger(__name__)

DEFAULT_PRESET = "smoke"
PROBLEMS_FILE = "problems.txt"  # in the folder that `convert` writes


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit status: 0, or 1 where something failed, with a message on standard error."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    for noisy in ("absl", "tensorflow", "matplotlib"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    try:
        if arguments[:1] == ["fit"]:  # its options are the fields of the configuration
            return _fit(arguments[1:])
        options = _parser().parse_args(arguments)
        return options.command(options)
    except (ValueError, OSError) as error:
        print(f"unitbox: error: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="unitbox", description="UnitBox object detection.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    commands.add_parser(
        "fit", help="train: unitbox fit [PRESET] [--field value ...]; see unitbox fit --help"
    )

    detect = commands.add_parser("detect", help="find objects in photos")
    detect.set_defaults(command=_detect)
    detect.add_argument("model", type=Path, help="folder of a run, or of an exported SavedModel")
    detect.add_argument(
        "photos", type=Path, nargs="+", help="JPEG or PNG files, or folders of them"
    )
    detect.add_argument("--output", type=Path, required=True, help="folder for what is found")
    detect.add_argument("--score-threshold", type=float, help="lowest score of a detection")
    detect.add_argument("--decoder", choices=["peaks", "ellipse"], help="default: the run's")
    detect.add_argument("--max-side", type=int, help="photos are shrunk to this, in pixels")

    evaluate = commands.add_parser(
        "evaluate", help="judge a detector, or a file of detections, on annotated photos"
    )
    evaluate.set_defaults(command=_evaluate)
    evaluate.add_argument(
        "detector",
        type=Path,
        metavar="MODEL_OR_DETECTIONS",
        help="folder of a run or of an exported SavedModel; or detections of any detector: COCO's json, "
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
    of_model = evaluate.add_argument_group("of a model")
    of_model.add_argument(
        "--decoder", choices=["peaks", "ellipse", "both"], help="default: both that it has"
    )
    of_model.add_argument("--max-side", type=int, help="photos are shrunk to this, in pixels")
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
    convert.set_defaults(command=_convert)
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

    export = commands.add_parser("export", help="write a run's detector as a SavedModel")
    export.set_defaults(command=_export)
    export.add_argument("model", type=Path, help="folder of a run")
    export.add_argument("output", type=Path, help="folder to write")
    return parser


@dataclasses.dataclass(frozen=True)
class FitOptions:
    """Trains a detector: unitbox fit [PRESET] [--field value ...].

    PRESET is smoke (the default: synthetic pictures, minutes), faces, paper or paper_l2. Each field
    of its configuration can be changed; defaults shown are those of the preset.
    """

    config: configs.Config
    resume: Path | None = None  # folder of an earlier run to go on with, with its configuration


def parse_fit(arguments: Sequence[str]) -> tuple[str, FitOptions]:
    """The name of the preset and the options in the arguments of `unitbox fit`.

    Raises:
        ValueError: the preset is unknown, or the run to resume has no configuration.
        SystemExit: a field is unknown or its value unusable; a message has been printed.
    """
    import tyro

    name, rest = DEFAULT_PRESET, list(arguments)
    if rest and not rest[0].startswith("-"):
        name = rest.pop(0)
    if name not in configs.PRESETS:
        raise ValueError(f"Unknown preset {name!r}. Expected one of {list(configs.PRESETS)}.")
    default = configs.PRESETS[name]
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    early.add_argument("--resume", type=Path)
    resume = early.parse_known_args(rest)[0].resume
    if resume is not None:
        if len(rest) < len(arguments):
            raise ValueError(
                f"Expected a preset or --resume, which has its own configuration, not both: {name!r}"
            )
        file = resume / "config.json"
        if not file.is_file():
            raise ValueError(f"{file}: no such file. Expected the folder of a run to resume.")
        default = configs.load(file)
    options = tyro.cli(
        FitOptions,
        args=rest,
        prog="unitbox fit [PRESET]",
        default=FitOptions(config=default),
        config=(tyro.conf.OmitArgPrefixes,),
    )
    return name, options


def _fit(arguments: Sequence[str]) -> int:
    name, options = parse_fit(arguments)

    from unitbox_tf import train
    from unitbox_tf.cli.evaluate import table
    from unitbox_tf.evaluation import protocols

    run = train.fit(options.config, name, options.resume)
    print(f"\nOn the validation photos: {protocols.TITLES['summary']}\n\n{table(run.results)}\n")
    counts = ", ".join(f"{count} x {kind}" for kind, count in run.problems.counts.items())
    for title, what in (
        ("run", run.folder),
        ("exported model", run.folder / "saved_model"),
        ("pictures", run.folder / "detections.jpg"),
        ("curves", f"{run.folder / 'history.png'}, or: tensorboard --logdir {run.folder}"),
        ("left out", f"{counts} (see problems.txt)" if counts else "nothing"),
        ("detect", f"unitbox detect {run.folder} PHOTO... --output found"),
    ):
        print(f"{title:>15}  {what}")
    return 0


def _decode_options(options: argparse.Namespace, **more: Any) -> dict[str, Any]:
    names = ("decoder", "max_side", "score_threshold")
    given = {name: getattr(options, name, None) for name in names} | more
    return {name: value for name, value in given.items() if value is not None}


def _detect(options: argparse.Namespace) -> int:
    from unitbox_tf import detector, visualize
    from unitbox_tf.evaluation import results

    photos = _photos(options.photos, options.output)
    model = detector.load(options.model, **_decode_options(options))
    options.output.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    failed = 0
    for photo, name in zip(photos, _picture_names(photos, options.output), strict=True):
        try:
            image = detector.read_image(photo)
        except (OSError, ValueError) as error:
            failed += 1
            print(f"unitbox: left out: {error}", file=sys.stderr)
            continue
        found = model(image)
        boxes = (found.boxes, found.scores, found.classes)
        rows.extend(results.coco_rows(photo.as_posix(), *boxes))
        picture = visualize.draw_detections(image, found, model.class_names)
        visualize.save_image(picture, name)
        print(f"{photo}: {len(found)} found")
    (options.output / "detections.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")
    print(
        f"{len(rows)} objects in {len(photos) - failed} photos: {options.output / 'detections.json'}"
    )
    if failed:
        print(f"unitbox: {failed} of {len(photos)} photos could not be read", file=sys.stderr)
    return 1 if failed else 0


def _photos(paths: Sequence[Path], output: Path) -> list[Path]:
    """The photos that `paths` name, those in folders included, without those in the folder `output`."""
    photos: list[Path] = []
    for path in paths:
        if not path.is_dir():
            photos.append(path)
            continue
        if path.resolve() == output.resolve():
            raise ValueError(f"{output}: expected another folder for --output than the photos'")
        within = [p for p in checks.photos(path) if output.resolve() not in p.resolve().parents]
        if not within:
            raise ValueError(f"{path}: no JPEG or PNG file in this folder")
        photos.extend(within)
    return photos


def _picture_names(photos: Sequence[Path], folder: Path) -> list[Path]:
    """Where the pictures of `photos` go: each has a name of its own, and none is that of a photo."""
    taken = {photo.resolve() for photo in photos}
    names = []
    for photo in photos:
        suffix = photo.suffix if photo.suffix.lower() in checks.IMAGE_SUFFIXES else ".jpg"
        path, number = folder / f"{photo.stem}{suffix}", 1
        while path.resolve() in taken:
            number += 1
            path = folder / f"{photo.stem}-{number}{suffix}"
        taken.add(path.resolve())
        names.append(path)
    return names


def _evaluate(options: argparse.Namespace) -> int:
    from unitbox_tf.cli import evaluate

    return evaluate.run(options)


def _convert(options: argparse.Namespace) -> int:
    source = datasets.parse(options.source, options.data)
    form, _, rest = options.destination.partition(":")
    path, _, split = rest.partition("#")
    if form not in datasets.WRITERS or not path:
        raise ValueError(
            "Expected a destination as FORMAT:PATH#SPLIT with a format of "
            f"{sorted(datasets.WRITERS)}. Received: {options.destination!r}"
        )
    problems = Problems()
    photos: writing.PhotosAs = "link" if options.link else "none" if options.no_photos else "copy"
    reading = source.read(problems, photos=not options.no_photos)
    annotations = list(Progress(reading, "reading", None))
    if not annotations:
        problems.log_counts()
        raise ValueError(f"nothing usable was found in {options.source!r}: {source.root}")
    names = source.class_names()
    if not names:
        most = max((int(a.classes.max()) for a in annotations if len(a.classes)), default=0)
        names = tuple(f"class{index}" for index in range(most + 1)) if most else ("object",)
    root = Path(path)
    progress = Progress(annotations, "writing", len(annotations))
    written = datasets.WRITERS[form](progress, root, split, names, problems, photos=photos)

    boxes = sum(len(a.boxes) for a in annotations)
    ignored = sum(int(a.ignore.sum()) for a in annotations)
    for title, counts in (("read", (len(annotations), boxes, ignored)), ("written", written)):
        photos_, boxes_, ignored_ = counts
        print(f"{title:>10}  {photos_} photos, {boxes_} boxes, {ignored_} of them ignored")
    for kind, count in problems.counts.items():
        print(f"{count:>10}  x {kind}")
    if problems.found:
        problems.add_to(root / PROBLEMS_FILE)
        print(f"{'all':>10}  in {root / PROBLEMS_FILE}")
    return 0


def _export(options: argparse.Namespace) -> int:
    from unitbox_tf import detector, export

    config = configs.load(options.model / detector.CONFIG_FILE)
    model = detector.load_model(options.model, config)
    export.save(model, config.decode, config.model.class_names, options.output)
    print(f"SavedModel written to {options.output}")
    return 0
