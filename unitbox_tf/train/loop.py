"""The loop of training: `keras.Model.fit`, and before it the rest of an epoch that was interrupted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from unitbox_tf import progress
from unitbox_tf.train.distribution import Distribution
from unitbox_tf.train.state import State


class Together(NamedTuple):
    """Several devices that train one model.

    Attributes:
        distribution: the devices.
        judged: a model of the same layers, which is not distributed.
    """

    distribution: Distribution
    judged: keras.Model


def train(
    model: keras.Model,
    state: State,
    batches: Callable[[], tf.data.Dataset],
    validation: tf.data.Dataset,
    *,
    epochs: int,
    steps: int,
    callbacks: Sequence[keras.callbacks.Callback],
    together: Together | None = None,
) -> None:
    """Trains a compiled model from `state` on, and validates it after each epoch.

    Args:
        model: the model; a callback ends training early by `model.stop_training = True`. With several workers, it ends
            after the epoch.
        state: where training is. A callback must add the logs of each finished epoch to its history.
        batches: gives endless batches, from the present step on.
        validation: the batches for validation.
        epochs: the number of epochs in all.
        steps: the number of steps in an epoch.
        callbacks: they are called in this order.
        together: the devices that train together, if there are several.
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
    if together is not None:
        _train_together(model, state, batches, validation, epochs, steps, calls, together)
        return
    if state.steps_of_epoch and state.epoch < epochs:
        _finish_epoch(model, state, iter(batches()), validation, steps, calls)
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


def _train_together(
    model: keras.Model,
    state: State,
    batches: Callable[[], tf.data.Dataset],
    validation: tf.data.Dataset,
    epochs: int,
    steps: int,
    calls: _Calls,
    together: Together,
) -> None:
    """Does what `fit` does. `fit` itself does not run on several workers; see `keras_distribution`.

    Each worker validates the same images by itself, so that all know what comes next.
    """
    iterator = iter(together.distribution.distributed(batches()))
    calls.on_train_begin()
    while state.epoch < epochs and not together.distribution.any(model.stop_training):
        _finish_epoch(model, state, iterator, validation, steps, calls, together.judged)
    calls.on_train_end()


def _finish_epoch(
    model: keras.Model,
    state: State,
    iterator: Iterator[Any],
    validation: tf.data.Dataset,
    steps: int,
    calls: _Calls,
    judged: keras.Model | None = None,
) -> None:
    """Does what `fit` does in an epoch, from the present step on; it may be the end of the last step.

    `fit` itself begins at the first step of an epoch only. `judged` is validated, if it is another model of the same
    layers.
    """
    model.make_train_function()
    calls.on_train_begin()
    state.begin_epoch()
    calls.on_epoch_begin(state.epoch)
    for step in range(state.steps_of_epoch, steps):
        calls.on_train_batch_begin(step)
        logs = model.train_function(iterator)
        calls.on_train_batch_end(step, state.step.means() if logs is None else logs)
        if model.stop_training and judged is None:
            break
    means = state.step.means()
    found = (judged or model).evaluate(validation, callbacks=calls, return_dict=True, verbose=0)
    calls.on_epoch_end(state.epoch, means | {f"val_{name}": value for name, value in found.items()})


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
