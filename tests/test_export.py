import dataclasses
import subprocess
import sys

import cv2
import numpy as np
import pytest
import tensorflow as tf

from tests.test_input_pipeline import exif_jpeg
from unitbox_tf import boxes as box_ops
from unitbox_tf import detector, export
from unitbox_tf.config import Config, DecodeConfig, ModelConfig
from unitbox_tf.datasets import synthetic
from unitbox_tf.model import unitbox

DECODE = DecodeConfig(max_side=64, score_threshold=0.01, max_detections=15)
NAMES = ("cat", "dog")


@pytest.fixture(scope="module")
def model():
    """An untrained network that finds something everywhere, so that all paths have work to do."""
    config = ModelConfig(class_names=NAMES, head_stddev=0.01, initial_box_size=25.0)
    return unitbox(config, seed=3)


@pytest.fixture(scope="module")
def saved(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("exported") / "saved_model"
    export.save(model, DECODE, NAMES, path)
    return path


@pytest.fixture(scope="module")
def photos():
    """Photos of 50 different sizes, tiny, odd and larger than max_side."""
    random = np.random.default_rng(5)
    sizes = [(1, 1), (1, 90), (17, 31), (64, 64), (65, 64), (200, 3)]
    sizes += [tuple(random.integers(5, 140, 2)) for _ in range(44)]
    picture = detector.read_image(synthetic.draw(0).image)
    return [cv2.resize(picture, (int(w), int(h))) for h, w in sizes]


def from_signature(signature, photo, name):
    found = {k: v.numpy()[0] for k, v in signature(**{name: tf.constant(photo[None])}).items()}
    count = found["num_detections"]
    return found["boxes"][:count], found["scores"][:count], found["classes"][:count]


def test_the_exported_graph_finds_what_the_python_path_finds(model, saved, photos):
    config = Config(model=ModelConfig(class_names=NAMES), decode=DECODE)
    in_python = detector.from_model(model, config)
    loaded = tf.saved_model.load(str(saved))
    for photo in photos:
        expected = in_python(photo)
        png = cv2.imencode(".png", photo[..., ::-1])[1].tobytes()
        encoded = np.array([png], object)
        for signature, value, name in (
            ("images", photo[None], "images"),
            ("serving_default", photo[None], "images"),
            ("encoded", encoded, "encoded"),
        ):
            found = loaded.signatures[signature](**{name: tf.constant(value)})
            count = int(found["num_detections"][0])
            assert count == len(expected)
            boxes = found["boxes"][0, :count].numpy()
            np.testing.assert_allclose(boxes, expected.boxes, atol=0.5)
            scores = found["scores"][0, :count].numpy()
            np.testing.assert_allclose(scores, expected.scores, atol=1e-3)
            np.testing.assert_array_equal(found["classes"][0, :count], expected.classes)
            assert not found["boxes"][0, count:].numpy().any()


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
    """On encoded JPEG photos of many sizes and orientations, larger than max_side and smaller."""
    model = BrightSpots()
    module = export.InferenceModule(model, DECODE, ["spot"])
    compared = 0
    for number in range(24):
        height, width = random.integers(20, 150, 2)
        coarse = random.integers(0, 256, (5, 5, 3), np.uint8)
        photo = cv2.resize(coarse, (int(width), int(height)), interpolation=cv2.INTER_CUBIC)
        encoded = exif_jpeg(photo, 1 + number % 8, "little")
        decoded = detector.read_image(encoded)
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
        return detector.from_model(Spots(), dataclasses.replace(config, decode=decode))(photo)

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
    assert find(1.0, 1.0).boxes.tolist() == find(1.0).boxes.tolist()  # the same twice is one


def test_real_photos_give_the_same_from_bytes_and_arrays(saved, data):
    photos = sorted(data("fddb/originalPics").rglob("*.jpg"))[:50]
    signatures = tf.saved_model.load(str(saved)).signatures
    sizes = set()
    for path in photos:
        encoded = path.read_bytes()
        image = detector.read_image(encoded)
        sizes.add(image.shape)
        a = signatures["encoded"](encoded=tf.constant([encoded]))
        b = signatures["images"](images=tf.constant(image[None]))
        np.testing.assert_allclose(a["boxes"], b["boxes"], atol=0.5)
        np.testing.assert_allclose(a["scores"], b["scores"], atol=1e-3)
    assert len(sizes) > 10


def test_photos_of_mixed_sizes_go_in_one_batch(saved, photos):
    encoded = [cv2.imencode(".png", photo[..., ::-1])[1].tobytes() for photo in photos[2:8]]
    signature = tf.saved_model.load(str(saved)).signatures["encoded"]
    together = signature(encoded=tf.constant(encoded))
    assert together["boxes"].shape == (6, 15, 4)
    for index, photo in enumerate(encoded):
        alone = signature(encoded=tf.constant([photo]))
        for name, value in together.items():
            np.testing.assert_allclose(value[index], alone[name][0], atol=1e-4)


def test_an_image_batch_gives_what_its_images_give(saved, random):
    images = random.integers(0, 256, (3, 50, 70, 3), np.uint8)
    signature = tf.saved_model.load(str(saved)).signatures["images"]
    together = signature(images=tf.constant(images))
    for index in range(3):
        alone = signature(images=tf.constant(images[index : index + 1]))
        np.testing.assert_allclose(together["boxes"][index], alone["boxes"][0], atol=0.1)


def test_boxes_are_in_pixels_of_the_original(model):
    """A photo that is shrunk by four gives the boxes of the small one, four times as large."""
    find = detector.from_model(model, Config(model=ModelConfig(class_names=NAMES), decode=DECODE))
    small = np.full((48, 64, 3), 180, np.uint8)  # of one colour: shrinking changes no pixel
    large = np.full((192, 256, 3), 180, np.uint8)
    a, b = find(small), find(large)
    assert b.image_size == (192, 256)
    assert len(a) > 0
    np.testing.assert_allclose(b.boxes, 4 * a.boxes, atol=1e-2)


def test_it_opens_where_the_package_is_not(saved, photos, tmp_path):
    path = tmp_path / "photo.png"
    path.write_bytes(cv2.imencode(".png", photos[10])[1].tobytes())
    code = f"""
import sys
sys.modules["unitbox_tf"] = None  # importing it fails
sys.modules["keras"] = None
import tensorflow as tf
loaded = tf.saved_model.load({str(saved)!r})
found = loaded.signatures["encoded"](encoded=tf.constant([open({str(path)!r}, "rb").read()]))
assert found["boxes"].shape == (1, 15, 4) and found["num_detections"][0] > 0
assert loaded.class_names().numpy().tolist() == [b"cat", b"dog"]
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-2000:]


def test_signatures_take_what_they_say(saved):
    signatures = tf.saved_model.load(str(saved)).signatures
    assert set(signatures) == {"serving_default", "images", "encoded"}
    (images,) = signatures["images"].structured_input_signature[1].values()
    assert (images.dtype, images.shape.as_list()) == (tf.uint8, [None, None, None, 3])
    (encoded,) = signatures["encoded"].structured_input_signature[1].values()
    assert (encoded.dtype, encoded.shape.as_list()) == (tf.string, [None])


def test_saving_again_replaces_an_export_and_nothing_else(model, tmp_path):
    path = tmp_path / "saved_model"
    path.mkdir()
    (path / "leftover").write_text("a user's file")
    with pytest.raises(ValueError, match="exists and is no SavedModel: it is left as it is"):
        export.save(model, DECODE, NAMES, path)
    assert (path / "leftover").read_text() == "a user's file"
    (path / "saved_model.pb").write_text("an earlier export")
    export.save(model, DECODE, NAMES, path)
    assert not (path / "leftover").exists()
    assert (path / "saved_model.pb").is_file()
    assert [p.name for p in tmp_path.iterdir()] == ["saved_model"]


def test_a_corrupt_photo_is_an_error(saved):
    signature = tf.saved_model.load(str(saved)).signatures["encoded"]
    with pytest.raises(tf.errors.InvalidArgumentError):
        signature(encoded=tf.constant([b"no photo"]))
