import dataclasses

import numpy as np
import pytest

from training import choices


@pytest.mark.parametrize("number", [0, 1, 2])
def test_scenes_are_the_same_every_time_and_have_objects_of_many_sizes(number):
    first, again = choices.scene(number), choices.scene(number)
    assert first.image == again.image
    np.testing.assert_array_equal(first.boxes, again.boxes)
    boxes = first.boxes[~first.ignore]
    sides = (boxes[:, 2:] - boxes[:, :2]).max(axis=1)
    assert len(sides)
    assert (sides >= choices.OBJECT_SIZE[0]).all()
    assert boxes.min() >= 0
    assert boxes.max() <= choices.SIZE


def test_a_choice_changes_one_thing():
    base = choices.settings(10, 0, "runs")
    fields = {
        name: [
            (group.name, field)
            for group in dataclasses.fields(base)
            for field, value in dataclasses.asdict(getattr(choice(base), group.name)).items()
            if value != dataclasses.asdict(getattr(base, group.name))[field]
        ]
        for name, choice in choices.CHOICES.items()
    }
    assert fields == {
        "base": [],
        "iou": [("loss", "confidence_target")],
        "linear": [],  # which has another layer
        "stride8": [("model", "map_stride")],
    }


def test_linear_distances_begin_as_exponential_ones_do():
    exponential, linear = choices.layers.ExpDistances(8.0), choices.LinearDistances(8.0)
    x = np.float32([-0.01, 0, 0.01])
    np.testing.assert_allclose(exponential(x), linear(x), rtol=1e-3)
    assert linear(np.float32([-3])).numpy().tolist() == [0]


def test_the_table_has_a_row_for_each_choice_and_decoder():
    metrics = {"recall": 0.5, "mean_iou": 0.75, "ap50": 0.25, "ap75": 0.125, "images": 3}
    assert choices.table({"base": [{"peaks": metrics}]}).splitlines()[-1] == (
        "| base | peaks | 0.500 | 0.750 | 0.250 | 0.125 |"
    )
    better = {name: value + 0.1 for name, value in metrics.items()}
    both = choices.table({"base": [{"peaks": better}, {"peaks": metrics}]}).splitlines()[-1]
    assert both.startswith("| base | peaks | 0.550 (0.500 to 0.600) | 0.800 (0.750 to 0.850) |")
