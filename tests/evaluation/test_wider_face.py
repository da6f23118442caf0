import json
import logging
import math
import sys
import time
from fractions import Fraction

import numpy as np
import pytest
import scipy.io
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.helpers import figures
from tests.helpers.wider_face import cell, make_truth, mat_content, read_parity, write_mats
from unitbox_tf.evaluation import wider_face
from unitbox_tf.evaluation.wider_face import DIFFICULTIES, Curve, GroundTruth
from unitbox_tf.problems import Problems
from unitbox_tf.records import Detections

IOUS = ("official", "exact")


def only(faces):
    """Truth of one image, all of whose faces count in all difficulties."""
    return make_truth((faces, *[range(len(faces))] * 3))


def assert_same(curves, expected):
    assert set(curves) == set(expected)
    for difficulty, curve in curves.items():
        other = expected[difficulty]
        np.testing.assert_array_equal(curve.precision, other.precision)
        np.testing.assert_array_equal(curve.recall, other.recall)
        np.testing.assert_equal(curve.average_precision, other.average_precision)


# A second implementation, slow and plain, from the written rules of the protocol ------------------


def int32(value):
    nearest = math.floor(abs(Fraction(value)) + Fraction(1, 2))
    return max(-(2**31), min(2**31 - 1, nearest if value > 0 else -nearest))


def plain_overlap(box, face, iou):
    x0, y0, w, h = map(float, box)
    x1, y1 = x0 + w, y0 + h
    area = (x1 - x0 + 1) * (y1 - y0 + 1)
    left, top, face_w, face_h = map(int, face)
    if iou == "exact":
        common_w = min(x1, left + face_w) - max(x0, left) + 1
        common_h = min(y1, top + face_h) - max(y0, top) + 1
        if common_w <= 0 or common_h <= 0:
            return 0
        common = common_w * common_h
        return common / ((face_w + 1) * (face_h + 1) + area - common)
    right, bottom = int32(left + face_w), int32(top + face_h)
    common_w = int32(int32(int32(min(x1, right)) - int32(max(x0, left))) + 1)
    common_h = int32(int32(int32(min(y1, bottom)) - int32(max(y0, top))) + 1)
    if common_w <= 0 or common_h <= 0:
        return 0
    common = int32(common_w * common_h)
    face_area = int32(int32(int32(right - left) + 1) * int32(int32(bottom - top) + 1))
    union = int32(int32(float(face_area) + area) - common)
    return int32(Fraction(common, union)) if union else 2**31 - 1


def plain_image(rows, faces, counted, iou):
    """For each row, best first: whether it stays a proposal, and the faces found up to it."""
    found, dropped, proposals, hits = set(), set(), [], []
    for number, row in enumerate(rows):
        overlaps = [plain_overlap(row[:4], face, iou) for face in faces]
        best = overlaps.index(max(overlaps))
        if overlaps[best] >= 0.5:
            if not counted[best]:
                dropped.add(number)
            else:
                found.add(best)
        proposals.append(number not in dropped)
        hits.append(len(found))
    return proposals, hits


def plain_evaluate(detections, truth, iou):
    images = {
        name: sorted(np.asarray(rows).reshape(-1, 5).tolist(), key=lambda row: -row[4])
        for name, rows in detections.items()
    }
    scores = [np.float32(row[4]) for rows in images.values() for row in rows]
    lowest = min([*scores, np.finfo(np.float32).max])
    highest = max([*scores, np.finfo(np.float32).tiny])
    curves = {}
    for difficulty in DIFFICULTIES:
        proposals_at, hits_at, num_faces = [0] * 1000, [0] * 1000, 0
        for name, faces, counted in zip(
            truth.names, truth.boxes, truth.counted[difficulty], strict=True
        ):
            num_faces += sum(counted.tolist())
            rows = images.get(name, [])
            if not rows or not len(faces):
                continue
            proposals, hits = plain_image(rows, faces.tolist(), counted.tolist(), iou)
            with np.errstate(invalid="ignore"):
                stretched = [
                    float((np.float32(row[4]) - lowest) / (highest - lowest)) for row in rows
                ]
            for t in range(1000):
                last = [i for i, s in enumerate(stretched) if s >= 1 - (t + 1) / 1000][-1:]
                for i in last:
                    proposals_at[t] += sum(proposals[: i + 1])
                    hits_at[t] += hits[i]
        precision = [h / p if p else math.nan for h, p in zip(hits_at, proposals_at, strict=True)]
        recall = [h / num_faces if num_faces else math.nan for h in hits_at]
        curves[difficulty] = Curve(np.array(precision), np.array(recall))
    return curves


def plain_average_precision(precision, recall):
    recall, precision = [0, *recall, 1], [0, *precision, 0]
    total = 0
    for i in range(1, len(recall)):
        if recall[i] != recall[i - 1]:
            best = max(p for p in precision[i:] if not math.isnan(p))
            total += (recall[i] - recall[i - 1]) * best
    return total


