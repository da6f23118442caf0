"""Compares a measurement with a stored one, and names the ratios that became slower by more than their spread.

Both are files that `python -m training.benchmarks ... --json FILE` wrote with the same settings. A ratio counts as
slower if its first quartile lies above the stored third quartile, so that chance and other programs rarely make one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

QUARTILES = ("ratio", "ratios", "ratio_quartiles", "time_ratio")  # names of what holds them
IGNORED = {"rounds", "json"}  # settings that do not change what is measured


def compare(stored: Path, new: Path) -> dict[str, Any]:
    """Prints a row for each ratio that changed by more than its spread.

    Args:
        stored: the earlier file.
        new: the file that is judged.

    Returns:
        `slower`, `faster` and `same`: by name, the quartiles of both files. `missing` and `added`: names.

    Raises:
        ValueError: a file is of another measurement, other settings, another machine or other versions; it holds no
            ratios; or ratios became slower.
    """
    before, after = _read(stored), _read(new)
    _check_alike(before, after, stored, new)
    old, now = dict(ratios(before)), dict(ratios(after))
    for path, found in ((stored, old), (new, now)):
        if not found:
            raise ValueError(f"{path}: expected ratios with quartiles. Found none")
    shared = [name for name in old if name in now]
    content: dict[str, Any] = {
        "slower": {n: [old[n], now[n]] for n in shared if now[n][0] > old[n][2]},
        "faster": {n: [old[n], now[n]] for n in shared if now[n][2] < old[n][0]},
        "missing": [name for name in old if name not in now],
        "added": [name for name in now if name not in old],
    }
    changed = content["slower"].keys() | content["faster"].keys()
    content["same"] = {n: [old[n], now[n]] for n in shared if n not in changed}
    print(markdown(content))
    if content["slower"]:
        raise ValueError(f"slower by more than the spread: {', '.join(content['slower'])}")
    return content


def ratios(content: Any, name: str = "", inside: bool = False) -> Iterator[tuple[str, list[float]]]:
    """The quartiles in what a measurement has written, by the names on the way to them."""
    if inside and _are_quartiles(content):
        yield name, content
    elif isinstance(content, Mapping):
        for key, value in content.items():
            yield from ratios(value, f"{name} / {key}" if name else key, inside or key in QUARTILES)
    elif isinstance(content, list):
        for number, value in enumerate(content):
            yield from ratios(value, f"{name} / {_title(value, number)}", inside)


def _are_quartiles(content: Any) -> bool:
    numbers = isinstance(content, list) and len(content) == 3
    return numbers and all(isinstance(each, float | int) for each in content)


def _title(value: Any, number: int) -> str:
    """The name of a part of a list, so that another order does not matter."""
    if isinstance(value, Mapping):
        words = [str(each) for each in value.values() if isinstance(each, str)]
        if words:
            return " ".join(words)
    return str(number + 1)


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: expected json. {error}") from error
    if not isinstance(content, dict) or not {"settings", "environment"} <= content.keys():
        raise ValueError(
            f"{path}: expected a file that `python -m training.benchmarks ... --json` has written, with settings and "
            "environment"
        )
    return content


def _check_alike(
    before: Mapping[str, Any], after: Mapping[str, Any], stored: Path, new: Path
) -> None:
    for part in ("settings", "environment"):
        old, now = (
            {k: v for k, v in each[part].items() if k not in IGNORED} for each in (before, after)
        )
        unlike = sorted(key for key in old.keys() | now.keys() if old.get(key) != now.get(key))
        if unlike:
            listed = "; ".join(f"{key}: {old.get(key)} and {now.get(key)}" for key in unlike)
            raise ValueError(
                f"{new}: expected the {part} of {stored}, since only ratios of the same can be compared. "
                f"Received other ones: {listed}"
            )


def markdown(content: Mapping[str, Any]) -> str:
    """The table of what changed, and how many ratios did not."""
    lines = ["| ratio | | before (quartiles) | now (quartiles) |", "|---|---|---|---|"]
    for kind in ("slower", "faster"):
        for name, both in content[kind].items():
            old, now = (f"{m:.3f} ({low:.3f} to {high:.3f})" for low, m, high in both)
            lines.append(f"| {name} | {kind} | {old} | {now} |")
    lines.append(f"\nWithin the spread: {len(content['same'])}.")
    for kind in ("missing", "added"):
        if content[kind]:
            lines.append(f"{kind.capitalize()}: {', '.join(content[kind])}.")
    return "\n".join(lines)
