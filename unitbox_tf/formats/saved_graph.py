"""The check of a SavedModel before TensorFlow opens it. Its graph is a program, and may come from anybody.

`check` reads the files as data. It lets pass what `saved_model.save` writes:

* no other files and no links, and each file as its digest says;
* the signatures of `saved_model.save`;
* a graph, and functions in it, with no operations but `OPERATIONS` and `OF_BACKBONES`. They compute. None of them
  reads or writes files, calls Python, uses the network or loads code. Functions that save and restore weights are in
  each SavedModel and do use files: nothing else may call them, and opening does not run them;
* objects that are functions, weights and constants. The weights have the sizes that the files of weights hold.

So a SavedModel that passes can give wrong detections, but cannot touch anything else. Three things remain. A graph can
compute for as long and fill as much memory as it likes. TensorFlow reads the files with code that may have faults of
its own. And the files could be exchanged between the check and the opening by a program on the same machine. So open
files of strangers in a sandbox.

`DIGESTS`, which `write_digests` writes at export, has the SHA-256 of each file. It is the mark of our exports, and it
shows damage and copies that are not whole. It does not prove who made the files: anybody can write one.
"""

from __future__ import annotations

import math
import os
import stat
import typing
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from unitbox_tf import archives, files
from unitbox_tf.archives import Unusable
from unitbox_tf.config import DecodeConfig
from unitbox_tf.limits import MAX_CONFIG_BYTES, MAX_GRAPH_BYTES, MAX_MEMBERS, MAX_WEIGHTS_BYTES

GRAPH_FILE = "saved_model.pb"
DIGESTS = "assets.extra/unitbox_tf.sha256"  # TensorFlow Serving ignores this folder, except for warm-up requests
_PREFIX = "variables/variables"
_INDEX, _DATA = f"{_PREFIX}.index", f"{_PREFIX}.data-00000-of-00001"
_FILES = (GRAPH_FILE, "fingerprint.pb", _INDEX, _DATA)
_EXTRA = "assets.extra"  # may have more files, which TensorFlow does not open
_FOLDERS = ("variables", "assets", _EXTRA)

# The operations in the functions of our exports, with all decoders. A test compares them with a real export.
OPERATIONS = frozenset(
    """
    Abs AddN AddV2 All Any ArgMax Assert AvgPool BiasAdd BitwiseAnd BitwiseOr BroadcastTo Cast
    CombinedNonMaxSuppression ConcatV2 Const Conv2D Cumprod Cumsum DecodeCompressed DecodeImage DecodeRaw
    DenseBincount EnsureShape Equal Exp Fill FloorDiv FloorMod GatherNd GatherV2 Greater GreaterEqual Identity
    IdentityN If LeftShift Less LessEqual Log Log1p LogicalAnd LogicalNot LogicalOr Max MaxPool Maximum Minimum Mul
    Neg NoOp NotEqual OneHot Pack Pad PadV2 Prod RaggedTensorToTensor Range Rank ReadVariableOp RealDiv ReduceJoin
    Relu Reshape ResizeBilinear ReverseV2 RightShift Round ScaleAndTranslate SelectV2 Shape Sigmoid Size Softplus
    Squeeze StatefulPartitionedCall StatelessCase StatelessIf StatelessWhile StaticRegexReplace StridedSlice
    StringJoin StringLength StringSplitV2 Sub Substr Sum TensorListFromTensor TensorListGetItem TensorListReserve
    TensorListSetItem TensorListStack Tile TopKV2 Transpose Unpack UnsortedSegmentSum Where While
    """.split()
)
# Operations that the exports of other backbones and of the neck `top_down` have besides. They compute, too.
OF_BACKBONES = frozenset(
    """
    DepthwiseConv2dNative Erf Erfc MatMul Mean Relu6 ResizeNearestNeighbor Rsqrt SquaredDifference StopGradient
    """.split()
)
# Only the two functions that save and restore weights contain these, besides `_AROUND_SAVING`.
SAVING = frozenset(
    """
    AssignVariableOp DisableCopyOnRead MergeV2Checkpoints RestoreV2 SaveV2 Select ShardedFilename
    StaticRegexFullMatch
    """.split()
)
_AROUND_SAVING = frozenset(["Const", "Identity", "NoOp", "Pack", "ReadVariableOp", "StringJoin"])
# The graph outside of functions, which TensorFlow Serving runs: it makes the weights and calls the functions.
OUTSIDE = frozenset(
    """
    AssignVariableOp Const NoOp Placeholder PlaceholderWithDefault ReadVariableOp StatefulPartitionedCall VarHandleOp
    VarIsInitializedOp
    """.split()
)
_KINDS = (
    "user_object",
    "function",
    "bare_concrete_function",
    "constant",
    "variable",
    "captured_tensor",
)
_CLASSES = (
    "_generic_user_object",
    "signature_map",
    "trackable_dict_wrapper",
    "trackable_list_wrapper",
)
_REGISTERED = ("", "tf.TrackableConstant")
# Fields of the settings of a call, of which none has code or addresses.
_CALL_SETTINGS = {
    "allow_soft_placement",
    "device_count",
    "experimental",
    "gpu_options",
    "pluggable_device_options",
}
_OURS = "expected a SavedModel that unitbox_tf exported"
_TRUST = (
    "It was not opened, because a graph can read and write files. If you trust who made it: trust=True "
    "(on the command line --trust)"
)
_DETECTIONS = {
    "boxes": "float32",
    "scores": "float32",
    "classes": "int32",
    "num_detections": "int32",
}
_HEATMAPS = {"confidence": "float32", "distances": "float32"}
_DEFAULTS = (
    "encoded",
    "images",
)  # what `serving_default` may be alike; earlier exports took images
_INIT = "__saved_model_init_op"  # a signature that TensorFlow adds, which does nothing


