"""`unitbox evaluate`: a detector of ours, or the detections of any other, judged by one of the protocols."""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unitbox_tf import datasets, runs
from unitbox_tf.cli import options as cli_options
from unitbox_tf.cli import output as cli_output
from unitbox_tf.datasets import checks, coco
from unitbox_tf.evaluation import matching, protocols
from unitbox_tf.evaluation import results as result_files
from unitbox_tf.evaluation.results import Results
from unitbox_tf.problems import Problems
from unitbox_tf.progress import Progress
from unitbox_tf.records import Annotation, Detections, coco_rows

logger = logging.getLogger(__name__)

EXPORTED_SUFFIXES = (".onnx", ".tflite")  # of detectors with one decoder
WORST_AND_BEST = 12  # pictures that `--output` draws, half of them the worst


@dataclasses.dataclass(frozen=True)
class _Judged:
    """One row of the table.

    Attributes:
        annotations: of the photos that were judged.
        results: what was found in them.
        detections: the same of a model's; None of a file's.
        report: what the protocol says of it.
    """

    annotations: Sequence[Annotation]
    results: Results
    detections: Sequence[Detections] | None
    report: protocols.Report


def run(options: argparse.Namespace) -> int:
    """The command; returns the exit status."""
    options.detector = runs.find(options.detector)
    if not options.detector.exists():
        raise ValueError(
            f"{options.detector}: no such file or folder. Expected a run, a SavedModel, the name of a "
            "published detector, or detections"
        )
    output = options.output
    if output and output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ValueError(f"{output}: expected a new or empty folder, as nothing is overwritten")
    if options.curves and not output:
        raise ValueError("Expected --output beside --curves, as plots are files")
    problems = Problems()
    fields = {
        field.name: getattr(options, field.name) for field in dataclasses.fields(protocols.Options)
    }
    given = protocols.Options(
        **{name: value for name, value in fields.items() if value is not None}
    )
    judge = _judge_model if is_model(options.detector) else _judge_file
    facts, judged, class_names = judge(options, given, problems)
    problems.log_counts()
    figures = {label: row.report.figures for label, row in judged.items()}
    text = "\n".join([*_described(facts), "", table(figures)])
    cli_output.show({**facts, "figures": figures}, text)
    if output:
        output.mkdir(parents=True, exist_ok=True)
        content = json.dumps({**facts, "figures": _plain(figures)}, indent=1)
        (output / "results.json").write_text(content + "\n", encoding="utf-8")
        for label, row in judged.items():
            folder = output / label
            folder.mkdir(exist_ok=True)
            _save_detections(row, options, folder / "detections.json")
            row.report.save(folder, label)
            if row.detections is not None:
                _draw_worst_and_best(row.detections, row.annotations, class_names, folder)
        if problems.found:
            problems.save(output / "problems.txt")
    return 0


def is_model(path: Path) -> bool:
    """Whether `path` is a run's folder or an exported detector, not detections."""
    folder = any((path / name).is_file() for name in ("saved_model.pb", "config.json"))
    return folder or path.suffix in EXPORTED_SUFFIXES


def _judge_model(
    options: argparse.Namespace, given: protocols.Options, problems: Problems
) -> tuple[dict[str, Any], dict[str, _Judged], Sequence[str]]:
    from unitbox_tf.detect import detector

    models = _models(options)
    one = next(iter(models.values()))
    sources = [datasets.parse(source, options.data) for source in options.sources]
    annotations = datasets.load(options.sources, options.data, problems, one.class_names)
    absent, listed = problems.counts[checks.ABSENT], len(annotations)
    # Before the photos are looked at, which takes long: what the protocol lacks is said here.
    judge = protocols.make(options.protocol, annotations, sources, problems, given)
    judged = {}
    for label, model in models.items():
        progress = Progress(annotations, label, len(annotations))
        detections, seen = detector.detect_annotated(model, progress, problems)
        if len(seen) < len(annotations):
            annotations = seen
            judge = protocols.make(options.protocol, annotations, sources, problems, given)
        results = Results.of(detections)
        judged[label] = _Judged(annotations, results, detections, judge(results))
    sizes = [found.image_size for found in detections]
    facts = _facts(options, given, annotations, absent, sizes)
    facts["images"] |= {"present": listed, "unreadable": listed - len(annotations)}
    facts["model"] = {
        "max_side": one.decode.max_side,
        "scales": list(one.decode.scales),
        "largest_object": one.decode.largest_object,
        "nms_iou": one.decode.nms_iou,
        "max_detections": one.decode.max_detections,
        "lowest_score": one.decode.score_threshold,
    }
    return facts, judged, one.class_names


