import dataclasses
import importlib
import json
import math
import re
import subprocess
import sys
import types
from pathlib import Path

import pytest

from unitbox_tf import cli, runs
from unitbox_tf.cli import fit, parser
from unitbox_tf.config import DecodeConfig, ModelConfig
from unitbox_tf.presets import PRESETS
from unitbox_tf.problems import Problems


def configured(*arguments):
    """The parsed options of `unitbox fit`, what the run is called, and its configuration."""
    options = parser.parse(["fit", *arguments])
    return options, *fit.configuration(options)


def test_fit_takes_a_preset_and_fields():
    options, name, config = configured(
        "faces", "--epochs", "3", "--data", "photos", "--no-random-crop"
    )
    assert (name, config.train.epochs, config.data.data) == ("faces", 3, "photos")
    assert not config.data.random_crop
    assert config.train.batch_size == PRESETS["faces"].train.batch_size
    assert options.resume is None


def test_fit_takes_lists_and_none():
    sources = ["coco:a", "fddb:b#1-7"]
    arguments = ["--train-sources", *sources, "--class-names", "cat", "dog", "--clip-norm", "5"]
    arguments += ["--weights", "None", "--object-size", "9", "99", "--scales", ".5", "1"]
    _, _, config = configured(*arguments)
    assert config.data.train_sources == tuple(sources)
    assert config.model.class_names == ("cat", "dog")
    assert config.train.clip_norm == 5
    assert config.data.object_size == (9, 99)
    assert config.decode.scales == (0.5, 1)
    _, _, config = configured("faces", "--weights", "None", "--clip-norm", "None")
    assert config.model.weights is None
    assert config.train.clip_norm is None


def test_a_score_threshold_that_is_given_is_kept(tmp_path):
    """Also if it is the default's, and where a run has chosen one before."""
    assert configured()[2].train.choose_threshold == "auto"
    file = tmp_path / "mine.json"
    file.write_text('{"train": {"choose_threshold": "on"}}')
    for start in ((), ("--config", str(file)), ("--choose-threshold", "auto")):
        _, _, config = configured(*start, "--score-threshold", "0.5")
        assert (config.train.choose_threshold, config.decode.score_threshold) == ("off", 0.5)
    _, _, config = configured("--score-threshold", "0.7", "--choose-threshold", "on")
    assert config.train.choose_threshold == "on"


def test_the_default_preset_is_smoke():
    assert configured()[1:] == ("smoke", PRESETS["smoke"])
    assert configured("--epochs", "1")[1] == "smoke"


def test_a_configuration_file_starts_a_run(tmp_path):
    file = tmp_path / "mine.json"
    file.write_text(PRESETS["faces"].to_json())
    _, name, config = configured("--config", str(file), "--epochs", "3")
    assert name == "mine"
    expected = dataclasses.replace(PRESETS["faces"].train, epochs=3)
    assert config == dataclasses.replace(PRESETS["faces"], train=expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["fases"],
            r"PRESET: unknown preset 'fases'\. Did you mean faces\? Expected one of: smoke",
        ),
        (["smoke", "--epoch", "3"], r"unknown option --epoch\. Did you mean --epochs\?"),
        (["--epoch", "3"], r"unknown option --epoch\. Did you mean --epochs\?"),
        (["smoke", "3"], "unexpected argument '3'"),
        (["--epochs", "0"], "--epochs: expected a whole number of at least 1. Received: 0"),
        (["--epochs", "1.5"], "--epochs: expected a whole number of at least 1. Received: '1.5'"),
        (["--clip-norm", "nan"], "--clip-norm: expected None or a number above 0. Received: nan"),
        (["--object-size", "9"], "--object-size: expected 2 arguments"),
        (["--scales", "1", "faces"], r"--scales: expected a list of numbers.*'faces'"),
        (["--distance-loss", "giuo"], r"Received: 'giuo'\. Did you mean giou\?"),
        (["--optimizer", "adama"], r"Received: 'adama'\. Did you mean adam\?"),
        (["--stretch", "2"], "expected stretch of 1 where there is no random_crop. Received: 2"),
        (["--train-sources", "cocoa:a"], r"Received: 'cocoa:a'\. Did you mean coco\?"),
        (["--init", "facs"], r"unknown detector 'facs'\. Did you mean faces\?"),
        (["faces", "--resume", "RUN"], "--resume: not allowed with argument PRESET"),
        (["--config", "FILE", "--resume", "RUN"], "not allowed with argument --config"),
    ],
)
def test_wrong_usage_is_named(arguments, message, capsys, monkeypatch):
    monkeypatch.setattr(importlib.import_module("unitbox_tf.train.fit"), "fit", pytest.fail)
    assert cli.main(["fit", *arguments]) == 2
    assert re.search(message, capsys.readouterr().err)


