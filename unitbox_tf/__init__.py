"""UnitBox: object detection with the IoU loss (Yu et al., ACM MM 2016), in TensorFlow and Keras 3.

Public names and modules are loaded when they are first used, so that importing the package is fast and
does not start TensorFlow. When Keras is imported, it learns the classes of this package.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

from unitbox_tf import keras_objects

if TYPE_CHECKING:
    from unitbox_tf.config import Config as Config
    from unitbox_tf.config import DataConfig as DataConfig
    from unitbox_tf.config import DecodeConfig as DecodeConfig
    from unitbox_tf.config import LossConfig as LossConfig
    from unitbox_tf.config import ModelConfig as ModelConfig
    from unitbox_tf.config import TrainConfig as TrainConfig
    from unitbox_tf.datasets import Source as Source
    from unitbox_tf.datasets import convert as convert
    from unitbox_tf.detect.detector import Detector as Detector
    from unitbox_tf.detect.model import UnitBox as UnitBox
    from unitbox_tf.detect.model import publish as publish
    from unitbox_tf.evaluation.evaluate import evaluate as evaluate
    from unitbox_tf.formats import export as export
    from unitbox_tf.inspection import inspect as inspect
    from unitbox_tf.loading import load as load
    from unitbox_tf.losses import CIoULoss as CIoULoss
    from unitbox_tf.losses import DIoULoss as DIoULoss
    from unitbox_tf.losses import EIoULoss as EIoULoss
    from unitbox_tf.losses import GIoULoss as GIoULoss
    from unitbox_tf.losses import IoULoss as IoULoss
    from unitbox_tf.losses import L2Loss as L2Loss
    from unitbox_tf.losses import LinearIoULoss as LinearIoULoss
    from unitbox_tf.losses import MeanIoU as MeanIoU
    from unitbox_tf.losses import SIoULoss as SIoULoss
    from unitbox_tf.losses import SmoothL1Loss as SmoothL1Loss
    from unitbox_tf.losses import iou_loss as iou_loss
    from unitbox_tf.network.backbones import Backbone as Backbone
    from unitbox_tf.network.backbones import Preprocessing as Preprocessing
    from unitbox_tf.presets import PRESETS as PRESETS
    from unitbox_tf.problems import Problems as Problems
    from unitbox_tf.records import Annotation as Annotation
    from unitbox_tf.records import Detections as Detections
    from unitbox_tf.train.fit import fit as fit

__version__ = "0.1.0"

_HOMES = {
    "Annotation": "records",
    "Backbone": "network.backbones",
    "CIoULoss": "losses",
    "Config": "config",
    "DIoULoss": "losses",
    "DataConfig": "config",
    "DecodeConfig": "config",
    "Detections": "records",
    "Detector": "detect.detector",
    "EIoULoss": "losses",
    "GIoULoss": "losses",
    "IoULoss": "losses",
    "L2Loss": "losses",
    "LinearIoULoss": "losses",
    "LossConfig": "config",
    "MeanIoU": "losses",
    "ModelConfig": "config",
    "PRESETS": "presets",
    "Preprocessing": "network.backbones",
    "Problems": "problems",
    "SIoULoss": "losses",
    "SmoothL1Loss": "losses",
    "Source": "datasets",
    "TrainConfig": "config",
    "UnitBox": "detect.model",
    "convert": "datasets",
    "evaluate": "evaluation.evaluate",
    "export": "formats",
    "fit": "train.fit",
    "inspect": "inspection",
    "iou_loss": "losses",
    "load": "loading",
    "publish": "detect.model",
}
__all__ = ["__version__", *_HOMES]

keras_objects.register_with_keras()


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"unitbox_tf.{_HOMES[name]}"), name)
    if not name.startswith("_") and importlib.util.find_spec(f"unitbox_tf.{name}"):
        return importlib.import_module(f"unitbox_tf.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
