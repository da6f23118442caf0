"""A step of training that several devices share. It is that of `CheckedStep`, with the sums of all devices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from unitbox_tf import losses
from unitbox_tf.train.average import Average
from unitbox_tf.train.keras_distribution import adds_nothing
from unitbox_tf.train.objective import SharedLosses
from unitbox_tf.train.steps import Step

SUM = tf.distribute.ReduceOp.SUM
_Maps = Mapping[str, tf.Tensor]


class SharedStep(Step):
    """The training step of a compiled model whose variables are mirrored on several devices.

    Each device takes its part of the batch. Losses, gradients and their checks are sums over all devices, so that each
    device does the same, and the step is that of one device with the whole batch. If the loss or a gradient is not
    finite, no variable changes.

    The variables of `Step` are those of each worker, and equal in all.
    """

    def __init__(
        self,
        model: keras.Model,
        judged: keras.Model,
        shared: SharedLosses,
        strategy: tf.distribute.Strategy,
        batch_size: int,
        average: Average | None = None,
    ) -> None:
        """Makes this the step of `model`, and builds its optimizer.

        Args:
            model: the model, made and compiled in the scope of `strategy`.
            judged: a model of the same layers, made and compiled outside. Its metrics get the running means.
            shared: the losses.
            strategy: the devices.
            batch_size: the number of images in a batch of all devices together.
            average: good steps update it.
        """
        with strategy.scope():
            model.optimizer.build(model.trainable_variables)
        adds_nothing(model.optimizer)
        logs = ["loss", "confidence_loss", "distances_loss"]
        super().__init__(judged, model.trainable_variables, average, logs)
        self._model = model
        self._means = {metric.name: metric.variables for metric in judged.metrics}
        self._shared = shared
        self._strategy = strategy
        self._batch_size = batch_size
        self._learning: list[keras.Variable] = []  # those that have a gradient
        model.make_train_function = self._make
        self._make()

    def _make(self, force: bool = False) -> None:
        """Traces the step, anew with `force`; a step keeps the weights that learned when it was traced."""
        if force or self._model.train_function is None:
            self._model.train_function = tf.function(self._run, autograph=False)

    def _run(self, iterator: Any) -> None:
        """One step with the next batch. Adds to the running means of the epoch."""
        each = self._strategy.run(self._derive, args=(next(iterator),))
        first = tf.nest.map_structure(
            lambda value: self._strategy.experimental_local_results(value)[0],
            {name: each[name] for name in ("sums", "finite")},
        )

        def learn() -> tf.Tensor:
            self._strategy.run(self._apply, args=(each["gradients"],))
            if self.average is not None:
                self.average.update(self.steps)
            self._add_to_means(*tf.unstack(first["sums"]))
            return tf.constant(True)

        def undo() -> tf.Tensor:
            self._strategy.run(self._restore, args=(each["before"],))
            self._finite.assign(first["finite"])
            self.bad.assign_add(1)
            return tf.constant(False)

        tf.cond(tf.reduce_all(first["finite"]), learn, undo)
        self.steps.assign_add(1)

    def _derive(self, data: Any) -> dict[str, Any]:
        """The gradients of the whole batch, and sums over it, on each device."""
        model = self._model
        images, truth, weights = keras.utils.unpack_x_y_sample_weight(data)
        before = [tf.identity(variable.value) for variable in model.non_trainable_variables]
        with tf.GradientTape() as tape:
            predicted = model(images, training=True)
            loss, terms = self._shared(truth, predicted, weights)
        learning = model.trainable_weights
        found = dict(zip(map(id, learning), tape.gradient(loss, learning), strict=True))
        local = {key: value for key, value in found.items() if value is not None}
        numbers = tf.stack([loss, *terms.values(), *_overlap(truth, predicted, weights)])
        context = tf.distribute.get_replica_context()
        sums, *added = context.all_reduce(SUM, [numbers, *local.values()])
        gradients = dict(zip(local, added, strict=True))
        self._learning = [weight for weight in learning if id(weight) in local]
        values = [*tf.unstack(sums)[: len(self._logs)]]
        values += [gradients.get(id(weight)) for weight in self._weights]
        true = tf.constant(True)
        finite = [true if v is None else tf.reduce_all(tf.math.is_finite(v)) for v in values]
        return {
            "before": before,
            "gradients": added,
            "sums": sums,
            "finite": tf.stack(finite),
        }

    def _apply(self, gradients: Sequence[tf.Tensor]) -> None:
        self._model.optimizer.apply_gradients(zip(gradients, self._learning, strict=True))

    def _restore(self, before: Sequence[tf.Tensor]) -> None:
        for variable, value in zip(self._model.non_trainable_variables, before, strict=True):
            variable.assign(value)

    def _add_to_means(
        self, loss: tf.Tensor, confidence: tf.Tensor, distances: tf.Tensor, *overlap: tf.Tensor
    ) -> None:
        """Adds to the totals and counts as Keras does: the loss counts for each image, its terms for each batch."""
        images = tf.constant(self._batch_size, tf.float32)
        added = {
            "loss": (loss * images, images),
            "confidence_loss": (confidence, tf.constant(1.0)),
            "distances_loss": (distances, tf.constant(1.0)),
            "compile_metrics": overlap,
        }
        for name, variables in self._means.items():
            for variable, value in zip(variables, added[name], strict=True):
                variable.assign_add(value)


def _overlap(truth: _Maps, predicted: _Maps, weights: _Maps) -> tuple[tf.Tensor, tf.Tensor]:
    """The total and the count of `losses.MeanIoU` for this device's images."""
    weight = tf.cast(weights["distances"], tf.float32)
    counts = weight[..., None] != 0
    boxes = tf.where(counts, truth["distances"], tf.zeros([], truth["distances"].dtype))
    ious = tf.cast(losses.iou(boxes, predicted["distances"]), tf.float32)
    return tf.reduce_sum(ious * weight), tf.reduce_sum(weight)
