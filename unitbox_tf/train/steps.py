"""A step of training that changes nothing where its loss or a gradient is not finite."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from unitbox_tf.train.average import Average


class Step:
    """The parts that each training step has.

    Attributes:
        steps: the number of steps, bad ones included.
        bad: the number of bad steps.
        average: the moving average of the weights, or None.
        metrics: the variables of the running means.
    """

    def __init__(
        self,
        judged: keras.Model,
        weights: Sequence[keras.Variable],
        average: Average | None,
        logs: Sequence[str] | None = None,
    ) -> None:
        """Builds the metrics of `judged`, which get the running means.

        Args:
            judged: the model whose metrics they are.
            weights: those that learn.
            average: good steps update it.
            logs: the running means that are checked; None checks all.
        """
        build_metrics(judged)
        self.metrics = [variable for metric in judged.metrics for variable in metric.variables]
        self.steps = tf.Variable(0, dtype=tf.int64, trainable=False)
        self.bad = tf.Variable(0, dtype=tf.int64, trainable=False)
        self.average = average
        self._judged = judged
        self._weights = list(weights)
        self._logs = list(judged.get_metrics_result() if logs is None else logs)
        flags = [True] * (len(self._logs) + len(self._weights))
        self._finite = tf.Variable(flags, trainable=False)  # in the last bad step

    def reset_means(self) -> None:
        """Begins the running means anew."""
        self._judged.reset_metrics()

    def means(self) -> dict[str, float]:
        """The running means, by their names in logs."""
        return {name: float(value) for name, value in self._judged.get_metrics_result().items()}

    def not_finite(self) -> dict[str, list[str]]:
        """Parts of the loss, and gradients by the names of their weights, that were not finite in the last bad step."""
        names = [*self._logs, *(weight.path for weight in self._weights)]
        wrong = [name for name, fine in zip(names, self._finite.numpy(), strict=True) if not fine]
        return {
            "loss": [name for name in wrong if name in self._logs],
            "gradients": [name for name in wrong if name not in self._logs],
        }


class CheckedStep(Step):
    """The training step of a compiled model, in place of Keras' own.

    It computes what Keras' step computes. If the loss or a gradient is not finite, no variable changes: neither
    weights, nor their average, nor the optimizer, nor running means. The graph itself decides this, so the step is not
    slower.

    With mixed float16, `keras.optimizers.LossScaleOptimizer` lowers the scale of the loss where gradients overflow,
    and leaves out the step by itself. Such steps are not bad, unless the scale cannot be lowered any further.
    """

    def __init__(self, model: keras.Model, average: Average | None = None) -> None:
        """Makes this the step of `model`, and builds its optimizer and its metrics. Good steps update `average`."""
        model.optimizer.build(model.trainable_variables)
        super().__init__(model, model.trainable_variables, average)
        self._model = model
        model.train_step = self._run

    def _run(self, data: Any) -> dict[str, tf.Tensor]:
        """One step. Returns the running means of the epoch."""
        model, optimizer = self._model, self._model.optimizer
        images, truth, weights = keras.utils.unpack_x_y_sample_weight(data)
        kept = [variable.value for variable in (*self.metrics, *model.non_trainable_variables)]
        before = [tf.identity(value) for value in kept]
        with tf.GradientTape() as tape:
            predicted = model(images, training=True)
            loss = model.compute_loss(
                x=images, y=truth, y_pred=predicted, sample_weight=weights, training=True
            )
            scaled = optimizer.scale_loss(loss)
        learning = model.trainable_weights
        gradients = tape.gradient(scaled, learning)
        model.metrics[0].update_state(loss, sample_weight=tf.shape(images)[0])
        logs = model.compute_metrics(images, truth, predicted, weights)
        finite = self._flags(logs, dict(zip(map(id, learning), gradients, strict=True)))
        fine = self._is_fine(loss, finite[len(self._logs) :])

        def learn() -> None:
            optimizer.apply_gradients(zip(gradients, learning, strict=True))

        def take_average() -> None:
            if self.average is not None:
                self.average.update(self.steps)

        def go_on() -> None:
            learn()
            take_average()

        def undo() -> None:
            for variable, value in zip(kept, before, strict=True):
                variable.assign(value)
            self._finite.assign(finite)
            self.bad.assign_add(1)

        if _scales(optimizer):  # leaves out what is not finite by itself
            learn()
            tf.cond(fine, take_average, undo)
        else:
            tf.cond(fine, go_on, undo)
        self.steps.assign_add(1)
        result: dict[str, tf.Tensor] = model.get_metrics_result()
        return result

    def _flags(self, logs: Mapping[str, tf.Tensor], gradients: Mapping[int, Any]) -> tf.Tensor:
        """True for each log, and for the gradient of each weight, that is finite or missing."""
        values = [logs[name] for name in self._logs]
        values += [gradients.get(id(weight)) for weight in self._weights]
        true = tf.constant(True)
        return tf.stack(
            [true if value is None else tf.reduce_all(tf.math.is_finite(value)) for value in values]
        )

    def _is_fine(self, loss: tf.Tensor, finite: tf.Tensor) -> tf.Tensor:
        """True if the step may be taken; `finite` has a truth value for each gradient."""
        gradients = tf.reduce_all(finite)
        if _scales(self._model.optimizer):
            gradients |= tf.convert_to_tensor(self._model.optimizer.dynamic_scale) > 1
        return tf.math.is_finite(loss) & gradients


def _scales(optimizer: keras.optimizers.Optimizer) -> bool:
    return isinstance(optimizer, keras.optimizers.LossScaleOptimizer)


def build_metrics(model: keras.Model) -> None:
    """Makes the variables of the metrics, which Keras otherwise makes in the first step."""
    outputs: Mapping[str, Any] = model.output
    maps = {
        name: tf.zeros([1, 1, 1, output.shape[-1]], output.dtype)
        for name, output in outputs.items()
    }
    weights = {name: tf.ones([1, 1, 1]) for name in maps}
    model.compute_loss(x=None, y=maps, y_pred=maps, sample_weight=weights)
    model.compute_metrics(None, maps, maps, weights)
    model.reset_metrics()


def first_names(names: Sequence[str], count: int = 5) -> str:
    """Names for a message, not too many."""
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(names[:count]) + more
