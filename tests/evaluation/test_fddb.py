"""The evaluation of FDDB against the official program's files, and against a second, plain implementation."""

import dataclasses
import math
import re
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers import figures
from unitbox_tf.evaluation import fddb
from unitbox_tf.problems import Problems

ALWAYS = 1.7976931348623157e308


# The official program's own files.


@pytest.fixture(scope="module")
def evaluated(data, tmp_path_factory):
    """`evaluated("s3fd")`: our and the official lines of both curves, and the seconds that ours took."""

    def run(name):
        parity = data("fddb/eval_parity")
        folds, dims = data("fddb/FDDB-folds"), data("fddb/image_dims_all2845.json")
        problems = Problems()
        began = time.process_time()
        curves = fddb.evaluate(
            fddb.read_detections(parity / f"fddb_{name}_result.txt", problems=problems),
            fddb.read_annotations(folds, problems=problems),
            fddb.read_sizes(dims),
            problems=problems,
        )
        seconds = time.process_time() - began
        assert not problems.found
        assert (curves.num_images, curves.num_faces) == (2845, 5171)
        written = fddb.save_curves(curves, tmp_path_factory.mktemp(name) / f"fddb_{name}_")
        official = [parity / path.name for path in written]
        return [
            (a.read_bytes(), b.read_bytes()) for a, b in zip(written, official, strict=True)
        ], seconds

    return run


def test_the_curves_of_mtcnn_are_the_official_files_byte_for_byte(evaluated):
    for ours, official in evaluated("mtcnn_lqy")[0]:
        assert ours == official


# Where the official assignment is not optimal for S3FD: in an image, from a threshold to another.
# With the scores there are in these ranges, that is 9 + 14 + 4 = 27 of 33,994 assignments.
NOT_OPTIMAL = {
    "2002/08/14/big/img_704": (0.053605862, 0.10406012),
    "2002/09/02/big/img_15659": (0.0, 0.056974795),
    "2002/08/22/big/img_408": (0.52692074, 0.6666968),
}


def test_the_curves_of_s3fd_are_official_but_where_three_images_are_not_optimal(evaluated):
    (discrete, continuous), seconds = evaluated("s3fd")
    lines = [[text.decode().splitlines() for text in pair] for pair in (discrete, continuous)]
    ours, official = (np.loadtxt(text) for text in lines[0])
    assert len(ours) == len(official) == 30571
    hits = np.rint((ours[:, 0] - official[:, 0]) * 5171)
    assert set(hits) == {0, 1}
    np.testing.assert_array_equal(official[:, 1] - ours[:, 1], hits)
    np.testing.assert_array_equal(ours[:, 2], official[:, 2])
    assert np.count_nonzero(hits) == 149
    # Only img_408 gains or loses a true positive.
    low, high = NOT_OPTIMAL["2002/08/22/big/img_408"]
    assert ours[hits > 0, 2].min() > low - 1e-6
    assert ours[hits > 0, 2].max() < high + 1e-6

    overlap, official_overlap = (np.loadtxt(text)[:, 0] for text in lines[1])
    assert (overlap >= official_overlap).all()
    assert (overlap - official_overlap).max() < 1.1e-4
    # To six digits nothing differs outside the three images' ranges.
    threshold = ours[:, 2]
    ranges = [(low - 1e-6, high + 1e-6) for low, high in NOT_OPTIMAL.values()]
    outside = ~np.any([(threshold > a) & (threshold < b) for a, b in ranges], axis=0)
    assert outside.sum() > 4000
    for pair in lines:
        for a, b in zip(np.array(pair[0])[outside], np.array(pair[1])[outside], strict=True):
            assert a == b

    # The official program took 19 s of one core.
    assert seconds < 19


def test_the_three_images_have_27_thresholds_that_are_not_optimal(data):
    path = data("fddb/eval_parity") / "fddb_s3fd_result.txt"
    detections = fddb.read_detections(path)
    counts = [
        len({s for s in detections[name][:, -1] if low + 1e-8 < s < high + 1e-7})
        for name, (low, high) in NOT_OPTIMAL.items()
    ]
    assert counts == [9, 14, 4]