position = st.one_of(
    st.integers(-3, 14), st.integers(-6, 28).map(lambda n: n / 2), st.floats(-3, 14)
)
size = st.one_of(st.integers(-2, 10), st.integers(-4, 20).map(lambda n: n / 2), st.floats(-2, 10))
score = st.one_of(st.sampled_from([0.0, 0.1, 0.1000000001, 0.5, 0.9, 1.0, -2.0]), st.floats(-3, 3))
found_rows = st.lists(st.tuples(position, position, size, size, score), max_size=6)
face = st.tuples(st.integers(0, 8), st.integers(0, 8), st.integers(-2, 9), st.integers(-2, 9))
indices = st.lists(st.integers(0, 4), max_size=4)
image = st.tuples(st.lists(face, max_size=5), indices, indices, indices)


def crafted(faces, *boxes):
    """Truth of one image, and its detections, best first; the last is far from all faces."""
    truth, boxes = only(faces), [*boxes, [500, 500, 1, 1]]
    return truth, {truth.names[0]: np.column_stack([boxes, np.arange(len(boxes), 0, -1)])}


@st.composite
def sets(draw):
    """Truth, and detections of some of its images: few pixels and scores, so that much coincides."""
    truth = make_truth(*draw(st.lists(image, min_size=1, max_size=4)))
    rows = {name: draw(st.none() | found_rows) for name in truth.names}
    return truth, {n: np.array(r, float).reshape(-1, 5) for n, r in rows.items() if r is not None}


def large_set(random, num_images=40, fraction=True):
    """Faces that crowd each other, detections near them, ties, some images without."""
    images, detections = [], {}
    for number in range(num_images):
        n = random.integers(0 if number % 9 == 8 else 1, 9)
        faces = np.concatenate(
            [random.integers(0, 40, (n, 2)), random.integers(0, 20, (n, 2))], axis=1
        )
        images.append((faces, *(random.integers(0, 9, random.integers(0, 9)) for _ in range(3))))
        noise = random.normal(0, 1.5, (3 * n, 4))
        near = np.concatenate([np.repeat(faces, 3, axis=0) + noise, random.uniform(0, 40, (3, 4))])
        near = near if fraction else np.round(near)
        # Better ones have higher scores; many are the same.
        scores = np.append(5 - np.abs(noise).sum(axis=1) / 2, [0.5, 1, 1.5]).round(1)[:, None]
        if number % 7:
            detections[f"{number % 3}--Event/{number}.jpg"] = np.concatenate([near, scores], 1)
    return make_truth(*images), detections


# The official figures ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def official_truth(data):
    return wider_face.read_ground_truth(data("wider/annotations"))


def test_the_official_truth_has_as_many_images_and_faces_as_published(official_truth):
    assert (len(official_truth.names), sum(map(len, official_truth.boxes))) == (3226, 39708)
    counts = {name: official_truth.num_faces(name) for name in DIFFICULTIES}
    assert counts == {"easy": 7211, "medium": 13319, "hard": 31958}


@pytest.mark.parametrize("name", [pytest.param("yolov7face", marks=pytest.mark.slow), "retinaface"])
def test_every_row_of_the_curves_is_that_of_the_original_code(data, official_truth, name):
    folder = data("wider/eval_parity")
    detections = read_parity(folder / f"detections_{name}.txt.gz")
    start = time.process_time()
    curves = wider_face.evaluate(detections, official_truth)
    assert time.process_time() - start < 20  # 2 s on a machine that does nothing else
    figures = json.loads((folder / "official_ap.json").read_text())[name]
    for difficulty, curve in curves.items():
        expected = np.loadtxt(folder / f"official_pr_{name}_{difficulty}.txt")
        np.testing.assert_array_equal(curve.precision, expected[:, 0])
        np.testing.assert_array_equal(curve.recall, expected[:, 1])
        official = figures["octave"][difficulty]  # with ten decimals
        assert curve.average_precision == pytest.approx(official, abs=1e-9)
    # The public Python port differs from the original in what `exact` differs; its rows are sorted.
    for difficulty, curve in wider_face.evaluate(detections, official_truth, "exact").items():
        port = figures["python_port"][difficulty]
        assert curve.average_precision == pytest.approx(port, abs=1e-9)


# Against the plain implementation ----------------------------------------------------------------


@pytest.mark.parametrize("iou", IOUS)
@given(sets())
@example((make_truth(([[0, 0, 9, 9]], [], [0], [0])), {}))
@example((make_truth(([], [], [], [])), {"0--Event/0.jpg": np.array([[0, 0, 5, 5, 1.0]])}))
# In the arithmetic of int32: quotients of 1 and 4, so that the second face is the better one;
@example(crafted([[0, 0, 0, 0], [0, 0, 1, 1]], [0.49, 0.49, 0.01, 0.01], [0, 0, 0, 0]))
# 1 / 0;
@example(crafted([[0, 0, 9, 9], [1, 1, 0, 0]], [1.4, 1.4, -0.9, -0.9]))
# a corner that adding a half would round up; a width that is not quite 1.5, for the sum of corner and width is rounded;
@example(crafted([[1, 0, 0, 0]], [0.49999999999999994, 0, 0, 0]))
@example(crafted([[1023, 0, 3, 0]], [1023.504, 0, 1.5, 0]))
# an area that is cut to the largest number, a sum that is, a box that goes far beyond it.
@example(crafted([[0, 0, 69999, 69999]], [0, 0, 29999, 69999]))
@example(crafted([[0, 0, 39999, 39999]], [0, 17500, 39999, 39999]))
@example(crafted([[0, 0, 9, 9]], [-1e30, 0, 2e30, 9], [0, 0, 9, 9]))
def test_evaluation_is_that_of_the_plain_implementation(iou, case):
    truth, detections = case
    assert_same(wider_face.evaluate(detections, truth, iou), plain_evaluate(detections, truth, iou))


