import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from unitbox_tf.datasets import synthetic
from unitbox_tf.datasets.summary import Measured, Quartiles, Summary, measure
from unitbox_tf.problems import Problems
from unitbox_tf.records import Annotation


def image(boxes, classes, ignore, size=(100, 200)):
    return Annotation("a", b"", boxes, classes, ignore, size=size)


@st.composite
def annotations(draw):
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    found = []
    for _ in range(draw(st.integers(0, 6))):
        count = generator.integers(0, 5)
        corners = generator.uniform(0, 50, (count, 2))
        boxes = np.concatenate([corners, corners + generator.uniform(1, 50, (count, 2))], axis=1)
        ignore = generator.random(count) < 0.3
        found.append(image(boxes, generator.integers(0, 3, count), ignore))
    return found


@hypothesis.given(annotations(), st.integers(0, 6))
def test_counts_are_those_of_plain_loops_and_parts_add_up(found, cut):
    names = ("a", "b", "c")
    summary = Summary.of("x", measure(found), names)
    objects = [(k, int(c)) for k, a in enumerate(found) for c in a.classes[~a.ignore]]
    assert summary.images == len(found)
    assert summary.objects == len(objects)
    assert summary.ignored == sum(int(a.ignore.sum()) for a in found)
    assert summary.without_objects == len(found) - len({k for k, _ in objects})
    for label, name in enumerate(names):
        mine = [k for k, c in objects if c == label]
        assert summary.classes[name] == len(mine)
        assert summary.images_of_classes[name] == len(set(mine))
    joined = Measured.join([measure(found[:cut]), measure(found[cut:])])
    assert Summary.of("x", joined, names) == summary


def test_the_sides_of_an_object_are_those_of_its_box():
    found = measure([image([[0, 0, 30, 10], [5, 5, 7, 50]], None, None)])
    np.testing.assert_array_equal(found.sides, [[30, 10], [45, 2]])
    sides, images = found.of_known_size
    np.testing.assert_array_equal(images, [200, 200])
    assert len(sides) == 2


@pytest.mark.parametrize(
    ("size", "odd"), [((32, 160), False), ((31, 40), True), ((100, 501), True), ((501, 100), True)]
)
def test_images_of_odd_sizes_are_problems(size, odd):
    problems = Problems()
    measure([image([[0, 0, 3, 3]], None, None, size)], problems=problems)
    assert dict(problems.counts) == ({"image of odd size": 1} if odd else {})
    if odd:
        assert f"Received: {size[1]} x {size[0]} px" in problems.found[0].message


def test_a_size_that_is_not_stated_is_read_and_an_unknown_one_leaves_its_objects_out(tmp_path):
    problems = Problems()
    given = [
        Annotation("a", synthetic.draw(0).image, [[0, 0, 10, 20]]),
        Annotation("b", b"no image", [[0, 0, 30, 40]]),
        Annotation("c", tmp_path / "gone.png", [[0, 0, 30, 40]]),
    ]
    found = measure(given, problems=problems)
    assert found.sizes[0].tolist() == [96, 96]
    sides, images = found.of_known_size
    assert sides.tolist() == [[20, 10]]
    assert images.tolist() == [96]
    assert dict(problems.counts) == {"image of unknown size": 2}
    assert len(found.sides) == 3


def test_quartiles_of_nothing_are_none():
    assert Quartiles.of(np.zeros(0)) is None
    assert str(Quartiles.of(np.array([1.0, 2, 3, 4, 5]))) == "1 2 3 4 5"
