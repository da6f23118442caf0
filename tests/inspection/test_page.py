import dataclasses
import html.parser
import json
import re
import subprocess
import sys

import cv2
import numpy as np
import pytest

import unitbox_tf
from tests.helpers.data_sets import photo
from unitbox_tf.datasets import synthetic
from unitbox_tf.inspection import page, pictures
from unitbox_tf.presets import PRESETS

FACES = PRESETS["faces"]
SMALL = dataclasses.replace(FACES, data=dataclasses.replace(FACES.data, image_size=64))
HOSTILE = "<img src=x onerror=alert(1)>\"'&\x1b</style><script>alert(2)</script>"


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """The colour of padding is all that is needed of the backbone."""
    monkeypatch.setattr(pictures, "_padding", lambda config: (10.0, 20.0, 30.0))


class Tags(html.parser.HTMLParser):
    """Collects the tags of a page, with their attributes, and its text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.texts = [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, text):
        self.texts.append(text)


@pytest.fixture
def written(tmp_path):
    """A page of images with hostile names and classes, duplicates and problems."""
    name = "<b>'\"&.png"
    for number, file in enumerate([name, "b.png", "black.png"]):
        photo(tmp_path / "train" / file, synthetic.draw(number).image)
    photo(tmp_path / "val" / "again.png", synthetic.draw(0).image)
    photo(tmp_path / "train" / "black.png", cv2.imencode(".png", np.zeros((64, 64)))[1].tobytes())
    photo(tmp_path / "train" / "<i>.png", b"no image")
    files = [name, "b.png", "black.png", "<i>.png", "<u>gone.png"]
    content = {
        "images": [{"id": number, "file_name": file} for number, file in enumerate(files)],
        "annotations": [
            {"id": k, "image_id": k % 2, "category_id": 1 + k, "bbox": [9 * k, 5, 30, 40]}
            for k in range(2)
        ],
        "categories": [{"id": 1, "name": HOSTILE}, {"id": 2, "name": "dog"}],
    }
    (tmp_path / "train" / "all.json").write_text(json.dumps(content))
    found = unitbox_tf.inspect(
        "coco:train",
        validation="negatives:val",
        config=SMALL,
        data=tmp_path,
        output=tmp_path / "look",
    )
    return found, tmp_path / "look"


def test_the_folder_has_the_page_the_pictures_the_facts_and_the_problems(written):
    found, folder = written
    assert {path.name for path in folder.iterdir()} == {
        "index.html",
        "annotated.png",
        "batch.png",
        "targets.png",
        "facts.json",
        "problems.txt",
    }
    facts = json.loads((folder / "facts.json").read_text("utf-8"))
    assert facts == json.loads(json.dumps(found.to_dict()))
    assert "image that cannot be decoded" in (folder / "problems.txt").read_text("utf-8")
    for path in folder.glob("*.png"):
        assert cv2.imread(str(path)) is not None


def test_the_page_needs_nothing_else_and_names_do_nothing_on_it(written):
    _, folder = written
    text = (folder / "index.html").read_text("utf-8")
    parsed = Tags(text)
    known = {"html", "head", "meta", "title", "style", "body", "h1", "h2", "h3", "p", "section"}
    known |= {"table", "tr", "td", "ul", "li", "code", "pre", "figure", "img", "figcaption", "span"}
    assert {tag for tag, _ in parsed.tags} <= known
    for tag, attributes in parsed.tags:
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "href"):
            if name in attributes:
                assert tag == "img"
                assert re.fullmatch(r"data:image/(png|jpeg);base64,[\w+/=]+", attributes[name])
    shown = "".join(parsed.texts)
    assert HOSTILE.replace("\x1b", r"\x1b") in shown
    assert "<b>'\"&.png" in shown
    assert "<u>gone.png" in shown
    policy = [a["content"] for tag, a in parsed.tags if a.get("http-equiv")]
    assert policy == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]
    assert "\x1b" not in text


def test_the_page_says_what_was_found(written):
    found, folder = written
    shown = "".join(Tags((folder / "index.html").read_text("utf-8")).texts)
    for text in (
        "unitbox fit would refuse this",
        "1 of 1 validation images are among the training images",
        "1 images have one colour",
        found.options,
        "1 x image that cannot be decoded",
        "A batch of training, and its targets",
    ):
        assert text in shown


def test_a_folder_with_files_in_it_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match="expected a new or empty folder"):
        unitbox_tf.inspect("synthetic:#0-2", output=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_without_any_image_that_can_be_decoded_there_are_facts_alone(tmp_path):
    photo(tmp_path / "broken" / "a.png", b"no image")
    unitbox_tf.inspect("negatives:broken", data=tmp_path, output=tmp_path / "look")
    names = {path.name for path in (tmp_path / "look").iterdir()}
    assert names == {"index.html", "facts.json", "problems.txt"}


def test_long_lists_are_cut(written):
    found, _ = written
    for number in range(300):
        found.problems.add("kind", f"place{number}", "message")
    text = page.page(found, [], [])
    assert "and 103 more, in problems.txt" in text
    assert "place299" not in text


def test_facts_need_no_tensorflow():
    code = (
        "import sys, unitbox_tf;"
        "unitbox_tf.inspect('synthetic:#0-2').table();"
        "assert 'tensorflow' not in sys.modules and 'keras' not in sys.modules"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
