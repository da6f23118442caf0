from __future__ import annotations

import contextlib
import dataclasses
import types

import keras
import pytest
import tensorflow as tf

from unitbox_tf import registry
from unitbox_tf.network.backbones import Backbone, Preprocessing
from unitbox_tf.train import fit


@pytest.fixture(scope="package")
def small_model():
    """A model of a layer an output, for two classes: the network would only make compiling long."""
    image = keras.Input([None, None, 3])
    shown = keras.layers.Rescaling(1 / 255)(image)
    positive = {"activation": "relu", "bias_initializer": keras.initializers.Constant(10)}
    confidence = keras.layers.Conv2D(2, 1)(shown)
    distances = keras.layers.Conv2D(4, 1, **positive)(shown)
    model = keras.Model(image, {"confidence": confidence, "distances": distances})
    model.backbone = types.SimpleNamespace(preprocessing=Preprocessing())
    model.map_stride = 1
    return model


def learner(config, folder):
    """The network that a run in `folder` trains, with its state."""
    return fit._learner(config, fit.Hardware(False), fit._Run(folder, folder))


def _two_layers(config, seed=0):
    image = keras.Input((None, None, 3))
    options = {"padding": "same", "activation": "relu"}
    start = [keras.initializers.GlorotUniform(seed + number) for number in range(2)]
    first = keras.layers.Conv2D(4, 3, 2, name="first", kernel_initializer=start[0], **options)
    second = keras.layers.Conv2D(6, 3, 2, name="second", kernel_initializer=start[1], **options)
    first_map = first(image)
    normal = keras.layers.BatchNormalization(name="normal")(first_map)
    model = keras.Model(image, second(normal), name="two_layers")
    colours = Preprocessing("bgr", (10.0, 20.0, 30.0), 0.5)
    return Backbone(model, confidence="first", distances="second", stride=4, preprocessing=colours)


@pytest.fixture
def eager(monkeypatch):
    """Runs train without tracing, reading and judging, which take the longest; they store what they have learned."""
    make_eager(monkeypatch)


def make_eager(monkeypatch):
    """The content of the fixture `eager`."""
    compiled = fit.compile_model

    def compile_eagerly(model, *settings):
        compiled(model, *settings)
        model.run_eagerly = True

    monkeypatch.setattr(fit, "compile_model", compile_eagerly)
    ones = tf.ones([2, 16, 16, 4])
    targets = {"confidence": ones[..., :2], "distances": ones}
    weights = {name: ones[..., 0] for name in targets}
    batch = tf.data.Dataset.from_tensors((100 * ones[..., :3], targets, weights))
    monkeypatch.setattr(fit, "_batches", lambda *_: (batch.repeat, batch, list))
    monkeypatch.setattr(fit, "_callbacks", lambda *_: [])
    monkeypatch.setattr(fit, "finish", lambda *_, **__: (None, {}))


@pytest.fixture
def whole(tiny_config, tmp_path):
    """`tiny_config` with a backbone of two convolutions and batch normalisation.

    Whole runs, from the first step to the results, are quick.
    """
    with two_layers(tiny_config, tmp_path) as config:
        yield config


@contextlib.contextmanager
def two_layers(config, folder):
    """`config` with a backbone of two convolutions and batch normalisation, for a run `folder/runs/a`."""
    registry.BACKBONES.register("two_layers", _two_layers)
    settings = {"output": str(folder / "runs"), "run": "a", "epochs": 1}
    train = dataclasses.replace(config.train, validation_protocol="summary", **settings)
    model = dataclasses.replace(config.model, backbone="two_layers")
    data = dataclasses.replace(config.data, shared_images=True)
    try:
        yield dataclasses.replace(config, data=data, model=model, train=train)
    finally:
        registry.BACKBONES.unregister("two_layers")
