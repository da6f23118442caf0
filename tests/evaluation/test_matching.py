import contextlib
import io
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers import figures
from tests.helpers.matching import detections, random_set
from unitbox_tf.evaluation import coco, matching
from unitbox_tf.records import Annotation, Detections


def pycocotools_ap(found, truth, iou_threshold, min_size):
    """AP by pycocotools. Ignored objects are those outside its range of areas."""
    coco = pytest.importorskip("pycocotools.coco")
    cocoeval = pytest.importorskip("pycocotools.cocoeval")

    def rows(item, number, areas, **more):
        for index, (x0, y0, x1, y1) in enumerate(item.boxes.astype(float)):
            yield {
                "image_id": number + 1,
                "category_id": int(item.classes[index]) + 1,
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "area": float(areas[index]),
                "iscrowd": 0,
                **{name: value[index] for name, value in more.items()},
            }

    def side(boxes):
        return (boxes[:, 2:] - boxes[:, :2]).min(axis=1) if len(boxes) else np.zeros(0)

    objects, results = [], []
    for number, (f, t) in enumerate(zip(found, truth, strict=True)):
        area = np.where(t.ignore, -1.0, side(t.boxes))
        objects.extend(rows(t, number, area))
        results.extend(rows(f, number, side(f.boxes), score=f.scores.astype(float)))
    with contextlib.redirect_stdout(io.StringIO()):
        annotated, detected = coco.COCO(), coco.COCO()
        images = [{"id": n + 1} for n in range(len(truth))]
        for target, values in ((annotated, objects), (detected, results)):
            numbered = [{**row, "id": i + 1} for i, row in enumerate(values)]
            target.dataset = {
                "images": images,
                "categories": [
                    {"id": n + 1} for n in range(max(t.classes.max(initial=0) for t in truth) + 1)
                ],
                "annotations": numbered,
            }
            target.createIndex()
        run = cocoeval.COCOeval(annotated, detected, "bbox")
        run.params.iouThrs = np.array([iou_threshold])
        run.params.areaRng = [[min_size, 1e9]]
        run.params.areaRngLbl = ["all"]
        run.params.maxDets = [1000]
        run.evaluate()
        run.accumulate()
    return float(run.eval["precision"][0, :, :, 0, 0].mean())


@pytest.mark.parametrize("iou_threshold", [0.5, 0.75])
@pytest.mark.parametrize("min_size", [0.0, 30.0])
@pytest.mark.parametrize("num_classes", [1, 3])
def test_average_precision_is_that_of_pycocotools(random, iou_threshold, min_size, num_classes):
    found, truth = random_set(random, num_classes=num_classes)
    ours = matching.match(found, truth, iou_threshold=iou_threshold, min_size=min_size)
    expected = pycocotools_ap(found, truth, iou_threshold, min_size)
    assert 0.02 < expected < 0.98
    assert ours.average_precision() == pytest.approx(expected, abs=1e-9)


def test_average_precision_with_ignored_objects_is_that_of_pycocotools(random):
    found, truth = random_set(random, ignored=0.3)
    ours = matching.match(found, truth)
    # With every detection within the range of areas: only the truth is ignored.
    assert ours.average_precision() == pytest.approx(
        pycocotools_ap(found, truth, 0.5, 0.0), abs=1e-9
    )


def test_counts_by_hand():
    truth = [
        Annotation("a", b"", [[0, 0, 10, 10], [50, 50, 70, 70]]),
        Annotation("b", b"", [[0, 0, 10, 10]], ignore=[True]),
    ]
    found = [
        detections([[0, 0, 10, 10], [0, 0, 10, 9], [100, 100, 110, 110]], [0.9, 0.8, 0.7]),
        detections([[0, 0, 10, 10], [20, 20, 30, 30]], [0.95, 0.6]),
    ]
    matches = matching.match(found, truth)
    # The second box finds no free object; that on the ignored one counts neither way.
    assert matches.scores.tolist() == pytest.approx([0.9, 0.8, 0.7, 0.6])
    assert matches.hits.tolist() == [True, False, False, False]
    assert (matches.recall(), matches.precision(), matches.mean_iou()) == (0.5, 0.25, 1.0)
    assert matches.threshold_at(0.5) == pytest.approx(0.8)
    assert matches.threshold_at(0.0) == pytest.approx(0.9)
    assert matching.match(found[1:], truth[1:]).threshold_at(0.5) == float("inf")


def test_a_threshold_takes_all_detections_of_one_score():
    truth = [Annotation("a", b"", [[0, 0, 10, 10]])]
    found = [detections([[0, 0, 10, 10], [50, 50, 60, 60]], [0.5, 0.5])]
    assert matching.match(found, truth).threshold_at(0.0) == float("inf")
    assert matching.match(found, truth).threshold_at(1.0) == 0.5


