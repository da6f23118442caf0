"""The work that the header of an image asks of a decoder. It is read before any decoder sees the file.

Decoders allocate what a header states, some of them when they open a file. Metadata can ask for more than
the pixels do: entries that all refer to the same bytes, thousands of scans, a run of empty lines. Honest files
are far below the limits here.

Sources: JPEG, ITU-T T.81, B; PNG 3, 11.2; BMP, "BITMAPINFOHEADER"; GIF89a; TIFF 6.0, 2; BigTIFF; WebP
container specification; Exif 2.32, 4.6.
"""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from unitbox_tf.limits import BYTES_PER_PIXEL, TooLarge

MOST_PARTS = 20_000  # segments of a JPEG or chunks of a WebP before its pixels
MOST_SCANS = 100  # of a JPEG, thumbnails included; encoders make about ten
MOST_METADATA = 1 << 20  # bytes of EXIF or XMP; a segment of a JPEG has at most 65,533
MOST_BEFORE_PIXELS = 1 << 20  # bytes before the first frame of a GIF: comments, profiles
MOST_SHARED = 1 << 24  # bytes of entries of a TIFF or EXIF beyond the length of the file
MOST_NUMBERS = 1 << 20  # in the entries of a TIFF or EXIF
MOST_DIRECTORIES = 16  # in a TIFF or EXIF
EXIF_START = b"Exif\0\0"
XMP_START = b"http://ns.adobe.com/xap/1.0/\0"
MOST_STARTS = 16  # times `EXIF_START` at the start of EXIF; some programs write it twice
_TIFF_SIZES = (0, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4, 0, 0, 8, 8, 8)  # bytes by type
_IS_NUMBER = (
    3,
    4,
    5,
    8,
    9,
    10,
    11,
    12,
    13,
    16,
    17,
    18,
)  # types that Pillow makes Python numbers of
_WIDTH, _HEIGHT, _TILE_WIDTH, _TILE_HEIGHT = 256, 257, 322, 323
_INNER = (0x8769, 0x8825, 0xA005, 0x014A)  # tags that refer to directories


class Size(NamedTuple):
    """Height and width in pixels, before the image is turned."""

    height: int
    width: int


def check(file: BinaryIO, kind: str, max_pixels: int) -> None:
    """Raises `TooLarge` if decoding an image would take more than `max_pixels` allow, or more than honest files.

    The file is at its start again afterwards. A damaged header is not reported: decoders say more about it.

    Args:
        file: the file.
        kind: its format, a key of `image_formats.FORMATS`.
        max_pixels: the most pixels of the image. It may have `max_pixels * limits.BYTES_PER_PIXEL` bytes.
    """
    length = file.seek(0, os.SEEK_END)
    if length > max_pixels * BYTES_PER_PIXEL:
        raise TooLarge(
            f"expected an image file of at most {max_pixels * BYTES_PER_PIXEL:,} bytes. Received: {length:,} bytes; "
            "raise max_pixels if you trust it"
        )
    check_size(size(file, kind), max_pixels)
    if kind == "JPEG" and _count(file, b"\xff\xda") > MOST_SCANS:
        raise _too_many("scans", MOST_SCANS)
    file.seek(0)


def check_size(size: tuple[int, ...], max_pixels: int) -> None:
    """Raises `TooLarge` if an image of this height and width has more than `max_pixels`."""
    height, width = size
    if height * width > max_pixels:
        raise TooLarge(
            f"expected an image of at most {max_pixels:,} pixels (max_pixels). Received: {width} x {height}, "
            f"{height * width:,} pixels; raise max_pixels if you trust the image, or shrink it"
        )


def size(file: BinaryIO, kind: str) -> Size:
    """The size in the header of an image; 0 x 0 if none is found. The file is at its start again afterwards.

    For a TIFF, it is the larger of image and tile; for an animation, its canvas and first frame together.

    Raises:
        TooLarge: the metadata ask for more than those of honest files.
    """
    try:
        return _READERS[kind](file)
    except (struct.error, IndexError):
        return Size(0, 0)
    finally:
        file.seek(0)


def _at(file: BinaryIO, position: int, length: int) -> bytes:
    """The bytes at a position, which may be any number that a file states; fewer at the end of the file."""
    end = file.seek(0, os.SEEK_END)
    file.seek(min(position, end))
    return file.read(length)


