"""`unitbox inspect`: the contents of data sets, and their problems."""

from __future__ import annotations

import argparse

from unitbox_tf import datasets
from unitbox_tf.cli import output


def run(options: argparse.Namespace) -> int:
    """Runs the command, and returns the exit status."""
    found = datasets.inspect(
        *options.sources, classes=options.classes, rename=options.rename, data=options.data
    )
    output.show(found.to_dict(), found.table())
    return 0
