"""For those who watch training: speed and time left in the progress line, and TensorBoard's settings and batches."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from unitbox_tf import boxes as box_ops
from unitbox_tf import visualize
from unitbox_tf.config import Config

PICTURES = 4  # training images shown in TensorBoard
_UNUSED = 0.35  # brightness of pixels that count in no loss


@contextlib.contextmanager
def no_retracing_warnings() -> Iterator[None]:
    """While in the context, TensorFlow does not warn that a function is traced often.

    It counts all models of a process as one, because their functions have the same lines. So it warns of several
    short runs in a process, each of which traces its own model once.
    """
    logger = logging.getLogger("tensorflow")
    logger.addFilter(_is_no_retracing)
    try:
        yield
    finally:
        logger.removeFilter(_is_no_retracing)


def _is_no_retracing(record: logging.LogRecord) -> bool:
    return "triggered tf.function retracing" not in str(record.msg)


class ProgressLine(keras.callbacks.ProgbarLogger):
    """Keras' progress line with `images_per_second` while training, and `minutes_left` until the last epoch is judged.

    They are shown alone, and are in no log: logs of equal runs stay equal. The time left counts on steps and
    judgements like those of the present and of the last epoch. It must come after the callbacks that do the work.
    """

    def __init__(
        self, batch_size: int, epochs: int, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        """`clock` gives the time in seconds. Training ends after `epochs` epochs in all."""
        super().__init__()
        self._batch_size = batch_size
        self._epochs = epochs
        self._clock = clock
        self._step: float | None = None  # seconds of a step
        self._judging = 0.0  # seconds from the last step of an epoch to the end of the epoch
        self._start_epoch(0)

    def _start_epoch(self, epoch: int) -> None:
        self._epoch, self._steps = epoch, 0
        self._began = self._last = self._clock()

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._start_epoch(epoch)
        super().on_epoch_begin(epoch, logs)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self._steps += 1
        self._last = self._clock()
        if self._steps == 1 and (self.target or 0) > 1:  # it traces the graph
            self._began = self._last
        super().on_train_batch_end(batch, {**(logs or {}), **self._reached()})

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._judging = self._clock() - self._last
        super().on_epoch_end(epoch, {**(logs or {}), **self._reached(judged=1)})

    def _reached(self, judged: int = 0) -> dict[str, float]:
        """The speed, and the time left when the present epoch was judged (1) or not yet (0). Nothing while tracing."""
        measured = self._steps - 1 if (self.target or 0) > 1 else self._steps
        if measured > 0 and self._last > self._began:
            self._step = (self._last - self._began) / measured
        if self._step is None or self.target is None:
            return {}
        epochs = self._epochs - self._epoch - 1
        steps = epochs * self.target + self.target - self._steps
        left = steps * self._step + (epochs + 1 - judged) * self._judging
        return {
            "images_per_second": round(self._batch_size / self._step, 2),
            "minutes_left": round(left / 60, 2),
        }


class ShowEpochs(keras.callbacks.TensorBoard):
    """Shows the logs of epochs in TensorBoard.

    Keras' callback also hands the logs of each step to TensorFlow, which drops them, as no step is shown. But each
    takes some memory for good: 5 kB a step, measured with TensorFlow 2.21. So steps are left out here.
    """

    def __init__(self, log_dir: Path) -> None:
        """`log_dir` is the folder of the run's logs."""
        super().__init__(log_dir, write_graph=False, write_steps_per_second=True)

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        pass

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        pass


class ShowTraining(keras.callbacks.Callback):
    """Shows in TensorBoard, when training starts, the settings and images of a batch as the network gets them."""

    def __init__(
        self, config: Config, batches: tf.data.Dataset, stride: int, log_dir: Path, epoch: int
    ) -> None:
        """`batches` are those of training, which begins with `epoch`; their maps have this stride.

        `log_dir` is a folder for these logs alone.
        """
        super().__init__()
        self._stride = stride
        self._config = config
        self._batches = batches
        self._log_dir = log_dir
        self._epoch = epoch

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        writer = tf.summary.create_file_writer(str(self._log_dir))
        with writer.as_default(step=self._epoch):
            tf.summary.text("settings", settings_table(self._config))
            for batch in self._batches.take(1):
                shown = draw_batch(batch, self._config.model.class_names, self._stride)
                for index, picture in enumerate(shown):
                    tf.summary.image(f"batch/{index}", picture[None])
        writer.close()


def settings_table(config: Config) -> str:
    """All settings as a table in Markdown."""
    rows = [
        f"| {group.name} | {name} | {str(value).replace('|', '&#124;')} |"
        for group in dataclasses.fields(config)
        for name, value in dataclasses.asdict(getattr(config, group.name)).items()
    ]
    return "\n".join(["| group | setting | value |", "|---|---|---|", *rows])


def draw_batch(
    batch: tuple[tf.Tensor, dict[str, tf.Tensor], dict[str, tf.Tensor]],
    class_names: Sequence[str],
    stride: int = 1,
    count: int = PICTURES,
) -> list[np.ndarray]:
    """The first images of a batch of `pipeline.training_dataset`, uint8, with the boxes in their targets.

    Boxes are read off the targets, whose points are `stride` pixels apart, so they are those that the network learns.
    Pixels that count in no loss are dark.
    """
    images, targets, weights = batch
    shown = []
    for index in range(min(count, len(images))):
        maps = {name: map_[index] for name, map_ in targets.items()}
        boxes, classes = boxes_in_targets(**maps, stride=stride)
        image = np.clip(images[index].numpy(), 0, 255)
        used = weights["confidence"][index].numpy() > 0
        used = used.repeat(stride, 0).repeat(stride, 1)[: image.shape[0], : image.shape[1], None]
        image = np.where(used, image, _UNUSED * image).astype(np.uint8)
        labels = [class_names[label] for label in classes] if len(class_names) > 1 else ()
        shown.append(visualize.draw_boxes(image, boxes, visualize.TRUTH_COLOUR, labels))
    return shown


def boxes_in_targets(
    confidence: tf.Tensor, distances: tf.Tensor, stride: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """The boxes `xyxy` `[N, 4]` and classes `[N]` of the objects in the targets of an image.

    Args:
        confidence: `[H, W, C]`, 1 at pixels of objects.
        distances: `tblr` `[H, W, 4]` of the box at these pixels.
        stride: pixels from one point of these maps to the next.
    """
    values = confidence.numpy()
    positive = values.max(axis=-1) > 0
    points = box_ops.pixel_centres(*positive.shape) * stride
    boxes = box_ops.distances_to_boxes(distances, points).numpy()[positive]
    classes = values[positive].argmax(axis=-1)
    # The pixels of an object agree, but for rounding.
    rows = np.column_stack([classes, boxes.round(1)])
    _, first = np.unique(rows, axis=0, return_index=True)
    return boxes[first], classes[first]
