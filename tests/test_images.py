import io
import re
import struct
import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

import unitbox_tf
from tests.helpers.images import (
    CASES,
    SIZES_OF_CASES,
    encoded_as,
    exif,
    exif_jpeg,
    picture,
    segment,
    with_segments,
)
from unitbox_tf import image_formats, images, inputs
from unitbox_tf.limits import TooLarge

ALL = "JPEG, PNG, BMP, GIF, TIFF or WebP"
DECODERS = [images.decode_photo, images.decode_with_pillow]


def exact(form):
    return form not in ("JPEG", "MPO")  # whose decoders differ by a few levels


def as_pillow_shows(encoded):
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(encoded)))
    return np.asarray(image.convert("RGB")).astype(int)


# Files


@pytest.mark.parametrize("order", ["little", "big"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pillow_turns_a_jpeg_as_tensorflow_does(orientation, order):
    encoded = exif_jpeg(picture(), orientation, order)
    expected = images.decode_photo(encoded).numpy().astype(int)
    decoded = images.decode_with_pillow(encoded)
    assert decoded.dtype == np.uint8
    assert decoded.shape == expected.shape
    assert np.abs(decoded - expected).mean() < 3  # the decoders differ


@pytest.mark.parametrize("name", SIZES_OF_CASES)
def test_a_case_is_the_same_from_a_path_bytes_and_pillow_and_in_its_size(name):
    path = CASES / name
    expected = as_pillow_shows(path.read_bytes())
    assert expected.shape[:2] == SIZES_OF_CASES[name]
    assert images.photo_size(path) == images.photo_size(path.read_bytes()) == SIZES_OF_CASES[name]
    for image in (path, str(path), path.read_bytes(), Image.open(path)):
        for decode in DECODERS:
            decoded = inputs.read_image(image, decode)
            assert decoded.shape == expected.shape
            assert np.abs(decoded - expected).max() <= (0 if exact(Image.open(path).format) else 20)


def test_a_folder_and_fit_and_the_readers_take_all_formats(tmp_path):
    for kind, suffixes in images.FORMATS.items():
        for suffix in suffixes:
            (tmp_path / f"photo{suffix.upper()}").write_bytes(encoded_as(kind.upper()))
    count = sum(map(len, images.FORMATS.values()))
    assert len(images.photos(tmp_path)) == len(inputs.files(tmp_path)) == count
    for path in images.photos(tmp_path):
        assert images.photo_size(path) == inputs.read_image(path).shape[:2] == (9, 7)
        assert (
            images.suffix_of(path.read_bytes())
            in images.FORMATS[image_formats.kind_of(path.read_bytes())]
        )


def modes_of(form):
    modes = {
        "JPEG": ["RGB", "L", "CMYK", "YCbCr"],
        "PNG": ["RGB", "RGBA", "L", "LA", "P", "1"],
        "BMP": ["RGB", "RGBA", "L", "P", "1"],
        "GIF": ["RGB", "L", "P", "1"],
        "TIFF": ["RGB", "RGBA", "L", "LA", "P", "1", "CMYK"],
        "WEBP": ["RGB", "RGBA"],
    }
    return [(form, mode) for mode in modes[form]]


@pytest.mark.parametrize(
    ("form", "mode"), [each for kind in images.FORMATS for each in modes_of(kind.upper())]
)
def test_both_decoders_give_the_colours_of_pillow(form, mode):
    encoded = encoded_as(form, picture(), mode)
    expected = as_pillow_shows(encoded)
    for decode in DECODERS:
        decoded = np.asarray(decode(encoded)).astype(int)
        assert np.abs(decoded - expected).max() <= (0 if exact(form) else 40)
        assert np.abs(decoded - expected).mean() < 3
    assert images.photo_size(encoded) == expected.shape[:2]


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "jpeg", "packbits"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_tiff_is_turned_once(orientation, compression):
    turned = Image.Exif()
    turned[images.ORIENTATION_TAG] = orientation
    encoded = encoded_as("TIFF", picture(), exif=turned, compression=compression)
    expected = as_pillow_shows(encoded)
    assert (expected.shape[:2] == (60, 40)) == (orientation > 4)
    assert images.photo_size(encoded) == expected.shape[:2]
    for decode in DECODERS:
        np.testing.assert_array_equal(decode(encoded), expected)


def test_the_first_image_of_a_phone_with_several_is_turned():
    turned = Image.Exif()
    turned[images.ORIENTATION_TAG] = 6
    second = Image.new("RGB", (60, 40), "red")
    encoded = encoded_as("MPO", picture(), exif=turned, save_all=True, append_images=[second])
    assert images.photo_size(encoded) == (60, 40)
    for decode in DECODERS:
        assert np.abs(np.asarray(decode(encoded)) - as_pillow_shows(encoded)).mean() < 3


def test_large_images_have_a_size():
    """Pillow refuses images of more than 179 million pixels, which TensorFlow decodes."""
    jpeg = bytearray(encoded_as("JPEG"))
    place = jpeg.index(b"\xff\xc0") + 5
    jpeg[place : place + 4] = struct.pack(">HH", 30_000, 20_000)
    assert images.photo_size(bytes(jpeg)) == (30_000, 20_000)
    png = bytearray(encoded_as("PNG"))
    png[16:24] = struct.pack(">II", 20_000, 30_000)
    assert images.photo_size(bytes(png)) == (30_000, 20_000)
    bmp = bytearray(encoded_as("BMP"))
    bmp[18:26] = struct.pack("<II", 20_000, 30_000)
    assert images.photo_size(bytes(bmp)) == (30_000, 20_000)
    for read in DECODERS:
        with pytest.raises(TooLarge, match=r"Received: 20000 x 30000, 600,000,000 pixels"):
            read(bytes(bmp))


# Files that are refused

OTHERS = {
    b"": "received an empty file",
    b"no image": f"^expected a {ALL} image, which these 8 bytes are not$",
    b"\0\0\0\x18ftypheic\0\0\0\0": "received a HEIC image, .* magick photo.heic photo.jpg",
    b"\0\0\0\x18ftypmif1\0\0\0\0": "received a HEIC image",
    b"\0\0\0\x18ftypavif\0\0\0\0": "received an AVIF image, .* magick image.avif image.png",
    b"\0\0\0\x18ftypisom\0\0\0\0": "received a video",
    b"\0\0\0\x0cjP  \r\n\x87\n": "received a JPEG 2000 image, .* magick image.jp2",
    b"\xff\x4f\xff\x51": "received a JPEG 2000 image",
    b"\xff\x0a\xfa": "received a JPEG XL image, .* djxl image.jxl",
    b"\0\0\0\x0cJXL \r\n\x87\n": "received a JPEG XL image",
    b"II*\0\x10\0\0\0CR\x02\0": "received a raw photo, .* darktable-cli",
    b"FUJIFILMCCD-RAW 0201": "received a raw photo",
    b"\0\0\0\x18ftypcrx \0\0\0\0": "received a raw photo",
    b"%PDF-1.7": "received a PDF file, .* pdftoppm",
    b'<?xml version="1.0"?>\n<!-- by hand -->\n<svg xmlns="x">': "received a SVG drawing, .* rsvg-convert",
    b"version https://git-lfs.github.com/spec/v1\noid sha256:": "received a Git LFS .* git lfs pull",
    b"\n\n<!doctype HTML>\n<html>": "received a web page, .* download the image itself",
    b"<HTML><body>404": "received a web page",
    b"\0\x05\x16\x07\0\x02": "received a metadata file of macOS, .* delete it",
    b"PK\x03\x04": "received a zip archive",
}


@pytest.mark.parametrize("content", OTHERS)
def test_other_kinds_are_named_with_what_to_do(content, tmp_path):
    path = tmp_path / "photo.jpg"
    path.write_bytes(content)
    for read in (images.photo_size, *DECODERS):
        with pytest.raises(ValueError, match=OTHERS[content]):
            read(content)
    with pytest.raises(ValueError, match=OTHERS[content]):
        images.photo_size(path)
    with pytest.raises(ValueError, match=rf"photo\.jpg: expected a {ALL} image, "):
        inputs.read_image(path)


def test_what_decodes_as_its_thumbnail_is_named_as_a_raw_photo():
    for tags in ({images.REDUCED_TAG: 1}, {images.RAW_VERSION_TAG: b"\1\4\0\0"}):
        encoded = encoded_as("TIFF", tiffinfo=tags)
        for read in (images.photo_size, *DECODERS):
            with pytest.raises(ValueError, match=r"received a raw photo, .* darktable-cli"):
                read(encoded)


@pytest.mark.parametrize("kind", images.FORMATS)
def test_a_file_that_lacks_its_end_is_named_as_cut_off(kind):
    whole = encoded_as(kind.upper(), picture())
    half = whole[: len(whole) // 2]
    for decode in DECODERS:
        with pytest.raises(
            ValueError, match=f"^the file is cut off: this {kind} image of {len(half)}"
        ):
            decode(half)


def test_a_file_that_lacks_a_few_bytes_is_named_as_cut_off():
    for whole in (encoded_as("JPEG"), encoded_as("PNG"), (CASES / "no_eoi.jpg").read_bytes()):
        for decode in DECODERS:
            for missing in (1, 2, 3, 9):
                with pytest.raises(ValueError, match=r"^the file is cut off: "):
                    decode(whole[:-missing])
    with pytest.raises(ValueError, match=r"no_eoi\.jpg: the file is cut off: "):
        inputs.read_image(CASES / "no_eoi.jpg")


def test_what_is_broken_inside_is_not_called_cut_off():
    broken = bytearray(encoded_as("PNG", picture()))
    broken[60:70] = b"\xff" * 10
    for decode, name in zip(DECODERS, ("TensorFlow", "Pillow"), strict=True):
        with pytest.raises(ValueError, match=rf"PNG .*cannot be decoded\. {name}: ") as refused:
            decode(bytes(broken))
        assert "object at" not in str(refused.value)


EXAMPLES = {
    f"{form} {mode}": encoded_as(form, picture(12, 16), mode)
    for kind in images.FORMATS
    for form, mode in modes_of(kind.upper())
} | {
    "turned": exif_jpeg(picture(12, 16), 6, "big"),
    "parts": with_segments(encoded_as("JPEG"), segment(0xE1, b"Exif\0\0" + exif(6, kind=12))),
    "compressed TIFF": encoded_as("TIFF", picture(12, 16), compression="tiff_lzw"),
}


def check_image_or_value_error(encoded):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for read in (images.photo_size, *DECODERS, lambda e: images.from_pillow(opened(e))):
            message = error_of(read, encoded)
            assert message.startswith(
                ("expected a", "the file is cut off: ", "Expected a PIL", "-")
            )


def error_of(read, encoded):
    try:
        read(encoded)
    except ValueError as error:
        return str(error)
    return "-"


def opened(encoded):
    try:
        return Image.open(io.BytesIO(encoded))
    except Exception:  # before the package sees the image
        return Image.new("RGB", (1, 1))


@given(st.sampled_from(sorted(EXAMPLES)), st.data())
def test_a_cut_file_is_an_image_or_the_named_error(name, data):
    whole = EXAMPLES[name]
    check_image_or_value_error(whole[: data.draw(st.integers(0, len(whole) - 1))])


@given(st.sampled_from(sorted(EXAMPLES)), st.data())
def test_a_damaged_file_is_an_image_or_the_named_error(name, data):
    damaged = bytearray(EXAMPLES[name])
    for _ in range(data.draw(st.integers(1, 5))):
        place = data.draw(st.integers(0, min(len(damaged), 100) - 1))
        damaged[place] = data.draw(st.integers(0, 255))
    check_image_or_value_error(bytes(damaged))


# PIL images


def test_levels_of_whole_numbers_are_the_same_in_all_modes():
    levels = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20
    expected = np.repeat(levels[..., None], 3, axis=2)
    for image in (
        Image.fromarray(levels),
        Image.fromarray(levels.astype(np.int32)),  # mode I
        Image.fromarray(levels.astype(np.uint16) * 257),  # mode I;16
        Image.fromarray(levels.astype(">u2") * 257),
        Image.fromarray(levels).convert("LA"),
        Image.fromarray(levels).convert("PA"),
        Image.fromarray(levels).convert("CMYK"),
    ):
        np.testing.assert_array_equal(images.from_pillow(image), expected, err_msg=image.mode)
    black_and_white = Image.fromarray(levels > 100)
    assert black_and_white.mode == "1"
    white = np.unique(images.from_pillow(black_and_white))
    assert white.tolist() == [0, 255]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.linspace(0, 1, 12, dtype=np.float32), "mode F with values from 0 to 1"),
        (np.linspace(0, 255, 12, dtype=np.float32), "mode F with values from 0 to 255"),
        (np.linspace(-3, 900, 12, dtype=np.float32), "mode F with values from -3 to 900"),
        (np.linspace(0, 255, 12).astype(np.uint16), "mode I;16 with values from 0 to 255"),
        (np.linspace(0, 65535, 12).astype(np.int32), "mode I with values from 0 to 65535"),
        (np.linspace(-1, 200, 12).astype(np.int32), "mode I with values from -1 to 200"),
    ],
)
def test_other_values_are_refused_with_the_line_that_converts_them(values, message):
    image = Image.fromarray(values.reshape(3, 4))
    with pytest.raises(ValueError, match=re.escape(message)) as refused:
        images.from_pillow(image)
    line = str(refused.value).split("convert it: ")[1]
    converted = images.from_pillow(
        eval(line, {"PIL": __import__("PIL.Image"), "numpy": np, "image": image})
    )
    np.testing.assert_allclose(converted[..., 0].ravel(), np.linspace(0, 255, 12), atol=22)
    assert (converted[0, 0].max(), converted[2, 3].min() >= 199) == (0, True)


