"""The check of a LiteRT file before LiteRT opens it. It may come from anybody.

LiteRT trusts positions and sizes in a file. `check` reads the file as data, a FlatBuffer, in Python, where a wrong
position is an error and not a crash. It refuses operators that are not LiteRT's own, which may run other code, further
graphs, and weights in other files. LiteRT's own operators only compute.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from unitbox_tf import archives, optional
from unitbox_tf.archives import Unusable
from unitbox_tf.limits import MAX_TENSOR_ELEMENTS

_KIND = "a LiteRT file"
MAX_PARTS = 100_000  # tensors, operators or buffers


def check(path: Path, content: bytes) -> None:
    """Raises `Unusable`, which says why, if the file is not what the module describes. `path` is its name."""
    schema = optional.load("ai_edge_litert.schema_py_generated", "litert", f"{path}: opening it")
    if not schema.Model.ModelBufferHasIdentifier(content[:8].ljust(8), 0):
        raise Unusable(f"{path}: expected {_KIND}. Received: other bytes at its start")
    with archives.reading(path, _KIND):
        model = schema.Model.GetRootAs(content, 0)
        if model.SubgraphsLength() != 1 or _absent(
            model, "ExternalBufferGroups", "ExternalBuffers"
        ):
            raise _foreign(path, "it has several graphs, or weights in other files")
        _check_operators(path, schema, model)
        _check_buffers(path, model, len(content))
        _check_tensors(path, model)


def _foreign(path: Path, what: str) -> Unusable:
    return Unusable(f"{path}: {_KIND}, but not exported by unitbox_tf: {what}")


def _absent(model: Any, *fields: str) -> bool:
    """True if a list that an old LiteRT does not know has items."""
    return any(getattr(model, f"{field}Length", int)() for field in fields)


def _check_operators(path: Path, schema: Any, model: Any) -> None:
    graph, count = model.Subgraphs(0), _count(path, model.OperatorCodesLength())
    own = schema.BuiltinOperator
    for index in range(count):
        code = model.OperatorCodes(index)
        number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
        if code.CustomCode() is not None or number in (own.CUSTOM, own.DELEGATE):
            raise _foreign(
                path, "it has operators that are not LiteRT's own, which may run any code"
            )
    tensors = graph.TensorsLength()
    for index in range(_count(path, graph.OperatorsLength())):
        operator = graph.Operators(index)
        used = [*_numbers(operator, "Inputs"), *_numbers(operator, "Outputs")]
        if not 0 <= operator.OpcodeIndex() < count or not all(-1 <= i < tensors for i in used):
            raise _foreign(path, "it has operators of tensors that are not there")


def _numbers(owner: Any, field: str) -> list[int]:
    count = min(getattr(owner, f"{field}Length")(), MAX_PARTS)
    return [getattr(owner, field)(index) for index in range(count)]


def _check_buffers(path: Path, model: Any, size: int) -> None:
    total = 0
    for index in range(_count(path, model.BuffersLength())):
        buffer = model.Buffers(index)
        if buffer.Offset() > 1 or (
            not buffer.DataIsNone() and len(buffer.DataAsNumpy()) < buffer.DataLength()
        ):
            raise _foreign(path, "it has weights outside of the graph")
        total += buffer.DataLength()
    if total > size:
        raise _foreign(path, f"it has {total} bytes of weights in a file of {size} bytes")


def _check_tensors(path: Path, model: Any) -> None:
    graph, buffers = model.Subgraphs(0), model.BuffersLength()
    count = _count(path, graph.TensorsLength())
    for index in range(count):
        tensor = graph.Tensors(index)
        shape = _numbers(tensor, "Shape")
        elements = math.prod(shape)
        if min(shape, default=0) < 0 or elements > MAX_TENSOR_ELEMENTS:
            raise _foreign(path, f"it has a tensor {shape!r:.100}")
        if not 0 <= tensor.Buffer() < buffers:
            raise _foreign(path, "it has tensors of buffers that are not there")
    used = [*_numbers(graph, "Inputs"), *_numbers(graph, "Outputs")]
    if len(used) != 3 or not all(0 <= index < count for index in used):
        raise _foreign(path, "it does not have one input and two outputs")
    shape = _numbers(graph.Tensors(used[0]), "Shape")
    if len(shape) != 4 or shape[0] != 1 or shape[3] != 3:
        raise _foreign(path, f"its input is {shape}, and not an image [1, H, W, 3]")
    if not all(graph.Tensors(index).ShapeLength() == 4 for index in used[1:]):
        raise _foreign(path, "its outputs are no maps [1, h, w, C]")


def _count(path: Path, count: int) -> int:
    if not 0 <= count <= MAX_PARTS:
        raise _foreign(path, f"it has {count} parts of one kind")
    return count
