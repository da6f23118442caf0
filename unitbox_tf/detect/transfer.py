"""Starting a network from another detector: takes the weights that mean the same in both, and says which."""

from __future__ import annotations

import dataclasses
import itertools
from typing import TYPE_CHECKING

import keras
import numpy as np

from unitbox_tf.network.heatmaps import HEADS

if TYPE_CHECKING:
    from unitbox_tf.detect.model import UnitBox

_CONFIDENCE, _DISTANCES = HEADS


@dataclasses.dataclass(frozen=True)
class Taken:
    """The parts of a network that were taken from another detector, and the parts that stayed new.

    Attributes:
        source: the other detector.
        backbone: the number of weights of the backbone, which are always taken.
        classes: the classes whose confidence head was taken.
        new_classes: the classes whose confidence head is new.
        distances: True if the distances head was taken, which all classes share; False if it is new.
    """

    source: str
    backbone: int
    classes: tuple[str, ...]
    new_classes: tuple[str, ...]
    distances: bool

    def __str__(self) -> str:
        """One line, such as "taken from faces: backbone (26 weights), distances head; new: confidence head (cat)"."""
        taken, new = [f"backbone ({self.backbone} weights)"], list[str]()
        for names, into in ((self.classes, taken), (self.new_classes, new)):
            if names:
                into.append(f"confidence head ({', '.join(names)})")
        (taken if self.distances else new).append("distances head")
        return f"taken from {self.source}: {', '.join(taken)}; new: {', '.join(new) or 'nothing'}"


def take(model: UnitBox, other: UnitBox, source: str) -> Taken:
    """Gives `model` the weights of `other` that mean the same in it. `source` is the name of `other` in messages.

    The backbones must be the same. The confidence head is taken class by class, by the names. A head that reads
    other features than in `other` stays as it is.

    Raises:
        ValueError: the backbones differ.
    """
    _check_backbones(model, other, source)
    weights = _backbone(model)
    for ours, theirs in zip(weights, _backbone(other), strict=True):
        ours.assign(theirs)
    ours, theirs = model.backbone, other.backbone
    classes: tuple[str, ...] = ()
    if ours.confidence == theirs.confidence:
        classes = _take_classes(model, other)
    distances = ours.distances == theirs.distances
    if distances:
        model.get_layer(_DISTANCES).set_weights(other.get_layer(_DISTANCES).get_weights())
    new = tuple(name for name in model.class_names if name not in classes)
    return Taken(source, len(weights), classes, new, distances)


def _take_classes(model: UnitBox, other: UnitBox) -> tuple[str, ...]:
    """Takes the confidence head of each class that `other` has, too, and returns these classes."""
    head = model.get_layer(_CONFIDENCE)
    kernel, bias = (np.array(values) for values in head.get_weights())
    their_kernel, their_bias = other.get_layer(_CONFIDENCE).get_weights()
    # The head reads features that were multiplied by this factor.
    scale = other.stage4_scale / model.stage4_scale
    common = tuple(name for name in model.class_names if name in other.class_names)
    for name in common:
        new, old = model.class_names.index(name), other.class_names.index(name)
        kernel[..., new] = their_kernel[..., old] * scale
        bias[new] = their_bias[old]
    head.set_weights([kernel, bias])
    return common


def _backbone(model: UnitBox) -> list[keras.Variable]:
    """The weights of the backbone, or of both backbones."""
    return [weight for part in model.backbone_layers for weight in part.weights]


def _check_backbones(model: UnitBox, other: UnitBox, source: str) -> None:
    """Raises `ValueError` if the backbones differ in their number, their weights or the values that they read."""
    expected, received = _facts(model), _facts(other)
    pairs = itertools.zip_longest(expected, received, fillvalue="no further weight")
    unlike = next((pair for pair in pairs if pair[0] != pair[1]), None)
    if unlike:
        raise ValueError(
            f"{source}: expected the backbone of the network that takes its weights: {unlike[0]}. Received: "
            f"{unlike[1]}. Train with the backbone of {source} (--backbone, --unshared), or without init"
        )


def _facts(model: UnitBox) -> list[str]:
    """Texts that are equal for equal backbones."""
    backbone, number = model.backbone, len(model.backbone_layers)
    return [
        "one backbone for both branches" if number == 1 else "a backbone for each branch",
        f"stride {backbone.stride}",
        str(backbone.preprocessing),
        *(f"{n}: a weight of shape {tuple(w.shape)}" for n, w in enumerate(_backbone(model), 1)),
    ]
