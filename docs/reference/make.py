"""Writes the reference of all public names, from their docstrings, as HTML: `make docs`.

    python docs/reference/make.py [FOLDER]

A page a module, from the ground floor up: the order of `[tool.importlinter]` in pyproject.toml. What pdoc
warns of, such as a type that cannot be resolved, is an error.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import os
import sys
import types
import typing
import warnings
from collections.abc import Sequence
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
    """Writes pages of the package `names[0]` and its modules, in this order, and their index into `folder`.

    Raises:
        UserWarning: pdoc warned, or imported something that did.
    """
    pdoc.render.configure(docformat="google", template_directory=HERE)
    # pdoc looks only at names that are there already, and the package loads its own when they are used.
    package = importlib.import_module(names[0])
    for name in getattr(package, "__all__", ()):
        setattr(package, name, getattr(package, name))
    for name in pdoc.extract.walk_specs(names):
        _resolve_named_tuples(importlib.import_module(name))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        pdoc.pdoc(*names, output_directory=folder)


def _resolve_named_tuples(module: types.ModuleType) -> None:
    """Their constructors name types as text, and have no module in which pdoc could look them up."""
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
