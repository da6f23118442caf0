"""Settings that check themselves: frozen dataclasses whose fields state their meaning and their valid values.

    @dataclasses.dataclass(frozen=True)
    class DataConfig(Settings):
        image_size: int = setting(96, "side of the square training images, in pixels", at_least(1))

Types, ranges and conditions between fields are checked when an object is made by the command line, from a
json file or in Python. Values with a plain meaning are converted: a list or a NumPy array to a tuple, a `Path`
to text, a whole number to a float, a NumPy number to Python's.
"""

from __future__ import annotations

import dataclasses
import math
import numbers
import os
import types
import typing
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, Literal, NamedTuple


class Check(NamedTuple):
    """A condition on a value besides its type, in words and as a test."""

    words: str
    holds: Callable[[Any], bool]


def at_least(lowest: float) -> Check:
    """A number of `lowest` or more."""
    return Check(f"of at least {lowest:g}", lambda value: value >= lowest)


def above(limit: float) -> Check:
    """A number of more than `limit`."""
    return Check(f"above {limit:g}", lambda value: value > limit)


def between(lowest: float, highest: float) -> Check:
    """A number from `lowest` to `highest`, both included."""
    limits = (str(limit) if isinstance(limit, int) else f"{limit:g}" for limit in (lowest, highest))
    return Check("from {} to {}".format(*limits), lambda value: lowest <= value <= highest)


def inside(lowest: float, limit: float) -> Check:
    """A number from `lowest` to below `limit`."""
    return Check(f"from {lowest:g} to below {limit:g}", lambda value: lowest <= value < limit)


def below(lowest: float, limit: float) -> Check:
    """A number above `lowest` and below `limit`."""
    return Check(f"above {lowest:g} and below {limit:g}", lambda value: lowest < value < limit)


def each(check: Check, *, different: bool = False, most: int | None = None) -> Check:
    """A tuple of at most `most` items, also an empty one. Each passes `check`; if `different`, no two are equal."""
    words = f"where each is {check.words}" + (", all different" if different else "")
    words += "" if most is None else f", {most} at most"
    return Check(
        words,
        lambda value: (
            (most is None or len(value) <= most)
            and all(map(check.holds, value))
            and not (different and len(set(value)) < len(value))
        ),
    )


def not_empty(
    check: Check | None = None, *, different: bool = False, most: int | None = None
) -> Check:
    """A tuple of one item to `most`. Each item passes `check`; if `different`, no two are equal."""
    words = "with at least one item" if most is None else f"with one item to {most}"
    words += f", each {check.words}" if check else ""
    words += ", all different" if different else ""

    def holds(value: tuple[Any, ...]) -> bool:
        if different and len(set(value)) < len(value):
            return False
        if not value or (most is not None and len(value) > most):
            return False
        return check is None or all(map(check.holds, value))

    return Check(words, holds)


def one_line(most: int | None = None) -> Check:
    """A text of one line that is not blank, of at most `most` characters."""
    return Check(
        "one line that is not blank" + ("" if most is None else f" (at most {most} characters)"),
        lambda value: (
            (most is None or len(value) <= most)
            and bool(value.strip())
            and value.splitlines() == [value]
        ),
    )


def old_new() -> Check:
    """A text `old=new`."""
    return Check(
        "as old=new, such as human_face=face",
        lambda value: value.count("=") == 1 and all(part.strip() for part in value.split("=")),
    )


def file_name() -> Check:
    """The name of a file or folder, without folders before it."""
    return Check(
        "that names a folder, without slashes",
        lambda value: value not in ("", ".", "..") and not {"/", "\\", "\0"} & set(value),
    )


def setting(
    default: Any, help: str, check: Check | None = None, names: Collection[str] | None = None
) -> Any:
    """A field of `Settings`.

    Args:
        default: the value if none is given.
        help: what the field does and when to change it. The command line shows this text.
        check: a condition on the value. None as a value is not checked.
        names: the valid names, such as a registry, to which names may be added later.
    """
    metadata = {"help": help, "check": check, "names": names}
    return dataclasses.field(default=default, metadata=metadata)


class Settings:
    """Base of dataclasses whose fields are made by `setting`, or are `Settings` themselves."""

    def __post_init__(self) -> None:
        """Checks each field, then the conditions between fields.

        Raises:
            ValueError: a value is unusable. The message names the field, the expected and the received value.
        """
        hints = typing.get_type_hints(type(self))
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            kept = _checked(type(self), field, hints[field.name], value)
            object.__setattr__(self, field.name, kept)
        for holds, words, received in self.together():
            if not holds:
                raise ValueError(f"{type(self).__name__}: expected {words}. Received: {received!r}")

    def together(self) -> Iterator[tuple[bool, str, Any]]:
        """Conditions between fields: True if the condition holds, the expectation in words, and the received value."""
        return iter(())


def choices(cls: Any, name: str) -> tuple[str, ...] | None:
    """The valid values of the field `name` of the settings `cls`; None if they are not listed."""
    hint = typing.get_type_hints(cls)[name]
    names = cls.__dataclass_fields__[name].metadata.get("names")
    if names is not None:
        return tuple(names)
    return typing.get_args(hint) if typing.get_origin(hint) is Literal else None


