"""Reads MATLAB's files, which come from elsewhere: nothing larger than the limits is unpacked or allocated.

A file of version 5 to 7 has a header of 128 bytes, and elements: a type and a length of 4 bytes each, and the
content; short contents stand in the place of half the length. An element of the type 15 is another one, packed
by zlib; one of the type 14 is an array, with elements for its class, its sides, its name and its content.
SciPy takes lengths and sides in the file as they are stated. So this module unpacks the file itself, and compares
what arrays state with the bytes that are there, before SciPy reads them.

Source: MathWorks, MAT-File Format, R2023b.
"""

from __future__ import annotations

import io
import itertools
import math
import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from unitbox_tf import files, limits, optional

LARGEST_FILE = 1 << 26  # bytes, packed; the official lists have less than a megabyte
LARGEST_CONTENT = 1 << 28  # bytes, unpacked
LARGEST_CURVE = 1 << 20  # numbers
DEEPEST = 8  # arrays in each other
HEADER = 128
PACKED, ARRAY = 15, 14  # types of elements
CELLS, TEXT, NUMBERS = 1, 4, range(6, 16)  # classes of arrays that are read


class _Element(NamedTuple):
    kind: int
    begin: int
    end: int


def load(path: Path, variables: Sequence[str]) -> dict[str, Any]:
    """Variables of a file of version 5 to 7, by name. Variables that are absent are left out.

    Raises:
        ValueError: the file is none, has another version, or arrays of other kinds than cells, texts and
            numbers; or it is larger than the limits, also unpacked.
        OSError: it cannot be read, or is no regular file.
        ImportError: SciPy is not installed.
    """
    scipy = optional.load("scipy.io", "wider_face", "reading MATLAB's files")
    raw = files.read(path, LARGEST_FILE)
    try:
        content = io.BytesIO(_unpacked(raw))
        return dict(scipy.loadmat(content, variable_names=list(variables)))
    except Exception as error:  # damaged files raise anything from KeyError to zlib.error
        reason = f"{type(error).__name__}: {error}"
        raise ValueError(f"{path}: expected a MATLAB file (version 5 to 7), {reason}") from error


def load_curve(path: Path) -> np.ndarray:
    """The variable `pr_cruve` `[N, 2]` of a file of version 5 to 7, or of 7.3, which is HDF5.

    Raises:
        ValueError: see `load`; the variable is absent, or a link to elsewhere.
        OSError: the file cannot be read, or is no regular file.
        ImportError: SciPy is not installed.
    """
    name = "pr_cruve"
    raw = files.read(path, LARGEST_FILE)
    if b"MATLAB 7.3" not in raw[:HEADER]:
        found = load(path, [name])
        if name not in found:
            raise ValueError(f"{path}: expected a variable {name}, found none")
        return np.asarray(found[name], np.float64)
    import h5py

    with h5py.File(io.BytesIO(raw), "r") as content:
        link = content.get(name, getlink=True)
        data: Any = content[name] if isinstance(link, h5py.HardLink) else None
        usable = isinstance(data, h5py.Dataset) and not (data.is_virtual or data.external)
        if not usable or data.size > LARGEST_CURVE or data.dtype.kind not in "iuf":
            raise ValueError(
                f"{path}: expected at most {LARGEST_CURVE:,} numbers {name} in the file itself"
            )
        return np.asarray(data[()], np.float64).T


def _unpacked(raw: bytes) -> bytes:
    """The file with all arrays unpacked and checked."""
    if len(raw) < HEADER:
        raise ValueError("the file ends in its header")
    order = {b"IM": "<", b"MI": ">"}.get(raw[126:128])
    if order is None:
        raise ValueError("no mark of the order of bytes in the header")
    parts, total = [raw[:HEADER]], HEADER
    for element in _elements(raw, order, HEADER, len(raw), pad=False):
        if element.kind == PACKED:
            unpacking = zlib.decompressobj()
            part = unpacking.decompress(raw[element.begin : element.end], LARGEST_CONTENT - total)
            if unpacking.unconsumed_tail:
                raise limits.TooLarge(f"more than {LARGEST_CONTENT:,} bytes when it is unpacked")
        else:
            part = raw[element.begin - 8 : element.end]
        _check(part, order)
        parts.append(part)
        total += len(part)
    return b"".join(parts)


def _elements(
    data: bytes, order: str, at: int, end: int, *, pad: bool = True
) -> Iterator[_Element]:
    """The elements between two places, which must have their whole length there."""
    while at < end:
        if at + 8 > end:
            raise ValueError(f"byte {at}: an element ends early")
        kind, length = struct.unpack_from(f"{order}II", data, at)
        if kind >> 16:  # a short one: length and type in the place of the type
            kind, length, begin, after = kind & 0xFFFF, kind >> 16, at + 4, at + 8
        else:
            begin = at + 8
            after = begin + length + (-length % 8 if pad and kind != PACKED else 0)
        if begin + length > end:
            raise ValueError(f"byte {at}: an element of {length} bytes ends beyond the file")
        yield _Element(kind, begin, begin + length)
        at = after


def _check(data: bytes, order: str) -> None:
    """Raises `ValueError` if an array in these elements states more than there are bytes, or is of another kind."""
    left = [(0, len(data), 0)]
    while left:
        begin, end, depth = left.pop()
        if depth > DEEPEST:
            raise ValueError(f"more than {DEEPEST} arrays in each other")
        for element in _elements(data, order, begin, end):
            if element.kind != ARRAY:
                raise ValueError(f"an element of the type {element.kind} in the place of an array")
            if element.begin == element.end:
                continue  # an empty cell
            left += [(*part, depth + 1) for part in _check_array(data, order, element)]


def _check_array(data: bytes, order: str, array: _Element) -> list[tuple[int, int]]:
    """The places of the cells in an array, if it has any."""
    parts = list(itertools.islice(_elements(data, order, array.begin, array.end), 3))
    if len(parts) < 3 or parts[0].end - parts[0].begin != 8:
        raise ValueError(f"byte {array.begin}: an array without class, sides and name")
    (flags,) = struct.unpack_from(f"{order}I", data, parts[0].begin)
    kind, sides = flags & 0xFF, parts[1]
    count = (sides.end - sides.begin) // 4
    stated = math.prod(map(abs, struct.unpack_from(f"{order}{count}i", data, sides.begin)))
    after = parts[2].end + (-(parts[2].end - array.begin) % 8)
    if kind not in (CELLS, TEXT, *NUMBERS):
        raise ValueError(f"an array of the class {kind}; expected cells, texts or numbers")
    if stated > (array.end - after if kind != CELLS else (array.end - after) // 8):
        raise ValueError(f"an array of {stated:,} values in {array.end - after:,} bytes")
    return [(after, array.end)] if kind == CELLS else []
