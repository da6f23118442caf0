import dataclasses

import keras
import numpy as np
import pytest

from tests.train.conftest import learner
from unitbox_tf import checkpoints
from unitbox_tf.datasets import synthetic
from unitbox_tf.detect.model import UnitBox
from unitbox_tf.network.backbones import Backbone
from unitbox_tf.train import fit
from unitbox_tf.train.freezing import FreezeBackbone
from unitbox_tf.train.optimizers import CountingAdam, CoupledSGD


def changed(config, **settings):
    return dataclasses.replace(config, train=dataclasses.replace(config.train, **settings))


def network():
    """A network whose backbone has statistics, and a layer that never learns."""
    keras.utils.set_random_seed(1)
    image = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(4, 3, 2, padding="same", name="fixed")(image)
    x = keras.layers.BatchNormalization(name="first")(x)
    x = keras.layers.Conv2D(4, 3, 2, padding="same", name="second")(x)
    inner = keras.Model(image, x)
    inner.get_layer("fixed").trainable = False
    return UnitBox(Backbone(inner, confidence="first", distances="second", stride=4), ("a", "b"))


class Weights(keras.callbacks.Callback):
    """Keeps the weights and the state of the optimizer after each epoch, by name."""

    def __init__(self):
        super().__init__()
        self.after = []

    def on_train_begin(self, logs=None):
        self.keep()

    def on_epoch_end(self, epoch, logs=None):
        self.keep()

    def keep(self):
        named = {weight.path: weight.numpy() for weight in self.model.weights}
        state = enumerate(self.model.optimizer.variables)
        named |= {f"of {number}: {each.name}": each.numpy() for number, each in state}
        self.after.append(named)


def moved(before, after):
    return {name for name in before if not np.array_equal(before[name], after[name])}


def trained(optimizer, epochs, freeze, model=None, initial_epoch=0, eager=True):
    """The network, and the weights and state at the start and after each epoch."""
    if model is None:
        model = network()
        model.compile(optimizer, loss={"confidence": "mse", "distances": "mse"})
    model.run_eagerly = eager  # tracing takes the longest
    seen, frozen = Weights(), FreezeBackbone(freeze)
    images = np.random.default_rng(0).uniform(0, 255, (2, 8, 8, 3)).astype(np.float32)
    targets = {"confidence": np.ones((2, 8, 8, 2)), "distances": np.ones((2, 8, 8, 4))}
    model.fit(
        images,
        targets,
        initial_epoch=initial_epoch,
        epochs=epochs,
        callbacks=[frozen, seen],
        shuffle=False,
        verbose=0,
    )
    return model, seen.after


OPTIMIZERS = [
    lambda: CoupledSGD(1e-3, momentum=0.9, coupled_weight_decay=0.1, global_clipnorm=1.0),
    lambda: CountingAdam(1e-2, global_clipnorm=1.0),
]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_only_the_heads_learn_while_the_backbone_is_frozen(optimizer):
    model, (start, *after) = trained(optimizer(), 3, freeze=2, eager=False)
    heads = {weight.path for weight in model.weights if "head" in weight.path}
    assert len(heads) == 4
    for one, other in zip([start, after[0]], after[:2], strict=True):
        weights = {name for name in moved(one, other) if not name.startswith("of ")}
        assert weights == heads
        # Each moment of the backbone is as it was: decay of weights has not moved it either.
        moments = {name for name in moved(one, other) if name.startswith("of ")}
        assert not [name for name in moments if "second" in name or "first" in name]
    learned = {name for name in moved(after[1], after[2]) if not name.startswith("of ")}
    backbone = {weight.path for part in model.backbone_layers for weight in part.weights}
    assert learned - heads == {path for path in backbone if "fixed" not in path}
    assert {path for path in backbone if "moving" in path} <= learned
    # Afterwards the network is as it was made.
    assert not model.backbone.model.get_layer("fixed").trainable
    assert len(model.trainable_weights) == 8


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_without_frozen_epochs_nothing_changes(optimizer, monkeypatch):
    _, after = trained(optimizer(), 2, freeze=0)
    monkeypatch.setattr(FreezeBackbone, "on_epoch_begin", lambda *_: None)
    _, expected = trained(optimizer(), 2, freeze=0)
    assert not moved(after[-1], expected[-1])


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("stop", [1, 2])
def test_a_stored_network_goes_on_in_each_phase_as_if_nothing_had_been(optimizer, stop, tmp_path):
    whole, after = trained(optimizer(), 3, freeze=2)
    model, _ = trained(optimizer(), stop, freeze=2)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert len(again.optimizer.variables) == len(whole.optimizer.variables)
    _, resumed = trained(None, 3, freeze=2, model=again, initial_epoch=stop)
    for name, expected in after[-1].items():
        np.testing.assert_allclose(resumed[-1][name], expected, rtol=1e-5, atol=1e-7)


def test_a_run_with_a_frozen_backbone_is_resumed(whole, eager):
    """Each batch is the same, so that a resumed run sees the same as an uninterrupted one."""
    given = {"train": [synthetic.draw(0)], "validation": [synthetic.draw(1)]}
    config = changed(
        whole, optimizer="adam", weight_decay=0.0, freeze_epochs=1, schedule="constant", warmup=0.0
    )
    stores = {}
    for name, parts in (("whole", [2]), ("parts", [1, 2])):
        keras.utils.set_random_seed(5)
        resume = None
        for epochs in parts:
            done = fit.fit(changed(config, epochs=epochs, run=name), resume=resume, **given)
            resume = done.folder
        with np.load(checkpoints.stored(resume / "checkpoints")[0]) as stored:
            stores[name] = [stored[key] for key in stored.files if key != "facts"]
        assert [row["iterations"] for row in done.history] == [2, 4]
    for one, other in zip(*stores.values(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)


def test_freezing_random_weights_is_warned_of(whole, tmp_path, caplog):
    learner(changed(whole, freeze_epochs=1), tmp_path)
    assert "frozen in the first epochs, but starts from random weights" in caplog.text
