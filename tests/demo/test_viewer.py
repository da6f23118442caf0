import dataclasses
import struct
import zlib

import cv2
import numpy as np
import pytest

from tests.helpers import light_models
from tests.helpers.demo import seen_of
from tests.helpers.images import exif_jpeg
from unitbox_tf.datasets import synthetic
from unitbox_tf.demo import viewer as viewers
from unitbox_tf.detect.detector import Detector
from unitbox_tf.detect.model import UnitBox
from unitbox_tf.limits import TooLarge


@pytest.mark.parametrize("decoder", ["peaks", "ellipse"])
def test_settings_give_what_the_detector_finds_with_them(viewer, untrained_run, decoder):
    model = UnitBox.from_preset(untrained_run)
    encoded = synthetic.draw(0).image
    seen = viewer.see(encoded)
    everything = dataclasses.replace(viewer.decode, decoder=decoder, score_threshold=0.0)
    median = float(np.median(viewer.find(seen, everything).scores))
    counts = []
    for changes in (
        {},
        {"score_threshold": median},
        {"nms_iou": 0.9, "blob_threshold": 0.45},
        {"nms_iou": 0.1, "blob_threshold": 0.45},
    ):
        decode = dataclasses.replace(everything, **changes)
        find = Detector.of(model, decode)
        expected, found = find(encoded), viewer.find(seen, decode)
        np.testing.assert_allclose(found.boxes, expected.boxes, atol=1e-3)
        np.testing.assert_allclose(found.scores, expected.scores, atol=1e-5)
        np.testing.assert_array_equal(found.classes, expected.classes)
        assert found.image_size == expected.image_size
        counts.append(len(found))
    assert counts[1] < counts[0]
    assert decoder == "ellipse" or counts[3] < counts[2]  # blobs of one scale do not overlap


def test_an_image_is_seen_as_it_is_displayed(viewer):
    image = np.zeros((40, 60, 3), np.uint8)
    seen = viewer.see(exif_jpeg(image, 6, "big"))
    assert seen.size == seen.image.shape[:2] == (60, 40)
    assert [maps["confidence"].shape[1:3] for maps in seen.maps] == [(30, 20), (60, 40)]


def test_a_large_image_is_shown_smaller(viewer):
    encoded = cv2.imencode(".png", np.zeros((10, 2400, 3), np.uint8))[1].tobytes()
    seen = viewer.see(encoded)
    assert seen.size == (10, 2400)
    assert seen.image.shape == (5, 1200, 3)


def png_header(width, height):
    """A PNG of some 70 bytes that states this size."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def test_an_image_with_too_many_pixels_is_refused_before_it_is_decoded(viewer):
    expected = (
        r"expected an image of at most 50,000,000 pixels \(max_pixels\). Received: 60000 x 60000"
    )
    with pytest.raises(TooLarge, match=expected):
        viewer.see(png_header(60000, 60000))


@pytest.mark.parametrize("encoded", [b"", b"some text", b"%PDF-1.4"])
def test_what_is_no_image_is_named(viewer, encoded):
    with pytest.raises(ValueError, match=r"^expected a JPEG, PNG, BMP, GIF, TIFF or WebP image, "):
        viewer.see(encoded)


def test_an_image_that_ends_early_is_named(viewer):
    encoded = exif_jpeg(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8), 1, "big")
    with pytest.raises(ValueError, match=r"^the file is cut off: "):
        viewer.see(encoded[: len(encoded) // 2])


def test_maps_are_probabilities_and_pixels_of_the_image():
    logits = np.zeros((2, 4, 2))
    logits[0, 1, 1] = np.log(3)  # a probability of 3/4
    seen = seen_of(logits, np.ones((2, 4, 4)) * [1, 2, 3, 4], (6, 8))  # 3 times as high, 2 as wide
    confidence = viewers.confidence_map(seen, 0)
    assert confidence[0, 1] == pytest.approx(0.75)
    assert confidence[1, 1] == pytest.approx(0.5)
    np.testing.assert_allclose(viewers.distance_maps(seen, 0)[0, 0], [3, 6, 6, 8])


def test_maps_of_a_stride_lie_where_the_network_saw_the_image():
    """An image of 9 x 14 px, shown with 18 x 28 px, has 5 x 7 points of stride 4."""
    logits, distances = np.full((5, 7, 1), -20.0), np.full((5, 7, 4), 6.0)
    logits[4, 1], distances[4, 1] = 20.0, [2, 4, 6, 8]
    seen = seen_of(logits, distances, (9, 14), (18, 28), 4)
    confidence, sides = viewers.confidence_map(seen, 0), viewers.distance_maps(seen, 0)
    assert confidence.shape == (18, 28)
    assert sides.shape == (18, 28, 4)
    rows, columns = np.nonzero(confidence > 0.5)
    assert (set(rows), set(columns)) == ({16, 17}, {4, 5, 6, 7})
    np.testing.assert_allclose(sides[17, 5], [1, 2, 3, 4])  # in pixels of the image


@pytest.mark.parametrize("decoder", ["peaks", "ellipse"])
def test_a_detector_of_a_stride_is_viewed_as_it_detects(decoder, tmp_path):
    path = tmp_path / "light.keras"
    light = light_models.model()
    light.save(path)
    opened = viewers.Viewer(path, decoder=decoder)
    seen = opened.see(synthetic.draw(0).image)
    assert seen.stride == 4
    assert seen.shown == ((32, 32), (64, 64))
    expected = Detector.of(light, opened.decode)(synthetic.draw(0).image)
    found = opened.find(seen, opened.decode)
    assert len(found) == len(expected) > 0
    np.testing.assert_allclose(found.boxes, expected.boxes, atol=1e-3)


def test_folders_without_a_run_are_named(untrained_run, tmp_path):
    for folder in (untrained_run / "saved_model", tmp_path / "gone"):
        with pytest.raises(ValueError, match=f"{folder.name}: expected the folder of a run"):
            viewers.Viewer(folder)
