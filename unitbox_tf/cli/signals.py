"""SIGTERM ends a command as Ctrl-C does: what it has begun is stored or deleted, and its processes end."""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import threading
from collections.abc import Iterator
from typing import Any

INTERRUPTED, TERMINATED = (
    130,
    143,
)  # the exit statuses after Ctrl-C and SIGTERM, as shells have them


@dataclasses.dataclass
class Received:
    """The signals that have come from outside.

    Attributes:
        status: the exit status of a command that was interrupted.
    """

    status: int = INTERRUPTED

    def end(self, *_: Any) -> None:
        """Raises `KeyboardInterrupt`, as Ctrl-C does: the handler of SIGTERM."""
        self.status = TERMINATED
        raise KeyboardInterrupt


@contextlib.contextmanager
def handled() -> Iterator[Received]:
    """Within the context, SIGTERM raises `KeyboardInterrupt` in the main thread.

    A program that was started with SIGTERM ignored goes on ignoring it. In other threads, in which Python allows no
    handlers, nothing changes.
    """
    received = Received()
    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    before = signal.getsignal(signal.SIGTERM)
    if before is not signal.SIG_IGN:
        signal.signal(signal.SIGTERM, received.end)
    try:
        yield received
    finally:
        signal.signal(signal.SIGTERM, before)
