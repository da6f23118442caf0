"""Decodes, turns, measures and writes images. In memory, images are RGB uint8 `[H, W, 3]`, as displayed.

Importing this module does not import TensorFlow. The functions that run in graphs import it.
"""

from __future__ import annotations

import contextlib
import functools
import io
import os
import re
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import cv2
import numpy as np
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

from unitbox_tf import files, image_formats, image_headers
from unitbox_tf.files import Part
from unitbox_tf.image_formats import FORMATS as FORMATS
from unitbox_tf.image_formats import names_of_formats as names_of_formats
from unitbox_tf.limits import BYTES_PER_PIXEL, MAX_PIXELS, TooLarge

if TYPE_CHECKING:
    import tensorflow as tf

IMAGE_SUFFIXES = frozenset(suffix for suffixes in FORMATS.values() for suffix in suffixes)
PNG_START = b"\x89PNG\r\n\x1a\n"
START = 1 << 12  # bytes of a file that tell its kind
UPRIGHT = 1
ORIENTATION_TAG = 0x0112
REDUCED_TAG, RAW_VERSION_TAG = 0x00FE, 0xC612  # of the thumbnail in a raw photo, of DNG
TURNED = range(5, 9)  # EXIF orientations that exchange width and height
UNDECODABLE = "image that cannot be decoded"  # the kind of problem
UNREADABLE = (
    OSError,
    ValueError,
    MemoryError,
)  # the errors of one image, after which others are read
TENSORFLOW_PIXELS = ((1 << 29) - 1) // 3  # its decoders refuse images of more bytes
# Not `Image.open`, whose own limit of pixels cannot be set for one call.
PLUGINS: dict[str, Callable[[BinaryIO], Image.Image]] = {
    "JPEG": JpegImagePlugin.JpegImageFile,
    "PNG": PngImagePlugin.PngImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "GIF": GifImagePlugin.GifImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
    "WebP": WebPImagePlugin.WebPImageFile,
}


@functools.cache
def graph_decoder() -> Any:
    """`image_graph.decode_turned`, traced once."""
    import tensorflow as tf

    from unitbox_tf import image_graph

    signature = [tf.TensorSpec([], tf.string), tf.TensorSpec([], tf.int32)]
    return tf.function(image_graph.decode_turned, input_signature=signature, autograph=False)


def read_file(path: str | Path, max_pixels: int = MAX_PIXELS) -> bytes:
    """The bytes of an image file, which `decode_photo` takes.

    Raises:
        TooLarge: it has more than `max_pixels * limits.BYTES_PER_PIXEL` bytes, which are not read.
        OSError: it cannot be read, or is no regular file.
    """
    return files.read(path, max_pixels * BYTES_PER_PIXEL)


def decode_photo(encoded: bytes, max_pixels: int = MAX_PIXELS) -> tf.Tensor:
    """The RGB image uint8 `[H, W, 3]` in an encoded image of one of `FORMATS`, as displayed.

    TensorFlow decodes JPEG and PNG, and Pillow the other formats, and images that are larger than TensorFlow
    takes. An animation gives its first frame, on its canvas. Transparency is left out. A graph decodes the same
    pixels with `image_graph.decode_image`.

    Args:
        encoded: the bytes of the file.
        max_pixels: images with more pixels are refused before they are decoded.

    Raises:
        TooLarge: it has more than `max_pixels`, or more parts than `image_headers` allows.
        ValueError: it cannot be decoded. The message says why, and how to convert files of other kinds.
        MemoryError: memory does not suffice.
    """
    import tensorflow as tf

    orientation = graph_orientation(encoded, max_pixels)
    if orientation is not None:
        return _decode_with_tensorflow(encoded, _checked_kind(encoded), orientation)
    decoded = decode_with_pillow(encoded, max_pixels)
    with _memory_named():
        return tf.constant(decoded)


