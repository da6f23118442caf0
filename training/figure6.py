"""Figure 6 of the paper: ROC curves on FDDB, of shared and unshared branches, over published ones."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

import roc

from unitbox_tf.evaluation import fddb, protocols

SCORES = {"discrete": "disc", "continuous": "cont"}  # and how published files name them


def named(text: str) -> tuple[str, Path]:
    """Name and folder of a run that is given as NAME=FOLDER; raises `ValueError` for other text."""
    name, separator, folder = text.partition("=")
    if not (re.fullmatch(r"[\w.+-]+", name) and separator and folder):
        raise ValueError(
            f"Expected NAME=RUN, such as unshared=runs/ablation-unshared-0. Received: {text!r}"
        )
    return name, Path(folder)


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
    runs = dict(named(text) for text in arguments.runs)
    if len(runs) < len(arguments.runs):
        raise ValueError(f"Expected different names of runs. Received: {arguments.runs}")
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
