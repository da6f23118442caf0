"""Figure 6 of the paper: ROC curves on FDDB, of shared and unshared branches, over published ones."""

from __future__ import annotations

import argparse
import json
from typing import Any

from training.paper import experiments, roc
from unitbox_tf.evaluation import fddb, protocols

SCORES = {"discrete": "disc", "continuous": "cont"}  # and how published files name them


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


def make(arguments: argparse.Namespace) -> None:
    """Judges the runs, and writes their curves, figure6.json and two plots."""
    folder = arguments.output
    runs = experiments.named(arguments.runs)
    others = {kind: protocols.roc_files(arguments.curves, kind) for kind in SCORES.values()}
    curves = {
        name: roc.curves_of(run, arguments.sources, arguments.data, decoder=arguments.decoder)
        for name, run in runs.items()
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, own in curves.items():
        fddb.save_curves(own, folder / f"figure6-{name}-")
    numbers = {name: figures(own) for name, own in curves.items()}
    (folder / "figure6.json").write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")
    for score, kind in SCORES.items():
        path = folder / f"figure6-{score}.png"
        fddb.plot(curves, path, score=score, others=others[kind])  # type: ignore[arg-type]
