"""Writes the reference of all public names, from their docstrings, as HTML: `make docs`.

    python docs/reference/make.py [FOLDER]

Each module has a page. Their order is that of `[tool.importlinter]` in pyproject.toml, the lowest floor first.
A warning of pdoc, such as a type that cannot be resolved, is an error.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import os
import pkgutil
import sys
import types
import typing
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import pdoc

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

HERE = Path(__file__).parent
ROOT = HERE.parents[1]

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


def modules(pyproject: Path) -> list[str]:
    """Names of the package and of its modules, the lowest floor first."""
    linter = tomllib.loads(pyproject.read_text(encoding="utf-8"))["tool"]["importlinter"]
    package = linter["root_package"]
    [layers] = [each["layers"] for each in linter["contracts"] if each["type"] == "layers"]
    names = [name.strip() for floor in reversed(layers) for name in floor.split("|")]
    return [package, *(f"{package}.{name}" for name in names)]


def make(names: Sequence[str], folder: Path) -> None:
    """Writes a page for each module, and an index, into `folder`.

    Args:
        names: the package, then its modules, in the order of the index.
        folder: to write.

    Raises:
        UserWarning: pdoc warned, or a module that it imported did.
    """
    pdoc.render.configure(docformat="google", template_directory=HERE)
    # The package loads its names when they are used, and pdoc sees only those that are loaded.
    package = importlib.import_module(names[0])
    for name in getattr(package, "__all__", ()):
        setattr(package, name, getattr(package, name))
    names = [names[0], *(each for name in names[1:] for each in _with_hidden(name))]
    for name in pdoc.extract.walk_specs(names):
        _resolve_named_tuples(importlib.import_module(name))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        pdoc.pdoc(*names, output_directory=folder)


def _with_hidden(name: str) -> Iterator[str]:
    """The module, and those below it that pdoc would leave out: it sees only the modules in a package's `__all__`."""
    yield name
    seen = pdoc.extract.walk_specs([name])
    for found in pkgutil.iter_modules(getattr(importlib.import_module(name), "__path__", ())):
        if f"{name}.{found.name}" not in seen:
            yield f"{name}.{found.name}"


def _resolve_named_tuples(module: types.ModuleType) -> None:
    """Turns the types in constructors of named tuples from text into objects.

    pdoc would look the text up in the constructor's module, but these constructors have none.
    """
    for value in vars(module).values():
        if inspect.isclass(value) and value.__module__ == module.__name__:
            if issubclass(value, tuple) and hasattr(value, "_fields"):
                value.__new__.__annotations__.update(typing.get_type_hints(value))


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "folder", type=Path, nargs="?", default=ROOT / "build" / "reference", help="to write"
    )
    folder = parser.parse_args().folder
    make(modules(ROOT / "pyproject.toml"), folder)
    print(f"reference written to {folder / 'index.html'}")


if __name__ == "__main__":
    main()
