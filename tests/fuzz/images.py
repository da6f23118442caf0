"""Gives damaged images to a detector, in a process that is watched.

    python -m tests.fuzz.images --inputs 100000 --seed 1 [--output FOLDER]

Each input is decoded by TensorFlow and by Pillow, and then searched. Every fourth is also given as a PIL image, and
every sixteenth to the graph of exports, which takes ten times as long. The contract: an error of ours, or detections
inside the image; no crash, no hang, and no memory above the bound. Inputs that break it are written into the folder,
with the reason in their names. The network is tiny, since it does not matter here.
"""

import argparse
import dataclasses
import io
import json
import os
import resource
import struct
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path

from tests.fuzz import mutation

MAX_PIXELS = 1 << 20
SECONDS = 60  # in which an input is finished; most take milliseconds, but machines are shared
GROWTH = (
    200 << 20
)  # bytes above the peak after the warm-up; an image of `MAX_PIXELS` takes some 30 MB
STARTING = 30  # times as long may a process take to start
WARM_UP = 200  # inputs
SAVED_EVERY = 100  # inputs, after which a process that ends or hangs has said what it found
EVERY = {"TensorFlow": 1, "Pillow": 1, "PIL image": 4, "graph": 16}  # inputs that go each way
ROOT = Path(__file__).parents[2]


@dataclasses.dataclass
class Report:
    """The outcome of a run.

    Attributes:
        inputs: the number of inputs.
        outcomes: how many decodings ended in which way, by the name of the way and the outcome.
        findings: number and reason of each input that broke the contract.
        seconds: time of the slowest input.
        growth: bytes by which the peak of memory grew after the warm-up.
    """

    inputs: int
    outcomes: Counter
    findings: list[tuple[int, str]]
    seconds: float = 0.0
    growth: int = 0


def run(inputs: int, seed: int, output: Path | None = None) -> Report:
    """Runs processes until all inputs are done. One that crashes or hangs is followed by another."""
    report = Report(inputs, Counter(), [])
    corpus = list(mutation.seeds().values())
    first = 0
    while first < inputs:
        first = _watch(first, inputs, seed, report)
    for number, reason in report.findings:
        if output is not None:
            output.mkdir(parents=True, exist_ok=True)
            name = f"{seed}-{number}-{reason[:40]}".replace("/", "_").replace(" ", "_")
            (output / name).write_bytes(mutation.mutated(corpus, seed, number))
    return report


def command(*arguments: str) -> list[str]:
    """The command of a process that is watched."""
    return [sys.executable, "-m", "tests.fuzz.images", "--child", *arguments]


def _watch(first: int, inputs: int, seed: int, report: Report) -> int:
    """Watches a process from input `first` on, and returns the number of the first that is left."""
    with tempfile.TemporaryDirectory() as folder:
        progress, result = Path(folder, "progress"), Path(folder, "result")
        progress.write_bytes(struct.pack("q", first))
        arguments = [str(first), str(inputs), str(seed), str(progress), str(result)]
        with Path(folder, "errors").open("w+b") as errors:
            child = subprocess.Popen(
                command(*arguments),
                cwd=ROOT,
                stderr=errors,
                stdin=subprocess.DEVNULL,
            )
            at, since = first, time.monotonic()
            started = False
            try:
                while child.poll() is None:
                    time.sleep(0.1)
                    (now,) = struct.unpack("q", progress.read_bytes())
                    started |= now != first
                    if now != at:
                        at, since = now, time.monotonic()
                    elif time.monotonic() - since > SECONDS * (1 if started else STARTING):
                        child.kill()
                        child.wait()
                        report.findings.append((at, "hang"))
                        break
                else:
                    (at,) = struct.unpack("q", progress.read_bytes())
                    if child.returncode:
                        errors.seek(0)
                        last = errors.read().decode(errors="replace").strip().splitlines()[-1:]
                        report.findings.append((at, f"crash {child.returncode} {last}"))
            finally:
                child.kill()
                child.wait()
        if result.exists():
            found = json.loads(result.read_text())
            report.outcomes.update(found["outcomes"])
            report.findings += [tuple(each) for each in found["findings"]]
            report.seconds = max(report.seconds, found["seconds"])
            report.growth = max(report.growth, found["growth"])
        return at + 1


# The process that is watched


