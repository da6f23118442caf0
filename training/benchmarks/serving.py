r"""First call and steady calls of an exported SavedModel, with its warm-up requests answered before and not.

    python training/benchmark_serving.py SAVED_MODEL photo.jpg

Each measurement is a process of its own, which loads the SavedModel as TensorFlow Serving does and, in
half of them, first answers the requests in `assets.extra`. The two kinds take turns. Times are shown
as ratios to the steady median without warm-up: an absolute time is that of the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from training.benchmarks.turns import take_turns

STEADY = 10  # calls after the first
WARM_UP = Path("assets.extra") / "tf_serving_warmup_requests"


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("saved_model", type=Path)
    parser.add_argument("photo", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--measure", choices=["with", "without"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(arguments)))
        return
    if not (arguments.saved_model / WARM_UP).is_file():
        parser.exit(1, f"{arguments.saved_model}: expected a SavedModel with {WARM_UP}\n")
    measured: dict[str, list[list[float]]] = {"without": [], "with": []}

    def one(kind: str) -> None:
        command = [sys.executable, __file__, *sys.argv[1:], "--measure", kind]
        result = subprocess.run(command, check=True, capture_output=True, text=True)
        measured[kind].append(json.loads(result.stdout.splitlines()[-1]))

    take_turns({kind: lambda kind=kind: one(kind) for kind in measured}, arguments.rounds)  # type: ignore[misc]
    unit = statistics.median(time for calls in measured["without"] for time in calls[1:])
    print(f"| warm-up requests | first call | steady (median of {STEADY}) |\n|---|---|---|")
    for kind, runs in measured.items():
        first = [calls[0] / unit for calls in runs]
        steady = [statistics.median(calls[1:]) / unit for calls in runs]
        cells = (
            f"{statistics.median(v):.2f} ({min(v):.2f} to {max(v):.2f})" for v in (first, steady)
        )
        print(f"| {kind} | {' | '.join(cells)} |")


def measure(arguments: argparse.Namespace) -> list[float]:
    """Seconds of the first call and of the steady ones, in this process."""
    import tensorflow as tf

    model = tf.saved_model.load(str(arguments.saved_model))
    if arguments.measure == "with":
        from tensorflow_serving.apis import prediction_log_pb2

        for record in tf.data.TFRecordDataset(str(arguments.saved_model / WARM_UP)):
            request = prediction_log_pb2.PredictionLog.FromString(
                record.numpy()
            ).predict_log.request
            inputs = {n: tf.constant(tf.make_ndarray(v)) for n, v in request.inputs.items()}
            model.signatures[request.model_spec.signature_name](**inputs)
    photo = tf.constant([arguments.photo.read_bytes()])
    seconds = []
    for _ in range(1 + STEADY):
        start = time.perf_counter()
        model.signatures["encoded"](encoded=photo)["boxes"].numpy()
        seconds.append(time.perf_counter() - start)
    return seconds


if __name__ == "__main__":
    main()