def check(folder: Path) -> None:
    """Raises `Unusable`, which says why, if a folder is not what the module describes. Nothing of it is run."""
    _check_files(folder)
    check_digests(folder)
    check_graph(folder, _read_graph(folder))


def check_graph(folder: Path, graph: Any) -> None:
    """Does the part of `check` that looks at the graph, a `MetaGraphDef`, and at the sizes of its weights."""
    with archives.reading(folder, "a SavedModel"):
        _check_signatures(folder, graph)
        _check_objects(folder, graph)
        _check_operations(folder, graph)
        _check_weights(folder, graph)


def _foreign(folder: Path, what: str) -> Unusable:
    return Unusable(f"{folder}: {_OURS}: {what}. {_TRUST}")


def _check_files(folder: Path) -> None:
    for path in _entries(folder):
        name = path.relative_to(folder).as_posix()
        mode = path.lstat().st_mode
        if stat.S_ISDIR(mode) and name in _FOLDERS:
            continue
        if not stat.S_ISREG(mode) or not (name in _FILES or path.parent == folder / _EXTRA):
            raise _foreign(folder, f"it has {name[:200]!r}, and such files do not belong there")
    absent = [name for name in (*_FILES[:1], _INDEX, _DATA) if not (folder / name).is_file()]
    if absent:
        raise Unusable(f"{folder}: {_OURS}. It has no {absent[0]}: the copy may not be whole")
    size = (folder / _DATA).stat().st_size
    if size > MAX_WEIGHTS_BYTES:
        raise Unusable(
            f"{folder}: expected at most {MAX_WEIGHTS_BYTES:,} bytes of weights. Received: {size:,}"
        )


def _entries(folder: Path) -> Iterator[Path]:
    """All that is in the folder and in the folders that belong there."""
    for parent in (folder, *(folder / name for name in _FOLDERS)):
        if parent == folder or (parent.is_dir() and not parent.is_symlink()):
            with os.scandir(parent) as entries:
                for count, entry in enumerate(entries):
                    if count > MAX_MEMBERS:
                        raise Unusable(f"{parent}: expected at most {MAX_MEMBERS} files")
                    yield Path(entry.path)


def write_digests(folder: Path) -> None:
    """Writes `DIGESTS` into a new export, as `sha256sum --check` reads it in the folder."""
    paths = sorted(
        path for path in folder.rglob("*") if path.is_file() and path != folder / DIGESTS
    )
    lines = [f"{files.digest(path)}  {path.relative_to(folder).as_posix()}\n" for path in paths]
    (folder / DIGESTS).write_text("".join(lines), encoding="utf-8")


