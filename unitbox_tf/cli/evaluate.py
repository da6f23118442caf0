"""`unitbox evaluate`: a detector of ours, or the detections of any other, judged by one of the protocols."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

from unitbox_tf.config import DecodeConfig
from unitbox_tf.evaluation import protocols
from unitbox_tf.evaluation.evaluate import evaluate


def run(options: argparse.Namespace) -> int:
    """The command; returns the exit status."""
    if options.curves and not options.output:
        raise ValueError("Expected --output beside --curves, as plots are files")
    found = evaluate(
        options.detector,
        options.sources,
        data=options.data,
        protocol=options.protocol,
        options=protocols.Options(**_given(options, protocols.Options)),
        present=options.present,
        output=options.output,
        **_given(options, DecodeConfig),
    )
    print(found.table())
    return 0


def _given(options: argparse.Namespace, settings: Any) -> dict[str, Any]:
    """The fields of a dataclass that the command line gives."""
    values = {
        field.name: getattr(options, field.name, None) for field in dataclasses.fields(settings)
    }
    if "scales" in values and values["scales"] is not None:
        values["scales"] = tuple(values["scales"])
    return {name: value for name, value in values.items() if value is not None}
