"""Figure 6 of the paper: ROC curves on FDDB, of shared and unshared branches, over published ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from training import outputs
from training.paper import experiments, roc
from unitbox_tf.evaluation import fddb, protocols

Score = Literal["discrete", "continuous"]
SCORES: dict[Score, str] = {
    "discrete": "disc",
    "continuous": "cont",
}  # as published files name them


def figures(curves: fddb.Curves) -> dict[str, Any]:
    """Both rates at the false positives that FDDB's publications state, and at the end of the curve."""
    found: dict[str, Any] = {"images": curves.num_images, "faces": curves.num_faces}
    for score in SCORES:
        curve = getattr(curves, score)
        for count in protocols.FALSE_POSITIVES:
            found[f"{score}_at_{count}"] = fddb.rate_at(curve, count)
        found[f"{score}_at_end"] = fddb.rate_at(curve, float("inf"))
    found["false_positives"] = int(curves.discrete[:, 1].max())
    return found


def make(
    runs: Sequence[str],
    *,
    data: str,
    output: Path,
    sources: Sequence[str],
    curves: Path | None,
    decoder: str,
) -> None:
    """Judges runs, and writes their curves, figure6.json and two plots.

    Args:
        runs: texts NAME=RUN, each a run or a published detector and how the plots call it.
        data: folder of the data sets.
        output: folder to write.
        sources: annotated images, as FORMAT:PATH#SPLIT.
        curves: folder of published curves.
        decoder: turns heatmaps into boxes.
    """
    named = experiments.named(runs)
    others = {score: protocols.roc_files(curves, kind) for score, kind in SCORES.items()}
    judged = {
        name: roc.curves_of(run, sources, data, decoder=decoder) for name, run in named.items()
    }
    output.mkdir(parents=True, exist_ok=True)
    for name, own in judged.items():
        fddb.save_curves(own, output / f"figure6-{name}-")
    outputs.write_json(
        output / "figure6.json", {name: figures(own) for name, own in judged.items()}
    )
    for score in SCORES:
        path = output / f"figure6-{score}.png"
        fddb.plot(judged, path, score=score, others=others[score])
