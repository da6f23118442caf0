import dataclasses

import cv2
import numpy as np
import pytest
import tensorflow as tf

from tests.helpers.images import exif_jpeg
from unitbox_tf import boxes as box_ops
from unitbox_tf import inputs
from unitbox_tf.config import Config, DecodeConfig, ModelConfig
from unitbox_tf.detect import graph
from unitbox_tf.detect.detector import Detector
from unitbox_tf.detect.model import UnitBox

DECODE = DecodeConfig(max_side=64, score_threshold=0.01, max_detections=15)
NAMES = ("cat", "dog")


def plain_detections(model, photo):
    """Resize, network, sigmoid, local maxima and suppression, written plainly: no code of the package's."""
    height, width = photo.shape[:2]
    scale = min(1.0, DECODE.max_side / max(height, width))
    size = [max(1, round(height * scale)), max(1, round(width * scale))]
    maps = model(tf.image.resize(photo[None], size, antialias=True))
    logits, sides = maps["confidence"][0].numpy(), maps["distances"][0].numpy()
    padded = np.pad(logits, [(2, 2), (2, 2), (0, 0)], constant_values=np.nan)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (5, 5), axis=(0, 1))
    smooth = np.nanmean(windows, axis=(-2, -1))
    rows, columns, _ = np.indices(smooth.shape)
    smooth -= 2e-5 * (rows % 16 + columns % 16)  # so that flat tops have one maximum
    found = []
    for i, j, label in np.ndindex(smooth.shape):
        around = smooth[max(i - 1, 0) : i + 2, max(j - 1, 0) : j + 2, label]
        score = 1 / (1 + np.exp(-smooth[i, j, label]))
        if smooth[i, j, label] >= around.max() and score > DECODE.score_threshold:
            t, b, l, r = sides[i, j]  # noqa: E741
            box = np.array([j + 0.5 - l, i + 0.5 - t, j + 0.5 + r, i + 0.5 + b])
            found.append((score, label, box))
    found.sort(key=lambda row: -row[0])
    kept = []
    for score, label, box in found:
        same = [other for _, other_label, other in kept if other_label == label]
        if not same or box_ops.pairwise_iou(box[None], np.array(same)).max() <= DECODE.nms_iou:
            kept.append((score, label, box))
    stretch = np.array([width / size[1], height / size[0]] * 2)
    boxes = [
        np.clip(b * stretch, 0, [width, height] * 2) for _, _, b in kept[: DECODE.max_detections]
    ]
    return np.array(boxes), np.array([score for score, _, _ in kept[: DECODE.max_detections]])


class BrightSpots(tf.Module):
    """Stands for a network that finds something at each bright spot, with sides of its own."""

    def __call__(self, images, training=False):
        light = tf.reduce_mean(images, axis=-1, keepdims=True)
        sides = tf.concat([light / 30 + n for n in (1.0, 2.0, 3.0, 4.0)], axis=-1)
        return {"confidence": light / 16 - 8, "distances": sides}


def test_the_graph_finds_what_a_plain_decoder_finds(random):
    """On encoded JPEG images of many sizes and orientations, larger than max_side and smaller."""
    model = BrightSpots()
    module = graph.InferenceModule(model, DECODE)
    compared = 0
    for number in range(24):
        height, width = random.integers(20, 150, 2)
        coarse = random.integers(0, 256, (5, 5, 3), np.uint8)
        photo = cv2.resize(coarse, (int(width), int(height)), interpolation=cv2.INTER_CUBIC)
        encoded = exif_jpeg(photo, 1 + number % 8, "little")
        decoded = inputs.read_image(encoded)
        assert decoded.shape[:2] == ((width, height) if number % 8 >= 4 else (height, width))
        boxes, scores = plain_detections(model, decoded)
        found = module.detect_encoded(tf.constant([encoded]))
        count = int(found["num_detections"][0])
        assert count == len(boxes)
        np.testing.assert_allclose(found["scores"][0, :count], scores, atol=1e-3)
        np.testing.assert_allclose(found["boxes"][0, :count], boxes, atol=0.5)
        compared += count
    assert compared > 50


class Spots(tf.Module):
    """Stands for a network that sees red spots in images higher than 60 px and green ones in others, 9 px large."""

    class_names = ("spot",)

    def __call__(self, images, training=False):
        channel = tf.where(tf.shape(images)[1] > 60, 0, 1)
        light = tf.gather(images, channel, axis=-1)[..., None]
        sides = tf.fill(tf.concat([tf.shape(light)[:3], [4]], 0), 4.5)
        return {"confidence": light / 16 - 8, "distances": sides}


@pytest.mark.parametrize("decoder", ["peaks", "ellipse"])
def test_scales_find_what_is_seen_at_them(decoder):
    y, x = np.mgrid[:80, :120] + 0.5
    photo = np.zeros((80, 120, 3), np.uint8)
    photo[..., 0] = 250 * np.exp(-((x - 24.5) ** 2 + (y - 34.5) ** 2) / 2 / 4**2)
    photo[..., 1] = 250 * np.exp(-((x - 79) ** 2 + (y - 39) ** 2) / 2 / 8**2)
    boxes = np.array([(20, 30, 29, 39), (70, 30, 88, 48)])
    config = Config(decode=DecodeConfig(max_side=120, decoder=decoder))

    def find(*scales, **fields):
        decode = dataclasses.replace(config.decode, scales=scales, **fields)
        return Detector.of(Spots(), decode)(photo)

    for scales, expected in (((1.0,), [0]), ((0.5,), [1]), ((1.0, 0.5), [0, 1])):
        found = find(*scales)
        assert len(found) == len(expected)
        ordered = found.boxes[np.argsort(found.boxes[:, 0])]
        np.testing.assert_allclose(ordered, boxes[expected], atol=1.0)
    # What is too large at one scale is left to the smallest, which finds all that it sees.
    assert len(find(1.0, 0.5, largest_object=9.5)) == 2
    small = find(1.0, 0.5, largest_object=8.0)
    np.testing.assert_allclose(small.boxes, boxes[1:], atol=1.0)
    assert len(find(1.0, largest_object=8.0)) == 1
    # Two scales that show the same image find each object once.
    assert find(1.0, 0.9999).boxes.tolist() == find(1.0).boxes.tolist()


def test_boxes_are_in_pixels_of_the_original():
    """An image that is shrunk by four gives the boxes of the small one, four times as large."""
    config = ModelConfig(class_names=NAMES, head_stddev=0.01, initial_box_size=25.0)
    find = Detector.of(UnitBox.from_settings(config, DECODE, seed=3))
    small = np.full((48, 64, 3), 180, np.uint8)  # of one colour: shrinking changes no pixel
    large = np.full((192, 256, 3), 180, np.uint8)
    a, b = find(small), find(large)
    assert b.image_size == (192, 256)
    assert len(a) > 0
    np.testing.assert_allclose(b.boxes, 4 * a.boxes, atol=1e-2)
