"""A file that lists finished inputs. It is valid at any moment, so that the next program can go on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

REMEDY = "Name another folder for the output, or begin anew there with restart (--restart)"


class Journal:
    """Rows of json. A row is added when an input is finished. The journal is a context manager.

    The first row has the settings. Each other row has at least `name`, the name of the input, and `file`,
    the name of the file written for it. If a name has several rows, the last one counts. A kill may cut
    off the last row; such a row is dropped. Memory holds the places of rows in the file, not the rows.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        """Opens the journal `path`, or begins it.

        Raises:
            ValueError: it has other settings, or is damaged. The message names the settings that differ.
        """
        settings = json.loads(json.dumps(settings))  # as the file gives them back
        self._places: dict[str, int] = {}
        self.files: set[str] = set()
        self._file = path.open("a+b")
        try:
            self._read(path, settings)
        except ValueError:
            self._file.close()
            raise

    def _read(self, path: Path, settings: Mapping[str, Any]) -> None:
        self._file.seek(0)
        end = 0
        for number, line in enumerate(self._file, 1):
            if not line.endswith(b"\n"):
                break
            try:
                row = json.loads(line)
                if number > 1:
                    self._places[row["name"]] = end
                    self.files.add(row["file"])
                else:
                    earlier = row["settings"]
            except (ValueError, TypeError, LookupError) as error:
                raise ValueError(f"{path}:{number}: damaged, or no journal. {REMEDY}") from error
            end += len(line)
        self._file.truncate(end)
        if not end:
            self._write({"settings": settings})
        elif earlier != settings:
            changes = (
                f"{name} was {earlier.get(name)}, is now {settings.get(name)}"
                for name in sorted({*earlier, *settings})
                if earlier.get(name) != settings.get(name)
            )
            raise ValueError(
                f"{path.parent}: the folder has results of other settings: {'; '.join(changes)}. {REMEDY}"
            )

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def get(self, name: str) -> dict[str, Any] | None:
        """The row of an input, None if it has none."""
        if name not in self._places:
            return None
        self._file.seek(self._places[name])
        row: dict[str, Any] = json.loads(self._file.readline())
        return row

    def add(self, row: Mapping[str, Any]) -> None:
        """Adds a row; it is in the file when this returns."""
        self._places[row["name"]] = self._write(row)
        self.files.add(row["file"])

    def _write(self, row: Mapping[str, Any]) -> int:
        place = self._file.seek(0, 2)
        self._file.write(json.dumps(row).encode() + b"\n")
        self._file.flush()
        return place


def discard(path: Path) -> None:
    """Deletes the files that a journal lists in its folder, and then the journal."""
    if not path.is_file():
        return
    for line in path.read_bytes().splitlines():
        try:
            name = Path(json.loads(line)["file"]).name  # in the folder, whatever stands there
        except (ValueError, TypeError, LookupError):  # the settings, or a row that was cut off
            continue
        (path.parent / name).unlink(missing_ok=True)
    path.unlink()
