"""The parts of a data set format: a class that opens data sets, and a function that writes them."""

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

    @property
    def by_image(self) -> dict[str, Any]:
        """The id of each image by its name: the first, if it has several."""
        return {name: id for id, name in reversed(self.images.items())}


class DataSet(abc.ABC):
    """A data set that is open. Each format has a class of its own, made from a root and a split.

    A file that holds both class names and annotations is parsed when the object is made. The object
    keeps only compact records of the file, and the problems found in it. Each call of `annotations`
    reports these problems.

    Attributes:
        usual_class: for a format without names of classes: the name of its one class, if that is always
            the same.

    Raises:
        ValueError: nothing can be read.
    """

    usual_class: str | None = None

    @abc.abstractmethod
    def annotations(
        self, *, photos: bool = True, problems: Problems | None = None
    ) -> Iterator[Annotation]:
        """The images and their objects, in the order of the files.

        Unusable items are added to `problems` with file and line, and left out. Boxes without area or
        outside their image are reported, too, but kept and ignored. With `photos=False`, the image
        files may be absent, and the annotations are still complete.
        """

    def class_names(self) -> tuple[str, ...] | None:
        """The names of the classes, in the order of their indices; None where the format has none."""
        return None

    def ids(self) -> Ids | None:
        """The numbers that files of results use; None where the format has none."""
        return None


class Write(Protocol):
    """Writes a data set into the new folder `root`, all of it or nothing, and returns how much it was.

    `photos` says whether image files are copied, hard-linked (`"link"`) or left where they are
    (`"none"`). The format `tfrecord` continues a conversion that was stopped.
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
    """A data set format. The module of the format has it as `FORMAT`, and `registry.DATASETS` names it.

    Attributes:
        open: opens the data set in a file or folder. The second argument is the split: a part of
            the data set in the format's own words, or an empty text for all of it.
        write: writes a data set; None if the format can only be read.
    """

    open: Callable[[Path, str], DataSet]
    write: Write | None = None
