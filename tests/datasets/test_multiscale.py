"""Synthetic images with objects of many sizes."""

import numpy as np
import pytest

from unitbox_tf import boxes as box_ops
from unitbox_tf import datasets, inputs
from unitbox_tf.datasets import multiscale


@pytest.fixture(scope="module")
def drawn():
    return [multiscale.draw(number, 160) for number in range(40)]


def test_a_number_is_one_image_of_the_side_that_the_split_states(drawn):
    again = datasets.open("multiscale:#3-5/160").annotations()
    assert [a.name for a in again] == ["multiscale/160/3", "multiscale/160/4"]
    assert again == drawn[3:5]
    assert inputs.read_image(drawn[3].image).shape == (160, 160, 3)
    [large] = datasets.open("multiscale:#3-4").annotations()
    assert large.size == (320, 320)
    assert datasets.class_names("multiscale:#0-1") == ("object",)


def test_objects_lie_apart_inside_the_image_and_have_all_sizes(drawn):
    for annotation in drawn:
        assert annotation.boxes.min(initial=1) >= 0
        assert annotation.boxes.max(initial=0) <= 160
        overlaps = box_ops.pairwise_iou(annotation.boxes, annotation.boxes)
        assert (overlaps > 0).sum() == len(annotation.boxes)
    sizes = np.concatenate([box_ops.long_sides(annotation.boxes) for annotation in drawn])
    assert sizes.min() >= 8 - 1e-6
    assert sizes.max() <= 0.78 * 160
    # Two octaves of four hold about half of the objects: sizes are uniform by their logarithm.
    assert 0.3 < ((sizes >= 16) & (sizes < 64)).mean() < 0.7
    assert max(len(annotation.boxes) for annotation in drawn) > 5


def test_the_core_of_an_object_is_darker_than_its_rim(drawn):
    differences = []
    for annotation in drawn:
        grey = inputs.read_image(annotation.image).mean(axis=-1)
        for x0, y0, x1, y1 in annotation.boxes[box_ops.long_sides(annotation.boxes) > 30]:
            row = grey[int((y0 + y1) / 2)]
            middle = row[int(x0 + 0.4 * (x1 - x0)) : int(x0 + 0.6 * (x1 - x0))].mean()
            differences.append(row[int(x0 + 0.05 * (x1 - x0)) + 1] - middle)
    assert np.mean(np.array(differences) > 0) > 0.9


@pytest.mark.parametrize("split", ["", "5", "0-2/x", "0-2/", "0-2/16", "0-2/99999", "0-0/160"])
def test_other_splits_are_refused(split):
    with pytest.raises(ValueError, match="Expected a range"):
        datasets.open(f"multiscale:#{split}").annotations()
