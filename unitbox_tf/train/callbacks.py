"""The work after each epoch: judging and showing validation images, and storing the run."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
import json
import logging
import math
import time
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from unitbox_tf import files, inputs, runs, visualize
from unitbox_tf.config import Config, DecodeConfig
from unitbox_tf.detect import decoders, graph
from unitbox_tf.detect import detector as detectors
from unitbox_tf.evaluation import by_class, coco, matching, protocols
from unitbox_tf.evaluation.results import Results
from unitbox_tf.problems import Problems
from unitbox_tf.records import Annotation, Detections
from unitbox_tf.train import class_board
from unitbox_tf.train.average import Average
from unitbox_tf.train.examples import Validation
from unitbox_tf.train.state import Diverged, State
from unitbox_tf.train.steps import first_names

logger = logging.getLogger(__name__)

PICTURES = 4  # validation images shown in TensorBoard


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
        average: JudgeAverage,
        *,
        problems: Problems | None = None,
    ) -> None:
        """`validation.watched` is judged, by `average`. `log_dir` is the folder of TensorBoard's logs."""
        super().__init__()
        self.annotations = validation.watched
        self._validation = validation
        self._config = config
        self._log_dir = log_dir
        self._average = average
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
        with self._average.shown():
            self._judge_weights(epoch, logs)

    def _judge_weights(self, epoch: int, logs: dict[str, Any] | None) -> None:
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
        longest = self._config.decode.max_side
        height, width = decoders.shown_size(image.shape[0], image.shape[1], longest, 1.0)
        return visualize.heatmap_panel(
            drawn,
            maps["confidence"][0].numpy(),
            maps["distances"][0].numpy(),
            self._module.stride,
            (int(height), int(width)),
        )


class StoreRun(keras.callbacks.Callback):
    """Stores the run: checkpoints, and after each epoch also `best.weights.h5` and `history.json`.

    A checkpoint is stored after each epoch, and within an epoch when the last one is old. Each file is written
    under another name and then renamed, so that a run that is stopped at any moment leaves whole files. The
    best epoch is the one with the highest `score`. This callback must come after those that fill the logs.
    """

    def __init__(
        self,
        run: Path,
        state: State,
        protocol: str,
        minutes: float,
        average: JudgeAverage,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`state` is stored, and gets the logs of epochs. `protocol` chooses the best epoch.

        A checkpoint is old after so many minutes. The best weights are those of `average`. `clock` gives the time in
        seconds.
        """
        super().__init__()
        self.state = state
        self._files = runs.Run(run)
        self._protocol = protocol
        self._seconds = 60 * minutes
        self._average = average
        self._clock = clock
        self._stored = clock()

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._stored = self._clock()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if self._clock() - self._stored >= self._seconds:
            self._store()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        history = self.state.history
        if not self.state.is_stored:  # the best weights alone could not be gone on from
            self._store()
        row: dict[str, Any] = {"epoch": epoch, "iterations": self.state.steps}
        row |= {name: float(value) for name, value in (logs or {}).items()}
        # The last of equally good epochs counts. While nothing is found yet, it has learned the most.
        if score(row, self._protocol) >= self._best():
            with self._average.shown():
                self._store_best()
        # From here on, the epoch is finished: an interruption stores what comes after it.
        history.append(row)
        self._store()
        self.store_history()

    def _best(self) -> float:
        """The score of the best epoch whose weights are stored."""
        history = self.state.history if self._files.best.is_file() else []
        return max((score(row, self._protocol) for row in history), default=-1.0)

    def _store(self) -> None:
        self.state.store()
        self._stored = self._clock()

    def store_history(self) -> None:
        """Writes the logs of the finished epochs."""
        files.write(self._files.history_file, json.dumps(self.state.history, indent=1))

    def _store_best(self) -> None:
        # A compiled model stores its optimizer with its weights, which doubles the file.
        plain = keras.Model(self.model.inputs, self.model.outputs, name=self.model.name)
        # HDF5 ends the program where a disk is full, so it writes into memory.
        memory = _Memory()
        plain.save(memory)
        with zipfile.ZipFile(memory) as archive:
            files.write(self._files.best, archive.read("model.weights.h5"), durable=True)


class _Memory(io.BytesIO):
    """A file in memory whose name has the suffix that Keras asks for."""

    def __str__(self) -> str:
        return f"memory{runs.KERAS_SUFFIX}"


class JudgeAverage(keras.callbacks.Callback):
    """Puts the moving average of the weights in their place while they are validated, judged and stored as the best.

    This callback must come before those that read the weights. Without an average, the weights stay.
    """

    def __init__(self, average: Average | None) -> None:
        """`average` is that of the model; None if there is none."""
        super().__init__()
        self._average = average

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        if self._average is not None:
            self._average.show()

    def on_test_end(self, logs: dict[str, Any] | None = None) -> None:
        if self._average is not None:
            self._average.hide()

    def shown(self) -> contextlib.AbstractContextManager[None]:
        """The average is in the model within this context."""
        return contextlib.nullcontext() if self._average is None else self._average.shown()


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


class WatchSteps(keras.callbacks.Callback):
    """Reports steps whose loss or gradient is not finite, and ends training with `Diverged` at one too many.

    Such a step changes nothing (`CheckedStep`). The folder `bad_batches/step-N` of the run gets `report.json`, with
    the names of the images and what was not finite, and `state.npz`, the checkpoint before the step. This
    callback must come before the one that stores the run.
    """

    def __init__(
        self, run: Path, state: State, allowed: int, names: Callable[[range], list[list[str]]]
    ) -> None:
        """The step after `allowed` bad ones in all ends training. `names` gives the names of the images at places."""
        super().__init__()
        self._folder = runs.Run(run).bad_batches
        self._state = state
        self._allowed = allowed
        self._names = names
        self._images = 0  # before the step
        self._known = 0

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._known = int(self._state.step.bad)

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self._images = self._state.images

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        bad = int(self._state.step.bad)
        if bad == self._known:
            return
        self._known = bad
        wrong = self._state.step.not_finite()
        where = self._report(wrong)
        parts = first_names(
            [*wrong["loss"], *(f"gradient of {name}" for name in wrong["gradients"])]
        )
        what = f"not finite at step {batch + 1} of epoch {self._state.epoch + 1}: {parts}"
        if bad > self._allowed:
            raise Diverged(
                f"training diverged: {what}. Lower learning_rate (--learning-rate), or limit the gradient with "
                "clip_norm (--clip-norm). If single images are to blame, skip them (--skip-bad-batches). "
                f"{where} names the images of this step. Earlier checkpoints are kept"
            )
        logger.warning("Skipped a batch (%d of %d): %s. See %s", bad, self._allowed, what, where)

    def _report(self, wrong: dict[str, list[str]]) -> Path:
        state = self._state
        folder = self._folder / f"step-{state.steps}"
        report = {
            "epoch": state.epoch + 1,
            "step_of_epoch": state.steps_of_epoch,
            "steps": state.steps,
            "not_finite": wrong,
            "images": self._names(range(self._images, state.images)),
        }
        files.write(folder / "report.json", json.dumps(report, indent=1) + "\n")
        state.write(folder / "state.npz")
        return folder


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
