"""A folder of images with boxes in COCO's object detection json (Lin et al., ECCV 2014).

`root` is the json file, or a folder with one json file in it. Images lie in the folder of the json
file or in `images` below it. Boxes are `x y w h`. An annotation with `"iscrowd": 1` or `"ignore":
1` is kept and ignored. Classes are numbered by ascending category id.
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
    """The images of the json file `root`, or of `root / split.json`, or of the only json file in `root`."""
    path = _json_file(root, split)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        images, objects = content["images"], content["annotations"]
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

    folder = path.parent / "images" if (path.parent / "images").is_dir() else path.parent
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
    if root.is_file():
        return root
    if split:
        path = root / f"{split}.json"
        if not path.is_file():
            raise ValueError(f"{path}: no such file")
        return path
    found = sorted(root.glob("*.json"))
    if len(found) != 1:
        names = [path.name for path in found]
        raise ValueError(
            f"{root}: expected one json file, found {names}; name one after '#', without .json"
        )
    return found[0]
