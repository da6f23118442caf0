"""Judges a detector of ours, or the detections of any other, by one of the protocols.

found = unitbox_tf.evaluate("faces", "fddb:fddb#8", protocol="fddb")
print(found.table())
found.save("judged")
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unitbox_tf import datasets, files, registry, runs
from unitbox_tf.config import DecodeConfig
from unitbox_tf.datasets import Source, checks
from unitbox_tf.datasets.source import num_classes
from unitbox_tf.evaluation import matching, protocols
from unitbox_tf.evaluation import results as result_files
from unitbox_tf.evaluation.results import Results
from unitbox_tf.problems import Problems
from unitbox_tf.progress import Progress
from unitbox_tf.records import Annotation, Detections, coco_rows

ONE_DECODER_SUFFIXES = (".onnx", ".tflite")  # of exported files, in which the decoder is fixed
MODEL_SUFFIXES = (".keras", *ONE_DECODER_SUFFIXES)
WORST_AND_BEST = 12  # images that `save` draws, half of them the worst
IN_MEMORY = "detections"  # the label of detections that are in no file

Sources = str | Source | Sequence[str | Source] | Sequence[Annotation]


@dataclasses.dataclass(frozen=True)
class Judged:
    """What one decoder, or a file of detections, came to.

    Attributes:
        annotations: the images that were judged.
        results: what was found in them.
        detections: the same as `Detections`; None if they are from a file, whose numbers `results` keeps.
        report: the metrics, and what saves the curves.
    """

    annotations: Sequence[Annotation]
    results: Results
    detections: Sequence[Detections] | None
    report: protocols.Report


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What `evaluate` says of a detector.

    Attributes:
        facts: what the metrics hold for: detector, protocol, annotations, images.
        judged: the outcome of each decoder, by its name; of a file of detections, by the name of the file.
        class_names: of the detector; empty if detections were judged.
        sources: where the annotations are from.
        problems: what could not be used.
    """

    facts: dict[str, Any]
    judged: dict[str, Judged]
    class_names: tuple[str, ...]
    sources: tuple[Source, ...]
    problems: Problems

    @property
    def figures(self) -> dict[str, dict[str, float]]:
        """The metrics by name, for each decoder; NaN where one is undefined."""
        return {label: row.report.figures for label, row in self.judged.items()}

    @property
    def detections(self) -> dict[str, Sequence[Detections] | None]:
        """What each decoder found in the images of `annotations`; None if it was read from a file."""
        return {label: row.detections for label, row in self.judged.items()}

    @property
    def annotations(self) -> dict[str, Sequence[Annotation]]:
        """The images that were judged, for each decoder: all but those that cannot be read."""
        return {label: row.annotations for label, row in self.judged.items()}

    def table(self) -> str:
        """What was judged and the metrics, in lines, for people."""
        return "\n".join([*described(self.facts), "", table(self.figures)])

    def to_dict(self) -> dict[str, Any]:
        """Facts and metrics as json can hold them: undefined metrics are None."""
        figures = {
            label: {name: value if math.isfinite(value) else None for name, value in row.items()}
            for label, row in self.figures.items()
        }
        return {**self.facts, "figures": figures}

    def save(self, folder: str | Path) -> None:
        """Writes `results.json`, and for each decoder a folder with detections, curves, and drawn images.

        Raises:
            ValueError: the folder has files, as nothing is overwritten.
            OSError: something cannot be written.
        """
        folder = check_output(folder)
        folder.mkdir(parents=True, exist_ok=True)
        files.write(folder / "results.json", json.dumps(self.to_dict(), indent=1) + "\n")
        for label, row in self.judged.items():
            part = folder / label
            part.mkdir(exist_ok=True)
            _save_detections(row, self.sources, part / "detections.json")
            row.report.save(part, label)
            if row.detections is not None and "model" in self.facts:  # it has read the images
                _draw_worst_and_best(row.detections, row.annotations, self.class_names, part)
        if self.problems.found:
            self.problems.save(folder / "problems.txt")


