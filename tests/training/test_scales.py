"""The loss against l2 with objects of many sizes: tuning, judging by size, and tables."""

import dataclasses
import json
import math

import numpy as np
import pytest
import tensorflow as tf

from training.paper import experiments, scales
from unitbox_tf.records import Annotation, Detections

SETTING = scales.Setting(steps=16, images=8, side=64)


@pytest.fixture
def runs(monkeypatch):
    """Runs that are not trained: `trained` holds their configurations, and `best` names where quality is highest."""
    trained, state = {}, {"best": {"iou": (0, 0), "l2": (0, 0)}}

    def train_all(configs, folder):
        trained.update({name: config for name, config in configs.items() if name not in trained})

    def quality(run):
        config = trained[run.name]
        rate, weight = scales.settings_of(
            config.loss.distance_loss, state["best"][config.loss.distance_loss]
        )
        return -abs(math.log(config.train.learning_rate / rate)) - abs(
            math.log(config.loss.distance_weight / weight)
        )

    monkeypatch.setattr(experiments, "train_all", train_all)
    monkeypatch.setattr(scales, "quality", quality)
    return trained, state["best"]


def test_the_search_goes_on_until_the_best_is_surrounded(runs, tmp_path):
    trained, best = runs
    found = scales.search(SETTING, "iou", tmp_path)
    assert len(found) == 9
    assert next(iter(found)) == (0, 0)
    best["l2"] = (1, -2)
    found = scales.search(SETTING, "l2", tmp_path)
    assert next(iter(found)) == (1, -2)
    assert scales.is_surrounded((1, -2), found)
    rates = {scales.settings_of("l2", cell)[0] for cell in found}
    weights = {scales.settings_of("l2", cell)[1] for cell in found}
    rate, weight = scales.settings_of("l2", (1, -2))
    for tried, middle in ((rates, rate), (weights, weight)):
        assert max(tried) / min(tried) >= 29  # two digits of the root of 30, twice
        assert min(tried) < middle < max(tried)
    assert len({config.to_json() for config in trained.values()}) == 9 + len(found)
    best["l2"] = (9, 9)  # out of reach: that the best is at an edge is said
    found = scales.search(SETTING, "l2", tmp_path)
    assert not scales.is_surrounded(next(iter(found)), found)


def test_the_best_after_halving_is_surrounded_too(runs, tmp_path, monkeypatch):
    _, best = runs
    plain = scales.quality

    def quality(run):  # with more steps, another cell of the search is the best
        best["l2"] = (1, 0) if run.name.startswith("half") else (0, 0)
        return plain(run)

    monkeypatch.setattr(scales, "quality", quality)
    found, halved = scales.tune(SETTING, "l2", tmp_path)
    assert next(iter(halved)) == (1, 0)
    assert scales.is_surrounded((1, 0), found)
    assert len(found) == 12
    chosen = scales.chosen(found, halved, "l2", 0.5)
    assert chosen["surrounded"]
    assert (chosen["rate"], chosen["weight"]) == scales.settings_of("l2", (1, 0))


def test_both_losses_get_the_same_but_for_what_is_tuned(runs, tmp_path):
    trained, _ = runs
    for loss in ("iou", "l2"):
        found = scales.search(SETTING, loss, tmp_path)
        assert len(scales.halve(SETTING, loss, found, tmp_path)) == scales.KEPT
    one, other = trained["search-iou-0.0015-1"], trained["search-l2-0.0015-0.001"]
    assert dataclasses.replace(other, loss=one.loss) == one
    assert (one.train.steps_per_epoch, one.train.epochs) == (1, 4)
    half = trained["half-l2-0.0015-0.001"]
    assert half.train.steps_per_epoch == 2
    assert SETTING.config("l2", 1e-3, 1, 5).train.steps_per_epoch == 4
    assert SETTING.config("l2", 1e-3, 1, 5).train.seed == 5


