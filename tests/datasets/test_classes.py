"""Classes are matched by name, whatever order and numbers a data set has."""

import dataclasses
import json
import logging
import shlex

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import unitbox_tf
from tests.helpers.classes import coco_set, number_of, yolo_set
from unitbox_tf import cli, datasets
from unitbox_tf.cli import fit as fit_command
from unitbox_tf.cli import parser
from unitbox_tf.datasets import classes as by_name
from unitbox_tf.problems import Problems
from unitbox_tf.train import examples


def labels(annotations, names):
    """The class name of each object, over all images."""
    return [names[label] for a in annotations for label in a.classes.tolist()]


def configured(*arguments):
    return fit_command.configuration(parser.parse(["fit", "smoke", *arguments]))[1]


def taught(*arguments):
    """The class names, and the class names of the training and validation objects, of `unitbox fit`."""
    config = configured(*arguments)
    train = examples.opened(None, "train", config)
    validation = examples.opened(None, "validation", config)
    config = examples.with_class_names(config, train, validation)
    names = config.model.class_names
    shown = examples.training(train, config).examples
    judged = examples.validation(validation, config, train=train).annotations
    return names, labels(shown, names), labels(judged, names)


def test_two_sets_of_one_class_each_are_two_classes(tmp_path):
    cats, dogs = coco_set(tmp_path / "cats", "cat"), coco_set(tmp_path / "dogs", "dog")
    for chosen in (["--class-names", "cat", "dog"], []):
        names, shown, judged = taught(
            *chosen, "--train-sources", cats, dogs, "--validation-sources", dogs
        )
        assert names == ("cat", "dog")
        assert (shown, judged) == (["cat", "dog"], ["dog"])


def test_the_order_of_class_names_is_the_detectors_alone(tmp_path):
    both = coco_set(tmp_path / "both", "dog", "cat", "dog", names=["cat", "dog"])
    names, shown, _ = taught(
        "--class-names", "dog", "cat", "--train-sources", both, "--validation-sources", both
    )
    assert names == ("dog", "cat")
    assert shown == ["dog", "cat", "dog"]
    [found] = datasets.load(both, ["dog", "cat"])
    assert found.classes.tolist() == [0, 1, 0]


def test_an_unknown_class_of_a_validation_set_is_an_error_that_says_how_to_mend_it(tmp_path):
    both = coco_set(tmp_path / "both", "cat", "dog")
    other = coco_set(tmp_path / "other", "fox", "fox", "dog")
    message = (
        r"objects of classes that are not among the model's: 'fox' \(2 objects\)\. The classes of the model: "
        r"cat, dog\..*--rename fox=NAME.*--classes dog\)"
    )
    with pytest.raises(ValueError, match=message):
        taught("--train-sources", both, "--validation-sources", other)
    typed = coco_set(tmp_path / "typed", "Dog")
    with pytest.raises(ValueError, match=r"Did you mean dog\?.*--rename Dog=dog"):
        datasets.load(typed, ["cat", "dog"])


def test_a_set_of_one_class_of_another_name_says_how_to_rename_it(tmp_path):
    source = coco_set(tmp_path / "set", "human_face")
    with pytest.raises(ValueError, match=r"rename \(--rename human_face=face\)"):
        datasets.load(source, ["face"])
    [found] = datasets.load(source, ["face"], rename=["human_face=face"])
    assert found.classes.tolist() == [0]
    [found] = datasets.load(source, ["x", "face"], rename={"human_face": "face"})
    assert found.classes.tolist() == [1]


def test_a_set_with_some_of_the_classes_works_and_so_do_names_without_objects(tmp_path):
    some = coco_set(tmp_path / "some", "dog", names=["things", "dog"])
    [found] = datasets.load(some, ["cat", "dog"])
    assert found.classes.tolist() == [1]


