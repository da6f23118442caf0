"""The work after each epoch: judging and showing validation images, and storing the run."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from unitbox_tf import files, inputs, runs, visualize
from unitbox_tf.config import Config, DecodeConfig
from unitbox_tf.detect import detector as detectors
from unitbox_tf.detect import graph
from unitbox_tf.evaluation import by_class, coco, matching, protocols
from unitbox_tf.evaluation.results import Results
from unitbox_tf.problems import Problems
from unitbox_tf.records import Annotation, Detections
from unitbox_tf.train import class_board
from unitbox_tf.train.examples import Validation
from unitbox_tf.train.freezing import FreezeBackbone
from unitbox_tf.train.optimizers import inner_optimizer

PICTURES = 4  # validation images shown in TensorBoard


class Diverged(ValueError):
    """The loss is not a number any more."""


class WeighByImages(keras.callbacks.Callback):
    """Corrects the parts of the validation loss in the logs, so that they add up to it with a smaller last batch.

    Keras averages the loss over images, but its parts over batches, where an image of a smaller last batch
    counts more. This callback must come before the callbacks that read the logs.
    """

    PARTS = ("confidence_loss", "distances_loss")

    def __init__(self, num_images: int, batch_size: int) -> None:
        """Validation shows `num_images` in batches of `batch_size`. The last batch may be smaller."""
        super().__init__()
        self._full, self._rest = divmod(num_images, batch_size)
        self._batch_size = batch_size
        self._means: dict[str, float] = {}  # over the full batches

    def on_test_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if batch == self._full - 1:
            self._means = {name: float((logs or {})[name]) for name in self.PARTS}

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if logs is None or not (self._full and self._rest):
            return
        images = self._full * self._batch_size
        for name in self.PARTS:
            full = self._means[name]
            last = logs[f"val_{name}"] * (self._full + 1) - full * self._full
            logs[f"val_{name}"] = (full * images + last * self._rest) / (images + self._rest)


class ValidateDetections(keras.callbacks.Callback):
    """Adds the metrics of detection in validation images to the logs, and shows a few images in TensorBoard.

    Logs: `val_recall`, `val_precision` and `val_box_iou` (at IoU 0.5 and the config's score
    threshold), `val_ap50`, `val_ap75`, and the metrics of the config's validation protocol, as
    `val_fddb_discrete`. This callback must come before the callbacks that read the logs.
    """

    def __init__(
        self,
        validation: Validation,
        config: Config,
        log_dir: Path,
        *,
        problems: Problems | None = None,
    ) -> None:
        """`validation.watched` is judged. `log_dir` is the folder of TensorBoard's logs."""
        super().__init__()
        self.annotations = validation.watched
        self._validation = validation
        self._config = config
        self._log_dir = log_dir
        self._problems = Problems.of(problems)
        self._judge = self._make_judge()

    def _make_judge(self) -> protocols.Judge:
        protocol = self._config.train.validation_protocol
        return self._validation.judge(self.annotations, protocol, problems=self._problems)

    def set_model(self, model: keras.Model) -> None:
        super().set_model(model)
        # Made once, because each module traces its graphs again. They read the model's current variables.
        decode = dataclasses.replace(
            self._config.decode, score_threshold=lowest_score(self._config.decode)
        )
        self._detector = detectors.Detector.of(model, decode)
        self._module = graph.InferenceModule(model, self._config.decode)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        detections, annotations = detectors.detect_annotated(
            self._detector, self.annotations, problems=self._problems
        )
        if len(annotations) < len(
            self.annotations
        ):  # an image has become unreadable, in every epoch
            self.annotations = annotations
            self._judge = self._make_judge()
        threshold = self._config.decode.score_threshold
        at50 = matching.match(detections, annotations, iou_threshold=0.5)
        at75 = matching.match(detections, annotations, iou_threshold=0.75)
        reached = {
            "val_recall": at50.recall(threshold),
            "val_precision": at50.precision(threshold),
            "val_box_iou": at50.mean_iou(threshold),
            "val_ap50": at50.average_precision(),
            "val_ap75": at75.average_precision(),
        }
        protocol = self._config.train.validation_protocol
        if protocol != "summary":
            metrics = self._judge(Results.of(detections)).metrics
            reached |= {f"val_{protocol}_{name}": value for name, value in metrics.items()}
        if logs is not None:
            # Precision and IoU are undefined while nothing is found. In a curve they are 0.
            logs.update({k: 0.0 if math.isnan(v) else v for k, v in reached.items()})
        by_coco = functools.partial(coco.judge_as_matching, detections, annotations)
        names = self._config.model.class_names
        found = by_class.judge(detections, annotations, at50, names, by_coco)
        # In a folder of its own: TensorBoard reads one growing file in a folder, and Keras has one in "validation".
        writer = tf.summary.create_file_writer(str(self._log_dir / "pictures"))
        with writer.as_default(step=epoch):
            class_board.show(found)
            for index in range(min(PICTURES, len(annotations))):
                panel = self._panel(annotations[index], detections[index].above(threshold))
                tf.summary.image(f"validation/{index}", panel[None])
        writer.close()

    def _panel(self, annotation: Annotation, found: Detections) -> np.ndarray:
        most = self._config.decode.max_pixels
        image = inputs.read_image(annotation.encoded(most), max_pixels=most)
        maps = self._module.heatmaps(image[None])
        names = self._config.model.class_names
        drawn = visualize.draw_truth(image, annotation.boxes, annotation.ignore, found, names)
        return visualize.heatmap_panel(
            drawn, maps["confidence"][0].numpy(), maps["distances"][0].numpy()
        )


