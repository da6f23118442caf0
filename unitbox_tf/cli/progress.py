"""A bar for what takes long."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any


def with_progress(items: Iterable[Any], title: str, total: int | None) -> Iterable[Any]:
    """`items`, with a bar on standard error if that is a terminal."""
    from rich.console import Console
    from rich.progress import track

    quiet = not sys.stderr.isatty()
    console = Console(stderr=True)
    return track(items, title, total=total, console=console, transient=True, disable=quiet)
