"""The loop of training: `keras.Model.fit`, and before it the rest of an epoch that was interrupted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from unitbox_tf import progress
from unitbox_tf.train.state import State


def train(
    model: keras.Model,
    state: State,
    batches: Callable[[], tf.data.Dataset],
    validation: tf.data.Dataset,
    *,
    epochs: int,
    steps: int,
    callbacks: Sequence[keras.callbacks.Callback],
) -> None:
    """Trains a compiled model from `state` on, and validates it after each epoch.

    Args:
        model: the model; a callback ends training early by `model.stop_training = True`.
        state: where training is. A callback must add the logs of each finished epoch to its history.
        batches: gives endless batches, from the present step on.
        validation: the batches for validation.
        epochs: the number of epochs in all.
        steps: the number of steps in an epoch.
        callbacks: they are called in this order.
    """
    calls = _Calls(
        [_KeepMeans(state), *callbacks],
        add_history=True,
        model=model,
        verbose=progress.verbosity(),
        epochs=epochs,
        steps=steps,
    )
    model.stop_training = False
    if state.steps_of_epoch and state.epoch < epochs:
        _finish_epoch(model, state, batches(), validation, steps, calls)
    if model.stop_training or state.epoch >= epochs:
        calls.on_train_end()
        return
    model.fit(
        batches(),
        validation_data=validation,
        shuffle=False,  # data sets shuffle themselves; Keras would warn
        initial_epoch=state.epoch,
        epochs=epochs,
        steps_per_epoch=steps,
        callbacks=calls,
        verbose=progress.verbosity(),
    )


def _finish_epoch(
    model: keras.Model,
    state: State,
    batches: tf.data.Dataset,
    validation: tf.data.Dataset,
    steps: int,
    calls: _Calls,
) -> None:
    """Does what `fit` does in an epoch, from the present step on; it may be the end of the last step.

    `fit` itself begins at the first step of an epoch only.
    """
    model.make_train_function()
    iterator = iter(batches)
    calls.on_train_begin()
    state.begin_epoch()
    calls.on_epoch_begin(state.epoch)
    for step in range(state.steps_of_epoch, steps):
        calls.on_train_batch_begin(step)
        calls.on_train_batch_end(step, model.train_function(iterator))
        if model.stop_training:
            break
    logs = {name: float(value) for name, value in model.get_metrics_result().items()}
    judged = model.evaluate(validation, callbacks=calls, return_dict=True, verbose=0)
    logs |= {f"val_{name}": value for name, value in judged.items()}
    calls.on_epoch_end(state.epoch, logs)


class _Calls(keras.callbacks.CallbackList):
    """Callbacks that see one training, although its first epoch and the others are run one after the other."""

    _begun = False

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        if not self._begun:
            self._begun = True
            super().on_train_begin(logs)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        if self._begun:
            super().on_train_end(logs)


class _KeepMeans(keras.callbacks.Callback):
    """Lets the state keep the running means of an epoch before its validation."""

    def __init__(self, state: State) -> None:
        super().__init__()
        self._state = state

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._state.end_steps()
