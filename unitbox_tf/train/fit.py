"""Training, from a configuration to the folder of a run. Read `fit` from top to bottom."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import functools
import logging
import os
import shutil
import tempfile
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import keras
import tensorflow as tf

from unitbox_tf import checkpoints, files, losses, registry, runs
from unitbox_tf.config import Config, LossConfig, TrainConfig
from unitbox_tf.datasets import readiness
from unitbox_tf.detect.model import UnitBox
from unitbox_tf.detect.transfer import Taken
from unitbox_tf.problems import Problems
from unitbox_tf.train import cluster, examples, loop, objective, order, pipeline, threshold
from unitbox_tf.train.average import Average
from unitbox_tf.train.callbacks import (
    JudgeAverage,
    StopEarly,
    StoreRun,
    ValidateDetections,
    WatchSteps,
    WeighByImages,
    chosen_by,
)
from unitbox_tf.train.distribution import Distribution, WorkerLost
from unitbox_tf.train.examples import Given, Training, Validation
from unitbox_tf.train.finish import finish
from unitbox_tf.train.freezing import FreezeBackbone
from unitbox_tf.train.hardware import Hardware, _hardware
from unitbox_tf.train.objective import SharedLosses
from unitbox_tf.train.optimizers import optimizer
from unitbox_tf.train.quality import learn_quality
from unitbox_tf.train.shared_step import SharedStep
from unitbox_tf.train.state import State
from unitbox_tf.train.steps import CheckedStep, Step
from unitbox_tf.train.streaming import Stream, named_errors
from unitbox_tf.train.watching import (
    ProgressLine,
    ShowEpochs,
    ShowTraining,
    no_retracing_warnings,
)

logger = logging.getLogger(__name__)

SHARE_POWERS = {"pixel": 0.0, "root": 0.5, "object": 1.0}  # see `targets.encode`
TRAINS = "trains in"  # what the lock of a run's folder is for
STARTS_ANEW = "%s: the run was stopped before its first checkpoint. It starts anew"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
Names: TypeAlias = Callable[
    [range], list[list[str]]
]  # of the images at places in the order of training


@dataclasses.dataclass(frozen=True)
class Trained:
    """A run that has ended.

    Attributes:
        folder: holds `config.json`, `history.json` and `.png`, `best.weights.h5`, `checkpoints/`,
            `saved_model/` (if the decoder can be exported), `results.json`, `confusion_matrix.png`,
            `detections.jpg`, `problems.txt` and `tensorboard/`.
        model: the network with the best weights.
        results: the metrics of these weights on all validation images, for each decoder: those of
            `matching.summarize`, and those of the validation protocol, as `fddb_discrete`. Empty in a worker that is
            not the chief.
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

    Ctrl-C ends training early. A checkpoint is then stored, and the best weights are judged and exported as at the
    end. If training fails before it has stored anything, none of the folders that it made remains.

    Args:
        config: the settings. If they do not name the classes, the classes of the training data are taken.
        train: a sequence of `Annotation` or of sources, or a shuffled `tf.data.Dataset` as described in
            `train.examples`, which streams through augmentation. None takes the sources of `config`.
        validation: the same. The first `config.train.validation_images` elements of a data set are
            kept in memory, and the others are not read.
        callbacks: your own Keras callbacks. They are called after the callbacks of this package, which
            fill the logs (`val_ap50`).
        name: start of the folder's name if the configuration gives no name.
        resume: the folder of an earlier run. Training goes on at the step of its newest checkpoint, as if it had
            never stopped; a run that has none starts anew. The settings are those of `config`.
        problems: unusable items are added here.

    Raises:
        ValueError: an argument is of another kind, settings or data cannot be used, or `datasets.readiness`
            refuses the data: a class without objects, or validation images among the training images.
        ValueError: another process trains in the folder, or no checkpoint of the resumed run is whole.
        ValueError: a shard that streams is damaged, or has a record that is no image with boxes.
        Diverged: the loss, a gradient or a weight is not finite. This is a `ValueError`, too.
        OSError: the disk is full, or another worker has ended (`distribution.WorkerLost`). Earlier checkpoints are
            whole.
    """
    problems = Problems.of(problems)
    callbacks = _checked_arguments(config, callbacks)
    config = threshold.settled(config)
    _check_alpha(config.loss)
    with contextlib.ExitStack() as held:
        run = held.enter_context(_place(config.train, name, resume))
        train = examples.opened(train, "train", config)
        validation = examples.opened(validation, "validation", config)
        config = examples.with_class_names(config, train, validation, resume)
        with _hardware(config.train) as hardware:
            shown = examples.training(train, config, problems=problems)
            held.enter_context(named_errors(shown.examples))
            judged = examples.validation(validation, config, train=train, problems=problems)
            readiness.check(
                shown.examples if isinstance(shown.examples, list) else None,
                judged.annotations,
                config,
            )
            if run.is_chief:
                held.enter_context(_locked(run.stored, new=resume is None))
            learner = _learner(config, hardware, run)
            whole = _learn(learner, config, shown, judged, run.own, callbacks, problems)
        history = learner.state.history
        best, results = learner.model, dict[str, dict[str, float]]()
        if run.is_chief:
            best, results = finish(config, run.stored, judged, history, problems=problems)
        if whole and learner.together is not None:
            learner.together.distribution.gathered([0])  # all workers end together
    early = whole and len(history) < config.train.epochs
    return Trained(
        run.stored,
        best,
        results,
        history,
        problems,
        not whole,
        stopped_early=early,
        taken=learner.taken,
    )


class _Run(NamedTuple):
    """Where a run is stored.

    Attributes:
        stored: the folder of the run.
        own: the folder in which this process writes: that of the run, or a temporary one in a worker that is not the
            chief.
    """

    stored: Path
    own: Path

    @property
    def is_chief(self) -> bool:
        """True in the process that writes the run."""
        return self.stored == self.own


@contextlib.contextmanager
def _place(settings: TrainConfig, name: str, resume: str | Path | None) -> Iterator[_Run]:
    """The folder of the run, checked by the worker that is to write it."""
    found = cluster.workers()
    if found is None or found.index == 0:
        run = _folder(settings, name) if resume is None else _resumed(Path(resume))
        yield _Run(run, run)
        return
    with tempfile.TemporaryDirectory(prefix="unitbox-worker-") as own:
        stored = Path(settings.output) / (settings.run or name) if resume is None else Path(resume)
        yield _Run(stored, Path(own))


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
    """The folder of a new run, which need not be made yet."""
    folder = Path(settings.output) / (settings.run or f"{name}-{time.strftime('%Y%m%d-%H%M%S')}")
    _check_new(folder)
    if runs.Run(folder).exists:
        logger.info(STARTS_ANEW, folder)
    return folder


def _check_new(folder: Path) -> None:
    """Raises `ValueError` if a new run would spoil what is in the folder.

    A folder may be there if it is empty, or if a run was stopped in it before it stored anything.
    """
    if not folder.exists():
        return
    found = runs.Run(folder)
    if found.has_weights:
        go_on = (
            "go on with it: name it as resume (--resume)"
            if checkpoints.stored(found.checkpoints)
            else "delete it: it holds no checkpoint"
        )
        raise ValueError(f"{folder} exists already. Choose another run (--run), or {go_on}")
    empty = folder.is_dir() and all(path.name == files.LOCK_FILE for path in folder.iterdir())
    if not (found.exists or empty):
        raise ValueError(f"{folder} exists already, and is no run. Choose another run (--run)")


def _resumed(folder: Path) -> Path:
    """The folder of a run to go on with.

    Raises:
        ValueError: it is no run, or its checkpoints are gone.
    """
    found = runs.Run(folder)
    if not found.exists:
        raise ValueError(
            f"{found.config_file}: no such file. Expected the folder of a run to resume."
        )
    if found.has_weights and not checkpoints.stored(found.checkpoints):
        raise ValueError(
            f"{found.checkpoints}: expected a checkpoint to resume from. There is none. To train further from the "
            f"best weights, start a new run with init={str(folder)!r} (--init)"
        )
    if not found.has_weights:
        logger.info(STARTS_ANEW, folder)
    return folder


@contextlib.contextmanager
def _locked(run: Path, new: bool) -> Iterator[None]:
    """Makes the folder `run`, and lets no other process train in it.

    Files that a killed program has left half written are deleted. An error that leaves the folder without a checkpoint
    and without a report deletes the folders that were made.
    """
    made = [folder for folder in (run, *run.parents) if not folder.exists()]
    run.mkdir(parents=True, exist_ok=True)
    stored = runs.Run(run)
    try:
        with files.locked(run, TRAINS):
            if new:
                _check_new(run)  # another process may have been quicker
            for folder in (run, stored.checkpoints):
                if folder.is_dir():
                    files.remove_partial(folder)
            try:
                yield
            except BaseException:
                if made and not (stored.has_weights or stored.bad_batches.exists()):
                    shutil.rmtree(run, ignore_errors=True)
                raise
    finally:
        if not run.exists():
            with contextlib.suppress(OSError):  # another run is in it
                for folder in made[1:]:
                    folder.rmdir()


class _Learner(NamedTuple):
    """The network that learns, and all that belongs to it.

    Attributes:
        model: the compiled network.
        state: the state that training goes on from: that of the newest checkpoint of the run, if there is one.
        together: the devices, if there are several.
        taken: the parts of the network that were taken from another detector.
    """

    model: UnitBox
    state: State
    together: loop.Together | None
    taken: Taken | None


def _learner(config: Config, hardware: Hardware, run: _Run) -> _Learner:
    """Makes the network."""
    resumed = bool(checkpoints.stored(runs.Run(run.stored).checkpoints))
    # A resumed run takes its weights from its checkpoint, and a run with `init` takes them from that run.
    init = None if resumed else config.train.init
    weights = None if resumed or init else config.model.weights
    if config.train.freeze_epochs and weights is None and init is None and not resumed:
        logger.warning(
            "The backbone is frozen in the first epochs, but starts from random weights. Name weights (--weights) or "
            "a detector to start from (--init), or set freeze_epochs to 0 (--freeze-epochs 0)"
        )
    network = dataclasses.replace(config.model, weights=weights)
    devices = hardware.distribution
    with contextlib.nullcontext() if devices is None else devices.strategy.scope():
        model = UnitBox.from_settings(network, config.decode, seed=config.train.seed)
        taken = model.start_from(init) if init else None
        compile_model(model, config, hardware.jit)
    if taken:
        logger.info("%s", taken)
    momentum = config.train.ema_momentum
    average = None if momentum is None else Average(model, momentum)
    step: Step
    together = None
    if devices is None:
        step = CheckedStep(model, average)
    else:
        devices.synchronise(model)
        judged = keras.Model(model.inputs, model.output, name=model.name)
        compile_model(judged, config, hardware.jit)
        together = loop.Together(devices, judged)
        shared = SharedLosses(config.loss)
        step = SharedStep(model, judged, shared, devices.strategy, config.train.batch_size, average)
    state = State(run.own, model, config.train, step)
    if state.restore(run.stored):
        _check_length(config, state)
    return _Learner(model, state, together, taken)


def _check_length(config: Config, state: State) -> None:
    """Says where training goes on. Raises `ValueError` if more epochs are finished than are asked for."""
    done, epochs = state.epoch, config.train.epochs
    if done > epochs:
        raise ValueError(
            f"epochs (--epochs): expected at least {done}, the number of epochs that are finished. Received: {epochs}"
        )
    if done == epochs:
        logger.info("All %d epochs are finished. To train further, raise epochs (--epochs)", done)
    else:
        logger.info("Going on at step %d of epoch %d", state.steps_of_epoch + 1, done + 1)


def compile_model(model: keras.Model, config: Config, jit: bool | str) -> None:
    """Gives a network the optimizer, losses and metrics of a configuration. `jit` is Keras' `jit_compile`."""
    # "mean" and "object_mean" differ in the weights of pixels only.
    reduction = "sum" if config.loss.reduction == "sum" else losses.MEAN
    model.compile(
        optimizer(config.train),
        loss=objective.losses_of(config.loss, reduction, gather=jit is False),
        loss_weights=objective.loss_weights(config.loss),
        weighted_metrics={"confidence": [], "distances": [losses.MeanIoU()]},
        jit_compile=jit,
    )
    if config.loss.confidence_target == "iou":
        learn_quality(model)


