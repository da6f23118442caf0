"""Trains the runs of an experiment, each once and in a new process. A stopped run goes on where it was."""

from __future__ import annotations

import dataclasses
import json
import logging
import multiprocessing
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unitbox_tf import datasets, files
from unitbox_tf import runs as run_folders
from unitbox_tf.cli import signals
from unitbox_tf.config import Config, DecodeConfig

logger = logging.getLogger(__name__)

_NAMES = run_folders.Run(Path())
FINISHED = _NAMES.results.name  # written last, but for images
CONFIG = _NAMES.config_file.name
HISTORY = _NAMES.history_file.name
DIVERGED = "diverged.txt"  # instead of results: at which step, and what to do about it


def train_all(configs: Mapping[str, Config], folder: Path) -> None:
    """Trains the runs `folder/NAME` that have not ended.

    Raises:
        ValueError: a run of this name has another configuration, or its data are absent; then nothing is
            trained. Or the training of some runs failed; then the other runs are still trained.
    """
    for name, config in configs.items():
        check_same(folder / name, config)
        if not has_ended(folder / name):
            _check_sources(config)
    failed = []
    for number, (name, config) in enumerate(configs.items(), 1):
        run = folder / name
        if has_ended(run):
            continue
        settings = dataclasses.replace(config.train, output=str(folder), run=name)
        config = dataclasses.replace(config, train=settings)
        logger.info("run %d of %d: %s", number, len(configs), run)
        # A process of its own gives back the memory of its graphs, and starts from the same state.
        process = multiprocessing.get_context("spawn").Process(
            target=_train, args=(run, config), daemon=True
        )
        process.start()
        try:
            process.join()
        except KeyboardInterrupt:  # it would go on alone
            process.terminate()
            process.join()
            raise
        if process.exitcode:
            failed.append(name)
    if failed:
        raise ValueError(f"{folder}: training failed, with the messages above: {failed}")


def _check_sources(config: Config) -> None:
    """Raises `ValueError` if data that the run needs are not there."""
    for source in (*config.data.train_sources, *config.data.validation_sources):
        datasets.open(source, config.data.data)


def named(texts: Sequence[str]) -> dict[str, Path]:
    """Folders of runs, or of published detectors, by name; each is given as NAME=RUN.

    Raises:
        ValueError: a text is not of this form, or a name comes twice.
    """
    runs: dict[str, Path] = {}
    for text in texts:
        name, separator, folder = text.partition("=")
        if not (re.fullmatch(r"[\w.+-]+", name) and separator and folder):
            raise ValueError(
                f"Expected NAME=RUN, such as unshared=runs/ablation-unshared-0. Received: {text!r}"
            )
        if name in runs:
            raise ValueError(f"Expected different names of runs. Received: {list(texts)}")
        runs[name] = run_folders.find(folder)
    return runs


def is_trained(run: Path) -> bool:
    """True if the run has been trained to its end."""
    return (run / FINISHED).is_file()


def has_ended(run: Path) -> bool:
    """True if the run has been trained to its end or has diverged."""
    return is_trained(run) or (run / DIVERGED).is_file()


def check_same(run: Path, config: Config) -> None:
    """Raises `ValueError` if the run was begun with another configuration.

    Paths may differ, and so may the settings that training fills in: the names of the classes if none are asked for,
    and the score threshold.
    """
    file = run / CONFIG
    if not file.is_file():
        return
    stored = Config.from_json(file.read_text(encoding="utf-8"), str(file))

    def comparable(one: Config) -> Config:
        data = dataclasses.replace(one.data, data="")
        names = one.model.class_names if config.model.class_names else ()
        model = dataclasses.replace(one.model, weights=None, class_names=names)
        init = one.train.init and Path(one.train.init).name
        train = dataclasses.replace(
            one.train, output="", run=None, init=init, choose_threshold="auto"
        )
        decode = dataclasses.replace(one.decode, score_threshold=DecodeConfig.score_threshold)
        return dataclasses.replace(one, data=data, model=model, train=train, decode=decode)

    if comparable(stored) != comparable(config):
        raise ValueError(
            f"{file}: has another configuration than this experiment asks for; choose another --output "
            "or delete the run"
        )


def _train(run: Path, config: Config) -> None:
    """Trains one run, in its own process, from its newest checkpoint on or from the start."""
    from unitbox_tf.train import fit, state

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    received = signals.Received()
    try:
        with signals.handled(received):
            fit.fit(config, resume=run if (run / CONFIG).is_file() else None)
    except KeyboardInterrupt:
        sys.exit(received.status)
    except state.Diverged as error:  # a result, too
        run.mkdir(parents=True, exist_ok=True)  # gone where nothing was stored
        files.write(run / CONFIG, config.to_json())
        files.write(run / DIVERGED, f"{error}\n")


def history(run: Path) -> list[dict[str, Any]]:
    """The metrics of a run, a dict for each epoch; none if it diverged in its first epoch."""
    file = run / HISTORY
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else []
