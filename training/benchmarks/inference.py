"""Times detectors in turns on one image in memory, from the array to its boxes.

Each detector is opened as `unitbox_tf.load` opens it, so its settings of decoding, its threads and its suppression are
those that an application gets. With --yunet, OpenCV's `FaceDetectorYN` takes turns with them, and is the base of the
ratios; else the first detector is. With --processors, the time of all processors together counts in place of the time
that passes: on a machine with other programs, only this is steady. With --operators, ONNX Runtime says how long each
kind of operator took in a file, on one thread, in the fastest fifth of the rounds.
"""

from __future__ import annotations

import collections
import functools
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

import unitbox_tf
from training.benchmarks.turns import VGA, quartiles, take_turns
from unitbox_tf import inputs, optional

YUNET = "YuNet (OpenCV)"


def benchmark(
    models: Sequence[str],
    *,
    yunet: Path | None,
    photo: Path | None,
    threads: int,
    processors: bool,
    operators: bool,
    rounds: int,
) -> dict[str, Any]:
    """Prints the table, and returns its numbers.

    Args:
        models: detectors as `unitbox_tf.load` takes them.
        yunet: the ONNX file of YuNet.
        photo: an image, which is resized to 640 x 480; without it, noise.
        threads: of OpenCV.
        processors: True takes the time of processors, not the time that passes.
        operators: True also prints the time of operators in ONNX files.
        rounds: of taking turns.
    """
    cv2.setNumThreads(threads)
    if photo:
        image = cv2.resize(inputs.read_image(photo), VGA)
    else:
        image = np.random.default_rng(0).integers(0, 256, (*VGA[::-1], 3), np.uint8)
    variants: dict[str, Callable[[], object]] = {}
    if yunet:
        detector = cv2.FaceDetectorYN.create(str(yunet), "", VGA)
        variants[YUNET] = functools.partial(detector.detect, image[..., ::-1].copy())
    for model in models:
        variants[model] = functools.partial(unitbox_tf.load(model), image)
    for find in variants.values():
        find()  # makes graphs and memory
    clock = time.process_time if processors else time.perf_counter
    seconds = take_turns(variants, rounds, clock)
    base = seconds[next(iter(variants))]
    rows: dict[str, Any] = {}
    print(
        "| detector | ms, fastest | ms, median | time by that of the first (quartiles) |\n|---|---|---|---|"
    )
    for name, values in seconds.items():
        low, middle, high = quartiles(values, base)
        fastest, median = 1000 * min(values), 1000 * float(np.median(values))
        print(f"| {name} | {fastest:.1f} | {median:.1f} | {middle:.2f} ({low:.2f} to {high:.2f}) |")
        rows[name] = {"fastest_ms": fastest, "median_ms": median, "ratio": [low, middle, high]}
    for model in models if operators else ():
        if model.endswith(".onnx"):
            rows[model]["operators_ms"] = times = operator_times(Path(model), image, rounds)
            print(f"\n{model}: {sum(times.values()):.2f} ms in operators on one thread")
            for kind, each in times.items():
                print(f"  {each:7.3f} ms {kind}")
    return {"rows": rows}


def operator_times(path: Path, image: np.ndarray, rounds: int) -> dict[str, float]:
    """Milliseconds by kind of operator, the slowest first: of each operator, the first quintile of all rounds."""
    onnxruntime = optional.load("onnxruntime", "onnx", f"{path}: opening it")
    options = onnxruntime.SessionOptions()
    options.enable_profiling, options.intra_op_num_threads, options.log_severity_level = True, 1, 4
    with tempfile.TemporaryDirectory() as folder:
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        for _ in range(rounds):
            session.run(None, {"images": image[None]})
        events = json.loads(Path(session.end_profiling()).read_text())
    by_node: dict[tuple[str, str], list[float]] = collections.defaultdict(list)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("kernel_time"):
            by_node[event["args"]["op_name"], event["name"]].append(event["dur"] / 1000)
    kinds: dict[str, float] = collections.defaultdict(float)
    for (kind, _), times in by_node.items():
        if kind != "If":  # holds the others
            kinds[kind] += float(np.percentile(times, 20))
    return dict(sorted(kinds.items(), key=lambda item: -item[1]))