def _unpack(file: BinaryIO, position: int, form: str) -> tuple[int, ...]:
    return struct.unpack(form, _at(file, position, struct.calcsize(form)))


def _too_many(what: str, limit: int) -> TooLarge:
    return TooLarge(
        f"expected an image with at most {limit:,} {what}. Received more; save it anew with a program that "
        "can open it"
    )


def _jpeg(file: BinaryIO) -> Size:
    found, exif, exif_length = Size(0, 0), b"", 0
    for start, marker, length in _segments(file):
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            stated = Size(*_unpack(file, start + 1, ">HH"))
            found = max(found, stated, key=lambda each: each.height * each.width)
        elif marker == 0xE1 and _at(file, start, len(EXIF_START)) == EXIF_START:
            exif_length += length
            if exif_length > MOST_METADATA:
                raise _too_many("bytes of EXIF", MOST_METADATA)
            content = _at(file, start, length)
            exif += content[len(EXIF_START) :] if exif else content
    check_exif(exif)
    return found


def _segments(file: BinaryIO) -> Iterator[tuple[int, int, int]]:
    """Start, marker and length of the content of each segment before the first scan."""
    position = 2
    for _ in range(MOST_PARTS):
        start = _at(file, position, 2)
        if len(start) < 2 or start == b"\xff\xda":
            return
        if start[0] != 0xFF or start[1] == 0xFF:
            position += 1
        elif (
            start[1] < 0xC0
            or start[1] == 0xC8
            or 0xD0 <= start[1] <= 0xD9
            or 0xF0 <= start[1] < 0xFE
        ):
            position += 2  # these have no length
        else:
            (length,) = _unpack(file, position + 2, ">H")
            yield position + 4, start[1], max(length - 2, 0)
            position += 2 + max(length, 2)
    raise _too_many("segments", MOST_PARTS)


def _count(file: BinaryIO, wanted: bytes) -> int:
    """How often two bytes are in a file, which is not read at once."""
    found, last = 0, b""
    while block := file.read(1 << 20):
        found += (last + block).count(wanted)
        last = block[-1:]
    return found


def _png(file: BinaryIO) -> Size:
    width, height = _unpack(file, 16, ">II")
    return Size(height, width)


def _bmp(file: BinaryIO) -> Size:
    (length,) = _unpack(file, 14, "<I")
    if length == 12:
        width, height = _unpack(file, 18, "<HH")
        return Size(height, width)
    width, height = _unpack(file, 18, "<Ii")
    (compression,) = _unpack(file, 30, "<I")
    # A run-length code may skip 255 rows at once, also after the last.
    return Size(abs(height) + (256 if compression in (1, 2) else 0), width)


def _gif(file: BinaryIO) -> Size:
    screen = Size(*_unpack(file, 6, "<HH")[::-1])
    flags = _at(file, 10, 1)[0]
    position = 13 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
    end = position + MOST_BEFORE_PIXELS
    while position < end:
        kind = _at(file, position, 1)
        if kind == b",":
            left, top, width, height = _unpack(file, position + 1, "<HHHH")
            return Size(max(screen.height, top + height), max(screen.width, left + width))
        if kind in (b"", b";"):
            return screen
        position += 1
        if kind == b"!":
            position += 1
            while (block := _at(file, position, 1)[0]) and position < end:
                position += 1 + block
            position += 1
    raise _too_many("bytes before the first frame", MOST_BEFORE_PIXELS)


def _webp(file: BinaryIO) -> Size:
    found = Size(0, 0)
    for kind, start, length in _webp_chunks(file):
        stated = _webp_size(kind, _at(file, start, 10))
        found = max(found, stated, key=lambda each: each.height * each.width)
        if kind in (b"EXIF", b"XMP ") and length > MOST_METADATA:
            raise _too_many("bytes of EXIF or XMP", MOST_METADATA)
        if kind == b"EXIF":
            check_exif(_at(file, start, length))
    return found


def webp_metadata(file: BinaryIO) -> dict[str, bytes]:
    """The first EXIF and XMP of a WebP, as Pillow names them: "exif" and "xmp"."""
    names = {b"EXIF": "exif", b"XMP ": "xmp"}
    found: dict[str, bytes] = {}
    for kind, start, length in _webp_chunks(file):
        if kind in names:
            found.setdefault(names[kind], _at(file, start, length))
    return found


