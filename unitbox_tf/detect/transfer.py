"""Starting a network from another detector: takes the weights that mean the same in both, and says which."""

from __future__ import annotations

import dataclasses
import itertools
from typing import TYPE_CHECKING

import keras
import numpy as np

from unitbox_tf.network import heatmaps

if TYPE_CHECKING:
    from unitbox_tf.detect.model import UnitBox


@dataclasses.dataclass(frozen=True)
class Taken:
    """The parts of a network that were taken from another detector, and the parts that stayed new.

    Attributes:
        source: the other detector.
        backbone: the number of weights of the backbone that were taken: all that both networks use.
        new_backbone: the number of weights of the backbone that are new, because the other network has another neck,
            which reads fewer layers.
        neck: True if the neck was taken, False if it is new, None if there is none.
        classes: the classes whose confidence head was taken.
        new_classes: the classes whose confidence head is new.
        distances: True if the distances head was taken, which all classes share; False if it is new.
    """

    source: str
    backbone: int
    new_backbone: int
    neck: bool | None
    classes: tuple[str, ...]
    new_classes: tuple[str, ...]
    distances: bool

    def __str__(self) -> str:
        """One line, such as "taken from faces: backbone (26 weights), distances head; new: confidence head (cat)"."""
        taken, new = list[str](), list[str]()
        for number, into in ((self.backbone, taken), (self.new_backbone, new)):
            if number:
                into.append(f"backbone ({number} weights)")
        if self.neck is not None:
            (taken if self.neck else new).append("neck")
        for names, into in ((self.classes, taken), (self.new_classes, new)):
            if names:
                into.append(f"confidence head ({', '.join(names)})")
        (taken if self.distances else new).append("distances head")
        return f"taken from {self.source}: {', '.join(taken)}; new: {', '.join(new) or 'nothing'}"


def take(model: UnitBox, other: UnitBox, source: str) -> Taken:
    """Gives `model` the weights of `other` that mean the same in it. `source` is the name of `other` in messages.

    The backbones must be the same; the necks may differ. Of the backbone, the weights that both networks use are
    taken. The neck is taken if it is the same: one of other channels, or at another stride, computes something else.
    The confidence head is taken class by class, by the names. A head that reads other features than in `other` stays
    as it is.

    Raises:
        ValueError: the backbones differ.
    """
    _check_backbones(model, other, source)
    backbone = _used(model)
    both = zip(backbone, _used(other), strict=True)
    pairs = [(ours, theirs) for ours, theirs in both if ours is not None and theirs is not None]
    for ours, theirs in pairs:
        ours.assign(theirs)
    new = sum(weight is not None for weight in backbone) - len(pairs)
    neck = _take_neck(model, other)
    same_confidence, same_distances = _same_taps(model, other) if neck is None else (neck, neck)
    classes = _take_classes(model, other) if same_confidence else ()
    if same_distances:
        _take_distances(model, other)
    new_classes = tuple(name for name in model.class_names if name not in classes)
    return Taken(source, len(pairs), new, neck, classes, new_classes, same_distances)


def _same_taps(model: UnitBox, other: UnitBox) -> tuple[bool, bool]:
    """For each head of a network without a neck: True if it reads the same layer of the backbone in `other`."""
    if other.neck != "none":
        return False, False
    ours, theirs = model.backbone, other.backbone
    return ours.confidence == theirs.confidence, ours.distances == theirs.distances


def _take_neck(model: UnitBox, other: UnitBox) -> bool | None:
    """Takes the neck if both have the same. Returns True if it was taken, None if `model` has none."""
    if model.neck == "none":
        return None
    parts = [_neck(each) for each in (model, other)]
    facts = [[(layer.name, [w.shape for w in layer.weights]) for layer in part] for part in parts]
    same = (model.neck, model.map_stride) == (other.neck, other.map_stride)
    if not same or facts[0] != facts[1] or model.backbone.pyramid != other.backbone.pyramid:
        return False
    for ours, theirs in zip(*parts, strict=True):
        ours.set_weights(theirs.get_weights())
    return True


def _neck(model: UnitBox) -> list[keras.layers.Layer]:
    """The layers between the backbone and the heads that have weights."""
    others = [*model.backbone_layers, *(model.get_layer(name) for name in heatmaps.HEADS)]
    return [layer for layer in model.layers if layer.weights and layer not in others]


def _take_distances(model: UnitBox, other: UnitBox) -> None:
    """Takes the distances head. With a neck, it predicts logarithms of distances in units of each network."""
    kernel, bias = (np.array(values) for values in other.get_layer(heatmaps.HEADS[1]).get_weights())
    if model.neck != "none":
        units = [each.get_layer("distances").unit for each in (other, model)]
        bias += np.log(units[0] / units[1])
    model.get_layer(heatmaps.HEADS[1]).set_weights([kernel, bias])


def _take_classes(model: UnitBox, other: UnitBox) -> tuple[str, ...]:
    """Takes the confidence head of each class that `other` has, too, and returns these classes."""
    head = model.get_layer(heatmaps.HEADS[0])
    kernel, bias = (np.array(values) for values in head.get_weights())
    their_kernel, their_bias = other.get_layer(heatmaps.HEADS[0]).get_weights()
    # The head reads features that were multiplied by this factor.
    scale = other.stage4_scale / model.stage4_scale
    common = tuple(name for name in model.class_names if name in other.class_names)
    for name in common:
        new, old = model.class_names.index(name), other.class_names.index(name)
        kernel[..., new] = their_kernel[..., old] * scale
        bias[new] = their_bias[old]
    head.set_weights([kernel, bias])
    return common


def _used(model: UnitBox) -> list[keras.Variable | None]:
    """The weights of the backbone, or of both backbones. None stands for one that the network does not use."""
    parts = model.backbone_layers
    if len(parts) > 1:
        return [weight for part in parts for weight in part.weights]
    used = {id(weight) for weight in parts[0].weights}
    return [weight if id(weight) in used else None for weight in model.backbone.model.weights]


def _check_backbones(model: UnitBox, other: UnitBox, source: str) -> None:
    """Raises `ValueError` if the backbones differ in their number, their weights or the values that they read."""
    expected, received = _facts(model), _facts(other)
    pairs = itertools.zip_longest(expected, received, fillvalue="no further weight")
    unlike = next((pair for pair in pairs if pair[0] != pair[1]), None)
    if unlike:
        raise ValueError(
            f"{source}: expected the backbone of the network that takes its weights: {unlike[0]}. Received: "
            f"{unlike[1]}. Train with the backbone of {source} (--backbone, --width, --unshared), or without init"
        )


def _facts(model: UnitBox) -> list[str]:
    """Texts that are equal for equal backbones."""
    backbone, number = model.backbone, len(model.backbone_layers)
    # Two backbones end at the layers that their heads read.
    weights = backbone.model.weights if number == 1 else _used(model)
    return [
        "one backbone for both branches" if number == 1 else "a backbone for each branch",
        f"stride {backbone.stride}",
        str(backbone.preprocessing),
        *(f"{n}: a weight of shape {tuple(weight.shape)}" for n, weight in enumerate(weights, 1)),
    ]
