"""The command lines of training: each reaches a function that takes its options."""

import importlib
import inspect
import pkgutil
import sys
from pathlib import Path

import pytest

from training import command
from training.benchmarks.apart import call_apart
from training.benchmarks.turns import quartiles, take_turns

SHARED = "--data DATA --output OUT"
COMMANDS = [
    f"training.paper figure4 letter search final --weights imagenet {SHARED}",
    f"training.paper figure5 train measure --weights imagenet --pixel 0.5 0.4 {SHARED}",
    f"training.paper figure5 measure --runs a=b {SHARED}",
    "training.paper scales --output OUT",
    f"training.paper scales --set faces --losses iou giou l2 --network vgg --steps 9 {SHARED}",
    f"training.paper figure6 --runs a=b --curves CURVES {SHARED}",
    f"training.paper ablations --rows base --seeds 0 1 --weights imagenet {SHARED}",
    "training.benchmarks losses --jit --json FILE",
    "training.benchmarks backbones light vgg16 --counts --json FILE",
    "training.benchmarks normalisation --batch 4 --side 64 --json FILE",
    "training.benchmarks input --photos PHOTOS --sizes 20x30 --boxes 3 --stored files --json FILE",
    "training.benchmarks reading coco:x --data DATA",
    "training.benchmarks fddb DETECTIONS ANNOTATIONS SIZES",
    "training.benchmarks wider_face TRUTH RESULTS MORE",
    "training.benchmarks inference faces a.onnx --yunet FILE --photo a.jpg --threads 1 --processors",
    "training.benchmarks shards coco:x --folder FOLDER",
    "training.benchmarks serving SAVED_MODEL photo.jpg --rounds 2",
    f"training.benchmarks parity faces coco:x --calibration a.jpg b.jpg {SHARED}",
    "training.benchmarks memory faces a.onnx --megapixels 12 0.5 --json FILE",
    "training.benchmarks precision faces coco:x --data DATA --count 3 --sides 0 800 --json FILE",
    "training.benchmarks long_training --steps 100 --epochs 2 --folder FOLDER",
    "training.benchmarks stream --count 1000 --buffer 8 --folder FOLDER --json FILE",
    "training.benchmarks plot_losses",
    f"training.rivals coco:x fddb:y#8 --ours faces --rivals haar --yunet FILE {SHARED}",
    f"training.rivals.sizes --faces a:b --scenes c:d --ours faces x.onnx --sizes 12 24 {SHARED}",
    "training.publish RUN FOLDER --last --max-side 416 --scales 0.5 1",
]


def run(text, monkeypatch):
    """Runs a command line in this process, as `python -m` does."""
    name, *arguments = text.split()
    module = importlib.import_module(name)
    if hasattr(module, "__path__"):
        module = importlib.import_module(f"{name}.__main__")
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    module.main()


@pytest.mark.parametrize("text", COMMANDS)
def test_options_are_what_the_function_takes(text, monkeypatch):
    called = []

    def call(parser, function, options, level=None):
        called.append(function)
        inspect.signature(pkgutil.resolve_name(function)).bind(**options)
        raise SystemExit(0)

    monkeypatch.setattr(command, "call", call)
    with pytest.raises(SystemExit):
        run(text, monkeypatch)
    assert called


@pytest.mark.parametrize(
    ("text", "status", "message"),
    [
        (COMMANDS[0].replace("letter", "all"), 2, "invalid choice: 'all'"),
        (
            "training.benchmarks reading coco:x --rounds 0",
            2,
            "expected --rounds from 1, received 0",
        ),
        ("training.benchmarks reading coco:gone", 1, "gone: no such file or folder"),
        (
            "training.rivals coco:x --ours faces --output OUT --min-size -1",
            2,
            "expected a --min-size",
        ),
        (
            "training.rivals.sizes --faces a:b --scenes c:d --ours faces --output OUT --count 0",
            2,
            "expected --count from 1",
        ),
        (
            "training.rivals coco:x --ours gone --output OUT",
            1,
            "unknown detector 'gone'",
        ),
    ],
)
def test_wrong_usage_ends_with_2_and_failure_with_1(text, status, message, monkeypatch, capsys):
    with pytest.raises(SystemExit) as raised:
        run(text, monkeypatch)
    assert raised.value.code == status
    assert message in capsys.readouterr().err


def test_numbers_are_written_with_the_settings(tmp_path, monkeypatch):
    file = tmp_path / "shards.json"
    run(f"training.benchmarks shards --count 2 --kilobytes 1 --rounds 1 --json {file}", monkeypatch)
    text = file.read_text()
    assert '"kilobytes": "1"' in text
    assert '"photos": 2' in text


def test_variants_take_turns_and_ratios_are_taken_within_rounds():
    order, clock = [], iter(range(1000))
    calls = {name: (lambda name=name: order.append(name)) for name in "ab"}
    seconds = take_turns(calls, 4, lambda: next(clock))
    assert sorted(order) == [*"aaaabbbb"]
    assert seconds == {"a": [1] * 4, "b": [1] * 4}
    assert quartiles([1, 4, 9], [1, 2, 3]) == [1.5, 2, 2.5]


def test_a_function_called_apart_returns_and_raises():
    assert call_apart(Path.is_dir, Path.cwd())
    with pytest.raises(ValueError, match="invalid literal"):
        call_apart(int, "x")
