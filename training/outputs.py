"""Writes the files of experiments and measurements, each whole or not at all."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unitbox_tf import files

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def write_json(path: Path, content: Any) -> None:
    """Writes json for people: indented, with a line break at its end."""
    files.write(path, json.dumps(content, indent=1) + "\n")


def write_csv(path: Path, head: Iterable[str], rows: Iterable[Iterable[Any]]) -> None:
    """Writes a table whose first line is `head`."""
    with (
        files.replacing(path) as partial,
        partial.open("w", encoding="utf-8", newline="") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(head)
        writer.writerows(rows)


def write_figure(path: Path, figure: Figure, dpi: int = 120) -> None:
    """Writes a figure; the suffix of `path` gives the format."""
    with files.replacing(path) as partial:
        figure.savefig(partial, dpi=dpi)
