"""A data set that was written is read back the same, to its precision. Nothing is half written or lost silently."""

import dataclasses
import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers import data_sets
from tests.helpers.data_sets import photo, png, where
from unitbox_tf import datasets, images, registry
from unitbox_tf.problems import Problems
from unitbox_tf.records import Annotation

FORMATS = datasets.writable()
FILES = [form for form in FORMATS if form != "tfrecord"]  # whose images are files, written at once
SPLITS = {"fddb": "3", "wider_face": "train"}  # of the others: any word
ONE_CLASS = ("fddb", "wider_face")
NO_IGNORE = ("fddb", "yolo")
CLASSES = ("dog", "Katze, graue", "鳥")
# Besides hundredths, numbers that binary fractions cannot hold, and long ones.
coordinates = st.one_of(
    st.integers(0, 80).map(float),
    st.integers(0, 8000).map(lambda n: n / 100),
    st.floats(0, 80).map(lambda x: round(x, 6)),
)
words = st.text("aZ9 _-.ä鳥", min_size=1, max_size=6).map(str.strip).filter(lambda w: w.strip(". "))
names = st.lists(words, min_size=1, max_size=3).map("/".join)


@st.composite
def sets(draw):
    """Annotations of up to four images, in formats' common words: boxes inside, no face without area."""
    annotations = []
    for name in draw(st.lists(names, max_size=4, unique_by=str.lower)):
        boxes, size = [], (draw(st.integers(85, 99)), draw(st.integers(85, 99)))
        for _ in range(draw(st.integers(0, 3))):
            x = sorted([draw(coordinates), draw(coordinates)])
            y = sorted([draw(coordinates), draw(coordinates)])
            boxes.append((x[0], y[0], x[1] + 0.5, y[1] + 0.5))
        count = len(boxes)
        classes = draw(st.lists(st.integers(0, 2), min_size=count, max_size=count))
        ignore = draw(st.lists(st.booleans(), min_size=count, max_size=count))
        # Not names of which one is a folder of another.
        full = f"{name}/{len(annotations)}"
        annotations.append(Annotation(full, png(*size), boxes, classes, ignore, size=size))
    return annotations


def write(form, annotations, root, problems=None, names=None, split=None, **more):
    names = names or (("face",) if form in ONE_CLASS else CLASSES)
    split = SPLITS.get(form, "some") if split is None else split
    problems = Problems() if problems is None else problems
    writer = registry.DATASETS[form].write
    return writer(annotations, root, split, names, problems=problems, **more)


def read(form, root, problems=None, split=None, **more):
    split = SPLITS.get(form, "some") if split is None else split
    problems = Problems() if problems is None else problems
    return data_sets.read(form, root, split, problems, **more)


def stem(name):
    base, suffix = os.path.splitext(name)
    return base if suffix.lower() in images.IMAGE_SUFFIXES else name


def contents(root):
    return {p.relative_to(root): p.read_bytes() for p in root.rglob("*") if p.is_file()}


@pytest.mark.parametrize("form", FORMATS)
@given(annotations=sets())
def test_what_is_written_is_read_back(form, annotations, tmp_path_factory):
    root = tmp_path_factory.mktemp("written")
    if form in ONE_CLASS:
        annotations = [dataclasses.replace(a, classes=np.zeros(len(a.boxes))) for a in annotations]
    if form in NO_IGNORE:
        annotations = [a.select(~a.ignore) for a in annotations]
    problems = Problems()
    written = write(form, annotations, root / "a", problems)
    found = read(form, root / "a", problems)
    assert not problems.found
    assert written == (
        len(found),
        sum(len(a.boxes) for a in found),
        sum(int(a.ignore.sum()) for a in found),
    )
    # YOLO has no list of its images: they come in the order of their names.
    order = (lambda a: a.name.encode()) if form == "yolo" else (lambda a: 0)
    for a, b in zip(sorted(annotations, key=order), sorted(found, key=order), strict=True):
        assert stem(b.name) == a.name
        assert b.encoded() == a.image
        np.testing.assert_allclose(b.boxes, a.boxes, atol=3e-6)
        np.testing.assert_array_equal(b.classes, a.classes)
        np.testing.assert_array_equal(b.ignore, a.ignore)
        if form in ("coco", "tfrecord", "voc", "yolo"):
            assert b.size == a.size
    if form not in ONE_CLASS:
        assert data_sets.class_names(form, root / "a", "some") == CLASSES
    # What the format can hold is written to the last digit: once more, and nothing changes.
    write(form, found, root / "b")
    assert contents(root / "b") == contents(root / "a")


