"""Training, from a configuration to a folder that holds everything about the run. `fit` reads top to bottom."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from unitbox_tf import datasets, images, inputs, losses, registry, runs, visualize
from unitbox_tf.config import Config, TrainConfig
from unitbox_tf.detect import detector
from unitbox_tf.evaluation import matching
from unitbox_tf.evaluation.results import Results
from unitbox_tf.formats import saved_model
from unitbox_tf.network import model as models
from unitbox_tf.problems import Problems
from unitbox_tf.records import Annotation
from unitbox_tf.train import pipeline
from unitbox_tf.train.callbacks import (
    StopOnNaN,
    StoreRun,
    ValidateDetections,
    chosen_by,
    inner_optimizer,
    lowest_score,
    validation_judge,
)
from unitbox_tf.train.optimizers import CoupledSGD

logger = logging.getLogger(__name__)

PICTURES = 24  # in detections.jpg


@dataclasses.dataclass(frozen=True)
class Run:
    """A run that has ended.

    Attributes:
        folder: holds `config.json`, `history.json` and `.png`, `best.weights.h5`, `last.keras`,
            `saved_model/`, `results.json`, `detections.jpg`, `problems.txt` and `tensorboard/`.
        results: for each decoder what `matching.summarize` says of the best weights on all
            validation photos, and the figures of the validation protocol, as `fddb_discrete`.
        history: logs, a dict an epoch.
        problems: what could not be used.
    """

    folder: Path
    results: dict[str, dict[str, float]]
    history: list[dict[str, Any]]
    problems: Problems


def fit(config: Config, name: str = "run", resume: Path | None = None) -> Run:
    """Trains, and stores everything in a folder below `config.train.output`.

    Ctrl-C ends training early: what was learned is stored, judged and exported as at the end.

    Args:
        config: what to do.
        name: start of the folder's name where the configuration gives none.
        resume: the folder of an earlier run to go on with: its weights, optimiser and epoch.

    Raises:
        ValueError: the configuration asks for what is not there: data, weights, a GPU, a run.
    """
    with _hardware(config.train) as jit:
        problems = Problems()
        data, names = config.data, config.model.class_names
        train = datasets.load(data.train_sources, data.data, problems, names)
        validation = datasets.load(data.validation_sources, data.data, problems, names)
        problems.log_counts()
        logger.info("%d training photos, %d validation photos", len(train), len(validation))
        validation_judge(validation, config, problems)  # before anything is made: what it lacks

        model = _model(config, resume)
        _compile(model, config, jit)
        run = resume or _new_folder(config.train, name)
        history = _restore(model, run) if resume else []
        (run / runs.CONFIG_FILE).write_text(config.to_json(), encoding="utf-8")

        store = StoreRun(run, history, config.train.validation_protocol)
        try:
            _fit(model, config, train, validation, store, run, problems)
        except tf.errors.InvalidArgumentError as error:
            if problems.counts[images.UNDECODABLE] < len(train):
                raise
            raise ValueError(
                f"none of the {len(train)} training photos can be decoded; the first: {problems.found[0]}"
            ) from error
        except KeyboardInterrupt:
            logger.warning("Interrupted: storing what was learned. Go on with --resume %s", run)
            store.store_last()
    return _finish(config, run, validation, store.history, problems)


def _fit(
    model: keras.Model,
    config: Config,
    train: Sequence[Annotation],
    validation: Sequence[Annotation],
    store: StoreRun,
    run: Path,
    problems: Problems,
) -> None:
    # Keras warns of what is meant: data sets shuffle themselves, and photos that cannot be decoded
    # make their number unknown beforehand.
    warnings.filterwarnings("ignore", "`shuffle=True` was passed", UserWarning)
    warnings.filterwarnings("ignore", "Your input ran out of data", UserWarning)
    settings, num_classes = config.train, len(config.model.class_names)
    equal_objects = config.loss.reduction == "object_mean"
    epochs_done = len(store.history)
    watched = ValidateDetections(validation, config, run / "tensorboard", problems)
    model.fit(
        pipeline.training_dataset(
            train,
            config.data,
            num_classes=num_classes,
            equal_objects=equal_objects,
            batch_size=settings.batch_size,
            seed=settings.seed,
            problems=problems,
            start=epochs_done * settings.steps_per_epoch * settings.batch_size,
        ),
        validation_data=pipeline.validation_dataset(
            watched.annotations,
            config.data,
            size=config.decode.max_side,
            num_classes=num_classes,
            equal_objects=equal_objects,
            batch_size=settings.batch_size,
            problems=Problems(),  # a broken photo is reported where detections are judged
        ),
        initial_epoch=epochs_done,
        epochs=settings.epochs,
        steps_per_epoch=settings.steps_per_epoch,
        callbacks=[
            watched,
            keras.callbacks.TensorBoard(run / "tensorboard", write_graph=False),
            StopOnNaN(),
            store,
        ],
        verbose=1 if sys.stdout.isatty() else 2,
    )


@contextlib.contextmanager
def _hardware(settings: TrainConfig) -> Iterator[bool | str]:
    """Chooses device and precision for the hardware while in the context, which gives Keras' `jit_compile`."""
    gpus = tf.config.list_physical_devices("GPU")
    if settings.device == "gpu" and not gpus:
        raise ValueError(
            "device='gpu', but TensorFlow sees none. Install with pip install 'unitbox_tf[gpu]' "
            "and check the driver with nvidia-smi, or train with --device cpu."
        )
    if settings.device == "cpu" and gpus:
        tf.config.set_visible_devices([], "GPU")
        gpus = []
    try:
        for gpu in gpus:
            tf.config.experimental.set_memory_growth(gpu, True)
    except RuntimeError:  # TensorFlow is in use already, as in a notebook
        logger.warning("TensorFlow has started: it keeps all memory of the GPU")
    precision = best_precision(gpus) if settings.precision == "auto" else settings.precision
    jit: bool | str = settings.jit == "on"
    if jit and precision == "mixed_bfloat16":
        raise ValueError(
            "XLA cannot compile the gradient of VGG-16's ReLU in bfloat16. Expected --jit off, or "
            "--precision float32 beside --jit on."
        )
    if settings.jit == "auto":
        # It also slows VGG-16 on CPUs.
        jit = "auto" if gpus and precision != "mixed_bfloat16" else False
    logger.info("%s, %s", f"{len(gpus)} GPU" if gpus else "CPU", precision)
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)
    try:
        yield jit
    finally:
        keras.config.set_dtype_policy(before)


