"""The memory of this process, as Linux tells it."""

from __future__ import annotations

import ctypes
import functools
import gc
import os
from collections.abc import Callable
from pathlib import Path

_RESET = Path("/proc/self/clear_refs")


def resident() -> int:
    """The resident memory of this process in bytes, without garbage."""
    gc.collect()
    _trim()(0)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


def peak_above(run: Callable[[], object]) -> tuple[int, int]:
    """Bytes that are resident before `run`, and at most beyond them in it.

    Raises:
        ValueError: the system does not tell the peak.
    """
    if not os.access(_RESET, os.W_OK):
        raise ValueError(f"expected Linux with {_RESET}, which resets the peak of memory")
    before = resident()
    _RESET.write_text("5")
    run()
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    peak = dict(line.split(":", 1) for line in status.splitlines())["VmHWM"]
    return before, int(peak.split()[0]) * 1024 - before


@functools.cache
def _trim() -> Callable[[int], int]:
    """Gives free memory back to the system, where the C library can."""
    return getattr(ctypes.CDLL(None), "malloc_trim", lambda kept: 0)