def test_pillow_images_that_cannot_be_loaded_are_refused(tmp_path):
    path = tmp_path / "photo.png"
    for form in ("PNG", "JPEG", "BMP", "GIF", "TIFF"):
        whole = encoded_as(form, picture(80, 120))
        path.write_bytes(whole[: -len(whole) // 10])
        with pytest.raises(ValueError, match=r"^Expected a PIL image .*photo\.png: .*"):
            images.from_pillow(Image.open(path))
    path.write_bytes(encoded_as("PNG"))
    with Image.open(path) as image:
        pass
    with pytest.raises(ValueError, match="Expected a PIL image that can be loaded"):
        images.from_pillow(image)
    with pytest.raises(ValueError, match="Expected a PIL image with pixels"):
        images.from_pillow(Image.new("RGB", (0, 4)))
    with pytest.raises(ValueError, match=r"Pillow converts to RGB\. Received: mode La"):
        images.from_pillow(Image.new("La", (3, 4)))


def test_a_pillow_image_may_be_too_large_for_pillow(monkeypatch):
    image = Image.open(io.BytesIO(encoded_as("TIFF", picture())))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(ValueError, match=r"Expected a PIL image that can be loaded.*exceeds limit"):
        images.from_pillow(image)


def test_an_image_that_was_turned_is_not_turned_again():
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(exif_jpeg(picture(), 6, "big"))))
    assert images.from_pillow(image).shape == (60, 40, 3)


