"""Figure 4 of the paper: the IoU loss against l2, with the same network, data and batches.

There are three stages, each a set of runs. `letter` has the paper's settings, `search` looks for the
learning rate and the weight of the distance loss that suit each loss, and `final` trains each winner
with three seeds. All are judged on validation images by FDDB's protocol after each epoch.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from training import outputs
from training.paper import experiments, recipes, roc
from unitbox_tf.config import Config
from unitbox_tf.evaluation import fddb, protocols

LOSSES = ("iou", "l2")
NAMES = {"iou": "-ln IoU", "l2": "l2"}
LETTER_RATES = {"iou": 1e-8, "l2": 1e-13}  # section 4 of the paper
# The paper does not state these: the weight of the confidence branch, the scale of its features, and where
# boxes start. Each might make its settings train. Stage 4 is some 15 times larger than stage 5, and a
# hundredth of it has a ten thousandth of the gradient in the weights of the head.
CHANGES: dict[str, dict[str, dict[str, Any]]] = {
    "": {},
    "-weighted": {"loss": {"confidence_weight": 1e-4}},
    "-scaled": {"model": {"stage4_scale": 0.01}},
    "-scaled-started": {"model": {"stage4_scale": 0.01, "initial_box_size": 40.0}},
}
RATES = (1e-3, 3e-3)
# l2's slope at a side that is 20 px wrong is 40, that of -ln IoU for a face of 60 px about 1 / 30: a
# thousandth gives both branches of the network the same say. A third and three times of it are tried, too.
WEIGHTS = {"iou": (0.3, 1.0, 3.0), "l2": (3e-4, 1e-3, 3e-3)}
RECALL_AT = (1, 5, 10, 50)  # false positives, of the verdict
MISS_AT = 5  # false positives in all validation images


def letter(shared: Config, epochs: int) -> dict[str, Config]:
    """Runs with summed losses and the paper's learning rates, and the same runs with one change each."""
    return {
        f"letter-{loss}{change}": recipes.changed(
            recipes.changed(
                shared,
                loss={"distance_loss": loss},
                train={"learning_rate": rate, "epochs": epochs},
            ),
            **groups,
        )
        for change, groups in CHANGES.items()
        for loss, rate in LETTER_RATES.items()
    }


def search(shared: Config, epochs: int) -> dict[str, Config]:
    """Runs with every learning rate and every weight, for each loss, with one seed."""
    return {
        f"search-{loss}-{rate:g}-{weight:g}": recipes.tuned(shared, loss, rate, weight, 0, epochs)
        for loss in LOSSES
        for rate in RATES
        for weight in WEIGHTS[loss]
    }


def winner(folder: Path, configs: Mapping[str, Config], loss: str) -> tuple[str, Config]:
    """The run of the search with the best last epoch, by the metrics that choose epochs in training."""
    mine = {name: c for name, c in configs.items() if c.loss.distance_loss == loss}
    return max(mine.items(), key=lambda item: _quality(folder / item[0]))


def winners(folder: Path, shared: Config, search_epochs: int) -> dict[str, Config]:
    """The best configuration of the search for each loss.

    Raises:
        ValueError: a run of the search has not ended, or was another.
    """
    searched = search(shared, search_epochs)
    for name, config in searched.items():
        experiments.check_same(folder / name, config)
        if not experiments.has_ended(folder / name):
            raise ValueError(
                f"{folder / name}: has not ended. Run `python -m training.paper figure4 search` with the "
                "same --output first"
            )
    return {loss: winner(folder, searched, loss)[1] for loss in LOSSES}


def _quality(run: Path) -> float:
    if not experiments.is_trained(run):  # it diverged
        return 0.0
    last = experiments.history(run)[-1]
    return statistics.mean(last[f"val_fddb_{name}"] for name in protocols.CHOOSING["fddb"])


def final(winners: Mapping[str, Config], epochs: int) -> dict[str, Config]:
    """Each winner with every seed."""
    return {
        f"final-{loss}-{seed}": recipes.changed(won, train={"seed": seed, "epochs": epochs})
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
                    "distances_iou": epoch["distances_iou"],
                    "loss": epoch["loss"],
                }
            )
    return found