@pytest.mark.parametrize("fraction", [True, False])
@pytest.mark.parametrize("iou", IOUS)
def test_evaluation_of_crowded_images_is_that_of_the_plain_implementation(random, iou, fraction):
    truth, detections = large_set(random, fraction=fraction)
    curves = wider_face.evaluate(detections, truth, iou)
    assert_same(curves, plain_evaluate(detections, truth, iou))
    for curve in curves.values():
        assert 0.1 < curve.average_precision < 0.9  # it is a set on which mistakes show
        expected = plain_average_precision(curve.precision.tolist(), curve.recall.tolist())
        assert curve.average_precision == pytest.approx(expected, abs=1e-12)


@given(
    st.lists(
        st.tuples(st.floats(0, 1) | st.just(math.nan), st.sampled_from([0, 0.1, 0.2])), min_size=1
    )
)
def test_average_precision_is_that_of_the_plain_implementation(rows):
    precision, recall = [p for p, _ in rows], np.cumsum([r for _, r in rows]).clip(0, 1).tolist()
    curve = Curve(np.array(precision), np.array(recall))
    expected = plain_average_precision(precision, recall)
    assert curve.average_precision == pytest.approx(expected, abs=1e-12)


# Properties and examples -------------------------------------------------------------------------


@given(sets(), st.sampled_from(IOUS))
def test_recall_never_falls_and_all_figures_are_from_0_to_1(case, iou):
    truth, detections = case
    for curve in wider_face.evaluate(detections, truth, iou).values():
        if curve.num_faces:
            assert (np.diff(curve.recall) >= 0).all()
            assert curve.recall.min() >= 0
            assert curve.recall.max() <= 1
            assert 0 <= curve.average_precision <= 1 + 1e-12
        precision = curve.precision[~np.isnan(curve.precision)]
        assert ((precision >= 0) & (precision <= 1)).all()


def test_images_are_chosen_by_their_names_in_a_given_order():
    truth = make_truth(
        ([[0, 0, 9, 9]], [0], [0], [0]),
        ([[1, 1, 5, 5], [8, 8, 4, 4]], [1], [0, 1], [0, 1]),
        ([[2, 2, 6, 6]], [], [], [0]),
    )
    first, second, third = truth.names
    chosen = truth.select([third, second])
    assert chosen.names == (third, second)
    assert [boxes.tolist() for boxes in chosen.boxes] == [
        [[2, 2, 6, 6]],
        [[1, 1, 5, 5], [8, 8, 4, 4]],
    ]
    assert [chosen.num_faces(difficulty) for difficulty in DIFFICULTIES] == [1, 2, 3]
    assert truth.select([first]).num_faces("easy") == 1
    with pytest.raises(ValueError, match=rf"such as {first}\. Received 2 others: a, b$"):
        truth.select(["a", first, "b"])


@given(sets())
def test_an_image_without_detections_is_the_same_as_one_without_an_entry(case):
    truth, detections = case
    full = {name: detections.get(name, np.zeros((0, 5))) for name in truth.names}
    some = {name: rows for name, rows in detections.items() if len(rows)}
    assert_same(wider_face.evaluate(full, truth), wider_face.evaluate(some, truth))


@given(sets(), st.randoms(use_true_random=False))
def test_the_order_of_rows_with_different_scores_changes_nothing(case, shuffler):
    truth, detections = case
    numbered, shuffled = {}, {}
    for name, rows in detections.items():
        rows[:, 4] = np.arange(len(rows))
        numbered[name] = rows
        shuffled[name] = rows[shuffler.sample(range(len(rows)), len(rows))]
    assert_same(wider_face.evaluate(shuffled, truth), wider_face.evaluate(numbered, truth))


@given(sets(), st.integers(-20, 20))
def test_the_scale_of_scores_changes_nothing(case, exponent):
    truth, detections = case
    # Above 0, where the original does not look for the maximum, and with few digits to lose.
    one = {n: np.column_stack([r[:, :4], r[:, 4].round(1) + 4]) for n, r in detections.items()}
    other = {n: r * [1, 1, 1, 1, 2.0**exponent] for n, r in one.items()}
    assert_same(wider_face.evaluate(other, truth), wider_face.evaluate(one, truth))


def test_the_number_of_boxes_at_once_changes_nothing(random, monkeypatch):
    truth, detections = large_set(random)
    expected = wider_face.evaluate(detections, truth)
    monkeypatch.setattr(wider_face, "PAIRS_AT_ONCE", 7)
    assert_same(wider_face.evaluate(detections, truth), expected)