def test_a_subset_of_folds_is_judged_alone_and_the_rest_is_named(data):
    folds, problems = data("fddb/FDDB-folds"), Problems()
    parity = data("fddb/eval_parity") / "fddb_mtcnn_lqy_result.txt"
    detections = fddb.read_detections(parity, problems=problems)
    annotations = fddb.read_annotations(folds, [8], problems=problems)
    sizes = fddb.read_sizes(data("fddb/image_dims_all2845.json"))
    chosen = {name: detections[name] for name in annotations}
    expected = fddb.evaluate(chosen, annotations, sizes, problems=problems)
    assert not problems.found
    curves = fddb.evaluate(detections, annotations, sizes, problems=problems)
    np.testing.assert_array_equal(curves.discrete, expected.discrete)
    assert problems.counts["detections of an image that is not annotated"] == 2845 - len(chosen)


def test_the_headers_of_photos_give_the_sizes_of_the_json(data):
    sizes = fddb.read_sizes(data("fddb/image_dims_all2845.json"))
    photos = data("fddb/originalPics")
    names = [str(p.relative_to(photos).with_suffix("")) for p in sorted(photos.rglob("*.jpg"))]
    problems = Problems()
    assert fddb.sizes_of_photos(photos, names[::10], problems=problems) == {
        n: sizes[n] for n in names[::10]
    }
    assert not problems.found


# A second implementation, plainly from the rules: whole masks, every pairing, every threshold.


def plain_mask(row, size):
    mask = np.zeros(size, np.uint8)
    if len(row) == 4:
        x, y, width, height = row
        near = [round(float(np.float32(value))) for value in (x, y)]
        far = [round(float(np.float32(value))) for value in (x + width, y + height)]
        cv2.rectangle(mask, near, far, 1, cv2.FILLED)
    else:
        ra, rb, theta, x, y = row
        centre = [round(float(np.float32(value))) for value in (x, y)]
        angle = theta * 180 / math.pi
        cv2.ellipse(mask, centre, (int(ra), int(rb)), angle, 0, 360, 1, cv2.FILLED)
    return mask > 0


def plain_overlap(detection, face, size):
    a, b = plain_mask(detection, size), plain_mask(face, size)
    either = (a | b).sum()
    return float((a & b).sum() / either) if either else 0.0


def plain_pairings(overlaps):
    """All ways to pair rows with columns one to one, as (sum of overlaps, pairs above 0.5)."""
    if not overlaps or not overlaps[0]:
        return [(0.0, 0)]
    rest = [row[1:] for row in overlaps]
    found = plain_pairings(rest)
    for k, row in enumerate(overlaps):
        if row[0] > 0:
            others = plain_pairings(rest[:k] + rest[k + 1 :])
            found += [(total + row[0], hits + (row[0] > 0.5)) for total, hits in others]
    return found


def plain_result(detections, faces, size):
    """For each distinct score: number of detections, best sum, and least and most hits of best pairings."""
    overlaps = [[plain_overlap(d[:-1], face, size) for face in faces] for d in detections]
    result = {}
    for score in {d[-1] for d in detections}:
        valid = [row for row, d in zip(overlaps, detections, strict=True) if d[-1] >= score]
        pairings = plain_pairings(valid)
        best = max(total for total, _ in pairings)
        hits = [hits for total, hits in pairings if total > best - 1e-9]
        result[score] = (len(valid), best, min(hits), max(hits))
    return result


def plain_rows(results):
    thresholds = sorted(
        {score for r in results for score in r} | {ALWAYS for r in results if not r}
    )
    for threshold in thresholds:
        own = [min((s for s in r if s >= threshold), default=None) for r in results]
        parts = [r[score] for r, score in zip(results, own, strict=True) if score is not None]
        yield threshold, *(sum(column) for column in zip((0, 0, 0, 0), *parts, strict=True))


SIZES = st.tuples(st.integers(5, 40), st.integers(5, 40))
# Whole and half pixels are where rounding decides.
PLACES = st.one_of(st.integers(-20, 50), st.integers(-40, 100).map(lambda n: n / 2))
PLACES = st.one_of(PLACES, st.floats(-20, 50))
LENGTHS = st.one_of(st.just(0), st.integers(0, 30), st.floats(0, 30))
SCORES = st.sampled_from([-1.5, 0.0, 0.25, 0.5, 0.9])  # few, so that there are ties
ELLIPSES = st.tuples(LENGTHS, LENGTHS, st.floats(-7, 7), PLACES, PLACES)
RECTANGLE_ROWS = st.lists(st.tuples(PLACES, PLACES, LENGTHS, LENGTHS, SCORES), max_size=5)
ELLIPSE_ROWS = st.lists(st.tuples(ELLIPSES, SCORES).map(lambda e: (*e[0], e[1])), max_size=5)
IMAGES = st.tuples(SIZES, st.lists(ELLIPSES, max_size=3), st.one_of(RECTANGLE_ROWS, ELLIPSE_ROWS))