# Arrays

RGB = np.random.default_rng(0).integers(0, 256, (5, 6, 3), np.uint8)
RGB[0, 0], RGB[4, 5] = 0, 255
ARRAYS = {
    "float32 0 to 1": (np.float32(RGB) / 255, '(image * 255).astype("uint8")'),
    "float64 0 to 255": (RGB.astype(float), 'image.round().astype("uint8")'),
    "int64": (RGB.astype(int), 'image.astype("uint8")'),
    "uint16": (RGB.astype(np.uint16) * 257, '(image // 257).astype("uint8")'),
    "bool": (RGB > 127, 'image.astype("uint8") * 255'),
    "channels first": (RGB.transpose(2, 0, 1), "image.transpose(1, 2, 0)"),
    "grey": (RGB[..., 0], "image[..., None]; image = image.repeat(3, axis=2)"),
    "one channel": (RGB[..., :1], "image.repeat(3, axis=2)"),
    "RGBA": (np.concatenate([RGB, RGB[..., :1]], axis=2), "image[..., :3]"),
    "batch of one": (RGB[None], "image[0]"),
    "tensor of PyTorch": (
        np.float32(RGB).transpose(2, 0, 1)[None] / 255,
        'image[0]; image = image.transpose(1, 2, 0); image = (image * 255).astype("uint8")',
    ),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_an_array_of_another_kind_is_refused_with_the_lines_that_convert_it(name):
    array, lines = ARRAYS[name]
    expected = f"Received: {array.dtype} {list(array.shape)}"
    with pytest.raises(ValueError, match=re.escape(expected)) as refused:
        inputs.read_image(array)
    assert str(refused.value).endswith(f"; convert it: image = {lines}")
    scope = {"image": array}
    exec(str(refused.value).split("convert it: ")[1], scope)
    inputs.read_image(scope["image"])
    if "grey" not in name and "one channel" not in name and name != "bool":
        np.testing.assert_allclose(scope["image"].astype(int), RGB, atol=1)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((4, 4, 2), np.uint8),
        np.zeros((2, 4, 4, 3), np.uint8),
        np.full((4, 4, 3), np.nan),
        np.full((4, 4, 3), -0.5),
        np.full((4, 4, 3), 300.0),
        np.full((4, 4, 3), "text"),
        np.zeros(3, np.uint8),
    ],
)
def test_an_array_that_nobody_can_convert_is_refused(array):
    with pytest.raises(ValueError, match=r"Expected an RGB image uint8 \[H, W, 3\]") as refused:
        images.check_array(array)
    assert "convert it" not in str(refused.value)