def _models(options: argparse.Namespace) -> dict[str, Any]:
    """The detector in the folder with each decoder that is to be judged."""
    from unitbox_tf import loading

    changes = {"score_threshold": matching.EVALUATED_SCORE, **cli_options.decoding(options)}
    chosen = changes.pop("decoder", None)
    if options.detector.suffix in EXPORTED_SUFFIXES:
        if chosen == "ellipse":
            raise ValueError(f"Expected the decoder 'peaks', which {options.detector} has alone")
        return {"peaks": loading.load(options.detector, **changes)}
    return {
        decoder: loading.load(options.detector, decoder=decoder, **changes)
        for decoder in ([chosen] if chosen else ["peaks", "ellipse"])
    }


def _judge_file(
    options: argparse.Namespace, given: protocols.Options, problems: Problems
) -> tuple[dict[str, Any], dict[str, _Judged], Sequence[str]]:
    for name in cli_options.decoding(options):
        raise ValueError(
            f"--{name.replace('_', '-')} is for models; {options.detector} is no folder of a run or a "
            "SavedModel (with config.json or saved_model.pb), and no .onnx or .tflite"
        )
    sources = [datasets.parse(source, options.data) for source in options.sources]
    annotations = [a for source in sources for a in source.read(problems, photos=options.present)]
    if not annotations:
        problems.log_counts()
        raise ValueError(f"nothing usable was found in {options.sources}")
    judge = protocols.make(options.protocol, annotations, sources, problems, given)
    results = result_files.read(options.detector, annotations, problems, sources)
    path = options.detector.resolve()
    # The name of a folder, which is to have that of no file beside it.
    name = path.stem if path.is_file() else path.name
    label = re.sub(r"[^\w+-]+", "_", name).strip("_") or "detections"
    judged = {label: _Judged(annotations, results, None, judge(results))}
    here = sum(not isinstance(a.image, Path) or a.image.is_file() for a in annotations)
    absent = problems.counts[checks.ABSENT] if options.present else len(annotations) - here
    sizes = protocols.image_sizes(annotations, given.image_sizes, problems)
    known = [size for size in sizes if size is not None]
    facts = _facts(options, given, annotations, absent, known)
    facts["images"]["present"] = here
    facts["detections"] = {
        "detections": results.num_detections,
        "images_with": sum(rows is not None and len(rows) > 0 for rows in results.rows),
        "images_without_result": results.num_without,
    }
    return facts, judged, ()


def _facts(
    options: argparse.Namespace,
    given: protocols.Options,
    annotations: Sequence[Annotation],
    absent: int,
    sizes: Sequence[tuple[int, int]],
) -> dict[str, Any]:
    """What the figures hold for."""
    changed = {
        field.name: str(getattr(given, field.name))
        for field in dataclasses.fields(given)
        if getattr(given, field.name) != field.default
    }
    boxes = sum(len(a.boxes) for a in annotations)
    ignored = sum(int(a.ignore.sum()) for a in annotations)
    heights, widths = zip(*sizes, strict=True) if sizes else ((), ())
    return {
        "detector": str(options.detector),
        "protocol": options.protocol,
        "options": changed,
        "annotations": {
            "sources": list(options.sources),
            "images": len(annotations),
            "objects": boxes - ignored,
            "ignored": ignored,
            "digest": protocols.digest(annotations),
        },
        "images": {
            "present": len(annotations),
            "absent": absent,
            "widths": [min(widths), max(widths)] if sizes else None,
            "heights": [min(heights), max(heights)] if sizes else None,
        },
    }


def _described(facts: Mapping[str, Any]) -> Iterator[str]:
    """`facts` in lines."""

    def line(title: str, text: str) -> str:
        return f"{title:>15}  {text}"

    annotations, images = facts["annotations"], facts["images"]
    options = "".join(f", {name} {value}" for name, value in facts["options"].items())
    yield line("detector", facts["detector"])
    yield line("protocol", f"{facts['protocol']}: {protocols.TITLES[facts['protocol']]}{options}")
    yield line(
        "annotations",
        f"{' '.join(annotations['sources'])}: {annotations['images']} images, {annotations['objects']} "
        f"objects and {annotations['ignored']} ignored, version {annotations['digest']}",
    )
    size = "of unknown size"
    if images["widths"]:
        width, height = (
            "-".join(map(str, sorted({*images[side]}))) for side in ("widths", "heights")
        )
        size = f"{width} x {height} px"
    if "model" in facts:
        model = facts["model"]
        size += f", shown shrunk to fit {model['max_side']} px"
        if model["scales"] != [1.0]:
            size += f", at scales {' '.join(f'{scale:g}' for scale in model['scales'])} of that"
            if model["largest_object"]:
                size += f", objects up to {model['largest_object']:g} px but at the smallest"
    unreadable = images.get("unreadable", 0)
    broken = f", {unreadable} of them cannot be read" if unreadable else ""
    yield line("photos", f"{images['present']} present{broken}, {images['absent']} absent; {size}")
    if "detections" in facts:
        found = facts["detections"]
        without = found["images_without_result"]
        more = f"; of {without} images there is no result" if without else ""
        yield line(
            "detections", f"{found['detections']} in {found['images_with']} of the images{more}"
        )
    if (images["absent"] and annotations["images"] == images["present"]) or unreadable:
        yield line("", "judged on a part of the photos: not to be compared with published figures")


