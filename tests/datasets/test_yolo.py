"""YOLO: lines of other tools, layouts as exported, class names, and no image without one of its objects."""

import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.data_sets import class_names, photo, png, read, where
from unitbox_tf import limits
from unitbox_tf.datasets import checks, yolo_labels
from unitbox_tf.problems import Problems

BOX = "0 0.5 0.5 0.5 0.5"  # 20 15 60 45 in an image of 80 x 60


def one(root, text, settings="train: images\nnames: [cat, big dog, '3']\n"):
    photo(root / "images/a.png", png(60, 80))
    photo(root / "labels/a.txt", text if isinstance(text, bytes) else text.encode())
    photo(root / "data.yaml", settings.encode())


@pytest.mark.parametrize(
    ("line", "label", "box"),
    [
        ("0 0.5 0.5 0.5 0.5 0.91", 0, [20, 15, 60, 45]),
        ("0 0.5 0.5 0.5 0.5 0.91 17", 0, [20, 15, 60, 45]),
        ("0 0.5 0.5 0.5 0.5 0.91 1", 0, [20, 15, 60, 45]),
        ("0 0.25 0.25 0.75 0.25 0.75 0.75 0.25 0.75", 0, [20, 15, 60, 45]),
        ("0 0.125 0.1 0.375 0.1 0.25 0.5", 0, [10, 6, 30, 30]),
        (
            "0 0.25 0 0.25 0.5 0.5 1",
            0,
            [20, 0, 40, 60],
        ),  # the last number is no track: no box has it
        ("1 0.5 0 1 0.5 0.5 1 0 0.5 0.5 0", 1, [0, 0, 80, 60]),
        ("0,0.5,0.5,0.5,0.5", 0, [20, 15, 60, 45]),
        ("0, 0.5, 0.5, 0.5, 0.5,", 0, [20, 15, 60, 45]),
        ("0\t0.5\t0.5\t0.5\t0.5", 0, [20, 15, 60, 45]),
        ("0 0,5 0,5 0,5 0,5", 0, [20, 15, 60, 45]),
        ("0.0 0.5 0.5 0.5 0.5", 0, [20, 15, 60, 45]),
        ("big dog 0.5 0.5 0.5 0.5", 1, [20, 15, 60, 45]),
        ("cat 0.25 0.25 0.75 0.25 0.75 0.75", 0, [20, 15, 60, 45]),
        ("2 0.5 0.5 0.5 0.5", 2, [20, 15, 60, 45]),
        ("0 1.0009 0.5 0.5 1.001", 0, [60, 0, 100, 60]),
        ("0 -0.0009 0.5 0.5 1", 0, [-20, 0, 20, 60]),
        ("0 -0.001 0 1.001 0 1 1.0005", 0, [0, 0, 80, 60]),
    ],
)
def test_lines_of_other_tools_are_read(tmp_path, problems, line, label, box):
    one(tmp_path, f"{line}\n")
    (annotation,) = read("yolo", tmp_path, "train", problems)
    np.testing.assert_allclose(annotation.boxes, [box], atol=1e-9)
    assert annotation.classes.tolist() == [label]
    assert not problems.found


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0 0.5 0.5 0.5", "expected a class and 4 numbers for a box"),
        ("0 0.5 0.5 0.5 0.5 90", "expected a confidence from 0 to 1"),
        ("0 0.5 0.5 0.5 0.5 0.1 0.1 2", "needs kpt_shape in data.yaml"),
        ("0 0.5 0.5 0.2 0.2 0.5 0.5 2 0.5 0.5 1", "and not pixels"),
        ("0 40 30 20 30", "expected shares of the image from 0 to 1, and not pixels"),
        ("0 0.5 0.5 1.002 0.5", "expected shares of the image from 0 to 1, received"),
        ("0 0.5 0.5 -0.2 0.5", "expected shares of the image from 0 to 1, received"),
        ("0 0.1 0.1 0.4 0.1 1.2 0.3", "expected shares of the image from 0 to 1, received"),
        ("3 0.5 0.5 0.5 0.5", "expected a class from 0 to 2, received '3 0.5 0.5 0.5 0.5'"),
        ("-1 0.5 0.5 0.5 0.5", "expected a class from 0 to 2"),
        ("0.5 0.5 0.5 0.5 0.5", "expected a class from 0 to 2"),
        (
            "cow 0.5 0.5 0.5 0.5",
            r"expected the number of a class, one of \['cat', 'big dog', '3'\]",
        ),
        ("0,,0.5,0.5,0.1,0.1", "expected numbers"),
        ("0 0.5 0.5 0.5 1_0", "expected numbers"),
    ],
)
def test_lines_that_cannot_be_read_leave_their_image_out(tmp_path, problems, line, message):
    one(tmp_path, f"{BOX}\n{line}\n")
    photo(tmp_path / "images/b.png", png(60, 80))
    assert [a.name for a in read("yolo", tmp_path, "train", problems)] == ["b.png"]
    assert where(problems) == [(checks.UNREADABLE, "a.txt:2")]
    with pytest.raises(ValueError, match=f"{message}.*: the image is left out$"):
        raise ValueError(problems.found[0])


