"""Bytes of photos to boxes, against the bare backbone in the same runtime, precision and batch.

The detector gets encoded photos of 640 x 480 px, one after the other, as an application hands them over: decoding,
resizing, network, decoding of heatmaps and suppression all count. The bare backbone gets preprocessed images of the
same size as one batch, and its maps are thrown away. Batch normalisation is folded in both where the exports fold it.
Times are those of the processors, or with a GPU those that pass.
"""

from __future__ import annotations

import functools
import importlib
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import keras
import numpy as np
import tensorflow as tf

import unitbox_tf
from training.benchmarks import parity
from training.benchmarks.apart import call_apart
from training.benchmarks.train import taps
from training.benchmarks.turns import VGA, quartiles, take_turns
from unitbox_tf import inputs, optional, registry
from unitbox_tf.datasets import multiscale
from unitbox_tf.detect.model import UnitBox
from unitbox_tf.formats import onnx, onnx_graph
from unitbox_tf.network import folding

Run = Callable[[], object]
TENSORFLOW = {"TensorFlow, float32": "float32", "TensorFlow, bfloat16": "mixed_bfloat16"}
OPENVINO = {"OpenVINO, float32": {"INFERENCE_PRECISION_HINT": "f32"}, "OpenVINO, its default": {}}
RUNTIMES = (*TENSORFLOW, "ONNX Runtime, float32", *OPENVINO)


def benchmark(
    model: str,
    *,
    runtimes: Sequence[str],
    batches: Sequence[int],
    photos: Sequence[Path],
    rounds: int,
) -> dict[str, Any]:
    """Prints the table, and returns its numbers.

    Args:
        model: the name of a published detector, or the folder of a run.
        runtimes: names in `RUNTIMES`; none given: all.
        batches: numbers of photos.
        photos: images, which are resized to VGA size; none given: drawn ones.
        rounds: of taking turns.
    """
    print(
        "| runtime | photos | bytes to boxes / backbone (quartiles) | backbone, ms |\n|---|---|---|---|"
    )
    rows = {}
    for runtime in runtimes or RUNTIMES:
        for batch in batches:
            row = call_apart(measure, model, runtime, batch, [*photos], rounds)
            rows[f"{runtime}, {batch} photos"] = row
            low, middle, high = row["ratio"]
            print(
                f"| {runtime} | {batch} | {middle:.3f} ({low:.3f} to {high:.3f}) | {row['backbone_ms']:.1f} |",
                flush=True,
            )
    return {"rows": rows}


def measure(
    model: str, runtime: str, batch: int, photos: Sequence[Path], rounds: int
) -> dict[str, Any]:
    """The ratios of a runtime."""
    keras.config.set_dtype_policy(TENSORFLOW.get(runtime, "float32"))
    given = encoded(photos, batch)
    with tempfile.TemporaryDirectory() as folder:
        network = UnitBox.from_preset(model, max_side=max(VGA))
        bare = bare_of(network, runtime, batch, Path(folder))
        find = detector_of(network, runtime, Path(folder))
        variants: dict[str, Run] = {
            "backbone": bare,
            "boxes": lambda: [find(photo) for photo in given],
        }
        for run in variants.values():
            run()
        has_gpu = bool(tf.config.list_physical_devices("GPU"))
        seconds = take_turns(variants, rounds, time.perf_counter if has_gpu else time.process_time)
    return {
        "ratio": quartiles(seconds["boxes"], seconds["backbone"]),
        "backbone_ms": 1000 * float(np.median(seconds["backbone"])),
    }


def encoded(photos: Sequence[Path], count: int) -> list[bytes]:
    """So many JPEG files of VGA size."""
    found = []
    for number in range(count):
        image = (
            inputs.read_image(photos[number % len(photos)])
            if photos
            else inputs.read_image(multiscale.draw(number, max(VGA)).encoded())
        )
        found.append(tf.io.encode_jpeg(cv2.resize(image, VGA)).numpy())
    return found


def detector_of(network: UnitBox, runtime: str, folder: Path) -> Callable[[bytes], object]:
    """The detector in a runtime, for encoded images."""
    if runtime in TENSORFLOW:
        return network.detector()
    path = folder / "detector.onnx"
    registry.FORMATS["onnx"].save(network, path, decode=network.decode)
    if runtime in OPENVINO:
        find = parity.open_openvino(path, OPENVINO[runtime])
        return lambda photo: find(inputs.read_image(photo))
    return unitbox_tf.load(path)


def bare_of(network: UnitBox, runtime: str, batch: int, folder: Path) -> Run:
    """The bare backbone of a network in a runtime, with a batch of preprocessed images."""
    width, height = VGA
    images = np.random.default_rng(0).uniform(0, 1, (batch, height, width, 3)).astype(np.float32)
    if runtime in TENSORFLOW:
        model, given = taps(network), tf.constant(images)
        run = tf.function(lambda: keras.tree.flatten(model(given, training=False))[-1])
        return lambda: run().numpy()
    model = folding.folded(taps(network))
    path = folder / "backbone.onnx"
    _write_onnx(model, path)
    if runtime in OPENVINO:
        openvino = importlib.import_module("openvino")
        compiled = openvino.Core().compile_model(path, "CPU", dict(OPENVINO[runtime]))
        return functools.partial(compiled, {"images": images})
    onnxruntime = optional.load("onnxruntime", "onnx", "the bare backbone")
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # as `formats.onnx`
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return functools.partial(session.run, None, {"images": images})


def _write_onnx(model: keras.Model, path: Path) -> None:
    convert = importlib.import_module("tf2onnx.convert")
    spec = tf.TensorSpec([None, None, None, 3], tf.float32, "images")
    run = tf.function(lambda images: keras.tree.flatten(model(images, training=False)))
    function = tf.function(run, input_signature=[spec])
    proto, _ = convert.from_function(function, input_signature=[spec], opset=onnx.OPSET)
    onnx_graph.state_padding(proto.graph)
    path.write_bytes(proto.SerializeToString())
