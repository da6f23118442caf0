"""Suggestions for made-up sets of objects: `sizes` are long sides in images of a longer side of `image`."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from unitbox_tf.config import DataConfig, DecodeConfig, ModelConfig
from unitbox_tf.datasets import shown
from unitbox_tf.datasets.suggestions import suggest
from unitbox_tf.datasets.summary import Measured

LIMITS = shown.limits(ModelConfig())


def measured(sizes, image, ratio=0.8):
    sizes = np.asarray(sizes, float)
    count = len(sizes)
    widths = np.broadcast_to(np.asarray(image, float), count)
    return Measured(
        sizes=np.stack([0.75 * widths, widths], axis=-1),
        image=np.arange(count),
        classes=np.zeros(count, np.int32),
        sides=np.stack([sizes, ratio * sizes], axis=-1),
        ignored=0,
    )


def values(sizes, image, ratio=0.8):
    found = suggest(measured(sizes, image, ratio), LIMITS)
    assert all(each.reason for each in found)
    return {each.field: each.value for each in found}


def between(low, high, count=1000):
    return np.exp(np.linspace(np.log(low), np.log(high), count))


def test_objects_of_one_size_are_shown_at_the_size_at_which_boxes_are_best():
    found = values(np.full(100, 200.0), 1920)
    assert found["scales"] == (1.0,)
    shown_as = 200 * found["max_side"] / 1920
    assert 60 < shown_as < 75
    low, high = found["object_size"]
    assert low < shown_as < high
    assert found["image_size"] * 0.9 >= high
    assert abs(found["initial_box_size"] - shown_as) < 2
    assert "largest_object" not in found
    assert "min_object" not in found


def test_reasons_have_the_shares_of_the_objects():
    sides = np.array([30.0] * 39 + [8.0])
    reasons = {each.field: each.reason for each in suggest(measured(sides, 96, ratio=1), LIMITS)}
    assert "98% of the objects have a shorter side of at least 16 px" in reasons["max_side"]
    assert "98% of the objects have 16 to 171 px at scale 1" in reasons["scales"]


def test_people_in_a_street_need_one_scale():
    """Example 1 of docs/sizes.md: 60 to 600 px in images of 1,920 px."""
    found = values(between(60, 600), 1920, ratio=1)
    assert found["scales"] == (1.0,)
    # The example has 512, with which the smallest person has 16 px; 24 px are better.
    assert 512 <= found["max_side"] <= 620


def test_small_and_large_objects_need_several_scales():
    """Example 2 of docs/sizes.md: 40 to 2,000 px in images of 4,000 px."""
    found = values(between(40, 2000), 4000, ratio=1)
    # The example has 1,600 for the very smallest object, and .2 .45 1.
    assert 1200 <= found["max_side"] <= 1600
    assert len(found["scales"]) == 3
    assert found["scales"][-1] == 1
    assert found["largest_object"] == 100
    assert 1700 * found["max_side"] / 4000 * found["scales"][0] < 180


def test_tiny_objects_of_small_images_are_enlarged():
    found = values(between(8, 20), 400)
    assert found["max_side"] == 416
    assert found["scales"] == (1.0, 2.0)
    assert found["object_size"][0] == 14


def test_tiny_objects_of_huge_images_lead_to_tiles_and_not_to_more_memory():
    found = suggest(measured(between(10, 30), 8000), LIMITS)
    first = found[0]
    assert (first.field, first.value) == ("max_side", 2048)
    assert "--tile" in first.reason
    assert {each.field: each.value for each in found}["scales"] == (1.0,)
    assert any(each.field == "min_object" for each in found)


def test_a_few_strange_objects_change_nothing():
    usual = np.full(1000, 100.0)
    strange = np.concatenate([usual, [2.0] * 10, [639.0] * 10])
    assert values(strange, 640)["max_side"] == values(usual, 640)["max_side"]
    assert values(strange, 640)["scales"] == (1.0,)


def test_images_of_other_sizes_are_shown_at_their_own_scales():
    found = values([100.0] * 50 + [400.0] * 50, [1000.0] * 50 + [4000.0] * 50)
    same = values([100.0] * 100, 1000)
    assert found == same


def test_nothing_is_suggested_without_objects_of_known_size():
    assert suggest(measured([], 640), LIMITS) == ()
    assert suggest(measured([10.0, 20.0], np.array([np.nan, np.nan])), LIMITS) == ()
    assert suggest(measured([0.0], 640), LIMITS) == ()


def test_options_can_be_pasted(tmp_path):
    from unitbox_tf.cli import fit, parser

    for sizes, image in ((between(40, 2000), 4000), (between(8, 20), 400), ([3.0], 8)):
        found = suggest(measured(sizes, image), LIMITS)
        words = " ".join(each.option for each in found).split()
        _, config = fit.configuration(parser.parse(["fit", "faces", *words]))
        for each in found:
            groups = (config.data, config.decode, config.model)
            [group] = [group for group in groups if hasattr(group, each.field)]
            assert getattr(group, each.field) == each.value


@hypothesis.given(
    st.floats(4, 300), st.floats(1, 20), st.floats(64, 5000), st.floats(0.3, 1), st.booleans()
)
@hypothesis.example(4.0, 3.0, 2017.0, 1.0, False)
def test_every_suggestion_is_a_setting_that_shows_most_objects_well(
    smallest, spread, image, ratio, after_pool
):
    taps = {}
    if after_pool:
        taps = {"confidence_tap": "after_pool", "distances_tap": "after_pool"}
    limits = shown.limits(ModelConfig(**taps))
    sizes = np.minimum(between(smallest, smallest * spread, 200), image)
    found = {each.field: each.value for each in suggest(measured(sizes, image, ratio), limits)}
    decode = DecodeConfig(
        **{k: found[k] for k in ("max_side", "scales", "largest_object") if k in found}
    )
    data = {k: found[k] for k in ("image_size", "random_crop", "object_size") if k in found}
    low, high = DataConfig(**data).object_size
    assert low <= high <= max(limits.largest, 2 * low)
    factor = min(1, decode.max_side / image)
    # Most objects fit at a scale, unless the images themselves show them too small, or tiles are needed. Images whose
    # side, as a multiple of 32, is 2048 or more are not enlarged.
    enlarged = 2 if np.ceil(image / 32) * 32 < 2048 else 1
    reachable = sizes * min(1, 2048 / image) * enlarged * ratio >= limits.smallest
    fits = np.zeros(len(sizes), bool)
    for scale in decode.scales:
        long_sides = sizes * factor * scale
        fits |= (long_sides * ratio >= 0.85 * limits.smallest) & (
            long_sides <= 1.15 * limits.largest
        )
    if ratio * limits.largest > 2 * limits.smallest:  # thin objects fit nowhere
        assert fits.mean() >= 0.85 * reachable.mean()


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("coco:other/bccd364/train.json", {"max_side": 416, "scales": (1.0,)}),
        ("coco:other/facemask724/train.json", {"max_side": 416, "scales": (1.0, 2.0)}),
        ("coco:wider/val_640", {"max_side": 640, "scales": (1.0, 2.0), "min_object": 10.0}),
    ],
)
def test_suggestions_for_real_sets_are_those_that_were_looked_at(data, source, expected):
    from unitbox_tf.datasets.inspection import inspect

    root = data(source.partition(":")[2]).as_posix().removesuffix(source.partition(":")[2])
    found = inspect(source, data=root, pixels=False)
    suggested = {each.field: each.value for each in found.suggestions}
    assert {name: suggested[name] for name in expected} == expected
