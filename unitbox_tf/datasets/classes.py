"""Classes by name: which class of the model an object of a source has.

Each source numbers its classes in its own way, so numbers are never compared. Names are: the class of an
object is the class of the model that has the same name. Formats without names count instead: their class 0
is the model's first class.
"""

from __future__ import annotations

import dataclasses
import logging
import re
import shlex
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from unitbox_tf import spelling
from unitbox_tf.problems import Problems, printable
from unitbox_tf.records import Annotation

logger = logging.getLogger(__name__)

Rename: TypeAlias = Mapping[str, str] | Iterable[str]
ALIKE = "classes of nearly the same name"  # a kind of problem
FEW = 20  # names that a message lists


@dataclasses.dataclass(frozen=True)
class Named:
    """A source's annotations, and the names of their classes.

    Attributes:
        text: the source as it is written.
        annotations: the annotations, with the class indices of the source.
        names: the name of each class, after renaming. Two classes of one name are one class.
        counted: True if the source has no names, so that its numbers count the model's classes.
        usual: for such a source: the name of its one class where the model knows it.
    """

    text: str
    annotations: Sequence[Annotation]
    names: tuple[str, ...]
    counted: bool = False
    usual: str | None = None

    @property
    def most(self) -> int:
        """One more than the highest class of an object; 0 without objects."""
        return num_classes(self.annotations)

    def counts(self, names: Sequence[str]) -> Counter[str]:
        """The number of objects of each class by its name, ignored ones, too."""
        numbers = np.zeros(len(names), np.int64)
        for annotation in self.annotations:
            numbers += np.bincount(annotation.classes, minlength=len(names))
        found: Counter[str] = Counter()
        for name, number in zip(names, numbers.tolist(), strict=True):
            if number:
                found[name] += number
        return found


def renames(rename: Rename | None) -> dict[str, str]:
    """The new name of each name: of a mapping, or of texts `old=new`.

    Raises:
        ValueError: a text has another form, or a name gets two new names.
    """
    if rename is None:
        return {}
    if isinstance(rename, Mapping):
        pairs = [(str(old), str(new)) for old, new in rename.items()]
    else:
        pairs = [_pair(text) for text in ([rename] if isinstance(rename, str) else rename)]
    found: dict[str, str] = {}
    for old, new in pairs:
        if not old.strip() or not new.strip():
            raise ValueError(f"rename: expected two names. Received: {old!r} and {new!r}")
        if found.setdefault(old, new) != new:
            raise ValueError(
                f"rename: expected one new name for {old!r}. Received: {found[old]!r} and {new!r}"
            )
    return found


def _pair(text: Any) -> tuple[str, str]:
    if not isinstance(text, str) or text.count("=") != 1:
        raise ValueError(
            "rename (--rename): expected texts old=new, such as human_face=face; in Python, a mapping, too. "
            f"Received: {text!r:.200}"
        )
    old, _, new = text.partition("=")
    return old.strip(), new.strip()


def num_classes(annotations: Iterable[Annotation]) -> int:
    """One more than the highest class of an object; 0 without objects."""
    return max((int(a.classes.max()) + 1 for a in annotations if len(a.classes)), default=0)


def made_up(count: int, usual: str | None = None) -> tuple[str, ...]:
    """Names for `count` classes without names: `usual` or `object`, or `class0`, `class1` ... for several."""
    return tuple(f"class{i}" for i in range(count)) if count > 1 else (usual or "object",)


def union(parts: Sequence[Named]) -> tuple[str, ...]:
    """The names of all classes of the sources, in the order of the sources.

    Sources without names count as many of these. If no source has names, they are made up.
    """
    names = dict.fromkeys(name for part in parts if not part.counted for name in part.names)
    if names:
        return tuple(names)
    with_objects = [part for part in parts if part.most] or list(parts)
    most = max(with_objects, key=lambda part: part.most, default=None)
    return made_up(0) if most is None else most.names


def say_alike(names: Sequence[str], problems: Problems) -> None:
    """Reports classes whose names differ in capital letters, spaces, hyphens or underscores alone."""
    known: dict[str, str] = {}
    for name in names:
        plain = unicodedata.normalize("NFKC", re.sub(r"[\s_-]+", "", name) or name)
        other = known.setdefault(plain.casefold(), name)
        if other != name:
            message = f"these are two classes. If they are one, rename: --rename {shlex.quote(f'{name}={other}')}"
            problems.add(ALIKE, f"{other!r} and {name!r}", message)


def check_renamed(rename: Mapping[str, str], own_names: Iterable[Sequence[str]]) -> None:
    """Raises `ValueError` if no source has a name that is renamed. `own_names` are from before renaming."""
    every = dict.fromkeys(name for names in own_names for name in names)
    known = list(every)
    for old, new in rename.items():
        if old not in every:
            near = spelling.closest(old, known)
            line = f" (--rename {shlex.quote(f'{near}={new}')})" if near else ""
            raise ValueError(
                f"rename: no source has the class {old!r}.{spelling.resembling(old, known)}{line} The "
                f"classes of the sources: {listed(known)}"
            )


