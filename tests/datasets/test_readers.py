"""Each reader on a hand-written file with the odd cases, and on the real files where they are."""

import json

import cv2
import numpy as np
import pytest
from PIL import Image

from tests.helpers.data_sets import class_names, photo, png, read, where
from unitbox_tf import datasets, images
from unitbox_tf.datasets import checks, fddb, synthetic


def test_fddb(tmp_path, problems):
    photo(tmp_path / "originalPics/2002/one.jpg")
    photo(tmp_path / "originalPics/2002/three.jpg")
    photo(tmp_path / "originalPics/2002/part.jpg")
    folds = tmp_path / "FDDB-folds"
    folds.mkdir()
    (folds / "FDDB-fold-02-ellipseList.txt").write_text(
        "2002/one\n2\n30 20 0 100 50  1\n0 0 0 9 9 1\n"
        "2002/part\n2\n30 20 0 100 50  1\n30 x 0 100 50  1\n"
        "2002/two\n1\n30 20 0 100 50  1\n"
        "2002/lost\nmany\n30 20 0 100 50  1\n2002/minus\n-2\n"
        "2002/three\n1\n30 20 1.5707963 100 50  1\n"
    )
    found = read("fddb", tmp_path, "2", problems)
    assert [annotation.name for annotation in found] == ["2002/one", "2002/three"]
    np.testing.assert_allclose(found[0].boxes, [[70, 30, 130, 70], [9, 9, 9, 9]])
    assert found[0].ignore.tolist() == [False, True]
    assert found[0].ellipses.tolist() == [[30, 20, 0, 100, 50], [0, 0, 0, 9, 9]]
    np.testing.assert_allclose(found[1].boxes, [[80, 20, 120, 80]], atol=1e-4)
    assert where(problems) == [
        ("malformed line", "FDDB-fold-02-ellipseList.txt:13"),
        ("malformed line", "FDDB-fold-02-ellipseList.txt:16"),
        ("image listed but absent", "FDDB-fold-02-ellipseList.txt:9"),
        ("box without area", "FDDB-fold-02-ellipseList.txt:4"),
        (checks.UNREADABLE, "FDDB-fold-02-ellipseList.txt:8"),
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
    annotations = datasets.load([f"fddb:{root}#1-7"], ["object"], problems=problems)
    assert len(annotations) == 1064
    assert sum(len(a.boxes) for a in annotations) == 1064
    assert len(datasets.load([f"fddb:{root}#8"], ["object"], problems=problems)) == 140
    assert set(problems.counts) == {"image listed but absent"}


def test_wider_face(tmp_path, problems):
    for name in ("a", "b", "c", "part"):
        photo(tmp_path / f"WIDER_val/images/0--Parade/{name}.jpg")
    (tmp_path / "wider_face_val_bbx_gt.txt").write_text(
        "0--Parade/a.jpg\n3\n10 20 30 40 0 0 0 0 0 0 \n1 2 3 4 0 0 0 1 0 0 \n1 2 0 4 0 0 0 0 0 0\n"
        "0--Parade/b.jpg\n0\n0 0 0 0 0 0 0 0 0 0 \n"
        "0--Parade/gone.jpg\n1\n5 5 5 5 0 0 0 0 0 0\n"
        "../../../etc/passwd.jpg\n1\n5 5 5 5 0 0 0 0 0 0\n"
        "0--Parade/part.jpg\n2\n5.5 5 5 nan\n5.5 5 5 5\n"
        "0--Parade/c.jpg\n1\n5.5 5 5 5\n"
    )
    a, b, c = read("wider_face", tmp_path, "val", problems)
    assert a.boxes.tolist() == [[10, 20, 40, 60], [1, 2, 4, 6], [1, 2, 1, 6]]
    assert a.ignore.tolist() == [False, True, True]
    assert a.attributes["invalid"].tolist() == [0, 1, 0]
    assert (b.name, len(b.boxes)) == ("0--Parade/b.jpg", 0)
    assert c.boxes.tolist() == [[5.5, 5, 10.5, 10]]
    assert c.attributes is None
    assert where(problems) == [
        ("image listed but absent", "wider_face_val_bbx_gt.txt:9"),
        ("path outside the data set", "wider_face_val_bbx_gt.txt:12"),
        ("box without area", "wider_face_val_bbx_gt.txt:5"),
        (checks.UNREADABLE, "wider_face_val_bbx_gt.txt:17"),
    ]


def test_numbers_whose_sum_is_not_finite_cannot_be_read(tmp_path, problems):
    photo(tmp_path / "WIDER_val/images/a.jpg")
    rows = "1e308 5 1e308 5\n5 5 5 5\n"
    (tmp_path / "wider_face_val_bbx_gt.txt").write_text(f"a.jpg\n2\n{rows}")
    assert read("wider_face", tmp_path, "val", problems) == []
    assert where(problems) == [(checks.UNREADABLE, "wider_face_val_bbx_gt.txt:3")]


def test_wider_face_reads_the_real_list(data, problems):
    found = datasets.load(
        [f"wider_face:{data('wider/val_416')}#val"], ["object"], problems=problems
    )
    assert len(found) == 110
    # Counted with grep: 1769 lines of boxes, one of which has no width.
    assert sum(len(a.boxes) for a in found) == 1769
    assert dict(problems.counts) == {"box without area": 1}


def test_wider_face_says_which_list_it_looked_for(tmp_path, problems):
    with pytest.raises(ValueError, match=r"expected the list of faces as .*wider_face_train_bbx"):
        read("wider_face", tmp_path, "train", problems)


def coco_content():
    return {
        "images": [
            {"id": 7, "file_name": "a.jpg", "width": 80, "height": 60},
            {"id": 8, "file_name": "gone.jpg", "width": "80"},
            {"id": 9},
        ],
        "categories": [{"id": 5, "name": "dog"}, {"id": 2, "name": "cat"}],
        "annotations": [
            {"image_id": 7, "category_id": 5, "bbox": [1, 2, 3, 4]},
            {"image_id": 7, "category_id": 2, "bbox": [0, 0, 9, 9], "iscrowd": 1},
            {"image_id": 7, "category_id": 2, "bbox": [0, 0, 9, 9], "ignore": 1},
            {"image_id": 7, "category_id": 2, "bbox": [0, 0, 0, 9]},
            {"image_id": 6, "category_id": 2, "bbox": [0, 0, 9, 9]},
            {"image_id": 7, "category_id": 2, "bbox": [80, 90, 5, 5]},
        ],
    }


@pytest.mark.parametrize("folder", ["images", "."])
def test_coco(tmp_path, problems, folder):
    photo(tmp_path / folder / "a.jpg")
    (tmp_path / "instances.json").write_text(json.dumps(coco_content()))
    (annotation,) = read("coco", tmp_path, "", problems)
    assert annotation.boxes.tolist() == [
        [1, 2, 4, 6],
        [0, 0, 9, 9],
        [0, 0, 9, 9],
        [0, 0, 0, 9],
        [80, 90, 85, 95],
    ]
    assert annotation.classes.tolist() == [1, 0, 0, 0, 0]
    assert annotation.ignore.tolist() == [False, True, True, True, True]
    assert annotation.size == (60, 80)
    assert where(problems) == [
        ("malformed image", "instances.json: images[2]"),
        ("malformed annotation", "instances.json: annotations[4]"),
        ("image listed but absent", "instances.json: image 'gone.jpg'"),
        ("box without area", "instances.json: annotations[3]"),
        ("box outside its image", "instances.json: annotations[5]"),
    ]
    assert class_names("coco", tmp_path, "") == ("cat", "dog")


def test_coco_names_what_is_wrong_with_the_file(tmp_path, problems):
    with pytest.raises(ValueError, match="expected a json file of COCO's form"):
        read("coco", tmp_path, "", problems)
    path = tmp_path / "x.json"
    path.write_text("{\n{")
    with pytest.raises(ValueError, match=r"x\.json:2: not valid JSON"):
        read("coco", tmp_path, "", problems)
    path.write_text("{}")
    with pytest.raises(ValueError, match=r"x\.json: expected COCO's images"):
        read("coco", tmp_path, "x", problems)


def test_coco_reads_the_real_file(data, problems):
    annotations = datasets.load([f"coco:{data('other/multiface')}"], ["face"], problems=problems)
    assert len(annotations) == 736
    assert sum(int((~a.ignore).sum()) for a in annotations) == 2250
    assert sum(int(a.ignore.sum()) for a in annotations) == 366
    assert not problems.found


VOC = """<annotation>
<filename>{name}</filename><size><width>80</width><height>60</height></size>
<object><name>dog</name><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>30.5</xmax><ymax>40</ymax></bndbox></object>
<object><name>cat</name><difficult>1</difficult>
  <bndbox><ymin>1</ymin><xmin>1</xmin><ymax>1</ymax><xmax>1</xmax></bndbox></object>
<object><name>cat</name><bndbox><xmin>9</xmin><ymin>9</ymin><xmax>8</xmax><ymax>20</ymax></bndbox></object>
<object><name>cat</name><difficult>x</difficult>
  <part><bndbox><xmin>7</xmin><ymin>7</ymin><xmax>8</xmax><ymax>8</ymax></bndbox></part>
  <bndbox><xmin>101</xmin><ymin>9</ymin><xmax>120</xmax><ymax>20</ymax></bndbox></object>
</annotation>
"""


VOC_UNREADABLE = """<annotation><object><name>cat</name>
<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></object>
<object><name>cat</name><bndbox><xmin>one</xmin><ymin>9</ymin><xmax>8</xmax><ymax>20</ymax></bndbox></object>
<object><name>cat</name></object>
<object><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></object>
</annotation>
"""


@pytest.mark.parametrize(
    "folders", [("Annotations", "JPEGImages"), ("annotations", "images"), ("", "")]
)
def test_voc(tmp_path, problems, folders):
    xml, photos = (tmp_path / folder for folder in folders)
    photo(photos / "a.JPG")
    photo(photos / "named.png")
    xml.mkdir(exist_ok=True)
    # The image that is named as the xml file goes before the one that the file names.
    (xml / "a.xml").write_text(VOC.format(name="moved/b.png"))
    (xml / "b.xml").write_text(VOC.format(name="named.png"))
    (xml / "c.xml").write_text(VOC.format(name="gone.png"))
    (xml / "d.xml").write_text("<annotation>\n<object>")
    photo(photos / "e.jpg")
    (xml / "e.xml").write_text(VOC_UNREADABLE)
    a, b = read("voc", tmp_path, "", problems)
    assert (a.name, b.name) == ("a.JPG", "named.png")
    # Corners are 1-based and inclusive: 1 1 1 1 is the first pixel.
    assert a.boxes.tolist() == [[0, 1, 30.5, 40], [0, 0, 1, 1], [8, 8, 8, 20], [100, 8, 120, 20]]
    assert a.classes.tolist() == [1, 0, 0, 0]
    assert a.ignore.tolist() == [False, True, True, True]
    assert a.size == (60, 80)
    assert where(problems)[:7] == [
        ("malformed xml", "d.xml:2"),
        *((checks.UNREADABLE, f"e.xml: object {number}") for number in (2, 3, 4)),
        ("malformed object", "a.xml: object 4"),
        ("box without area", "a.xml: object 3"),
        ("box outside its image", "a.xml: object 4"),
    ]
    assert ("image listed but absent", "c.xml") in where(problems)
    names = [x.name for x in read("voc", tmp_path, "", problems, photos=False)]
    assert names == ["a.JPG", "named.png", "gone.png"]
    assert class_names("voc", tmp_path, "") == ("cat", "dog")


def test_voc_splits_are_lists_or_folders_and_number_classes_alike(tmp_path, problems):
    one = "<annotation><object><name>{}</name><bndbox><xmin>1</xmin><ymin>1</ymin>"
    one += "<xmax>9</xmax><ymax>9</ymax></bndbox></object></annotation>"
    for split, name in (("train", "cat"), ("valid", "dog")):
        photo(tmp_path / split / f"{name}.jpg")
        (tmp_path / split / f"{name}.xml").write_text(one.format(name))
    (dog,) = read("voc", tmp_path, "valid", problems)
    assert dog.classes.tolist() == [1]
    (tmp_path / "ImageSets/Main").mkdir(parents=True)
    (tmp_path / "ImageSets/Main/some.txt").write_text(
        "train/cat\n\ngone\n../../etc/passwd\ntrain/cat\n"
    )
    (cat,) = read("voc", tmp_path, "some", problems)
    assert (cat.name, cat.classes.tolist()) == ("train/cat.jpg", [0])
    assert where(problems) == [
        ("annotations listed but absent", "some.txt:3"),
        ("path outside the data set", "some.txt:4"),
        ("image listed twice", "some.txt:5"),
    ]
    (tmp_path / "labels.txt").write_text("dog\nbird\n")
    (dog,) = read("voc", tmp_path, "valid", problems)
    assert read("voc", tmp_path, "train", problems) == []
    assert dog.classes.tolist() == [0]
    assert where(problems)[-1] == (checks.UNREADABLE, "cat.xml: object 1")
    with pytest.raises(ValueError, match=r"expected .*ImageSets/Main/gone\.txt or .*gone: neither"):
        read("voc", tmp_path, "gone", problems)


def test_voc_reads_the_real_files(data, problems):
    root = data("other/facemask140")
    annotations = datasets.load([f"voc:{root}"], ["with_mask", "without_mask"], problems=problems)
    assert len(annotations) == 140
    # 110 with masks, says the data's README.
    assert np.bincount(np.concatenate([a.classes for a in annotations])).tolist() == [110, 52]
    assert datasets.open(f"voc:{root}", ".").class_names() == ("with_mask", "without_mask")
    assert all(images.photo_size(a.image) == a.size for a in annotations[:20])
    assert not problems.found


def yolo_set(root, settings, folders=("images/train", "labels/train")):
    images, labels = (root / folder for folder in folders)
    for name in ("a.png", "b.png", "deep/c.png"):
        photo(images / name, png(60, 80))
    photo(images / "broken.jpg")
    labels.mkdir(parents=True, exist_ok=True)
    (labels / "a.txt").write_text(
        "1 0.5 0.5 0.25 0.5\n0 0.5 0.5 0 0.1\n\n0 0.25 0.5 0.5 0.5 0.5 0.75 0.25 0.75\n"
    )
    photo(images / "unreadable.png", png(60, 80))
    (labels / "unreadable.txt").write_text(
        "0 0.5 0.5 0.2 0.2\n"
        "0 0.5 0.5 0.25\n2 0.5 0.5 0.1 0.1\n0.5 0.5 0.5 0.1 0.1\n0 40 30 20 30\n0 0.5 nan 0.1 0.1\n"
    )
    (labels / "b.txt").write_text("")
    (labels / "lost.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    if settings is not None:
        (root / "data.yaml").write_text(settings)


@pytest.mark.parametrize(
    ("settings", "folders"),
    [
        ("train: images/train\nnames: [cat, dog]\n", ("images/train", "labels/train")),
        ("train: [images/train]\nnames: {1: dog, 0: cat}\n", ("images/train", "labels/train")),
        # As Roboflow writes it, in the file's own folder.
        ("train: ../train/images\nnames: [cat, dog]\n", ("train/images", "train/labels")),
        ("path: .\ntrain: train\nnames: [cat, dog]\n", ("train", "train")),
        (None, ("images/train", "labels/train")),
        (None, ("train/images", "train/labels")),
        (None, ("train", "train")),
    ],
)
def test_yolo(tmp_path, problems, settings, folders):
    yolo_set(tmp_path, settings, folders)
    if settings is None:
        (tmp_path / "classes.txt").write_text("cat\ndog\n")
    a, b, c = read("yolo", tmp_path, "train", problems)
    assert [x.name for x in (a, b, c)] == ["a.png", "b.png", "deep/c.png"]
    assert a.boxes.tolist() == [[30, 15, 50, 45], [40, 27, 40, 33], [20, 30, 40, 45]]
    assert a.classes.tolist() == [1, 0, 0]
    assert a.ignore.tolist() == [False, True, False]
    assert a.size == (60, 80)
    assert len(b.boxes) == len(c.boxes) == 0
    assert where(problems) == [
        ("box without area", "a.txt:2"),
        ("image of unknown size", "broken.jpg"),
        *((checks.UNREADABLE, f"unreadable.txt:{line}") for line in range(2, 7)),
        ("labels without an image", "lost.txt"),
    ]
    assert class_names("yolo", tmp_path, "train") == ("cat", "dog")


def test_yolo_lists_of_photos(tmp_path, problems):
    yolo_set(tmp_path, "train: train.txt\nval: images/train\nnames: [cat, dog]\n")
    (tmp_path / "train.txt").write_text(
        "./images/train/a.png\nimages/train/gone.png\n/etc/passwd\n"
    )
    (a,) = read("yolo", tmp_path, "train", problems)
    assert (a.name, len(a.boxes)) == ("images/train/a.png", 3)
    assert where(problems)[-2:] == [
        ("image listed but absent", "train.txt:2"),
        ("path outside the data set", "train.txt:3"),
    ]
    everything = read("yolo", tmp_path, "", problems)
    names = ["images/train/a.png", "images/train/b.png", "images/train/deep/c.png"]
    assert [x.name for x in everything] == names


def test_yolo_reads_nothing_outside_its_folder(tmp_path, problems):
    photo(tmp_path / "other/x.png", png(4, 4))
    settings = "path: /content/data\ntrain: [../other, images, /etc]\nnames: [cat, dog]\n"
    root = tmp_path / "set"
    yolo_set(root, settings, ("images", "labels"))
    (root / "images/out.png").symlink_to(tmp_path / "other/x.png")
    (tmp_path / "secret").write_text("0 0.5 0.5 0.5 0.5\n")
    (root / "labels/b.txt").unlink()
    (root / "labels/b.txt").symlink_to(tmp_path / "secret")
    names = [x.name for x in read("yolo", root, "train", problems)]
    assert names == ["a.png", "deep/c.png"]
    assert [x for x in where(problems) if x[0] == "path outside the data set"] == [
        ("path outside the data set", "data.yaml: path"),
        ("path outside the data set", "b.txt"),
        ("path outside the data set", "out.png"),
    ]
    assert problems.counts["images listed but absent"] == 1  # of ../other and /etc, in one entry


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("train: images\nnames: [cat\n", r"data\.yaml:3: not valid YAML"),
        ("- cat\n", r"data\.yaml: expected train, val and names"),
        ("train: images\n", r"data\.yaml: expected names"),
        ("train: images\nnames: {0: cat, 2: dog}\n", r"expected names numbered from 0"),
        ("train: images\nnames: [[cat]]\n", r"data\.yaml: expected names"),
        ("val: images\nnames: [cat]\n", "expected one of the splits val, received 'train'$"),
        (
            "train:\nval: images\nnames: [cat]\n",
            "expected one of the splits val, received 'train', which has no folder there",
        ),
        (
            "train: images\nnames: {0: cat, 0: dog}\n",
            r"data\.yaml:2: not valid YAML: '0' is there twice",
        ),
        ("train: images\nnames: [cat, dog]\nnc: 3\n", r"as many names as nc says, '3', received 2"),
        ("train: images\nnames: [cat, cat]\n", "expected the name of another class as name 2"),
        ("train: images\nnames: {cat: 1, dog: 1}\n", "a number of its own for each of names"),
        ("train: images\nnames: [cat]\nkpt_shape: [17]\n", r"kpt_shape as \[points, 2 or 3\]"),
        ("\udce9: x\n", "not valid YAML"),
    ],
)
def test_yolo_names_what_is_wrong_with_its_settings(tmp_path, problems, settings, message):
    (tmp_path / "images").mkdir()
    (tmp_path / "data.yaml").write_bytes(settings.encode(errors="surrogateescape"))
    with pytest.raises(ValueError, match=message):
        read("yolo", tmp_path, "train", problems)


