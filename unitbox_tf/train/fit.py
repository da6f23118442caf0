"""Training, from a configuration to the folder of a run. Read `fit` from top to bottom."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from unitbox_tf import files, losses, progress, registry, runs
from unitbox_tf.config import Config, LossConfig, TrainConfig
from unitbox_tf.datasets import readiness
from unitbox_tf.detect.model import UnitBox
from unitbox_tf.detect.transfer import Taken
from unitbox_tf.problems import Problems
from unitbox_tf.train import examples, pipeline, threshold
from unitbox_tf.train.callbacks import (
    StopEarly,
    StopOnNaN,
    StoreRun,
    ValidateDetections,
    WeighByImages,
    chosen_by,
)
from unitbox_tf.train.examples import Given, Training, Validation
from unitbox_tf.train.finish import finish
from unitbox_tf.train.freezing import FreezeBackbone
from unitbox_tf.train.hardware import _hardware
from unitbox_tf.train.optimizers import inner_optimizer, optimizer
from unitbox_tf.train.watching import ProgressLine, ShowTraining, no_retracing_warnings

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Trained:
    """A run that has ended.

    Attributes:
        folder: holds `config.json`, `history.json` and `.png`, `best.weights.h5`, `last.keras`,
            `saved_model/` (if the decoder can be exported), `results.json`, `confusion_matrix.png`,
            `detections.jpg`, `problems.txt` and `tensorboard/`.
        model: the network with the best weights.
        results: the metrics of these weights on all validation images, for each decoder: those of
            `matching.summarize`, and those of the validation protocol, as `fddb_discrete`.
        history: the logs, a dict for each epoch.
        problems: items that could not be used.
        interrupted: True if Ctrl-C ended training early.
        stopped_early: True if training ended before `epochs` epochs because the validation metric did not get
            better (`patience`), or because a callback of yours stopped it.
        taken: the parts of the network that were taken from the detector `init`, and the new ones; None without
            `init`, and for a resumed run.
    """

    folder: Path
    model: UnitBox
    results: dict[str, dict[str, float]]
    history: list[dict[str, Any]]
    problems: Problems
    interrupted: bool = False
    stopped_early: bool = False
    taken: Taken | None = None


@no_retracing_warnings()
def fit(
    config: Config,
    *,
    train: Given | None = None,
    validation: Given | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    name: str = "run",
    resume: str | Path | None = None,
    problems: Problems | None = None,
) -> Trained:
    """Trains, and stores everything in a folder below `config.train.output`.

    The run is stored with the score threshold that has the best F1 in the validation images, unless you set
    `decode.score_threshold`; see `train.choose_threshold`.

    Ctrl-C ends training early. The weights are then stored, judged and exported as at the end. If
    training fails before it has stored anything, none of the folders that it made remains.

    Args:
        config: the settings. If they do not name the classes, the classes of the training data are taken.
        train: a sequence of `Annotation` or of sources, or a shuffled `tf.data.Dataset` as described in
            `train.examples`, which streams through augmentation. None takes the sources of `config`.
        validation: the same. The first `config.train.validation_images` elements of a data set are
            kept in memory, and the others are not read.
        callbacks: your own Keras callbacks. They are called after the callbacks of this package, which
            fill the logs (`val_ap50`).
        name: start of the folder's name if the configuration gives no name.
        resume: the folder of an earlier run to continue, with its weights, optimizer and epoch.
        problems: unusable items are added here.

    Raises:
        ValueError: an argument is of another kind, settings or data cannot be used, or `datasets.readiness`
            refuses the data: a class without objects, or validation images among the training images.
        Diverged: the loss is not a number any more. This is a `ValueError`, too.
    """
    problems = Problems.of(problems)
    callbacks = _checked_arguments(config, callbacks)
    config = threshold.settled(config)
    _check_alpha(config.loss)
    run = _folder(config.train, name) if resume is None else Path(resume)
    train = examples.opened(train, "train", config)
    validation = examples.opened(validation, "validation", config)
    config = examples.with_class_names(config, train, validation, resume)
    with _hardware(config.train) as jit:
        shown = examples.training(train, config, problems=problems)
        judged = examples.validation(validation, config, train=train, problems=problems)
        readiness.check(
            None if isinstance(shown.examples, tf.data.Dataset) else shown.examples,
            judged.annotations,
            config,
        )
        model, history, taken = _model(config, jit, None if resume is None else run)
        freeze = FreezeBackbone(config.train.freeze_epochs)
        store = StoreRun(run, history, config.train.validation_protocol, freeze)
        with _kept_if_stored(run):
            whole = _learn(model, config, shown, judged, store, callbacks, problems)
    best, results = finish(config, run, judged, history, problems=problems)
    early = whole and len(history) < config.train.epochs
    return Trained(
        run, best, results, history, problems, not whole, stopped_early=early, taken=taken
    )


def _checked_arguments(config: Any, callbacks: Any) -> list[keras.callbacks.Callback]:
    """The callbacks as a list. Raises `ValueError` if one of the arguments is of another kind."""
    if not isinstance(config, Config):
        raise ValueError(
            f'config: expected a Config, such as PRESETS["faces"]. Received: {config!r:.200}'
        )
    found = list(callbacks) if isinstance(callbacks, Iterable) else [None]
    if not all(isinstance(callback, keras.callbacks.Callback) for callback in found):
        raise ValueError(
            "callbacks: expected a sequence of objects of keras.callbacks.Callback. "
            f"Received: {callbacks!r:.200}"
        )
    return found


def _check_alpha(settings: LossConfig) -> None:
    """Raises `ValueError` if the loss does not take the power."""
    if settings.alpha != 1 and not registry.LOSSES[settings.distance_loss].takes_alpha:
        able = [name for name in registry.LOSSES if registry.LOSSES[name].takes_alpha]
        raise ValueError(
            f"LossConfig.distance_loss: expected one of {able}, where alpha is not 1. "
            f"Received: {settings.distance_loss!r}"
        )


def _folder(settings: TrainConfig, name: str) -> Path:
    """The folder of a new run, which is not made yet."""
    folder = Path(settings.output) / (settings.run or f"{name}-{time.strftime('%Y%m%d-%H%M%S')}")
    if folder.exists():
        go_on = (
            "go on with it: name it as resume (--resume)"
            if runs.Run(folder).last.is_file()
            else "delete it: it holds no checkpoint"
        )
        raise ValueError(f"{folder} exists already. Choose another run (--run), or {go_on}")
    return folder


@contextlib.contextmanager
def _kept_if_stored(run: Path) -> Iterator[None]:
    """Makes the folder `run`. An error that leaves it without a checkpoint deletes the folders that were made."""
    made = [folder for folder in (run, *run.parents) if not folder.exists()]
    run.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        if made and not runs.Run(run).last.is_file():
            shutil.rmtree(run, ignore_errors=True)
            with contextlib.suppress(OSError):  # another run is in it
                for folder in made[1:]:
                    folder.rmdir()
        raise


def _model(
    config: Config, jit: bool | str, resume: Path | None
) -> tuple[UnitBox, list[dict[str, Any]], Taken | None]:
    """The compiled network with the weights that training starts from, the logs of earlier epochs, and `taken`."""
    # A resumed run takes its weights from its checkpoint, and a run with `init` takes them from that run.
    init = config.train.init if resume is None else None
    weights = config.model.weights if resume is None and init is None else None
    if config.train.freeze_epochs and weights is None and init is None and resume is None:
        logger.warning(
            "The backbone is frozen in the first epochs, but starts from random weights. Name weights (--weights) or "
            "a detector to start from (--init), or set freeze_epochs to 0 (--freeze-epochs 0)"
        )
    network = dataclasses.replace(config.model, weights=weights)
    model = UnitBox.from_settings(network, config.decode, seed=config.train.seed)
    taken = model.start_from(init) if init else None
    if taken:
        logger.info("%s", taken)
    _compile(model, config, jit)
    return model, [] if resume is None else _restore(model, resume), taken


def _compile(model: keras.Model, config: Config, jit: bool | str) -> None:
    # "mean" and "object_mean" differ in the weights of pixels only.
    reduction = "sum" if config.loss.reduction == "sum" else losses.MEAN
    kind = registry.LOSSES[config.loss.distance_loss]
    options: dict[str, Any] = {"alpha": config.loss.alpha} if kind.takes_alpha else {}
    distance_loss = kind(reduction=reduction, **options)
    distance_loss.gather = jit is False
    model.compile(
        optimizer(config.train),
        loss={
            "confidence": keras.losses.BinaryCrossentropy(from_logits=True, reduction=reduction),
            "distances": distance_loss,
        },
        loss_weights={
            "confidence": config.loss.confidence_weight,
            "distances": config.loss.distance_weight,
        },
        weighted_metrics={"confidence": [], "distances": [losses.MeanIoU()]},
        jit_compile=jit,
    )


def _restore(model: keras.Model, run: Path) -> list[dict[str, Any]]:
    """Restores the weights and the optimizer of `run`, and returns the logs of its finished epochs."""
    path = runs.Run(run).last
    if not path.is_file():
        raise ValueError(
            f"{path}: no such file. Expected the folder of a run that has stored a checkpoint."
        )
    stored = keras.saving.load_model(path)
    model.optimizer.build(model.trainable_variables)
    for what, into, values in (
        ("model", model.variables, stored.variables),
        ("optimizer", model.optimizer.variables, stored.optimizer.variables),
    ):
        if [v.shape for v in into] != [v.shape for v in values]:
            raise ValueError(
                f"{path}: was trained with another {what}. Resume with the configuration of the run."
            )
        for variable, value in zip(into, values, strict=True):
            variable.assign(value)
    history = runs.Run(run).history()
    # A run that was interrupted within an epoch repeats this epoch, with its learning rates.
    iterations = inner_optimizer(model.optimizer).iterations
    history = [row for row in history if row["iterations"] <= int(iterations)]
    iterations.assign(history[-1]["iterations"] if history else 0)
    return history


def _learn(
    model: UnitBox,
    config: Config,
    shown: Training,
    judged: Validation,
    store: StoreRun,
    callbacks: Sequence[keras.callbacks.Callback],
    problems: Problems,
) -> bool:
    """Trains `model`, and stores it in the folder of `store` after each epoch. False if Ctrl-C ended it early."""
    settings, epochs_done = config.train, len(store.history)
    stored = _with_origins(config, shown, judged)
    files.write(runs.Run(store.run).config_file, stored.to_json())
    batches, validation = _batches(model, config, shown, judged, epochs_done, problems)
    # A data set of its own: each pass over one has another order, and pictures must not change that of training.
    pictured, _ = _batches(model, config, shown, judged, epochs_done, problems)
    stop = StopEarly(
        settings.patience, store.history, settings.validation_protocol, settings.freeze_epochs
    )
    ours = [*_callbacks(config, pictured, judged, store, problems), stop]
    last = ProgressLine(settings.batch_size, settings.epochs)
    problems.log_counts()
    try:
        model.fit(
            batches,
            validation_data=validation,
            shuffle=False,  # data sets shuffle themselves; Keras would warn
            initial_epoch=epochs_done,
            epochs=epochs_done if stop.reached else settings.epochs,
            steps_per_epoch=settings.steps_per_epoch,
            callbacks=[*ours, *callbacks, last],
            verbose=progress.verbosity(),
        )
    except KeyboardInterrupt:
        logger.warning(
            "Interrupted: storing the weights. To go on, name %s as resume (--resume)", store.run
        )
        store.store_last()
        return False
    if stop.reached:
        logger.info(
            "Stopped early: no better %s in the last %d epochs. To go on, resume with more patience (--patience)",
            " and ".join(chosen_by(settings.validation_protocol)),
            settings.patience,
        )
    return True


def _with_origins(config: Config, shown: Training, judged: Validation) -> Config:
    """`config` as it is stored. It also names data that were given in Python."""
    data = dataclasses.replace(
        config.data, train_sources=shown.origin, validation_sources=judged.origin
    )
    return dataclasses.replace(config, data=data)


def _batches(
    model: UnitBox,
    config: Config,
    shown: Training,
    judged: Validation,
    epochs_done: int,
    problems: Problems,
) -> tuple[tf.data.Dataset, tf.data.Dataset]:
    """The batches for training, and the batches for the validation loss."""
    common: dict[str, Any] = {
        "num_classes": len(config.model.class_names),
        "equal_objects": config.loss.reduction == "object_mean",
        "padding": model.backbone.preprocessing.mean_colour,
        "batch_size": config.train.batch_size,
        "max_pixels": config.decode.max_pixels,
    }
    start = epochs_done * config.train.steps_per_epoch * config.train.batch_size
    training = pipeline.training_dataset(
        shown.examples,
        config.data,
        seed=config.train.seed,
        start=start,
        problems=problems,
        **common,
    )
    size = config.decode.max_side
    validation = pipeline.validation_dataset(
        judged.watched, config.data, size=size, problems=problems, **common
    )
    return training, validation


def _callbacks(
    config: Config,
    pictured: tf.data.Dataset,
    judged: Validation,
    store: StoreRun,
    problems: Problems,
) -> list[keras.callbacks.Callback]:
    """The callbacks of this package. Callbacks that fill the logs come before those that read them."""
    logs = runs.Run(store.run).tensorboard
    return [
        store.freeze,
        ShowTraining(config, pictured, logs / "settings", epoch=len(store.history)),
        WeighByImages(len(judged.watched), config.train.batch_size),
        ValidateDetections(judged, config, logs, problems=problems),
        keras.callbacks.TensorBoard(logs, write_graph=False, write_steps_per_second=True),
        StopOnNaN(),
        store,
    ]