def checked_choice(classes: Sequence[str], known: Sequence[str], whose: str) -> tuple[str, ...]:
    """`classes` as a tuple.

    Raises:
        ValueError: it is empty, has a name twice, or one that is not `known`. `whose` says in the message
            what is known.
    """
    if isinstance(classes, str) or not all(isinstance(name, str) for name in classes):
        raise ValueError(f"classes: expected a list of names. Received: {classes!r:.200}")
    if not classes or len(set(classes)) < len(classes):
        raise ValueError(
            f"classes: expected at least one name, all different. Received: {list(classes)!r:.200}"
        )
    every = set(known)
    for name in classes:
        if name not in every:
            raise ValueError(
                f"classes (--classes): {whose} the class {name!r}.{spelling.resembling(name, known)} "
                f"Known classes: {listed(known)}"
            )
    return tuple(classes)


def mapped(
    part: Named,
    class_names: Sequence[str],
    classes: Sequence[str] | None = None,
    counted: Sequence[str] | None = None,
) -> list[Annotation]:
    """The annotations of a source, with the class indices of the model.

    Args:
        part: the source.
        class_names: the names of the model's classes.
        classes: only objects of these classes are kept; None keeps all.
        counted: the names that sources without names count; None: `class_names`.

    Raises:
        ValueError: an object has a class that the model does not have.
    """
    counted = tuple(class_names if counted is None else counted)
    names = names_of(part, counted)
    if part.counted and names and len(counted) > 1:
        _say_counted(part, names)
    if part.most > len(names):
        raise ValueError(_too_many(part, names))
    index = {name: place for place, name in enumerate(class_names)}
    left_out = set(names) - set(classes) if classes is not None else set()
    unknown = [name for name in names if name not in index and name not in left_out]
    if unknown:
        counts = part.counts(names)
        if any(counts[name] for name in unknown):
            raise ValueError(_unknown(part, counts, unknown, class_names))
    table = np.array([-1 if n in left_out else index.get(n, -1) for n in names], np.int32)
    if left_out:
        _say_left_out(part, part.counts(names), left_out, classes or ())
    if np.array_equal(table, np.arange(len(table))):
        return list(part.annotations)
    return [_with_classes(annotation, table) for annotation in part.annotations]


def names_of(part: Named, counted: Sequence[str]) -> tuple[str, ...]:
    """The name of each class of the source. A source without names counts those of `counted`.

    Raises:
        ValueError: it has more classes than there are names.
    """
    if not part.counted:
        return part.names
    if part.most <= 1 and part.usual in counted:
        return (str(part.usual),)
    if part.most > len(counted):
        raise ValueError(_too_many(part, counted))
    return tuple(counted[: part.most])


def _say_counted(part: Named, names: Sequence[str]) -> None:
    taken = listed([f"{index} for {name}" for index, name in enumerate(names)])
    logger.info("%s has no names of classes: it has class %s", part.text, taken)


def _with_classes(annotation: Annotation, table: np.ndarray) -> Annotation:
    labels = table[annotation.classes]
    kept = labels >= 0
    if not kept.all():
        annotation, labels = annotation.select(kept), labels[kept]
    return dataclasses.replace(annotation, classes=labels)


def _say_left_out(
    part: Named, counts: Counter[str], left_out: set[str], classes: Sequence[str]
) -> None:
    gone = {name: count for name, count in counts.most_common() if name in left_out}
    if gone:
        each = listed([f"{name} {count}" for name, count in gone.items()])
        message = "%s: objects of other classes than %s are background, %d in all: %s"
        logger.info(message, part.text, listed(classes), sum(gone.values()), each)


def _too_many(part: Named, names: Sequence[str]) -> str:
    such = f"only the names {listed(names)}" if part.counted else f"the names {listed(names)}"
    return (
        f"{part.text!r} has objects of at least {part.most} classes, but there are {such}. Expected a name "
        "for each class: list them in the data set (labels.txt, or names in data.yaml), or in training as "
        "class_names (--class-names), in the data set's order"
    )


def _unknown(
    part: Named, counts: Mapping[str, int], unknown: Sequence[str], class_names: Sequence[str]
) -> str:
    """The message for classes that the model does not have, with the lines that mend it."""
    wrong = [name for name in unknown if counts[name]]
    each = ", ".join(f"{name!r} ({counts[name]} objects)" for name in wrong[:FEW])
    near = spelling.closest(wrong[0], class_names)
    target = near or (class_names[0] if len(class_names) == 1 else "NAME")
    line = shlex.quote(f"{wrong[0]}={target}")
    known = [name for name in class_names if counts.get(name)]
    some = " ".join(map(shlex.quote, known[:FEW])) + (" ..." if len(known) > FEW else "")
    mend = [f"to take it for another class: rename (--rename {line})"]
    if known:
        mend.append(f"to leave such objects out: classes (--classes {some})")
    mend.append("in training, to learn it, too: class_names (--class-names) with its name")
    return (
        f"{part.text!r} has objects of classes that are not among the model's: {each}. The classes of the "
        f"model: {listed(class_names)}.{spelling.resembling(wrong[0], class_names)} Expected the same names. "
        f"Ways to mend it: {'; '.join(mend)}"
    )


def listed(names: Sequence[str]) -> str:
    """The names in one line, the first of many."""
    more = f" and {len(names) - FEW} more" if len(names) > FEW else ""
    return printable(", ".join(names[:FEW]) or "none") + more