def graph_orientation(encoded: bytes, max_pixels: int = MAX_PIXELS) -> int | None:
    """The orientation (1 to 8) with which `image_graph.decode_turned` does what `decode_photo` does; None without one.

    It reads the header alone. Decoding may still fail.

    Args:
        encoded: the bytes of the file.
        max_pixels: images with more pixels are refused.

    Raises:
        ValueError: see `decode_photo`.
    """
    header = graph_header(encoded, max_pixels)
    return None if header is None else header.orientation


def graph_header(encoded: bytes, max_pixels: int = MAX_PIXELS) -> Header | None:
    """The header of an image that the graph decodes; None of one that it does not. See `graph_orientation`."""
    kind = _checked_kind(encoded)
    image_headers.check(io.BytesIO(encoded), kind, max_pixels)
    _check_whole(encoded, kind)
    if kind not in ("JPEG", "PNG"):
        return None
    header = _header(io.BytesIO(encoded), kind)
    return header if header.height * header.width <= TENSORFLOW_PIXELS else None


def _decode_with_tensorflow(encoded: bytes, kind: str, orientation: int) -> tf.Tensor:
    import tensorflow as tf

    try:
        with _memory_named():
            return graph_decoder()(encoded, orientation)
    except tf.errors.OpError as error:
        # The last line that does not name a node of the graph gives the reason.
        lines = [line for line in error.message.splitlines() if line and "[[{{node" not in line]
        reason = re.sub(r"^\{\{.*?\}\} | \[Op:\w+\]$", "", lines[-1])
        raise ValueError(_undecodable(encoded, kind, f"TensorFlow: {reason}")) from error


@contextlib.contextmanager
def _memory_named() -> Iterator[None]:
    """A `MemoryError` with a message in place of one without, and of TensorFlow's own error."""
    try:
        yield
    except Exception as error:
        if isinstance(error, MemoryError) or type(error).__name__ == "ResourceExhaustedError":
            raise MemoryError("memory does not suffice to decode this image") from error
        raise


def decode_with_pillow(
    encoded: bytes, max_pixels: int = MAX_PIXELS, *, smallest: int | None = None
) -> np.ndarray:
    """`decode_photo` without TensorFlow: the RGB image uint8 `[H, W, 3]` in an encoded image, as displayed.

    Pixels of a JPEG differ by a few levels from the pixels of `decode_photo`, since the decoders differ.

    Args:
        encoded: the bytes of the file.
        smallest: decodes a JPEG at a fraction of its size, in a fraction of the time, with sides of at least
            this many pixels where it has them. None decodes all pixels.
        max_pixels: images with more pixels are refused before they are decoded.

    Raises:
        ValueError: see `decode_photo`, also for the other errors.
    """
    kind = _checked_kind(encoded)
    image_headers.check(io.BytesIO(encoded), kind, max_pixels)
    _check_whole(encoded, kind)
    with _memory_named():
        return _to_array(_loaded(encoded, kind, max_pixels, smallest))


def _check_whole(encoded: bytes, kind: str) -> None:
    """Raises `ValueError` if a PNG lacks its end, or a chunk of it states more bytes than there are.

    Pillow reads such a file all the same. TensorFlow takes the memory that the chunk states, up to 2 GB.
    """
    if kind == "PNG" and _is_cut_off(encoded, kind):
        raise ValueError(_undecodable(encoded, kind, ""))


def _loaded(encoded: bytes, kind: str, max_pixels: int, smallest: int | None) -> Image.Image:
    try:
        image = PLUGINS[kind](io.BytesIO(encoded))
        image_headers.check_size(image.size, max_pixels)
        _check_first_image(image)
        if smallest is not None:
            image.draft("RGB", (smallest, smallest))
        image.load()
    except (TooLarge, MemoryError):
        raise
    except Exception as error:  # Pillow raises errors of many classes for damaged files
        raise ValueError(_undecodable(encoded, kind, _reason(error))) from error
    return image


