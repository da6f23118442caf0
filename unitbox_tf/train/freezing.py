"""Freezing the backbone in the first epochs of training."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import keras

logger = logging.getLogger(__name__)


class FreezeBackbone(keras.callbacks.Callback):
    """Keeps the backbone as it is in the first epochs, its moments in the optimizer and its statistics included.

    The optimizer knows all variables from the start, and updates those that Keras hands to it. So the checkpoint
    of any epoch fits any other, and frozen variables have the moments with which an optimizer starts.
    """

    def __init__(self, epochs: int) -> None:
        """The backbone is frozen in epochs 0 to `epochs` - 1."""
        super().__init__()
        self._epochs = epochs
        self._frozen: list[tuple[keras.layers.Layer, bool]] = []  # with what they were before

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        freeze = epoch < self._epochs
        if freeze == bool(self._frozen):
            return
        if freeze:
            self._freeze()
            logger.info("The backbone is frozen up to epoch %d", self._epochs)
        else:
            self._thaw()
            logger.info("The backbone learns from now on")
        # A traced step keeps the variables that it was traced with.
        self.model.make_train_function(force=True)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self._thaw()

    def _freeze(self) -> None:
        if not self.model.optimizer.built:
            self.model.optimizer.build(self.model.trainable_variables)
        for part in self.model.backbone_layers:
            self._frozen += [(layer, layer.trainable) for layer in _nested(part)]
            part.trainable = False

    def _thaw(self) -> None:
        # Setting a layer sets the layers in it, which therefore come later.
        for layer, trainable in self._frozen:
            layer.trainable = trainable
        self._frozen = []


def _nested(layer: keras.layers.Layer) -> Iterator[keras.layers.Layer]:
    """`layer`, and the layers in it, each after the one that it is in."""
    yield layer
    for inner in getattr(layer, "layers", ()):
        yield from _nested(inner)
