"""The moving average of the weights, which is steadier than the weights of any one step."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import keras
import numpy as np
import tensorflow as tf


class Average:
    """A moving average of all weights of a model, in variables of its own.

    The statistics of batch normalisation are averaged like the other weights, because those of the last step belong
    to the weights of the last step. Step n, from 0 on, changes each average by

        average += (1 - m) (weight - average),  m = min(momentum, (1 + n) / (10 + n))

    so that it is not held back by the random weights of the start, and a weight that never changes stays exact.

    Source: Polyak and Juditsky, SIAM J. Control Optim. 1992; the rise of m is that of
        `tf.train.ExponentialMovingAverage`.

    Attributes:
        weights: the weights of the model.
        variables: the average of each.
    """

    def __init__(self, model: keras.Model, momentum: float) -> None:
        """Begins with the present weights of `model`. `momentum` is between 0 and 1."""
        self.weights = list(model.weights)
        self.variables = [
            keras.Variable(weight.numpy(), trainable=False, dtype=weight.dtype, name="average")
            for weight in self.weights
        ]
        self._momentum = momentum
        self._kept: list[np.ndarray] | None = None

    def update(self, step: tf.Tensor) -> None:
        """Takes in the weights after a step, the number of which is given. Runs in a graph."""
        number = tf.cast(step, tf.float32)
        share = 1 - tf.minimum(self._momentum, (1 + number) / (10 + number))
        for weight, average in zip(self.weights, self.variables, strict=True):
            change = weight.value - average.value
            average.assign_add(tf.cast(share, change.dtype) * change)

    def show(self) -> None:
        """Puts the average in the place of the weights, which `hide` brings back."""
        if self._kept is None:
            self._kept = [weight.numpy() for weight in self.weights]
            for weight, average in zip(self.weights, self.variables, strict=True):
                weight.assign(average)

    def hide(self) -> None:
        """Brings the weights back, also where `show` or `hide` was interrupted."""
        if self._kept is not None:
            for weight, value in zip(self.weights, self._kept, strict=True):
                weight.assign(value)
            self._kept = None

    @contextlib.contextmanager
    def shown(self) -> Iterator[None]:
        """The average is in the model within this context."""
        try:
            self.show()
            yield
        finally:
            self.hide()
