"""Keras layers of the network: preprocessing, up-sampling, crop, normalisation, and functions that end a branch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable("unitbox_tf")
class Preprocess(keras.layers.Layer):
    """RGB from 0 to 255 `[B, H, W, 3]` to the values that a backbone expects, padded with zeros, float32.

    The bottom and the right are padded to the next multiple of `stride`, so any size from 1 x 1 on works. Steps
    that change nothing, such as subtracting 0, are left out: each takes time.
    """

    def __init__(
        self,
        *,
        stride: int,
        channels: str,
        mean: Sequence[float],
        scale: float = 1.0,
        **kwargs: Any,
    ) -> None:
        """The arguments of `backbones.Backbone`, `backbones.Preprocessing` and a Keras layer."""
        super().__init__(**kwargs)
        self.stride = stride
        self.channels = channels
        self.mean = tuple(float(value) for value in mean)
        self.scale = scale

    def call(self, images: tf.Tensor) -> tf.Tensor:
        shape = tf.shape(images)
        # All numbers are positive, because ONNX gives the remainder of a negative number another sign.
        stride = self.stride
        bottom, right = ((stride - shape[axis] % stride) % stride for axis in (1, 2))
        x = tf.cast(images, tf.float32)
        if self.channels == "bgr":
            x = x[..., ::-1]
        if any(self.mean):
            x -= tf.constant(self.mean)
        if self.scale != 1:
            x *= self.scale
        return tf.pad(x, [[0, 0], [0, bottom], [0, right], [0, 0]])

    def compute_output_shape(self, shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        def padded(size: int | None) -> int | None:
            return None if size is None else size + -size % self.stride

        return (shape[0], padded(shape[1]), padded(shape[2]), shape[3])

    def get_config(self) -> dict[str, Any]:
        own = {"stride": self.stride, "channels": self.channels}
        return {**super().get_config(), **own, "mean": list(self.mean), "scale": self.scale}


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
    """The top left part of a map of `stride` that covers an image `[B, H, W, 3]`: `(x, image) -> x[:, :h, :w]`.

    h is H / `stride`, rounded up; w likewise.
    """

    def __init__(self, stride: int = 1, **kwargs: Any) -> None:
        """`stride` is the number of pixels of the image from one point of the map to the next."""
        super().__init__(**kwargs)
        self.stride = stride

    def call(self, inputs: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        x, image = inputs
        shape = tf.shape(image)
        height, width = ((shape[axis] + self.stride - 1) // self.stride for axis in (1, 2))
        return x[:, :height, :width]

    def compute_output_shape(self, shapes: Any) -> tuple[int | None, ...]:
        x, image = shapes
        height, width = (None if n is None else -(-n // self.stride) for n in image[1:3])
        return (x[0], height, width, x[3])

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "stride": self.stride}


@keras.saving.register_keras_serializable("unitbox_tf")
class Enlarge(keras.layers.Layer):
    """Repeats each value of a map to the height and width of another tensor: `(x, reference) -> x` of its size.

    `keras.layers.UpSampling2D` fails to export when sizes are known only when the model runs.
    """

    def call(self, inputs: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        x, reference = inputs
        return tf.image.resize(x, tf.shape(reference)[1:3], "nearest")

    def compute_output_shape(self, shapes: Any) -> tuple[int | None, ...]:
        x, reference = shapes
        return (x[0], reference[1], reference[2], x[3])


@keras.saving.register_keras_serializable("unitbox_tf")
class Double(keras.layers.Layer):
    """Does what `Enlarge` does to twice the height and width, with operations that know no size.

    LiteRT stores the size to which it resizes, so a file with `Enlarge` would take images of one size only.
    """

    def call(self, inputs: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        return tf.nn.depth_to_space(tf.concat([inputs[0]] * 4, axis=-1), 2)

    def compute_output_shape(self, shapes: Any) -> tuple[int | None, ...]:
        x, reference = shapes
        return (x[0], reference[1], reference[2], x[3])


@keras.saving.register_keras_serializable("unitbox_tf")
class BatchNormalization(keras.layers.BatchNormalization):
    """Batch normalisation of maps `[B, H, W, C]` that trains with TensorFlow's fused operation.

    That of Keras trains with a dozen operations over the whole map, which takes a third of the time of a step of the
    light network in float32, and half of it in mixed_bfloat16: see docs/time.md. The weights and the results are those
    of Keras, but the fused operation divides the variance that it averages by one less than the number of values.
    With `synchronized`, devices that train together share their statistics.
    """

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        if not (training and self.trainable) or inputs.dtype == tf.float64:  # not known to it
            return super().call(inputs, training=training)
        scale, offset = (tf.cast(each, tf.float32) for each in (self.gamma, self.beta))
        if self.synchronized:
            x, mean, variance = _normalised_together(inputs, scale, offset, self.epsilon)
        else:
            x, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
                x=inputs, scale=scale, offset=offset, mean=[], variance=[], epsilon=self.epsilon
            )
        for average, value in ((self.moving_mean, mean), (self.moving_variance, variance)):
            average.assign(average * self.momentum + value * (1 - self.momentum))
        return x


def _normalised_together(
    inputs: tf.Tensor, scale: tf.Tensor, offset: tf.Tensor, epsilon: float
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """`inputs` `[B, H, W, C]` normalised as the fused operation does, with the statistics of all devices together.

    Mean and variance are added up one after the other: the difference of two large sums would have few digits.
    """
    context = tf.distribute.get_replica_context()
    x = tf.cast(inputs, tf.float32)

    def summed(values: tf.Tensor) -> tf.Tensor:
        return context.all_reduce(tf.distribute.ReduceOp.SUM, values)

    count = summed(tf.cast(tf.size(x) // tf.shape(x)[-1], tf.float32))
    mean = summed(tf.reduce_sum(x, [0, 1, 2])) / count
    variance = summed(tf.reduce_sum(tf.math.squared_difference(x, mean), [0, 1, 2])) / count
    normalised = tf.nn.batch_normalization(x, mean, variance, offset, scale, epsilon)
    averaged = variance * count / tf.maximum(count - 1, 1)
    return tf.cast(normalised, inputs.dtype), mean, averaged


@keras.saving.register_keras_serializable("unitbox_tf")
class ExpDistances(keras.layers.Layer):
    """Distances in pixels from any numbers: `unit` times e to the number. An error of the number is a relative one.

    Numbers beyond `LARGEST` count as it, so that the distances stay finite. A gradient that makes them smaller passes.
    """

    LARGEST = 8.0  # 3,000 times the unit

    def __init__(self, unit: float, **kwargs: Any) -> None:
        """`unit` is the distance for the number 0, in pixels."""
        super().__init__(**kwargs)
        self.unit = unit

    def call(self, x: tf.Tensor) -> tf.Tensor:
        return self.unit * tf.exp(_capped(x))

    def compute_output_shape(self, shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "unit": self.unit}


@keras.saving.register_keras_serializable("unitbox_tf")
class DilatedConv2D(keras.layers.Conv2D):
    """A convolution with a dilation as one operation, for inference.

    Keras makes three of it, one of which moves every number, because TensorFlow has no gradient of the one on all CPUs.
    """

    def convolution_op(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        return tf.nn.conv2d(
            inputs, kernel, self.strides, self.padding.upper(), dilations=self.dilation_rate
        )


@keras.saving.register_keras_serializable("unitbox_tf")
class Gelu(keras.layers.Layer):
    """`keras.activations.gelu` (Hendrycks and Gimpel, 2016) by the error function: x (1 + erf(x / sqrt(2))) / 2."""

    def call(self, x: tf.Tensor) -> tf.Tensor:
        return 0.5 * x * (1.0 + tf.math.erf(x * 0.5**0.5))

    def compute_output_shape(self, shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return shape


@keras.saving.register_keras_serializable("unitbox_tf")
class SideReLU(keras.layers.Layer):
    """A ReLU that can be revived: for negative inputs, gradients that ask for growth still pass.

    An ordinary ReLU passes no gradient there, so a distance head that is negative everywhere would stay
    negative for good. (The gradient of a loss is negative if the loss falls when the value grows.) For
    positive inputs, and in the forward pass, this is the ordinary ReLU.
    """

    def call(self, x: tf.Tensor) -> tf.Tensor:
        return _side_relu(x)

    def compute_output_shape(self, shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return shape


@tf.custom_gradient
def _capped(x: tf.Tensor) -> Any:
    def gradient(upstream: tf.Tensor) -> tf.Tensor:
        return tf.where((x < ExpDistances.LARGEST) | (upstream > 0), upstream, 0)

    return tf.minimum(x, ExpDistances.LARGEST), gradient


@tf.custom_gradient
def _side_relu(x: tf.Tensor) -> Any:
    def gradient(upstream: tf.Tensor) -> tf.Tensor:
        return tf.where((x > 0) | (upstream < 0), upstream, 0)

    return tf.nn.relu(x), gradient