def test_a_tensor_is_refused_with_the_line_that_converts_it():
    import tensorflow as tf

    with pytest.raises(ValueError, match=r"Received: EagerTensor; convert it: numpy\.asarray"):
        inputs.read_image(tf.zeros([4, 4, 3], tf.uint8))


# Writing and words


def test_what_is_written_has_the_format_of_its_suffix(tmp_path):
    for kind, suffixes in images.FORMATS.items():
        for suffix in suffixes:
            path = tmp_path / f"out{images.suffix_for_writing(Path('photo' + suffix))}"
            images.save_image(picture(), path)
            expected = "PNG" if kind == "GIF" else kind
            assert image_formats.kind_of(path.read_bytes()) == expected
    assert images.suffix_for_writing(Path("notes.txt")) == ".jpg"


def test_an_image_is_read_with_the_decoder_that_is_asked_for(tmp_path):
    path = tmp_path / "photo.jpg"
    path.write_bytes(encoded_as("JPEG"))
    for image in (path, str(path), path.read_bytes()):
        for decode in DECODERS:
            expected = np.asarray(decode(path.read_bytes()))
            np.testing.assert_array_equal(inputs.read_image(image, decode), expected)


def test_all_kinds_of_the_table_have_a_remedy_or_are_read():
    kinds = {kind for kind, _, _ in image_formats.STARTS}
    assert kinds == set(images.FORMATS) | set(image_formats.REMEDIES)
    assert images.names_of_formats() == ALL


def test_the_documentation_lists_the_formats():
    page = (Path(unitbox_tf.__file__).parents[1] / "docs/detection.md").read_text("utf-8")
    rows = re.findall(r"^\| (\w+) \| ((?:`\.\w+` ?)+)\|", page, re.MULTILINE)
    listed = {kind: tuple(re.findall(r"`(\.\w+)`", suffixes)) for kind, suffixes in rows}
    assert listed == images.FORMATS


def test_a_jpeg_can_be_decoded_at_a_fraction_of_its_size():
    image = np.zeros((400, 640, 3), np.uint8)
    image[100:300, 200:600] = (250, 128, 20)
    encoded = cv2.imencode(".jpg", image[..., ::-1])[1].tobytes()
    small = images.decode_with_pillow(encoded, smallest=64)
    assert small.shape == (100, 160, 3)
    whole = cv2.resize(images.decode_with_pillow(encoded), (160, 100), interpolation=cv2.INTER_AREA)
    assert np.abs(small.astype(int) - whole).mean() < 3
    assert images.decode_with_pillow(encoded, smallest=1000).shape == (400, 640, 3)
