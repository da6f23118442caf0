"""Small COCO sets whose objects tell their class by their place: object `n` of a set is the box `10 n, 0`."""

import json

import numpy as np

from unitbox_tf import images

SIDE = 64


def coco_set(folder, *objects, names=None, ids=None, photo="p"):
    """Writes one image and a json: an object for each of the texts `objects`, the name of its class.

    Args:
        folder: the new folder of the set.
        objects: class names of the objects, in order.
        names: the categories, in order of their ids; None: those of the objects.
        ids: the ids of the categories; None counts from 1.
        photo: the name of the image without suffix.
    """
    folder.mkdir(parents=True)
    names = list(dict.fromkeys(objects)) if names is None else list(names)
    ids = list(range(1, len(names) + 1)) if ids is None else list(ids)
    of_name = dict(zip(names, ids, strict=True))
    rows = [
        {"id": n, "image_id": 7, "category_id": of_name[name], "bbox": box_of(n)}
        for n, name in enumerate(objects)
    ]
    content = {
        "images": [{"id": 7, "file_name": f"{photo}.png", "height": SIDE, "width": SIDE}],
        "annotations": rows,
        "categories": [{"id": of_name[name], "name": name} for name in names],
    }
    (folder / "instances.json").write_text(json.dumps(content))
    grey = np.full([SIDE, SIDE, 3], 128, np.uint8)
    (folder / f"{photo}.png").write_bytes(images.encode_png(grey))
    return f"coco:{folder}"


def yolo_set(folder, *numbers, photo="p"):
    """Writes one image and labels of the classes `numbers`, without names."""
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True)
    grey = np.full([SIDE, SIDE, 3], 128, np.uint8)
    (folder / "images" / f"{photo}.png").write_bytes(images.encode_png(grey))
    rows = []
    for n, number in enumerate(numbers):
        x, y, width, height = (value / SIDE for value in box_of(n))
        rows.append(f"{number} {x + width / 2} {y + height / 2} {width} {height}\n")
    (folder / "labels" / f"{photo}.txt").write_text("".join(rows))
    return f"yolo:{folder}"


def box_of(number):
    """The box `x y w h` of an object by its number."""
    return [10.0 * (number % 6), 10.0 * (number // 6), 9.0, 8.0]


def number_of(box):
    """The number of an object by its box `xyxy`."""
    return round(box[0] / 10) + 6 * round(box[1] / 10)
