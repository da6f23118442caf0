import dataclasses
import shutil

import cv2
import numpy as np
import pytest
import tensorflow as tf

import unitbox_tf
from unitbox_tf import detector
from unitbox_tf.datasets import synthetic
from unitbox_tf.records import Annotation, Problems


@pytest.fixture(scope="module")
def found(untrained_run):
    return unitbox_tf.load(untrained_run)


def test_a_photo_may_be_an_array_bytes_or_a_path(found, tmp_path):
    encoded = synthetic.draw(0).image
    path = tmp_path / "photo.png"
    path.write_bytes(encoded)
    rgb = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    results = [found(encoded), found(path), found(str(path)), found(rgb)]
    results.extend(found.many([path, rgb]))
    for result in results:
        np.testing.assert_array_equal(result.boxes, results[0].boxes)
        assert result.image_size == (96, 96)


@pytest.mark.parametrize(
    "image",
    [np.zeros((4, 4, 3), np.float32), np.zeros((4, 4), np.uint8), np.zeros((0, 4, 3), np.uint8)],
)
def test_other_arrays_are_refused(found, image):
    with pytest.raises(ValueError, match=r"Expected an RGB image uint8 \[H, W, 3\]. Received:"):
        found(image)


def test_what_is_no_photo_is_named(found, tmp_path):
    path = tmp_path / "notes.jpg"
    path.write_text("not a photo")
    with pytest.raises(
        ValueError, match=r"notes\.jpg: expected a JPEG or PNG photo, which these 11"
    ):
        found(path)
    with pytest.raises(ValueError, match=r"notes\.jpg.*: Unknown image file format"):
        found(path)
    with pytest.raises(ValueError, match="encoded photo: expected"):
        found(b"")
    with pytest.raises(FileNotFoundError):
        found(tmp_path / "gone.jpg")


def test_each_decoder_can_be_chosen(untrained_run):
    image = np.full((30, 50, 3), 200, np.uint8)
    for decoder in ("peaks", "ellipse"):
        find = unitbox_tf.load(untrained_run, decoder=decoder, score_threshold=0.0)
        assert find.decode.decoder == decoder
        result = find(image)
        assert result.image_size == (30, 50)
        assert (result.boxes <= [50, 30, 50, 30]).all()


def test_an_exported_model_is_opened_alike(untrained_run):
    exported = unitbox_tf.load(untrained_run / "saved_model")
    run = unitbox_tf.load(untrained_run)
    assert exported.class_names == run.class_names == ("object", "other")
    for number in range(5):
        image = synthetic.draw(number).image
        a, b = exported(image), run(image)
        np.testing.assert_allclose(a.boxes, b.boxes, atol=0.5)
        np.testing.assert_allclose(a.scores, b.scores, atol=1e-3)


def test_what_an_exported_model_cannot_change_is_refused(untrained_run):
    folder = untrained_run / "saved_model"
    image = synthetic.draw(0).image
    everything, few = (unitbox_tf.load(folder, **c)(image) for c in ({}, {"score_threshold": 0.9}))
    assert 0 < len(few) < len(everything)
    assert few.scores.min() >= 0.9
    for change in ({"decoder": "ellipse"}, {"score_threshold": 0.005}):
        with pytest.raises(
            ValueError, match=r"only score_threshold can be changed, from 0\.01 upw"
        ):
            unitbox_tf.load(folder, **change)


def test_a_saved_model_of_others_is_named(tmp_path):
    tf.saved_model.save(tf.Module(), str(tmp_path / "other"))
    with pytest.raises(ValueError, match="other: a SavedModel, but none that unitbox_tf exported"):
        unitbox_tf.load(tmp_path / "other")


def test_folders_that_hold_no_detector_are_named(untrained_run, tmp_path):
    with pytest.raises(ValueError, match=r"gone: expected the folder of a run .* does not exist"):
        unitbox_tf.load(tmp_path / "gone")
    with pytest.raises(ValueError, match="Unknown field of DecodeConfig: 'threshold'"):
        unitbox_tf.load(untrained_run, threshold=0.5)
    shutil.copy(untrained_run / "config.json", tmp_path)
    with pytest.raises(ValueError, match="the run has stored no weights yet"):
        unitbox_tf.load(tmp_path)
    (tmp_path / detector.BEST_FILE).write_bytes(b"nonsense")
    with pytest.raises(ValueError, match=r"best\.weights\.h5: expected the weights of the model"):
        unitbox_tf.load(tmp_path)


def test_photos_that_cannot_be_read_are_left_out_and_reported(found):
    good = synthetic.draw(0)
    broken = dataclasses.replace(good, name="broken", image=b"nonsense")
    problems = Problems()
    detections, annotations = detector.detect_annotated(found, [good, broken, good], problems)
    assert len(detections) == 2
    assert [a.name for a in annotations] == [good.name] * 2
    assert [p.where for p in problems.found] == ["broken"]
    assert isinstance(annotations[0], Annotation)
