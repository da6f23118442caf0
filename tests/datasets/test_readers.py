"""Each reader on a hand-written file with the odd cases, and on the real files where they are."""

import json

import cv2
import numpy as np
import pytest

from unitbox_tf import datasets
from unitbox_tf.datasets import fddb, synthetic
from unitbox_tf.records import Problems


@pytest.fixture
def problems():
    return Problems()


def photo(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"a photo, as far as readers care")


def where(problems):
    return [(p.kind, p.where.rsplit("/", 1)[-1]) for p in problems.found]


def test_fddb(tmp_path, problems):
    photo(tmp_path / "originalPics/2002/one.jpg")
    photo(tmp_path / "originalPics/2002/three.jpg")
    folds = tmp_path / "FDDB-folds"
    folds.mkdir()
    (folds / "FDDB-fold-02-ellipseList.txt").write_text(
        "2002/one\n3\n30 20 0 100 50  1\n30 x 0 100 50  1\n0 0 0 9 9 1\n"
        "2002/two\n1\n30 20 0 100 50  1\n"
        "2002/lost\nmany\n30 20 0 100 50  1\n2002/minus\n-2\n"
        "2002/three\n1\n30 20 1.5707963 100 50  1\n"
    )
    found = list(fddb.read(tmp_path, "2", problems))
    assert [annotation.name for annotation in found] == ["2002/one", "2002/three"]
    np.testing.assert_allclose(found[0].boxes, [[70, 30, 130, 70]])
    np.testing.assert_allclose(found[1].boxes, [[80, 20, 120, 80]], atol=1e-4)
    assert where(problems) == [
        ("malformed line", "FDDB-fold-02-ellipseList.txt:4"),
        ("box without area", "FDDB-fold-02-ellipseList.txt:5"),
        ("photo listed but absent", "FDDB-fold-02-ellipseList.txt:6"),
        ("malformed line", "FDDB-fold-02-ellipseList.txt:10"),
        ("malformed line", "FDDB-fold-02-ellipseList.txt:13"),
    ]


@pytest.mark.parametrize(
    ("split", "folds"), [("", range(1, 11)), ("8", [8]), ("1-3,8", [1, 2, 3, 8])]
)
def test_fddb_splits(split, folds):
    assert fddb.folds(split) == list(folds)


@pytest.mark.parametrize("split", ["0", "11", "a", "3-1", "1-", "1;2"])
def test_fddb_splits_that_are_none(split):
    with pytest.raises(ValueError, match="Expected FDDB folds"):
        fddb.folds(split)


def test_fddb_reads_the_real_folds(data, problems):
    root = data("fddb")
    annotations = datasets.load([f"fddb:{root}#1-7"], ".", problems, 1)
    assert len(annotations) == 1064
    assert sum(len(a.boxes) for a in annotations) == 1064
    assert len(datasets.load([f"fddb:{root}#8"], ".", problems, 1)) == 140
    assert set(problems.counts) == {"photo listed but absent"}


def test_wider_face(tmp_path, problems):
    for name in ("a", "b", "c"):
        photo(tmp_path / f"WIDER_val/images/0--Parade/{name}.jpg")
    (tmp_path / "wider_face_val_bbx_gt.txt").write_text(
        "0--Parade/a.jpg\n3\n10 20 30 40 0 0 0 0 0 0 \n1 2 3 4 0 0 0 1 0 0 \n1 2 0 4 0 0 0 0 0 0\n"
        "0--Parade/b.jpg\n0\n0 0 0 0 0 0 0 0 0 0 \n"
        "0--Parade/gone.jpg\n1\n5 5 5 5 0 0 0 0 0 0\n"
        "../../../etc/passwd.jpg\n1\n5 5 5 5 0 0 0 0 0 0\n"
        "0--Parade/c.jpg\n2\n5.5 5 5 nan\n5.5 5 5 5\n"
    )
    a, b, c = datasets.READERS["wider_face"](tmp_path, "val", problems)
    assert a.boxes.tolist() == [[10, 20, 40, 60], [1, 2, 4, 6]]
    assert a.ignore.tolist() == [False, True]
    assert (b.name, len(b.boxes)) == ("0--Parade/b.jpg", 0)
    assert c.boxes.tolist() == [[5.5, 5, 10.5, 10]]
    assert where(problems) == [
        ("box without area", "wider_face_val_bbx_gt.txt:5"),
        ("photo listed but absent", "wider_face_val_bbx_gt.txt:9"),
        ("path outside the data set", "wider_face_val_bbx_gt.txt:12"),
        ("malformed line", "wider_face_val_bbx_gt.txt:17"),
    ]


