import contextlib
import io
import json
import sys

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from unitbox_tf.datasets import coco as reader
from unitbox_tf.evaluation import coco, matching
from unitbox_tf.evaluation.results import Results
from unitbox_tf.records import Annotation, Detections

from .test_matching import random_set


def dataset(annotations, fill=1.0):
    """A data set's json, by hand; objects have that share of their boxes' areas."""
    rows = []
    for number, annotation in enumerate(annotations):
        for box, label, ignore in zip(
            annotation.boxes, annotation.classes, annotation.ignore, strict=True
        ):
            x0, y0, x1, y1 = map(float, box)
            rows.append(
                {
                    "id": len(rows) + 1,
                    "image_id": 100 + number,
                    "category_id": 10 + int(label),
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "area": (x1 - x0) * (y1 - y0) * fill,
                    "iscrowd": int(ignore),
                }
            )
    images = [
        {"id": 100 + n, "file_name": f"{n}.jpg", "height": 1000, "width": 1000}
        for n in range(len(annotations))
    ]
    categories = [{"id": 10 + n, "name": f"class {n}"} for n in range(3)]
    return {"images": images, "annotations": rows, "categories": categories}


def official(path, detections):
    """The twelve figures as COCO's own program gives them for a json file and a list of results."""
    results = []
    for number, found in enumerate(detections):
        for box, score, label in zip(found.boxes, found.scores, found.classes, strict=True):
            x0, y0, x1, y1 = map(float, box)
            results.append(
                {
                    "image_id": 100 + number,
                    "category_id": 10 + int(label),
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "score": float(score),
                }
            )
    return official_figures(path, results)


def official_figures(path, results):
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(path))
        run = COCOeval(truth, truth.loadRes(results), "bbox")
        run.evaluate()
        run.accumulate()
        run.summarize()
    return np.where(run.stats < 0, np.nan, run.stats)


@pytest.mark.parametrize(("ignored", "fill"), [(0.0, 1.0), (0.3, 0.4)])
def test_figures_are_those_of_pycocotools_on_the_data_sets_file(random, tmp_path, ignored, fill):
    detections, annotations = random_set(random, num_classes=3, ignored=ignored)
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(dataset(annotations, fill)))
    read = list(reader.Coco(path, "").annotations(photos=False))
    figures = coco.evaluate(detections, read)
    assert list(figures) == list(coco.FIGURES)
    np.testing.assert_allclose(list(figures.values()), official(path, detections), rtol=1e-12)
    assert 0.02 < figures["ap50"] < 0.98


@pytest.mark.parametrize(
    ("truth", "found"),
    [
        # An area of 32^2 that is an ulp less would be a small object's.
        ([[10, 10, 40, 40]], [[10, 10, 40, 40, 0.5], [120.7, 120.7, 32, 32, 0.9]]),
        # IoU of .8, which is one of COCO's thresholds.
        ([[29.6, 22.1, 52.5, 40]], [[29.6, 22.1, 52.5, 32.0, 0.9]]),
        ([[0.1, 0.7, 10 / 3, 5 / 3]], [[0.3, 0.7, 10 / 3, 5 / 3, 0.9]]),
    ],
)
def test_sides_are_the_numbers_that_were_read(tmp_path, truth, found):
    objects = [
        {"id": n, "image_id": 100, "category_id": 10, "bbox": box, "iscrowd": 0}
        | {"area": box[2] * box[3]}
        for n, box in enumerate(truth, 1)
    ]
    images = [{"id": 100, "file_name": "0.jpg"}]
    content = {"images": images, "annotations": objects, "categories": [{"id": 10, "name": "a"}]}
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(content))
    rows = np.array(found)
    results = Results((rows,), (np.zeros(len(rows), int),))
    detections = results.detections([(999, 999)])
    read = list(reader.Coco(path, "").annotations(photos=False))
    official_rows = [
        {"image_id": 100, "category_id": 10, "bbox": row[:4], "score": row[4]} for row in found
    ]
    expected = official_figures(path, official_rows)
    np.testing.assert_array_equal(list(coco.evaluate(detections, read).values()), expected)


def test_average_precision_is_that_of_matching(random):
    detections, annotations = random_set(random, num_classes=2)
    figures = coco.evaluate(detections, annotations)
    for name, threshold in (("ap50", 0.5), ("ap75", 0.75)):
        matches = matching.match(detections, annotations, iou_threshold=threshold)
        assert figures[name] == pytest.approx(matches.average_precision(), abs=1e-9)


def test_sizes_of_objects_are_told_apart():
    boxes = [[0, 0, 20, 20], [100, 100, 150, 150], [300, 300, 500, 500]]
    annotation = Annotation("a", b"", boxes)
    found = Detections(np.float32(boxes[1:]), np.float32([0.9, 0.8]), np.int32([0, 0]), (600, 600))
    figures = coco.evaluate([found], [annotation])
    assert (figures["ap_small"], figures["ap_medium"], figures["ap_large"]) == pytest.approx(
        (0, 1, 1)
    )
    figures = coco.evaluate([found], [annotation.select([1])])
    assert np.isnan(figures["ap_small"])


