"""COCO's json as tools export it: objects, ids, categories, layouts and names."""

import json

import numpy as np
import pytest

from tests.helpers.data_sets import photo, png, read, where
from unitbox_tf import cli, datasets
from unitbox_tf.datasets import checks, coco, coco_layouts

IMAGE = {"id": 1, "file_name": "a.png", "width": 64, "height": 48}
CAT = {"id": 1, "name": "cat"}
OBJECT = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [10, 10, 20, 20]}
BOX = [[10, 10, 30, 30]]
CORNERS = [10, 10, 30, 10, 30, 30, 10, 30]
RUNS = [10 * 48 + 10, *[20, 28] * 19, 20, 34 * 48 + 18]  # of the same box in 64 x 48 pixels


def content(*objects, images=(IMAGE,), categories=(CAT,)):
    return {
        "images": list(images),
        "annotations": [OBJECT | each for each in objects],
        "categories": list(categories),
    }


def save(path, whole):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(whole))


@pytest.fixture
def root(tmp_path):
    """A folder with the image `a.png`."""
    photo(tmp_path / "a.png", png(48, 64))
    return tmp_path


@pytest.mark.parametrize(
    "change",
    [
        {"bbox": "10,10,20,20"},
        {"bbox": "[10, 10, 20.0, 20]"},
        {"bbox": ["10", "10", " 20", "2e1"]},
        {"bbox": [[10, 10, 20, 20]]},
        {"bbox": [30, 30, -20, -20]},
        {"bbox": [], "segmentation": [CORNERS]},
        {"bbox": None, "segmentation": CORNERS},
        {"bbox": [0, 0, 0, 0], "segmentation": [CORNERS]},
        {"bbox": ["x", 0, 0, 0], "segmentation": [[10, 10, 30, 20, 12, 30]]},
        {"bbox": None, "segmentation": {"counts": RUNS, "size": [48, 64]}},
        {"bbox": [10, 10, 20, 20], "segmentation": "anything"},
        {"image_id": "1"},
        {"image_id": 1.0},
        {"image_id": "a.png"},
        {"image_id": "a"},
        {"category_id": "1"},
        {"iscrowd": "0", "ignore": ""},
        {"iscrowd": False, "ignore": None, "area": "400"},
        {"id": None, "score": float("nan"), "attributes": {"occluded": False}},
    ],
)
def test_what_is_plainly_meant_is_read(root, problems, change):
    save(root / "x.json", content(change))
    (annotation,) = read("coco", root, "", problems)
    assert annotation.boxes.tolist() == BOX
    assert annotation.ignore.tolist() == [False]
    assert not problems.found


def test_objects_without_a_box_have_that_of_their_packed_mask(root, problems):
    mask = pytest.importorskip("pycocotools.mask")
    pixels = np.zeros((48, 64), np.uint8, order="F")
    pixels[10:30, 10:30] = 1
    packed = {"counts": mask.encode(pixels)["counts"].decode(), "size": [48, 64]}
    whole = content({"segmentation": packed})
    del whole["annotations"][0]["bbox"]
    save(root / "x.json", whole)
    assert read("coco", root, "", problems)[0].boxes.tolist() == BOX
    assert not problems.found


@pytest.mark.parametrize(
    "change",
    [
        {"bbox": None},
        {"bbox": []},
        {"bbox": {}},
        {"bbox": "cat"},
        {"bbox": [10, 10, 20]},
        {"bbox": [10, 10, 20, 20, 0.5]},
        {"bbox": [True, 10, 20, 20]},
        {"bbox": [10, 10, 20, float("nan")]},
        {"bbox": [10, 10, 20, float("inf")]},
        {"bbox": [10, 10, 20, 10**400]},
        {"bbox": [10, 10, 20, None], "segmentation": [[10, 10, 30]]},
        {"bbox": None, "segmentation": {"counts": "~~", "size": [48, 64]}},
        {"category_id": None},
        {"category_id": 7},
        {"category_id": [1]},
        {"iscrowd": "perhaps"},
        {"ignore": []},
    ],
)
def test_an_image_is_left_out_with_an_object_that_cannot_be_read(root, problems, change):
    other = IMAGE | {"id": 2, "file_name": "b.png"}
    photo(root / "b.png", png(48, 64))
    save(root / "x.json", content({}, change, {"image_id": 2}, images=[IMAGE, other]))
    assert [a.name for a in read("coco", root, "", problems)] == ["b.png"]
    assert where(problems) == [(checks.UNREADABLE, "x.json: annotations[1]")]
    assert str(problems.found[0]).endswith(": the image is left out")


