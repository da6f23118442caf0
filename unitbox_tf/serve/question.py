"""The question of a request, and its answer, in the words of no protocol."""

from __future__ import annotations

import dataclasses
import json
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from unitbox_tf import limits
from unitbox_tf.config import DecodeConfig
from unitbox_tf.records import Detections

ENCODED, IMAGES = "encoded", "images"  # the names of the inputs, as in exported files
VERSION = "1"  # a server has one version of one detector
JSON = "application/json"
_TYPES = typing.get_type_hints(DecodeConfig)


@dataclasses.dataclass(frozen=True)
class Answer:
    """An answer to a request.

    Attributes:
        status: of HTTP.
        body: its bytes.
        headers: names in lower case, and values.
    """

    status: int
    body: bytes
    headers: Mapping[str, str] = dataclasses.field(default_factory=lambda: {"content-type": JSON})

    @classmethod
    def of(cls, content: Any, status: int = 200, **headers: str) -> Answer:
        """An answer in json."""
        return cls(status, json.dumps(content).encode(), {"content-type": JSON, **headers})


class Refused(ValueError):
    """A request that gets no detections: the status of HTTP and the reason. Both protocols write it alike."""

    def __init__(self, status: int, text: str, **headers: str) -> None:
        super().__init__(text)
        self.answer = Answer.of({"error": text}, status, **headers)


@dataclasses.dataclass(frozen=True)
class Question:
    """The question of a request.

    Attributes:
        photos: encoded images, or RGB images uint8 `[H, W, 3]`.
        decodes: the settings of decoding for each of them.
        respond: the answer with the detections in each of them.
    """

    photos: Sequence[bytes | np.ndarray]
    decodes: Sequence[DecodeConfig]
    respond: Callable[[Sequence[Detections]], Answer]


Parse = Callable[[bytes, Mapping[str, str]], Question]


@dataclasses.dataclass(frozen=True)
class Model:
    """The detector that is served.

    Attributes:
        name: its name in paths.
        decode: the settings of decoding that a request does not name.
        options: fields of `decode` that a request may name.
        max_photos: the largest number of photos in a request.
        server_version: the version of this package.
    """

    name: str
    decode: DecodeConfig
    options: tuple[str, ...]
    max_photos: int
    server_version: str

    def kind(self, option: str) -> type:
        """The type of an option: float, int or str."""
        kind: type = _TYPES[option]
        return kind

    def check_count(self, count: int) -> None:
        """Raises `Refused` if a request may not have so many photos."""
        if not 1 <= count <= self.max_photos:
            raise Refused(
                400, f"expected from 1 to {self.max_photos} photos in a request. Received: {count}"
            )

    def decodes(self, options: Mapping[str, Sequence[Any]], count: int) -> list[DecodeConfig]:
        """The settings for each of `count` photos. An option has one value for all of them, or one for each.

        Raises:
            Refused: a value is unusable, or their number.
        """
        for name, values in options.items():
            if len(values) not in (1, count):
                raise Refused(
                    400, f"{name}: expected 1 value or {count}. Received: {len(values)} values"
                )
        rows = []
        for index in range(count):
            row = {n: v[index if len(v) > 1 else 0] for n, v in options.items()}
            given = {name: self._value(name, value) for name, value in row.items()}
            try:
                rows.append(dataclasses.replace(self.decode, **given))
            except ValueError as error:
                raise Refused(400, str(error).removeprefix("DecodeConfig.")) from error
        return rows

    def _value(self, name: str, value: Any) -> Any:
        kind = self.kind(name)
        if kind is float and type(value) is int:
            return float(value)
        if kind is str and isinstance(value, bytes):
            return value.decode("utf-8", "replace")
        return value


def padded(found: Sequence[Detections], decodes: Sequence[DecodeConfig]) -> dict[str, np.ndarray]:
    """The outputs as an exported SavedModel gives them: detections with zeros up to the largest `max_detections`."""
    most = max(decode.max_detections for decode in decodes)
    count = len(found)
    outputs = {
        "boxes": np.zeros((count, most, 4), np.float32),
        "scores": np.zeros((count, most), np.float32),
        "classes": np.zeros((count, most), np.int32),
        "num_detections": np.array([len(each) for each in found], np.int32),
    }
    for index, each in enumerate(found):
        outputs["boxes"][index, : len(each)] = each.boxes
        outputs["scores"][index, : len(each)] = each.scores
        outputs["classes"][index, : len(each)] = each.classes
    return outputs


def plain(array: np.ndarray) -> Any:
    """An array as nested lists for json. A float32 has the fewest digits that give it back."""
    if array.dtype == np.float32:
        array = array.astype(str).astype(np.float64)
    return array.tolist()


def json_object(body: bytes) -> dict[str, Any]:
    """The json object in a body.

    Raises:
        Refused: the body is no json object, or has more lists and objects than `limits.MAX_REQUEST_LISTS`.
    """
    lists = body.count(b"[") + body.count(b"{")
    if lists > limits.MAX_REQUEST_LISTS:
        raise Refused(
            400,
            f"expected at most {limits.MAX_REQUEST_LISTS:,} lists and objects. Received: {lists:,}; send large images "
            "encoded, as JPEG or PNG",
        )
    try:
        content = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Refused(400, f"expected json. Received: {error}") from error
    if not isinstance(content, dict):
        raise Refused(400, f"expected a json object. Received: {type(content).__name__}")
    return content


def image_batch(pixels: Any, where: str) -> np.ndarray:
    """RGB images uint8 `[B, H, W, 3]` of nested lists of numbers.

    Raises:
        Refused: they are something else.
    """
    try:
        array = np.array(pixels)
    except ValueError as error:  # lists of different lengths
        raise Refused(400, f"{where}: expected images of one size. Received: {error}") from error
    if array.dtype.kind not in "iu" or array.ndim != 4 or array.shape[3] != 3 or not array.size:
        raise Refused(
            400,
            f"{where}: expected whole numbers [B, H, W, 3]. Received: {array.dtype} {list(array.shape)}",
        )
    if array.min() < 0 or array.max() > 255:
        raise Refused(
            400, f"{where}: expected levels from 0 to 255. Received: {array.min()} to {array.max()}"
        )
    return array.astype(np.uint8)
