"""SIGTERM ends a command as Ctrl-C does: what it has begun is stored or deleted, and its processes end."""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType

# The exit statuses after Ctrl-C and SIGTERM, as shells have them.
INTERRUPTED, TERMINATED = 130, 143
AGAIN = 0.05  # seconds after which a signal that came within an import comes again
LONGEST_IMPORT = 60.0  # seconds; then a signal ends the import, too
# C code calls these modules and may swallow their errors: imports, and `isinstance` with abstract classes.
UNSAFE = frozenset(["importlib._bootstrap", "abc"])


@dataclasses.dataclass
class Received:
    """The signals that have come from outside.

    Attributes:
        came: True once one has come.
        status: the exit status of a command that was interrupted.
    """

    came: bool = False
    status: int = INTERRUPTED
    _first: float = 0.0  # when the first came, by the clock of `time.monotonic`
    _waiting: threading.Timer | None = None

    def end(self, number: int, frame: FrameType | None) -> None:
        """Raises `KeyboardInterrupt`: the handler of SIGTERM and Ctrl-C.

        It waits for the end of an import, and of `isinstance` with an abstract class. Modules in C swallow errors
        while they are imported, as those of `numpy.random` do, or turn them into errors of their own. TensorFlow does
        so while it looks at the structure of arguments.
        """
        if not self.came:
            self.came, self._first = True, time.monotonic()
        self.status = 128 + number
        self.forget()
        if _is_unsafe(frame) and time.monotonic() - self._first < LONGEST_IMPORT:
            thread = threading.get_ident()
            self._waiting = threading.Timer(AGAIN, signal.pthread_kill, [thread, number])
            self._waiting.daemon = True
            self._waiting.start()
            return
        raise KeyboardInterrupt

    def forget(self) -> bool:
        """Lets no signal come again. True if one was to come."""
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.cancel()
        return waiting is not None


def _is_unsafe(frame: FrameType | None) -> bool:
    """True if `frame`, or one of those that called it, is in a module of `UNSAFE`."""
    while frame is not None:
        if frame.f_globals.get("__name__") in UNSAFE:
            return True
        frame = frame.f_back
    return False


@contextlib.contextmanager
def handled(received: Received) -> Iterator[None]:
    """Within the context, SIGTERM raises `KeyboardInterrupt` in the main thread, as Ctrl-C does.

    Code in C may turn `KeyboardInterrupt` into an ImportError or SystemError. After a signal, such an error leaves the
    context as `KeyboardInterrupt`. All other errors stay what they are: storing may have failed.

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
        if received.forget():
            raise KeyboardInterrupt
    except (ImportError, SystemError) as error:
        if received.came:
            raise KeyboardInterrupt from error
        raise
    finally:
        received.forget()
        for number, handler in before.items():
            signal.signal(number, handler)
        if received.came:
            # Where the signal came within `exec` of a text, as namedtuple and modules of TensorFlow use it,
            # `python -m` would kill itself with SIGINT at its end, although the error was handled. The interpreter
            # forgets that when it runs another text.
            eval("None")