def test_yolo_boxes_are_in_pixels_of_the_photo_as_displayed(tmp_path, problems):
    with Image.fromarray(np.zeros((60, 80, 3), np.uint8)) as image:
        exif = Image.Exif()
        exif[0x0112] = 6  # displayed 60 wide and 80 high
        image.save(tmp_path / "a.jpg", exif=exif)
    (tmp_path / "a.txt").write_text("0 0.5 0.5 1 0.5\n")
    (annotation,) = read("yolo", tmp_path, "", problems)
    assert annotation.size == (80, 60)
    assert annotation.boxes.tolist() == [[0, 20, 60, 60]]
    shown = cv2.imread(str(tmp_path / "a.jpg"))
    assert shown.shape[:2] == annotation.size


def test_csv(tmp_path, problems):
    for name in ("a, b", "c", "d", "e", "f", "g", "h"):
        photo(tmp_path / f"{name}.jpg")
    (tmp_path / "boxes.csv").write_text(
        "image, x0,y0,x1,y1,class,ignore\n"
        '"a, b.jpg",1,2.5,3,4,dog,\n'
        "c.jpg,,,,,,\n"
        '"a, b.jpg",1,2,1,4,cat,0\n\n'
        '"d.jpg,1,2,3,4,cat,0\n'  # a quote that is not closed
        "d.jpg,1,2,3,4,cat,0\n"
        "e.jpg,1,2,3\n"
        "f.jpg,1,2,3,inf,cat,0\n"
        "g.jpg,1,2,3,4,cat,perhaps\n"
        "h.jpg,1,2,3,4,,0\n"
        "gone.jpg,1,2,3,4,cat,0\n"
        "/etc/passwd,1,2,3,4,cat,0\n"
        "./c.jpg,5,6,7,8,dog,1\n"
        "e.jpg,1,2,3,4,cat,0\n",
        encoding="utf-8-sig",
    )
    ab, c = read("csv", tmp_path, "", problems)
    assert (ab.name, c.name) == ("a, b.jpg", "c.jpg")
    assert ab.boxes.tolist() == [[1, 2.5, 3, 4], [1, 2, 1, 4]]
    assert (ab.classes.tolist(), ab.ignore.tolist()) == ([1, 0], [False, True])
    assert c.boxes.tolist() == [[5, 6, 7, 8]]
    assert c.ignore.tolist() == [True]
    assert sorted(where(problems)) == [
        ("box without area", "boxes.csv:4"),
        ("image listed but absent", "boxes.csv:12"),
        ("malformed line", "boxes.csv:6"),
        ("malformed line", "boxes.csv:8"),
        (checks.UNREADABLE, "boxes.csv:10"),
        (checks.UNREADABLE, "boxes.csv:11"),
        (checks.UNREADABLE, "boxes.csv:9"),
        ("path outside the data set", "boxes.csv:13"),
    ]
    assert class_names("csv", tmp_path, "") == ("cat", "dog")
    (tmp_path / "labels.txt").write_text("dog\n")
    (c,) = read("csv", tmp_path, "boxes", problems)
    assert c.classes.tolist() == [0]