def evaluate(
    detector: Any,
    sources: Sources,
    *,
    data: str | Path = ".",
    protocol: str = "summary",
    decoders: str | Sequence[str] | None = None,
    options: protocols.Options | None = None,
    present: bool = False,
    output: str | Path | None = None,
    problems: Problems | None = None,
    **decode: Any,
) -> Evaluation:
    """Judges a detector on annotated images.

    Args:
        detector: a run's folder, an exported detector, the name of a published one, or a `Detector`; or
            detections of any detector: a file or folder (see `evaluation.results`), or a list of
            `Detections`, one for each annotation.
        sources: the annotated images: sources as `FORMAT:PATH#SPLIT`, opened sources, or annotations.
        data: the folder that relative paths of sources start from.
        protocol: one of `protocols.NAMES`.
        decoders: names of the decoders to judge; None: all that the detector has.
        options: of the protocol.
        present: with detections: judge only by the images that are there, as with a detector.
        output: a new or empty folder for what `Evaluation.save` writes.
        problems: what cannot be used is added here.
        decode: fields of `DecodeConfig` to change, such as `max_side=640`. Without `score_threshold`, a
            low one is used, as curves need their length. A `Detector` is taken as it is.

    Raises:
        ValueError: there is no such detector, decoder or protocol, or nothing usable in the sources, or the
            annotations lack what the protocol needs.
        ImportError: a library that the protocol needs is not installed; it names the extra.
    """
    if output is not None:
        check_output(output)  # before anything that takes long
    problems = Problems.of(problems)
    job = _Job(protocol, options or protocols.Options(), data, problems, *_split(sources, data))
    chosen = [decoders] if isinstance(decoders, str) else list(decoders or ())
    chosen += [decode.pop("decoder")] if "decoder" in decode else []
    if isinstance(detector, str | os.PathLike):
        path = runs.find(Path(detector))
        if not path.exists():
            raise ValueError(
                f"{path}: no such file or folder. Expected a run, a SavedModel, the name of a "
                "published detector, or detections"
            )
        if is_model(path):
            evaluation = _judge_models(job, str(path), _models(path, chosen, decode))
        else:
            _check_no_decoding(str(path), chosen, decode)
            evaluation = _judge_file(job, path, present)
    elif isinstance(detector, Sequence):
        _check_no_decoding("a list of detections", chosen, decode)
        evaluation = _judge_list(job, detector, present)
    else:
        _check_no_decoding("a Detector, whose decoding is fixed", chosen, decode)
        if not (callable(detector) and hasattr(detector, "class_names")):
            raise ValueError(
                "Expected a detector as a path, a name or a Detector, or detections as a path or a list "
                f"of Detections. Received: {type(detector).__name__}"
            )
        models = {detector.decode.decoder: detector}
        evaluation = _judge_models(job, type(detector).__name__, models)
    problems.log_counts()
    if output is not None:
        evaluation.save(output)
    return evaluation


def check_output(folder: str | Path) -> Path:
    """The folder as a path. Raises `ValueError` if it has files."""
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder}: expected a new or empty folder, as nothing is overwritten")
    return folder


def is_model(path: Path) -> bool:
    """Whether `path` is a run's folder or a stored detector, not detections."""
    folder = any((path / name).is_file() for name in ("saved_model.pb", runs.CONFIG_FILE))
    return folder or path.suffix in MODEL_SUFFIXES


