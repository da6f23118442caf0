"""The log of data that could not be used, so that nothing is lost silently."""

from __future__ import annotations

import dataclasses
import logging
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from unitbox_tf import files

logger = logging.getLogger(__name__)

PROBLEMS_FILE = "problems.txt"  # the report in the folder of a run, of results or of a data set
LOGGED_PER_KIND = 5  # how many problems of one kind are logged in full; all of them are kept


@dataclasses.dataclass(frozen=True)
class Problem:
    """Something in the data that could not be used, and its place."""

    kind: str
    where: str
    message: str

    def __str__(self) -> str:
        return f"{self.where}: {self.message}"


class Problems:
    """Collects everything that readers and the input pipeline leave out, so that nothing is lost silently.

    Each problem is kept. The first problems of a kind are also logged as warnings when they occur;
    `log_counts` logs the totals. Functions also take `problems=None`: then problems are only logged.
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
            if (problem.kind, problem.where) not in self._seen:
                self._seen.add((problem.kind, problem.where))
                self.found.append(problem)
                self.counts[problem.kind] += 1
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
        known = path.read_bytes() if path.exists() else b""
        files.write(path, known + b"".join(line for line in self._lines() if line not in known))

    def _lines(self) -> list[bytes]:
        # Quotes from broken files need not be text.
        return [f"{p.kind}\t{p}\n".encode("utf-8", "backslashreplace") for p in self.found]
