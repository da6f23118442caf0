import dataclasses
import json
import math
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers import figures
from tests.helpers.matching import SIZE, detections, random_set
from unitbox_tf import boxes as box_ops
from unitbox_tf.evaluation import by_class, coco, matching, protocols
from unitbox_tf.evaluation.results import Results
from unitbox_tf.records import Annotation

CLASSES = ("cat", "dog", "fox")
BOX, NEAR, FAR = [10, 10, 50, 50], [12, 10, 50, 50], [100, 100, 140, 140]


def judged(found, truth, names=CLASSES, min_size=0.0):
    matches = matching.match(found, truth, min_size=min_size)
    return by_class.judge(
        found,
        truth,
        matches,
        names,
        lambda: coco.judge_as_matching(found, truth, min_size),
        min_size,
    )


def confusion(found, truth, threshold=0.0, **options):
    return by_class.confuse(found, truth, CLASSES, threshold, **options).matrix.tolist()


def one(boxes, classes, scores=None):
    return [detections(boxes, scores or np.linspace(0.9, 0.5, len(classes)), classes)]


def truth_of(boxes, classes, ignore=None):
    return [Annotation("a", b"", boxes, classes, ignore)]


def by_hand(found, truth, threshold):
    """The confusion matrix by its definition, in plain steps; ignored objects are those of `random_set`."""
    count = len(CLASSES)
    matrix = np.zeros((count + 1, count + 1), int)
    for image, annotation in zip(found, truth, strict=True):
        objects = [i for i in range(len(annotation.boxes)) if not annotation.ignore[i]]
        sides = (image.boxes[:, 2:] - image.boxes[:, :2]).min(axis=1)  # noise may swap corners
        kept = [k for k in range(len(image)) if image.scores[k] >= threshold and sides[k] >= 0]
        iou = box_ops.pairwise_iou(image.boxes, annotation.boxes)
        free = list(range(len(annotation.boxes)))
        on_ignored = set()
        for k in sorted(kept, key=lambda k: -image.scores[k]):
            same = [i for i in free if annotation.classes[i] == image.classes[k]]
            fitting = [i for i in same if iou[k, i] >= 0.5]
            real = [i for i in fitting if i in objects]
            if fitting:
                taken = max(real or fitting, key=lambda i: iou[k, i])
                free.remove(taken)
                if not real:
                    on_ignored.add(k)
        left = [k for k in kept if k not in on_ignored]
        pairs = [(k, i) for k in left for i in objects if iou[k, i] >= 0.5]
        while pairs:
            k, i = min(
                pairs,
                key=lambda p: (image.classes[p[0]] != annotation.classes[p[1]], -iou[p]),
            )
            matrix[annotation.classes[i], image.classes[k]] += 1
            left.remove(k)
            objects.remove(i)
            pairs = [(a, b) for a, b in pairs if a != k and b != i]
        for i in objects:
            matrix[annotation.classes[i], count] += 1
        for k in left:
            matrix[count, image.classes[k]] += 1
    return matrix


@given(
    seed=st.integers(0, 2**32 - 1),
    ignored=st.sampled_from([0, 0.4]),
    cut=st.sampled_from([0.0, 0.3, 0.8]),
)
def test_the_confusion_matrix_is_that_of_its_definition(seed, ignored, cut):
    found, truth = random_set(np.random.default_rng(seed), 4, num_classes=3, ignored=ignored)
    matrix = by_class.confuse(found, truth, CLASSES, cut).matrix
    np.testing.assert_array_equal(matrix, by_hand(found, truth, cut))
    objects = matching.match(found, truth).objects
    assert matrix[:3].sum(axis=1).tolist() == [objects.get(label, 0) for label in range(3)]
    counted = matching.match([each.above(cut) for each in found], truth).classes
    assert matrix[:, :3].sum(axis=0).tolist() == np.bincount(counted, minlength=3).tolist()
    assert matrix[3, 3] == 0


def test_a_second_detection_of_an_object_is_taken_for_background():
    found = one([BOX, NEAR, NEAR], [0, 0, 0])
    assert confusion(found, truth_of([BOX], [0])) == [
        [1, 0, 0, 0],
        [0, 0, 0, 0],
        [0, 0, 0, 0],
        [2, 0, 0, 0],
    ]


def test_the_right_class_comes_before_the_nearer_box():
    found = one([BOX, NEAR], [1, 0])
    matrix = confusion(found, truth_of([BOX], [0]))
    assert matrix[0] == [1, 0, 0, 0]
    assert matrix[3] == [0, 1, 0, 0]
    # Without it, the object is found as another class, and is no background.
    assert confusion(one([BOX], [1]), truth_of([BOX], [0]))[0] == [0, 1, 0, 0]


