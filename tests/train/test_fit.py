import dataclasses
import json
import re
import shutil
import sys
import warnings
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.train.conftest import learner
from unitbox_tf import checkpoints, datasets, images, losses, registry, runs
from unitbox_tf import config as configs
from unitbox_tf.config import LossConfig
from unitbox_tf.datasets import synthetic
from unitbox_tf.detect.model import UnitBox
from unitbox_tf.problems import Problems
from unitbox_tf.records import Annotation, Detections
from unitbox_tf.train import callbacks, examples, finish, fit, loop, pipeline, state
from unitbox_tf.train.steps import CheckedStep


def changed(config, **settings):
    return dataclasses.replace(config, train=dataclasses.replace(config.train, **settings))


def stored_arrays(run):
    """The arrays of the newest checkpoint of a run."""
    with np.load(checkpoints.stored(run / "checkpoints")[0]) as content:
        return {name: content[name] for name in content.files}


@pytest.fixture
def unfinished(monkeypatch):
    """Ends runs without export and judgement, which other tests cover and which take the longest."""
    monkeypatch.setattr(fit, "finish", lambda *_, **__: (None, {}))


def test_a_run_holds_what_is_needed_to_go_on_and_to_use_it(tiny_run):
    names = {path.name for path in tiny_run.folder.iterdir()}
    assert names == {
        ".lock",
        "best.weights.h5",
        "checkpoints",
        "config.json",
        "confusion_matrix.png",
        "detections.jpg",
        "history.json",
        "history.png",
        "problems.txt",
        "results.json",
        "saved_model",
        "tensorboard",
    }
    assert set(tiny_run.results) == {"peaks", "ellipse"}
    assert tiny_run.results["peaks"]["images"] == 4
    assert json.loads((tiny_run.folder / "results.json").read_text()).keys() == {"peaks", "ellipse"}
    stored = json.loads((tiny_run.folder / "history.json").read_text())
    assert [row["epoch"] for row in stored] == [0, 1]
    names = ("loss", "distances_iou", "val_loss", "val_recall", "val_precision", "val_ap50")
    for name in (*names, "val_coco_ap", "val_coco_ar100"):
        assert np.isfinite(stored[1][name])
    # Of detections from the same score on, up to 100 an image, COCO's own program says the same.
    for figure in ("ap50", "ap75"):
        assert stored[1][f"val_coco_{figure}"] == pytest.approx(
            stored[1][f"val_{figure}"], abs=1e-6
        )
    assert 0 <= tiny_run.results["ellipse"]["coco_ap"] <= 1
    assert stored[1]["loss"] < stored[0]["loss"]
    # Equal runs have equal logs.
    assert not [name for name in stored[1] if "second" in name or "minute" in name]


def test_tensorboard_has_curves_and_pictures(tiny_run):
    loader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    tags = {"train": set(), "validation": set(), "pictures": set(), "settings": set()}
    for part, found in tags.items():
        for path in (tiny_run.folder / "tensorboard" / part).glob("events.*"):
            events = loader.EventAccumulator(str(path), {"images": 0, "tensors": 0})
            events.Reload()
            found.update(events.Tags()["tensors"])
    assert {"epoch_loss", "epoch_learning_rate", "epoch_distances_iou"} <= tags["train"]
    assert {"epoch_recall", "epoch_precision", "epoch_coco_ap"} <= tags["validation"]
    assert {f"validation/{number}" for number in range(4)} <= tags["pictures"]
    assert tags["settings"] == {"settings", "batch/0", "batch/1"}


def test_the_best_epoch_is_chosen_by_the_validation_protocol():
    row = {"val_ap50": 0.5, "val_ap75": 0.25, "val_coco_ap": 0.75, "val_wider_face_easy": 0.9}
    assert callbacks.score(row, "summary") == 0.375
    assert callbacks.score(row, "coco") == 0.75
    assert callbacks.score(row, "wider_face") == pytest.approx(0.3)  # medium and hard are absent
    assert callbacks.score({}, "fddb") == 0


def test_a_validation_protocol_that_lacks_something_is_refused_before_a_run_begins(
    tiny_config, tmp_path
):
    for protocol, message in (
        ("fddb", "annotated as ellipses"),
        ("wider_face", "wider_face_val.mat"),
    ):
        config = changed(tiny_config, validation_protocol=protocol, output=str(tmp_path))
        with pytest.raises(ValueError, match=message):
            fit.fit(config)
    assert not list(tmp_path.iterdir())


