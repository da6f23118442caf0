import io

import numpy as np
import pytest
from PIL import Image

from tests.helpers.images import exif_jpeg, picture
from unitbox_tf import images, inputs


@pytest.mark.parametrize("order", ["little", "big"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pillow_turns_a_jpeg_as_tensorflow_does(orientation, order):
    encoded = exif_jpeg(picture(), orientation, order)
    expected = images.decode_photo(encoded).numpy().astype(int)
    decoded = images.decode_with_pillow(encoded)
    assert decoded.dtype == np.uint8
    assert decoded.shape == expected.shape
    assert np.abs(decoded - expected).mean() < 3  # the decoders differ


def encoded_as(form, mode="RGB", **options):
    pixels = np.random.default_rng(0).integers(0, 256, (9, 7, 3), np.uint8)
    content = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(content, form, **options)
    return content.getvalue()


@pytest.mark.parametrize("form", images.PILLOW_FORMATS)
def test_pillow_decodes_what_tensorflow_decodes(form):
    encoded = encoded_as(form)
    expected = images.decode_photo(encoded).numpy().astype(int)
    assert np.abs(images.decode_with_pillow(encoded) - expected).max() <= (15 * (form == "JPEG"))


def test_pillow_decodes_the_first_frame_and_turns_no_png():
    exif = Image.Exif()
    exif[images.ORIENTATION_TAG] = 6
    frames = [Image.new("RGB", (7, 9), colour) for colour in ("red", "blue")]
    for encoded in (
        encoded_as("PNG", exif=exif),
        encoded_as("GIF", append_images=frames, save_all=True),
    ):
        expected = images.decode_photo(encoded).numpy()
        np.testing.assert_array_equal(images.decode_with_pillow(encoded), expected)


@pytest.mark.parametrize(
    "encoded",
    [b"", b"no image", encoded_as("TIFF"), encoded_as("PNG")[:60], encoded_as("JPEG")[:-9]],
    ids=["nothing", "text", "TIFF", "half a PNG", "most of a JPEG"],
)
def test_both_decoders_refuse_alike(encoded):
    message = f"^expected a JPEG or PNG image, which these {len(encoded)} bytes are not. "
    with pytest.raises(ValueError, match=message + "TensorFlow: "):
        images.decode_photo(encoded)
    with pytest.raises(ValueError, match=message + "Pillow: ") as refused:
        images.decode_with_pillow(encoded)
    assert "object at" not in str(refused.value)


def test_an_image_is_read_with_the_decoder_that_is_asked_for(tmp_path):
    path = tmp_path / "photo.jpg"
    path.write_bytes(encoded_as("JPEG"))
    for image in (path, str(path), path.read_bytes()):
        for decode in (images.decode_photo, images.decode_with_pillow):
            expected = np.asarray(decode(path.read_bytes()))
            np.testing.assert_array_equal(inputs.read_image(image, decode), expected)
    path.write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"photo\.jpg: expected a JPEG .*unknown image file form"):
        inputs.read_image(path, images.decode_with_pillow)
