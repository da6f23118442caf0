"""`unitbox fit`: training. Its options are the fields of the configuration."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path

import tyro

from unitbox_tf import config as configs
from unitbox_tf import presets

DEFAULT_PRESET = "smoke"


@dataclasses.dataclass(frozen=True)
class FitOptions:
    """Trains a detector: unitbox fit [PRESET] [--field value ...].

    PRESET is smoke (the default: synthetic pictures, minutes), faces, paper or paper_l2. Each field
    of its configuration can be changed; defaults shown are those of the preset.
    """

    config: configs.Config
    resume: Path | None = None  # folder of an earlier run to go on with, with its configuration


def parse_fit(arguments: Sequence[str]) -> tuple[str, FitOptions]:
    """The name of the preset and the options in the arguments of `unitbox fit`.

    Raises:
        ValueError: the preset is unknown, or the run to resume has no configuration.
        SystemExit: a field is unknown or its value unusable; a message has been printed.
    """
    name, rest = DEFAULT_PRESET, list(arguments)
    if rest and not rest[0].startswith("-"):
        name = rest.pop(0)
    if name not in presets.PRESETS:
        raise ValueError(f"Unknown preset {name!r}. Expected one of {list(presets.PRESETS)}.")
    default = presets.PRESETS[name]
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    early.add_argument("--resume", type=Path)
    resume = early.parse_known_args(rest)[0].resume
    if resume is not None:
        if len(rest) < len(arguments):
            raise ValueError(
                f"Expected a preset or --resume, which has its own configuration, not both: {name!r}"
            )
        file = resume / "config.json"
        if not file.is_file():
            raise ValueError(f"{file}: no such file. Expected the folder of a run to resume.")
        default = configs.load(file)
    options = tyro.cli(
        FitOptions,
        args=rest,
        prog="unitbox fit [PRESET]",
        default=FitOptions(config=default),
        config=(tyro.conf.OmitArgPrefixes,),
    )
    return name, options


def run(arguments: Sequence[str]) -> int:
    """The command with its arguments; returns the exit status."""
    name, options = parse_fit(arguments)

    from unitbox_tf.cli.evaluate import table
    from unitbox_tf.evaluation import protocols
    from unitbox_tf.train import fit

    done = fit.fit(options.config, name=name, resume=options.resume)
    names = dict.fromkeys(["summary", options.config.train.validation_protocol])
    titles = "; ".join(protocols.TITLES[name] for name in names)
    print(f"\nOn the validation photos: {titles}\n\n{table(done.results)}\n")
    counts = ", ".join(f"{count} x {kind}" for kind, count in done.problems.counts.items())
    for title, what in (
        ("run", done.folder),
        ("exported model", done.folder / "saved_model"),
        ("pictures", done.folder / "detections.jpg"),
        ("curves", f"{done.folder / 'history.png'}, or: tensorboard --logdir {done.folder}"),
        ("left out", f"{counts} (see problems.txt)" if counts else "nothing"),
        ("detect", f"unitbox detect {done.folder} PHOTO... --output found"),
    ):
        print(f"{title:>15}  {what}")
    return 0