@pytest.mark.parametrize(
    "item", [5, None, {}, {"bbox": [1, 2, 3, 4]}, {"image_id": [1]}, {"image_id": 7}]
)
def test_objects_of_no_image_are_reported_and_all_images_kept(root, problems, item):
    whole = content({})
    whole["annotations"].append(
        OBJECT | item if isinstance(item, dict) and "image_id" in item else item
    )
    save(root / "x.json", whole)
    assert read("coco", root, "", problems)[0].boxes.tolist() == BOX
    assert where(problems) == [(coco.MALFORMED, "x.json: annotations[1]")]
    assert "belongs to no image" in str(problems.found[0])


def test_boxes_that_are_corners_give_a_hint(root, problems):
    boxes = [[10, 10, 60, 40], [30, 20, 60, 40], [40, 20, 60, 45]]
    save(root / "x.json", content(*({"bbox": box} for box in boxes)))
    assert len(read("coco", root, "", problems)[0].boxes) == 3
    assert where(problems) == [(checks.LEAVE, "x.json: annotations")]
    assert "they look like the corners x0 y0 x1 y1" in str(problems.found[0])


def test_two_categories_of_one_id_are_an_error_that_names_both(root):
    save(root / "x.json", content({}, categories=[CAT, {"id": 1, "name": "dog"}]))
    with pytest.raises(ValueError, match=r"category 'dog': 'cat' has the id 1, too"):
        read("coco", root, "")


@pytest.mark.parametrize(
    ("categories", "names", "labels"),
    [
        ([{"id": 2}, {"id": 1, "name": None}], ("1", "2"), [0, 1]),
        ([{"id": 2, "name": " cat "}, {"id": 1, "name": "cat"}], ("cat",), [0, 0]),
        ([{"id": "1", "name": "dog"}, {"id": 2, "name": "cat"}], ("cat", "dog"), [1, 0]),
        (
            [{"id": 1, "name": 7}, {"id": 2, "name": "yes"}, {"id": 2, "name": "yes"}],
            ("7", "yes"),
            [0, 1],
        ),
        # Roboflow's first category is above all others, and no object has it.
        (
            [
                {"id": 0, "name": "cells", "supercategory": "none"},
                {"id": 1, "name": "red", "supercategory": "cells"},
                {"id": 2, "name": "white", "supercategory": "cells"},
            ],
            ("red", "white"),
            [0, 1],
        ),
        # Here, an object has it, so it is a class.
        (
            [
                {"id": 1, "name": "cells", "supercategory": "none"},
                {"id": 2, "name": "red", "supercategory": "cells"},
            ],
            ("cells", "red"),
            [0, 1],
        ),
        # Here, it is not above all others.
        (
            [
                {"id": 0, "name": "cells"},
                {"id": 1, "name": "red", "supercategory": "cells"},
                {"id": 2, "name": "dirt", "supercategory": "dirt"},
            ],
            ("cells", "red", "dirt"),
            [1, 2],
        ),
    ],
)
def test_names_of_classes(root, problems, categories, names, labels):
    save(root / "x.json", content({}, {"category_id": 2}, categories=categories))
    source = datasets.open(f"coco:{root}")
    (annotation,) = source.annotations(problems=problems)
    assert source.class_names() == names
    assert annotation.classes.tolist() == labels
    known = [kind for kind, _ in where(problems)]
    assert known == (["categories of one name"] if len(names) == 1 else [])


def test_categories_whose_ids_are_alike_are_told_apart_by_their_type(root, problems):
    categories = [CAT, {"id": "1", "name": "dog"}]
    save(root / "x.json", content({}, {"category_id": "1"}, categories=categories))
    assert read("coco", root, "", problems)[0].classes.tolist() == [0, 1]
    save(
        root / "x.json", content({"category_id": 1.5}, {"category_id": "01"}, categories=categories)
    )
    assert read("coco", root, "", problems) == []


def test_two_images_of_one_id_are_an_error(root):
    save(root / "x.json", content({}, images=[IMAGE, IMAGE | {"file_name": "b.png"}]))
    with pytest.raises(
        ValueError, match=r"images\[1\]: expected an id .*'b\.png': 'a\.png' has the id 1"
    ):
        read("coco", root, "")


