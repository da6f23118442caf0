from __future__ import annotations

import keras
import pytest


@pytest.fixture(scope="package")
def small_model():
    """A model of a layer an output, for two classes: the network would only make compiling long."""
    image = keras.Input([None, None, 3])
    shown = keras.layers.Rescaling(1 / 255)(image)
    positive = {"activation": "relu", "bias_initializer": keras.initializers.Constant(10)}
    confidence = keras.layers.Conv2D(2, 1)(shown)
    distances = keras.layers.Conv2D(4, 1, **positive)(shown)
    return keras.Model(image, {"confidence": confidence, "distances": distances})