def test_files_that_cannot_be_used_are_failures(tmp_path, capsys):
    wrong, binary = tmp_path / "wrong.json", tmp_path / "binary.json"
    wrong.write_text('{"train": {"epochs": 0}}')
    binary.write_bytes(b"\xff\xd8")
    for option, message in (
        (["--config", str(tmp_path / "gone.json")], "gone.json"),
        (
            ["--config", str(wrong)],
            "wrong.json: train: TrainConfig.epochs: expected a whole number",
        ),
        (["--config", str(binary)], "binary.json: expected JSON in UTF-8"),
        (["--resume", str(tmp_path)], "config.json: no such file. Expected the folder of a run"),
        (["--init", str(tmp_path / "gone")], "gone: no such file or folder"),
    ):
        assert cli.main(["fit", *option]) == 1
        assert message in capsys.readouterr().err


def test_resuming_takes_the_configuration_of_the_run(untrained_run, tiny_config):
    options, _, config = configured("--resume", str(untrained_run), "--epochs", "7")
    assert options.resume == untrained_run
    assert config.train.epochs == 7
    assert config.data == tiny_config.data


def test_help_shows_the_defaults_of_the_preset(capsys):
    for preset, default in (("smoke", "default: --no-flip"), ("faces", "default: --flip")):
        assert cli.main(["fit", preset, "--help"]) == 0
        assert default in capsys.readouterr().out


def test_help_shows_the_defaults_of_a_file_or_a_run(tmp_path, capsys):
    file = tmp_path / "config.json"
    file.write_text('{"train": {"epochs": 77}}')
    for option in (["--config", str(file)], [f"--config={file}"], ["--resume", str(tmp_path)]):
        assert cli.main(["fit", *option, "--help"]) == 0
        printed = " ".join(capsys.readouterr().out.split())
        assert "(default: 77)" in printed
        assert "The defaults shown are those of" in printed
    for wrong in (["--config", str(tmp_path / "gone")], ["--config"]):
        assert cli.main(["fit", *wrong, "--help"]) in (0, 2)
        assert "(default: 77)" not in capsys.readouterr().out


@dataclasses.dataclass
class Trained:
    folder: Path
    results: dict
    problems: Problems
    interrupted: bool = False
    stopped_early: bool = False
    taken: object = None
    history: tuple = ({}, {})

    @property
    def model(self):
        return types.SimpleNamespace(decode=DecodeConfig(score_threshold=0.25))


def test_the_result_is_json_alone_where_it_is_asked_for(monkeypatch, capsys, tmp_path):
    def trained(config, *, name, resume):
        print("Epoch 1/1")  # as Keras does
        return Trained(tmp_path, {"peaks": {"ap50": 0.5, "recall": math.nan}}, Problems())

    monkeypatch.setattr(importlib.import_module("unitbox_tf.train.fit"), "fit", trained)
    assert cli.main(["fit"]) == 0
    text = capsys.readouterr().out
    assert "Epoch 1/1" in text
    assert f"unitbox detect {tmp_path} IMAGE..." in text
    assert cli.main(["fit", "--json"]) == 0
    printed = capsys.readouterr()
    result = json.loads(printed.out)
    assert result["run"] == str(tmp_path)
    assert result["results"] == {"peaks": {"ap50": 0.5, "recall": None}}
    assert result["score_threshold"] == 0.25
    assert "Epoch 1/1" in printed.err


