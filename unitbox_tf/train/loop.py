"""The loop of training: Keras' own, but for beginning at any step of an epoch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from unitbox_tf import progress
from unitbox_tf.train.state import State


def train(
    model: keras.Model,
    state: State,
    batches: tf.data.Dataset,
    validation: tf.data.Dataset,
    *,
    epochs: int,
    steps: int,
    callbacks: Sequence[keras.callbacks.Callback],
) -> None:
    """Trains a compiled model from `state` on, and validates it after each epoch.

    It does what `keras.Model.fit` does, and calls callbacks at the same points. `fit` begins at the first step of an
    epoch; this begins where `state` is, also between the last step of an epoch and its validation.

    Args:
        model: the model; a callback ends training early by `model.stop_training = True`.
        state: where training is. A callback must add the logs of each finished epoch to its history.
        batches: endless batches, from the present step on.
        validation: the batches for validation.
        epochs: the number of epochs in all.
        steps: the number of steps in an epoch.
        callbacks: they are called in this order.
    """
    calls = keras.callbacks.CallbackList(
        list(callbacks),
        add_history=True,
        model=model,
        verbose=progress.verbosity(),
        epochs=epochs,
        steps=steps,
    )
    model.stop_training = False
    model.make_train_function()
    iterator = iter(batches)
    calls.on_train_begin()
    logs: dict[str, Any] = {}
    for epoch in range(state.epoch, epochs):
        state.begin_epoch()
        calls.on_epoch_begin(epoch)
        for step in range(state.steps_of_epoch, steps):
            calls.on_train_batch_begin(step)
            calls.on_train_batch_end(step, model.train_function(iterator))
            if model.stop_training:
                break
        logs = {name: float(value) for name, value in model.get_metrics_result().items()}
        state.end_steps()
        judged = model.evaluate(validation, callbacks=calls, return_dict=True, verbose=0)
        logs |= {f"val_{name}": value for name, value in judged.items()}
        calls.on_epoch_end(epoch, logs)
        if model.stop_training:
            break
    calls.on_train_end(logs)
