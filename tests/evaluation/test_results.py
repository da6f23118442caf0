import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import unitbox_tf
from unitbox_tf import datasets
from unitbox_tf.datasets import checks
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


@pytest.mark.parametrize("key", ["file_name", "image_id"])
@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("b.jpg", "b.png"),
        ("b.jpg", "train/b.jpg"),
        ("val/b.jpg", "train/b.jpg"),
        ("./b.jpg", "b.tif"),
    ],
)
def test_of_two_images_that_end_alike_only_the_annotated_one_is_judged(tmp_path, name, other, key):
    found = Problems()
    truth = [Annotation("b.jpg", tmp_path / "val/b.jpg", [[1, 2, 3, 4]])]
    path = coco_file(tmp_path, row(**{key: other}), row(**{key: name}, score=0.5))
    (rows,) = results.read(path, truth, problems=found).rows
    assert rows[:, 4].tolist() == [0.5]
    assert found.counts == {results.NOT_ANNOTATED: 1}


def test_two_images_that_may_both_be_the_annotated_one_are_an_error(tmp_path):
    path = coco_file(tmp_path, row(file_name="x/b.jpg"), row(file_name="y/b.jpg"))
    with pytest.raises(
        ValueError, match=r"one image named 'b\.jpg'\. Received .*'x/b\.jpg' and 'y/b"
    ):
        results.read(path, annotations("b.jpg"))


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


def test_an_image_that_a_coco_json_lists_twice_has_both_ids(tmp_path):
    source = coco_source(tmp_path)
    content = json.loads((tmp_path / "set.json").read_text())
    content["images"].append({"id": 99, "file_name": "x.jpg"})
    (tmp_path / "set.json").write_text(json.dumps(content))
    truth = source.annotations(photos=False)
    path = coco_file(tmp_path, row(image_id=7, category_id=17), row(image_id=99, category_id=17))
    assert results.read(path, truth, [source]).num_detections == 2


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


def numbered(folder, *category_ids, objects=2):
    """A COCO json with the classes `x`, `y` ... of these ids, and an object of each."""
    names = "xyzuv"
    boxes = [[5 + 12 * n, 5, 10, 8 + n] for n in range(len(category_ids))]
    content = {
        "images": [{"id": 1, "file_name": "a.jpg", "width": 90, "height": 48}],
        "categories": [
            {"id": id, "name": name} for id, name in zip(category_ids, names, strict=False)
        ],
        "annotations": [
            {"id": n, "image_id": 1, "category_id": id, "bbox": box}
            for n, (id, box) in enumerate(zip(category_ids, boxes, strict=True))
        ][:objects],
    }
    (folder / "gt.json").write_text(json.dumps(content))
    return f"coco:{folder / 'gt.json'}", boxes


def judged(folder, source, *rows):
    """AP at IoU .5 of COCO's results."""
    path = coco_file(folder, *rows)
    [metrics] = unitbox_tf.evaluate(path, source).metrics.values()
    return metrics["ap50"]


@pytest.mark.parametrize("category_ids", [(0, 1), (1, 3), (3, 7), (1, 2), (7, 2)])
def test_what_a_detector_finds_is_judged_right_whatever_the_ids_of_the_json(tmp_path, category_ids):
    source, boxes = numbered(tmp_path, *category_ids)
    corners = [[x, y, x + w, y + h] for x, y, w, h in boxes]
    order = np.argsort(category_ids).tolist()
    names = ["x", "y"]
    for own in (names, names[::-1]):  # the detector's order is its own
        labels = [own.index(name) for name in "xy"]
        found = Detections(corners, [0.9, 0.8], labels, (48, 90))
        assert judged(tmp_path, source, *found.to_coco("a.jpg", class_names=own)) == 1
    in_order = Detections(corners, [0.9, 0.8], [order.index(0), order.index(1)], (48, 90))
    assert judged(tmp_path, source, *in_order.to_coco("a.jpg")) == 1


def test_the_ids_of_the_json_are_taken_where_they_fit(tmp_path):
    source, boxes = numbered(tmp_path, 0, 1)
    by_name = [row(file_name="a.jpg", bbox=box, category_id=n) for n, box in enumerate(boxes)]
    assert judged(tmp_path, source, *by_name) == 1
    by_id = [row(image_id=1, bbox=box, category_id=n) for n, box in enumerate(boxes)]
    assert judged(tmp_path, source, *by_id) == 1


