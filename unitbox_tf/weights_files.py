"""Files of weights, `.npz` and HDF5, which may come from anybody: what they hold is checked before it is read.

A file takes no more memory than its size. Neither pickled objects are read, nor anything outside the file.
Importing this module imports neither TensorFlow nor h5py.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unitbox_tf import archives, files
from unitbox_tf.archives import Unusable
from unitbox_tf.limits import MAX_MEMBERS, MAX_WEIGHTS_BYTES

_SUFFIX = ".npy"
# The header that `numpy.save` writes, for numbers and truth values. NumPy's own reader evaluates it as Python.
_HEADER = re.compile(
    rb"\x93NUMPY\x01\x00..\{'descr': '([<|][fiub][1248])', 'fortran_order': (True|False), "
    rb"'shape': \(((?:\d{1,18}, ?)*(?:\d{1,18})?)\), \} *\n",
    re.DOTALL,
)
_HEADER_BYTES = 1024  # more than a header has


def read_npz(path: str | Path, limit: int = MAX_WEIGHTS_BYTES) -> dict[str, np.ndarray]:
    """The arrays in a file of `numpy.savez`, by name, in the order of the file. They cannot be written to.

    Args:
        path: the file.
        limit: the largest size of the file, in bytes.

    Raises:
        TooLarge: the file is larger than `limit`.
        Unusable: it is no such file, is damaged, is compressed (`numpy.savez_compressed`), or holds something else
            than numbers and truth values.
        OSError: the file cannot be read.
    """
    members = archives.read(path, limit, lambda name: name.endswith(_SUFFIX))
    return {
        name.removesuffix(_SUFFIX): _array(path, name, content) for name, content in members.items()
    }


def _array(path: str | Path, name: str, content: bytes) -> np.ndarray:
    header = _HEADER.match(content[:_HEADER_BYTES])
    if header is None:
        raise Unusable(
            f"{path}: {name[:100]!r}: expected an array of numbers, as numpy.save writes it"
        )
    shape = tuple(int(length) for length in header[3].decode().split(",") if length.strip())
    dtype = np.dtype(header[1].decode())
    expected, received = math.prod(shape) * dtype.itemsize, len(content) - header.end()
    if expected != received:
        raise Unusable(
            f"{path}: {name[:100]!r}: expected {expected} bytes for an array {shape}. Received: {received}"
        )
    order: Any = "F" if header[2] == b"True" else "C"
    flat = np.frombuffer(content, dtype, offset=header.end())
    return flat.reshape(shape, order=order)


def largest(shapes: Iterable[Sequence[int]]) -> int:
    """The largest size in bytes of a file with float32 weights of these shapes, and twice as much of an optimizer."""
    elements = [math.prod(shape) for shape in shapes]
    return 12 * sum(elements) + 4096 * len(elements) + (1 << 20)


def check_finite(path: str | Path, weights: Mapping[str, np.ndarray]) -> None:
    """Raises `Unusable`, which names the file and the first weight that is not finite, if there is one."""
    for name, values in weights.items():
        wrong = values.size - int(np.count_nonzero(np.isfinite(values)))
        if wrong:
            raise Unusable(
                f"{path}: {name}: expected finite numbers. Received: {wrong} of {values.size} that are not finite. "
                "Training went wrong, or the file is damaged"
            )


def check_h5(
    path: str | Path,
    limit: int,
    content: bytes | None = None,
    kind: str = "an HDF5 file of weights",
) -> list[tuple[int, ...]]:
    """Checks the structure of an HDF5 file before anything reads its weights.

    All data must be in the file itself, stored as they are: no links, external storage, virtual data sets, filters
    (compression) or chunks. So reading them takes no more memory than the size of the file.

    Args:
        path: the file, also for messages.
        limit: the largest size of the file, in bytes.
        content: the bytes of the file, if they come from elsewhere.
        kind: the expected file in words, for messages.

    Returns:
        The shapes of the arrays in it.

    Raises:
        TooLarge: the file is larger than `limit`.
        Unusable: it is no HDF5 file, is damaged, or has something of the above.
        OSError: the file cannot be read.
    """
    import h5py

    if content is None:
        content = files.read(path, limit)
    with archives.reading(path, kind):
        with h5py.File(io.BytesIO(content), "r") as file:
            arrays = list(_arrays(path, file))
            shapes = [_checked_shape(path, name, each) for name, each in arrays]
            total = sum(each.id.get_storage_size() for _, each in arrays)
            if total > len(content):
                raise Unusable(
                    f"{path}: expected at most {len(content)} bytes in arrays, the size of the file. Received: {total}"
                )
            return shapes


def _arrays(path: str | Path, root: Any) -> Iterator[tuple[str, Any]]:
    """The data sets in an HDF5 file. Each group and data set may have one name only, which excludes loops."""
    import h5py

    groups, met = [root], set[Any]()
    while groups:
        group = groups.pop()
        _check_attributes(path, group)
        for name in group:
            where = f"{group.name.rstrip('/')}/{name}"
            link = group.get(name, getlink=True)
            if not isinstance(link, h5py.HardLink):
                raise Unusable(
                    f"{path}: {where[:200]}: expected an array or a group. Received: a link"
                )
            each = group[name]
            known = h5py.h5o.get_info(each.id).addr
            if known in met or len(met) > MAX_MEMBERS:
                raise Unusable(
                    f"{path}: {where[:200]}: expected at most {MAX_MEMBERS} arrays and groups, each with one name"
                )
            met.add(known)
            if isinstance(each, h5py.Group):
                groups.append(each)
            else:
                yield where, each


def _check_attributes(path: str | Path, owner: Any) -> None:
    """Raises `Unusable` if an attribute is larger than the names of layers are."""
    for name in owner.attrs:
        attribute = owner.attrs.get_id(name)
        if math.prod(attribute.shape) > MAX_MEMBERS:
            raise Unusable(
                f"{path}: {owner.name[:200]}: expected at most {MAX_MEMBERS} values in the attribute {name[:100]!r}"
            )


def _checked_shape(path: str | Path, name: str, array: Any) -> tuple[int, ...]:
    import h5py

    name = name[:200]
    if not isinstance(array, h5py.Dataset) or array.dtype.kind not in "fiub" or array.shape is None:
        raise Unusable(f"{path}: {name}: expected an array of numbers")
    if array.is_virtual or array.external:
        raise Unusable(f"{path}: {name}: expected data in the file. Received: data of another file")
    stored = array.id.get_storage_size()
    plain = array.id.get_create_plist().get_layout() != h5py.h5d.CHUNKED
    if not plain or stored != math.prod(array.shape) * array.dtype.itemsize:
        raise Unusable(
            f"{path}: {name}: expected an array {array.shape} that is stored as it is. Received: a compressed, chunked "
            "or absent one"
        )
    return tuple(array.shape)