def test_of_two_faces_that_fit_the_official_overlap_takes_the_first_the_exact_one_the_best():
    truth = only([[0, 0, 9, 9], [2, 0, 9, 9]])  # IoU of the two: 80 / 120
    rows = {truth.names[0]: np.array([[2, 0, 9, 9, 0.9], [0, 0, 9, 9, 0.8]])}
    official, exact = (wider_face.evaluate(rows, truth, iou)["hard"] for iou in IOUS)
    assert (official.recall[-1], official.precision[-1]) == (0.5, 0.5)
    assert (exact.recall[-1], exact.precision[-1]) == (1.0, 1.0)


@pytest.mark.parametrize(
    ("width", "official", "exact"), [(4.0, 1, 1), (3.9, 1, 0), (3.4, 0, 0), (14.4, 1, 1)]
)
def test_a_fractional_box_is_rounded_by_the_official_overlap_only(width, official, exact):
    # Of a face of 10 x 10 pixels: 50 of 100; 49 of 100, rounded 50 of 99; 44, rounded 40.
    truth = only([[0, 0, 9, 9]])
    rows = {truth.names[0]: np.array([[0, 0, width, 9, 0.9], [50, 50, 9, 9, 0.1]])}
    found = [wider_face.evaluate(rows, truth, iou)["easy"].recall[-1] for iou in IOUS]
    assert found == [official, exact]


def test_ignored_faces_and_second_detections_count_as_the_rules_say():
    # Counts in easy: the first; in medium: none of this image; in hard: both.
    truth = make_truth(
        ([[0, 0, 9, 9], [30, 0, 9, 9]], [0], [], [0, 1]), ([[0, 0, 9, 9]], [0], [0], [0])
    )
    rows = {
        truth.names[0]: np.array(
            [[0, 0, 9, 9, 0.9], [0, 0, 9, 9, 0.8], [30, 0, 9, 9, 0.7], [60, 0, 9, 9, 0.1]]
        ),
    }
    curves = wider_face.evaluate(rows, truth)
    # hits, proposals, faces; the other image has no detections, and its face is to be found.
    for difficulty, (hits, proposals, faces) in {
        "easy": (1, 3, 2),
        "medium": (0, 1, 1),
        "hard": (2, 4, 3),
    }.items():
        curve = curves[difficulty]
        assert curve.num_faces == faces
        assert curve.recall[-1] == hits / faces
        assert curve.precision[-1] == hits / proposals
    assert curves["easy"].precision[0] == 1.0
    assert np.isnan(curves["medium"].precision[0])


def test_without_detections_precision_is_undefined_and_average_precision_0():
    for curve in wider_face.evaluate({}, only([[0, 0, 9, 9]])).values():
        assert np.isnan(curve.precision).all()
        assert (curve.recall == 0).all()
        assert curve.average_precision == 0


def test_one_score_for_all_finds_nothing_as_in_the_original(caplog):
    truth = only([[0, 0, 9, 9]])
    with caplog.at_level(logging.WARNING):
        curves = wider_face.evaluate({truth.names[0]: np.array([[0, 0, 9, 9, 0.5]])}, truth)
    assert curves["easy"].average_precision == 0
    assert "All scores are 0.5" in caplog.text


def test_detections_of_an_unknown_image_are_refused():
    with pytest.raises(ValueError, match=r"1 images .* 0--Event/0\.jpg\. Received 1 others: a/b"):
        wider_face.evaluate({"a/b.jpg": np.zeros((0, 5))}, only([]))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e39])
@pytest.mark.parametrize("column", range(5))
def test_numbers_that_are_not_finite_are_refused(value, column):
    rows = np.zeros((2, 5))
    rows[1, column] = value
    with pytest.raises(ValueError, match=r"0--Event/0\.jpg: expected finite numbers.* in row 1"):
        wider_face.evaluate({"0--Event/0.jpg": rows}, only([[0, 0, 9, 9]]))


def test_other_mistakes_in_arguments_are_refused():
    truth = only([[0, 0, 9, 9]])
    name = truth.names[0]
    with pytest.raises(ValueError, match=r"expected x y w h score \[K, 5\], received \[1, 4\]"):
        wider_face.evaluate({name: np.zeros((1, 4))}, truth)
    with pytest.raises(ValueError, match="Expected iou to be 'official' or 'exact'"):
        wider_face.evaluate({}, truth, "ordinary")
    with pytest.raises(ValueError, match="Expected scores that span at most"):
        wider_face.evaluate({name: [[0, 0, 1, 1, 3e38], [0, 0, 1, 1, -3e38]]}, truth)


def test_a_truth_that_contradicts_itself_is_refused():
    boxes, masks = (np.zeros((1, 4), np.int32),), (np.ones(1, bool),)
    counted = dict.fromkeys(DIFFICULTIES, masks)
    for arguments, message in [
        ((("a/b.jpg",), boxes, {"easy": masks}), "Expected faces of"),
        ((("a/b.jpg",), (), counted), "Expected 1 images. Received: 0"),
        ((("a/b.jpg", "a/b.jpg"), boxes * 2, dict.fromkeys(DIFFICULTIES, masks * 2)), "twice: a/b"),
        ((("a/b.jpg",), (np.zeros((1, 4)),), counted), "boxes .* of int32.* of float64"),
        ((("a/b.jpg",), boxes, dict.fromkeys(DIFFICULTIES, (np.ones(2, bool),))), "a bool for"),
        ((("../b.jpg",), boxes, counted), r"event/image\.jpg, received '\.\./b\.jpg'"),
    ]:
        with pytest.raises(ValueError, match=message):
            GroundTruth(*arguments)