def changed(settings: Any, changes: Mapping[str, Any]) -> Any:
    """`settings` with other values in some fields.

    Raises:
        ValueError: a field is unknown, or its value unusable.
    """
    known = [field.name for field in dataclasses.fields(settings)]
    unknown = sorted(set(changes) - set(known))
    if unknown:
        raise ValueError(
            f"Unknown field of {type(settings).__name__}: {unknown[0]!r}. Expected one of {known}"
        )
    return dataclasses.replace(settings, **changes)


def checked(cls: Any, name: str, value: Any) -> Any:
    """`value` as the field `name` of the settings `cls` keeps it.

    Raises:
        ValueError: the value is unusable. The message names the field, the expected and the received value.
    """
    field = cls.__dataclass_fields__[name]
    return _checked(cls, field, typing.get_type_hints(cls)[name], value)


def from_dict(cls: type, values: Any, where: str) -> Any:
    """Settings of the class `cls` from a json object. Missing fields take their defaults.

    Raises:
        ValueError: a field is unknown or has an unusable value; the message begins with `where`.
    """
    if not isinstance(values, dict):
        raise ValueError(
            f"{where}: expected an object with the fields of {cls.__name__}. Received: {values!r:.200}"
        )
    hints = typing.get_type_hints(cls)
    unknown = sorted(set(values) - set(hints))
    if unknown:
        raise ValueError(
            f"{where}: unknown field {unknown[0]!r:.200}. Expected one of {sorted(hints)}"
        )
    given = {
        name: from_dict(hints[name], value, f"{where}: {name}")
        if isinstance(hints[name], type) and issubclass(hints[name], Settings)
        else value
        for name, value in values.items()
    }
    try:
        return cls(**given)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _checked(owner: type, field: dataclasses.Field[Any], hint: Any, value: Any) -> Any:
    """`value` as `field` of `owner` keeps it. Raises `ValueError` if it is unusable."""
    check: Check | None = field.metadata.get("check")
    names: Collection[str] | None = field.metadata.get("names")
    converted = _converted(hint, value)
    usable = converted is not _UNUSABLE
    if usable and converted is not None:
        usable = (check is None or check.holds(converted)) and (names is None or converted in names)
    if usable:
        return converted
    if names is not None:
        expected = f"one of {list(names)}, or a name that this program has registered"
    else:
        expected = _words(hint) + (f" {check.words}" if check else "")
    raise ValueError(
        f"{owner.__name__}.{field.name}: expected {expected}. Received: {value!r:.200}"
    )


LARGEST = 1 << 63  # whole numbers are smaller, as arrays hold them
_UNUSABLE = object()


def _converted(hint: Any, value: Any) -> Any:
    """`value` as the type `hint`, or `_UNUSABLE`."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple:
        if getattr(value, "ndim", None) == 1:  # a NumPy array
            value = list(value)
        if not isinstance(value, list | tuple):
            return _UNUSABLE
        kinds = arguments[:1] * len(value) if arguments[-1] is Ellipsis else arguments
        if len(kinds) != len(value):
            return _UNUSABLE
        items = tuple(_converted(kind, item) for kind, item in zip(kinds, value, strict=True))
        return _UNUSABLE if _UNUSABLE in items else items
    if origin is Literal:
        return value if isinstance(value, str) and value in arguments else _UNUSABLE
    if origin in (typing.Union, types.UnionType):
        [kind] = (kind for kind in arguments if kind is not type(None))
        return None if value is None else _converted(kind, value)
    if isinstance(hint, type) and issubclass(hint, Settings):
        return value if isinstance(value, hint) else _UNUSABLE
    return _plain(hint, value)


def _plain(kind: type, value: Any) -> Any:
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if is_number and isinstance(value, numbers.Integral) and abs(int(value)) >= LARGEST:
        return _UNUSABLE
    if kind is float and is_number and math.isfinite(value):
        return float(value)
    if kind is int and is_number and isinstance(value, numbers.Integral):
        return int(value)
    if kind is bool and type(value).__name__ in ("bool", "bool_"):  # NumPy's, too
        return bool(value)
    if kind is str and isinstance(value, str | os.PathLike):
        return str(os.fspath(value))  # also NumPy's text
    return _UNUSABLE


def _words(hint: Any) -> str:
    """The name of a type in messages."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple:
        if arguments[-1] is Ellipsis:
            return f"a list of {_PLURAL[arguments[0]]}"
        return f"{len(arguments)} {_PLURAL[arguments[0]]}"
    if origin is Literal:
        return f"one of {list(arguments)}"
    if origin in (typing.Union, types.UnionType):
        [kind] = (kind for kind in arguments if kind is not type(None))
        return f"None or {_words(kind)}"
    return _NAMES.get(hint, f"a {hint.__name__}")


_NAMES = {float: "a number", int: "a whole number", bool: "True or False", str: "text"}
_PLURAL = {float: "numbers", int: "whole numbers", bool: "truth values", str: "texts"}
