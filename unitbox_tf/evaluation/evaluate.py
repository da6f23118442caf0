"""Judges a detector of this package, or the detections of any detector, by one of the protocols.

found = unitbox_tf.evaluate("faces", "fddb:fddb#8", protocol="fddb")
print(found.table())
found.save("judged")
"""

from __future__ import annotations

import dataclasses
import logging
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from unitbox_tf import datasets, formats, loading, registry, runs
from unitbox_tf.config import DecodeConfig
from unitbox_tf.datasets import Source, checks
from unitbox_tf.datasets import classes as by_name
from unitbox_tf.datasets import source as source_files
from unitbox_tf.datasets.classes import Rename
from unitbox_tf.evaluation import matching, protocols
from unitbox_tf.evaluation import results as result_files
from unitbox_tf.evaluation.outcome import Evaluation, Judged, check_output
from unitbox_tf.evaluation.results import Results
from unitbox_tf.problems import Problems
from unitbox_tf.progress import Progress
from unitbox_tf.records import Annotation, Detections

logger = logging.getLogger(__name__)

IN_MEMORY = "detections"  # the label of detections that are in no file

Sources = str | Source | Iterable[str | Source] | Iterable[Annotation]


def evaluate(
    detector: Any,
    sources: Sources,
    *,
    classes: Sequence[str] | None = None,
    rename: Rename | None = None,
    data: str | Path = ".",
    protocol: str = "summary",
    decoders: str | Sequence[str] | None = None,
    options: protocols.Options | None = None,
    present: bool = False,
    output: str | Path | None = None,
    problems: Problems | None = None,
    trust: bool = False,
    **decode: Any,
) -> Evaluation:
    """Judges a detector on annotated images.

    Args:
        detector: the name of a published detector, the path of a run's folder or of an exported detector, a
            `UnitBox`, or a `Detector`. Detections of any detector are judged, too: the path of a file or folder
            (see `evaluation.results`), or a list of `Detections`, one for each annotation. A text without a slash
            and without a suffix is a name, see `load`.
        sources: the annotated images: texts `FORMAT:PATH#SPLIT`, opened sources, or annotations.
        classes: judges only objects and detections of these classes; None judges all.
        rename: new names of classes in the sources: texts `old=new`, or a mapping. Classes are matched by
            name.
        data: the folder that relative paths of sources start from.
        protocol: one of `protocols.NAMES`.
        decoders: names of the decoders to judge; None: all that the detector has.
        options: options of the protocol.
        present: with detections: judges only by the images that are there, as with a detector.
        output: a new or empty folder for the files of `Evaluation.save`.
        problems: unusable items are added here.
        trust: opens a SavedModel whoever made it, see `load`.
        decode: fields of `DecodeConfig` to change, such as `max_side=640`. Without `score_threshold`, a
            low one is used, because curves need low scores. A `UnitBox` or `Detector` keeps its own settings.

    Raises:
        ValueError: there is no such detector, decoder or protocol, the sources have nothing usable, or
            objects of a class that the detector does not have, no image can be read, or the annotations
            lack facts that the protocol needs.
        ImportError: a library that the protocol needs is not installed. The message names the extra.
    """
    if output is not None:
        check_output(output)  # before anything that takes long
    problems = Problems.of(problems)
    chosen = None if classes is None else by_name.checked_choice(classes, classes, "")
    opened, given = _split(sources, data, rename)
    source_files.check_rename(opened, photos=False)
    job = _Job(protocol, options or protocols.Options(), problems, opened, given, chosen)
    if not isinstance(decoders, Iterable | None):
        raise ValueError(f"decoders: expected names of decoders. Received: {decoders!r:.200}")
    named = [decoders] if isinstance(decoders, str) else list(decoders or ())
    named += [decode.pop("decoder")] if "decoder" in decode else []
    evaluation = _judge(job, detector, named, decode, present, trust)
    problems.log_counts()
    if output is not None:
        evaluation.save(output)
    return evaluation