def check_digests(folder: Path, *, needed: bool = True) -> None:
    """Raises `Unusable` if a file is not as `DIGESTS` says. Without that file, too, if it is `needed`."""
    path = folder / DIGESTS
    if not path.is_file():
        if needed:
            raise _foreign(folder, f"it has no {DIGESTS}, which each export has")
        return
    listed = dict[str, str]()
    with archives.reading(path, "a list of SHA-256"):
        for line in files.read(path, MAX_CONFIG_BYTES).decode("utf-8").splitlines():
            digest, _, name = line.partition("  ")
            listed[name] = digest
    for name in _FILES:
        if name not in listed and (folder / name).exists():
            raise Unusable(f"{folder / name}: expected its SHA-256 in {DIGESTS}. Received: none")
    for name in listed:
        if name not in _FILES and not _is_extra(name):
            raise Unusable(
                f"{path}: expected names of files in the export. Received: {name[:200]!r}"
            )
        received = files.digest(folder / name) if (folder / name).is_file() else "no file"
        if received != listed[name]:
            raise Unusable(
                f"{folder / name}: expected the SHA-256 in {DIGESTS}, {listed[name][:80]}. Received: {received}. The "
                "file is damaged, or the copy is not whole; get it again"
            )


def _is_extra(name: str) -> bool:
    parent, _, base = name.partition("/")
    return parent == _EXTRA and base not in ("", ".", "..") and not {"/", "\\"} & set(base)


def _read_graph(folder: Path) -> Any:
    """The only graph in the folder, a `MetaGraphDef`."""
    from tensorflow.core.protobuf import saved_model_pb2

    path = folder / GRAPH_FILE
    stored = saved_model_pb2.SavedModel()
    with archives.reading(path, "a SavedModel"):
        stored.ParseFromString(files.read(path, MAX_GRAPH_BYTES))
    graphs = stored.meta_graphs
    if len(graphs) != 1:
        raise _foreign(folder, f"it has {len(graphs)} graphs")
    return graphs[0]


def _check_signatures(folder: Path, graph: Any) -> None:
    """The names and types of inputs and outputs, as `saved_model.save` describes them."""
    if list(graph.meta_info_def.tags) != ["serve"] or not graph.HasField("object_graph_def"):
        raise _foreign(folder, "it has other tags than 'serve', or the form of TensorFlow 1")
    received = {
        name: (_types(signature.inputs), _types(signature.outputs))
        for name, signature in graph.signature_def.items()
        if name != _INIT
    }
    expected = _signatures()
    if sorted(received) != sorted(expected):
        names = ", ".join(sorted(received))[:200] or "none"
        raise _foreign(folder, f"it has the signatures {names}")
    for name, (inputs, outputs) in received.items():
        fits = False
        for alike in _DEFAULTS if name == "serving_default" else [name]:
            needed, optional, wanted = expected[alike]
            fits |= (
                needed.items() <= inputs.items() <= (needed | optional).items()
                and outputs == wanted
            )
        if not fits:
            raise _foreign(folder, f"its signature {name} has other inputs or outputs")


def _signatures() -> Mapping[str, tuple[dict[str, str], dict[str, str], dict[str, str]]]:
    """By signature: inputs, inputs that depend on the decoders of the program that exported, and outputs."""
    images, encoded = {"images": "uint8"}, {"encoded": "string"}
    plain = {float: "float32", int: "int32", str: "string"}
    hints = typing.get_type_hints(DecodeConfig)
    options = {name: plain[hint] for name, hint in hints.items() if hint in plain}
    chosen = {"decoder": "string"}
    return {
        "serving_default": (encoded, {}, _DETECTIONS),
        "images": (images, {}, _DETECTIONS),
        "images_with_options": (images | chosen, options, _DETECTIONS),
        "encoded": (encoded, {}, _DETECTIONS),
        "encoded_with_options": (encoded | chosen, options, _DETECTIONS),
        "heatmaps": (images, {}, _HEATMAPS),
    }


def _types(tensors: Mapping[str, Any]) -> dict[str, str]:
    import tensorflow as tf

    return {name: tf.as_dtype(tensor.dtype).name for name, tensor in tensors.items()}


def _check_operations(folder: Path, graph: Any) -> None:
    """The operations, in the graph and in its functions, their calls, and the constants in them."""
    if set(graph.collection_def) - {"saved_model_main_op"} or graph.asset_file_def:
        raise _foreign(folder, "it names files or collections")
    library = graph.graph_def.library
    bodies = {function.signature.name: function.node_def for function in library.function}
    savers = {name for name, nodes in bodies.items() if SAVING & {node.op for node in nodes}}
    # A function with the name of an operation would run in its place.
    for name in (OPERATIONS | OF_BACKBONES | SAVING | OUTSIDE) & set(bodies):
        raise _foreign(folder, f"it has a function with the name {name}")
    if len(bodies) != len(library.function) or library.gradient or len(savers) > 2:
        raise _foreign(folder, "it has functions that do not belong there")
    for name, nodes in bodies.items():
        allowed = SAVING | _AROUND_SAVING if name in savers else OPERATIONS | OF_BACKBONES
        _check_nodes(folder, nodes, allowed, set(bodies) - savers)
    _check_nodes(folder, graph.graph_def.node, OUTSIDE, set(bodies))
    used = {*graph.object_graph_def.concrete_functions, *_object_functions(graph)}
    if used & savers:
        raise _foreign(folder, "it offers functions that write files")