def test_wider_face_reads_the_real_list(data, problems):
    found = datasets.load([f"wider_face:{data('wider/val_416')}#val"], ".", problems, 1)
    assert len(found) == 110
    # Counted with grep: 1769 lines of boxes, one of which has no width.
    assert sum(len(a.boxes) for a in found) == 1768
    assert dict(problems.counts) == {"box without area": 1}


def test_wider_face_says_which_list_it_looked_for(tmp_path, problems):
    with pytest.raises(ValueError, match=r"expected the list of faces as .*wider_face_train_bbx"):
        list(datasets.READERS["wider_face"](tmp_path, "train", problems))


def coco_content():
    return {
        "images": [{"id": 7, "file_name": "a.jpg"}, {"id": 8, "file_name": "gone.jpg"}],
        "categories": [{"id": 5, "name": "dog"}, {"id": 2, "name": "cat"}],
        "annotations": [
            {"image_id": 7, "category_id": 5, "bbox": [1, 2, 3, 4]},
            {"image_id": 7, "category_id": 2, "bbox": [0, 0, 9, 9], "iscrowd": 1},
            {"image_id": 7, "category_id": 2, "bbox": [0, 0, 9, 9], "ignore": 1},
            {"image_id": 7, "category_id": 2, "bbox": [0, 0, -9, 9]},
            {"image_id": 7, "category_id": 99, "bbox": [0, 0, 9, 9]},
            {"image_id": 6, "category_id": 2, "bbox": [0, 0, 9, 9]},
            {"image_id": 7, "category_id": 2, "bbox": [0, 0, 9]},
        ],
    }


@pytest.mark.parametrize("folder", ["images", "."])
def test_coco(tmp_path, problems, folder):
    photo(tmp_path / folder / "a.jpg")
    (tmp_path / "instances.json").write_text(json.dumps(coco_content()))
    (annotation,) = datasets.READERS["coco"](tmp_path, "", problems)
    assert annotation.boxes.tolist() == [[1, 2, 4, 6], [0, 0, 9, 9], [0, 0, 9, 9]]
    assert annotation.classes.tolist() == [1, 0, 0]
    assert annotation.ignore.tolist() == [False, True, True]
    assert where(problems) == [
        ("box without area", "instances.json: annotations[3]"),
        ("malformed annotation", "instances.json: annotations[4]"),
        ("malformed annotation", "instances.json: annotations[5]"),
        ("malformed annotation", "instances.json: annotations[6]"),
        ("photo listed but absent", "instances.json: image 'gone.jpg'"),
    ]


def test_coco_names_what_is_wrong_with_the_file(tmp_path, problems):
    read = datasets.READERS["coco"]
    with pytest.raises(ValueError, match="expected one json file, found \\[\\]"):
        list(read(tmp_path, "", problems))
    path = tmp_path / "x.json"
    path.write_text("{\n{")
    with pytest.raises(ValueError, match=r"x\.json:2: not valid JSON"):
        list(read(tmp_path, "", problems))
    path.write_text("{}")
    with pytest.raises(ValueError, match=r"x\.json: expected COCO's images"):
        list(read(tmp_path, "x", problems))


def test_coco_reads_the_real_file(data, problems):
    annotations = datasets.load([f"coco:{data('other/multiface')}"], ".", problems, 1)
    assert len(annotations) == 736
    assert sum(int((~a.ignore).sum()) for a in annotations) == 2250
    assert sum(int(a.ignore.sum()) for a in annotations) == 366
    assert not problems.found


def test_negatives(tmp_path, problems):
    photo(tmp_path / "b.JPG")
    photo(tmp_path / "deep/a.png")
    photo(tmp_path / "notes.txt")
    found = list(datasets.READERS["negatives"](tmp_path, "", problems))
    assert [(a.name, len(a.boxes)) for a in found] == [("b.JPG", 0), ("deep/a.png", 0)]


