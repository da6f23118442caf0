import csv
import io
import json
import logging
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from unitbox_tf.datasets import csv_table
from unitbox_tf.problems import LOGGED_PER_KIND, Problems
from unitbox_tf.records import Annotation, Detections


def test_annotations_fill_in_classes_and_ignore():
    annotation = Annotation("a", b"", [[0, 0, 4, 5], [1, 1, 2, 2]])
    assert annotation.boxes.dtype == np.float64
    assert annotation.classes.tolist() == [0, 0]
    assert annotation.ignore.tolist() == [False, False]
    assert Annotation("b", b"", []).boxes.shape == (0, 4)


def test_annotations_refuse_counts_that_differ():
    with pytest.raises(ValueError, match="a: expected 1 ignore, one a box, received 2"):
        Annotation("a", b"", [[0, 0, 4, 5]], ignore=[True, False])


@pytest.mark.parametrize(
    "more", [{"ellipses": np.zeros((2, 5))}, {"attributes": {"blur": [1, 2]}}, {"classes": [0, 1]}]
)
def test_annotations_refuse_facts_of_another_number_of_objects(more):
    with pytest.raises(ValueError, match=r"a: expected 1 .*, one a box, received 2"):
        Annotation("a", b"", [[0, 0, 4, 5]], **more)


@pytest.mark.parametrize("size", [(0, 5), (5,), (-1, 2)])
def test_annotations_refuse_sizes_that_no_photo_has(size):
    with pytest.raises(ValueError, match="a: expected a height and width above 0"):
        Annotation("a", b"", [], size=size)


def test_selected_objects_keep_all_that_is_known_of_them():
    annotation = Annotation(
        "a",
        b"",
        np.arange(12),
        classes=[0, 1, 2],
        ignore=[0, 1, 0],
        size=(4, 5),
        ellipses=np.arange(15),
        attributes={"blur": [7, 8, 9]},
    )
    chosen = annotation.select(np.array([True, False, True]))
    assert chosen.boxes[:, 0].tolist() == [0, 8]
    assert chosen.classes.tolist() == [0, 2]
    assert chosen.ignore.tolist() == [False, False]
    assert chosen.ellipses[:, 0].tolist() == [0, 10]
    assert chosen.attributes["blur"].tolist() == [7, 9]
    assert chosen.size == (4, 5)
    assert Annotation("b", b"", [[0, 0, 1, 1]]).select([0]).attributes is None


def test_detections_above_a_threshold():
    found = Detections(np.eye(3, 4), np.array([0.9, 0.5, 0.1]), np.arange(3), (9, 9))
    assert found.above(0.5).scores.tolist() == [0.9, 0.5]
    assert len(found.above(0.95)) == 0


NAMES = ("cat", "dog, big")  # a comma, as names may have


@pytest.fixture
def found():
    boxes = np.array([[0.1, 2, 30.7, 40], [5, 6, 7.3, 9]], np.float32)
    return Detections(boxes, np.array([0.9, 0.3], np.float32), np.array([1, 0], np.int32), (50, 60))


def test_detections_become_rows_of_x_y_width_height_and_score():
    one = Detections(
        np.array([[1, 2, 4, 8]], np.float32), np.array([0.5], np.float32), np.zeros(1, int), (9, 9)
    )
    assert one.rectangles().tolist() == [[1, 2, 3, 6, 0.5]]
    assert one.above(0.6).rectangles().shape == (0, 5)


def test_pycocotools_reads_the_results_of_coco(found, tmp_path):
    coco = pytest.importorskip("pycocotools.coco", reason="needs pycocotools")
    truth, results = tmp_path / "truth.json", tmp_path / "results.json"
    images = [{"id": 7, "file_name": "a.jpg", "height": 50, "width": 60}]
    categories = [{"id": 3, "name": "cat"}, {"id": 18, "name": "dog"}]
    truth.write_text(json.dumps({"images": images, "categories": categories, "annotations": []}))
    rows = found.to_coco("a.jpg", image_id=7, category_ids={0: 3, 1: 18})
    results.write_text(json.dumps(rows))
    read = coco.COCO(str(truth)).loadRes(str(results)).loadAnns([1, 2])
    assert [row["category_id"] for row in read] == [18, 3]
    assert [row["image_id"] for row in read] == [7, 7]
    assert np.float32([row["score"] for row in read]).tolist() == found.scores.tolist()
    x, y, width, height = np.array([row["bbox"] for row in read]).T
    edges = np.stack([x, y, x + width, y + height], axis=1)
    assert edges.astype(np.float32).tolist() == found.boxes.tolist()


