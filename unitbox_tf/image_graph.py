"""Decodes images inside graphs, as displayed. `images.decode_photo` does the same for Python, for more formats.

A graph must find the orientation with operations of TensorFlow. It heeds what Pillow's
`ImageOps.exif_transpose` heeds: EXIF and XMP of JPEG, PNG and WebP. A file that it cannot decode to
Pillow's colours is refused by name.

Sources: Exif 2.32, 4.6; TIFF 6.0, 2; PNG 3, 5.3 and 11.3; WebP container specification; GIF89a; Pillow 12.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable

import tensorflow as tf

from unitbox_tf import image_formats, image_headers
from unitbox_tf.limits import BYTES_PER_PIXEL, MAX_PIXELS

ORIENTATION_TAG = 0x0112
MOST_PARTS = 20_000  # segments, chunks or blocks of a file; a longer loop would block a server
MOST_ALIKE = 256  # chunks or blocks of pixels that are skipped at once
MOST_PACKED = 1 << 16  # bytes of compressed metadata, which become at most 1,032 times as many
BLOCK = 1 << 22  # bytes of a JPEG that are searched at once
UPRIGHT = 1
EXIF_START = b"Exif\0\0"
XMP_START = b"http://ns.adobe.com/xap/1.0/\0"
XMP_KEY = b"XML:com.adobe.xmp\0"
PROFILE_KEY = b"Raw profile type exif\0"  # ImageMagick's
_PADDING = b"\0" * 64  # so that headers of short files can be read
_WHOLE = (
    "JPEG",
    "PNG",
    "BMP",
    "GIF",
    "WebP",
)  # what the graph decodes, if nothing below is against it

# TIFF 6.0, 2: code of each type in `struct`; bytes in a value of the types that hold no number.
_NUMBERS = {3: "H", 4: "L", 6: "b", 8: "h", 9: "l", 11: "f", 12: "d", 13: "L", 16: "Q"}
_SIZES = {
    1: 1,
    2: 1,
    5: 8,
    7: 1,
    10: 8,
    **{n: struct.calcsize("<" + c) for n, c in _NUMBERS.items()},
}
_TYPES = 17
_ORDERS = {b"II*\0": "<", b"II\0*": "<", b"MM\0*": ">", b"MM*\0": ">"}  # byte order by header

Found = tuple[
    tf.Tensor, ...
]  # EXIF and XMP, empty where there is none; True if the file is cut off; height and width int64 [2]


def decode_image(encoded: tf.Tensor, max_pixels: int | tf.Tensor = MAX_PIXELS) -> tf.Tensor:
    """The RGB image uint8 `[H, W, 3]` in an encoded image, as displayed.

    It decodes JPEG, PNG, BMP with 24 bits a pixel and without compression, GIF whose first frame covers
    the image and has no transparency, and WebP without transparency and animation. Pixels are those of
    `images.decode_photo`. Raises `tf.errors.InvalidArgumentError`, with the reason, for other files, and
    for images that `image_headers.check` refuses, before anything of their size is allocated.
    """
    with tf.device("CPU:0"):
        max_pixels = tf.cast(max_pixels, tf.int64)
        encoded = _checked_length(encoded, max_pixels)
        data = _bytes_of_file(encoded)
        kind = _kind(encoded)
        refusal = _refusal(encoded, data, kind)
        with tf.control_dependencies([tf.debugging.Assert(tf.equal(refusal, ""), [refusal])]):
            exif, xmp, is_cut, size = _metadata(encoded, data, kind)
        message = ["the file is cut off: this image has no end:", kind]
        checks = [tf.debugging.Assert(~is_cut, message), _check_size(size, max_pixels)]
        with tf.control_dependencies(checks):
            encoded = tf.identity(encoded)  # else an error of what follows may be raised first
        encoded = tf.cond(
            tf.equal(kind, "GIF"), lambda: _first_frame(encoded, data), lambda: encoded
        )
    return decode_turned(encoded, _orientation(exif, xmp))


def _checked_length(encoded: tf.Tensor, max_pixels: tf.Tensor) -> tf.Tensor:
    """`encoded`, if its length is within the budget."""
    length, most = tf.cast(tf.strings.length(encoded), tf.int64), max_pixels * BYTES_PER_PIXEL
    message = [
        "expected an image file of at most",
        most,
        "bytes (8 for each of max_pixels). Received:",
    ]
    with tf.control_dependencies([tf.debugging.Assert(length <= most, [*message, length])]):
        return tf.identity(encoded)


def _check_size(size: tf.Tensor, max_pixels: tf.Tensor) -> tf.Operation:
    message = [
        "expected an image of at most",
        max_pixels,
        "pixels (max_pixels). Received (height, width):",
    ]
    return tf.debugging.Assert(tf.reduce_prod(size) <= max_pixels, [*message, size])


@functools.cache
def decoder() -> Callable[[tf.Tensor, int | tf.Tensor], tf.Tensor]:
    """`decode_image`, traced once: graphs that use it have it as a function."""
    signature = [tf.TensorSpec([], tf.string), tf.TensorSpec([], tf.int64)]
    return tf.function(decode_image, input_signature=signature, autograph=False)


def decode_turned(encoded: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """The RGB image uint8 `[H, W, 3]` as TensorFlow decodes it, turned by an EXIF `orientation` from 1 to 8."""
    return turn(decode(encoded), orientation)


def decode(encoded: tf.Tensor) -> tf.Tensor:
    """The RGB image uint8 `[H, W, 3]` as TensorFlow decodes it, not turned."""
    image = tf.io.decode_image(encoded, channels=3, expand_animations=False)
    return tf.ensure_shape(image, [None, None, 3])


def turn(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """An image `[H, W, 3]` turned by an EXIF `orientation` from 1 to 8."""

    def applied(
        image: tf.Tensor, orientations: list[int], change: Callable[[tf.Tensor], tf.Tensor]
    ) -> tf.Tensor:
        wanted = tf.reduce_any(orientation == orientations)
        changed = tf.cond(wanted, lambda: change(image), lambda: image)
        return tf.ensure_shape(changed, [None, None, 3])

    image = applied(image, [5, 6, 7, 8], lambda x: tf.transpose(x, [1, 0, 2]))
    image = applied(image, [2, 3, 6, 7], lambda x: x[:, ::-1])
    return applied(image, [3, 4, 7, 8], lambda x: x[::-1])


def orientation(encoded: tf.Tensor) -> tf.Tensor:
    """The EXIF orientation (int32, 1 to 8) of an encoded JPEG, PNG or WebP; 1 if it has none or a broken one."""
    exif, xmp, _, _ = _metadata(encoded, _bytes_of_file(encoded), _kind(encoded))
    return _orientation(exif, xmp)


def _orientation(exif: tf.Tensor, xmp: tf.Tensor) -> tf.Tensor:
    with tf.device("CPU:0"):
        stated = _in_exif(exif)
        return tf.where(stated > 0, stated, _in_xmp(xmp))


def _metadata(encoded: tf.Tensor, data: tf.Tensor, kind: tf.Tensor) -> Found:
    return tf.case(
        [
            (tf.equal(kind, "JPEG"), lambda: _jpeg_metadata(encoded, data)),
            (tf.equal(kind, "PNG"), lambda: _png_metadata(encoded, data)),
            (tf.equal(kind, "WebP"), lambda: _webp_metadata(encoded, data)),
        ],
        default=lambda: (tf.constant(b""), tf.constant(b""), tf.constant(False), _size(data, kind)),
    )


def _size(data: tf.Tensor, kind: tf.Tensor) -> tf.Tensor:
    """Height and width int64 `[2]` in the header of a BMP or GIF."""
    is_bmp = tf.equal(kind, "BMP")
    width = tf.where(is_bmp, _little(data, 18), _little(data, 6, 2))
    height = tf.where(is_bmp, _little(data, 22), _little(data, 8, 2))
    return tf.abs(tf.cast([height, width], tf.int64))  # a BMP of negative height begins at its top


# Files


def _kind(encoded: tf.Tensor) -> tf.Tensor:
    """The kind of file, of `image_formats.STARTS`; empty if it is none of them."""
    kind = tf.constant("")
    for name, place, expected in reversed(image_formats.STARTS):
        kind = tf.where(tf.equal(_part(encoded, place, len(expected)), expected), name, kind)
    return kind


def _refusal(encoded: tf.Tensor, data: tf.Tensor, kind: tf.Tensor) -> tf.Tensor:
    """Why the graph does not decode the file; empty if it does."""
    words = f"expected a {', '.join(_WHOLE[:-1])} or {_WHOLE[-1]} image"
    named = {name for name, _, _ in image_formats.STARTS}
    refusal = tf.where(tf.equal(kind, ""), f"{words}, which these bytes are not", "")
    for name in sorted(named - set(_WHOLE)):
        remedy = image_formats.REMEDIES.get(name, "decode it first, and give the image as an array")
        message = f"{words}, received: {name}, which is not read; {remedy}"
        refusal = tf.where(tf.equal(kind, name), message, refusal)
    refusal = tf.where(
        tf.equal(tf.strings.length(encoded), 0), f"{words}, received an empty file", refusal
    )
    flags = _byte(data, 20)
    is_extended = tf.equal(_part(encoded, 12, 4), b"VP8X")
    is_lossless = tf.equal(_part(encoded, 12, 4), b"VP8L")
    unusual = {
        "BMP that has a palette, compression, or not 24 bits a pixel": tf.equal(kind, "BMP")
        & ~((_little(data, 14) >= 40) & (_little(data, 28, 2) == 24) & (_little(data, 30) == 0)),
        "WebP with transparency": tf.equal(kind, "WebP")
        & ((is_extended & (flags & 0x10 > 0)) | (is_lossless & (_byte(data, 24) & 0x10 > 0))),
        "animated WebP": tf.equal(kind, "WebP") & is_extended & (flags & 0x02 > 0),
        "GIF with transparency, XMP, or a first frame smaller than the image": tf.cond(
            tf.equal(kind, "GIF"), lambda: ~_is_plain_gif(encoded, data), lambda: False
        ),
    }
    for name, found in unusual.items():
        message = f"received a {name}: decode it first, and give the image as an array"
        refusal = tf.where(found, message, refusal)
    return refusal


def _bytes(text: tf.Tensor) -> tf.Tensor:
    return tf.io.decode_raw(tf.strings.join([text, _PADDING]), tf.uint8)


def _bytes_of_file(encoded: tf.Tensor) -> tf.Tensor:
    is_long = tf.strings.length(encoded) > 1 << 16  # whose copy takes long
    return tf.cond(is_long, lambda: tf.io.decode_raw(encoded, tf.uint8), lambda: _bytes(encoded))


def _byte(data: tf.Tensor, position: tf.Tensor) -> tf.Tensor:
    """Bytes (int32) at `position`; after the end, the last byte."""
    last = tf.size(data) - 1
    return tf.cast(tf.gather(data, tf.clip_by_value(position, 0, last)), tf.int32)


def _little(data: tf.Tensor, position: tf.Tensor, size: int = 4) -> tf.Tensor:
    return tf.add_n([_byte(data, position + i) * (1 << 8 * i) for i in range(size)])


def _big(data: tf.Tensor, position: tf.Tensor, size: int = 4) -> tf.Tensor:
    return tf.add_n([_byte(data, position + i) * (1 << 8 * (size - 1 - i)) for i in range(size)])


def _part(text: tf.Tensor, start: tf.Tensor, length: tf.Tensor | None = None) -> tf.Tensor:
    """At most `length` bytes of `text` from `start`; fewer at its end."""
    whole = tf.strings.length(text)
    start = tf.clip_by_value(start, 0, whole)
    return tf.strings.substr(text, start, whole if length is None else tf.maximum(length, 0))


def _begins(text: tf.Tensor, start: bytes) -> tf.Tensor:
    return tf.equal(_part(text, 0, len(start)), start)


def _walk(
    start: tf.Tensor,
    ends: Callable[[tf.Tensor], tf.Tensor],
    step: Callable[..., tuple[tf.Tensor, ...]],
    state: tuple[tf.Tensor, ...],
) -> tuple[tf.Tensor, ...]:
    """Goes through the parts of a file. `step(position, *state)` returns the next position and state, as this does."""
    position, *at_end = tf.while_loop(
        lambda position, *_: ~ends(position),
        step,
        (tf.convert_to_tensor(start), *state),
        maximum_iterations=MOST_PARTS,
        parallel_iterations=1,
    )
    message = [f"expected an image with at most {MOST_PARTS} parts (segments or chunks)"]
    with tf.control_dependencies([tf.debugging.Assert(ends(position), message)]):
        return tuple(tf.identity(value) for value in (position, *at_end))


def _jpeg_metadata(encoded: tf.Tensor, data: tf.Tensor) -> Found:
    """EXIF of all segments, joined, and XMP of the last, in the header of a JPEG, up to its first scan."""
    size = tf.strings.length(encoded)

    def ends(position: tf.Tensor) -> tf.Tensor:
        scan = (_byte(data, position) == 0xFF) & (_byte(data, position + 1) == 0xDA)
        return scan | (position >= size)

    def step(
        position: tf.Tensor, exif: tf.Tensor, xmp: tf.Tensor, frame: tf.Tensor
    ) -> tuple[tf.Tensor, ...]:
        first, marker = _byte(data, position), _byte(data, position + 1)
        # RST, SOI, EOI and JPG have no length.
        alone = (marker < 0xC0) | (marker == 0xC8) | ((marker >= 0xD0) & (marker <= 0xD9))
        alone |= marker >= 0xF0
        alone &= marker != 0xFE
        length = tf.maximum(_big(data, position + 2, 2), 2)

        def read() -> tuple[tf.Tensor, tf.Tensor]:
            content = _part(encoded, position + 4, length - 2)
            more = tf.where(tf.equal(exif, b""), content, _part(content, len(EXIF_START)))
            return (
                tf.where(_begins(content, EXIF_START), tf.strings.join([exif, more]), exif),
                tf.where(_begins(content, XMP_START), _part(content, len(XMP_START)), xmp),
            )

        exif = _short(exif)  # joined anew by each segment
        exif, xmp = tf.cond((first == 0xFF) & (marker == 0xE1), read, lambda: (exif, xmp))
        forward = tf.where(alone, 2, 2 + length)
        forward = tf.where((first != 0xFF) | (marker == 0xFF), 1, forward)
        is_frame = (first == 0xFF) & (marker >= 0xC0) & (marker <= 0xCF)
        is_frame &= tf.reduce_all(tf.not_equal(marker, [0xC4, 0xC8, 0xCC]))
        stated = tf.stack([_big(data, position + 5, 2), _big(data, position + 7, 2)])
        stated = tf.cast(stated, tf.int64)
        larger = is_frame & (tf.reduce_prod(stated) > tf.reduce_prod(frame))
        return position + forward, exif, xmp, tf.where(larger, stated, frame)

    state = (tf.constant(b""), tf.constant(b""), tf.zeros([2], tf.int64))
    position, exif, xmp, frame = _walk(2, ends, step, state)
    scans, has_end = _marks(data, tf.minimum(position, size))
    message = [f"expected a JPEG with at most {image_headers.MOST_SCANS} scans. Received:", scans]
    with tf.control_dependencies([tf.debugging.Assert(scans <= image_headers.MOST_SCANS, message)]):
        return _short(exif), xmp, ~has_end, frame


def _marks(data: tf.Tensor, start: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The number of scans in a JPEG from `start` on, and whether an end follows. It takes no copy of the file."""

    def step(position: tf.Tensor, scans: tf.Tensor, has_end: tf.Tensor) -> tuple[tf.Tensor, ...]:
        block = data[position : position + BLOCK + 1]
        after = block[1:][block[:-1] == 0xFF]
        scans += tf.size(tf.where(after == 0xDA), out_type=tf.int32)
        return position + BLOCK, scans, has_end | tf.reduce_any(after == 0xD9)

    _, scans, has_end = tf.while_loop(
        lambda position, *_: position < tf.size(data),
        step,
        (start, tf.constant(0), tf.constant(False)),
        parallel_iterations=1,
    )
    return scans, has_end


