"""What a data set format is made of: a class that opens data sets, and a function that writes them."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from unitbox_tf.datasets import writing
from unitbox_tf.problems import Problems
from unitbox_tf.records import Annotation


@dataclasses.dataclass(frozen=True)
class Ids:
    """The meaning of numbers in files of results: names of images, indices of classes."""

    images: dict[Any, str]
    categories: dict[Any, int]


class DataSet(abc.ABC):
    """A data set that is open. Each format has a class of its own, made from a root and a split.

    A file that holds both class names and annotations is parsed when the object is made. Only compact
    records of it are kept, and problems in it, which `annotations` tells to each who asks.

    Raises:
        ValueError: nothing can be read at all.
    """

    @abc.abstractmethod
    def annotations(
        self, *, photos: bool = True, problems: Problems | None = None
    ) -> Iterator[Annotation]:
        """The images and their objects, in the order of the files.

        What cannot be used is added to `problems` with file and line. It is left out, or kept to be
        ignored where it is a box without area or outside its image. With `photos=False`, files of
        images may be absent: annotations are complete all the same.
        """

    def class_names(self) -> tuple[str, ...] | None:
        """The names of the classes, in the order of their indices; None where the format has none."""
        return None

    def ids(self) -> Ids | None:
        """The numbers that files of results use; None where the format has none."""
        return None


class Write(Protocol):
    """Writes a data set into the new folder `root`, all of it or nothing, and says how much it was.

    `photos` says whether files of images are copied, hard-linked (`"link"`) or left where they are
    (`"none"`). `tfrecord` goes on where it was stopped.
    """

    def __call__(
        self,
        annotations: Iterable[Annotation],
        root: Path,
        split: str,
        class_names: Sequence[str],
        *,
        photos: writing.PhotosAs = "copy",
        problems: Problems | None = None,
    ) -> writing.Written:
        """Writes."""


@dataclasses.dataclass(frozen=True)
class Format:
    """A data set format. Each module of one has it as `FORMAT`, which `registry.DATASETS` names.

    Attributes:
        open: opens the data set in a file or folder. The second argument is the split: a part of
            the data set in the format's own words, or an empty text for all of it.
        write: None where nothing can be written in this format.
    """

    open: Callable[[Path, str], DataSet]
    write: Write | None = None
