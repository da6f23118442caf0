"""The comparison: all detectors on the same images, judged and timed."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import itertools
import json
import logging
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import cv2
import numpy as np

import unitbox_tf
from training import outputs
from training.benchmarks.turns import VGA, quartiles, take_turns
from training.rivals import catalogue, judging, table, workers
from training.rivals.catalogue import Rival
from training.rivals.workers import RivalError, Worker
from unitbox_tf import datasets, files, runs
from unitbox_tf.evaluation import matching, protocols
from unitbox_tf.evaluation import results as result_files
from unitbox_tf.problems import Problems
from unitbox_tf.progress import Progress
from unitbox_tf.records import Annotation, coco_rows

logger = logging.getLogger(__name__)

DETECTIONS, FACTS = "detections.json", "facts.json"  # in the folder of a detector
PARTIAL = "partial.jsonl"  # there, until the detections are complete


@dataclasses.dataclass(frozen=True)
class Photos:
    """The images that all detectors are shown.

    Attributes:
        annotations: the true faces.
        files: one an annotation.
        sizes: heights and widths.
        vga: files of the first ones in 640 x 480, as many as are needed for taking time.
    """

    annotations: list[Annotation]
    files: list[Path]
    sizes: list[tuple[int, int]]
    vga: list[Path]


def compare(
    sources: Sequence[str],
    *,
    ours: Sequence[str],
    others: Sequence[str],
    yunet: Path | None,
    output: Path,
    data: Path,
    environments: Path | None,
    min_size: float,
    photos: int | None,
    rounds: int,
) -> None:
    """Measures all detectors on each source, and writes the tables.

    Args:
        sources: annotated faces, each as FORMAT:PATH#SPLIT.
        ours: our detectors, as RUN[:FIELD=VALUE...].
        others: the functions of `rival_worker.py` that run the others.
        yunet: the ONNX file of YuNet; None leaves YuNet out.
        output: folder to write.
        data: folder from which paths of sources start.
        environments: folder of the others' environments; None: one in `output`.
        min_size: faces with a shorter side are ignored; px.
        photos: compares on so many images of each source only; None: on all.
        rounds: in which time is taken.

    Raises:
        ValueError: one of our detectors, or a source, is not there or cannot be used.
    """
    detectors = chosen(ours, others, yunet)
    problems = Problems()
    opened = {s: datasets.load([s], ("face",), data=data, problems=problems) for s in sources}
    rows = {rival.label: described(rival) for rival in detectors}
    pythons = interpreters(detectors, environments or output / "environments", rows)
    sets: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(prefix="photos-") as name:
        timed: list[Path] = []
        for number, (source, annotations) in enumerate(opened.items()):
            folder = Path(name) / str(number)
            folder.mkdir()
            wanted = 0 if timed else rounds
            shown = read_photos(annotations[:photos], folder, wanted, problems=problems)
            timed = timed or shown.vga
            metrics = judge_all(
                detectors, pythons, rows, shown, output / file_name(source), min_size, problems
            )
            sets[source] = {**table.images(shown.annotations), "detectors": metrics}
        if rounds:
            present = [rival for rival in detectors if "absent" not in rows[rival.label]]
            times = take_times(present, pythons, timed, rounds, output / "times")
            for label, more in times.items():
                rows[label] |= more
    problems.log_counts()
    write({**table.facts(min_size, rounds), "sources": sets, "detectors": rows}, output)


def interpreters(
    detectors: Sequence[Rival], folder: Path, rows: Mapping[str, dict[str, Any]]
) -> dict[str, tuple[str, ...]]:
    """The command of the Python of each detector; without those that `rows` then calls absent."""
    found = {}
    for rival in detectors:
        try:
            found[rival.label] = workers.interpreter(rival, folder)
        except RivalError as error:
            _leave_out(rival, rows, error)
    return found


def _leave_out(rival: Rival, rows: Mapping[str, dict[str, Any]], error: RivalError) -> None:
    logger.warning("%s is absent: %s", rival.label, error)
    rows[rival.label]["absent"] = str(error)


def judge_all(
    detectors: Sequence[Rival],
    pythons: Mapping[str, Sequence[str]],
    rows: Mapping[str, dict[str, Any]],
    photos: Photos,
    folder: Path,
    min_size: float,
    problems: Problems,
) -> dict[str, Any]:
    """The metrics of each detector that is not absent on the images of a source.

    Args:
        detectors: all of them.
        pythons: the command of the Python of each.
        rows: the facts of each, which get `versions`, and `absent` if the detector stops.
        photos: the images.
        folder: for detections, and for curves.png.
        min_size: faces with a shorter side are ignored; px.
        problems: receives what cannot be read.
    """
    curves: dict[str, matching.Curve] = {}
    metrics: dict[str, Any] = {}
    for rival in detectors:
        label = rival.label
        if "absent" in rows[label]:
            continue
        own = folder / file_name(label)
        try:
            result = detect_all(rival, pythons[label], photos, own)
        except RivalError as error:
            _leave_out(rival, rows, error)
            continue
        rows[label]["versions"] = result["versions"]
        found = result_files.read(own / DETECTIONS, photos.annotations, problems=problems)
        detections = found.detections(photos.sizes)
        curves[label], figures = judging.judge(detections, photos.annotations, min_size)
        metrics[label] = {"detections": result["detections"], **figures}
    if curves:
        matching.plot(curves, folder / "curves.png")
    return metrics


def chosen(ours: Sequence[str], others: Sequence[str], yunet: Path | None) -> list[Rival]:
    """Our detectors, and those of the others that are wanted.

    Raises:
        ValueError: one of ours or YuNet cannot be used, or a detector comes twice.
    """
    detectors = [catalogue.ours(text) for text in ours]
    detectors += [catalogue.yunet(yunet)] if yunet else []
    detectors += [rival for rival in catalogue.RIVALS if rival.detector in others]
    labels = [rival.label for rival in detectors]
    repeated = {label for label in labels if labels.count(label) > 1}
    if repeated:
        raise ValueError(f"Expected different detectors. Received twice: {sorted(repeated)}")
    return detectors


def write(facts: Mapping[str, Any], folder: Path) -> None:
    """Writes table.json and table.md, and prints the table."""
    outputs.write_json(folder / "table.json", table.finite(facts))
    text = table.markdown(facts)
    files.write(folder / "table.md", text)
    print(text)


def file_name(label: str) -> str:
    """`label` as the name of a folder."""
    return re.sub(r"[^\w.+=,-]+", "_", label).strip("_.")


def described(rival: Rival) -> dict[str, Any]:
    """The facts about a detector that are known before it has run."""
    # A path on this machine says nothing to others; the run's name is in the label.
    settings = {name: value for name, value in rival.settings.items() if name != "path"}
    return {
        "packages": [*rival.alone, *rival.requirements],
        "settings": settings,
        "timed_with": dict(rival.timed),
        "note": rival.note,
    }


def read_photos(
    annotations: Sequence[Annotation], folder: Path, timed: int, *, problems: Problems
) -> Photos:
    """The images that can be read; those that are no files yet are written into `folder`.

    Args:
        annotations: all images.
        folder: for files that are made.
        timed: how many are wanted for taking time.
        problems: receives the images that cannot be read.

    Raises:
        ValueError: there are none.
    """
    photos = Photos([], [], [], [])
    for number, annotation in enumerate(annotations):
        file = annotation.image
        if not isinstance(file, Path):
            file = folder / f"{number}.photo"
            file.write_bytes(annotation.encoded())
        image = cv2.imread(str(file))
        if image is None:
            problems.add("image that cannot be read", annotation.where, "by OpenCV")
            continue
        height, width = image.shape[:2]
        photos.annotations.append(annotation)
        photos.files.append(file.absolute())
        photos.sizes.append((height, width))
        if len(photos.vga) < timed:
            larger = width > VGA[0] or height > VGA[1]
            method = cv2.INTER_AREA if larger else cv2.INTER_LINEAR
            photos.vga.append(folder / f"vga-{number}.png")
            cv2.imwrite(str(photos.vga[-1]), cv2.resize(image, VGA, interpolation=method))
    if not photos.files:
        raise ValueError(
            f"Expected images that OpenCV can read. Received: {len(annotations)}, none of which it can"
        )
    return photos


def identity(rival: Rival, photos: Photos) -> dict[str, Any]:
    """Everything that detections depend on. Detections of the same identity are not made again."""
    files = [rival.script]
    path = Path(rival.settings.get("path", ""))
    if path.is_file():
        files.append(path)
    elif "path" in rival.settings:
        weights = (file for file in path.iterdir() if file.suffix in (".h5", ".npz", ".keras"))
        files += [runs.Run(path).config_file, *sorted(weights)]
    if rival.detector == "unitbox":
        files += sorted(Path(unitbox_tf.__file__).parent.rglob("*.py"))
    total = hashlib.sha256()
    for file in files:
        total.update(file.read_bytes())
    found = {
        "detector": rival.detector,
        "settings": dict(rival.settings),
        "packages": [*rival.alone, *rival.requirements],
        "code_and_weights": total.hexdigest()[:16],
        "annotations": protocols.digest(photos.annotations),
    }
    return json.loads(json.dumps(found))  # lists for tuples: as it is when it is read again


def detect_all(rival: Rival, python: Sequence[str], photos: Photos, folder: Path) -> dict[str, Any]:
    """Writes the detections in all images into `folder`, as COCO's results, unless they are there.

    Those that a stopped program has made are not made again.

    Returns:
        `versions` of all packages, and `detections`, how many there are.

    Raises:
        RivalError: the detector stops.
    """
    folder.mkdir(parents=True, exist_ok=True)
    wanted = identity(rival, photos)
    file = folder / FACTS
    facts = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    if facts.get("identity") == wanted and (folder / DETECTIONS).is_file():
        logger.info("%s: detections are there", rival.label)
        return facts["result"]
    file.unlink(missing_ok=True)
    with (
        Worker(python, rival, rival.settings, folder / "log.txt") as worker,
        _partial(folder / PARTIAL, wanted) as (rows, partial),
    ):
        for photo in Progress(
            photos.files[len(rows) :], rival.label, len(photos.files) - len(rows)
        ):
            rows.append(worker.detect(photo)[0])
            print(json.dumps(rows[-1]), file=partial, flush=True)
    items: list[dict[str, Any]] = []
    for annotation, found in zip(photos.annotations, rows, strict=True):
        each = np.array(found).reshape(-1, 5)
        items += coco_rows(annotation.name, each, np.zeros(len(each), int))
    files.write(folder / DETECTIONS, json.dumps(items))
    result = {"versions": worker.versions, "detections": len(items)}
    outputs.write_json(file, {"identity": wanted, "result": result})
    (folder / PARTIAL).unlink()
    return result


@contextlib.contextmanager
def _partial(path: Path, wanted: Mapping[str, Any]) -> Iterator[tuple[list[Any], TextIO]]:
    """The detections that a stopped program has left in `path`, image by image, and the file to add others to.

    Its first line is the identity of the detections. With another one than `wanted`, it begins anew.
    """
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.is_file() else []
    whole = [line for line in lines if line.endswith("\n")]  # the last one may be cut off
    if not whole or json.loads(whole[0]) != wanted:
        whole = [json.dumps(wanted) + "\n"]
    with path.open("w", encoding="utf-8") as file:
        file.writelines(whole)
        yield [json.loads(line) for line in whole[1:]], file


def take_times(
    detectors: Sequence[Rival],
    pythons: Mapping[str, Sequence[str]],
    photos: Sequence[Path],
    rounds: int,
    folder: Path,
) -> dict[str, dict[str, Any]]:
    """Times of all detectors, which take turns on `photos`. Their logs are written into `folder`.

    Returns:
        by label: `milliseconds`, the median, and `seconds` of each round; `ratio_quartiles`, by the label of the
        base, to those detectors that are bases and have times. If none has, the first detector is the base.
        For one that stops, `untimed`, the reason.
    """
    folder.mkdir(parents=True, exist_ok=True)
    workers: dict[str, Worker] = {}
    found: dict[str, dict[str, Any]] = {}
    spent = 0.0

    def turn(label: str, following: Iterator[Path]) -> None:
        nonlocal spent
        photo = next(following)
        if label not in found:
            try:
                spent += workers[label].detect(photo)[1]
            except RivalError as error:
                logger.warning("%s: no times: %s", label, error)
                found[label] = {"untimed": str(error)}

    try:
        for rival in detectors:
            log = folder / f"{file_name(rival.label)}.txt"
            settings = {**rival.settings, **rival.timed}
            try:
                worker = Worker(pythons[rival.label], rival, settings, log)
                workers[rival.label] = worker
                worker.detect(photos[0])  # graphs are traced and buffers made in the first call
            except RivalError as error:
                logger.warning("%s: no times: %s", rival.label, error)
                found[rival.label] = {"untimed": str(error)}
        calls = {
            rival.label: functools.partial(turn, rival.label, itertools.cycle(photos))
            for rival in detectors
        }
        logger.info("taking turns: %d rounds of %d detectors", rounds, len(calls))
        # The clock is that of the workers: pipes and the reading of images are not counted.
        seconds = take_turns(calls, rounds, lambda: spent)
    finally:
        for worker in workers.values():
            worker.close()
    times = {label: values for label, values in seconds.items() if label not in found}
    bases = [r.label for r in detectors if r.base and r.label in times] or list(times)[:1]
    for label, values in times.items():
        ratios = {base: quartiles(values, times[base]) for base in bases}
        milliseconds = 1000 * float(np.median(values))
        found[label] = {"milliseconds": milliseconds, "seconds": values, "ratio_quartiles": ratios}
    return found