def table(figures: Mapping[str, Mapping[str, float]]) -> str:
    """Figures of several detectors, a line each, a detector a column."""
    names = list(next(iter(figures.values())))
    width = max(map(len, names))
    columns = [max(len(label), 10) for label in figures]
    titles = (label.rjust(column) for label, column in zip(figures, columns, strict=True))
    lines = ["  ".join([" " * width, *titles])]
    for name in names:
        cells = (
            _shown(row[name]).rjust(column)
            for row, column in zip(figures.values(), columns, strict=True)
        )
        lines.append("  ".join([name.ljust(width), *cells]))
    return "\n".join(lines)


def _shown(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.4f}"


def _plain(figures: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float | None]]:
    """As json can hold it: what is undefined becomes null."""
    return {
        label: {name: value if math.isfinite(value) else None for name, value in row.items()}
        for label, row in figures.items()
    }


def _save_detections(row: _Judged, options: argparse.Namespace, path: Path) -> None:
    """Writes COCO's results, with the ids of the COCO json that was judged by, if it was one."""
    images: dict[str, Any] = {}
    categories: dict[int, Any] = {}
    sources = [datasets.parse(source, options.data) for source in options.sources]
    if len(sources) == 1 and sources[0].format == "coco":
        ids = coco.ids(sources[0].root, sources[0].split)
        images = {name: id for id, name in ids.images.items()}
        categories = {index: id for id, index in ids.categories.items()}
    rows: list[dict[str, Any]] = []
    for index, annotation in enumerate(row.annotations):
        found, labels = row.results.rectangles(index), row.results.classes[index]
        # A detector may know more classes than the json.
        category_ids = {label: categories.get(label, label + 1) for label in labels.tolist()}
        image_id = images.get(annotation.name)
        rows += coco_rows(annotation.name, found, labels, image_id, category_ids)
    path.write_text(json.dumps(rows), encoding="utf-8")


def _draw_worst_and_best(
    detections: Sequence[Detections],
    annotations: Sequence[Annotation],
    class_names: Sequence[str],
    folder: Path,
) -> None:
    """Draws the worst and the best photos, and all their boxes once more without the photos.

    The latter may be published where the photos may not. Detections are those at 0.1 false positives
    a photo.
    """
    from unitbox_tf import images, inputs, visualize

    threshold = matching.match(detections, annotations).threshold_at(matching.FALSE_POSITIVES)
    detections = [found.above(threshold) for found in detections]
    order = worst_first(detections, annotations)
    half = min(WORST_AND_BEST // 2, len(order))
    chosen = [("worst", i, order[i]) for i in range(half)]
    chosen += [("best", i, order[-1 - i]) for i in range(min(half, len(order) - half))]
    blank = []
    for kind, rank, index in chosen:
        annotation, found = annotations[index], detections[index]
        image = inputs.read_image(annotation.encoded())
        boxes = (annotation.boxes, annotation.ignore, found, class_names)
        picture = visualize.draw_truth(image, *boxes)
        images.save_image(picture, folder / f"{kind}-{rank + 1}.jpg")
        blank.append(visualize.draw_truth(np.full_like(image, 238), *boxes))
    if blank:
        tiles = visualize.tile(blank, WORST_AND_BEST // 2)
        images.save_image(tiles, folder / "boxes.png")


def worst_first(detections: Sequence[Detections], annotations: Sequence[Annotation]) -> list[int]:
    """Indices of the images, by the mean IoU of objects and detections, where what is missed or made up counts 0."""
    quality = []
    for found, annotation in zip(detections, annotations, strict=True):
        matches = matching.match([found], [annotation])
        wrong = int((~matches.hits).sum())
        count = matches.num_objects + wrong
        quality.append(float(matches.overlaps.sum()) / count if count else 1.0)
    return sorted(range(len(quality)), key=lambda index: quality[index])