def ways(max_pixels=MAX_PIXELS):
    """The ways from bytes to detections and the size of the image, by their names."""
    import numpy as np
    import tensorflow as tf
    from PIL import Image

    from unitbox_tf import images
    from unitbox_tf.config import DecodeConfig
    from unitbox_tf.detect import graph, padding
    from unitbox_tf.detect.detector import Detector

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    decode = DecodeConfig(max_side=24, score_threshold=0.3, max_pixels=max_pixels)

    def network(shown, training):
        grey = tf.reduce_mean(shown, axis=-1, keepdims=True)
        return {"confidence": grey / 32 - 4, "distances": tf.tile(grey / 16, [1, 1, 1, 4])}

    module = graph.InferenceModule(network, decode)

    def detect(image):
        return padding.unpad(module.detect_images(image[None]), [image.shape[:2]])[0]

    by_tensorflow = Detector(detect, ("object",), decode)
    by_pillow = Detector(detect, ("object",), decode, images.decode_with_pillow)
    blank = images.encode_png(np.zeros((4, 5, 3), np.uint8))
    in_graph = module.detect_encoded
    in_graph(tf.constant([blank]))
    refusals = (ValueError, OSError)

    def as_pillow(encoded):
        try:
            image = Image.open(io.BytesIO(encoded))
        except Exception as error:  # of the caller
            raise ValueError("no PIL image") from error
        return by_tensorflow(image)

    def exported(encoded):
        try:
            found = in_graph(tf.constant([encoded]))
        except tf.errors.InvalidArgumentError as error:
            raise ValueError("refused by the graph") from error
        except tf.errors.OpError as error:
            if type(error).__name__ in ("DataLossError", "OutOfRangeError"):
                raise ValueError("refused by the graph") from error
            raise
        return padding.unpad(found, [(max_pixels, max_pixels)])[0]

    return {
        "TensorFlow": by_tensorflow,
        "Pillow": by_pillow,
        "PIL image": as_pillow,
        "graph": exported,
    }, refusals


def wrong(found) -> str:
    """The fault of detections; empty if they have none."""
    import numpy as np

    height, width = found.image_size
    if not (np.isfinite(found.boxes).all() and np.isfinite(found.scores).all()):
        return "not finite"
    low, high = found.boxes.min(initial=0), (found.boxes - [width, height] * 2).max(initial=-1)
    return "outside the image" if low < 0 or high > 0 else ""


def child(first: int, inputs: int, seed: int, progress: Path, result: Path) -> None:
    """Handles the inputs from `first` on, and says in a file which is at work."""
    # Only our budget of pixels counts, so Pillow has nothing to warn of.
    warnings.simplefilter("ignore")
    every, refusals = ways()
    corpus = list(mutation.seeds().values())
    outcomes, findings = Counter(), []
    slowest, peak, growth = 0.0, 0, 0
    with progress.open("r+b", buffering=0) as marker:
        for number in range(first, inputs):
            os.pwrite(marker.fileno(), struct.pack("q", number), 0)
            encoded = mutation.mutated(corpus, seed, number)
            start = time.perf_counter()
            for name, way in every.items():
                if number % EVERY[name]:
                    continue
                try:
                    fault = wrong(way(encoded))
                    outcomes[f"{name}: detections"] += 1
                except refusals as error:
                    fault = ""
                    outcomes[f"{name}: {type(error).__name__}"] += 1
                except Exception as error:
                    fault = f"{type(error).__name__} {error}"
                if fault:
                    findings.append((number, f"{name} {fault}"[:300]))
            slowest = max(slowest, time.perf_counter() - start)
            used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
            if number - first < WARM_UP:
                peak = used
            elif used - peak > GROWTH + growth:
                findings.append((number, f"memory {used - peak >> 20} MB"))
            growth = max(growth, used - peak)
            if number % SAVED_EVERY == 0 or number == inputs - 1:
                found = {"outcomes": outcomes, "findings": findings}
                found |= {"seconds": slowest, "growth": growth}
                result.with_suffix(".new").write_text(json.dumps(found))
                os.replace(result.with_suffix(".new"), result)


def main() -> int:
    """Runs the command, and returns the exit status."""
    if sys.argv[1:2] == ["--child"]:
        first, inputs, seed, *files = sys.argv[2:]
        child(int(first), int(inputs), int(seed), *map(Path, files))
        return 0
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    start = time.monotonic()
    report = run(options.inputs, options.seed, options.output)
    for outcome, count in sorted(report.outcomes.items()):
        print(f"{outcome}: {count}")
    for number, reason in report.findings:
        print(f"input {number}: {reason}")
    print(
        f"{report.inputs} inputs in {time.monotonic() - start:.0f} s: {len(report.findings)} broke the contract; "
        f"slowest {report.seconds:.2f} s, memory {report.growth / 2**20:.0f} MB above the warm-up"
    )
    return 1 if report.findings else 0


if __name__ == "__main__":
    sys.exit(main())
