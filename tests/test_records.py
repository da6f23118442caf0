import logging

import numpy as np
import pytest

from unitbox_tf.records import LOGGED_PER_KIND, Annotation, Detections, Problems


def test_annotations_fill_in_classes_and_ignore():
    annotation = Annotation("a", b"", [[0, 0, 4, 5], [1, 1, 2, 2]])
    assert annotation.boxes.dtype == np.float32
    assert annotation.classes.tolist() == [0, 0]
    assert annotation.ignore.tolist() == [False, False]
    assert Annotation("b", b"", []).boxes.shape == (0, 4)


def test_annotations_refuse_counts_that_differ():
    with pytest.raises(ValueError, match="a: expected 1 ignore, one a box, received 2"):
        Annotation("a", b"", [[0, 0, 4, 5]], ignore=[True, False])


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
    lines = (tmp_path / "problems.txt").read_text().splitlines()
    assert len(lines) == 10
    assert lines[7] == "malformed line\tlist.txt:7: expected 4 numbers"