def _judge(
    job: _Job,
    detector: Any,
    decoders: Sequence[str],
    decode: Mapping[str, Any],
    present: bool,
    trust: bool,
) -> Evaluation:
    """Judges a detector or detections, whatever form they are in."""
    if isinstance(detector, str | os.PathLike):
        path = runs.find(detector)
        if not path.exists():
            raise ValueError(
                f"{path}: no such file or folder. Expected a run, a SavedModel, the name of a "
                "published detector, or detections"
            )
        if is_model(path):
            for source in job.sources:  # a wrong source is reported before anything that takes long
                source.class_names()
            return _judge_models(job, str(path), _models(path, decoders, decode, trust))
        _check_no_decoding(str(path), decoders, decode)
        return _judge_file(job, path, present)
    if isinstance(detector, Sequence):
        _check_no_decoding("a list of detections", decoders, decode)
        return _judge_list(job, detector, present)
    kind = type(detector).__name__
    _check_no_decoding(f"a {kind}, whose decoding is fixed", decoders, decode)
    if hasattr(detector, "detector"):  # a UnitBox
        detector = detector.detector()
    if not (callable(detector) and hasattr(detector, "class_names")):
        raise ValueError(
            "Expected a detector as a path, a name, a UnitBox or a Detector, or detections as a path or a "
            f"list of Detections. Received: {kind}"
        )
    return _judge_models(job, kind, {detector.decode.decoder: detector})


def is_model(path: Path) -> bool:
    """True if `path` is a run's folder or a stored detector, and not detections."""
    return runs.Run(path).exists or formats.is_exported(path) or path.suffix in _suffixes()


def _suffixes() -> list[str]:
    """The suffixes of files of detectors."""
    return [loading.KERAS_SUFFIX, *formats.suffixes()]


@dataclasses.dataclass(frozen=True)
class _Job:
    """The protocol and the annotations of an evaluation.

    Attributes:
        protocol: the name of the protocol.
        options: options of the protocol.
        problems: items that cannot be used.
        sources: the sources of the annotations; empty if annotations are given.
        given: annotations in memory, or None.
        classes: the names of the classes to judge; None judges all.
    """

    protocol: str
    options: protocols.Options
    problems: Problems
    sources: tuple[Source, ...]
    given: list[Annotation] | None
    classes: tuple[str, ...] | None

    def class_names(self, present: bool) -> tuple[str, ...]:
        """The names of the annotations' classes; none for annotations in memory."""
        if self.given is not None:
            if self.classes is not None:
                raise ValueError(
                    "classes: expected a detector that names its classes, or sources. Received: "
                    "annotations in memory, whose classes have no names"
                )
            return ()
        return datasets.class_names(self.sources, photos=present, problems=self.problems)

    def annotations(self, class_names: Sequence[str] | None, present: bool) -> list[Annotation]:
        """The annotations, with the class indices of `class_names`; with `present`, only of images that are there."""
        if self.given is None:
            return datasets.load(
                self.sources,
                class_names,
                classes=self.classes,
                photos=present,
                problems=self.problems,
            )
        if not self.given:
            raise ValueError("Expected annotated images. Received none")
        most = by_name.num_classes(self.given)
        if class_names and most > len(class_names):
            raise ValueError(
                f"Expected objects of the model's {len(class_names)} classes. Received: {most} classes"
            )
        if not present:
            return self.given
        for annotation in self.given:
            if not _is_here(annotation):
                self.problems.add(checks.ABSENT, annotation.where, "no such file")
        here = list(filter(_is_here, self.given))
        if not here:
            raise ValueError(
                f"None of the {len(self.given)} images is there. The first: {self.given[0].where}"
            )
        if class_names and self.classes is not None:
            part = by_name.Named("the annotations", here, tuple(class_names))
            by_name.checked_choice(self.classes, class_names, "the detector lacks")
            return by_name.mapped(part, class_names, self.classes)
        return here

    def judged(self, results: Results, class_names: Sequence[str]) -> Results:
        """Only the detections of the classes to judge."""
        if self.classes is None or not class_names:
            return results
        kept = results.of_classes([class_names.index(name) for name in self.classes])
        gone = results.num_detections - kept.num_detections
        if gone:
            classes = ", ".join(self.classes)
            logger.info("%d detections of other classes than %s are left out", gone, classes)
        return kept

    def say_lacking(self, class_names: Sequence[str]) -> None:
        """A line in the log names the classes of the detector that the sources lack."""
        names = [source.class_names() for source in self.sources]
        if self.classes is None and names and None not in names:
            known = {name for each in names for name in each or ()}
            lacking = [name for name in class_names if name not in known]
            if lacking:
                logger.info(
                    "The sources lack the classes %s: detections of them count as false; classes "
                    "(--classes) judges others alone",
                    ", ".join(lacking),
                )

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
        """The conditions of the metrics. `images` counts present, absent and unreadable images."""
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
    sources: Sources, data: str | Path, rename: Rename | None
) -> tuple[tuple[Source, ...], list[Annotation] | None]:
    """Opened sources, or annotations. Iterators are read once."""
    one = isinstance(sources, str | Source) or not isinstance(sources, Iterable)
    items: list[Any] = [sources] if one else list(sources)  # type: ignore[arg-type]
    if all(isinstance(item, str | Source) for item in items) and items:
        opened = datasets.open_all(items, data, rename=rename)
        return tuple(opened), None
    if rename is not None:
        raise ValueError(
            "rename: expected sources, whose classes have names. Received: annotations"
        )
    for item in items:
        if one or not isinstance(item, Annotation):
            raise ValueError(
                "sources: expected sources, each a text FORMAT:PATH#SPLIT or a Source, or a list of "
                f"annotations. Received: {type(item).__name__}"
            )
    return (), items


