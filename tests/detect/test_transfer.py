import dataclasses

import keras
import numpy as np
import pytest

from unitbox_tf import runs
from unitbox_tf.config import ModelConfig
from unitbox_tf.detect.model import UnitBox
from unitbox_tf.network.backbones import Backbone, Preprocessing


def backbone(filters=4, *, taps=("first", "second"), unit=1 / 255, more=False):
    image = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(filters, 3, 2, padding="same", activation="relu", name="first")(image)
    x = keras.layers.BatchNormalization(name="normal")(x)
    x = keras.layers.Conv2D(4, 3, 2, padding="same", activation="relu", name="second")(x)
    x = keras.layers.MaxPooling2D(1, name="pool")(x)
    if more:
        x = keras.layers.Conv2D(4, 1)(x)
    return Backbone(
        keras.Model(image, x),
        confidence=taps[0],
        distances=taps[1],
        stride=4,
        preprocessing=Preprocessing("rgb", scale=unit),
        pyramid={2: "normal", 4: "pool"},
    )


NECK = {"neck": "top_down", "neck_channels": 5, "map_stride": 2}


def model(*names, stage4_scale=1.0, unshared=False, neck=None, **changes):
    """A network whose weights are all random, biases and statistics included."""
    made = UnitBox(
        backbone(**changes), names, stage4_scale=stage4_scale, unshared=unshared, **(neck or {})
    )
    random = np.random.default_rng(len(names))
    made.set_weights([random.uniform(0.1, 1, weight.shape) for weight in made.weights])
    return made


@pytest.fixture
def image(random):
    return random.uniform(0, 255, (1, 12, 8, 3)).astype(np.float32)


@pytest.mark.parametrize("unshared", [False, True])
def test_the_same_classes_make_the_same_network(image, unshared):
    old, new = model("cat", "dog", unshared=unshared), model("cat", "dog", unshared=unshared)
    new.set_weights([0 * weight for weight in new.get_weights()])
    taken = new.start_from(old)
    assert taken.classes == ("cat", "dog")
    for one, other in zip(old.weights, new.weights, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())
    numbers = "backbone (12 weights)" if unshared else "backbone (8 weights)"
    heads = "confidence head (cat, dog), distances head"
    if unshared:  # one backbone ends at its first layer
        numbers = "backbone (10 weights)"
    assert str(taken) == f"taken from unitbox: {numbers}, {heads}; new: nothing"


def test_classes_are_taken_by_name_and_never_swapped(image):
    old, new = model("cat", "dog", "fox"), model("fox", "cow", "cat", "hen")
    before = new(image)["confidence"].numpy()
    own = new.get_layer("confidence_head").get_weights()
    taken = new.start_from(old)
    assert (taken.classes, taken.new_classes) == (("fox", "cat"), ("cow", "hen"))
    expected, found = (each(image)["confidence"].numpy() for each in (old, new))
    np.testing.assert_allclose(found[..., 0], expected[..., 2], rtol=1e-6)
    np.testing.assert_allclose(found[..., 2], expected[..., 0], rtol=1e-6)
    assert not np.allclose(before, found)
    for mine, theirs in zip(own, new.get_layer("confidence_head").get_weights(), strict=True):
        np.testing.assert_array_equal(mine[..., [1, 3]], theirs[..., [1, 3]])


def test_new_classes_get_a_new_head_on_the_old_backbone(image):
    old, new = model("face"), model("cat", "dog")
    own = new.get_layer("confidence_head").get_weights()
    taken = new.start_from(old)
    assert str(taken) == (
        "taken from unitbox: backbone (8 weights), distances head; new: confidence head (cat, dog)"
    )
    for mine, now in zip(own, new.get_layer("confidence_head").get_weights(), strict=True):
        np.testing.assert_array_equal(mine, now)
    np.testing.assert_array_equal(new(image)["distances"], old(image)["distances"])
    statistics = [each.backbone.model.get_layer("normal").get_weights() for each in (old, new)]
    np.testing.assert_array_equal(*statistics)


def test_another_factor_of_the_features_leaves_the_confidence_as_it_was(image):
    old, new = model("cat", stage4_scale=0.01), model("cat", stage4_scale=4.0)
    new.start_from(old)
    confidence = [each(image)["confidence"].numpy() for each in (old, new)]
    np.testing.assert_allclose(*confidence, rtol=1e-5)


