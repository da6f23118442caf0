import dataclasses
import warnings

import numpy as np
import pytest
import tensorflow as tf

from tests.helpers.peaks import peaks as peaks_by_definition
from unitbox_tf.config import DecodeConfig, ModelConfig
from unitbox_tf.detect import decoders
from unitbox_tf.formats import numpy_decoder
from unitbox_tf.network import backbones
from unitbox_tf.network.layers import Preprocess

VGG16 = backbones.vgg16(ModelConfig())
PREPROCESSING = {"stride": VGG16.stride, **dataclasses.asdict(VGG16.preprocessing)}
ENLARGED = {"stride": 1, "unit": 1.0}
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
    numpy_decoder.detect(network, white, settings, PREPROCESSING, ENLARGED)
    shown = decoders.shown_size(*map(tf.constant, size), CONFIG.max_side, scale).numpy()
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
        boxes, logits, classes = numpy_decoder.find_peaks(confidence, distances, settings, ENLARGED)
        kept = numpy_decoder.suppress(boxes, logits, classes, settings)
        count = int(padded["num_detections"][0])
        assert len(kept) == count > 3
        boxes = np.clip(boxes, 0, [48, 40, 48, 40])
        np.testing.assert_allclose(boxes[kept], padded["boxes"][0, :count], atol=1e-3)
        np.testing.assert_array_equal(classes[kept], padded["classes"][0, :count])
        scores = 1 / (1 + np.exp(-logits[kept]))
        np.testing.assert_allclose(scores, padded["scores"][0, :count], atol=1e-5)


def test_peaks_are_those_of_the_plain_formula(random):
    confidence = random.normal(0, 3, (37, 23, 3)).astype(np.float32)
    distances = random.uniform(-1, 30, (37, 23, 4)).astype(np.float32)
    distances[::4] = -1  # no area
    settings = {"max_detections": 30, "score_threshold": 0.7}
    boxes, logits, classes = numpy_decoder.find_peaks(confidence, distances, settings, ENLARGED)
    wanted = peaks_by_definition(confidence)
    y, x, label = np.unravel_index(np.argsort(-wanted, axis=None)[:120], wanted.shape)
    t, b, l, r = np.maximum(distances[y, x], 0).T  # noqa: E741
    has_area, sure = (l + r > 0) & (t + b > 0), wanted[y, x, label] > np.log(0.7 / 0.3)
    assert 0 < (sure & has_area).sum() < sure.sum() < 120
    kept = sure & has_area
    expected = np.stack([x + 0.5 - l, y + 0.5 - t, x + 0.5 + r, y + 0.5 + b], axis=1)[kept]
    np.testing.assert_allclose(boxes, expected, atol=1e-4)
    np.testing.assert_allclose(logits, wanted[y, x, label][kept], atol=1e-5)
    np.testing.assert_array_equal(classes, label[kept])
    settings["max_detections"] = 2
    few = numpy_decoder.find_peaks(confidence, distances, settings, ENLARGED)
    np.testing.assert_array_equal(few[0], boxes[: kept[:8].sum()])


