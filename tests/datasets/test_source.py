"""A source parses its files once, and tells each who asks what was wrong in them."""

import gc
import json
import os
import sys

import numpy as np
import pytest

from tests.helpers.data_sets import photo, png
from unitbox_tf import datasets, registry
from unitbox_tf.datasets.coco import Coco
from unitbox_tf.problems import Problems
from unitbox_tf.records import Annotation

opened: list[str] = []  # the files below a folder that were opened while it was watched
watched: list[str] = []


def _listen(event, arguments):
    if event == "open" and watched and isinstance(arguments[0], str):
        if arguments[0].startswith(watched[0]):
            opened.append(arguments[0])


sys.addaudithook(_listen)


@pytest.fixture
def opened_below(tmp_path):
    """`opened_below(folder)`: the files below it that have been opened since."""

    def watch(folder):
        opened.clear()
        watched[:] = [str(folder)]
        return opened

    yield watch
    watched.clear()


PARSED = [
    form for form in datasets.writable() if form != "tfrecord"
]  # reads one record after another


@pytest.mark.parametrize("form", PARSED)
def test_a_source_opens_each_of_its_files_once(form, tmp_path, opened_below):
    source = [Annotation(f"p{n}", png(20, 30), [[1, 2, 3.5, 4]] * n) for n in range(3)]
    split = "1" if form == "fddb" else "train"
    registry.DATASETS[form].write(source, tmp_path / "set", split, ["face"])
    files = opened_below(tmp_path / "set")
    of_form = datasets.open(f"{form}:set#{split}", tmp_path)
    for _ in range(2):
        assert len(of_form.annotations()) == 3
        assert of_form.class_names() in (("face",), None)
        of_form.ids()
    texts = [name for name in files if os.path.splitext(name)[1] not in ("", ".png")]
    assert texts
    assert len(set(texts)) == len(texts)


def coco_set(folder, **changes):
    images = [{"id": 7 + n, "file_name": f"{n}.png", "height": 20, "width": 30} for n in range(3)]
    objects = [
        {"image_id": 9, "category_id": 4, "bbox": [1, 2, 3, 4], "area": 5},
        {"image_id": 7, "category_id": 4, "bbox": [1, 2, 0, 4]},
        {"image_id": 8, "category_id": 99, "bbox": [1, 2, 3, 4]},
        {"image_id": 9, "category_id": 2, "bbox": [0, 0, 9, 9]},
    ]
    categories = [{"id": 4, "name": "dog"}, {"id": 2, "name": "cat"}]
    content = {"images": images, "annotations": objects, "categories": categories} | changes
    (folder / "set.json").write_text(json.dumps(content))
    for image in images[:2]:
        photo(folder / image["file_name"], png(20, 30))


def test_load_parses_a_coco_json_once(tmp_path, monkeypatch):
    coco_set(tmp_path)
    parsed, loads = [], json.loads
    monkeypatch.setattr(
        json, "loads", lambda text, **more: parsed.append(text) or loads(text, **more)
    )
    found = datasets.load(["coco:set.json"], ["cat", "dog"], data=tmp_path, photos=False)
    assert [len(a.boxes) for a in found] == [1, 2]
    assert len(parsed) == 1


def test_problems_of_parsing_are_told_to_each_who_asks(tmp_path):
    coco_set(tmp_path)
    source = datasets.open("coco:set.json", tmp_path)
    asked = [Problems(), Problems()]
    for problems in asked:
        assert len(source.annotations(problems=problems)) == 1
    assert asked[0].found == asked[1].found
    assert [p.kind for p in asked[0].found] == [
        "object that cannot be read",
        "image listed but absent",
        "box without area",
    ]
    alone = Problems()
    assert len(source.annotations(photos=False, problems=alone)) == 2
    assert alone.found == [asked[0].found[0], asked[0].found[2]]
    assert len(source.annotations()) == 1  # nobody needs to ask