def _check_nodes(
    folder: Path, nodes: Iterable[Any], allowed: frozenset[str], callable_: set[str]
) -> None:
    for node in nodes:
        if node.op not in allowed:
            raise _foreign(folder, f"it contains the operation {node.op[:100]}")
        for value in node.attr.values():
            kind = value.WhichOneof("value")
            if kind in ("func", "list"):
                for function in (value.func, *value.list.func):
                    if function.name and (function.name not in callable_ or function.attr):
                        raise _foreign(folder, f"it calls the function {function.name[:100]}")
            if kind in ("tensor", "list"):
                for tensor in (value.tensor, *value.list.tensor):
                    _check_constant(folder, tensor)
        _check_call(folder, node)


def _check_constant(folder: Path, tensor: Any) -> None:
    """A constant may be written short, as one number for all elements."""
    from tensorflow.core.framework import types_pb2

    types = types_pb2.DataType
    if tensor.dtype in (types.DT_RESOURCE, types.DT_VARIANT):
        raise _foreign(folder, "it has a constant that is no numbers and no text")
    size = math.prod(dim.size for dim in tensor.tensor_shape.dim)
    if not 0 <= size <= MAX_GRAPH_BYTES or tensor.tensor_shape.unknown_rank:
        raise _foreign(folder, f"it has a constant of {size} elements")


def _check_call(folder: Path, node: Any) -> None:
    """A call may bring settings of a session."""
    from tensorflow.core.protobuf import config_pb2

    if "executor_type" in node.attr and node.attr["executor_type"].s:
        raise _foreign(folder, "it has calls with an executor of their own")
    if "config_proto" in node.attr:
        settings = config_pb2.ConfigProto()
        settings.ParseFromString(node.attr["config_proto"].s)
        for field, _ in settings.ListFields():
            if field.name not in _CALL_SETTINGS:
                raise _foreign(folder, f"it has calls with the setting {field.name}")


def _object_functions(graph: Any) -> Iterator[str]:
    """Names of the functions that the objects of the graph name."""
    for each in graph.object_graph_def.nodes:
        yield from each.function.concrete_functions
        yield each.bare_concrete_function.concrete_function_name
        yield each.captured_tensor.concrete_function


def _check_objects(folder: Path, graph: Any) -> None:
    for each in graph.object_graph_def.nodes:
        kind = each.WhichOneof("kind")
        named = each.user_object.identifier if kind == "user_object" else _CLASSES[0]
        if kind not in _KINDS or named not in _CLASSES or each.registered_name not in _REGISTERED:
            raise _foreign(folder, f"it has an object of the kind {(named, kind)}"[:300])
        if each.saveable_objects or each.registered_saver or each.HasField("serialized_user_proto"):
            raise _foreign(folder, "it has objects with code of their own for opening")


def _check_weights(folder: Path, graph: Any) -> None:
    """The weights that the graph wants are those in the files, which hold all of them."""
    import tensorflow as tf

    shapes = [
        tuple(dim.size for dim in each.variable.shape.dim)
        for each in graph.object_graph_def.nodes
        if each.WhichOneof("kind") == "variable"
    ]
    files.read(folder / _INDEX, MAX_GRAPH_BYTES)  # its size
    stored = tf.train.load_checkpoint(str(folder / _PREFIX))
    types, known = stored.get_variable_to_dtype_map(), stored.get_variable_to_shape_map()
    held = [shape for name, shape in known.items() if types[name] != tf.string]
    total = sum(math.prod(shape) * types[name].size for name, shape in known.items())
    size = (folder / _DATA).stat().st_size
    if sorted(shapes) != sorted(map(tuple, held)) or total > size:
        raise Unusable(
            f"{folder}: expected weights of {len(shapes)} shapes, as its graph has them, in {size} bytes. Received: "
            f"{len(held)} arrays of {total} bytes, or other shapes"
        )
