"""The Open Inference Protocol (KServe v2) over HTTP, with the extension for binary tensors.

Sources: kserve/open-inference-protocol, inference_rest.md; Triton Inference Server, extension_binary_data.md. In json,
an encoded photo is a text in base64, since json has no bytes. In the binary extension it is its bytes.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from unitbox_tf.config import DecodeConfig
from unitbox_tf.records import Detections
from unitbox_tf.serve.question import (
    ENCODED,
    IMAGES,
    VERSION,
    Answer,
    Model,
    Parse,
    Question,
    Refused,
    image_batch,
    json_object,
    padded,
    plain,
)
from unitbox_tf.serve.tensorflow_rest import from_base64

PREFIX = "/v2"
BINARY = "binary_tensor_data"  # the name of the extension
HEADER_LENGTH = "inference-header-content-length"
_PATH = re.compile(
    r"/v2/models/(?P<name>[^/]+)(?:/versions/(?P<version>[^/]+))?(?P<what>/ready|/infer)?"
)
_OPTION_TYPES = {float: "FP32", int: "INT32", str: "BYTES"}
_DTYPES: dict[str, np.dtype[Any]] = {
    "FP32": np.dtype("<f4"),
    "INT32": np.dtype("<i4"),
    "UINT8": np.dtype("u1"),
}
_OUTPUTS = {
    "boxes": ("FP32", [-1, -1, 4]),
    "scores": ("FP32", [-1, -1]),
    "classes": ("INT32", [-1, -1]),
    "num_detections": ("INT32", [-1]),
}


@dataclasses.dataclass(frozen=True)
class _Asked:
    """The wishes of a request about its answer.

    Attributes:
        head: the fields that are returned as they came.
        outputs: the names of the outputs, and whether each is wanted as bytes.
    """

    head: dict[str, Any]
    outputs: dict[str, bool]


def route(model: Model, method: str, path: str) -> Answer | Parse:
    """The answer to a request without a body, or what reads the body.

    Raises:
        Refused: there is no such path, detector or version.
    """
    if method != "POST":
        facts = {
            "/v2": _server(model),
            "/v2/": _server(model),
            "/v2/health/live": {"live": True},
            "/v2/health/ready": {"ready": True},
        }
        if path in facts:
            return Answer.of(facts[path])
    match = _PATH.fullmatch(path)
    if match is None or (method == "POST") != (match["what"] == "/infer"):
        raise Refused(404, f"there is no {method} {path[:200]}")
    if match["name"] != model.name or match["version"] not in (None, VERSION):
        version = f" version {match['version'][:100]}" if match["version"] else ""
        raise Refused(
            404, f"Request for unknown model: '{match['name'][:200]}'{version} is not found"
        )
    if method == "POST":
        return lambda body, headers: _infer(model, body, headers)
    if match["what"] == "/ready":
        return Answer.of({"name": model.name, "ready": True})
    return Answer.of(_metadata(model))


def _server(model: Model) -> dict[str, Any]:
    return {"name": "unitbox", "version": model.server_version, "extensions": [BINARY]}


def _metadata(model: Model) -> dict[str, Any]:
    """The input that is required, and the outputs. Images as arrays in its place, and options, are not."""
    outputs = [
        {"name": name, "datatype": datatype, "shape": shape}
        for name, (datatype, shape) in _OUTPUTS.items()
    ]
    return {
        "name": model.name,
        "versions": [VERSION],
        "platform": "unitbox_tf",
        "inputs": [{"name": ENCODED, "datatype": "BYTES", "shape": [-1]}],
        "outputs": outputs,
    }


def _infer(model: Model, body: bytes, headers: Mapping[str, str]) -> Question:
    length = headers.get(HEADER_LENGTH, str(len(body)))
    if not re.fullmatch("[0-9]{1,18}", length) or int(length) > len(body):
        raise Refused(400, f"{HEADER_LENGTH}: expected at most {len(body)}, the length of the body")
    content, binary = json_object(body[: int(length)]), memoryview(body)[int(length) :]
    inputs: dict[str, Any] = {}
    for each in _objects(content, "inputs"):
        name = each.get("name")
        if name not in (ENCODED, IMAGES, *model.options) or name in inputs:
            known = ", ".join((ENCODED, IMAGES, *model.options))
            raise Refused(
                400, f"expected inputs of {known}, each once. Received: {str(name)[:100]!r}"
            )
        size = _parameter(each, "binary_data_size", 0)
        inputs[name] = _input(model, each, binary[:size] if size else None)
        binary = binary[size:]
    if len(binary):
        raise Refused(400, f"expected as many bytes as inputs take. Received: {len(binary)} more")
    if (ENCODED in inputs) == (IMAGES in inputs):
        raise Refused(400, f"expected one of the inputs {ENCODED} and {IMAGES}")
    photos = list(inputs.pop(ENCODED) if ENCODED in inputs else inputs.pop(IMAGES))
    model.check_count(len(photos))
    decodes = model.decodes(inputs, len(photos))
    asked = _asked(content)
    return Question(photos, decodes, lambda found: _answer(model, asked, found, decodes))


def _objects(content: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    given = content.get(name)
    if not isinstance(given, list) or not all(isinstance(each, dict) for each in given):
        raise Refused(400, f"{name}: expected a list of objects")
    return given


def _parameter(owner: Mapping[str, Any], name: str, default: Any) -> Any:
    """A parameter of the type of `default`, which is its value if it is not given."""
    parameters = owner.get("parameters", {})
    value = parameters.get(name, default) if isinstance(parameters, dict) else None
    if type(value) is not type(default) or (type(value) is int and value < 0):
        raise Refused(400, f"{name}: expected a {type(default).__name__}. Received: {value!r:.100}")
    return value


def _input(model: Model, given: Mapping[str, Any], binary: memoryview | None) -> Any:
    """The values of an input: bytes of each photo, images `[B, H, W, 3]`, or the values of an option."""
    name = given["name"]
    wanted = {ENCODED: "BYTES", IMAGES: "UINT8"}.get(name) or _OPTION_TYPES[model.kind(name)]
    shape = given.get("shape")
    if given.get("datatype") != wanted:
        raise Refused(
            400, f"{name}: expected the datatype {wanted}. Received: {given.get('datatype')!r:.100}"
        )
    if not isinstance(shape, list) or not all(type(n) is int and 0 <= n < 2**31 for n in shape):
        raise Refused(400, f"{name}: expected a shape of whole numbers. Received: {shape!r:.100}")
    count = math.prod(shape)
    if name == IMAGES:
        values = _numbers(name, given, wanted, count, binary)
        if len(shape) != 4:
            raise Refused(400, f"{name}: expected the shape [B, H, W, 3]. Received: {shape!r:.100}")
        return image_batch(values.reshape(shape), IMAGES)
    if len(shape) > 2 or (len(shape) == 2 and shape[1] != 1):
        raise Refused(400, f"{name}: expected the shape [B]. Received: {shape!r:.100}")
    if wanted == "BYTES":
        texts = _texts(name, given, count, binary)
        is_text = binary is None and name == ENCODED
        return [from_base64(text, name) if is_text else text for text in texts]
    return _numbers(name, given, wanted, count, binary).tolist()


def _numbers(
    name: str, given: Mapping[str, Any], datatype: str, count: int, binary: memoryview | None
) -> np.ndarray:
    """The values of an input of numbers `[count]`."""
    if binary is not None:
        if len(binary) != count * _DTYPES[datatype].itemsize:
            raise Refused(400, f"{name}: expected {count} numbers. Received: {len(binary)} bytes")
        return np.frombuffer(binary, _DTYPES[datatype])
    try:
        values = np.array(given.get("data")).reshape(-1)
    except ValueError as error:  # lists of different lengths
        raise Refused(400, f"{name}: expected numbers. Received: {error}") from error
    kinds = "iu" if datatype != "FP32" else "iuf"
    if values.dtype.kind not in kinds or len(values) != count:
        raise Refused(
            400, f"{name}: expected {count} numbers. Received: {len(values)} of {values.dtype}"
        )
    return values


def _texts(name: str, given: Mapping[str, Any], count: int, binary: memoryview | None) -> list[Any]:
    """The values of an input of bytes `[count]`: as bytes, or in json as text."""
    if binary is None:
        texts = _flat(given.get("data"))
        if len(texts) != count or not all(isinstance(text, str) for text in texts):
            raise Refused(400, f"{name}: expected {count} texts in data. Received: {len(texts)}")
        return texts
    values = []
    while len(binary):
        length = struct.unpack_from("<I", binary)[0] if len(binary) >= 4 else 1 << 32
        if 4 + length > len(binary):
            raise Refused(400, f"{name}: a length is larger than the bytes that follow")
        values.append(bytes(binary[4 : 4 + length]))
        binary = binary[4 + length :]
    if len(values) != count:
        raise Refused(400, f"{name}: expected {count} elements. Received: {len(values)}")
    return values


def _flat(data: Any) -> list[Any]:
    """The elements of a list, or of a list of lists."""
    if not isinstance(data, list):
        return []
    return [part for each in data for part in (each if isinstance(each, list) else [each])]


def _asked(content: Mapping[str, Any]) -> _Asked:
    everything = _parameter(content, "binary_data_output", False)
    named = _objects(content, "outputs") if content.get("outputs") else []
    outputs = dict.fromkeys(_OUTPUTS, everything)
    if named:
        outputs = {}
        for each in named:
            name = each.get("name")
            if name not in _OUTPUTS:
                known = ", ".join(_OUTPUTS)
                raise Refused(400, f"expected outputs of {known}. Received: {str(name)[:100]!r}")
            outputs[name] = _parameter(each, "binary_data", everything)
    identifier = content.get("id", "")
    if not isinstance(identifier, str):
        raise Refused(400, "id: expected a text")
    return _Asked({"id": identifier} if identifier else {}, outputs)


def _answer(
    model: Model, asked: _Asked, found: Sequence[Detections], decodes: Sequence[DecodeConfig]
) -> Answer:
    arrays, outputs, parts = padded(found, decodes), [], []
    for name, as_bytes in asked.outputs.items():
        datatype = _OUTPUTS[name][0]
        array = arrays[name].astype(_DTYPES[datatype])
        each: dict[str, Any] = {"name": name, "datatype": datatype, "shape": list(array.shape)}
        if as_bytes:
            parts.append(array.tobytes())
            each["parameters"] = {"binary_data_size": len(parts[-1])}
        else:
            each["data"] = plain(array.reshape(-1))
        outputs.append(each)
    head = {"model_name": model.name, "model_version": VERSION, **asked.head, "outputs": outputs}
    if not parts:
        return Answer.of(head)
    text = json.dumps(head).encode()
    headers = {"content-type": "application/octet-stream", HEADER_LENGTH: str(len(text))}
    return Answer(200, b"".join([text, *parts]), headers)
