import dataclasses
import json

import cv2
import numpy as np
import pytest

from tests.helpers.data_sets import photo, png
from unitbox_tf import datasets, registry
from unitbox_tf.config import ModelConfig
from unitbox_tf.datasets import synthetic
from unitbox_tf.datasets.inspection import inspect
from unitbox_tf.presets import PRESETS
from unitbox_tf.problems import Problems
from unitbox_tf.records import Annotation

FACES = PRESETS["faces"]


@pytest.fixture
def table(tmp_path):
    photo(tmp_path / "a.png", png(20, 30))
    photo(tmp_path / "b.png", png(40, 50))
    photo(tmp_path / "c.png", b"no image")
    rows = [
        "image,x0,y0,x1,y1,class,ignore",
        "a.png,0,0,10,4,dog,0",
        "a.png,0,0,3,8,cat,0",
        "b.png,0,0,20,20,dog,1",
        "c.png,,,,,,",
        "gone.png,0,0,10,10,dog,0",
    ]
    (tmp_path / "boxes.csv").write_text("\n".join(rows) + "\n")
    return f"csv:{tmp_path}"


def test_inspect_counts_and_measures(table):
    problems = Problems()
    found = inspect(table, problems=problems)
    (one,) = found.sources
    assert (one.name, one.images, one.without_objects) == (table, 3, 2)
    assert (one.objects, one.ignored) == (2, 1)
    assert one.classes == one.images_of_classes == {"cat": 1, "dog": 1}
    assert one.widths == (30, 35, 40, 45, 50)
    assert one.heights == (20, 25, 30, 35, 40)
    assert one.long_sides == (8, 8.5, 9, 9.5, 10)
    assert one.short_sides == (3, 3.25, 3.5, 3.75, 4)
    assert one.per_image == (0, 0, 0, 1, 2)
    assert dict(problems.counts) == {
        "image listed but absent": 1,
        "image of unknown size": 1,
        "image of odd size": 1,
        "image that cannot be decoded": 1,
    }
    assert found.problems is problems


def test_inspect_adds_several_sources_up(table):
    found = inspect(table, datasets.open("synthetic:#0-4"))
    assert [each.images for each in found.sources] == [3, 4]
    total = found.total
    assert (total.images, total.without_objects, total.ignored) == (7, 2, 1)
    # Generated images have no names of classes, so they count: their class 0 is the first one.
    assert total.classes == {"cat": 1 + found.sources[1].objects, "dog": 1}
    assert total.widths.maximum == 96
    lines = found.table().splitlines()
    assert lines[0].split() == [table, "synthetic:#0-4", "total"]
    assert lines[1].split() == ["images", "3", "4", "7"]
    assert len({len(line) for line in lines[:8]}) == 1
    plain = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert plain["total"]["widths"]["maximum"] == 96
    assert plain["sources"][0]["classes"] == {"cat": 1, "dog": 1}


def test_inspect_says_where_there_is_nothing(tmp_path):
    found = inspect("negatives:", data=tmp_path)
    assert found.total.widths is found.total.long_sides is found.validation is None
    assert found.total.images == 0
    assert found.shown == found.suggestions == ()
    assert "-" in found.table()
    assert found.problems.counts["source without anything usable"] == 1
    json.dumps(found.to_dict(), allow_nan=False)
    with pytest.raises(ValueError, match="Expected at least one source"):
        inspect()


@pytest.mark.parametrize("source", [3, None, ["a"], "a", b"synthetic:"])
def test_inspect_names_what_is_no_source(source):
    with pytest.raises(ValueError, match=r"Expected a source as FORMAT:PATH#SPLIT .*Received: "):
        inspect(source)


