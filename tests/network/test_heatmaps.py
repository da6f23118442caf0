import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from unitbox_tf import losses
from unitbox_tf.config import ModelConfig
from unitbox_tf.detect.model import UnitBox
from unitbox_tf.network import backbones, layers


def conv_layers(model):
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.Conv2D):
            yield layer


@pytest.fixture(scope="module")
def shared():
    return UnitBox.from_settings(
        ModelConfig(class_names=("object",), head_stddev=1e-3, initial_box_size=30.0)
    )


@pytest.mark.parametrize(("unshared", "expected"), [(False, 14_737_733), (True, 22_372_997)])
def test_parameter_counts_are_the_papers(unshared, expected):
    assert (
        UnitBox.from_settings(
            ModelConfig(class_names=("object",), unshared=unshared)
        ).count_params()
        == expected
    )


def test_outputs_have_the_size_of_the_image(shared, random):
    for height, width in [(1, 1), (17, 31), (32, 64), (33, 5), (100, 75)]:
        image = random.integers(0, 256, (2, height, width, 3), np.uint8)
        out = shared(image)
        assert set(out) == {"confidence", "distances"}
        assert out["confidence"].shape == (2, height, width, 1)
        assert out["distances"].shape == (2, height, width, 4)
        assert out["distances"].numpy().min() >= 0
        assert np.isfinite(out["confidence"]).all()


def test_uint8_and_float_images_are_the_same(shared, random):
    image = random.integers(0, 256, (1, 40, 50, 3), np.uint8)
    a, b = shared(image), shared(image.astype(np.float32))
    np.testing.assert_allclose(a["confidence"], b["confidence"], atol=1e-6)


def test_preprocessing_is_that_of_keras_applications(random):
    image = random.integers(0, 256, (1, 32, 32, 3), np.uint8)
    expected = keras.applications.vgg16.preprocess_input(image.astype(np.float32))
    given = dataclasses.asdict(backbones.vgg16(ModelConfig(class_names=("object",))).preprocessing)
    layer = layers.Preprocess(stride=32, **given)
    np.testing.assert_allclose(layer(image), expected, atol=1e-4)
    again = layers.Preprocess.from_config(layer.get_config())
    np.testing.assert_array_equal(again(image), layer(image))


def test_the_first_prediction_is_the_initial_box(random):
    model = UnitBox.from_settings(
        ModelConfig(class_names=("object",), initial_box_size=44.0, head_stddev=1e-6)
    )
    out = model(random.integers(0, 256, (1, 64, 64, 3), np.uint8))
    np.testing.assert_allclose(out["distances"], 22.0, atol=0.5)


def test_classes_add_confidence_maps_only():
    out = UnitBox.from_settings(ModelConfig(class_names=("cat", "dog", "cow")))(
        np.zeros((1, 32, 32, 3))
    )
    assert out["confidence"].shape[-1] == 3
    assert out["distances"].shape[-1] == 4


