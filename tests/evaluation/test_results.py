import json

import numpy as np
import pytest

from unitbox_tf import datasets
from unitbox_tf.evaluation import results, wider_face
from unitbox_tf.problems import Problems
from unitbox_tf.records import Annotation, Detections

BOX = [10.25, 20.5, 30.0, 40.125]  # x y w h


def annotations(*names):
    return [Annotation(name, b"", np.zeros((0, 4))) for name in names]


def coco_file(tmp_path, *rows):
    path = tmp_path / "found.json"
    path.write_text(json.dumps(list(rows)))
    return path


def row(**more):
    return {"category_id": 1, "bbox": BOX, "score": 0.875} | more


@pytest.mark.parametrize(
    ("name", "annotated"),
    [
        ("a/b.jpg", "a/b.jpg"),
        ("a/b", "a/b.jpg"),
        ("a/b.png", "a/b.jpg"),  # other tools store images anew
        ("/srv/photos/a/b.jpg", "a/b.jpg"),
        ("photos\\a\\b.jpg", "a/b.jpg"),
        ("b.jpg", "b"),
        ("2002/08/11/big/img_591.jpg", "2002/08/11/big/img_591"),
    ],
)
@pytest.mark.parametrize("key", ["file_name", "image_id"])
def test_images_are_known_by_name(tmp_path, name, annotated, key):
    path = coco_file(tmp_path, row(**{key: name}))
    found = results.read(path, annotations("c.jpg", annotated, "other/b.jpg"))
    np.testing.assert_array_equal(found.rows[1], [[*BOX, 0.875]])
    assert len(found.rows[0]) == len(found.rows[2]) == 0


def test_of_folders_that_fit_the_longest_is_meant(tmp_path):
    path = coco_file(tmp_path, row(file_name="x/a/b.jpg"), row(file_name="y/b.jpg"))
    found = results.read(path, annotations("b.jpg", "a/b.jpg"))
    assert [len(rows) for rows in found.rows] == [1, 1]


def coco_source(tmp_path):
    content = {
        "images": [
            {"id": 7, "file_name": "x.jpg", "width": 90, "height": 80},
            {"id": 3, "file_name": "y.jpg", "width": 90, "height": 80},
        ],
        "annotations": [{"image_id": 3, "category_id": 18, "bbox": [1, 2, 3, 4]}],
        "categories": [{"id": 18, "name": "dog"}, {"id": 17, "name": "cat"}],
    }
    (tmp_path / "set.json").write_text(json.dumps(content))
    return datasets.open("coco:set.json", tmp_path)


def test_numbers_are_those_of_the_coco_json(tmp_path):
    source = coco_source(tmp_path)
    truth = source.annotations(photos=False)
    path = coco_file(
        tmp_path, row(image_id=3, category_id=18), row(image_id=7, category_id=17, score=1)
    )
    found = results.read(path, truth, [source])
    assert [a.name for a in truth] == ["x.jpg", "y.jpg"]
    assert [labels.tolist() for labels in found.classes] == [[0], [1]]
    assert found.rows[0].tolist() == [[*BOX, 1.0]]


