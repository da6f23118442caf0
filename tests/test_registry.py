import pytest

from unitbox_tf import config, registry
from unitbox_tf.registry import Registry

ALL = [registry.LOSSES, registry.DECODERS, registry.BACKBONES, registry.FORMATS, registry.DATASETS]


@pytest.mark.parametrize(
    ("known", "name"), [(each, name) for each in ALL for name in each], ids=str
)
def test_every_name_leads_to_something(known, name):
    assert known[name] is not None


def test_names_are_added_once():
    known = Registry("thing", {"one": "math:pi"})
    assert (list(known), len(known), "one" in known, known["one"] > 3) == (["one"], 1, True, True)
    assert known.register("two", 2) == 2
    assert known["two"] == 2
    with pytest.raises(ValueError, match=r"Expected a new name for a thing\. Received: 'one'"):
        known.register("one", 1)
    with pytest.raises(
        ValueError, match=r"Unknown thing 'three'. Expected one of \['one', 'two'\]"
    ):
        known["three"]
    known.unregister("two")
    assert list(known) == ["one"]


def test_settings_know_names_that_were_added():
    with pytest.raises(ValueError, match="distance_loss: expected one of"):
        config.LossConfig(distance_loss="mine")
    registry.LOSSES.register("mine", object)
    try:
        assert config.LossConfig(distance_loss="mine").distance_loss == "mine"
    finally:
        registry.LOSSES.unregister("mine")
