"""The table in docs/data.md of what each reader does with what, checked cell by cell."""

import contextlib
import json
from pathlib import Path

import pytest
import tensorflow as tf

from tests.helpers.data_sets import photo, png, read
from unitbox_tf.problems import Problems

DOCS = Path(__file__).parents[2] / "docs/data.md"
BOX = [10, 10, 30, 30]


def table():
    """The cells of the docs, by row and format."""
    lines = DOCS.read_text(encoding="utf-8").split("| what comes |")[1].splitlines()
    formats = [name.strip().split("`")[1] for name in lines[0].strip("|").split("|")]
    rows = {}
    for line in lines[2:]:
        if not line.startswith("|"):
            break
        what, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        rows |= {(what, form): cell for form, cell in zip(formats, cells, strict=True)}
    return rows


def coco(root, *objects, images=1, categories=1):
    item = {"image_id": 1, "category_id": 1, "bbox": [10, 10, 20, 20]}
    image = {"id": 1, "file_name": "a.png", "width": 64, "height": 48}
    others = [image | {"id": 2}, image | {"file_name": "b.png"}]
    content = {
        "images": [image, *others[images - 2 : images - 1]] if images > 1 else [image],
        "categories": [{"id": 1, "name": name} for name in ("cat", "dog")[:categories]],
        "annotations": [item | each for each in objects],
    }
    (root / "x.json").write_text(json.dumps(content))


def csv(root, *rows):
    header = "image,x0,y0,x1,y1,class,ignore,width,height"
    (root / "labels.txt").write_text("cat\n")
    (root / "x.csv").write_text("\n".join([header, *(f"{row},64,48" for row in rows), ""]))


def fddb(root, *rows, count=None):
    (root / "FDDB-folds").mkdir()
    text = "\n".join(["p/a", str(count or len(rows)), *rows, ""])
    (root / "FDDB-folds/FDDB-fold-01-ellipseList.txt").write_text(text)


def wider(root, *rows, count=None):
    text = "\n".join(["a.png", str(count or len(rows)), *rows, ""])
    (root / "wider_face_val_bbx_gt.txt").write_text(text)


def shard(root, times=1, **change):
    side = {"xmin": 10 / 64, "ymin": 10 / 48, "xmax": 30 / 64, "ymax": 30 / 48}
    whole = {f"bbox_{name}": [value] for name, value in side.items()} | {"class_label": [1]}
    (root / "labels.txt").write_text("cat\n")
    with tf.io.TFRecordWriter(str(root / "train.tfrecord")) as writer:
        message = tf.train.Example()
        features = message.features.feature
        features["image/encoded"].bytes_list.value.append(png(48, 64))
        features["image/filename"].bytes_list.value.append(b"a.png")
        features["image/height"].int64_list.value.append(48)
        features["image/width"].int64_list.value.append(64)
        for name, values in (whole | change).items():
            feature = features[f"image/object/{name.replace('_', '/', name[:2] != 'is')}"]
            kinds = {bytes: feature.bytes_list, int: feature.int64_list, float: feature.float_list}
            kinds[type(values[0])].value.extend(values)
        for _ in range(times):
            writer.write(message.SerializeToString())


