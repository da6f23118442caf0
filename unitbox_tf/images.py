"""Decodes, turns, measures and writes images. In memory, images are RGB uint8 `[H, W, 3]`, as displayed.

Importing this module does not import TensorFlow. The functions that run in graphs import it.
"""

from __future__ import annotations

import functools
import io
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from unitbox_tf.files import Part

if TYPE_CHECKING:
    import tensorflow as tf

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png"})
PILLOW_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP")  # the formats that TensorFlow decodes
EXIF_SEARCHED = 1 << 16  # bytes at the start of a file in which the EXIF header is searched
ORIENTATION_TAG = 0x0112
TURNED = range(5, 9)  # EXIF orientations that exchange width and height
UNDECODABLE = "image that cannot be decoded"  # the kind of problem


def decode_image(encoded: tf.Tensor) -> tf.Tensor:
    """The RGB image uint8 `[H, W, 3]` in an encoded JPEG, PNG, BMP or GIF (its first frame), as displayed.

    Runs in graphs. The EXIF orientation of a JPEG is applied. Raises
    `tf.errors.InvalidArgumentError` if it cannot be decoded.
    """
    import tensorflow as tf

    image = tf.io.decode_image(encoded, channels=3, expand_animations=False)
    image = tf.ensure_shape(image, [None, None, 3])
    orientation = exif_orientation(encoded)

    def applied(image: tf.Tensor, orientations: list[int], change: Any) -> tf.Tensor:
        wanted = tf.reduce_any(orientation == orientations)
        changed = tf.cond(wanted, lambda: change(image), lambda: image)
        return tf.ensure_shape(changed, [None, None, 3])

    image = applied(image, [5, 6, 7, 8], lambda x: tf.transpose(x, [1, 0, 2]))
    image = applied(image, [2, 3, 6, 7], lambda x: x[:, ::-1])
    return applied(image, [3, 4, 7, 8], lambda x: x[::-1])


def exif_orientation(encoded: tf.Tensor) -> tf.Tensor:
    """The EXIF orientation (int32, 1 to 8) in the header of an encoded JPEG; 1 if there is none.

    Source: Exif 2.32, 4.6: the word "Exif", two zeros, a TIFF header (byte order, 42, offset of the first
        directory), then 12 bytes an entry.
    """
    import tensorflow as tf

    data = tf.io.decode_raw(tf.strings.substr(encoded, 0, EXIF_SEARCHED), tf.uint8)
    data = tf.cast(tf.concat([data, tf.zeros([16], tf.uint8)], axis=0), tf.int32)
    last = tf.size(data) - 1

    def byte(position: tf.Tensor) -> tf.Tensor:
        return tf.gather(data, tf.clip_by_value(position, 0, last))

    marker = [ord(letter) for letter in "Exif\0\0"]
    hits = tf.reduce_all(
        tf.stack([data[i : last - 6 + i] == value for i, value in enumerate(marker)]), axis=0
    )
    is_jpeg = (data[0] == 0xFF) & (data[1] == 0xD8)
    tiff = tf.cast(tf.argmax(hits), tf.int32) + len(marker)
    little = byte(tiff) == ord("I")

    def uint16(position: tf.Tensor) -> tf.Tensor:
        first, second = byte(position), byte(position + 1)
        return tf.where(little, first + 256 * second, 256 * first + second)

    def uint32(position: tf.Tensor) -> tf.Tensor:
        low, high = (
            tf.where(little, position, position + 2),
            tf.where(little, position + 2, position),
        )
        return uint16(low) + 65536 * tf.minimum(uint16(high), 1)  # no header is longer

    directory = tiff + uint32(tiff + 4)
    entries = directory + 2 + 12 * tf.range(tf.minimum(uint16(directory), 512))
    found = (uint16(entries) == ORIENTATION_TAG) & (entries + 12 <= last)
    value = tf.reduce_max(tf.concat([tf.where(found, uint16(entries + 8), 0), [0]], axis=0))
    usable = is_jpeg & tf.reduce_any(hits) & (value >= 1) & (value <= 8)
    return tf.where(usable, value, 1)


@functools.cache
def _decoder() -> Any:
    """`decode_image`, traced once."""
    import tensorflow as tf

    signature = [tf.TensorSpec([], tf.string)]
    return tf.function(decode_image, input_signature=signature, autograph=False)


