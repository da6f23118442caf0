"""Helpers that all writers share: a folder that appears whole or not at all, its images, and losses of facts."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from unitbox_tf import files, images
from unitbox_tf.datasets import checks
from unitbox_tf.files import Part
from unitbox_tf.problems import Problems
from unitbox_tf.records import Annotation

PhotosAs = Literal["copy", "link", "none"]  # hard links: symbolic ones would leave the folder
LOST = "lost in this format"  # a kind of problem


class Written(NamedTuple):
    """The numbers of written images, of boxes, and of the ignored boxes among them."""

    images: int
    boxes: int
    ignored: int


class Destination:
    """A data set that is being written. Made by `destination`.

    Attributes:
        folder: where to write.
        class_names: the names of the classes in annotations.
        written: the numbers of images and boxes so far.
    """

    def __init__(
        self,
        root: Path,
        folder: Path,
        class_names: Sequence[str],
        holds: frozenset[str],
        photos: PhotosAs,
        *,
        problems: Problems | None = None,
    ) -> None:
        """`holds` names the facts that the format can store; see `destination`."""
        self.folder = folder
        self.class_names = tuple(class_names)
        self._root = root
        self._holds = holds
        self._problems = Problems.of(problems)
        self._photos = photos
        self._taken: set[str] = set()
        self.written = Written(0, 0, 0)

    def check_classes(self, annotation: Annotation) -> None:
        """Raises `ValueError` for a class without a name."""
        for label in set(annotation.classes.tolist()):
            if not 0 <= label < len(self.class_names):
                raise ValueError(
                    f"{annotation.where}: has an object of class {label}; expected one of the "
                    f"{len(self.class_names)} that are named: {checks.some_of(self.class_names)}"
                )

    def held(self, annotation: Annotation) -> Annotation:
        """`annotation` without the facts that the format cannot store. Losses are reported.

        Raises `ValueError` for a class without a name.
        """
        self.check_classes(annotation)
        extra = [] if annotation.ellipses is None else ["ellipses"]
        of_boxes = dataclasses.replace(annotation, areas=None).object_areas
        if not np.allclose(annotation.object_areas, of_boxes, rtol=1e-3, atol=1e-3):
            extra.append("areas")
        lost = [
            fact for fact in [*extra, *(annotation.attributes or {})] if fact not in self._holds
        ]
        if lost:  # the same for the whole data set: a report for each image would say no more
            message = f"the format cannot store these facts of an object: {', '.join(lost)}"
            self._problems.add(LOST, f"{self._root}: {lost[0]}", message)
        if "ignore" not in self._holds and annotation.ignore.any():
            message = f"{annotation.ignore.sum()} objects: the format has no way to ignore them"
            self._problems.add("ignored objects left out", annotation.where, message)
            annotation = annotation.select(~annotation.ignore)
        return annotation

    def photo(self, annotation: Annotation, folder: str, by_stem: bool = False) -> str | None:
        """Puts the image into `folder`, and returns its name there; None, after a report, if that fails.

        The name is the annotation's, with the image's suffix. `by_stem` is for formats that know images
        by their names without suffix.
        """
        name = self.new_name(annotation, by_stem)
        if name is None:
            return None
        return name if self._put(annotation, self.folder / folder / name) else None

    def new_name(self, annotation: Annotation, by_stem: bool = False) -> str | None:
        """The name of the image's file; None, after a report, if the name is unusable or taken."""
        suffix = _suffix(annotation)
        name = file_name(annotation)
        fault = checks.fault_of_name(annotation.name) or checks.fault_of_name(name)
        key = os.path.normpath(os.path.splitext(name)[0] if by_stem else name)
        if fault is None and name != name.strip():
            fault = "unusable name", f"expected no space at the ends of {name!r}"
        if fault is None and by_stem and suffix.lower() not in images.IMAGE_SUFFIXES:
            expected = ", ".join(sorted(images.IMAGE_SUFFIXES))
            fault = "unusable name", f"expected one of {expected} at the end of {name!r}"
        if fault is None and key in self._taken:
            fault = checks.TWICE, f"{name!r} has been written already, which is kept"
        if fault:
            self._problems.add(fault[0], annotation.where, fault[1])
            return None
        self._taken.add(key)
        return name

    def _put(self, annotation: Annotation, path: Path) -> bool:
        if self._photos == "none":
            return True
        source = annotation.image
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            if self._photos == "link" and isinstance(source, Path):
                os.link(os.path.realpath(source), path)
                return True
            # "x", because some file systems take different names for the same.
            with path.open("xb") as target:
                if not isinstance(source, Path):
                    target.write(annotation.encoded())
                else:
                    with files.open_regular(source) as file:
                        shutil.copyfileobj(file, target, 1 << 20)
        except FileNotFoundError:
            path.unlink(missing_ok=True)
            self._problems.add(checks.ABSENT, annotation.where, "no such file")
            return False
        except FileExistsError:
            self._problems.add(checks.TWICE, annotation.where, "has been written already")
            return False
        except OSError as error:
            if error.errno == errno.EXDEV:
                raise ValueError(
                    f"{annotation.where} lies on another file system than {self._root}: expected "
                    "the same, so that images can be linked; copy them instead"
                ) from error
            raise
        return True

    def size(self, annotation: Annotation) -> tuple[int, int] | None:
        """Height and width of the image; None, after a report, if they are neither stated nor readable."""
        stated = annotation.size
        if self._photos == "none" and stated:
            return stated
        try:
            measured = images.photo_size(annotation.image)
        except (OSError, ValueError) as error:
            if stated is None:
                self._problems.add("image of unknown size", annotation.where, str(error))
            return stated
        if stated not in (None, measured):
            message = f"expected height and width {stated}, as stated, the image has {measured}"
            self._problems.add("image of another size than stated", annotation.where, message)
        return measured

    def count(self, annotation: Annotation) -> None:
        """Adds the image to what was `written`."""
        count, boxes, ignored = self.written
        more = len(annotation.boxes), int(annotation.ignore.sum())
        self.written = Written(count + 1, boxes + more[0], ignored + more[1])

    def write(self, name: str, text: str) -> None:
        """Writes a new text file."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8", newline="\n") as file:
            file.write(text)

    def write_labels(self) -> None:
        """Writes the names of the classes, so that their order is kept."""
        self.write(checks.LABEL_FILES[0], "".join(f"{name}\n" for name in self.class_names))


def file_name(annotation: Annotation) -> str:
    """The name of the annotation, with the image's suffix if the name has none."""
    suffix = _suffix(annotation)
    has_suffix = annotation.name.lower().endswith(suffix.lower())
    return annotation.name if has_suffix else annotation.name + suffix


