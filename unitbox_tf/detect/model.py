"""The detector as a Keras model that knows its classes and its settings of decoding."""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from unitbox_tf import checkpoints, inputs, registry, runs, settings, weights_files
from unitbox_tf.config import DecodeConfig, ModelConfig
from unitbox_tf.detect import keras_files, transfer
from unitbox_tf.network import backbones, heatmaps, top_down
from unitbox_tf.network import weights as network_weights
from unitbox_tf.records import Detections

if TYPE_CHECKING:
    from unitbox_tf.detect.detector import Detector


@keras.saving.register_keras_serializable("unitbox_tf")
class UnitBox(keras.Model):
    """The network of the paper (section 3), as a functional Keras model.

    It maps RGB images `[B, H, W, 3]`, uint8 or float from 0 to 255, of any height and width, to a dict:
    `"confidence"` `[B, h, w, C]`, a logit a class, and `"distances"` `[B, h, w, 4]`, `tblr` in pixels of the image,
    not negative. h is H / `map_stride`, rounded up; w likewise. `detect` gives boxes instead. `save` and
    `keras.saving.load_model` keep all of it.

    Attributes:
        backbone: the network that the heads stand on.
        class_names: the names of the classes, in the order of the confidence maps.
        decode: the settings of decoding; they may be replaced.
    """

    def __init__(
        self,
        backbone: backbones.Backbone,
        class_names: Sequence[str],
        *,
        decode: DecodeConfig | None = None,
        unshared: bool = False,
        stage4_scale: float = 1.0,
        initial_box_size: float = 0.0,
        head_stddev: float = 0.01,
        neck: str = "none",
        neck_channels: int = 32,
        map_stride: int = 4,
        seed: int = 0,
        name: str = "unitbox",
        **kwargs: Any,
    ) -> None:
        """A network with random heads.

        Args:
            backbone: see `network.backbones`. With `unshared`, the distances branch gets a copy.
            class_names: the name of each class.
            decode: the settings of decoding; None takes the defaults.
            unshared: see `ModelConfig`, also for the next three arguments.
            stage4_scale: factor of the features that the confidence branch reads.
            initial_box_size: side of the boxes that are predicted before training, in pixels.
            head_stddev: standard deviation of the random weights of the heads.
            neck: see `ModelConfig`, also for the next two arguments.
            neck_channels: channels of the merged map of the neck `top_down`.
            map_stride: pixels from one point of this map to the next.
            seed: the seed of these weights.
            name: the name of the model.
            kwargs: further arguments of `keras.Model`.

        Raises:
            ValueError: a setting is unusable.
        """
        if not isinstance(backbone, backbones.Backbone):
            raise ValueError(f"Expected a Backbone. Received: {backbone!r}")
        own: dict[str, Any] = {
            "unshared": unshared,
            "stage4_scale": stage4_scale,
            "initial_box_size": initial_box_size,
            "head_stddev": head_stddev,
            "neck": neck,
            "neck_channels": neck_channels,
            "map_stride": map_stride,
        }
        checked = ModelConfig(class_names=class_names, **own)  # type: ignore[arg-type]  # checked
        names = checked.class_names
        if not names:
            raise ValueError(
                "class_names: expected the name of each class, such as ModelConfig(class_names=('cat', 'dog')). "
                "Received none"
            )
        image = keras.Input((None, None, 3), name="image")
        own["seed"] = seed
        outputs = _outputs(image, backbone, len(names), own)
        super().__init__(inputs=image, outputs=outputs, name=name, **kwargs)
        self.__dict__["_process"] = os.getpid()  # not by setattr, as in `detector`
        self.backbone = backbone
        self.class_names = names
        self.decode = decode or DecodeConfig()
        self._own = own

    @classmethod
    def from_settings(
        cls, model: ModelConfig, decode: DecodeConfig | None = None, seed: int = 0
    ) -> UnitBox:
        """A network by settings. Its backbone gets the weights that the settings name.

        Args:
            model: the settings of the network.
            decode: the settings of decoding.
            seed: the seed of the random initial weights.

        Raises:
            ValueError: the weights are not available or do not fit.
        """
        return cls(
            registry.BACKBONES[model.backbone](model, seed),
            model.class_names,
            decode=decode,
            unshared=model.unshared,
            stage4_scale=model.stage4_scale,
            initial_box_size=model.initial_box_size,
            head_stddev=model.head_stddev,
            neck=model.neck,
            neck_channels=model.neck_channels,
            map_stride=model.map_stride,
            seed=seed,
        )

    @classmethod
    def from_preset(cls, name: str | os.PathLike[str], **decode: Any) -> UnitBox:
        """A trained detector: a published one by its name ("faces"), or the best weights of a run's folder.

        Args:
            name: the name of a published detector, or the path of the folder or of a `.keras` file. A text without
                a slash and without a suffix is a name, see `load`.
            decode: fields of `DecodeConfig` to change.

        Raises:
            ValueError: there is no such detector, it is damaged, or a field is unknown or unusable.
        """
        run = runs.Run.find(name)
        if run.folder.suffix == runs.KERAS_SUFFIX and run.folder.is_file():
            model = keras_files.open_model(run.folder)
            model.decode = settings.changed(model.decode, decode)
            return model
        config = run.config()
        network = dataclasses.replace(config.model, weights=None)
        model = cls.from_settings(network, settings.changed(config.decode, decode))
        model.load_run(run)
        return model

    def load_run(self, run: runs.Run | str | os.PathLike[str], *, last: bool = False) -> None:
        """Takes the weights of a run or of a published detector with the same network.

        Args:
            run: the path of the run's folder, or a published name.
            last: takes the weights of the newest checkpoint, not those of the best epoch: their moving average, if
                the run keeps one.

        Raises:
            ValueError: it has no weights, they are damaged or not finite, or belong to another network. The model keeps
                those that it has.
        """
        run = run if isinstance(run, runs.Run) else runs.Run.find(run)
        if run.weights.is_file():
            self._set_weights(run)
            return
        path = run.weights_of_training(last=last)
        if path.suffix == checkpoints.SUFFIX:
            averaged = run.config().train.ema_momentum is not None
            self._take_checkpoint(path.parent, "average" if averaged else "model")
            return
        kind = "the weights of the model that the configuration describes"
        network_weights.load(self, path, kind)

    def _take_checkpoint(self, folder: Path, group: str) -> None:
        """Takes the weights in a group of the newest whole checkpoint in `folder`, which has one."""
        variables = self.weights if group == "average" else self.variables
        expected = {group: [checkpoints.Spec.of(variable) for variable in variables]}
        found = checkpoints.read_newest(folder, expected)
        values = found.groups[group] if found else []
        names = (variable.path for variable in variables)
        weights_files.check_finite(folder, dict(zip(names, values, strict=True)))
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)

    def start_from(self, detector: UnitBox | str | os.PathLike[str]) -> transfer.Taken:
        """Takes the weights that fit from another detector, which may have other classes.

        These are the backbone, the neck, the confidence head of each class that has the same name there, and the
        distances head. A neck that is another one and heads that read other features stay as they are.

        Args:
            detector: a model, a run's folder, a `.keras` file, or the name of a published detector.

        Returns:
            The parts that were taken, and those that stayed as they are. As text, it is one line.

        Raises:
            ValueError: there is no such detector, or it has another backbone.
        """
        if isinstance(detector, UnitBox):
            return transfer.take(self, detector, detector.name)
        return transfer.take(self, UnitBox.from_preset(detector), str(detector))

    @property
    def backbone_layers(self) -> list[keras.Model]:
        """The layers that hold the weights of the backbone: one, or one for each branch."""
        return [self.get_layer(name) for name in heatmaps.BACKBONES[self._own["unshared"]]]

    @property
    def neck(self) -> str:
        """The neck between backbone and heads: `"none"` or `"top_down"`."""
        return str(self._own["neck"])

    @property
    def map_stride(self) -> int:
        """Pixels of the image from one point of the heatmaps to the next: 1 without a neck."""
        return 1 if self.neck == "none" else int(self._own["map_stride"])

    @property
    def stage4_scale(self) -> float:
        """The factor of the features that the confidence branch reads."""
        return float(self._own["stage4_scale"])

    def _set_weights(self, run: runs.Run) -> None:
        stored = run.read_weights(weights_files.largest(weight.shape for weight in self.weights))
        expected = [
            (checkpoints.plain_name(weight.path), tuple(weight.shape)) for weight in self.weights
        ]
        received = [(checkpoints.plain_name(name), each.shape) for name, each in stored.items()]
        if received != expected:
            unlike = next((a, b) for a, b in itertools.zip_longest(expected, received) if a != b)
            raise ValueError(
                f"{run.weights}: expected the weights of the model that the configuration describes: "
                f"{unlike[0]}. Received: {unlike[1]}"
            )
        weights_files.check_finite(run.weights, stored)
        self.set_weights([values.astype(np.float32) for values in stored.values()])

    def detect(self, images: inputs.Images) -> list[Detections]:
        """The objects in images, with the settings in `decode`.

        Args:
            images: one or several paths, encoded images, PIL images or RGB arrays uint8 `[H, W, 3]`; an
                array `[N, H, W, 3]`; a folder; or a pattern such as `"holiday/*.jpg"`.

        Returns:
            `Detections` of each image, in order. A `Detector` also gives names, and takes videos.

        Raises:
            OSError: a file cannot be read.
            ValueError: it is no image, or an array has another shape or type.
            RuntimeError: the model was made before this process was forked.
        """
        return [found.detections for found in self.detector().many(images)]

    def detector(self) -> Detector:
        """A `Detector` around this model, with the present settings in `decode`."""
        from unitbox_tf.detect import detector

        detector.check_process(self.__dict__["_process"])
        known = self.__dict__.get("_detector")
        if known is None or known.decode != self.decode:
            # Not by setattr: Keras would keep it in files of the model.
            known = self.__dict__["_detector"] = detector.Detector.of(self)
        return known

    def get_config(self) -> dict[str, Any]:
        """The configuration for Keras' files, without weights."""
        return {
            "name": self.name,
            "frozen": [layer.name for layer in self.layers if not layer.trainable],
            "backbone": keras.saving.serialize_keras_object(self.backbone),
            "class_names": list(self.class_names),
            "decode": dataclasses.asdict(self.decode),
            **self._own,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> UnitBox:
        """The model of a configuration by `get_config`, with random weights.

        It makes all classes that the configuration names. `from_preset` checks them first.
        """
        backbone = keras.saving.deserialize_keras_object(config["backbone"], custom_objects)
        decode = settings.from_dict(DecodeConfig, config["decode"], "decode")
        arguments = {**config, "backbone": backbone, "decode": decode}
        frozen = arguments.pop("frozen")
        model = cls(**arguments)
        for name in frozen:
            model.get_layer(name).trainable = False
        return model


def _outputs(
    image: keras.KerasTensor, backbone: backbones.Backbone, num_classes: int, own: dict[str, Any]
) -> dict[str, keras.KerasTensor]:
    """The heatmaps of the network that the arguments `own` of `UnitBox` describe."""
    common = {name: own[name] for name in ("initial_box_size", "head_stddev", "seed")}
    if own["neck"] == "none":
        more = {name: own[name] for name in ("unshared", "stage4_scale")}
        return heatmaps.heatmaps(image, backbone, num_classes, **common, **more)
    more = {"channels": own["neck_channels"], "map_stride": own["map_stride"]}
    return top_down.heatmaps(image, backbone, num_classes, **common, **more)


def publish(
    run: str | os.PathLike[str],
    folder: str | Path,
    *,
    last: bool = False,
    average: Sequence[str | os.PathLike[str]] = (),
    **decode: Any,
) -> runs.Run:
    """Publishes a run as a detector: its weights in half precision, their checksum and its configuration.

    People write the model card, `README.md` in the folder, themselves: data and their licence, metrics, and
    failures of the detector.

    Args:
        run: the folder of the run.
        folder: the folder to write. Its name becomes the name of the detector.
        last: takes the weights of the newest checkpoint, not those of the best epoch.
        average: other runs, of which one started from the other. The mean of the weights of all is published
            (Wortsman et al., Model soups, ICML 2022). It keeps much of what each run is good at.
        decode: fields of `DecodeConfig` to change.

    Raises:
        ValueError: a run has no weights or another network, or a field is unknown or unusable.
    """
    source, published = runs.Run.find(run), runs.Run(Path(folder))
    config = source.config()
    config = dataclasses.replace(config, decode=settings.changed(config.decode, decode))
    network = dataclasses.replace(config.model, weights=None)
    found = []
    for each in (source, *(runs.Run.find(other) for other in average)):
        other = dataclasses.replace(each.config().model, weights=None)
        if other != network:
            raise ValueError(
                f"{each.folder}: expected the network of {source.folder}, {network}. Received: {other}"
            )
        model = UnitBox.from_settings(network, config.decode)
        model.load_run(each, last=last)
        found.append(model.get_weights())
    means = [np.mean(values, axis=0) for values in zip(*found, strict=True)]
    paths = [weight.path for weight in model.weights]
    published.publish(config, list(zip(paths, means, strict=True)))
    return published
