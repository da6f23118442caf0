import dataclasses
import json
import os
import shutil
from pathlib import Path

import matplotlib
import numpy as np
import pytest

import unitbox_tf
from unitbox_tf import boxes as box_ops
from unitbox_tf import checkpoints, cli, inputs, runs
from unitbox_tf.config import Config, ModelConfig, TrainConfig
from unitbox_tf.datasets import synthetic
from unitbox_tf.detect import model


@pytest.fixture(scope="module")
def folder(untrained_run, tmp_path_factory):
    """A run that was published, known by the name `squares`."""
    path = tmp_path_factory.mktemp("published") / "squares"
    model.publish(untrained_run, path)
    return path


@pytest.fixture
def squares(folder, monkeypatch):
    monkeypatch.setattr(runs, "FOLDER", folder.parent)
    return folder


def test_the_message_about_an_unknown_name_has_those_that_are_published(
    squares, tmp_path, monkeypatch
):
    with pytest.raises(
        ValueError,
        match=r"unknown detector 'sqares'\. Did you mean squares\?.*published here is squares",
    ):
        unitbox_tf.load("sqares")
    monkeypatch.setattr(runs, "FOLDER", tmp_path)
    with pytest.raises(ValueError, match=r"no published detector is installed: .* has none"):
        unitbox_tf.load("faces")


def test_published_weights_are_those_of_the_run(untrained_run, squares):
    size = runs.Run(squares).weights.stat().st_size
    assert 14.7e6 * 2 < size < 32e6
    config = runs.Run(squares).config()
    assert unitbox_tf.load("squares").class_names == config.model.class_names
    image = inputs.read_image(synthetic.draw(0).image)[None]
    ours, theirs = (model.UnitBox.from_preset(path)(image) for path in (untrained_run, squares))
    for name, expected in ours.items():
        expected, received = expected.numpy(), theirs[name].numpy()
        assert expected.std() > 0
        # Half precision has 11 bits; 13 layers add up what it rounds.
        np.testing.assert_allclose(received, expected, atol=5e-3 * np.abs(expected).max())
    other = model.UnitBox.from_settings(config.model, seed=9)(image)
    assert not np.allclose(other["distances"], ours["distances"], rtol=0.1)


@pytest.mark.slow
def test_every_command_takes_the_name(squares, tmp_path, capsys):
    picture = tmp_path / "a.png"
    picture.write_bytes(synthetic.draw(0).image)
    found = tmp_path / "found"
    assert cli.main(["detect", "squares", str(picture), "--output", str(found)]) == 0
    assert json.loads((found / "detections.json").read_text())
    assert cli.main(["evaluate", "squares", "synthetic:#0-2", "--decoder", "peaks"]) == 0
    assert cli.main(["export", "squares", str(tmp_path / "model")]) == 0
    assert (tmp_path / "model/saved_model.pb").is_file()
    assert "squares" in capsys.readouterr().out


