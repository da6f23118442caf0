"""Calls functions in a new process, in which nothing was imported or traced before."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")


def call_apart(function: Callable[..., T], *arguments: Any) -> T:
    """Returns the result of the function in a new process; its errors are raised here.

    The process ends with this one when a signal interrupts it.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(function, *arguments).result()
        except KeyboardInterrupt:
            for process in multiprocessing.active_children():  # or the pool would wait for it
                process.terminate()
            raise
