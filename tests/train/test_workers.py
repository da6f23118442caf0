"""Several workers on this machine train as one process does, and lose nothing if one is killed."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from unitbox_tf import checkpoints, runs

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
BOUND = 1e-4  # float32, added up in another order, and trained on


def ports(count):
    """Ports that are free now."""
    with contextlib.ExitStack() as opened:
        found = [opened.enter_context(socket.socket()) for _ in range(count)]
        for each in found:
            each.bind(("localhost", 0))
        return [each.getsockname()[1] for each in found]


def start(folder, count, epochs=2, resume=False, seeds=(0, 0, 0)):
    """The processes of `count` workers; one has no cluster."""
    addresses = [f"localhost:{port}" for port in ports(count)]
    processes = []
    for index in range(count):
        task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        if count > 1:
            environment["TF_CONFIG"] = json.dumps(task)
        (folder / f"temporary{index}").mkdir(exist_ok=True)
        processes.append(
            subprocess.Popen(
                [
                    *(sys.executable, "-m", "tests.train.worker"),
                    *(str(folder), str(epochs), "yes" if resume else "no", str(seeds[index])),
                ],
                cwd=ROOT,
                env={**environment, "TMPDIR": str(folder / f"temporary{index}")},
                stdout=subprocess.PIPE,
                stderr=(folder / f"errors{index}").open("w"),
                text=True,
            )
        )
    return processes


def end(processes):
    """The output of each process, once all have ended."""
    try:
        return [process.communicate(timeout=400)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()


def history(folder):
    return json.loads((folder / "runs" / "a" / "history.json").read_text())


def check_same(one, other):
    assert len(one) == len(other)
    for row, same in zip(one, other, strict=True):
        assert same == pytest.approx(row, rel=BOUND, abs=BOUND)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The history of one process."""
    folder = tmp_path_factory.mktemp("alone")
    processes = start(folder, 1)
    end(processes)
    assert processes[0].returncode == 0, (folder / "errors0").read_text()[-3000:]
    return [
        {name: value for name, value in row.items() if name not in ("images_per_second",)}
        for row in history(folder)
    ]


@pytest.mark.parametrize("count", [2, 3])
def test_workers_have_the_history_of_one_process(count, alone, tmp_path):
    processes = start(tmp_path, count)
    printed = end(processes)
    assert [process.returncode for process in processes] == [0] * count, [
        (tmp_path / f"errors{index}").read_text()[-2000:] for index in range(count)
    ]
    check_same(alone, history(tmp_path))
    # Only the chief writes, and judges. The others leave nothing.
    first, *others = (lines.splitlines()[-1] for lines in printed)
    assert first == "results of ['ellipse', 'peaks']"
    assert others == ["results of []"] * (count - 1)
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["a"]
    for index in range(1, count):
        assert not list((tmp_path / f"temporary{index}").glob("unitbox-worker-*"))


def test_a_worker_that_is_killed_ends_the_others_and_all_go_on(alone, tmp_path):
    processes = start(tmp_path, 2, epochs=500)
    stored = runs.Run(tmp_path / "runs" / "a").checkpoints
    deadline = time.monotonic() + 200
    while not checkpoints.stored(stored) and time.monotonic() < deadline:
        assert processes[0].poll() is None, (tmp_path / "errors0").read_text()[-3000:]
        time.sleep(0.05)
    processes[1].send_signal(signal.SIGKILL)
    end(processes)
    said = (tmp_path / "errors0").read_text()
    assert processes[0].returncode != 0
    assert "another worker has ended" in said, said[-3000:]
    assert "--resume" in said
    assert checkpoints.stored(stored)
    finished = len(history(tmp_path)) if runs.Run(stored.parent).history_file.exists() else 0
    again = start(tmp_path, 2, epochs=max(2, finished + 1), resume=True)
    end(again)
    assert [process.returncode for process in again] == [0, 0], [
        (tmp_path / f"errors{index}").read_text()[-2000:] for index in range(2)
    ]
    check_same(alone, history(tmp_path)[:2])


def test_workers_with_different_settings_are_refused(tmp_path):
    processes = start(tmp_path, 2, seeds=(1, 2))
    end(processes)
    assert [process.returncode for process in processes] == [1, 1]
    said = (tmp_path / "errors1").read_text()
    assert "ValueError: expected the same settings in all workers" in said, said[-3000:]
    assert not (tmp_path / "runs").exists()
