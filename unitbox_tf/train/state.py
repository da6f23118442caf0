"""The state of training: all that it needs to go on as if it had never stopped."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import keras
import numpy as np

from unitbox_tf import checkpoints, runs
from unitbox_tf.checkpoints import Checkpoint, Spec
from unitbox_tf.config import TrainConfig
from unitbox_tf.train.reading import Elements
from unitbox_tf.train.steps import Step

logger = logging.getLogger(__name__)

KEPT = 2  # checkpoints: if the newest is damaged, the one before is there


class Diverged(ValueError):
    """The loss, a gradient or a weight is not finite any more."""


class State:
    """The network, its average, the optimizer, running means and the place in the data, stored as checkpoints of a run.

    Attributes:
        step: the checked step of the model. It counts steps, interrupted epochs included.
        history: the logs of the finished epochs. Its length is the number of the present epoch.
        elements: what is known of the length of a user's data set.
        training_images: the number of training images; None if they are a data set.
    """

    def __init__(self, run: Path, model: keras.Model, settings: TrainConfig, step: Step) -> None:
        """The state at the start of training, stored in `run`. `model` is compiled, and `step` is its step."""
        self.step = step
        self.history: list[dict[str, Any]] = []
        self.elements = Elements()
        self.training_images: int | None = None
        self._model = model
        self._settings = settings
        self._folder = runs.Run(run).checkpoints
        self._kept: list[Path] = []  # whole checkpoints, the newest last
        self._begun = (
            0,
            0,
        )  # the epoch in which this process began, and the steps before its first step
        self._images = (0, 0)  # steps, and the images that they have shown
        self._restored = -1  # steps in the checkpoint that was read
        self._means: list[np.ndarray] | None = None
        self._trained: tuple[int, list[np.ndarray]] | None = None

    @property
    def epoch(self) -> int:
        """The present epoch, from 0 on; all before are finished."""
        return len(self.history)

    @property
    def steps(self) -> int:
        """The steps of all epochs up to here."""
        return int(self.step.steps)

    @property
    def steps_of_epoch(self) -> int:
        """The steps of the present epoch up to here."""
        epoch, before = self._begun
        if self.epoch != epoch:
            before = self.history[-1]["iterations"]
        return self.steps - int(before)

    @property
    def variables(self) -> list[Any]:
        """The variables of the network and of its optimizer."""
        return [*self._model.variables, *self._model.optimizer.variables]

    @property
    def images(self) -> int:
        """The images that training has shown to the network up to here."""
        steps, images = self._images
        return images + (self.steps - steps) * self._settings.batch_size

    @property
    def is_stored(self) -> bool:
        """True if the run has a checkpoint."""
        return bool(self._kept)

    @property
    def is_restored(self) -> bool:
        """True if training goes on from a checkpoint."""
        return self._restored >= 0

    def restore(self, run: Path) -> bool:
        """Goes on from the newest whole checkpoint of `run`. False if there is none.

        Raises:
            ValueError: all checkpoints are damaged, or they belong to another network or optimizer.
        """
        found = checkpoints.read_newest(runs.Run(run).checkpoints, self._expected())
        if found is None:
            return False
        self._take(found)
        return True

    def take_images(self, count: int | None) -> None:
        """Goes on with so many training images; None if they are a data set. Warns if they were another number."""
        if self.is_restored and count != self.training_images:
            logger.warning(
                "The training data had %s images and have %s: they come in another order than without the interruption",
                self.training_images,
                count,
            )
        self.training_images = count

    def begin_epoch(self) -> None:
        """Makes the running means those of the present epoch: of its first steps, if training was resumed in it."""
        self.step.reset_means()
        if self._means is not None:
            _assign(self.step.metrics, self._means)
            self._means = None

    def end_steps(self) -> None:
        """Keeps the running means of the steps of an epoch, because judging needs the same variables."""
        self._trained = self.epoch, [variable.numpy() for variable in self.step.metrics]

    def store(self) -> Path:
        """Stores a checkpoint, and deletes older ones than the last `KEPT`.

        Raises:
            Diverged: a weight is not finite. Then nothing is stored.
            OSError: it cannot be written. Then the earlier checkpoints stay.
        """
        path = checkpoints.path_of(self._folder, self.steps)
        self.write(path)
        self._kept = [*(kept for kept in self._kept if kept != path), path][-KEPT:]
        for old in set(checkpoints.stored(self._folder)) - set(self._kept):
            old.unlink(missing_ok=True)
        return path

    def store_if_trained(self) -> None:
        """Stores a checkpoint, if steps were taken since training was resumed."""
        if self.steps != self._restored and self.steps:
            self.store()

    def write(self, path: Path) -> None:
        """Writes the state as it is to `path`. Errors are those of `store`."""
        average = self.step.average
        if average is not None:
            average.hide()  # an interruption may have left it in the model
        groups = {name: _values(variables) for name, variables in self._groups().items()}
        if average is not None:
            averages = [variable.numpy() for variable in average.variables]
            groups["average"] = list(zip(_specs(average.weights), averages, strict=True))
        trained = self._trained
        if trained is not None and trained[0] == self.epoch:
            groups["metrics"] = list(zip(_specs(self.step.metrics), trained[1], strict=True))
        for spec, values in (*groups["model"], *groups["optimizer"]):
            if not np.isfinite(values).all():
                raise Diverged(
                    f"the weights or moments {spec.name} are not finite after step {self.steps}, so they were not "
                    "stored. Lower learning_rate (--learning-rate), or limit the gradient with clip_norm (--clip-norm)"
                )
        checkpoints.write(path, groups, self._facts())

    def _groups(self) -> dict[str, list[Any]]:
        model = self._model
        return {
            "model": model.variables,
            "optimizer": model.optimizer.variables,
            "metrics": self.step.metrics,
        }

    def _expected(self) -> dict[str, list[Spec]]:
        expected = {name: _specs(variables) for name, variables in self._groups().items()}
        if self.step.average is not None:
            expected["average"] = _specs(self.step.average.weights)
        return expected

    def _facts(self) -> dict[str, Any]:
        return {
            "history": self.history,
            "steps": self.steps,
            "steps_of_epoch": self.steps_of_epoch,
            "bad_steps": int(self.step.bad),
            "images": self.images,
            "elements": self.elements.count,
            "training_images": self.training_images,
            **{name: getattr(self._settings, name) for name in ("learning_rate", *_LENGTHS)},
        }

    def _take(self, found: Checkpoint) -> None:
        for name, variables in self._groups().items():
            _assign(variables, found.groups[name])
        if self.step.average is not None:
            _assign(self.step.average.variables, found.groups["average"])
        facts = found.facts
        self.history = facts["history"]
        self.elements = Elements(facts["elements"])
        self.training_images = facts["training_images"]
        self.step.steps.assign(facts["steps"])
        self.step.bad.assign(facts["bad_steps"])
        self._kept = [found.path]
        self._restored = facts["steps"]
        self._images = facts["steps"], facts["images"]
        of_epoch = facts["steps_of_epoch"]
        if of_epoch and any(facts[name] != getattr(self._settings, name) for name in _LENGTHS):
            logger.warning("Epoch %d begins anew, as its length has changed", self.epoch + 1)
            of_epoch = 0
        self._begun = self.epoch, facts["steps"] - of_epoch
        self._means = found.groups["metrics"] if of_epoch else None
        if facts["learning_rate"] != self._settings.learning_rate:
            self._change_rate()

    def _change_rate(self) -> None:
        """Takes the learning rate of the settings, not that of the stored optimizer. A schedule does so anyway."""
        if self._settings.schedule == "constant":
            self._model.optimizer.learning_rate = self._settings.learning_rate


_LENGTHS = ("steps_per_epoch", "batch_size")  # settings that say how long an epoch is


def _specs(variables: Iterable[Any]) -> list[Spec]:
    return [Spec.of(variable) for variable in variables]


def _values(variables: Iterable[Any]) -> list[tuple[Spec, np.ndarray]]:
    return [(Spec.of(variable), variable.numpy()) for variable in variables]


def _assign(variables: Iterable[Any], values: Iterable[np.ndarray]) -> None:
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
