"""Opens damaged files of models, in a process that is watched.

    python -m tests.fuzz.models --inputs 500 --seed 1 [--kinds keras onnx ...]

The contract: an error of ours in one line, which begins with the name of the file, or a detector that gives detections
or an error of its library; no crash of the process, no hang, and no memory above the bound. The digests of a SavedModel
are written anew after each change, as whoever attacks would do.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections import Counter
from pathlib import Path

KINDS = ("npz", "h5", "keras", "litert", "onnx", "saved_model")
SECONDS = 300  # in which a file is opened; most take milliseconds, a SavedModel seconds
GROWTH = 1 << 30  # bytes above the peak after the first file
ROOT = Path(__file__).parents[2]


def run(kind: str, inputs: int, seed: int) -> tuple[Counter, list[str]]:
    """The number of files by outcome, and what broke the contract."""
    outcomes, findings, first = Counter(), [], 0
    with tempfile.TemporaryDirectory() as folder:
        while first < inputs:
            arguments = [kind, str(first), str(inputs), str(seed), folder]
            command = [sys.executable, "-m", "tests.fuzz.models", "--child", *arguments]
            try:
                done = subprocess.run(
                    command, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS * 10
                )
                lines, end = done.stdout.splitlines(), done.returncode
            except subprocess.TimeoutExpired as error:
                lines, end = (error.stdout or b"").decode().splitlines(), "hang"
            rows = [line.split(" ", 2) for line in lines if re.match(r"\d+ \w+ ", line)]
            outcomes.update(outcome for _, outcome, _ in rows)
            findings += [f"{kind} {n}: {text}" for n, outcome, text in rows if outcome == "broken"]
            last = max((int(number) for number, *_ in rows), default=first - 1)
            if end:
                outcomes["crashed"] += 1
                findings.append(f"{kind} {last + 1}: ended with {end}")
            first = last + 1 + bool(end) if last + 1 < inputs else inputs
    return outcomes, findings


# The process that is watched


def make(kind: str, folder: Path) -> Path:
    """A small file of the kind."""
    import numpy as np

    from tests.helpers import tiny_models
    from unitbox_tf import formats

    model, path = tiny_models.model(), folder / f"whole-{kind}"
    if path.exists():
        return path
    if kind == "npz":
        arrays = {f"{n:03} {w.path}": w.numpy() for n, w in enumerate(model.weights)}
        with path.open("wb") as file:
            np.savez(file, **arrays)
        return path
    name = {"h5": "a.weights.h5", "keras": "a.keras", "litert": "a.tflite", "onnx": "a.onnx"}
    written = folder / name.get(kind, "a")
    if kind == "h5":
        model.save_weights(written)
    elif kind == "keras":
        model.save(written)
    else:
        formats.export(model, written)
    return written.rename(path)


def opener(kind: str):
    """A function that opens a file of the kind, and uses it."""
    import unitbox_tf
    from tests.helpers import tiny_models
    from unitbox_tf import weights_files
    from unitbox_tf.network import weights

    if kind == "npz":
        return weights_files.read_npz
    if kind == "h5":
        model = tiny_models.model()
        return lambda path: weights.load(model, path, "the weights of X")
    return lambda path: unitbox_tf.load(path)


def change(whole: Path, path: Path, random) -> None:
    """Writes a damaged copy of a file or folder."""
    from tests.helpers import tiny_models
    from unitbox_tf.formats import saved_graph

    if whole.is_dir():
        shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(whole, path)
        name = random.choice(saved_graph._FILES)
        (path / name).write_bytes(tiny_models.mutated((path / name).read_bytes(), random))
        saved_graph.write_digests(path)
    elif zipfile.is_zipfile(whole) and random.random() < 0.5:
        content = whole.read_bytes()
        before = content[: content.index(b"PK\x03\x04")]
        chosen = random.choice(zipfile.ZipFile(whole).namelist())
        tiny_models.rewrite(
            whole, lambda n, c: tiny_models.mutated(c, random) if n == chosen else c, path
        )
        if before:  # of a LiteRT file: the network
            network = tiny_models.mutated(before, random).ljust(len(before), b"\0")
            path.write_bytes(network + path.read_bytes())
    else:
        path.write_bytes(tiny_models.mutated(whole.read_bytes(), random))


def child(kind: str, first: int, inputs: int, seed: int, folder: Path) -> None:
    """Opens the files from number `first` on, and prints a line for each."""
    import numpy as np

    from tests.helpers import tiny_models

    whole, use, peak = make(kind, folder), opener(kind), 0
    suffix = {"h5": ".weights.h5", "litert": ".tflite", "saved_model": ""}.get(kind, f".{kind}")
    path = folder / f"changed{suffix}"
    for number in range(first, inputs):
        change(whole, path, np.random.default_rng([seed, number]))
        outcome, text = "opened", ""
        try:
            opened = use(path)
        except (ValueError, OSError) as error:
            text = str(error)
            ours = text.startswith(str(path)) and "\n" not in text
            outcome = "refused" if ours else "broken"
        except Exception as error:
            outcome, text = "broken", repr(error)
        else:
            if callable(opened):
                try:
                    opened(tiny_models.IMAGE)
                except Exception:  # of the library that runs the graph
                    outcome = "failed_later"
        peak = peak or highest()
        if highest() - peak > GROWTH:
            outcome, text, peak = "broken", f"{(highest() - peak) >> 20} MB", highest()
        print(number, outcome, text[:200].replace("\n", " ") + " ", flush=True)


def highest() -> int:
    """The peak of memory of this process, in bytes."""
    return int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) << 10


def main(arguments: list[str] | None = None) -> int:
    if (arguments or sys.argv[1:])[:1] == ["--child"]:
        kind, first, inputs, seed, folder = (arguments or sys.argv[1:])[1:]
        child(kind, int(first), int(inputs), int(seed), Path(folder))
        return 0
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inputs", type=int, default=500, help="files of each kind")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    options = parser.parse_args(arguments)
    broken = []
    for kind in options.kinds:
        outcomes, findings = run(kind, options.inputs, options.seed)
        print(kind, dict(outcomes), *findings, sep="\n  ", flush=True)
        broken += findings
    return bool(broken)


if __name__ == "__main__":
    sys.exit(main())