def test_a_run_that_was_interrupted_ends_with_the_status_of_shells(monkeypatch, capsys, tmp_path):
    def trained(config, *, name, resume):
        return Trained(tmp_path, {"peaks": {"ap50": 0.5}}, Problems(), interrupted=True)

    monkeypatch.setattr(importlib.import_module("unitbox_tf.train.fit"), "fit", trained)
    assert cli.main(["fit", "--json"]) == 130
    assert json.loads(capsys.readouterr().out)["interrupted"] is True


def test_a_run_that_stopped_early_says_so(monkeypatch, capsys, tmp_path):
    def trained(config, *, name, resume):
        results = {"peaks": {"ap50": 0.5}}
        return Trained(tmp_path, results, Problems(), stopped_early=True, taken="taken from faces")

    monkeypatch.setattr(importlib.import_module("unitbox_tf.train.fit"), "fit", trained)
    assert cli.main(["fit", "--patience", "1"]) == 0
    printed = capsys.readouterr().out
    assert "stopped early  after 2 epochs" in printed
    assert "       problems  none\n" in printed
    assert cli.main(["fit", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["stopped_early"], result["taken"]) == (True, "taken from faces")


def test_without_a_preset_settings_start_from_those_of_init(untrained_run, tmp_path, capsys):
    _, name, config = configured("--init", "faces_light", "--epochs", "3")
    faces = runs.Run.find("faces_light").config()
    assert name == "faces_light"
    assert config.model.backbone == "light"
    assert config.model.neck_channels == faces.model.neck_channels == 32
    assert config.model.class_names == ModelConfig().class_names  # those of the data
    assert (config.train.init, config.train.epochs, config.train.run) == ("faces_light", 3, None)
    # The threshold of `faces_light` is not that of the new objects, and nobody has set it here.
    assert (config.train.choose_threshold, config.decode.score_threshold) == ("auto", 0.5)
    assert config.data == faces.data
    _, _, config = configured("--init", str(untrained_run), "--class-names", "cat", "dog")
    assert config.model.class_names == ("cat", "dog")
    assert config.model.head_stddev == 0.01
    _, name, config = configured("smoke", "--init", "faces_light")
    assert (name, config.model) == ("smoke", PRESETS["smoke"].model)
    assert cli.main(["fit", "--init", "faces_light", "--help"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "The defaults shown are those of faces_light." in printed
    assert "(default: light)" in printed


@pytest.mark.slow
def test_the_first_command_of_the_readme_gives_a_detector_that_finds_objects(tmp_path):
    """The command of `make fit`, judged on images that training has not seen."""
    train = [sys.executable, "training/fit.py", "--output", str(tmp_path), "--run", "smoke"]
    subprocess.run(train, check=True)
    evaluate = ["evaluate", str(tmp_path / "smoke"), "synthetic:#5000000-5000300"]
    assert cli.main([*evaluate, "--output", str(tmp_path / "judged")]) == 0
    results = json.loads((tmp_path / "judged" / "results.json").read_text())
    assert results["metrics"]["peaks"]["false_positives"] <= 0.1
    assert results["metrics"]["peaks"]["recall"] >= 0.95


def test_a_run_without_export_names_none(tmp_path):
    done = types.SimpleNamespace(folder=tmp_path)
    assert fit._exported(done) is None
    (tmp_path / "saved_model").mkdir()
    assert fit._exported(done) == tmp_path / "saved_model"
