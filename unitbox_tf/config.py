"""All settings of a run, as frozen dataclasses that check themselves. `presets` has settings to start from.

Field names are unique across the groups, so that the command line can offer each as `--field`.
Importing this module does not import TensorFlow.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from unitbox_tf import files, registry
from unitbox_tf.limits import (
    MAX_CLASS_NAME,
    MAX_CLASSES,
    MAX_CONFIG_BYTES,
    MAX_DETECTIONS,
    MAX_PIXELS,
    MAX_SCALES,
    MAX_SIDE,
    TooLarge,
)
from unitbox_tf.settings import (
    Settings,
    above,
    at_least,
    below,
    between,
    each,
    file_name,
    from_dict,
    inside,
    not_empty,
    old_new,
    one_line,
    setting,
)

Protocol = Literal["summary", "coco", "fddb", "wider_face"]  # see docs/evaluation.md

MAX_MOSAIC_ROWS = 4  # sixteen images are read for such a mosaic

Held = Iterator[tuple[bool, str, Any]]


@dataclasses.dataclass(frozen=True)
class DataConfig(Settings):
    """Where images come from, and how they are shown to the network.

    A source is written `FORMAT:PATH#SPLIT`: the name of a format, a folder or file (relative paths
    are looked for below `data`), and the part of it to read: `fddb:fddb#1-7`,
    `coco:photos/instances.json`, `synthetic:#0-1600`.
    """

    data: str = setting(".", "folder that relative paths in sources start from")
    train_sources: tuple[str, ...] = setting(
        ("synthetic:#0-2000",),
        "images to train on, each source as FORMAT:PATH#SPLIT; add a source of negatives if the "
        "detector finds objects in images that have none",
        not_empty(),
    )
    validation_sources: tuple[str, ...] = setting(
        ("synthetic:#1000000-1000200",),
        "images to judge each epoch by, written in the same way; training must not use any of them",
        not_empty(),
    )
    stream: bool = setting(
        False,
        "read training images from shards (tfrecord) while training, and keep no annotation in memory; turn it on "
        "where annotations do not fit into memory. Sources with a URL (tfrecord:gs://bucket/shards#train) always do",
    )
    stream_buffer: int = setting(
        1024,
        "with stream: records in memory, still encoded, whose order is mixed; raise it if neighbours in a shard are "
        "alike, lower it if images are large",
        at_least(1),
    )
    classes: tuple[str, ...] = setting(
        (),
        "train only on objects of these classes of the data; objects of other classes are background. None "
        "given: all classes",
        each(one_line(), different=True),
    )
    rename: tuple[str, ...] = setting(
        (),
        "new names of classes in the data, each as old=new; set it where data sets name one class differently, "
        "such as human_face=face",
        each(old_new()),
    )
    shared_images: bool = setting(
        False,
        "take validation images that are among the training images, which is an error otherwise; turn it on "
        "only to see whether a detector can learn some images by heart",
    )
    absent_classes: bool = setting(
        False,
        "take classes without an object in the training images, which is an error otherwise; turn it on to go "
        "on with a detector that knows them from other images",
    )
    image_size: int = setting(
        96,
        "side of the square training images, in pixels; larger images show small objects better, but "
        "the time of a step grows with the area",
        at_least(1),
    )
    random_crop: bool = setting(
        False,
        "cut squares at random scales out of images; turn it off only if all objects already have "
        "about the size at which they are to be found",
    )
    object_size: tuple[float, float] = setting(
        (16.0, 128.0),
        "with random_crop: smallest and largest long side of an object in a crop, in pixels; the "
        "network learns objects of these sizes",
    )
    max_enlargement: float = setting(
        2.0,
        "with random_crop: largest factor by which an image is enlarged; lower it where enlarged "
        "objects look blurred",
        above(0),
    )
    stretch: float = setting(
        1.0,
        "with random_crop: largest factor by which the ratio of height to width changes; raise it "
        "for objects of many shapes",
        at_least(1),
    )
    flip: bool = setting(
        False, "mirror every other image; leave it off if left and right matter, as in text"
    )
    colour: float = setting(
        0.0,
        "strength of random changes of brightness, contrast and saturation, 0 to 1; lower it where "
        "colour tells classes apart",
        between(0, 1),
    )
    blur: float = setting(
        0.0,
        "share of images that are shown at a lower resolution, 0 to 1; raise it for blurred images",
        between(0, 1),
    )
    mosaic: float = setting(
        0.0,
        "share of training images that are put together from several, 0 to 1; raise it where objects "
        "stand in crowds but training images show few",
        between(0, 1),
    )
    mosaic_rows: tuple[int, ...] = setting(
        (2,),
        "with mosaic: images in a row of a mosaic, and rows of it; with several numbers, as 2 3, each makes an equal "
        "share of the mosaics",
        not_empty(between(2, MAX_MOSAIC_ROWS), different=True),
    )
    min_object: float = setting(
        0.0,
        "objects with a shorter long side are ignored, in pixels after scaling; raise it where tiny "
        "objects are annotated that cannot be recognised",
        at_least(0),
    )
    region: Literal["ellipse", "box"] = setting(
        "ellipse",
        "which pixels of a box belong to the object: the ellipse in it (figure 2 of the paper), or "
        "all; box suits objects that fill their boxes",
    )
    positive_weight: float = setting(
        1.0,
        "weight of an object's pixel in the confidence loss; raise it where objects are missed",
        above(0),
    )

    def together(self) -> Held:
        """Conditions between fields."""
        low, high = self.object_size
        yield 0 < low <= high, "object_size as two growing numbers above 0", self.object_size
        alone = self.stretch == 1 or self.random_crop
        yield alone, "stretch of 1 where there is no random_crop", self.stretch
        rows = self.mosaic_rows == DataConfig.mosaic_rows or self.mosaic > 0
        yield (
            rows,
            f"mosaic_rows of {DataConfig.mosaic_rows} where there is no mosaic",
            self.mosaic_rows,
        )


@dataclasses.dataclass(frozen=True)
class ModelConfig(Settings):
    """The network: the paper's (section 3), or another backbone and neck."""

    class_names: tuple[str, ...] = setting(
        (),
        "name of each class of the detector; classes of the data are matched by name, in any order. None given: "
        "the classes of the training data",
        each(one_line(MAX_CLASS_NAME), different=True, most=MAX_CLASSES),
    )
    backbone: str = setting(
        "vgg16",
        "network that the heads stand on; docs/backbones.md compares them",
        names=registry.BACKBONES,
    )
    weights: str | None = setting(
        None,
        "weights that the backbone starts from: imagenet (downloaded), a file, or None for random "
        "weights, which need far more images and steps",
    )
    unshared: bool = setting(
        False,
        "a backbone for each branch, as in the paper's result on FDDB; this takes twice the time and memory",
    )
    confidence_tap: Literal["before_pool", "after_pool"] = setting(
        "before_pool", "where the confidence branch leaves stage 4; after_pool is coarser"
    )
    distances_tap: Literal["before_pool", "after_pool"] = setting(
        "before_pool", "where the distances branch leaves stage 5; after_pool is coarser"
    )
    stage4_scale: float = setting(
        1.0,
        "factor of the features of stage 4; with ImageNet weights of VGG-16, they are some 15 times "
        "larger than the features of stage 5, and .01 keeps training from diverging",
        above(0),
    )
    width: float = setting(
        1.0,
        "factor of the number of channels of the backbones vgg16 and light; below 1, the network is faster and "
        "finds less",
        above(0),
    )
    neck: Literal["none", "top_down"] = setting(
        "none",
        "none: each branch reads one layer, and maps are up-sampled, as in the paper; top_down: features of all "
        "strides are merged into one map, which finds small and large objects in one pass",
    )
    neck_channels: int = setting(
        32, "with top_down: channels of the merged map and of the convolutions on it", at_least(1)
    )
    map_stride: int = setting(
        4,
        "with top_down: pixels from one point of the map to the next; 8 is faster and misses small objects",
        at_least(2),
    )
    initial_box_size: float = setting(
        0.0,
        "side of the boxes that the network predicts before training, in pixels; set it to the typical "
        "size of an object",
        at_least(0),
    )
    head_stddev: float = setting(
        0.01,
        "standard deviation of the random initial weights of both heads; lower it where the loss "
        "explodes in the first steps",
        above(0),
    )

    def together(self) -> Held:
        """Conditions between fields: a setting that the neck does not heed keeps its default."""
        unused = ("unshared", "confidence_tap", "distances_tap", "stage4_scale")
        for name in unused if self.neck == "top_down" else ("neck_channels", "map_stride"):
            default, received = getattr(ModelConfig, name), getattr(self, name)
            words = f"{name} of {default} with the neck {self.neck}, which does not heed it"
            yield received == default, words, received


