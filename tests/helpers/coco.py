"""A COCO data set and results for it."""

import json

import numpy as np


def coco_set(folder):
    """A COCO json with ids of its own and areas that are not those of boxes, and results of another tool."""
    random = np.random.default_rng(1)
    images = [{"id": 40 - n, "file_name": f"{n}.jpg", "height": 90, "width": 99} for n in range(6)]
    objects, found = [], []
    for number in range(60):
        x, y, w, h = np.round(random.uniform([0, 0, 5, 5], [50, 50, 60, 60]), 2).tolist()
        image, category = images[number % 6]["id"], [7, 3][number // 6 % 2]
        known = {"id": number + 1, "image_id": image, "category_id": category}
        area = {"area": round(w * h * 0.6, 2), "iscrowd": int(number % 7 == 0)}
        objects.append({**known, **area, "bbox": [x, y, w, h]})
        moved = [round(v + random.normal(0, 2), 2) for v in (x, y)]
        score = round(random.uniform(), 2)
        found.append({**known, "bbox": [*moved, w, h], "score": score})
    categories = [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}]
    content = {"images": images, "annotations": objects, "categories": categories}
    (folder / "set.json").write_text(json.dumps(content))
    (folder / "found.json").write_text(json.dumps(found))
