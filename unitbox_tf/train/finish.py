"""The end of a run: its best weights are judged, exported and shown."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unitbox_tf import files, images, inputs, registry, runs, visualize
from unitbox_tf.config import Config
from unitbox_tf.detect import detector
from unitbox_tf.detect.model import UnitBox
from unitbox_tf.evaluation import by_class, coco, matching, outcome
from unitbox_tf.evaluation.by_class import ByClass
from unitbox_tf.evaluation.results import Results
from unitbox_tf.formats import check_decoder, saved_model
from unitbox_tf.problems import Problems
from unitbox_tf.records import Annotation, Detections
from unitbox_tf.train import threshold
from unitbox_tf.train.callbacks import chosen_by, lowest_score
from unitbox_tf.train.examples import Validation

logger = logging.getLogger(__name__)

PICTURES = 24  # in detections.jpg


def finish(
    config: Config,
    run: Path,
    validation: Validation,
    history: Sequence[dict[str, Any]],
    *,
    problems: Problems | None = None,
) -> tuple[UnitBox, dict[str, dict[str, float]]]:
    """Judges the best weights with each decoder, stores the score threshold, exports, and draws.

    The run's own decoder is judged first, because the threshold is needed for the export. If this decoder does
    not run in a SavedModel, there is no export, and this is added to `problems`.

    Returns:
        The Keras model with these weights, and for each decoder the metrics on all validation images.
    """
    problems = Problems.of(problems)
    stored = runs.Run(run)
    network = dataclasses.replace(config.model, weights=None)
    model = UnitBox.from_settings(network, config.decode, seed=config.train.seed)
    model.load_run(stored)
    own = config.decode.decoder
    judged = {own: _judge(model, config, own, validation, problems)}
    model.decode = threshold.chosen(config, judged[own].by_class.best_f1)
    if model.decode != config.decode:
        threshold.store(stored, model.decode)
    _export(model, stored, problems)
    for decoder in registry.DECODERS:
        if decoder != own:
            judged[decoder] = _judge(model, config, decoder, validation, problems)
    judged = {decoder: judged[decoder] for decoder in registry.DECODERS}
    _save_results(judged, stored)
    outcome.draw_confusion(judged[own].by_class, stored.confusion)
    problems.save(stored.problems)
    if history:
        _save_curves(config, stored.curves, history)
    pictures = _pictures(model, judged[own].detections[:PICTURES], judged[own].annotations)
    if pictures:
        images.save_image(visualize.tile(pictures, 6), stored.pictures)
    return model, {decoder: each.metrics for decoder, each in judged.items()}


@dataclasses.dataclass(frozen=True)
class _Judged:
    """The detections of a decoder in the readable validation images, with the metrics."""

    detections: list[Detections]
    annotations: list[Annotation]
    metrics: dict[str, float]
    by_class: ByClass


def _judge(
    model: UnitBox, config: Config, decoder: str, validation: Validation, problems: Problems
) -> _Judged:
    detections, annotations = _detect(model, config, decoder, validation, problems)
    matches = matching.match(detections, annotations, iou_threshold=by_class.IOU_THRESHOLD)
    known = (detections, annotations, matches, model.class_names)
    found = by_class.judge(*known, lambda: coco.judge_as_matching(detections, annotations))
    metrics = _metrics(config, validation, detections, annotations, problems)
    return _Judged(detections, annotations, metrics, found)


def _save_results(judged: Mapping[str, _Judged], run: runs.Run) -> None:
    """Writes the metrics of each decoder, of all classes and by class. Undefined metrics become null."""
    rows = {
        decoder: {**outcome.plain(each.metrics), **each.by_class.to_dict()}
        for decoder, each in judged.items()
    }
    files.write(run.results, json.dumps(rows, indent=1) + "\n")


def _export(model: UnitBox, run: runs.Run, problems: Problems) -> None:
    """Writes the SavedModel, if the decoder runs in one."""
    try:
        check_decoder(model.decode, saved_model.FORMAT)
    except ValueError as error:
        problems.add("export that was left out", str(run.saved_model), str(error))
    else:
        saved_model.save(model, run.saved_model, run.card())


def _detect(
    model: UnitBox, config: Config, decoder: str, validation: Validation, problems: Problems
) -> tuple[list[Detections], list[Annotation]]:
    """Detections of `decoder` in all readable validation images, down to low scores that only curves need."""
    score = lowest_score(config.decode)
    decode = dataclasses.replace(config.decode, decoder=decoder, score_threshold=score)
    judged = detector.Detector.of(model, decode)
    return detector.detect_annotated(judged, validation.annotations, problems=problems)


def _metrics(
    config: Config,
    validation: Validation,
    detections: Sequence[Detections],
    annotations: Sequence[Annotation],
    problems: Problems,
) -> dict[str, float]:
    """The metrics of the summary and of the validation protocol."""
    found = matching.summarize(detections, annotations)
    protocol = config.train.validation_protocol
    if protocol != "summary":
        judge = validation.judge(annotations, protocol, problems=problems)
        metrics = judge(Results.of(detections)).metrics
        found |= {f"{protocol}_{name}": value for name, value in metrics.items()}
    return found


def _pictures(
    model: UnitBox, detections: Sequence[Detections], annotations: Sequence[Annotation]
) -> list[np.ndarray]:
    """The images with their true boxes and detections."""
    return [
        visualize.draw_truth(
            inputs.read_image(
                annotation.encoded(model.decode.max_pixels), max_pixels=model.decode.max_pixels
            ),
            annotation.boxes,
            annotation.ignore,
            found.above(model.decode.score_threshold),
            model.class_names,
        )
        for found, annotation in zip(detections, annotations, strict=False)
    ]


def _save_curves(config: Config, path: Path, history: Sequence[dict[str, Any]]) -> None:
    try:
        visualize.save_history(history, path, chosen_by(config.train.validation_protocol))
    except ImportError as error:
        logger.info("%s is left out: %s", path.name, error)