def _learn(
    learner: _Learner,
    config: Config,
    shown: Training,
    judged: Validation,
    run: Path,
    callbacks: Sequence[keras.callbacks.Callback],
    problems: Problems,
) -> bool:
    """Trains the model, and stores it in the folder `run` as it goes on. False if Ctrl-C ended it early."""
    settings = config.train
    model, state, together, _ = learner
    stored = _with_origins(config, shown, judged)
    files.write(runs.Run(run).config_file, stored.to_json())
    average = JudgeAverage(state.step.average)
    store = StoreRun(run, state, settings.validation_protocol, settings.checkpoint_minutes, average)
    if state.is_restored:
        store.store_history()  # the file may be absent or of another time
    share = together and together.distribution.share(settings.batch_size)
    batches, validation, names = _batches(model, config, shown, judged, state, problems, share)
    if together is not None:
        _check_workers(together.distribution, config, shown, state)
    stop = StopEarly(
        settings.patience, state.history, settings.validation_protocol, settings.freeze_epochs
    )
    watch = WatchSteps(run, state, settings.skip_bad_batches, names)
    shows = _callbacks(config, batches(), model.map_stride, judged, run, state, average, problems)
    ours = [average, *shows, watch, store, stop]
    last = ProgressLine(settings.batch_size, settings.epochs)
    problems.log_counts()
    try:
        loop.train(
            model,
            state,
            batches,
            validation,
            epochs=state.epoch if stop.reached else settings.epochs,
            steps=settings.steps_per_epoch,
            callbacks=[FreezeBackbone(settings.freeze_epochs), *ours, *callbacks, last],
            together=together,
        )
    except KeyboardInterrupt:
        logger.warning(
            "Interrupted: storing a checkpoint. To go on, name %s as resume (--resume)", run
        )
        state.store_if_trained()
        if not runs.Run(run).has_weights:  # it has learned nothing yet
            raise
        return False
    except (OSError, tf.errors.OpError) as error:
        if together is not None and together.distribution.workers > 1 and _is_loss(error):
            raise WorkerLost(
                f"another worker has ended, or cannot be reached: training has ended at step {state.steps}. Earlier "
                "checkpoints are whole. Start all workers again, and name the run as resume (--resume): "
                f"{str(error).splitlines()[0]}"
            ) from error
        if not _is_full(error):
            raise
        raise OSError(
            getattr(error, "errno", None) or errno.ENOSPC,
            f"no space left: training has ended, and earlier checkpoints are whole. Make space, then name {run} as "
            f"resume (--resume): {error}",
        ) from error
    if stop.reached:
        logger.info(
            "Stopped early: no better %s in the last %d epochs. To go on, resume with more patience (--patience)",
            " and ".join(chosen_by(settings.validation_protocol)),
            settings.patience,
        )
    return True


