"""`unitbox export`: a detector as a file for applications."""

from __future__ import annotations

import argparse

from unitbox_tf import formats
from unitbox_tf.cli import decoding
from unitbox_tf.problems import Problems


def run(options: argparse.Namespace) -> int:
    """The command; returns the exit status."""
    changes = decoding.changes(options, ("decoder", *decoding.FIELDS, "score_threshold"))
    written = formats.export(
        options.model,
        options.output,
        format=options.format,
        calibration=options.calibration or (),
        problems=Problems(),  # which logs them
        **changes,
    )
    print(f"written: {written}")
    return 0
