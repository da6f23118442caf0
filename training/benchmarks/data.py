"""Readers and judges, against a bare read of the files that they open.

Times are processor seconds, so that other programs count less. The files are those that a first run
opens, without images. This run also brings them into memory, so that disks do not count.
"""

from __future__ import annotations

import csv
import functools
import gzip
import json
import os
import sys
import time
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal
from xml.etree import ElementTree

import numpy as np

from training.benchmarks.turns import quartiles, take_turns
from unitbox_tf import datasets, images
from unitbox_tf.evaluation import fddb, wider_face
from unitbox_tf.problems import Problems

Content = dict[str, Any]  # numbers for json
Overlap = Literal["official", "exact"]
BARE = "bare read"
PLAIN = "plainest loop"


def opened(call: Callable[[], object], roots: Iterable[Path]) -> list[Path]:
    """The files in or below `roots` that `call` opens, without images."""
    paths: dict[Path, None] = {}
    watching = True

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if watching and event == "open" and isinstance(arguments[0], (str, os.PathLike)):
            paths[Path(os.path.abspath(arguments[0]))] = None

    sys.addaudithook(watch)  # there is no way to remove it
    call()
    watching = False
    folders = [Path(os.path.abspath(root)) for root in roots]
    return [
        path
        for path in paths
        if any(path.is_relative_to(folder) for folder in folders)
        and path.is_file()
        and path.suffix.lower() not in images.IMAGE_SUFFIXES
    ]


def bare_read(paths: Iterable[Path]) -> int:
    """Reads all bytes; returns their number."""
    count = 0
    for path in paths:
        content = path.read_bytes()
        count += len(gzip.decompress(content) if path.suffix == ".gz" else content)
    return count


def plainest_loop(paths: Iterable[Path]) -> list[Any]:
    """Unchecked content of text files: from Python's own parser, or lines that become numbers where possible."""
    return [_plainest(path) for path in paths]


def _plainest(path: Path) -> Any:
    text = path.read_text(encoding="utf-8", errors="replace")
    if path.suffix == ".json":
        return json.loads(text)
    if path.suffix == ".xml":
        return ElementTree.fromstring(text)
    if path.suffix == ".csv":
        return list(csv.reader(text.splitlines()))
    return [_floats_or_text(line) for line in text.splitlines()]


def _floats_or_text(line: str) -> list[float] | str:
    try:
        return list(map(float, line.split()))
    except ValueError:
        return line


def compare(
    title: str,
    calls: Mapping[str, Callable[[], object]],
    paths: list[Path],
    rounds: int,
    bases: Mapping[str, Callable[[list[Path]], object]],
) -> Content:
    """Prints a row for each of `calls`, with ratios to `bases` of `paths`; returns the numbers."""
    variants = {name: functools.partial(base, paths) for name, base in bases.items()} | {**calls}
    seconds = take_turns(variants, rounds, time.process_time)
    megabytes = bare_read(paths) / 1e6
    print(f"\n{title}: {len(paths):,} files, {megabytes:.2f} MB, {rounds} rounds")
    heads = "".join(f"{'/ ' + base + ' [quartiles]':>34}" for base in bases)
    print(f"{'':30}{'CPU seconds':>12}{heads}")
    rows = {}
    for name in variants:
        middle = float(np.median(seconds[name]))
        ratios = {base: quartiles(seconds[name], seconds[base]) for base in bases}
        rows[name] = {"cpu_seconds": middle, "ratio_quartiles": ratios}
        cells = "".join(
            f"{f'{ratio:,.4g} [{low:,.4g}, {high:,.4g}]':>34}"
            for low, ratio, high in ratios.values()
        )
        print(f"{name:30}{middle:>12.4f}{cells}", flush=True)
    return {"title": title, "files": len(paths), "megabytes": megabytes, "rows": rows}


def benchmark_reading(source: str, *, data: Path, rounds: int) -> Content:
    """Annotations of a data set, without its images.

    Args:
        source: FORMAT:PATH#SPLIT.
        data: folder from which its path starts.
        rounds: of taking turns.
    """
    root = datasets.open(source, data).root

    def read() -> int:
        return len(datasets.open(source, data).annotations(photos=False, problems=Problems()))

    paths = opened(read, [root])
    bases = {BARE: bare_read, PLAIN: plainest_loop}
    title = f"{source}: {read():,} images"
    return {"results": [compare(title, {"reader": read}, paths, rounds, bases)]}


