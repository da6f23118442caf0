"""Libraries that only some uses need: extras in setup.cfg."""

from __future__ import annotations

import importlib
import warnings
from typing import Any


def load(module: str, extra: str, use: str) -> Any:
    """The module of an optional library. If it is not installed, an `ImportError` says what `use` needs."""
    try:
        with warnings.catch_warnings():  # some libraries change the filters of the whole process
            return importlib.import_module(module)
    except ImportError as error:
        library = module.partition(".")[0]
        raise ImportError(f"{use} needs {library}: pip install 'unitbox_tf[{extra}]'") from error