def save_rows(found: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Writes rows as csv."""
    outputs.write_csv(path, found[0] if found else (), (row.values() for row in found))


def by_iteration(found: Sequence[Mapping[str, Any]], prefix: str) -> dict[int, list[float]]:
    """The miss rates of the runs whose names begin with `prefix`, by iteration."""
    rates: dict[int, list[float]] = {}
    for row in found:
        if row["run"].startswith(prefix):
            rates.setdefault(int(row["iterations"]), []).append(row["miss_rate"])
    return dict(sorted(rates.items()))


def verdict(
    found: Sequence[Mapping[str, Any]], curves: Mapping[str, Sequence[np.ndarray]]
) -> dict[str, Any]:
    """The figure in numbers, each a mean over seeds. A seed that diverged has missed everything.

    Args:
        found: `rows` of the final runs.
        curves: for each loss the discrete ROC curves of its runs.

    Returns:
        For each loss: its best miss rate with its iteration, and its recall at some numbers of false
        positives. Besides, the iteration at which −ln IoU is first as good as l2's best; None if never.
    """
    steps = sorted({int(row["iterations"]) for row in found})
    means = {}
    for loss in LOSSES:
        rates = by_iteration(found, f"final-{loss}-")
        # A seed without a row at an iteration has diverged before.
        missing = {step: [1.0] * (len(recipes.SEEDS) - len(rates.get(step, []))) for step in steps}
        means[loss] = {step: statistics.mean(rates.get(step, []) + missing[step]) for step in steps}
    best = {loss: min(rates.values()) for loss, rates in means.items()}
    content: dict[str, Any] = {
        loss: {
            "best_miss_rate": best[loss],
            "best_iteration": next(step for step, rate in rates.items() if rate == best[loss]),
            "recall": {
                str(count): sum(fddb.rate_at(curve, count) for curve in curves[loss])
                / len(recipes.SEEDS)
                for count in RECALL_AT
            },
        }
        for loss, rates in means.items()
    }
    reached = (step for step, rate in means["iou"].items() if rate <= best["l2"])
    content["iou_as_good_as_best_l2_at"] = next(reached, None)
    return content


def plot(
    found: Sequence[Mapping[str, Any]], curves: Mapping[str, Sequence[np.ndarray]], path: Path
) -> None:
    """Panel (a): miss rate by iteration, mean and range of the seeds; panel (b): ROC curves of each loss."""
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    for loss, colour in zip(LOSSES, ("C0", "C3"), strict=True):
        rates = by_iteration(found, f"final-{loss}-")
        low, mean, high = (
            [choose(v) for v in rates.values()] for choose in (min, statistics.mean, max)
        )
        left.plot(list(rates), mean, color=colour, label=NAMES[loss])
        left.fill_between(list(rates), low, high, color=colour, alpha=0.2)
        for number, curve in enumerate(curves[loss]):
            label = None if number else NAMES[loss]
            right.plot(curve[:, 1], curve[:, 0], color=colour, label=label, alpha=0.7)
    left.set(xlabel="iteration", ylabel=f"miss rate at {MISS_AT} false positives", ylim=(0, 1))
    right.set(xlabel="false positives", ylabel="true positive rate", ylim=(0, 1), xscale="symlog")
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.legend()
    outputs.write_figure(path, figure)


def plot_letter(folder: Path, found: Sequence[Mapping[str, Any]], path: Path) -> None:
    """IoU at face pixels while training, after each whole epoch of the runs with the paper's settings."""
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for loss, colour in zip(LOSSES, ("C0", "C3"), strict=True):
        for change, style in zip(CHANGES, (":", "-.", "--", "-"), strict=True):
            name = f"letter-{loss}{change}"
            mine = [row for row in found if row["run"] == name]
            steps, values = ([row[key] for row in mine] for key in ("iterations", "distances_iou"))
            diverged = not experiments.is_trained(folder / name)
            title = NAMES[loss] + change.replace("-", ", ") + (" (diverged)" if diverged else "")
            axes.plot(steps, values, color=colour, linestyle=style, label=title)
    axes.set(xlabel="iteration", ylabel="mean IoU at face pixels, training", ylim=(0, 1))
    axes.grid(alpha=0.3)
    axes.legend()
    outputs.write_figure(path, figure)


def roc_of(run: Path, config: Config) -> np.ndarray:
    """The discrete ROC curve of a run on its validation images; written beside it, and read if it is there."""
    file = run / "roc-DiscROC.txt"
    if not file.is_file():
        curves = roc.curves_of(run, config.data.validation_sources, config.data.data)
        fddb.save_curves(curves, run / "roc-")
    return fddb.read_curve(file)


def make(
    stages: Sequence[str],
    *,
    data: str,
    weights: str,
    output: Path,
    search_epochs: int,
    letter_epochs: int,
    final_epochs: int,
) -> None:
    """Trains the runs of the stages, and writes numbers and plots.

    Args:
        stages: of "letter", "search" and "final"; carried out in the order given.
        data: folder of the data sets.
        weights: "imagenet", or a file of VGG-16's weights.
        output: folder of the runs.
        search_epochs: epochs of each run of the search.
        letter_epochs: epochs of each run with the paper's settings.
        final_epochs: epochs of each run of a winner.
    """
    shared = recipes.base(data, weights)
    for stage in stages:
        if stage == "letter":
            configs = letter(shared, letter_epochs)
        elif stage == "search":
            configs = search(shared, search_epochs)
        else:
            configs = final(winners(output, shared, search_epochs), final_epochs)
        experiments.train_all(configs, output)
        found = rows(output, list(configs))
        save_rows(found, output / f"{stage}.csv")
        if stage == "letter":
            plot_letter(output, found, output / "figure4-letter.png")
        if stage == "final":
            curves = {loss: final_curves(output, configs, loss) for loss in LOSSES}
            outputs.write_json(output / "figure4.json", verdict(found, curves))
            plot(found, curves, output / "figure4.png")


def final_curves(folder: Path, configs: Mapping[str, Config], loss: str) -> list[np.ndarray]:
    """The ROC curves of those runs of a loss that have not diverged."""
    return [
        roc_of(folder / name, config)
        for name, config in configs.items()
        if config.loss.distance_loss == loss and experiments.is_trained(folder / name)
    ]
