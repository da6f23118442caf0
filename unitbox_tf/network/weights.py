"""Gives a network the weights in a file of Keras, which may come from anybody. The file is checked first."""

from __future__ import annotations

from pathlib import Path

import keras

from unitbox_tf import archives, weights_files


def load(model: keras.Model, path: str | Path, kind: str) -> None:
    """Gives a network the weights in an HDF5 file of Keras. After an error, it has the weights of before.

    Args:
        model: the network.
        path: a file of `keras.Model.save_weights`, `.weights.h5`, or in the older form `.h5`.
        kind: the expected weights in words, for messages.

    Raises:
        TooLarge: the file is larger than one with the weights of the network.
        Unusable: the weights belong to another network, are not finite, or the file is damaged; see
            `weights_files.check_h5`.
        OSError: the file cannot be read.
    """
    limit = weights_files.largest(weight.shape for weight in model.weights)
    weights_files.check_h5(path, limit, kind=kind)
    with archives.reading(path, kind):
        load_checked(model, path, path)


def load_checked(model: keras.Model, file: str | Path, path: str | Path) -> None:
    """Does the same for a file that was checked. `path` is its name in messages."""
    before = model.get_weights()
    try:
        model.load_weights(file)
        weights_files.check_finite(path, {each.path: each.numpy() for each in model.weights})
    except BaseException:
        model.set_weights(before)
        raise
