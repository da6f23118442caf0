"""Exported detectors: files that applications open without this package. Each format has a module.

A module writes (`save`) and opens (`open`) its format. Its `Format` holds both, and `registry.FORMATS`
names it. Importing these modules does not import TensorFlow. Writing needs TensorFlow, but opening an ONNX
or LiteRT file does not.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from unitbox_tf import config as configs
from unitbox_tf import files, images, inputs, registry, runs, settings
from unitbox_tf.archives import Unusable
from unitbox_tf.config import DecodeConfig, ModelConfig
from unitbox_tf.problems import Problems
from unitbox_tf.records import Detections

if TYPE_CHECKING:
    from unitbox_tf.detect.model import UnitBox

# The facts in an exported file: keys of the metadata in ONNX, names of files in LiteRT.
CLASS_NAMES, DECODE_CONFIG, MODEL_CARD = "class_names.json", "decode_config.json", "model_card.md"
CALIBRATION_IMAGES = 100  # more of them change the ranges of activations little


@dataclasses.dataclass(frozen=True)
class Format:
    """A format of exported detectors.

    Attributes:
        name: the name in `registry.FORMATS`.
        suffix: the end of its file names; empty if the format is a folder.
        save: a function `(model, path, card, *, decode)` that writes a detector. `model` is a Keras model
            with the attributes `class_names`, `decode` and `backbone`, `card` is the text of a model card,
            and `decode` replaces the model's settings of decoding.
        open: a function `(path, *, trust)` that opens a path, and returns `Exported`. Raises `ValueError` if this
            package did not write the file, and `ImportError` if a library is not installed. `trust` is True if the
            user trusts whoever made the file; a format whose files are no programs does without it.
        engine: the library, a name in `Decoder.engines`, that runs the decoder of the files.
        marker: the name of a file in each folder of this format.
        calibrated: True if `save` also takes `calibration`: RGB images uint8 `[H, W, 3]`.
    """

    name: str
    suffix: str
    save: Callable[..., None]
    open: Callable[..., Exported]
    engine: str = "tensorflow"
    marker: str = ""
    calibrated: bool = False

    def is_at(self, path: Path) -> bool:
        """True if `path` looks like an exported detector of this format."""
        if self.suffix:
            return path.suffix == self.suffix and path.is_file()
        return (path / self.marker).is_file()


@dataclasses.dataclass(frozen=True)
class Exported:
    """An exported detector that is open.

    Attributes:
        detect: maps an RGB image uint8 `[H, W, 3]` and settings to detections in its pixels.
        class_names: the names of the classes in `Detections.classes`.
        decode: the settings with which it was exported.
        options: fields of `decode` that `detect` uses. The other fields are fixed in the file.
        decode_image: decodes bytes to an RGB image of at most a number of pixels, see `Detector`.
        detect_batch: maps RGB images uint8 `[B, H, W, 3]` and settings to the detections in each image. None if the
            file takes one image at a time. Rounding may differ from that of `detect`.
    """

    detect: Callable[[np.ndarray, DecodeConfig], Detections]
    class_names: tuple[str, ...]
    decode: DecodeConfig
    options: tuple[str, ...]
    decode_image: Callable[[bytes, int], Any]
    detect_batch: Callable[[np.ndarray, DecodeConfig], list[Detections]] | None = None


def export(
    model: UnitBox | str | os.PathLike[str],
    path: str | Path,
    *,
    format: str | None = None,
    calibration: inputs.Images = (),
    problems: Problems | None = None,
    **decode: Any,
) -> Path:
    """Writes a detector as a file or folder for applications.

    Args:
        model: a `UnitBox`, the folder of a run, a `.keras` file, or a published name, such as "faces".
        path: the file to write, or the folder for a SavedModel.
        format: a name of `registry.FORMATS`: "saved_model", "onnx", "litert" (float16) or "litert-int8".
            None takes the format from the suffix of `path`: .onnx, .tflite (litert), else a SavedModel.
        calibration: only for litert-int8: images like those of the application, as `Detector.many` takes
            them. At most 100 of them measure the range of each activation.
        problems: unreadable images for calibration are left out and added here. Without it, the first
            unreadable image raises an error.
        **decode: fields of `DecodeConfig` to change, such as `score_threshold=0.3`.

    Returns:
        `path`.

    Raises:
        ValueError: a run, format, field or value does not exist, they do not fit each other, or the
            decoder does not run in this format.
        ImportError: a library that writes this format is not installed.
    """
    path = Path(path)
    chosen = format_of(path, format)
    pictures = list(inputs.find(calibration))
    check_calibration(chosen, len(pictures))
    opened, card = _opened(model)
    options: dict[str, Any] = {"decode": settings.changed(opened.decode, decode)}
    check_decoder(options["decode"], chosen)
    if pictures:
        options["calibration"] = _read(pictures, options["decode"].max_pixels, problems)
    files.remove_abandoned(path)
    chosen.save(opened, path, card, **options)
    return path


def format_of(path: Path, name: str | None = None) -> Format:
    """The format of this name; without a name, the format of the path."""
    known: list[Format] = [registry.FORMATS[name] for name in registry.FORMATS]
    if name is None:
        close = difflib.get_close_matches(path.suffix.lower(), suffixes(), n=1)
        if close and path.suffix not in suffixes():
            raise ValueError(
                f"Expected a suffix of {suffixes()}, or no suffix for a SavedModel. Received: {path}. "
                f"Did you mean {close[0]}?"
            )
        by_suffix = (format for format in known if format.suffix == path.suffix)
        folders = (format for format in known if not format.suffix)
        return next(by_suffix, None) or next(folders)
    chosen: Format = registry.FORMATS[name]
    if chosen.suffix and path.suffix != chosen.suffix:
        raise ValueError(
            f"Expected a file that ends in {chosen.suffix} for {name}. Received: {path}"
        )
    return chosen


def check_calibration(format: Format, count: int) -> None:
    """Raises `ValueError` if the format needs images for calibration and `count` is 0, or the reverse."""
    if format.calibrated != bool(count):
        wanted = "images for calibration" if format.calibrated else "no images for calibration"
        received = f"{count} images" if count else "none"
        raise ValueError(f"Expected {wanted} with the format {format.name}. Received: {received}")


def _opened(model: Any) -> tuple[UnitBox, str]:
    """The model that `export` is given, and its model card."""
    from unitbox_tf.detect.model import UnitBox

    if isinstance(model, str | os.PathLike):
        run = runs.Run.find(model)
        model = UnitBox.from_preset(run.folder)
        if run.exists:
            return model, run.card()
    if not isinstance(model, UnitBox):
        raise ValueError(
            "Expected a UnitBox, the folder of a run, a .keras file or a published name. "
            f"Received: {type(model).__name__}"
        )
    return model, f"# UnitBox detector: {', '.join(model.class_names)}\n"


def _read(
    pictures: Sequence[inputs.Picture], max_pixels: int, problems: Problems | None
) -> Iterator[np.ndarray]:
    """Images for calibration, evenly spread over `pictures`."""
    count = min(len(pictures), CALIBRATION_IMAGES)
    for index in np.linspace(0, len(pictures) - 1, count).round().astype(int):
        name, image = pictures[index]
        try:
            yield inputs.read_image(image, max_pixels=max_pixels)
        except images.UNREADABLE as error:
            if problems is None:
                raise
            message = f"left out of calibration: {str(error).removeprefix(f'{name}: ')}"
            problems.add(images.UNDECODABLE, name, message)


def open_exported(path: Path, *, trust: bool = False) -> Exported | None:
    """The exported detector in `path`, a file or a folder of any format; None if it is neither.

    `trust` is that of `loading.load`.

    Raises:
        ValueError: `path` has such a format, but this package did not write it.
        ImportError: the library that opens this format is not installed.
    """
    for name in registry.FORMATS:
        format: Format = registry.FORMATS[name]
        if format.is_at(path):
            return format.open(path, trust=trust)
    return None


def is_exported(path: Path) -> bool:
    """True if `path` looks like an exported detector of some format."""
    return any(registry.FORMATS[name].is_at(path) for name in registry.FORMATS)


def suffixes() -> list[str]:
    """The suffixes of exported files."""
    found = (registry.FORMATS[name].suffix for name in registry.FORMATS)
    return list(dict.fromkeys(suffix for suffix in found if suffix))


def check_decoder(decode: DecodeConfig, format: Format) -> None:
    """Raises `ValueError` if the decoder does not run in the format."""
    able = [each for each in registry.DECODERS if format.engine in registry.DECODERS[each].engines]
    if decode.decoder not in able:
        raise ValueError(
            f"Expected a decoder that runs in {format.name}, one of {able}. "
            f"Received: {decode.decoder!r}"
        )


def description(class_names: Sequence[str], decode: DecodeConfig, card: str) -> dict[str, str]:
    """The facts in an exported file, as texts by `CLASS_NAMES`, `DECODE_CONFIG` and `MODEL_CARD`."""
    names = json.dumps(list(class_names))
    chosen = json.dumps(dataclasses.asdict(decode))
    return {CLASS_NAMES: names, DECODE_CONFIG: chosen, MODEL_CARD: card}


def described(
    path: Path, class_names: str | bytes, decode: str | bytes
) -> tuple[tuple[str, ...], DecodeConfig]:
    """Class names and settings from the texts that `description` made for the file `path`.

    Raises:
        ValueError: a text is not what `description` writes. The message begins with `path`.
    """
    names = configs.parse(_text(class_names, path), f"{path}: {CLASS_NAMES}")
    values = configs.parse(_text(decode, path), f"{path}: {DECODE_CONFIG}")
    checked: ModelConfig = settings.from_dict(ModelConfig, {"class_names": names}, str(path))
    if not checked.class_names:
        raise ValueError(f"{path}: {CLASS_NAMES}: expected the name of each class. Received: none")
    return checked.class_names, settings.from_dict(DecodeConfig, values, f"{path}: decode")


def _text(content: str | bytes, path: Path) -> str:
    return content if isinstance(content, str) else configs.decoded(content, str(path))


def foreign(path: Path, kind: str, why: object) -> ValueError:
    """The error for a file that has the format but was not written by this package."""
    reason = str(why).removeprefix(f"{path}: ")
    return Unusable(f"{path}: {kind}, but not exported by unitbox_tf: {reason}")