def _check_workers(together: Distribution, config: Config, shown: Training, state: State) -> None:
    """Raises `ValueError` if the workers would not train the same network, from the same state and data."""
    of_process = dataclasses.replace(config.train, output="", device="auto", devices=None)
    weights = [variable.numpy() for variable in state.variables]
    together.check_agree(
        {
            "settings": dataclasses.replace(config, train=of_process).to_json(),
            "number of training images": state.training_images,
            "step (the checkpoint of the run, which all workers must see)": state.steps,
            "weights": zlib.crc32(b"".join(weight.tobytes() for weight in weights)),
        }
    )


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
    state: State,
    problems: Problems,
    share: order.Share | None = None,
) -> tuple[Callable[[], tf.data.Dataset], tf.data.Dataset, Names]:
    """A maker of batches for training from `state` on, the batches for the validation loss, and names of images."""
    common: dict[str, Any] = {
        "labels": pipeline.Labels(
            len(config.model.class_names),
            equal_objects=config.loss.reduction == "object_mean",
            share_power=SHARE_POWERS[config.loss.confidence_shares],
            stride=model.map_stride,
        ),
        "padding": model.backbone.preprocessing.mean_colour,
        "batch_size": config.train.batch_size,
        "max_pixels": config.decode.max_pixels,
    }
    known = None
    if isinstance(shown.examples, Stream):
        state.take_images(shown.examples.count())
    elif isinstance(shown.examples, tf.data.Dataset):
        state.take_images(None)
    else:
        state.take_images(len(shown.examples))
        known = order.orders(len(shown.examples), config.train.seed, config.data.mosaic_rows)

    # The batch that is shown and the first one that is trained on are of one data set: its graph takes seconds.
    @functools.lru_cache(maxsize=1)
    def from_image(start: int) -> tf.data.Dataset:
        return pipeline.training_dataset(
            shown.examples,
            config.data,
            seed=config.train.seed,
            start=start,
            known=known,
            elements=state.elements,
            share=share,
            problems=problems,
            **common,
        )

    size = config.decode.max_side
    validation = pipeline.validation_dataset(
        judged.watched, config.data, size=size, problems=problems, **common
    )

    def names(places: range) -> list[list[str]]:
        if known is None or isinstance(
            shown.examples, Stream
        ):  # elements of a stream have no names
            return [[f"element {place} of all that were shown"] for place in places]
        mosaics = order.Mosaics(config.data.mosaic, config.data.mosaic_rows)
        return order.names(shown.examples, known, mosaics, places)

    return lambda: from_image(state.images), validation, names


def _callbacks(
    config: Config,
    batches: tf.data.Dataset,
    stride: int,
    judged: Validation,
    run: Path,
    state: State,
    average: JudgeAverage,
    problems: Problems,
) -> list[keras.callbacks.Callback]:
    """The callbacks that fill the logs and show training. They come before those that read the logs."""
    logs = runs.Run(run).tensorboard
    return [
        ShowTraining(config, batches, stride, logs / "settings", epoch=state.epoch),
        WeighByImages(len(judged.watched), config.train.batch_size),
        ValidateDetections(judged, config, logs, average, problems=problems),
        ShowEpochs(logs),
    ]


def _is_loss(error: Exception) -> bool:
    """True if a collective operation failed because a worker is not there any more."""
    return isinstance(
        error,
        tf.errors.UnavailableError
        | tf.errors.AbortedError
        | tf.errors.CancelledError
        | tf.errors.DeadlineExceededError
        | tf.errors.InternalError,
    )


def _is_full(error: Exception) -> bool:
    """True if a file could not be written because there is no space. TensorFlow says so in words alone."""
    if isinstance(error, OSError):
        return error.errno in _FULL
    return any(os.strerror(number) in str(error) for number in _FULL)