class StoreRun(keras.callbacks.Callback):
    """Stores the run after each epoch: `history.json`, `best.weights.h5` and `last.keras` (weights and optimizer).

    Each file is written under another name and then renamed, so that a run that is stopped at any
    moment leaves whole files. The best epoch is the one with the highest `score`.
    """

    def __init__(
        self,
        run: Path,
        history: list[dict[str, Any]],
        protocol: str,
        freeze: FreezeBackbone | None = None,
    ) -> None:
        """`history` has the logs of earlier epochs; new logs are added. `protocol` chooses the best epoch.

        What `freeze` freezes is stored as not frozen.
        """
        super().__init__()
        self.freeze = freeze or FreezeBackbone(0)
        self.run = run
        self._files = runs.Run(run)
        self._protocol = protocol
        self.history = history

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        iterations = int(inner_optimizer(self.model.optimizer).iterations)
        row: dict[str, Any] = {"epoch": epoch, "iterations": iterations}
        row |= {name: float(value) for name, value in (logs or {}).items()}
        best = max((score(old, self._protocol) for old in self.history), default=-1.0)
        self.history.append(row)
        files.write(self._files.history_file, json.dumps(self.history, indent=1))
        # The last of equally good epochs counts. While nothing is found yet, it has learned the most.
        if score(row, self._protocol) >= best:
            # A compiled model stores its optimizer with its weights, which doubles the file.
            plain = keras.Model(self.model.inputs, self.model.outputs, name=self.model.name)
            with files.replacing(self._files.best) as partial:
                plain.save_weights(partial)
        self.store_last()

    def store_last(self) -> None:
        """Stores weights and optimizer as they are now."""
        with files.replacing(self._files.last) as partial, self.freeze.lifted():
            self.model.save(partial)


class StopEarly(keras.callbacks.Callback):
    """Stops training when `patience` epochs in a row were not better. It must come after the callback that stores."""

    def __init__(
        self,
        patience: int | None,
        history: Sequence[dict[str, Any]],
        protocol: str,
        frozen: int = 0,
    ) -> None:
        """With a `patience` of None, training goes on. `history` has the logs of all epochs, and grows.

        `protocol` and `frozen` are those of `epochs_waited`.
        """
        super().__init__()
        self._patience = patience
        self._history = history
        self._protocol = protocol
        self._frozen = frozen

    @property
    def reached(self) -> bool:
        """True if training is to stop."""
        waited = epochs_waited(self._history, self._protocol, self._frozen)
        return self._patience is not None and waited >= self._patience

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if self.reached:
            self.model.stop_training = True


def epochs_waited(history: Sequence[dict[str, Any]], protocol: str, frozen: int = 0) -> int:
    """The number of epochs since the last one that was better than all before, by the metrics of `protocol`.

    Epochs in which nothing was found yet do not count, nor do the first `frozen` epochs.
    """
    scores = [score(row, protocol) for row in history]
    if not scores or max(scores) <= 0:
        return 0
    best = scores.index(max(scores))
    return len(scores) - 1 - max(best, min(frozen, len(scores)) - 1)


class StopOnNaN(keras.callbacks.Callback):
    """Ends training with `Diverged` as soon as the loss is not a number, before the weights are stored."""

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        loss = (logs or {}).get("loss", 0.0)
        if not math.isfinite(loss):
            raise Diverged(
                f"the loss became {loss} at step {batch + 1} of the epoch: training diverged. Lower "
                "learning_rate (--learning-rate), or limit the gradient with clip_norm (--clip-norm). "
                "Earlier epochs are stored."
            )


def score(row: dict[str, Any], protocol: str) -> float:
    """The quality of the epoch with these logs: the mean of the metrics that choose the best epoch."""
    return float(np.mean([row.get(name, 0.0) for name in chosen_by(protocol)]))


def chosen_by(protocol: str) -> list[str]:
    """The names, in logs, of the metrics in `protocols.CHOOSING`."""
    prefix = "val_" if protocol == "summary" else f"val_{protocol}_"
    return [prefix + name for name in protocols.CHOOSING[protocol]]


def lowest_score(decode: DecodeConfig) -> float:
    """The lowest score of judged detections. Curves need low scores."""
    return min(decode.score_threshold, matching.EVALUATED_SCORE)
