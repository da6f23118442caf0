"""Opens `.keras` files of `UnitBox` models, which may come from anybody.

`keras.saving.load_model` makes whatever classes a file names, and allocates whatever sizes it states. Here, a file must
describe a `UnitBox` of classes that are listed, or that the program has registered with Keras; and the network must
have the weights that the file holds.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras

from unitbox_tf import archives, weights_files
from unitbox_tf import config as configs
from unitbox_tf.archives import Unusable
from unitbox_tf.limits import MAX_CLASSES, MAX_WEIGHTS_BYTES
from unitbox_tf.network import weights as network_weights

if TYPE_CHECKING:
    from unitbox_tf.detect.model import UnitBox

_CONFIG, _WEIGHTS = "config.json", "model.weights.h5"
_MEMBERS = ("metadata.json", _CONFIG, _WEIGHTS)  # of a `.keras` file
_KIND = "a Keras file of a UnitBox model"
_REGISTERED = "unitbox_tf>"  # how Keras names our classes

# Keras' layers of convolutional networks. None of them reads files, runs Python code of the file or looks words up.
LAYERS = {
    "Activation", "Add", "Average", "AveragePooling2D", "BatchNormalization", "Concatenate", "Conv2D",
    "Conv2DTranspose", "Cropping2D", "Dense", "DepthwiseConv2D", "Dropout", "ELU", "Flatten",
    "GlobalAveragePooling2D", "GlobalMaxPooling2D", "GroupNormalization", "InputLayer", "LayerNormalization",
    "LeakyReLU", "MaxPooling2D", "Maximum", "Minimum", "Multiply", "Normalization", "Permute", "PReLU", "ReLU",
    "Rescaling", "Reshape", "SeparableConv2D", "Softmax", "SpatialDropout2D", "Subtract", "UnitNormalization",
    "UpSampling2D", "ZeroPadding2D",
}  # fmt: skip
_OTHERS = {
    ("keras", "DTypePolicy"),
    ("keras", "Functional"),
    ("keras", "Sequential"),
    ("keras.models", "Functional"),
    ("keras.models", "Sequential"),
    ("keras.src.models.functional", "Functional"),
    ("keras.src.models.sequential", "Sequential"),
}
# Their classes only compute numbers.
_HARMLESS = ("keras.initializers", "keras.regularizers", "keras.constraints")
_VALUES = (
    "__keras_tensor__",
    "__tuple__",
    "__slice__",
    "__ellipsis__",
)  # which Keras writes as classes


def open_model(path: Path) -> UnitBox:
    """The model in a `.keras` file.

    Raises:
        TooLarge: the file is larger than `limits.MAX_WEIGHTS_BYTES`.
        Unusable: the file holds another model, names a class that is neither in `LAYERS` nor registered, states
            sizes that its weights do not have, or is damaged.
        OSError: the file cannot be read.
    """
    from unitbox_tf.detect.model import UnitBox

    with archives.reading(path, _KIND):
        members = archives.read(path, MAX_WEIGHTS_BYTES, _MEMBERS.__contains__)
        if not {_CONFIG, _WEIGHTS} <= set(members):
            raise Unusable(f"{path}: expected {_KIND}, with {_CONFIG} and {_WEIGHTS} in it")
        text, weights = _config(path, members[_CONFIG]), members[_WEIGHTS]
        described = configs.parse(text, f"{path}: {_CONFIG}")
        _check_classes(path, described)
        shapes = weights_files.check_h5(path, len(weights), weights)
        # Parsed anew, because Keras changes what it is given.
        _check_size(path, configs.parse(text, str(path))["config"], shapes)
        model = UnitBox.from_config(described["config"])
        with tempfile.TemporaryDirectory(prefix="unitbox-") as folder:  # Keras takes paths only
            copy = Path(folder) / _WEIGHTS
            copy.write_bytes(weights)
            network_weights.load_checked(model, copy, path)
    return model


def _config(path: Path, content: bytes) -> str:
    return configs.decoded(content, f"{path}: {_CONFIG}")


def _check_classes(path: Path, described: Any) -> None:
    """Raises `Unusable` if a configuration is not that of a `UnitBox`, or names a class that is not allowed."""
    if (
        not isinstance(described, dict)
        or described.get("registered_name") != f"{_REGISTERED}UnitBox"
    ):
        name = described.get("class_name") if isinstance(described, dict) else described
        raise Unusable(f"{path}: expected a UnitBox model. Received: {name!r:.100}")
    for named in _named_classes(described["config"]):
        if not _is_allowed(named):
            what = f"{named.get('module')}.{named['class_name']}"
            raise Unusable(
                f"{path}: expected Keras' layers of convolutional networks, or classes that this program has "
                f"registered with Keras. Received: {what:.200}"
            )


def _named_classes(described: Any) -> Iterator[dict[str, Any]]:
    """All objects in a configuration that name a class."""
    left = [described]
    while left:
        value = left.pop()
        if isinstance(value, dict):
            if "class_name" in value:
                yield value
            left.extend(value.values())
        elif isinstance(value, list):
            left.extend(value)


def _is_allowed(named: dict[str, Any]) -> bool:
    module, name, registered = (
        named.get(key) for key in ("module", "class_name", "registered_name")
    )
    if not isinstance(name, str):
        return False
    if module is None:
        return name in _VALUES
    # Keras looks for the registered name first, and would import the module of others.
    if isinstance(registered, str) and ">" in registered:
        found = keras.saving.get_registered_object(registered)
        return getattr(found, "__name__", None) == name
    if registered not in (None, name):
        return False
    if module == "keras.layers":
        return name in LAYERS
    return (module, name) in _OTHERS or (module in _HARMLESS and name[:1].isupper())


def _check_size(path: Path, config: Any, shapes: Iterable[tuple[int, ...]]) -> None:
    """Raises `Unusable` if the network of a configuration has more weights than the file. Allocates none of them."""
    stored = sum(math.prod(shape) for shape in shapes)
    facts = config["backbone"]["config"]
    with keras.StatelessScope(initialize_variables=False):  # variables without values
        backbone = keras.saving.deserialize_keras_object(facts["model"])
    wanted = _least_weights(config, facts, backbone)
    if wanted > stored:
        raise Unusable(
            f"{path}: expected a network with at most {stored} weights, which the file holds. Received: {wanted}"
        )


def _least_weights(config: Any, facts: Any, backbone: keras.Model) -> int:
    """The number of weights of a network, without the smaller ones of the neck and the heads."""
    classes = min(len(config["class_names"]), MAX_CLASSES)
    if config["neck"] == "none":
        taps = [facts["confidence"], facts["distances"]]
    else:
        pyramid = facts["pyramid"].items()
        taps = [name for stride, name in pyramid if int(stride) >= config["map_stride"]]
    outputs = [backbone.get_layer(name).output for name in taps]
    channels = [int(output.shape[-1]) for output in outputs]
    used = sum(math.prod(weight.shape) for weight in keras.Model(backbone.input, outputs).weights)
    if config["neck"] == "none":
        return used + 9 * (channels[0] * classes + channels[1] * 4)
    merged = config["neck_channels"]
    return int(used + merged * (sum(channels) + 18 * merged + classes))
