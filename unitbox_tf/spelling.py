"""Finds the known name that a misspelled one may stand for."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Iterable

MOST_NAMES, LONGEST_NAME = 10_000, 200  # among which names are compared: it takes a second


def closest(wrong: str, names: Iterable[str]) -> str | None:
    """The one of `names` that resembles `wrong` most; None if none does. Upper and lower case are alike.

    Only the first `MOST_NAMES` are looked at, and no name longer than `LONGEST_NAME`.
    """
    if len(wrong) > LONGEST_NAME:
        return None
    short = (name for name in names if len(name) <= LONGEST_NAME)
    known = {name.lower(): name for name in itertools.islice(short, MOST_NAMES)}
    close = difflib.get_close_matches(wrong.lower(), list(known), n=1)
    return known[close[0]] if close else None


def resembling(wrong: str, names: Iterable[str]) -> str:
    """The end of a message that suggests the closest of `names`; empty if none is close."""
    close = closest(wrong, names)
    return "" if close is None else f" Did you mean {close}?"
