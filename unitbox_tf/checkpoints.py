"""Checkpoints: files of named arrays, and of facts in JSON, from which a program goes on where it was.

A checkpoint is one uncompressed `.npz` file. It holds groups of arrays, in order and each with a name, and the
facts. It holds no code and no pickled objects. Names, shapes and number types are compared with those that are
expected before an array is allocated, and checksums show whether the file is whole.
"""

from __future__ import annotations

import json
import logging
import math
import re
import struct
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from unitbox_tf import files
from unitbox_tf.limits import MAX_FACTS_BYTES

logger = logging.getLogger(__name__)

SUFFIX = ".npz"
_NAME = re.compile(r"step-(?P<number>\d{8,})\.npz")
_FACTS = "facts.npy"
# The errors of zipfile and NumPy with files that are not whole.
_DAMAGE = (
    OSError,
    ValueError,
    KeyError,
    EOFError,
    NotImplementedError,
    RuntimeError,
    TypeError,
    OverflowError,
    struct.error,
    zipfile.BadZipFile,
)


class Damaged(ValueError):
    """A checkpoint that is cut off, changed or no checkpoint at all."""


class Spec(NamedTuple):
    """Name, shape and type that are expected of an array."""

    name: str
    shape: tuple[int, ...]
    dtype: str

    @classmethod
    def of(cls, variable: Any) -> Spec:
        """The facts of a variable of Keras, with its `plain_name`."""
        name = plain_name(getattr(variable, "path", variable.name))
        return cls(name, tuple(variable.shape), np.dtype(variable.dtype).name)


def plain_name(name: str) -> str:
    """The path of a variable of Keras, without the numbers that depend on what the process made before."""
    return re.sub(r"_\d+(?=/|_|$)", "", name)


class Checkpoint(NamedTuple):
    """The content of a checkpoint: its file, its facts, and the arrays of the groups that were asked for."""

    path: Path
    facts: dict[str, Any]
    groups: dict[str, list[np.ndarray]]


def path_of(folder: Path, number: int) -> Path:
    """The path of the checkpoint after `number` steps."""
    return folder / f"step-{number:08}{SUFFIX}"


def stored(folder: Path) -> list[Path]:
    """The checkpoints in `folder`, the newest first. It need not exist."""
    found = (
        [path for path in folder.iterdir() if _NAME.fullmatch(path.name)] if folder.is_dir() else []
    )
    return sorted(found, key=lambda path: int(path.stem.removeprefix("step-")), reverse=True)


def write(
    path: Path, groups: Mapping[str, Iterable[tuple[Spec, np.ndarray]]], facts: Mapping[str, Any]
) -> None:
    """Writes a checkpoint, whole or not at all, and waits until it is on the disk.

    Raises:
        OSError: it cannot be written, as when the disk is full. An earlier file of this name stays.
    """
    arrays = {"facts": np.frombuffer(json.dumps(facts).encode(), np.uint8)}
    for group, content in groups.items():
        for number, (spec, values) in enumerate(content):
            arrays[f"{group}/{number:04} {spec.name}"] = values
    with files.replacing(path, durable=True) as partial, partial.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]  # allow_pickle is a bool


def read(path: Path, expected: Mapping[str, Sequence[Spec]]) -> Checkpoint:
    """Reads a checkpoint.

    Args:
        path: the file.
        expected: the arrays of each group that is read, in order.

    Raises:
        Damaged: the file is not whole.
        ValueError: a group has other arrays.
    """
    try:
        with files.open_regular(path) as file, zipfile.ZipFile(file) as archive:
            _check_whole(archive)
            facts = _facts(archive)
            received = {group: _members(archive, group) for group in expected}
            for group, specs in expected.items():
                _check_same(path, group, specs, [spec for _, spec in received[group]])
            groups = {
                group: [_values(archive, name) for name, _ in members]
                for group, members in received.items()
            }
    except _Other as error:
        raise ValueError(str(error)) from None
    except _DAMAGE as error:
        reason = str(error) or type(error).__name__
        raise Damaged(f"{path}: expected a whole checkpoint. Received: {reason}") from error
    return Checkpoint(path, facts, groups)


def read_newest(folder: Path, expected: Mapping[str, Sequence[Spec]]) -> Checkpoint | None:
    """Reads the newest checkpoint in `folder` that is whole; None if there is none at all.

    A warning names each one that is not whole, and the one that takes its place.

    Raises:
        ValueError: there are checkpoints, but none is whole; or the newest whole one has other arrays.
    """
    damaged: list[Damaged] = []
    for path in stored(folder):
        try:
            found = read(path, expected)
        except Damaged as error:
            damaged.append(error)
        else:
            for one in damaged:
                logger.warning("%s. Taking the one before: %s", one, path)
            return found
    if damaged:
        raise ValueError(
            f"no checkpoint is whole. {'. '.join(map(str, damaged))}. To train further from the best weights, "
            "start a new run that names this one as init (--init)"
        )
    return None


class _Other(Exception):
    """The arrays are not those that are expected."""


def _check_whole(archive: zipfile.ZipFile) -> None:
    """Raises an error of `_DAMAGE` if a part has another checksum, or is compressed, so that its size is not known."""
    for part in archive.infolist():
        if part.compress_type != zipfile.ZIP_STORED:
            raise ValueError(f"{part.filename} is compressed")
    bad = archive.testzip()
    if bad is not None:
        raise ValueError(f"{bad} has another checksum")


def _facts(archive: zipfile.ZipFile) -> dict[str, Any]:
    size = archive.getinfo(_FACTS).file_size
    if size > MAX_FACTS_BYTES:
        raise ValueError(f"{_FACTS} has {size:,} bytes, more than {MAX_FACTS_BYTES:,}")
    facts = json.loads(_values(archive, _FACTS).tobytes())
    if not isinstance(facts, dict):
        raise ValueError(f"{_FACTS} is no dict")
    return facts


def _members(archive: zipfile.ZipFile, group: str) -> list[tuple[str, Spec]]:
    """The names of the parts of a group in their order, and what they hold."""
    names = sorted(name for name in archive.namelist() if name.startswith(f"{group}/"))
    return [(name, _spec(archive, name)) for name in names]


def _spec(archive: zipfile.ZipFile, name: str) -> Spec:
    with archive.open(name) as part:
        if np.lib.format.read_magic(part) != (1, 0):
            raise ValueError(f"{name} has another version")
        shape, _, dtype = np.lib.format.read_array_header_1_0(part)
    return Spec(name.split(" ", 1)[-1].removesuffix(".npy"), shape, dtype.name)


def _values(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    spec = _spec(archive, name)
    if math.prod(spec.shape) * np.dtype(spec.dtype).itemsize > archive.getinfo(name).file_size:
        raise ValueError(f"{name} has fewer values than its shape {spec.shape}")
    with archive.open(name) as part:
        values: np.ndarray = np.lib.format.read_array(part, allow_pickle=False)
    return values


def _check_same(path: Path, group: str, expected: Sequence[Spec], received: Sequence[Spec]) -> None:
    if list(expected) == list(received):
        return
    count = min(len(expected), len(received))
    first = next((n for n in range(count) if expected[n] != received[n]), count)
    unlike = [
        " ".join(map(str, specs[first])) if first < len(specs) else "no more"
        for specs in (expected, received)
    ]
    raise _Other(
        f"{path}: was trained with another {group}. Resume with the configuration of the run. Expected as number "
        f"{first + 1}: {unlike[0]}. Received: {unlike[1]}"
    )
