"""Files that ask for more than they may are refused by their headers."""

import io
import tracemalloc

import numpy as np
import pytest
import tensorflow  # noqa: F401  # so that its import is not measured
from PIL import Image

from tests.fuzz import mutation
from tests.helpers import hostile
from tests.helpers.images import CASES, encoded_as, exif, exif_jpeg, picture
from unitbox_tf import image_formats, image_headers, images
from unitbox_tf.limits import MAX_PIXELS, TooLarge

HOSTILE = hostile.files()
SEEDS = mutation.seeds()


def check(encoded, max_pixels=MAX_PIXELS):
    kind = image_formats.kind_of(encoded)
    image_headers.check(io.BytesIO(encoded), kind, max_pixels)


@pytest.mark.filterwarnings("error")  # of Pillow
@pytest.mark.parametrize("name", HOSTILE)
def test_a_file_that_asks_for_too_much_is_refused_without_memory(name):
    encoded, message = HOSTILE[name]
    tracemalloc.start()
    try:
        for decode in (check, images.decode_photo, images.decode_with_pillow):
            with pytest.raises(TooLarge, match=message):
                decode(encoded)
        assert tracemalloc.get_traced_memory()[1] < 8 * len(encoded) + (16 << 20)
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "encoded",
    [
        *(path.read_bytes() for path in sorted(CASES.iterdir())),
        *(
            encoded_as(form, picture(40, 60))
            for form in ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP")
        ),
        exif_jpeg(picture(40, 60), 6, "big"),
        b"".join([encoded_as("JPEG", picture(40, 60), exif=b"Exif\0\0Exif\0\0" + exif(6))]),
    ],
)
def test_the_budget_is_exact_for_honest_files(encoded):
    height, width = images.photo_size(encoded)
    small = max(height * width, -(-len(encoded) // 8))
    check(encoded, small)
    if small == height * width:
        with pytest.raises(TooLarge, match=f"Received: ({width} x {height}|{height} x {width})"):
            check(encoded, small - 1)


@pytest.mark.parametrize("name", sorted(SEEDS))
def test_the_header_states_at_least_the_size_that_pillow_decodes(name):
    encoded = SEEDS[name]
    kind = image_formats.kind_of(encoded)
    try:
        stated = image_headers.size(io.BytesIO(encoded), kind)
        image = images.PLUGINS[kind](io.BytesIO(encoded))
    except (ValueError, OSError):
        assert name in ("claims_all.webp", "claims_text.png", "far_entries.tif", "skips_rows.bmp")
        return
    width, height = image.size
    assert stated.height * stated.width >= height * width


def test_a_file_of_too_many_bytes_is_refused():
    encoded = encoded_as("BMP", picture(40, 60))
    with pytest.raises(TooLarge, match=r"at most 800 bytes\. Received: 7,254 bytes"):
        check(encoded, 100)


@pytest.mark.parametrize("kind", image_formats.FORMATS)
def test_a_file_that_is_cut_off_is_left_to_the_decoders(kind):
    encoded = encoded_as(kind.upper(), picture(40, 60))
    for length in range(0, min(len(encoded), 300)):
        image_headers.check(io.BytesIO(encoded[:length]), kind, MAX_PIXELS)


def test_a_raised_budget_decodes_what_the_default_refuses():
    encoded = encoded_as("PNG", picture(40, 60))
    with pytest.raises(TooLarge, match="raise max_pixels if you trust the image"):
        images.decode_photo(encoded, 2399)
    assert images.decode_photo(encoded, 2400).shape == (40, 60, 3)
    assert images.decode_with_pillow(encoded, 2400).shape == (40, 60, 3)


def test_images_beyond_the_decoders_of_tensorflow_are_decoded_by_pillow(monkeypatch):
    monkeypatch.setattr(images, "TENSORFLOW_PIXELS", 2399)
    jpeg = encoded_as("JPEG", picture(40, 60))
    np.testing.assert_array_equal(images.decode_photo(jpeg), images.decode_with_pillow(jpeg))


def test_a_pillow_image_over_the_budget_is_not_decoded():
    image = Image.open(io.BytesIO(encoded_as("PNG", picture(40, 60))))
    with pytest.raises(TooLarge, match="60 x 40"):
        images.from_pillow(image, 2399)
    assert image.readonly == 0 or image.tile  # still as it was opened


def test_a_text_of_a_png_that_becomes_many_megabytes_has_no_effect():
    encoded = hostile.packed_text(100)
    tracemalloc.start()
    try:
        assert images.decode_photo(encoded).shape == (40, 60, 3)
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("form", ["JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "MPO"])
def test_a_pillow_image_is_checked_and_decoded_whether_it_is_loaded_or_not(form):
    encoded = encoded_as(form, picture(40, 60))
    lazy, loaded = (Image.open(io.BytesIO(encoded)) for _ in range(2))
    loaded.load()
    np.testing.assert_array_equal(images.from_pillow(lazy), images.from_pillow(loaded))


def test_a_pillow_image_whose_file_asks_for_too_much_is_refused():
    encoded = hostile.bmp(10**6, 1, 1, b"\0\2\xff\xff")
    with pytest.raises(TooLarge, match="1000000 x 257"):
        images.from_pillow(Image.open(io.BytesIO(encoded)))


def test_an_entry_beyond_what_a_file_can_hold_is_not_looked_for():
    """A BigTIFF with the place of its entries at the end of what 64 bits count."""
    encoded = b"II+\0\x08\0\0\0" + b"\xff" * 8
    with pytest.raises(ValueError, match="TIFF image"):
        images.decode_photo(encoded)


def test_a_text_that_states_more_bytes_than_there_are_is_a_png_that_is_cut_off():
    for decode in (images.decode_photo, images.decode_with_pillow):
        with pytest.raises(ValueError, match="the file is cut off: this PNG image"):
            decode(hostile.png_claims_a_text())


def test_a_png_without_the_palette_that_it_names_cannot_be_decoded():
    whole = SEEDS["palette.png"]
    at = whole.index(b"PLTE") - 4
    without = whole[:at] + whole[at + 12 + int.from_bytes(whole[at : at + 4], "big") :]
    for decode in (images.decode_photo, images.decode_with_pillow):
        with pytest.raises(ValueError, match="image"):
            decode(without)