def from_pillow(image: Image.Image, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """A PIL image of any mode as RGB uint8 `[H, W, 3]`, as displayed.

    Raises:
        TooLarge: it has more than `max_pixels`. Its file is not decoded.
        MemoryError: memory does not suffice.
        ValueError: its file cannot be decoded or is closed, or its mode has no colours from 0 to 255. The
            message has the line that converts it.
    """
    image_headers.check_size(image.size[::-1], max_pixels)
    _check_file(image, max_pixels)
    with _memory_named():
        _load(image)
        return _to_array(image)


def _check_file(image: Image.Image, max_pixels: int) -> None:
    """`image_headers.check` of the file of a PIL image that is not decoded yet."""
    kinds = {kind.upper(): kind for kind in FORMATS} | {"MPO": "JPEG"}
    file, kind = getattr(image, "fp", None), kinds.get(image.format or "")
    if file is None or kind is None or getattr(file, "closed", True) or not file.seekable():
        return
    place = file.tell()
    image_headers.check(file, kind, max_pixels)
    file.seek(place)


def _load(image: Image.Image) -> None:
    try:
        image.load()
    except MemoryError:
        raise
    except Exception as error:  # Pillow raises errors of many classes for damaged files
        reason = _reason(error)
        cut = "the file is cut off: " if "truncated" in reason.lower() else ""
        name = os.fspath(getattr(image, "filename", "")) or "its file"
        raise ValueError(
            f"Expected a PIL image that can be loaded. Received {name}: {cut}{reason}"
        ) from error


def _to_array(image: Image.Image) -> np.ndarray:
    """A loaded PIL image as RGB uint8 `[H, W, 3]`, turned as it is displayed."""
    if 0 in image.size:
        raise ValueError(f"Expected a PIL image with pixels. Received: size {image.size}")
    pixels = _colours(image)
    orientation = _orientation(image)
    if orientation in TURNED:
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


def _colours(image: Image.Image) -> np.ndarray:
    """The pixels of a PIL image as RGB uint8 `[H, W, 3]`, not turned."""
    mode = image.mode
    if mode == "F" or mode.startswith("I"):
        values = np.asarray(image)
        low, high = values.min(), values.max()
        if mode == "I" and low >= 0 and high <= 255:
            grey = values
        # Files of 16 bits a pixel, which TensorFlow reads alike.
        elif image.format == "PNG" or (mode.startswith("I;16") and (high == 0 or high > 255)):
            grey = np.clip(values.astype(np.int64) >> 8, 0, 255)
        else:
            raise ValueError(_unusual_values(mode, low, high))
        return np.repeat(grey.astype(np.uint8)[..., None], 3, axis=2)
    try:
        # A conversion of RGB to RGB would be a copy.
        return np.asarray(image if mode == "RGB" else image.convert("RGB"))
    except (ValueError, AssertionError) as error:  # the latter without a palette
        raise ValueError(
            f"Expected a PIL image that Pillow converts to RGB. Received: mode {mode}"
        ) from error


def _unusual_values(mode: str, low: float, high: float) -> str:
    """The message for a PIL image of mode F or I whose values are no levels from 0 to 255."""
    values = "numpy.asarray(image)"
    if mode == "F" and low >= 0 and high <= 1:
        changed = f"({values} * 255).astype('uint8')"
    elif low >= 0 and high <= 255:
        changed = (
            f"{values}.round().astype('uint8')" if mode == "F" else f"{values}.astype('uint8')"
        )
    elif mode != "F" and low >= 0 and high <= 65535:
        changed = f"({values} // 257).astype('uint8')"
    else:
        changed = f"numpy.interp({values}, ({low:g}, {high:g}), (0, 255)).astype('uint8')"
    return (
        "Expected a PIL image with levels from 0 to 255, or 16 bits with levels to 65535. Received: mode "
        f"{mode} with values from {low:g} to {high:g}; convert it: PIL.Image.fromarray({changed})"
    )


class Header(NamedTuple):
    """Height and width in pixels before turning, and the EXIF orientation (1 to 8)."""

    height: int
    width: int
    orientation: int

    @property
    def size(self) -> tuple[int, int]:
        """Height and width as displayed."""
        turned = self.orientation in TURNED
        return (self.width, self.height) if turned else (self.height, self.width)


def _checked_kind(start: bytes, size: int | None = None) -> str:
    """The format, a key of `FORMATS`, of a file that begins with `start`. Raises `ValueError` for other files."""
    kind = image_formats.kind_of(start)
    if kind is None or kind not in FORMATS:
        raise ValueError(image_formats.refusal(kind, len(start) if size is None else size))
    return kind


def _header(file: BinaryIO, kind: str) -> Header:
    """The header of an image. Raises `ValueError` if it cannot be read."""
    stated = image_headers.size(file, kind)
    try:
        if kind == "PNG":
            return _png_header(file)
        if kind == "WebP":
            return _webp_header(file, stated)
        image = PLUGINS[kind](file)
        _check_first_image(image)
        width, height = image.size
        if kind == "TIFF":  # some versions of Pillow turn its size
            width, height = image.tag_v2[256], image.tag_v2[257]  # type: ignore[attr-defined]
        return Header(height, width, _orientation(image))
    except Exception as error:  # Pillow raises errors of many classes for damaged files
        file.seek(0)
        raise ValueError(_undecodable(file.read(), kind, _reason(error))) from error


def _webp_header(file: BinaryIO, stated: image_headers.Size) -> Header:
    """The header of a WebP. Pillow's decoder would allocate its pixels, and get the metadata in the same way."""
    if not stated.height * stated.width:
        raise ValueError("no size in the header")
    holder = Image.new("L", (1, 1))
    holder.info.update(image_headers.webp_metadata(file))
    return Header(*stated, _orientation(holder))


def _png_header(file: BinaryIO) -> Header:
    """The size in a PNG, and the orientation in its chunks, some of which may stand after the pixels.

    Pillow would decode the pixels before it sees these. So it gets the chunks around a single pixel.
    """
    texts: list[bytes] = []
    width = height = 0
    animated = pixels = False
    for kind, length in _png_chunks(file):
        if kind == b"IHDR":
            width, height = struct.unpack(">II", file.read(8))
        elif kind in (b"eXIf", b"tEXt", b"zTXt", b"iTXt"):
            texts.append(_png_chunk(kind, file.read(length)))
        elif kind == b"fcTL" and animated and pixels:
            break  # the next frame of an animation
        animated |= kind == b"acTL" and not pixels
        pixels |= kind == b"IDAT"
    if not width or not height:
        raise ValueError("no size in the header")
    if not texts:
        return Header(height, width, UPRIGHT)
    one_pixel = [
        _png_chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)),
        *texts,
        _png_chunk(b"IDAT", zlib.compress(b"\0\0")),
        _png_chunk(b"IEND", b""),
    ]
    try:
        with Image.open(io.BytesIO(PNG_START + b"".join(one_pixel)), formats=["PNG"]) as image:
            return Header(height, width, _orientation(image))
    except Exception:  # broken metadata, which TensorFlow does not heed
        return Header(height, width, UPRIGHT)


