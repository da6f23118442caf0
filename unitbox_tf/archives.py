"""Zip archives inside model files, which may come from anybody. Nothing of them is written to the disk.

The members of model files are stored, not compressed. So an archive takes no more memory than its file, and members
that state another size than they have are refused.
"""

from __future__ import annotations

import contextlib
import io
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

from unitbox_tf import files
from unitbox_tf.limits import MAX_MEMBERS


class Unusable(ValueError):
    """A file that is damaged, or is not what it should be. The message begins with its path."""


@contextlib.contextmanager
def reading(path: str | Path, expected: str) -> Iterator[None]:
    """Turns what a library raises about the content of a file into `Unusable`, which names the file.

    Args:
        path: the file.
        expected: its kind in words, such as "a LiteRT file".
    """
    try:
        yield
    except (Unusable, MemoryError, ImportError, FileNotFoundError, PermissionError):
        raise
    except (
        Exception
    ) as error:  # a damaged file may raise anything in NumPy, zipfile, h5py, Keras and TensorFlow
        what = str(error) or type(error).__name__
        known = what.startswith(f"{path}:")
        message = what if known else f"{path}: expected {expected}: {shortened(what)}"
        raise Unusable(message) from error


def shortened(text: str, most: int = 300) -> str:
    """The first line of a message of a library, at most `most` characters of it."""
    line = next((line for line in text.splitlines() if line.strip()), "")
    return line if len(line) <= most else f"{line[:most]}..."


def read(path: str | Path, limit: int, is_known: Callable[[str], bool]) -> dict[str, bytes]:
    """The contents of all members of the archive in a file, by name.

    Args:
        path: the file. It may have other content before the archive.
        limit: the largest size of the file, in bytes.
        is_known: True for the names of members that such a file may have.

    Raises:
        TooLarge: the file is larger than `limit`.
        Unusable: it is no archive, is damaged, or has a member that is not known, compressed, encrypted, a link, or
            there twice.
        OSError: the file cannot be read.
    """
    return members(path, files.read(path, limit), is_known)


def members(path: str | Path, content: bytes, is_known: Callable[[str], bool]) -> dict[str, bytes]:
    """Does the same for the bytes of a file. `path` is its name in messages."""
    with reading(path, "a zip archive"), zipfile.ZipFile(io.BytesIO(content)) as archive:
        found = archive.infolist()
        _check(path, found, len(content), is_known)
        return {member.filename: archive.read(member) for member in found}


def _check(
    path: str | Path, members: list[zipfile.ZipInfo], size: int, is_known: Callable[[str], bool]
) -> None:
    if len(members) > MAX_MEMBERS:
        raise Unusable(
            f"{path}: expected at most {MAX_MEMBERS} files in the archive. Received: {len(members)}"
        )
    names = set[str]()
    for member in members:
        name = member.filename
        if fault := _fault(member, known=is_known(name), twice=name in names):
            raise Unusable(f"{path}: {name[:100]!r} in the archive: {fault}")
        names.add(name)
    total = sum(member.file_size for member in members)
    if total > size:  # members that share their bytes
        raise Unusable(
            f"{path}: expected at most {size} bytes in the archive, the size of the file. Received: {total}"
        )


def _fault(member: zipfile.ZipInfo, *, known: bool, twice: bool) -> str:
    """The reason to refuse a member, in words; empty if there is none."""
    kind = (
        member.external_attr >> 28
    )  # of a file of Unix, in the upper bits; 0 if the writer states none
    outside = member.filename.startswith(("/", "\\")) or ".." in member.filename.split("/")
    if not known or outside or kind not in (0, 8):
        return "such files do not belong there"
    if member.flag_bits & 1:
        return "expected no encryption"
    if member.compress_type != zipfile.ZIP_STORED or member.compress_size != member.file_size:
        return "expected a stored member. Received: a compressed one"
    return "is there twice" if twice else ""