@pytest.mark.parametrize("text", [f"\ufeff{BOX}".encode("utf-16"), b" " * 200])
def test_label_files_that_cannot_be_read_leave_their_image_out(
    tmp_path, problems, text, monkeypatch
):
    monkeypatch.setattr(limits, "MAX_IMAGE_FILE_BYTES", 100)
    one(tmp_path, text)
    assert read("yolo", tmp_path, "train", problems) == []
    assert where(problems) == [(checks.UNREADABLE, "a.txt")]


@pytest.mark.parametrize("text", ["", "\n\n", "  \r\n"])
def test_an_empty_label_file_is_an_image_without_objects(tmp_path, problems, text):
    one(tmp_path, text)
    (annotation,) = read("yolo", tmp_path, "train", problems)
    assert len(annotation.boxes) == 0
    assert not problems.found


@pytest.mark.parametrize(
    ("shape", "line", "readable"),
    [
        ("[2, 3]", "0 0.5 0.5 0.5 0.5 0.1 0.1 2 0.2 0.2 1", True),
        ("[2, 3]", "0 0.5 0.5 0.5 0.5 0.1 0.1 2 0.2 0.2 1 0.9", True),  # a confidence at the end
        ("[1, 2]", "0 0.5 0.5 0.5 0.5 -1 -1", True),
        ("[2, 2]", "0 0.5 0.5 0.5 0.5 0.25 0.75 0 0", True),
        ("[2, 3]", "0 0.5 0.5 0.5 0.5", True),
        ("[2, 3]", "0 0.1 0.1 0.2 0.1 0.2 0.2 0.1 0.2", False),
    ],
)
def test_boxes_with_keypoints_are_read_where_their_number_is_known(
    tmp_path, problems, shape, line, readable
):
    one(tmp_path, line, f"train: images\nnames: [cat]\nkpt_shape: {shape}\n")
    found = read("yolo", tmp_path, "train", problems)
    assert [a.boxes.tolist() for a in found] == ([[[20, 15, 60, 45]]] if readable else [])
    assert where(problems) == ([] if readable else [(checks.UNREADABLE, "a.txt:1")])


objects = st.lists(
    st.tuples(
        st.integers(0, 1),
        st.one_of(
            st.lists(st.floats(0.1, 0.9), min_size=4, max_size=5),
            st.integers(3, 6).flatmap(
                lambda n: st.lists(st.floats(0.1, 0.9), min_size=2 * n, max_size=2 * n)
            ),
        ),
    ),
    max_size=4,
)
damages = st.sampled_from(
    [
        "",
        "x",
        "nan",
        "1e999",
        "-1",
        "-0.0001",
        "1.0004",
        "1.2",
        "640",
        "2",
        "0 0",
        ",",
        "0,5",
        "\x00",
    ]
)


@given(files=st.lists(objects, min_size=1, max_size=3), data=st.data())
def test_no_image_is_used_without_one_of_its_objects(files, data, tmp_path_factory):
    root = tmp_path_factory.mktemp("yolo")
    photo(root / "data.yaml", b"train: images\nnames: [cat, dog]\n")
    counts = {}
    for n, rows in enumerate(files):
        lines = [[str(label), *map(str, numbers)] for label, numbers in rows]
        if lines and data.draw(st.booleans()):
            words = data.draw(st.sampled_from(lines))
            words[data.draw(st.integers(0, len(words) - 1))] = data.draw(damages)
        photo(root / f"images/{n}.png", png(60, 80))
        photo(root / f"labels/{n}.txt", "\n".join(map(" ".join, lines)).encode())
        counts[f"{n}.png"] = len(lines)
    problems = Problems(logged=False)
    used = {a.name: len(a.boxes) for a in read("yolo", root, "train", problems)}
    left_out = {
        p.where.rsplit("/", 1)[-1].split(".")[0] + ".png"
        for p in problems.found
        if p.kind == checks.UNREADABLE
    }
    assert used.keys() | left_out == counts.keys()
    assert not used.keys() & left_out
    assert all(counts[name] == count for name, count in used.items())


