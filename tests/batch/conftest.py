"""A folder of photos, a detector in this process, and one in a file that other processes open quickly."""

import numpy as np
import pytest

from tests.helpers import light_models
from unitbox_tf import formats, images, loading, runs
from unitbox_tf.batch import pipeline
from unitbox_tf.config import DecodeConfig
from unitbox_tf.datasets import synthetic
from unitbox_tf.detect.detector import Detector
from unitbox_tf.records import Detections

NEEDS_BEAM = "needs Apache Beam: pip install 'unitbox_tf[beam]', in an environment of its own"


@pytest.fixture
def beam():
    return pytest.importorskip("apache_beam", reason=NEEDS_BEAM)


@pytest.fixture
def photos(tmp_path):
    """Seven photos, and one that is broken."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(7):
        (folder / f"{number}.png").write_bytes(synthetic.draw(number).image)
    (folder / "broken.png").write_bytes(b"no image")
    return folder


@pytest.fixture
def shown():
    """How many images the detector was shown."""
    return []


@pytest.fixture
def detector(shown):
    """Finds a box whose corner is the mean of the image."""

    def find(image):
        shown.append(image.shape[:2])
        x = np.float32(image.mean() / 10)
        return Detections([[x, 2, x + 3, 20]], np.float32([0.9]), [0], image.shape[:2])

    return Detector(find, ("object",), DecodeConfig())


@pytest.fixture
def job(detector, tmp_path, monkeypatch):
    """A job with `detector`, in this process."""
    monkeypatch.setattr(loading, "load", lambda *_, **__: detector)
    monkeypatch.setattr(runs, "digest", lambda model: "abc")
    return pipeline.Job("model", "abc", {}, False, None, str(tmp_path / "out"))


@pytest.fixture(scope="session")
def onnx(tmp_path_factory):
    """An exported detector."""
    pytest.importorskip("apache_beam", reason=NEEDS_BEAM)  # before a conversion of seconds
    path = tmp_path_factory.mktemp("exported") / "detector.onnx"
    return formats.export(light_models.model(), path)


@pytest.fixture
def large_photos(tmp_path):
    """120 photos that each take some time to decode."""
    folder = tmp_path / "large"
    folder.mkdir()
    image = np.random.default_rng(0).integers(0, 255, (600, 800, 3), np.uint8)
    images.save_image(image, folder / "000.jpg")
    for number in range(1, 120):
        (folder / f"{number:03}.jpg").write_bytes((folder / "000.jpg").read_bytes())
    return folder
