"""`unitbox inspect`: a look at data sets before training."""

from __future__ import annotations

import argparse
import dataclasses

from unitbox_tf import config as configs
from unitbox_tf import inspection
from unitbox_tf.cli import options as cli_options
from unitbox_tf.cli import output
from unitbox_tf.presets import PRESETS


def configuration(options: argparse.Namespace) -> configs.Config:
    """The settings by which sizes are judged, by the options of `unitbox inspect`.

    Raises:
        ValueError: a configuration file cannot be used.
        argparse.ArgumentTypeError: settings do not go together.
    """
    config = configs.load(options.config) if options.config else PRESETS[options.preset]
    data = cli_options.given(options, configs.DataConfig)
    data.pop("data", None)  # given on its own
    decode = cli_options.given(options, configs.DecodeConfig)
    try:
        return dataclasses.replace(
            config,
            data=dataclasses.replace(config.data, **data),
            decode=dataclasses.replace(config.decode, **decode),
        )
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def run(options: argparse.Namespace) -> int:
    """Runs the command, and returns the exit status."""
    found = inspection.inspect(
        *options.sources,
        validation=options.validation,
        config=configuration(options),
        data=options.data,
        pixels=not options.quick,
        output=options.output,
    )
    text = found.table()
    if options.output:
        text += f"\n\npage: {options.output / 'index.html'}"
    output.show(found.to_dict(), text)
    return 0