def test_csv_says_which_header_it_expects(tmp_path, problems):
    (tmp_path / "boxes.csv").write_text("filename,xmin\n")
    with pytest.raises(
        ValueError, match=r"boxes\.csv:1: expected the header image,x0,y0,x1,y1,class"
    ):
        read("csv", tmp_path, "", problems)


@pytest.mark.parametrize("text", ["cat\n\ndog\n", "cat\ncat\n"])
def test_labels_that_are_no_names_of_classes(tmp_path, text):
    (tmp_path / "labels.txt").write_text(text)
    with pytest.raises(ValueError, match=r"labels\.txt:2: expected the name of another class"):
        checks.listed_class_names(tmp_path)


def test_negatives(tmp_path, problems):
    photo(tmp_path / "b.JPG")
    photo(tmp_path / "deep/a.png")
    photo(tmp_path / "notes.txt")
    found = read("negatives", tmp_path, "", problems)
    assert [(a.name, len(a.boxes)) for a in found] == [("b.JPG", 0), ("deep/a.png", 0)]


def test_synthetic_pictures_are_functions_of_their_number(problems):
    first = datasets.load(["synthetic:#3-6"], ["object"], problems=problems)
    again = datasets.load(["synthetic:#5-6"], ["object"], problems=problems)
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
    with pytest.raises(ValueError, match="Expected a range of synthetic images"):
        read("synthetic", tmp_path, split, problems)


