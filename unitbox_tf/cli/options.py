"""Options of the command line for fields of settings, and checks of their values.

The option for a field takes its name, type, range, choices and help from the field; see
`settings.setting`. So an option is the same in every command, and a new field has an option at once.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import types
import typing
from collections.abc import Collection, Sequence
from typing import Any

from unitbox_tf import registry, settings
from unitbox_tf.config import DataConfig, DecodeConfig
from unitbox_tf.spelling import resembling

_METAVARS = {int: "N", float: "X", str: "TEXT"}


class Parser(argparse.ArgumentParser):
    """Takes no abbreviations. For a misspelled option, it suggests the closest one."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **{"allow_abbrev": False, **options})

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As usual, but unknown arguments of a command are an error of that command."""
        if self._subparsers is None:
            # Checked first, because the value of an unknown option would be taken for another argument.
            for text in itertools.takewhile(lambda text: text != "--", args):
                name = text.partition("=")[0]
                if text.startswith("--") and name not in self.options():
                    self.error(f"unknown option {name}.{resembling(name, self.options())}")
        known, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unexpected argument {unknown[0]!r}")
        return known, unknown

    def options(self) -> list[str]:
        """All known options, as they are written."""
        return [name for action in self._actions for name in action.option_strings]


def one_of(kind: str, names: Collection[str]) -> Any:
    """An argparse type for one of `names`. The error for another text suggests the closest name."""

    def check(text: str) -> str:
        if text in names:
            return text
        raise argparse.ArgumentTypeError(
            f"unknown {kind} {text!r}.{resembling(text, names)} Expected one of: {', '.join(names)}"
        )

    return check


def number(kind: type, check: settings.Check) -> Any:
    """An argparse type for a number that passes `check`."""

    def read(text: str) -> Any:
        value = _read(kind, text)
        if not isinstance(value, kind) or not check.holds(value):
            name = "whole number" if kind is int else "number"
            raise argparse.ArgumentTypeError(f"expected a {name} {check.words}. Received: {text}")
        return value

    return read


def source(text: str) -> str:
    """An argparse type for a source of annotated images. Its path is not looked for."""
    return _of_format(text, "source", list(registry.DATASETS))


def destination(text: str) -> str:
    """An argparse type for a data set to write."""
    from unitbox_tf import datasets

    text = _of_format(text, "destination", datasets.writable())
    if text.partition(":")[2].partition("#")[0]:
        return text
    raise argparse.ArgumentTypeError(
        f"expected a destination as FORMAT:PATH#SPLIT. Received: {text!r}, which has no path"
    )


def _of_format(text: str, kind: str, formats: Collection[str]) -> str:
    name, colon, _ = text.partition(":")
    if colon and name in formats:
        return text
    near = resembling(name, formats)
    raise argparse.ArgumentTypeError(
        f"expected a {kind} as FORMAT:PATH#SPLIT. Received: {text!r}.{near} Expected one of the formats: "
        f"{', '.join(formats)}"
    )


def detector(text: str) -> str:
    """An argparse type for a detector: the name of a published detector, or a path; see `runs.find`.

    It is checked before TensorFlow is imported.
    """
    from unitbox_tf import runs

    try:
        runs.find(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text


def check_detector(name: str) -> None:
    """Raises `FileNotFoundError` if there is no such detector. TensorFlow is not imported for this."""
    from unitbox_tf import runs

    path = runs.find(name)
    if not path.exists():
        raise FileNotFoundError(
            f"{path}: no such file or folder. Expected a run's folder, an exported detector, or the name of a "
            f"published detector ({runs.published()})"
        )


def add_trust(parser: Any) -> None:
    """Adds `--trust`."""
    parser.add_argument(
        "--trust",
        action="store_true",
        help="open a SavedModel whoever made it; its graph is a program, which may read and write your files. Without "
        "this option, only graphs are opened that have nothing but what unitbox export writes",
    )


def add_settings(
    parser: Any,
    cls: type[settings.Settings],
    defaults: settings.Settings | str,
    without: Collection[str] = (),
) -> None:
    """Adds an option for each field of the settings `cls` to a parser or to a group of its arguments.

    An option that is not given is absent from the parsed options, because None may be a value.

    Args:
        parser: a parser or a group.
        cls: a dataclass of `config`.
        defaults: the settings whose values the help shows as defaults, or a text that says whose they are.
        without: names of fields that get no option.
    """
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]
        if field.name in without:
            continue
        names = [f"--{field.name.replace('_', '-')}"]
        if isinstance(defaults, str):
            default = defaults
        else:
            default = _shown(names[0], getattr(defaults, field.name))
        text = f"{field.metadata['help']} (default: {default})"
        common = {"help": text.replace("%", "%%"), "default": argparse.SUPPRESS}
        if hints[field.name] is bool:
            action = parser.add_argument(*names, action=argparse.BooleanOptionalAction, **common)
            action.help = common["help"]  # Python 3.10 adds a default of its own
        else:
            known = settings.choices(cls, field.name)
            words = {
                "nargs": _nargs(hints[field.name]),
                "metavar": _metavar(hints[field.name], known),
            }
            parser.add_argument(*names, action=_Set, owner=cls, **words, **common)


def given(options: argparse.Namespace, cls: type[settings.Settings]) -> dict[str, Any]:
    """The fields of the settings `cls` that are given on the command line, with their values."""
    names = (field.name for field in dataclasses.fields(cls))  # type: ignore[arg-type]
    return {name: getattr(options, name) for name in names if hasattr(options, name)}


def add_decoding(parser: Any) -> None:
    """Adds the options of decoding, which are the same in every command."""
    add_settings(parser, DecodeConfig, "the detector's")


def decoding(options: argparse.Namespace) -> dict[str, Any]:
    """The fields of `DecodeConfig` that are given on the command line."""
    return given(options, DecodeConfig)


def add_classes(parser: Any, kept: str) -> None:
    """Adds `--classes` and `--rename`. `kept` says what happens with the objects of the classes that are named."""
    parser.add_argument(
        "--classes",
        nargs="+",
        metavar="NAME",
        action=_Set,
        owner=DataConfig,
        default=None,
        help=f"{kept} only objects of these classes (default: of all)",
    )
    parser.add_argument(
        "--rename",
        nargs="+",
        metavar="OLD=NEW",
        action=_Set,
        owner=DataConfig,
        default=None,
        help="new names of classes in the data; use it where the same class has another name, such as "
        "human_face=face (default: names stay)",
    )


class _Set(argparse.Action):
    """Stores the value of a field of settings, checked as the settings check it."""

    def __init__(self, owner: type[settings.Settings], **options: Any) -> None:
        super().__init__(**options)
        self._owner = owner
        self._hint = typing.get_type_hints(owner)[self.dest]

    def __call__(
        self, parser: Any, namespace: argparse.Namespace, values: Any, option: Any = None
    ) -> None:
        try:
            value = settings.checked(self._owner, self.dest, _read(self._hint, values))
        except ValueError as error:
            message = str(error).removeprefix(f"{self._owner.__name__}.{self.dest}: ")
            known = settings.choices(self._owner, self.dest) or ()
            near = resembling(values, known) if isinstance(values, str) else ""
            raise argparse.ArgumentError(self, f"{message}.{near}" if near else message) from error
        setattr(namespace, self.dest, value)


def _read(hint: Any, given: str | Sequence[str]) -> Any:
    """The value of a text. A text without a value is returned as it is, and the check then refuses it."""
    if typing.get_origin(hint) is tuple:
        return tuple(_read(typing.get_args(hint)[0], text) for text in given)
    if isinstance(hint, types.UnionType):
        if given == "None":
            return None
        [hint] = (kind for kind in typing.get_args(hint) if kind is not type(None))
    if hint in (int, float):
        try:
            return hint(given)
        except ValueError:
            return given
    return given


def _nargs(hint: Any) -> int | str | None:
    if typing.get_origin(hint) is not tuple:
        return None
    kinds = typing.get_args(hint)
    return "+" if kinds[-1] is Ellipsis else len(kinds)


def _metavar(hint: Any, choices: Sequence[str] | None) -> str:
    if choices is not None:
        return f"{{{','.join(choices)}}}"
    if typing.get_origin(hint) is tuple:
        return _METAVARS[typing.get_args(hint)[0]]
    if isinstance(hint, types.UnionType):
        [kind] = (kind for kind in typing.get_args(hint) if kind is not type(None))
        return f"{_METAVARS[kind]}|None"
    return _METAVARS[hint]


def _shown(option: str, value: Any) -> str:
    """A default as it is written on the command line."""
    if isinstance(value, bool):
        return option if value else option.replace("--", "--no-", 1)
    if isinstance(value, tuple):
        return "none given" if not value else " ".join(_shown(option, item) for item in value)
    return f"{value:g}" if isinstance(value, float) else str(value)
