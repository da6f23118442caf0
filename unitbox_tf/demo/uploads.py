"""Uploads of visitors: bounded in size and number, deleted when they are read, in a folder that is deleted, too."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import stat
import tempfile
import threading
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import BinaryIO

from unitbox_tf import files, limits

PREFIX = "unitbox-demo-"  # of the folders, in the system's folder for temporary files


class Full(Exception):
    """There is no room for another upload."""


class Uploads:
    """Uploads in a folder. Threads may use it at the same time.

    Attributes:
        largest: most bytes of an upload.
        total: most bytes on the disk, of uploads that arrive and that wait.
    """

    def __init__(self, folder: Path, largest: int) -> None:
        """`folder` exists, and only this user can read it."""
        self.folder, self.largest = folder, largest
        self.total = max(limits.MAX_UPLOAD_BYTES, 4 * largest)
        self._kept: dict[str, tuple[int, float]] = {}  # bytes and time of arrival, by path
        self._arriving = 0
        self._lock = threading.Lock()

    @property
    def used(self) -> int:
        """Bytes on the disk, at most."""
        return self._arriving + sum(size for size, _ in self._kept.values())

    @contextlib.contextmanager
    def room(self, size: int) -> Iterator[None]:
        """Keeps room for an upload of at most `size` bytes while it arrives. It is on the disk twice when it is copied.

        Raises:
            Full: there is none.
        """
        with self._lock:
            if self.used + 2 * size > self.total:
                raise Full
            self._arriving += 2 * size
        try:
            yield
        finally:
            with self._lock:
                self._arriving -= 2 * size

    def keep(self, name: str, content: BinaryIO) -> Path:
        """Writes an upload, and returns its path. `name` is what the visitor calls it."""
        folder = self.folder / secrets.token_hex(16)
        folder.mkdir()
        path = folder / _harmless(name)
        try:
            with path.open("xb") as file:
                shutil.copyfileobj(content, file)
                size = file.tell()
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        with self._lock:
            self._kept[str(path)] = size, time.monotonic()
        return path

    def take(self, path: str) -> tuple[str, bytes]:
        """The name and the bytes of an upload, which is deleted.

        Raises:
            LookupError: `path` is none that `keep` returned, or was taken before.
        """
        with self._lock:
            if self._kept.pop(path, None) is None:
                raise LookupError(path)
        try:
            return Path(path).name, Path(path).read_bytes()
        finally:
            shutil.rmtree(Path(path).parent, ignore_errors=True)

    def forget(self, waiting: Collection[str]) -> None:
        """Deletes the uploads that nobody waits for: those that came a while ago and are not in `waiting`."""
        before = time.monotonic() - limits.UPLOAD_SECONDS
        with self._lock:
            old = [path for path, (_, came) in self._kept.items() if came < before]
            gone = [path for path in old if path not in waiting]
            for path in gone:
                del self._kept[path]
        for path in gone:
            shutil.rmtree(Path(path).parent, ignore_errors=True)


def _harmless(name: str) -> str:
    """The last part of a name, without characters that mean something to a file system, and not too long."""
    last = name.replace("\\", "/").rpartition("/")[2]
    kept = "".join(sign for sign in last if sign.isprintable() and sign not in '<>:"|?*')
    while len(kept.encode("utf-8", "replace")) > 200:
        kept = kept[1:]  # the suffix stays
    kept = kept.encode("utf-8", "replace").decode()
    return kept if kept.strip(". ") else "image"


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder that only this user can read; it is deleted at the end. Those that killed programs left go first."""
    remove_abandoned()
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        # Until it is locked, another program may take the new folder for an abandoned one.
        with contextlib.ExitStack() as stack:
            try:
                made = folder.stat()
                stack.enter_context(files.locked(folder, "serves a page from"))
                stack.callback(shutil.rmtree, folder, ignore_errors=True)
                locked = (folder / files.LOCK_FILE).exists()
                if not (locked and os.path.samestat(made, folder.stat())):
                    continue
            except (ValueError, OSError):
                continue
            yield folder
            return


def remove_abandoned() -> None:
    """Deletes the folders of this user's programs that have ended without doing so: by SIGKILL, or with the machine."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError, ValueError):  # gone meanwhile, or in use
            facts = folder.lstat()
            ours = not hasattr(os, "getuid") or facts.st_uid == os.getuid()
            if stat.S_ISDIR(facts.st_mode) and ours:
                with files.locked(folder, "serves a page from"):
                    shutil.rmtree(folder, ignore_errors=True)
