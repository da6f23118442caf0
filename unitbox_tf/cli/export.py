"""`unitbox export`: a detector as a file for applications."""

from __future__ import annotations

import argparse

from unitbox_tf import formats
from unitbox_tf.cli import options as cli_options
from unitbox_tf.cli import output
from unitbox_tf.problems import Problems


def run(options: argparse.Namespace) -> int:
    """Runs the command, and returns the exit status.

    Raises:
        argparse.ArgumentTypeError: options do not go together.
    """
    try:
        form = formats.format_of(options.output, options.format)
        formats.check_calibration(form, len(options.calibration or ()))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    written = formats.export(
        options.model,
        options.output,
        format=options.format,
        calibration=options.calibration or (),
        problems=Problems(),  # which logs them
        **cli_options.decoding(options),
    )
    output.show({"output": written, "format": form.name}, f"written: {written} ({form.name})")
    return 0