@dataclasses.dataclass(frozen=True)
class _Job:
    """By what, and on what, something is to be judged.

    Attributes:
        protocol: its name.
        options: of the protocol.
        data: the folder that relative paths of sources start from.
        problems: what cannot be used.
        sources: where the annotations are from; empty if they are given.
        given: annotations in memory, or None.
    """

    protocol: str
    options: protocols.Options
    data: str | Path
    problems: Problems
    sources: tuple[Source, ...]
    given: list[Annotation] | None

    def annotations(self, class_names: Sequence[str] | None, present: bool) -> list[Annotation]:
        """The annotations; with `present`, only of images that are there."""
        if self.given is None:
            return datasets.load(
                self.sources,
                class_names,
                data=self.data,
                photos=present,
                problems=self.problems,
            )
        if not self.given:
            raise ValueError("Expected annotated images. Received none")
        most = num_classes(self.given)
        if class_names is not None and most > len(class_names):
            raise ValueError(
                f"Expected objects of the model's {len(class_names)} classes. Received: {most} classes"
            )
        if not present:
            return self.given
        for annotation in self.given:
            if not _is_here(annotation):
                self.problems.add(checks.ABSENT, annotation.where, "no such file")
        return list(filter(_is_here, self.given))

    def judge(self, annotations: Sequence[Annotation]) -> protocols.Judge:
        """The protocol for these annotations."""
        return protocols.make(
            self.protocol, annotations, self.sources, options=self.options, problems=self.problems
        )

    def facts(
        self,
        detector: str,
        annotations: Sequence[Annotation],
        images: Mapping[str, int],
        sizes: Sequence[tuple[int, int]],
    ) -> dict[str, Any]:
        """What the metrics hold for. `images` counts those that are present, absent, unreadable."""
        options = self.options
        changed = {
            field.name: str(getattr(options, field.name))
            for field in dataclasses.fields(options)
            if getattr(options, field.name) != field.default
        }
        boxes = sum(len(a.boxes) for a in annotations)
        ignored = sum(int(a.ignore.sum()) for a in annotations)
        heights, widths = zip(*sizes, strict=True) if sizes else ((), ())
        return {
            "detector": detector,
            "protocol": self.protocol,
            "options": changed,
            "annotations": {
                "sources": [source.text for source in self.sources],
                "images": len(annotations),
                "objects": boxes - ignored,
                "ignored": ignored,
                "digest": protocols.digest(annotations),
            },
            "images": {
                "present": images["present"],
                "absent": images["absent"],
                "widths": [min(widths), max(widths)] if sizes else None,
                "heights": [min(heights), max(heights)] if sizes else None,
                **{name: count for name, count in images.items() if name == "unreadable"},
            },
        }


def _split(
    sources: Sources, data: str | Path
) -> tuple[tuple[Source, ...], list[Annotation] | None]:
    """Opened sources, or annotations."""
    if isinstance(sources, str | Source):
        sources = [sources]
    if all(isinstance(source, str | Source) for source in sources) and sources:
        return tuple(datasets.open_all(sources, data)), None  # type: ignore[arg-type]
    for item in sources:
        if not isinstance(item, Annotation):
            raise ValueError(
                "Expected sources, each a text FORMAT:PATH#SPLIT or a Source, or a list of annotations. "
                f"Received: {type(item).__name__}"
            )
    return (), list(sources)  # type: ignore[arg-type]


def _is_here(annotation: Annotation) -> bool:
    return not isinstance(annotation.image, Path) or annotation.image.is_file()


def _check_no_decoding(what: str, decoders: Sequence[str], decode: Mapping[str, Any]) -> None:
    for name in (*(["decoder"] if decoders else []), *decode):
        raise ValueError(
            f"{name} is for models: a run's folder, a SavedModel (with {runs.CONFIG_FILE} or "
            f"saved_model.pb), or a file that ends in {', '.join(MODEL_SUFFIXES)}. Received: {what}"
        )


def _models(path: Path, decoders: Sequence[str], decode: Mapping[str, Any]) -> dict[str, Any]:
    """The detector in `path` with each decoder that is to be judged."""
    from unitbox_tf import loading

    unknown = [name for name in decoders if name not in registry.DECODERS]
    if unknown:
        raise ValueError(
            f"Unknown decoder {unknown[0]!r}. Expected some of {list(registry.DECODERS)}."
        )
    changes = {"score_threshold": matching.EVALUATED_SCORE, **decode}
    if path.suffix in ONE_DECODER_SUFFIXES:
        one = loading.load(path, **changes)
        if set(decoders) - {one.decode.decoder}:
            raise ValueError(
                f"Expected the decoder {one.decode.decoder!r}, which {path} has alone. "
                f"Received: {', '.join(decoders)}"
            )
        return {one.decode.decoder: one}
    return {
        decoder: loading.load(path, decoder=decoder, **changes)
        for decoder in decoders or registry.DECODERS
    }


