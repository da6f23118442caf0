"""SIGTERM and Ctrl-C end each command: with its status, without a traceback, and with nothing half-done left."""

import contextlib
import dataclasses
import importlib
import os
import signal
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path

import pytest

from training import command
from unitbox_tf import checkpoints, cli, datasets, runs
from unitbox_tf.cli import signals

ROOT = Path(__file__).parents[2]

# Runs `unitbox`, or the module of a script. Says "working" when a function, MODULE:NAME, is called first.
CHILD = """
import functools, importlib, operator, runpy, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # which shells switch off in the background
function, program = sys.argv[1:3]
sys.argv = [program, *sys.argv[3:]]
module, _, path = function.partition(":")
*owners, name = path.split(".")
owner = functools.reduce(getattr, owners, importlib.import_module(module))
original = getattr(owner, name)
def told(*arguments, **options):
    setattr(owner, name, original)
    print("working", file=sys.__stdout__, flush=True)
    return original(*arguments, **options)
setattr(owner, name, told)
if program == "unitbox":
    from unitbox_tf import cli
    sys.exit(cli.main(sys.argv[1:]))
runpy.run_module(program, run_name="__main__", alter_sys=True)
"""
DRAW, LEARN = "unitbox_tf.datasets.synthetic:draw", "keras:Model.fit"
FIT = "smoke --train-sources synthetic:#0-12 --validation-sources synthetic:#12-16 --image-size 64 --epochs 500"
COMMANDS = {
    "convert": (DRAW, "unitbox convert synthetic:#0-50000 csv:OUT/written"),
    "detect": (
        "unitbox_tf.detect.journal:Journal.add",
        "unitbox detect RUN PHOTOS --output OUT/found",
    ),
    "evaluate": (
        "unitbox_tf.detect.detector:Detector.__call__",
        "unitbox evaluate RUN synthetic:#0-2000 --output OUT/judged",
    ),
    "export": ("tensorflow:saved_model.save", "unitbox export RUN OUT/exported"),
    "inspect": (DRAW, "unitbox inspect synthetic:#0-5000 --output OUT/page"),
    "fit": (LEARN, f"unitbox fit {FIT} --output OUT --run named"),
    "demo": ("unitbox_tf.demo.serving:Server", "unitbox demo RUN"),
    "serve": ("unitbox_tf.serve.server:Server", "unitbox serve RUN --port 0"),
    "training.fit": (LEARN, f"training.fit {FIT} --output OUT --run named"),
    "training.publish": (
        "unitbox_tf.detect.model:publish",
        "training.publish RUN OUT/published",
    ),
    "training.benchmarks": (
        "unitbox_tf.files:replacing",
        "training.benchmarks shards --count 2000 --folder OUT",
    ),
    "training.rivals": (
        "training.rivals.workers:Worker.detect",
        "training.rivals csv:FACES --ours faces --rivals --output OUT/compared",
    ),
}


@pytest.fixture
def places(tmp_path):
    """The folders `OUT` and `temporary`."""
    for name in ("OUT", "temporary"):
        (tmp_path / name).mkdir()
    return tmp_path


@pytest.fixture(scope="module")
def names(untrained_run, tmp_path_factory):
    """The names in `COMMANDS`, each as the path that it stands for."""
    folder = tmp_path_factory.mktemp("given") / "faces"
    datasets.convert("synthetic:#0-300", f"csv:{folder}", rename=["object=face"])
    return {"RUN": str(untrained_run), "PHOTOS": str(folder), "csv:FACES": f"csv:{folder}"}


def start(places, *command):
    """A process in a group of its own, whose temporary files have a folder of their own."""
    return subprocess.Popen(
        [sys.executable, *command],
        stdout=subprocess.PIPE,
        stderr=(places / "errors").open("w"),
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(places / "temporary")},
    )


