import dataclasses

import numpy as np
import pytest

from tests.helpers import serving, tiny_models
from unitbox_tf import inputs, loading
from unitbox_tf.config import DecodeConfig
from unitbox_tf.datasets import synthetic
from unitbox_tf.formats import Exported, saved_model
from unitbox_tf.records import Detections

pytest.importorskip("prometheus_client", reason="needs prometheus_client: the extra serve")


@pytest.fixture(scope="session")
def saved(tmp_path_factory):
    """The folder of a SavedModel of some kilobytes, which finds something nearly everywhere."""
    path = tmp_path_factory.mktemp("served") / "faces"
    saved_model.save(tiny_models.model(), path, "a card")
    return path


@pytest.fixture(scope="session")
def detector(saved):
    return loading.open_adjustable(saved)


@pytest.fixture(scope="session")
def signatures(saved):
    """The signatures of the SavedModel, as TensorFlow Serving runs them."""
    import tensorflow as tf

    return tf.saved_model.load(str(saved)).signatures


@pytest.fixture(scope="session")
def photos():
    """Encoded images of three sizes."""
    whole = [inputs.read_image(synthetic.draw(number).image) for number in range(3)]
    return [serving.png(image[: 60 + 10 * n]) for n, image in enumerate(whole)]


@pytest.fixture
def client(detector):
    with serving.client(detector) as made:
        yield made


class Counting:
    """A detector that finds as many objects as the first level of an image says, and notes what it was given."""

    def __init__(self):
        self.seen = []

    def detect(self, image, decode):
        self.seen.append((1, image.shape[:2], decode.score_threshold))
        return found_in(image)

    def detect_batch(self, batch, decode):
        self.seen.append((len(batch), batch.shape[1:3], decode.score_threshold))
        return [found_in(image) for image in batch]

    def exported(self, **changes):
        decode = DecodeConfig(max_pixels=1000)
        made = Exported(
            self.detect, ("a",), decode, ("score_threshold",), decode_level, self.detect_batch
        )
        return dataclasses.replace(made, **changes)


def found_in(image):
    count = int(image[0, 0, 0])
    return Detections(
        np.zeros((count, 4)), np.linspace(0.9, 0.5, count), np.zeros(count, int), image.shape[:2]
    )


def decode_level(encoded, max_pixels):
    """An image of `b"LEVEL HEIGHT"`, 10 px wide."""
    level, height = map(int, encoded.split())
    return np.full((height, 10, 3), level, np.uint8)


@pytest.fixture
def counting():
    return Counting()