def table(rows, columns):
    return np.array(rows, np.float64).reshape(-1, columns)


@given(images=st.lists(IMAGES, min_size=1, max_size=4))
def test_curves_are_those_of_a_plain_implementation(images):
    images.append(((9, 9), [(2, 3, 0, 4, 4)], []))  # there is always a face
    sizes = {f"{n}": size for n, (size, _, _) in enumerate(images)}
    annotations = {f"{n}": table(faces, 5) for n, (_, faces, _) in enumerate(images)}
    detections = {
        f"{n}": table(rows, len(rows[0]) if rows else 5) for n, (_, _, rows) in enumerate(images)
    }
    curves = fddb.evaluate(detections, annotations, sizes)
    num_faces = sum(len(faces) for _, faces, _ in images)
    expected = list(plain_rows([plain_result(rows, f, size) for size, f, rows in images]))
    assert curves.discrete[:, 2].tolist() == [row[0] for row in expected]
    assert curves.continuous[:, 1].tolist() == curves.discrete[:, 1].tolist()
    assert curves.num_faces == num_faces
    for (rate, wrong, _), (overlap, _), row in zip(
        curves.discrete, curves.continuous, expected, strict=True
    ):
        _, valid, best, least, most = row
        hits = round(rate * num_faces)
        assert rate == hits / num_faces
        # Where several pairings are best, any is right.
        assert least <= hits <= most
        assert wrong == valid - hits
        assert overlap * num_faces == pytest.approx(best, abs=1e-9)


def test_many_detections_of_crowded_faces_are_paired_as_by_trying_everything(random):
    size = (60, 60)
    for _ in range(6):
        faces = np.stack([random.uniform(*r, 4) for r in ((8, 18), (6, 14), (-3, 3))], axis=1)
        faces = np.concatenate([faces, random.uniform(20, 40, (4, 2))], axis=1)
        rows = np.concatenate([random.uniform(5, 25, (8, 2)), random.uniform(10, 35, (8, 2))], 1)
        rows = np.concatenate([rows, random.integers(0, 6, (8, 1))], axis=1)
        result = fddb.evaluate_image(rows, faces, size)
        expected = plain_result(rows.tolist(), faces.tolist(), size)
        assert result.thresholds.tolist() == sorted(expected, reverse=True)
        for score, hits, wrong, overlap in zip(
            result.thresholds,
            result.true_positives,
            result.false_positives,
            result.overlap,
            strict=True,
        ):
            valid, best, least, most = expected[score]
            assert overlap == pytest.approx(best)
            assert least <= hits <= most
            assert hits + wrong == valid


# Drawing, by hand.


def rectangle_area(*row, size=(100, 100)):
    x0, y0, x1, y1 = fddb.rectangle_pixels(np.array([row], float), size)[0]
    return (x1 - x0) * (y1 - y0)


def test_a_rectangle_includes_the_pixels_of_both_corners():
    assert rectangle_area(10, 20, 5, 3) == 24
    assert rectangle_area(10, 20, 0, 0) == 1
    # OpenCV draws from one corner to the other, whichever comes first.
    assert rectangle_area(15, 23, -5, -3) == 24


def test_a_rectangle_is_cut_to_the_image():
    assert rectangle_area(-5, -5, 7, 6) == 6  # columns 0 to 2, rows 0 to 1
    assert rectangle_area(98, 50, 9, 0) == 2
    for outside in ((-20, 5, 19, 5), (100, 5, 9, 9), (5, -9, 3, 8), (5, 100, 3, 3)):
        assert rectangle_area(*outside) == 0


def test_corners_are_rounded_half_to_even_as_float32():
    def columns(x, width):
        x0, _, x1, _ = fddb.rectangle_pixels(np.array([[x, 0, width, 0.0]]), (9, 9))[0]
        return list(range(x0, x1))

    assert columns(0.5, 2) == [0, 1, 2]
    assert columns(1.5, 1) == [2]
    assert columns(0.5 + 1e-9, 0) == [0]  # 0.5 as float32


def ellipse_area(*row, size=(100, 100)):
    """The pixels of an ellipse, measured by its overlap with the whole image."""
    whole = np.array([[0, 0, size[1], size[0], 1.0]])
    overlap = fddb.overlaps(whole, np.array([row], float), size)[0, 0]
    return round(overlap * size[0] * size[1])