def layout(root, files):
    for name, text in files.items():
        photo(root / name, png(60, 80) if name.endswith((".png", ".jpg")) else text.encode())


LAYOUTS = {
    "CVAT, YOLO 1.1": (
        {
            "obj.data": "classes = 2\ntrain = data/train.txt\nnames = data/obj.names\nbackup = backup/\n",
            "obj.names": "cat\ndog\n",
            "train.txt": "data/obj_train_data/a.jpg\n",
            "obj_train_data/a.jpg": "",
            "obj_train_data/a.txt": BOX,
        },
        "train",
    ),
    "CVAT, Ultralytics": (
        {
            "data.yaml": "path: .\ntrain: train.txt\nnames:\n  0: cat\n  1: dog\n",
            "train.txt": "data/images/train/a.jpg\n",
            "images/train/a.jpg": "",
            "labels/train/a.txt": BOX,
        },
        "train",
    ),
    "Roboflow": (
        {
            "data.yaml": "train: ../train/images\nval: ../valid/images\nnc: 2\nnames: ['cat', 'dog']\n",
            "valid/images/a.jpg": "",
            "valid/labels/a.txt": BOX,
            "train/images/b.jpg": "",
        },
        "valid",
    ),
    "Roboflow, darknet": (
        {"train/a.jpg": "", "train/a.txt": BOX, "train/_darknet.labels": "cat\ndog\n"},
        "train",
    ),
    "Label Studio": (
        {
            "classes.txt": "cat\ndog\n",
            "notes.json": "{}",
            "images/a.jpg": "",
            "labels/a.txt": BOX,
        },
        "",
    ),
    "LabelImg": (
        {"images/a.jpg": "", "labels/a.txt": BOX, "labels/classes.txt": "cat\ndog\n"},
        "",
    ),
    "FiftyOne": (
        {
            "dataset.yaml": "names:\n  0: cat\n  1: dog\npath: /elsewhere/export\nval: ./images/val/\n",
            "images/val/a.jpg": "",
            "labels/val/a.txt": BOX,
        },
        "val",
    ),
    "a list of another machine": (
        {
            "data.yaml": "path: C:\\work\\set\ntrain: train.txt\nnames: {'0': cat, '1': dog}\n",
            "train.txt": "C:\\work\\set\\images\\a.jpg\r\n",
            "images/a.jpg": "",
            "labels/a.txt": BOX,
        },
        "train",
    ),
    "a list relative to itself": (
        {
            "data.yaml": "train: lists/train.txt\nnames: {cat: 0, dog: 1}\n",
            "lists/train.txt": "./../images/a.jpg\n",
            "images/a.jpg": "",
            "labels/a.txt": BOX,
        },
        "train",
    ),
    "a list without settings": (
        {
            "train.txt": ".\\images\\a.jpg\n",
            "obj.names": "cat\ndog\n",
            "images/a.jpg": "",
            "images/b.jpg": "",
            "labels/a.txt": BOX,
        },
        "train",
    ),
    "darknet, VOC": (
        {
            "obj.data": "train = train.txt\nnames = obj.names\n",
            "obj.names": "cat\ndog\n",
            "train.txt": "JPEGImages/a.jpg\n",
            "JPEGImages/a.jpg": "",
            "labels/a.txt": BOX,
        },
        "train",
    ),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts_are_read_as_they_are_exported(tmp_path, problems, name):
    files, split = LAYOUTS[name]
    root = tmp_path / "export"
    layout(root, files)
    found = read("yolo", root, split, problems)
    assert [a.boxes.tolist() for a in found] == [[[20, 15, 60, 45]]]
    assert class_names("yolo", root, split) == ("cat", "dog")
    assert {p.kind for p in problems.found} <= {checks.OUTSIDE}  # `path` of another machine


@pytest.mark.parametrize("place", [".", "data.yaml", "../set", "../set/data.yaml"])
def test_the_set_may_be_the_folder_in_which_one_is(tmp_path, problems, monkeypatch, place):
    root = tmp_path / "set"
    one(root, BOX, "train: train.txt\nnames: [cat]\n")
    photo(root / "train.txt", b"./images/a.png\n")
    monkeypatch.chdir(root)
    assert [len(a.boxes) for a in read("yolo", place, "train", problems)] == [1]
    assert not problems.found


def test_names_that_yaml_takes_for_values_stay_names(tmp_path):
    names = ["yes", "no", "on", "null", "1.0", "~", "0x10", "12:30", "2020-01-01", "true"]
    for text in (f"[{', '.join(names)}]", "".join(f"\n  {n}: {x}" for n, x in enumerate(names))):
        one(tmp_path, BOX, f"train: images\nnames: {text}\n")
        assert class_names("yolo", tmp_path, "train") == tuple(names)


def test_lists_of_classes_that_differ_are_an_error(tmp_path):
    one(tmp_path, BOX, "train: images\nnames: [cat, dog]\n")
    photo(tmp_path / "labels/classes.txt", b"cat\ndog\nbird\n")
    assert class_names("yolo", tmp_path, "train") == ("cat", "dog")
    photo(tmp_path / "labels/classes.txt", b"dog\ncat\n")
    with pytest.raises(ValueError, match=r"data\.yaml: expected the classes of .*labels/classes"):
        class_names("yolo", tmp_path, "train")
    (tmp_path / "data.yaml").unlink()
    photo(tmp_path / "classes.txt", b"cat\ndog\n")
    with pytest.raises(ValueError, match=r"numbers would have two meanings"):
        class_names("yolo", tmp_path, "")


def test_labels_are_found_by_names_of_other_systems(tmp_path, problems):
    names = ["\u00e9.jpg", "Big.JPG", "c.x.jpg", "d.png"]
    for name in names:
        photo(tmp_path / "images" / name, png(60, 80))
    labels = [unicodedata.normalize("NFD", "\u00e9") + ".txt", "big.txt", "c.x.TXT", "d.png.txt"]
    for name in labels:
        photo(tmp_path / "labels" / name, BOX.encode())
    found = read("yolo", tmp_path, "", problems)
    assert {a.name: len(a.boxes) for a in found} == dict.fromkeys(names, 1)
    assert not problems.found


def test_a_label_file_belongs_to_the_image_of_exactly_its_name(tmp_path, problems):
    for name in ("A.png", "a.png"):
        photo(tmp_path / "images" / name, png(60, 80))
    photo(tmp_path / "labels/a.txt", BOX.encode())
    found = read("yolo", tmp_path, "", problems)
    assert {a.name: len(a.boxes) for a in found} == {"A.png": 0, "a.png": 1}
    assert not problems.found


def test_a_label_file_of_two_images_is_reported(tmp_path, problems):
    one(tmp_path, BOX)
    photo(tmp_path / "images/a.jpg", png(120, 160))
    first, second = read("yolo", tmp_path, "train", problems)
    assert (first.boxes == 2 * second.boxes).all()
    assert where(problems) == [("labels of two images", "a.txt")]


def test_label_folders_are_beside_the_last_folder_of_images(tmp_path):
    folders = yolo_labels.label_folders(tmp_path / "images/x/images/y", tmp_path)
    assert folders[0] == tmp_path / "images/x/labels/y"
    assert folders[-1] == tmp_path / "images/x/images/y"


@pytest.mark.parametrize(
    ("labels", "place"),
    [
        ("labels/a.txt", "labels/train/a.txt"),
        ("labels/Train/a.txt", "labels/train/a.txt"),
        ("train/labels/a.txt", "labels/train/a.txt"),
    ],
)
def test_labels_that_lie_elsewhere_are_an_error(tmp_path, labels, place):
    photo(tmp_path / "images/train/a.png", png(60, 80))
    photo(tmp_path / labels, BOX.encode())
    with pytest.raises(
        ValueError, match=f"no image has a label file, but .*{labels} .*as .*{place}"
    ):
        read("yolo", tmp_path, "train")


def test_a_split_without_labels_may_have_names_of_another_split(tmp_path, problems):
    layout(tmp_path, {"images/train/a.png": "", "labels/train/a.txt": BOX, "images/none/a.png": ""})
    (found,) = read("yolo", tmp_path, "none", problems)
    assert not len(found.boxes)
    assert where(problems) == [("data set without labels", tmp_path.name)]


def test_an_image_may_be_called_notes(tmp_path, problems):
    layout(tmp_path, {"images/notes.png": "", "labels/notes.txt": BOX})
    layout(tmp_path, {"images/a.png": "", "labels/a.txt": BOX})
    found = read("yolo", tmp_path, "", problems)
    assert [len(each.boxes) for each in found] == [1, 1]
    assert not problems.found


def test_corners_in_the_place_of_centres_are_reported(tmp_path, problems):
    one(tmp_path, "0 0.5 0.5 0.2 0.2\n0 0.1 0.1 0.4 0.6\n0 0.5 0.2 0.9 0.8\n")
    assert len(read("yolo", tmp_path, "train", problems)[0].boxes) == 3
    assert [problem.kind for problem in problems.found] == [checks.LEAVE]
    assert "2 of 3 boxes end far beyond" in str(problems.found[0])