@dataclasses.dataclass(frozen=True)
class LossConfig(Settings):
    """The loss that training minimises (section 2 of the paper)."""

    distance_loss: str = setting(
        "iou",
        "loss of the predicted box; docs/losses.md compares them",
        names=registry.LOSSES,
    )
    confidence_loss: Literal["cross_entropy", "focal"] = setting(
        "cross_entropy",
        "cross_entropy is the paper's; focal (gamma 2) gives little weight to pixels that are right already, and is "
        "divided by the weight of the objects' pixels, not of all pixels",
    )
    confidence_target: Literal["region", "iou"] = setting(
        "region",
        "what the confidence learns at the pixels of an object: region is 1 at all of them, the paper's; iou is the "
        "overlap of the box that is predicted there with the true one, so that scores rank boxes by their quality",
    )
    confidence_shares: Literal["pixel", "root", "object"] = setting(
        "pixel",
        "weight of an object in the confidence loss: pixel gives each of its pixels the same weight, object divides "
        "by their number, so that all objects count the same, and root by its root, so that it is between both",
    )
    alpha: float = setting(
        1.0,
        "power of Alpha-IoU, for the losses from linear_iou to siou; more than 1 weights good boxes "
        "more",
        at_least(1),
    )
    reduction: Literal["sum", "mean", "object_mean"] = setting(
        "mean",
        "how the losses of pixels are combined: added up (sum, the paper's), averaged (mean), or averaged "
        "over each object first (object_mean), which finds small objects more often",
    )
    confidence_weight: float = setting(
        1.0, "weight of the confidence loss in the sum of both", at_least(0)
    )
    distance_weight: float = setting(
        1.0, "weight of the distance loss in the sum of both", at_least(0)
    )