def test_settings_name_the_data_and_the_network():
    config = SETTING.config("iou", 1e-3, 1, 0)
    assert config.data.train_sources == ("multiscale:#0-8/64",)
    shown = {*config.data.train_sources, *config.data.validation_sources, *SETTING.tested}
    assert len(shown) == 3
    assert (config.model.neck, config.model.width, config.model.neck_channels) == (
        "top_down",
        0.5,
        16,
    )
    vgg = dataclasses.replace(SETTING, network="vgg").config("l2", 1e-3, 1, 0)
    assert (vgg.model.backbone, vgg.model.neck) == ("vgg16", "none")
    faces = dataclasses.replace(SETTING, kind="faces", data="D", side=320)
    config = faces.config("iou", 1e-3, 1, 0)
    assert config.data.object_size == (8, 288)
    assert config.data.data == "D"
    assert not set(faces.tested) & {*config.data.train_sources, *config.data.validation_sources}


def truth(*boxes, size=(200, 200)):
    return Annotation("a", b"", np.array(boxes, float), size=size)


def found(boxes, scores, size=(200, 200)):
    return Detections(
        np.array(boxes, float).reshape(-1, 4), np.array(scores), np.zeros(len(scores), int), size
    )


def test_metrics_by_size_are_those_counted_by_hand():
    # Objects of 10, 20 and 100 px. The first is missed, the second is found with an IoU of .6, the third exactly.
    annotations = [truth([0, 0, 10, 10], [20, 0, 40, 20], [60, 60, 160, 160])] * 10
    boxes = [[20, 0, 40, 12], [60, 60, 160, 160]]
    detections = [found(boxes, [0.9, 0.8])] * 9
    # False positives of 20 px with the lowest scores: at one of them an image, all scores but the last count.
    wrong = [[180, y, 200, y + 20] for y in range(0, 200, 16)]
    scores = [0.3, *np.linspace(0.29, 0.2, 12)]
    detections += [found([*boxes, *wrong], [0.9, 0.8, *scores])]
    overlaps = [np.array([0.1, 0.2, 0.9])] * 10
    judged = scales.by_size(detections, annotations, overlaps, 200)
    assert {size: row["objects"] for size, row in judged.items()} == {
        "all": 30,
        "8-16": 10,
        "16-32": 10,
        "32-64": 0,
        "64-128": 10,
        "128+": 0,
    }
    assert judged["8-16"] == {
        "objects": 10,
        "recall50": 0,
        "recall75": 0,
        "mean_iou": None,
        "centre_iou": pytest.approx(0.1),
        "ap50": 0,
        "ap75": 0,
    }
    assert judged["16-32"]["recall50"] == 1
    assert judged["16-32"]["recall75"] == 0
    assert judged["16-32"]["mean_iou"] == pytest.approx(0.6)
    assert judged["64-128"]["mean_iou"] == 1
    assert judged["64-128"]["ap75"] == 1  # detections of 20 px do not count there
    assert judged["all"]["recall50"] == pytest.approx(2 / 3)
    assert judged["all"]["mean_iou"] == pytest.approx(0.8)
    assert judged["all"]["centre_iou"] == pytest.approx(0.4)
    assert judged["32-64"]["recall50"] is judged["32-64"]["centre_iou"] is None
    # Shown at half of the size, the largest object has 50 px.
    assert scales.by_size(detections, annotations, overlaps, 100)["32-64"]["objects"] == 10