def test_classes_choose_objects_and_the_others_are_counted_in_one_line(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    source = coco_set(
        tmp_path / "set", "fox", "cat", "dog", "fox", "cow", names=["cow", "fox", "dog", "cat"]
    )
    arguments = ["--train-sources", source, "--validation-sources", source]
    names, shown, judged = taught("--classes", "cat", "dog", *arguments)
    assert names == ("cat", "dog")
    assert shown == judged == ["cat", "dog"]
    assert (
        "objects of other classes than cat, dog are background, 3 in all: fox 2, cow 1"
        in caplog.text
    )
    [found] = datasets.load(source, classes=["dog"])
    assert [number_of(box) for box in found.boxes] == [2]
    with pytest.raises(ValueError, match=r"no source has the class 'dgo'\. Did you mean dog\?"):
        taught("--classes", "dgo", *arguments)
    with pytest.raises(ValueError, match="the model lacks the class 'fox'"):
        datasets.load(source, ["cat", "dog", "cow"], classes=["fox"])


def test_validation_may_lack_a_chosen_or_renamed_class(tmp_path):
    train = coco_set(tmp_path / "train", "cats", "dog", "fox")
    validation = coco_set(tmp_path / "val", "cat")
    names, shown, judged = taught(
        *["--classes", "dog", "cat", "--rename", "cats=cat"],
        *["--train-sources", train, "--validation-sources", validation],
    )
    assert (names, shown, judged) == (("dog", "cat"), ["cat", "dog"], ["cat"])


def test_a_name_that_no_source_has_cannot_be_renamed(tmp_path):
    source = coco_set(tmp_path / "set", "human_face")
    with pytest.raises(ValueError, match=r"the class 'human-face'\. Did you mean human_face\?"):
        datasets.load(source, ["face"], rename=["human-face=face"])
    with pytest.raises(ValueError, match="expected texts old=new, such as human_face=face"):
        datasets.load(source, ["face"], rename=["face"])
    with pytest.raises(ValueError, match="expected one new name for 'a'"):
        datasets.load(source, rename=["a=b", "a=c"])
    with pytest.raises(SystemExit):
        configured("--rename", "face")


def test_formats_without_names_count(tmp_path):
    numbers = yolo_set(tmp_path / "numbers", 1, 0, 1)
    [found] = datasets.load(numbers, ["cat", "dog", "cow"])
    assert found.classes.tolist() == [1, 0, 1]
    with pytest.raises(ValueError, match=r"at least 2 classes, but there are only the names cat\."):
        datasets.load(numbers, ["cat"])
    assert datasets.class_names(numbers) == ("class0", "class1")
    named = coco_set(tmp_path / "named", "dog", "cat", names=["dog", "cat"])
    names, shown, _ = taught("--train-sources", numbers, named, "--validation-sources", numbers)
    assert names == ("dog", "cat")
    assert shown == ["cat", "dog", "cat", "dog", "cat"]
    names, shown, _ = taught(
        *["--rename", "class0=cat", "class1=dog", "--classes", "cat", "dog"],
        *["--train-sources", numbers, named, "--validation-sources", numbers],
    )
    assert names == ("cat", "dog")
    assert shown == ["dog", "cat", "dog", "dog", "cat"]


def test_a_choice_does_not_shift_the_numbers_of_formats_without_names(tmp_path):
    numbers = yolo_set(tmp_path / "numbers", 1, 0)
    named = coco_set(tmp_path / "named", "cat", "dog")
    only_cats = yolo_set(tmp_path / "only_cats", 0)
    names, shown, judged = taught(
        *["--classes", "dog", "--train-sources", named, numbers],
        *["--validation-sources", only_cats, named],
    )
    assert (names, shown, judged) == (("dog",), ["dog", "dog"], ["dog"])


def test_faces_of_formats_without_names_are_the_models_faces_if_it_has_some(tmp_path):
    part = datasets.open("synthetic:#0-2")
    found = datasets.load(part, ["other", "object"])
    assert {label for a in found for label in a.classes.tolist()} == {1}
    assert datasets.class_names("synthetic:#0-2") == ("object",)
    assert part.class_names() is None
    found = datasets.load(part, ["thing"])
    assert {label for a in found for label in a.classes.tolist()} == {0}


def test_two_names_may_become_one_class(tmp_path):
    source = coco_set(tmp_path / "set", "kitten", "cat", "dog")
    rename = {"kitten": "cat"}
    assert datasets.class_names(source, rename=rename) == ("cat", "dog")
    [found] = datasets.load(source, rename=rename)
    assert found.classes.tolist() == [0, 0, 1]


def test_a_resumed_run_keeps_its_names(tmp_path):
    source = coco_set(tmp_path / "set", "cat", "dog")
    run = tmp_path / "run"
    run.mkdir()
    arguments = ["--train-sources", source, "--validation-sources", source]
    stored = configured(*arguments, "--class-names", "dog", "cat")
    (run / "config.json").write_text(stored.to_json())
    given = examples.opened([source], "train", stored)
    kept = examples.with_class_names(configured(*arguments), given, given, run)
    assert kept.model.class_names == ("dog", "cat")
    swapped = configured(*arguments, "--class-names", "cat", "dog")
    with pytest.raises(
        ValueError, match="a resumed run keeps its classes, dog, cat, in this order"
    ):
        examples.with_class_names(swapped, given, given, run)


def test_data_from_python_is_not_mapped_and_several_classes_need_names():
    found = datasets.load("synthetic:#0-2")
    config = configured()
    one = examples.with_class_names(config, found, found)
    assert one.model.class_names == ("object",)
    two = [*found, dataclasses.replace(found[0], classes=[1] * len(found[0].boxes))]
    with pytest.raises(ValueError, match=r"expected the names of the 2 classes"):
        examples.with_class_names(config, two, found)
    named = configured("--class-names", "b", "a")
    assert examples.with_class_names(named, two, found).model.class_names == ("b", "a")
    assert examples.training(two, named).examples == two
    chosen = configured("--classes", "cat", "--class-names", "cat")
    with pytest.raises(ValueError, match=r"\(--rename\) are for sources"):
        examples.with_class_names(chosen, found, found)


def test_convert_and_inspect_choose_and_rename(tmp_path, capsys):
    source = coco_set(tmp_path / "set", "fox", "kitten", "dog", names=["dog", "fox", "kitten"])
    chosen = ["--classes", "cat", "dog", "--rename", "kitten=cat"]
    assert cli.main(["convert", source, f"csv:{tmp_path / 'out'}", *chosen]) == 0
    assert (tmp_path / "out" / "labels.txt").read_text() == "cat\ndog\n"
    [found] = datasets.open(f"csv:{tmp_path / 'out'}").annotations()
    assert [(number_of(b), c) for b, c in zip(found.boxes, found.classes, strict=True)] == [
        (1, 0),
        (2, 1),
    ]
    capsys.readouterr()
    assert cli.main(["inspect", source, *chosen, "--json"]) == 0
    counted = json.loads(capsys.readouterr().out)
    assert counted["total"]["classes"] == {"cat": 1, "dog": 1}
    with pytest.raises(ValueError, match="no source has the class 'cow'"):
        unitbox_tf.inspect(source, classes=["cow"])
    with pytest.raises(ValueError, match="no source has the class 'cow'"):
        datasets.convert(source, f"csv:{tmp_path / 'none'}", classes=["cow"])


def test_a_set_of_which_no_object_can_be_read_is_an_error(tmp_path):
    source = coco_set(tmp_path / "set", "cat")
    path = tmp_path / "set" / "instances.json"
    content = json.loads(path.read_text())
    content["annotations"][0]["bbox"] = ["a", "b", "c", "d"]
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"none of the objects in 'coco:.*' can be read"):
        datasets.load(source)