def test_an_ellipse_has_whole_half_axes_and_its_outline():
    assert ellipse_area(0.9, 0.9, 0, 50, 50) == 1
    assert ellipse_area(3.99, 0.5, 0, 50, 50) == 7
    assert ellipse_area(20, 10, 0.3, 50, 50) == ellipse_area(20.9, 10.9, 0.3, 50, 50)
    assert 1 < ellipse_area(20, 20, 0, 50, 50) / (math.pi * 20**2) < 1.1


def test_an_ellipse_is_turned_by_whole_degrees_from_the_x_axis():
    def pixels(angle, half_axes=(15, 6)):
        region = fddb._draw_ellipse(np.array([*half_axes, angle, 20, 20]), (41, 41))
        rows, columns = np.nonzero(region.mask)
        return {
            (int(y), int(x)) for y, x in zip(rows + region.top, columns + region.left, strict=True)
        }

    assert pixels(math.pi / 2, (10, 0)) == {(y, 20) for y in range(10, 31)}
    for angle in (0.2, 0.2 + 2 * math.pi, 0.2 - math.pi):  # 0.2 is 11.46 degrees
        assert pixels(angle) == pixels(math.radians(11))


@given(row=ELLIPSES, size=SIZES)
def test_a_mask_as_small_as_can_be_holds_the_pixels_of_the_whole_one(row, size):
    region = fddb._draw_ellipse(np.array(row), size)
    mask = np.zeros(size, bool)
    (height, width), top, left = region.mask.shape, region.top, region.left
    mask[top : top + height, left : left + width] = region.mask
    np.testing.assert_array_equal(mask, plain_mask(row, size))


def test_an_ellipse_outside_the_image_overlaps_nothing():
    assert ellipse_area(5, 5, 0, -20, 50) == 0
    far = fddb.overlaps(np.array([[5, 5, 0, -20, 50, 1.0]]), np.array([[5, 5, 0, -20, 50]]), (9, 9))
    assert far.tolist() == [[0.0]]
    assert ellipse_area(1e6, 1e6, 0, 50, 50) == 100 * 100


DOT = (0.0, 0.0, 0.0, 2.0, 2.0)  # a face of the pixel (2, 2)
SIZE = (10, 10)


def test_half_an_overlap_is_not_a_true_positive_but_counts_in_the_continuous_score():
    result = fddb.evaluate_image(np.array([[2, 2, 1, 0, 0.7]]), np.array([DOT]), SIZE)
    assert (result.true_positives, result.false_positives, result.overlap) == ([0], [1], [0.5])


def test_curves_by_hand(tmp_path):
    curves = fddb.evaluate(
        {"a": np.array([[7, 7, 1, 1, 0.5], [2, 2, 0, 0, 0.9]]), "b": np.zeros((0, 5))},
        {"a": np.array([DOT]), "b": np.array([DOT, DOT])},
        {"a": SIZE},
    )
    paths = fddb.save_curves(curves, tmp_path / "x_")
    assert [path.name for path in paths] == ["x_DiscROC.txt", "x_ContROC.txt"]
    # The faces of the image without detections count, and it adds the last row.
    assert paths[0].read_text() == "0.333333 1 0.5\n0.333333 0 0.9\n0 0 1.79769e+308\n"
    assert paths[1].read_text() == "0.333333 1\n0.333333 0\n0 0\n"
    assert (curves.num_images, curves.num_faces, curves.num_detections) == (2, 3, 2)


def test_a_face_gives_way_to_a_larger_sum():
    # Faces are the pixels (2, 2) and (3, 2): the better detection of the second is worth less than
    # what the other loses.
    faces = np.array([DOT, (0, 0, 0, 3, 2)])
    rows = np.array([[2, 2, 0, 0, 0.9], [2, 2, 1, 0, 0.8]])
    result = fddb.evaluate_image(rows, faces, SIZE)
    assert result.overlap.tolist() == [1.0, 1.5]
    assert result.true_positives.tolist() == [1, 1]


# Files.

RECTANGLES = {
    "2002/a/img_1": table([[1.1, 2, 3, 4, 1 / 3], [5, 6, 7, 8, -2e-17]], 5),
    "b/2": table([], 5),
}
FINITE = st.floats(-1e6, 1e6, allow_subnormal=False)