def test_what_is_wrong_in_a_row_is_named_and_the_rest_kept(tmp_path):
    source = coco_source(tmp_path)
    truth = source.annotations(photos=False)
    wrong = [
        ("no image, or more than one, has the id or name 4", row(image_id=4, category_id=17)),
        ("no image, or more than one, has the id or name None", row(category_id=17)),
        ("no category has the id 1", row(image_id=3)),
        ("expected image_id", row(image_id=3, bbox=[1, 2, 3])),
        ("expected image_id", row(image_id=3, bbox=[1, 2, 3, "4"])),
        ("expected image_id", row(image_id=3, score=float("nan"))),
        ("expected image_id", row(image_id=3, bbox=[float("nan"), 2, 3, 4])),
        ("expected image_id", row(image_id=3, bbox=[1, 2, 3, 1e300])),
        ("expected image_id", row(image_id=3, score=10**400)),
        ("expected image_id", row(image_id=[3])),
        ("expected image_id", {"image_id": 3}),
        ("expected image_id", 5),
        ("a width and height from 0", row(image_id=3, bbox=[1, 2, -3, 4])),
    ]
    good = row(image_id=3, category_id=17)
    problems = Problems()
    path = coco_file(tmp_path, *(item for _, item in wrong), good)
    found = results.read(path, truth, [source], problems=problems)
    assert found.num_detections == 1
    for index, (problem, (message, _)) in enumerate(zip(problems.found, wrong, strict=True)):
        assert problem.where == f"{path}: [{index}]"
        assert message in problem.message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[{]", "found.json:1: not valid JSON"),
        ("[" * 100_000, "found.json: not valid JSON"),
        ('{"images": []}', "a list of objects, received an object with ['images']"),
        (
            '[{"file_name": "z.jpg", "category_id": 1, "bbox": [1, 2, 3, 4], "score": 1}]',
            "'a.jpg', ",
        ),
    ],
)
def test_a_file_that_is_no_result_of_these_images_is_refused(tmp_path, content, message):
    path = tmp_path / "found.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"found\.json") as error:
        results.read(path, annotations("a.jpg"))
    assert message in str(error.value)


def test_an_empty_list_says_that_nothing_was_found(tmp_path):
    found = results.read(coco_file(tmp_path), annotations("a.jpg"))
    assert found.num_without == found.num_detections == 0


def test_images_of_one_name_cannot_be_told_apart(tmp_path):
    with pytest.raises(ValueError, match=r"different names.*Received twice: 'a.jpg'"):
        results.read(coco_file(tmp_path), annotations("a.jpg", "a.jpg"))


def test_fddbs_form_holds_rectangles_or_ellipses(tmp_path):
    path = tmp_path / "found.txt"
    path.write_text("a/b\n1\n20 10 1.5707963267948966 50 60 0.5\na/c\n0\nz/z\n0\n")
    problems = Problems()
    found = results.read(path, annotations("a/b.png", "a/c.png", "a/d.png"), problems=problems)
    assert found.rows[0].shape == (1, 6)
    np.testing.assert_allclose(found.rectangles(0), [[40, 40, 20, 40, 0.5]])
    assert len(found.rows[1]) == 0
    assert found.rows[2] is None
    assert [(p.kind, p.where) for p in problems.found] == [
        (results.NOT_ANNOTATED, f"{path}: z/z"),
        (results.WITHOUT_RESULT, "a/d.png"),
    ]


def test_wider_faces_form_is_a_folder_of_folders(tmp_path):
    rows = np.array([[*BOX, 0.875]])
    wider_face.write_detections({"0--Parade/a.jpg": rows}, tmp_path / "found")
    problems = Problems()
    truth = annotations("0--Parade/a.jpg", "0--Parade/b.jpg")
    found = results.read(tmp_path / "found", truth, problems=problems)
    np.testing.assert_array_equal(found.rows[0], rows)
    assert found.num_without == 1
    assert list(problems.counts.values()) == [1]


def test_a_name_that_fits_several_images_fits_none(tmp_path):
    path = coco_file(
        tmp_path, row(file_name="a"), row(file_name="a.png"), row(file_name="x/a.jpeg")
    )
    problems = Problems()
    found = results.read(path, annotations("a.jpg", "a.png"), problems=problems)
    assert [len(rows) for rows in found.rows] == [0, 1]
    assert [p.where for p in problems.found] == [f"{path}: [0]", f"{path}: [2]"]


@pytest.mark.parametrize("category", [0, 4, 90, 10**12, "1", True, 1.0])
def test_without_a_coco_json_categories_are_those_of_the_classes(tmp_path, category):
    path = coco_file(tmp_path, row(file_name="a.jpg"), row(file_name="a.jpg", category_id=category))
    truth = [Annotation("a.jpg", b"", [[0, 0, 9, 9]], [2])]
    problems = Problems()
    found = results.read(path, truth, problems=problems)
    assert found.classes[0].tolist() == [0]
    [problem] = problems.found
    assert f"no category has the id {category!r}: they count from 1 to 3" in problem.message


