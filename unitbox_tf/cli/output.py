"""Prints the result of a command: text for people, or one json object for programs."""

from __future__ import annotations

import contextlib
import contextvars
import json
import math
import sys
from collections.abc import Iterator, Mapping
from typing import Any, TextIO

from unitbox_tf.problems import printable_lines

_RESULT: contextvars.ContextVar[TextIO | None] = contextvars.ContextVar("result", default=None)


@contextlib.contextmanager
def json_alone() -> Iterator[None]:
    """Within the context, `show` prints json, and all other output goes to standard error."""
    token = _RESULT.set(sys.stdout)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        _RESULT.reset(token)


def show(result: Mapping[str, Any], text: str) -> None:
    """Prints the result of a command: `text`, or `result` within `json_alone`."""
    file = _RESULT.get()
    if file is None:
        print(printable_lines(text))
    else:
        print(json.dumps(_plain(result), allow_nan=False), file=file)


def _plain(value: Any) -> Any:
    """`value` for json: NaN becomes null, a path becomes text, and a NumPy number becomes Python's."""
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
