"""The choices that the paper leaves open: one change at a time, each with several seeds.

All rows share figure 4's data, and, except for the change, the recipe that its search found for −ln IoU.
Only l2 has its own learning rate and weight from the search.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from training import outputs
from training.paper import experiments, figure4, recipes
from unitbox_tf import files
from unitbox_tf.config import Config

BASE = "base"
IOU_FAMILY = ("linear_iou", "giou", "diou", "ciou", "eiou", "siou")
PIXELS = 10 * recipes.IMAGE_SIZE**2  # of a batch
# The loss of a face of 60 px falls by about 1/30 a pixel for −ln IoU, by 1 for smooth L1.
SMOOTH_L1_WEIGHT = 1 / 30
# About this share of a batch's pixels counts in the distance loss; summed, the loss has that much less say.
POSITIVE_SHARE = 0.1

COLUMNS = {  # of the table, by the path in results.json
    "miss rate at 5 false positives, ellipse": ("ellipse", "fddb_discrete_at_5"),
    "miss rate at 5 false positives, peaks": ("peaks", "fddb_discrete_at_5"),
    "AP .50, ellipse": ("ellipse", "ap50"),
    "AP .50, peaks": ("peaks", "ap50"),
    "mean IoU, ellipse": ("ellipse", "mean_iou"),
    "mean IoU, peaks": ("peaks", "mean_iou"),
    "AP .75, ellipse": ("ellipse", "ap75"),
    "AP .75, peaks": ("peaks", "ap75"),
}


def configs(winners: Mapping[str, Config], epochs: int) -> dict[str, Config]:
    """The configuration of each row of the table, with seed 0.

    Args:
        winners: of figure 4's search, by loss.
        epochs: of each run.
    """
    settings = {"seed": 0, "epochs": epochs}
    base, squared = (recipes.changed(winners[loss], train=settings) for loss in figure4.LOSSES)
    pooled = {"confidence_tap": "after_pool", "distances_tap": "after_pool"}
    found = {
        BASE: base,
        "taps-pooled": recipes.changed(base, model=pooled),
        "unshared": recipes.changed(base, model={"unshared": True}),
        "regions-boxes": recipes.changed(base, data={"region": "box"}),
        "stage4-unscaled": recipes.changed(base, model={"stage4_scale": 1.0}),
        "reduction-object_mean": recipes.changed(base, loss={"reduction": "object_mean"}),
        # The same gradient, but for the numbers of pixels that divide it.
        "reduction-sum": recipes.changed(
            base,
            loss={
                "reduction": "sum",
                "distance_weight": base.loss.distance_weight / POSITIVE_SHARE,
            },
            train={
                "learning_rate": base.train.learning_rate / PIXELS,
                "clip_norm": (base.train.clip_norm or 0) * PIXELS,
                "weight_decay": base.train.weight_decay * PIXELS,
            },
        ),
        "loss-l2": squared,
        "loss-smooth_l1": recipes.changed(
            base,
            loss={
                "distance_loss": "smooth_l1",
                "distance_weight": base.loss.distance_weight * SMOOTH_L1_WEIGHT,
            },
        ),
    }
    for loss in IOU_FAMILY:
        found[f"loss-{loss}"] = recipes.changed(base, loss={"distance_loss": loss})
    return found


def with_seeds(
    found: Mapping[str, Config], names: Sequence[str], seeds: Sequence[int]
) -> dict[str, Config]:
    """The runs of the named rows, seed by seed, so that a table with few seeds comes first."""
    return {
        f"ablation-{name}-{seed}": recipes.changed(found[name], train={"seed": seed})
        for seed in seeds
        for name in names
    }


def figures(folder: Path, name: str, config: Config) -> dict[int, dict[str, float]]:
    """The metrics of a row for each trained seed, one for each column. A run that diverged has found nothing.

    Raises:
        ValueError: a run has another configuration than the row.
    """
    found = {}
    for run in folder.glob(f"ablation-{name}-*"):
        seed = run.name.rpartition("-")[2]
        if run.name != f"ablation-{name}-{seed}" or not seed.isdigit():
            continue
        experiments.check_same(run, recipes.changed(config, train={"seed": int(seed)}))
        if not experiments.has_ended(run):
            continue
        results = {}
        if experiments.is_trained(run):
            results = json.loads((run / experiments.FINISHED).read_text(encoding="utf-8"))
        row = {}
        for title, (decoder, key) in COLUMNS.items():
            value = results.get(decoder, {}).get(key) or 0.0
            row[title] = 1 - value if "miss rate" in title else value
        found[int(seed)] = row
    return dict(sorted(found.items()))


def table(rows: Mapping[str, Mapping[int, Mapping[str, float]]]) -> str:
    """Markdown: mean and range of the seeds of each row that has any."""
    lines = [
        "| row | runs | " + " | ".join(COLUMNS) + " |",
        "|---|---|" + "---|" * len(COLUMNS),
    ]
    for name, seeds in rows.items():
        cells = []
        for title in COLUMNS:
            values = [row[title] for row in seeds.values()]
            if values:
                low, mean, high = min(values), statistics.mean(values), max(values)
                cells.append(f"{mean:.3f} ({low:.3f} to {high:.3f})")
        if cells:
            lines.append(f"| {name} | {len(seeds)} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def make(
    *,
    data: str,
    weights: str,
    output: Path,
    rows: Sequence[str],
    seeds: Sequence[int],
    epochs: int,
    search_epochs: int,
) -> None:
    """Trains rows, and writes ablations.csv and ablations.md of all that have ended.

    Args:
        data: folder of the data sets.
        weights: "imagenet", or a file of VGG-16's weights.
        output: folder of the runs.
        rows: those to train; none stands for all.
        seeds: with which each is trained.
        epochs: of each run.
        search_epochs: of the runs of figure 4's search.
    """
    wanted = configs(figure4.winners(output, recipes.base(data, weights), search_epochs), epochs)
    unknown = sorted(set(rows) - set(wanted))
    if unknown:
        raise ValueError(f"Unknown row {unknown[0]!r}. Expected some of {list(wanted)}.")
    try:
        experiments.train_all(with_seeds(wanted, rows or list(wanted), seeds), output)
    finally:
        found = {name: figures(output, name, config) for name, config in wanted.items()}
        lines = [
            [name, seed, *row.values()]
            for name, each in found.items()
            for seed, row in each.items()
        ]
        outputs.write_csv(output / "ablations.csv", ["row", "seed", *COLUMNS], lines)
        files.write(output / "ablations.md", table(found))
