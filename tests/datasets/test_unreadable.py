"""Whatever happens to one object: no image that is used lacks an object that its file lists.

Each test damages one object, or one line, of a set of three images with two objects, one and none. The other
images stay as they are. The damaged image is used with all its objects, or left out and reported.
"""

import contextlib
import json

import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.data_sets import photo, png, read
from unitbox_tf.datasets import checks
from unitbox_tf.problems import Problems

OBJECTS = {"p/a.png": 2, "p/b.png": 1, "p/c.png": 0}

numbers = st.integers() | st.floats() | st.sampled_from([10**400, -(10**30), 1e308, 0, 1])
texts = st.text(st.characters(codec="utf-8", exclude_characters="\n\r"), max_size=8)
words = (
    texts
    | numbers.map(lambda number: str(number)[:50])
    | st.sampled_from(
        ["", " ", ",", '"', ";", "0", "nan", "1_0", "1e999", "a b", "1,2,3,4", "5 5", "\t", "\0"]
    )
)
scalars = st.none() | st.booleans() | numbers | words
values = st.recursive(
    scalars, lambda each: st.lists(each, max_size=5) | st.dictionaries(texts, each, max_size=3)
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the three images, as the formats name their folders."""
    root = tmp_path_factory.mktemp("set")
    for name in OBJECTS:
        for above in ("images", "originalPics", "WIDER_val/images"):
            photo(root / above / name, png(60, 80))
    (root / "FDDB-folds").mkdir()
    return root


def check(form, folder, split, damaged):
    """The images that are used have all their objects, and only the damaged one may be left out."""
    problems = Problems(logged=False)
    used = {a.name: a for a in read(form, folder, split, problems)}
    names = [name.removesuffix(".png") if form == "fddb" else name for name in OBJECTS]
    assert set(used) <= set(names)
    for name, count in zip(names, OBJECTS.values(), strict=True):
        if name in used:
            assert len(used[name].boxes) == count, name
        else:
            assert name.removesuffix(".png") == damaged.removesuffix(".png")
            assert any(problem.message.endswith("left out") for problem in problems.found)


def coco(changed, key, change):
    objects = [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 30, 40], "iscrowd": 0},
        {"id": 2, "image_id": 1, "category_id": 2, "bbox": [5, 6, 7.5, 8], "area": 9.5},
        {"id": 3, "image_id": 2, "category_id": 1, "segmentation": [[1, 2, 9, 2, 9, 9]]},
    ]
    change(objects[changed], key)
    return {
        "images": [{"id": n, "file_name": name} for n, name in enumerate(OBJECTS, 1)],
        "annotations": objects,
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    }


FIELDS = ["bbox", "category_id", "segmentation", "iscrowd", "ignore", "area", "id", "more"]


@given(changed=st.integers(0, 2), key=st.sampled_from(FIELDS), value=values, where=st.data())
def test_coco(folder, changed, key, value, where):
    def change(item, key):
        kind = where.draw(st.sampled_from(["delete", "replace", "inside", "nest"]))
        if kind == "delete":
            item.pop(key, None)
        elif kind == "nest":
            item[key] = [item.get(key)]
        elif kind == "inside" and isinstance(item.get(key), list):
            item[key] = list(item[key])
            item[key][where.draw(st.integers(0, len(item[key]) - 1))] = value
        else:
            item[key] = value

    path = folder / "coco.json"
    path.write_text(json.dumps(coco(changed, key, change)))
    try:
        check("coco", path, "", "p/a.png" if changed < 2 else "p/b.png")
    finally:
        path.unlink()


@given(
    row=st.integers(0, 2), cell=st.integers(1, 6), value=words, quoted=st.booleans(), data=st.data()
)
def test_csv(folder, row, cell, value, quoted, data):
    rows = [
        ["p/a.png", "1", "2", "30", "40", "cat", "0"],
        ["p/a.png", "5", "6", "17.5", "8", "dog", "1"],
        ["p/b.png", "1", "2", "3", "4", "cat", "0"],
    ]
    damaged = rows[row][0]
    kind = data.draw(st.sampled_from(["delete", "insert", "replace"]))
    new = '"' + value.replace('"', '""') + '"' if quoted else value
    rows[row][cell : cell + (kind != "insert")] = [] if kind == "delete" else [new]
    header = "image,x0,y0,x1,y1,class,ignore"
    path = folder / "boxes.csv"
    lines = [header, *map(",".join, rows), "p/c.png,,,,,,", ""]
    path.write_bytes("\n".join(lines).encode())
    try:
        check("csv", path, "", damaged)
    finally:
        path.unlink()


LISTS = {
    "fddb": ("FDDB-folds/FDDB-fold-01-ellipseList.txt", "1", "30 20 0.5 40 30 1"),
    "wider_face": ("wider_face_val_bbx_gt.txt", "val", "1 2 30 40 0 1 0 0 2 0"),
}


@pytest.mark.parametrize("form", LISTS)
@given(line=st.sampled_from([1, 2, 3, 5, 6]), value=words, data=st.data())
def test_lists(form, folder, line, value, data):
    """Lines are those of the counts and objects of the first two images."""
    file, split, row = LISTS[form]
    names = [name.removesuffix(".png") if form == "fddb" else name for name in OBJECTS]
    lines = [names[0], "2", row, row.replace("3", "2"), names[1], "1", row, names[2], "0"]
    kind = data.draw(st.sampled_from(["delete", "insert", "replace", "word"]))
    if kind == "word":
        cells = lines[line].split()
        cells[data.draw(st.integers(0, len(cells) - 1))] = value
        lines[line] = " ".join(cells)
    else:
        value = row if kind == "insert" and line != 1 else value
        lines[line : line + (kind != "insert")] = [] if kind == "delete" else [value]
    path = folder / file
    path.write_bytes("\n".join([*lines, ""]).encode())
    try:
        check(form, folder, split, names[0] if line < 4 else names[1])
    finally:
        path.unlink()


def feature(values):
    kinds = {bytes: "bytes_list", int: "int64_list", float: "float_list"}
    message = tf.train.Feature()
    for value in values:
        with contextlib.suppress(ValueError):  # numbers that the file format cannot hold
            getattr(message, kinds[type(values[0])]).value.append(value)
    return message


FEATURES = {
    **{f"bbox/{side}": [0.1, 0.2] for side in ("xmin", "ymin")},
    **{f"bbox/{side}": [0.5, 1.0] for side in ("xmax", "ymax")},
    "class/label": [1, 2],
    "is_crowd": [0, 1],
}
same_kind = st.lists(st.floats(), max_size=3) | st.lists(st.integers(-5, 2**31), max_size=3)


@given(key=st.sampled_from(sorted(FEATURES)), values=same_kind | st.lists(st.binary(max_size=3)))
def test_shards(folder, key, values):
    """Either a `ValueError`, or the rule of all readers."""
    root = folder / "shards"
    root.mkdir(exist_ok=True)
    (root / "labels.txt").write_text("cat\ndog\n")
    path = root / "train.tfrecord"
    with tf.io.TFRecordWriter(str(path)) as writer:
        for name, count in OBJECTS.items():
            message = tf.train.Example()
            features = message.features.feature
            for fact, value in (("encoded", [png(60, 80)]), ("filename", [name.encode()])):
                features[f"image/{fact}"].CopyFrom(feature(value))
            for fact, value in (("height", [60]), ("width", [80])):
                features[f"image/{fact}"].CopyFrom(feature(value))
            whole = {fact: value[:count] for fact, value in FEATURES.items()}
            if name == "p/a.png":
                whole[key] = values
            for fact, value in whole.items():
                features[f"image/object/{fact}"].CopyFrom(feature(value))
            writer.write(message.SerializeToString())
    message = f"{path}: record 1"
    try:
        check("tfrecord", root, "train", "p/a.png")
    except ValueError as error:
        message = str(error)
    assert f"{path}: record 1" in message


def test_every_object_that_cannot_be_read_is_reported_alike():
    problems = Problems(logged=False)
    checks.unreadable(problems, "x.json: 1", "expected a box")
    assert str(problems.found[0]) == "x.json: 1: expected a box: the image is left out"
    assert problems.found[0].kind == checks.UNREADABLE
