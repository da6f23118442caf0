"""Finds the images that a user names: files, folders, patterns, bytes, arrays, PIL images, and lists of these."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image as pillow

from unitbox_tf import images
from unitbox_tf.limits import MAX_PIXELS, TooLarge

Image = np.ndarray | bytes | str | os.PathLike[str] | pillow.Image  # one image
Images = Image | Iterable[Image]  # the path of a folder, or a pattern, stands for many

VIDEO_SUFFIXES = frozenset(
    ".mp4 .m4v .mov .avi .mkv .webm .mpg .mpeg .wmv .flv .ts .mts .m2ts .3gp .ogv".split()
)
# `Path` makes one slash of two. A scheme has two letters or more: C:/ is a drive.
URL = re.compile(r"[a-z][a-z0-9+.-]+:/", re.IGNORECASE)


class Picture(NamedTuple):
    """One image, not read yet, and its name in results and messages."""

    name: str
    image: Image


def find(images: Images) -> Iterable[Picture]:
    """Lists the images that `images` stands for, in order. No image is read.

    * A folder stands for the images in it and in folders below it, sorted: the files with a suffix of
      `images.FORMATS`.
    * A pattern such as `"holiday/*.jpg"` or `"**/*.png"` stands for the files that match it, sorted, and
      for the files in folders that match it. A file whose name looks like a pattern is that file.
    * An array `[N, H, W, 3]` stands for its N images.
    * Anything else stands for itself.

    The name of a file is its path. The name of a PIL image is the path of its file, if it has one. Other
    images are called `image 0`, `image 1` and so on, by their place in `images`.

    Returns:
        A list. If `images` is an iterator, an iterator that takes one image after the other from it.

    Raises:
        ValueError: an item is an address in the network, a folder without images, a pattern that
            nothing matches, or no `Image`.
    """
    if isinstance(images, Iterator):
        return _each(images)
    if isinstance(images, np.ndarray):
        images = list(images) if images.ndim == 4 else [images]
    elif not isinstance(images, Iterable) or isinstance(images, bytes | str):
        images = [images]  # also unusable values, which `_each` refuses
    return list(_each(images))


def _each(images: Iterable[Any]) -> Iterator[Picture]:
    for number, image in enumerate(images):
        if isinstance(image, str | os.PathLike):
            yield from (Picture(path.as_posix(), path) for path in files(image))
        elif isinstance(image, np.ndarray | bytes | pillow.Image):
            file = getattr(image, "filename", "")
            yield Picture(os.fspath(file) if file else f"image {number}", image)
        else:
            raise ValueError(_expected(image))


def _expected(received: Any) -> str:
    return (
        "Expected a path, an encoded image, a PIL image or an RGB image uint8 [H, W, 3]. "
        f"Received: {type(received).__name__}"
        + ("; convert it: numpy.asarray(image)" if hasattr(received, "__array__") else "")
    )


def files(path: str | os.PathLike[str]) -> list[Path]:
    """The files that a path, a folder or a pattern stands for, by the rules of `find` and with its errors."""
    path = local(path)
    if os.path.isdir(path):
        found = images.photos(path)
        if not found:
            raise ValueError(f"{path}: no {images.names_of_formats()} file in this folder")
        return found
    if not _is_pattern(path):
        return [path]  # an absent file, too: its reader will say so
    found = []
    for match in map(Path, sorted(_matches(str(path)))):
        found.extend(images.photos(match) if match.is_dir() else [match])
    if not found:
        raise ValueError(f"{path}: no file matches this pattern")
    return list(dict.fromkeys(found))  # "**" matches a folder, and again what is in it


def _matches(pattern: str) -> Iterator[str]:
    """The paths that `glob.glob` finds. `**` does not follow links to folders, which may form loops."""
    parts = pattern.split(os.sep)
    if "**" not in parts:
        yield from glob.glob(pattern)
        return
    at = parts.index("**")
    above, rest = os.sep.join(parts[:at]), os.sep.join(parts[at + 1 :])
    for top in glob.glob(above) if above else [os.sep if at else os.curdir]:
        for folder, below, names in os.walk(top):
            below[:] = [name for name in below if not name.startswith(".")]
            inside = "" if folder == os.curdir else os.path.join(folder, "")
            inside = inside.removeprefix(os.path.join(os.curdir, ""))
            if rest:
                yield from _matches(glob.escape(inside) + rest)
            else:
                yield from (inside + name for name in names if not name.startswith("."))


def local(path: str | os.PathLike[str]) -> Path:
    """`path` as a `Path`. Raises `ValueError` if it is an address in the network."""
    if URL.match(os.fspath(path)) and not os.path.exists(path):
        raise ValueError(
            f"Expected a file, folder or pattern: nothing is downloaded. Received: {os.fspath(path)}"
        )
    return Path(path)


def one_photo(image: Any) -> Path:
    """`image` as the path of a single image.

    Raises:
        ValueError: it is no path, or the path of a folder, a pattern or a video, or a network address.
    """
    if not isinstance(image, str | os.PathLike):
        raise ValueError(_expected(image))
    path = local(image)
    if os.path.isdir(path) or _is_pattern(path):
        kind = "folder" if os.path.isdir(path) else "pattern"
        raise ValueError(f"{path}: expected one image, received a {kind}: Detector.many takes it")
    if is_video(path):
        raise ValueError(f"{path}: expected an image, received a video: Detector.frames takes it")
    return path


def is_video(path: Path) -> bool:
    """True if `path` has the suffix of a video file."""
    return path.suffix.lower() in VIDEO_SUFFIXES


def _is_pattern(path: Path) -> bool:
    # A file may be named "holiday [1].jpg".
    return glob.has_magic(str(path)) and not os.path.lexists(path)


def read_image(
    image: Image,
    decode: Callable[[bytes, int], Any] = images.decode_photo,
    max_pixels: int = MAX_PIXELS,
) -> np.ndarray:
    """Reads an image as RGB uint8 `[H, W, 3]`. `Detector.__call__` lists the forms of `image` and the errors.

    Args:
        image: the image.
        decode: decodes the bytes of an encoded image of at most a number of pixels. The default,
            `images.decode_photo`, needs TensorFlow.
        max_pixels: larger files and PIL images are refused before they are decoded.
    """
    if isinstance(image, pillow.Image):
        image = images.from_pillow(image, max_pixels)
    if isinstance(image, np.ndarray):
        images.check_array(image)
        return image
    if isinstance(image, bytes):
        name, encoded = "encoded image", image
    else:
        path = one_photo(image)
        name, encoded = str(path), images.read_file(path, max_pixels)
    try:
        return np.asarray(decode(encoded, max_pixels))
    except TooLarge as error:
        raise TooLarge(f"{name}: {error}") from error
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    except MemoryError as error:
        raise MemoryError(f"{name}: {error}") from error
