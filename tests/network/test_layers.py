import keras
import numpy as np
import pytest
import tensorflow as tf

from unitbox_tf.network import layers


def again(layer):
    """The same layer from its configuration."""
    return type(layer).from_config(layer.get_config())


@pytest.mark.parametrize("stride", [1, 2, 4])
@pytest.mark.parametrize("size", [(1, 1), (8, 12), (9, 11)])
def test_a_crop_covers_the_image_and_no_more(stride, size):
    layer = again(layers.Crop(stride))
    covered = [-(-length // stride) for length in size]
    x = np.random.default_rng(0).uniform(size=(2, 13, 14, 5)).astype(np.float32)
    found = layer([x, np.zeros((2, *size, 3))])
    np.testing.assert_array_equal(found, x[:, : covered[0], : covered[1]])
    symbolic = layer([keras.KerasTensor(x.shape), keras.KerasTensor((2, *size, 3))])
    assert symbolic.shape == found.shape


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_enlarging_repeats_each_value(factor, random):
    x = random.uniform(size=(1, 3, 4, 2)).astype(np.float32)
    reference = np.zeros((1, 3 * factor, 4 * factor, 7), np.float32)
    found = again(layers.Enlarge())([x, reference])
    np.testing.assert_array_equal(found, x.repeat(factor, axis=1).repeat(factor, axis=2))


def test_exponential_distances_are_positive_finite_and_relative():
    layer = again(layers.ExpDistances(8.0))
    numbers = np.float32([-200, -1, 0, 1, 1000])
    found = layer(numbers).numpy()
    np.testing.assert_allclose(found[1:4], [8 / np.e, 8, 8 * np.e], rtol=1e-6)
    assert np.isfinite(found).all()
    assert found[-1] == pytest.approx(8 * np.exp(layers.ExpDistances.LARGEST))
    x = tf.constant([0.5])
    with tf.GradientTape() as tape:
        tape.watch(x)
        logarithm = tf.math.log(layer(x))
    assert tape.gradient(logarithm, x).numpy() == pytest.approx(1)


def test_numbers_beyond_the_largest_distance_only_get_smaller():
    layer = layers.ExpDistances(8.0)
    x = tf.constant([0.0, layer.LARGEST + 1, layer.LARGEST + 1])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x)
    gradient = tape.gradient(y, x, output_gradients=tf.constant([1.0, 1.0, -1.0])).numpy()
    np.testing.assert_allclose(gradient, [8, 8 * np.exp(layer.LARGEST), 0], rtol=1e-5)


def test_fused_normalisation_takes_numbers_of_64_bits(random):
    x = random.normal(size=(2, 3, 4, 5))
    ours, theirs = (
        kind(dtype="float64")
        for kind in (layers.BatchNormalization, keras.layers.BatchNormalization)
    )
    np.testing.assert_array_equal(ours(x, training=True), theirs(x, training=True))


@pytest.mark.parametrize("trainable", [True, False])
def test_fused_normalisation_is_that_of_keras(trainable, random):
    x = tf.constant(random.normal(3, 2, size=(2, 5, 7, 4)).astype(np.float32))
    wanted = tf.constant(random.normal(size=x.shape).astype(np.float32))
    found = []
    for kind in (layers.BatchNormalization, keras.layers.BatchNormalization):
        layer = kind(momentum=0.9, epsilon=1e-3, trainable=trainable)
        layer.build(x.shape)
        layer.gamma.assign([0.5, 1, 2, 3])
        layer.beta.assign([-1, 0, 1, 2])
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=True)
            loss = tf.reduce_sum(y * wanted)
        sources = [x, layer.gamma.value, layer.beta.value]
        gradients = tape.gradient(loss, sources)
        found.append((y, gradients, layer(x), *layer.weights[2:]))
    (y, gradients, shown, mean, variance), (y2, gradients2, shown2, mean2, variance2) = found
    np.testing.assert_allclose(y, y2, atol=1e-5)
    for one, other in zip(gradients, gradients2, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)
    np.testing.assert_allclose(mean, mean2, rtol=1e-5)
    count = 2 * 5 * 7
    share = count / (count - 1) if trainable else 1
    np.testing.assert_allclose(variance - 0.9, (variance2 - 0.9) * share, rtol=1e-4)
    np.testing.assert_allclose(shown, shown2, rtol=0.01, atol=0.01)


def test_fused_normalisation_trains_in_low_precision(random):
    x = tf.constant(random.normal(3, 2, size=(2, 8, 8, 16)), tf.bfloat16)
    layer = again(layers.BatchNormalization(momentum=0.9, dtype="mixed_bfloat16"))
    y = layer(x, training=True)
    assert y.dtype == tf.bfloat16
    assert layer.moving_mean.dtype == "float32"
    np.testing.assert_allclose(layer.moving_mean, np.full(16, 0.3), atol=0.1)
    values = tf.cast(y, tf.float32)
    np.testing.assert_allclose(tf.reduce_mean(values, [0, 1, 2]), np.zeros(16), atol=0.02)


def operations(**given):
    layer = layers.Preprocess(**{"stride": 32, "channels": "rgb", "mean": (0, 0, 0), **given})
    spec = tf.TensorSpec([None, None, None, 3], tf.uint8)
    graph = tf.function(layer, input_signature=[spec]).get_concrete_function().graph
    image = {op.name for op in graph.get_operations() if op.type == "Placeholder"}
    # What is computed with the pixels, not with sizes.
    found, reached = [], set(image)
    for op in graph.get_operations():
        if {each.op.name for each in op.inputs} & reached and op.type != "Shape":
            reached.add(op.name)
            found.append(op.type)
    return [name for name in found if name != "Identity"]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, []),
        ({"channels": "bgr"}, ["StridedSlice"]),
        ({"mean": (0, 0, 7.0)}, ["Sub"]),
        ({"scale": 0.5}, ["Mul"]),
        ({"channels": "bgr", "mean": (1, 2, 3), "scale": 0.5}, ["StridedSlice", "Sub", "Mul"]),
    ],
)
def test_preprocessing_leaves_out_what_changes_nothing(given, expected):
    assert operations(**given) == ["Cast", *expected, "Pad"]