def _is_here(annotation: Annotation) -> bool:
    return not isinstance(annotation.image, Path) or annotation.image.is_file()


def _check_no_decoding(what: str, decoders: Sequence[str], decode: Mapping[str, Any]) -> None:
    for name in (*(["decoder"] if decoders else []), *decode):
        raise ValueError(
            f"{name} is for models: a run's folder, a SavedModel (with {runs.Run(Path()).config_file} or "
            f"saved_model.pb), or a file that ends in {', '.join(_suffixes())}. Received: {what}"
        )


def _models(
    path: Path, decoders: Sequence[str], decode: Mapping[str, Any], trust: bool
) -> dict[str, Any]:
    """The detector in `path` with each decoder that is to be judged."""
    unknown = [name for name in decoders if name not in registry.DECODERS]
    if unknown:
        raise ValueError(
            f"Unknown decoder {unknown[0]!r}. Expected some of {list(registry.DECODERS)}."
        )
    changes = {"score_threshold": matching.EVALUATED_SCORE, **decode}
    if path.suffix in formats.suffixes():  # a file, in which the decoder is fixed
        one = loading.load(path, trust=trust, **changes)
        if set(decoders) - {one.decode.decoder}:
            raise ValueError(
                f"Expected the decoder {one.decode.decoder!r}, which {path} has alone. "
                f"Received: {', '.join(decoders)}"
            )
        return {one.decode.decoder: one}
    return {
        decoder: loading.load(path, trust=trust, decoder=decoder, **changes)
        for decoder in decoders or registry.DECODERS
    }