def test_a_file_that_is_listed_twice_has_the_objects_of_both(root, problems):
    other = {"id": 2, "file_name": "./a.png"}
    objects = [{}, {"image_id": 2, "bbox": [1, 2, 3, 4]}, {"image_id": 2}]
    save(root / "x.json", content(*objects, images=[other, IMAGE, IMAGE]))
    (annotation,) = read("coco", root, "", problems)
    assert annotation.boxes.tolist() == [[1, 2, 4, 6], *BOX]  # the same object counts once
    assert annotation.size == (48, 64)
    assert where(problems) == [(checks.TWICE, "x.json: image with the id 1")]
    save(root / "x.json", content(*objects, {"image_id": 2, "bbox": "x"}, images=[other, IMAGE]))
    assert read("coco", root, "") == []
    sizes = [IMAGE, other | {"width": 640, "height": 480}]
    save(root / "x.json", content(*objects, images=sizes))
    assert read("coco", root, "") == []


def test_the_suffix_that_the_annotation_names_decides(root, problems):
    photo(root / "a.jpg", png(9, 9))
    save(root / "x.json", content({}, images=[IMAGE | {"file_name": "a.jpg"}, IMAGE | {"id": 2}]))
    assert [a.image.name for a in read("coco", root, "", problems)] == ["a.jpg", "a.png"]
    assert not problems.found