def best_precision(gpus: Sequence[Any]) -> str:
    """The fastest Keras dtype policy that the hardware computes natively."""
    if not gpus:
        try:
            flags = Path("/proc/cpuinfo").read_text()
        except OSError:
            flags = ""
        return "mixed_bfloat16" if "avx512_bf16" in flags or "amx_bf16" in flags else "float32"
    details = tf.config.experimental.get_device_details(gpus[0])
    major = details.get("compute_capability", (0, 0))[0]
    return "mixed_bfloat16" if major >= 8 else "mixed_float16" if major >= 7 else "float32"


def _model(config: Config, resume: Path | None) -> keras.Model:
    """The network with the weights that training starts from; a resumed run gets its own from its checkpoint."""
    if config.train.init and not resume:
        # Of the other run only weights are taken: this configuration is to fit them.
        return detector.load_model(Path(config.train.init), config, seed=config.train.seed)
    model_config = dataclasses.replace(config.model, weights=None) if resume else config.model
    return models.unitbox(model_config, seed=config.train.seed)


def _compile(model: keras.Model, config: Config, jit: bool | str) -> None:
    # The pixels' weights make the difference between "mean" and "object_mean".
    reduction = "sum" if config.loss.reduction == "sum" else "mean_with_sample_weight"
    options: dict[str, Any] = {} if config.loss.alpha == 1 else {"alpha": config.loss.alpha}
    distance_loss = registry.LOSSES[config.loss.distance_loss](reduction=reduction, **options)
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


