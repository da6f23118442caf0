"""Registries of everything that can be extended: losses, decoders, backbones, export formats and data set formats.

A registry knows names, and imports the module behind a name when its value is asked for. So names can be
checked and listed without TensorFlow. `docs/extending.md` shows how to add to each registry.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from typing import Any


class Registry:
    """Values by name. Iterating gives the names, in the order in which they were added."""

    def __init__(self, kind: str, homes: Mapping[str, str] | None = None) -> None:
        """`kind` names an entry in messages; `homes` maps names to `"module:attribute"`."""
        self.kind = kind
        self._homes = dict(homes or {})
        self._values: dict[str, Any] = {}

    def register(self, name: str, value: Any) -> Any:
        """Adds `value`, and returns it.

        Raises:
            ValueError: the name is taken.
        """
        if name in self:
            raise ValueError(
                f"Expected a new name for a {self.kind}. Received: {name!r}, which is taken"
            )
        self._homes[name] = ""
        self._values[name] = value
        return value

    def unregister(self, name: str) -> None:
        """Removes a value that `register` added."""
        del self._values[name], self._homes[name]

    def __getitem__(self, name: str) -> Any:
        """The value. Raises `ValueError`, which lists the names, if there is none."""
        if name not in self:
            raise ValueError(f"Unknown {self.kind} {name!r}. Expected one of {list(self)}.")
        if name not in self._values:
            module, _, attribute = self._homes[name].partition(":")
            self._values[name] = getattr(importlib.import_module(module), attribute)
        return self._values[name]

    def __contains__(self, name: object) -> bool:
        return name in self._homes

    def __iter__(self) -> Iterator[str]:
        return iter(self._homes)

    def __len__(self) -> int:
        return len(self._homes)

    def __repr__(self) -> str:
        return f"Registry({self.kind!r})"


# A Keras class derived from `losses.BoxLoss`.
LOSSES = Registry(
    "distance loss",
    {
        "iou": "unitbox_tf.losses:IoULoss",
        "linear_iou": "unitbox_tf.losses:LinearIoULoss",
        "giou": "unitbox_tf.losses:GIoULoss",
        "diou": "unitbox_tf.losses:DIoULoss",
        "ciou": "unitbox_tf.losses:CIoULoss",
        "eiou": "unitbox_tf.losses:EIoULoss",
        "siou": "unitbox_tf.losses:SIoULoss",
        "l2": "unitbox_tf.losses:L2Loss",
        "smooth_l1": "unitbox_tf.losses:SmoothL1Loss",
    },
)
# A `detect.decoders.Decoder`.
DECODERS = Registry(
    "decoder",
    {
        "peaks": "unitbox_tf.detect.decoders:PEAKS",
        "ellipse": "unitbox_tf.detect.decoders:ELLIPSE",
    },
)
# A function `(config: ModelConfig, seed: int) -> network.backbones.Backbone`.
BACKBONES = Registry(
    "backbone",
    {
        "vgg16": "unitbox_tf.network.backbones:vgg16",
        "light": "unitbox_tf.network.light:light",
        "mobilenet_v3_small": "unitbox_tf.network.applications:MOBILENET_V3_SMALL",
        "mobilenet_v3_large": "unitbox_tf.network.applications:MOBILENET_V3_LARGE",
        "efficientnet_v2_b0": "unitbox_tf.network.applications:EFFICIENTNET_V2_B0",
        "convnext_tiny": "unitbox_tf.network.applications:CONVNEXT_TINY",
        "resnet50": "unitbox_tf.network.applications:RESNET50",
    },
)
# A `formats.Format`.
FORMATS = Registry(
    "export format",
    {
        "saved_model": "unitbox_tf.formats.saved_model:FORMAT",
        "onnx": "unitbox_tf.formats.onnx:FORMAT",
        "litert": "unitbox_tf.formats.litert:FORMAT",
        "litert-int8": "unitbox_tf.formats.litert:INT8",
    },
)
# A `datasets.Format`.
DATASETS = Registry(
    "data set format",
    {
        "coco": "unitbox_tf.datasets.coco:FORMAT",
        "csv": "unitbox_tf.datasets.csv_table:FORMAT",
        "fddb": "unitbox_tf.datasets.fddb:FORMAT",
        "multiscale": "unitbox_tf.datasets.multiscale:FORMAT",
        "negatives": "unitbox_tf.datasets.negatives:FORMAT",
        "synthetic": "unitbox_tf.datasets.synthetic:FORMAT",
        "tfrecord": "unitbox_tf.datasets.tfrecord:FORMAT",
        "voc": "unitbox_tf.datasets.voc:FORMAT",
        "wider_face": "unitbox_tf.datasets.wider_face:FORMAT",
        "yolo": "unitbox_tf.datasets.yolo:FORMAT",
    },
)