def _png_chunks(file: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """Kind and length of each whole chunk of a PNG; the file is then at the chunk's content."""
    size = file.seek(0, os.SEEK_END)
    position = len(PNG_START)
    while position + 12 <= size:
        file.seek(position)
        length, kind = struct.unpack(">I4s", file.read(8))
        if position + 12 + length > size:
            return
        yield kind, length
        if kind == b"IEND":
            return
        position += 12 + length


def _png_chunk(kind: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def _orientation(image: Image.Image) -> int:
    """The orientation (1 to 8) that Pillow's `ImageOps.exif_transpose` applies; 1 if it is broken."""
    try:
        stated = image.getexif().get(ORIENTATION_TAG, UPRIGHT)
    except Exception:  # Pillow raises errors of many classes for broken EXIF
        return UPRIGHT
    return next((number for number in range(2, 9) if stated == number), UPRIGHT)


def _check_first_image(image: Image.Image) -> None:
    """Raises `ValueError` if the first image of a TIFF is only the thumbnail of a raw photo."""
    tags: Any = getattr(image, "tag_v2", {})
    if RAW_VERSION_TAG in tags or tags.get(REDUCED_TAG, 0) == 1:
        raise ValueError(f"it is a raw photo; {image_formats.REMEDIES['raw photo']}")


def _is_cut_off(encoded: bytes, kind: str) -> bool:
    """True if an image in one of `FORMATS` that cannot be decoded lacks its end."""
    if kind == "PNG":
        return all(chunk != b"IEND" for chunk, _ in _png_chunks(io.BytesIO(encoded)))
    if kind == "JPEG":
        return b"\xff\xd9" not in encoded[max(encoded.rfind(b"\xff\xda"), 0) :]
    if kind == "WebP":
        return len(encoded) < 8 + int.from_bytes(encoded[4:8], "little")
    if kind == "TIFF" and encoded[2:4] in (b"*\0", b"\0*"):
        order: Any = "little" if encoded.startswith(b"II") else "big"
        return len(encoded) < 10 or len(encoded) <= int.from_bytes(encoded[4:8], order)
    return (kind == "BMP" and len(encoded) < 14 + 12) or (kind == "GIF" and len(encoded) < 13 + 10)


def _reason(error: Exception) -> str:
    known = not isinstance(error, UnidentifiedImageError) and str(error)
    return f"Pillow: {error}" if known else "Pillow: unknown image file format"


def _undecodable(encoded: bytes, kind: str, reason: str) -> str:
    """The message for an image of a format that is read, which cannot be decoded."""
    if "raw photo" in reason:
        return image_formats.refusal("raw photo", len(encoded))
    if _is_cut_off(encoded, kind) or "truncated" in reason.lower():
        return f"the file is cut off: this {kind} image of {len(encoded)} bytes has no end"
    return f"expected a {kind} image, as these {len(encoded)} bytes begin, which cannot be decoded. {reason}"


class _Change(NamedTuple):
    """A step that makes an array an RGB image uint8 `[H, W, 3]`, as a line of Python and as a function."""

    line: str
    apply: Callable[[np.ndarray], np.ndarray]


def check_array(image: np.ndarray) -> None:
    """Raises `ValueError` if the array is no RGB image uint8 `[H, W, 3]`. The message has lines that convert it."""
    if image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3 and image.size:
        return
    message = f"Expected an RGB image uint8 [H, W, 3]. Received: {image.dtype} {list(image.shape)}"
    if image.size and image.dtype.kind in "biuf":
        if image.dtype != np.uint8:
            message += f" with values from {float(image.min()):g} to {float(image.max()):g}"
        lines = _lines_that_convert(image)
        message += f"; convert it: {'; '.join(lines)}" if lines else ""
    raise ValueError(message)


def _lines_that_convert(image: np.ndarray) -> list[str]:
    """Lines that make `image` an RGB image uint8 `[H, W, 3]`; none if it is not known how."""
    lines = []
    while (change := _next_change(image)) is not None:
        image = change.apply(image)
        lines.append(f"image = {change.line}")
    is_right = image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3
    return lines if is_right else []


def _next_change(image: np.ndarray) -> _Change | None:
    shape = image.shape
    if image.ndim == 4 and shape[0] == 1:  # a batch of one
        return _Change("image[0]", lambda x: x[0])
    if image.ndim == 2:  # grey
        return _Change("image[..., None]", lambda x: x[..., None])
    if image.ndim != 3:
        return None
    if shape[2] not in (1, 3, 4):
        if shape[0] in (1, 3, 4) and shape[2] > 4:  # channels first
            return _Change("image.transpose(1, 2, 0)", lambda x: x.transpose(1, 2, 0))
        return None
    if shape[2] == 1:
        return _Change("image.repeat(3, axis=2)", lambda x: x.repeat(3, axis=2))
    if shape[2] == 4:  # RGBA
        return _Change("image[..., :3]", lambda x: x[..., :3])
    return None if image.dtype == np.uint8 else _change_of_type(image)


def _change_of_type(image: np.ndarray) -> _Change | None:
    low, high = image.min(), image.max()
    if image.dtype == np.bool_:
        return _Change('image.astype("uint8") * 255', lambda x: x.astype("uint8") * 255)
    if not (low >= 0 and high <= 65535):  # also NaN
        return None
    if image.dtype.kind == "f":
        if high <= 1:
            return _Change('(image * 255).astype("uint8")', lambda x: (x * 255).astype("uint8"))
        if high <= 255:
            return _Change('image.round().astype("uint8")', lambda x: x.round().astype("uint8"))
        return None
    if high <= 255:
        return _Change('image.astype("uint8")', lambda x: x.astype("uint8"))
    return _Change('(image // 257).astype("uint8")', lambda x: (x // 257).astype("uint8"))


def encode_png(image: np.ndarray) -> bytes:
    """An RGB image uint8 `[H, W, 3]` as the bytes of a PNG, without any loss.

    Raises:
        ValueError: the array has another shape or type.
    """
    check_array(image)
    return cv2.imencode(".png", np.ascontiguousarray(image[..., ::-1]))[1].tobytes()


def suffix_for_writing(path: Path) -> str:
    """The suffix of the image at `path`, if `save_image` writes its format without loss of colours, or ".jpg"."""
    own = path.suffix.lower()
    if own in FORMATS["GIF"]:  # has 256 colours
        return ".png"
    return path.suffix if own in IMAGE_SUFFIXES else ".jpg"


def suffix_of(encoded: bytes) -> str:
    """The usual suffix of an encoded image; ".jpg" if it is of none of `FORMATS`."""
    kind = image_formats.kind_of(encoded[:START])
    return FORMATS.get(kind or "", FORMATS["JPEG"])[0]


def save_image(image: np.ndarray, path: str | Path) -> None:
    """Writes an RGB image uint8 `[H, W, 3]`; the suffix of `path` gives the format.

    Raises:
        OSError: it cannot be written, or OpenCV writes no format with this suffix.
    """
    path = Path(path)
    own = path.suffix.lower()
    suffix = next((each[0] for each in FORMATS.values() if own in each), own)  # .jpg for .jfif
    try:
        written, encoded = cv2.imencode(suffix, np.ascontiguousarray(image[..., ::-1]))
    except cv2.error as error:
        raise OSError(f"{path}: could not be encoded: {error.err}") from error
    if not written:
        raise OSError(f"{path}: could not be encoded")
    path.write_bytes(encoded.tobytes())


def photo_size(photo: Path | Part | bytes) -> tuple[int, int]:
    """Height and width of an image as displayed, from its header alone.

    Raises `ValueError` or `OSError` if the header cannot be read.
    """
    return _header_of(photo).size


def orientation(photo: Path | Part | bytes) -> int:
    """The EXIF orientation, 1 to 8, that is applied to an image when it is decoded.

    Raises `ValueError` or `OSError` if the header cannot be read.
    """
    return _header_of(photo).orientation


def _header_of(photo: Path | Part | bytes) -> Header:
    if isinstance(photo, Path):
        with files.open_regular(photo) as file:
            return _header(file, _checked_kind(_start(file), os.fstat(file.fileno()).st_size))
    encoded = photo.read() if isinstance(photo, Part) else photo
    return _header(io.BytesIO(encoded), _checked_kind(encoded))


def _start(file: BinaryIO) -> bytes:
    start = file.read(START)
    file.seek(0)
    return start


def photos(folder: Path) -> list[Path]:
    """All image files in `folder` and in the folders below it, by the suffixes of `FORMATS`, sorted."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
