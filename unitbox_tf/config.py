"""All settings of a run, as frozen dataclasses, and the presets. Presets are data: nothing else knows their names.

Field names are unique across the groups, so that the command line can offer each as `--field`.
Importing this module does not import TensorFlow.
"""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
from pathlib import Path
from typing import Any, Literal

Decoder = Literal["peaks", "ellipse"]
Protocol = Literal["summary", "coco", "fddb", "wider_face"]  # see docs/evaluation.md
DistanceLoss = Literal[
    "iou", "linear_iou", "giou", "diou", "ciou", "eiou", "siou", "l2", "smooth_l1"
]


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Where images come from, and how they are shown to the network.

    A source is written `FORMAT:PATH#SPLIT`: the name of a format, a folder or file (relative paths
    are looked for below `data`), and the part of it to read: `fddb:fddb#1-7`,
    `coco:photos/instances.json`, `synthetic:#0-1600`.
    """

    data: str = "."  # folder that relative paths in sources start from
    train_sources: tuple[str, ...] = ("synthetic:#0-2000",)  # FORMAT:PATH#SPLIT of each
    validation_sources: tuple[str, ...] = ("synthetic:#1000000-1000200",)  # likewise
    image_size: int = 96  # side of the square training images, in pixels
    random_crop: bool = False  # squares at random scales; else the photo is only shrunk to fit
    object_size: tuple[float, float] = (16.0, 128.0)  # of random_crop: long side of an object; px
    max_enlargement: float = 2.0  # of random_crop: a photo is never enlarged more, but for stretch
    stretch: float = 1.0  # of random_crop: height over width changes by up to this factor
    flip: bool = False  # every other image is mirrored
    colour: float = 0.0  # strength of random changes of brightness, contrast and saturation
    blur: float = 0.0  # share of images that are shown at a lower resolution
    mosaic: float = 0.0  # share of training images put together from four
    min_object: float = 0.0  # objects with a shorter long side are ignored; px after scaling
    region: Literal["ellipse", "box"] = "ellipse"  # which pixels of a box are positive (figure 2)
    positive_weight: float = 1.0  # weight of a positive pixel in the confidence loss


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The network (section 3 of the paper)."""

    class_names: tuple[str, ...] = ("object",)  # in the order of the data set's
    weights: str | None = None  # of the backbone: None (random), "imagenet" or a file
    unshared: bool = False  # a backbone for each branch, as in the paper's FDDB result
    confidence_tap: Literal["before_pool", "after_pool"] = "before_pool"  # of stage 4
    distances_tap: Literal["before_pool", "after_pool"] = "before_pool"  # of stage 5
    stage4_scale: float = 1.0  # VGG's stage 4 is some 15 times larger than its stage 5
    initial_box_size: float = 0.0  # what the distance head predicts before training; px
    head_stddev: float = 0.01  # of the random initial weights of both heads


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """What is minimised (section 2 of the paper)."""

    distance_loss: DistanceLoss = "iou"  # see docs/losses.md
    alpha: float = 1.0  # power of Alpha-IoU, in the losses from linear_iou to siou
    # Both losses are added up over the pixels of a batch ("sum", the paper) or averaged over the
    # pixels that count ("mean"). "object_mean" averages the distance loss over each object first.
    reduction: Literal["sum", "mean", "object_mean"] = "mean"
    confidence_weight: float = 1.0  # what the confidence loss counts in the sum of both
    distance_weight: float = 1.0  # what the distance loss counts in it


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """How it is minimised (section 4 of the paper), and on what."""

    init: str | None = None  # run, or published detector, whose weights training starts from
    epochs: int = 10  # after each, the network is judged and stored
    steps_per_epoch: int = 100
    batch_size: int = 10  # images of a step
    optimizer: Literal["sgd", "adam"] = "sgd"
    learning_rate: float = 1e-3  # at its highest
    schedule: Literal["constant", "cosine"] = "constant"  # cosine: the rate falls to 0 at the end
    warmup: float = 0.0  # share of all steps in which the learning rate rises from 0
    momentum: float = 0.9  # of sgd
    weight_decay: float = 0.0  # coupled: added to the gradient, as in Caffe
    clip_norm: float | None = None  # of the gradient of all variables together
    validation_images: int = 100  # looked at after each epoch, at most
    validation_protocol: Protocol = "summary"  # by which they are judged, and the best epoch chosen
    seed: int = 0  # of initial weights, and of the order and changes of photos
    device: Literal["auto", "cpu", "gpu"] = "auto"  # auto: a GPU if there is one
    # In which the network is computed; weights stay float32. auto: what is fastest on the device.
    precision: Literal["auto", "float32", "mixed_bfloat16", "mixed_float16"] = "auto"
    jit: Literal["auto", "on", "off"] = "auto"  # whether XLA compiles the training step
    output: str = "saved_models"  # folder that holds the runs
    run: str | None = None  # name of the run's folder; None: preset, date and time


