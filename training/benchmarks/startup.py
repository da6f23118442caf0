"""Programs from their start to their end: importing, `--help`, and a first detection in each format.

Each is a process of its own, and times are those of its processors. The base of the ratios is the import of TensorFlow.
"""

from __future__ import annotations

import functools
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from training.benchmarks.turns import quartiles, take_turns

IMPORT = "import tensorflow"
DETECT = "import sys, numpy, unitbox_tf; unitbox_tf.load(sys.argv[1])(numpy.zeros((480, 640, 3), numpy.uint8))"


def benchmark(models: list[str], *, rounds: int) -> dict[str, Any]:
    """Prints the table, and returns its numbers.

    Args:
        models: detectors as `unitbox_tf.load` takes them.
        rounds: of taking turns.
    """
    programs = {
        IMPORT: ["-c", "import tensorflow"],
        "Python alone": ["-c", ""],
        "import unitbox_tf": ["-c", "import unitbox_tf"],
        "unitbox --help": ["-m", "unitbox_tf", "--help"],
        **{f"first detection, {Path(model).name}": ["-c", DETECT, model] for model in models},
    }
    with tempfile.TemporaryFile() as quiet:
        variants: dict[str, Callable[[], object]] = {
            name: functools.partial(_run, words, quiet) for name, words in programs.items()
        }
        for run in variants.values():
            run()  # brings the files into memory
        seconds = take_turns(variants, rounds, clock=_children)
    rows = {}
    print(
        "| program | time by that of importing TensorFlow (quartiles) | seconds of processors |\n|---|---|---|"
    )
    for name, each in seconds.items():
        low, middle, high = ratio = quartiles(each, seconds[IMPORT])
        rows[name] = {"ratio": ratio, "cpu_seconds": float(np.median(each))}
        print(f"| {name} | {middle:.3f} ({low:.3f} to {high:.3f}) | {np.median(each):.2f} |")
    return {"rows": rows}


def _run(words: list[str], quiet: Any) -> None:
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    subprocess.run(
        [sys.executable, *words], check=True, stdout=quiet, stderr=quiet, env=environment
    )


def _children() -> float:
    """Seconds of processors that processes of this one have taken and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