def test_classes_of_training_and_validation_are_joined_by_their_names(tmp_path):
    for name, classes in (("train", ("cat", "dog")), ("val", ("dog", "fox"))):
        images = [
            dataclasses.replace(synthetic.draw(number), name=f"{name}{number}.png")
            for number in range(2)
        ]
        images[1] = dataclasses.replace(images[1], classes=np.ones(len(images[1].boxes), np.int32))
        registry.DATASETS["csv"].write(images, tmp_path / name, "", classes)
    found = inspect("csv:train", validation=["csv:val"], data=tmp_path)
    assert found.class_names == ("cat", "dog", "fox")
    counts = [len(synthetic.draw(number).boxes) for number in range(2)]
    assert found.total.classes == {"cat": counts[0], "dog": counts[1], "fox": 0}
    assert found.validation.classes == {"cat": 0, "dog": counts[0], "fox": counts[1]}
    assert list(found.validation_sources[0].classes) == ["dog", "fox"]
    assert [set(each.classes.tolist()) for each in found.annotations] == [{0}, {1}, {1}, {2}]
    assert any("no validation image has an object of cat" in text for text in found.remarks)


def test_sizes_are_those_at_which_training_and_each_scale_of_detection_show_objects():
    config = dataclasses.replace(
        FACES,
        data=dataclasses.replace(FACES.data, random_crop=False, image_size=48),
        decode=dataclasses.replace(FACES.decode, max_side=96, scales=(0.25, 1.0)),
    )
    found = inspect("synthetic:#0-20", config=config, pixels=False)
    training, quarter, whole = found.shown
    original = np.array(found.total.long_sides)
    np.testing.assert_allclose(training.long_sides, original / 2)
    np.testing.assert_allclose(quarter.long_sides, original / 4)
    np.testing.assert_allclose(whole.long_sides, original)
    assert quarter.small > 0.9  # below 16 px
    assert whole.small < 0.1
    assert whole.large == whole.beyond == 0
    assert found.unfit == whole.small  # no object is better at a quarter
    some = dataclasses.replace(found, unfit=0.25)
    assert "25.0% of the objects have 16 to 171 px at no scale of detection." in some.table()
    assert found.unfit == 0
    assert "All objects have 16 to 171 px at a scale of detection." in found.table()


def test_another_backbone_gives_sizes_without_limits():
    model = ModelConfig()
    object.__setattr__(model, "backbone", "mine")
    found = inspect("synthetic:#0-2", config=dataclasses.replace(FACES, model=model))
    assert found.limits is found.unfit is found.shown[0].small is None
    assert found.suggestions == ()
    assert "What the backbone mine can see is not known" in found.table()
    json.dumps(found.to_dict(), allow_nan=False)


def encoded(number, suffix=".png", size=96):
    picture = cv2.imdecode(np.frombuffer(synthetic.draw(number).image, np.uint8), cv2.IMREAD_COLOR)
    picture = cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA)
    return cv2.imencode(suffix, picture)[1].tobytes()


@pytest.fixture
def twice(tmp_path):
    """Negatives: train 0 to 4, 0 again as a file, 1 as JPEG; val 2 as a file, 3 as a smaller JPEG, and 5."""
    train = {f"{number}.png": encoded(number) for number in range(5)}
    train |= {"again.png": encoded(0), "copy.jpg": encoded(1, ".jpg")}
    val = {"2.png": encoded(2), "3.jpg": encoded(3, ".jpg", 72), "5.png": encoded(5)}
    val |= {"black.png": png(50, 50), "white.png": cv2.imencode(".png", np.full((60, 50), 255))[1]}
    for folder, files in (("train", train), ("val", val)):
        for name, content in files.items():
            photo(tmp_path / folder / name, bytes(content))
    return tmp_path


def places(found, repeats):
    return {
        (
            found.annotations[each.image].where.rpartition("/")[2],
            found.annotations[each.other].where.rpartition("/")[2],
            each.distance is None,
        )
        for each in repeats
    }


