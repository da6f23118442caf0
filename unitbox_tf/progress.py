"""A progress bar for long work."""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
import sys
from collections.abc import Iterable, Iterator
from typing import Any

_HIDDEN = contextvars.ContextVar("hidden", default=False)


@contextlib.contextmanager
def hidden() -> Iterator[None]:
    """While in the context, no bar is shown."""
    token = _HIDDEN.set(True)
    try:
        yield
    finally:
        _HIDDEN.reset(token)


def verbosity() -> int:
    """Keras' `verbose`: 1 shows a bar on a terminal, 2 prints a line for each epoch elsewhere, 0 shows nothing."""
    if _HIDDEN.get():
        return 0
    return 1 if sys.stdout.isatty() else 2


@dataclasses.dataclass(frozen=True)
class Progress:
    """The items of `items`. Each iteration shows a bar on standard error if that is a terminal."""

    items: Iterable[Any]
    title: str
    total: int | None

    def __iter__(self) -> Iterator[Any]:
        from rich.console import Console
        from rich.markup import escape
        from rich.progress import track

        bar = track(
            self.items,
            escape(self.title),
            total=self.total,
            console=Console(stderr=True),
            transient=True,
            disable=_HIDDEN.get() or not sys.stderr.isatty(),
        )
        return iter(bar)
