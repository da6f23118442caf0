"""Small image files that ask a decoder for far more than honest files do, by what they ask for."""

import io
import struct
import zlib

import numpy as np
from PIL import Image

from tests.helpers.images import chunk, encoded_as, picture, segment

PNG_START = b"\x89PNG\r\n\x1a\n"


def files():
    """Files of at most some megabytes that are refused, and a part of the message."""
    return {
        "a WebP of 46 bytes that states 16383 x 16383": (webp_claim(), "16383 x 16383"),
        "a flat PNG of 16000 x 16000": (flat_png(16000), "16000 x 16000"),
        "a JPEG that states 65535 x 65535": (jpeg_claim(), "65535 x 65535"),
        "a GIF whose first frame is larger than its screen": (gif_claim(), "65535 x 65535"),
        "a BMP of negative height": (bmp(30_000, -30_000, 0, b""), "30000 x 30000"),
        "a BMP that skips 255 rows": (bmp(10**6, 1, 1, b"\0\2\xff\xff"), "1000000 x 257"),
        "a TIFF of one giant tile": (tiff({256: 10, 257: 10, 322: 40_000, 323: 40_000}), "40000"),
        "a TIFF whose entries share their bytes": (shared_entries(), "bytes in entries"),
        "a JPEG whose EXIF shares its bytes": (exif_jpeg(shared_entries(900, 60_000)), "entries"),
        "a JPEG of 5,000 scans": (scans(5000), "scans"),
        "a JPEG with 2 MB of EXIF": (exif_jpeg(*[bytes(60_000)] * 35), "bytes of EXIF"),
        "EXIF that begins a hundred times": (exif_jpeg(b"Exif\0\0" * 100), "starts of EXIF"),
        "a GIF with a comment of 2 MB": (gif_comment(2 << 20), "bytes before the first frame"),
    }


def webp_claim():
    canvas = bytes([2, 0, 0, 0]) + (16382).to_bytes(3, "little") * 2
    body = b"WEBPVP8X" + struct.pack("<I", 10) + canvas + b"ANIM" + struct.pack("<I", 4) + bytes(4)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def flat_png(side):
    """Grey pixels, compressed row by row, so that making it takes no memory."""
    packer = zlib.compressobj(1)
    rows = b"".join([packer.compress(bytes(1 + side)) for _ in range(side)]) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return PNG_START + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def jpeg_claim():
    encoded = bytearray(encoded_as("JPEG", picture()))
    place = encoded.index(b"\xff\xc0") + 5
    encoded[place : place + 4] = b"\xff" * 4
    return bytes(encoded)


def gif_claim():
    screen = b"GIF89a" + struct.pack("<HHBBB", 8, 8, 0x80, 0, 0) + bytes(6)
    return screen + b"," + struct.pack("<HHHHB", 0, 0, 65535, 65535, 0) + b"\x02\x02\x44\x01\0;"


def gif_frames(side, count):
    """A GIF of `count` equal frames of `side` x `side` pixels."""
    encoded = encoded_as("GIF", np.zeros((side, side, 3), np.uint8))
    start = encoded.index(b",")
    return encoded[:start] + encoded[start:-1] * count + b";"


def gif_comment(length):
    encoded = encoded_as("GIF", picture())
    place = 13 + (3 << (encoded[10] & 7) + 1)
    blocks = (b"\xff" + b"c" * 255) * (length // 256)
    return encoded[:place] + b"!\xfe" + blocks + b"\0" + encoded[place:]


def bmp(width, height, compression, pixels):
    depth = 8 if compression else 24
    palette = bytes(4 * 256) if compression else b""
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, depth, compression, 0, 0, 0, 0, 0)
    start = struct.pack("<IHHI", 0, 0, 0, 14 + len(header) + len(palette))
    return b"BM" + start + header + palette + pixels


def tiff(entries):
    """A TIFF of one directory of numbers by tag, without pixels."""
    rows = b"".join(struct.pack("<HHII", tag, 4, 1, entries[tag]) for tag in sorted(entries))
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + rows + bytes(4)


def shared_entries(count=20_000, length=0):
    """TIFF or EXIF whose entries all refer to the same bytes: all of them, or `length` of them."""
    size = 8 + 2 + 12 * count + 4
    rows = b"".join(struct.pack("<HHII", 1000 + i, 7, length or size - 8, 8) for i in range(count))
    found = b"II*\0\x08\0\0\0" + struct.pack("<H", count) + rows + bytes(4)
    return found.ljust(length, b"\0")


def exif_jpeg(*parts):
    """A JPEG with EXIF in as many segments."""
    encoded = encoded_as("JPEG", picture())
    segments = b"".join(segment(0xE1, b"Exif\0\0" + part) for part in parts)
    return encoded[:2] + segments + encoded[2:]


def scans(count):
    """A progressive JPEG whose last scan comes `count` times."""
    packed = io.BytesIO()
    Image.fromarray(picture()).save(packed, "JPEG", progressive=True)
    encoded = packed.getvalue()
    last = encoded.rindex(b"\xff\xda")
    return encoded[:last] + encoded[last:-2] * count + encoded[-2:]


def png_claims_a_text():
    """A PNG with a text that states 1.9 GB and has 4 bytes."""
    whole = flat_png(16)
    at = whole.index(b"IDAT") - 4
    return whole[:at] + struct.pack(">I", 1_900_000_000) + b"tEXtabcd" + whole[at:]


def packed_text(megabytes):
    """A PNG whose compressed metadata become so many megabytes."""
    packer = zlib.compressobj(9)
    text = b"".join([packer.compress(bytes(1 << 20)) for _ in range(megabytes)]) + packer.flush()
    encoded = encoded_as("PNG", picture())
    text = chunk(b"zTXt", b"Raw profile type exif\0\0" + text)
    return encoded[:33] + text + encoded[33:]


def flat(form, side):
    """A flat image of `side` x `side` pixels, in few bytes."""
    packed = io.BytesIO()
    options = {"compression": "tiff_lzw"} if form == "TIFF" else {}
    Image.new("RGB", (side, side), "navy").save(packed, form, **options)
    return packed.getvalue()