SPLITS = {"fddb": "1", "wider_face": "val"}
SQUARE = {"bbox": None, "segmentation": [[10, 10, 30, 10, 30, 30]]}
# Makers of the data set of each cell.
CASES = {
    "a number as a text": {
        "coco": lambda root: coco(root, {"bbox": ["10", "10", "20", "20"]}),
        "csv": lambda root: csv(root, 'a.png,"10",10,30,30,cat,0'),
        "fddb": lambda root: fddb(root, "1e1 10 0 20 20 1"),
        "wider_face": lambda root: wider(root, "10.0 10 20 2e1"),
        "tfrecord": lambda root: shard(root, bbox_xmin=[b"0.15625"]),
    },
    "no box, but a polygon or a mask": {"coco": lambda root: coco(root, SQUARE)},
    "a missing number, a word, NaN": {
        "coco": lambda root: coco(root, {}, {"bbox": [10, 10, "x"]}),
        "csv": lambda root: csv(root, "a.png,10,,30,30,cat,0"),
        "fddb": lambda root: fddb(root, "10 10 0 20 20 1", "10 10 nan 20 20 1"),
        "wider_face": lambda root: wider(root, "10 10 20 20", "10 10 20"),
        "tfrecord": lambda root: shard(root, bbox_xmin=[float("nan")]),
    },
    "too many numbers": {
        "coco": lambda root: coco(root, {"bbox": [10, 10, 20, 20, 5]}),
        "csv": lambda root: csv(root, "a.png,10,10,30,30,cat,0,5"),
        "fddb": lambda root: fddb(root, "10 10 0 20 20 1 5"),
        "wider_face": lambda root: wider(root, "10 10 20 20 5"),
        "tfrecord": lambda root: shard(root, bbox_xmin=[0.1, 0.2]),
    },
    "swapped corners, a negative width": {
        "coco": lambda root: coco(root, {"bbox": [30, 10, -20, 20]}),
        "csv": lambda root: csv(root, "a.png,30,10,10,30,cat,0"),
        "wider_face": lambda root: wider(root, "30 10 -20 20"),
        "tfrecord": lambda root: shard(root, bbox_xmin=[30 / 64], bbox_xmax=[10 / 64]),
    },
    "a width of 0": {
        "coco": lambda root: coco(root, {"bbox": [10, 10, 0, 20]}),
        "csv": lambda root: csv(root, "a.png,10,10,10,30,cat,0"),
        "fddb": lambda root: fddb(root, "0 10 0 20 20 1"),
        "wider_face": lambda root: wider(root, "10 10 0 20"),
        "tfrecord": lambda root: shard(root, bbox_xmax=[10 / 64]),
    },
    "a box outside the stated size": {
        "coco": lambda root: coco(root, {"bbox": [70, 10, 20, 20]}),
        "csv": lambda root: csv(root, "a.png,70,10,90,30,cat,0"),
        "tfrecord": lambda root: shard(root, bbox_xmin=[1.1], bbox_xmax=[1.2]),
    },
    "an unknown class": {
        "coco": lambda root: coco(root, {"category_id": 7}),
        "csv": lambda root: csv(root, "a.png,10,10,30,30,bird,0"),
        "tfrecord": lambda root: shard(root, class_label=[2]),
    },
    "a mark (crowd, ignore, difficult, invalid) of 1": {
        "coco": lambda root: coco(root, {"iscrowd": "1"}),
        "csv": lambda root: csv(root, "a.png,10,10,30,30,cat,1"),
        "wider_face": lambda root: wider(root, "10 10 20 20 0 0 0 1 0 0"),
        "tfrecord": lambda root: shard(root, is_crowd=[1]),
    },
    "a mark that is no number": {
        "coco": lambda root: coco(root, {"ignore": "x"}),
        "csv": lambda root: csv(root, "a.png,10,10,30,30,cat,x"),
        "wider_face": lambda root: wider(root, "10 10 20 20 0 0 0 x 0 0"),
        "tfrecord": lambda root: shard(root, is_crowd=[b"x"]),
    },
    "fewer or more objects than stated": {
        "fddb": lambda root: fddb(root, "10 10 0 20 20 1", count=2),
        "wider_face": lambda root: wider(root, *["10 10 20 20"] * 2, count=1),
        "tfrecord": lambda root: shard(root, class_label=[1, 1]),
    },
    "an object of an unknown image": {
        "coco": lambda root: coco(root, {}, {"image_id": 7}),
        "csv": lambda root: csv(root, "a.png,10,10,30,30,cat,0", ",10,10,30,30,cat,0"),
    },
    "one image, listed twice": {
        "coco": lambda root: coco(root, {}, {"image_id": 2, "bbox": [1, 1, 5, 5]}, images=2),
        "csv": lambda root: csv(root, "a.png,10,10,30,30,cat,0", "A.png,1,1,6,6,cat,0"),
        "fddb": lambda root: fddb(root, "10 10 0 20 20 1", "p/a", "1", "5 5 0 9 9 1", count=1),
        "wider_face": lambda root: wider(root, "10 10 20 20", "a.png", "1", "1 1 5 5", count=1),
        "tfrecord": lambda root: shard(root, times=2),
    },
    "two categories of one id": {"coco": lambda root: coco(root, {}, categories=2)},
    "two images of one id": {"coco": lambda root: coco(root, {}, images=3)},
    "an absent image": {
        "coco": lambda root: (coco(root, {}), (root / "a.png").unlink()),
        "csv": lambda root: (csv(root, "a.png,1,1,9,9,cat,0"), (root / "a.png").unlink()),
        "fddb": lambda root: (fddb(root, "9 9 0 9 9 1"), (root / "originalPics/p/a.png").unlink()),
        "wider_face": lambda root: (
            wider(root, "1 1 9 9"),
            (root / "WIDER_val/images/a.png").unlink(),
        ),
    },
}


def outcome(form, root):
    """The outcome of the reader, in the words of the table."""
    problems = Problems(logged=False)
    found = None
    with contextlib.suppress(ValueError):
        found = read(form, root, SPLITS.get(form, ""), problems)
    if found is None:
        return "error"
    if len(found) == 2:
        return "both kept"
    if not found:
        assert problems.found
        return "image left out"
    (annotation,) = found
    if len(annotation.boxes) == 2:
        return "joined"
    if annotation.ignore.all():
        return "kept and ignored"
    if problems.found:
        return "reported"
    assert annotation.boxes[0].tolist() == pytest.approx(BOX, rel=1e-5)
    return "read"


@pytest.mark.parametrize(("what", "form"), table())
def test_a_reader_does_what_the_docs_say(tmp_path, what, form):
    said = table()[what, form]
    assert (said == "-") == (form not in CASES[what])
    if said != "-":
        for folder in ("", "originalPics/p", "WIDER_val/images"):
            if form != "tfrecord":
                photo(tmp_path / folder / "a.png", png(48, 64))
        CASES[what][form](tmp_path)
        assert outcome(form, tmp_path) == said


def test_each_case_stands_in_the_docs():
    assert set(CASES) == {what for what, _ in table()}