# The annotation files ----------------------------------------------------------------------------


@pytest.fixture
def mat_truth():
    """Two events; an image with one face, one with none that counts, one without faces."""
    names = ("0--Parade/0_Parade_1.jpg", "0--Parade/0_Parade_2.jpg", "1--Handshaking/a b.jpg")
    faces = [[5, 6, 7, 8], [1, 2, 3, 4], [0, 0, 0, 0]]
    return make_truth(
        (faces, [1], [0, 1], [0, 1, 2]), ([], [], [], []), (faces[:1], [], [], [0]), names=names
    )


def assert_same_truth(truth, expected):
    assert truth.names == expected.names
    for box, other in zip(truth.boxes, expected.boxes, strict=True):
        np.testing.assert_array_equal(box, other)
        assert box.dtype == np.int32
    for difficulty in DIFFICULTIES:
        for mask, other in zip(
            truth.counted[difficulty], expected.counted[difficulty], strict=True
        ):
            np.testing.assert_array_equal(mask, other)


def test_annotations_are_read_as_they_were_written(mat_truth, tmp_path):
    write_mats(mat_content(mat_truth), tmp_path)
    assert_same_truth(wider_face.read_ground_truth(tmp_path), mat_truth)


def changed(name, variable, change):
    def apply(content):
        content[name] = dict(content[name])
        value = content[name].pop(variable)
        if change is not None:
            content[name][variable] = change(value)

    return apply


def replaced(event, image, new):
    def apply(value):
        value = cell([cell(list(images[:, 0])) for images in value[:, 0]])
        value[event, 0][image, 0] = new
        return value

    return apply


@pytest.mark.parametrize(
    ("change", "file", "message"),
    [
        (changed("face", "file_list", None), "face", "expected a variable file_list"),
        (changed("hard", "gt_list", None), "hard", "expected a variable gt_list"),
        (changed("face", "face_bbx_list", lambda _: 5.0), "face", "face_bbx_list to be a cell"),
        (changed("face", "event_list", lambda v: v[:1]), "face", "expected 1 events in file_list"),
        (
            changed("face", "face_bbx_list", lambda v: v[:1]),
            "face",
            "expected faces of 3 images, received 2",
        ),
        (
            changed("face", "face_bbx_list", replaced(0, 0, np.ones((1, 4)))),
            "face",
            "expected face_bbx_list to hold int32, received float64",
        ),
        (
            changed("face", "face_bbx_list", replaced(0, 0, np.ones((1, 3), np.int32))),
            "face",
            r"expected faces as N x 4, received \[1, 3\]",
        ),
        (changed("face", "file_list", replaced(0, 0, 7.0)), "face", "expected the name of"),
        (changed("face", "file_list", replaced(0, 0, "../x")), "face", "expected an image as"),
        (changed("face", "file_list", lambda v: cell([1.0, 2.0])), "face", r"file_list\{1\} to be"),
        (
            changed("easy", "file_list", replaced(0, 0, "other")),
            "easy",
            "expected the images of wider_face_val.mat, received others",
        ),
        (
            changed("easy", "face_bbx_list", replaced(0, 0, np.ones((3, 4), np.int32))),
            "easy",
            "expected the faces of wider_face_val.mat, received others",
        ),
        (
            changed("easy", "gt_list", replaced(0, 0, np.array([[4]]))),
            "easy",
            r"0_Parade_1\.jpg: expected different faces from 1 to 3 in gt_list, received \[4\]",
        ),
        (changed("easy", "gt_list", replaced(0, 0, np.array([[0]]))), "easy", r"received \[0\]"),
        (changed("easy", "gt_list", replaced(0, 0, np.array([[1.5]]))), "easy", r"\[1.5\]"),
        (changed("easy", "gt_list", replaced(0, 0, np.array([[2, 2]]))), "easy", r"\[2, 2\]"),
        (changed("easy", "gt_list", replaced(0, 0, "first")), "easy", "expected different faces"),
        (changed("easy", "gt_list", lambda v: v[:1]), "easy", "expected 3 images in gt_list"),
    ],
)
def test_annotations_that_are_something_else_are_refused_by_name(
    mat_truth, tmp_path, change, file, message
):
    content = mat_content(mat_truth)
    change(content)
    write_mats(content, tmp_path)
    with pytest.raises(ValueError, match=rf"wider_{file}_val\.mat: .*{message}"):
        wider_face.read_ground_truth(tmp_path)