def test_a_number_as_image_says_what_to_do_where_nothing_gives_numbers(tmp_path):
    path = coco_file(tmp_path, row(image_id=285))
    with pytest.raises(
        ValueError,
        match="only a COCO json as the one source says what numbers mean; give file_name",
    ):
        results.read(path, annotations("285.jpg"))


def test_an_image_that_a_coco_json_lists_twice_has_the_first_id(tmp_path):
    source = coco_source(tmp_path)
    content = json.loads((tmp_path / "set.json").read_text())
    content["images"].append({"id": 99, "file_name": "x.jpg"})
    (tmp_path / "set.json").write_text(json.dumps(content))
    truth = source.annotations(photos=False)
    path = coco_file(tmp_path, row(image_id=7, category_id=17), row(image_id=99, category_id=17))
    problems = Problems()
    assert results.read(path, truth, [source], problems=problems).num_detections == 1
    assert [p.where for p in problems.found] == [f"{path}: [1]"]


def test_a_file_that_is_no_text_is_refused(tmp_path):
    path = tmp_path / "found.txt.gz"
    path.write_bytes(b"\x1f\x8b\x08\x00rest")
    with pytest.raises(ValueError, match=r"found\.txt\.gz: expected text"):
        results.form_of(path)


@pytest.mark.parametrize("name", ["README.md", "photo.jpg", "rows.csv"])
def test_a_file_without_a_result_is_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"# A title\n\nwith, some, words \xff\n")
    with pytest.raises(ValueError, match=r"found none \(read as results in the form of fddb\)"):
        results.read(tmp_path / name, annotations("a.jpg"))


def test_a_folder_without_a_usable_result_is_refused(tmp_path):
    (tmp_path / "found/0--Parade").mkdir(parents=True)
    (tmp_path / "found/0--Parade/a.txt").write_text("a\nmany\n")
    with pytest.raises(ValueError, match=r"form of wider_face\); the first problem: .*a\.txt:2"):
        results.read(tmp_path / "found", annotations("0--Parade/a.jpg"))
    with pytest.raises(ValueError, match=r"whose images are named event/image\.jpg: .*'a\.jpg'"):
        results.read(tmp_path / "found", annotations("a.jpg"))


def test_forms_are_told_apart(tmp_path):
    for name, form in (("f/fold-03-out.txt", "fddb"), ("w/event/a.txt", "wider_face")):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
        assert results.form_of(tmp_path / name.split("/")[0]) == form
    with pytest.raises(ValueError, match=r"gone: no such file or folder\. Expected detections"):
        results.form_of(tmp_path / "gone")
    (tmp_path / "runs/one").mkdir(parents=True)
    (tmp_path / "runs/one/config.json").touch()
    (tmp_path / "runs/one/problems.txt").touch()
    with pytest.raises(
        ValueError, match=r"expected a run, not the folder of 1: name one, such as .*one"
    ):
        results.form_of(tmp_path / "runs")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty: Expected detections: a json list as of COCO"):
        results.form_of(tmp_path / "empty")


def test_records_become_rows_and_come_back():
    boxes = np.float32([[1.5, 2, 30.25, 40], [0, 0, 5, 5]])
    one = Detections(boxes, np.float32([0.75, 0.5]), np.int32([1, 0]), (50, 60))
    none = Detections(np.zeros((0, 4)), np.zeros(0), np.zeros(0, int), (9, 9))
    found = results.Results.of([one, none])
    back = found.detections([(50, 60), (9, 9)])
    np.testing.assert_array_equal(back[0].boxes, boxes)
    assert back[0].scores.tolist() == [0.75, 0.5]
    assert back[0].classes.tolist() == [1, 0]
    assert len(back[1]) == 0
    assert back[0].image_size == (50, 60)


def test_unsorted_rows_become_detections_best_first():
    rows = np.array([[0, 0, 1, 1, 0.1], [0, 0, 2, 2, 0.9], [0, 0, 3, 3, 0.5]])
    found = results.Results((rows,), (np.int32([0, 1, 2]),)).detections([(9, 9)])[0]
    assert found.scores.tolist() == [0.9, 0.5, 0.1]
    assert found.classes.tolist() == [1, 2, 0]
    assert found.boxes[:, 2].tolist() == [2, 3, 1]
