"""Readers and judges, against a bare read of the files that they open.

Seconds are of the processor, so that other programs count less. The files are those that a first
run opens, photos apart; it also brings them into memory, so that disks do not count.
"""

from __future__ import annotations

import argparse
import csv
import functools
import gzip
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from turns import quartiles, take_turns

from unitbox_tf import datasets, images
from unitbox_tf.evaluation import fddb, wider_face

logging.getLogger("unitbox_tf").setLevel(logging.ERROR)  # problems of the data are not the matter

BARE = "bare read"
PLAIN = "plainest loop"


def opened(call: Callable[[], object], roots: Iterable[Path]) -> list[Path]:
    """The files in or below `roots` that `call` opens, without photos."""
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
    """Reads all bytes; how many they are."""
    count = 0
    for path in paths:
        content = path.read_bytes()
        count += len(gzip.decompress(content) if path.suffix == ".gz" else content)
    return count


def plainest_loop(paths: Iterable[Path]) -> list[Any]:
    """What is in text files, unchecked: what Python's own parser gives, or lines, as numbers where they are such."""
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
    arguments: argparse.Namespace,
    bases: Mapping[str, Callable[[list[Path]], object]],
) -> dict[str, Any]:
    """Prints a row for each of `calls`, ratios to `bases` of `paths`; the numbers."""
    variants = {name: functools.partial(base, paths) for name, base in bases.items()} | {**calls}
    seconds = take_turns(variants, arguments.rounds, time.process_time)
    megabytes = bare_read(paths) / 1e6
    print(f"\n{title}: {len(paths):,} files, {megabytes:.2f} MB, {arguments.rounds} rounds")
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


def save(arguments: argparse.Namespace, results: list[dict[str, Any]]) -> None:
    """Writes the numbers where `--json` says."""
    if arguments.json:
        settings = {name: str(value) for name, value in vars(arguments).items() if name != "json"}
        content = {"settings": settings, "results": results}
        arguments.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def benchmark_reading(arguments: argparse.Namespace) -> None:
    """Annotations of a data set, without its photos."""
    source = datasets.open(arguments.source, arguments.data)

    def read() -> int:
        # Opened anew: an open source has its annotations.
        anew = datasets.open(arguments.source, arguments.data)
        return len(anew.annotations(photos=False))

    paths = opened(read, [source.root])
    bases = {BARE: bare_read, PLAIN: plainest_loop}
    title = f"{arguments.source}: {read():,} photos"
    save(arguments, [compare(title, {"reader": read}, paths, arguments, bases)])


def benchmark_fddb(arguments: argparse.Namespace) -> None:
    """Reading and judging an official result file."""

    def read() -> tuple[Any, ...]:
        detections = fddb.read_detections(arguments.detections)
        faces = fddb.read_annotations(arguments.annotations)
        return detections, faces, fddb.read_sizes(arguments.sizes)

    def judge() -> fddb.Curves:
        return fddb.evaluate(*read())

    roots = [arguments.detections, arguments.annotations, arguments.sizes]
    paths = opened(read, roots)
    curves = judge()
    title = (
        f"{arguments.detections.name}: discrete {fddb.rate_at(curves.discrete, 1000):.4f}, "
        f"continuous {fddb.rate_at(curves.continuous, 1000):.4f} at 1,000 false positives"
    )
    calls = {"reading": read, "reading and judging": judge}
    bases = {BARE: bare_read, PLAIN: plainest_loop}
    save(arguments, [compare(title, calls, paths, arguments, bases)])


def read_wider_face(path: Path, truth: wider_face.GroundTruth) -> dict[str, np.ndarray]:
    """Rows `x y w h score` by image, of a folder in the official layout or of one .txt.gz."""
    if path.is_dir():
        return wider_face.read_detections(path, truth.names)
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


def benchmark_wider_face(arguments: argparse.Namespace) -> None:
    """Reading, and average precision by the official and the exact overlap."""
    truth = wider_face.read_ground_truth(arguments.ground_truth)
    results = []
    for path in arguments.results:
        whole = read_wider_face(path, truth)
        boxes = {"whole": whole, "fractions": moved(whole)}
        cases = [(own, iou) for own in boxes for iou in ("official", "exact")]
        calls = {
            "reading truth": functools.partial(
                wider_face.read_ground_truth, arguments.ground_truth
            ),
            "reading detections": functools.partial(read_wider_face, path, truth),
            **{
                f"judging {own}, {iou}": functools.partial(
                    wider_face.evaluate, boxes[own], truth, iou
                )
                for own, iou in cases
            },
        }
        paths = opened(calls["reading truth"], [arguments.ground_truth])
        paths += opened(calls["reading detections"], [path])
        name = path.name.removesuffix(".txt.gz").removeprefix("detections_")
        title = f"{name}, {sum(map(len, whole.values())):,} boxes of {len(whole):,} images"
        found = compare(title, calls, paths, arguments, {BARE: bare_read})
        print(f"{'boxes':12}{'overlap':10}{''.join(f'{d:>24}' for d in wider_face.DIFFICULTIES)}")
        found["average_precision"] = precisions = {}
        for own, iou in cases:
            curves = wider_face.evaluate(boxes[own], truth, iou)
            values = {d: float(curve.average_precision) for d, curve in curves.items()}
            precisions[f"{own}, {iou}"] = values
            official = precisions[f"{own}, official"]
            cells = [
                f"{value:.6f}" + (f" ({value - official[d]:+.6f})" if iou == "exact" else "")
                for d, value in values.items()
            ]
            print(f"{own:12}{iou:10}{''.join(f'{cell:>24}' for cell in cells)}", flush=True)
        results.append(found)
    save(arguments, results)
