import dataclasses
import json
import subprocess
import sys
import zipfile

import cv2
import numpy as np
import pytest

from tests.helpers.exports import CARD, CONFIG
from unitbox_tf import formats, loading
from unitbox_tf.detect.detector import Detector
from unitbox_tf.detect.model import UnitBox
from unitbox_tf.formats import litert, numpy_decoder

pytest.importorskip("ai_edge_litert")
NAMES = CONFIG.model.class_names
PREPROCESSING = {  # of VGG-16
    "stride": 32,
    "channels": "bgr",
    "mean": [103.939, 116.779, 123.68],
    "scale": 1.0,
}


@pytest.fixture(scope="module")
def rounded(model):
    """The network with its weights rounded to half precision, as in all that is published: the file rounds others."""
    halved = UnitBox.from_settings(CONFIG.model, CONFIG.decode)
    halved.set_weights([w.astype(np.float16).astype(np.float32) for w in model.get_weights()])
    return halved


@pytest.fixture(scope="module")
def saved(rounded, tmp_path_factory):
    path = tmp_path_factory.mktemp("exported") / "detector.tflite"
    litert.save(rounded, path, CARD)
    return path


def test_float16_finds_what_the_python_path_finds(rounded, saved, photos, assert_same):
    in_python, find = Detector.of(rounded, CONFIG.decode), loading.load(saved)
    for photo in photos:
        assert_same(find(photo), in_python(photo), pixels=1.0, scores=1e-2)


def test_rounding_weights_changes_heatmaps_little(model, saved, photos):
    network = litert.network(litert.interpreter(saved))
    for photo in photos[::4]:
        height, width = (min(side, 100) for side in photo.shape[:2])
        image = photo[:height, :width]
        wanted = model(image[None])
        padded = numpy_decoder.preprocess(image, PREPROCESSING)
        confidence, distances = (
            numpy_decoder.upsample(m, *padded.shape[:2])[:height, :width] for m in network(padded)
        )
        expected = wanted["confidence"][0].numpy()
        np.testing.assert_allclose(*(np.tanh(c / 2) / 2 for c in (confidence, expected)), atol=1e-2)
        np.testing.assert_allclose(np.maximum(distances, 0), wanted["distances"][0], atol=1.0)


def test_settings_may_be_changed(rounded, saved, photos, assert_same):
    changes = {"scales": (1.0,), "largest_object": None, "max_side": 48, "score_threshold": 0.3}
    changes |= {"nms_iou": 0.7, "max_detections": 20}
    decode = dataclasses.replace(CONFIG.decode, **changes)
    find = Detector.of(rounded, decode)
    exported = loading.load(saved, **changes)
    for photo in photos[6:16]:
        assert_same(exported(photo), find(photo), pixels=1.0, scores=1e-2)


def test_it_says_what_it_is(saved):
    with zipfile.ZipFile(saved) as content:
        assert json.loads(content.read(formats.CLASS_NAMES)) == list(NAMES)
        inside = json.loads(content.read(formats.DECODE_CONFIG))
        assert inside == json.loads(CONFIG.to_json())["decode"]
        assert content.read(formats.MODEL_CARD).decode() == CARD
        assert json.loads(content.read(litert.PREPROCESSING)) == PREPROCESSING
        assert json.loads(content.read(litert.HEATMAPS)) == {"stride": 1, "unit": 1.0}


def test_the_decoder_beside_it_needs_numpy_alone(saved):
    code = """
import sys
class Refuse:
    def find_spec(self, name, *_):
        if name.partition(".")[0] not in {*sys.stdlib_module_names, "numpy", "numpy_decoder"}:
            raise ImportError(name)
sys.meta_path.insert(0, Refuse())
import numpy_decoder
"""
    folder = saved.parent
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.slow
def test_int8_finds_nearly_the_same_and_is_smaller(model, saved, photos, tmp_path):
    path = tmp_path / "int8.tflite"
    photos = [photo for photo in photos if min(photo.shape[:2]) > 20]
    litert.save(model, path, precision="int8", calibration=photos[:20])
    assert path.stat().st_size < 0.6 * saved.stat().st_size
    maps = [litert.network(litert.interpreter(p)) for p in (saved, path)]
    image = numpy_decoder.preprocess(cv2.resize(photos[0], (64, 64)), PREPROCESSING)
    for a, b in zip(maps[0](image), maps[1](image), strict=True):
        assert a.shape == b.shape
        assert np.abs(a - b).mean() < 0.1 * (np.abs(a).mean() + np.abs(a).std())


def test_int8_needs_photos(model, tmp_path):
    with pytest.raises(ValueError, match="Expected images for calibration with int8"):
        litert.save(model, tmp_path / "a.tflite", precision="int8")
    assert not list(tmp_path.iterdir())


def test_the_papers_decoder_is_refused(model, tmp_path):
    decode = dataclasses.replace(CONFIG.decode, decoder="ellipse")
    with pytest.raises(
        ValueError, match=r"Expected a decoder that runs in litert, one of \['peaks'\]"
    ):
        litert.save(model, tmp_path / "a.tflite", decode=decode)


def test_opening_and_detecting_need_no_tensorflow(saved, assert_no_tensorflow):
    assert_no_tensorflow(saved)
