"""`unitbox fit`: training. Its options are the fields of the configuration."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

from unitbox_tf import config as configs
from unitbox_tf import runs
from unitbox_tf.cli import options as cli_options
from unitbox_tf.cli import output, signals
from unitbox_tf.cli.parser import DEFAULT_PRESET, GROUPS
from unitbox_tf.presets import PRESETS


def configuration(options: argparse.Namespace) -> tuple[str, configs.Config]:
    """The configuration by the options of `unitbox fit`, and the start of the run's name.

    With `--init` and without a preset, settings start from those of that run or published detector.

    Raises:
        ValueError: a configuration file, or the configuration of the run to resume, cannot be used.
        argparse.ArgumentTypeError: settings do not go together, or a source has an unknown format.
    """
    given = cli_options.given(options, configs.DataConfig)
    for field in ("train_sources", "validation_sources"):
        for text in given.get(field, ()):
            cli_options.source(text)
    if options.resume:
        run_ = runs.Run(options.resume)
        if not run_.exists:
            raise ValueError(
                f"{run_.config_file}: no such file. Expected the folder of a run to resume."
            )
        name, config = options.resume.name, run_.config()
    elif options.config:
        name, config = options.config.stem, configs.load(options.config)
    elif options.preset is None and (start := _of_init(options)):
        name, config = start
    else:
        name = options.preset or DEFAULT_PRESET
        config = PRESETS[name]
    try:
        changed = {
            group: dataclasses.replace(getattr(config, group), **cli_options.given(options, cls))
            for group, cls in GROUPS.items()
        }
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return name, _keep_threshold(configs.Config(**changed), options)


def _keep_threshold(config: configs.Config, options: argparse.Namespace) -> configs.Config:
    """`config`, in which training does not choose the score threshold if `--score-threshold` is given."""
    set_by_user = "score_threshold" in cli_options.given(options, configs.DecodeConfig)
    if set_by_user and getattr(options, "choose_threshold", "auto") == "auto":
        train = dataclasses.replace(config.train, choose_threshold="off")
        return dataclasses.replace(config, train=train)
    return config


def _of_init(options: argparse.Namespace) -> tuple[str, configs.Config] | None:
    """The name and the settings of the run or published detector `--init`; None if there are none.

    The classes are those of the training data, unless they are named. The score threshold is that of a new run.
    """
    init = cli_options.given(options, configs.TrainConfig).get("init")
    found = runs.Run.find(cli_options.detector(init)) if init else None
    if found is None or not found.exists:
        return None
    config = found.config()
    names, fresh = configs.ModelConfig().class_names, configs.DecodeConfig()
    # These belong to the data of that run.
    of_data = ("classes", "rename", "shared_images", "absent_classes")
    unset = {field: getattr(configs.DataConfig(), field) for field in of_data}
    config = dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, **unset),
        model=dataclasses.replace(config.model, class_names=names),
        train=dataclasses.replace(config.train, run=None, choose_threshold="auto"),
        decode=dataclasses.replace(config.decode, score_threshold=fresh.score_threshold),
    )
    return found.folder.name, config


def run(options: argparse.Namespace) -> int:
    """Runs the command, and returns the exit status."""
    name, config = configuration(options)
    if config.train.init and not options.resume:
        cli_options.check_detector(cli_options.detector(config.train.init))

    from unitbox_tf.train import fit

    done = fit.fit(config, name=name, resume=options.resume)
    result = {
        "run": done.folder,
        "saved_model": _exported(done),
        "results": done.results,
        "score_threshold": done.model.decode.score_threshold,
        "problems": dict(done.problems.counts),
        "interrupted": done.interrupted,
        "stopped_early": done.stopped_early,
        "taken": None if done.taken is None else str(done.taken),
    }
    is_worker = not done.results  # and not the chief
    text = (
        f"\nThe first worker stores the run: {done.folder}"
        if is_worker
        else _described(done, config.train.validation_protocol)
    )
    output.show(result, text)
    return signals.INTERRUPTED if done.interrupted else 0


def _exported(done: Any) -> Path | None:
    """The exported model; None if the decoder of the run cannot be exported."""
    path = runs.Run(done.folder).saved_model
    return path if path.exists() else None


def _described(done: Any, protocol: str) -> str:
    """A run that has ended, in words."""
    from unitbox_tf.evaluation import protocols
    from unitbox_tf.evaluation.outcome import table

    titles = "; ".join(protocols.TITLES[name] for name in dict.fromkeys(["summary", protocol]))
    counts = ", ".join(f"{count} x {kind}" for kind, count in done.problems.counts.items())
    files = runs.Run(done.folder)
    curves = f"{files.curves}, or: " if files.curves.exists() else ""
    early = {"stopped early": f"after {len(done.history)} epochs"} if done.stopped_early else {}
    facts = {
        "run": done.folder,
        **early,
        "score threshold": f"{done.model.decode.score_threshold:g}",
        "exported model": _exported(done) or "none",
        "images": files.pictures,
        "curves": f"{curves}tensorboard --logdir {done.folder}",
        "problems": f"{counts} (see {files.problems.name})" if counts else "none",
        "detect": f"unitbox detect {done.folder} IMAGE... --output found",
    }
    lines = [f"{title:>15}  {fact}" for title, fact in facts.items()]
    return "\n".join([f"\nOn the validation images: {titles}\n", table(done.results), "", *lines])
