"""The end of a run: its best weights are exported, judged and shown."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unitbox_tf import images, inputs, registry, runs, visualize
from unitbox_tf.config import Config
from unitbox_tf.detect import detector
from unitbox_tf.detect.model import UnitBox
from unitbox_tf.evaluation import matching
from unitbox_tf.evaluation.results import Results
from unitbox_tf.formats import check_decoder, saved_model
from unitbox_tf.problems import Problems
from unitbox_tf.records import Annotation, Detections
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
    """Exports the best weights, judges them with each decoder, and draws. The most important step comes first.

    If the decoder does not run in a SavedModel, there is no export, and this is added to `problems`.

    Returns:
        The Keras model with these weights, and for each decoder the metrics on all validation images.
    """
    problems = Problems.of(problems)
    files = runs.Run(run)
    network = dataclasses.replace(config.model, weights=None)
    model = UnitBox.from_settings(network, config.decode, seed=config.train.seed)
    model.load_run(files)
    _export(model, files, problems)
    results, pictures = {}, []
    for decoder in registry.DECODERS:
        detections, annotations = _detect(model, config, decoder, validation, problems)
        results[decoder] = _judged(config, validation, detections, annotations, problems)
        if decoder == config.decode.decoder:
            pictures = _pictures(config, detections[:PICTURES], annotations)
    matching.save(results, files.results)
    problems.save(files.problems)
    if history:
        _save_curves(config, files.curves, history)
    if pictures:
        images.save_image(visualize.tile(pictures, 6), files.pictures)
    return model, results


def _export(model: UnitBox, files: runs.Run, problems: Problems) -> None:
    """Writes the SavedModel, if the decoder runs in one."""
    try:
        check_decoder(model.decode, saved_model.FORMAT)
    except ValueError as error:
        problems.add("export that was left out", str(files.saved_model), str(error))
    else:
        saved_model.save(model, files.saved_model, files.card())


def _detect(
    model: UnitBox, config: Config, decoder: str, validation: Validation, problems: Problems
) -> tuple[list[Detections], list[Annotation]]:
    """Detections of `decoder` in all readable validation images, down to low scores that only curves need."""
    score = lowest_score(config.decode)
    decode = dataclasses.replace(config.decode, decoder=decoder, score_threshold=score)
    judged = detector.Detector.of(model, decode)
    return detector.detect_annotated(judged, validation.annotations, problems=problems)


def _judged(
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
    config: Config, detections: Sequence[Detections], annotations: Sequence[Annotation]
) -> list[np.ndarray]:
    """The images with their true boxes and detections."""
    return [
        visualize.draw_truth(
            inputs.read_image(annotation.encoded()),
            annotation.boxes,
            annotation.ignore,
            found.above(config.decode.score_threshold),
            config.model.class_names,
        )
        for found, annotation in zip(detections, annotations, strict=False)
    ]


def _save_curves(config: Config, path: Path, history: Sequence[dict[str, Any]]) -> None:
    try:
        visualize.save_history(history, path, chosen_by(config.train.validation_protocol))
    except ImportError as error:
        logger.info("%s is left out: %s", path.name, error)