def _short(metadata: tf.Tensor) -> tf.Tensor:
    """`metadata`, if it is no longer than that of honest files."""
    most = image_headers.MOST_METADATA
    message = [f"expected an image with at most {most} bytes of EXIF or XMP"]
    is_short = tf.strings.length(metadata) <= most
    with tf.control_dependencies([tf.debugging.Assert(is_short, message)]):
        return tf.identity(metadata)


def _png_metadata(encoded: tf.Tensor, data: tf.Tensor) -> Found:
    """EXIF and XMP in the chunks of a PNG, also after its pixels. The last of each counts."""
    size = tf.strings.length(encoded)

    def kind_at(position: tf.Tensor) -> tf.Tensor:
        return _part(encoded, position + 4, 4)

    def ends(position: tf.Tensor) -> tf.Tensor:
        return (position + 8 > size) | tf.equal(kind_at(position), b"IEND")

    def step(
        position: tf.Tensor,
        exif: tf.Tensor,
        xmp: tf.Tensor,
        profile: tf.Tensor,
        frames: tf.Tensor,
        packed: tf.Tensor,
    ) -> tuple[tf.Tensor, ...]:
        kind, length = kind_at(position), _big(data, position)
        # A length beyond the file (or negative, in int32) ends the walk.
        length = tf.where((length < 0) | (length > size), size, length)

        def read() -> tuple[tf.Tensor, ...]:
            content = _part(encoded, position + 8, length)
            key, text, so_far = _text(content, kind, packed)
            is_exif = tf.equal(kind, b"eXIf") | (tf.equal(kind, b"tEXt") & tf.equal(key, b"exif\0"))
            body = tf.where(tf.equal(kind, b"eXIf"), content, text)
            return (
                tf.where(is_exif, tf.strings.join([EXIF_START, body]), exif),
                tf.where(tf.equal(key, XMP_KEY), text, xmp),
                tf.where(tf.equal(key, PROFILE_KEY), text, profile),
                so_far,
            )

        wanted = tf.reduce_any(tf.equal(kind, [b"eXIf", b"tEXt", b"zTXt", b"iTXt"]))
        exif, xmp, profile, packed = tf.cond(wanted, read, lambda: (exif, xmp, profile, packed))
        # An animation: 1 after acTL, 2 after its pixels, 3 at its second frame, which is not read.
        frames = tf.where(tf.equal(kind, b"acTL") & (frames == 0), 1, frames)
        frames = tf.where(tf.equal(kind, b"IDAT") & (frames == 1), 2, frames)
        over = tf.equal(kind, b"fcTL") & (frames == 2)
        forward = (12 + length) * tf.cond(
            tf.equal(kind, b"IDAT"), lambda: _alike(data, position, 12 + length, size), lambda: 1
        )
        forward = tf.where(over, size, forward)
        frames = tf.where(over, 3, frames)
        return position + tf.minimum(forward, size), exif, xmp, profile, frames, packed

    nothing = tf.constant(b"")
    state = (nothing, nothing, nothing, tf.constant(0), tf.constant(0))
    position, exif, xmp, profile, frames, _ = _walk(8, ends, step, state)
    is_cut = (frames < 3) & ((position + 12 > size) | tf.not_equal(kind_at(position), b"IEND"))
    profile = _short(profile)
    profile = tf.cond(tf.equal(profile, b""), lambda: nothing, lambda: _from_hexadecimal(profile))
    stated = tf.bitwise.bitwise_and(tf.cast([_big(data, 20), _big(data, 16)], tf.int64), 0xFFFFFFFF)
    return _short(tf.where(tf.equal(exif, b""), profile, exif)), _short(xmp), is_cut, stated


