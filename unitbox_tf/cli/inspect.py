"""`unitbox inspect`: what is in data sets, and what is wrong with them."""

from __future__ import annotations

import argparse

from unitbox_tf import datasets


def run(options: argparse.Namespace) -> int:
    """The command; returns the exit status."""
    print(datasets.inspect(*options.sources, data=options.data).table())
    return 0