def test_images_without_objects_or_detections_count_in_their_classes():
    empty = truth_of([], [])
    assert confusion(one([BOX, FAR], [1, 2]), empty)[3] == [0, 1, 1, 0]
    nothing = [detections([], [])]
    missed = np.array(confusion(nothing, truth_of([BOX, FAR], [2, 0])))
    assert missed[:, 3].tolist() == [1, 0, 1, 0]
    assert missed.sum() == 2
    assert np.array(confusion(nothing * 2, empty * 2)).sum() == 0


def test_detections_of_ignored_objects_are_no_false_positives():
    truth = truth_of([BOX, FAR], [0, 1], [False, True])
    assert np.array(confusion(one([BOX, FAR], [0, 1]), truth)).tolist()[3] == [0, 0, 0, 0]
    # An ignored object takes one detection of its class.
    assert confusion(one([BOX, FAR, FAR], [0, 1, 1]), truth)[3] == [0, 1, 0, 0]
    assert confusion(one([BOX, FAR], [0, 2]), truth)[3] == [0, 0, 1, 0]
    # Small objects are ignored, and small detections that find nothing.
    small = truth_of([[0, 0, 9, 9], BOX], [0, 0])
    found = one([[0, 0, 9, 9], [150, 150, 155, 155], BOX], [0, 0, 0])
    assert np.array(confusion(found, small, min_size=10)).tolist() == [[1, 0, 0, 0]] + [[0] * 4] * 3


def test_objects_are_cut_to_the_image():
    found = one([[0, 0, 20, 200]], [0])
    assert confusion(found, truth_of([[-100, 0, 20, 300], [-50, 0, -10, 20]], [0, 0]))[0][0] == 1


@pytest.mark.parametrize(("box", "hit"), [([0, 0, 10, 10], 1), ([0, 0, 9.99, 10], 0)])
def test_an_overlap_of_exactly_the_threshold_counts(box, hit):
    found = one([box], [0])
    matrix = confusion(found, truth_of([[0, 0, 20, 10]], [0]))
    assert matrix[0][0] == hit
    assert matching.match(found, truth_of([[0, 0, 20, 10]], [0])).hits.sum() == hit


def test_a_score_of_exactly_the_threshold_counts():
    found = one([BOX, FAR], [0, 0], [0.7, 0.1])
    lowest = float(found[0].scores[0])  # of single precision
    assert confusion(found, truth_of([BOX], [0]), lowest)[0][0] == 1


@pytest.mark.parametrize("ignored", [0.0, 0.3])
@pytest.mark.parametrize("min_size", [0.0, 30.0])
def test_the_mean_over_classes_is_the_metric_of_all(random, ignored, min_size):
    found, truth = random_set(random, num_classes=3, ignored=ignored)
    rows = judged(found, truth, min_size=min_size).classes
    summary = matching.summarize(found, truth, min_size)
    for name in ("ap50", "ap75"):
        assert np.mean([row.metrics[name] for row in rows]) == pytest.approx(summary[name])
    assert sum(row.objects for row in rows) == summary["objects"]
    matches = matching.match(found, truth, min_size=min_size)
    for label, row in enumerate(rows):
        assert row.metrics["recall"] == pytest.approx(matches.of_class(label).recall())
        assert row.best_f1 == matches.of_class(label).best_f1()


def test_the_mean_over_classes_is_the_metric_of_coco(random):
    found, truth = random_set(random, num_classes=3, ignored=0.3)
    report = protocols.make("coco", truth)(Results.of(found))
    rows = report.by_class(CLASSES).classes
    for name in ("ap", "ap50", "ap75", "ar100"):
        assert np.mean([row.metrics[name] for row in rows]) == pytest.approx(report.metrics[name])


def test_a_class_alone_has_the_metrics_that_it_has_among_others(random):
    found, truth = random_set(random, num_classes=3)
    alone = judged(
        [each.select(each.classes == 1) for each in found],
        [each.select(each.classes == 1) for each in truth],
    )
    among = judged(found, truth).classes[1]
    assert alone.classes[1].metrics == pytest.approx(among.metrics)
    assert alone.classes[1].best_f1 == among.best_f1
    assert math.isnan(alone.classes[0].metrics["ap50"])


