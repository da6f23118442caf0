"""The log of data that could not be used, so that nothing is lost silently."""

from __future__ import annotations

import dataclasses
import logging
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from unitbox_tf import files, limits

logger = logging.getLogger(__name__)

PROBLEMS_FILE = "problems.txt"  # the report in the folder of a run, of results or of a data set
LOGGED_PER_KIND = 5  # how many problems of one kind are logged in full


def printable(text: str) -> str:
    """`text`, which may come from a hostile file name, without line breaks, control signs and broken letters."""
    if text.isprintable():
        return text
    return "".join(
        sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text
    )


def printable_lines(text: str) -> str:
    """`text` as `printable` makes it, with its line breaks."""
    return "\n".join(map(printable, text.split("\n")))


@dataclasses.dataclass(frozen=True)
class Problem:
    """Something in the data that could not be used, and its place."""

    kind: str
    where: str
    message: str

    def __str__(self) -> str:
        """The place and the message in one line, without signs that a terminal may obey."""
        return printable(f"{self.where}: {self.message}")


class Problems:
    """Collects everything that readers and the input pipeline leave out, so that nothing is lost silently.

    Each problem is kept, up to `limits.MAX_PROBLEMS`; further ones are only counted. The first problems of a kind
    are also logged as warnings when they occur; `log_counts` logs the totals. Functions also take
    `problems=None`: then problems are only logged.
    """

    def __init__(self, logged: bool = True) -> None:
        """Starts empty. If `logged` is False, problems are only kept, for `add_all` of another `Problems`."""
        self.logged = logged
        self.found: list[Problem] = []
        self._seen: set[tuple[str, str]] = set()
        self.counts: Counter[str] = Counter()

    def add(self, kind: str, where: str, message: str) -> None:
        """Records one problem; `where` is a file, with its line where there is one (`path:line`).

        A known problem is not counted again, because several parts of a program may read an image.
        """
        self.add_all([Problem(kind, where, message)])

    @staticmethod
    def of(problems: Problems | None) -> Problems:
        """`problems`, or new `Problems` if it is None: for functions in which the argument is optional."""
        return Problems() if problems is None else problems

    def add_all(self, problems: Iterable[Problem]) -> None:
        """Records problems, such as those that were found earlier."""
        for problem in problems:
            if (problem.kind, problem.where) in self._seen:
                continue
            self.counts[problem.kind] += 1
            if len(self.found) < limits.MAX_PROBLEMS:
                self._seen.add((problem.kind, problem.where))
                self.found.append(problem)
            if self.logged and self.counts[problem.kind] <= LOGGED_PER_KIND:
                logger.warning("%s", problem)

    def log_counts(self) -> None:
        """Logs how many problems of each kind there were."""
        for kind, count in self.counts.items():
            logger.warning("%d x %s", count, kind)

    def save(self, path: Path) -> None:
        """Writes all problems, one in a line: kind, place, message. An earlier file is replaced."""
        files.write(path, b"".join(self._lines()))

    def add_to(self, path: Path) -> None:
        """Adds the problems that a file of `save` does not have yet."""
        known = files.read(path, limits.MAX_ANNOTATION_BYTES) if path.exists() else b""
        lines = set(known.splitlines(keepends=True))
        files.write(path, known + b"".join(line for line in self._lines() if line not in lines))

    def _lines(self) -> list[bytes]:
        lines = [f"{problem.kind}\t{problem}\n".encode() for problem in self.found]
        if self.counts.total() > len(self.found):
            more = self.counts.total() - len(self.found)
            lines.append(f"problems that are not listed\t{more} more\n".encode())
        return lines