def end(process, number, places):
    """Sends a signal; returns the status and what was said on standard error. Nothing may be left."""
    process.send_signal(number)
    try:
        status = process.wait(120)
        deadline = time.monotonic() + 10
        while group_lives(process.pid) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not group_lives(process.pid), "a process was left"
    finally:
        if group_lives(process.pid):
            os.killpg(process.pid, signal.SIGKILL)
        process.stdout.close()
    said = (places / "errors").read_text()
    assert "Traceback" not in said, said[-3000:]
    left = [path for path in places.rglob("*") if path.name.startswith((".partial-", ".earlier-"))]
    assert not left
    assert not list((places / "temporary").iterdir())
    return status, said


def wait_for(condition, process):
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)


def group_lives(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def interrupt(name, number, names, places):
    """Starts a command, and sends a signal while it works."""
    function, text = COMMANDS[name]
    words = text.replace("OUT", str(places / "OUT")).split()
    process = start(places, "-c", CHILD, function, *(names.get(word, word) for word in words))
    assert process.stdout.readline() == "working\n", (places / "errors").read_text()[-3000:]
    return end(process, number, places)


def test_sigterm_ends_a_command_as_ctrl_c_does(names, places):
    status, said = interrupt("convert", signal.SIGTERM, names, places)
    assert status == 143
    assert said.endswith("unitbox: interrupted\n")
    assert not list((places / "OUT").iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_sigterm_ends_each_command_and_script(name, names, places):
    assert interrupt(name, signal.SIGTERM, names, places)[0] == 143


@pytest.mark.slow
@pytest.mark.parametrize("name", ["detect", "fit", "demo", "serve", "training.benchmarks"])
def test_ctrl_c_has_a_status_of_its_own(name, names, places):
    assert interrupt(name, signal.SIGINT, names, places)[0] == 130


EXPERIMENT = """
import sys
from pathlib import Path
from training import command
from unitbox_tf import config
if __name__ == "__main__":
    options = {"configs": {"one": config.load(Path(sys.argv[1]))}, "folder": Path(sys.argv[2])}
    command.call(command.parser_of("x", None), "training.paper.experiments:train_all", options)
"""


@pytest.mark.slow
def test_a_training_of_an_experiment_ends_with_it_and_is_stored(tiny_config, places):
    """The training has a process of its own, which gets no signal but from its parent."""
    long = dataclasses.replace(tiny_config.train, epochs=500)
    (places / "config.json").write_text(dataclasses.replace(tiny_config, train=long).to_json())
    (places / "script.py").write_text(EXPERIMENT)
    process = start(
        places, str(places / "script.py"), str(places / "config.json"), str(places / "OUT")
    )
    folder = runs.Run(places / "OUT" / "one").checkpoints
    wait_for(lambda: checkpoints.stored(folder), process)
    assert end(process, signal.SIGTERM, places)[0] == 143
    assert all(map(zipfile.is_zipfile, checkpoints.stored(folder)))


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.3, 1, 1.7, 2.4, 3.1])
def test_sigterm_during_the_start_leaves_nothing(seconds, names, places):
    """The import of TensorFlow takes most of this time. Before Python runs our first line, the signal just ends it."""
    words = f"detect {names['RUN']} {names['PHOTOS']} --output {places / 'OUT' / 'found'}".split()
    process = start(places, "-m", "unitbox_tf", *words)
    time.sleep(seconds)
    assert end(process, signal.SIGTERM, places)[0] in (143, -signal.SIGTERM)


WITHIN_A_TEXT = """
import os, signal, sys
from unitbox_tf import cli
from unitbox_tf.cli import parser
def parse(arguments):
    exec("os.kill(os.getpid(), signal.SIGTERM)")
parser.parse = parse
sys.exit(cli.main([]))
"""


