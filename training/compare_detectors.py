r"""Our face detectors beside others that install from the package index, on the same photos, in one run.

    python training/compare_detectors.py wider_face:wider/val_416#val --data DATA \
        --ours faces faces:max_side=832 --output compared

A detector of ours is a run's folder or a published name, with fields of its `DecodeConfig` after
colons. The others (rivals.py) get a virtual environment each; one that cannot be installed or stops
is absent from the table, with the reason.

Judged are the boxes as each detector gives them, down to low scores, as average precision needs
them. Time is taken on the same photos, resized to 640 x 480, with each detector's own thresholds, from
the array of a photo to boxes: a round is one photo for all, in an order that changes, so that what
else the machine does meets all of them; ratios are taken within each round.

--output holds table.md, table.json, curves.png and a folder for each detector; detections that are
there, of the same detector, settings and photos, are not made again.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import functools
import hashlib
import itertools
import json
import logging
import math
import os
import platform
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import rivals
from rivals import Rival, RivalError, Worker
from turns import quartiles, take_turns

import unitbox_tf
from unitbox_tf import boxes as box_ops
from unitbox_tf import config as configs
from unitbox_tf import datasets, runs
from unitbox_tf.evaluation import matching, protocols
from unitbox_tf.evaluation import results as result_files
from unitbox_tf.problems import Problems
from unitbox_tf.progress import Progress
from unitbox_tf.records import Annotation, Detections, coco_rows

logger = logging.getLogger(__name__)

CLASS_NAMES = ("face",)
SIZES = (24.0, 32.0, 48.0, 96.0)  # shorter sides at which recall by size is divided; px
VGA = (640, 480)  # width and height of the photos on which time is taken
DETECTIONS, FACTS = "detections.json", "facts.json"  # in the folder of a detector


@dataclasses.dataclass(frozen=True)
class Photos:
    """The photos that all detectors are shown.

    Attributes:
        annotations: what is on them.
        files: as files, one an annotation.
        sizes: heights and widths.
        vga: files of the first ones in 640 x 480, as many as are needed for taking time.
    """

    annotations: list[Annotation]
    files: list[Path]
    sizes: list[tuple[int, int]]
    vga: list[Path]


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sources", nargs="+", help="FORMAT:PATH#SPLIT, annotated faces")
    parser.add_argument("--data", type=Path, default=Path(), help="where paths of sources start")
    parser.add_argument(
        "--ours",
        nargs="+",
        required=True,
        metavar="RUN[:FIELD=VALUE...]",
        help="faces, saved_models/RUN:max_side=832, faces:scales=1,2; ratios are to the first",
    )
    parser.add_argument(
        "--rivals",
        nargs="*",
        default=[rival.detector for rival in rivals.RIVALS],
        choices=[rival.detector for rival in rivals.RIVALS],
        help="which of the others; all by default",
    )
    parser.add_argument("--output", type=Path, required=True, help="folder to write")
    parser.add_argument(
        "--environments", type=Path, help="folder of environments; OUTPUT/environments by default"
    )
    parser.add_argument(
        "--min-size",
        type=float,
        default=16,
        help="faces with a shorter side are ignored; px (default: 16)",
    )
    parser.add_argument("--photos", type=int, help="only so many, for a first look")
    parser.add_argument(
        "--rounds", type=int, default=50, help="in which time is taken; 0: not at all (default: 50)"
    )
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        compare(arguments)
    except ValueError as error:
        raise SystemExit(str(error)) from error


def compare(arguments: argparse.Namespace) -> None:
    """Measures everything that `arguments` of the command line name, and writes it.

    Raises:
        ValueError: a detector of ours or a source is not what was expected.
    """
    if not 0 <= arguments.min_size < math.inf or arguments.rounds < 0:
        raise ValueError("Expected a --min-size and --rounds from 0.")
    detectors = [ours(text) for text in arguments.ours]
    detectors += [rival for rival in rivals.RIVALS if rival.detector in arguments.rivals]
    repeated = {one.label for one in detectors if sum(o.label == one.label for o in detectors) > 1}
    if repeated:
        raise ValueError(f"Expected different detectors. Received twice: {sorted(repeated)}")
    output: Path = arguments.output
    environments = arguments.environments or output / "environments"
    output.mkdir(parents=True, exist_ok=True)
    problems = Problems()
    with tempfile.TemporaryDirectory(prefix="photos-") as name:
        photos = read_photos(arguments, Path(name), problems)
        rows: dict[str, dict[str, Any]] = {}
        curves: dict[str, matching.Curve] = {}
        pythons: dict[str, tuple[str, ...]] = {}
        for rival in detectors:
            row = rows[rival.label] = described(rival)
            try:
                pythons[rival.label] = rivals.interpreter(rival, environments)
                folder = output / file_name(rival.label)
                row |= detect_all(rival, pythons[rival.label], photos, folder)
            except RivalError as error:
                logger.warning("%s is absent: %s", rival.label, error)
                row["absent"] = str(error)
                continue
            found = result_files.read(folder / DETECTIONS, photos.annotations, problems=problems)
            detections = found.detections(photos.sizes)
            curve, figures = judge(detections, photos.annotations, arguments.min_size)
            row |= figures
            curves[rival.label] = curve
        present = [rival for rival in detectors if rival.label in curves]
        if arguments.rounds:
            base = detectors[0].label
            times = take_times(present, pythons, photos.vga, arguments.rounds, output, base)
            for label, more in times.items():
                rows[label] |= more
    problems.log_counts()
    facts = facts_of(arguments, photos, detectors[0].label)
    content = json.dumps({**facts, "detectors": finite(rows)}, indent=1)
    (output / "table.json").write_text(content + "\n", encoding="utf-8")
    text = markdown(facts, rows)
    (output / "table.md").write_text(text, encoding="utf-8")
    if curves:
        matching.plot(curves, output / "curves.png")
    print(text)


def ours(text: str) -> Rival:
    """The detector of ours that is written `RUN[:FIELD=VALUE...]`; a tuple's values have commas between.

    Raises:
        ValueError: there is no such run, it finds other things than faces, or a field is unknown.
    """
    name, *parts = re.split(r":(?=\w+=)", text)
    path = runs.find(name)
    file = path / "config.json"
    if not file.is_file():
        raise ValueError(
            f"{path}: expected the folder of a run, or the name of a published detector"
        )
    config = configs.load(file)
    if len(config.model.class_names) > 1:
        raise ValueError(f"{file}: expected one class, faces. Received: {config.model.class_names}")
    known = {field.name: field.default for field in dataclasses.fields(config.decode)}
    changes: dict[str, Any] = {}
    for part in parts:
        field, _, value = part.partition("=")
        if field not in known:
            raise ValueError(f"{text!r}: expected a field of {sorted(known)}. Received: {field!r}")
        try:
            changes[field] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            changes[field] = value  # a word
        if isinstance(known[field], tuple) and not isinstance(changes[field], tuple):
            changes[field] = (changes[field],)
    decode = dataclasses.asdict(config.decode) | changes
    configs.Config.from_json(json.dumps({"decode": decode}), text)  # what is wrong is said now
    settings = {
        "path": str(path),
        "max_side": config.decode.max_side,
        "score_threshold": matching.EVALUATED_SCORE,
    }
    timed = {"score_threshold": config.decode.score_threshold}
    if "score_threshold" in changes:
        timed = {}
    label = " ".join([f"UnitBox {path.resolve().name}", *parts])
    return Rival(label, "unitbox", settings | changes, timed)


def file_name(label: str) -> str:
    """`label` as the name of a folder."""
    return re.sub(r"[^\w.+=,-]+", "_", label).strip("_")


def described(rival: Rival) -> dict[str, Any]:
    """What is said of a detector before it has run."""
    # Where a run is on this machine says nothing to others; its name is in the label.
    settings = {name: value for name, value in rival.settings.items() if name != "path"}
    return {
        "packages": [*rival.alone, *rival.requirements],
        "settings": settings,
        "timed_with": dict(rival.timed),
        "note": rival.note,
    }


def read_photos(arguments: argparse.Namespace, folder: Path, problems: Problems) -> Photos:
    """The photos of the sources that can be read; what is no file yet is written into `folder`.

    Raises:
        ValueError: there are none.
    """
    annotations = datasets.load(
        arguments.sources, CLASS_NAMES, data=arguments.data, problems=problems
    )
    photos = Photos([], [], [], [])
    for number, annotation in enumerate(annotations[: arguments.photos]):
        file = annotation.image
        if not isinstance(file, Path):
            file = folder / f"{number}.photo"
            file.write_bytes(annotation.encoded())
        image = cv2.imread(str(file))
        if image is None:
            problems.add("photo that cannot be read", annotation.where, "by OpenCV")
            continue
        height, width = image.shape[:2]
        photos.annotations.append(annotation)
        photos.files.append(file.absolute())
        photos.sizes.append((height, width))
        if len(photos.vga) < arguments.rounds:
            larger = width > VGA[0] or height > VGA[1]
            method = cv2.INTER_AREA if larger else cv2.INTER_LINEAR
            photos.vga.append(folder / f"vga-{number}.png")
            cv2.imwrite(str(photos.vga[-1]), cv2.resize(image, VGA, interpolation=method))
    if not photos.files:
        raise ValueError(f"{arguments.sources}: expected photos, none of them can be read")
    return photos


def identity(rival: Rival, photos: Photos) -> dict[str, Any]:
    """What detections depend on: those of the same identity are not made again."""
    files = [rival.script]
    if "path" in rival.settings:
        run = Path(rival.settings["path"])
        weights = (file for file in run.iterdir() if file.suffix in (".h5", ".npz", ".keras"))
        files += [run / "config.json", *sorted(weights)]
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
    """Writes the detections in all photos into `folder`, as COCO's results, unless they are there.

    Returns:
        `versions` of all packages, and `detections`, how many there are.

    Raises:
        RivalError: the detector stops.
    """
    folder.mkdir(exist_ok=True)
    wanted = identity(rival, photos)
    file = folder / FACTS
    facts = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    if facts.get("identity") == wanted and (folder / DETECTIONS).is_file():
        logger.info("%s: detections are there", rival.label)
        return facts["result"]
    file.unlink(missing_ok=True)
    items: list[dict[str, Any]] = []
    with Worker(python, rival, rival.settings, folder / "log.txt") as worker:
        pairs = list(zip(photos.annotations, photos.files, strict=True))
        for annotation, photo in Progress(pairs, rival.label, len(pairs)):
            rows = np.array(worker.detect(photo)[0]).reshape(-1, 5)
            items += coco_rows(annotation.name, rows, np.zeros(len(rows), int))
    (folder / DETECTIONS).write_text(json.dumps(items), encoding="utf-8")
    result = {"versions": worker.versions, "detections": len(items)}
    content = json.dumps({"identity": wanted, "result": result}, indent=1)
    file.write_text(content + "\n", encoding="utf-8")
    return result


def judge(
    detections: Sequence[Detections], annotations: Sequence[Annotation], min_size: float
) -> tuple[matching.Curve, dict[str, Any]]:
    """The curve at IoU 0.5 and the figures of `matching.summarize`, and `recall_by_size` at its threshold."""
    figures: dict[str, Any] = {**matching.summarize(detections, annotations, min_size)}
    edges = [min_size, *(edge for edge in SIZES if edge > min_size), math.inf]
    figures["recall_by_size"] = recall_by_size(detections, annotations, edges, figures["threshold"])
    return matching.match(detections, annotations, min_size=min_size).curve(), figures


def recall_by_size(
    detections: Sequence[Detections],
    annotations: Sequence[Annotation],
    edges: Sequence[float],
    threshold: float,
) -> dict[str, dict[str, float]]:
    """Recall at IoU 0.5 of objects by their shorter side, from each of `edges` to below the next, in pixels.

    Objects of other sizes are ignored, as COCO does with its areas. Where faces of two sizes compete
    for one box, the sum over sizes may so be one more than what was found of all.

    Returns:
        by size, such as `16-24` or `96+`: `objects`, and their `recall` by detections with at least
        the score `threshold`.
    """
    found: dict[str, dict[str, float]] = {}
    for low, high in itertools.pairwise(edges):
        chosen = []
        for result, annotation in zip(detections, annotations, strict=True):
            boxes = box_ops.clip(annotation.boxes, *result.image_size)  # as `match` does
            side = (boxes[:, 2:] - boxes[:, :2]).min(axis=1)
            outside = (side < low) | (side >= high)
            chosen.append(dataclasses.replace(annotation, ignore=annotation.ignore | outside))
        matches = matching.match(detections, chosen)
        name = f"{low:g}+" if high == math.inf else f"{low:g}-{high:g}"
        found[name] = {"objects": matches.num_objects, "recall": matches.recall(threshold)}
    return found


def take_times(
    detectors: Sequence[Rival],
    pythons: Mapping[str, Sequence[str]],
    photos: Sequence[Path],
    rounds: int,
    output: Path,
    base: str,
) -> dict[str, dict[str, Any]]:
    """Times of all detectors, which take turns on `photos`.

    Returns:
        by label: `milliseconds`, the median, and `seconds` of each round; `ratio_quartiles` to the
        detector `base`, if that has times. Of one that stops, `untimed`, the reason.
    """
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
            log = output / file_name(rival.label) / "log-times.txt"
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
        # The clock is that of the workers: pipes and the reading of photos are not counted.
        seconds = take_turns(calls, rounds, lambda: spent)
    finally:
        for worker in workers.values():
            worker.close()
    times = {label: values for label, values in seconds.items() if label not in found}
    for label, values in times.items():
        found[label] = {"milliseconds": 1000 * float(np.median(values)), "seconds": values}
        if base in times:
            found[label]["ratio_quartiles"] = quartiles(values, times[base])
    return found


def facts_of(arguments: argparse.Namespace, photos: Photos, base: str) -> dict[str, Any]:
    """What the table holds for."""
    usable = getattr(os, "sched_getaffinity", None)
    return {
        "unitbox_tf": unitbox_tf.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": len(usable(0)) if usable else os.cpu_count(),
        "sources": list(arguments.sources),
        "photos": len(photos.files),
        "annotations": protocols.digest(photos.annotations),
        "min_size": arguments.min_size,
        "false_positives": matching.FALSE_POSITIVES,
        "lowest_score": matching.EVALUATED_SCORE,
        "rounds": arguments.rounds,
        "base": base,
    }


def markdown(facts: Mapping[str, Any], rows: Mapping[str, Mapping[str, Any]]) -> str:
    """The table for people, with what it holds for and the settings of each detector."""
    present = {label: row for label, row in rows.items() if "absent" not in row}
    sizes: Mapping[str, Any] = next((row["recall_by_size"] for row in present.values()), {})
    faces = next((row["objects"] for row in present.values()), 0)
    ratio = f"time / {facts['base']} [quartiles]"
    head = ["detector", "AP at IoU 0.5", "recall", *(f"{size} px" for size in sizes), "ms", ratio]
    counts = [f"{cell['objects']:,}" for cell in sizes.values()]
    lines = [
        head,
        ["---", *["---:"] * (len(head) - 1)],
        ["faces", f"{faces:,}", f"{faces:,}", *counts, "", ""],
    ]
    for label, row in rows.items():
        if "absent" in row:
            reason = row["absent"].replace("|", "\\|")
            lines.append([label, f"absent: {reason}", *[""] * (len(head) - 2)])
            continue
        recalls = [_share(cell["recall"]) for cell in row["recall_by_size"].values()]
        milliseconds = f"{row['milliseconds']:.0f}" if "milliseconds" in row else "-"
        relative = "-"
        if "ratio_quartiles" in row:
            low, middle, high = row["ratio_quartiles"]
            relative = f"{middle:.2f} [{low:.2f}, {high:.2f}]"
        shares = _share(row["ap50"]), _share(row["recall"])
        lines.append([label, *shares, *recalls, milliseconds, relative])
    table = ["| " + " | ".join(line) + " |" for line in lines]
    holds = (
        f"{facts['photos']:,} photos of {', '.join(f'`{s}`' for s in facts['sources'])} (annotations "
        f"`{facts['annotations']}`), faces with a shorter side of at least {facts['min_size']:g} px. Recall, in all "
        f"and by shorter side, is that at IoU 0.5 and {facts['false_positives']:g} false positives a photo."
    )
    if facts["rounds"]:
        holds += (
            f" ms: median over {facts['rounds']} rounds of one photo of {VGA[0]} x {VGA[1]} px, from array to boxes; "
            f"{facts['cores']} cores, no GPU, {facts['system']}, threads as each detector chooses."
        )
    settings = ["Packages and settings; thresholds for times are the detectors' own:", ""]
    for label, row in rows.items():
        packages = row["packages"] or [f"unitbox_tf=={facts['unitbox_tf']}"]
        # What only some versions of Python need is left to table.json.
        parts = [", ".join(package for package in packages if ";" not in package)]
        parts.append(_shown(row["settings"]))
        if facts["rounds"] and row["timed_with"]:
            parts.append(f"timed with {_shown(row['timed_with'])}")
        parts.append(row["note"])
        if "untimed" in row:
            parts.append(f"no time: {row['untimed']}")
        settings.append(f"* {label}: {'; '.join(filter(None, parts))}")
    return "\n".join([*table, "", holds, "", *settings, ""])


def _share(value: float) -> str:
    """Three decimals without the zero before them."""
    return "-" if math.isnan(value) else f"{value:.3f}".removeprefix("0")


def _shown(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"`{name}={value}`" for name, value in settings.items())


def finite(value: Any) -> Any:
    """`value` as json can hold it: what is undefined becomes null."""
    if isinstance(value, Mapping):
        return {name: finite(item) for name, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


if __name__ == "__main__":
    main()
