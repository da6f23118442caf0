"""What each choice that the paper leaves open is worth: one change at a time, each with several seeds.

All rows share figure 4's data and, but for the change, the recipe that its search found for −ln IoU.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import experiments
import figure4
import recipes

from unitbox_tf.config import Config

BASE = "base"
IOU_FAMILY = ("linear_iou", "giou", "diou", "ciou", "eiou", "siou")
PIXELS = 10 * recipes.IMAGE_SIZE**2  # of a batch
# The loss of a face of 60 px falls by about 1/30 a pixel for −ln IoU, by 1 for smooth L1.
SMOOTH_L1_WEIGHT = 1 / 30
# Of the pixels of a batch about so many count in the distance loss; summed, it has that much less say.
POSITIVE_SHARE = 0.1

COLUMNS = {  # of the table, by the path in results.json
    "miss rate at 5 false positives, ellipse": ("ellipse", "fddb_discrete_at_5"),
    "miss rate at 5 false positives, peaks": ("peaks", "fddb_discrete_at_5"),
    "mean IoU, ellipse": ("ellipse", "mean_iou"),
    "mean IoU, peaks": ("peaks", "mean_iou"),
    "AP .75, ellipse": ("ellipse", "ap75"),
    "AP .75, peaks": ("peaks", "ap75"),
}


def rows(shared: Config, winners: Mapping[str, Config], epochs: int) -> dict[str, Config]:
    """The configuration of each row of the table, with seed 0."""
    won = winners["iou"]
    base = recipes.tuned(
        shared, "iou", won.train.learning_rate, won.loss.distance_weight, 0, epochs
    )
    squared = recipes.tuned(
        shared,
        "l2",
        winners["l2"].train.learning_rate,
        winners["l2"].loss.distance_weight,
        0,
        epochs,
    )
    pooled = {"confidence_tap": "after_pool", "distances_tap": "after_pool"}
    found = {
        BASE: base,
        "taps-pooled": _changed(base, model=pooled),
        "unshared": _changed(base, model={"unshared": True}),
        "regions-boxes": _changed(base, data={"region": "box"}),
        "stage4-unscaled": _changed(base, model={"stage4_scale": 1.0}),
        "reduction-object_mean": _changed(base, loss={"reduction": "object_mean"}),
        # The same gradient, but for the numbers of pixels that divide it.
        "reduction-sum": _changed(
            base,
            loss={
                "reduction": "sum",
                "distance_weight": base.loss.distance_weight / POSITIVE_SHARE,
            },
            train={
                "learning_rate": base.train.learning_rate / PIXELS,
                "clip_norm": (base.train.clip_norm or 0) * PIXELS,
            },
        ),
        "loss-l2": squared,
        "loss-smooth_l1": _changed(
            base,
            loss={
                "distance_loss": "smooth_l1",
                "distance_weight": base.loss.distance_weight * SMOOTH_L1_WEIGHT,
            },
        ),
    }
    for loss in IOU_FAMILY:
        found[f"loss-{loss}"] = _changed(base, loss={"distance_loss": loss})
    return found


def _changed(config: Config, **groups: Mapping[str, Any]) -> Config:
    changes: dict[str, Any] = {
        group: dataclasses.replace(getattr(config, group), **fields)
        for group, fields in groups.items()
    }
    return dataclasses.replace(config, **changes)


def with_seeds(
    found: Mapping[str, Config], names: Sequence[str], seeds: Sequence[int]
) -> dict[str, Config]:
    """The runs of the named rows, seed by seed, so that a table with few seeds comes first."""
    return {
        f"ablation-{name}-{seed}": _changed(found[name], train={"seed": seed})
        for seed in seeds
        for name in names
    }


def figures(folder: Path, name: str, seeds: Sequence[int]) -> dict[str, list[float]]:
    """For each column the figures of a row's runs that have ended; a run that diverged has found nothing."""
    found: dict[str, list[float]] = {title: [] for title in COLUMNS}
    for seed in seeds:
        run = folder / f"ablation-{name}-{seed}"
        if not experiments.has_ended(run):
            continue
        results = {}
        if experiments.is_trained(run):
            results = json.loads((run / experiments.FINISHED).read_text(encoding="utf-8"))
        for title, (decoder, key) in COLUMNS.items():
            value = results.get(decoder, {}).get(key) or 0.0
            found[title].append(1 - value if "miss rate" in title else value)
    return found


def table(folder: Path, names: Sequence[str], seeds: Sequence[int]) -> str:
    """Markdown: mean and range of each row's seeds."""
    lines = [
        "| row | runs | " + " | ".join(COLUMNS) + " |",
        "|---|---|" + "---|" * len(COLUMNS),
    ]
    for name in names:
        columns = figures(folder, name, seeds)
        count = len(next(iter(columns.values())))
        if count:
            cells = [
                f"{statistics.mean(v):.3f} ({min(v):.3f} to {max(v):.3f})" for v in columns.values()
            ]
            lines.append(f"| {name} | {count} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def make(arguments: argparse.Namespace) -> None:
    """Trains the rows that are asked for, and writes ablations.csv and ablations.md of all that have ended."""
    folder, shared = arguments.output, recipes.base(arguments.data, arguments.weights)
    winners = figure4.winners(folder, shared, arguments)
    found = rows(shared, winners, arguments.epochs)
    unknown = sorted(set(arguments.rows) - set(found))
    if unknown:
        raise ValueError(f"Unknown row {unknown[0]!r}. Expected some of {list(found)}.")
    try:
        experiments.train_all(
            with_seeds(found, arguments.rows or list(found), arguments.seeds), folder
        )
    finally:
        with (folder / "ablations.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["row", *COLUMNS])
            for name in found:
                columns = figures(folder, name, arguments.seeds).values()
                writer.writerows([name, *values] for values in zip(*columns, strict=True))
        text = table(folder, list(found), arguments.seeds)
        (folder / "ablations.md").write_text(text, encoding="utf-8")
