"""Times the first call and later calls of an exported SavedModel, with and without warm-up requests.

Each measurement is a new process, which loads the SavedModel as TensorFlow Serving does. Half of the
processes first answer the requests in `assets.extra`. The two kinds take turns. Times are shown as ratios to
the median of later calls without warm-up, because absolute times depend on the machine.
"""

from __future__ import annotations

import functools
import statistics
import time
from pathlib import Path

from training.benchmarks.apart import call_apart
from training.benchmarks.turns import take_turns

STEADY = 10  # calls after the first
WARM_UP = Path("assets.extra") / "tf_serving_warmup_requests"


def benchmark(saved_model: Path, photo: Path, *, rounds: int) -> None:
    """Prints the table.

    Args:
        saved_model: folder of a SavedModel that has warm-up requests.
        photo: an image file.
        rounds: of taking turns.
    """
    if not (saved_model / WARM_UP).is_file():
        raise ValueError(f"{saved_model}: expected a SavedModel with {WARM_UP}")
    measured: dict[str, list[list[float]]] = {"without": [], "with": []}

    def one(kind: str) -> None:
        measured[kind].append(call_apart(measure, saved_model, photo, kind == "with"))

    take_turns({kind: functools.partial(one, kind) for kind in measured}, rounds)
    unit = statistics.median(time for calls in measured["without"] for time in calls[1:])
    print(f"| warm-up requests | first call | steady (median of {STEADY}) |\n|---|---|---|")
    for kind, runs in measured.items():
        first = [calls[0] / unit for calls in runs]
        steady = [statistics.median(calls[1:]) / unit for calls in runs]
        cells = (
            f"{statistics.median(v):.2f} ({min(v):.2f} to {max(v):.2f})" for v in (first, steady)
        )
        print(f"| {kind} | {' | '.join(cells)} |")


def measure(saved_model: Path, photo: Path, warm_up: bool) -> list[float]:
    """Seconds of the first call and of the steady ones, in this process."""
    import tensorflow as tf

    model = tf.saved_model.load(str(saved_model))
    if warm_up:
        from tensorflow_serving.apis import prediction_log_pb2

        for record in tf.data.TFRecordDataset(str(saved_model / WARM_UP)):
            log = prediction_log_pb2.PredictionLog.FromString(record.numpy())
            request = log.predict_log.request
            inputs = {n: tf.constant(tf.make_ndarray(v)) for n, v in request.inputs.items()}
            model.signatures[request.model_spec.signature_name](**inputs)
    encoded = tf.constant([photo.read_bytes()])
    seconds = []
    for _ in range(1 + STEADY):
        start = time.perf_counter()
        model.signatures["encoded"](encoded=encoded)["boxes"].numpy()
        seconds.append(time.perf_counter() - start)
    return seconds