def test_synthetic_pictures_are_functions_of_their_number(problems):
    first = datasets.load(["synthetic:#3-6"], ".", problems, 1)
    again = datasets.load(["synthetic:#5-6"], ".", problems, 1)
    assert first[2].image == again[0].image
    assert first[0].image != first[1].image
    np.testing.assert_array_equal(first[2].boxes, again[0].boxes)


def test_synthetic_boxes_fit_what_is_drawn():
    for number in range(20):
        annotation = synthetic.draw(number)
        image = cv2.imdecode(np.frombuffer(annotation.image, np.uint8), cv2.IMREAD_COLOR)
        assert image.shape == (96, 96, 3)
        assert 1 <= len(annotation.boxes) <= synthetic.MAX_OBJECTS
        for x0, y0, x1, y1 in annotation.boxes:
            # The rim is brighter than 180 in all channels, and its box is tight around it.
            bright = image.min(axis=2) > 160
            rim = bright[round(y0) : round(y1), round(x0) : round(x1)]
            assert rim.any(axis=0).mean() > 0.85
            assert rim.any(axis=1).mean() > 0.85


@pytest.mark.parametrize("split", ["", "5", "5-5", "a-b"])
def test_synthetic_ranges_that_are_none(split, tmp_path, problems):
    with pytest.raises(ValueError, match="Expected a range of synthetic pictures"):
        list(synthetic.read(tmp_path, split, problems))


def test_a_list_that_ends_early_is_reported(tmp_path, problems):
    photo(tmp_path / "originalPics/2002/one.jpg")
    (tmp_path / "FDDB-folds").mkdir()
    path = tmp_path / "FDDB-folds/FDDB-fold-01-ellipseList.txt"
    path.write_text("2002/one\n1000000000\n30 20 0 100 50  1\n")
    (annotation,) = fddb.read(tmp_path, "1", problems)
    assert len(annotation.boxes) == 1
    assert where(problems) == [("file ends early", "FDDB-fold-01-ellipseList.txt:2")]
    assert "expected 1000000000 lines of objects, the file ends after 1" in str(problems.found[0])


def test_coco_in_its_own_layout(tmp_path, problems):
    photo(tmp_path / "val2017/a.jpg")
    (tmp_path / "annotations").mkdir()
    path = tmp_path / "annotations/instances_val2017.json"
    path.write_text(json.dumps(coco_content()))
    (annotation,) = datasets.READERS["coco"](tmp_path, "val2017", problems)
    assert annotation.image == tmp_path / "val2017/a.jpg"
    with pytest.raises(ValueError, match=r"expected .*train\.json or .*instances_train\.json: no"):
        list(datasets.READERS["coco"](tmp_path, "train", problems))


def test_load_names_what_is_wrong_with_a_source(tmp_path, problems):
    with pytest.raises(ValueError, match=r"Expected a source as READER:PATH#SPLIT .*'nonsense'"):
        datasets.load(["nonsense"], ".", problems, 1)
    with pytest.raises(ValueError, match=r"gone: no such file or folder.*--data"):
        datasets.load(["coco:gone"], tmp_path, problems, 1)


def test_an_empty_source_is_fatal_only_if_nothing_is_left(tmp_path, problems):
    found = datasets.load(["negatives:", "synthetic:#0-2"], tmp_path, problems, 1)
    assert len(found) == 2
    assert where(problems) == [("source without anything usable", "negatives:")]
    with pytest.raises(ValueError, match="nothing usable was found"):
        datasets.load(["negatives:"], tmp_path, problems, 1)


def test_more_classes_than_the_model_has_are_refused(tmp_path, problems):
    photo(tmp_path / "a.jpg")
    (tmp_path / "instances.json").write_text(json.dumps(coco_content()))
    assert len(datasets.load(["coco:"], tmp_path, problems, 2)) == 1
    with pytest.raises(
        ValueError, match=r"at least 2 classes, but the model has 1\. .*--class-names"
    ):
        datasets.load(["coco:"], tmp_path, problems, 1)