@pytest.mark.parametrize(
    ("taps", "classes", "distances"),
    [
        (("normal", "second"), (), True),
        (("first", "pool"), ("cat",), False),
    ],
)
def test_a_head_that_reads_another_layer_is_new(taps, classes, distances):
    taken = model("cat", taps=taps).start_from(model("cat", taps=("first", "second")))
    assert (taken.classes, taken.distances) == (classes, distances)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"filters": 5}, r"1: a weight of shape \(3, 3, 3, 4\)\. Received: 1: .*\(3, 3, 3, 5\)"),
        ({"unit": 1.0}, r"Preprocessing\(.*scale=0\.00.*Received: Preprocessing\(.*scale=1\.0"),
        ({"unshared": True}, "one backbone for both branches. Received: a backbone for each"),
        ({"more": True}, r"no further weight. Received: 9: a weight of shape \(1, 1, 4, 4\)"),
    ],
)
def test_another_backbone_is_refused(changes, message):
    new = model("cat")
    before = new.get_weights()
    with pytest.raises(ValueError, match=f"unitbox: expected the backbone of .*{message}"):
        new.start_from(model("cat", **changes))
    for old, now in zip(before, new.get_weights(), strict=True):
        np.testing.assert_array_equal(old, now)


def test_the_same_neck_makes_the_same_network(image):
    old, new = (model("cat", "dog", neck=NECK) for _ in range(2))
    new.set_weights([0 * weight for weight in new.get_weights()])
    assert str(new.start_from(old)) == (
        "taken from unitbox: backbone (8 weights), neck, confidence head (cat, dog), distances head; new: nothing"
    )
    for one, other in zip(old.weights, new.weights, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())


def test_distances_of_a_neck_stay_as_they_were_in_another_unit(image):
    old = model("cat", neck={**NECK, "initial_box_size": 30.0})
    new = model("cat", neck={**NECK, "initial_box_size": 8.0})
    head = old.get_layer("distances_head")
    largest = np.max(keras.Model(old.input, head.input)(image))
    head.kernel.assign(head.kernel / (largest * 5))  # sums below 1, which are not cut off
    new.start_from(old)
    expected, found = (each(image)["distances"].numpy() for each in (old, new))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (None, NECK),
        (NECK, None),
        (NECK, {**NECK, "neck_channels": 6}),
        (NECK, {**NECK, "map_stride": 4}),
    ],
)
def test_another_neck_leaves_the_backbone_to_take(old, new):
    old, new = model("cat", neck=old), model("cat", neck=new)
    before = {layer.name: layer.get_weights() for layer in new.layers if layer.weights}
    taken = new.start_from(old)
    neck = "neck, " if new.neck == "top_down" else ""
    heads = "confidence head (cat), distances head"
    assert str(taken) == f"taken from unitbox: backbone (8 weights); new: {neck}{heads}"
    assert (taken.classes, taken.new_classes) == ((), ("cat",))
    for name in before.keys() - {"backbone"}:
        for mine, now in zip(before[name], new.get_layer(name).get_weights(), strict=True):
            np.testing.assert_array_equal(mine, now)
    for one, other in zip(old.backbone.model.weights, new.backbone.model.weights, strict=True):
        np.testing.assert_array_equal(one, other)


def test_layers_that_the_other_network_does_not_use_are_new():
    old, new = model("cat", taps=("first", "first")), model("cat", neck=NECK)
    before = new.backbone.model.get_weights()
    assert str(new.start_from(old)).startswith(
        "taken from unitbox: backbone (2 weights); new: backbone (6 weights), neck, confidence"
    )
    after = new.backbone.model.get_weights()
    for expected, found in zip(old.backbone.model.get_weights()[:2], after, strict=False):
        np.testing.assert_array_equal(expected, found)
    for expected, found in zip(before[2:], after[2:], strict=True):
        np.testing.assert_array_equal(expected, found)


def test_a_vgg_detector_starts_one_with_a_neck():
    settings = ModelConfig(class_names=("face",), width=0.02)
    old = UnitBox.from_settings(settings)
    new = UnitBox.from_settings(dataclasses.replace(settings, neck="top_down"), seed=1)
    assert str(new.start_from(old)) == (
        "taken from unitbox: backbone (26 weights); new: neck, confidence head (face), distances head"
    )
    kernels = [each.backbone.model.get_layer("block5_conv3").kernel for each in (old, new)]
    np.testing.assert_array_equal(*kernels)


def test_a_keras_file_a_run_and_a_published_detector_are_started_from(untrained_run, tmp_path):
    old = model("cat", "dog")
    old.save(tmp_path / "old.keras")
    taken = model("dog").start_from(tmp_path / "old.keras")
    assert str(taken).startswith(f"taken from {tmp_path / 'old.keras'}: backbone (8 weights)")
    network = UnitBox.from_settings(ModelConfig(class_names=("face", "other"), stage4_scale=0.01))
    assert network.start_from(untrained_run).classes == ("other",)
    assert str(network.start_from("faces")) == (
        "taken from faces: backbone (26 weights); new: confidence head (face, other), distances head"
    )
    settings = dataclasses.replace(
        runs.Run.find("faces_light").config().model, class_names=("face", "other")
    )
    assert str(UnitBox.from_settings(settings).start_from("faces_light")) == (
        "taken from faces_light: backbone (105 weights), neck, confidence head (face), distances head; "
        "new: confidence head (other)"
    )
    with pytest.raises(ValueError, match=r"gone: expected the folder of a run.*no such folder"):
        network.start_from("./gone")