def test_a_missing_or_foreign_annotation_file_is_refused_by_name(mat_truth, tmp_path):
    with pytest.raises(ValueError, match=r"wider_face_val\.mat: expected a \.mat file, found none"):
        wider_face.read_ground_truth(tmp_path)
    write_mats(mat_content(mat_truth), tmp_path)
    for content in (b"", b"0--Parade/0.jpg\n1\n1 2 3 4\n" * 99, b"\x89PNG\r\n\x1a\n", bytes(999)):
        (tmp_path / "wider_hard_val.mat").write_bytes(content)
        with pytest.raises(ValueError, match=r"wider_hard_val\.mat: expected"):
            wider_face.read_ground_truth(tmp_path)


def test_a_damaged_annotation_file_is_refused_by_name_or_still_whole(mat_truth, random, tmp_path):
    write_mats(mat_content(mat_truth), tmp_path)
    path = tmp_path / "wider_easy_val.mat"
    content, refused, whole = path.read_bytes(), 0, 0
    damaged = [content[:n] for n in range(0, len(content), 23)]
    for place in random.integers(128, len(content), 60):
        flipped = bytes([content[place] ^ 1 << int(random.integers(8))])
        damaged.append(content[:place] + flipped + content[place + 1 :])
    for data in damaged:
        path.write_bytes(data)
        try:
            truth = wider_face.read_ground_truth(tmp_path)
        except ValueError as error:
            refused += str(path) in str(error)
            continue
        whole += 1
        assert_same_truth(truth, mat_truth)  # the damage is in what is not read
    assert refused + whole == len(damaged)
    assert refused > len(damaged) / 2


# Result files ------------------------------------------------------------------------------------


def result(folder, text, name="0--Event/0"):
    path = folder / f"{name}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


@pytest.mark.parametrize(
    "text",
    [
        "0\n2\n1 2 3 4 0.5\n5 6 7 8.25 1e-3\n",
        "0\r\n2\r\n1 2 3 4 0.5\r\n5 6 7 8.25 1e-3",
        "0.jpg\n 2 \n\n1,2,3,4,0.5\n 5\t6  7 8.25 0.001 99 nan \n\n\n",
        b"0--Event/0.jpg\n2\n+1 2.0 3. 4 .5\n5 6 7 8.25 0.001",
    ],
)
def test_well_formed_results_are_read_without_a_problem(tmp_path, text):
    result(tmp_path, text)
    problems = Problems()
    found = wider_face.read_detections(tmp_path, ["0--Event/0.jpg"], problems=problems)
    expected = [[1, 2, 3, 4, 0.5], [5, 6, 7, 8.25, 0.001]]
    np.testing.assert_array_equal(found["0--Event/0.jpg"], expected)
    assert problems.found == []


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("", 2, "expected the number of detections, received ''"),
        ("0\n", 2, "expected the number of detections, received ''"),
        ("0\nmany\n1 2 3 4 5\n", 2, "expected the number of detections, received 'many'"),
        ("0\n1.5\n1 2 3 4 5\n", 2, "expected the number of detections, received '1.5'"),
        ("0\n-1\n", 2, "expected the number of detections, received '-1'"),
        ("0\nnan\n", 2, "expected the number of detections, received 'nan'"),
        ("1 2 3 4 5\n1 2 3 4 5\n", 2, "expected the number of detections, received '1 2 3 4 5'"),
        ("0\n2\n1 2 3 4 5\n", 3, "expected 2 detections, the file ends after 1"),
        ("0\n1e18\n1 2 3 4 5\n", 3, "expected 1000000000000000000 detections, the file ends"),
        ("0\n1\n1 2 3 4\n", 3, "expected x y w h score, finite numbers, received '1 2 3 4'"),
        ("0\n2\n1 2 3 4 5\n1 2 x 4 5\n", 4, "expected x y w h score, finite numbers, received"),
        ("0\n1\n1 2 3 4 nan\n", 3, "expected x y w h score, finite numbers"),
        ("0\n1\ninf 2 3 4 1\n", 3, "expected x y w h score, finite numbers"),
        ("0\n1\n1_0 2 3 4 1\n", 3, "expected x y w h score, finite numbers"),
        ("0\n1\n٣ 2 3 4 1\n", 3, "expected x y w h score, finite numbers"),
        ("0\n1\n1 2 3 4 5\n".encode("utf-16"), 2, "expected the number of detections"),
        (bytes(range(256)), 3, "expected the number of detections"),
    ],
)
def test_a_malformed_result_file_gives_no_detections_and_a_message(tmp_path, text, line, message):
    path = result(tmp_path, text)
    problems = Problems()
    assert wider_face.read_detections(tmp_path, ["0--Event/0.jpg"], problems=problems) == {}
    assert problems.counts["malformed result file"] == 1
    problem = problems.found[0]
    assert problem.where == f"{path}:{line}"
    assert message in problem.message


@pytest.mark.parametrize(
    ("text", "kind", "line", "message"),
    [
        ("0\n1\n1 2 3 4 5\n6\n", "lines after the last detection", 4, "after 1 detections"),
        ("0\n0\n1 2 3 4 5\n", "lines after the last detection", 3, "after 0 detections"),
        ("other\n1\n1 2 3 4 5\n", "result file with another name inside", 1, "'other'"),
        ("0\n1\n1 2 -3 4 5\n", "negative size", 3, "'1 2 -3 4 5' is kept"),
    ],
)
def test_what_is_odd_in_a_result_file_is_reported_and_the_rest_is_used(
    tmp_path, text, kind, line, message
):
    path = result(tmp_path, text)
    problems = Problems()
    found = wider_face.read_detections(tmp_path, ["0--Event/0.jpg"], problems=problems)
    assert len(found["0--Event/0.jpg"]) == int(text.split("\n")[1])
    assert [(p.kind, p.where) for p in problems.found] == [(kind, f"{path}:{line}")]
    assert message in problems.found[0].message