def decode_photo(encoded: bytes) -> tf.Tensor:
    """`decode_image` for Python. Raises `ValueError`, with the reason, if `encoded` is no image."""
    import tensorflow as tf

    try:
        return _decoder()(encoded)
    except tf.errors.InvalidArgumentError as error:
        # The last line that does not name a node of the graph gives the reason.
        lines = [line for line in error.message.splitlines() if line and "[[{{node" not in line]
        reason = re.sub(r"^\{\{.*?\}\} | \[Op:\w+\]$", "", lines[-1])
        raise ValueError(
            f"expected a JPEG or PNG image, which these {len(encoded)} bytes are not. TensorFlow: {reason}"
        ) from error


def decode_with_pillow(encoded: bytes) -> np.ndarray:
    """`decode_photo` without TensorFlow: the RGB image uint8 `[H, W, 3]` in an encoded image, as displayed.

    Pixels of a JPEG differ by a few levels from the pixels of `decode_photo`, since the decoders differ.

    Raises:
        ValueError: it cannot be decoded.
    """
    try:
        with Image.open(io.BytesIO(encoded), formats=PILLOW_FORMATS) as image:
            return from_pillow(image)
    except Exception as error:  # Pillow raises errors of many classes for damaged files
        unknown = isinstance(error, UnidentifiedImageError)
        raise ValueError(
            f"expected a JPEG or PNG image, which these {len(encoded)} bytes are not. Pillow: "
            + ("unknown image file format" if unknown else str(error))
        ) from error


def from_pillow(image: Image.Image) -> np.ndarray:
    """A PIL image as RGB uint8 `[H, W, 3]`, with the pixels that reading its file gives."""
    if image.mode == "F":  # Pillow would cut at 0 and 255, whatever the range is
        raise ValueError("Expected a PIL image of whole numbers. Received: mode F")
    if image.format != "PNG":  # the input pipeline turns no PNG
        image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # 16 bits a pixel, which Pillow would cut at 255
        grey = np.clip(np.asarray(image) >> 8, 0, 255).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    return np.asarray(image.convert("RGB"))


def check_array(image: np.ndarray) -> None:
    """Raises `ValueError` if the array is no RGB image uint8 `[H, W, 3]`."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ValueError(
            f"Expected an RGB image uint8 [H, W, 3]. Received: {image.dtype} {list(image.shape)}"
        )


def encode_png(image: np.ndarray) -> bytes:
    """An RGB image uint8 `[H, W, 3]` as the bytes of a PNG, without any loss.

    Raises:
        ValueError: the array has another shape or type.
    """
    check_array(image)
    return cv2.imencode(".png", np.ascontiguousarray(image[..., ::-1]))[1].tobytes()


def save_image(image: np.ndarray, path: str | Path) -> None:
    """Writes an RGB image uint8 `[H, W, 3]`; the suffix of `path` gives the format.

    Raises:
        OSError: it cannot be written, or OpenCV writes no format with this suffix.
    """
    path = Path(path)
    try:
        written, encoded = cv2.imencode(path.suffix, np.ascontiguousarray(image[..., ::-1]))
    except cv2.error as error:
        raise OSError(f"{path}: could not be encoded: {error.err}") from error
    if not written:
        raise OSError(f"{path}: could not be encoded")
    path.write_bytes(encoded.tobytes())


def photo_size(photo: Path | Part | bytes) -> tuple[int, int]:
    """Height and width of a JPEG or PNG image as displayed, from its header alone.

    Raises `ValueError` or `OSError` if the header cannot be read.
    """
    encoded = photo.read() if isinstance(photo, Part) else photo
    try:
        with Image.open(io.BytesIO(encoded) if isinstance(encoded, bytes) else encoded) as image:
            width, height = image.size
            # Like the input pipeline, which turns no PNG.
            turned = image.format != "PNG" and image.getexif().get(ORIENTATION_TAG, 1) in TURNED
    except FileNotFoundError:
        raise
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"expected a JPEG or PNG image: {error}") from error
    return (width, height) if turned else (height, width)


def photos(folder: Path) -> list[Path]:
    """All JPEG and PNG files in `folder` and in the folders below it, sorted."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
