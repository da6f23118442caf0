import json
import subprocess
import sys

import pytest

from unitbox_tf import cli
from unitbox_tf.cli import fit
from unitbox_tf.presets import PRESETS


def test_fit_takes_a_preset_and_fields():
    name, options = fit.parse_fit(
        ["faces", "--epochs", "3", "--data", "photos", "--no-random-crop"]
    )
    config = options.config
    assert (name, config.train.epochs, config.data.data) == ("faces", 3, "photos")
    assert not config.data.random_crop
    assert config.train.batch_size == PRESETS["faces"].train.batch_size
    assert options.resume is None


def test_fit_takes_lists_and_none():
    sources = ["coco:a", "fddb:b#1-7"]
    _, options = fit.parse_fit(
        [
            "--train-sources",
            *sources,
            "--clip-norm",
            "5",
            "--weights",
            "None",
            "--object-size",
            "9",
            "99",
        ]
    )
    assert options.config.data.train_sources == tuple(sources)
    assert options.config.train.clip_norm == 5
    assert options.config.data.object_size == (9, 99)


def test_the_default_preset_is_smoke():
    assert fit.parse_fit([])[0] == "smoke"
    assert fit.parse_fit(["--epochs", "1"])[0] == "smoke"


def test_an_unknown_preset_is_named(capsys):
    assert cli.main(["fit", "fases"]) == 1
    error = capsys.readouterr().err
    assert (
        "Unknown preset 'fases'. Expected one of ['smoke', 'faces', 'paper', 'paper_l2']" in error
    )


def test_an_unknown_field_is_named(capsys):
    with pytest.raises(SystemExit) as exit_info:
        fit.parse_fit(["smoke", "--epoch", "3"])
    assert exit_info.value.code == 2
    printed = capsys.readouterr()
    assert "--epoch" in printed.err + printed.out


def test_an_unusable_value_is_named(capsys):
    with pytest.raises(SystemExit) as exit_info:
        cli.main(["fit", "smoke", "--epochs", "0"])
    assert exit_info.value.code == 2
    assert "epochs of at least 1. Received: 0" in capsys.readouterr().err


def test_resuming_takes_the_configuration_of_the_run(untrained_run, tiny_config, tmp_path):
    _, options = fit.parse_fit(["--resume", str(untrained_run), "--epochs", "7"])
    assert options.resume == untrained_run
    assert options.config.train.epochs == 7
    assert options.config.data == tiny_config.data
    with pytest.raises(ValueError, match=r"config\.json: no such file"):
        fit.parse_fit(["--resume", str(tmp_path)])
    with pytest.raises(ValueError, match=r"Expected a preset or --resume.*not both: 'faces'"):
        fit.parse_fit(["faces", "--resume", str(untrained_run)])


@pytest.mark.slow
def test_the_first_command_of_the_readme_gives_a_detector_that_finds_objects(tmp_path):
    """What `make fit` runs, judged on pictures that training has not seen."""
    fit = [sys.executable, "training/fit.py", "--output", str(tmp_path), "--run", "smoke"]
    subprocess.run(fit, check=True)
    evaluate = ["evaluate", str(tmp_path / "smoke"), "synthetic:#5000000-5000300"]
    assert cli.main([*evaluate, "--output", str(tmp_path / "judged")]) == 0
    results = json.loads((tmp_path / "judged" / "results.json").read_text())
    assert results["figures"]["peaks"]["false_positives"] <= 0.1
    assert results["figures"]["peaks"]["recall"] >= 0.95
