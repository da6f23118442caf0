import json
import subprocess
import sys

import numpy as np

from unitbox_tf import cli, datasets, loading


def test_help_answers_without_tensorflow():
    code = "import sys; from unitbox_tf.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
    code += "assert 'tensorflow' not in sys.modules"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    for command in ("fit", "detect", "evaluate", "convert", "export", "demo"):
        assert command in result.stdout


def test_ctrl_c_ends_a_command_without_a_traceback(tmp_path, monkeypatch, capsys):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setitem(datasets.WRITERS, "csv", interrupted)
    assert cli.main(["convert", "synthetic:#0-1", f"csv:{tmp_path / 'out'}"]) == 130
    assert capsys.readouterr().err.endswith("unitbox: interrupted\n")


def test_scales_and_size_are_those_of_the_command_line(untrained_run, photos, tmp_path, capsys):
    exported, out = str(tmp_path / "exported"), tmp_path / "found"
    decoding = ["--max-side", "64", "--scales", "1", "0.5"]
    decoding += ["--nms-iou", "0.3", "--max-detections", "3"]
    assert cli.main(["export", str(untrained_run), exported, *decoding]) == 0
    inside = loading.load(exported)
    assert (inside.decode.max_side, inside.decode.scales) == (64, (1.0, 0.5))
    assert (inside.decode.nms_iou, inside.decode.max_detections) == (0.3, 3)

    command = ["detect", str(untrained_run), str(photos / "a.png"), "--output", str(out)]
    assert cli.main([*command, *decoding]) == 0
    rows = json.loads((out / "detections.json").read_text())
    found = inside(photos / "a.png")
    assert len(found) == len(rows) == 3
    np.testing.assert_allclose([row["score"] for row in rows], found.scores, atol=1e-3)

    judged = tmp_path / "judged"
    command = ["evaluate", str(untrained_run), "synthetic:#200-202", "--output", str(judged)]
    assert cli.main([*command, *decoding]) == 0
    assert "shown shrunk to fit 64 px, at scales 1 0.5 of that" in capsys.readouterr().out
    facts = json.loads((judged / "results.json").read_text())
    assert facts["model"]["scales"] == [1.0, 0.5]
    assert facts["model"]["max_detections"] == 3
