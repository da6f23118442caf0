import dataclasses
import gc
import json
import weakref

import numpy as np
import pytest

from tests.helpers.exports import CARD, CONFIG
from unitbox_tf import formats
from unitbox_tf.detect import padding
from unitbox_tf.detect.detector import Detector
from unitbox_tf.formats import onnx

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("tf2onnx")
NAMES = CONFIG.model.class_names


@pytest.fixture(scope="module")
def saved(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("exported") / "detector.onnx"
    onnx.save(model, path, CARD)
    return path


@pytest.fixture(scope="module")
def session(saved):
    return onnxruntime.InferenceSession(saved, providers=["CPUExecutionProvider"])


def run(session, images, **options):
    names = [output.name for output in session.get_outputs()]
    found = dict(zip(names, session.run(names, {"images": images, **options}), strict=True))
    return padding.unpad(found, [images.shape[1:3]] * len(images))


def test_it_finds_what_the_python_path_finds(session, photos, expected, assert_same):
    for photo, wanted in zip(photos, expected, strict=True):
        for found in run(session, np.stack([photo] * 3)) + run(session, photo[None]):
            assert_same(found, wanted, pixels=0.5, scores=1e-3)


def test_images_of_a_batch_do_not_mix(model, session, random, photos, assert_same):
    images = np.stack([photos[6], photos[6][::-1], photos[6][:, ::-1]])
    find = Detector.of(model, CONFIG.decode)
    for found, image in zip(run(session, images), images, strict=True):
        assert_same(found, find(image), pixels=0.5, scores=1e-3)


def test_options_may_be_given(model, session, photos, assert_same):
    for options in ({"score_threshold": 0.6}, {"nms_iou": 0.8, "max_detections": 5}):
        decode = dataclasses.replace(CONFIG.decode, **options)
        find = Detector.of(model, decode)
        given = {
            n: np.array(v, np.int32 if n == "max_detections" else np.float32)
            for n, v in options.items()
        }
        for photo in photos[6:12]:
            [found] = run(session, photo[None], **given)
            assert_same(found, find(photo), pixels=0.5, scores=1e-3)


def test_it_says_what_it_is(session):
    inside = session.get_modelmeta().custom_metadata_map
    assert json.loads(inside[formats.CLASS_NAMES]) == list(NAMES)
    assert json.loads(inside[formats.DECODE_CONFIG]) == json.loads(CONFIG.to_json())["decode"]
    assert inside[formats.MODEL_CARD] == CARD
    assert session.get_inputs()[0].type == "tensor(uint8)"


def test_the_papers_decoder_is_refused(model, tmp_path):
    decode = dataclasses.replace(CONFIG.decode, decoder="ellipse")
    with pytest.raises(ValueError, match=r"runs in onnx, one of \['peaks'\]\. Received: 'ellipse'"):
        onnx.save(model, tmp_path / "a.onnx", decode=decode)
    assert not list(tmp_path.iterdir())


def test_opening_and_detecting_need_no_tensorflow(saved, assert_no_tensorflow):
    assert_no_tensorflow(saved)


def test_the_garbage_collector_is_left_as_it_was():
    class Node:
        pass

    for frozen in (False, True):
        if frozen:
            gc.freeze()
        try:
            with onnx._garbage_collected():
                assert gc.get_freeze_count() > 0
                cycle = Node()
                cycle.itself = cycle
                seen = weakref.ref(cycle)
                del cycle
                assert seen() is not None
            assert seen() is None
            assert (gc.get_freeze_count() > 0) == frozen
        finally:
            gc.unfreeze()
