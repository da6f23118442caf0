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
        came: True once one has come.
        status: the exit status of a command that was interrupted.
    """

    came: bool = False
    status: int = INTERRUPTED

    def end(self, number: int, _frame: Any) -> None:
        """Raises `KeyboardInterrupt`: the handler of SIGTERM and Ctrl-C."""
        self.came, self.status = True, 128 + number
        raise KeyboardInterrupt


@contextlib.contextmanager
def handled(received: Received) -> Iterator[None]:
    """Within the context, SIGTERM raises `KeyboardInterrupt` in the main thread, as Ctrl-C does.

    Where code in C imports a module, `KeyboardInterrupt` arrives as an ImportError or SystemError. After a signal, such
    an error leaves the context as `KeyboardInterrupt`. All other errors stay what they are: storing may have failed.

    A program that was started with one of the two signals ignored goes on ignoring it. In other threads, in which
    Python allows no handlers, nothing changes.
    """
    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            handler = signal.getsignal(number)
            if handler not in (signal.SIG_IGN, None):  # None was not installed by Python
                before[number] = handler
                signal.signal(number, received.end)
    try:
        yield
    except (ImportError, SystemError) as error:
        if received.came:
            raise KeyboardInterrupt from error
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if received.came:
            # Where the signal came within `exec` of a text, as namedtuple and modules of TensorFlow use it,
            # `python -m` would kill itself with SIGINT at its end, although the error was handled. The interpreter
            # forgets that when it runs another text.
            eval("None")