def test_the_bounds_of_sizes_and_overlaps_belong_to_what_counts():
    truth = [Annotation("a", b"", [[0, 0, 10, 30], [50, 50, 60, 80]])]
    found = [detections([[0, 0, 10, 15], [150, 0, 160, 30], [150, 50, 159, 90]], [0.9, 0.8, 0.7])]
    matches = matching.match(found, truth, iou_threshold=0.5, min_size=10)
    assert matches.num_objects == 2
    assert matches.hits.tolist() == [
        True,
        False,
    ]  # the last is smaller than `min_size`, and is no object
    assert matches.overlaps.tolist() == [0.5, 0]
    assert matches.classes.dtype.kind == "i"
    assert matching.match([], []).classes.dtype.kind == "i"
    assert (matching.match([], []).num_images, matches.num_images) == (0, 1)


def test_a_detection_takes_the_free_object_that_it_overlaps_most():
    truth = [Annotation("a", b"", [[0, 0, 10, 10], [1, 0, 11, 10], [2, 0, 12, 10]])]
    found = [detections([[1, 0, 11, 10], [1, 0, 11, 10], [1, 0, 11, 10]], [0.9, 0.8, 0.7])]
    overlaps = matching.match(found, truth).overlaps
    assert overlaps.tolist() == pytest.approx([1, 9 / 11, 9 / 11])


def test_ignored_objects_come_last_however_much_they_overlap():
    boxes = [[0, 0, 10, 10], [3, 0, 13, 10]]
    found = [detections([[3, 0, 13, 10], [3, 0, 13, 10], [3, 0, 13, 10]], [0.9, 0.8, 0.7])]
    matches = matching.match(found, [Annotation("a", b"", boxes, ignore=[False, True])])
    assert matches.hits.tolist() == [True, False]
    assert matches.overlaps.tolist() == pytest.approx([7 / 13, 0])
    assert matches.scores.tolist() == pytest.approx([0.9, 0.7])
    assert matches.num_objects == 1


def test_classes_are_matched_apart(random):
    found, truth = random_set(random, num_classes=3)
    per_class = 0
    for label in range(3):
        f = [detections(x.boxes[x.classes == label], x.scores[x.classes == label]) for x in found]
        t = [Annotation(x.name, b"", x.boxes[x.classes == label]) for x in truth]
        per_class += int(matching.match(f, t).hits.sum())
    assert int(matching.match(found, truth).hits.sum()) == per_class


def test_truth_is_cut_to_the_image():
    truth = [Annotation("a", b"", [[-100, 0, 20, 200]])]
    found = [detections([[0, 0, 20, 200]], [0.9])]
    assert matching.match(found, truth).mean_iou() == 1.0


def test_what_lies_outside_the_photo_is_not_to_be_found():
    truth = [Annotation("a", b"", [[-30, 0, -10, 20], [0, 0, 20, 20]])]
    found = [detections([[0, 0, 20, 20]], [0.9])]
    assert matching.match(found, truth).recall() == 1.0


def test_nothing_found_and_nothing_there():
    none = detections([], [])
    matches = matching.match([none], [Annotation("a", b"", [])])
    assert np.isnan(matches.recall())
    assert np.isnan(matches.average_precision())
    summary = matching.summarize([none], [Annotation("a", b"", [[0, 0, 9, 9]])])
    assert (summary["recall"], summary["ap50"], summary["false_positives"]) == (0, 0, 0)


def test_the_summary_by_hand():
    boxes = [[0, 0, 10, 10], [50, 50, 70, 70], [90, 90, 93, 99]]
    truth = [Annotation("a", b"", boxes), *(Annotation(f"{n}", b"", []) for n in range(9))]
    rows = [[0, 0, 10, 6], [50, 50, 70, 70], [100, 100, 120, 120], [130, 130, 150, 150]]
    found = [detections(rows, [0.9, 0.8, 0.75, 0.7]), *(detections([], []) for _ in range(9))]
    assert matching.summarize(found, truth, min_size=5) == {
        "images": 10,
        "objects": 2,
        "threshold": pytest.approx(0.75),
        "recall": 1,
        "false_positives": pytest.approx(0.1),  # one in ten images, which is allowed
        "mean_iou": pytest.approx(0.8),
        "ap50": 1,
        "ap75": pytest.approx(51 / 101 / 2),  # a half up to a recall of a half
    }
    assert matching.summarize(found, truth)["objects"] == 3