def _judge_models(job: _Job, name: str, models: Mapping[str, Any]) -> Evaluation:
    """Judges detectors that are one but for their decoders, whose names they have."""
    from unitbox_tf.detect.detector import detect_annotated

    one = next(iter(models.values()))
    problems = job.problems
    annotations: Sequence[Annotation] = job.annotations(one.class_names, present=True)
    absent, listed = problems.counts[checks.ABSENT], len(annotations)
    # Before the images are looked at, which takes long: here the protocol says what it lacks.
    judge = job.judge(annotations)
    judged = {}
    for label, model in models.items():
        progress = Progress(annotations, label, len(annotations))
        detections, seen = detect_annotated(model, progress, problems)
        if len(seen) < len(annotations):
            annotations = seen
            judge = job.judge(annotations)
        results = Results.of(detections)
        judged[label] = Judged(annotations, results, detections, judge(results))
    sizes = [found.image_size for found in detections]
    counts = {"present": listed, "absent": absent, "unreadable": listed - len(annotations)}
    facts = job.facts(name, annotations, counts, sizes)
    facts["model"] = _decoding(one.decode)
    return Evaluation(facts, judged, tuple(one.class_names), job.sources, problems)


def _decoding(decode: DecodeConfig) -> dict[str, Any]:
    return {
        "max_side": decode.max_side,
        "scales": list(decode.scales),
        "largest_object": decode.largest_object,
        "nms_iou": decode.nms_iou,
        "max_detections": decode.max_detections,
        "lowest_score": decode.score_threshold,
    }


def _judge_file(job: _Job, path: Path, present: bool) -> Evaluation:
    """Judges the detections in a file or folder."""
    annotations = job.annotations(None, present)
    judge = job.judge(annotations)
    results = result_files.read(path, annotations, job.sources, problems=job.problems)
    # The name of a folder, which is to have that of no file beside it.
    resolved = path.resolve()
    name = resolved.stem if resolved.is_file() else resolved.name
    label = re.sub(r"[^\w+-]+", "_", name).strip("_") or IN_MEMORY
    judged = {label: Judged(annotations, results, None, judge(results))}
    return _of_detections(job, str(path), judged, present)


def _judge_list(job: _Job, detections: Sequence[Detections], present: bool) -> Evaluation:
    """Judges detections that are in memory, one for each annotation."""
    annotations = job.annotations(None, present)
    for found in detections:
        if not isinstance(found, Detections):
            raise ValueError(f"Expected a list of Detections. Received: {type(found).__name__}")
    if len(detections) != len(annotations):
        raise ValueError(
            f"Expected Detections for each of {len(annotations)} annotations, in their order. "
            f"Received: {len(detections)}"
        )
    judge, results = job.judge(annotations), Results.of(detections)
    judged = {IN_MEMORY: Judged(annotations, results, detections, judge(results))}
    return _of_detections(job, IN_MEMORY, judged, present)


def _of_detections(job: _Job, name: str, judged: dict[str, Judged], present: bool) -> Evaluation:
    """The evaluation of detections that no detector of ours made now."""
    (row,) = judged.values()
    annotations, results, problems = row.annotations, row.results, job.problems
    here = sum(map(_is_here, annotations))
    absent = problems.counts[checks.ABSENT] if present else len(annotations) - here
    sizes = protocols.image_sizes(annotations, job.options.image_sizes, problems=problems)
    known = [size for size in sizes if size is not None]
    facts = job.facts(name, annotations, {"present": here, "absent": absent}, known)
    facts["detections"] = {
        "detections": results.num_detections,
        "images_with": sum(rows is not None and len(rows) > 0 for rows in results.rows),
        "images_without_result": results.num_without,
    }
    return Evaluation(facts, judged, (), job.sources, problems)


