"""Makes Keras know the classes of this package, so that `keras.saving.load_model` opens its files.

Importing `unitbox_tf` is quick, as it imports neither Keras nor TensorFlow. Keras however finds classes of
others only after they were registered, which happens when their modules are imported. So these modules
are imported as soon as Keras is: at once where it is there already, else at the end of its import.
"""

from __future__ import annotations

import importlib
import types

import wrapt

# In an order in which none of them needs a later one.
MODULES = ("losses", "train.optimizers", "network.layers", "network.backbones", "detect.model")


def register_with_keras() -> None:
    """Imports the modules with Keras classes when Keras is imported."""
    wrapt.register_post_import_hook(_import_modules, "keras")


def _import_modules(keras: types.ModuleType) -> None:
    if keras.config.backend() != "tensorflow":
        return  # the package then says so where it is used
    for module in MODULES:
        importlib.import_module(f"unitbox_tf.{module}")