def test_a_missing_image_is_refused():
    with pytest.raises(ValueError, match="detections of 1 images"):
        matching.match([], [Annotation("a", b"", [])])


def test_ignored_boxes_without_area_are_neither_missed_nor_found():
    box = np.float32([[0, 0, 20, 20]])
    odd = [[0, 0, 0, 0], [40, 40, 20, 20], [15, 5, 5, 15], [5, 5, 5, 30]]
    found = Detections(box, np.ones(1), np.zeros(1, int), (50, 50))
    truth = Annotation("a", b"", np.concatenate([box, odd]), ignore=[False] + [True] * len(odd))
    matches = matching.match([found], [truth])
    assert matches.num_objects == 1
    assert matches.hits.tolist() == [True]
    assert matches.overlaps.tolist() == [1.0]


def test_curves_by_hand():
    truth = [Annotation("a", b"", [[0, 0, 10, 10], [50, 50, 70, 70]]), Annotation("b", b"", [])]
    found = [
        detections([[0, 0, 10, 10], [30, 30, 40, 40], [50, 50, 70, 70]], [0.9, 0.6, 0.6]),
        detections([[20, 20, 30, 30]], [0.5]),
    ]
    curve = matching.match(found, truth).curve()
    assert curve.thresholds.tolist() == pytest.approx([0.9, 0.6, 0.5])
    assert curve.precision.tolist() == pytest.approx([1, 2 / 3, 1 / 2])
    assert curve.recall.tolist() == [0.5, 1, 1]
    assert curve.miss_rate.tolist() == [0.5, 0, 0]
    assert curve.false_positives.tolist() == [0, 0.5, 1]
    nothing = matching.match([detections([], [])], [Annotation("a", b"", [])]).curve()
    assert len(nothing.thresholds) == len(nothing.recall) == 0


def test_curves_agree_with_recall_and_precision_at_their_thresholds(random):
    matches = matching.match(*random_set(random))
    curve = matches.curve()
    assert len(curve.thresholds) > 20
    for index, threshold in enumerate(curve.thresholds):
        assert curve.recall[index] == matches.recall(threshold)
        assert curve.precision[index] == pytest.approx(matches.precision(threshold))
    assert matches.threshold_at(curve.false_positives[9]) <= curve.thresholds[9]


