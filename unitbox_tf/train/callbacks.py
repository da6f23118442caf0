"""What happens after each epoch: validation photos are judged and shown, and everything learned is stored."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from unitbox_tf import datasets, inputs, runs, visualize
from unitbox_tf.config import Config, DecodeConfig
from unitbox_tf.detect import detector as detectors
from unitbox_tf.detect import graph
from unitbox_tf.evaluation import matching, protocols
from unitbox_tf.evaluation.results import Results
from unitbox_tf.problems import Problems
from unitbox_tf.records import Annotation, Detections

PICTURES = 4  # validation photos shown in TensorBoard


class ValidateDetections(keras.callbacks.Callback):
    """Adds what detection in validation photos reaches to the logs, and shows a few photos in TensorBoard.

    Logs: `val_recall`, `val_precision` and `val_box_iou` (at IoU 0.5 and the config's score
    threshold), `val_ap50`, `val_ap75`, and the figures of the config's validation protocol, as
    `val_fddb_discrete`. Must stand before the callbacks that read the logs.
    """

    def __init__(
        self, annotations: Sequence[Annotation], config: Config, log_dir: Path, problems: Problems
    ) -> None:
        """Of `annotations` at most `config.train.validation_images` are used, evenly spread."""
        super().__init__()
        count = min(len(annotations), config.train.validation_images)
        chosen = np.linspace(0, len(annotations) - 1, count).round().astype(int)
        self.annotations = [annotations[i] for i in chosen]
        self._config = config
        self._log_dir = log_dir
        self._problems = problems
        self._judge = validation_judge(self.annotations, config, problems)

    def set_model(self, model: keras.Model) -> None:
        super().set_model(model)
        # Made once: each would trace its graphs anew. They read the model's variables as they are.
        decode = dataclasses.replace(
            self._config.decode, score_threshold=lowest_score(self._config.decode)
        )
        self._detector = detectors.from_model(
            model, dataclasses.replace(self._config, decode=decode)
        )
        self._module = graph.InferenceModule(model, self._config.decode)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        detections, annotations = detectors.detect_annotated(
            self._detector, self.annotations, self._problems
        )
        if len(annotations) < len(self.annotations):  # what is broken now is so in every epoch
            self.annotations = annotations
            self._judge = validation_judge(annotations, self._config, self._problems)
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
            figures = self._judge(Results.of(detections)).figures
            reached |= {f"val_{protocol}_{name}": value for name, value in figures.items()}
        if logs is not None:
            # Before anything is found, precision and IoU are undefined; in a curve they are 0.
            logs.update({k: 0.0 if math.isnan(v) else v for k, v in reached.items()})
        writer = tf.summary.create_file_writer(str(self._log_dir / "validation"))
        with writer.as_default(step=epoch):
            for index in range(min(PICTURES, len(annotations))):
                panel = self._panel(annotations[index], detections[index].above(threshold))
                tf.summary.image(f"validation/{index}", panel[None])
        writer.close()

    def _panel(self, annotation: Annotation, found: Detections) -> np.ndarray:
        image = inputs.read_image(annotation.encoded())
        maps = self._module.heatmaps(image[None])
        names = self._config.model.class_names
        drawn = visualize.draw_truth(image, annotation.boxes, annotation.ignore, found, names)
        return visualize.heatmap_panel(
            drawn, maps["confidence"][0].numpy(), maps["distances"][0].numpy()
        )


class StoreRun(keras.callbacks.Callback):
    """Stores the run after each epoch: `history.json`, `best.weights.h5` and `last.keras` (weights and optimiser).

    Each file is written under another name and then renamed, so that a run that is stopped at any
    moment leaves whole files. The best epoch is the one with the highest `score`.
    """

    def __init__(self, run: Path, history: list[dict[str, Any]], protocol: str) -> None:
        """`history` holds the logs of earlier epochs, and is added to; `protocol` says which figures choose."""
        super().__init__()
        self._run = run
        self._protocol = protocol
        self.history = history

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        iterations = int(inner_optimizer(self.model.optimizer).iterations)
        row: dict[str, Any] = {"epoch": epoch, "iterations": iterations}
        row |= {name: float(value) for name, value in (logs or {}).items()}
        best = max((score(old, self._protocol) for old in self.history), default=-1.0)
        self.history.append(row)
        text = json.dumps(self.history, indent=1)
        _write(self._run / "history.json", lambda path: path.write_text(text, encoding="utf-8"))
        # Of equally good epochs the last: while nothing is found yet, it has learned the most.
        if score(row, self._protocol) >= best:
            # A compiled model stores its optimiser with its weights, which doubles the file.
            plain = keras.Model(self.model.inputs, self.model.outputs, name=self.model.name)
            _write(self._run / runs.BEST_FILE, plain.save_weights)
        self.store_last()

    def store_last(self) -> None:
        """Stores weights and optimiser as they are now."""
        _write(self._run / runs.LAST_FILE, self.model.save)


class StopOnNaN(keras.callbacks.Callback):
    """Ends training with an error as soon as the loss is no number, before anything of it is stored."""

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        loss = (logs or {}).get("loss", 0.0)
        if not math.isfinite(loss):
            raise ValueError(
                f"the loss became {loss} at step {batch + 1} of the epoch: training diverged. Lower "
                "--learning-rate, or limit the gradient with --clip-norm. The last whole epoch is stored."
            )


def validation_judge(
    annotations: Sequence[Annotation], config: Config, problems: Problems
) -> protocols.Judge:
    """The protocol that `config` names, for these validation photos; its errors are those of `protocols.make`."""
    data = config.data
    sources = datasets.open_all(data.validation_sources, data.data)
    protocol = config.train.validation_protocol
    return protocols.make(protocol, annotations, sources, problems=problems)


def inner_optimizer(optimizer: keras.optimizers.Optimizer) -> keras.optimizers.Optimizer:
    """The optimiser that counts the steps: with mixed float16, Keras wraps it to scale the loss."""
    return getattr(optimizer, "inner_optimizer", optimizer)


def score(row: dict[str, Any], protocol: str) -> float:
    """How good the epoch with these logs is: the mean of what it is chosen by."""
    return float(np.mean([row.get(name, 0.0) for name in chosen_by(protocol)]))


def chosen_by(protocol: str) -> list[str]:
    """The names, in logs, of the figures in `protocols.CHOOSING`."""
    prefix = "val_" if protocol == "summary" else f"val_{protocol}_"
    return [prefix + name for name in protocols.CHOOSING[protocol]]


def lowest_score(decode: DecodeConfig) -> float:
    """From which score on detections are judged: a curve needs its length."""
    return min(decode.score_threshold, matching.EVALUATED_SCORE)


def _write(path: Path, write: Callable[[Path], Any]) -> None:
    partial = path.with_name(f"partial-{path.name}")
    write(partial)
    os.replace(partial, path)
