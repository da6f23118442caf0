import cv2
import numpy as np
import pytest

from tests.helpers.images import exif_jpeg
from unitbox_tf.datasets import synthetic


@pytest.fixture
def photos(tmp_path):
    """A folder with a PNG, an upside-down JPEG and a broken image."""
    folder = tmp_path / "photos"
    (folder / "deep").mkdir(parents=True)
    (folder / "a.png").write_bytes(synthetic.draw(0).image)
    image = cv2.imdecode(np.frombuffer(synthetic.draw(1).image, np.uint8), cv2.IMREAD_COLOR)
    image = np.ascontiguousarray(image[:60, :, ::-1])
    (folder / "deep" / "turned.jpg").write_bytes(exif_jpeg(image, 6, "big"))
    return folder