def test_curves_are_drawn(random, tmp_path):
    curve = matching.match(*random_set(random)).curve()
    matching.plot({"ours": curve, "theirs": curve}, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_the_drawing_has_both_curves_of_each_detector(drawn, tmp_path):
    curve = matching.Curve(
        np.array([0.9, 0.5]), np.array([1, 0.75]), np.array([0.25, 0.5]), np.array([0, 0.5])
    )
    matching.plot({"ours": curve, "theirs": curve}, tmp_path / "curves.png")
    [(figure, path, dpi)] = drawn
    assert (path, dpi) == (tmp_path / "curves.png", 110)
    assert figures.page(figure) == (11, 4.5, "ConstrainedLayoutEngine")
    left, right = figure.axes
    shared = {"title": "", "grid": 0.3, "legend": ["ours", "theirs"], "legend frame": True}
    small = {"legend size": pytest.approx(25 / 3, abs=0.01)}
    assert figures.described(left) == shared | small | {
        "x": ("recall", "linear", 0, 1),
        "y": ("precision", "linear", 0, 1.01),
    }
    assert figures.described(right) == shared | small | {
        # What is right of the last point is left to matplotlib.
        "x": ("false positives an image", "log", 1e-3, right.get_xlim()[1]),
        "y": ("miss rate", "linear", 0, 1.01),
    }
    for axes, points in ((left, [[0.25, 1], [0.5, 0.75]]), (right, [[1e-3, 0.75], [0.5, 0.5]])):
        assert [(line["label"], line["steps"]) for line in figures.lines(axes)] == [
            ("ours", "steps-post"),
            ("theirs", "steps-post"),
        ]
        assert [line["points"] for line in figures.lines(axes)] == [points, points]


def test_the_best_threshold_by_hand():
    truth = [Annotation("a", b"", [[0, 0, 10, 10], [50, 50, 70, 70]])]
    boxes = [[0, 0, 10, 10], [50, 50, 70, 70], [80, 80, 90, 90], [20, 20, 30, 30]]
    best = matching.match([detections(boxes, [0.9, 0.64, 0.57, 0.5])], truth).best_f1()
    assert best == matching.Best(0.6, 1.0, 1.0, 1.0)
    # The third detection costs precision, the fourth, which is an object, is too low.
    best = matching.match([detections(boxes, [0.9, 0.1, 0.57, 0.5])], truth).best_f1()
    assert best == matching.Best(0.7, pytest.approx(2 / 3), 1.0, 0.5)
    lowest = matching.match([detections(boxes[:2], [0.9, 0.25])], truth).best_f1()
    assert lowest.threshold == 0.25


def test_there_is_no_best_threshold_where_nothing_is_found():
    truth = [Annotation("a", b"", [[0, 0, 10, 10]])]
    assert matching.match([detections([], [])], truth).best_f1() is None
    assert matching.match([detections([[50, 50, 60, 60]], [0.9])], truth).best_f1() is None
    assert (
        matching.match([detections([[0, 0, 9, 9]], [0.9])], [truth[0].select([])]).best_f1() is None
    )


def test_equally_good_thresholds_give_the_highest():
    scores, hits = np.array([0.9, 0.8, 0.7, 0.6]), np.array([True, False, False, True])
    matches = matching.Matches(scores, hits, hits * 1.0, np.zeros(4, int), {0: 2}, 1)
    # F1 is 2 / 3 with one detection and with all four.
    assert matches.best_f1() == matching.Best(pytest.approx(0.85), pytest.approx(2 / 3), 1.0, 0.5)


@given(
    st.lists(st.tuples(st.integers(0, 12), st.booleans()), max_size=14),
    st.integers(0, 3),
    st.sampled_from([np.float32, np.float64]),
)
def test_no_threshold_is_better_than_the_best(rows, missed, dtype):
    """Against all thresholds: every score, all between two, and one beyond."""
    rows.sort(key=lambda row: -row[0])
    scores = np.array([score / 12 for score, _ in rows], dtype).astype(float)
    hits = np.array([hit for _, hit in rows], bool)
    objects = int(hits.sum()) + missed
    matches = matching.Matches(scores, hits, hits * 1.0, np.zeros(len(rows), int), {0: objects}, 1)
    best = matches.best_f1()
    if not hits.any():
        assert best is None
        return

    def f1(threshold):
        taken = hits[scores >= threshold]
        precision = taken.mean() if len(taken) else 0.0
        recall = taken.sum() / objects
        return 2 * precision * recall / (precision + recall) if taken.any() else 0.0

    tried = np.unique(np.concatenate([scores, scores[1:] / 2 + scores[:-1] / 2, [-1, 2]]))
    assert best.f1 == pytest.approx(max(map(f1, tried)))
    assert best.f1 == pytest.approx(f1(best.threshold))
    assert (best.precision, best.recall) == (
        pytest.approx(matches.precision(best.threshold)),
        pytest.approx(matches.recall(best.threshold)),
    )
    # Nothing above is as good.
    above = [score for score in scores if score > best.threshold]
    lowest_taken = min(above, default=best.threshold)
    assert all(f1(score) < best.f1 - 1e-12 for score in above if score > lowest_taken)
    # A detector that compares in single precision takes the same detections.
    single = scores.astype(np.float32) >= np.float32(best.threshold)
    assert single.tolist() == (scores >= best.threshold).tolist()


def test_the_best_threshold_is_that_of_the_counts_of_pycocotools(random):
    found, truth = random_set(random, ignored=0.3)
    run = coco.judge_as_matching(found, truth)._run
    images = [image for image in run.evalImgs if image is not None]
    scores = np.concatenate([image["dtScores"] for image in images])
    hit = np.concatenate([image["dtMatches"][0] > 0 for image in images])
    counts = ~np.concatenate([image["dtIgnore"][0] for image in images]).astype(bool)
    objects = sum(int((np.asarray(image["gtIgnore"]) == 0).sum()) for image in images)

    def f1(threshold):
        taken = counts & (scores >= threshold)
        return 2 * (hit & taken).sum() / (taken.sum() + objects)

    best = matching.match(found, truth).best_f1()
    assert best.f1 == pytest.approx(max(map(f1, scores)))
    assert f1(best.threshold) == pytest.approx(best.f1)
    assert 0.1 < best.f1 < 0.9


def test_matches_of_a_class_are_those_of_its_boxes(random):
    found, truth = random_set(random, num_classes=3)
    whole = matching.match(found, truth)
    alone = matching.match(
        [each.select(each.classes == 1) for each in found],
        [each.select(each.classes == 1) for each in truth],
    )
    assert whole.of_class(1).best_f1() == alone.best_f1()
    assert whole.of_class(1).num_objects == alone.num_objects
    assert whole.of_class(7).best_f1() is None


def test_drawing_says_what_it_needs(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    needs = r"drawing curves needs matplotlib: pip install 'unitbox_tf\[plots\]'"
    with pytest.raises(ImportError, match=f"^{needs}$"):
        matching.plot({}, tmp_path / "a.png")
