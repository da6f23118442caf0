"""Where tools put COCO's json and its images.

instances.json, images/               train/_annotations.coco.json, train/      (Roboflow)
result.json, images/   (Label Studio) annotations/instances_default.json, images/  (CVAT)
labels.json, data/     (FiftyOne)     annotations/train.json, train/         (MMDetection)
                                      annotations/instances_val2017.json, val2017/  (COCO)
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from unitbox_tf.datasets import checks

APART = frozenset({"annotations", "annotation", "labels", "anns", "json"})  # folders of json files
PHOTOS = ("images", "data", "JPEGImages", "photos")  # folders of images
ONE_OF = ("_annotations.coco", "labels", "annotations", "instances", "instances_default", "result")
# Words that tools write before and after the name of a split.
AROUND = re.compile(
    r"^(instances|annotations|person_keypoints|labels|coco)[_-]|[._-](coco|annotations)$"
)


class Found(NamedTuple):
    """A json file, and the names by which a source may call it."""

    path: Path
    splits: tuple[str, ...]


def json_file(root: Path, split: str) -> Path:
    """The json file `root`, or the one of `split` in the folder `root`, or the only one there.

    Raises:
        ValueError: there is none, or there are several and no `split` names one. The message names them.
    """
    if root.is_file():
        return root
    found = _jsons(root)
    if split:
        named = [each.path for each in found if split in each.splits]
        if not named:
            known = list(dict.fromkeys(name for each in found for name in each.splits))
            raise ValueError(
                f"{root}: expected {split}.json, annotations/instances_{split}.json or a json file in {split}/: "
                f"no such file. {checks.known_splits(split, known)}"
            )
        return named[0]
    # A file in the folder itself goes before those in folders below.
    nearest = [[each.path for each in found if each.path.parent == root]]
    nearest += [[each.path for each in found if each.path.parent.name.lower() in APART]]
    nearest += [[each.path for each in found]]
    chosen = next((paths for paths in nearest if paths), [])
    if len(chosen) != 1:
        if not found:
            raise ValueError(
                f"{root}: expected a json file of COCO's form in this folder or below, found none. Is the "
                "format another one?"
            )
        names = ", ".join(each.path.relative_to(root).as_posix() for each in found[:20])
        splits = ", ".join(each.splits[0] for each in found[:20])
        raise ValueError(
            f"{root}: expected one json file, found {names}; name one after '#': one of {splits}"
        )
    return chosen[0]


def _jsons(root: Path) -> list[Found]:
    """The json files in the folder `root`, in its folders, and in folders of json files there."""
    folders = [root, *(path for path in _folders(root) if path.name.lower() in APART)]
    found = [
        Found(path, tuple(dict.fromkeys([path.stem, split_of(path)])))
        for folder in folders
        for path in sorted(folder.glob("*.json"))
    ]
    for folder in _folders(root):
        if folder in folders:
            continue
        paths = sorted(folder.glob("*.json"))
        for below in _folders(folder):
            paths += sorted(below.glob("*.json")) if below.name.lower() in APART else []
        usual = [path for path in paths if path.stem in ONE_OF]
        only = paths if len(paths) == 1 else usual if len(usual) == 1 else []
        found += [Found(path, (folder.name,)) for path in only]
        found += [
            Found(path, (f"{folder.name}/{path.stem}",)) for path in paths if path not in only
        ]
    return found


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and path.name[0] != ".")


def split_of(path: Path) -> str:
    """The split that the name of a json file says: `val2017` for `instances_val2017.json`."""
    return AROUND.sub("", AROUND.sub("", path.stem)) or path.stem


class Places(NamedTuple):
    """The folders in which the images of a json file are searched, in this order, and the root of the data set."""

    folders: list[Path]
    root: Path


def photo_folders(path: Path, root: Path, split: str) -> Places:
    """Where the images of the json file `path` may be. The source names `root` and `split`."""
    beside = path.parent
    home = beside.parent if beside.name.lower() in APART else beside
    top = root if root.is_dir() and home.is_relative_to(root) else home
    splits = [name for name in dict.fromkeys([split, split_of(path)]) if name]
    named = [f"{folder}{name}" for name in splits for folder in ("images/", "")]
    # `split` is the source's text: it must not lead out of the folder.
    inside = [name for name in [*named, *PHOTOS] if ".." not in Path(name).parts]
    folders = [home / name for name in inside if (home / name).is_dir()]
    return Places(list(dict.fromkeys([*folders, home, beside])), top)
