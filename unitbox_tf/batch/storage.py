"""Files that a job reads and writes: on this machine by Python, and elsewhere by Apache Beam's file systems.

A name such as `gs://bucket/photos/a.jpg` is elsewhere. Apache Beam opens it if the user has installed Beam's extra
for it (`pip install 'apache-beam[gcp]'`, `[aws]`, `[azure]`). Any other name is a path of this machine.
"""

from __future__ import annotations

import glob
import logging
import os
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from unitbox_tf import files, images, inputs, optional
from unitbox_tf.limits import TooLarge

LIST_PREFIX = "@"  # before the name of a list of photos
MAX_OWN_FILE = 1 << 34  # bytes of a file of the job, which it wrote itself


def is_remote(name: str) -> bool:
    """True if `name` is the address of a file that is not on this machine."""
    return inputs.URL.match(name) is not None and not Path(name).exists()


def beam(part: str = "") -> Any:
    """Apache Beam, or a module of it, such as ".io". Raises `ImportError` if it is not installed."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)  # it warns about parts of its own extras that nobody asked for
    try:
        return optional.load(f"apache_beam{part}", "beam", "unitbox detect --runner")
    finally:
        logging.disable(level)


def beam_options(options: Sequence[str]) -> Any:
    """Beam's `PipelineOptions` of options such as "--flink_master=localhost:8081". File systems take theirs from it."""
    found = beam(".options.pipeline_options").PipelineOptions(list(options))
    _systems().set_options(found)
    return found


def _systems() -> Any:
    """Beam's file systems."""
    return beam(".io.filesystems").FileSystems


def _plain() -> dict[str, Any]:
    """Reads and writes the bytes as they are. Otherwise, a suffix such as `.gz` would change them."""
    return {"compression_type": beam(".io.filesystem").CompressionTypes.UNCOMPRESSED}


def read_remote(name: str, limit: int) -> bytes:
    """The bytes of a remote file of at most `limit` bytes.

    Raises:
        TooLarge: the file has more bytes.
        OSError: it cannot be read.
        ValueError: the file system is unknown, or Beam's extra for it is not installed.
    """
    with _systems().open(name, **_plain()) as file:
        content: bytes = file.read(limit + 1)
    if len(content) > limit:
        raise TooLarge(f"expected a file of at most {limit:,} bytes. Received: a longer one")
    return content


def find_remote(name: str) -> list[str]:
    """The names of the photos that a remote file, folder or pattern stands for, sorted.

    As on this machine, a folder stands for the photos in it and below it, by their suffixes.

    Raises:
        ValueError: there is none, or the file system is unknown.
        OSError: it cannot be listed.
    """
    if _is_photo(name) and not glob.has_magic(name):
        return [name]  # an absent file, too: its reader will say so
    pattern = name if glob.has_magic(name) else f"{name.rstrip('/')}/**"
    [match] = _systems().match([pattern])
    found = sorted(each.path for each in match.metadata_list)
    if pattern != name:
        found = [path for path in found if _is_photo(path)]
    if not found:
        raise ValueError(f"{name}: no {images.names_of_formats()} file in this folder or pattern")
    return found


def _is_photo(name: str) -> bool:
    return Path(name).suffix.lower() in images.IMAGE_SUFFIXES


def read_list(name: str) -> list[str]:
    """The names in a text file, local or remote, with a photo in each line.

    Raises:
        ValueError: it names no photo.
        OSError: it cannot be read.
    """
    remote = is_remote(name)
    content = read_remote(name, MAX_OWN_FILE) if remote else files.read(name, MAX_OWN_FILE)
    lines = content.decode("utf-8", "surrogateescape").splitlines()
    names = [line.strip() for line in lines if line.strip()]
    if not names:
        raise ValueError(f"{name}: expected a photo in each line. Received: an empty list")
    return names


class Folder(Protocol):
    """A folder for the files of a job. A file in it is whole, or absent."""

    path: str

    def names(self) -> set[str]:
        """The names of all files."""

    def has(self, name: str) -> bool:
        """True if there is a file of this name."""

    def read(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """The bytes of a file, or `length` of them from byte `offset`. Raises `OSError` if it cannot be read."""

    def write(self, name: str, content: bytes) -> None:
        """Writes a file, or replaces it. Raises `OSError`, and then an earlier file is as it was."""

    def delete(self, names: Sequence[str]) -> None:
        """Deletes files that exist."""

    def remove_partial(self) -> None:
        """Deletes what killed workers were writing. No other job may write into the folder meanwhile."""


def folder(path: str) -> Folder:
    """The folder `path`, local or remote. It need not exist."""
    return RemoteFolder(path) if is_remote(path) else LocalFolder(path)


class LocalFolder:
    """A folder of this machine, or of a disk that all workers share."""

    def __init__(self, path: str) -> None:
        self.path = path

    def names(self) -> set[str]:
        """See `Folder`."""
        if not os.path.isdir(self.path):
            return set()
        with os.scandir(self.path) as found:
            return {each.name for each in found if each.is_file(follow_symlinks=False)}

    def has(self, name: str) -> bool:
        """See `Folder`."""
        path = Path(self.path) / name
        return path.is_file() and not path.is_symlink()

    def read(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """See `Folder`."""
        path = Path(self.path) / name
        if length is None:
            return files.read(path, MAX_OWN_FILE)
        return files.Part(path, offset, length).read()

    def write(self, name: str, content: bytes) -> None:
        """See `Folder`."""
        files.write(Path(self.path) / name, content)

    def delete(self, names: Sequence[str]) -> None:
        """See `Folder`."""
        for name in names:
            (Path(self.path) / name).unlink(missing_ok=True)

    def remove_partial(self) -> None:
        """See `Folder`."""
        files.remove_partial(Path(self.path))


class RemoteFolder:
    """A folder of a file system that Beam opens. A file gets its name when all of it is there."""

    def __init__(self, path: str) -> None:
        self.path = path.rstrip("/")

    def names(self) -> set[str]:
        """See `Folder`."""
        [match] = _systems().match([self._address("*")])
        return {each.path.rpartition("/")[2] for each in match.metadata_list}

    def has(self, name: str) -> bool:
        """See `Folder`."""
        return bool(_systems().exists(self._address(name)))

    def read(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """See `Folder`."""
        if length is None:
            return read_remote(self._address(name), MAX_OWN_FILE)
        with _systems().open(self._address(name), **_plain()) as file:
            file.seek(offset)
            content: bytes = file.read(length)
        if len(content) < length:
            raise OSError(f"{self._address(name)}: the file ends before byte {offset + length}")
        return content

    def write(self, name: str, content: bytes) -> None:
        """See `Folder`."""
        partial = self._address(f".partial-{uuid.uuid4().hex[:8]}-{name}")
        try:
            with _systems().create(partial, **_plain()) as file:
                file.write(content)
            _systems().rename([partial], [self._address(name)])
        except BaseException:
            if _systems().exists(partial):
                _systems().delete([partial])
            raise

    def delete(self, names: Sequence[str]) -> None:
        """See `Folder`."""
        if names:
            _systems().delete([self._address(name) for name in names])

    def remove_partial(self) -> None:
        """See `Folder`."""
        self.delete([name for name in self.names() if files.whole_name(Path(name)) is not None])

    def _address(self, name: str) -> str:
        return f"{self.path}/{name}"
