"""Lets variants take turns, so that other programs on the machine slow all of them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np

VGA = (640, 480)  # width and height of images on which detectors take turns


def take_turns(
    variants: Mapping[str, Callable[[], object]],
    rounds: int,
    clock: Callable[[], float] = time.perf_counter,
    before: Callable[[str], object] = lambda name: None,
) -> dict[str, list[float]]:
    """Seconds of each variant in each round. The order changes from round to round.

    `before` is called with the name of a variant before the variant runs, and is not timed.
    """
    names = list(variants)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    random = np.random.default_rng(0)
    for _ in range(rounds):
        for index in random.permutation(len(names)):
            before(names[index])
            start = clock()
            variants[names[index]]()
            seconds[names[index]].append(clock() - start)
    return seconds


def quartiles(seconds: Sequence[float], base: Sequence[float]) -> list[float]:
    """First quartile, median and third quartile of the ratios, each taken within a round."""
    return [float(value) for value in np.percentile(np.divide(seconds, base), [25, 50, 75])]
