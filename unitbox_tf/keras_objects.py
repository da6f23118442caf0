"""Registers the classes of this package with Keras, so that `keras.saving.load_model` opens its files.

Importing `unitbox_tf` is quick, since it imports neither Keras nor TensorFlow. But Keras finds a class only
after it was registered, which happens when its module is imported. So these modules are imported as soon
as Keras is: at once if Keras is already imported, else at the end of its import.
"""

from __future__ import annotations

import importlib
import types

import wrapt

# In an order in which no module needs a later one.
MODULES = ("losses", "train.optimizers", "network.layers", "network.backbones", "detect.model")


def register_with_keras() -> None:
    """Imports the modules with Keras classes when Keras is imported."""
    wrapt.register_post_import_hook(_import_modules, "keras")


def _import_modules(keras: types.ModuleType) -> None:
    if keras.config.backend() != "tensorflow":
        return  # the package says so later, when it is used
    for module in MODULES:
        importlib.import_module(f"unitbox_tf.{module}")