def described(facts: Mapping[str, Any]) -> Iterator[str]:
    """The facts of an evaluation in lines."""

    def line(title: str, text: str) -> str:
        return f"{title:>15}  {text}"

    annotations, images = facts["annotations"], facts["images"]
    options = "".join(f", {name} {value}" for name, value in facts["options"].items())
    yield line("detector", facts["detector"])
    yield line("protocol", f"{facts['protocol']}: {protocols.TITLES[facts['protocol']]}{options}")
    yield line(
        "annotations",
        f"{' '.join(annotations['sources']) or 'in memory'}: {annotations['images']} images, "
        f"{annotations['objects']} objects and {annotations['ignored']} ignored, version "
        f"{annotations['digest']}",
    )
    unreadable = images.get("unreadable", 0)
    broken = f", {unreadable} of them cannot be read" if unreadable else ""
    yield line(
        "images",
        f"{images['present']} present{broken}, {images['absent']} absent; {_sizes(images)}"
        + (_shown_as(facts["model"]) if "model" in facts else ""),
    )
    if "detections" in facts:
        found = facts["detections"]
        without = found["images_without_result"]
        more = f"; of {without} images there is no result" if without else ""
        yield line(
            "detections", f"{found['detections']} in {found['images_with']} of the images{more}"
        )
    if (images["absent"] and annotations["images"] == images["present"]) or unreadable:
        yield line("", "judged on a part of the images: not to be compared with published metrics")


def _sizes(images: Mapping[str, Any]) -> str:
    if not images["widths"]:
        return "of unknown size"
    width, height = ("-".join(map(str, sorted({*images[side]}))) for side in ("widths", "heights"))
    return f"{width} x {height} px"


def _shown_as(model: Mapping[str, Any]) -> str:
    """How images are shown to the model."""
    text = f", shown shrunk to fit {model['max_side']} px"
    if model["scales"] != [1.0]:
        text += f", at scales {' '.join(f'{scale:g}' for scale in model['scales'])} of that"
        if model["largest_object"]:
            text += f", objects up to {model['largest_object']:g} px but at the smallest"
    return text


def table(figures: Mapping[str, Mapping[str, float]]) -> str:
    """The metrics of several detectors, a line each, a detector a column."""
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


def _save_detections(row: Judged, sources: Sequence[Source], path: Path) -> None:
    """Writes COCO's results, with the ids of the COCO json that was judged by, if it was one."""
    images: dict[str, Any] = {}
    categories: dict[int, Any] = {}
    ids = sources[0].ids() if len(sources) == 1 else None
    if ids is not None:
        images = {name: id for id, name in ids.images.items()}
        categories = {index: id for id, index in ids.categories.items()}
    rows: list[dict[str, Any]] = []
    for index, annotation in enumerate(row.annotations):
        found, labels = row.results.rectangles(index), row.results.classes[index]
        # A detector may know more classes than the json.
        category_ids = {label: categories.get(label, label + 1) for label in labels.tolist()}
        image_id = images.get(annotation.name)
        rows += coco_rows(annotation.name, found, labels, image_id, category_ids)
    files.write(path, json.dumps(rows))


def _draw_worst_and_best(
    detections: Sequence[Detections],
    annotations: Sequence[Annotation],
    class_names: Sequence[str],
    folder: Path,
) -> None:
    """Draws the worst and the best images, and all their boxes once more without the images.

    The latter may be published where the images may not. Detections are those at 0.1 false positives
    an image.
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
    """Indices of the images by the mean IoU of objects and detections, where what is missed or made up counts 0."""
    quality = []
    for found, annotation in zip(detections, annotations, strict=True):
        matches = matching.match([found], [annotation])
        wrong = int((~matches.hits).sum())
        count = matches.num_objects + wrong
        quality.append(float(matches.overlaps.sum()) / count if count else 1.0)
    return sorted(range(len(quality)), key=lambda index: quality[index])
