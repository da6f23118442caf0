"""Damages encoded images at random, in a way that a seed repeats: bytes, lengths, sizes in headers, ends, splices."""

import struct
import zlib
from pathlib import Path

import numpy as np

SEEDS = Path(__file__).parent / "seeds"
EXTREMES = (
    0,
    1,
    2,
    0x7F,
    0x80,
    0xFF,
    0x100,
    0x3FFF,
    0x7FFF,
    0x8000,
    0xFFFF,
    0x10000,
    0xFFFFFF,
    0x7FFFFFFF,
)
EXTREMES += (0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)
HEADER = 64  # bytes in which numbers of most formats lie
MOST = 1 << 16  # bytes of an input


def seeds() -> dict[str, bytes]:
    """The seed corpus, by name."""
    return {path.name: path.read_bytes() for path in sorted(SEEDS.iterdir())}


def mutated(corpus: list[bytes], seed: int, number: int) -> bytes:
    """The input with this number in the run with this seed."""
    random = np.random.default_rng([seed, number])
    data = bytearray(corpus[random.integers(len(corpus))])
    for _ in range(random.integers(1, 5)):
        change = CHANGES[random.integers(len(CHANGES))]
        data = change(data, random, corpus)[:MOST]
        if len(data) < 4:
            break
    return repaired(bytes(data)) if random.random() < 0.7 else bytes(data)


def _place(random, end):
    return int(random.integers(max(end, 1)))


def _flip(data, random, corpus):
    for _ in range(random.integers(1, 9)):
        place = _place(random, len(data))
        data[place : place + 1] = bytes([random.integers(256)])
    return data


def _number(data, random, corpus):
    """An extreme number, mostly in the header."""
    end = min(HEADER, len(data)) if random.random() < 0.6 else len(data)
    place, width = _place(random, end), int(random.choice([2, 4]))
    value = int(random.choice(EXTREMES)) & (1 << 8 * width) - 1
    order = "little" if random.random() < 0.5 else "big"
    data[place : place + width] = value.to_bytes(width, order)
    return data


def _cut(data, random, corpus):
    return data[: _place(random, len(data))]


def _delete(data, random, corpus):
    place = _place(random, len(data))
    del data[place : place + random.integers(1, 33)]
    return data


def _repeat(data, random, corpus):
    place = _place(random, len(data))
    part = bytes(data[place : place + random.integers(1, 65)])
    data[place:place] = part * int(random.choice([1, 2, 16, 200]))
    return data


def _splice(data, random, corpus):
    """The start of one file, and the rest of another."""
    other = corpus[random.integers(len(corpus))]
    return data[: _place(random, len(data))] + other[_place(random, len(other)) :]


def _marker(data, random, corpus):
    """A word that has a meaning in some format, anywhere."""
    place = _place(random, len(data))
    word = WORDS[random.integers(len(WORDS))]
    if random.random() < 0.5:
        data[place : place + len(word)] = word
    else:
        data[place:place] = word
    return data


CHANGES = (_flip, _flip, _number, _number, _number, _cut, _delete, _repeat, _splice, _marker)
WORDS = (
    *(
        b"\xff" + bytes([marker])
        for marker in (0xC0, 0xC2, 0xC4, 0xDA, 0xD8, 0xD9, 0xDD, 0xE1, 0xFE)
    ),
    *(
        b"IHDR",
        b"IDAT",
        b"IEND",
        b"acTL",
        b"fcTL",
        b"fdAT",
        b"zTXt",
        b"iTXt",
        b"iCCP",
        b"eXIf",
        b"tRNS",
    ),
    *(b"VP8 ", b"VP8L", b"VP8X", b"ANIM", b"ANMF", b"ALPH", b"EXIF", b"XMP "),
    *(
        b"Exif\0\0II*\0",
        b"Exif\0\0MM\0*",
        b"\x12\x01\x03\0",
        b'tiff:Orientation="6"',
        b"\x69\x87\x04\0",
    ),
    *(b"!\xf9\x04", b"!\xfe", b"!\xff\x0b", b",\0\0\0\0", b";", b"\0\2\xff\xff", b"\0\1"),
    *(b"\0\1\4\0", b"\1\1\4\0", b"\x11\1\4\0", b"\x42\1\3\0", b"\x16\1\3\0", b"\2\1\3\0"),
)


def repaired(data: bytes) -> bytes:
    """A file whose outer form is right, so that a decoder goes on to what is damaged: sums of PNG, length of WebP."""
    if data.startswith(b"\x89PNG"):
        return _with_sums(data)
    if data[:4] == b"RIFF":
        return data[:4] + struct.pack("<I", max(len(data) - 8, 0)) + data[8:]
    return data


def _with_sums(data: bytes) -> bytes:
    parts, place = [data[:8]], 8
    while place + 12 <= len(data):
        length = int.from_bytes(data[place : place + 4], "big")
        end = place + 8 + length
        if end + 4 > len(data):
            break
        parts += [data[place:end], struct.pack(">I", zlib.crc32(data[place + 4 : end]))]
        place = end + 4
    return b"".join([*parts, data[place:]])