def _alike(
    data: tf.Tensor, position: tf.Tensor, step: tf.Tensor, size: tf.Tensor, header: int = 8
) -> tf.Tensor:
    """How many parts of one length and `header`, in bytes, follow each other. Large images have thousands."""
    starts = position + step * tf.range(tf.minimum(size // step + 1, MOST_ALIKE))
    headers = _byte(data, starts[:, None] + tf.range(header))
    same = tf.reduce_all(headers == headers[0], axis=1)
    return tf.reduce_sum(tf.math.cumprod(tf.cast(same, tf.int32)))


def _text(content: tf.Tensor, kind: tf.Tensor, packed: tf.Tensor) -> tuple[tf.Tensor, ...]:
    """The key, with its zero, and the text in a chunk tEXt, zTXt or iTXt, if the key is one that matters.

    The third value is `packed`, the number of compressed bytes in the chunks so far, with those of this chunk.
    """
    key = tf.constant(b"")
    for known in (b"exif\0", XMP_KEY, PROFILE_KEY):
        key = tf.where(_begins(content, known), known, key)
    text = _part(content, tf.strings.length(key))
    is_international = tf.equal(kind, b"iTXt")
    compressed = tf.equal(kind, b"zTXt") | (is_international & (_begins(text, b"\1")))
    # Language and translated key, which follow two bytes, end with a zero each.
    international = tf.strings.regex_replace(_part(text, 2), r"^[^\x00]*\x00[^\x00]*\x00", "")
    text = tf.where(is_international, international, text)
    text = tf.where(tf.equal(kind, b"zTXt"), _part(text, 1), text)
    compressed &= tf.not_equal(key, b"")
    packed += tf.where(compressed, tf.strings.length(text), 0)
    message = [f"expected an image with at most {MOST_PACKED} bytes of compressed metadata"]
    with tf.control_dependencies([tf.debugging.Assert(packed <= MOST_PACKED, message)]):
        text = tf.identity(text)
    unpacked = tf.cond(compressed, lambda: tf.io.decode_compressed(text, "ZLIB"), lambda: text)
    return key, unpacked, packed


def _from_hexadecimal(profile: tf.Tensor) -> tf.Tensor:
    """The bytes in a text of digits after three lines, as ImageMagick writes EXIF."""
    lines = tf.strings.split(profile, "\n")[3:]
    digits = tf.io.decode_raw(
        tf.strings.regex_replace(tf.strings.reduce_join(lines), r"\s", ""), tf.uint8
    )
    digits = tf.cast(digits, tf.int32)
    values = tf.where(digits <= ord("9"), digits - ord("0"), (digits | 32) - ord("a") + 10)
    pairs = tf.reshape(values[: tf.size(values) // 2 * 2], [-1, 2])
    codes = tf.clip_by_value(16 * pairs[:, 0] + pairs[:, 1], 0, 255)
    return tf.strings.reduce_join(tf.gather([bytes([code]) for code in range(256)], codes))


def _webp_metadata(encoded: tf.Tensor, data: tf.Tensor) -> Found:
    """EXIF and XMP in the chunks of a WebP. The first of each counts, and the largest size."""
    size = tf.strings.length(encoded)

    def step(
        position: tf.Tensor, exif: tf.Tensor, xmp: tf.Tensor, canvas: tf.Tensor
    ) -> tuple[tf.Tensor, ...]:
        kind, length = _part(encoded, position, 4), _little(data, position + 4)
        length = tf.where((length < 0) | (length > size), size, length)
        content = _part(encoded, position + 8, length)
        exif = tf.where(tf.equal(kind, b"EXIF") & tf.equal(exif, b""), content, exif)
        xmp = tf.where(tf.equal(kind, b"XMP ") & tf.equal(xmp, b""), content, xmp)
        stated = _webp_size(data, position + 8, kind)
        canvas = tf.where(tf.reduce_prod(stated) > tf.reduce_prod(canvas), stated, canvas)
        return position + tf.minimum(8 + length + length % 2, size), exif, xmp, canvas

    state = (tf.constant(b""), tf.constant(b""), tf.zeros([2], tf.int64))
    _, exif, xmp, canvas = _walk(12, lambda position: position + 8 > size, step, state)
    return _short(exif), _short(xmp), _little(data, 4) + 8 > size, canvas


def _webp_size(data: tf.Tensor, start: tf.Tensor, kind: tf.Tensor) -> tf.Tensor:
    """Height and width int64 `[2]` in a chunk of a WebP; zeros in a chunk that has none."""
    bits = _little(data, start + 1)
    canvas = [_little(data, start + 7, 3) + 1, _little(data, start + 4, 3) + 1]
    lossless = [(tf.bitwise.right_shift(bits, 14) & 0x3FFF) + 1, (bits & 0x3FFF) + 1]
    lossy = [_little(data, start + 8, 2) & 0x3FFF, _little(data, start + 6, 2) & 0x3FFF]
    size = tf.zeros([2], tf.int32)
    for name, stated in ((b"VP8X", canvas), (b"VP8L", lossless), (b"VP8 ", lossy)):
        size = tf.where(tf.equal(kind, name), tf.stack(stated), size)
    return tf.cast(size, tf.int64)


def _is_plain_gif(encoded: tf.Tensor, data: tf.Tensor) -> tf.Tensor:
    """True if the first frame of a GIF covers its image, without transparency, and no XMP comes before it."""
    return _gif_frame(encoded, data)[0]


def _first_frame(encoded: tf.Tensor, data: tf.Tensor) -> tf.Tensor:
    """A GIF that ends after its first frame: TensorFlow would decode all frames, and then give the first."""
    size = tf.strings.length(encoded)
    _, frame = _gif_frame(encoded, data)
    start = frame + 10 + _colours(_byte(data, frame + 9)) + 1

    def step(position: tf.Tensor) -> tuple[tf.Tensor]:
        forward = 1 + _byte(data, position)
        forward *= _alike(data, position, forward, size, header=1)
        return (tf.minimum(position + forward, size),)

    def ends(position: tf.Tensor) -> tf.Tensor:
        return (position >= size) | (_byte(data, position) == 0)

    (end,) = _walk(start, ends, step, ())
    return tf.strings.join([_part(encoded, 0, end + 1), b";"])


def _colours(flags: tf.Tensor) -> tf.Tensor:
    """The bytes of the table of colours of which a GIF has these flags."""
    return tf.where(flags & 0x80 > 0, 3 * tf.bitwise.left_shift(2, flags & 7), 0)


def _gif_frame(encoded: tf.Tensor, data: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """True if a GIF is plain, see `_is_plain_gif`; and the place of its first frame."""
    size = tf.strings.length(encoded)
    start = 13 + _colours(_byte(data, 10))

    def step(
        position: tf.Tensor, inside: tf.Tensor, plain: tf.Tensor, frame: tf.Tensor
    ) -> tuple[tf.Tensor, ...]:
        first, label = _byte(data, position), _byte(data, position + 1)
        is_extension = ~inside & (first == 0x21)
        transparent = is_extension & (label == 0xF9) & (_byte(data, position + 3) & 1 > 0)
        has_xmp = is_extension & tf.equal(_part(encoded, position + 3, 8), b"XMP Data")
        covers = tf.equal(
            _part(encoded, position + 1, 8), tf.strings.join([b"\0" * 4, _part(encoded, 6, 4)])
        )
        over = (~inside & (first != 0x21)) | (position >= size)
        plain &= ~(transparent | has_xmp)
        plain = tf.where(over, plain & (first == 0x2C) & covers, plain)
        forward = tf.where(inside, 1 + first, 2)
        inside = tf.where(inside, first > 0, is_extension)
        frame = tf.where(over, position, frame)
        return tf.where(over, -1, position + forward), inside, plain, frame

    state = (tf.constant(False), tf.constant(True), tf.constant(0))
    _, _, plain, frame = _walk(start, lambda position: position < 0, step, state)
    return plain, frame


# Metadata


def _in_exif(exif: tf.Tensor) -> tf.Tensor:
    """The orientation (int32, 1 to 8) in EXIF; 1 if it is unusable; -1 if it is not there.

    As in Pillow, the last entry counts, of any type of number; entries after one that cannot be read do not.
    """
    exif = tf.while_loop(
        lambda text: _begins(text, EXIF_START),
        lambda text: (_part(text, len(EXIF_START)),),
        (exif,),
        maximum_iterations=image_headers.MOST_STARTS,
    )[0]
    size = tf.strings.length(exif)
    header = _part(exif, 0, 4)
    is_little = tf.reduce_any(
        tf.equal(header, [key for key, order in _ORDERS.items() if order == "<"])
    )
    is_big = tf.reduce_any(
        tf.equal(header, [key for key, order in _ORDERS.items() if order == ">"])
    )
    usable = (is_little | is_big) & (size >= 8)
    value = tf.cond(usable, lambda: _in_directory(exif, is_little), lambda: UPRIGHT)
    return tf.where(tf.equal(size, 0), -1, value)


def _in_directory(exif: tf.Tensor, is_little: tf.Tensor) -> tf.Tensor:
    data, size = _bytes(exif), tf.cast(tf.strings.length(exif), tf.int64)

    def number(position: tf.Tensor, length: int) -> tf.Tensor:
        position = tf.cast(tf.minimum(position, size), tf.int32)
        value = tf.where(is_little, _little(data, position, length), _big(data, position, length))
        return tf.bitwise.bitwise_and(tf.cast(value, tf.int64), 0xFFFFFFFF)

    directory = number(tf.constant(4, tf.int64), 4)
    fitting = tf.maximum(size - directory - 2, 0) // 12
    entries = directory + 2 + 12 * tf.range(tf.minimum(number(directory, 2), fitting))
    kinds = tf.minimum(tf.cast(number(entries + 2, 2), tf.int32), _TYPES)
    lengths = tf.gather(tf.constant([_SIZES.get(i, 0) for i in range(_TYPES + 1)], tf.int64), kinds)
    sizes = lengths * number(entries + 4, 4)
    far = sizes > 4
    places = tf.where(far, number(entries + 8, 4), entries + 8)
    before_fault = tf.cumsum(tf.cast(far & (places + sizes > size), tf.int32)) == 0
    found = (number(entries, 2) == ORIENTATION_TAG) & (sizes > 0) & before_fault
    return tf.cond(
        tf.reduce_any(found),
        lambda: _value(
            _part(
                exif, tf.cast(places[found][-1], tf.int32), tf.cast(lengths[found][-1], tf.int32)
            ),
            kinds[found][-1],
            is_little,
        ),
        lambda: -1,
    )


def _value(value: tf.Tensor, kind: tf.Tensor, is_little: tf.Tensor) -> tf.Tensor:
    """The orientation (1 to 8) that the bytes `value` of a TIFF type encode; 1 if they encode another number."""
    codes = [[_encodings(order, each) for each in range(_TYPES + 1)] for order in "><"]
    same = tf.equal(tf.gather_nd(codes, [tf.cast(is_little, tf.int32), kind]), value)
    return tf.cond(
        tf.reduce_any(same), lambda: 2 + tf.argmax(same, output_type=tf.int32), lambda: UPRIGHT
    )


def _encodings(order: str, kind: int) -> list[bytes]:
    """The numbers 2 to 8 in a type of TIFF; empty for types that hold no number."""
    code = _NUMBERS.get(kind)
    return [struct.pack(order + code, number) if code else b"" for number in range(2, 9)]


def _in_xmp(xmp: tf.Tensor) -> tf.Tensor:
    """The orientation (int32, 1 to 8) in XMP, as an attribute or an element; 1 if there is none."""
    data = tf.cast(_bytes(xmp), tf.int32)
    word = b"tiff:Orientation"
    count = tf.size(data) - len(word) - 3

    def at(offset: int) -> tf.Tensor:
        return data[offset : offset + count]

    def is_digit(offset: int) -> tf.Tensor:
        return (at(offset) >= ord("0")) & (at(offset) <= ord("9"))

    end = len(word)
    attribute = (at(end) == ord("=")) & (at(end + 1) == ord('"')) & is_digit(end + 2)
    element = (at(end) == ord(">")) & is_digit(end + 1)
    hits = attribute | element
    for offset, letter in enumerate(word):
        hits &= at(offset) == letter
    first = tf.argmax(hits, output_type=tf.int32)
    digit = tf.where(attribute[first], at(end + 2)[first], at(end + 1)[first]) - ord("0")
    usable = tf.reduce_any(hits) & (digit >= 1) & (digit <= 8)
    return tf.where(usable, digit, UPRIGHT)
