import argparse
import dataclasses
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import unitbox_tf
from unitbox_tf import cli, datasets, images, loading
from unitbox_tf.cli import parser
from unitbox_tf.config import DecodeConfig

ROOT = Path(__file__).parents[2]

# What takes long to import, or what not everybody has.
HEAVY = ("tensorflow", "keras", "cv2", "matplotlib", "numpy")


def unitbox(*arguments, **environment):
    """Runs the command line in a process of its own."""
    command = [sys.executable, "-m", "unitbox_tf", *arguments]
    # The tests have a log level of their own.
    inherited = {name: v for name, v in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    return subprocess.run(command, capture_output=True, text=True, env={**inherited, **environment})


def test_help_and_wrong_usage_answer_without_heavy_libraries():
    helps = [[], *([name] for name in parser.COMMANDS)]
    calls = [*([*command, "--help"] for command in helps), ["--version"], ["fit", "--epoch", "1"]]
    code = f"""
import sys
from unitbox_tf.cli import main
print([main(call) for call in {calls}])
print("imported:", [name for name in {HEAVY} if name in sys.modules])
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    *_, statuses, imported = result.stdout.splitlines()
    assert statuses == str([0] * (len(calls) - 1) + [2])
    assert imported == "imported: []"
    for command in parser.COMMANDS:
        assert f"usage: unitbox {command}" in result.stdout


def actions_of(command):
    top = parser.make([command])
    [commands] = (a for a in top._actions if isinstance(a, argparse._SubParsersAction))
    return commands.choices[command]._actions


@pytest.mark.parametrize("command", parser.COMMANDS)
def test_every_option_says_what_it_does(command):
    actions = actions_of(command)
    assert {"--quiet", "--help"} <= {name for a in actions for name in a.option_strings}
    for action in actions:
        assert len(action.help or "") > 20, action


def test_decoding_options_are_the_same_everywhere():
    fields = {field.name for field in dataclasses.fields(DecodeConfig)}
    helps = []
    for command in ("detect", "evaluate", "export", "demo", "serve"):
        actions = {action.dest: action for action in actions_of(command)}
        assert fields <= set(actions)
        helps.append([actions[name].help for name in sorted(fields)])
    assert helps == helps[:1] * len(helps)


@pytest.mark.parametrize("program", [["-m", "unitbox_tf"], ["training/fit.py"]])
def test_programs_of_the_command_line(program):
    result = subprocess.run(
        [sys.executable, *program, "--help"], capture_output=True, text=True, cwd=ROOT
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("usage: unitbox")


def test_the_version_is_told():
    assert unitbox("--version").stdout == f"unitbox {unitbox_tf.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["detekt"], "unknown command 'detekt'. Did you mean detect? Expected one of: fit"),
        ([], "the following arguments are required: COMMAND"),
        (["detect", "faces"], "the following arguments are required: INPUT"),
        (["detect", "faces", "a", "--decoder", "peeks"], "'peeks'. Did you mean peaks?"),
        (
            ["detect", "faces", "a", "--max-side", "0"],
            "--max-side: expected a whole number from 1 to 8192",
        ),
        (["detect", "faces", "a", "--max_side=5"], "unknown option --max_side. Did you mean --max"),
        (["evaluate", "faces", "coco:a", "--min-size", "-1"], "expected a number of at least 0"),
        (["export", "faces", "a", "--format", "onx"], "unknown format 'onx'. Did you mean onnx?"),
        (
            ["inspect", "foo:bar"],
            "SOURCE: expected a source as FORMAT:PATH#SPLIT. Received: 'foo:bar'",
        ),
        (["demo", "--port", "0"], "--port: expected a whole number from 1 to 65535. Received: 0"),
    ],
)
def test_wrong_usage_gives_status_2(arguments, message, capsys):
    assert cli.main(arguments) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("command", parser.COMMANDS)
def test_wrong_usage_is_told_in_two_lines(command, capsys):
    assert cli.main([command, "--wrong", "1"]) == 2
    usage, error = capsys.readouterr().err.splitlines()
    assert usage.startswith(f"usage: unitbox {command} ")
    assert error.startswith(f"unitbox {command}: error: unknown option --wrong.")
    for action in actions_of(command):
        assert action.option_strings or action.metavar in usage


@pytest.mark.parametrize("more", [[], ["./"]])
def test_a_mistyped_detector_is_told_before_tensorflow_is_imported(more):
    name = "".join([*more, "facs"])
    calls = [["detect", name, "a.jpg"], ["evaluate", name, "synthetic:#0-2"]]
    calls += [["export", name, "a.onnx"], ["demo", name], ["serve", name]]
    calls += [["fit", "--init", name]]
    code = f"""
import sys, time
from unitbox_tf.cli import main
print([main(call) for call in {calls}])
print("imported:", [name for name in {HEAVY[:4]} if name in sys.modules])
print(time.process_time())
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    statuses, imported, seconds = result.stdout.splitlines()
    assert float(seconds) < 2.5  # six calls
    assert imported == "imported: []"
    if more:  # a path
        assert statuses == str([1] * 6)
        assert result.stderr.count("facs: no such file or folder. Expected a run's folder") == 6
    else:
        assert statuses == str([2] * 6)
        assert result.stderr.count("unknown detector 'facs'. Did you mean faces?") == 6
    assert result.stderr.count("published here is faces") == 6


def test_inputs_that_are_absent_are_told_before_tensorflow_is_imported(tmp_path):
    code = """
import sys
from unitbox_tf.cli import main
print(main(["detect", "faces", "gone.jpg", "gone.mp4", "--output", sys.argv[1]]))
print("imported:", [name for name in ("tensorflow", "keras") if name in sys.modules])
"""
    command = [sys.executable, "-c", code, str(tmp_path / "out")]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.stdout.splitlines() == ["1", "imported: []"]
    assert result.stderr == "unitbox: error: gone.jpg (and 1 more): no such file\n"
    assert not (tmp_path / "out").exists()


STARTING = ("oneDNN custom operations", "cuInit", "cuda", "absl", "cpu_feature_guard", "rebuild")


@pytest.mark.slow
def test_tensorflow_starts_quietly(untrained_run, photos, tmp_path):
    command = ["detect", str(untrained_run), str(photos / "a.png"), "--output", str(tmp_path)]
    result = unitbox(*command, "--quiet")
    assert (result.returncode, result.stderr) == (0, "")
    # Once it has started, it may say what it likes, if the user wants that.
    result = unitbox(*command, "--restart", TF_CPP_MIN_LOG_LEVEL="0")
    assert result.returncode == 0
    for words in STARTING:
        assert words not in result.stderr


def test_what_tensorflow_writes_before_it_fails_is_shown(tmp_path):
    (tmp_path / "tensorflow.py").write_text(
        "import os\nos.write(2, b'no such instruction\\n')\nraise ImportError('it is broken')\n"
    )
    code = """
import sys
from unitbox_tf.cli import quiet_start
quiet_start.install()
try:
    import tensorflow
except ImportError as error:
    print("failed:", error, file=sys.stderr)
"""
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert result.stderr == "no such instruction\nfailed: it is broken\n"


@pytest.mark.slow
def test_quiet_hides_what_is_logged_and_json_prints_one_object(untrained_run, photos, tmp_path):
    (photos / "b.jpg").write_bytes(b"")
    command = ["detect", str(untrained_run), str(photos), "--output"]
    loud = unitbox(*command, str(tmp_path / "loud"), "--json")
    assert loud.returncode == 1
    assert "a.png: " in loud.stderr
    quiet = unitbox(*command, str(tmp_path / "quiet"), "--json", "--quiet")
    assert "a.png: " not in quiet.stderr
    assert (
        "b.jpg: expected a JPEG, PNG, BMP, GIF, TIFF or WebP image, received an empty file"
        in quiet.stderr
    )
    rows = json.loads((tmp_path / "quiet" / "detections.json").read_text())
    assert json.loads(quiet.stdout) == {
        "output": str(tmp_path / "quiet"),
        "images": {
            "images": 3,
            "earlier": 0,
            "broken": 1,
            "objects": len(rows),
            "results": str(tmp_path / "quiet" / "detections.json"),
        },
        "videos": [],
        "problems": {images.UNDECODABLE: 1},
    }


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["evaluate", "RUN", "synthetic:#200-202", "--decoder", "peaks"], "metrics"),
        (["convert", "synthetic:#0-2", "csv:OUT"], "written"),
        (["export", "RUN", "OUT"], "format"),
    ],
)
def test_results_are_one_json_object(arguments, expected, untrained_run, tmp_path, capsys):
    replaced = [a.replace("RUN", str(untrained_run)) for a in arguments]
    replaced = [a.replace("OUT", str(tmp_path / "out")) for a in replaced]
    assert cli.main([*replaced, "--json"]) == 0
    assert expected in json.loads(capsys.readouterr().out)


def test_ctrl_c_ends_a_command_without_a_traceback(tmp_path, monkeypatch, capsys):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(datasets, "convert", interrupted)
    assert cli.main(["convert", "synthetic:#0-1", f"csv:{tmp_path / 'out'}"]) == 130
    assert capsys.readouterr().err.endswith("unitbox: interrupted\n")


@pytest.mark.slow
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


def test_names_with_signs_that_a_terminal_obeys_are_escaped(tmp_path, capsys):
    path = tmp_path / "\x1b[31m\udcff.json"
    path.write_text("{")
    assert cli.main(["inspect", f"coco:{path}"]) == 1
    error = capsys.readouterr().err
    assert r"\x1b[31m\udcff.json:1: not valid JSON" in error
    assert "\x1b" not in error


def test_what_is_logged_has_no_signs_that_a_terminal_obeys():
    record = logging.LogRecord("x", 20, "x", 1, "a\x1b[2J\n%s", ("\udcff",), None)
    assert cli._Lines("%(message)s").format(record) == "a\\x1b[2J\n\\udcff"
