"""`unitbox export`: a detector as a file for applications."""

from __future__ import annotations

import argparse

from unitbox_tf import formats
from unitbox_tf.cli import options as cli_options
from unitbox_tf.cli import output
from unitbox_tf.problems import Problems


def run(options: argparse.Namespace) -> int:
    """Runs the command, and returns the exit status."""
    written = formats.export(
        options.model,
        options.output,
        format=options.format,
        calibration=options.calibration or (),
        problems=Problems(),  # which logs them
        **cli_options.decoding(options),
    )
    form = formats.format_of(written, options.format).name
    output.show({"output": written, "format": form}, f"written: {written}")
    return 0
