"""The graph and Python decode to the same image, turned as Pillow's `exif_transpose` turns it."""

import io
import warnings
import zlib

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from tests.helpers.images import (
    CASES,
    REFUSED_IN_GRAPHS,
    TIFF_TYPES,
    XMP,
    XMP_KEY,
    chunk,
    encoded_as,
    exif,
    exif_jpeg,
    picture,
    segment,
    with_chunks,
    with_riff_chunks,
    with_segments,
    xmp,
)
from unitbox_tf import image_graph, images

SIZE = (16, 24)
PICTURE = picture(*SIZE)
PICTURE[:5, :8] = (250, 20, 20)
FILES = {form: encoded_as(form, PICTURE) for form in ("JPEG", "PNG", "WEBP")}

string = [tf.TensorSpec([], tf.string)]


def in_graph(encoded, max_pixels=10**6):
    return image_graph.decoder()(encoded, max_pixels)


graph_orientation = tf.function(image_graph.orientation, input_signature=string, autograph=False)


def as_pillow_shows(encoded):
    with warnings.catch_warnings(), Image.open(io.BytesIO(encoded)) as image:
        warnings.simplefilter("ignore")  # of broken EXIF
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


def check_shown_alike(encoded):
    """The graph, both decoders, `photo_size` and a PIL image show what Pillow shows."""
    expected = as_pillow_shows(encoded).astype(int)
    assert images.photo_size(encoded) == expected.shape[:2]
    decoded = images.decode_photo(encoded).numpy()
    np.testing.assert_array_equal(in_graph(encoded), decoded)
    for other in (
        decoded,
        images.decode_with_pillow(encoded),
        images.from_pillow(Image.open(io.BytesIO(encoded))),
    ):
        assert other.dtype == np.uint8
        assert other.shape == expected.shape
        if encoded[:3] == b"\xff\xd8\xff":
            assert np.abs(other - expected).mean() < 3  # the decoders differ
        else:
            np.testing.assert_array_equal(other, expected)


# EXIF and XMP

orientations = st.integers(0, 9)
exifs = st.one_of(
    st.none(),
    st.builds(
        exif,
        st.one_of(st.none(), orientations),
        st.sampled_from(["little", "big"]),
        st.sampled_from([*TIFF_TYPES, 2, 7]),
        st.sampled_from([8, 9, 30]),
        st.sampled_from([(), (0x0100,), (0x0128,), (0x0100, 0x0128)]),
    ),
)
xmps = st.one_of(st.none(), st.builds(xmp, orientations, st.booleans()))
paddings = st.integers(0, 3)
LONG = b"P" * 65_000


def jpeg_with(header, packet, padding, first):
    parts = [segment(0xE1, b"Exif\0\0" + header)] if header is not None else []
    parts += [segment(0xE1, XMP + packet)] if packet is not None else []
    before = [segment(0xE2, b"ICC_PROFILE\0" + LONG)] * padding
    return with_segments(FILES["JPEG"], *before, *(parts if first else parts[::-1]))


def png_with(header, packet, padding, after):
    parts = [chunk(b"tEXt", b"Comment\0" + LONG)] * padding
    parts += [chunk(b"eXIf", header)] if header is not None else []
    parts += [chunk(b"iTXt", XMP_KEY + b"\0\0en\0\0" + packet)] if packet is not None else []
    return with_chunks(FILES["PNG"], *parts, after_pixels=after)


def webp_with(header, packet, padding, _):
    parts = [(b"JUNK", LONG)] * padding
    parts += [(b"EXIF", header)] if header is not None else []
    parts += [(b"XMP ", packet)] if packet is not None else []
    return with_riff_chunks(FILES["WEBP"], SIZE, *parts)


@given(st.sampled_from([jpeg_with, png_with, webp_with]), exifs, xmps, paddings, st.booleans())
def test_metadata_of_any_kind_and_place_turns_as_in_pillow(
    container, header, packet, padding, first
):
    check_shown_alike(container(header, packet, padding, first))


@pytest.mark.parametrize("container", [jpeg_with, png_with, webp_with])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_all_orientations_turn_as_in_pillow(orientation, container):
    check_shown_alike(container(exif(orientation, "big", 4), None, 2, True))
    check_shown_alike(container(None, xmp(orientation), 2, True))
    check_shown_alike(container(exif(None), xmp(orientation, element=True), 0, False))


