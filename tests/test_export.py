import subprocess
import sys

import cv2
import numpy as np
import pytest
import tensorflow as tf

from unitbox_tf import detector, export
from unitbox_tf.config import DecodeConfig, ModelConfig
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
    from unitbox_tf.config import Config

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
    from unitbox_tf.config import Config

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


def test_saving_again_replaces_the_folder_whole(model, tmp_path):
    path = tmp_path / "saved_model"
    path.mkdir()
    (path / "leftover").write_text("of an earlier export")
    export.save(model, DECODE, NAMES, path)
    assert not (path / "leftover").exists()
    assert (path / "saved_model.pb").is_file()
    assert [p.name for p in tmp_path.iterdir()] == ["saved_model"]


def test_a_corrupt_photo_is_an_error(saved):
    signature = tf.saved_model.load(str(saved)).signatures["encoded"]
    with pytest.raises(tf.errors.InvalidArgumentError):
        signature(encoded=tf.constant([b"no photo"]))
