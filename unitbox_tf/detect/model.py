"""The detector as a Keras model, which knows its classes and how its heatmaps become boxes."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras

from unitbox_tf import inputs, registry, runs, settings
from unitbox_tf.config import DecodeConfig, ModelConfig
from unitbox_tf.network import backbones, heatmaps
from unitbox_tf.records import Detections

if TYPE_CHECKING:
    from unitbox_tf.detect.detector import Detector


@keras.saving.register_keras_serializable("unitbox_tf")
class UnitBox(keras.Model):
    """The network of the paper (section 3), as a functional Keras model.

    It maps RGB images `[B, H, W, 3]`, uint8 or float from 0 to 255, of any height and width, to a dict:
    `"confidence"` `[B, H, W, C]`, a logit a class, and `"distances"` `[B, H, W, 4]`, `tblr` in pixels, not
    negative. `detect` gives boxes instead. `save` and `keras.saving.load_model` keep all of it.

    Attributes:
        backbone: the network that the heads stand on.
        class_names: of the confidence maps, in their order.
        decode: how heatmaps become detections; it may be replaced.
    """

    def __init__(
        self,
        backbone: backbones.Backbone,
        class_names: Sequence[str] = ("object",),
        *,
        decode: DecodeConfig | None = None,
        unshared: bool = False,
        stage4_scale: float = 1.0,
        initial_box_size: float = 0.0,
        head_stddev: float = 0.01,
        seed: int = 0,
        name: str = "unitbox",
        **kwargs: Any,
    ) -> None:
        """A network with random heads.

        Args:
            backbone: see `network.backbones`; with `unshared`, the distances branch gets a copy.
            class_names: one of each class.
            decode: the settings of decoding; the defaults if None.
            unshared: see `ModelConfig`, like the next three.
            stage4_scale: factor of the features that the confidence branch reads.
            initial_box_size: side of the boxes that are predicted before training, in pixels.
            head_stddev: standard deviation of the random weights of the heads.
            seed: of these weights.
            name: of the model.
            kwargs: those of `keras.Model`.

        Raises:
            ValueError: a setting is unusable.
        """
        names = ModelConfig(class_names=tuple(class_names)).class_names
        image = keras.Input((None, None, 3), name="image")
        own: dict[str, Any] = {
            "unshared": unshared,
            "stage4_scale": stage4_scale,
            "initial_box_size": initial_box_size,
            "head_stddev": head_stddev,
            "seed": seed,
        }
        outputs = heatmaps.heatmaps(image, backbone, len(names), **own)
        super().__init__(inputs=image, outputs=outputs, name=name, **kwargs)
        self.backbone = backbone
        self.class_names = names
        self.decode = decode or DecodeConfig()
        self._own = own

    @classmethod
    def from_settings(
        cls, model: ModelConfig, decode: DecodeConfig | None = None, seed: int = 0
    ) -> UnitBox:
        """A network as the settings describe it, with the weights that they name in its backbone.

        Args:
            model: of the network.
            decode: of decoding.
            seed: of the random initial weights.

        Raises:
            ValueError: the weights cannot be had or do not fit.
        """
        return cls(
            registry.BACKBONES[model.backbone](model, seed),
            model.class_names,
            decode=decode,
            unshared=model.unshared,
            stage4_scale=model.stage4_scale,
            initial_box_size=model.initial_box_size,
            head_stddev=model.head_stddev,
            seed=seed,
        )

    @classmethod
    def from_preset(cls, name: str | Path, **decode: Any) -> UnitBox:
        """A trained detector: one that is published, by name ("faces"), or a run's folder with its best weights.

        Args:
            name: of the published detector, or the folder.
            decode: fields of `DecodeConfig` to change.

        Raises:
            ValueError: there is none, or it is damaged, or a field is unknown or unusable.
        """
        run = runs.Run.find(name)
        config = run.config()
        network = dataclasses.replace(config.model, weights=None)
        model = cls.from_settings(network, settings.changed(config.decode, decode))
        model.load_run(run)
        return model

    def load_run(self, run: runs.Run | str | Path, *, last: bool = False) -> None:
        """Takes the weights of a run or of a published detector, whose network must be alike.

        Args:
            run: its folder, or a published name.
            last: the weights after the last epoch; else those of the best, where they are stored.

        Raises:
            ValueError: it has no weights, or they are those of another network.
        """
        run = run if isinstance(run, runs.Run) else runs.Run.find(run)
        if run.weights.is_file():
            self._set_weights(run)
            return
        path = run.weights_of_training(last=last)
        try:
            self.load_weights(path)
        except (ValueError, OSError) as error:
            raise ValueError(
                f"{path}: expected the weights of the model that the configuration describes: {error}"
            ) from error

    def _set_weights(self, run: runs.Run) -> None:
        stored = run.read_weights()
        expected = [(weight.path, tuple(weight.shape)) for weight in self.weights]
        received = [(name, values.shape) for name, values in stored]
        if received != expected:
            unlike = next((a, b) for a, b in itertools.zip_longest(expected, received) if a != b)
            raise ValueError(
                f"{run.weights}: expected the weights of the model that the configuration describes: "
                f"{unlike[0]}. Received: {unlike[1]}"
            )
        self.set_weights([values for _, values in stored])

    def detect(self, images: inputs.Images) -> list[Detections]:
        """The objects in images, with the settings in `decode`.

        Args:
            images: paths, encoded images, PIL images or RGB arrays uint8 `[H, W, 3]`, one or a list of them;
                an array `[N, H, W, 3]`, a folder or a pattern such as `"holiday/*.jpg"`.

        Returns:
            `Detections` of each image, in order; `Detector` has their names, too, and takes videos.

        Raises:
            OSError: a file cannot be read.
            ValueError: it is no image, or an array has another shape or type.
        """
        return [found.detections for found in self.detector().many(images)]

    def detector(self) -> Detector:
        """A `Detector` around this model, with the settings that `decode` has now."""
        from unitbox_tf.detect import detector

        known = self.__dict__.get("_detector")
        if known is None or known.decode != self.decode:
            # Not by setattr: Keras would keep it in files of the model.
            known = self.__dict__["_detector"] = detector.Detector.of(self)
        return known

    def get_config(self) -> dict[str, Any]:
        """For Keras' files; weights are not in it."""
        return {
            "name": self.name,
            "backbone": keras.saving.serialize_keras_object(self.backbone),
            "class_names": list(self.class_names),
            "decode": dataclasses.asdict(self.decode),
            **self._own,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> UnitBox:
        """The model of a `get_config`, with random weights."""
        backbone = keras.saving.deserialize_keras_object(config["backbone"], custom_objects)
        decode = settings.from_dict(DecodeConfig, config["decode"], "decode")
        return cls(**{**config, "backbone": backbone, "decode": decode})


def publish(run: str | Path, folder: str | Path, *, last: bool = False, **decode: Any) -> runs.Run:
    """Makes a published detector of a run: its weights in half precision, their checksum and its configuration.

    The model card, `README.md` in the folder, is for people to write: data and their licence, metrics, and
    where the detector fails.

    Args:
        run: its folder.
        folder: to write; its name is that of the published detector.
        last: the weights after the last epoch, not those of the best.
        decode: fields of `DecodeConfig` to change.

    Raises:
        ValueError: the run has no weights, or a field is unknown or unusable.
    """
    source, published = runs.Run.find(run), runs.Run(Path(folder))
    config = source.config()
    config = dataclasses.replace(config, decode=settings.changed(config.decode, decode))
    model = UnitBox.from_settings(dataclasses.replace(config.model, weights=None), config.decode)
    model.load_run(source, last=last)
    published.publish(config, [(weight.path, weight.numpy()) for weight in model.weights])
    return published
