"""`unitbox export`: a run's detector as a SavedModel."""

from __future__ import annotations

import argparse
import dataclasses

from unitbox_tf import config as configs
from unitbox_tf import detector, published
from unitbox_tf import export as saved_model
from unitbox_tf.cli import decoding


def run(options: argparse.Namespace) -> int:
    """The command; returns the exit status."""
    run = published.find(options.model)
    config = configs.load(run / detector.CONFIG_FILE)
    model = detector.load_model(run, config)
    changes = decoding.changes(options, (*decoding.FIELDS, "score_threshold"))
    decode = dataclasses.replace(
        config, decode=dataclasses.replace(config.decode, **changes)
    ).decode
    saved_model.save(model, decode, config.model.class_names, options.output)
    print(f"SavedModel written to {options.output}")
    return 0
