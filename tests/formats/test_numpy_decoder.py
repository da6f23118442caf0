import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from unitbox_tf.config import DecodeConfig, ModelConfig
from unitbox_tf.detect import decoders, graph
from unitbox_tf.formats import numpy_decoder
from unitbox_tf.network import backbones
from unitbox_tf.network.layers import Preprocess

VGG16 = backbones.vgg16(ModelConfig())
PREPROCESSING = {"stride": VGG16.stride, **dataclasses.asdict(VGG16.preprocessing)}
CONFIG = DecodeConfig(score_threshold=0.3, max_detections=200)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ((1, 1), (1, 1)),
        ((30, 40), (30, 40)),
        ((97, 61), (32, 20)),
        ((1, 900), (1, 100)),
        ((7, 5), (9, 8)),
    ],
)
def test_resizing_is_that_of_tensorflow(old, new, random):
    image = random.integers(0, 256, (*old, 3), np.uint8)
    expected = tf.image.resize(image, new, antialias=True)
    np.testing.assert_allclose(numpy_decoder.resize(image, *new), expected, atol=0.01)


@pytest.mark.parametrize("size", [(190, 640), (380, 1280), (1, 2000), (333, 500), (17, 31)])
@pytest.mark.parametrize("scale", [0.25, 0.5, 1.0])
def test_photos_are_shown_at_the_size_of_the_graph(size, scale):
    """Of 190 by 640 px, one rounds 123.5 up in double precision, the other down in single."""
    seen = []

    def network(image):
        seen.append(image)
        return np.zeros((1, 1, 1), np.float32), np.zeros((1, 1, 4), np.float32)

    settings = dataclasses.asdict(dataclasses.replace(CONFIG, scales=(scale,)))
    white = np.full((*size, 3), 255, np.uint8)
    numpy_decoder.detect(network, white, settings, PREPROCESSING)
    shown = graph.shown_size(*map(tf.constant, size), CONFIG.max_side, scale).numpy()
    inside = (seen[0] > 50).all(axis=-1)  # white, less the mean
    assert [inside.any(axis=1).sum(), inside.any(axis=0).sum()] == shown.tolist()


@pytest.mark.parametrize(("small", "factor"), [((1, 1), 8), ((4, 7), 8), ((3, 2), 16)])
def test_upsampling_is_that_of_tensorflow(small, factor, random):
    values = random.normal(size=(*small, 4)).astype(np.float32)
    size = [factor * side for side in small]
    expected = tf.image.resize(values, size)
    np.testing.assert_allclose(numpy_decoder.upsample(values, *size), expected, atol=1e-5)


def test_peaks_and_suppression_are_those_of_the_graph(random):
    for _ in range(5):
        coarse = random.normal(0, 4, (5, 6, 2)).astype(np.float32)
        confidence = numpy_decoder.upsample(coarse, 40, 48)
        distances = numpy_decoder.upsample(
            random.uniform(-3, 20, (5, 6, 4)).astype(np.float32), 40, 48
        )
        distances = np.maximum(distances, 0)
        maps = {"confidence": confidence[None], "distances": distances[None]}
        padded = decoders.decode_scales([maps], tf.constant([40, 48]), CONFIG)
        settings = dataclasses.asdict(CONFIG)
        boxes, logits, classes = numpy_decoder.find_peaks(confidence, distances, settings)
        kept = numpy_decoder.suppress(boxes, logits, classes, settings)
        count = int(padded["num_detections"][0])
        assert len(kept) == count > 3
        boxes = np.clip(boxes, 0, [48, 40, 48, 40])
        np.testing.assert_allclose(boxes[kept], padded["boxes"][0, :count], atol=1e-3)
        np.testing.assert_array_equal(classes[kept], padded["classes"][0, :count])
        scores = 1 / (1 + np.exp(-logits[kept]))
        np.testing.assert_allclose(scores, padded["scores"][0, :count], atol=1e-5)


@pytest.mark.parametrize("size", [(33, 5), (64, 32), (1, 1)])
def test_preprocessing_is_that_of_the_network(size, random):
    image = random.integers(0, 256, (*size, 3), np.uint8)
    seen = numpy_decoder.preprocess(image, PREPROCESSING)
    assert seen.shape[0] % 32 == seen.shape[1] % 32 == 0
    np.testing.assert_allclose(seen, Preprocess(**PREPROCESSING)(image[None])[0], atol=1e-4)


def test_preprocessing_is_what_the_backbone_states():
    image = np.arange(18, dtype=np.uint8).reshape(2, 3, 3)
    preprocessing = {"stride": 4, "channels": "rgb", "mean": [1, 2, 3], "scale": 0.5}
    expected = np.zeros((4, 4, 3))
    expected[:2, :3] = (image - [1.0, 2.0, 3.0]) / 2
    seen = numpy_decoder.preprocess(image, preprocessing)
    np.testing.assert_array_equal(seen, expected)
    assert seen.dtype == np.float32
    turned = numpy_decoder.preprocess(image[..., ::-1], preprocessing | {"channels": "bgr"})
    np.testing.assert_array_equal(turned, expected)