@dataclasses.dataclass(frozen=True)
class TrainConfig(Settings):
    """How training minimises the loss (section 4 of the paper), and on which hardware."""

    init: str | None = setting(
        None,
        "run, published detector or .keras file whose weights training starts from; this needs far fewer "
        "steps if its objects are similar. Classes of the same name keep their head, others get a new one",
    )
    freeze_epochs: int = setting(
        0,
        "number of epochs at the start in which only the heads learn, and the backbone stays as it is; use it "
        "with few images, or where new heads stand on a trained backbone",
        at_least(0),
    )
    epochs: int = setting(
        10, "number of epochs; after each one the network is judged and stored", at_least(1)
    )
    patience: int | None = setting(
        None,
        "number of epochs in a row without a better validation metric after which training stops; None never "
        "stops early",
        at_least(1),
    )
    steps_per_epoch: int = setting(
        100, "batches in an epoch; raise it if judging takes long beside training", at_least(1)
    )
    checkpoint_minutes: float = setting(
        10.0,
        "minutes after which a checkpoint is stored within an epoch, beside the one after each epoch; 0 stores one "
        "after each step",
        at_least(0),
    )
    skip_bad_batches: int = setting(
        0,
        "number of batches that are left out if their loss or gradient is not finite; one more ends training",
        at_least(0),
    )
    batch_size: int = setting(
        10, "images in a step; lower it if memory does not suffice", at_least(1)
    )
    optimizer: Literal["sgd", "adam", "adamw"] = setting(
        "sgd",
        "sgd is the paper's; adam learns in fewer steps and needs a lower learning_rate; adamw has a weight_decay "
        "apart from the gradient",
    )
    learning_rate: float = setting(
        1e-3, "highest learning rate; lower it if training diverges", above(0)
    )
    schedule: Literal["constant", "cosine"] = setting(
        "constant", "cosine lets the learning rate fall to 0 at the end, which gives better boxes"
    )
    warmup: float = setting(
        0.0,
        "with cosine: share of all steps in which the learning rate rises from 0; raise it if the "
        "first steps diverge",
        inside(0, 1),
    )
    momentum: float = setting(0.9, "momentum of sgd; rarely worth changing", inside(0, 1))
    weight_decay: float = setting(
        0.0,
        "weight decay; of sgd it is coupled: added to the gradient, as in Caffe; of adamw it is decoupled",
        at_least(0),
    )
    ema_momentum: float | None = setting(
        None,
        "judge and store a moving average of the weights with this momentum, such as .999, in place of the weights "
        "of the last step; it is steadier, and better in long runs",
        inside(0, 1),
    )
    clip_norm: float | None = setting(
        None,
        "largest norm of the gradient of all variables together; set it where training diverges",
        above(0),
    )
    validation_images: int = setting(
        100, "largest number of validation images that judge each epoch", at_least(1)
    )
    validation_protocol: Protocol = setting(
        "summary", "protocol that judges them and chooses the best epoch; see docs/evaluation.md"
    )
    choose_threshold: Literal["auto", "on", "off"] = setting(
        "auto",
        "on: after training, score_threshold becomes the one with the best F1 in the validation images; auto "
        "does so unless you set score_threshold",
    )
    seed: int = setting(
        0,
        "seed of the initial weights, and of the order and changes of images",
        between(0, 2**31 - 1),
    )
    device: Literal["auto", "cpu", "gpu"] = setting(
        "auto", "device to train on; auto takes a GPU if there is one"
    )
    devices: int | None = setting(
        None,
        "number of devices of this machine that train together; None takes all GPUs. Each takes its part of a batch. "
        "With device cpu, more than one is for tests",
        at_least(1),
    )
    precision: Literal["auto", "float32", "mixed_bfloat16", "mixed_float16"] = setting(
        "auto",
        "number type in which the network computes; weights stay float32. auto measures which is fastest",
    )
    jit: Literal["auto", "on", "off"] = setting(
        "auto", "on: XLA compiles the training step; auto does so only on a GPU"
    )
    output: str = setting("saved_models", "folder that holds the runs")
    run: str | None = setting(
        None, "name of the run's folder; None makes one of preset, date and time", file_name()
    )

    def __post_init__(self) -> None:
        """Checks each field. A `Path` as `init` stays one in the text: "./faces" is no published name."""
        if isinstance(self.init, os.PathLike):
            object.__setattr__(self, "init", os.path.join(os.curdir, self.init))
        super().__post_init__()

    def together(self) -> Held:
        """Conditions between fields."""
        alone = self.warmup == 0 or self.schedule == "cosine"
        yield alone, "schedule 'cosine' where there is a warmup", self.schedule
        alone = self.weight_decay == 0 or self.optimizer != "adam"
        yield alone, "optimizer 'sgd' or 'adamw' where there is a weight_decay", self.optimizer


