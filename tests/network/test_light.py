import keras
import numpy as np
import pytest
import tensorflow as tf

from unitbox_tf import losses
from unitbox_tf.config import ModelConfig
from unitbox_tf.detect.model import UnitBox
from unitbox_tf.network.light import light
from unitbox_tf.train.freezing import FreezeBackbone

SETTINGS = ModelConfig(
    class_names=("face",), backbone="light", width=0.25, neck="top_down", neck_channels=8
)


def features(backbone, image):
    names = ["stem", *backbone.pyramid.values()]
    return dict(zip(names, backbone.features(names, "all")(image, training=False), strict=True))


def test_each_stage_is_a_chain_of_residual_blocks_of_plain_convolutions(random):
    """Computed from the weights by their names with `tf.nn`."""
    backbone = light(ModelConfig(backbone="light", width=0.125))
    image = random.uniform(0, 255, (1, 352, 320, 3)).astype(np.float32)
    values = [random.uniform(0.5, 1.5, weight.shape) for weight in backbone.model.weights]
    scale = [1 if len(each.shape) == 1 else 1 / np.sqrt(each[..., 0].size) for each in values]
    backbone.model.set_weights([a * b for a, b in zip(values, scale, strict=True)])
    expected = features(backbone, image)

    def normalised(x, name, stride, dilation=1):
        layer = backbone.model.get_layer(f"{name}_bn")
        [kernel] = backbone.model.get_layer(name).get_weights()
        x = tf.nn.conv2d(x, kernel, stride, "SAME", dilations=dilation)
        gamma, beta, mean, variance = layer.get_weights()
        return (x - mean) / np.sqrt(variance + 1e-3) * gamma + beta

    x = tf.nn.relu(normalised(image, "stem_conv", 2))
    np.testing.assert_allclose(expected["stem"], x, rtol=1e-4)
    for number, blocks in enumerate((1, 2, 2, 3), 1):
        for block in range(1, blocks + 1):
            name, stride = f"stage{number}_block{block}", 2 if block == 1 else 1
            dilation = 2 ** (block - 1) if number == 4 else 1
            y = tf.nn.relu(normalised(x, f"{name}_conv1", stride, dilation))
            y = normalised(y, f"{name}_conv2", 1, dilation)
            x = tf.nn.relu(y + (normalised(x, f"{name}_shortcut", 2) if block == 1 else x))
        assert backbone.pyramid[2 ** (number + 1)] == name
        np.testing.assert_allclose(expected[name], x, rtol=1e-3)


def test_a_point_of_the_last_stage_sees_as_much_of_the_image_as_is_said():
    model = light(ModelConfig(backbone="light", width=0.0625)).model
    model.set_weights([np.abs(values) for values in model.get_weights()])  # no ReLU is at 0
    image = tf.Variable(tf.ones([1, 1600, 64, 3]))
    with tf.GradientTape() as tape:
        point = model(image, training=False)[0, 25, 1, 0]
    [rows] = np.nonzero(tf.reduce_sum(tf.abs(tape.gradient(point, image)), axis=(0, 2, 3)).numpy())
    assert rows[-1] - rows[0] + 1 == 1047
    assert len(rows) == 1047


@pytest.fixture(scope="module")
def narrow():
    return light(ModelConfig(backbone="light", width=0.25), seed=1).model


def test_the_width_is_a_factor_of_the_channels(narrow):
    convolutions = [each for each in narrow.layers if isinstance(each, keras.layers.Conv2D)]
    first = [int(layer.name[5]) for layer in convolutions[1:]]  # "stage1_block1_conv1"
    assert [layer.filters for layer in convolutions] == [
        4,
        *([8, 12, 24, 32][n - 1] for n in first),
    ]
    assert len(convolutions) == 1 + 2 * (1 + 2 + 2 + 3) + 4


