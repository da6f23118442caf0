from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unitbox_tf import inputs


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Images, and what is none, in a folder that is the working directory."""
    for name in ("b.jpg", "a.PNG", "notes.txt", "clip.mp4", "deep/c.jpeg", "deep/d [1].jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names(images):
    return [picture.name for picture in inputs.find(images)]


def test_a_folder_stands_for_the_photos_in_it_and_below(folder):
    assert names("deep") == ["deep/c.jpeg", "deep/d [1].jpg"]
    expected = ["a.PNG", "b.jpg", "deep/c.jpeg", "deep/d [1].jpg"]
    assert names(folder) == [(folder / name).as_posix() for name in expected]


def test_a_pattern_stands_for_what_matches_it_as_in_a_shell(folder):
    assert names("*.jpg") == ["b.jpg"]
    assert names(Path("*/*.j*")) == ["deep/c.jpeg", "deep/d [1].jpg"]
    assert names("**/*.jpg") == ["b.jpg", "deep/d [1].jpg"]
    assert names("de*") == names("deep")  # a folder that matches
    assert names("dee**/**") == names("deep")  # none twice, though the folder matches as well
    assert names("c*") == ["clip.mp4"]


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(folder):
    assert names("deep/d [1].jpg") == ["deep/d [1].jpg"]


def test_lists_may_be_mixed_and_all_have_names(folder):
    array = np.zeros((2, 3, 3), np.uint8)
    unnamed = Image.new("L", (3, 2))
    Image.new("L", (3, 2)).save("opened.png")
    opened = Image.open("opened.png")
    found = list(inputs.find([array, "deep", b"encoded", Path("b.jpg"), opened, unnamed]))
    assert [picture.name for picture in found] == [
        "image 0",
        "deep/c.jpeg",
        "deep/d [1].jpg",
        "image 2",
        "b.jpg",
        "opened.png",
        "image 5",
    ]
    assert found[0].image is array
    assert found[3].image == b"encoded"
    assert found[4].image == Path("b.jpg")


def test_arrays_are_one_image_or_many():
    assert names(np.zeros((2, 3, 3), np.uint8)) == ["image 0"]
    assert names(np.zeros((4, 2, 3, 3), np.uint8)) == [f"image {n}" for n in range(4)]
    assert names(b"encoded") == ["image 0"]


def test_an_iterator_is_asked_for_no_more_than_is_used(folder):
    asked = []

    def endless():
        while True:
            asked.append(1)
            yield "b.jpg"

    found = iter(inputs.find(endless()))
    assert not asked
    assert [next(found).name for _ in range(3)] == ["b.jpg"] * 3
    assert len(asked) == 3


def test_a_file_that_is_absent_is_left_to_who_reads_it(folder):
    assert names(["gone.jpg"]) == ["gone.jpg"]


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ("http://example.org/a.jpg", "nothing is downloaded. Received: http://example.org/a.jpg"),
        (["b.jpg", Path("https://example.org/*.jpg")], "nothing is downloaded"),
        ("s3://bucket/a.jpg", "nothing is downloaded"),
        ("empty", "empty: no JPEG, PNG, BMP, GIF, TIFF or WebP file in this folder"),
        ("*.bmp", r"\*\.bmp: no file matches this pattern"),
        (3, "Expected a path, an encoded image, a PIL image or .* Received: int"),
        (["b.jpg", None], "Received: NoneType"),
        ([["b.jpg"]], "Received: list"),
    ],
)
def test_what_is_no_picture_is_refused_at_once(folder, images, message):
    with pytest.raises(ValueError, match=message):
        inputs.find(images)


def test_a_file_may_be_named_like_an_address(folder):
    (folder / "http:").mkdir()
    (folder / "http:" / "b.jpg").touch()
    assert names("http:/b.jpg") == ["http:/b.jpg"]


@pytest.mark.parametrize("image", ["deep", "*.jpg", "clip.mp4", "http://example.org/a.jpg", 0])
def test_one_photo_is_none_of_what_stands_for_many(folder, image):
    with pytest.raises(ValueError, match=r"xpected .*eceived"):
        inputs.one_photo(image)
    assert inputs.one_photo("deep/d [1].jpg") == Path("deep/d [1].jpg")