def test_problems_before_a_fatal_one_are_told(tmp_path):
    class Broken(datasets.DataSet):
        def __init__(self, root, split):
            pass

        def annotations(self, *, photos=True, problems=None):
            problems.add("malformed line", "list.txt:3", "expected 4 numbers")
            raise ValueError("the rest is damaged")
            yield

    registry.DATASETS.register("broken", datasets.Format(Broken))
    try:
        problems = Problems()
        with pytest.raises(ValueError, match="damaged"):
            datasets.open("broken:", tmp_path).annotations(problems=problems)
        assert dict(problems.counts) == {"malformed line": 1}
    finally:
        registry.DATASETS.unregister("broken")


@pytest.mark.slow
def test_what_coco_keeps_is_no_more_than_its_annotations(tmp_path):
    """Arrays of annotations are views of those that are kept: nothing is there twice."""
    count = 50_000
    item = {"image_id": 9, "category_id": 4, "bbox": [1, 2, 3, 4]}
    coco_set(tmp_path, annotations=[item] * count)
    coco = Coco(tmp_path, "set")
    last = list(coco.annotations(photos=False))[2]
    for array in (last.boxes, last.classes):
        assert len(array) == count
        assert not array.flags.owndata
        assert not array.flags.writeable
    gc.collect()
    kept = sum(
        sys.getsizeof(held)
        for held in gc.get_referents(*vars(coco).values())
        if not isinstance(held, type)
    )
    arrays = sum(column.nbytes for column in coco._objects)
    assert arrays == count * (8 + 32 + 4 + 1 + 8) + 8 * 3
    assert kept < arrays + 10_000


def test_annotations_of_a_source_are_a_list_of_ones_own(tmp_path):
    source = datasets.open("synthetic:#0-3")
    source.annotations().clear()
    assert len(source.annotations()) == 3
    assert repr(source) == "Source('synthetic:#0-3')"
    assert datasets.open(source) is source


def test_sources_may_be_texts_or_opened_one_or_several():
    one = datasets.open("synthetic:#0-2")
    assert len(datasets.load(one, ["object"])) == 2
    assert len(datasets.load("synthetic:#0-2")) == 2
    assert len(datasets.load([one, "synthetic:#2-5"], ["object"])) == 5


def test_a_format_is_one_class_and_one_line_in_the_registry(tmp_path):
    class Dots(datasets.DataSet):
        def __init__(self, root, split):
            self.rows = [line.split() for line in (root / f"{split}.txt").read_text().splitlines()]

        def annotations(self, *, photos=True, problems=None):
            for name, *box in self.rows:
                yield Annotation(name, b"", np.array(box, float))

    (tmp_path / "some.txt").write_text("a 1 2 3 4\nb 5 6 7 8\n")
    registry.DATASETS.register("dots", datasets.Format(Dots))
    try:
        source = datasets.open("dots:#some", tmp_path)
        assert [a.boxes[0, 0] for a in source.annotations()] == [1, 5]
        assert source.class_names() is None
        assert source.ids() is None
        assert "dots" not in datasets.writable()
    finally:
        registry.DATASETS.unregister("dots")


def test_a_source_is_written_so_that_it_opens_from_another_folder(tmp_path, monkeypatch):
    (tmp_path / "mine" / "photos").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    source = datasets.open("negatives:photos#train", "mine")
    assert source.text_below("mine") == source.text_below(tmp_path / "mine") == source.text
    assert source.text_below(".") == f"negatives:{tmp_path / 'mine' / 'photos'}#train"
    assert datasets.open(source.text_below("gone"), "gone").root == source.root.resolve()
    assert datasets.open("synthetic:#0-3", "nowhere").text_below(".") == "synthetic:#0-3"


def test_data_that_were_given_in_python_are_asked_for_again():
    with pytest.raises(ValueError, match=r"data given in Python\. Give train= and validation="):
        datasets.open("5 annotations given in Python")


@pytest.mark.parametrize("text", ["coco:gs://bucket/a.json", "tfrecord:s3://bucket/shards#train"])
def test_a_url_is_no_path(text):
    with pytest.raises(
        ValueError, match=r"expected a path\. Received: a URL\. Only training reads"
    ):
        datasets.open(text)