@pytest.mark.parametrize("unshared", [False, True])
@pytest.mark.parametrize("tap", ["before_pool", "after_pool"])
def test_an_impulse_comes_out_where_it_went_in(tap, unshared):
    """With kernels that only pass on the centre, a bright pixel lights one cell of a stage's map.

    Up-sampling makes a tent of the cell, centred at the cell's centre in the image, whatever the
    image's size; a shift of half a pixel or a wrong scale would move it.
    """
    config = ModelConfig(
        class_names=("object",), confidence_tap=tap, distances_tap=tap, unshared=unshared
    )
    model = UnitBox.from_settings(config)
    for layer in conv_layers(model):
        kernel = np.zeros(layer.kernel.shape, np.float32)
        kernel[1, 1, 0, :] = 1.0 if kernel.shape[-1] <= 4 else 0.0
        kernel[1, 1, 0, 0] = 1.0
        layer.set_weights([kernel, np.zeros(layer.bias.shape, np.float32)])
    strides = {"before_pool": (8, 16), "after_pool": (16, 32)}[tap]
    for height, width, row, column in [
        (256, 256, 130, 100),
        (255, 259, 130, 100),
        (161, 240, 77, 171),
        (129, 300, 70, 250),
    ]:
        image = np.zeros((1, height, width, 3), np.float32)
        image[0, row, column] = 255
        out = model(image)
        for name, stride in zip(("confidence", "distances"), strides, strict=True):
            response = out[name][0, ..., 0].numpy()
            assert response.max() > 50
            ys, xs = np.mgrid[:height, :width] + 0.5
            centre = [(ys * response).sum(), (xs * response).sum()] / response.sum()
            expected = [(row // stride + 0.5) * stride, (column // stride + 0.5) * stride]
            np.testing.assert_allclose(centre, expected, atol=1e-2)
            # The tent has the width of a cell on each side of its centre.
            assert np.ptp(np.nonzero(response.any(axis=0))[0]) + 1 == 2 * stride


def test_side_relu_is_relu_forwards_and_lets_growth_through_backwards():
    x = tf.constant([[-2.0, -2.0, 3.0, 3.0]])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layers.SideReLU()(x)
        loss = tf.reduce_sum(y * tf.constant([[1.0, -1.0, 1.0, -1.0]]))
    assert y.numpy().tolist() == [[0, 0, 3, 3]]
    # A loss that falls when y grows has a negative gradient: only that passes below zero.
    assert tape.gradient(loss, x).numpy().tolist() == [[0, -1, 1, -1]]


@pytest.mark.parametrize("bias", [-0.5, -5.0])
def test_training_revives_a_distance_head_that_is_zero_everywhere(random, bias):
    model = UnitBox.from_settings(ModelConfig(class_names=("object",), head_stddev=1e-6))
    head = model.get_layer("distances_head")
    head.set_weights([head.kernel.numpy(), np.full(4, bias, np.float32)])
    image = tf.constant(random.uniform(0, 255, (1, 64, 64, 3)), tf.float32)
    truth = np.zeros((1, 64, 64, 4), np.float32)
    truth[:, 16:48, 16:48] = 12.0
    weight = (truth[..., 0] > 0).astype(np.float32)
    assert not model(image)["distances"].numpy().any()
    model.compile(
        keras.optimizers.SGD(1e-2, global_clipnorm=20.0),
        loss={
            "confidence": keras.losses.BinaryCrossentropy(from_logits=True),
            "distances": losses.IoULoss(reduction="mean_with_sample_weight"),
        },
    )
    targets = {"confidence": weight[..., None], "distances": truth}
    weights = {"confidence": np.ones_like(weight), "distances": weight}
    for _ in range(15):
        logs = model.train_on_batch(image, targets, weights, return_dict=True)
        assert np.isfinite(logs["loss"])
    found = losses.iou(truth, model(image)["distances"]).numpy()[weight > 0]
    assert found.mean() > 0.1


def test_the_seed_fixes_the_weights():
    a, b, c = (
        UnitBox.from_settings(ModelConfig(class_names=("object",)), seed=seed) for seed in (1, 1, 2)
    )
    for x, y in zip(a.get_weights(), b.get_weights(), strict=True):
        np.testing.assert_array_equal(x, y)
    differ = [(x != y).any() for x, y in zip(a.get_weights(), c.get_weights(), strict=True)]
    assert sum(differ) == 15  # kernels; biases start as constants


def test_weights_can_be_a_file(data):
    path = data("vgg16_notop.h5")
    model = UnitBox.from_settings(
        ModelConfig(class_names=("object",), weights=str(path), unshared=True)
    )
    kernels = [layer.kernel.numpy() for layer in conv_layers(model) if layer.name == "block1_conv1"]
    assert len(kernels) == 2
    np.testing.assert_array_equal(*kernels)
    # The official file's checksum of this layer: mean and standard deviation of its kernel.
    assert kernels[0].std() == pytest.approx(0.2069, abs=1e-3)


def test_a_missing_weights_file_is_named():
    with pytest.raises(ValueError, match=r"weights='gone\.h5': no such file. Expected None, 'ima"):
        UnitBox.from_settings(ModelConfig(class_names=("object",), weights="gone.h5"))


def test_weights_of_another_shape_are_refused(tmp_path):
    path = tmp_path / "other.weights.h5"
    other = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3)])
    other.save_weights(path)
    with pytest.raises(ValueError, match=r"expected the weights of keras\.applications\.VGG16"):
        UnitBox.from_settings(ModelConfig(class_names=("object",), weights=str(path)))
    path.write_bytes(b"no weights at all")
    with pytest.raises(ValueError, match=r"expected the weights of keras\.applications\.VGG16"):
        UnitBox.from_settings(ModelConfig(class_names=("object",), weights=str(path)))


def test_without_network_imagenet_weights_say_what_to_do(monkeypatch):
    vgg = keras.applications.VGG16

    def offline(*args, weights, **kwargs):
        if weights == "imagenet":
            raise Exception("URL fetch failure")
        return vgg(*args, weights=weights, **kwargs)

    monkeypatch.setattr(keras.applications, "VGG16", offline)
    with pytest.raises(
        ValueError, match=r"could not be downloaded .*URL fetch.*as weights \(--weights\)"
    ):
        UnitBox.from_settings(
            dataclasses.replace(ModelConfig(class_names=("object",)), weights="imagenet")
        )