@given(
    rows=st.lists(
        st.tuples(FINITE, FINITE, st.floats(0, 1e6), st.floats(0, 1e6), st.floats(-1e300, 1e300))
    )
)
def test_rectangles_read_are_those_written(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("results") / "out.txt"
    problems = Problems()
    written = {"a/1": table(rows, 5), "a/2": table([], 5)}
    fddb.write_detections(written, path)
    found = fddb.read_detections(path, problems=problems)
    assert list(found) == ["a/1", "a/2"]
    for name in found:
        np.testing.assert_array_equal(found[name], written[name])
    assert not problems.found


def test_ellipses_read_are_those_written(tmp_path):
    written = {"a/1": table([], 5), "a/2": table([[1.5, 2.5, 0.1, 30, 1 / 7, 0.9]], 6)}
    fddb.write_detections(written, tmp_path / "out.txt")
    found = fddb.read_detections(tmp_path / "out.txt")
    np.testing.assert_array_equal(found["a/2"], written["a/2"])
    assert found["a/1"].shape == (0, 6)


def test_ten_files_hold_the_images_of_their_folds(tmp_path):
    folds = {1: ["b/2", "c/3"], 8: ["2002/a/img_1"]}
    fddb.write_detections(RECTANGLES, tmp_path / "out", folds)
    assert (tmp_path / "out/fold-01-out.txt").read_text() == "b/2\n0\nc/3\n0\n"
    found = fddb.read_detections(tmp_path / "out")
    assert list(found) == ["b/2", "c/3", "2002/a/img_1"]
    np.testing.assert_array_equal(found["2002/a/img_1"], RECTANGLES["2002/a/img_1"])


def test_what_cannot_be_written_is_refused(tmp_path):
    path = tmp_path / "out"
    with pytest.raises(ValueError, match=r"in none of the folds, '2002/a/img_1' is one"):
        fddb.write_detections(RECTANGLES, path, {1: ["b/2"]})
    with pytest.raises(ValueError, match="only rectangles or only ellipses"):
        fddb.write_detections({"a": np.ones((1, 5)), "b": np.ones((1, 6))}, path)
    with pytest.raises(ValueError, match="name on one line"):
        fddb.write_detections({"a\n1": np.ones((1, 5))}, path)
    with pytest.raises(ValueError, match="finite numbers"):
        fddb.write_detections({"a": np.array([[1, 1, 1, 1, np.nan]])}, path)
    assert not path.exists()


LINES = ["a/1", "2", "1 2 3 4 0.5", "5 6 7 8 0.4", "a/2", "1", "1 1 1 1 1"]


def changed(**lines):
    text = list(LINES)
    for number, line in lines.items():
        text[int(number[4:]) - 1] = line
    return "\n".join(text)


@pytest.mark.parametrize(
    ("text", "message", "kept"),
    [
        (changed(line3="1 2 3 4"), r":3: expected 5 or 6 numbers, received '1 2 3 4'", [1, 1]),
        (changed(line3="1 2 x 4 5"), r":3: expected 5 or 6 numbers, received '1 2 x 4 5'", [1, 1]),
        (changed(line4="1 2 3 4 nan"), r":4: expected 5 or 6 numbers", [1, 1]),
        (changed(line4="1 2 inf 4 1"), r":4: expected 5 or 6 numbers", [1, 1]),
        (changed(line4="1 2 3 4 5 6"), r":4: expected 5 numbers, most rows being rect", [1, 1]),
        (changed(line4="9 9 2000000 1 1"), r":4: expected lengths up to 1e\+06", [1, 1]),
        (changed(line4="9 9 -3 1 1"), r":4: expected a width and height from 0, .*; kept", [2, 1]),
        (changed(line2="many"), r":2: expected a count of objects, received 'many'", [1]),
        (changed(line6="2"), r":6: expected 2 lines of objects, the file ends after 1", [2, 1]),
        (changed(line5="a/1"), r":5: 'a/1' was listed before", [2]),
        (changed(line2="\ufffd2"), r":2: expected a count of objects", [1]),
    ],
)
def test_a_malformed_line_is_named_and_the_rest_kept(tmp_path, text, message, kept):
    path, problems = tmp_path / "result.txt", Problems()
    path.write_text(text, encoding="utf-8")
    found = fddb.read_detections(path, problems=problems)
    assert [len(rows) for rows in found.values()] == kept
    (problem,) = problems.found
    assert str(problem).startswith(str(path))
    assert re.search(message, str(problem))


def test_ellipses_with_negative_half_axes_are_named(tmp_path):
    path, problems = tmp_path / "result.txt", Problems()
    path.write_text("a/1\n2\n5 -4 0 9 9 1\n5 4 0 9 9 1\n")
    assert len(fddb.read_detections(path, problems=problems)["a/1"]) == 1
    assert "result.txt:3: expected half axes from 0" in str(problems.found[0])


def test_a_result_that_is_not_there_is_refused(tmp_path):
    for path in (tmp_path, tmp_path / "none.txt"):
        with pytest.raises(
            ValueError, match=r"expected a result file, or a folder with fold-01-out"
        ):
            fddb.read_detections(path)


def test_annotations_keep_the_order_of_the_folds_and_name_what_is_wrong(tmp_path):
    (tmp_path / "FDDB-fold-02-ellipseList.txt").write_text("z/1\n1\n9 8 0.5 7 6  1\n")
    (tmp_path / "FDDB-fold-03-ellipseList.txt").write_text(
        "a/1\n3\n9 8 0.5 7 6  1\n9 8 7\n-1 8 0 7 6 1\nz/1\n0\n"
    )
    problems = Problems()
    annotations = fddb.read_annotations(tmp_path, [2, 3, 4], problems=problems)
    assert list(annotations) == ["z/1", "a/1"]
    assert annotations["a/1"].tolist() == [[9, 8, 0.5, 7, 6]]
    places = [(problem.kind, Path(problem.where).name) for problem in problems.found]
    assert places == [
        ("malformed line", "FDDB-fold-03-ellipseList.txt:4"),
        ("impossible ellipse", "FDDB-fold-03-ellipseList.txt:5"),
        ("image listed twice", "FDDB-fold-03-ellipseList.txt:6"),
        ("fold listed but absent", "FDDB-fold-04-ellipseList.txt"),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ("[1]", "expected a json object"),
        ('{"a": 3}', r"'a': expected \[width, height\]. Received: 3"),
        ('{"a": [3, 0]}', "'a': expected sides in whole pixels above 0"),
        ('{"a": [3.5, 2]}', "'a': expected sides in whole pixels above 0"),
        ('{"a": [100000, 100000]}', "'a': expected at most 67108864 pixels"),
        (" " * 17_000_000, "a file of at most 16,777,216 bytes"),
    ],
)
def test_sizes_that_are_none_are_named(tmp_path, text, message):
    path = tmp_path / "sizes.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        fddb.read_sizes(path)