def test_missing_and_superfluous_result_files_are_reported(tmp_path):
    result(tmp_path, "0\n0\n")
    result(tmp_path, "9\n0\n", "0--Event/9")
    problems = Problems()
    names = ["0--Event/0.jpg", "0--Event/1.jpg"]
    found = wider_face.read_detections(tmp_path, names, problems=problems)
    assert {name: rows.shape for name, rows in found.items()} == {"0--Event/0.jpg": (0, 5)}
    assert [(p.kind, p.where) for p in problems.found] == [
        ("no result file", str(tmp_path / "0--Event/1.txt")),
        ("result file of no image", str(tmp_path / "0--Event/9.txt")),
    ]


def test_a_folder_without_any_result_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"expected result files such as 0--Event/0\.txt, found"):
        wider_face.read_detections(tmp_path, ["0--Event/0.jpg"])


def test_nothing_outside_the_folder_of_results_is_read(tmp_path):
    outside = result(tmp_path, "0\n0\n", "secret/0")
    folder = tmp_path / "results"
    result(folder, "0\n0\n")
    (folder / "0--Event/1.txt").symlink_to(outside)
    problems = Problems()
    names = ["0--Event/0.jpg", "0--Event/1.jpg"]
    assert list(wider_face.read_detections(folder, names, problems=problems)) == names[:1]
    assert list(problems.counts) == ["path outside the results"]
    for name in (
        "../secret/0.jpg",
        "secret/../../x.jpg",
        "/secret/0.jpg",
        "a.jpg",
        "a\\..\\b/c.jpg",
    ):
        with pytest.raises(ValueError, match=r"expected an image as event/image\.jpg"):
            wider_face.read_detections(folder, [name])


finite = st.floats(-1e38, 1e38, allow_subnormal=True)


@settings(max_examples=25)
@given(st.lists(st.lists(st.tuples(*[finite] * 5), max_size=4), min_size=1, max_size=3))
def test_results_are_read_as_they_were_written_bit_by_bit(tmp_path_factory, images):
    folder = tmp_path_factory.mktemp("results") / "detector"
    written = {f"{i % 2}--Event/{i}.jpg": np.array(r).reshape(-1, 5) for i, r in enumerate(images)}
    wider_face.write_detections(written, folder)
    problems = Problems()
    read = wider_face.read_detections(folder, written, problems=problems)
    assert list(read) == list(written)
    for name, rows in written.items():
        assert read[name].tobytes() == rows.tobytes()
    assert set(problems.counts) <= {"negative size"}


def test_results_are_written_in_the_official_layout(tmp_path):
    folder = tmp_path / "results"
    rows = {"0--Event/0_a.jpg": [[1, 2, 3.5, 4, 0.1], [5, 6, 7, 8, 1e-7]], "1--E/b.jpg": []}
    wider_face.write_detections(rows, folder)
    files = {p.relative_to(folder).as_posix(): p.read_text() for p in folder.rglob("*.txt")}
    assert files == {
        "0--Event/0_a.txt": "0_a\n2\n1 2 3.5 4 0.1\n5 6 7 8 1e-07\n",
        "1--E/b.txt": "b\n0\n",
    }


def test_results_are_written_completely_or_not_at_all(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="expected finite numbers"):
        wider_face.write_detections({"a/b.jpg": [[1, 2, 3, 4, math.nan]]}, tmp_path / "results")
    monkeypatch.setattr(wider_face, "_text", lambda value: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        wider_face.write_detections({"a/b.jpg": [], "c/d.jpg": np.ones((1, 5))}, tmp_path / "r")
    assert list(tmp_path.iterdir()) == []


def test_results_are_not_mixed_with_older_ones(tmp_path):
    result(tmp_path, "0\n0\n")
    with pytest.raises(ValueError, match="expected an empty folder, or none"):
        wider_face.write_detections({"a/b.jpg": []}, tmp_path)
    (tmp_path / "empty").mkdir()
    wider_face.write_detections({"a/b.jpg": []}, tmp_path / "empty")
    assert (tmp_path / "empty/a/b.txt").is_file()


def test_the_records_of_a_detector_become_rows():
    boxes = np.array([[1, 2, 4, 8]], np.float32)
    found = Detections(boxes, np.array([0.5], np.float32), np.zeros(1, np.int32), (10, 10))
    assert wider_face.detections_to_rows(found).tolist() == [[1, 2, 3, 6, 0.5]]


# Curves ------------------------------------------------------------------------------------------


@pytest.fixture
def curves(random):
    truth, detections = large_set(random)
    return wider_face.evaluate(detections, truth)


def test_curves_are_read_as_they_were_written(curves, tmp_path):
    curves["easy"].precision[0] = np.nan
    wider_face.save_curves(curves, tmp_path, "ours")
    assert_same(wider_face.read_curves(tmp_path), curves)
    text = (tmp_path / "wider_pr_info_ours_easy_val.txt").read_text().split("\n")
    assert text[0] == f"NaN {curves['easy'].recall[0]:.17g}"
    assert len(text) == 1001


def test_curves_of_the_original_code_are_read_from_either_kind_of_mat_file(curves, tmp_path):
    h5py = pytest.importorskip("h5py")
    for difficulty, curve in curves.items():
        path = tmp_path / f"wider_pr_info_Ours_{difficulty}_val.mat"
        values = np.column_stack([curve.precision, curve.recall])
        if difficulty == "easy":  # as save(..., '-v7.3') does
            with h5py.File(path, "w", userblock_size=512) as file:
                file["pr_cruve"] = values.T
            with path.open("r+b") as file:
                file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(128))
        else:
            scipy.io.savemat(path, {"pr_cruve": values, "legend_name": "Ours"})
    assert_same(wider_face.read_curves(tmp_path), curves)


