"""ROC curves of a trained network on FDDB."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unitbox_tf import datasets
from unitbox_tf.evaluation import fddb, matching
from unitbox_tf.evaluation.results import Results
from unitbox_tf.problems import Problems


def curves_of(run: Path, sources: Sequence[str], data: str, **decode: Any) -> fddb.Curves:
    """Both ROC curves of a run, or of a published detector, on annotated photos.

    `decode` are fields of `DecodeConfig` to change, such as the decoder.
    """
    from unitbox_tf import loading
    from unitbox_tf.detect import detector

    problems = Problems()
    truth = datasets.load(sources, ("face",), data=data, problems=problems)
    model = loading.load(run, score_threshold=matching.EVALUATED_SCORE, **decode)
    detections, seen = detector.detect_annotated(model, truth, problems)
    problems.log_counts()
    found = Results.of(detections).rows
    return fddb.evaluate(
        {a.name: rows for a, rows in zip(seen, found, strict=True) if rows is not None},
        {a.name: a.ellipses for a in seen if a.ellipses is not None},
        {a.name: d.image_size for a, d in zip(seen, detections, strict=True)},
        problems=problems,
    )
