import csv
import dataclasses
import io
import json
import logging
import sys
import timeit
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from unitbox_tf import images
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
    with pytest.raises(ValueError, match="a: expected 1 ignore, one for each box, received 2"):
        Annotation("a", b"", [[0, 0, 4, 5]], ignore=[True, False])


@pytest.mark.parametrize(
    "more", [{"ellipses": np.zeros((2, 5))}, {"attributes": {"blur": [1, 2]}}, {"classes": [0, 1]}]
)
def test_annotations_refuse_facts_of_another_number_of_objects(more):
    with pytest.raises(ValueError, match=r"a: expected 1 .*, one for each box, received 2"):
        Annotation("a", b"", [[0, 0, 4, 5]], **more)


@pytest.mark.parametrize("size", [(0, 5), (5,), (-1, 2)])
def test_annotations_refuse_sizes_that_no_photo_has(size):
    with pytest.raises(ValueError, match="a: expected a height and width above 0"):
        Annotation("a", b"", [], size=size)


@pytest.mark.parametrize("image", ["deep/a.png", PurePosixPath("deep/a.png")])
def test_a_text_is_the_path_of_an_image(image):
    assert Annotation("a", image, []).image == Path("deep/a.png")


@pytest.mark.parametrize("image", [None, 5, [[[0, 0, 0]]], io.BytesIO(b"")])
def test_what_is_no_image_is_refused_at_once(image):
    with pytest.raises(ValueError, match=rf"^a: expected an image.*: {type(image).__name__}$"):
        Annotation("a", image, [])


def test_an_array_is_kept_as_a_png_of_the_same_pixels(random):
    array = random.integers(0, 256, (7, 9, 3), np.uint8)
    one = Annotation("a", array, [])
    assert isinstance(one.image, bytes)
    np.testing.assert_array_equal(images.decode_with_pillow(one.encoded()), array)
    assert dataclasses.replace(one, boxes=[]) == one == Annotation("a", array[:], [])


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((4, 4, 3)), r"float64 \[4, 4, 3\]"),
        (np.zeros((4, 4), np.uint8), r"uint8 \[4, 4\]"),
        (np.zeros((4, 4, 4), np.uint8), r"uint8 \[4, 4, 4\]"),
        (np.zeros((0, 4, 3), np.uint8), r"uint8 \[0, 4, 3\]"),
    ],
)
def test_arrays_of_another_form_are_no_images(array, message):
    with pytest.raises(ValueError, match=rf"^a: Expected an RGB image uint8 .*: {message}"):
        Annotation("a", array, [])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": None}, "^Expected an image's name as a text. Received: None"),
        ({"boxes": [[0, 0, 4, np.nan]]}, r"^a: expected boxes of finite numbers.*4\.0, nan\]"),
        ({"boxes": [[0, 0, 4, np.inf]]}, "^a: expected boxes of finite numbers"),
        ({"boxes": [[0, 0, 4, 5], [1]]}, r"^a: expected boxes as numbers \[N, 4\]"),
        ({"boxes": [[0, 0, 4]] * 4}, r"^a: expected boxes \[N, 4\]. Received: shape \[4, 3\]"),
        ({"boxes": [0, 0, 4]}, r"^a: expected boxes \[N, 4\]. Received: shape \[3\]"),
        ({"boxes": "box"}, "^a: expected boxes as numbers"),
        ({"classes": [1.5]}, r"^a: Expected classes as whole numbers. Received: \[1.5\]"),
        ({"classes": [-1]}, "^a: expected classes from 0. Received: -1"),
        ({"classes": ["dog"]}, "^a: Expected classes as whole numbers"),
        ({"classes": [[0]]}, r"^a: expected classes \[1\]. Received: shape \[1, 1\]"),
        ({"ignore": [3]}, r"^a: Expected ignore as True or False. Received: \[3\]"),
        ({"ignore": ["False"]}, "^a: Expected ignore as True or False"),
        ({"attributes": {"blur": [0.5]}}, "^a: Expected blur as whole numbers"),
        ({"ellipses": [[1, 2, 3, 4]]}, r"^a: expected ellipses \[N, 5\]"),
        ({"areas": ["big"]}, "^a: Expected numbers"),
    ],
)
def test_objects_that_are_none_are_refused_with_the_name_of_the_image(change, message):
    with pytest.raises(ValueError, match=message):
        Annotation(**{"name": "a", "image": b"", "boxes": [[0, 0, 4, 5]], **change})


def test_one_number_is_no_number_a_box():
    with pytest.raises(
        ValueError, match="a: expected 1 classes, one for each box, received one number"
    ):
        Annotation("a", b"", [[0, 0, 4, 5]], classes=3)


def test_sizes_become_whole_numbers_of_python():
    size = Annotation("a", b"", [], size=np.array([4, 5])).size
    assert size == (4, 5)
    assert [type(side) for side in size] == [int, int]


FULL = dict(
    name="a",
    image=b"png",
    boxes=[[0, 0, 4, 5], [1, 1, 2, 2]],
    classes=[0, 1],
    ignore=[False, True],
    size=(8, 9),
    ellipses=np.ones((2, 5)),
    attributes={"blur": [1, 2]},
    areas=[3.5, np.nan],
)