def test_sizes_are_heights_and_widths(tmp_path):
    (tmp_path / "sizes.json").write_text('{"a/1": [30, 20]}')
    assert fddb.read_sizes(tmp_path / "sizes.json") == {"a/1": (20, 30)}


def test_photos_give_their_sizes_and_no_file_outside_is_read(tmp_path):
    image = pytest.importorskip("PIL.Image")
    folder = tmp_path / "photos"
    folder.mkdir()
    image.new("RGB", (30, 20)).save(folder / "a.jpg")
    turned = image.Exif()
    turned[0x0112] = 6
    image.new("RGB", (30, 20)).save(folder / "turned.jpg", exif=turned)
    image.new("RGB", (30, 20)).save(tmp_path / "secret.jpg")
    (folder / "broken.jpg").write_bytes(b"no image")
    problems = Problems()
    names = ["a", "turned", "../secret", "broken", "none"]
    sizes = fddb.sizes_of_photos(folder, names, problems=problems)
    assert sizes == {"a": (20, 30), "turned": (30, 20)}
    assert [problem.kind for problem in problems.found] == [
        "path outside the data set",
        "image that cannot be read",
        "image listed but absent",
    ]


# What `evaluate` is given.


def test_images_that_only_one_side_has_are_named():
    problems = Problems()
    curves = fddb.evaluate(
        {"a": np.array([[2, 2, 0, 0, 0.9]]), "c": np.array([[2, 2, 0, 0, 0.8]])},
        {"a": np.array([DOT]), "b": np.array([DOT])},
        {"a": SIZE, "b": SIZE, "c": SIZE},
        problems=problems,
    )
    assert curves.discrete.tolist() == [[0.5, 0, 0.9], [0, 0, ALWAYS]]
    assert [(p.kind, p.where) for p in problems.found] == [
        ("detections of an image that is not annotated", "c"),
        ("image without result", "b"),
    ]


