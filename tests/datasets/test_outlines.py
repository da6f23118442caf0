"""Numbers as files write them, and boxes of polygons and masks, beside those of pycocotools."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from unitbox_tf.datasets import outlines


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (5, 5.0),
        (5.5, 5.5),
        (" -5.5e1 ", -55.0),
        (".5", 0.5),
        ("5.", 5.0),
        ("", None),
        ("1_0", None),
        ("٣", None),
        ("nan", None),
        ("1e999", None),
        ("0x10", None),
        (True, None),
        (None, None),
        ([5], None),
        (float("nan"), None),
        (float("inf"), None),
        (10**400, None),
    ],
)
def test_only_plain_finite_numbers_are_numbers(value, expected):
    assert outlines.number(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("10,10,20,20", [10, 10, 20, 20]),
        ("[10.5, 10, 20, 2e1]", [10.5, 10, 20, 20]),
        ("(10; 10; 20; 20)", [10, 10, 20, 20]),
        ("10 10  20\t20", [10, 10, 20, 20]),
        (["10", 10, 20.0, " 20"], [10, 10, 20, 20]),
        ([[10, 10, 20, 20]], [10, 10, 20, 20]),
        ("10,10,,20", None),
        ("left,10,20,20", None),
        ([10, None], None),
        ({"x": 10}, None),
        (10, None),
        (None, None),
    ],
)
def test_lists_and_texts_of_numbers(value, expected):
    assert outlines.numbers(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, False),
        (1, True),
        (2.0, True),
        (True, True),
        (None, False),
        ("", False),
        ("0", False),
        ("1", True),
        ("False", False),
        ("true", True),
        ("perhaps", None),
        ([], None),
        (float("nan"), None),
    ],
)
def test_marks(value, expected):
    assert outlines.flag(value) is expected


SQUARE = [20, 20, 60, 20, 60, 70, 20, 70]


@pytest.mark.parametrize(
    "segmentation",
    [
        [SQUARE],
        SQUARE,
        [list(map(str, SQUARE))],
        [[20, 20, 60, 20, 60, 60], [40, 70, 41, 69, 42, 68]],
        [[20, 20], [60, 20], [60, 70]],
        [[[20, 20], [60, 20], [60, 70]]],
    ],
)
def test_the_box_of_polygons(segmentation):
    assert outlines.box_of(segmentation) == (20, 20, 60, 70)


@pytest.mark.parametrize(
    "segmentation",
    [
        None,
        [],
        [[]],
        [[], []],
        "polygon",
        [[20, 20, 60]],
        [[20, 20, 60], [60, 70, 20]],
        [20, 20, None, 70],
        [[20, 20, 60, 60], 5],
        [[20, 20, 60, float("nan")]],
        {},
        {"counts": [4, 4], "size": [4, 3]},
        {"counts": [12], "size": [4, 3]},
        {"counts": [4, -1, 9], "size": [4, 3]},
        {"counts": [4, 7.5, 0.5], "size": [4, 3]},
        {"counts": "~~", "size": [4, 3]},
        {"counts": "0P", "size": [4, 3]},
        {"counts": None, "size": [4, 3]},
        {"counts": [4, 8], "size": 12},
        {"counts": [4, 8], "size": [-4, -3]},
        {"counts": [1], "size": [1e200, 1e200]},
        [{"counts": [4, 8], "size": [4, 3]}, [20, 20, 60, 60]],
    ],
)
def test_what_is_no_outline(segmentation):
    assert outlines.box_of(segmentation) is None


def runs(mask):
    flat = np.concatenate([[0], mask.T.reshape(-1), [2]])
    ends = np.flatnonzero(np.diff(flat))
    lengths = np.diff(np.concatenate([[0], ends])).tolist()
    return lengths


@given(
    mask=arrays_of.arrays(
        np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 1)
    )
)
def test_the_box_of_a_mask_is_that_of_its_pixels(mask):
    rows, columns = np.nonzero(mask)
    expected = None
    if len(rows):
        expected = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    size = list(mask.shape)
    lengths = runs(mask)
    assert outlines.box_of({"counts": lengths, "size": size}) == expected
    coco_mask = pytest.importorskip("pycocotools.mask")
    packed = coco_mask.encode(np.asfortranarray(mask))
    text = packed["counts"].decode()
    assert outlines.box_of({"counts": text, "size": size}) == expected
    if expected:
        x, y, width, height = coco_mask.toBbox(packed)
        assert (x, y, x + width, y + height) == expected
        both = [{"counts": text, "size": size}, {"counts": lengths, "size": size}]
        assert outlines.box_of(both) == expected
