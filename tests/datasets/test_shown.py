import dataclasses

import numpy as np
import pytest

from unitbox_tf.config import DataConfig, ModelConfig
from unitbox_tf.datasets import shown

HEAD = 3  # side of the kernel of the convolution after each tap


@pytest.mark.parametrize("tap", ["before_pool", "after_pool"])
def test_the_limits_are_those_of_the_layers(tap):
    import keras

    from unitbox_tf.network import backbones

    layers = keras.applications.VGG16(include_top=False, weights=None).layers

    def of(last):
        """Stride and field of view after a head on this layer: a kernel adds (side - 1) strides."""
        stride, field = 1, 1
        for layer in layers[1:]:
            [side] = set(getattr(layer, "kernel_size", None) or layer.pool_size)
            field += (side - 1) * stride
            stride *= layer.strides[0]
            if layer.name == last:
                return stride, field + (HEAD - 1) * stride
        raise AssertionError(last)

    limits = shown.limits(ModelConfig(confidence_tap=tap, distances_tap=tap))
    assert limits.stride == of(backbones._VGG_CONFIDENCE[tap])[0]
    assert limits.field == of(backbones._VGG_DISTANCES[tap])[1]


def test_the_limits_are_those_of_docs_sizes():
    limits = shown.limits(ModelConfig())
    assert (limits.stride, limits.smallest) == (8, 16)
    assert (limits.field, limits.largest, limits.left_to_smaller_scale) == (228, 171, 100)


def test_another_backbone_has_no_known_limits():
    assert shown.limits(dataclasses.replace(ModelConfig(), backbone="vgg16")) is not None
    model = ModelConfig()
    object.__setattr__(model, "backbone", "my_own")  # as one that a user registers
    assert shown.limits(model) is None


@pytest.mark.parametrize(
    ("box", "image", "wanted"),
    [
        ((100, 60, 180, 100), (240, 320), 40),
        ((100, 60, 180, 100), (240, 320), 150),  # more than twice as large
        ((100, 60, 112, 100), (240, 320), 90),
        ((10, 10, 300, 200), (240, 320), 12),  # the image would be too small
        ((40, 40, 60, 50), (80, 80), 60),
    ],
)
def test_a_random_crop_shows_its_object_as_computed(box, image, wanted):
    import tensorflow as tf

    from unitbox_tf.train import augment

    data = DataConfig(image_size=192, random_crop=True, object_size=(wanted, wanted))
    long_side = max(box[2] - box[0], box[3] - box[1])
    [*expected] = shown.in_training(np.array([long_side]), np.array([max(image)]), data)
    assert expected == pytest.approx([expected[0]] * len(shown.LEVELS))
    objects = {
        "boxes": tf.constant([box], tf.float32),
        "classes": tf.constant([0]),
        "ignore": tf.constant([False]),
    }
    picture = tf.zeros([*image, 3], tf.uint8)
    seen = []
    for seed in range(5):
        _, found = augment.random_crop(
            picture, objects, 192, data.object_size, data.max_enlargement, tf.constant([seed, 0])
        )
        x0, y0, x1, y1 = found["boxes"][0].numpy()
        seen.append(max(x1 - x0, y1 - y0))
    # An object may be cut at a border; whole pixels change the scale a little.
    assert max(seen) == pytest.approx(expected[0], rel=0.03)


def test_without_random_crop_images_are_shrunk_and_never_enlarged():
    data = DataConfig(image_size=100)
    found = shown.in_training(np.array([50.0, 30, 20]), np.array([200.0, 100, 50]), data)
    np.testing.assert_allclose(found, [25, 30, 20])


def test_random_crops_show_all_of_object_size():
    data = DataConfig(image_size=192, random_crop=True, object_size=(16, 170))
    found = shown.in_training(np.full(3, 100.0), np.full(3, 400.0), data)
    assert len(found) == 15
    assert 16 < found.min() < 25
    # The lowest scale is that at which the image takes half of the crop: 96 / 400.
    small = shown.in_training(np.array([10.0]), np.array([400.0]), data)
    assert small.max() == 20  # enlarged twice at most
    large = shown.in_training(np.array([380.0]), np.array([400.0]), data)
    assert large.min() == pytest.approx(380 * 96 / 400)
