"""A file that lists finished inputs. It is valid at any moment, so that the next program can go on."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from unitbox_tf import files

REMEDY = "Name another folder for the output, or begin anew there with restart (--restart)"
LONGEST_ROW = 1 << 26  # bytes; 10,000 detections with names of classes have less than 2 MB
LONGEST_NAME = 255  # bytes in the name of a file, of most file systems


class Journal:
    """Rows of json. A row is added when an input is finished. The journal is a context manager.

    The first row has the settings. Each other row has at least `name`, the name of the input, and `file`,
    the name of the file written for it. If a name has several rows, the last one counts. A kill may cut
    off the last row; such a row is dropped. Memory holds the places of rows in the file, not the rows.

    Attributes:
        files: the names of the files written for inputs. They are names of files in the journal's folder.
    """

    def __init__(
        self, path: Path, settings: Mapping[str, Any], reserved: frozenset[str] = frozenset()
    ) -> None:
        """Opens the journal `path`, or begins it. `reserved` are names that no file of an input has.

        Raises:
            ValueError: it has other settings, or is damaged: a row may name a file elsewhere. The message names
                the settings that differ.
            OSError: it is a link, or no regular file, or cannot be written.
        """
        settings = json.loads(json.dumps(settings))  # as the file gives them back
        self._places: dict[str, int] = {}
        self._reserved = reserved
        self.files: set[str] = set()
        if path.is_symlink():
            raise files.SpecialFile(f"{path}: expected a regular file. Received: a link")
        if os.path.lexists(path):
            files.open_regular(path).close()
        self._file = path.open("a+b")
        try:
            self._read(path, settings)
        except (ValueError, OSError):
            with contextlib.suppress(OSError):  # the disk is full
                self._file.close()
            raise

    def _read(self, path: Path, settings: Mapping[str, Any]) -> None:
        self._file.seek(0)
        end = number = 0
        earlier: Any = None
        while (line := self._file.readline(LONGEST_ROW)).endswith(b"\n"):
            number += 1
            try:
                row = json.loads(line)
                if number > 1:
                    self._learn(row, end)
                else:
                    earlier = dict(row["settings"])
            except (ValueError, TypeError, LookupError, RecursionError) as error:
                raise ValueError(f"{path}:{number}: damaged, or no journal. {REMEDY}") from error
            end += len(line)
        if len(line) == LONGEST_ROW:
            raise ValueError(f"{path}:{number + 1}: damaged, or no journal. {REMEDY}")
        self._file.truncate(end)
        if not end:
            self._write({"settings": settings})
        else:
            check_settings(path.parent, earlier, settings)

    def _learn(self, row: Mapping[str, Any], place: int) -> None:
        """Takes up a row of the file. Raises `ValueError` or `LookupError` for an unusable one."""
        name, file = row["name"], row["file"]
        if not isinstance(name, str) or not is_plain(file) or file in self._reserved:
            raise ValueError(f"expected the name of an input and of a file, received {row!r:.200}")
        self._places[name] = place
        self.files.add(file)

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *error: object) -> None:
        with self._named():
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
        with self._named():
            self._file.write(json.dumps(row).encode() + b"\n")
            self._file.flush()
        return place

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        """Gives the name of the journal to an error such as that of a full disk, which has none."""
        try:
            yield
        except OSError as error:
            error.filename = error.filename or self._file.name
            raise


def check_settings(folder: object, earlier: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Raises `ValueError` that names the settings in which earlier results in `folder` differ from new ones.

    Args:
        folder: for the message.
        earlier: the settings as json gave them back.
        settings: the new settings, of values that json can hold.
    """
    settings = json.loads(json.dumps(settings))
    if earlier == settings:
        return
    changes = (
        f"{name} was {earlier.get(name)}, is now {settings.get(name)}"
        for name in sorted({*earlier, *settings})
        if earlier.get(name) != settings.get(name)
    )
    raise ValueError(
        f"{folder}: the folder has results of other settings: {'; '.join(changes)}. {REMEDY}"
    )


def is_plain(name: object) -> bool:
    """True if `name` is the name of a file in a folder, and leads nowhere else."""
    if not isinstance(name, str) or name.startswith(".") or any(s in name for s in "/\\:\0"):
        return False
    try:
        return 0 < len(os.fsencode(name)) <= LONGEST_NAME
    except UnicodeEncodeError:  # half a character
        return False


def discard(path: Path, reserved: frozenset[str] = frozenset()) -> None:
    """Deletes the files that a journal lists in its folder, and then the journal. Other files stay.

    Args:
        path: the journal. It may be damaged.
        reserved: names that no file of an input has.

    Raises:
        OSError: a file cannot be deleted.
    """
    if path.is_symlink() or not path.is_file():
        path.unlink(missing_ok=True)
        return
    with files.open_regular(path) as file:
        for line in iter(lambda: file.readline(LONGEST_ROW), b""):
            try:
                name = json.loads(line)["file"]
            except (ValueError, TypeError, LookupError, RecursionError):  # settings, or cut off
                continue
            if is_plain(name) and name not in reserved:
                written = path.parent / name
                also = [written.with_suffix(".json")] if written.suffix == ".mp4" else []
                for each in (written, *also):
                    if each.is_symlink() or not each.is_dir():  # a folder is not ours
                        each.unlink(missing_ok=True)
    path.unlink()