def _webp_chunks(file: BinaryIO) -> Iterator[tuple[bytes, int, int]]:
    """Kind, start and length of each chunk of a WebP."""
    position = 12
    for _ in range(MOST_PARTS):
        header = _at(file, position, 8)
        if len(header) < 8:
            return
        kind, length = struct.unpack("<4sI", header)
        yield kind, position + 8, length
        position += 8 + length + length % 2
    raise _too_many("chunks", MOST_PARTS)


def _webp_size(kind: bytes, content: bytes) -> Size:
    if kind == b"VP8X":
        width, height = (int.from_bytes(content[i : i + 3], "little") + 1 for i in (4, 7))
        return Size(height, width)
    if kind == b"VP8L":
        (bits,) = struct.unpack("<I", content[1:5])
        return Size((bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1)
    if kind == b"VP8 ":
        width, height = struct.unpack("<HH", content[6:10])
        return Size(height & 0x3FFF, width & 0x3FFF)
    return Size(0, 0)


def check_exif(exif: bytes) -> None:
    """Raises `TooLarge` if reading EXIF would take far more memory than it has bytes."""
    if exif.startswith(EXIF_START * MOST_STARTS):
        raise _too_many("starts of EXIF", MOST_STARTS)
    while exif.startswith(EXIF_START):
        exif = exif[len(EXIF_START) :]
    if exif[:2] in (b"II", b"MM"):
        try:
            _tiff(io.BytesIO(exif))
        except (struct.error, IndexError):
            return  # broken, and then without effect


def _tiff(file: BinaryIO) -> Size:
    """The larger of image and tile. All directories are looked at that Pillow reads before the pixels."""
    size = file.seek(0, os.SEEK_END)
    start = _at(file, 0, 16)
    order = "<" if start[:2] == b"II" else ">"
    is_big = 43 in (start[2], start[3])
    left = [
        struct.unpack_from(f"{order}Q" if is_big else f"{order}I", start, 8 if is_big else 4)[0]
    ]
    total = numbers = 0
    stated: dict[int, int] = {}
    for count in range(MOST_DIRECTORIES):
        if not left:
            break
        for tag, kind, values, value in _entries(file, left.pop(), order, is_big):
            length = values * (_TIFF_SIZES[kind] if kind < len(_TIFF_SIZES) else 0)
            total += min(length, size)
            numbers += values if kind in _IS_NUMBER and length <= size else 0
            if total > size + MOST_SHARED:
                raise _too_many("bytes in entries of TIFF or EXIF", size + MOST_SHARED)
            if numbers > MOST_NUMBERS:
                raise _too_many("numbers in entries of TIFF or EXIF", MOST_NUMBERS)
            if tag in _INNER and values == 1:
                left.append(value)
            elif count == 0:
                stated[tag] = value
    image = Size(stated.get(_HEIGHT, 0), stated.get(_WIDTH, 0))
    tile = Size(stated.get(_TILE_HEIGHT, 0), stated.get(_TILE_WIDTH, 0))
    return max(image, tile, key=lambda each: each.height * each.width)


def _entries(
    file: BinaryIO, position: int, order: str, is_big: bool
) -> Iterator[tuple[int, int, int, int]]:
    """Tag, type, number of values, and the value as a number, of each entry of a directory."""
    count_form, form, width = ("Q", "HHQ", 8) if is_big else ("H", "HHI", 4)
    [count] = _unpack(file, position, order + count_form)
    position += struct.calcsize(order + count_form)
    step = struct.calcsize(order + form) + width
    for index in range(min(count, MOST_PARTS)):
        entry = _at(file, position + index * step, step)
        tag, kind, values = struct.unpack_from(order + form, entry)
        short = kind in (3, 8) and values == 1
        value = entry[-width:][:2] if short else entry[-width:]
        yield tag, kind, values, int.from_bytes(value, "little" if order == "<" else "big")
    if count > MOST_PARTS:
        raise _too_many("entries of TIFF or EXIF", MOST_PARTS)


_READERS = {
    "JPEG": _jpeg,
    "PNG": _png,
    "BMP": _bmp,
    "GIF": _gif,
    "TIFF": _tiff,
    "WebP": _webp,
}
