"""Helpers that the command lines of all sub-packages share."""

from __future__ import annotations

import argparse
import logging
import os
import pkgutil
from collections.abc import Mapping
from typing import Any

from unitbox_tf.cli import signals


def parser_of(module: str, description: str | None) -> argparse.ArgumentParser:
    """The parser of `python -m module`."""
    return argparse.ArgumentParser(
        prog=f"python -m {module}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def call(
    parser: argparse.ArgumentParser,
    function: str,
    options: Mapping[str, Any],
    level: int = logging.INFO,
) -> Any:
    """Calls a function, written `module:name`, with the options as keywords, and returns what it returns.

    The module is imported here, so that `--help` and wrong options are answered at once. Where the function
    fails, the program ends with status 1 and the message; after Ctrl-C with 130, after SIGTERM with 143.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    logging.basicConfig(level=level, format="%(message)s")
    received = signals.Received()
    try:
        with signals.handled(received):
            return pkgutil.resolve_name(function)(**options)
    except (ValueError, OSError, ImportError) as error:  # the last names what to install
        parser.exit(1, f"{parser.prog}: error: {error}\n")
    except KeyboardInterrupt:
        parser.exit(received.status, f"{parser.prog}: interrupted\n")