@pytest.mark.parametrize("form", FORMATS)
def test_boxes_without_area_come_back_ignored_or_are_reported(form, tmp_path):
    boxes = [[0, 0, 0, 0], [10, 10, 20, 20], [30, 30, 28, 53]]
    annotation = Annotation("a", png(60, 80), boxes, ignore=[True, False, True])
    problems = Problems()
    write(form, [annotation], tmp_path / "out", problems, names=["face"])
    (found,) = read(form, tmp_path / "out")
    if form in NO_IGNORE:
        np.testing.assert_allclose(found.boxes, [[10, 10, 20, 20]])
        assert [(p.kind, p.where) for p in problems.found] == [("ignored objects left out", "a")]
    else:
        if form == "voc":  # whose readers put corners in order
            boxes[2] = [28, 30, 30, 53]
        assert found.boxes.tolist() == boxes
        assert found.ignore.tolist() == [True, False, True]
        assert not problems.found


ATTRIBUTES = {
    name: np.arange(2) for name in ("blur", "expression", "illumination", "occlusion", "pose")
}


def rich_set(folder):
    """All that annotations can hold, in files."""
    photo(folder / "a.jpg", png(60, 80))
    photo(folder / "deep/b.png", png(50, 40))
    ellipses = [[20.5, 10, 0.5, 30, 30], [9, 7, -1.25, 20, 20]]
    attributes = {**ATTRIBUTES, "invalid": [0, 0]}
    boxes = [[10, 10, 50, 50], [11, 12, 29, 28.5]]
    return [
        Annotation(
            "a.jpg", folder / "a.jpg", boxes, [0, 1], ellipses=ellipses, attributes=attributes
        ),
        Annotation("deep/b.png", folder / "deep/b.png", boxes[:1], [1], [True]),
        Annotation("gone.jpg", folder / "gone.jpg", boxes[:1]),
    ]


LOST = {
    "coco": {"lost in this format": 1},
    "csv": {"lost in this format": 1},
    "fddb": {"lost in this format": 2, "ignored objects left out": 1},
    "tfrecord": {},
    "voc": {"lost in this format": 1},
    "wider_face": {"lost in this format": 2},
    "yolo": {"lost in this format": 1, "ignored objects left out": 1},
}


@pytest.mark.parametrize("form", FORMATS)
def test_what_a_format_cannot_hold_is_reported(form, tmp_path):
    problems = Problems()
    written = write(form, rich_set(tmp_path), tmp_path / "out", problems, names=["cat", "dog"])
    absent = "image of unknown size" if form == "yolo" else "image listed but absent"
    assert dict(problems.counts) == LOST[form] | {absent: 1}
    assert written == (2, 2 if form in NO_IGNORE else 3, 0 if form in NO_IGNORE else 1)
    text = "".join(map(str, problems.found))
    kept = {
        "fddb": {"ellipses"},
        "wider_face": {*ATTRIBUTES, "invalid"},
        "tfrecord": {"ellipses", *ATTRIBUTES, "invalid"},
    }.get(form, set())
    for fact in {"ellipses", "invalid", *ATTRIBUTES}:
        assert (fact in text) == (fact not in kept)
    assert ("all of cat, dog are written as faces" in text) == (form in ONE_CLASS)
    found = {stem(a.name): a for a in read(form, tmp_path / "out")}
    assert set(found) == {"a", "deep/b"}
    if form in ("fddb", "tfrecord"):
        np.testing.assert_allclose(found["a"].ellipses, rich_set(tmp_path)[0].ellipses)
    if form in ("wider_face", "tfrecord"):
        assert {name: list(v) for name, v in found["a"].attributes.items()} == {
            **{name: [0, 1] for name in ATTRIBUTES},
            "invalid": [0, 0],
        }


@pytest.mark.parametrize("form", FILES)
def test_photos_are_copied_or_linked_or_left(form, tmp_path):
    source = rich_set(tmp_path)[:2]
    for photos, links in (("copy", 1), ("link", 2)):
        write(form, source, tmp_path / photos, photos=photos, names=["cat", "dog"])
        (path,) = (tmp_path / photos).rglob("a.jpg")
        assert path.read_bytes() == source[0].image.read_bytes()
        assert path.stat().st_nlink == links
        assert not path.is_symlink()
        assert len(read(form, tmp_path / photos)) == 2
    write(form, source, tmp_path / "none", photos="none", names=["cat", "dog"])
    assert not list((tmp_path / "none").rglob("a.jpg"))
    if form != "yolo":  # whose boxes are shares of images
        found = read(form, tmp_path / "none", photos=False)
        assert [stem(a.name) for a in found] == ["a", "deep/b"]


