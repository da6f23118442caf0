"""The image formats that are read, and what the first bytes of other files say about them."""

from __future__ import annotations

import re

# The suffixes of files in each format. Folders take them all. docs/detection.md has the same table.
FORMATS = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png", ".apng"),
    "BMP": (".bmp",),
    "GIF": (".gif",),
    "TIFF": (".tif", ".tiff"),
    "WebP": (".webp",),
}

# Kind, place and bytes. The first that fits counts. Kinds that are no key of `FORMATS` are not read.
STARTS = (
    ("JPEG", 0, b"\xff\xd8\xff"),
    ("PNG", 0, b"\x89PNG\r\n\x1a\n"),
    ("BMP", 0, b"BM"),
    ("GIF", 0, b"GIF87a"),
    ("GIF", 0, b"GIF89a"),
    ("WebP", 8, b"WEBP"),
    ("raw photo", 8, b"CR\x02"),  # Canon's TIFF
    ("raw photo", 0, b"IIU\0"),
    ("raw photo", 0, b"IIRO"),
    ("raw photo", 0, b"IIRS"),
    ("raw photo", 0, b"MMOR"),
    ("raw photo", 0, b"FUJIFILMCCD-RAW"),
    ("raw photo", 4, b"ftypcrx "),
    ("raw photo", 0, b"FOVb"),
    ("TIFF", 0, b"II*\0"),
    ("TIFF", 0, b"MM\0*"),
    ("TIFF", 0, b"II+\0"),
    ("TIFF", 0, b"MM\0+"),
    ("AVIF image", 4, b"ftypavi"),
    ("HEIC image", 4, b"ftyphe"),
    ("HEIC image", 4, b"ftypmif1"),
    ("HEIC image", 4, b"ftypmsf1"),
    ("video", 4, b"ftyp"),
    ("video", 0, b"\x1aE\xdf\xa3"),
    ("video", 8, b"AVI "),
    ("JPEG 2000 image", 0, b"\0\0\0\x0cjP  "),
    ("JPEG 2000 image", 0, b"\xff\x4f\xff\x51"),
    ("JPEG XL image", 0, b"\xff\x0a"),
    ("JPEG XL image", 0, b"\0\0\0\x0cJXL "),
    ("PDF file", 0, b"%PDF"),
    ("Photoshop file", 0, b"8BPS"),
    ("Git LFS pointer", 0, b"version https://git-lfs"),
    ("zip archive", 0, b"PK\x03\x04"),
    ("metadata file of macOS", 0, b"\0\x05\x16\x07"),
    ("SVG drawing", 0, b"<svg"),
    ("web page", 0, b"<html"),
    ("web page", 0, b"<!DOCTYPE html"),
)
_TEXTS = (
    ("SVG drawing", rb"(<\?xml.*?\?>)?\s*(<!--.*?-->\s*)*(<!doctype svg.*?>\s*)?<svg\b"),
    ("web page", rb"(<\?xml.*?\?>)?\s*(<!--.*?-->\s*)*<(!doctype html|html|head|body)\b"),
)
_SEARCHED = 1 << 12  # bytes

REMEDIES = {
    "AVIF image": "convert it: magick image.avif image.png",
    "HEIC image": "convert it: magick photo.heic photo.jpg",
    "JPEG 2000 image": "convert it: magick image.jp2 image.png",
    "JPEG XL image": "convert it: djxl image.jxl image.png",
    "raw photo": "convert it: darktable-cli photo.raw photo.jpg",
    "PDF file": "convert its pages: pdftoppm -r 150 -png file.pdf page",
    "Photoshop file": "convert it: magick 'image.psd[0]' image.png",
    "SVG drawing": "convert it: rsvg-convert drawing.svg -o drawing.png",
    "Git LFS pointer": "fetch the file that it stands for: git lfs pull",
    "web page": "download the image itself, not the page that shows it",
    "zip archive": "unpack it: unzip archive.zip",
    "video": "give it the suffix of a video, such as .mp4, and detect reads its frames",
    "metadata file of macOS": "delete it: the image is the file without ._ in its name",
}


def names_of_formats() -> str:
    """The formats that are read, as words: "JPEG, PNG, BMP, GIF, TIFF or WebP"."""
    *names, last = FORMATS
    return f"{', '.join(names)} or {last}"


def kind_of(start: bytes) -> str | None:
    """A key of `FORMATS`, or another kind of file that is known by its first bytes; None if they fit none."""
    for kind, place, expected in STARTS:
        if start[place : place + len(expected)] == expected:
            return kind
    text = start[:_SEARCHED].removeprefix(b"\xef\xbb\xbf").lstrip()
    for kind, pattern in _TEXTS:
        if re.match(pattern, text, re.IGNORECASE | re.DOTALL):
            return kind
    return None


def refusal(kind: str | None, size: int) -> str:
    """The message for a file of `size` bytes that is of no format that is read; `kind` is from `kind_of`."""
    expected = f"expected a {names_of_formats()} image"
    if not size:
        return f"{expected}, received an empty file"
    if kind is None:
        return f"{expected}, which these {size} bytes are not"
    article = "an" if kind.startswith("AVIF") else "a"
    return f"{expected}, received {article} {kind}, which is not read; {REMEDIES[kind]}"