@pytest.mark.parametrize(
    ("rows", "faces", "sizes", "message"),
    [
        (np.ones((1, 5)), [], {"a": SIZE}, "Expected annotated faces. Received: none in 1 images"),
        (np.ones((1, 5)), [DOT], {}, "a: expected the size of each image with detections"),
        (np.ones((1, 5)), [DOT], {"a": (0, 3)}, "a: expected sides in whole pixels above 0"),
        (np.ones((1, 4)), [DOT], {"a": SIZE}, r"a: expected detections \[K, 5 or 6\]"),
        (np.full((1, 5), np.nan), [DOT], {"a": SIZE}, "a: expected finite numbers"),
        (np.full((1, 6), np.inf), [DOT], {"a": SIZE}, "a: expected finite numbers"),
        (np.full((1, 5), 1e7), [DOT], {"a": SIZE}, "a: .*pixels up to 1e"),
        (np.full((1, 6), -1.0), [DOT], {"a": SIZE}, "a: expected half axes from 0"),
        (np.ones((1, 5)), [DOT[:4]], {"a": SIZE}, r"a: expected ellipses \[N, 5\]"),
    ],
)
def test_arrays_that_cannot_be_judged_are_refused(rows, faces, sizes, message):
    with pytest.raises(ValueError, match=message):
        fddb.evaluate({"a": rows}, {"a": np.array(faces)}, sizes)


def test_rectangles_become_upright_ellipses_within():
    rows = fddb.rectangles_to_ellipses(np.array([[10, 20, 6, 8, 0.5]]))
    np.testing.assert_allclose(rows, [[4, 3, math.pi / 2, 13, 24, 0.5]])
    rows = fddb.rectangles_to_ellipses(
        np.array([[10, 20, 6, 8, 0.5]]), scale=2 / math.sqrt(math.pi)
    )
    assert math.pi * rows[0, 0] * rows[0, 1] == pytest.approx(6 * 8)


# Curves.


def test_a_curve_read_is_that_written_to_six_digits(tmp_path, random):
    rows = np.sort(random.uniform(0, 1, (50, 3)), axis=0)
    curves = fddb.Curves(rows, rows[:, :2], 1, 1, 50)
    for path, expected in zip(
        fddb.save_curves(curves, tmp_path / "a"), (rows, rows[:, :2]), strict=True
    ):
        np.testing.assert_allclose(fddb.read_curve(path), expected, rtol=5e-6)
        again = fddb.Curves(
            fddb.read_curve(path)[:, [0, 1, 1]], fddb.read_curve(path)[:, :2], 1, 1, 1
        )
        text = fddb.save_curves(again, tmp_path / "b")[1].read_text()
        assert text.split() == [w for line in path.open() for w in line.split()[:2]]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0.9 20 0.1\n0.5 0 1.79769e+308\n", [[0.9, 20, 0.1], [0.5, 0, 1.79769e308]]),
        ("0.9\t20\r\n\r\n0.5 0", [[0.9, 20], [0.5, 0]]),  # tabs, CRLF, blank lines, no last newline
        ("20 0.9\n0 0.5\n", [[0.9, 20], [0.5, 0]]),  # false positives first
        ("0.5 0.000\n0.9 20.000\n", [[0.5, 0], [0.9, 20]]),  # ascending
        ("0.9 20 0.1 5171\n", [[0.9, 20, 0.1]]),  # number of faces
        ("1 1 0.5\n0.5 0 1\n", [[1, 1, 0.5], [0.5, 0, 1]]),
    ],
)
def test_the_forms_of_published_curves_are_read(tmp_path, text, expected):
    (tmp_path / "curve.txt").write_bytes(text.encode())
    assert fddb.read_curve(tmp_path / "curve.txt").tolist() == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0.5 1\n0.5\n", r"curve.txt:2: expected 2 to 4 numbers. Received: '0.5'"),
        ("0.5 1\nx 3\n", "curve.txt:2: expected 2 to 4 numbers. Received: 'x 3'"),
        ("0.5 nan\n", "curve.txt:1: expected 2 to 4 numbers"),
        ("0.5 1\n0.5 1 1\n", "curve.txt:2: expected 2 numbers, as in the first row"),
        ("\n", "curve.txt: expected rows of a curve"),
    ],
)
def test_what_is_not_a_curve_is_named(tmp_path, text, message):
    (tmp_path / "curve.txt").write_text(text)
    with pytest.raises(ValueError, match=message):
        fddb.read_curve(tmp_path / "curve.txt")


def test_the_rate_at_a_number_of_false_positives_is_the_best_up_to_it():
    curve = np.array([[0.9, 30], [0.8, 9], [0.85, 10]])
    assert fddb.rate_at(curve, 10) == 0.85
    assert fddb.rate_at(curve, 9.5) == 0.8
    assert fddb.rate_at(curve, 5) == 0.0


