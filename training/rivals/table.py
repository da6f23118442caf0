"""The table of a comparison, and its conditions."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Mapping, Sequence
from typing import Any

import unitbox_tf
from training.benchmarks.turns import VGA
from unitbox_tf.evaluation import matching, protocols
from unitbox_tf.records import Annotation


def facts(min_size: float, rounds: int) -> dict[str, Any]:
    """The conditions of a comparison: versions, machine and settings."""
    usable = getattr(os, "sched_getaffinity", None)
    return {
        "unitbox_tf": unitbox_tf.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": len(usable(0)) if usable else os.cpu_count(),
        "min_size": min_size,
        "false_positives": matching.FALSE_POSITIVES,
        "lowest_score": matching.EVALUATED_SCORE,
        "rounds": rounds,
    }


def images(annotations: Sequence[Annotation]) -> dict[str, Any]:
    """The facts about the images of a source."""
    return {"photos": len(annotations), "annotations": protocols.digest(annotations)}


def markdown(content: Mapping[str, Any]) -> str:
    """The tables for people: one for each source, one of times, with conditions and settings of each detector.

    Args:
        content: of table.json: `facts`; `sources`, by source its `images` and, by detector, metrics; `detectors`,
            by label what is known about each.
    """
    rows = content["detectors"]
    lines: list[str] = []
    for source, found in content["sources"].items():
        lines += [
            f"`{source}`: {found['photos']:,} images (annotations `{found['annotations']}`)",
            "",
            *_table(_accuracy(found["detectors"], rows)),
            "",
        ]
    lines += [_accuracy_conditions(content), ""]
    if content["rounds"]:
        lines += [*_table(_times(rows)), "", _time_conditions(content), ""]
    lines += ["Packages and settings; thresholds for times are the detectors' own:", ""]
    lines += [f"* {label}: {_settings(row, content)}" for label, row in rows.items()]
    return "\n".join([*lines, ""])


def _table(cells: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table whose first row is its head."""
    head, *rest = cells
    rule = ["---", *["---:"] * (len(head) - 1)]
    return ["| " + " | ".join(line) + " |" for line in (head, rule, *rest)]


def _accuracy(
    metrics: Mapping[str, Mapping[str, Any]], rows: Mapping[str, Mapping[str, Any]]
) -> list[list[str]]:
    """The cells of the table of a source, with its head."""
    first: Mapping[str, Any] = next(iter(metrics.values()), {"objects": 0, "recall_by_size": {}})
    sizes = first["recall_by_size"]
    counts = [f"{cell['objects']:,}" for cell in sizes.values()]
    objects = f"{first['objects']:,}"
    lines = [
        ["detector", "AP .5", "AP .75", "mean IoU", "recall", *(f"{size} px" for size in sizes)],
        ["faces", objects, objects, "", objects, *counts],
    ]
    for label, row in rows.items():
        if label not in metrics:
            reason = row.get("absent", "").replace("|", "\\|")
            lines.append([label, f"absent: {reason}", *[""] * (len(lines[0]) - 2)])
            continue
        own = metrics[label]
        shares = [own[name] for name in ("ap50", "ap75", "mean_iou", "recall")]
        shares += [cell["recall"] for cell in own["recall_by_size"].values()]
        lines.append([label, *map(_share, shares)])
    return lines


def _times(rows: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """The cells of the table of times, with its head."""
    timed = {label: row for label, row in rows.items() if "milliseconds" in row}
    bases = next((list(row["ratio_quartiles"]) for row in timed.values()), [])
    lines = [["detector", "ms", *(f"time / {base} [quartiles]" for base in bases)]]
    for label in rows:
        cells = ["-"] * (1 + len(bases))
        if label in timed:
            ratios = [timed[label]["ratio_quartiles"][base] for base in bases]
            cells = [f"{timed[label]['milliseconds']:.1f}"]
            cells += [f"{middle:.2f} [{low:.2f}, {high:.2f}]" for low, middle, high in ratios]
        lines.append([label, *cells])
    return lines


def _accuracy_conditions(content: Mapping[str, Any]) -> str:
    return (
        f"Faces with a shorter side of at least {content['min_size']:g} px. AP is average precision at that IoU. "
        "Recall, in all and by shorter side, and the mean IoU of the faces that are found are those at IoU 0.5 and "
        f"{content['false_positives']:g} false positives an image."
    )


def _time_conditions(content: Mapping[str, Any]) -> str:
    return (
        f"ms: median over {content['rounds']} rounds of one image of {VGA[0]} x {VGA[1]} px, from array to boxes; "
        f"{content['cores']} cores, no GPU, {content['system']}, threads as each detector chooses. Ratios are taken "
        "within each round."
    )


def _settings(row: Mapping[str, Any], content: Mapping[str, Any]) -> str:
    packages = row["packages"] or [f"unitbox_tf=={content['unitbox_tf']}"]
    # Packages that only some versions of Python need are left to table.json.
    parts = [", ".join(package for package in packages if ";" not in package)]
    parts.append(_shown(row["settings"]))
    if content["rounds"] and row["timed_with"]:
        parts.append(f"timed with {_shown(row['timed_with'])}")
    parts.append(row["note"])
    if "untimed" in row:
        parts.append(f"no time: {row['untimed']}")
    return "; ".join(filter(None, parts))


def _share(value: float) -> str:
    """Three decimals without the zero before them."""
    return "-" if math.isnan(value) else f"{value:.3f}".removeprefix("0")


def _shown(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"`{name}={value}`" for name, value in settings.items())


def finite(value: Any) -> Any:
    """`value` for json, which has no NaN and no infinity: they become null."""
    if isinstance(value, Mapping):
        return {name: finite(item) for name, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
