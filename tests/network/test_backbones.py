import subprocess
import sys

import keras
import numpy as np
import pytest

from unitbox_tf import registry
from unitbox_tf.config import ModelConfig
from unitbox_tf.network import backbones, layers
from unitbox_tf.network.backbones import Backbone, Preprocessing


def tiny():
    image = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(4, 3, 2, padding="same", activation="relu", name="first")(image)
    x = keras.layers.Conv2D(6, 3, 2, padding="same", activation="relu", name="second")(x)
    return keras.Model(image, x, name="tiny")


def test_a_backbone_survives_its_configuration():
    stated = Preprocessing("rgb", (1.0, 2.0, 3.0), 0.5)
    one = Backbone(tiny(), confidence="first", distances="second", stride=4, preprocessing=stated)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(one))
    assert isinstance(again, Backbone)
    assert (again.confidence, again.distances, again.stride) == ("first", "second", 4)
    assert again.preprocessing == stated
    assert [w.shape for w in again.model.weights] == [w.shape for w in one.model.weights]


def test_a_copy_has_the_same_weights_and_shares_none():
    one = Backbone(tiny(), confidence="first", distances="second", stride=4)
    other = one.copy()
    for a, b in zip(one.model.weights, other.model.weights, strict=True):
        np.testing.assert_array_equal(a, b)
        b.assign(b + 1)
        assert not np.array_equal(a, b)


def test_taps_that_are_not_there_are_named():
    with pytest.raises(ValueError, match=r"layer of 'tiny'. Received: 'third'. It has .*'second'"):
        Backbone(tiny(), confidence="first", distances="third", stride=4)
    with pytest.raises(ValueError, match=r"whole stride of at least 1\. Received: 0"):
        Backbone(tiny(), confidence="first", distances="second", stride=0)


@pytest.mark.parametrize("name", registry.BACKBONES)
@pytest.mark.parametrize("tap", ["before_pool", "after_pool"])
def test_the_stride_is_that_of_the_coarsest_tap(name, tap):
    """The map of an image of one stride a side has one cell, and none is lost at the border."""
    config = ModelConfig(backbone=name, confidence_tap=tap, distances_tap=tap)
    backbone = registry.BACKBONES[name](config, 0)
    maps = backbone.features([backbone.confidence, backbone.distances], "features")
    side = 2 * backbone.stride
    for shape in (map_.shape[1] for map_ in maps(np.zeros((1, side, side, 3), np.float32))):
        assert side % shape == 0
        assert side // shape <= backbone.stride


@pytest.mark.parametrize(("channels", "expected"), [("rgb", [0, 1, 2]), ("bgr", [2, 1, 0])])
def test_preprocessing_orders_subtracts_scales_and_pads(channels, expected):
    image = np.float32([[[[10, 20, 30]] * 5] * 3])  # [1, 3, 5, 3]
    layer = layers.Preprocess(stride=4, channels=channels, mean=(1, 2, 3), scale=0.5)
    out = layer(image).numpy()
    assert out.shape == (1, 4, 8, 3)
    assert out[0, 0, 0].tolist() == ((image[0, 0, 0, expected] - [1, 2, 3]) / 2).tolist()
    assert not out[:, 3:].any()
    assert not out[:, :, 5:].any()
    assert backbones.Preprocessing().scale == 1.0


def test_the_mean_colour_is_rgb_and_becomes_0():
    assert backbones._VGG_PREPROCESSING.mean_colour == (123.68, 116.779, 103.939)
    for channels in ("rgb", "bgr"):
        stated = Preprocessing(channels, (1.0, 2.0, 3.0), 0.5)
        layer = layers.Preprocess(stride=1, channels=channels, mean=stated.mean, scale=0.5)
        assert not layer(np.float32([[[stated.mean_colour]]])).numpy().any()


def test_a_program_may_import_backbone_first():
    # Importing Keras imports the modules with Keras classes, while this one is not complete yet.
    code = "import unitbox_tf; unitbox_tf.Backbone"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
