"""The check of an ONNX file before ONNX Runtime opens it. It may come from anybody.

`check` reads the file as data, a message of Protocol Buffers. It refuses weights in other files, which may be any file
of the machine, operators that are not ONNX's own, which may run other code, and functions, training and sparse
weights, which our exports do not have. ONNX's own operators only compute. They can do so for long, and fill the
memory: ONNX states sizes in tensors that are known only when the graph runs, so no check bounds them.

Source: ONNX, "onnx.proto", from which the numbers of fields come; Protocol Buffers, "Encoding".
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from unitbox_tf.archives import Unusable

MAX_DEPTH = 32  # of graphs in graphs; ours have 3
MAX_FIELDS = 5_000_000  # in the messages that are read
_DOMAINS = (b"", b"ai.onnx")  # of ONNX's own operators

# By kind of message: the fields that hold messages to read, with their kind.
_MESSAGES: dict[str, dict[int, str]] = {
    "model": {7: "graph"},
    "graph": {1: "node", 5: "tensor"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph"},
}
_DOMAIN_FIELD = {"node": 7}
_REFUSED: dict[str, dict[int, str]] = {
    "model": {20: "training", 25: "functions"},
    "graph": {15: "sparse weights"},
    "attribute": {22: "sparse weights", 23: "sparse weights"},
    "tensor": {13: "weights in another file", 14: "weights in another file"},
}
_ORT = b"ORTM"  # marks another form of models, which ONNX Runtime would open, too


def check(path: Path, content: bytes) -> None:
    """Raises `Unusable`, which says why, if the file is not what the module describes. `path` is its name."""
    if content[4:8] == _ORT:
        raise Unusable(
            f"{path}: expected an ONNX file. Received: a model in the form of ONNX Runtime"
        )
    left: list[tuple[str, memoryview, int]] = [("model", memoryview(content), 0)]
    count = 0
    while left:
        kind, message, depth = left.pop()
        inside = _MESSAGES.get(kind, {})
        for number, value in _fields(path, message):
            count += 1
            if depth > MAX_DEPTH or count > MAX_FIELDS:
                raise Unusable(
                    f"{path}: expected an ONNX file. Received: one that is nested too deep or too long"
                )
            is_part = number in inside or number == _DOMAIN_FIELD.get(kind)
            if is_part and isinstance(value, int):
                raise _broken(path)
            if number in _REFUSED.get(kind, {}) and value != 0:  # the default may be written, too
                what = _REFUSED[kind][number]
                raise Unusable(
                    f"{path}: an ONNX file, but not exported by unitbox_tf: it has {what}"
                )
            if number == _DOMAIN_FIELD.get(kind) and bytes(value[:100]) not in _DOMAINS:
                name = bytes(value[:100]).decode("utf-8", "replace")
                raise Unusable(
                    f"{path}: an ONNX file, but not exported by unitbox_tf: it has operators of {name!r}, which may "
                    "run any code"
                )
            if number in inside:
                left.append((inside[number], value, depth + 1))


def _fields(path: Path, message: memoryview) -> Iterator[tuple[int, Any]]:
    """Numbers and values of the fields of a message: an int, or the bytes of a text or message."""
    position = 0
    while position < len(message):
        key, position = _varint(path, message, position)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, position = _varint(path, message, position)
            yield number, value
            continue
        length = {1: 8, 5: 4}.get(wire)
        if wire == 2:
            length, position = _varint(path, message, position)
        if length is None or position + length > len(message):
            raise _broken(path)
        yield number, message[position : position + length]
        position += length


def _varint(path: Path, message: memoryview, position: int) -> tuple[int, int]:
    """A number in groups of seven bits, the lowest first, and the position after it."""
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(message):
            raise _broken(path)
        byte = message[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position
    raise _broken(path)


def _broken(path: Path) -> Unusable:
    return Unusable(f"{path}: expected an ONNX file. It is damaged, or the copy is not whole")
