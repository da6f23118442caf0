import importlib
import re
import sys

import pytest

from unitbox_tf import cli, runs
from unitbox_tf import config as configs


def test_export_writes_a_saved_model(untrained_run, tmp_path, capsys):
    assert cli.main(["export", str(untrained_run), str(tmp_path / "model")]) == 0
    assert (tmp_path / "model" / "saved_model.pb").is_file()
    assert cli.main(["export", str(tmp_path / "gone"), str(tmp_path / "other")]) == 1
    assert "gone" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "module", "precision"),
    [
        (["model"], "saved_model", None),
        (["model.onnx"], "onnx", None),
        (["model.tflite"], "litert", None),
        (["model.tflite", "--format", "litert-int8", "--calibration", "PHOTOS"], "litert", "int8"),
    ],
)
def test_export_chooses_the_format_by_name_and_option(
    arguments, module, precision, untrained_run, photos, tmp_path, monkeypatch
):
    called = []
    home = importlib.import_module(f"unitbox_tf.formats.{module}")
    monkeypatch.setattr(home, "save", lambda *given, **named: called.append((given, named)))
    (untrained_run / "README.md").write_text("# The card")
    replaced = [str(photos) if argument == "PHOTOS" else argument for argument in arguments]
    options = ["--score-threshold", "0.3", *replaced[1:]]
    try:
        command = ["export", str(untrained_run), str(tmp_path / replaced[0]), *options]
        assert cli.main(command) == 0
    finally:
        (untrained_run / "README.md").unlink()
    [((_, decode, names, path, card), named)] = called
    assert (decode.score_threshold, names, card) == (0.3, ("object", "other"), "# The card")
    assert path == tmp_path / replaced[0]
    assert named.get("precision") == precision
    assert len(list(named.get("calibration", ()))) == (2 if precision else 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a.onnx", "--format", "litert"], r"Expected a file that ends in \.tflite for litert"),
        (["a.tflite", "--format", "litert-int8"], "Received: litert-int8 without photos"),
        (["a", "--calibration", "."], "Received: saved_model and photos"),
        (["a", "MODEL", "./gone"], "gone: no such file or folder. Expected a run's folder"),
    ],
)
def test_export_says_what_does_not_fit(arguments, message, untrained_run, tmp_path, capsys):
    path, *options = arguments
    model = str(untrained_run)
    if options[0] == "MODEL":
        model, options = options[1], []
    assert cli.main(["export", model, str(tmp_path / path), *options]) == 1
    assert re.search(message, capsys.readouterr().err)
    assert not list(tmp_path.iterdir())


def test_what_is_not_installed_is_named(untrained_run, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "tf2onnx", None)
    assert cli.main(["export", str(untrained_run), str(tmp_path / "a.onnx")]) == 1
    assert (
        "exporting to ONNX needs tf2onnx: pip install 'unitbox_tf[onnx]'" in capsys.readouterr().err
    )


def test_a_run_without_a_card_tells_what_is_known_of_it(untrained_run):
    config = configs.load(untrained_run / runs.CONFIG_FILE)
    results = untrained_run / "results.json"
    results.write_text('{"peaks": {"ap50": 0.5, "recall": null}}')
    try:
        card = runs.model_card(untrained_run, config)
    finally:
        results.unlink()
    assert "detector: object, other" in card
    assert "Trained on synthetic:" in card
    assert "* peaks: ap50 0.500\n" in card