def test_a_json_holds_everything_and_no_nan(random):
    found, truth = random_set(random, num_classes=2)
    stored = json.loads(
        json.dumps(judged(found, truth).to_dict(), allow_nan=False), parse_constant=pytest.fail
    )
    assert [row["name"] for row in stored["classes"]] == list(CLASSES)
    assert stored["classes"][2] == {
        "name": "fox",
        "objects": 0,
        "ap50": None,
        "ap75": None,
        "recall": None,
        "best_f1": None,
    }
    matrix = stored["confusion_matrix"]
    assert matrix["classes"] == [*CLASSES, "background"]
    assert matrix["score_threshold"] == stored["best_f1"]["threshold"]
    assert matrix["iou_threshold"] == 0.5
    assert np.array(matrix["matrix"]).shape == (4, 4)


def test_classes_without_a_name_are_numbered(random):
    found, truth = random_set(random, num_classes=3)
    assert [row.name for row in judged(found, truth, ("cat",)).classes] == [
        "cat",
        "class1",
        "class2",
    ]


def test_swapped_classes_are_seen_in_the_matrix():
    """No detection has found an object of its class, so there is no best threshold: all are shown."""
    found = one([BOX, FAR], [1, 0], [0.8, 0.2])
    both = judged(found, truth_of([BOX, FAR], [0, 1]), CLASSES[:2])
    assert both.best_f1 is None
    assert both.confusion.matrix.tolist() == [[0, 1, 0], [1, 0, 0], [0, 0, 0]]
    text = "\n".join(both.lines("peaks"))
    assert "best F1 of peaks at IoU 0.5: none, as no object is found" in text
    assert "nan" not in text
    assert "inf" not in text


def test_nothing_at_all_is_no_error():
    none = judged([], [])
    assert none.best_f1 is None
    assert [row.objects for row in none.classes] == [0, 0, 0]
    nothing = judged([detections([], [])], truth_of([BOX], [0]))
    assert nothing.confusion.matrix[0].tolist() == [0, 0, 0, 1]
    assert nothing.classes[0].metrics["recall"] == 0
    table = "\n".join(nothing.lines("peaks")).partition("confusion matrix")[0]
    rows = [line.split() for line in table.splitlines() if line.startswith("  ")]
    thresholds = {row[0]: row[-4] for row in rows if row[0] in CLASSES}
    assert thresholds == dict(zip(CLASSES, ["none", "-", "-"], strict=True))


def test_lines_have_a_row_for_each_class_but_for_a_single_one(random):
    found, truth = random_set(random, num_classes=3)
    text = "\n".join(judged(found, truth).lines("peaks"))
    assert "annotated classes in rows, detected classes in columns" in text
    for name in CLASSES:
        assert text.count(f"\n  {name} ") == 2
    many = judged(found, truth, tuple(f"kind {number}" for number in range(20)))
    assert "20 classes: see results.json and confusion_matrix.png" in "\n".join(many.lines("peaks"))
    single = judged(*random_set(random), ("face",))
    assert len(list(single.lines("peaks"))) == 1


def test_the_lines_are_a_table_with_names_at_the_left_and_numbers_at_the_right():
    counts = np.array([[900, 0, 1], [0, 2, 2], [3, 0, 0]])
    matrix = by_class.Confusion(counts, ("x", "elephant"), 0.25)
    best = matching.Best(0.25, 2 / 3, 1.0, 0.5)
    metrics = {"ap": 0.5, "ap50": 1.0, "ap75": math.nan, "ar100": 0.25, "recall": 0.75}
    rows = (
        by_class.ClassMetrics("x", 1234, metrics, best),
        by_class.ClassMetrics("elephant", 1234, metrics, None),
    )
    assert (
        "\n".join(by_class.ByClass(best, rows, matrix).lines("peaks"))
        == """\
best F1 of peaks at IoU 0.5: 0.6667 at score 0.25, with precision 1.0000 and recall 0.5000

classes of peaks; the last four columns are at the best F1 of each class
            objects      ap    ap50  ap75   ar100  recall  threshold      f1  precision  recall
  x            1234  0.5000  1.0000     -  0.2500  0.7500       0.25  0.6667     1.0000  0.5000
  elephant     1234  0.5000  1.0000     -  0.2500  0.7500       none       -          -       -

confusion matrix at score 0.25 and IoU 0.5: annotated classes in rows, detected classes in columns
                x  elephant  background
  x           900         0           1
  elephant      0         2           2
  background    3         0           0"""
    )
    assert by_class.ByClass(best, rows, matrix).to_dict() == {
        "best_f1": {"threshold": 0.25, "f1": 2 / 3, "precision": 1.0, "recall": 0.5},
        "classes": [
            {
                "name": "x",
                "objects": 1234,
                **metrics,
                "ap75": None,
                "best_f1": dataclasses.asdict(best),
            },
            {"name": "elephant", "objects": 1234, **metrics, "ap75": None, "best_f1": None},
        ],
        "confusion_matrix": {
            "score_threshold": 0.25,
            "iou_threshold": 0.5,
            "classes": ["x", "elephant", "background"],
            "matrix": counts.tolist(),
        },
    }