def test_numbers_that_can_mean_two_things_are_an_error(tmp_path):
    source, boxes = numbered(tmp_path, 0, 1)
    unclear = row(file_name="a.jpg", bbox=boxes[1], category_id=1)
    with pytest.raises(
        ValueError, match=r"can mean two things.*0 for x, 1 for y.*1 for x, 2 for y"
    ):
        judged(tmp_path, source, unclear)
    with_id = row(image_id=1, bbox=boxes[1], category_id=1)  # COCO's own form
    found = unitbox_tf.evaluate(coco_file(tmp_path, with_id), source, classes=["y"])
    assert next(iter(found.metrics.values()))["ap50"] == 1


def test_names_decide_and_need_no_numbers(tmp_path):
    source, boxes = numbered(tmp_path, 3, 7)
    rows = [
        {"file_name": "a.jpg", "category_name": name, "bbox": box, "score": 0.5}
        for name, box in zip("xy", boxes, strict=True)
    ]
    assert judged(tmp_path, source, *rows) == 1
    wrong = [{**one, "category_id": 3} for one in rows]
    assert judged(tmp_path, source, *wrong) == 1


def test_classes_that_the_annotations_lack_are_false_and_only_such_classes_an_error(
    tmp_path, caplog
):
    caplog.set_level("INFO")
    source, boxes = numbered(tmp_path, 3, 7)
    rows = [
        {"file_name": "a.jpg", "category_name": name, "bbox": box, "score": 0.5}
        for name, box in zip("xq", boxes, strict=True)
    ]
    path = coco_file(tmp_path, *rows)
    found = unitbox_tf.evaluate(path, source)
    assert found.class_names == ("x", "y", "q")
    assert found.judged["found"].results.classes[0].tolist() == [0, 2]
    assert "lack classes of some detections, which count as false: q 1" in caplog.text
    assert unitbox_tf.evaluate(path, source, classes=["x"]).metrics["found"]["ap50"] == 1
    renamed = unitbox_tf.evaluate(path, source, rename={"y": "q"})
    assert renamed.metrics["found"]["ap50"] == 1
    with pytest.raises(ValueError, match=r"none of its detections has a class .*--rename 'x=q'"):
        judged(tmp_path, source, rows[1])


def test_a_whole_coco_json_with_scores_states_its_own_categories(tmp_path):
    source, boxes = numbered(tmp_path, 3, 7)
    content = {
        "images": [{"id": 12, "file_name": "a.jpg"}],
        "categories": [{"id": 7, "name": "x"}, {"id": 3, "name": "y"}],
        "annotations": [
            row(image_id=12, category_id=id, bbox=box)
            for id, box in zip((7, 3), boxes, strict=True)
        ],
    }
    path = tmp_path / "found.json"
    path.write_text(json.dumps(content))
    assert unitbox_tf.evaluate(path, source).metrics["found"]["ap50"] == 1
    for one in content["annotations"]:
        del one["score"]
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="expected detections: a score in each"):
        unitbox_tf.evaluate(path, source)


def test_the_name_of_an_image_decides_before_a_number_of_another_file(tmp_path):
    source = coco_source(tmp_path)
    truth = source.annotations(photos=False)
    path = coco_file(tmp_path, row(file_name="y.jpg", image_id=7, category_id=17))
    found = results.read(path, truth, [source])
    assert [len(labels) for labels in found.classes] == [0, 1]


@settings(max_examples=30)
@given(
    ids=st.lists(st.integers(0, 12), min_size=1, max_size=5, unique=True),
    order=st.permutations(range(5)),
)
def test_detections_of_a_random_detector_on_random_ids_are_judged_right(
    tmp_path_factory, ids, order
):
    folder = tmp_path_factory.mktemp("ids")
    source, boxes = numbered(folder, *ids, objects=len(ids))
    names = ["xyzuv"[index] for index in order]  # the detector's, perhaps more than the json's
    corners = [[x, y, x + w, y + h] for x, y, w, h in boxes]
    labels = [names.index("xyzuv"[n]) for n in range(len(ids))]
    found = Detections(corners, [0.9] * len(ids), labels, (48, 90))
    assert judged(folder, source, *found.to_coco("a.jpg", class_names=names)) == 1
    numbers = results.category_ids([datasets.open(source)], names)
    assert [numbers[label] for label in labels] == ids
    assert len(set(numbers.values())) == len(names)


def test_corners_in_the_place_of_sides_are_reported(tmp_path):
    truth = [Annotation("a.jpg", tmp_path / "a.jpg", [[10, 10, 50, 50]], size=(60, 60))]
    problems = Problems()
    boxes = [[10, 10, 50, 50], [20, 20, 59, 59], [30, 30, 60, 60], [1, 1, 5, 5]]
    path = coco_file(tmp_path, *(row(file_name="a.jpg", bbox=box) for box in boxes))
    results.read(path, truth, problems=problems)
    assert [problem.kind for problem in problems.found] == [checks.LEAVE]
    assert "2 of 4 boxes end beyond" in str(problems.found[0])
