"""An untrained network that finds something everywhere, so that all paths have work to do, and images for it."""

import subprocess
import sys

import cv2
import numpy as np
import pytest

from tests.helpers.exports import CONFIG
from unitbox_tf import images, inputs
from unitbox_tf.datasets import synthetic
from unitbox_tf.detect.detector import Detector
from unitbox_tf.detect.model import UnitBox


@pytest.fixture(scope="session")
def model():
    return UnitBox.from_settings(CONFIG.model, CONFIG.decode, seed=3)


@pytest.fixture(scope="session")
def photos():
    """44 images of different sizes, tiny, odd and larger than max_side.

    In an untrained network, two overlapping boxes may have scores that differ by less than rounding does,
    which then decides between them: the seed gives images in which none have.
    """
    random = np.random.default_rng(6)
    sizes = [(1, 1), (17, 31), (1, 2000), (2000, 1), (1, 90), (2, 2), (64, 64), (65, 64), (200, 3)]
    sizes += [tuple(random.integers(3, 140, 2)) for _ in range(35)]
    pictures = [inputs.read_image(synthetic.draw(number).image) for number in range(10)]
    return [
        cv2.resize(pictures[i % 10], (int(w), int(h)), interpolation=cv2.INTER_CUBIC)
        for i, (h, w) in enumerate(sizes)
    ]


@pytest.fixture(scope="session")
def expected(model, photos):
    """The detections of the detector in Python in each image."""
    find = Detector.of(model, CONFIG.decode)
    found = [find(photo) for photo in photos]
    assert sum(len(f) for f in found) > 5 * len(found)
    return found


@pytest.fixture(scope="session")
def assert_same():
    def compare(found, expected, *, pixels, scores):
        """Detections one by one: those of equal scores may come in another order."""
        assert found.image_size == expected.image_size
        assert len(found) == len(expected)
        orders = [
            np.lexsort([*d.boxes.round(0).T, d.scores.round(2), d.classes])
            for d in (found, expected)
        ]
        a, b = found.select(orders[0]), expected.select(orders[1])
        np.testing.assert_array_equal(a.classes, b.classes)
        np.testing.assert_allclose(a.scores, b.scores, atol=scores)
        np.testing.assert_allclose(a.boxes, b.boxes, atol=pixels)

    return compare


@pytest.fixture
def assert_no_tensorflow(photos, tmp_path):
    def check(exported):
        """A new process that opens an exported file, and detects in all that images can come from, imports none."""
        photo = tmp_path / "photo.jpg"
        images.save_image(photos[15], photo)
        code = f"""
import pathlib, sys
import numpy as np
from PIL import Image
import unitbox_tf
photo = pathlib.Path({str(photo)!r})
find = unitbox_tf.load({str(exported)!r}, score_threshold=0.02)
results = [find(photo), find(str(photo)), find(photo.read_bytes()), find(Image.open(photo))]
results += [find(np.asarray(Image.open(photo))), find.tiled(500)(photo)]
results += [found.detections for found in find.many([photo])]
assert len(results) == 7 and len(results[0]) > 0
for result in results[1:]:
    np.testing.assert_array_equal(result.boxes, results[0].boxes)
try:
    find(b"no photo")
except ValueError as error:
    assert str(error).startswith("encoded image: expected a JPEG, PNG, BMP, GIF, TIFF or WebP image, which these 8 byt")
else:
    raise AssertionError
loaded = {{"tensorflow", "keras"}} & set(sys.modules)
assert not loaded, loaded
"""
        result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert result.returncode == 0, result.stderr[-2000:]

    return check
