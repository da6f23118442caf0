"""The facts of an evaluation. `test_evaluate.py` tests the files and the output of whole evaluations."""

import types

import pytest

from unitbox_tf.evaluation import outcome


def facts(**changes):
    plain = {
        "detector": "run",
        "protocol": "summary",
        "options": {"min_size": 9},
        "annotations": {
            "sources": ["a", "b"],
            "images": 3,
            "objects": 1,
            "ignored": 2,
            "digest": "f00",
        },
        "images": {"present": 3, "absent": 0, "widths": [90, 64, 90], "heights": [32, 32, 32]},
    }
    return plain | changes


def test_the_facts_are_told_in_lines():
    lines = list(outcome.described(facts()))
    assert lines == [
        "       detector  run",
        "       protocol  summary: recall and box quality at 0.1 false positives an image; average precision, "
        "min_size 9",
        "    annotations  a b: 3 images, 1 object and 2 ignored, version f00",
        "         images  3 present, 0 absent; 64-90 x 32 px",
    ]


@pytest.mark.parametrize(
    ("present", "absent", "unreadable", "told"),
    [(3, 0, 0, False), (3, 1, 0, True), (2, 1, 0, False), (3, 0, 1, True)],
)
def test_a_part_of_the_images_is_not_to_be_compared(present, absent, unreadable, told):
    images = {"present": present, "absent": absent, "unreadable": unreadable}
    lines = list(outcome.described(facts(images=images | {"widths": [], "heights": []})))
    assert lines[3].endswith(
        f"{present} present{', 1 of them cannot be read' * unreadable}, {absent} absent; of unknown size"
    )
    assert ("judged on a part of the images" in lines[-1]) == told


@pytest.mark.parametrize(
    ("scales", "largest", "text"),
    [
        ([1.0], 40.0, ", shown shrunk to fit 96 px"),
        ([1.0, 0.5], None, ", shown shrunk to fit 96 px, at scales 1 0.5 of that"),
        (
            [1.0, 0.25],
            40.0,
            ", shown shrunk to fit 96 px, at scales 1 0.25 of that, objects up to 40 px but at the smallest",
        ),
    ],
)
def test_the_size_at_which_a_model_is_shown_images_is_told(scales, largest, text):
    model = {"max_side": 96, "scales": scales, "largest_object": largest}
    lines = list(outcome.described(facts(model=model)))
    assert lines[3] == f"         images  3 present, 0 absent; 64-90 x 32 px{text}"


def test_images_without_result_are_counted():
    found = {"detections": 7, "images_with": 1, "images_without_result": 2}
    lines = list(outcome.described(facts(detections=found)))
    assert lines[4] == "     detections  7 in 1 image; of 2 images there is no result"
    found["images_without_result"] = 0
    assert list(outcome.described(facts(detections=found)))[4] == "     detections  7 in 1 image"


def test_a_confusion_matrix_is_drawn_if_there_is_one(tmp_path):
    paths = []
    matrix = types.SimpleNamespace(plot=paths.append)
    for found in (matrix, None):
        outcome.draw_confusion(types.SimpleNamespace(confusion=found), tmp_path / "a.png")
    assert paths == [tmp_path / "a.png"]


def test_only_a_new_or_empty_folder_is_written_to(tmp_path):
    assert outcome.check_output(str(tmp_path / "new")) == tmp_path / "new"
    assert outcome.check_output(tmp_path) == tmp_path
    (tmp_path / "file").write_text("")
    for path in (tmp_path, tmp_path / "file"):
        with pytest.raises(ValueError, match="expected a new or empty folder, as nothing is"):
            outcome.check_output(path)
