"""Figure 4 of the paper: the IoU loss against l2, with the same network, data and batches.

Three stages, each a set of runs: `letter` has the paper's settings, `search` looks for the learning
rate and the weight of the distance loss that suit each loss, `final` trains each winner with three
seeds. All are judged on validation photos by FDDB's protocol after each epoch.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import experiments
import recipes
from matplotlib.figure import Figure
from roc import curves_of

from unitbox_tf.config import Config
from unitbox_tf.evaluation import fddb, protocols

LOSSES = ("iou", "l2")
NAMES = {"iou": "-ln IoU", "l2": "l2"}
LETTER_RATES = {"iou": 1e-8, "l2": 1e-13}  # section 4 of the paper
# Of what the paper does not state, what might make its settings train.
CHANGES: dict[str, dict[str, Any]] = {
    "": {},
    "-scaled": {"stage4_scale": 0.01},  # features as large as those of stage 5
    "-scaled-started": {"stage4_scale": 0.01, "initial_box_size": 40.0},
}
RATES = (1e-3, 3e-3)
# l2's slope at a side that is 20 px wrong is 40, that of -ln IoU for a face of 60 px about 1 / 30: a
# thousandth gives both branches of the network the same say. A third and three times of it are tried, too.
WEIGHTS = {"iou": (0.3, 1.0, 3.0), "l2": (3e-4, 1e-3, 3e-3)}
MISS_AT = 5  # false positives in all validation photos


def letter(shared: Config, epochs: int) -> dict[str, Config]:
    """Summed losses and the paper's learning rates; then the same with one change after the other."""
    return {
        f"letter-{loss}{change}": dataclasses.replace(
            shared,
            model=dataclasses.replace(shared.model, **fields),
            loss=dataclasses.replace(shared.loss, distance_loss=loss),
            train=dataclasses.replace(shared.train, learning_rate=rate, epochs=epochs),
        )
        for change, fields in CHANGES.items()
        for loss, rate in LETTER_RATES.items()
    }


def search(shared: Config, epochs: int) -> dict[str, Config]:
    """Every learning rate with every weight, for each loss; one seed."""
    return {
        f"search-{loss}-{rate:g}-{weight:g}": recipes.tuned(shared, loss, rate, weight, 0, epochs)
        for loss in LOSSES
        for rate in RATES
        for weight in WEIGHTS[loss]
    }


def winner(folder: Path, configs: Mapping[str, Config], loss: str) -> tuple[str, Config]:
    """The run of the search whose last epoch is best, by the figures that choose epochs in a training."""
    mine = {name: c for name, c in configs.items() if c.loss.distance_loss == loss}
    return max(mine.items(), key=lambda item: _quality(experiments.history(folder / item[0])))


def winners(folder: Path, shared: Config, arguments: argparse.Namespace) -> dict[str, Config]:
    """The best configuration of the search for each loss.

    Raises:
        ValueError: a run of the search has not ended.
    """
    searched = search(shared, arguments.search_epochs)
    for name in searched:
        if not experiments.has_ended(folder / name):
            raise ValueError(
                f"{folder / name}: has not ended. Run `figures.py figure4 search` with the same --output first"
            )
    return {loss: winner(folder, searched, loss)[1] for loss in LOSSES}


def _quality(history: Sequence[Mapping[str, Any]]) -> float:
    if not history:  # it diverged
        return 0.0
    return statistics.mean(history[-1][f"val_fddb_{name}"] for name in protocols.CHOOSING["fddb"])


def final(shared: Config, winners: Mapping[str, Config], epochs: int) -> dict[str, Config]:
    """Each winner with every seed."""
    return {
        f"final-{loss}-{seed}": recipes.tuned(
            shared, loss, won.train.learning_rate, won.loss.distance_weight, seed, epochs
        )
        for loss, won in winners.items()
        for seed in recipes.SEEDS
    }


def rows(folder: Path, names: Sequence[str]) -> list[dict[str, Any]]:
    """The miss rate of each run after each epoch."""
    found = []
    for name in names:
        for epoch in experiments.history(folder / name):
            found.append(
                {
                    "run": name,
                    "iterations": epoch["iterations"],
                    "miss_rate": 1 - epoch[f"val_fddb_discrete_at_{MISS_AT}"],
                    "discrete_at_100": epoch["val_fddb_discrete_at_100"],
                    "continuous_at_100": epoch["val_fddb_continuous_at_100"],
                    "box_iou": epoch["val_box_iou"],
                    "loss": epoch["loss"],
                }
            )
    return found


def save_rows(found: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Writes rows as csv."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(found[0]) if found else [])
        writer.writeheader()
        writer.writerows(found)


def plot(folder: Path, stage_rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Panel (a): miss rate by iteration, mean and range of the seeds; panel (b): ROC of the best of each loss."""
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    for loss, colour in zip(LOSSES, ("C0", "C3"), strict=True):
        by_iteration: dict[int, list[float]] = {}
        for row in stage_rows:
            if row["run"].startswith(f"final-{loss}-"):
                by_iteration.setdefault(int(row["iterations"]), []).append(row["miss_rate"])
        steps = sorted(by_iteration)
        values = [by_iteration[step] for step in steps]
        left.plot(steps, [statistics.mean(v) for v in values], color=colour, label=NAMES[loss])
        left.fill_between(
            steps, [min(v) for v in values], [max(v) for v in values], color=colour, alpha=0.2
        )
        for seed in recipes.SEEDS:
            file = folder / f"final-{loss}-{seed}" / "roc-DiscROC.txt"
            if not file.is_file():
                continue
            curve = fddb.read_curve(file)
            label = NAMES[loss] if seed == recipes.SEEDS[0] else None
            right.plot(curve[:, 1], curve[:, 0], color=colour, label=label, alpha=0.7)
    left.set(xlabel="iteration", ylabel=f"miss rate at {MISS_AT} false positives", ylim=(0, 1))
    right.set(xlabel="false positives", ylabel="true positive rate", ylim=(0, 1), xscale="symlog")
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path, dpi=120)


def make(arguments: argparse.Namespace) -> None:
    """Trains what the stages ask for, and writes numbers and plot."""
    folder, shared = arguments.output, recipes.base(arguments.data, arguments.weights)
    folder.mkdir(parents=True, exist_ok=True)
    for stage in arguments.stages:
        if stage == "letter":
            configs = letter(shared, arguments.letter_epochs)
        elif stage == "search":
            configs = search(shared, arguments.search_epochs)
        else:
            configs = final(shared, winners(folder, shared, arguments), arguments.final_epochs)
        experiments.train_all(configs, folder)
        found = rows(folder, list(configs))
        save_rows(found, folder / f"{stage}.csv")
        if stage == "final":
            for name, config in configs.items():
                if (
                    experiments.is_trained(folder / name)
                    and not (folder / name / "roc-DiscROC.txt").is_file()
                ):
                    curves = curves_of(
                        folder / name, config.data.validation_sources, shared.data.data
                    )
                    fddb.save_curves(curves, folder / name / "roc-")
            plot(folder, found, folder / "figure4.png")
