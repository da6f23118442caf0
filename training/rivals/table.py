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


def facts(
    sources: Sequence[str],
    annotations: Sequence[Annotation],
    min_size: float,
    rounds: int,
    base: str,
) -> dict[str, Any]:
    """The conditions of a comparison: versions, machine, images and settings."""
    usable = getattr(os, "sched_getaffinity", None)
    return {
        "unitbox_tf": unitbox_tf.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": len(usable(0)) if usable else os.cpu_count(),
        "sources": list(sources),
        "photos": len(annotations),
        "annotations": protocols.digest(annotations),
        "min_size": min_size,
        "false_positives": matching.FALSE_POSITIVES,
        "lowest_score": matching.EVALUATED_SCORE,
        "rounds": rounds,
        "base": base,
    }


def markdown(facts: Mapping[str, Any], rows: Mapping[str, Mapping[str, Any]]) -> str:
    """The table for people, with its conditions and the settings of each detector."""
    table = ["| " + " | ".join(line) + " |" for line in _lines(rows, facts["base"])]
    settings = ["Packages and settings; thresholds for times are the detectors' own:", ""]
    for label, row in rows.items():
        packages = row["packages"] or [f"unitbox_tf=={facts['unitbox_tf']}"]
        # Packages that only some versions of Python need are left to table.json.
        parts = [", ".join(package for package in packages if ";" not in package)]
        parts.append(_shown(row["settings"]))
        if facts["rounds"] and row["timed_with"]:
            parts.append(f"timed with {_shown(row['timed_with'])}")
        parts.append(row["note"])
        if "untimed" in row:
            parts.append(f"no time: {row['untimed']}")
        settings.append(f"* {label}: {'; '.join(filter(None, parts))}")
    return "\n".join([*table, "", _conditions(facts), "", *settings, ""])


def _lines(rows: Mapping[str, Mapping[str, Any]], base: str) -> list[list[str]]:
    """The cells of the table, with its head."""
    present = {label: row for label, row in rows.items() if "absent" not in row}
    sizes: Mapping[str, Any] = next((row["recall_by_size"] for row in present.values()), {})
    faces = next((row["objects"] for row in present.values()), 0)
    ratio = f"time / {base} [quartiles]"
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
    return lines


def _conditions(facts: Mapping[str, Any]) -> str:
    holds = (
        f"{facts['photos']:,} images of {', '.join(f'`{s}`' for s in facts['sources'])} (annotations "
        f"`{facts['annotations']}`), faces with a shorter side of at least {facts['min_size']:g} px. Recall, in all "
        f"and by shorter side, is that at IoU 0.5 and {facts['false_positives']:g} false positives an image."
    )
    if facts["rounds"]:
        holds += (
            f" ms: median over {facts['rounds']} rounds of one image of {VGA[0]} x {VGA[1]} px, from array to boxes; "
            f"{facts['cores']} cores, no GPU, {facts['system']}, threads as each detector chooses."
        )
    return holds


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
