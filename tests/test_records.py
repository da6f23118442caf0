import logging

import numpy as np
import pytest

from unitbox_tf.records import LOGGED_PER_KIND, Annotation, Detections, Problems


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