def _suffix(annotation: Annotation) -> str:
    if isinstance(annotation.image, Path):
        return os.path.splitext(annotation.image)[1]
    own = os.path.splitext(annotation.name)[1]
    # An image in a shard was a file before: it may be a PNG whose name ends with .jpg.
    if isinstance(annotation.image, Part) and own.lower() in images.IMAGE_SUFFIXES:
        return own
    return images.suffix_of(annotation.encoded())


@contextlib.contextmanager
def destination(
    root: Path,
    class_names: Sequence[str],
    *,
    holds: Sequence[str] = (),
    photos: PhotosAs = "copy",
    problems: Problems | None = None,
) -> Iterator[Destination]:
    """A folder beside `root`. It becomes `root` at the end; after an error it is deleted.

    Args:
        root: a new or empty folder.
        class_names: the names of the classes in annotations.
        holds: the facts besides boxes that the format can store: `"ignore"`, `"classes"`, `"ellipses"`,
            `"areas"` and names of attributes. Without `"classes"`, all objects are written as faces.
        photos: whether image files are copied, hard-linked, or left where they are.
        problems: items that cannot be written are added here.

    Raises:
        ValueError: `root` has files, or no format can hold the name of a class.
    """
    problems = Problems.of(problems)
    root = root.absolute()
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise ValueError(f"{root}: expected a new or empty folder, as nothing is overwritten")
    check_class_names(class_names)
    if "classes" not in holds and tuple(class_names) != ("face",):
        message = f"all of {', '.join(class_names)} are written as faces"
        problems.add(LOST, f"{root}: classes", message)
    with files.replacing(root) as folder:
        folder.mkdir()
        yield Destination(root, folder, class_names, frozenset(holds), photos, problems=problems)
        if root.exists():
            root.rmdir()  # fails if it is not empty any more


def check_class_names(class_names: Sequence[str]) -> None:
    """Raises `ValueError` if two classes have the same name, or if no format can hold a name."""
    known: set[str] = set()
    for name in class_names:
        if not name.strip() or name != name.strip() or checks.UNUSABLE.search(name):
            raise ValueError(f"Expected a class's name in one line. Received: {name!r}")
        if name in known:
            raise ValueError(f"Expected classes of different names. Received twice: {name!r}")
        known.add(name)


def usable_split(split: str) -> str:
    """Returns `split`. Raises `ValueError` if it cannot be part of a file's name."""
    if checks.fault_of_name(split) or "/" in split or "\\" in split or split != split.strip():
        raise ValueError(f"Expected a split that can name a file. Received: {split!r}")
    return split


def number(value: float, digits: int = 6) -> str:
    """`value` with up to `digits` decimals, without zeros at the end: 23.7, 5, 0."""
    text = f"{value:.{digits}f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text == "-0" else text
