import keras
import numpy as np
import pytest
import tensorflow as tf

from unitbox_tf import boxes
from unitbox_tf.config import ModelConfig
from unitbox_tf.detect.model import UnitBox
from unitbox_tf.network import top_down
from unitbox_tf.network.backbones import Backbone


def backbone(*, taps=None, strides=(2, 4, 8)):
    """Averages of 2 x 2, 4 x 4 and 8 x 8 pixels: maps whose values are known."""
    image = x = keras.Input((None, None, 3))
    for stride in strides:
        x = keras.layers.AveragePooling2D(2, name=f"mean{stride}")(x)
    pyramid = {stride: f"mean{stride}" for stride in strides}
    taps = taps or {}
    return Backbone(keras.Model(image, x), stride=strides[-1], pyramid=pyramid, **taps)


def network(map_stride=2, **options):
    options = {"neck_channels": 3, "seed": 2, **options}
    return UnitBox(backbone(), ("a", "b"), neck="top_down", map_stride=map_stride, **options)


def with_random_weights(model, scale=1.0):
    random = np.random.default_rng(1)
    model.set_weights([scale * random.uniform(0.1, 1, weight.shape) for weight in model.weights])
    return model


def plain(model, image):
    """The same heatmaps from arrays and `tf.nn`, written down from the text of the module."""

    def convolved(x, name):
        kernel, *bias = model.get_layer(name).get_weights()
        return tf.nn.conv2d(x, kernel, 1, "SAME") + (bias[0] if bias else 0)

    def normalised(x, name):
        layer = model.get_layer(f"{name}_bn")
        gamma, beta, mean, variance = layer.get_weights()
        x = (convolved(x, name) - mean) / np.sqrt(variance + layer.epsilon)
        return x * gamma + beta

    height, width = image.shape[1:3]
    padded = np.pad(image, [(0, 0), (0, -height % 8), (0, -width % 8), (0, 0)])
    merged = None
    for stride in (8, 4, 2):
        mean = tf.nn.avg_pool2d(padded, stride, stride, "VALID")
        x = normalised(mean, f"lateral{stride}")
        if merged is not None:
            x = x + np.repeat(np.repeat(merged, 2, axis=1), 2, axis=2)
        merged = np.maximum(x, 0)
    for number in (1, 2):
        merged = np.maximum(normalised(merged, f"tower{number}"), 0)
    cut = (slice(None), slice(-(-height // 2)), slice(-(-width // 2)))
    confidence = convolved(merged, "confidence_head").numpy()[cut]
    return confidence, convolved(merged, "distances_head").numpy()[cut]


def test_the_map_is_what_plain_operations_compute(random):
    model = with_random_weights(network(initial_box_size=6.0), 0.3)
    image = random.uniform(0, 1, (2, 13, 18, 3)).astype(np.float32)
    confidence, numbers = plain(model, image)
    found = model(image, training=False)
    np.testing.assert_allclose(found["confidence"], confidence, rtol=1e-4)
    np.testing.assert_allclose(found["distances"], 3 * np.exp(np.minimum(numbers, 8)), rtol=1e-3)


@pytest.mark.parametrize("size", [(1, 1), (8, 16), (17, 31), (5, 33)])
@pytest.mark.parametrize("map_stride", [2, 4, 8])
def test_maps_have_a_point_for_each_started_stride(size, map_stride):
    found = network(map_stride)(np.zeros((1, *size, 3), np.uint8))
    height, width = (-(-length // map_stride) for length in size)
    assert found["confidence"].shape == (1, height, width, 2)
    assert found["distances"].shape == (1, height, width, 4)


def passing_on(model, stride):
    """Gives the model weights that pass on the first channel of the map of one stride alone."""
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2D):
            kernel, *bias = (np.zeros_like(values) for values in layer.get_weights())
            other = layer.name.startswith("lateral") and layer.name != f"lateral{stride}"
            kernel[kernel.shape[0] // 2, kernel.shape[1] // 2, 0, :] = 0 if other else 1
            layer.set_weights([kernel, *bias])


@pytest.mark.parametrize(("map_stride", "stride"), [(2, 2), (2, 8), (4, 4), (4, 8)])
@pytest.mark.parametrize("size", [(32, 32), (29, 19)])
def test_a_pixel_shows_at_the_points_around_it(map_stride, stride, size):
    """A pixel lights the cell of a coarse map that covers it, and the points of the fine map in this cell."""
    model = network(map_stride)
    passing_on(model, stride)
    row, column = 21, 14
    image = np.zeros((1, *size, 3), np.float32)
    image[0, row, column] = 255
    lit = model(image, training=False)["confidence"].numpy()[0, ..., 0] > 0.1
    x, y = np.moveaxis(boxes.map_points(*size, map_stride).numpy(), -1, 0)
    i, j = np.mgrid[: lit.shape[0], : lit.shape[1]]
    np.testing.assert_array_equal(x, (j + 0.5) * map_stride)
    np.testing.assert_array_equal(y, (i + 0.5) * map_stride)
    inside = (y // stride == row // stride) & (x // stride == column // stride)
    np.testing.assert_array_equal(lit, inside)


@pytest.mark.parametrize(
    ("map_stride", "given", "side"), [(2, 44.0, 44.0), (2, 0.0, 8.0), (4, 0.0, 16.0)]
)
def test_the_first_boxes_have_the_stated_size_and_hardly_any_confidence(
    map_stride, given, side, random
):
    model = network(map_stride, initial_box_size=given, head_stddev=1e-6)
    found = model(random.integers(0, 256, (1, 32, 32, 3), np.uint8))
    np.testing.assert_allclose(found["distances"], side / 2, rtol=1e-3)
    np.testing.assert_allclose(tf.sigmoid(found["confidence"]), top_down.PRIOR, rtol=1e-3)


def test_a_neck_without_a_pyramid_and_a_head_without_a_layer_are_errors():
    branches = {"confidence": "mean2", "distances": "mean4"}
    image = keras.Input((None, None, 3))
    x = keras.layers.AveragePooling2D(2, name="mean2")(image)
    x = keras.layers.AveragePooling2D(2, name="mean4")(x)
    without = Backbone(keras.Model(image, x), stride=4, **branches)
    with pytest.raises(ValueError, match=r"names a pyramid of layers with the neck top_down"):
        UnitBox(without, ("a",), neck="top_down")
    with pytest.raises(ValueError, match=r"layers confidence and distances with the neck none"):
        UnitBox(backbone(), ("a",))
    assert UnitBox(backbone(taps=branches), ("a",)).map_stride == 1
    with pytest.raises(ValueError, match=r"map_stride: expected a stride.*\[2, 4, 8\].*: 16$"):
        network(16)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"neck": "top_down", "unshared": True}, "unshared of False with the neck top_down"),
        ({"neck": "top_down", "stage4_scale": 0.1}, "stage4_scale of 1.0 with the neck top_down"),
        ({"neck": "top_down", "confidence_tap": "after_pool"}, "confidence_tap of before_pool"),
        ({"neck": "top_down", "distances_tap": "after_pool"}, "distances_tap of before_pool"),
        ({"map_stride": 8}, "map_stride of 4 with the neck none, which does not heed it"),
        ({"neck_channels": 8}, "neck_channels of 32 with the neck none"),
    ],
)
def test_settings_that_a_neck_does_not_heed_are_errors(settings, message):
    with pytest.raises(ValueError, match=f"ModelConfig: expected {message}"):
        ModelConfig(**settings)


def test_a_model_checks_them_too():
    with pytest.raises(ValueError, match="unshared of False with the neck top_down"):
        network(unshared=True)
    with pytest.raises(ValueError, match="neck: expected one of"):
        UnitBox(backbone(), ("a",), neck="bottom_up")


def test_a_keras_file_keeps_the_neck(tmp_path, random):
    image = random.integers(0, 256, (1, 21, 30, 3), np.uint8)
    one = with_random_weights(network(4, initial_box_size=9.0), 0.3)
    one.save(tmp_path / "model.keras")
    again = UnitBox.from_preset(tmp_path / "model.keras")
    assert (again.map_stride, again.neck, again.backbone.pyramid) == (
        4,
        "top_down",
        one.backbone.pyramid,
    )
    assert again.backbone.confidence is None
    expected, found = (each(image, training=False) for each in (one, again))
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values)