class Constant:
    """Stands for a network of stride 4 that predicts a box of 16 px around each point."""

    map_stride = 4

    def __call__(self, images, training=False):
        height, width = (-(-side // 4) for side in images.shape[1:3])
        return {"distances": tf.fill([1, height, width, 4], 8.0)}


def test_boxes_are_read_at_the_centres_of_objects():
    image = np.zeros((80, 160, 3), np.uint8)
    # At half of the size, the first one is exactly the box at the point (10, 14), and the second is four times it.
    boxes = [[4, 12, 36, 44], [60, 4, 124, 68]]
    [found] = scales.centre_overlaps(Constant(), [Annotation("a", image, boxes)], 80)
    assert found == pytest.approx([1, 1 / 4])
    [found] = scales.centre_overlaps(Constant(), [Annotation("a", image, boxes)], 160)
    assert found[0] == pytest.approx(1 / 4)
    [none] = scales.centre_overlaps(Constant(), [Annotation("a", image, np.zeros((0, 4)))], 80)
    assert len(none) == 0


def test_intervals_are_students():
    # Mean 2, standard deviation 1, three values: 4.303 / sqrt(3), as in tables.
    cell = scales.interval([1, 2, 3])
    assert (cell["mean"], cell["error"]) == (2, pytest.approx(2.484, abs=1e-3))
    assert scales.interval([5]) == {"mean": 5, "error": None}


def test_differences_are_taken_seed_by_seed():
    def row(value):
        metrics = dict.fromkeys(scales.METRICS, value)
        found = {size: {"objects": 7, **metrics} for size in ("all", "8-16")}
        return {**found, "128+": {"objects": 0, **dict.fromkeys(metrics)}}

    judged = {
        "iou": {0: row(0.5), 1: row(0.7), 2: row(0.9)},
        "l2": {0: row(0.4), 1: row(0.6), 2: row(None)},
    }
    assert list(scales.compare(judged)) == ["all", "8-16"]
    compared = scales.compare(judged)["8-16"]
    assert compared["objects"] == 7
    assert compared["ap50"]["iou"]["mean"] == pytest.approx(0.7)
    assert compared["ap50"]["l2"]["mean"] == pytest.approx(1 / 3)
    assert compared["ap50"]["iou - l2"]["mean"] == pytest.approx((0.1 + 0.1 + 0.9) / 3)
    judged["l2"][2] = row(0.8)  # the seeds differ, their differences do not
    difference = scales.compare(judged)["all"]["mean_iou"]["iou - l2"]
    assert difference["error"] == pytest.approx(0, abs=1e-9)


def test_a_run_that_diverged_has_found_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(scales.Setting, "tested", ("multiscale:#0-5/64",))
    run = tmp_path / "final-l2-0"
    run.mkdir()
    (run / experiments.DIVERGED).write_text("")
    judged = scales.judge(run, SETTING)
    assert judged["all"]["objects"] > 5
    assert judged["all"]["recall50"] == 0
    assert scales.quality(run) == 0
    (run / scales.JUDGED).write_text('{"stored": 1}')
    assert scales.judge(run, SETTING) == {"stored": 1}


def test_an_experiment_ends_with_tables_and_a_plot(runs, tmp_path, monkeypatch, capsys):
    trained, _ = runs
    metrics = dict.fromkeys(scales.METRICS, 0.5)
    judged = {size: {"objects": 3, **metrics} for size in ("all", "8-16", "16-32")}
    monkeypatch.setattr(scales, "judge", lambda run, setting: judged)
    scales.make(losses=["iou", "l2"], seeds=[0, 1], output=tmp_path, steps=16, side=64)
    finals = [name for name in trained if name.startswith("final")]
    assert finals == ["final-iou-0", "final-l2-0", "final-iou-1", "final-l2-1"]
    content = json.loads((tmp_path / "scales.json").read_text())
    assert content["chosen"]["l2"]["surrounded"]
    assert content["chosen"]["l2"]["weight"] == 0.001
    text = (tmp_path / "scales.md").read_text()
    assert "| recall at IoU .5 | objects | iou | l2 | iou - l2 |" in text
    assert "| 8-16 px | 3 | 0.500 ± 0.000 | 0.500 ± 0.000 | +0.000 ± 0.000 |" in text
    assert "in the middle of what was tried" in text
    assert capsys.readouterr().out.startswith("| recall")
    assert (tmp_path / "scales.png").stat().st_size > 0


@pytest.mark.slow
def test_a_tiny_experiment_trains_and_goes_on_where_it_was(tmp_path, monkeypatch):
    # The runs of the search are as any other.
    monkeypatch.setattr(scales, "tune", lambda *given: ({(0, 0): 0.5}, {(0, 0): 0.5}))
    options = {"losses": ["l2"], "seeds": [0], "output": tmp_path, "steps": 4, "side": 32}
    options |= {"images": 4, "batch_size": 2, "width": 0.25}
    monkeypatch.setattr(scales.Setting, "tested", ("multiscale:#50-54/32",))
    scales.make(**options)
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["final-l2-0"]
    judged = json.loads((tmp_path / "scales.json").read_text())["by_size"]
    assert judged["all"]["centre_iou"]["l2"]["mean"] > 0
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*/*")}
    scales.make(**options)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*/*")} == before