def test_a_signal_within_a_text_that_is_executed_ends_with_its_status(places):
    (places / "within.py").write_text(WITHIN_A_TEXT)
    process = subprocess.run(
        [sys.executable, "-m", "within"], cwd=places, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert process.returncode == 143


AFTER_THE_SIGNAL = {
    "unitbox": lambda: cli.main(["convert", "synthetic:#0-2", "csv:x"]),
    "script": lambda: command.call(command.parser_of("x", None), "unitbox_tf.datasets:convert", {}),
}


@pytest.mark.parametrize("name", AFTER_THE_SIGNAL)
@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["SIGINT", "SIGTERM"]
)
@pytest.mark.parametrize("error", [ImportError, SystemError])
def test_an_error_that_follows_from_the_signal_ends_with_its_status(
    name, number, status, error, monkeypatch, capsys
):
    """Code in C that imports a module turns `KeyboardInterrupt` into an error of its own."""

    def convert(*arguments, **options):
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(number)
        raise error("numpy.core.multiarray failed to import")

    monkeypatch.setattr(datasets, "convert", convert)
    with pytest.raises(SystemExit) as caught:
        sys.exit(AFTER_THE_SIGNAL[name]())
    assert caught.value.code == status
    assert capsys.readouterr().err.endswith(": interrupted\n")


@pytest.mark.parametrize("name", AFTER_THE_SIGNAL)
def test_storing_that_fails_after_a_signal_is_a_failure(name, monkeypatch, capsys):
    def convert(*arguments, **options):
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        raise OSError("no space left on device")

    monkeypatch.setattr(datasets, "convert", convert)
    with pytest.raises(SystemExit) as caught:
        sys.exit(AFTER_THE_SIGNAL[name]())
    assert caught.value.code == 1
    assert capsys.readouterr().err.endswith("error: no space left on device\n")


@pytest.mark.parametrize("name", AFTER_THE_SIGNAL)
def test_an_error_without_a_signal_is_no_interruption(name, monkeypatch, capsys):
    def convert(*arguments, **options):
        raise ImportError("no such module")

    monkeypatch.setattr(datasets, "convert", convert)
    with pytest.raises(SystemExit) as caught:
        sys.exit(AFTER_THE_SIGNAL[name]())
    assert caught.value.code == 1
    assert capsys.readouterr().err.endswith("error: no such module\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_handler_is_there_only_within_the_context(number):
    before, received = signal.getsignal(number), signals.Received()
    with signals.handled(received):
        assert (received.came, received.status) == (False, 130)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
        assert (received.came, received.status) == (True, 128 + number)
    assert signal.getsignal(number) == before


SWALLOWS = """
import signal
try:
    signal.raise_signal(signal.SIGTERM)
except BaseException:
    pass
"""


@pytest.fixture
def swallowing(tmp_path, monkeypatch):
    """The name of a module that gets SIGTERM while it is imported, and swallows errors, as modules in C do."""
    (tmp_path / "swallowing_module.py").write_text(SWALLOWS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "swallowing_module", raising=False)
    return "swallowing_module"


def test_an_import_does_not_swallow_a_signal(swallowing):
    def import_and_work():
        importlib.import_module(swallowing)
        time.sleep(60)

    with pytest.raises(KeyboardInterrupt), signals.handled(signals.Received()):
        import_and_work()
    assert swallowing in sys.modules


def test_a_signal_in_the_last_import_of_a_command_interrupts_it(swallowing):
    received = signals.Received()
    with pytest.raises(KeyboardInterrupt), signals.handled(received):
        importlib.import_module(swallowing)
    assert received.status == 143
    time.sleep(2 * signals.AGAIN)  # the signal, which would end this process, does not come again


def test_an_import_without_end_is_interrupted(swallowing, monkeypatch):
    monkeypatch.setattr(signals, "LONGEST_IMPORT", 0.0)
    seen = []
    monkeypatch.setattr("builtins.pass_on", seen.append, raising=False)
    endless = SWALLOWS.replace("    pass", "    pass_on(1)")
    Path(sys.path[0], "swallowing_module.py").write_text(endless)
    with signals.handled(signals.Received()):
        importlib.import_module(swallowing)
    assert seen == [1]


def test_an_ignored_sigterm_stays_ignored():
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    received = signals.Received()
    try:
        with signals.handled(received):
            signal.raise_signal(signal.SIGTERM)
        assert not received.came
    finally:
        signal.signal(signal.SIGTERM, before)


def test_another_thread_installs_no_handler():
    before, seen = signal.getsignal(signal.SIGTERM), []

    def look():
        with signals.handled(signals.Received()):
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert seen == [before]
