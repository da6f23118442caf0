"""Runs the tests of a module on its mutants, each in a fork of a process that has TensorFlow imported already.

The process has run no operation of TensorFlow, so a fork may run them. Which tests run a line of the module
is measured first. A mutant meets those tests, the quickest first.
"""

from __future__ import annotations

import contextlib
import gc
import importlib.abc
import importlib.util
import json
import os
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import coverage
import hypothesis
import pytest

from tests.mutation.mutants import Mutant, Mutants

ROOT = Path(__file__).parents[2]
MEMORY = 8 * 2**30  # bytes that a fork may take
SLOWER = 5  # times that a mutant's tests may take, before it counts as one that never ends
SETUP_SECONDS = 20
OPTIONS = ["-x", "-q", "-m", "not slow and not nightly", "--hypothesis-profile=mutation"]
# The last of them collects all garbage at the end, which takes longer than most tests.
OPTIONS += ["-pno:cacheprovider", "-pno:xdist", "-pno:cov", "-pno:unraisableexception"]


class Judge:
    """The tests of one module, and what they say about its mutants.

    Args:
        module: its name without the package, "evaluation/fddb".
        tests: files of tests, relative to the repository.
    """

    def __init__(self, module: str, tests: Sequence[str]) -> None:
        self.name = f"unitbox_tf.{module.replace('/', '.')}"
        self.file = ROOT / "unitbox_tf" / f"{module}.py"
        self.tests = list(tests)
        self.mutants = Mutants(self.file.read_text())
        with tempfile.TemporaryDirectory() as folder:
            facts = Path(folder) / "facts.json"
            log = Path(folder) / "log"
            status = _in_fork(lambda: self._measure(facts), limit=3600, log=log)
            if status != 0:
                tail = log.read_text()[-2000:]
                raise ValueError(f"{module}: its tests fail as it is, with {status}:\n{tail}")
            found = json.loads(facts.read_text())
        self.seconds: dict[str, float] = found["seconds"]
        self.tests_of_line = {int(line): set(tests) for line, tests in found["lines"].items()}

    def verdict(self, mutant: Mutant) -> str:
        """One of "killed", "timeout", "survived", and "invalid" for what is no Python."""
        try:
            code = compile(self.mutants.mutated(mutant), str(self.file), "exec")
        except SyntaxError:
            return "invalid"
        chosen = self._tests_that_run(mutant)
        seconds = sum(self.seconds[test] for test in chosen)

        def run() -> int:
            sys.meta_path.insert(0, _Mutated(self.name, self.file, code))
            return int(pytest.main([*OPTIONS, *chosen]))

        status = _in_fork(run, limit=SETUP_SECONDS + SLOWER * seconds)
        return {0: "survived", None: "timeout"}.get(status, "killed")

    def _tests_that_run(self, mutant: Mutant) -> list[str]:
        chosen: set[str] = set().union(*(self.tests_of_line.get(n, ()) for n in mutant.lines))
        if not chosen or "" in chosen:  # run by nobody, or when the module is imported
            chosen = set(self.seconds)
        return sorted(chosen, key=self.seconds.__getitem__)

    def _measure(self, facts: Path) -> int:
        """Runs all tests on the module as it is, and writes what each takes, and which run which line."""
        measure = coverage.Coverage(data_file=None, include=[str(self.file)], config_file=False)
        watch = _Watch(measure)
        measure.start()
        status = int(pytest.main([*OPTIONS, *self.tests], plugins=[watch]))
        measure.stop()
        contexts = measure.get_data().contexts_by_lineno(str(self.file))
        lines = {line: sorted(watch.meant(names)) for line, names in contexts.items()}
        facts.write_text(json.dumps({"seconds": watch.seconds, "lines": lines}))
        return status


class _Watch:
    """A plugin of pytest that names the test in what coverage measures, and takes times."""

    def __init__(self, measure: coverage.Coverage) -> None:
        self.measure, self.seconds = measure, {}

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: Any) -> None:
        self.measure.switch_context(f"setup|{item.nodeid}")

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_call(self, item: Any) -> None:
        self.measure.switch_context(f"call|{item.nodeid}")

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.skipped:
            self.seconds.pop(report.nodeid, None)
        elif report.when != "teardown":
            before = self.seconds.get(report.nodeid, 0.0)
            self.seconds[report.nodeid] = before + report.duration

    def meant(self, contexts: Sequence[str]) -> set[str]:
        """The tests that run a line. A fixture that ran it may serve all tests of the file."""
        found = set()
        for context in contexts:
            when, _, test = context.partition("|")
            file = test.partition("::")[0]
            found |= {t for t in self.seconds if when == "setup" and t.startswith(file)} or {test}
        return found & {*self.seconds, ""}


class _Mutated(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports one module from a mutant's code."""

    def __init__(self, name: str, file: Path, code: Any) -> None:
        self.name, self.file, self.code = name, file, code

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name == self.name:
            return importlib.util.spec_from_file_location(name, self.file, loader=self)
        return None

    def exec_module(self, module: Any) -> None:
        exec(self.code, module.__dict__)


LIBRARIES = ("cv2", "scipy.io", "scipy.ndimage", "scipy.optimize", "scipy.sparse.csgraph")
LIBRARIES += ("hypothesis.extra.numpy", "matplotlib.figure", "pycocotools.cocoeval", "supervision")


def preload(libraries: Sequence[str] = LIBRARIES) -> None:
    """Imports what tests import and is slow, and nothing of the package."""
    for name in libraries:
        with contextlib.suppress(ImportError):  # its tests skip
            importlib.import_module(name)
    if any(name.startswith("unitbox_tf") for name in sys.modules):
        raise RuntimeError("The package was imported before its mutants")
    hypothesis.settings.register_profile(
        "mutation",
        deadline=None,
        max_examples=20,
        derandomize=True,
        database=None,
        phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    gc.collect()
    gc.freeze()  # forks need not look through what was imported


def _in_fork(run: Callable[[], int], limit: float, log: str | Path = os.devnull) -> int | None:
    """The status with which `run` ends in a fork; None if it does not within `limit` seconds."""
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
        silence = os.open(log, os.O_WRONLY | os.O_CREAT)
        os.dup2(silence, 1)
        os.dup2(silence, 2)
        status = 1
        try:
            status = run()
        finally:
            sys.stdout.flush()
            os._exit(status)
    end = time.monotonic() + limit
    done, status = 0, None
    try:
        while not done and time.monotonic() < end:
            time.sleep(0.02)
            done, status = os.waitpid(child, os.WNOHANG)
    finally:
        _kill_group(child)  # and what its tests started
        if not done:
            os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status) if done else None


def _kill_group(child: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