@given(st.binary(max_size=60), st.integers(0, 80), st.integers(0, 80))
@example(b"", 0, 0)
@example(b"\0", 8, 8)
def test_broken_exif_is_no_error_and_graph_and_python_agree(noise, cut, place):
    """Pillow itself raises errors for some of these. They turn nothing then."""
    whole = exif(6, "big", 4)
    for broken in (noise, whole[:cut], whole[:place] + noise + whole[place + len(noise) :]):
        for container in (jpeg_with, png_with, webp_with):
            encoded = container(broken, xmp(8), 0, True)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                decoded = images.decode_photo(encoded)
                size = images.photo_size(encoded)
            assert tuple(decoded.shape[:2]) == size
            np.testing.assert_array_equal(in_graph(encoded), decoded)


def test_exif_in_several_segments_is_joined_and_xmp_of_the_last_counts():
    whole = exif(6, "little", 12)
    parts = [segment(0xE1, b"Exif\0\0" + part) for part in (whole[:20], whole[20:])]
    check_shown_alike(with_segments(FILES["JPEG"], *parts))
    packets = [segment(0xE1, XMP + xmp(orientation)) for orientation in (3, 8)]
    check_shown_alike(with_segments(FILES["JPEG"], *packets))
    assert int(graph_orientation(with_segments(FILES["JPEG"], *packets))) == 8


