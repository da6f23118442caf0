import subprocess
import sys

import keras
import numpy as np
import pytest

from unitbox_tf.config import ModelConfig
from unitbox_tf.detect.model import UnitBox
from unitbox_tf.network import backbones, heatmaps, layers
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


@pytest.mark.parametrize("tap", ["before_pool", "after_pool"])
def test_the_stride_of_vgg_is_that_of_the_coarsest_tap(tap):
    """The map of an image of some strides a side has no cell that is cut off at the border."""
    config = ModelConfig(width=0.02, confidence_tap=tap, distances_tap=tap)
    backbone = backbones.vgg16(config)
    maps = backbone.features([backbone.confidence, backbone.distances], "features")
    side = 2 * backbone.stride
    found = [side / each.shape[1] for each in maps(np.zeros((1, side, side, 3), np.float32))]
    assert found == {"before_pool": [8, 16], "after_pool": [16, 32]}[tap]


def test_the_papers_network_is_what_it_was(random):
    """Names of weights as in the published files, and maps as plain layers of Keras compute them."""
    config = ModelConfig(class_names=("face",), stage4_scale=0.01, initial_box_size=40.0)
    model = UnitBox.from_settings(config)
    blocks = [(1, 2), (2, 2), (3, 3), (4, 3), (5, 3)]
    names = [
        f"block{block}_conv{number}" for block, count in blocks for number in range(1, count + 1)
    ]
    names += ["distances_head", "confidence_head"]
    kinds = ("kernel", "bias")
    assert [w.path for w in model.weights] == [f"{name}/{kind}" for name in names for kind in kinds]
    assert model.count_params() == 14_737_733

    image = random.integers(0, 256, (1, 40, 50, 3), np.uint8)
    vgg = keras.applications.VGG16(include_top=False, weights=None, input_shape=(None, None, 3))
    vgg.set_weights(model.backbone.model.get_weights())
    padded = keras.applications.vgg16.preprocess_input(image.astype(np.float32))
    padded = np.pad(padded, [(0, 0), (0, 24), (0, 14), (0, 0)])
    stages = [vgg.get_layer(name).output for name in ("block4_conv3", "block5_conv3")]
    for features, factor, name in zip(
        keras.Model(vgg.input, stages)(padded), (0.01, 1), heatmaps.HEADS, strict=True
    ):
        kernel, bias = model.get_layer(name).get_weights()
        x = keras.ops.conv(features * factor, kernel, padding="same") + bias
        x = keras.ops.image.resize(x, (64, 64))[:, :40, :50]
        expected = x if name == "confidence_head" else keras.ops.relu(x)
        found = model(image)[name.removesuffix("_head")]
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_a_narrow_vgg_has_its_layers_and_fewer_channels():
    whole, narrow = (backbones.vgg16(ModelConfig(width=width)) for width in (1, 0.125))
    assert whole.pyramid == narrow.pyramid
    assert whole.preprocessing == narrow.preprocessing
    channels = [
        [layer.output.shape[-1] for layer in each.model.layers[1:]] for each in (whole, narrow)
    ]
    assert [count // 8 for count in channels[0]] == channels[1]
    assert [each.name for each in whole.model.layers[1:]] == [
        each.name for each in narrow.model.layers[1:]
    ]
    with pytest.raises(ValueError, match=r"weights: expected None with the width 0\.5, because"):
        backbones.vgg16(ModelConfig(width=0.5, weights="imagenet"))


def pyramid_of(x, **strides):
    """Layers named by the keys, with the strides that are the values."""
    for name, stride in strides.items():
        x = keras.layers.Conv2D(2, 3, stride, padding="same", name=name)(x)
    return x


@pytest.mark.parametrize(
    ("build", "facts", "message"),
    [
        ({"a": 2, "b": 2}, {"stride": 4, "pyramid": {4: "a", 8: "b"}}, "stride 4 from the layer 'a' .*"
         r"of stride 4\. Received: a map of the shape \(6, 6, 2\) of an image of 12 x 12 px"),
        ({"a": 2, "b": 2}, {"stride": 2, "pyramid": {2: "a", 4: "b"}}, "stride 4 from the layer 'b'"),
        ({"a": 2, "b": 2}, {"stride": 2, "confidence": "a", "distances": "b"},
         "stride 2, or of a divisor of it, from the layer 'b'"),
        ({"a": 3, "b": 1}, {"stride": 8, "confidence": "a", "distances": "b"}, "layer 'a'"),
        ({"a": 2}, {"stride": 4, "pyramid": {2: "a", 8: "a"}}, r"strides double.*\[2, 8\]"),
        ({"a": 2}, {"stride": 4, "pyramid": {2: "z"}}, r"name of a layer of 'own'\. Received: 'z'"),
        ({"a": 2}, {"stride": 4, "confidence": "a"}, r"or none\. Received: 'a' and None"),
        ({"a": 2}, {"stride": 4}, r"Expected layers that the network reads.*Received: none"),
    ],
)  # fmt: skip
def test_facts_that_contradict_the_maps_are_errors(build, facts, message):
    image = keras.Input((None, None, 3))
    model = keras.Model(image, pyramid_of(image, **build), name="own")
    with pytest.raises(ValueError, match=message):
        Backbone(model, **facts)


def test_a_map_that_is_cut_at_its_border_is_an_error():
    image = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(2, 3, 2, padding="valid", name="cut")(image)
    with pytest.raises(ValueError, match=r"stride 2 .* a map of the shape \(2, 2, 2\) .* 6 x 6 px"):
        Backbone(keras.Model(image, x), stride=2, pyramid={2: "cut"})


def test_a_model_of_one_size_of_images_is_an_error():
    image = keras.Input((224, 224, 3))
    model = keras.Model(image, pyramid_of(image, a=2), name="own")
    with pytest.raises(ValueError, match=r"images of any size.*'own' with .*\(None, 224, 224, 3\)"):
        Backbone(model, stride=2, pyramid={2: "a"})


def test_a_backbone_of_ones_own_gets_a_top_down_path(random):
    """Its pyramid is sorted, and layers without names of their own do as well."""
    image = keras.Input((None, None, 3))
    x = pyramid_of(image, first=2, second=2, third=2)
    model = keras.Model(image, keras.layers.ReLU(name="end")(x + 1))
    own = Backbone(model, stride=8, pyramid={8: "end", 4: "second", 2: "first"})
    assert list(own.pyramid) == [2, 4, 8]
    detector = UnitBox(own, ("a",), neck="top_down", map_stride=4, neck_channels=4)
    out = detector(random.integers(0, 256, (1, 21, 9, 3), np.uint8))
    assert out["distances"].shape == (1, 6, 3, 4)
    again = Backbone.from_config(own.get_config())
    assert (again.pyramid, again.confidence, again.stride) == (own.pyramid, None, 8)
    assert again.copy().pyramid == own.pyramid


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
    assert backbones.CAFFE.mean_colour == (123.68, 116.779, 103.939)
    for channels in ("rgb", "bgr"):
        stated = Preprocessing(channels, (1.0, 2.0, 3.0), 0.5)
        layer = layers.Preprocess(stride=1, channels=channels, mean=stated.mean, scale=0.5)
        assert not layer(np.float32([[[stated.mean_colour]]])).numpy().any()


@pytest.mark.parametrize(
    "first",
    [
        "unitbox_tf; unitbox_tf.Backbone",
        *(
            pytest.param(f"unitbox_tf.network.{module}", marks=pytest.mark.slow)
            for module in ("applications", "heatmaps", "light", "top_down")
        ),
    ],
)
def test_a_program_may_import_any_module_of_the_network_first(first):
    # Importing Keras imports the modules with Keras classes, while this one is not complete yet.
    code = f"import {first}; import unitbox_tf; unitbox_tf.Backbone"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