def test_a_published_name_goes_before_a_folder(squares, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert runs.find("squares") == squares
    (tmp_path / "squares").mkdir()
    assert runs.find("squares") == squares
    for path in ("./squares", Path("squares"), f"..{os.sep}{tmp_path.name}/squares"):
        assert runs.find(path) == Path(path)
        assert runs.find(path).samefile(tmp_path / "squares")


def test_a_text_without_slash_and_suffix_is_a_name_and_nothing_else(squares, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"^unknown detector 'circles'.*here is squares$"):
        runs.find("circles")
    (tmp_path / "circles").mkdir()
    with pytest.raises(
        ValueError, match=r"A file or folder of this name is here: write \./circles"
    ):
        runs.find("circles")
    for path in ("deep/circles", "circles.onnx", ".", "..", ""):
        assert runs.find(path) == Path(path)


@pytest.mark.parametrize(
    "opening",
    [
        unitbox_tf.load,
        model.UnitBox.from_preset,
        lambda name: unitbox_tf.export(name, "other.onnx"),
        lambda name: unitbox_tf.evaluate(name, "synthetic:#0-1"),
        lambda name: model.publish(name, "other"),
        runs.digest,
    ],
)
def test_everything_that_opens_a_detector_takes_a_name_for_a_name(
    opening, squares, untrained_run, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    Path("circles").symlink_to(untrained_run)
    with pytest.raises(ValueError, match=r"unknown detector 'circles'.*write \./circles"):
        opening("circles")


def test_a_path_as_the_start_of_training_stays_a_path():
    for path, text in ((Path("faces"), "./faces"), (Path("/a/b"), "/a/b"), ("faces", "faces")):
        assert TrainConfig(init=path).init == text


def test_its_configuration_says_nothing_of_where_it_was_trained(squares):
    text = runs.Run(squares).config_file.read_text()
    config = runs.Run(squares).config()
    assert config.model.weights is None
    assert config.train.output == "saved_models"
    assert "/" not in text.replace("saved_models", "")


def copy(folder, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    return other


@pytest.mark.parametrize("change", ["flip", "cut", "digest", "no digest"])
def test_weights_that_are_not_those_published_are_refused(folder, tmp_path, change):
    other = copy(folder, tmp_path)
    file, digest = runs.Run(other).weights, runs.Run(other).weights_digest
    content = bytearray(file.read_bytes())
    if change == "flip":
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    elif change == "cut":
        file.write_bytes(content[:-1])
    elif change == "digest":
        digest.write_text("0" * 64)
    else:
        digest.unlink()
    stated = "its SHA-256 in weights.npz.sha256 beside it. Received: no such file. Get both again"
    if change != "no digest":
        stated = "the SHA-256 in weights.npz.sha256, "
    with pytest.raises(ValueError, match=f"weights.npz: expected {stated}"):
        unitbox_tf.load(other)


def test_weights_of_another_model_are_refused(folder, tmp_path):
    other = copy(folder, tmp_path)
    config = runs.Run(other).config()
    network = dataclasses.replace(config.model, class_names=("a", "b", "c"))
    text = dataclasses.replace(config, model=network).to_json()
    runs.Run(other).config_file.write_text(text)
    with pytest.raises(ValueError, match=r"confidence_head/kernel.* 512, 3\).*Received.* 512, 2\)"):
        unitbox_tf.load(other)


def small_run(folder, seed, **network):
    """A run of a small network with random weights, after its best epoch."""
    settings = ModelConfig(class_names=("face",), width=0.02, **network)
    run = runs.Run(folder)
    run.folder.mkdir()
    run.config_file.write_text(Config(model=settings).to_json())
    model.UnitBox.from_settings(settings, seed=seed).save_weights(run.best)
    return run


def test_the_mean_of_the_weights_of_several_runs_is_published(tmp_path):
    first, second = (small_run(tmp_path / str(seed), seed) for seed in (1, 2))
    published = model.publish(first.folder, tmp_path / "mean", average=[second.folder])
    found = np.load(published.weights)
    one, other = (model.UnitBox.from_preset(run.folder).weights for run in (first, second))
    for number, (a, b) in enumerate(zip(one, other, strict=True)):
        mean = (a.numpy() + b.numpy()) / 2
        np.testing.assert_allclose(found[f"{number:03} {a.path}"], mean, rtol=1e-3, atol=1e-6)
    assert np.abs(one[0].numpy() - other[0].numpy()).max() > 0.1
    third = small_run(tmp_path / "3", 3, initial_box_size=9.0)
    with pytest.raises(ValueError, match=r"3: expected the network of .*1, Model.*Received: Model"):
        model.publish(first.folder, tmp_path / "no", average=[third.folder])
    assert not (tmp_path / "no").exists()


def test_values_that_half_precision_cannot_hold_are_refused(tmp_path):
    with pytest.raises(
        ValueError, match=r"head/bias: expected values up to 65504.*Received: 70000"
    ):
        runs.Run(tmp_path).publish(Config(), [("head/bias", np.float32([1, 7e4]))])
    assert not list(tmp_path.iterdir())


def test_the_last_weights_are_those_of_the_newest_checkpoint_that_is_whole(
    tiny_run, tmp_path, caplog
):
    copy = runs.Run(tmp_path / "run")
    shutil.copytree(tiny_run.folder / "checkpoints", copy.checkpoints)
    copy.config_file.write_text(runs.Run(tiny_run.folder).config_file.read_text())
    newest, before = checkpoints.stored(copy.checkpoints)
    assert copy.weights_of_training() == copy.weights_of_training(last=True) == newest
    network = copy.config().model
    for path in (newest, before):
        loaded = model.UnitBox.from_settings(network)
        loaded.load_run(copy, last=True)
        with np.load(path) as content:
            stored = [content[name] for name in content.files if name.startswith("model/")]
        for one, other in zip(loaded.weights, stored, strict=True):
            np.testing.assert_array_equal(one.numpy(), other)
        newest.write_bytes(b"half")
    assert f"Taking the one before: {before}" in caplog.text
    shutil.rmtree(copy.checkpoints)
    for last, names in ((True, "checkpoints"), (False, "best.weights.h5 or checkpoints")):
        with pytest.raises(ValueError, match=f"expected {names}: the run has stored no weights"):
            copy.weights_of_training(last=last)


PUBLISHED = ("faces", "faces_light")


@pytest.mark.parametrize("name", [pytest.param("faces", marks=pytest.mark.slow), "faces_light"])
def test_the_published_face_detector_finds_a_face(name):
    """In an image that comes with matplotlib: Grace Hopper, by the US Navy."""
    photo = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
    for decoder in ("peaks", "ellipse"):
        found = unitbox_tf.load(name, decoder=decoder)(photo)
        assert len(found) == 1
        assert found.scores[0] > 0.8
        by_eye = np.array([[178.0, 130, 356, 335]])
        assert box_ops.pairwise_iou(found.boxes, by_eye)[0, 0] > 0.7


@pytest.mark.parametrize("name", PUBLISHED)
def test_what_is_published_is_small_and_described(name):
    folder = runs.FOLDER / name
    size = sum(path.stat().st_size for path in folder.iterdir())
    assert size < 32e6
    config = runs.Run(folder).config()
    assert config.model.class_names == ("face",)
    assert config.train.init is None
    card = (folder / "README.md").read_text(encoding="utf-8")
    for heading in ("## Data and licence", "## Results", "## What fails", "## Not to be used for"):
        assert heading in card
