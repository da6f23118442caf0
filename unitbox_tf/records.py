"""The two records that cross module borders, and the log of what could not be used.

Importing this module does not import TensorFlow.
"""

from __future__ import annotations

import dataclasses
import logging
from collections import Counter
from pathlib import Path

import numpy as np

logger = logging.getLogger(__name__)

LOGGED_PER_KIND = 5  # how many problems of one kind are logged in full; all of them are kept


@dataclasses.dataclass(frozen=True)
class Annotation:
    """One image and the objects in it.

    Attributes:
        name: identifies the image in its data set and in messages; for files, the path below the
            data set's root.
        image: the file, or the encoded JPEG or PNG itself.
        boxes: `xyxy` `[N, 4]` float32, in pixels of the image (as displayed: with its EXIF
            orientation applied).
        classes: `[N]` int32, an index into the data set's class names; zeros if left out.
        ignore: `[N]` bool. True where a box is neither an object nor background: it takes no part
            in the loss, and finding it or not does not count. False if left out.
    """

    name: str
    image: Path | bytes
    boxes: np.ndarray
    classes: np.ndarray = None  # type: ignore[assignment]  # filled in below
    ignore: np.ndarray = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        boxes = np.asarray(self.boxes, np.float32).reshape(-1, 4)
        classes = np.zeros(len(boxes)) if self.classes is None else self.classes
        ignore = np.zeros(len(boxes)) if self.ignore is None else self.ignore
        for name, value, dtype in (
            ("boxes", boxes, np.float32),
            ("classes", classes, np.int32),
            ("ignore", ignore, np.bool_),
        ):
            array = np.asarray(value).astype(dtype)
            if len(array) != len(boxes):
                raise ValueError(
                    f"{self.name}: expected {len(boxes)} {name}, one a box, received {len(array)}"
                )
            object.__setattr__(self, name, array)

    @property
    def where(self) -> str:
        """The image's file, or its name where it has none: for messages."""
        return self.name if isinstance(self.image, bytes) else str(self.image)

    def encoded(self) -> bytes:
        """The encoded image. Raises `OSError` if its file cannot be read."""
        return self.image if isinstance(self.image, bytes) else self.image.read_bytes()


@dataclasses.dataclass(frozen=True)
class Detections:
    """What was found in one image, best first.

    Attributes:
        boxes: `xyxy` `[K, 4]` float32, in pixels of the image and cut to it.
        scores: `[K]` float32 from 0 to 1.
        classes: `[K]` int32.
        image_size: height and width of the image, in pixels.
    """

    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray
    image_size: tuple[int, int]

    def __len__(self) -> int:
        return len(self.scores)

    def above(self, score_threshold: float) -> Detections:
        """Only the detections whose score is at least `score_threshold`."""
        keep = self.scores >= score_threshold
        return dataclasses.replace(
            self, boxes=self.boxes[keep], scores=self.scores[keep], classes=self.classes[keep]
        )


@dataclasses.dataclass(frozen=True)
class Problem:
    """Something in the data that could not be used, and where it stands."""

    kind: str
    where: str
    message: str

    def __str__(self) -> str:
        return f"{self.where}: {self.message}"


class Problems:
    """Collects what readers and the input pipeline had to leave out, so that nothing is lost silently.

    Each problem is kept; the first few of a kind are logged as warnings when they occur,
    `log_counts` logs the totals.
    """

    def __init__(self) -> None:
        """Starts empty."""
        self.found: list[Problem] = []
        self._seen: set[tuple[str, str]] = set()
        self.counts: Counter[str] = Counter()

    def add(self, kind: str, where: str, message: str) -> None:
        """Records one problem; `where` is a file, with its line where there is one (`path:line`).

        One that is known is not counted again: a photo may be read by several parts of a program.
        """
        if (kind, where) in self._seen:
            return
        self._seen.add((kind, where))
        problem = Problem(kind, where, message)
        self.found.append(problem)
        self.counts[kind] += 1
        if self.counts[kind] <= LOGGED_PER_KIND:
            logger.warning("%s", problem)

    def log_counts(self) -> None:
        """Logs how many problems of each kind there were."""
        for kind, count in self.counts.items():
            logger.warning("%d x %s", count, kind)

    def save(self, path: Path) -> None:
        """Writes all problems, a line each: kind, place, message."""
        path.write_text("".join(f"{p.kind}\t{p}\n" for p in self.found), encoding="utf-8")
