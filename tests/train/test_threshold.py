import dataclasses
import json
import logging

import numpy as np
import pytest

import unitbox_tf
from unitbox_tf import runs
from unitbox_tf.config import Config
from unitbox_tf.detect import detector as detectors
from unitbox_tf.detect.model import UnitBox
from unitbox_tf.evaluation import matching
from unitbox_tf.records import Detections
from unitbox_tf.train import finish, fit, threshold

BEST = matching.Best(0.375, 0.5, 0.5, 0.5)


def changed(config, score_threshold=0.5, **train):
    return dataclasses.replace(
        config,
        train=dataclasses.replace(config.train, **train),
        decode=dataclasses.replace(config.decode, score_threshold=score_threshold),
    )


@pytest.mark.parametrize(
    ("choose", "given", "settled", "begin"),
    [
        ("auto", 0.5, "on", 0.5),
        ("auto", 0.8, "off", 0.8),
        ("on", 0.8, "on", 0.5),  # as where a run is resumed
        ("off", 0.5, "off", 0.5),
        ("off", 0.8, "off", 0.8),
    ],
)
def test_a_threshold_that_the_user_has_set_is_kept(choose, given, settled, begin):
    config = threshold.settled(changed(Config(), given, choose_threshold=choose))
    assert (config.train.choose_threshold, config.decode.score_threshold) == (settled, begin)
    assert threshold.settled(config) == config
    ended = threshold.chosen(config, BEST)
    assert ended.score_threshold == (0.375 if settled == "on" else begin)
    assert dataclasses.replace(ended, score_threshold=0.5) == Config().decode


def test_without_a_found_object_the_threshold_stays(caplog):
    caplog.set_level(logging.INFO)
    config = threshold.settled(Config())
    assert threshold.chosen(config, None) == config.decode
    assert "score_threshold stays 0.5: no object of the validation images is found" in caplog.text
    threshold.chosen(config, BEST)
    assert "score_threshold is now that of the best F1: 0.5000 at score 0.375" in caplog.text


def test_the_threshold_is_one_that_a_detector_can_reach():
    """In single precision, a threshold of 1 - 1e-9 would be 1, and nothing would be found."""
    config = threshold.settled(Config())
    best = dataclasses.replace(BEST, threshold=1 - 1e-9)
    ended = np.float32(threshold.chosen(config, best).score_threshold)
    assert ended < 1
    assert np.isfinite(-np.log1p(-ended))


@pytest.fixture
def perfect(monkeypatch):
    """Detectors find all objects with a score of 0.375, and another box in each image with a score of 0.125."""

    def detect(detector, annotations, *, problems):
        assert detector.decode.score_threshold == matching.EVALUATED_SCORE
        found = []
        for annotation in annotations:
            boxes = [*annotation.boxes.tolist(), [0, 0, 2, 2]]
            scores = [*[0.375] * len(annotation.boxes), 0.125]
            found.append(Detections(boxes, scores, np.zeros(len(boxes)), (96, 96)))
        return found, list(annotations)

    monkeypatch.setattr(detectors, "detect_annotated", detect)


@pytest.mark.slow
def test_a_run_is_stored_with_the_best_threshold_and_used_with_it(whole, perfect, monkeypatch):
    done = fit.fit(whole)
    run = runs.Run(done.folder)
    stored = json.loads(run.results.read_text())["peaks"]
    assert stored["best_f1"] == {"threshold": 0.2, "f1": 1, "precision": 1, "recall": 1}
    assert [row["name"] for row in stored["classes"]] == list(whole.model.class_names)
    assert stored["classes"][0]["ap50"] == 1
    assert stored["confusion_matrix"]["score_threshold"] == 0.2
    assert stored["ap50"] == done.results["peaks"]["ap50"] == 1
    assert run.confusion.is_file()
    assert run.config() == dataclasses.replace(
        threshold.settled(whole), decode=changed(whole, 0.2).decode, data=run.config().data
    )
    for model in (
        done.model,
        UnitBox.from_preset(done.folder),
        unitbox_tf.load(done.folder),
        unitbox_tf.load(run.saved_model),
    ):
        assert model.decode.score_threshold == 0.2
    assert "ap50 1.000" in run.card()
    assert "best_f1" not in run.card()
    tags = tensorboard_tags(run)
    names = {"class_ap50/object", "class_recall/object", "class_best_f1/object", "best_f1/f1"}
    assert {*names, "best_f1/threshold", "confusion_matrix"} <= tags
    assert "class_ap50/other" not in tags  # no object has this class
    # The next training begins with the default again, and so its logs can be compared.
    monkeypatch.setattr(finish, "_export", lambda *_: None)  # takes the longest
    again = fit.fit(changed(run.config(), 0.2, epochs=2), resume=done.folder)
    assert [row["val_recall"] for row in again.history] == [0, 0]
    assert run.config().decode.score_threshold == 0.2


def tensorboard_tags(run):
    loader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    tags = set()
    for path in (run.tensorboard / "pictures").glob("events.*"):
        events = loader.EventAccumulator(str(path), {"images": 0, "tensors": 0})
        events.Reload()
        tags.update(events.Tags()["tensors"])
    return tags