def optimizer(settings: TrainConfig) -> keras.optimizers.Optimizer:
    """The optimiser with its learning rate schedule."""
    rate: Any = settings.learning_rate
    if settings.schedule == "cosine":
        steps = settings.epochs * settings.steps_per_epoch
        warmup_steps = int(settings.warmup * steps)
        rate = keras.optimizers.schedules.CosineDecay(
            0.0 if warmup_steps else rate,
            decay_steps=steps - warmup_steps,
            warmup_target=rate if warmup_steps else None,
            warmup_steps=warmup_steps,
        )
    if settings.optimizer == "adam":
        return keras.optimizers.Adam(rate, global_clipnorm=settings.clip_norm)
    return CoupledSGD(
        rate,
        momentum=settings.momentum,
        coupled_weight_decay=settings.weight_decay,
        global_clipnorm=settings.clip_norm,
    )


def _new_folder(settings: TrainConfig, name: str) -> Path:
    folder = Path(settings.output) / (settings.run or f"{name}-{time.strftime('%Y%m%d-%H%M%S')}")
    if folder.exists():
        raise ValueError(
            f"{folder} exists already. Choose another --run, or go on with it: --resume {folder}"
        )
    folder.mkdir(parents=True)
    return folder


def _restore(model: keras.Model, run: Path) -> list[dict[str, Any]]:
    """Gives `model` the weights and the optimiser of `run`; returns the logs of its finished epochs."""
    path = run / runs.LAST_FILE
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
    history_file = run / "history.json"
    history = json.loads(history_file.read_text(encoding="utf-8")) if history_file.is_file() else []
    # A run that was interrupted within an epoch does that epoch again, with its learning rates.
    iterations = inner_optimizer(model.optimizer).iterations
    history = [row for row in history if row["iterations"] <= int(iterations)]
    iterations.assign(history[-1]["iterations"] if history else 0)
    return history


def _finish(
    config: Config,
    run: Path,
    validation: Sequence[Annotation],
    history: list[dict[str, Any]],
    problems: Problems,
) -> Run:
    """Exports the best weights, judges them with each decoder, and draws: what matters most comes first."""
    model, names = detector.load_model(run, config), config.model.class_names
    card = runs.model_card(run, config)
    saved_model.save(model, config.decode, names, run / runs.SAVED_MODEL_FOLDER, card)
    results, pictures = {}, []
    protocol = config.train.validation_protocol
    for decoder in ("peaks", "ellipse"):
        decode = dataclasses.replace(
            config.decode, decoder=decoder, score_threshold=lowest_score(config.decode)
        )
        judged = detector.from_model(model, dataclasses.replace(config, decode=decode))
        detections, annotations = detector.detect_annotated(judged, validation, problems)
        results[decoder] = matching.summarize(detections, annotations)
        if protocol != "summary":
            judge = validation_judge(annotations, config, problems)
            figures = judge(Results.of(detections)).figures
            results[decoder] |= {f"{protocol}_{name}": value for name, value in figures.items()}
        if decoder == config.decode.decoder:
            pictures = [
                visualize.draw_truth(
                    inputs.read_image(annotation.encoded()),
                    annotation.boxes,
                    annotation.ignore,
                    found.above(config.decode.score_threshold),
                    names,
                )
                for found, annotation in zip(detections, annotations[:PICTURES], strict=False)
            ]
    matching.save(results, run / "results.json")
    problems.save(run / "problems.txt")
    if history:
        visualize.save_history(history, run / "history.png", chosen_by(protocol))
    if pictures:
        images.save_image(visualize.tile(pictures, 6), run / "detections.jpg")
    return Run(run, results, history, problems)