def _judge_models(job: _Job, name: str, models: Mapping[str, Any]) -> Evaluation:
    """Judges one detector with several decoders. `models` has a detector for the name of each decoder."""
    from unitbox_tf.detect.detector import detect_annotated

    one = next(iter(models.values()))
    problems = job.problems
    class_names = tuple(one.class_names)
    annotations: Sequence[Annotation] = job.annotations(class_names, present=True)
    annotations = _of_right_size(job, annotations)
    job.say_lacking(class_names)
    absent, listed = problems.counts[checks.ABSENT], len(annotations)
    # The protocol says here what it lacks, before the images are searched, which takes long.
    judge = job.judge(annotations)
    judged = {}
    for label, model in models.items():
        progress = Progress(annotations, label, len(annotations))
        known_before = len(problems.found)
        detections, seen = detect_annotated(model, progress, problems=problems)
        if not seen:
            raise ValueError(_unreadable(annotations, problems, known_before))
        if len(seen) < len(annotations):
            annotations = seen
            judge = job.judge(annotations)
        results = job.judged(Results.of(detections), class_names)
        if job.classes is not None:
            detections = results.detections([found.image_size for found in detections])
        judged[label] = Judged(annotations, results, detections, judge(results))
    sizes = [found.image_size for found in detections]
    counts = {"present": listed, "absent": absent, "unreadable": listed - len(annotations)}
    facts = job.facts(name, annotations, counts, sizes)
    facts["model"] = _decoding(one.decode)
    return Evaluation(facts, judged, class_names, job.sources, problems)


def _of_right_size(job: _Job, annotations: Sequence[Annotation]) -> Sequence[Annotation]:
    """Annotations in memory whose stated sizes are those of their images. Sources have checked theirs."""
    if job.given is None:
        return annotations
    found = datasets.check_sizes(annotations, problems=job.problems)
    if not found:
        raise ValueError(f"No annotation has the size of its image: {job.problems.found[-1]}")
    return found


def _unreadable(annotations: Sequence[Annotation], problems: Problems, known_before: int) -> str:
    """The message where no image can be read. A problem may have been known before this evaluation."""
    first = [str(problem) for problem in problems.found[known_before:]] or [annotations[0].where]
    return f"None of the {len(annotations)} images can be read. The first: {first[0]}"


def _decoding(decode: DecodeConfig) -> dict[str, Any]:
    return {
        "max_side": decode.max_side,
        "scales": list(decode.scales),
        "largest_object": decode.largest_object,
        "nms_iou": decode.nms_iou,
        "max_detections": decode.max_detections,
        "max_pixels": decode.max_pixels,
        "lowest_score": decode.score_threshold,
    }


def _judge_file(job: _Job, path: Path, present: bool) -> Evaluation:
    """Judges the detections in a file or folder."""
    names = job.class_names(present)
    annotations = job.annotations(names or None, present)
    judge = job.judge(annotations)
    found = result_files.read(
        path, annotations, job.sources, class_names=names, problems=job.problems
    )
    results = job.judged(found, found.class_names)
    # The label names a folder, which must not have the name of a file beside it.
    resolved = path.resolve()
    name = resolved.stem if resolved.is_file() else resolved.name
    label = re.sub(r"[^\w+-]+", "_", name).strip("_") or IN_MEMORY
    judged = {label: Judged(annotations, results, None, judge(results))}
    return _of_detections(job, str(path), judged, present)


def _judge_list(job: _Job, detections: Sequence[Detections], present: bool) -> Evaluation:
    """Judges detections that are in memory, one for each annotation."""
    names = job.class_names(present)
    annotations = job.annotations(names or None, present)
    for found in detections:
        if not isinstance(found, Detections):
            raise ValueError(f"Expected a list of Detections. Received: {type(found).__name__}")
    if len(detections) != len(annotations):
        raise ValueError(
            f"Expected Detections for each of {len(annotations)} annotations, in their order. "
            f"Received: {len(detections)}"
        )
    judge = job.judge(annotations)
    results = dataclasses.replace(job.judged(Results.of(detections), names), class_names=names)
    if job.classes is not None:
        detections = results.detections([found.image_size for found in detections])
    judged = {IN_MEMORY: Judged(annotations, results, detections, judge(results))}
    return _of_detections(job, IN_MEMORY, judged, present)


def _of_detections(job: _Job, name: str, judged: dict[str, Judged], present: bool) -> Evaluation:
    """The evaluation of detections that were given."""
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
    return Evaluation(facts, judged, results.class_names, job.sources, problems)
