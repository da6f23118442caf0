"""The settings of a YOLO data set: `data.yaml`, darknet's `obj.data`, or a list of class names alone.

Settings are a dict with the keys of `data.yaml`: the splits, `names`, `nc`, `path` and `kpt_shape`.
Everything in them is text: in YAML, the names `yes`, `no`, `on`, `null` and `1.0` would be something else.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml

from unitbox_tf import files, limits
from unitbox_tf.datasets import checks

YAML_FILES = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")
DARKNET_FILE = "obj.data"
NAME_FILES = ("obj.names", "_darknet.labels")  # darknet's, beside checks.LABEL_FILES
SPLITS = ("train", "val", "valid", "test")
DRIVE = re.compile(r"^[A-Za-z]:/")


class _Loader(yaml.BaseLoader):
    """Reads every value as text, and refuses a key that is there twice, and lists that are there twice by an alias.

    A few lines of aliases could stand for more text than memory holds.
    """

    def compose_node(self, parent: Any, index: Any) -> Any:
        alias = self.check_event(yaml.events.AliasEvent)
        node: Any = super().compose_node(parent, index)
        if alias and not isinstance(node, yaml.ScalarNode):
            raise yaml.composer.ComposerError(
                None, None, "expected no alias of a list or map", node.start_mark
            )
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        found = super().construct_mapping(node, deep)
        if len(found) < len(node.value):
            known: set[str] = set()
            for key, _ in node.value:
                if key.value in known:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"{key.value[:200]!r} is there twice", key.start_mark
                    )
                known.add(key.value)
        return dict(found)


def find(root: Path) -> tuple[Path, dict[str, Any] | None]:
    """The path and content of the settings in the folder `root`, or in the file `root`.

    Without such a file, the path that it might have, and None. Raises `ValueError` if it cannot be parsed.
    """
    path = root
    if not root.is_file():
        paths = [root / name for name in (*YAML_FILES, DARKNET_FILE)]
        path = next((path for path in paths if os.path.lexists(path)), paths[0])
        if not os.path.lexists(path):
            return path, None
    return path, _darknet(path) if path.suffix == ".data" else _parsed(path)


def _parsed(path: Path) -> dict[str, Any]:
    try:
        content = yaml.load(files.read(path, limits.MAX_SETTINGS_BYTES), Loader=_Loader)
    except limits.TooLarge:
        raise
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        reason = getattr(error, "problem", None) or str(error)
        raise ValueError(f"{where}: not valid YAML: {' '.join(reason.split())[:300]}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected train, val and names, received {content!r:.100}")
    return content


def _darknet(path: Path) -> dict[str, Any]:
    """Lines `key = value`; `names` is a file with a name in each line."""
    settings: dict[str, Any] = {}
    for number, line in enumerate(checks.lines(path, small=True), 1):
        key, equals, value = line.partition("=")
        if line.strip() and not line.lstrip().startswith("#"):
            if not equals:
                message = f"expected KEY = VALUE, received {line.strip()[:200]!r}"
                raise ValueError(f"{path}:{number}: {message}")
            settings[key.strip()] = value.strip()
    stated = settings.pop("names", "")
    file = resolve(stated, [path.parent], path.parent) if stated else None
    if file is None or not file.is_file():
        raise ValueError(
            f"{path}: expected names = FILE with the names of classes, received {stated!r:.200}"
        )
    return settings | {"names": list(checks.name_list(file)), "nc": settings.get("classes")}


def names(path: Path, settings: dict[str, Any]) -> tuple[str, ...] | None:
    """The class names in the settings; None if there are none. Raises `ValueError` if they cannot be used."""
    stated = settings.get("names")
    if stated is None:
        return None
    if isinstance(stated, dict):
        stated = _in_order(path, stated)
    # str() is not called on everything: an alias bomb is small until it is written out.
    if not isinstance(stated, list) or not all(isinstance(name, str) for name in stated):
        raise ValueError(f"{path}: expected names, a list or map of the names of classes")
    found = tuple(name.strip() for name in stated)
    number = checks.first_unusable(found)
    if number is not None:
        raise ValueError(
            f"{path}: expected the name of another class as name {number + 1}, received {found[number]!r:.200}"
        )
    count = settings.get("nc")
    if count is not None and str(count)[:20].strip() != str(len(found)):
        raise ValueError(
            f"{path}: expected as many names as nc says, {count!r:.50}, received {len(found)} "
            f"names: {', '.join(found)[:200]}"
        )
    return found


def _in_order(path: Path, stated: dict[Any, Any]) -> list[Any]:
    """The names of a map from numbers to names, or from names to numbers."""
    if stated and all(isinstance(value, str) and value.isdecimal() for value in stated.values()):
        if not all(str(key).isdecimal() for key in stated):
            if len(set(stated.values())) < len(stated):
                raise ValueError(f"{path}: expected a number of its own for each of names")
            stated = {number: name for name, number in stated.items()}
    if set(stated) != {str(number) for number in range(len(stated))}:
        raise ValueError(f"{path}: expected names numbered from 0, received {list(stated)!r:.200}")
    return [stated[str(number)] for number in range(len(stated))]


def listed_names(root: Path, split: str) -> tuple[Path, tuple[str, ...]] | None:
    """The class names in `labels.txt`, `classes.txt` or `obj.names`, and their file; None without one.

    Tools write such a file into the root or into the folders of labels. Raises `ValueError` if two of
    them differ.
    """
    found: tuple[Path, tuple[str, ...]] | None = None
    inside = checks.Folder(root)
    for folder in _name_folders(root, split):
        for name in (*checks.LABEL_FILES, *NAME_FILES):
            path = folder / name
            if not os.path.lexists(path) or not inside.contains(path):
                continue
            listed = checks.name_list(path)
            if found and listed != found[1]:
                raise ValueError(
                    f"{path}: expected the classes of {found[0]}, {', '.join(found[1])[:200]}, "
                    f"received {', '.join(listed)[:200]}: the labels' numbers would have two meanings"
                )
            found = found or (path, listed)
    return found


def _name_folders(root: Path, split: str) -> Iterable[Path]:
    splits = [split] if split and not checks.LEAVES.search(split) else SPLITS
    below = [f for s in splits for f in (f"labels/{s}", f"{s}/labels", f"images/{s}", s)]
    return dict.fromkeys(root / folder for folder in (".", "labels", "images", *below))


def keypoint_numbers(path: Path, settings: dict[str, Any]) -> int | None:
    """How many numbers `kpt_shape` (points, numbers a point) adds to each box; None without it."""
    stated = settings.get("kpt_shape")
    if stated is None:
        return None
    shape = stated if isinstance(stated, list) else []
    usable = len(shape) == 2 and all(isinstance(n, str) and n.isdecimal() for n in shape)
    if not usable or max(map(len, shape)) > 5 or shape[1] not in ("2", "3"):
        raise ValueError(
            f"{path}: expected kpt_shape as [points, 2 or 3], received {stated!r:.100}"
        )
    return int(shape[0]) * int(shape[1])


def resolve(name: str, bases: Sequence[Path], root: Path) -> Path | None:
    r"""The file or folder below `root` that `name` means; None if there is none.

    `name` may be a path below one of `bases`, or a path of another folder or machine that ends in such a
    path: `../train/images`, `C:\set\images\a.jpg`, `data/obj_train_data/a.jpg`.
    """
    name = name[:1000].replace("\\", "/")
    if checks.UNUSABLE.search(name):
        return None
    parts = [part for part in DRIVE.sub("", name).split("/") if part not in ("", ".")]
    outside = max((n + 1 for n, part in enumerate(parts) if part == ".."), default=0)
    for start in (0, *range(max(outside, 1), len(parts))):
        for base in bases:
            path = os.path.normpath(base.joinpath(*parts[start:]))
            # Not Path.exists, which raises for names that are too long.
            if os.path.exists(path) and not os.path.relpath(path, root).startswith(".."):
                return Path(path)
    return None