@pytest.mark.parametrize("score", ["discrete", "continuous"])
def test_a_curve_is_drawn_over_published_ones(drawn, tmp_path, score):
    rows = np.array([[0.9, 1500, 0.1], [0.5, 0, 1]])
    curves = fddb.Curves(rows, rows[:, :2], 1, 2, 2)
    (tmp_path / "other.txt").write_text("0.7 900\n0.2 0\n")
    fddb.plot({"one": curves}, tmp_path / "alone.png", score=score)
    others = {"other": tmp_path / "other.txt"}
    fddb.plot({"one": curves, "two": curves}, tmp_path / "both.png", score=score, others=others)
    complete = dataclasses.replace(curves, num_images=fddb.NUM_IMAGES)
    fddb.plot({"one": complete}, tmp_path / "all.png", score=score, others=others)
    (alone, *_), (both, path, dpi), (whole, *_) = drawn
    assert (path, dpi) == (tmp_path / "both.png", 120)
    assert figures.page(both) == (10, 5.5, "ConstrainedLayoutEngine")
    title = f"FDDB, {score} score, 1 images, 2 faces"
    not_all = "\nNot all of FDDB: not to be compared with the published curves"
    axis = "true positive rate" if score == "discrete" else "overlap / faces"
    assert figures.described(both.axes[0]) == {
        "title": title + not_all,
        "x": ("false positives", "linear", 0, 2000),
        "y": (axis, "linear", 0, 1),
        "grid": 0.3,
        "legend": ["0.900 one", "0.900 two", "0.700 other"],
        "legend size": 7,
        "legend frame": False,
    }
    assert alone.axes[0].get_title() == title
    assert whole.axes[0].get_title() == title.replace("1 images", "2845 images")
    one, two, other = figures.lines(both.axes[0])
    assert one["points"] == two["points"] == [[1500, 0.9], [0, 0.5]]
    assert other["points"] == [[900, 0.7], [0, 0.2]]
    assert [line["style"] for line in (one, two, other)] == ["-", "--", "-"]
    assert [line["colour"] == "#000000" for line in (one, two, other)] == [True, True, False]
    assert [(line["width"], line["order"]) for line in (one, two, other)] == [(2.5, 3)] * 2 + [
        (1, 2)
    ]


def test_curves_of_many_detectors_have_a_tall_drawing_with_colours_of_their_own(drawn, tmp_path):
    rows = np.array([[0.9, 1500], [0.5, 0]])
    curves = {"ours": fddb.Curves(rows, rows, 1, 2, 2)}
    others = {f"other {n}": tmp_path / f"{n}.txt" for n in range(39)}
    for n, path in enumerate(others.values()):
        path.write_text(f"0.{n + 10} 60\n0.001 40\n")
    fddb.plot(curves, tmp_path / "all.png", others=others, max_false_positives=50)
    [(figure, *_)] = drawn
    assert figures.page(figure)[1] == pytest.approx(0.18 * 40)
    assert figures.described(figure.axes[0])["x"] == ("false positives", "linear", 0, 50)
    labels = figures.described(figure.axes[0])["legend"]
    assert labels[:2] == ["0.500 ours", "0.001 other 0"]
    assert len({line["colour"] for line in figures.lines(figure.axes[0])}) == 40


def test_a_score_that_is_neither_is_refused(tmp_path):
    rows = np.array([[0.9, 15, 0.1]])
    with pytest.raises(ValueError, match="Expected 'discrete' or 'continuous'"):
        fddb.plot({"one": fddb.Curves(rows, rows, 1, 1, 1)}, tmp_path / "a.png", score="roc")


def test_drawing_says_what_it_needs(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    needs = r"drawing curves needs matplotlib: pip install 'unitbox_tf\[plots\]'"
    with pytest.raises(ImportError, match=f"^{needs}$"):
        fddb.plot({}, tmp_path / "a.png")
    for module in ("scipy.optimize", "scipy.sparse.csgraph"):
        monkeypatch.setitem(sys.modules, module, None)
    needs = r"FDDB's protocol needs scipy: pip install 'unitbox_tf\[fddb\]'"
    with pytest.raises(ImportError, match=f"^{needs}$"):
        fddb.require()
    with pytest.raises(ImportError, match=f"^{needs}$"):
        fddb.evaluate_image(np.array([[2, 2, 1, 1, 0.7]]), np.array([DOT]), SIZE)