def benchmark_fddb(detections: Path, annotations: Path, sizes: Path, *, rounds: int) -> Content:
    """Reading and judging an official result file.

    Args:
        detections: the result file.
        annotations: the folder FDDB-folds.
        sizes: json of the images' sizes.
        rounds: of taking turns.
    """

    def read() -> tuple[Any, Any, Any]:
        found = fddb.read_detections(detections, problems=Problems())
        faces = fddb.read_annotations(annotations, problems=Problems())
        return found, faces, fddb.read_sizes(sizes)

    def judge() -> fddb.Curves:
        found, faces, extents = read()
        return fddb.evaluate(found, faces, extents, problems=Problems())

    paths = opened(read, [detections, annotations, sizes])
    curves = judge()
    title = (
        f"{detections.name}: discrete {fddb.rate_at(curves.discrete, 1000):.4f}, "
        f"continuous {fddb.rate_at(curves.continuous, 1000):.4f} at 1,000 false positives"
    )
    calls: dict[str, Callable[[], object]] = {"reading": read, "reading and judging": judge}
    bases = {BARE: bare_read, PLAIN: plainest_loop}
    return {"results": [compare(title, calls, paths, rounds, bases)]}


def read_wider_face(path: Path, truth: wider_face.GroundTruth) -> dict[str, np.ndarray]:
    """Rows `x y w h score` by image, from a folder in the official layout or from one .txt.gz."""
    if path.is_dir():
        return wider_face.read_detections(path, truth.names, problems=Problems())
    images: dict[str, list[list[float]]] = {}
    with gzip.open(path, "rt", encoding="ascii") as file:
        for line in file:
            if line.startswith("# "):
                rows = images.setdefault(f"{line.split()[1]}.jpg", [])
            else:
                rows.append([float(word) for word in line.split()])
    return {name: np.array(rows).reshape(-1, 5) for name, rows in images.items()}


def moved(detections: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same with fractions: all four numbers of each box moved by up to half a pixel."""
    random = np.random.default_rng(0)
    return {
        name: rows + np.pad(random.uniform(-0.5, 0.5, (len(rows), 4)), [(0, 0), (0, 1)])
        for name, rows in detections.items()
    }


def benchmark_wider_face(ground_truth: Path, results: Sequence[Path], *, rounds: int) -> Content:
    """Reading, and average precision by the official and the exact overlap.

    Args:
        ground_truth: folder of the official .mat files.
        results: each a folder in the official layout, or a .txt.gz with all images.
        rounds: of taking turns.
    """
    truth = wider_face.read_ground_truth(ground_truth)
    found = []
    for path in results:
        whole = read_wider_face(path, truth)
        boxes = {"whole": whole, "fractions": moved(whole)}
        cases = {
            f"{own}, {iou}": functools.partial(wider_face.evaluate, boxes[own], truth, iou)
            for own in boxes
            for iou in typing.get_args(Overlap)
        }
        read_truth = functools.partial(wider_face.read_ground_truth, ground_truth)
        read = functools.partial(read_wider_face, path, truth)
        calls: dict[str, Callable[[], object]] = {
            "reading truth": read_truth,
            "reading detections": read,
            **{f"judging {name}": judge for name, judge in cases.items()},
        }
        paths = opened(read_truth, [ground_truth]) + opened(read, [path])
        name = path.name.removesuffix(".txt.gz").removeprefix("detections_")
        title = f"{name}, {sum(map(len, whole.values())):,} boxes of {len(whole):,} images"
        content = compare(title, calls, paths, rounds, {BARE: bare_read})
        content["average_precision"] = {
            name: {d: float(curve.average_precision) for d, curve in judge().items()}
            for name, judge in cases.items()
        }
        print_precisions(content["average_precision"])
        found.append(content)
    return {"results": found}


def print_precisions(precisions: Mapping[str, Mapping[str, float]]) -> None:
    """Prints a row for each kind of boxes and overlap. Exact overlap has the difference from the official one."""
    print(f"{'boxes':12}{'overlap':10}{''.join(f'{d:>24}' for d in wider_face.DIFFICULTIES)}")
    for name, values in precisions.items():
        own, iou = name.split(", ")
        official = precisions[f"{own}, official"]
        cells = [
            f"{value:.6f}" + (f" ({value - official[d]:+.6f})" if iou == "exact" else "")
            for d, value in values.items()
        ]
        print(f"{own:12}{iou:10}{''.join(f'{cell:>24}' for cell in cells)}", flush=True)
