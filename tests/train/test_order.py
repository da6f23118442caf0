import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from unitbox_tf.train.order import Mosaics, Order


@given(count=st.integers(1, 40), seed=st.integers(0, 9))
def test_each_pass_has_every_image_once(count, seed):
    shown = Order(count, seed)
    for number in range(3):
        assert sorted(map(shown.at, range(number * count, (number + 1) * count))) == [*range(count)]


def test_passes_and_seeds_differ_and_the_order_never_changes():
    first, second, other = ([Order(8, seed).at(n) for n in places] for seed, places in _cases())
    assert first != second
    assert first != other
    assert first == [0, 3, 7, 5, 1, 2, 6, 4]  # runs that were stopped go on with it


def _cases():
    return (0, range(8)), (0, range(8, 16)), (1, range(8))


@given(st.sets(st.integers(0, 9), max_size=9), st.randoms())
def test_another_image_takes_the_place_of_a_broken_one_whenever_it_is_found_out(broken, random):
    """Places are read by several threads in any order."""
    found = []
    for places in (list(range(30)), list(range(30))):
        random.shuffle(places)
        shown, seen = Order(10, 3), {}
        for place in places:
            while (index := shown.at(place)) in broken:
                shown.broken.add(index)
            seen[place] = index
        found.append(seen)
    assert found[0] == found[1]
    assert not broken & set(found[0].values())


def test_if_all_are_broken_it_is_an_error():
    shown = Order(2, 0)
    shown.broken.update((0, 1))
    with pytest.raises(ValueError, match="none of the 2 images can be decoded"):
        shown.at(5)


@given(st.floats(0, 1), st.integers(0, 1000), st.sampled_from([(2,), (2, 3), (4, 2, 3)]))
def test_the_share_of_mosaics_is_held_at_every_place_and_their_kinds_take_turns(share, place, rows):
    mosaics = Mosaics(share, rows)
    kinds = [mosaics.at(earlier) for earlier in range(place)]
    found = [kind for kind in kinds if kind is not None]
    assert abs(mosaics.before(place) - share * place) < 1
    assert mosaics.before(place) == len(found)
    assert found == [number % len(rows) for number in range(len(found))]
    counted = [mosaics.of_kind_before(kind, place) for kind in range(len(rows))]
    assert counted == [found.count(kind) for kind in range(len(rows))]
    assert [mosaics.parts(kind) for kind in range(len(rows))] == [row**2 for row in rows]


@pytest.mark.parametrize("rows", [(2,), (2, 3)])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.3, 1 / 3, 0.7, 1.0])
def test_the_graph_agrees_about_mosaics(share, rows):
    places = np.arange(10**7, 10**7 + 200)
    mosaics = Mosaics(share, rows)
    kinds = [mosaics.at(int(place)) for place in places]
    expected = [0 if kind is None else 1 + kind for kind in kinds]
    assert mosaics.kind_at(tf.constant(places)).numpy().tolist() == expected
