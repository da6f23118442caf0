"""The machine and the versions of a measurement. Ratios of different ones are not compared."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

CPU_INFO = Path("/proc/cpuinfo")
LIBRARIES = (
    "tensorflow",
    "keras",
    "numpy",
    "onnxruntime",
    "openvino",
    "ai-edge-litert",
    "opencv-python-headless",
)


def environment() -> dict[str, Any]:
    """The processor, the number of processors that this process may use, and versions of Python and libraries."""
    return {
        "processor": _processor(),
        "processors": _usable(),
        "system": platform.system(),
        "python": platform.python_version(),
        **{name: version for name in LIBRARIES if (version := _version(name))},
    }


def _usable() -> int:
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _processor() -> str:
    if CPU_INFO.is_file():
        for line in CPU_INFO.read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
