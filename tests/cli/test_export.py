import re
import sys
from pathlib import Path

import pytest

from unitbox_tf import cli, formats, runs
from unitbox_tf.problems import Problems


def test_export_writes_a_saved_model(untrained_run, tmp_path, capsys):
    assert cli.main(["export", str(untrained_run), str(tmp_path / "model")]) == 0
    assert (tmp_path / "model" / "saved_model.pb").is_file()
    assert cli.main(["export", str(tmp_path / "gone"), str(tmp_path / "other")]) == 1
    assert "gone" in capsys.readouterr().err


def test_export_hands_its_options_to_the_verb(photos, monkeypatch, capsys):
    calls = []

    def export(model, path, **options):
        calls.append((model, path, options))
        return path

    monkeypatch.setattr(formats, "export", export)
    assert cli.main(["export", "faces", "a.onnx"]) == 0
    assert capsys.readouterr().out == "written: a.onnx (onnx)\n"
    options = ["--format", "litert-int8", "--calibration", str(photos), "--score-threshold", "0.3"]
    assert cli.main(["export", "faces", "a.tflite", *options, "--scales", "1", "0.5"]) == 0
    for _, _, named in calls:
        assert isinstance(named.pop("problems"), Problems)
    assert calls == [
        ("faces", Path("a.onnx"), {"format": None, "calibration": ()}),
        (
            "faces",
            Path("a.tflite"),
            {
                "format": "litert-int8",
                "calibration": [photos],
                "score_threshold": 0.3,
                "scales": (1.0, 0.5),
            },
        ),
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a.onnx", "--format", "litert"], r"Expected a file that ends in \.tflite for litert"),
        (["a.tflite", "--format", "litert-int8"], "Expected images for calibration .*: none"),
        (["a.foo", "--format", "onnx"], r"Expected a file that ends in \.onnx for onnx"),
        (["a", "--calibration", "a.jpg"], "Expected no images for calibration .*: 1 images"),
    ],
)
def test_export_says_what_does_not_fit(arguments, message, untrained_run, tmp_path, capsys):
    path, *options = arguments
    assert cli.main(["export", str(untrained_run), str(tmp_path / path), *options]) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not list(tmp_path.iterdir())


def test_what_is_not_installed_is_named(untrained_run, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "tf2onnx", None)
    assert cli.main(["export", str(untrained_run), str(tmp_path / "a.onnx")]) == 1
    assert (
        "exporting to ONNX needs tf2onnx: pip install 'unitbox_tf[onnx]'" in capsys.readouterr().err
    )


def test_a_run_without_a_card_tells_what_is_known_of_it(untrained_run):
    results = untrained_run / "results.json"
    results.write_text('{"peaks": {"ap50": 0.5, "recall": null}}')
    try:
        card = runs.Run(untrained_run).card()
    finally:
        results.unlink()
    assert "detector: object, other" in card
    assert "Trained on synthetic:" in card
    assert "* peaks: ap50 0.500\n" in card