@pytest.mark.parametrize("form", FORMATS)
def test_nothing_is_overwritten(form, tmp_path):
    photo(tmp_path / "full/mine.txt")
    (tmp_path / "file").write_text("mine")
    for name in ("full", "file"):
        with pytest.raises(ValueError, match=f"{name}: expected a new or empty folder"):
            write(form, rich_set(tmp_path / "photos"), tmp_path / name, names=["cat", "dog"])
    assert contents(tmp_path / "full").keys() == {Path("mine.txt")}
    (tmp_path / "empty").mkdir()
    write(form, rich_set(tmp_path / "photos"), tmp_path / "empty", names=["cat", "dog"])
    assert len(read(form, tmp_path / "empty")) == 2


@pytest.mark.parametrize("form", FILES)
def test_a_set_appears_whole_or_not_at_all(form, tmp_path):
    photos = rich_set(tmp_path / "photos")

    def interrupted():
        yield photos[0]
        assert not (tmp_path / "out").exists()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(form, interrupted(), tmp_path / "out", names=["cat", "dog"])
    assert [p.name for p in tmp_path.iterdir()] == ["photos"]


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    "name", ["../x", "/x", " x", "x\n", "a/../../x", "\x1b[2J", "C:\\x", ".", "x\ud800"]
)
def test_names_that_no_file_should_have_are_refused(form, name, tmp_path):
    problems = Problems()
    bad, good = Annotation(name, png(9, 9), []), Annotation("good", png(9, 9), [])
    write(form, [bad, good], tmp_path / "out", problems)
    (found,) = read(form, tmp_path / "out")
    assert stem(found.name) == "good"
    assert set(problems.counts) <= {"unusable name", "path outside the data set"}
    assert len(problems.found) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("form", FORMATS)
def test_photos_of_one_name_are_written_once_and_reported(form, tmp_path):
    source = [
        Annotation("a", png(9, 9), []),
        Annotation("./a", png(8, 8), []),
        Annotation("a", b"\xff\xd8 a JPEG", [], size=(7, 7)),
    ]
    problems = Problems()
    write(form, source, tmp_path / "out", problems)
    by_stem = form in ("fddb", "voc", "yolo")
    assert len(read(form, tmp_path / "out")) == (1 if by_stem else 2)
    assert problems.counts["image listed twice"] == (2 if by_stem else 1)


def test_classes_that_formats_cannot_name_are_refused(tmp_path):
    source = [Annotation("a", png(9, 9), [[1, 1, 2, 2]], [2])]
    with pytest.raises(
        ValueError, match=r"a: has an object of class 2; expected one of the 1 that"
    ):
        write("voc", source, tmp_path / "out", names=["cat"])
    for names in (["cat", "cat"], ["cat", ""], ["cat\n"], [" cat"], ["\x00"]):
        with pytest.raises(
            ValueError, match=r"Expected (a class's name|classes of different names)"
        ):
            write("voc", source, tmp_path / "out", names=names)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("form", ["coco", "csv", "tfrecord", "voc", "wider_face", "yolo"])
@pytest.mark.parametrize("split", ["../x", "a/b", "a\\b", " a", "a\n"])
def test_splits_that_can_name_no_file_are_refused(form, split, tmp_path):
    with pytest.raises(ValueError, match="Expected a split that can name a file"):
        write(form, [], tmp_path / "out", split=split)


def test_yolo_boxes_are_cut_to_their_photo_and_those_outside_reported(tmp_path):
    boxes = [[-10, 10, 20, 20], [200, 10, 220, 20], [0, 0, 80, 60]]
    problems = Problems()
    write("yolo", [Annotation("a", png(60, 80), boxes)], tmp_path / "out", problems)
    (found,) = read("yolo", tmp_path / "out")
    np.testing.assert_allclose(found.boxes, [[0, 10, 20, 20], [0, 0, 80, 60]], atol=1e-6)
    assert [(p.kind, p.where) for p in problems.found] == [
        ("box cut to its image", "a, object 1"),
        ("box outside its image", "a, object 2"),
    ]


def test_a_size_that_is_not_the_photos_is_reported_and_the_photos_written(tmp_path):
    problems = Problems()
    source = [Annotation("a", png(60, 80), [[0, 0, 40, 30]], size=(80, 60))]
    write("yolo", source, tmp_path / "out", problems)
    assert where(problems) == [("image of another size than stated", "a")]
    assert (tmp_path / "out/labels/some/a.txt").read_text() == "0 0.25 0.25 0.5 0.5\n"