def test_the_matrix_is_drawn(random, tmp_path):
    found, truth = random_set(random, num_classes=3)
    matrix = judged(found, truth).confusion
    matrix.plot(tmp_path / "matrix.png")
    assert (tmp_path / "matrix.png").read_bytes().startswith(b"\x89PNG")
    image = matrix.image()
    assert image.dtype == np.uint8
    assert image.ndim == 3
    assert image.shape[2] == 3
    assert len(np.unique(image)) > 20


def test_the_drawing_has_every_count_in_its_cell(drawn, tmp_path):
    counts = np.array([[9, 0, 1], [0, 2, 2], [3, 0, 0]])
    by_class.Confusion(counts, ("cat", "dog"), 0.25, 0.5).plot(tmp_path / "matrix.png")
    [(figure, path, dpi)] = drawn
    assert (path, dpi) == (tmp_path / "matrix.png", 110)
    side = 3 + 0.45 * 3
    assert figures.page(figure) == (side + 1, side, "ConstrainedLayoutEngine")
    [axes] = figure.axes
    names = ["cat", "dog", "background"]
    assert [text.get_text() for text in axes.get_xticklabels()] == names
    assert [text.get_text() for text in axes.get_yticklabels()] == names
    assert {text.get_rotation() for text in axes.get_xticklabels()} == {90}
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("detected", "annotated")
    assert axes.get_title() == "score 0.25, IoU 0.5"
    [image] = axes.get_images()
    assert (image.get_cmap().name, image.get_clim()) == ("Blues", (0, 1))
    expected = [[0.9, 0, 0.1], [0, 0.5, 0.5], [1, 0, 0]]
    np.testing.assert_allclose(image.get_array(), expected)
    shown = {tuple(map(int, text.get_position())): text for text in axes.texts}
    assert {place: text.get_text() for place, text in shown.items()} == {
        (0, 0): "9",
        (2, 0): "1",
        (1, 1): "2",
        (2, 1): "2",
        (0, 2): "3",
    }
    assert {place for place, text in shown.items() if text.get_color() == "white"} == {
        (0, 0),
        (0, 2),
    }
    assert {(text.get_ha(), text.get_va()) for text in axes.texts} == {("center", "center")}
    assert by_class.Confusion(np.eye(101), ("x",) * 100, 0.5).figure().get_size_inches()[1] == 30


def test_the_log_says_once_what_missing_libraries_leave_out(random, monkeypatch, caplog):
    found, truth = random_set(random, num_classes=3)
    for name in ("supervision", "pycocotools", "pycocotools.coco", "pycocotools.cocoeval"):
        monkeypatch.setitem(sys.modules, name, None)
    caplog.set_level("INFO")
    by_class._say_what_to_install.cache_clear()
    for _ in range(2):
        result = judged(found, truth)
        assert result.confusion is None
        assert [row.metrics for row in result.classes] == [{}] * 3
        assert result.best_f1 == matching.match(found, truth).best_f1()
        assert not any("confusion" in line for line in result.lines("peaks"))
        assert result.to_dict().keys() == {"best_f1", "classes"}
    assert caplog.messages == [
        "Without pycocotools and supervision, these are left out: AP and recall of each class, the confusion matrix: "
        "pip install 'unitbox_tf[coco,supervision]'"
    ]


@pytest.mark.parametrize("module", ["matplotlib.figure", "matplotlib.backends.backend_agg"])
def test_drawing_says_what_it_needs(monkeypatch, module):
    matrix = by_class.Confusion(np.eye(2, dtype=int), ("cat",), 0.5)
    monkeypatch.setitem(sys.modules, module, None)
    needs = r"drawing a confusion matrix needs matplotlib: pip install 'unitbox_tf\[plots\]'"
    with pytest.raises(ImportError, match=f"^{needs}$"):
        matrix.image()


def test_protocols_of_one_class_have_no_classes():
    truth = [Annotation("a", b"", [BOX], size=SIZE, ellipses=[[20, 20, 0, 30, 30]])]
    report = protocols.make("fddb", truth)(Results.of(one([BOX], [0])))
    assert report.by_class is None