def test_text_in_a_png_turns_as_in_pillow():
    digits = (b"Exif\0\0" + exif(6)).hex().encode()
    lines = b"\nexif\n%8d\n" % (len(digits) // 2)
    lines += b"\n".join(digits[i : i + 72] for i in range(0, len(digits), 72)) + b"\n"
    profile, packed = b"Raw profile type exif\0", zlib.compress
    for chunks in (
        [chunk(b"tEXt", profile + lines)],
        [chunk(b"zTXt", profile + b"\0" + packed(lines))],
        [chunk(b"zTXt", profile + b"\0" + packed(lines)), chunk(b"eXIf", exif(3))],
        [chunk(b"iTXt", XMP_KEY + b"\1\0\0\0" + packed(xmp(8)))],
        [chunk(b"zTXt", XMP_KEY + b"\0" + packed(xmp(7)))],
        [chunk(b"tEXt", XMP_KEY + xmp(7))],
        [chunk(b"tEXt", b"exif\0" + exif(7))],
        [chunk(b"zTXt", b"Comment\0\0" + packed(xmp(7)))],
        [chunk(b"tEXt", profile + b"no digits")],
        [chunk(b"eXIf", exif(8)), chunk(b"eXIf", exif(2))],
    ):
        for after in (False, True):
            check_shown_alike(with_chunks(FILES["PNG"], *chunks, after_pixels=after))


def test_a_wrong_checksum_of_metadata_does_not_matter():
    right = chunk(b"eXIf", exif(6))
    encoded = with_chunks(FILES["PNG"], right[:-1] + bytes([right[-1] ^ 1]))
    assert images.photo_size(encoded) == SIZE[::-1]
    np.testing.assert_array_equal(in_graph(encoded), images.decode_photo(encoded))


def test_exif_beyond_64_kilobytes_is_found():
    encoded = jpeg_with(exif(6), None, 20, True)
    assert len(encoded) > 1_000_000
    assert images.photo_size(encoded) == SIZE[::-1]
    check_shown_alike(encoded)


@pytest.mark.parametrize("byte_order", ["little", "big"])
@pytest.mark.parametrize("orientation", [*range(1, 9), 0, 9, 77])
def test_impossible_orientations_are_none(orientation, byte_order):
    encoded = exif_jpeg(picture(), orientation, byte_order)
    expected = orientation if orientation in range(1, 9) else 1
    assert int(graph_orientation(encoded)) == expected
    check_shown_alike(encoded)


@pytest.mark.parametrize("cut", [0, 4, 12, 20, 24, 30, 40, 60])
def test_a_header_that_ends_early_is_no_error(cut):
    assert int(graph_orientation(exif_jpeg(picture(), 6, "big")[:cut])) in (1, 6)


def test_a_large_png_has_its_exif_found_behind_thousands_of_chunks():
    pixels = np.random.default_rng(0).integers(0, 256, (60, 30, 3), np.uint8)
    png = encoded_as("PNG", pixels)
    start, end = png.index(b"IDAT") - 4, png.rindex(b"IEND") - 4
    packed = png[start + 8 : end - 4]
    parts = [chunk(b"IDAT", packed[i : i + 2]) for i in range(0, len(packed), 2)]
    assert len(parts) > 2500
    check_shown_alike(png[:start] + b"".join([*parts, chunk(b"eXIf", exif(6))]) + png[end:])


# Pixels


def animation(form, **options):
    frames = [Image.new("RGB", SIZE[::-1], colour) for colour in ("red", "blue")]
    return encoded_as(form, PICTURE, append_images=frames, save_all=True, **options)


def in_sixteen_bits(channels):
    import cv2

    values = np.random.default_rng(1).integers(0, 65536, (*SIZE, channels), np.uint16)
    return cv2.imencode(".png", values)[1].tobytes()


DECODED = {
    "BMP": encoded_as("BMP"),
    "GIF": encoded_as("GIF"),
    "interlaced GIF": encoded_as("GIF", np.repeat(np.repeat(PICTURE, 3, 0), 3, 1), interlace=1),
    "animated GIF": animation("GIF"),
    "animated PNG": animation("PNG"),
    "WebP": FILES["WEBP"],
    "WebP without loss": encoded_as("WEBP", lossless=True),
    "WebP with a profile": encoded_as("WEBP", icc_profile=b"profile"),
    "grey JPEG": encoded_as("JPEG", mode="L"),
    "CMYK JPEG": encoded_as("JPEG", np.full((9, 7, 3), 90, np.uint8), mode="CMYK"),
    "progressive JPEG": encoded_as("JPEG", PICTURE, progressive=True),
    "palette PNG with transparency": encoded_as("PNG", mode="P", transparency=bytes(range(200))),
    "RGB PNG with a transparent colour": encoded_as("PNG", transparency=(1, 2, 3)),
    "PNG, 16 bits, grey": in_sixteen_bits(1),
    "PNG, 16 bits": in_sixteen_bits(3),
    "PNG, 16 bits, alpha": in_sixteen_bits(4),
} | {f"PNG {mode}": encoded_as("PNG", mode=mode) for mode in ("1", "L", "LA", "P", "RGBA")}


@pytest.mark.parametrize("name", DECODED)
def test_the_graph_decodes_to_the_colours_of_pillow(name):
    encoded = DECODED[name]
    if "16 bits, grey" in name:  # which Pillow's own conversion to RGB cuts at 255
        decoded = images.decode_photo(encoded).numpy()
        np.testing.assert_array_equal(in_graph(encoded), decoded)
        np.testing.assert_array_equal(images.decode_with_pillow(encoded), decoded)
    else:
        check_shown_alike(encoded)


transparent = Image.fromarray(PICTURE).convert("RGBA")
transparent.putalpha(Image.linear_gradient("L").resize(SIZE[::-1]))
TRANSPARENT_WEBP = encoded_as("WEBP", np.asarray(transparent), "RGBA", lossless=True)


@pytest.mark.parametrize("path", sorted(CASES.iterdir()), ids=lambda path: path.name)
def test_the_graph_decodes_a_case_as_python_does_or_refuses_it_by_name(path):
    encoded = path.read_bytes()
    if path.name in REFUSED_IN_GRAPHS:
        with pytest.raises(tf.errors.InvalidArgumentError, match=REFUSED_IN_GRAPHS[path.name]):
            in_graph(encoded)
    else:
        np.testing.assert_array_equal(in_graph(encoded), images.decode_photo(encoded))


@pytest.mark.parametrize(
    ("encoded", "message"),
    [
        (b"", "received an empty file"),
        (b"no image", "expected a JPEG, PNG, BMP, GIF or WebP image, which these bytes are not"),
        (encoded_as("TIFF"), "received: TIFF, .*decode it first"),
        (b"\0\0\0\x18ftypheic", "received: HEIC image, .*magick photo.heic photo.jpg"),
        (TRANSPARENT_WEBP, "WebP with transparency"),
        (animation("WEBP"), "animated WebP"),
        (
            encoded_as("GIF", mode="P", comment=b"!,;", transparency=0, optimize=False),
            "GIF with tr",
        ),
        (FILES["PNG"][:-1], "the file is cut off"),
        (FILES["JPEG"][:-1], "the file is cut off"),
        (FILES["WEBP"][:-1], "the file is cut off"),
        (b"\xff\xd8\xff" + b"\0" * 30_000, "at most 20000 parts"),
    ],
)
def test_the_graph_refuses_by_name(encoded, message):
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        in_graph(encoded)


@given(st.sampled_from(sorted(DECODED)), st.data())
def test_a_cut_file_gives_the_image_of_python_or_an_error(name, data):
    whole = DECODED[name]
    cut = whole[: data.draw(st.integers(0, len(whole) - 1))]
    try:
        decoded = in_graph(cut).numpy()
    except tf.errors.InvalidArgumentError:
        return
    np.testing.assert_array_equal(decoded, images.decode_photo(cut))
