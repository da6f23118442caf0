"""Measurements: each runs at a tiny size, and its numbers are what they say."""

import json

import numpy as np
import pytest

from training.benchmarks import (
    compare,
    detection,
    environment,
    memory,
    postprocess,
    precision,
    resident,
    startup,
    stream,
    train,
)
from unitbox_tf import boxes as box_ops
from unitbox_tf.records import Detections

SETTINGS = {"what": "train", "rounds": "3", "side": "96"}


def stored(path, ratios, **changes):
    """A file as a measurement writes it."""
    rows = [{"name": name, "ratio": ratio, "ms": 1.0} for name, ratio in ratios.items()]
    content = {"settings": SETTINGS, "environment": {"processor": "x"}, "rows": rows, **changes}
    path.write_text(json.dumps(content))
    return path


@pytest.fixture
def before(tmp_path):
    return stored(tmp_path / "before.json", {"a": [1.0, 1.1, 1.2], "b": [2.0, 2.0, 2.0]})


def test_a_ratio_within_the_spread_is_not_slower(before, tmp_path, capsys):
    now = stored(tmp_path / "now.json", {"b": [1.9, 2.0, 2.5], "a": [1.2, 1.3, 1.4]})
    found = compare.compare(before, now)
    assert not found["slower"]
    assert [*found["same"]] == ["rows / a / ratio", "rows / b / ratio"]
    assert "Within the spread: 2." in capsys.readouterr().out


def test_a_ratio_beyond_the_spread_is_slower_and_is_named(before, tmp_path, capsys):
    now = stored(tmp_path / "now.json", {"a": [1.21, 1.3, 1.4], "b": [1.0, 1.0, 1.9]})
    with pytest.raises(ValueError, match=r"slower by more than the spread: rows / a / ratio$"):
        compare.compare(before, now)
    shown = capsys.readouterr().out
    assert (
        "| rows / a / ratio | slower | 1.100 (1.000 to 1.200) | 1.300 (1.210 to 1.400) |" in shown
    )
    assert "| rows / b / ratio | faster | 2.000" in shown


