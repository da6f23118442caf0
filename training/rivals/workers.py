"""Detectors in interpreters of their own, each of which answers through a pipe.

Each of the others gets a virtual environment with pinned versions, so that none has to fit the
requirements of another.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from training import outputs
from training.rivals.catalogue import Rival

STAMP = "pins.json"  # in an environment that is complete: what it was made of


class RivalError(Exception):
    """A detector cannot be installed or has stopped: it is absent, and the others go on."""


def interpreter(
    rival: Rival, folder: Path, call: Callable[..., Any] = subprocess.run
) -> tuple[str, ...]:
    """The command of the Python that has the packages of `rival`; makes its environment below `folder`.

    An environment that is complete and has the same pins is used again; any other is made anew.

    Args:
        rival: without requirements, the interpreter is that of this program.
        folder: of all environments.
        call: runs a command, as `subprocess.run` does.

    Raises:
        RivalError: an environment cannot be made; the message is the end of what pip says.
    """
    if not (rival.requirements or rival.alone):
        return (sys.executable,)
    home = folder / rival.detector
    pins = {
        "python": ".".join(map(str, sys.version_info[:2])),
        "requirements": list(rival.requirements),
        "alone": list(rival.alone),
    }
    # -I: neither this project nor the user's packages are found in there.
    python = str(home / ("Scripts/python.exe" if os.name == "nt" else "bin/python")), "-I"
    stamp = home / STAMP
    if stamp.is_file() and json.loads(stamp.read_text(encoding="utf-8")) == pins:
        return python
    if home.exists():
        shutil.rmtree(home)
    pip = [*python, "-m", "pip", "--disable-pip-version-check", "--no-input", "install", "--quiet"]
    commands = [[sys.executable, "-m", "venv", str(home)]]
    commands += [[*pip, *rival.requirements]] if rival.requirements else []
    commands += [[*pip, "--no-deps", *rival.alone]] if rival.alone else []
    for command in commands:
        try:
            call(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        except (OSError, subprocess.CalledProcessError) as error:
            said = getattr(error, "output", None) or str(error)
            raise RivalError(f"cannot be installed: {_end(said, 2)}") from error
    outputs.write_json(stamp, pins)
    return python


def _end(text: str, count: int) -> str:
    """The last `count` lines that are not empty, in one."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " / ".join(lines[-count:])


class Worker:
    """A detector in a process of its own, asked for one image after the other.

    Attributes:
        versions: `python`, and `packages` by name: all that its interpreter has.
    """

    def __init__(
        self, python: Sequence[str], rival: Rival, settings: Mapping[str, Any], log: Path
    ) -> None:
        """Starts the process and waits until the detector is loaded.

        Args:
            python: command of an interpreter that has the detector.
            rival: the detector.
            settings: with which it is run.
            log: file of what it prints.

        Raises:
            RivalError: it cannot be loaded.
        """
        self._log = log
        # Processors are compared, and no two of these packages would meet the same graphics card.
        environment = os.environ | {"CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "2"}
        with log.open("w", encoding="utf-8") as file:
            try:
                self._process = subprocess.Popen(
                    [*python, str(rival.script), rival.detector, json.dumps(settings)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=file,
                    text=True,
                    encoding="utf-8",
                    env=environment,
                )
            except OSError as error:
                raise RivalError(f"{python[0]}: cannot be run: {error}") from error
        try:
            self.versions = self._answer()
        except BaseException:  # Ctrl-C while the detector is loaded
            self._process.kill()
            self.close()
            raise

    def detect(self, photo: Path) -> tuple[list[list[float]], float]:
        """Rows `x, y, width, height, score`, in pixels of the image, and the seconds that they took.

        Raises:
            RivalError: the process has ended; it is not to be asked again.
        """
        with contextlib.suppress(OSError):  # it has ended: why, the missing answer says
            print(json.dumps({"photo": str(photo)}), file=self._pipe("stdin"), flush=True)
        found = self._answer()
        return found["rows"], found["seconds"]

    def close(self) -> None:
        """Ends the process."""
        for name in ("stdin", "stdout"):
            with contextlib.suppress(OSError):  # what it no longer reads
                self._pipe(name).close()
        self._process.wait()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _answer(self) -> dict[str, Any]:
        line = self._pipe("stdout").readline()
        if not line:
            self.close()
            said = self._log.read_text(encoding="utf-8", errors="replace")
            raise RivalError(f"stopped with status {self._process.returncode}: {_end(said, 1)}")
        return json.loads(line)

    def _pipe(self, name: str) -> TextIO:
        return getattr(self._process, name)
