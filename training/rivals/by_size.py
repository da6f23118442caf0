"""Recall by size on composed photos: the measurement, its table and its plot."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from training import outputs
from training.rivals import comparison, composed, workers
from training.rivals.catalogue import Rival
from training.rivals.workers import RivalError
from unitbox_tf import datasets, files, formats
from unitbox_tf.evaluation import results as result_files
from unitbox_tf.problems import Problems
from unitbox_tf.progress import Progress

logger = logging.getLogger(__name__)

RANGES = ((16, 400), (12, 600))  # px, over which flatness is stated
RESAMPLES = 2000  # of the bootstrap
NORMAL = 1.96  # standard errors of an interval of 95 %


def measure(
    *,
    faces: Sequence[str],
    scenes: Sequence[str],
    data: Path,
    ours: Sequence[str],
    others: Sequence[str],
    yunet: Path | None,
    output: Path,
    environments: Path | None,
    sizes: Sequence[float],
    count: int,
    side: int,
    seed: int,
) -> None:
    """Composes the photos, detects in them, and writes sizes.md, sizes.json and sizes.png.

    Args:
        faces: sources of annotated faces.
        scenes: sources of photos without faces.
        data: folder from which paths of sources start.
        ours: our detectors, as in `comparison.compare`.
        others: the functions of `rival_worker.py` that run others.
        yunet: the ONNX file of YuNet; None leaves YuNet out.
        output: folder to write.
        environments: folder of the others' environments; None: one in `output`.
        sizes: long sides of faces; px.
        count: faces of each size.
        side: of the composed photos; px.
        seed: of scenes and places.

    Raises:
        ValueError: a detector or a source is not there or cannot be used, or a size does not fit.
    """
    detectors = [
        one_pass(rival, side) if rival.detector == "unitbox" else rival
        for rival in comparison.chosen(ours, others, yunet)
    ]
    problems = Problems()
    sizes = sorted(sizes)
    photos, facts = _photos(faces, scenes, data, sizes, count, side, seed, output, problems)
    rows: dict[str, Any] = {}
    for rival in detectors:
        rows[rival.label] = comparison.described(rival)
        folder = output / comparison.file_name(rival.label)
        try:
            python = workers.interpreter(rival, environments or output / "environments")
            comparison.detect_all(rival, python, photos, folder)
        except RivalError as error:
            logger.warning("%s is absent: %s", rival.label, error)
            rows[rival.label]["absent"] = str(error)
            continue
        read = result_files.read(
            folder / comparison.DETECTIONS, photos.annotations, problems=problems
        )
        found = composed.find(read.detections(photos.sizes), photos.annotations, len(sizes))
        own = rival.timed.get("score_threshold", rival.settings.get("score_threshold"))
        rows[rival.label] |= summarize(found, sizes, own)
    problems.log_counts()
    content = {**facts, "detectors": rows}
    outputs.write_json(output / "sizes.json", content)
    text = markdown(content)
    files.write(output / "sizes.md", text)
    plot(content, output / "sizes.png")
    print(text)


def one_pass(rival: Rival, side: int) -> Rival:
    """Our detector with one scale, which shows photos of `side` px as they are.

    Raises:
        ValueError: an exported file shrinks them.
    """
    if Path(rival.settings["path"]).suffix in formats.suffixes():
        import unitbox_tf

        decode = unitbox_tf.load(rival.settings["path"]).decode
        if decode.max_side < side or tuple(decode.scales) != (1.0,):
            raise ValueError(
                f"{rival.label}: expected an export with a max_side from {side} and one scale, 1. Received: max_side "
                f"{decode.max_side}, scales {list(decode.scales)}. Export it with --max-side {side} --scales 1"
            )
        return rival
    single = {"max_side": side, "scales": [1.0], "largest_object": None}
    return dataclasses.replace(rival, settings={**rival.settings, **single})


def _photos(
    faces: Sequence[str],
    scenes: Sequence[str],
    data: Path,
    sizes: Sequence[float],
    count: int,
    side: int,
    seed: int,
    output: Path,
    problems: Problems,
) -> tuple[comparison.Photos, dict[str, Any]]:
    """The composed photos, and facts about them."""
    chosen = composed.faces(datasets.load(faces, ("face",), data=data, problems=problems), count)
    empty = datasets.load(scenes, ("face",), data=data, problems=problems)
    made = composed.write_all(chosen, empty, sizes, side, seed, output / "photos")
    annotations = list(Progress(made, "photos", len(sizes) * len(chosen)))
    paths = [output / "photos" / annotation.name for annotation in annotations]
    photos = comparison.Photos(
        annotations, [path.absolute() for path in paths], [(side, side)] * len(paths), []
    )
    longs = np.array([face.long_side for face in chosen])
    facts = {
        "faces": list(faces),
        "scenes": list(scenes),
        "sizes": list(sizes),
        "side": side,
        "seed": seed,
        "count": len(chosen),
        "long_sides": [float(longs.min()), float(np.median(longs)), float(longs.max())],
        "enlarged": [float((size > longs).mean()) for size in sizes],
    }
    return photos, facts


def summarize(
    found: composed.Found, sizes: Sequence[float], own_threshold: float | None
) -> dict[str, Any]:
    """The metrics of a detector: of each size, and flatness over ranges of sizes.

    Args:
        found: what it found.
        sizes: long sides of faces; px.
        own_threshold: its own score threshold, if it is known.
    """
    hits = found.hits()
    own = None if own_threshold is None else found.hits(own_threshold)
    by_size = {}
    for number, size in enumerate(sizes):
        overlaps = found.overlaps[number][hits[number]]
        by_size[f"{size:g}"] = {
            "recall": float(hits[number].mean()),
            "recall_interval": wilson(int(hits[number].sum()), hits.shape[1]),
            "mean_iou": float(overlaps.mean()) if len(overlaps) else None,
            "mean_iou_error": _error(overlaps),
            "recall_at_own_threshold": None if own is None else float(own[number].mean()),
        }
    return {
        "threshold": found.threshold if np.isfinite(found.threshold) else None,
        "own_threshold": own_threshold,
        "by_size": by_size,
        "flatness": {
            f"{low:g}-{high:g}": flatness(hits, sizes, low, high)
            for low, high in RANGES
            if any(low <= size <= high for size in sizes)
        },
    }


def wilson(found: int, count: int) -> list[float]:
    """Wilson's interval of 95 % of a share `found / count`.

    Source: Wilson, Probable Inference, the Law of Succession, and Statistical Inference, JASA 1927.
    """
    share, square = found / count, NORMAL**2 / count
    middle = share + square / 2
    half = NORMAL * np.sqrt(share * (1 - share) / count + square / (4 * count))
    ends = np.array([middle - half, middle + half]) / (1 + square)
    return [float(value) for value in np.clip(ends, 0, 1)]


def _error(values: np.ndarray) -> float | None:
    """Half of the interval of 95 % of a mean."""
    if len(values) < 2:
        return None
    return float(NORMAL * values.std(ddof=1) / np.sqrt(len(values)))


def flatness(hits: np.ndarray, sizes: Sequence[float], low: float, high: float) -> dict[str, Any]:
    """The largest minus the smallest recall of sizes from `low` to `high`, in points, with its bootstrap interval.

    Faces are drawn again, each with all its sizes. Chance alone makes the difference larger than 0.

    Args:
        hits: `[S, F]`, True if a face was found.
        sizes: of the first axis; px.
        low: the smallest size that counts; px.
        high: the largest; px.
    """
    chosen = hits[[low <= size <= high for size in sizes]]
    random = np.random.default_rng(0)
    drawn = random.integers(chosen.shape[1], size=(RESAMPLES, chosen.shape[1]))
    recalls = chosen[:, drawn].mean(axis=2)  # [S, RESAMPLES]
    ranges = 100 * np.ptp(recalls, axis=0)
    return {
        "points": float(100 * np.ptp(chosen.mean(axis=1))),
        "interval": [float(value) for value in np.percentile(ranges, [2.5, 97.5])],
    }


def markdown(content: Mapping[str, Any]) -> str:
    """The table for people, with its conditions."""
    sizes = [f"{size:g}" for size in content["sizes"]]
    lines = ["| detector | | " + " | ".join(f"{size} px" for size in sizes) + " |"]
    lines.append("|---|---|" + "---:|" * len(sizes))
    flat = []
    for label, row in content["detectors"].items():
        if "absent" in row:
            reason = row["absent"].replace("|", "\\|")
            lines.append(f"| {label} | absent: {reason} |" + " |" * len(sizes))
            continue
        cells = [row["by_size"][size] for size in sizes]
        recalls = [
            f"{_share(c['recall'])} ({', '.join(map(_share, c['recall_interval']))})" for c in cells
        ]
        overlaps = [_with_error(c["mean_iou"], c["mean_iou_error"]) for c in cells]
        owns = [_share(c["recall_at_own_threshold"]) for c in cells]
        lines.append(f"| {label} | recall | " + " | ".join(recalls) + " |")
        lines.append("| | mean IoU | " + " | ".join(overlaps) + " |")
        threshold = "-" if row["own_threshold"] is None else f"{row['own_threshold']:g}"
        lines.append(f"| | recall at score {threshold} | " + " | ".join(owns) + " |")
        for name, each in row["flatness"].items():
            low, high = each["interval"]
            flat.append(f"* {label}, {name} px: {each['points']:.1f} ({low:.1f} to {high:.1f})")
    smallest, median, largest = content["long_sides"]
    enlarged = [
        f"{size} px {share:.0%}"
        for size, share in zip(sizes, content["enlarged"], strict=True)
        if share
    ]
    conditions = (
        f"{content['count']} faces of {', '.join(f'`{s}`' for s in content['faces'])} at each size, the long side of "
        f"the box, in scenes of {', '.join(f'`{s}`' for s in content['scenes'])}; photos of {content['side']} px, one "
        f"pass at scale 1, seed {content['seed']}. In their own photos the faces have {smallest:.0f} to {largest:.0f} "
        f"px (median {median:.0f}); enlarged are {', '.join(enlarged) or 'none'}. Recall at IoU 0.5, at the score with "
        "0.1 false positives a photo (95 %, Wilson); mean IoU of the faces that are found (95 %)."
    )
    head = "Flatness, the largest minus the smallest recall in points (95 %, bootstrap over faces):"
    return "\n".join([*lines, "", conditions, "", head, "", *flat, ""])


def _share(value: float | None) -> str:
    """Two decimals without the zero before them."""
    return "-" if value is None else f"{value:.2f}".removeprefix("0")


def _with_error(value: float | None, error: float | None) -> str:
    return _share(value) + ("" if error is None else f" ± {_share(error)}")


def plot(content: Mapping[str, Any], path: Path) -> None:
    """Recall and mean IoU over size, with intervals."""
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    sizes = content["sizes"]
    for label, row in content["detectors"].items():
        if "absent" in row:
            continue
        cells = list(row["by_size"].values())
        recall = [cell["recall"] for cell in cells]
        low, high = np.transpose([cell["recall_interval"] for cell in cells])
        [line] = left.plot(sizes, recall, marker="o", label=label)
        left.fill_between(sizes, low, high, color=line.get_color(), alpha=0.15)
        overlap = np.array([np.nan if c["mean_iou"] is None else c["mean_iou"] for c in cells])
        error = np.array([c["mean_iou_error"] or 0 for c in cells])
        right.plot(sizes, overlap, marker="o", color=line.get_color(), label=label)
        right.fill_between(
            sizes, overlap - error, overlap + error, color=line.get_color(), alpha=0.15
        )
    left.set(ylabel="recall at IoU 0.5 and 0.1 false positives a photo", ylim=(0, 1.02))
    right.set(ylabel="mean IoU of the faces that are found", ylim=(0.5, 1))
    for axes in (left, right):
        axes.set(xscale="log", xlabel="long side of the face (px)")
        axes.set_xticks(sizes, [f"{size:g}" for size in sizes])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    outputs.write_figure(path, figure)
