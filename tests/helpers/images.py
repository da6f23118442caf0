"""Images whose orientation shows, and files with metadata, written by hand from the specifications."""

import io
import struct
import zlib

import numpy as np
from PIL import Image

ORDERS = {"little": "<", "big": ">"}
TIFF_TYPES = {1: "B", 3: "H", 4: "L", 6: "b", 8: "h", 9: "l", 11: "f", 12: "d", 13: "L", 16: "Q"}
XMP = b"http://ns.adobe.com/xap/1.0/\0"
XMP_KEY = b"XML:com.adobe.xmp\0"


def exif(orientation, byte_order="little", kind=3, offset=8, tags=(0x0100, 0x0128)):
    """EXIF 2.32 after its word "Exif": a TIFF header, and a directory with `orientation` of the TIFF type `kind`.

    An orientation of None has no entry. The directory lies at `offset` and has other `tags`.
    """
    order = ORDERS[byte_order]
    far = b""
    entries = []
    for tag in sorted([*tags, 0x0112]):
        if tag != 0x0112:
            entries.append(struct.pack(order + "HHLHH", tag, 3, 1, 77, 0))
        elif orientation is not None:
            code = TIFF_TYPES.get(kind)
            value = struct.pack(order + code, orientation) if code else b"%d\0" % orientation
            count = 1 if code else len(value)
            if len(value) > 4:
                end = offset + 2 + 12 * (len(tags) + 1) + 4
                far, value = value, struct.pack(order + "L", end)
            entries.append(struct.pack(order + "HHL", tag, kind, count) + value.ljust(4, b"\0"))
    header = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(order + "L", offset)
    directory = struct.pack(order + "H", len(entries)) + b"".join(entries) + b"\0" * 4
    return header.ljust(offset, b"\0") + directory + far


def xmp(orientation, element=False):
    """XMP with an orientation, as an attribute or as an element."""
    attribute = b"" if element else b' tiff:Orientation="%d"' % orientation
    content = b"<tiff:Orientation>%d</tiff:Orientation>" % orientation if element else b""
    return (
        b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF><rdf:Description'
        + attribute
        + b">"
        + content
        + b"</rdf:Description></rdf:RDF></x:xmpmeta>"
    )


def encoded_as(form, pixels=None, mode="RGB", **options):
    """An image file of a format of Pillow, of small random pixels by default."""
    if pixels is None:
        pixels = np.random.default_rng(0).integers(0, 256, (9, 7, 3), np.uint8)
    content = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(content, form, **options)
    return content.getvalue()


def segment(marker, content):
    return bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content


def with_segments(jpeg, *segments):
    """`jpeg` with more segments after its JFIF header, or at its start if there is none."""
    end = 4 + struct.unpack(">H", jpeg[4:6])[0] if jpeg[3] == 0xE0 else 2
    return jpeg[:end] + b"".join(segments) + jpeg[end:]


def chunk(kind, content):
    """A chunk of a PNG."""
    checksum = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + checksum


def with_chunks(png, *chunks, after_pixels=False):
    """`png` with more chunks before its pixels, or after them."""
    place = png.rindex(b"IEND") - 4 if after_pixels else 33
    return png[:place] + b"".join(chunks) + png[place:]


def with_riff_chunks(webp, size, *chunks):
    """A simple `webp` of `size` (height, width) with more chunks (kind, content), in the extended form."""
    flags = sum({b"EXIF": 0x08, b"XMP ": 0x04}.get(kind, 0) for kind, _ in chunks)
    header = struct.pack("<I", flags) + b"".join((n - 1).to_bytes(3, "little") for n in size[::-1])
    body = b"WEBP" + b"VP8X" + struct.pack("<I", 10) + header + webp[12:]
    for kind, content in chunks:
        body += kind + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def exif_jpeg(image, orientation, byte_order):
    """A JPEG of an array, with an EXIF header."""
    jpeg = encoded_as("JPEG", image, quality=98)
    content = b"Exif\0\0" + exif(orientation, byte_order)
    return jpeg[:2] + segment(0xE1, content) + jpeg[2:]


def picture(height=40, width=60):
    """An image none of whose eight orientations are alike."""
    image = np.full((height, width, 3), 90, np.uint8)
    image[:12, :20] = (250, 20, 20)
    image[-10:, :30] = (20, 250, 20)
    return image