@pytest.mark.parametrize(("threshold", "count"), [(0.0, 1), (1.0, 0)])
def test_thresholds_of_0_and_1_take_all_or_nothing(threshold, count):
    settings = {"max_detections": 30, "score_threshold": threshold}
    maps = np.full((1, 1, 1), -50, np.float32), np.ones((1, 1, 4), np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(numpy_decoder.find_peaks(*maps, settings, ENLARGED)[0]) == count


def test_suppression_by_hand():
    boxes = np.array(
        [[0, 0, 10, 10], [0, 0, 10, 6], [0, 0, 10, 7], [0, 0, 10, 7], [20, 0, 30, 9], [3, 3, 9, 9]]
    )
    logits, classes = np.array([5, 1, 4, 3, 2, 9]), np.array([0, 0, 0, 1, 0, 1])
    settings = {"nms_iou": 0.6, "max_detections": 30}
    # The second overlaps the first by 0.6, which is allowed; the third by 0.7; the fourth is another class.
    assert numpy_decoder.suppress(boxes, logits, classes, settings) == [5, 0, 3, 4, 1]
    settings["max_detections"] = 2
    assert numpy_decoder.suppress(boxes, logits, classes, settings) == [5, 0]
    assert numpy_decoder.suppress(boxes[:0], logits[:0], classes[:0], settings) == []


def test_of_equal_logits_the_first_comes_first():
    x = 20.0 * np.arange(100)
    boxes = np.stack([x, 0 * x, x + 9, 0 * x + 9], axis=1)
    logits = np.where(np.arange(100) % 3, 1.0, 2.0)
    settings = {"nms_iou": 0.6, "max_detections": 100}
    kept = numpy_decoder.suppress(boxes, logits, np.zeros(100, int), settings)
    assert kept == [*np.flatnonzero(logits == 2), *np.flatnonzero(logits == 1)]


def painted(shape, peaks):
    """Heatmaps of two classes with peaks `y, x, class, logit, distances`."""
    confidence, distances = np.full((*shape, 2), -9.0, np.float32), np.ones((*shape, 4), np.float32)
    for y, x, label, logit, sides in peaks:
        confidence[y - 2 : y + 3, x - 2 : x + 3, label] = logit
        distances[y, x] = sides
    return confidence, distances


def test_an_image_is_searched_at_each_scale_by_hand():
    """An image of 40 x 80 px is shown as 20 x 40 px, of which the network sees 24 x 40, and as 10 x 20 px."""
    seen = []

    def network(image):
        seen.append(image)
        if len(seen) == 1:
            inside = [(10, 10, 1, 4.0, (2, 3, 4, 5)), (10, 20, 0, 2.0, (-9, 5, 3, 9))]
            inside.append((8, 34, 0, 3.0, (6, 6, 6, 6.5)))  # longer than `largest_object`
            return painted((24, 40), [*inside, (21, 30, 0, 9.0, (1, 1, 1, 1))])
        return painted((16, 24), [(4, 10, 0, 3.0, (6, 3, 11, 4)), (12, 22, 0, 9.0, (1, 1, 1, 1))])

    settings = {"scales": (1.0, 0.5), "max_side": 40, "largest_object": 12, "nms_iou": 0.5}
    settings |= {"score_threshold": 0.3, "max_detections": 9}
    image = np.full((40, 80, 3), 100, np.uint8)
    preprocessing = {"stride": 8, "channels": "rgb", "mean": [60, 60, 60], "scale": 0.5}
    found = numpy_decoder.detect(network, image, settings, preprocessing, ENLARGED)
    assert [each.shape for each in seen] == [(24, 40, 3), (16, 24, 3)]
    for each, (height, width) in zip(seen, ((20, 40), (10, 20)), strict=True):
        np.testing.assert_allclose(each[:height, :width], 20, atol=1e-3)
        assert not each[height:].any()
        assert not each[:, width:].any()
    assert found["boxes"].dtype == np.float32
    np.testing.assert_allclose(
        found["boxes"], [[13, 17, 31, 27], [0, 0, 58, 30], [35, 21, 59, 31]], atol=1e-4
    )
    logits = np.array([4 - 40e-5, 3 - 28e-5, 2 - 28e-5])
    np.testing.assert_allclose(found["scores"], 1 / (1 + np.exp(-logits)), atol=1e-6)
    assert found["classes"].tolist() == [1, 0, 0]


def test_the_smallest_scale_and_detectors_without_a_bound_find_large_objects():
    def network(image):
        return painted(image.shape[:2], [(8, 8, 0, 3.0, (6, 6, 6, 6.5))])

    preprocessing = {"stride": 1, "channels": "rgb", "mean": [0, 0, 0], "scale": 1.0}
    settings = {"scales": (1.0,), "max_side": 20, "nms_iou": 0.5, "score_threshold": 0.3}
    settings |= {"max_detections": 9}
    image = np.zeros((20, 20, 3), np.uint8)
    for scales, bound, count in (
        ((1.0,), 2, 1),
        ((1.0, 2.0), None, 2),
        ((1.0, 2.0), 12.4, 1),
        ((1.0, 2.0), 12.5, 2),
    ):
        own = settings | {"scales": scales, "largest_object": bound}
        found = numpy_decoder.detect(network, image, own, preprocessing, ENLARGED)
        assert len(found["boxes"]) == count


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