def test_best_weights_are_stored_without_the_optimiser(tiny_run):
    newest = checkpoints.stored(tiny_run.folder / "checkpoints")[0]
    sizes = [path.stat().st_size for path in (tiny_run.folder / "best.weights.h5", newest)]
    assert sizes[0] == pytest.approx(14_742_342 * 4, rel=0.01)  # 4,609 more for the second class
    assert sizes[1] > 1.9 * sizes[0]


def test_resuming_continues_weights_optimiser_and_epochs(
    tiny_config, tiny_run, tmp_path, unfinished
):
    copy = tmp_path / "another machine"
    copy.mkdir()
    shutil.copy(tiny_run.folder / "config.json", copy)
    shutil.copytree(tiny_run.folder / "checkpoints", copy / "checkpoints")
    assert [path.name for path in checkpoints.stored(copy / "checkpoints")] == [
        "step-00000004.npz",
        "step-00000002.npz",
    ]
    resumed = fit.fit(changed(tiny_config, epochs=3, output="elsewhere"), resume=copy)
    assert resumed.folder == copy
    assert [row["epoch"] for row in resumed.history] == [0, 1, 2]
    assert resumed.history[:2] == tiny_run.history
    assert json.loads((copy / "history.json").read_text()) == resumed.history
    arrays = stored_arrays(copy)
    assert arrays["optimizer/0000 coupled_sgd/iteration"] == 6
    assert any(name.endswith("head_kernel_momentum") and arrays[name].any() for name in arrays)