@dataclasses.dataclass(frozen=True)
class DecodeConfig:
    """From heatmaps to detections (section 3 of the paper)."""

    decoder: Decoder = "peaks"
    max_side: int = 416  # a larger photo is shrunk to this before it is shown to the network; px
    # Sizes at which each photo is shown, as shares of that; what is found at all of them is merged.
    scales: tuple[float, ...] = (1.0,)
    # With several scales: what is larger, at the size at which it is shown, is left to a smaller
    # scale, but for the smallest; px, of the long side. None: nothing is.
    largest_object: float | None = None
    score_threshold: float = 0.5  # lowest score of a detection
    blob_threshold: float = 0.5  # ellipse decoder: lowest confidence of a pixel of a blob
    # Peaks decoder, and several scales: of two boxes that overlap more, the better one is kept.
    nms_iou: float = 0.4
    max_detections: int = 300  # in a photo, the best


@dataclasses.dataclass(frozen=True)
class Config:
    """Everything that a run depends on; stored with it as `config.json`."""

    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    loss: LossConfig = LossConfig()
    train: TrainConfig = TrainConfig()
    decode: DecodeConfig = DecodeConfig()

    def __post_init__(self) -> None:
        data, model, loss = self.data, self.model, self.loss
        train, decode = self.train, self.decode
        for expected, value, meaning in (
            (len(data.train_sources) > 0, data.train_sources, "at least one of train_sources"),
            (
                len(data.validation_sources) > 0,
                data.validation_sources,
                "at least one of validation_sources",
            ),
            (data.image_size >= 1, data.image_size, "image_size of at least 1"),
            (
                0 < data.object_size[0] <= data.object_size[1],
                data.object_size,
                "object_size as two growing numbers above 0",
            ),
            (data.max_enlargement > 0, data.max_enlargement, "max_enlargement above 0"),
            (data.stretch >= 1, data.stretch, "stretch of at least 1"),
            (0 <= data.colour <= 1, data.colour, "colour from 0 to 1"),
            (
                data.stretch == 1 or data.random_crop,
                data.stretch,
                "stretch of 1 where there is no random_crop",
            ),
            (0 <= data.blur <= 1, data.blur, "blur from 0 to 1"),
            (0 <= data.mosaic <= 1, data.mosaic, "mosaic from 0 to 1"),
            (data.positive_weight > 0, data.positive_weight, "positive_weight above 0"),
            (len(model.class_names) > 0, model.class_names, "at least one of class_names"),
            (loss.alpha >= 1, loss.alpha, "alpha of at least 1"),
            (
                loss.alpha == 1 or loss.distance_loss not in ("iou", "l2", "smooth_l1"),
                loss.distance_loss,
                "a distance_loss from linear_iou to siou where alpha is not 1",
            ),
            (train.epochs >= 1, train.epochs, "epochs of at least 1"),
            (train.steps_per_epoch >= 1, train.steps_per_epoch, "steps_per_epoch of at least 1"),
            (train.batch_size >= 1, train.batch_size, "batch_size of at least 1"),
            (train.learning_rate > 0, train.learning_rate, "learning_rate above 0"),
            (0 <= train.momentum < 1, train.momentum, "momentum from 0 to below 1"),
            (0 <= train.warmup < 1, train.warmup, "warmup from 0 to below 1"),
            (
                train.warmup == 0 or train.schedule == "cosine",
                train.schedule,
                "schedule 'cosine' where there is a warmup",
            ),
            (
                train.weight_decay == 0 or train.optimizer == "sgd",
                train.optimizer,
                "optimizer 'sgd' where there is a weight_decay",
            ),
            (
                train.clip_norm is None or train.clip_norm > 0,
                train.clip_norm,
                "clip_norm above 0 or None",
            ),
            (train.validation_images >= 1, train.validation_images, "validation_images >= 1"),
            (decode.max_side >= 1, decode.max_side, "max_side of at least 1"),
            (
                isinstance(decode.scales, tuple)
                and len(decode.scales) > 0
                and all(0 < scale < math.inf for scale in decode.scales),
                decode.scales,
                "scales as a tuple of numbers above 0, at least one",
            ),
            (
                decode.largest_object is None or decode.largest_object > 0,
                decode.largest_object,
                "largest_object above 0 or None",
            ),
            (
                decode.decoder in typing.get_args(Decoder),
                decode.decoder,
                f"a decoder of {list(typing.get_args(Decoder))}",
            ),
            (0 <= decode.score_threshold <= 1, decode.score_threshold, "score_threshold, 0 to 1"),
            (0 < decode.blob_threshold < 1, decode.blob_threshold, "0 < blob_threshold < 1"),
            (0 <= decode.nms_iou <= 1, decode.nms_iou, "nms_iou from 0 to 1"),
            (decode.max_detections >= 1, decode.max_detections, "max_detections of at least 1"),
        ):
            if not expected:
                raise ValueError(f"Expected {meaning}. Received: {value}")

    def to_json(self) -> str:
        """This configuration as JSON text."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str, where: str = "config") -> Config:
        """The configuration written by `to_json`; fields that are missing take their defaults.

        Raises:
            ValueError: a group or field is unknown, or a value is of the wrong kind. `where` names
                the file.
        """
        return _from_dict(cls, json.loads(text), where)


def _from_dict(cls: type, values: Any, where: str) -> Any:
    if not isinstance(values, dict):
        raise ValueError(
            f"{where}: expected an object with the fields of {cls.__name__}, received {values!r}"
        )
    hints = typing.get_type_hints(cls)
    unknown = sorted(set(values) - set(hints))
    if unknown:
        raise ValueError(f"{where}: unknown field {unknown[0]!r}, expected one of {sorted(hints)}")
    return cls(
        **{name: _convert(hints[name], value, f"{where}: {name}") for name, value in values.items()}
    )


def _convert(hint: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return _from_dict(typing.cast(type, hint), value, where)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple and isinstance(value, list):
        kinds = arguments[:1] * len(value) if arguments[-1] is Ellipsis else arguments
        if len(kinds) == len(value):
            return tuple(
                _convert(kind, item, where) for kind, item in zip(kinds, value, strict=True)
            )
    elif origin is Literal and value in arguments:
        return value
    elif origin in (typing.Union, types.UnionType):
        kinds = tuple(kind for kind in arguments if kind is not type(None))
        return None if value is None else _convert(kinds[0], value, where)
    elif hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    elif isinstance(hint, type) and type(value) is hint:
        return value
    raise ValueError(f"{where}: expected {hint}, received {value!r}")


_SMOKE = Config(
    data=DataConfig(image_size=96),
    # From He initialisation the distance head dies if its random weights are not small.
    model=ModelConfig(head_stddev=1e-4, initial_box_size=40.0),
    train=TrainConfig(
        epochs=6,
        steps_per_epoch=40,
        batch_size=16,
        optimizer="adam",
        learning_rate=3e-4,
        schedule="cosine",
        warmup=0.08,
    ),
    decode=DecodeConfig(max_side=96),
)

_FACES = Config(
    data=DataConfig(
        train_sources=("fddb:fddb#1-7", "coco:other/multiface", "negatives:other/nonface_scenes"),
        validation_sources=("fddb:fddb#8",),
        image_size=192,
        random_crop=True,
        object_size=(14.0, 170.0),
        flip=True,
        colour=0.3,
        mosaic=0.3,
        min_object=10.0,
    ),
    model=ModelConfig(
        class_names=("face",),
        weights="imagenet",
        stage4_scale=0.01,
        initial_box_size=40.0,
        head_stddev=1e-3,
    ),
    # Averaged over objects, small faces are found more often: docs/losses.md.
    loss=LossConfig(reduction="object_mean"),
    # In 100 steps of this recipe at 160 px, mean IoU at face pixels of fold 8 was .70 with SGD
    # (learning rate 2e-3), .74 with Adam at 1e-4 and .69 at 3e-4.
    train=TrainConfig(
        epochs=12,
        steps_per_epoch=100,
        batch_size=8,
        optimizer="adam",
        learning_rate=1e-4,
        schedule="cosine",
        warmup=0.04,
        clip_norm=20.0,
        validation_images=64,
    ),
    decode=DecodeConfig(max_side=224),
)

# Section 4 of the paper. Where it is silent: one image size of 640 px, pooled taps (as everyone
# else read "the end of stage"), both losses weighted alike, 16,000 iterations for the best model.
_PAPER = Config(
    data=DataConfig(
        train_sources=("wider_face:wider_face#train",),
        validation_sources=("wider_face:wider_face#val",),
        image_size=640,
    ),
    model=ModelConfig(
        class_names=("face",),
        weights="imagenet",
        unshared=True,
        confidence_tap="after_pool",
        distances_tap="after_pool",
    ),
    loss=LossConfig(distance_loss="iou", reduction="sum"),
    train=TrainConfig(
        epochs=32,
        steps_per_epoch=500,
        batch_size=10,
        learning_rate=1e-8,
        momentum=0.9,
        weight_decay=2e-4,
    ),
    decode=DecodeConfig(decoder="ellipse", max_side=640),
)

# "The l2 variant: only the loss replaced, learning rate 1e-13"; its best model came at 29k.
_PAPER_L2 = dataclasses.replace(
    _PAPER,
    loss=dataclasses.replace(_PAPER.loss, distance_loss="l2"),
    train=dataclasses.replace(_PAPER.train, learning_rate=1e-13, epochs=58),
)

PRESETS: dict[str, Config] = {
    "smoke": _SMOKE,
    "faces": _FACES,
    "paper": _PAPER,
    "paper_l2": _PAPER_L2,
}


def load(path: Path) -> Config:
    """The configuration in the file `path`; raises `ValueError` that names the file if it cannot be used."""
    try:
        return Config.from_json(path.read_text(encoding="utf-8"), str(path))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}:{error.lineno}: not valid JSON: {error.msg}") from error