@dataclasses.dataclass(frozen=True)
class DecodeConfig(Settings):
    """From heatmaps to detections (section 3 of the paper)."""

    decoder: str = setting(
        "peaks",
        "how boxes are read off the heatmaps: peaks tells objects apart that touch, ellipse is the "
        "paper's",
        names=registry.DECODERS,
    )
    max_side: int = setting(
        416,
        "longest side, in pixels, of images that the network is shown; larger images are shrunk to it. "
        "Raise it if small objects are missed",
        between(1, MAX_SIDE),
    )
    scales: tuple[float, ...] = setting(
        (1.0,),
        "sizes at which the network is shown each image, as shares of max_side; the objects found at all "
        "sizes are merged: 1 2 finds smaller objects, .5 1 larger ones",
        not_empty(above(0), different=True, most=MAX_SCALES),
    )
    largest_object: float | None = setting(
        None,
        "with several scales: objects whose long side is longer, in pixels as shown, are left to a "
        "smaller scale; set it if large objects are found twice",
        above(0),
    )
    score_threshold: float = setting(
        0.5,
        "lowest score of a detection; raise it against false alarms, lower it if objects are missed",
        between(0, 1),
    )
    blob_threshold: float = setting(
        0.5,
        "decoder ellipse: lowest confidence of a pixel of an object; raise it if objects that touch "
        "are found as one",
        below(0, 1),
    )
    nms_iou: float = setting(
        0.4,
        "decoder peaks, and several scales: if two boxes overlap more than this, only the better one is "
        "kept; raise it if objects overlap each other",
        between(0, 1),
    )
    max_detections: int = setting(
        300,
        "largest number of objects in an image; the best are kept",
        between(1, MAX_DETECTIONS),
    )
    max_pixels: int = setting(
        MAX_PIXELS,
        "largest number of pixels (height times width) of an image file, also in training; larger images are "
        "refused before they are decoded. Raise it for large images of your own; memory grows with it",
        between(1, 2**31 - 1),
    )

    def together(self) -> Held:
        """Conditions between fields."""
        most = self.max_side * max(self.scales)
        yield most <= MAX_SIDE, f"max_side times the largest of scales up to {MAX_SIDE}", most


