"""TensorFlow Serving's REST API for the signatures of an exported SavedModel.

Requests, answers and statuses are those of TensorFlow Serving ("RESTful API", api_rest.md, and json_tensor.cc in its
source). Settings may be left out here, and then are those of the detector.
"""

from __future__ import annotations

import base64
import binascii
import re
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

PREFIX = "/v1/"
DEFAULT = "serving_default"
# The input of each signature, and whether it takes settings.
SIGNATURES = {
    DEFAULT: (ENCODED, False),
    ENCODED: (ENCODED, False),
    IMAGES: (IMAGES, False),
    f"{ENCODED}_with_options": (ENCODED, True),
    f"{IMAGES}_with_options": (IMAGES, True),
}
PREDICT = "tensorflow/serving/predict"
_PATH = re.compile(
    r"/v1/models/(?P<name>[^/:]+)(?:/versions/(?P<version>[0-9]{1,18}))?"
    r"(?P<what>/metadata|:classify|:regress|:predict)?"
)
_DTYPES = {float: "DT_FLOAT", int: "DT_INT32", str: "DT_STRING"}
_OUTPUTS = {
    "boxes": ("DT_FLOAT", [-1, -1, 4]),
    "scores": ("DT_FLOAT", [-1, -1]),
    "classes": ("DT_INT32", [-1, -1]),
    "num_detections": ("DT_INT32", [-1]),
}


def route(model: Model, method: str, path: str) -> Answer | Parse:
    """The answer to a request without a body, or what reads the body.

    Raises:
        Refused: there is no such path, detector or version.
    """
    match = _PATH.fullmatch(path)
    what = match["what"] or "" if match else ""
    if match is None or (method == "POST") != what.startswith(":"):
        raise Refused(400, f"Malformed request: {method} {path}")
    name, version = match["name"], match["version"]
    if name != model.name or version not in (None, VERSION):
        wanted = f"Latest({name})" if version is None else f"Specific({name}, {version})"
        raise Refused(404, f"Servable not found for request: {wanted}")
    if what in (":classify", ":regress"):
        raise Refused(
            400, f"Expected the method predict. Received: {what[1:]}; no signature has it"
        )
    if what == ":predict":
        return lambda body, headers: _predict(model, body)
    return Answer.of(_metadata(model) if what else _status())


def _status() -> dict[str, Any]:
    status = {"error_code": "OK", "error_message": ""}
    return {"model_version_status": [{"version": VERSION, "state": "AVAILABLE", "status": status}]}


def _metadata(model: Model) -> dict[str, Any]:
    """Names, types and shapes of all inputs and outputs, as protobuf writes a SignatureDefMap in json."""
    outputs = {name: _tensor(name, *facts) for name, facts in _OUTPUTS.items()}
    signatures = {}
    for name, (data, with_options) in SIGNATURES.items():
        is_encoded = data == ENCODED
        shape = ("DT_STRING", [-1]) if is_encoded else ("DT_UINT8", [-1, -1, -1, 3])
        inputs = {data: _tensor(f"{name}_{data}", *shape)}
        if with_options:
            for option in model.options:
                dtype = _DTYPES[model.kind(option)]
                inputs[option] = _tensor(f"{name}_{option}", dtype, None if is_encoded else [])
        signatures[name] = {"inputs": inputs, "outputs": outputs, "method_name": PREDICT}
    return {
        "model_spec": {"name": model.name, "signature_name": "", "version": VERSION},
        "metadata": {"signature_def": {"signature_def": signatures}},
    }


def _tensor(name: str, dtype: str, shape: Sequence[int] | None) -> dict[str, Any]:
    """A TensorInfo. A shape of None is any: a scalar, or a vector with a value for each photo."""
    dims = [{"size": str(size), "name": ""} for size in shape or ()]
    return {
        "dtype": dtype,
        "tensor_shape": {"dim": dims, "unknown_rank": shape is None},
        "name": f"{name}:0",
    }


