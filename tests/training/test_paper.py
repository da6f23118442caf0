"""The experiments' machinery: runs are trained once, and numbers become rows and plots."""

import dataclasses
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import tensorflow as tf

from training.paper import ablations, experiments, figure4, figure5, figure6, recipes
from unitbox_tf import registry
from unitbox_tf.config import ModelConfig
from unitbox_tf.detect.model import UnitBox
from unitbox_tf.evaluation import fddb
from unitbox_tf.records import Annotation


def changed(config, **settings):
    return dataclasses.replace(config, train=dataclasses.replace(config.train, **settings))


@pytest.mark.slow
def test_runs_are_trained_once_and_those_that_diverge_are_results(tiny_config, tmp_path):
    good = changed(tiny_config, epochs=1, steps_per_epoch=1)
    wild = changed(good, steps_per_epoch=2, learning_rate=1e30, clip_norm=None)
    unread = dataclasses.replace(good.model, weights="gone.h5")
    configs = {"bad": dataclasses.replace(good, model=unread), "good": good, "wild": wild}
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


def test_nothing_is_trained_where_data_are_absent(tiny_config, tmp_path):
    gone = dataclasses.replace(tiny_config.data, validation_sources=("coco:gone",))
    configs = {"good": tiny_config, "bad": dataclasses.replace(tiny_config, data=gone)}
    with pytest.raises(ValueError, match=r"gone: no such file or folder, needed for the source"):
        experiments.train_all(configs, tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def epoch(iterations, miss, quality):
    figures = {"discrete_at_5": 1 - miss, "discrete_at_100": quality, "continuous_at_100": quality}
    row = {f"val_fddb_{name}": value for name, value in figures.items()}
    return {"iterations": iterations, "val_box_iou": 0.5, "loss": 1.0, "distances_iou": 0.6, **row}


def store(folder, name, *epochs):
    (folder / name).mkdir(parents=True)
    (folder / name / "history.json").write_text(json.dumps(epochs))


def test_the_best_last_epoch_of_each_loss_wins_the_search(tmp_path):
    configs = figure4.search(recipes.base("data", "imagenet"), 3)
    for number, (name, config) in enumerate(configs.items()):
        # l2 gets worse from run to run.
        quality = 0.9 - number / 100 if config.loss.distance_loss == "l2" else number / 100
        store(tmp_path, name, epoch(20, 0.5, 1), epoch(40, 0.5, quality))
        (tmp_path / name / experiments.FINISHED).write_text("{}")
    wild = (
        tmp_path / list(configs)[5]
    )  # the best of its loss, but it diverged after its second epoch
    assert figure4.winner(tmp_path, configs, "iou")[0] == wild.name
    (wild / experiments.FINISHED).rename(wild / experiments.DIVERGED)
    for loss, place in (("iou", -2), ("l2", 0)):
        names = [n for n, c in configs.items() if c.loss.distance_loss == loss]
        assert len(names) == len(figure4.RATES) * len(figure4.WEIGHTS[loss])
        assert figure4.winner(tmp_path, configs, loss)[0] == names[place]


def test_what_follows_a_search_asks_for_it(tmp_path):
    with pytest.raises(
        ValueError, match=r"search-iou-0\.001-0\.3: has not ended. Run `python -m training"
    ):
        figure4.winners(tmp_path, recipes.base("data", "imagenet"), 3)


def test_a_search_of_other_settings_is_refused(tmp_path):
    shared = recipes.base("data", "imagenet")
    for name, config in figure4.search(shared, 3).items():
        store(tmp_path, name, epoch(20, 0.5, 1))
        (tmp_path / name / experiments.FINISHED).write_text("{}")
        (tmp_path / name / experiments.CONFIG).write_text(config.to_json())
    assert set(figure4.winners(tmp_path, shared, 3)) == {
        "iou",
        "l2",
    }
    with pytest.raises(ValueError, match="has another configuration"):
        figure4.winners(tmp_path, shared, 4)


def test_runs_of_a_stage_differ_in_what_they_compare_alone():
    shared = recipes.base("data", "imagenet")
    letter = figure4.letter(shared, 8)
    assert len(letter) == 8
    assert letter["letter-iou-weighted"].loss.confidence_weight == 1e-4
    assert letter["letter-l2-scaled"].model.stage4_scale == 0.01
    assert letter["letter-iou"].train.learning_rate == 1e-8
    assert letter["letter-l2"].train.learning_rate == 1e-13
    for config in letter.values():
        assert (config.loss.reduction, config.train.batch_size) == ("sum", 10)
        assert (config.train.momentum, config.train.weight_decay) == (0.9, 2e-4)
        assert not any([config.data.flip, config.data.random_crop, config.data.mosaic])
    winners = {loss: recipes.tuned(shared, loss, 1e-3, 0.5, 0, 1) for loss in figure4.LOSSES}
    final = figure4.final(winners, 9)
    assert len(final) == len(figure4.LOSSES) * len(recipes.SEEDS)
    for seed in recipes.SEEDS:
        one, other = (final[f"final-{loss}-{seed}"] for loss in figure4.LOSSES)
        assert dataclasses.replace(other, loss=one.loss) == one


def test_numbers_become_rows_a_verdict_and_plots(tmp_path):
    names = [f"final-{loss}-{seed}" for loss in figure4.LOSSES for seed in recipes.SEEDS]
    for number, name in enumerate(names):
        # −ln IoU misses .2, then 0, .1, .2; l2 .5, then .3, .4, .5.
        start = 0.2 if number < 3 else 0.5
        store(tmp_path, name, epoch(20, start, 0.5), epoch(40, 0.1 * number, 0.9))
    found = figure4.rows(tmp_path, names)
    figure4.save_rows(found, tmp_path / "final.csv")
    lines = (tmp_path / "final.csv").read_text().splitlines()
    assert lines[0].startswith("run,iterations,miss_rate")
    assert len(lines) == 1 + 2 * len(names)
    assert found[3]["miss_rate"] == pytest.approx(0.1)
    assert figure4.by_iteration(found, "final-l2-")[40] == pytest.approx([0.3, 0.4, 0.5])

    roc = np.array([[0.9, 3.0, 0.1], [0.5, 0.0, 0.9]])
    curves = {"iou": [roc, roc, roc], "l2": [roc * [0.5, 1, 1]]}  # two seeds of l2 diverged
    said = figure4.verdict(found, curves)
    assert said["iou"]["best_miss_rate"] == pytest.approx(0.1)
    assert said["l2"]["best_miss_rate"] == pytest.approx(0.4)
    assert said["l2"]["best_iteration"] == 40
    assert said["iou_as_good_as_best_l2_at"] == 20
    assert said["iou"]["recall"]["1"] == 0.5
    assert said["l2"]["recall"]["5"] == pytest.approx(0.45 / 3)
    # The seeds that are left are no mean of all.
    alone = [row for row in found if row["run"] not in ("final-iou-1", "final-iou-2")]
    assert figure4.verdict(alone, curves)["iou"]["best_miss_rate"] == pytest.approx(2 / 3)
    none = [row for row in found if "l2" not in row["run"]]
    assert figure4.verdict(none, {**curves, "l2": []})["l2"]["best_miss_rate"] == 1
    worse = [{**row, "miss_rate": row["miss_rate"] + 0.8 * ("iou" in row["run"])} for row in found]
    assert figure4.verdict(worse, curves)["iou_as_good_as_best_l2_at"] is None
    figure4.plot(found, curves, tmp_path / "figure4.png")
    figure4.plot_letter(tmp_path, found, tmp_path / "letter.png")
    assert all((tmp_path / name).stat().st_size > 0 for name in ("figure4.png", "letter.png"))


def test_coefficients_of_variation_are_those_of_the_papers_figure():
    """About 3.4 % and 31 %, from the widths that were read off its figure 5."""
    for loss, expected in (("iou", 0.034), ("l2", 0.31)):
        widths = np.array([width for width in figure5.PAPER[loss] if width is not None])
        assert figure5.variation(widths[:, None])[0] == pytest.approx(expected, abs=0.005)
    assert np.isinf(figure5.variation(np.zeros((6, 2)))).all()


class Proportional:
    """Stands for a network whose box grows with the image, and is right in the pixels around (.4, .6) alone."""

    box = np.array([0.2, 0.3, 0.7, 0.8])

    def __call__(self, images, training=False):
        height, width = images.shape[1:3]
        x, y = np.arange(width) + 0.5, np.arange(height)[:, None] + 0.5
        x0, y0, x1, y1 = self.box * ([width, height] * 2)
        wrong = np.hypot(x / width - 0.4, y / height - 0.6) > 0.03
        sides = np.broadcast_arrays(y - y0 + 99 * wrong, y1 - y, x - x0, x1 - x)
        return {"distances": tf.constant(np.stack(sides, axis=-1)[None], tf.float32)}


def test_one_pixel_is_probed_at_all_sizes():
    image = np.zeros((90, 120, 3), np.uint8)
    boxes = figure5.probe(Proportional(), image, (0.4, 0.6))
    np.testing.assert_allclose(boxes, [Proportional.box] * 6, atol=1e-5)
    sizes = boxes[:, 2:] - boxes[:, :2]
    summary = figure5.summarize(np.stack([sizes, sizes * [[1.0], [1], [1], [1], [1], [2]]]))
    # Five equal widths and one twice as large: mean 7/6, standard deviation sqrt(5)/6.
    assert summary["width"]["mean"] == pytest.approx(np.sqrt(5) / 7 / 2, rel=1e-3)
    assert summary["width"]["share_up_to_6_percent"] == 0.5
    assert summary["width"]["mean_up_to_240_px"] == pytest.approx(0, abs=1e-5)
    assert summary["median_by_240_px"]["960"]["height"] == pytest.approx(1.5, rel=1e-4)
    without = figure5.summarize(np.stack([sizes, 0 * sizes]))
    assert without["height"] == {
        "photos_without_box": 1,
        "mean": pytest.approx(0, abs=1e-5),
        "standard_deviation": 0,
        "median": pytest.approx(0, abs=1e-5),
        "share_up_to_6_percent": 0.5,
        "mean_up_to_240_px": pytest.approx(0, abs=1e-5),
    }
    assert "NaN" not in json.dumps(figure5.summarize(0 * sizes[None]))


class Coarse(Proportional):
    """The same network with maps of stride 4, whose points read the box from where they are."""

    map_stride = 4

    def __call__(self, images, training=False):
        height, width = images.shape[1:3]
        x = (np.arange(-(-width // 4)) + 0.5) * 4
        y = (np.arange(-(-height // 4))[:, None] + 0.5) * 4
        x0, y0, x1, y1 = self.box * ([width, height] * 2)
        near = np.hypot(x / width - 0.4, y / height - 0.6) < 0.1
        sides = np.broadcast_arrays(y - y0 + 99 * ~near, y1 - y, x - x0, x1 - x)
        return {"distances": tf.constant(np.stack(sides, axis=-1)[None], tf.float32)}


def test_a_map_with_a_stride_is_probed_at_its_own_point():
    boxes = figure5.probe(Coarse(), np.zeros((90, 120, 3), np.uint8), (0.4, 0.6))
    np.testing.assert_allclose(boxes, [Coarse.box] * 6, atol=1e-5)


def test_a_network_with_a_stride_is_probed_in_its_last_cell():
    model = UnitBox.from_settings(
        ModelConfig(class_names=("face",), backbone="light", neck="top_down", width=0.25)
    )
    boxes = figure5.probe(model, np.zeros((83, 119, 3), np.uint8), (0.999, 0.999))
    assert boxes.shape == (6, 4)
    assert (boxes[:, 2:] > boxes[:, :2]).all()


def test_the_table_of_figure5_has_the_paper_and_each_network():
    widths = np.array([0.5, 0.5, 0.5, 0.5, 0.5, 1.0])[:, None].repeat(2, axis=1)
    summary = {"even": figure5.summarize(np.stack([widths, 0 * widths + 0.5]))}
    lines = figure5.markdown(summary).splitlines()
    assert lines[2].startswith("| the paper's portrait, -ln IoU | 1 | 0.03")
    # Five equal widths and one twice as large have .319; its mean with 0 is .160, its standard deviation as much.
    assert lines[4] == "| even | 2 | 0.160 (0.160) | 0.160 (0.160) | 0.000 | 0.50 |"


def test_portraits_are_the_photos_with_the_largest_faces():
    def photo(name, *boxes):
        image = cv2.imencode(".png", np.zeros((50, 100, 3), np.uint8))[1].tobytes()
        return Annotation(name, image, boxes)

    photos = [photo("small", (0, 0, 9, 20)), photo("large", (0, 0, 45, 40))]
    photos += [photo("two", (0, 0, 45, 50), (50, 0, 99, 50)), photo("medium", (0, 0, 20, 30))]
    assert [p.name for p in figure5.portraits(photos, 2)] == ["large", "medium"]


def test_figure5_starts_from_what_figure4_trained(tmp_path):
    shared = recipes.base("data", "imagenet")
    winners = {loss: recipes.tuned(shared, loss, 1e-3, 0.5, 0, 1) for loss in figure4.LOSSES}
    with pytest.raises(
        ValueError,
        match=r"final-iou-0: is not trained. Run `python -m training.paper figure4 final`",
    ):
        figure5.configs(winners, tmp_path, 3)
    for loss in figure4.LOSSES:
        store(tmp_path, f"final-{loss}-0", epoch(20, 0.5, 0.5))
        (tmp_path / f"final-{loss}-0" / experiments.FINISHED).write_text("{}")
    found = figure5.configs(winners, tmp_path, 3)
    assert found["scales-l2"].train.init == str(tmp_path / "final-l2-0")
    assert found["scales-l2"].data == found["scales-iou"].data
    assert found["scales-l2"].data.object_size[1] > 200


def test_figure5_keeps_the_names_of_its_own_runs(tmp_path):
    with pytest.raises(ValueError, match=r"other names than .* Received: final-l2-0"):
        figure5.measured_runs(tmp_path, ["final-l2-0=faces"])
    with pytest.raises(ValueError, match=r"none of .* is trained. Name detectors \(--runs\)"):
        figure5.measured_runs(tmp_path, [])
    assert figure5.measured_runs(tmp_path, ["mine=./run"]) == {"mine": Path("run")}


def test_figure5_is_drawn(tmp_path):
    values = {
        figure5.run_name(kind, loss): np.random.default_rng(0).uniform(0.4, 0.6, (5, 6, 2))
        for kind in figure5.KINDS
        for loss in figure4.LOSSES
    }
    values["faces"] = values["final-l2-0"]
    image = np.zeros((90, 120, 3), np.uint8)
    boxes = figure5.probe(Proportional(), image, (0.4, 0.6))
    pictures = {"final-iou-0": (image, ((0.4, 0.6), boxes))}
    figure5.plot(values, pictures, tmp_path / "figure5.png")
    assert cv2.imread(str(tmp_path / "figure5.png")).shape[0] > 500


def test_each_ablation_changes_what_its_name_says():
    shared = recipes.base("data", "imagenet")
    winners = {
        loss: recipes.tuned(shared, loss, 1e-3, weight, 0, 1)
        for loss, weight in (("iou", 0.5), ("l2", 1e-3))
    }
    rows = ablations.configs(winners, 8)
    base = rows[ablations.BASE]
    assert len({config.to_json() for config in rows.values()}) == len(rows)
    assert rows["unshared"].model.unshared
    assert rows["regions-boxes"].data.region == "box"
    assert rows["taps-pooled"].model.confidence_tap == "after_pool"
    assert rows["stage4-unscaled"].model.stage4_scale == 1
    assert {c.loss.distance_loss for c in rows.values()} == set(registry.LOSSES)
    for name in ("giou", "diou", "linear_iou"):
        assert dataclasses.replace(rows[f"loss-{name}"], loss=base.loss) == base
    runs = ablations.with_seeds(rows, ["base", "unshared"], [0, 1])
    assert list(runs) == [f"ablation-{n}-{s}" for s in (0, 1) for n in ("base", "unshared")]
    assert [config.train.seed for config in runs.values()] == [0, 0, 1, 1]


def test_the_table_of_ablations_has_all_seeds_that_have_ended(tmp_path):
    base = recipes.tuned(recipes.base("data", "imagenet"), "iou", 1e-3, 1.0, 0, 1)
    for seed, quality in ((0, 0.8), (7, 0.9)):
        run = tmp_path / f"ablation-base-{seed}"
        run.mkdir()
        figures = {"fddb_discrete_at_5": quality, "ap50": 0.5, "mean_iou": quality, "ap75": None}
        content = {decoder: figures for decoder in ("peaks", "ellipse")}
        (run / experiments.FINISHED).write_text(json.dumps(content))
        config = recipes.changed(base, train={"seed": seed})
        (run / experiments.CONFIG).write_text(config.to_json())
    (tmp_path / "ablation-unshared-0").mkdir()
    (tmp_path / "ablation-unshared-0" / experiments.DIVERGED).write_text("")
    (tmp_path / "ablation-unshared-1").mkdir()  # has not ended
    found = {
        name: ablations.figures(tmp_path, name, base) for name in ("base", "unshared", "loss-l2")
    }
    assert list(found["base"]) == [0, 7]
    lines = ablations.table(found).splitlines()[2:]
    assert len(lines) == 2
    assert lines[0].startswith("| base | 2 | 0.150 (0.100 to 0.200) |")
    assert "| 0.500 (0.500 to 0.500) | 0.850 (0.800 to 0.900) |" in lines[0]
    assert lines[1].startswith("| unshared | 1 | 1.000 (1.000 to 1.000) |")
    with pytest.raises(ValueError, match="has another configuration"):
        ablations.figures(tmp_path, "base", recipes.changed(base, train={"epochs": 9}))


def test_runs_have_names():
    assert experiments.named(["a=b/c=d", "e=./f"]) == {"a": Path("b/c=d"), "e": Path("f")}
    with pytest.raises(ValueError, match="Expected NAME=RUN"):
        experiments.named(["run"])
    with pytest.raises(ValueError, match="Expected different names"):
        experiments.named(["a=./b", "a=./c"])


def test_figure6_judges_runs_by_name(tmp_path, monkeypatch):
    rates = np.array([[0.9, 8.0, 0.1], [0.5, 0.0, 0.9]])
    judged = []

    def curves_of(run, sources, data, **decode):
        judged.append((run, sources, data, decode))
        return fddb.Curves(rates, rates[:, :2] / [2, 1], 140, 140, 9)

    monkeypatch.setattr(figure6.roc, "curves_of", curves_of)
    (tmp_path / "Other-DiscROC.txt").write_text("0.7 900\n")
    (tmp_path / "Other-ContROC.txt").write_text("0.6 900\n")
    settings = {
        "sources": ["fddb:fddb#8"],
        "data": "data",
        "curves": tmp_path,
        "decoder": "ellipse",
        "output": tmp_path / "out",
    }
    with pytest.raises(ValueError, match="Expected different names"):
        figure6.make(["a=./x", "a=./y"], **settings)
    figure6.make(["shared=./one", "unshared=./two"], **settings)
    assert [run for run, *_ in judged] == [Path("one"), Path("two")]
    numbers = json.loads((tmp_path / "out" / "figure6.json").read_text())
    assert numbers["unshared"]["discrete_at_5"] == 0.5
    assert numbers["shared"]["continuous_at_end"] == 0.45
    for name in ("figure6-discrete.png", "figure6-continuous.png", "figure6-shared-DiscROC.txt"):
        assert (tmp_path / "out" / name).stat().st_size > 0