def test_fddb_photos_are_dealt_to_the_folds_in_order(tmp_path):
    source = [Annotation(f"p{n}", png(9, 9), []) for n in range(11)]
    write("fddb", source, tmp_path / "out", split="")
    folds = [len(read("fddb", tmp_path / "out", split=str(fold))) for fold in range(1, 11)]
    assert folds == [2] + [1] * 9
    assert [a.name for a in read("fddb", tmp_path / "out", split="")] == [a.name for a in source]
    assert (tmp_path / "out/FDDB-folds/FDDB-fold-01.txt").read_text() == "p0\np1\n"


def test_objects_to_be_ignored_are_crowds_in_coco(tmp_path):
    source = [Annotation("a", png(9, 9), [[1, 2, 4, 7]], ignore=[True])]
    write("coco", source, tmp_path / "out")
    (item,) = json.loads((tmp_path / "out/some.json").read_text())["annotations"]
    assert (item["iscrowd"], item["ignore"], item["area"]) == (1, 1, 15)


@pytest.mark.parametrize("fold", range(1, 11))
def test_the_real_folds_are_written_byte_by_byte(data, fold, tmp_path):
    root = data("fddb")
    found = read("fddb", root, split=str(fold), photos=False)
    write("fddb", found, tmp_path / "out", split=str(fold), photos="none")
    for name in (f"FDDB-fold-{fold:02d}-ellipseList.txt", f"FDDB-fold-{fold:02d}.txt"):
        expected = (root / "FDDB-folds" / name).read_bytes()
        assert (tmp_path / "out/FDDB-folds" / name).read_bytes() == expected


def test_the_real_wider_face_list_is_written_byte_by_byte(data, tmp_path):
    root = data("wider/annotations")
    write(
        "wider_face",
        read("wider_face", root, split="val", photos=False),
        tmp_path / "out",
        split="val",
        photos="none",
    )
    name = "wider_face_val_bbx_gt.txt"
    expected = (root / name).read_bytes()
    assert (tmp_path / "out/wider_face_split" / name).read_bytes() == expected


@pytest.mark.parametrize("form", ["coco", "csv", "voc"])
def test_the_real_wider_face_list_survives_other_formats(data, form, tmp_path):
    found = read("wider_face", data("wider/annotations"), split="val", photos=False)
    problems = Problems()
    write(form, found, tmp_path / "out", problems, names=["face"], photos="none")
    again = read(form, tmp_path / "out", photos=False)
    assert set(problems.counts) <= {"lost in this format", "image of unknown size"}
    for a, b in zip(found, again, strict=True):
        assert a.name == b.name
        boxes = a.boxes
        if form == "voc":  # whose readers put corners in order
            boxes = np.sort(boxes.reshape(-1, 2, 2), axis=1).reshape(-1, 4)
        np.testing.assert_array_equal(boxes, b.boxes)
        np.testing.assert_array_equal(a.ignore, b.ignore)


def test_areas_of_objects_are_kept_by_coco_and_missed_elsewhere(tmp_path):
    boxes = [[0, 0, 10, 10], [5, 5, 25, 15]]
    one = Annotation("a", png(30, 30), boxes, areas=[60, np.nan])
    write("coco", [one], tmp_path / "coco")
    found = read("coco", tmp_path / "coco")[0]
    assert found.areas.tolist() == found.object_areas.tolist() == [60, 200]
    problems = Problems()
    write("csv", [one], tmp_path / "csv", problems)
    assert [p.message for p in problems.found] == [
        "the format cannot store these facts of an object: areas"
    ]
    # Areas that are those of the boxes say nothing new.
    problems = Problems()
    same = dataclasses.replace(one, areas=[100, 200])
    write("csv", [same], tmp_path / "other", problems)
    assert not problems.found
    assert same.select([1]).areas.tolist() == [200]


@pytest.mark.parametrize("area", ["five", None, -1, [], float("inf"), float("nan")])
def test_an_area_that_is_none_is_that_of_the_box(tmp_path, area):
    item = {"image_id": 1, "category_id": 1, "bbox": [1, 1, 4, 5], "area": area}
    images, categories = [{"id": 1, "file_name": "a.png"}], [{"id": 1, "name": "dog"}]
    content = {"images": images, "annotations": [item], "categories": categories}
    (tmp_path / "some.json").write_text(json.dumps(content))
    problems = Problems()
    found = read("coco", tmp_path, problems, photos=False)[0]
    assert found.areas is None
    assert found.object_areas.tolist() == [20]
    assert problems.counts["malformed area"] == (area is not None)