def test_the_seed_fixes_the_weights_and_no_two_layers_are_alike(narrow):
    b, c = (light(ModelConfig(width=0.25), seed=seed).model for seed in (1, 2))
    for x, y in zip(narrow.get_weights(), b.get_weights(), strict=True):
        np.testing.assert_array_equal(x, y)
    kernels = [[v for v in model.get_weights() if v.ndim == 4] for model in (narrow, c)]
    assert all((x != y).any() for x, y in zip(*kernels, strict=True))
    alike = [values for values in kernels[0] if values.shape == kernels[0][-1].shape]
    assert len(alike) > 2
    assert len({values.tobytes() for values in alike}) == len(alike)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weights": "imagenet"}, "weights: expected None with the backbone light.*: 'imagenet'$"),
        ({"confidence_tap": "after_pool"}, "confidence_tap: expected 'before_pool' with the"),
        ({"distances_tap": "after_pool"}, "distances_tap: expected 'before_pool' with the"),
    ],
)
def test_what_the_network_does_not_have_is_an_error(settings, message):
    with pytest.raises(ValueError, match=message):
        light(ModelConfig(backbone="light", **settings))


@pytest.fixture(scope="module")
def trained():
    """The weights at the start, after an epoch with a frozen backbone and after one more."""
    model = UnitBox.from_settings(SETTINGS)
    names = ("confidence", "distances")
    iou = losses.IoULoss(reduction="mean_with_sample_weight")
    cross = keras.losses.BinaryCrossentropy(from_logits=True)
    model.compile("sgd", loss=dict(zip(names, (cross, iou), strict=True)))
    after = [{weight.path: weight.numpy() for weight in model.weights}]

    def keep(epoch, logs):
        assert np.isfinite(logs["loss"])
        after.append({weight.path: weight.numpy() for weight in model.weights})

    images = np.random.default_rng(0).uniform(0, 255, (2, 64, 64, 3)).astype(np.float32)
    targets = {"confidence": np.ones((2, 16, 16, 1)), "distances": np.full((2, 16, 16, 4), 5.0)}
    weights = {name: np.ones((2, 16, 16)) for name in names}
    callbacks = [FreezeBackbone(1), keras.callbacks.LambdaCallback(on_epoch_end=keep)]
    model.fit(images, targets, sample_weight=weights, epochs=2, callbacks=callbacks, verbose=0)
    return model, after


def moved(before, after):
    return {name for name in before if not np.array_equal(before[name], after[name])}


def test_a_step_moves_all_weights_and_statistics(trained):
    model, after = trained
    assert moved(after[1], after[2]) == {weight.path for weight in model.weights}
    assert sum("moving" in name for name in after[0]) == 2 * 27


def test_a_frozen_backbone_keeps_its_statistics_while_the_neck_learns(trained):
    model, after = trained
    [part] = model.backbone_layers
    frozen = {weight.path for weight in part.weights}
    assert {name for name in frozen if "moving" in name}
    assert moved(after[0], after[1]) == {weight.path for weight in model.weights} - frozen


@pytest.mark.parametrize("neck", ["none", "top_down"])
def test_a_keras_file_gives_the_model_that_was_saved(neck, tmp_path, random):
    """Also where the neck does not use all layers of the backbone, and with many classes."""
    more = {"neck_channels": 4, "map_stride": 8} if neck == "top_down" else {}
    classes = tuple(f"class {number}" for number in range(90))
    settings = ModelConfig(class_names=classes, backbone="light", width=0.1, neck=neck, **more)
    model = UnitBox.from_settings(settings)
    image = random.integers(0, 256, (1, 40, 30, 3), np.uint8)
    model.save(tmp_path / "model.keras")
    model.save_weights(tmp_path / "a.weights.h5")
    expected = model(image, training=False)
    other = UnitBox.from_preset(tmp_path / "model.keras")
    for _ in range(2):
        for name, each in other(image, training=False).items():
            np.testing.assert_array_equal(each, expected[name])
        other.set_weights([0 * values for values in other.get_weights()])
        other.load_weights(tmp_path / "a.weights.h5")