def test_a_misspelled_path_or_format_is_told(tmp_path):
    coco_set(tmp_path / "photos", "cat")
    with pytest.raises(ValueError, match=r"Did you mean photos\?"):
        datasets.open("coco:photo", tmp_path)
    with pytest.raises(ValueError, match=r"Did you mean coco\?"):
        datasets.open("cocoo:photos", tmp_path)


NAMES = ["ant", "bee", "cat", "dog", "elk"]


@settings(max_examples=25)
@given(
    sets=st.lists(
        st.tuples(st.permutations(NAMES), st.lists(st.sampled_from(NAMES), max_size=6)),
        min_size=1,
        max_size=3,
    ),
    order=st.permutations(NAMES),
    chosen=st.none() | st.lists(st.sampled_from(NAMES), min_size=1, unique=True),
    ids=st.permutations(range(9)),
)
def test_each_object_ends_with_the_index_of_its_own_name(
    tmp_path_factory, sets, order, chosen, ids
):
    folder = tmp_path_factory.mktemp("sets")
    sources = [
        coco_set(folder / str(n), *objects, names=names, ids=ids[: len(names)], photo=f"p{n}")
        for n, (names, objects) in enumerate(sets)
    ]
    found = datasets.load(sources, order, classes=chosen)
    for annotation, (_, objects) in zip(found, sets, strict=True):
        kept = [n for n, name in enumerate(objects) if chosen is None or name in chosen]
        assert [number_of(box) for box in annotation.boxes] == kept
        assert [order[label] for label in annotation.classes] == [objects[n] for n in kept]
    names = datasets.class_names(sources, classes=chosen)
    again = datasets.load(sources, classes=chosen)
    for one, other in zip(found, again, strict=True):
        np.testing.assert_array_equal(one.boxes, other.boxes)
        assert [order[i] for i in one.classes] == [names[i] for i in other.classes]


def test_classes_of_nearly_one_name_are_reported_with_the_line_that_joins_them(tmp_path):
    sources = [
        coco_set(tmp_path / n, name) for n, name in (("a", "traffic light"), ("b", "Traffic_Light"))
    ]
    problems = Problems(logged=False)
    found = datasets.load(sources, problems=problems)
    assert [each.classes.tolist() for each in found] == [[0], [1]]
    (problem,) = problems.found
    assert problem.kind == by_name.ALIKE
    line = problem.message.partition("--rename ")[2]
    problems = Problems(logged=False)
    found = datasets.load(sources, rename=shlex.split(line), problems=problems)
    assert [each.classes.tolist() for each in found] == [[0], [0]]
    assert not problems.found