def test_what_lies_in_an_ignored_object_counts_neither_way():
    annotation = Annotation("a", b"", [[0, 0, 10, 10], [50, 50, 90, 90]], ignore=[False, True])
    boxes = np.float32([[60, 60, 70, 70], [0, 0, 10, 10]])
    found = Detections(boxes, np.float32([0.9, 0.8]), np.int32([0, 0]), (100, 100))
    assert coco.evaluate([found], [annotation])["ap"] == pytest.approx(1)
    assert coco.evaluate([found], [annotation.select([0])])["ap50"] == pytest.approx(0.5, abs=0.01)


def test_the_figures_have_the_names_of_cocos_table():
    sizes = ("small", "medium", "large")
    assert coco.FIGURES == (
        *("ap", "ap50", "ap75"),
        *(f"ap_{size}" for size in sizes),
        *("ar1", "ar10", "ar100"),
        *(f"ar_{size}" for size in sizes),
    )


def test_nothing_found_is_zero_and_nothing_to_find_is_undefined():
    none = Detections(np.zeros((0, 4)), np.zeros(0), np.zeros(0, int), (50, 50))
    assert coco.evaluate([none], [Annotation("a", b"", [[0, 0, 10, 10]])])["ap"] == 0
    assert np.isnan(coco.evaluate([none], [Annotation("a", b"", np.zeros((0, 4)))])["ap"])


@pytest.mark.parametrize("module", ["coco", "cocoeval"])
def test_judging_says_what_it_needs(monkeypatch, module):
    monkeypatch.setitem(sys.modules, f"pycocotools.{module}", None)
    truth = [Annotation("a", b"", [[0, 0, 10, 10]])]
    none = Detections([], [], [], (50, 50))
    needs = r"^COCO's protocol needs pycocotools: pip install 'unitbox_tf\[coco\]'$"
    with pytest.raises(ImportError, match=needs):
        coco.evaluate([none], truth)
    if module == "cocoeval":
        with pytest.raises(ImportError, match=needs):
            coco.require()


def test_detections_of_other_images_are_refused():
    with pytest.raises(ValueError, match=r"detections of as many images.*1 annotations.*of 0"):
        coco.evaluate([], [Annotation("a", b"", [[0, 0, 10, 10]])])
    with pytest.raises(ValueError, match="Received: 0 annotations"):
        coco.evaluate([], [])


@pytest.mark.parametrize("min_size", [0, 25])
def test_by_the_rules_of_matching_the_figures_are_those_of_matching(random, min_size, capsys):
    found, truth = random_set(random, num_classes=3, ignored=0.3)
    rows = coco.judge_as_matching(found, truth, min_size).by_class()
    assert list(rows) == [0, 1, 2]
    for label, row in rows.items():
        loose, strict = (
            matching.match(found, truth, iou_threshold=iou, min_size=min_size).of_class(label)
            for iou in (0.5, 0.75)
        )
        assert row == {
            "ap50": pytest.approx(loose.average_precision(), abs=1e-9),
            "ap75": pytest.approx(strict.average_precision(), abs=1e-9),
            "recall": pytest.approx(loose.recall(), abs=1e-9),
        }
        assert 0 < row["ap75"] < row["ap50"] < 1
    assert capsys.readouterr().out == ""


def test_by_the_rules_of_matching_all_detections_of_an_image_count():
    truth = [Annotation("a", b"", [[0, 0, 10, 10]])]
    boxes = np.tile(np.float32([[50, 50, 60, 60]]), (150, 1))
    boxes[-1] = [0, 0, 10, 10]
    found = Detections(boxes, np.linspace(0.9, 0.1, 150), np.zeros(150, int), (100, 100))
    rows = coco.judge_as_matching([found], truth).by_class()
    assert rows[0]["recall"] == 1
    assert coco.judge([found], truth).by_class()[0]["recall"] == 0  # the 100 best count
    none = found.select(np.zeros(150, bool))
    assert coco.judge_as_matching([none], truth).by_class() == {
        0: {"ap50": 0, "ap75": 0, "recall": 0}
    }


def test_the_figures_of_a_class_are_those_of_its_boxes_alone(random):
    found, truth = random_set(random, num_classes=3)
    rows = coco.judge(found, truth).by_class()
    for label in range(3):
        alone = coco.evaluate(
            [each.select(each.classes == label) for each in found],
            [each.select(each.classes == label) for each in truth],
        )
        for name in ("ap", "ap50", "ap75", "ar100"):
            assert rows[label][name] == pytest.approx(alone[name], abs=1e-12)
        assert rows[label].keys() == {"ap", "ap50", "ap75", "ar100", "recall"}
        assert rows[label]["recall"] >= rows[label]["ar100"]
