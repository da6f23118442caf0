"""The experiments' machinery: runs are trained once, and numbers become rows and plots."""

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from unitbox_tf.evaluation import fddb

sys.path.append(str(Path(__file__).parents[1] / "training"))
import experiments
import figure4


def changed(config, **settings):
    return dataclasses.replace(config, train=dataclasses.replace(config.train, **settings))


def test_runs_are_trained_once_and_those_that_diverge_are_results(tiny_config, tmp_path):
    good = changed(tiny_config, epochs=1, steps_per_epoch=1)
    wild = changed(good, steps_per_epoch=2, learning_rate=1e30, clip_norm=None)
    gone = dataclasses.replace(good.data, train_sources=("coco:gone",))
    configs = {"bad": dataclasses.replace(good, data=gone), "good": good, "wild": wild}
    # What fails keeps no other run from being trained.
    with pytest.raises(ValueError, match=r"training failed.*\['bad'\]"):
        experiments.train_all(configs, tmp_path)
    del configs["bad"]
    assert len(experiments.history(tmp_path / "good")) == 1
    assert experiments.history(tmp_path / "wild") == []
    assert "training diverged" in (tmp_path / "wild" / experiments.DIVERGED).read_text()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    # Where data are is no difference; what is trained is.
    configs["good"] = dataclasses.replace(good, data=dataclasses.replace(good.data, data="other"))
    experiments.train_all(configs, tmp_path)
    assert before == {path: path.stat().st_mtime_ns for path in before}
    with pytest.raises(ValueError, match=r"good/config\.json: has another configuration"):
        experiments.train_all({"good": changed(good, epochs=2)}, tmp_path)


def epoch(iterations, miss, quality):
    figures = {"discrete_at_5": 1 - miss, "discrete_at_100": quality, "continuous_at_100": quality}
    row = {f"val_fddb_{name}": value for name, value in figures.items()}
    return {"iterations": iterations, "val_box_iou": 0.5, "loss": 1.0, **row}


def store(folder, name, *epochs):
    (folder / name).mkdir(parents=True)
    (folder / name / "history.json").write_text(json.dumps(epochs))


def test_the_best_last_epoch_of_each_loss_wins_the_search(tmp_path):
    configs = figure4.search(figure4.base("data", "imagenet"), 3)
    for number, (name, config) in enumerate(configs.items()):
        # l2 gets worse from run to run; the first run of all diverged.
        quality = 0.9 - number / 100 if config.loss.distance_loss == "l2" else number / 100
        store(tmp_path, name, *([epoch(20, 0.5, 1), epoch(40, 0.5, quality)] if number else []))
    for loss, place in (("iou", -1), ("l2", 0)):
        names = [n for n, c in configs.items() if c.loss.distance_loss == loss]
        assert len(names) == len(figure4.RATES) * len(figure4.WEIGHTS[loss])
        assert figure4.winner(tmp_path, configs, loss)[0] == names[place]


def test_runs_of_a_stage_differ_in_what_they_compare_alone():
    shared = figure4.base("data", "imagenet")
    letter = figure4.letter(shared, 8)
    assert len(letter) == 6
    assert letter["letter-iou"].train.learning_rate == 1e-8
    assert letter["letter-l2"].train.learning_rate == 1e-13
    for config in letter.values():
        assert (config.loss.reduction, config.train.batch_size) == ("sum", 10)
        assert (config.train.momentum, config.train.weight_decay) == (0.9, 2e-4)
        assert not any([config.data.flip, config.data.random_crop, config.data.mosaic])
    winners = {loss: figure4.tuned(shared, loss, 1e-3, 0.5, 0, 1) for loss in figure4.LOSSES}
    final = figure4.final(shared, winners, 9)
    assert len(final) == len(figure4.LOSSES) * len(figure4.SEEDS)
    for seed in figure4.SEEDS:
        one, other = (final[f"final-{loss}-{seed}"] for loss in figure4.LOSSES)
        assert dataclasses.replace(other, loss=one.loss) == one


def test_numbers_become_rows_and_a_plot(tmp_path):
    names = [f"final-{loss}-{seed}" for loss in figure4.LOSSES for seed in figure4.SEEDS]
    for number, name in enumerate(names):
        store(tmp_path, name, epoch(20, 0.5, 0.5), epoch(40, 0.1 * number, 0.9))
        roc = np.array([[0.9, 3.0, 0.1], [0.5, 0.0, 0.9]])
        fddb.save_curves(fddb.Curves(roc, roc[:, :2], 1, 1, 1), tmp_path / name / "roc-")
    found = figure4.rows(tmp_path, names)
    figure4.save_rows(found, tmp_path / "final.csv")
    lines = (tmp_path / "final.csv").read_text().splitlines()
    assert lines[0].startswith("run,iterations,miss_rate")
    assert len(lines) == 1 + 2 * len(names)
    assert found[3]["miss_rate"] == pytest.approx(0.1)
    figure4.plot(tmp_path, found, tmp_path / "figure4.png")
    assert (tmp_path / "figure4.png").stat().st_size > 0
