"""UnitBox: object detection with the IoU loss (Yu et al., ACM MM 2016), in TensorFlow and Keras 3.

Public names are loaded when they are first used, so that importing the package is fast and does not
start TensorFlow.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unitbox_tf.config import Config as Config
    from unitbox_tf.detect.detector import Detector as Detector
    from unitbox_tf.loading import load as load
    from unitbox_tf.losses import IoULoss as IoULoss
    from unitbox_tf.losses import iou_loss as iou_loss
    from unitbox_tf.network.model import unitbox as unitbox
    from unitbox_tf.presets import PRESETS as PRESETS
    from unitbox_tf.records import Annotation as Annotation
    from unitbox_tf.records import Detections as Detections
    from unitbox_tf.train.fit import fit as fit

__version__ = "0.1.0"

_HOMES = {
    "PRESETS": "presets",
    "Annotation": "records",
    "Config": "config",
    "Detections": "records",
    "Detector": "detect.detector",
    "IoULoss": "losses",
    "fit": "train.fit",
    "iou_loss": "losses",
    "load": "loading",
    "unitbox": "network.model",
}
__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"unitbox_tf.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