# The json, the image, the image's name in the json, the source's path and split, the name of the annotation.
LAYOUTS = {
    "beside": ("x.json", "a.png", "a.png", "", "", "a.png"),
    "windows": ("instances.json", "images/a.png", "images\\a.png", "", "", "a.png"),
    "label studio": ("result.json", "images/3f-a.png", "images/3f-a.png", "", "", "3f-a.png"),
    "label studio, served": (
        "result.json",
        "images/1a2b3c4d-a.png",
        "../../label-studio/data/..%5C..%5Cimages%5C1a2b3c4d-a.png",
        "",
        "",
        "1a2b3c4d-a.png",
    ),
    "label studio, uploaded": ("x.json", "a.png", "/data/upload/1/1a2b3c4d-a.png", "", "", "a.png"),
    "cvat": (
        "annotations/instances_default.json",
        "images/sub/a.png",
        "sub/a.png",
        "",
        "",
        "sub/a.png",
    ),
    "datumaro": ("annotations/default.json", "images/default/a.png", "a.png", "", "", "a.png"),
    "mmdetection": ("annotations/train.json", "train/a.png", "a.png", "", "train", "a.png"),
    "mmdetection, data": (
        "annotations/train.json",
        "data/a.png",
        "data/a.png",
        "",
        "train",
        "a.png",
    ),
    "coco": (
        "annotations/instances_val2017.json",
        "val2017/a.png",
        "a.png",
        "",
        "val2017",
        "a.png",
    ),
    "coco, one file": (
        "annotations/instances_val2017.json",
        "val2017/a.png",
        "a.png",
        "",
        "",
        "a.png",
    ),
    "coco, images": (
        "annotations/instances_val.json",
        "images/val/a.png",
        "a.png",
        "",
        "val",
        "a.png",
    ),
    "path of a json": (
        "annotations/train.json",
        "train/a.png",
        "a.png",
        "annotations/train.json",
        "",
        "a.png",
    ),
    "fiftyone": ("labels.json", "data/a.png", "a.png", "", "", "a.png"),
    "fiftyone, split": ("train/labels.json", "train/data/a.png", "a.png", "", "train", "a.png"),
    "roboflow": ("train/_annotations.coco.json", "train/a.png", "a.png", "", "train", "a.png"),
    "roboflow, folder": (
        "train/_annotations.coco.json",
        "train/a.png",
        "a.png",
        "train",
        "",
        "a.png",
    ),
    "other machine": ("x.json", "images/b/a.png", "/elsewhere/images/b/a.png", "", "", "b/a.png"),
    "suffix": ("x.json", "images/a.png", "a.PNG", "", "", "a.png"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_as_tools_export_them(tmp_path, problems, layout):
    path, file, name, source, split, expected = LAYOUTS[layout]
    image = IMAGE | {"file_name": name, "coco_url": "http://host/other.png"}
    save(tmp_path / path, content({}, images=[image]))
    photo(tmp_path / file, png(48, 64))
    source = f"coco:{source}#{split}" if split else f"coco:{source}"
    opened = datasets.open(source, data=tmp_path)
    (annotation,) = opened.annotations(problems=problems)
    assert annotation.image.samefile(tmp_path / file)
    assert annotation.name == expected
    assert annotation.boxes.tolist() == BOX
    assert opened.ids().images == {1: expected}
    reported = layout in ("label studio, served", "label studio, uploaded", "other machine")
    assert [kind for kind, _ in where(problems)] == [checks.ELSEWHERE] * reported
    out = tmp_path / "converted"
    assert cli.main(["convert", source, f"csv:{out}", "--data", str(tmp_path)]) == 0
    assert (out / "boxes.csv").read_text().splitlines()[1:] == [f"{expected},10,10,30,30,cat,0"]


def test_splits_of_roboflow_are_named_if_there_are_several(tmp_path):
    for split in ("train", "valid"):
        save(tmp_path / split / "_annotations.coco.json", content({}))
        photo(tmp_path / split / "a.png")
    with pytest.raises(ValueError, match=r"found train/_annotations.* one of train, valid"):
        read("coco", tmp_path, "")
    with pytest.raises(
        ValueError, match=r"There are \['train', 'valid'\]\. Did you mean 'valid'\?"
    ):
        read("coco", tmp_path, "val")
    (annotation,) = read("coco", tmp_path, "valid")
    assert annotation.image == tmp_path / "valid/a.png"


def test_several_jsons_without_a_split_are_listed(tmp_path):
    for name in ("train", "val"):
        save(tmp_path / f"annotations/instances_{name}.json", content())
    with pytest.raises(ValueError, match=r"expected one json file, found annotations/inst"):
        coco_layouts.json_file(tmp_path, "")
    assert coco_layouts.json_file(tmp_path, "val").name == "instances_val.json"
    assert coco_layouts.json_file(tmp_path, "instances_val").name == "instances_val.json"


def test_a_split_does_not_lead_out_of_the_folder(tmp_path):
    save(tmp_path / "other/x.json", content())
    save(tmp_path / "set/y.json", content())
    with pytest.raises(ValueError, match=r"expected \.\./other/x\.json"):
        read("coco", tmp_path / "set", "../other/x")


def test_objects_of_unknown_images_alone_are_an_error(root):
    save(root / "x.json", content({"image_id": "b.png"}, {"image_id": 7}))
    message = (
        r"x\.json: expected the ids of images as image_id, such as 1\. None of the 2 .* 'b\.png'"
    )
    with pytest.raises(ValueError, match=message):
        datasets.load("coco:.", data=root)


def test_an_image_id_that_may_mean_two_images_is_an_error(root):
    photo(root / "01.png", png(48, 64))
    images = (IMAGE, IMAGE | {"id": 2, "file_name": "01.png"})
    save(root / "x.json", content({"image_id": "01"}, images=images))
    with pytest.raises(
        ValueError, match=r"annotations\[0\]: .* '01', which may mean .*a\.png.*01\.png"
    ):
        datasets.load("coco:.", data=root)


def test_an_image_may_have_an_image_id_of_its_own(root, problems):
    save(root / "x.json", content({}, images=(IMAGE | {"image_id": 1},)))
    assert read("coco", root, "", problems)[0].boxes.tolist() == BOX
    assert not problems.found


def test_numbers_as_names_of_categories_stay_names(root, problems):
    categories = [{"id": 1, "name": 1}, {"id": 2, "name": 0}, {"id": 3, "name": 2}]
    save(root / "x.json", content({"category_id": 2}, categories=categories))
    assert datasets.class_names("coco:.", data=root) == ("1", "0", "2")


def test_two_images_whose_names_differ_in_capital_letters_are_not_one(root, problems):
    photo(root / "b.png", png(48, 64))
    images = [
        IMAGE | {"id": i, "file_name": n} for i, n in enumerate(["a.png", "A.png", "b.png"], 1)
    ]
    save(root / "x.json", content({}, {"image_id": 2}, {"image_id": 3}, images=images))
    assert [each.name for each in read("coco", root, "", problems)] == ["b.png"]
    assert where(problems) == [(checks.TWICE, "a.png")]
    assert "each of ['A.png', 'a.png']: the image is left out" in str(problems.found[0])


def test_the_path_of_a_source_may_lead_through_the_folder_above(root, problems, monkeypatch):
    """`--data ../data` is a usual way to name data, and images may lie in `images/`."""
    save(root / "set" / "x.json", content({}))
    (root / "set" / "images").mkdir()
    (root / "a.png").rename(root / "set" / "images" / "a.png")
    (root / "code").mkdir()
    monkeypatch.chdir(root / "code")
    [found] = read("coco", "../set", "", problems)
    assert found.boxes.tolist() == BOX
    (root / "outside").mkdir()
    (root / "set" / "images" / "a.png").rename(root / "outside" / "a.png")
    assert not read("coco", "../set/x.json", "../outside", problems)
