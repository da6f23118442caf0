"""`unitbox evaluate`: judges a detector, or a file of detections, by one of the protocols."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

from unitbox_tf.cli import options as cli_options
from unitbox_tf.cli import output
from unitbox_tf.evaluation import protocols
from unitbox_tf.evaluation.evaluate import evaluate
from unitbox_tf.evaluation.outcome import Evaluation


def run(options: argparse.Namespace) -> int:
    """Runs the command, and returns the exit status.

    Raises:
        argparse.ArgumentTypeError: options do not go together.
    """
    if options.curves and not options.output:
        raise argparse.ArgumentTypeError("Expected --output beside --curves, as plots are files")
    names = [field.name for field in dataclasses.fields(protocols.Options)]
    given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    chosen = protocols.Options(**given)
    try:
        protocols.check_options(options.protocol, chosen)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    found = evaluate(
        options.detector,
        options.sources,
        classes=options.classes,
        rename=options.rename,
        data=options.data,
        protocol=options.protocol,
        options=chosen,
        present=options.present,
        output=options.output,
        trust=options.trust,
        **cli_options.decoding(options),
    )
    result, text = found.to_dict(), found.table()
    if options.output is not None:
        result["output"] = options.output
        text += f"\n\n{_written(options.output, found)}"
    output.show(result, text)
    return 0


def _written(folder: Path, found: Evaluation) -> str:
    """The files of `--output`, in words."""
    parts = ", ".join(f"{label}/" for label in found.judged)
    return f"written to {folder}: results.json, and detections and curves in {parts}"
