"""Files: reading regular ones only, parts of them, writing that leaves a whole file or none, and locks of folders."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import re
import shutil
import stat
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import filelock

from unitbox_tf.limits import TooLarge

LOCK_FILE = ".lock"  # in a folder that one process at a time may write
_SPECIAL = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
    stat.S_IFDIR: "a folder",
}
ABANDONED = (
    24 * 3600.0
)  # seconds without a change after which nobody writes a partial file any more
_PARTIAL = re.compile(r"\.(partial|earlier)-[0-9a-f]{8}-(?P<whole>.+)")


class SpecialFile(OSError):
    """A path that is no regular file: a pipe or device would be waited for or read without end."""


def open_regular(path: str | Path) -> BinaryIO:
    """Opens a file to read its bytes. Nothing that is no regular file is read or waited for.

    Raises:
        SpecialFile: the path, or the file that it links to, is a folder, a named pipe, a device or a socket.
        OSError: there is no such file, links form a loop, or it cannot be opened.
    """
    _check_regular(path, os.stat(path))  # opening some devices does something
    # In case that the file was exchanged meanwhile: opening a pipe does not wait.
    file = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        _check_regular(path, os.fstat(file))
    except BaseException:
        os.close(file)
        raise
    return os.fdopen(file, "rb")


def _check_regular(path: str | Path, facts: os.stat_result) -> None:
    kind = stat.S_IFMT(facts.st_mode)
    if kind != stat.S_IFREG:
        raise SpecialFile(
            f"{path}: expected a regular file. Received: {_SPECIAL.get(kind, 'a special file')}"
        )


def read(path: str | Path, limit: int) -> bytes:
    """The bytes of a regular file of at most `limit` bytes.

    Raises:
        TooLarge: the file has more bytes, which are not read.
        OSError: see `open_regular`.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        content = (
            b"" if size > limit else file.read(size + 1)
        )  # allocates as much as it is asked for
    if max(size, len(content)) > limit:  # the file may have grown by a byte
        raise TooLarge(
            f"{path}: expected a file of at most {limit:,} bytes. Received: {max(size, len(content)):,} bytes"
        )
    return content


@contextlib.contextmanager
def locked(folder: str | Path, purpose: str) -> Iterator[None]:
    """Lets no other process enter `locked` for the same folder. The lock ends with the context, or with the process.

    Args:
        folder: an existing folder. The file `LOCK_FILE` stays in it.
        purpose: what this process does, for the message to another process: "trains in".

    Raises:
        ValueError: another process, or another context of this one, has the lock.
    """
    lock = filelock.FileLock(Path(folder) / LOCK_FILE, timeout=0, is_singleton=False)
    try:
        lock.acquire()
    except filelock.Timeout as error:
        raise ValueError(
            f"{folder}: another process {purpose} this folder. Wait until it has ended, or name another folder"
        ) from error
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def replacing(path: str | Path, *, durable: bool = False) -> Iterator[Path]:
    """A new path beside `path`. At the end of the context, it takes the place of `path`; after an error it is deleted.

    If a program is stopped at any moment, either the old file is there or the new one, and it is whole.
    A folder takes the place of a folder in two steps; between them, the old one has a hidden name. The
    caller makes a file or a folder at the new path. Its name is hidden and ends with the name of `path`,
    so that writers find the suffix. Folders above are made.

    Args:
        path: the file or folder to write.
        durable: True waits until the file is on the disk, so that it also outlives a power cut.

    Raises:
        OSError: the disk is full; or `path` is a folder and the caller made a file, or the other way round.
            Nothing is lost. The error names `path` if it named no file.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = _new_partial(path)
    try:
        yield partial
        if durable:
            _sync(partial)
        if partial.is_dir() and path.is_dir() and not path.is_symlink():
            _replace_folder(path, partial)
        else:  # which refuses to put a file in the place of a folder
            os.replace(partial, path)
        if durable:
            _sync(path.parent)
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise
    finally:
        _delete(partial)


def _sync(path: Path) -> None:
    """Waits until a file, or the list of names in a folder, is on the disk."""
    try:
        file = os.open(path, os.O_RDONLY)
    except OSError:
        if path.is_dir():  # which Windows does not open
            return
        raise
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _delete(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _replace_folder(path: Path, partial: Path) -> None:
    earlier = path.with_name(f".earlier-{uuid.uuid4().hex[:8]}-{path.name}")
    os.replace(path, earlier)
    try:
        os.replace(partial, path)
    except BaseException:
        os.replace(earlier, path)
        raise
    shutil.rmtree(earlier)


def _new_partial(path: Path) -> Path:
    return path.with_name(f".partial-{uuid.uuid4().hex[:8]}-{path.name}")


def whole_name(partial: Path) -> str | None:
    """The name of the file that `partial` was to become, or was; None if it is not from `replacing`."""
    match = _PARTIAL.fullmatch(partial.name)
    return match["whole"] if match else None


def remove_partial(folder: Path) -> None:
    """Deletes the partial files that a killed program left in `folder`. No other program may write there meanwhile."""
    for path in list(folder.iterdir()):
        if whole_name(path) is not None:
            _clear(path)


def remove_abandoned(path: Path) -> list[Path]:
    """Deletes what killed programs left while they wrote `path`, and returns the paths that are gone.

    Partial files and folders in which nothing changed for `ABANDONED` seconds are left behind: no program takes
    so long from one write to the next. Younger ones may still be written, and stay.
    """
    if not path.parent.is_dir():
        return []
    found = [each for each in path.parent.iterdir() if whole_name(each) == path.name]
    old = [each for each in found if time.time() - _last_change(each) > ABANDONED]
    for each in old:
        _clear(each)
    return old


def _clear(path: Path) -> None:
    """Deletes a partial file. A folder that was put aside for a new one comes back if the new one never came."""
    whole = path.with_name(whole_name(path) or "")
    if path.name.startswith(".earlier-") and not whole.exists():
        os.replace(path, whole)
    else:
        _delete(path)


def _last_change(path: Path) -> float:
    """The time of the last change of a file, or of anything in a folder."""
    return max(each.lstat().st_mtime for each in (path, *path.rglob("*")))


def write(path: str | Path, content: bytes | str, *, durable: bool = False) -> None:
    """Writes a whole file, text as UTF-8. An earlier file is replaced. For `durable` and errors see `replacing`."""
    with replacing(path, durable=durable) as partial:
        partial.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)


def digest(path: str | Path) -> str:
    """SHA-256, in hexadecimal, of a file; for a folder, of the contents of all its files, sorted by path."""
    path, total = Path(path), hashlib.sha256()
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file():
            with file.open("rb") as content:
                while block := content.read(1 << 20):
                    total.update(block)
    return total.hexdigest()


@dataclasses.dataclass(frozen=True)
class Part:
    """Bytes in the middle of a file: an image that lies in a shard with others."""

    path: Path
    offset: int
    length: int

    def read(self) -> bytes:
        """The bytes. Raises `OSError` if the file cannot be read or is too short."""
        with open_regular(self.path) as file:
            file.seek(self.offset)
            content = file.read(self.length)
            while len(content) < self.length:  # one call may return fewer
                more = file.read(self.length - len(content))
                if not more:
                    raise OSError(
                        f"{self.path}: expected {self.length} bytes at byte {self.offset}, "
                        f"the file ends after {len(content)}"
                    )
                content += more
        return content