def test_a_list_that_ends_early_is_reported(tmp_path, problems):
    photo(tmp_path / "originalPics/2002/one.jpg")
    (tmp_path / "FDDB-folds").mkdir()
    path = tmp_path / "FDDB-folds/FDDB-fold-01-ellipseList.txt"
    path.write_text("2002/one\n1000000000\n30 20 0 100 50  1\n")
    assert read("fddb", tmp_path, "1", problems) == []
    assert where(problems) == [("file ends early", "FDDB-fold-01-ellipseList.txt:2")]
    assert "expected 1000000000 lines of objects, the file ends after 1" in str(problems.found[0])


def test_coco_in_its_own_layout(tmp_path, problems):
    photo(tmp_path / "val2017/a.jpg")
    (tmp_path / "annotations").mkdir()
    path = tmp_path / "annotations/instances_val2017.json"
    path.write_text(json.dumps(coco_content()))
    (annotation,) = read("coco", tmp_path, "val2017", problems)
    assert annotation.image == tmp_path / "val2017/a.jpg"
    with pytest.raises(ValueError, match=r"expected val2071\.json, .* Did you mean 'val2017'\?"):
        read("coco", tmp_path, "val2071", problems)


def test_load_names_what_is_wrong_with_a_source(tmp_path, problems):
    with pytest.raises(ValueError, match=r"Expected a source as FORMAT:PATH#SPLIT .*'nonsense'"):
        datasets.load(["nonsense"], ["object"], problems=problems)
    with pytest.raises(ValueError, match=r"gone: no such file or folder.*--data"):
        datasets.load(["coco:gone"], ["object"], data=tmp_path, problems=problems)


