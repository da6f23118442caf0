"""A detector whose settings differ from image to image finds what one finds that was loaded with these settings."""

import dataclasses

import numpy as np
import pytest

import unitbox_tf
from tests.helpers import tiny_models
from unitbox_tf import inputs, loading
from unitbox_tf.datasets import synthetic
from unitbox_tf.formats import saved_model

SETTINGS = (
    {},
    {"score_threshold": 0.3, "max_detections": 3},
    {"decoder": "ellipse", "blob_threshold": 0.2},
)


@pytest.fixture(scope="module", params=["detector.keras", "detector"])
def path(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("opened") / request.param
    model = tiny_models.model()
    if path.suffix:
        model.save(path)
    else:
        saved_model.save(model, path, "a card")
    return path


@pytest.fixture(scope="module")
def adjustable(path):
    return loading.open_adjustable(path)


def test_settings_of_an_image_are_those_of_loading(path, adjustable):
    image = inputs.read_image(synthetic.draw(0).image)
    counts = set()
    for settings in SETTINGS:
        wanted = unitbox_tf.load(path, **settings)
        assert adjustable.class_names == wanted.class_names
        decode = dataclasses.replace(adjustable.decode, **settings)
        assert decode == wanted.decode
        assert adjustable.detect(image, decode) == wanted(image)
        counts.add(len(wanted(image)))
    assert len(counts) > 1


def test_images_of_a_batch_are_searched_as_alone(adjustable):
    image = inputs.read_image(synthetic.draw(0).image)
    batch = np.stack([image, image[::-1], image[:, ::-1]])
    together = adjustable.detect_batch(batch, adjustable.decode)
    for found, each in zip(together, batch, strict=True):
        alone = adjustable.detect(each, adjustable.decode)
        assert len(found) == len(alone) > 0
        np.testing.assert_allclose(found.scores, alone.scores, atol=1e-3)
        np.testing.assert_allclose(found.boxes, alone.boxes, atol=0.5)


def test_wrong_settings_and_paths_are_errors_of_loading(path, tmp_path):
    with pytest.raises(ValueError, match="Unknown field of DecodeConfig: 'threshold'"):
        loading.open_adjustable(path, threshold=0.3)
    with pytest.raises(ValueError, match="it does not exist, and"):
        loading.open_adjustable(tmp_path / "gone")
    changed = loading.open_adjustable(path, score_threshold=0.7)
    assert changed.decode.score_threshold == 0.7
