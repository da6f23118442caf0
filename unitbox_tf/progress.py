"""A bar for what takes long."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterable, Iterator
from typing import Any


@dataclasses.dataclass(frozen=True)
class Progress:
    """`items`, with a bar on standard error if that is a terminal: one each time that they are asked for."""

    items: Iterable[Any]
    title: str
    total: int | None

    def __iter__(self) -> Iterator[Any]:
        from rich.console import Console
        from rich.progress import track

        bar = track(
            self.items,
            self.title,
            total=self.total,
            console=Console(stderr=True),
            transient=True,
            disable=not sys.stderr.isatty(),
        )
        return iter(bar)