def test_what_is_no_curve_is_refused_by_name(curves, tmp_path):
    with pytest.raises(ValueError, match=r"expected one file wider_pr_info_.*, found none"):
        wider_face.read_curves(tmp_path)
    wider_face.save_curves(curves, tmp_path, "a")
    path = tmp_path / "wider_pr_info_a_easy_val.txt"
    for text, message in [
        ("1 2 3\n", r"expected rows of precision and recall, received \[1, 3\]"),
        ("0.5 2\n", "expected precision and recall from 0 to 1"),
        ("a b\n", "expected a precision-recall curve"),
    ]:
        path.write_text(text)
        with pytest.raises(ValueError, match=rf"wider_pr_info_a_easy_val\.txt: {message}"):
            wider_face.read_curves(tmp_path)
    path.unlink()
    for content in (b"", b"nonsense" * 50, b"MATLAB 7.3 MAT-file".ljust(600)):
        path.with_suffix(".mat").write_bytes(content)
        with pytest.raises(ValueError, match=r"wider_pr_info_a_easy_val\.mat: expected"):
            wider_face.read_curves(tmp_path)
    wider_face.save_curves(curves, tmp_path, "b")
    with pytest.raises(ValueError, match=r"found wider_pr_info_a_easy_val\.mat, wider_pr_info_b_"):
        wider_face.read_curves(tmp_path)


def test_the_plot_shows_every_detector_with_its_average_precision_cut_not_rounded(
    curves, tmp_path, drawn
):
    others = {d: Curve(np.full(1000, 0.9239), np.linspace(0, 1, 1000)) for d in DIFFICULTIES}
    wider_face.plot(curves, tmp_path / "plot.png", "ours", {"S3FD": others})
    [(figure, path, dpi)] = drawn
    assert (path, dpi) == (tmp_path / "plot.png", 120)
    assert figures.page(figure) == (16.5, 4.5, "ConstrainedLayoutEngine")
    for number, (axes, difficulty) in enumerate(zip(figure.axes, DIFFICULTIES, strict=True)):
        own = curves[difficulty]
        assert figures.described(axes) == {
            "title": f"{difficulty}, {own.num_faces:,} faces",
            "x": ("recall", "linear", 0, 1),
            "y": ("" if number else "precision", "linear", 0, 1),
            "grid": 0.3,
            "legend": ["S3FD 0.923", f"ours {own.average_precision:.9f}"[:10]],
            "legend size": pytest.approx(25 / 3, abs=0.01),
            "legend frame": True,
        }
        theirs, ours = figures.lines(axes)
        assert (ours["colour"], ours["width"], ours["order"]) == ("#000000", 2.5, 3)
        assert (theirs["colour"], theirs["width"], theirs["order"]) == ("#1f77b4", 1.5, 2)
        np.testing.assert_array_equal(ours["points"], np.stack([own.recall, own.precision], axis=1))
        assert np.asarray(theirs["points"])[-1].tolist() == [1, 0.9239]


def test_a_plot_leaves_out_another_detector_of_the_same_name_and_numbers_that_are_unknown(
    tmp_path, drawn
):
    curve = Curve(np.ones(1000), np.linspace(0, 1, 1000))
    wider_face.plot({"easy": curve}, tmp_path / "a.png", "S3FD", {"S3FD": {"easy": curve}})
    wider_face.plot({"easy": curve}, tmp_path / "a.png")
    (same, *_), (alone, *_) = drawn
    for figure, name in ((same, "S3FD"), (alone, "ours")):
        [axes] = figure.axes
        assert figures.described(axes)["legend"] == [f"{name} 1.000"]
        assert axes.get_title() == "easy"
        assert figures.page(figure)[:2] == (5.5, 4.5)


def test_the_plot_is_a_picture(curves, tmp_path):
    wider_face.plot(curves, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_drawing_says_what_it_needs(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    needs = r"drawing curves needs matplotlib: pip install 'unitbox_tf\[plots\]'"
    with pytest.raises(ImportError, match=f"^{needs}$"):
        wider_face.plot({}, tmp_path / "a.png")