def test_ratios_that_one_file_lacks_are_named(before, tmp_path):
    now = stored(tmp_path / "now.json", {"a": [1.0, 1.1, 1.2], "c": [1.0, 1.0, 1.0]})
    found = compare.compare(before, now)
    assert (found["missing"], found["added"]) == (["rows / b / ratio"], ["rows / c / ratio"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"settings": {**SETTINGS, "side": "192"}}, "settings.*side: 96 and 192"),
        ({"environment": {"processor": "y"}}, "environment.*processor: x and y"),
        ({"rows": []}, "expected ratios with quartiles"),
    ],
)
def test_only_files_of_the_same_measurement_are_compared(before, tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        compare.compare(before, stored(tmp_path / "now.json", {"a": [1, 1, 1]}, **changes))


def test_rounds_may_differ(before, tmp_path):
    now = stored(tmp_path / "now.json", {"a": [1, 1, 1]}, settings={**SETTINGS, "rounds": "9"})
    assert [*compare.compare(before, now)["faster"]] == []


def test_other_files_are_refused(before, tmp_path):
    other = tmp_path / "other.json"
    for text in ("[1]", "{}", "no json"):
        other.write_text(text)
        with pytest.raises(ValueError, match=r"other\.json: expected"):
            compare.compare(before, other)


def test_the_environment_names_the_machine_and_the_libraries():
    found = environment.environment()
    assert found["processors"] >= 1
    assert found["processor"]
    assert found["tensorflow"].startswith("2.")


@pytest.mark.parametrize("count", [1, 7, 500])
def test_objects_of_the_maps_do_not_touch_and_lie_in_the_image(count):
    boxes = postprocess.grid(count)
    overlaps = box_ops.pairwise_iou(boxes, boxes)
    assert (overlaps > 0).sum() == count == len(boxes)
    assert boxes.min() >= 0
    assert (boxes <= [640, 480, 640, 480]).all()


@pytest.mark.slow
def test_decoders_find_the_objects_that_the_maps_show(capsys):
    rows = postprocess.benchmark(rounds=1, counts=(1, 6))["rows"]
    assert rows["ellipse, stride 4, 1 objects"]["ratio"] == [1, 1, 1]
    assert len(rows) == 8
    assert capsys.readouterr().out.count("\n") == 10


def test_maps_without_their_objects_are_an_error(monkeypatch):
    empty = postprocess.heatmaps(np.zeros((0, 4), np.float32), 4)
    monkeypatch.setattr(postprocess, "heatmaps", lambda truth, stride: empty)
    with pytest.raises(ValueError, match=r"expected the 3 objects of the maps\. Received: 0"):
        postprocess.decoding("peaks", 4, 3)


@pytest.mark.slow
def test_starting_is_measured_in_processes_of_their_own(capsys):
    rows = startup.benchmark([], rounds=1)["rows"]
    assert rows["Python alone"]["ratio"][1] < rows["import unitbox_tf"]["ratio"][1] < 0.5
    assert "| unitbox --help |" in capsys.readouterr().out


@pytest.mark.slow
def test_a_step_of_training_takes_longer_than_the_bare_backbone(capsys):
    found = train.benchmark(
        networks=["light"],
        precisions=["float32"],
        side=64,
        batch=2,
        steps=1,
        xla=False,
        stages=False,
        rounds=2,
    )
    row = found["rows"]["light, float32"]
    assert row["ratio"]["step"][0] > 1
    assert row["bytes"]["backbone"] > 0
    assert 0 < row["share_of_peak"] < 1
    assert "| light, float32 |" in capsys.readouterr().out


@pytest.mark.slow
def test_the_parts_of_a_step_are_measured(capsys):
    options = {"side": 64, "batch": 2, "steps": 1, "xla": False, "rounds": 2}
    found = train.benchmark(networks=["light"], precisions=["float32"], stages=True, **options)
    ratios = found["rows"]["light, float32"]["ratio"]
    assert list(ratios) == list(train.STAGES)
    assert all(low > 1 for low, *_ in ratios.values())
    assert "| light, float32 |" in capsys.readouterr().out


@pytest.mark.slow
def test_detecting_takes_longer_than_the_bare_backbone(capsys):
    runtimes = ["TensorFlow, float32", "ONNX Runtime, float32"]
    found = detection.benchmark("faces_light", runtimes=runtimes, batches=[1], photos=[], rounds=2)
    assert all(row["ratio"][0] > 1 for row in found["rows"].values())
    assert len(found["rows"]) == 2
    assert "| ONNX Runtime, float32 | 1 |" in capsys.readouterr().out


@pytest.mark.slow
def test_the_annotations_that_are_written_stream_back(tmp_path):
    written = stream.write(tmp_path / "shards", 320)
    assert len(list((tmp_path / "shards").glob("*.tfrecord"))) == stream.SHARDS
    found = stream.read_all(tmp_path / "shards", 320, 8)
    for each in (written, found):
        assert len(each["megabytes_at_tenths"]) == stream.TENTHS
        assert each["microseconds"] > 0
    assert found["ratios"][stream.PIPELINE][1] > 0


def test_too_few_annotations_to_take_tenths_of_are_refused():
    with pytest.raises(ValueError, match=r"Expected --count from 320\. Received: 319"):
        stream.benchmark(319, 8, None)


def test_the_peak_of_memory_is_above_what_is_held_before():
    def take():
        return np.ones(40_000_000, np.uint8).sum()

    before, peak = resident.peak_above(take)
    assert 35e6 < peak < 80e6
    assert before > 20e6


@pytest.mark.slow
def test_memory_of_a_large_photo_is_measured(capsys):
    rows = memory.benchmark(["faces_light"], megapixels=[3])["rows"]
    assert [*rows] == [f"faces_light, 3 megapixels, {way}" for way in memory.WAYS]
    assert all(row["peak"] > 3 * 3e6 for row in rows.values())  # the decoded image
    assert "| faces_light | 3 | tiles |" in capsys.readouterr().out


def test_boxes_in_an_enlarged_image_are_returned_in_pixels_of_the_image():
    image = np.zeros((40, 30, 3), np.uint8)
    large = precision.enlarged(image, 80)
    assert large.shape == (80, 60, 3)
    assert precision.enlarged(image, 0) is image
    found = Detections(
        np.array([[10, 20, 30, 60]], np.float32), np.ones(1), np.zeros(1, int), (80, 60)
    )
    small = precision.in_pixels_of(found, image)
    np.testing.assert_allclose(small.boxes, [[5, 10, 15, 30]])
    assert small.image_size == (40, 30)