@dataclasses.dataclass(frozen=True)
class Config(Settings):
    """Everything that a run depends on; stored with it as `config.json`."""

    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    loss: LossConfig = LossConfig()
    train: TrainConfig = TrainConfig()
    decode: DecodeConfig = DecodeConfig()

    def to_json(self) -> str:
        """This configuration as JSON text."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str, where: str = "config") -> Config:
        """The configuration in a text of `to_json`. Missing fields take their defaults.

        Raises:
            ValueError: the text is no JSON, or a group or field is unknown or has an unusable value.
                `where` names the file.
        """
        config: Config = from_dict(cls, parse(text, where), where)
        return config


def load(path: str | Path) -> Config:
    """The configuration in the file `path`; raises `ValueError` that names the file if it cannot be used."""
    return Config.from_json(decoded(files.read(path, MAX_CONFIG_BYTES), str(path)), str(path))


def decoded(content: bytes, where: str) -> str:
    """The text of a file; raises `ValueError` that begins with `where` if it is not UTF-8."""
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{where}: expected JSON in UTF-8, which these bytes are not: {error}"
        ) from error


def parse(text: str, where: str) -> Any:
    """The value in a JSON text, which may come from anybody; raises `ValueError` that begins with `where`."""
    if len(text) > MAX_CONFIG_BYTES:
        raise TooLarge(
            f"{where}: expected at most {MAX_CONFIG_BYTES:,} characters of JSON. Received: {len(text):,}"
        )
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{where}:{error.lineno}: not valid JSON: {error.msg}") from error
    except RecursionError:
        raise ValueError(
            f"{where}: not usable JSON: lists or objects are nested too deep"
        ) from None
    except ValueError as error:  # a number of thousands of digits
        raise ValueError(f"{where}: not usable JSON: {error}") from error