def _predict(model: Model, body: bytes) -> Question:
    content = json_object(body)
    name = content.get("signature_name", DEFAULT)
    if not isinstance(name, str):
        raise Refused(400, "'signature_name' key must be a string value.")
    if (name or DEFAULT) not in SIGNATURES:
        raise Refused(400, f'Serving signature name: "{name}" not found in signature def')
    data, with_options = SIGNATURES[name or DEFAULT]
    options = model.options if with_options else ()
    keys = [key for key in ("instances", "inputs") if key in content]
    if len(keys) != 1:
        raise Refused(400, f"expected one of the keys 'instances' and 'inputs'. Received: {keys}")
    by_row = keys == ["instances"]
    columns = (_of_rows if by_row else _of_columns)(content[keys[0]], data, options)
    given = columns.pop(data)
    if data == ENCODED:
        model.check_count(len(given))
        photos: Sequence[bytes | np.ndarray] = [_bytes(each, ENCODED) for each in given]
    else:
        model.check_count(len(given))
        photos = list(image_batch(given, IMAGES))
    values = {n: [_option(n, each) for each in column] for n, column in columns.items()}
    decodes = model.decodes(values, len(photos))
    respond = _rows if by_row else _columns
    return Question(photos, decodes, lambda found: respond(found, decodes))


def _of_rows(rows: Any, data: str, options: Sequence[str]) -> dict[str, list[Any]]:
    """The values of each input in the row format: a value for each photo, or an object with all inputs."""
    if not isinstance(rows, list) or not rows:
        raise Refused(400, "Expecting 'instances' to be a list with values")
    named = [isinstance(row, dict) and set(row) != {"b64"} for row in rows]
    if not any(named):
        return {data: rows}
    if not all(named):
        raise Refused(400, "expected only objects, or only values, in 'instances'")
    _check_names(rows[0], data, options)
    for index, row in enumerate(rows):
        if set(row) != set(rows[0]):
            raise Refused(
                400,
                f"Failed to process element: {index} of 'instances' list. JSON object must only have keys: "
                f"{', '.join(rows[0])}",
            )
    return {name: [row[name] for row in rows] for name in rows[0]}


def _of_columns(columns: Any, data: str, options: Sequence[str]) -> dict[str, list[Any]]:
    """The values of each input in the column format: the value of the only input, or an object with all inputs."""
    if not isinstance(columns, dict) or set(columns) == {"b64"}:
        columns = {data: columns}
    _check_names(columns, data, options)
    if not isinstance(columns[data], list):
        raise Refused(400, f"{data}: expected a list with a value for each photo")
    return {name: v if isinstance(v, list) else [v] for name, v in columns.items()}


def _check_names(given: Mapping[str, Any], data: str, options: Sequence[str]) -> None:
    if data not in given:
        raise Refused(400, f"Missing named input: {data}")
    for name in given:
        if name not in (data, *options):
            raise Refused(400, f"JSON object: does not have named input: {name[:100]}")


def _bytes(value: Any, where: str) -> bytes:
    """The bytes of a json string, or of `{"b64": TEXT}`."""
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    if isinstance(value, dict) and set(value) == {"b64"} and isinstance(value["b64"], str):
        return from_base64(value["b64"], where)
    raise Refused(400, f'{where}: expected {{"b64": TEXT}}. Received: {type(value).__name__}')


def from_base64(text: str, where: str) -> bytes:
    """The bytes of a base64 text. White space and a missing end of `=` are no error, as in TensorFlow Serving."""
    joined = "".join(text.split()).rstrip("=")
    try:
        return base64.b64decode(joined + "=" * (-len(joined) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise Refused(400, f"{where}: Unable to base64 decode: {error}") from error


def _option(name: str, value: Any) -> Any:
    return _bytes(value, name) if isinstance(value, dict) else value


def _rows(found: Sequence[Detections], decodes: Sequence[DecodeConfig]) -> Answer:
    outputs = {name: plain(value) for name, value in padded(found, decodes).items()}
    rows = [dict(zip(outputs, row, strict=True)) for row in zip(*outputs.values(), strict=True)]
    return Answer.of({"predictions": rows})


def _columns(found: Sequence[Detections], decodes: Sequence[DecodeConfig]) -> Answer:
    outputs = padded(found, decodes)
    return Answer.of({"outputs": {name: plain(value) for name, value in outputs.items()}})