def test_duplicates_are_found_within_and_between_training_and_validation(twice):
    found = inspect("negatives:train", validation="negatives:val", data=twice)
    pairs = found.duplicates
    assert places(found, pairs.training) == {
        ("again.png", "0.png", True),
        ("copy.jpg", "1.png", False),
    }
    assert pairs.validation == ()
    assert places(found, pairs.shared) == {
        ("2.png", "2.png", True),
        ("3.jpg", "3.png", False),
    }
    assert [found.annotations[i].name for i in pairs.flat] == ["black.png", "white.png"]
    text = found.table()
    assert "validation images with the bytes of a training image: 1" in text
    assert "validation images that look nearly like a training image (look at them): 1" in text
    assert "images of one colour, compared by their bytes alone: " in text
    plain = found.to_dict()["duplicates"]
    assert {each["bits"] is None for each in plain["shared"]} == {True, False}
    assert all(each["image"].startswith(str(twice)) for each in plain["training"])


def test_without_pixels_only_bytes_are_compared(twice):
    found = inspect("negatives:train", validation="negatives:val", data=twice, pixels=False)
    assert places(found, found.duplicates.training) == {("again.png", "0.png", True)}
    assert places(found, found.duplicates.shared) == {("2.png", "2.png", True)}
    assert "near-duplicates were not looked for" in found.table()


def test_without_pixels_images_without_a_header_are_reported(tmp_path):
    images = [Annotation(f"{n}.png", synthetic.draw(n).image, [[0, 0, 40, 40]]) for n in range(2)]
    images = [dataclasses.replace(each, size=(96, 96)) for each in images]
    registry.DATASETS["coco"].write(images, tmp_path / "set", "", ("cat",))
    [path] = (tmp_path / "set").rglob("1.png")
    path.write_bytes(b"")
    for pixels in (False, True):
        problems = inspect("coco:set", data=tmp_path, pixels=pixels).problems
        assert problems.counts == {"image that cannot be decoded": 1}
        assert "1.png: " in str(problems.found[0])


def test_a_source_of_another_format_says_so(tmp_path):
    photo(tmp_path / "cats/a.png", encoded(0))
    found = inspect("voc:cats", data=tmp_path)
    [problem] = found.problems.found
    assert "no image of the format voc found in" in problem.message
    assert "there is no training image" in found.table()


def test_what_fit_would_refuse_is_said(twice):
    found = inspect("negatives:train", validation="negatives:val", data=twice)
    none, shared = found.obstacles
    assert "none of the 7 training images has an object" in none
    assert "1 of 5 validation images are among the training images" in shared
    assert "unitbox fit would refuse this" in found.table()


def test_names_from_the_data_cannot_change_the_text(tmp_path):
    photo(tmp_path / "a.png", encoded(0))
    name = "cat\x1b[31m\u202e\udcff\nimages 999"
    content = {
        "images": [{"id": 1, "file_name": "a.png"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 30, 40]}],
        "categories": [{"id": 1, "name": name}, {"id": 2, "name": "dog\x07"}],
    }
    (tmp_path / "all.json").write_text(json.dumps(content))
    found = inspect("coco:all.json", data=tmp_path)
    text = found.table()
    assert text.isascii()
    assert not {"\x1b", "\x07"} & set(text)
    assert r"cat\x1b[31m\u202e\udcff\nimages 999" in text
    json.dumps(found.to_dict()).encode("ascii")


def test_classes_that_differ_in_capital_letters_are_worth_knowing(tmp_path):
    box = [[0, 0, 40, 40]]
    images = [Annotation(f"{n}.png", synthetic.draw(n).image, box, [n % 3]) for n in range(3)]
    registry.DATASETS["csv"].write(images, tmp_path / "set", "", ("Cat", "dog", "cat"))
    alike, empty = inspect("csv:set", data=tmp_path).remarks
    assert "capital letters: Cat, cat. If they are one class, rename (--rename cat=Cat)" in alike
    assert "every training image has an object" in empty


def test_rare_classes_and_the_lack_of_empty_images_are_worth_knowing(tmp_path):
    box = [[0, 0, 40, 40]]
    images = [
        Annotation(f"{n}.png", synthetic.draw(n).image, box, [int(n == 0)]) for n in range(12)
    ]
    registry.DATASETS["csv"].write(images, tmp_path / "set", "", ("usual", "rare"))
    rare, empty = inspect("csv:set", data=tmp_path).remarks
    assert "rare" in rare
    assert "usual" not in rare
    assert "every training image has an object" in empty
