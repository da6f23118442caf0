"""Reads json files that come from elsewhere, whose size, depth and number of values have limits."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from unitbox_tf import files, limits


def read(path: Path, object_hook: Callable[[dict[str, Any]], Any] | None = None) -> Any:
    """The content of a json file in UTF-8.

    Memory holds the file, its text, and what `object_hook` makes of its objects.

    Raises:
        ValueError: the file is no json, or has more bytes, values or depth than `limits` allow. The message
            names the file, and the line where it is known.
        OSError: it cannot be read, or is no regular file.
    """
    return parse(files.read(path, limits.MAX_ANNOTATION_BYTES), str(path), object_hook)


def parse(
    raw: bytes, where: str, object_hook: Callable[[dict[str, Any]], Any] | None = None
) -> Any:
    """The content of a json text in UTF-8. `where` names its file in messages. See `read`."""
    values = raw.count(b"[") + raw.count(b"{")
    if values > limits.MAX_VALUES:
        raise limits.TooLarge(
            f"{where}: expected at most {limits.MAX_VALUES:,} objects and lists. Received: {values:,}"
        )
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"{where}:{line}: not valid JSON: expected UTF-8, received 0x{raw[error.start]:02x}"
        ) from error
    del raw
    try:
        return json.loads(text, object_hook=object_hook)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{where}:{error.lineno}: not valid JSON: {error.msg} at column {error.colno}"
        ) from error
    except RecursionError as error:
        raise ValueError(
            f"{where}: not valid JSON: lists and objects in each other too often"
        ) from error
    except ValueError as error:  # numbers of 5,000 digits
        reason = str(error).partition(";")[0]  # and not how to change Python
        raise ValueError(f"{where}: not valid JSON: {reason}") from error
