"""Finds files by names that another program or another machine has written."""

from __future__ import annotations

import os
import re
import unicodedata
import urllib.parse
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

LEAVES = re.compile(r"^[/\\]|^[A-Za-z]:[/\\]|(^|[/\\])\.\.([/\\]|$)")  # absolute, or with ".."
UNUSABLE = re.compile(
    "[\x00-\x1f\x7f\ud800-\udfff]"
)  # in names: control characters, half characters
MANY_ALIKE = 100  # names of files that differ in capital letters alone: none of them is meant
MANY_PARTS = 100  # of a path
HASH = re.compile(r"^[0-9a-f]{8}-(?=.)")  # Label Studio begins the names of uploaded files with it


class _Listing(NamedTuple):
    """The names in a folder: as they are, and by their folded form."""

    names: frozenset[str]
    folded: dict[str, list[str]]


class Names:
    """Finds files below some folders by names whose form may differ from that of the files.

    Each folder is listed once, so a file that appears later is not found.
    """

    def __init__(self, tops: Sequence[Path]) -> None:
        """`tops` are the folders, in the order in which they are searched."""
        self._tops = [os.fspath(top) for top in tops]
        self._listings: dict[str, _Listing] = {}

    def find(self, name: str) -> str | None:
        """The file that `name` means, in a folder of `tops` or below; None if there is none, or if several are alike.

        A file of exactly this name goes first. If there is none, backslashes are slashes, percent signs
        are decoded (`%20`), accents may be letters of their own (NFC and NFD), and capital letters may be
        small ones. An absolute path, or a path with `..`, must lie in one of the folders.
        """
        places = [place for form in forms(name) for place in self._places(form)]
        for top, parts in places:
            path = os.path.join(top, *parts)
            if parts[-1] in self.listing(os.path.dirname(path)).names and os.path.isfile(path):
                return path
        return next(filter(None, (self._alike(top, parts) for top, parts in places)), None)

    def find_end(self, name: str) -> str | None:
        """The file whose path below a folder of `tops` is the end of the path `name`, the longest such end.

        If there is none, the same without the eight digits and the hyphen that Label Studio puts before
        the names of files. None if there is none either.
        """
        parts = re.split(r"/+", forms(name)[-1])
        begin = max((i + 1 for i, part in enumerate(parts) if part == ".."), default=0)
        parts = [part for part in parts[begin:] if part not in ("", ".")]
        if len(parts) > MANY_PARTS:
            return None
        lasts = list(dict.fromkeys([*parts[-1:], *(HASH.sub("", part) for part in parts[-1:])]))
        if parts == [name] and len(lasts) == 1:
            return None  # `find` has searched it
        for last in lasts:
            for first in range(len(parts)):
                end = [*parts[first:-1], last]
                for top in self._tops:
                    found = self._alike(top, end)
                    if found is not None:
                        return found
        return None

    def listing(self, folder: str) -> _Listing:
        """The names in a folder; none if there is no such folder."""
        if folder not in self._listings:
            try:
                names = os.listdir(folder)
            except (OSError, ValueError):  # no folder; a name that no file system takes
                names = []
            folded: dict[str, list[str]] = {}
            self._listings[folder] = _Listing(frozenset(names), folded)
            for name in names:
                folded.setdefault(_folded(name), []).append(name)
        return self._listings[folder]

    def _places(self, form: str) -> Iterator[tuple[str, list[str]]]:
        """The folders of `tops`, and a path below each of them that `form` may mean, as its parts."""
        if UNUSABLE.search(form):
            return
        if not LEAVES.search(form):
            parts = os.path.normpath(form).split("/")
            if parts != ["."]:
                for top in self._tops:
                    yield top, parts
            return
        for top in self._tops:
            for base in dict.fromkeys([os.path.abspath(top), os.path.realpath(top)]):
                path = os.path.normpath(os.path.join(base, form))
                for other in self._tops:
                    for folder in dict.fromkeys([os.path.abspath(other), os.path.realpath(other)]):
                        if path.startswith(os.path.join(folder, "")):
                            yield other, os.path.relpath(path, folder).split(os.sep)

    def _alike(self, top: str, parts: Sequence[str]) -> str | None:
        """The only file below `top` whose path is like `parts`; None if there is none or several."""
        path = top
        for part in parts:
            listing = self.listing(path)
            name = part if part in listing.names else _most_alike(part, listing)
            if name is None:
                return None
            path = os.path.join(path, name)
        return path if os.path.isfile(path) else None


def forms(name: str) -> list[str]:
    """`name`, and what it may stand for: with slashes for backslashes, and with percent signs decoded."""
    if "\\" not in name and "%" not in name:
        return [name]
    slashes = name.replace("\\", "/")
    decoded = urllib.parse.unquote(slashes).replace("\\", "/")
    return list(dict.fromkeys([name, slashes, decoded]))


def in_capitals(several: Iterable[str]) -> bool:
    """True if two of these paths end in names of files that differ in capital letters, and in nothing else."""
    lasts = {unicodedata.normalize("NFC", forms(name)[-1].rpartition("/")[2]) for name in several}
    return len({last.casefold() for last in lasts}) < len(lasts)


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _most_alike(name: str, listing: _Listing) -> str | None:
    """The name that is `name` but for the form of accents, else the suffix's case, else any letter's case."""
    alike = listing.folded.get(_folded(name), [])
    if len(alike) > MANY_ALIKE:
        return None
    same = unicodedata.normalize("NFC", name)
    forms = [unicodedata.normalize("NFC", each) for each in alike]
    for wanted in (
        lambda form: form == same,
        lambda form: os.path.splitext(form)[0] == os.path.splitext(same)[0],
        lambda form: True,
    ):
        chosen = [each for each, form in zip(alike, forms, strict=True) if wanted(form)]
        if chosen:
            return chosen[0] if len(chosen) == 1 else None
    return None
