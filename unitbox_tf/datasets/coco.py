"""A folder of images with boxes in COCO's object detection json (Lin et al., ECCV 2014).

Two layouts are known: a json file with its images beside it or in `images`, and COCO's own:

    instances.json                 annotations/instances_val2017.json
    images/1.jpg ...               val2017/000000000139.jpg ...

Boxes are `x y w h`. An annotation with `"iscrowd": 1` or `"ignore": 1` is kept and ignored. Classes
are numbered by ascending category id.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from unitbox_tf.datasets import checks
from unitbox_tf.records import Annotation, Problems


def read(root: Path, split: str, problems: Problems) -> Iterator[Annotation]:
    """The images of the json file `root`, or of that which `split` names, or of the only one in `root`."""
    path = _json_file(root, split)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        images, objects = content["images"], list(content["annotations"])
        classes = {
            c["id"]: i for i, c in enumerate(sorted(content["categories"], key=lambda c: c["id"]))
        }
        names = {image["id"]: str(image["file_name"]) for image in images}
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}:{error.lineno}: not valid JSON: {error.msg}") from error
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"{path}: expected COCO's images, annotations and categories: {error!r}"
        ) from error

    by_image: dict[Any, list[tuple[list[float], int, bool]]] = defaultdict(list)
    for index, item in enumerate(objects):
        where = f"{path}: annotations[{index}]"
        try:
            x, y, width, height = (float(value) for value in item["bbox"])
            image, label = item["image_id"], classes[item["category_id"]]
            names[image]
            ignore = bool(item.get("iscrowd", 0)) or bool(item.get("ignore", 0))
        except (KeyError, TypeError, ValueError) as error:
            problems.add("malformed annotation", where, f"{error!r} in {str(item)[:200]}")
            continue
        box = [x, y, x + width, y + height]
        if not np.isfinite(box).all():
            problems.add(
                "malformed annotation", where, f"expected finite numbers, received {item['bbox']}"
            )
        elif checks.has_area(box, where, problems):
            by_image[image].append((box, label, ignore))

    beside = path.parent
    candidates = [beside / "images", beside.parent / split if split else beside, beside]
    folder = next(folder for folder in candidates if folder.is_dir())
    for key, name in names.items():
        photo = folder / name
        if checks.is_there(photo, folder, f"{path}: image {name!r}", problems):
            rows = by_image[key]
            yield Annotation(
                name,
                photo,
                np.array([box for box, _, _ in rows]),
                np.array([label for _, label, _ in rows]),
                np.array([ignore for _, _, ignore in rows]),
            )


def _json_file(root: Path, split: str) -> Path:
    """The file that `root` and `split` name, where it lies in one of the two layouts."""
    if root.is_file():
        return root
    if split:
        named = [root / f"{split}.json", root / "annotations" / f"instances_{split}.json"]
        found = [path for path in named if path.is_file()]
        if not found:
            raise ValueError(f"expected {' or '.join(map(str, named))}: no such file")
        return found[0]
    found = sorted(root.glob("*.json"))
    if len(found) != 1:
        names = [path.name for path in found]
        raise ValueError(
            f"{root}: expected one json file, found {names}; name one after '#', without .json"
        )
    return found[0]
