"""The optimizer of a configuration, and stochastic gradient descent as the paper's framework did it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from unitbox_tf.config import TrainConfig

NOT_DECAYED = ("bias", "beta", "gamma")  # by adamw: a bias or gain near 0 is no simpler a network


@keras.saving.register_keras_serializable("unitbox_tf")
class CoupledSGD(keras.optimizers.SGD):
    """SGD whose weight decay is part of the gradient, as in Caffe, and so passes through the momentum.

        v = momentum * v - learning_rate * (gradient + coupled_weight_decay * w)
        w = w + v

    `weight_decay` of `keras.optimizers.SGD` is decoupled instead: `w *= 1 - learning_rate *
    weight_decay`, outside the momentum (Loshchilov and Hutter, ICLR 2019), which with the same
    number decays `1 / (1 - momentum)` times less. Decay is applied to all variables, biases
    included, as Caffe does by default. Gradients are clipped before it is added.
    """

    def __init__(self, *args: Any, coupled_weight_decay: float = 0.0, **kwargs: Any) -> None:
        """The arguments of `keras.optimizers.SGD`, and `coupled_weight_decay`."""
        super().__init__(*args, **kwargs)
        self.coupled_weight_decay = coupled_weight_decay

    def update_step(
        self, gradient: tf.Tensor, variable: keras.Variable, learning_rate: tf.Tensor
    ) -> None:
        gradient = gradient + self.coupled_weight_decay * tf.cast(variable, gradient.dtype)
        super().update_step(gradient, variable, learning_rate)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "coupled_weight_decay": self.coupled_weight_decay}


@keras.saving.register_keras_serializable("unitbox_tf")
class CountingAdam(keras.optimizers.Adam):
    """Adam that counts the steps of each variable by itself, so that some may be frozen at first.

    Adam's moments start at 0, and it divides by what they lack after so many steps. Keras counts the steps of
    training. A variable that is frozen for the first 1,000 would get steps up to 6.5 times too large
    afterwards. Variables that were never frozen get the steps of `keras.optimizers.Adam`.
    """

    def build(self, variables: Sequence[keras.Variable]) -> None:
        if self.built:
            return
        super().build(variables)
        self._counts = [self.add_variable((), name=f"count_{n}") for n in range(len(variables))]

    def update_step(
        self, gradient: tf.Tensor, variable: keras.Variable, learning_rate: tf.Tensor
    ) -> None:
        count = self._counts[self._get_variable_index(variable)]
        self.assign_add(count, 1.0)
        correction = self._correction(tf.cast(count, variable.dtype))
        usual = self._correction(tf.cast(self.iterations + 1, variable.dtype))
        super().update_step(gradient, variable, learning_rate * (correction / usual))

    def _correction(self, steps: tf.Tensor) -> tf.Tensor:
        """The factor of the learning rate after so many steps (Kingma and Ba, section 2)."""
        return tf.sqrt(1 - self.beta_2**steps) / (1 - self.beta_1**steps)


def optimizer(settings: TrainConfig) -> keras.optimizers.Optimizer:
    """The optimizer that `settings` describe, with its learning rate schedule."""
    rate: Any = settings.learning_rate
    if settings.schedule == "cosine":
        steps = settings.epochs * settings.steps_per_epoch
        warmup_steps = int(settings.warmup * steps)
        rate = keras.optimizers.schedules.CosineDecay(
            0.0 if warmup_steps else rate,
            decay_steps=steps - warmup_steps,
            warmup_target=rate if warmup_steps else None,
            warmup_steps=warmup_steps,
        )
    common: dict[str, Any] = {"global_clipnorm": settings.clip_norm}
    adam = CountingAdam if settings.freeze_epochs else keras.optimizers.Adam
    if settings.optimizer == "adam":
        return adam(rate, **common)
    if settings.optimizer == "adamw":  # keras.optimizers.AdamW is Adam with another default
        chosen = adam(rate, weight_decay=settings.weight_decay, name="adamw", **common)
        chosen.exclude_from_weight_decay(var_names=NOT_DECAYED)
        return chosen
    return CoupledSGD(
        rate,
        momentum=settings.momentum,
        coupled_weight_decay=settings.weight_decay,
        **common,
    )