def test_rows_of_coco_name_the_image_that_they_are_of(found):
    assert found.to_coco("a.jpg")[0] == {
        "file_name": "a.jpg",
        "category_id": 2,
        "bbox": found.rectangles()[0, :4].tolist(),
        "score": float(found.scores[0]),
    }
    assert "file_name" not in found.to_coco(image_id=0)[0]
    with pytest.raises(ValueError, match="Expected file_name or image_id"):
        found.to_coco()


@given(arrays(np.float32, (3, 4), elements=st.floats(0, 1e5, width=32)), st.floats(0, 1, width=32))
def test_tables_hold_every_number_to_its_last_bit(boxes, score):
    whole = Detections(boxes, np.full(3, score, np.float32), np.arange(3, dtype=np.int32), (9, 9))
    rows = list(csv.DictReader(io.StringIO(whole.to_csv())))
    for dtype in (np.float32, np.float64):
        edges = [[row[name] for name in ("x0", "y0", "x1", "y1")] for row in rows]
        np.testing.assert_array_equal(np.array(edges, dtype), boxes)
        np.testing.assert_array_equal(np.array([row["score"] for row in rows], dtype), whole.scores)
    assert [row["class"] for row in rows] == ["0", "1", "2"]


def test_tables_of_several_images_can_be_joined(found):
    text = found.to_csv(NAMES, "a.jpg") + found.to_csv(NAMES, "b.jpg", header=False)
    rows = list(csv.reader(io.StringIO(text)))
    assert rows[0] == [*csv_table.COLUMNS, "score"]
    assert [row[0] for row in rows[1:]] == ["a.jpg", "a.jpg", "b.jpg", "b.jpg"]
    assert [row[5] for row in rows[1:3]] == ["dog, big", "cat"]
    assert found.above(1).to_csv(NAMES, header=False) == ""


def test_a_class_without_a_name_is_an_error(found):
    with pytest.raises(ValueError, match=r"a name for each class up to 1\. Received: \['cat'\]"):
        found.to_csv(["cat"])
    assert len(found.above(1).to_csv(["cat"]).splitlines()) == 1


def test_pandas_has_the_columns_of_the_table(found):
    pandas = pytest.importorskip("pandas", reason="needs pandas")
    frame = found.to_pandas(NAMES, "a.jpg")
    text = io.StringIO(found.to_csv(NAMES, "a.jpg"))
    read = pandas.read_csv(text).astype(frame.dtypes)
    pandas.testing.assert_frame_equal(frame, read, rtol=0, atol=0)
    assert frame.dtypes["x0"] == frame.dtypes["score"] == np.float32
    assert found.to_pandas()["class"].tolist() == [1, 0]
    assert found.above(1).to_pandas(NAMES).empty


def test_supervision_takes_detections_as_its_own(found, tmp_path):
    supervision = pytest.importorskip("supervision", reason="needs supervision")
    theirs = found.to_supervision(NAMES)
    np.testing.assert_array_equal(theirs.xyxy, found.boxes)
    np.testing.assert_array_equal(theirs.confidence, found.scores)
    assert theirs.class_id.tolist() == [1, 0]
    assert theirs[theirs["class_name"] == "cat"].xyxy.tolist() == found.boxes[1:].tolist()
    with supervision.CSVSink(str(tmp_path / "sink.csv")) as sink:
        sink.append(theirs, {})
    rows = list(csv.DictReader((tmp_path / "sink.csv").open()))
    assert [row["class_name"] for row in rows] == ["dog, big", "cat"]
    assert np.float32([row["x_max"] for row in rows]).tolist() == found.boxes[:, 2].tolist()
    merged = supervision.Detections.merge([theirs, found.above(1).to_supervision(NAMES)])
    assert len(merged) == 2
    assert "class_name" not in found.to_supervision().data


@pytest.mark.parametrize("package", ["pandas", "supervision"])
def test_a_package_that_is_not_there_is_named(found, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf"pip install 'unitbox_tf\[{package}\]'"):
        getattr(found, f"to_{package}")()


def test_problems_are_all_kept_but_not_all_logged(caplog, tmp_path):
    problems = Problems()
    with caplog.at_level(logging.WARNING):
        for line in range(10):
            problems.add("malformed line", f"list.txt:{line}", "expected 4 numbers")
        assert len(caplog.records) == LOGGED_PER_KIND
        problems.add("malformed line", "list.txt:3", "met by another part of the program")
        problems.log_counts()
    assert "10 x malformed line" in caplog.text
    problems.save(tmp_path / "problems.txt")
    problems.add("wrong encoding", "list.txt:9", "received '\udc80'")
    problems.save(tmp_path / "problems.txt")
    lines = (tmp_path / "problems.txt").read_text().splitlines()
    assert len(lines) == 11
    assert lines[7] == "malformed line\tlist.txt:7: expected 4 numbers"