def test_an_empty_source_is_fatal_only_if_nothing_is_left(tmp_path, problems):
    found = datasets.load(
        ["negatives:", "synthetic:#0-2"], ["object"], data=tmp_path, problems=problems
    )
    assert len(found) == 2
    assert where(problems) == [("source without anything usable", "negatives:")]
    with pytest.raises(ValueError, match="nothing usable was found"):
        datasets.load(["negatives:"], ["object"], data=tmp_path, problems=problems)


# Images, boxes, boxes to be ignored, problems. Counted by another script; the lists say so, too.
COMPLETE = [
    ("wider_face:wider/annotations#val", 3226, 39708, 585 + 11, {"box without area": 11}),
    ("fddb:fddb", 2845, 5171, 0, {}),
    ("voc:other/facemask140", 140, 162, 0, {}),
    ("coco:other/multiface", 736, 2616, 366, {}),
]


@pytest.mark.parametrize(("source", "images", "boxes", "ignored", "found"), COMPLETE)
def test_real_lists_are_read_whole_without_their_photos(
    data, problems, source, images, boxes, ignored, found
):
    form, _, rest = source.partition(":")
    path, _, split = rest.partition("#")
    annotations = read(form, data(path), split, problems, photos=False)
    assert len(annotations) == images
    assert sum(len(a.boxes) for a in annotations) == boxes
    assert sum(int(a.ignore.sum()) for a in annotations) == ignored
    assert dict(problems.counts) == found


