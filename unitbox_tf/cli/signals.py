"""SIGTERM ends a command as Ctrl-C does: what it has begun is stored or deleted, and its processes end."""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import threading
from collections.abc import Iterator
from typing import Any

# The exit statuses after Ctrl-C and SIGTERM, as shells have them.
INTERRUPTED, TERMINATED = 130, 143


@dataclasses.dataclass
class Received:
    """The signals that have come from outside.

    Attributes:
        came: True once one has come. What fails from then on may fail because of it: where code in C imports a module,
            `KeyboardInterrupt` arrives as another error.
        status: the exit status of a command that was interrupted.
    """

    came: bool = False
    status: int = INTERRUPTED

    def end(self, number: int, _frame: Any) -> None:
        """Raises `KeyboardInterrupt`: the handler of SIGTERM and Ctrl-C."""
        self.came, self.status = True, 128 + number
        raise KeyboardInterrupt


@contextlib.contextmanager
def handled() -> Iterator[Received]:
    """Within the context, SIGTERM raises `KeyboardInterrupt` in the main thread, as Ctrl-C does.

    A program that was started with one of the two ignored goes on ignoring it. In other threads, in which Python allows
    no handlers, nothing changes.
    """
    received = Received()
    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    before = {
        number: handler
        for number, handler in before.items()
        if handler not in (signal.SIG_IGN, None)
    }
    for number in before:
        signal.signal(number, received.end)
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