def test_a_resumed_run_starts_from_the_stored_state(tiny_config, tiny_run):
    arrays = stored_arrays(tiny_run.folder)
    model, begun, *_ = learner(changed(tiny_config, seed=99), tiny_run.folder)
    assert begun.history == tiny_run.history
    for group, variables in (("model", model.variables), ("optimizer", model.optimizer.variables)):
        values = [arrays[name] for name in sorted(arrays) if name.startswith(f"{group}/")]
        for a, b in zip(variables, values, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_training_starts_from_the_weights_of_another_run(
    tiny_config, untrained_run, tmp_path, unfinished
):
    settings = {"learning_rate": 1e-12, "weight_decay": 0.0, "epochs": 1, "steps_per_epoch": 1}
    config = changed(
        tiny_config, init=str(untrained_run), output=str(tmp_path), run="a", **settings
    )
    run = fit.fit(config)
    before = UnitBox.from_preset(untrained_run)
    after = UnitBox.from_preset(run.folder)
    other = UnitBox.from_settings(
        dataclasses.replace(config.model, weights=None), seed=config.train.seed
    )
    for old, new in zip(before.weights, after.weights, strict=True):
        np.testing.assert_allclose(old.numpy(), new.numpy(), atol=1e-9)
    assert not np.allclose(other.weights[0].numpy(), before.weights[0].numpy())
    assert run.taken.classes == ("object", "other")
    with pytest.raises(ValueError, match=r"gone: expected the folder of a run.*no such folder"):
        fit.fit(changed(config, init=str(tmp_path / "gone"), run="b"))
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_other_classes_get_new_heads_on_the_backbone_of_another_run(
    tiny_config, untrained_run, tmp_path, caplog
):
    caplog.set_level("INFO")
    model = dataclasses.replace(tiny_config.model, class_names=("other", "cat"))
    config = dataclasses.replace(tiny_config, model=model)
    made, begun, _, taken = learner(changed(config, init=str(untrained_run)), tmp_path)
    assert (taken.classes, taken.new_classes, begun.history) == (("other",), ("cat",), [])
    assert str(taken) in caplog.text
    kernels = [
        each.get_layer("confidence_head").kernel.numpy()
        for each in (made, UnitBox.from_preset(untrained_run))
    ]
    np.testing.assert_array_equal(kernels[0][..., 0], kernels[1][..., 1])


@pytest.mark.slow
def test_ctrl_c_keeps_what_was_learned(tiny_config, tmp_path, monkeypatch):
    validate = callbacks.ValidateDetections.on_epoch_end

    def interrupted(self, epoch, logs=None):
        if epoch == 1:
            raise KeyboardInterrupt
        validate(self, epoch, logs)

    monkeypatch.setattr(callbacks.ValidateDetections, "on_epoch_end", interrupted)
    run = fit.fit(changed(tiny_config, epochs=5, output=str(tmp_path), run="a"))
    assert run.interrupted
    assert len(run.history) == 1
    assert (run.folder / "saved_model" / "saved_model.pb").is_file()
    # The steps of the second epoch are kept.
    assert stored_arrays(run.folder)["optimizer/0000 coupled_sgd/iteration"] == 4

    monkeypatch.undo()
    monkeypatch.setattr(fit, "finish", lambda *_, **__: (None, {}))
    again = fit.fit(changed(tiny_config, epochs=2, output=str(tmp_path)), resume=run.folder)
    assert not again.interrupted
    assert [row["epoch"] for row in again.history] == [0, 1]


@pytest.mark.slow
def test_a_corrupt_photo_is_survived_and_counted(tiny_config, tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    images, objects = [], []
    for number in range(6):
        annotation = synthetic.draw(number)
        name = f"{number}.png"
        (photos / name).write_bytes(annotation.image if number != 2 else b"")
        images.append({"id": number, "file_name": name})
        for x0, y0, x1, y1 in annotation.boxes.tolist():
            box = [x0, y0, x1 - x0, y1 - y0]
            objects.append({"image_id": number, "category_id": 1 + number % 2, "bbox": box})
    objects.append({"image_id": 0, "category_id": 1, "bbox": [5, 5, 0, 9]})
    images.append({"id": 9, "file_name": "absent.png"})
    categories = [{"id": 1, "name": "object"}, {"id": 2, "name": "other"}]
    content = {"images": images, "annotations": objects, "categories": categories}
    (photos / "instances.json").write_text(json.dumps(content))
    config = dataclasses.replace(
        changed(tiny_config, output=str(tmp_path / "runs"), run="a"),
        data=dataclasses.replace(
            tiny_config.data,
            data=str(tmp_path),
            train_sources=("coco:photos",),
            validation_sources=("coco:photos",),
            shared_images=True,
        ),
    )
    run = fit.fit(config)
    assert len(run.history) == 2
    assert run.results["peaks"]["images"] == 5
    report = (run.folder / "problems.txt").read_text()
    assert f"image that cannot be decoded\t{photos / '2.png'}" in report
    assert run.problems.counts["image that cannot be decoded"] == 1
    assert "image listed but absent" in report
    assert "absent.png" in report
    assert "box without area" in report


def test_if_no_photo_can_be_decoded_training_says_so(tiny_config, tmp_path):
    (tmp_path / "photos").mkdir()
    for number in range(3):
        (tmp_path / "photos" / f"{number}.jpg").write_bytes(b"no image")
    data = dataclasses.replace(
        tiny_config.data, data=str(tmp_path), train_sources=("negatives:photos",)
    )
    config = changed(tiny_config, output=str(tmp_path / "runs"))
    with pytest.raises(ValueError, match=r"none of the 3 images can.*\.jpg: .*bytes are not"):
        fit.fit(dataclasses.replace(config, data=data))
    assert not (tmp_path / "runs").exists()


def test_a_loss_that_diverges_ends_training_before_it_is_stored(tiny_config, tmp_path):
    config = changed(tiny_config, learning_rate=1e30, clip_norm=None, output=str(tmp_path), run="a")
    with pytest.raises(
        state.Diverged, match=r"not finite at step 2 of epoch 1: .*Lower learning_rate \(--learn"
    ):
        fit.fit(config)
    assert not (tmp_path / "a" / "checkpoints").exists()
    [report] = (tmp_path / "a" / "bad_batches").glob("*/report.json")
    assert len(json.loads(report.read_text())["images"]) == 2


def test_a_missing_data_folder_says_what_to_do(tiny_config, tmp_path):
    data = dataclasses.replace(
        tiny_config.data, data=str(tmp_path / "gone"), train_sources=("fddb:fddb#1-7",)
    )
    with pytest.raises(ValueError, match=r"gone/fddb: no such file or folder.*--data"):
        fit.fit(dataclasses.replace(tiny_config, data=data))
    assert not (tmp_path / "runs").exists()


def test_a_run_of_another_model_or_optimiser_is_not_resumed(tiny_config, tiny_run):
    other = dataclasses.replace(tiny_config.model, unshared=True)
    with pytest.raises(ValueError, match=r"npz: was trained with another model"):
        fit.fit(dataclasses.replace(tiny_config, model=other), resume=tiny_run.folder)
    adam = changed(tiny_config, optimizer="adam", weight_decay=0.0)
    with pytest.raises(ValueError, match=r"npz: was trained with another optimizer"):
        fit.fit(adam, resume=tiny_run.folder)


def test_an_existing_run_is_not_overwritten(tiny_config, tiny_run):
    with pytest.raises(ValueError, match=r"exists already\. Choose another run \(--run\)"):
        fit.fit(changed(tiny_config, run=tiny_run.folder.name))


def test_a_folder_that_is_no_run_or_has_lost_its_checkpoints_cannot_be_resumed(
    tiny_config, untrained_run, tmp_path
):
    with pytest.raises(
        ValueError, match=r"config\.json: no such file. Expected the folder of a run"
    ):
        fit.fit(tiny_config, resume=tmp_path)
    with pytest.raises(ValueError, match=r"checkpoints: expected a checkpoint.*\(--init\)"):
        fit.fit(tiny_config, resume=untrained_run)


@pytest.fixture(scope="module")
def batch_of(tiny_config):
    """`batch_of[equal_objects]`: images, heatmaps and weights."""
    return {
        equal_objects: next(
            iter(
                pipeline.training_dataset(
                    datasets.load(("synthetic:#0-4",), ["object", "other"]),
                    tiny_config.data,
                    labels=pipeline.Labels(2, equal_objects=equal_objects),
                    batch_size=4,
                    seed=0,
                    problems=Problems(),
                )
            )
        )
        for equal_objects in (False, True)
    }


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("reduction", ["sum", "mean", "object_mean"])
@pytest.mark.parametrize(
    ("distance_loss", "alpha"), [("iou", 1.0), ("siou", 2.0), ("smooth_l1", 1.0)]
)
def test_what_is_minimised(
    tiny_config, small_model, batch_of, distance_loss, alpha, reduction, jit
):
    """The distance loss as Keras reports it, against one that is added up by hand."""
    config = dataclasses.replace(
        tiny_config, loss=LossConfig(distance_loss, alpha=alpha, reduction=reduction)
    )
    fit.compile_model(small_model, config, jit)
    images, heatmaps, weights = batch_of[reduction == "object_mean"]
    reported = small_model.test_on_batch(images, heatmaps, weights, return_dict=True)

    function = getattr(losses, f"{distance_loss}_loss")
    options = {} if alpha == 1 else {"alpha": alpha}
    predicted = small_model(images)["distances"]
    values = function(heatmaps["distances"], predicted, **options).numpy()
    true = heatmaps["distances"].numpy()
    positive = (true > 0).all(axis=-1)
    i, j = np.indices(positive.shape[1:])
    # Pixels of one object agree about where its sides are.
    sides = np.stack(
        [i - true[..., 0], i + true[..., 1], j - true[..., 2], j + true[..., 3]], axis=-1
    )
    objects = [
        values[n][positive[n] & (np.abs(sides[n] - side) < 0.01).all(axis=-1)]
        for n in range(4)
        for side in np.unique(sides[n][positive[n]].round(2), axis=0)
    ]
    assert len(objects) > 4
    assert sum(map(len, objects)) == positive.sum()
    expected = {
        "sum": values[positive].sum(),
        "mean": values[positive].mean(),
        "object_mean": np.mean([pixels.mean() for pixels in objects]),
    }[reduction]
    assert reported["distances_loss"] == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(("reduction", "equal"), [("mean", False), ("object_mean", True)])
def test_objects_are_equal_where_their_mean_is_asked_for(
    tiny_config, tmp_path, unfinished, monkeypatch, reduction, equal
):
    asked = []
    for name in ("training_dataset", "validation_dataset"):
        made = getattr(pipeline, name)

        def spy(*args, made=made, **options):
            asked.append(options["labels"].equal_objects)
            return made(*args, **options)

        monkeypatch.setattr(pipeline, name, spy)
    monkeypatch.setattr(loop, "train", lambda *_, **__: None)
    config = changed(tiny_config, output=str(tmp_path), run="run")
    fit.fit(dataclasses.replace(config, loss=LossConfig(reduction=reduction)))
    assert set(asked) == {equal}


def test_the_batches_from_a_place_on_are_made_once(tiny_config, small_model, tmp_path, monkeypatch):
    given, problems = [synthetic.draw(0)], Problems()
    shown = examples.training(given, tiny_config, problems=problems)
    judged = examples.validation(given, tiny_config, problems=problems)
    fit.compile_model(small_model, tiny_config, False)
    begun = state.State(tmp_path, small_model, tiny_config.train, CheckedStep(small_model))
    starts = []
    monkeypatch.setattr(
        pipeline, "training_dataset", lambda *_, start, **__: starts.append(start) or [start]
    )
    batches, _, _ = fit._batches(small_model, tiny_config, shown, judged, begun, problems)
    assert [batches(), batches()] == [[0], [0]]
    monkeypatch.setattr(state.State, "images", 6)
    assert [batches(), batches()] == [[6], [6]]
    assert starts == [0, 6]


@pytest.mark.slow
def test_a_shown_batch_does_not_change_the_order_of_training(
    tiny_config, tmp_path, unfinished, monkeypatch
):
    def first_batch(model, state, batches, validation, callbacks, **_):
        for callback in callbacks:
            if isinstance(callback, fit.ShowTraining):
                callback.on_train_begin()
        seen.append(next(iter(batches()))[0].numpy())

    seen = []
    monkeypatch.setattr(loop, "train", first_batch)
    fit.fit(changed(tiny_config, output=str(tmp_path), run="shown"))
    assert list((tmp_path / "shown" / "tensorboard" / "settings").iterdir())
    monkeypatch.setattr(fit.ShowTraining, "on_train_begin", lambda *_: None)
    fit.fit(changed(tiny_config, output=str(tmp_path), run="not_shown"))
    np.testing.assert_array_equal(*seen)


def test_what_lies_beyond_an_image_has_the_mean_colour_of_the_backbone(
    whole, unfinished, monkeypatch
):
    batches = []

    def one_batch(model, state, training, validation, **options):
        batches.extend(next(iter(images))[0] for images in (training(), validation))

    monkeypatch.setattr(loop, "train", one_batch)
    narrow = Annotation("a", np.zeros((64, 20, 3), np.uint8), [5, 5, 9, 9])
    data = dataclasses.replace(whole.data, shared_images=True, absent_classes=True)
    fit.fit(dataclasses.replace(whole, data=data), train=[narrow], validation=[narrow])
    for batch in batches:
        assert batch[0, 0, 0].numpy().tolist() == [0, 0, 0]
        assert batch[0, 0, -1].numpy().tolist() == [30, 20, 10]  # RGB of (10, 20, 30) in BGR


def test_the_policy_is_restored_after_training(tiny_run):
    assert keras.config.dtype_policy().name == "float32"


class Seen(keras.callbacks.Callback):
    """A user's callback: keeps logs, and what it finds in the folder of runs at the end of an epoch."""

    def __init__(self, output):
        super().__init__()
        self.output, self.logs, self.files = output, [], set()

    def on_epoch_end(self, epoch, logs=None):
        self.logs.append(dict(logs))
        self.files = {path.name for path in self.output.glob("*/*")}


class Broken(keras.callbacks.Callback):
    """A user's callback with a fault in it."""

    def on_train_batch_end(self, batch, logs=None):
        raise RuntimeError("out of memory, perhaps")


@pytest.fixture
def quick(monkeypatch, tiny_config, tmp_path, small_model, unfinished):
    """`tiny_config` for a small model: what a run does besides is seen in a moment."""
    made = []

    def from_settings(config, decode=None, seed=0):
        made.append(keras.models.clone_model(small_model))
        made[-1].class_names = config.class_names
        made[-1].backbone, made[-1].map_stride = small_model.backbone, 1
        return made[-1]

    monkeypatch.setattr(fit.UnitBox, "from_settings", from_settings)
    return changed(
        tiny_config, output=str(tmp_path / "runs"), run="a", epochs=1, validation_protocol="summary"
    )


def elements(annotations, **more):
    """A user's data set."""

    def each():
        for annotation in annotations:
            image = images.decode_photo(annotation.image)
            yield {"image": image, "boxes": annotation.boxes, **more}

    signature = {
        "image": tf.TensorSpec([None, None, 3], tf.uint8),
        "boxes": tf.TensorSpec([None, 4], tf.float64),
        **{name: tf.TensorSpec([None], np.asarray(value).dtype) for name, value in more.items()},
    }
    return tf.data.Dataset.from_generator(each, output_signature=signature)


def test_annotations_in_memory_are_trained_on_and_callbacks_see_the_logs(
    quick, tmp_path, monkeypatch
):
    import matplotlib

    def finish_without_model(config, run, validation, history, *, problems):
        finish._save_curves(config, run / "history.png", history)
        return None, {}

    monkeypatch.setattr(fit, "finish", finish_without_model)
    monkeypatch.setitem(matplotlib.rcParams, "backend", "svg")
    seen, problems = Seen(tmp_path / "runs"), Problems()
    given = [synthetic.draw(number) for number in range(4)]
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        filters = list(warnings.filters)
        run = fit.fit(
            quick, train=given[:3], validation=given[3:], callbacks=[seen], problems=problems
        )
        assert warnings.filters == filters
    assert not [w for w in warned if "shuffle" in str(w.message) or "ran out" in str(w.message)]
    assert matplotlib.get_backend() == "svg"
    assert (run.folder / "history.png").is_file()
    assert run.problems is problems
    assert len(seen.logs) == 1
    assert {"val_loss", "val_ap50", "val_recall"} <= set(seen.logs[0])
    assert {"checkpoints", "best.weights.h5", "history.json"} <= seen.files
    row = run.history[0]
    assert row["val_loss"] == pytest.approx(
        row["val_confidence_loss"] + row["val_distances_loss"], rel=1e-5
    )
    stored = configs.load(run.folder / "config.json")
    assert stored.data.train_sources == ("3 annotations given in Python",)
    train = dataclasses.replace(
        quick.train, choose_threshold="on"
    )  # settled, so that it can be resumed
    assert dataclasses.replace(stored, data=quick.data) == dataclasses.replace(quick, train=train)


@pytest.mark.slow
def test_the_callbacks_of_the_docs_get_the_metrics_of_each_epoch(quick, tmp_path, monkeypatch):
    page = (Path(__file__).parents[2] / "docs/training.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    [example] = [block for block in blocks if "class JsonLines" in block]
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(example, names)
    given = {"train": [synthetic.draw(0)], "validation": [synthetic.draw(1)]}
    run = fit.fit(changed(quick, epochs=2), callbacks=names["callbacks"], **given)
    rows = [json.loads(line) for line in Path("epochs.jsonl").read_text("utf-8").splitlines()]
    assert [row["epoch"] for row in rows] == [0, 1]
    for row, stored in zip(rows, run.history, strict=True):
        assert {"loss", "val_loss", "val_ap50", "val_ap75", "val_recall"} <= set(row)
        assert row.items() <= stored.items()
    head, *lines = Path("epochs.csv").read_text("utf-8").splitlines()
    assert {"epoch", "loss", "val_ap50"} <= set(head.split(","))
    assert len(lines) == 2


def test_the_labels_of_a_teacher_in_the_docs_are_read_with_doubtful_ones_ignored(
    tmp_path, monkeypatch
):
    page = (Path(__file__).parents[2] / "docs/training.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    [example] = [block for block in blocks if "teacher = " in block]
    folder = tmp_path / "a_folder"
    folder.mkdir()
    for number in range(3):
        (folder / f"{number}.png").write_bytes(synthetic.draw(number).image)
    found = {
        "0.png": Detections([[1.25, 2, 30, 40], [5, 6, 20, 21.5]], [0.9, 0.3], [1, 0], (96, 96)),
        "1.png": Detections(np.zeros((0, 4)), [], [], (96, 96)),
        "2.png": Detections([[7, 8, 60, 70]], [0.6], [0], (96, 96)),
    }

    class Teacher:
        class_names = ("cat", "dog")

        def many(self, images):
            return (
                (path.name, found[path.name])
                for path in sorted(Path(images).iterdir())
                if path.suffix == ".png"
            )

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("unitbox_tf.load", lambda name, score_threshold: Teacher(), raising=False)
    exec(example, {})
    annotations = datasets.load(("csv:a_folder/teacher.csv",), ["cat", "dog"])
    by_name = {Path(annotation.name).name: annotation for annotation in annotations}
    assert set(by_name) == set(found)
    for name, detections in found.items():
        np.testing.assert_allclose(by_name[name].boxes, detections.boxes)
        assert by_name[name].classes.tolist() == detections.classes.tolist()
        assert by_name[name].ignore.tolist() == (detections.scores < 0.6).tolist()


@pytest.mark.slow
def test_a_tf_dataset_is_trained_on_and_judged_by(quick, monkeypatch):
    given = [synthetic.draw(number) for number in range(6)]
    config = changed(quick, validation_images=2)
    config = dataclasses.replace(
        config, data=dataclasses.replace(config.data, mosaic=0.5, mosaic_rows=(2, 3))
    )
    judged = []

    def finish_without_model(config, run, validation, history, *, problems):
        judged.extend(validation.annotations)
        return None, {}

    monkeypatch.setattr(fit, "finish", finish_without_model)
    stream = elements(given).shuffle(6, seed=1)
    run = fit.fit(config, train=stream, validation=elements(given).repeat())
    assert np.isfinite(run.history[0]["loss"])
    assert [annotation.name for annotation in judged] == ["element 0", "element 1"]
    for annotation, original in zip(judged, given, strict=False):
        np.testing.assert_array_equal(annotation.boxes, original.boxes)
        np.testing.assert_array_equal(
            images.decode_photo(annotation.image), images.decode_photo(original.image)
        )


@pytest.mark.slow
def test_what_fails_before_a_checkpoint_leaves_no_folder(quick, tmp_path):
    for _ in range(2):
        with pytest.raises(RuntimeError, match="out of memory, perhaps"):
            fit.fit(quick, callbacks=[Broken()])
        assert not (tmp_path / "runs").exists()
    (tmp_path / "runs" / "b").mkdir(parents=True)
    with pytest.raises(RuntimeError, match="out of memory, perhaps"):
        fit.fit(quick, callbacks=[Broken()])
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["b"]
    (tmp_path / "runs" / "a").mkdir()
    (tmp_path / "runs" / "a" / "thesis.txt").touch()
    with pytest.raises(ValueError, match=r"exists already, and is no run\. Choose another run"):
        fit.fit(quick)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], r"train: expected at least one image\. Received: \[\]"),
        (
            "synthetic:#0-4",
            r"train: expected a sequence of Annotation.* Received: 'synthetic:#0-4'",
        ),
        ([np.zeros((4, 4, 3))], r"train: expected a sequence of Annotation.* Received: ndarray"),
        (["synthetic:#0-4", synthetic.draw(0)], r"Received: Annotation, str"),
        (["nothing:#0-4"], "Expected a source as FORMAT:PATH#SPLIT"),
        (
            [dataclasses.replace(synthetic.draw(0), classes=[2] * len(synthetic.draw(0).boxes))],
            r"synthetic/0: expected classes from 0 to 1, the named classes of the model.*Received: 2",
        ),
        ([Annotation("a", b"no image", [])], "none of the 1 images can be decoded; the first: a: "),
        (
            tf.data.Dataset.from_tensors((np.zeros((8, 8, 3), np.uint8), np.zeros((1, 4)))),
            r"Expected a tf\.data\.Dataset of dicts \{\"image\": uint8.*Received: \(TensorSpec",
        ),
        (
            tf.data.Dataset.from_tensors({"image": np.zeros((8, 8, 3), np.uint8)}),
            "Received: {'image': TensorSpec",
        ),
        (
            elements([synthetic.draw(0)]).batch(1),
            r"Received as image: TensorSpec\(shape=\(None, None",
        ),
        (elements([synthetic.draw(0)], labels=[1]), "'labels': TensorSpec"),
        (elements([synthetic.draw(0)], classes=[1.0]), "Received as classes: TensorSpec"),
        (elements([synthetic.draw(0)], classes=[1] * 99), r"element 0.*classes"),
        (elements([]), r"train: expected at least one image\. Received: <_?FlatMap"),
    ],
)
def test_what_cannot_be_trained_on_is_refused_before_a_folder_is_made(
    quick, tmp_path, given, message
):
    with pytest.raises(ValueError, match=message):
        fit.fit(quick, train=given)
    with pytest.raises(ValueError, match=message.replace("train: ", "validation: ")):
        fit.fit(quick, validation=given)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"config": None}, "config: expected a Config, .*Received: None"),
        ({"config": "smoke"}, "config: expected a Config, .*Received: 'smoke'"),
        ({"callbacks": [print]}, "callbacks: expected a sequence of.*Received: .<built-in"),
        (
            {"callbacks": keras.callbacks.Callback()},
            "callbacks: expected a sequence of.*Received: <",
        ),
        ({"callbacks": None}, "callbacks: expected a sequence of.*Received: None"),
    ],
)
def test_arguments_of_another_kind_are_refused(quick, tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        fit.fit(**{"config": quick, **arguments})
    assert not (tmp_path / "runs").exists()


@keras.saving.register_keras_serializable("tests")
class MyLoss(losses.BoxLoss):
    def __init__(self, **common):
        super().__init__(my_loss, **common)


def my_loss(y_true, y_pred):
    return 0.5 * losses.l2_loss(y_true, y_pred)


@pytest.mark.slow
def test_a_loss_of_a_user_is_trained_with(quick, monkeypatch):
    registry.LOSSES.register("mine", MyLoss)
    try:
        config = dataclasses.replace(quick, loss=LossConfig(distance_loss="mine"))
        run = fit.fit(config)
        assert np.isfinite(run.history[0]["distances_loss"])
        assert configs.load(run.folder / "config.json").loss.distance_loss == "mine"
    finally:
        registry.LOSSES.unregister("mine")


def test_a_power_is_refused_where_the_loss_has_none(quick, tmp_path):
    registry.LOSSES.register("mine", MyLoss)
    try:
        for name in ("iou", "l2", "smooth_l1", "mine"):
            config = dataclasses.replace(quick, loss=LossConfig(distance_loss=name, alpha=3.0))
            message = rf"distance_loss: expected one of \['linear_iou', .*Received: '{name}'"
            with pytest.raises(ValueError, match=message):
                fit.fit(config)
    finally:
        registry.LOSSES.unregister("mine")
    assert not (tmp_path / "runs").exists()


def test_without_matplotlib_the_curves_are_left_out_and_the_log_says_so(
    tiny_config, tmp_path, monkeypatch, caplog
):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with caplog.at_level("INFO"):
        finish._save_curves(tiny_config, tmp_path / "history.png", [{"iterations": 1, "loss": 2.0}])
    assert not list(tmp_path.iterdir())
    [record] = caplog.records
    assert record.getMessage().startswith("history.png is left out: ")
    assert "pip install 'unitbox_tf[plots]'" in record.getMessage()


@pytest.mark.slow
def test_a_decoder_that_cannot_be_exported_still_gets_its_results(whole):
    ours = dataclasses.replace(registry.DECODERS["peaks"], engines=())
    registry.DECODERS.register("ours", ours)
    try:
        decode = dataclasses.replace(whole.decode, decoder="ours")
        run = fit.fit(dataclasses.replace(whole, decode=decode))
    finally:
        registry.DECODERS.unregister("ours")
    assert not (run.folder / "saved_model").exists()
    stored = json.loads((run.folder / "results.json").read_text())
    assert stored["ours"] == stored["peaks"]
    report = (run.folder / "problems.txt").read_text()
    assert "export that was left out" in report
    assert "Expected a decoder that runs in saved_model" in report


@pytest.mark.slow
def test_a_run_on_data_from_python_goes_on_with_them_and_asks_for_them(whole, unfinished):
    given = [synthetic.draw(number) for number in range(3)]
    run = fit.fit(whole, train=given, validation=given)
    config = changed(runs.Run(run.folder).config(), epochs=2)
    with pytest.raises(ValueError, match=r"'3 annotations .* data given in Python\. Give train="):
        fit.fit(config, resume=run.folder)
    stream = elements(given)
    for epochs in (2, 3):
        more = changed(config, epochs=epochs)
        again = fit.fit(more, train=stream, validation=given, resume=run.folder)
        assert len(again.history) == epochs
        config = runs.Run(run.folder).config()
        assert config.data.train_sources == ("a tf.data.Dataset given in Python",)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_boxes_that_are_no_numbers_are_refused_before_a_folder_is_made(quick, tmp_path, bad):
    def each():
        yield {"image": np.zeros((20, 30, 3), np.uint8), "boxes": np.array([[1.0, 2, 9, bad]])}

    signature = {
        "image": tf.TensorSpec([None, None, 3], tf.uint8),
        "boxes": tf.TensorSpec([None, 4], tf.float64),
    }
    given = tf.data.Dataset.from_generator(each, output_signature=signature)
    for argument in ("train", "validation"):
        with pytest.raises(ValueError, match="element 0: expected boxes of finite numbers"):
            fit.fit(quick, **{argument: given})
    assert not (tmp_path / "runs").exists()


def test_data_that_cannot_work_is_refused_before_a_folder_is_made(quick, tmp_path):
    given = [synthetic.draw(number) for number in range(3)]
    strict = dataclasses.replace(quick.data, absent_classes=False, shared_images=False)
    strict = dataclasses.replace(quick, data=strict)
    with pytest.raises(ValueError, match=r"no training image has an object of: other\."):
        fit.fit(strict, train=given, validation=[synthetic.draw(9)])
    with pytest.raises(ValueError, match=r"1 of 1 validation images are among the training images"):
        fit.fit(strict, train=given, validation=given[:1])
    assert not (tmp_path / "runs").exists()


@pytest.mark.gpu
def test_training_runs_on_a_gpu(tiny_config, tmp_path):
    run = fit.fit(
        changed(tiny_config, device="gpu", precision="auto", output=str(tmp_path), run="gpu")
    )
    assert np.isfinite(run.history[-1]["loss"])
