import keras
import numpy as np
import pytest
import tensorflow as tf

from unitbox_tf.config import ModelConfig
from unitbox_tf.detect.model import UnitBox
from unitbox_tf.network.folding import folded

layers = keras.layers


def with_random_weights(model):
    """The model with statistics and factors that an unfolded layer would not have by default."""
    random = np.random.default_rng(5)
    model.set_weights([random.uniform(0.2, 1.2, weight.shape) for weight in model.weights])
    return model


def same(one, other, image, tolerance=1e-5):
    expected = keras.tree.flatten(one(image, training=False))
    for a, b in zip(expected, keras.tree.flatten(other(image, training=False)), strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(b, a, rtol=tolerance, atol=tolerance * np.abs(a).max())


def kinds(model):
    found = [type(layer).__name__ for layer in model._flatten_layers() if layer.weights]
    return {name: found.count(name) for name in found if name not in ("Functional", "UnitBox")}


@pytest.fixture
def image(random):
    return random.uniform(0, 1, (2, 12, 9, 3)).astype(np.float32)


@pytest.mark.parametrize(
    "convolution",
    [
        lambda: layers.Conv2D(6, 3, 2, padding="same", use_bias=False),
        lambda: layers.Conv2D(6, 3, groups=3, dilation_rate=2),
        lambda: layers.DepthwiseConv2D(3, 2, padding="same", use_bias=False),
        lambda: layers.DepthwiseConv2D((1, 5), depth_multiplier=2),
    ],
)
@pytest.mark.parametrize("options", [{}, {"scale": False}, {"center": False, "epsilon": 0.1}])
def test_a_folded_convolution_computes_what_both_layers_did(convolution, options, image):
    x = keras.Input((None, None, 3))
    model = keras.Model(x, layers.BatchNormalization(**options)(convolution()(x)))
    with_random_weights(model)
    result = folded(model)
    same(model, result, image)
    assert [len(result.weights), result.count_params() < model.count_params()] == [2, True]


def test_what_converters_do_not_know_is_written_as_what_they_know(image):
    x = y = keras.Input((None, None, 3))
    y = layers.Conv2D(6, 3, 2, groups=3, padding="same", activation="relu", name="by_channel")(y)
    y = layers.Conv2D(6, 3, groups=2, name="in_groups")(y)
    y = layers.Conv2D(5, 3, dilation_rate=2, padding="same", name="dilated")(y)
    model = with_random_weights(keras.Model(x, layers.Activation("gelu", name="gelu")(y)))
    result = folded(model)
    same(model, result, image - 0.5)
    assert kinds(result) == {"DepthwiseConv2D": 1, "Conv2D": 1, "DilatedConv2D": 1}
    names = ["by_channel", "in_groups", "dilated", "gelu"]
    assert [layer.name for layer in result.layers[1:]] == names
    spec = tf.TensorSpec([None, None, None, 3], tf.float32)
    graph = tf.function(result, input_signature=[spec]).get_concrete_function().graph
    assert not {each.type for each in graph.get_operations()} & {"SpaceToBatchND", "Erfc"}


def read_twice(x):
    y = layers.Conv2D(4, 1)(x)
    return layers.Add()([y, layers.BatchNormalization()(y)])


def given_out(x):
    y = layers.Conv2D(4, 1)(x)
    return [y, layers.BatchNormalization()(y)]


def after_an_activation(x):
    return layers.BatchNormalization()(layers.Conv2D(4, 1, activation="relu")(x))


def after_another_layer(x):
    return layers.BatchNormalization()(layers.MaxPooling2D()(layers.Conv2D(4, 1)(x)))


def along_another_axis(x):
    return layers.BatchNormalization(axis=1)(layers.Conv2D(4, 1)(x))


def called_twice(x):
    shared = layers.Conv2D(3, 1)
    return layers.Activation("relu")(shared(layers.BatchNormalization()(shared(x))))


def normalised_twice(x):
    shared = layers.BatchNormalization()
    return shared(layers.Conv2D(4, 1)(shared(layers.Conv2D(4, 1)(x))))


def of_another_kind(x):
    return layers.BatchNormalization()(layers.Conv2DTranspose(4, 3)(x))


def test_operations_that_are_no_layers_stay_in_the_copy(image):
    x = keras.Input((None, None, 3))
    y = layers.BatchNormalization()(layers.Conv2D(3, 3, padding="same")(x)) + 2 * x
    model = with_random_weights(keras.Model(x, layers.LayerNormalization()(y)))
    result = folded(model)
    same(model, result, image)
    assert kinds(result) == {"Conv2D": 1, "LayerNormalization": 1}


def test_layers_that_hold_a_function_are_used_as_they_are(image):
    x = keras.Input((None, None, 3))
    y = layers.Conv2D(3, 3, use_bias=False, kernel_regularizer=lambda kernel: 0.0)(x)
    y = layers.Activation(lambda y: y * y)(layers.BatchNormalization()(y))
    y = layers.Conv2D(3, 3, dilation_rate=2, activation=lambda y: y - 1)(y)
    y = layers.Conv2D(3, 1, activation=lambda y: y + 1)(y)
    model = with_random_weights(
        keras.Model(x, layers.Lambda(lambda y: 2 * y, output_shape=(None, None, 3))(y))
    )
    result = folded(model)
    same(model, result, image)
    assert kinds(result) == {"Conv2D": 2, "DilatedConv2D": 1}


@pytest.mark.parametrize(
    "build",
    [read_twice, given_out, after_an_activation, after_another_layer, along_another_axis,
     called_twice, normalised_twice, of_another_kind],
)  # fmt: skip
def test_layers_that_are_no_such_pair_stay_as_they_are(build):
    x = keras.Input((8, 6, 3))
    model = keras.Model(x, build(x))
    assert folded(model) is model


def test_the_light_network_has_no_normalisation_left_and_gives_the_same_maps(random):
    config = ModelConfig(
        class_names=("cat", "dog"),
        backbone="light",
        width=0.25,
        neck="top_down",
        neck_channels=8,
        head_stddev=1e-4,  # distances are e to the power of the head's numbers
    )
    model = UnitBox.from_settings(config)
    for weight in model.weights:
        if "_bn" in weight.path:
            weight.assign(random.uniform(0.5, 1.5, weight.shape))
    model.compile(loss="mse")
    before = model.get_weights()
    result = folded(model)
    same(model, result, random.integers(0, 256, (1, 70, 45, 3), np.uint8))
    assert kinds(result) == {"Conv2D": kinds(model)["Conv2D"] - 4, "DilatedConv2D": 4}
    names = {layer.name for layer in model.layers if not layer.name.endswith("_bn")}
    assert {layer.name for layer in result.layers} == names
    assert not result.compiled
    # The model is as it was, and stays apart from the copy.
    result.set_weights([0 * values for values in result.get_weights()])
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_network_without_normalisation_is_not_copied():
    model = UnitBox.from_settings(ModelConfig(class_names=("face",), width=0.02))
    assert folded(model) is model