def test_the_attributes_of_the_real_wider_face_list(data, problems):
    annotations = read("wider_face", data("wider/annotations"), "val", problems, photos=False)
    attributes = [a.attributes for a in annotations]
    assert sum(int(each["invalid"].sum()) for each in attributes) == 585
    values = {name: set(np.concatenate([a[name] for a in attributes])) for name in attributes[0]}
    # What the list's readme says there is.
    assert values == {
        "blur": {0, 1, 2},
        "expression": {0, 1},
        "illumination": {0, 1},
        "invalid": {0, 1},
        "occlusion": {0, 1, 2},
        "pose": {0, 1},
    }


def test_ellipses_of_the_real_folds_fit_their_boxes(data, problems):
    for a in read("fddb", data("fddb"), "3", problems, photos=False):
        np.testing.assert_allclose((a.boxes[:, :2] + a.boxes[:, 2:]) / 2, a.ellipses[:, 3:])


def test_a_folder_without_any_label_is_reported_by_yolo(tmp_path, problems):
    photo(tmp_path / "images/a.png", png(9, 9))
    (tmp_path / "data.yaml").write_text("names: [dog]\ntrain: images\n")
    assert len(read("yolo", tmp_path, "train", problems)) == 1
    assert where(problems) == [("data set without labels", tmp_path.name)]
    photo(tmp_path / "images/b.png", png(9, 9))
    photo(tmp_path / "labels/b.txt", b"0 .5 .5 .5 .5\n")
    assert len(read("yolo", tmp_path, "train", problems)) == 2
    assert len(problems.found) == 1
