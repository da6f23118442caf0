"""A detector of some kilobytes, for tests of files of models."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np

from unitbox_tf.config import DecodeConfig
from unitbox_tf.detect.model import UnitBox
from unitbox_tf.network.backbones import Backbone

DECODE = DecodeConfig(max_side=64, score_threshold=0.1, scales=(0.5, 1.0), largest_object=30.0)
IMAGE = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)


def model() -> UnitBox:
    """With the same kinds of layers as VGG-16."""
    image = keras.Input((None, None, 3))
    x = _convolution("first", 1)(image)
    x = keras.layers.MaxPooling2D(name="pool")(x)
    x = _convolution("second", 2)(x)
    own = Backbone(
        keras.Model(image, x, name="own"), confidence="pool", distances="second", stride=2
    )
    return UnitBox(own, ("cat", "dog"), decode=DECODE, initial_box_size=20.0, head_stddev=0.1)


def _convolution(name: str, seed: int) -> keras.layers.Layer:
    weights = keras.initializers.GlorotUniform(seed)
    return keras.layers.Conv2D(
        4, 3, padding="same", activation="relu", kernel_initializer=weights, name=name
    )


def rewrite(path: Path, change: Callable[[str, bytes], bytes], to: Path, **options: object) -> Path:
    """A copy of an archive, in which `change` gives the content of each member anew."""
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(to, "w", **options) as new:  # type: ignore[arg-type]
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
    return to


def mutated(content: bytes, random: np.random.Generator) -> bytes:
    """The content with some bytes changed, or cut off."""
    if random.random() < 0.25:
        return content[: random.integers(len(content))]
    changed = bytearray(content)
    for _ in range(random.integers(1, 30)):
        # Half of them in the first bytes, where headers are.
        end = len(changed) if random.random() < 0.5 else min(len(changed), 2000)
        changed[random.integers(end)] = random.choice([0, 127, 128, 255, random.integers(256)])
    return bytes(changed)
