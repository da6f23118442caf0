"""Keeps the terminal free of the lines that TensorFlow writes when it starts.

Its libraries write about oneDNN, CUDA and the processor straight to file descriptor 2, before any log
level is looked at. So the descriptor leads to a temporary file while TensorFlow is imported and looks
for devices for the first time, and only then. If this fails, the content of the file is written out.
"""

from __future__ import annotations

import contextlib
import importlib.abc
import importlib.machinery
import importlib.util
import os
import sys
import tempfile
import types
from collections.abc import Iterator, Sequence

LIBRARY = "tensorflow"


def install() -> None:
    """Makes TensorFlow start quietly when it is imported later. Nothing is imported now."""
    # For the time when log levels count. TensorFlow logs errors, such as "oneDNN supports DT_UINT8 only ...",
    # where it only takes another way. Where it cannot go on, it raises an exception.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if LIBRARY not in sys.modules and not any(isinstance(f, _Finder) for f in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


class _Finder(importlib.abc.MetaPathFinder):
    """Finds TensorFlow as the other finders do, once, and gives it a quiet loader."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: types.ModuleType | None = None,
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != LIBRARY:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)
        return spec


class _Loader(importlib.abc.Loader):
    """Loads as another loader, quietly."""

    def __init__(self, loader: importlib.abc.Loader) -> None:
        self._loader = loader

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: types.ModuleType) -> None:
        if module.__spec__ is not None:  # from here on, it looks as if it had been loaded as usual
            module.__spec__.loader = module.__loader__ = self._loader
        with silent_unless_it_fails():
            self._loader.exec_module(module)
            module.config.list_physical_devices()


@contextlib.contextmanager
def silent_unless_it_fails() -> Iterator[None]:
    """Holds back output to file descriptor 2. If the context ends by an exception, the output is written."""
    with tempfile.TemporaryFile() as held:
        try:
            sys.stderr.flush()
            before = os.dup(2)
        except (AttributeError, OSError, ValueError):  # there is no standard error
            yield
            return
        try:
            os.dup2(held.fileno(), 2)
            try:
                yield
            finally:
                sys.stderr.flush()
                os.dup2(before, 2)
        except Exception:  # but not Ctrl-C, which is no failure
            held.seek(0)
            os.write(2, held.read())
            raise
        finally:
            os.close(before)