@pytest.mark.parametrize(
    "change",
    [
        {"name": "b"},
        {"image": "b.png"},
        {"boxes": [[0, 0, 4, 5], [1, 1, 2, 3]]},
        {"classes": [0, 0]},
        {"ignore": [False, False]},
        {"size": None},
        {"ellipses": None},
        {"attributes": {"blur": [1, 1]}},
        {"attributes": {"pose": [1, 2]}},
        {"attributes": None},
        {"areas": [3.5, 4]},
    ],
)
def test_annotations_are_equal_if_all_their_values_are(change):
    one = Annotation(**FULL)
    assert (one == Annotation(**FULL)) is True
    assert (one == Annotation(**{**FULL, **change})) is False
    assert one != "a"
    with pytest.raises(TypeError, match="unhashable"):
        hash(one)


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


def test_lists_of_detections_become_arrays():
    found = Detections([[0, 0, 4, 5]], [0.5], [1], [9, 8])
    assert [x.dtype for x in (found.boxes, found.scores, found.classes)] == ["f4", "f4", "i4"]
    assert found.image_size == (9, 8)
    none = Detections([], [], [], (9, 8))
    assert (none.boxes.shape, none.scores.shape, none.classes.shape) == ((0, 4), (0,), (0,))
    double = np.float64([[0.1, 0, 4, 5]])
    kept = Detections(double, np.float64([0.1]), np.array([3]), (9, 8))
    assert kept.boxes is double
    assert kept.scores.tolist() == [0.1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"boxes": [[0, 0, 4, 5]] * 2}, r"shapes: \[2, 4\], \[1\] and \[1\]"),
        ({"boxes": [[0, 0, 4]]}, r"shapes: \[1, 3\]"),
        ({"boxes": [0, 0, 4, 5]}, r"shapes: \[4\]"),
        ({"boxes": [[0, 0, 4, 5], [1]]}, "Expected boxes as an array of numbers"),
        ({"scores": [0.5, 0.25]}, r"shapes: \[1, 4\], \[2\] and \[1\]"),
        ({"scores": 0.5}, r"shapes: \[1, 4\], \[\]"),
        ({"scores": ["good"]}, "Expected scores as an array of numbers"),
        ({"scores": [np.nan]}, "of finite numbers. Received NaN or infinity"),
        ({"boxes": [[0, 0, np.inf, 5]]}, "of finite numbers. Received NaN or infinity"),
        ({"classes": [1, 2]}, r"shapes: \[1, 4\], \[1\] and \[2\]"),
        ({"classes": [0.5]}, r"whole numbers\. Received: \[0\.5\]"),
        ({"classes": [np.nan]}, "whole numbers"),
        ({"classes": ["dog"]}, "whole numbers"),
        ({"image_size": (0, 5)}, "a height and width above 0, in whole pixels, received"),
        ({"image_size": (4, 5, 3)}, "a height and width above 0, in whole pixels, received"),
        ({"image_size": 5}, "a height and width above 0, in whole pixels, received 5"),
    ],
)
def test_what_are_no_detections_is_refused(change, message):
    whole = {"boxes": [[0, 0, 4, 5]], "scores": [0.5], "classes": [0], "image_size": (9, 8)}
    with pytest.raises(ValueError, match=message):
        Detections(**{**whole, **change})


def test_detections_are_equal_if_all_their_values_are(found):
    assert (found == found.above(0)) is True
    assert found != found.above(0.5)
    for name, value in (("boxes", found.boxes + 1), ("image_size", (50, 61)), ("classes", [1, 1])):
        assert found != dataclasses.replace(found, **{name: value})
    assert found != [found]
    with pytest.raises(TypeError, match="unhashable"):
        hash(found)


def test_to_check_detections_takes_no_time(found):
    def seconds(make):
        return min(timeit.repeat(make, number=2000, repeat=5)) / 2000

    fields = (found.boxes, found.scores, found.classes, found.image_size)
    assert seconds(lambda: Detections(*fields)) < 100e-6  # 5 here


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


def test_rows_of_coco_name_the_class(found):
    rows = found.to_coco("a.jpg", class_names=("cat", "dog"))
    assert [row["category_name"] for row in rows] == [("cat", "dog")[i] for i in found.classes]
    assert [row["category_id"] for row in rows] == (found.classes + 1).tolist()
    with pytest.raises(ValueError, match="Expected a name for each class up to 1"):
        found.to_coco("a.jpg", class_names=("cat",))
    with pytest.raises(ValueError, match="Expected category_ids with a number for the class"):
        found.to_coco("a.jpg", category_ids={5: 1})


def test_numpy_numbers_and_paths_are_ready_for_json(found):
    rows = found.to_coco(
        Path("folder") / "a.jpg",
        image_id=np.int64(7),
        category_ids={np.int64(0): np.int32(3), np.int64(1): np.uint8(18)},
        class_names=np.array(["cat", "dog"]),
    )
    written = json.loads(json.dumps(rows))
    assert written == rows
    assert rows[0]["file_name"] == "folder/a.jpg"
    assert rows[0]["image_id"] == 7
    assert {row["category_id"] for row in rows} <= {3, 18}
    text = found.to_coco(np.str_("a.jpg"), image_id=np.str_("x7"))
    assert json.loads(json.dumps(text))[0]["image_id"] == "x7"
    with pytest.raises(ValueError, match="Expected image_id as whole numbers or texts"):
        found.to_coco("a.jpg", image_id=1.5)


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


def test_problems_of_one_place_can_be_told_to_another(caplog):
    before, after = Problems(logged=False), Problems()
    with caplog.at_level(logging.WARNING):
        before.add("malformed line", "list.txt:3", "expected 4 numbers")
        assert not caplog.records
        for _ in range(2):
            after.add_all(before.found)
    assert after.found == before.found
    assert len(caplog.records) == 1
    assert Problems.of(after) is after
    assert Problems.of(None).found == []
