"""The network of section 3 of the paper: VGG-16 and two branches of convolution, up-sampling and crop.

    image ─ Preprocess ─ stages 1 to 4 ─ 3x3 conv ─ Resize ─ Crop ─▶ confidence [B, H, W, C], logits
                               └─ stage 5 ─ 3x3 conv ─ Resize ─ Crop ─ SideReLU ─▶ distances [B, H, W, 4], pixels

Alignment: each pooling halves the map and drops a last odd row, so the image is padded at its
bottom and right to a multiple of the stride. Then a map of stride s covers exactly the padded
image, resizing it to the *padded* size is free of shift and of scale error (with TensorFlow's
half-pixel convention), and the crop takes the padding off again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from unitbox_tf.config import ModelConfig

STRIDE = 32  # of VGG-16's last pooling; images are padded to a multiple of it
IMAGENET_MEAN_BGR = (
    103.939,
    116.779,
    123.68,
)  # what the ImageNet weights of VGG-16 expect subtracted
CONFIDENCE_TAPS = {"before_pool": "block4_conv3", "after_pool": "block4_pool"}
DISTANCES_TAPS = {"before_pool": "block5_conv3", "after_pool": "block5_pool"}


@keras.saving.register_keras_serializable("unitbox_tf")
class Preprocess(keras.layers.Layer):
    """RGB from 0 to 255 `[B, H, W, 3]` to what VGG-16 expects: BGR, ImageNet mean subtracted, padded with zeros.

    The padding, at the bottom and at the right, is to the next multiple of `STRIDE`, so any size
    from 1 x 1 on works.
    """

    def call(self, images: tf.Tensor) -> tf.Tensor:
        shape = tf.shape(images)
        # Of positive numbers only: converted to ONNX, the remainder of a negative one has another sign.
        bottom, right = ((STRIDE - shape[axis] % STRIDE) % STRIDE for axis in (1, 2))
        x = tf.cast(images, tf.float32)[..., ::-1] - tf.constant(IMAGENET_MEAN_BGR)
        return tf.pad(x, [[0, 0], [0, bottom], [0, right], [0, 0]])

    def compute_output_shape(self, shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        def padded(size: int | None) -> int | None:
            return None if size is None else size + -size % STRIDE

        return (shape[0], padded(shape[1]), padded(shape[2]), shape[3])


@keras.saving.register_keras_serializable("unitbox_tf")
class Resize(keras.layers.Layer):
    """Bilinear interpolation of a map to the height and width of another tensor: `(x, reference) -> float32`.

    `keras.layers.UpSampling2D` and `Resizing` cannot be used: with sizes known only when the model
    runs, the one fails to export and the other fails to run.
    """

    def call(self, inputs: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        x, reference = inputs
        return tf.image.resize(x, tf.shape(reference)[1:3])

    def compute_output_shape(self, shapes: Any) -> tuple[int | None, ...]:
        x, reference = shapes
        return (x[0], reference[1], reference[2], x[3])


@keras.saving.register_keras_serializable("unitbox_tf")
class Crop(keras.layers.Layer):
    """The top left of a map, as high and wide as another tensor: `(x, reference) -> x[:, :H, :W]`."""

    def call(self, inputs: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        x, reference = inputs
        shape = tf.shape(reference)
        return x[:, : shape[1], : shape[2]]

    def compute_output_shape(self, shapes: Any) -> tuple[int | None, ...]:
        x, reference = shapes
        return (x[0], reference[1], reference[2], x[3])


@keras.saving.register_keras_serializable("unitbox_tf")
class SideReLU(keras.layers.Layer):
    """ReLU that can be revived: where the input is negative, gradients that ask for growth still pass.

    An ordinary ReLU passes nothing there, so a distance head that is negative everywhere would stay
    so for good. (The gradient of a loss is negative where the loss falls when the value grows.)
    Where the input is positive, and in the forward pass, it is the ReLU.
    """

    def call(self, x: tf.Tensor) -> tf.Tensor:
        return _side_relu(x)

    def compute_output_shape(self, shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return shape


@tf.custom_gradient
def _side_relu(x: tf.Tensor) -> Any:
    def gradient(upstream: tf.Tensor) -> tf.Tensor:
        return tf.where((x > 0) | (upstream < 0), upstream, 0)

    return tf.nn.relu(x), gradient


def unitbox(config: ModelConfig, seed: int = 0) -> keras.Model:
    """The network as a functional Keras model.

    Args:
        config: see `ModelConfig`; `weights` are loaded into the backbone.
        seed: of the random initial weights.

    Returns:
        A model of RGB images `[B, H, W, 3]`, uint8 or float from 0 to 255, any height and width.
        Its output is a dict:
        `"confidence"` `[B, H, W, C]`, a logit a class, and `"distances"` `[B, H, W, 4]`, `tblr` in
        pixels, not negative.

    Raises:
        ValueError: the weights cannot be had or do not fit.
    """
    initializer = keras.initializers.RandomNormal(stddev=config.head_stddev, seed=seed)
    confidence_tap = CONFIDENCE_TAPS[config.confidence_tap]
    distances_tap = DISTANCES_TAPS[config.distances_tap]
    image = keras.Input((None, None, 3), name="image")
    padded = Preprocess(name="preprocess", dtype="float32")(image)
    if config.unshared:
        [stage4] = _backbone(config, seed, [confidence_tap], "confidence_backbone")(padded)
        [stage5] = _backbone(config, seed, [distances_tap], "distances_backbone")(padded)
    else:
        stage4, stage5 = _backbone(config, seed, [confidence_tap, distances_tap], "backbone")(
            padded
        )

    # The heads compute in float32 also where the backbone does not: bfloat16 would round a distance
    # of 200 px to whole pixels, and they are small.
    x = keras.layers.Rescaling(config.stage4_scale, name="stage4_scale", dtype="float32")(stage4)
    x = keras.layers.Conv2D(
        len(config.class_names),
        3,
        padding="same",
        kernel_initializer=initializer,
        name="confidence_head",
        dtype="float32",
    )(x)
    x = Resize(name="confidence_resize", dtype="float32")([x, padded])
    confidence = Crop(name="confidence", dtype="float32")([x, image])

    x = keras.layers.Conv2D(
        4,
        3,
        padding="same",
        kernel_initializer=initializer.clone(),
        bias_initializer=keras.initializers.Constant(config.initial_box_size / 2),
        name="distances_head",
        dtype="float32",
    )(stage5)
    x = Resize(name="distances_resize", dtype="float32")([x, padded])
    x = Crop(name="distances_crop", dtype="float32")([x, image])
    distances = SideReLU(name="distances", dtype="float32")(x)
    return keras.Model(image, {"confidence": confidence, "distances": distances}, name="unitbox")


def _backbone(config: ModelConfig, seed: int, taps: list[str], name: str) -> keras.Model:
    """VGG-16 from preprocessed images to the outputs of the layers `taps`, with `config.weights`."""
    weights = config.weights
    if weights not in (None, "imagenet") and not Path(str(weights)).is_file():
        raise ValueError(
            f"weights={weights!r}: no such file. Expected None, 'imagenet' or a weights file of "
            "keras.applications.VGG16 without its top (vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5)."
        )
    try:
        vgg = keras.applications.VGG16(
            include_top=False, weights=weights, input_shape=(None, None, 3)
        )
    except Exception as error:  # Keras raises a bare Exception when a download fails
        if weights == "imagenet":
            raise ValueError(
                f"The ImageNet weights of VGG-16 could not be downloaded ({error}). Without network, get the file "
                "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5 elsewhere and name it with --weights."
            ) from error
        raise ValueError(
            f"weights={weights!r}: expected the weights of keras.applications.VGG16 without its top: {error}"
        ) from error
    if weights is None:
        # Keras starts VGG-16 from Glorot's initialisation, from which 13 layers do not train.
        for index, layer in enumerate(layer for layer in vgg.layers if layer.weights):
            layer.kernel.assign(keras.initializers.HeNormal(seed=seed + index)(layer.kernel.shape))
    return keras.Model(vgg.input, [vgg.get_layer(tap).output for tap in taps], name=name)
