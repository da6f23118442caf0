"""Images are found by names that other systems write, and nothing outside the data set is."""

import unicodedata
from pathlib import Path

import pytest

from tests.helpers.data_sets import photo, where
from unitbox_tf.datasets import checks, names

CAFE = "caf\u00e9.jpg"


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("a.jpg", "images/a.jpg"),
        ("./a.jpg", "images/a.jpg"),
        ("images/a.jpg", "images/a.jpg"),
        ("images\\a.jpg", "images/a.jpg"),
        ("sub\\b c.jpg", "images/sub/b c.jpg"),
        ("sub/b%20c.jpg", "images/sub/b c.jpg"),
        ("images%5Csub%5Cb%20c.jpg", "images/sub/b c.jpg"),
        ("../images/a.jpg", "images/a.jpg"),
        ("A.JPG", "images/a.jpg"),
        ("Images/SUB/b c.JPG", "images/sub/b c.jpg"),
        ("100%.jpg", "images/100%.jpg"),
        ("same.png", "images/same.png"),
        ("same.JPG", "images/same.jpg"),
        ("Upper.jpg", "images/Upper.jpg"),
        ("upper.JPG", None),  # Upper.jpg, or UPPER.jpg?
        ("b c.jpg", None),
        ("other/a.jpg", None),
        ("a.png", None),
        ("..", None),
        (".", None),
        ("", None),
        ("a.jpg\0", None),
        ("a" * 5000, None),
        ("../outside.jpg", None),
        ("..%2Foutside.jpg", None),
        ("/etc/passwd", None),
    ],
)
def test_a_name_finds_the_file_that_it_means(tmp_path, name, file):
    root = tmp_path / "set"
    for each in ("a", "sub/b c", "100%", "same", "Upper", "UPPER"):
        photo(root / f"images/{each}.jpg")
    photo(root / "images/same.png")
    photo(tmp_path / "outside.jpg")
    found = names.Names([root / "images", root]).find(name)
    assert found == (None if file is None else str(root / file))


@pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC")])
def test_accents_may_be_letters_of_their_own(tmp_path, forms):
    there, listed = (unicodedata.normalize(form, CAFE) for form in forms)
    photo(tmp_path / there)
    assert names.Names([tmp_path]).find(listed) == str(tmp_path / there)


def test_absolute_paths_in_the_set_are_found_also_through_links(tmp_path):
    photo(tmp_path / "disk/images/a.jpg")
    (tmp_path / "set").symlink_to(tmp_path / "disk")
    for start in ("set", "disk"):
        found = names.Names([tmp_path / "set/images"]).find(f"{tmp_path}/{start}/images/a.jpg")
        assert found == str(tmp_path / "set/images/a.jpg")


@pytest.mark.parametrize(
    "name",
    [
        "/elsewhere/set/images/a.jpg",
        "C:\\Users\\me\\set\\images\\a.jpg",
        "https://host/data/a.jpg",
        "/data/upload/1/a.jpg",
        "../../label-studio/data/..%5C..%5Cimages%5Ca.jpg",
        "upload/3a19c1ff-a.jpg",
        "../elsewhere/A.JPG",
    ],
)
def test_the_end_of_a_path_of_another_machine_is_understood_and_reported(tmp_path, problems, name):
    photo(tmp_path / "images/a.jpg")
    found = checks.Photos(tmp_path / "images", root=tmp_path, problems=problems)
    assert found.find_all([(name, "x.json: 1")]) == [tmp_path / "images/a.jpg"]
    assert where(problems) == [(checks.ELSEWHERE, "x.json: 1")]
    assert "is not in the data set" in str(problems.found[0])


def test_the_longest_end_of_a_path_decides_and_one_report_is_enough(tmp_path, problems):
    for split in ("train", "val"):
        for number in range(3):
            photo(tmp_path / split / f"{number}.jpg")
    listed = [(f"/elsewhere/{s}/{n}.jpg", f"{s} {n}") for s in ("val", "train") for n in range(3)]
    found = checks.Photos(tmp_path, problems=problems).find_all(listed)
    assert found == [tmp_path / s / f"{n}.jpg" for s in ("val", "train") for n in range(3)]
    assert where(problems) == [(checks.ELSEWHERE, "val 0")]
    assert "begin with '/elsewhere'" in str(problems.found[0])


def test_a_file_that_two_names_may_mean_is_taken_for_neither(tmp_path, problems):
    photo(tmp_path / "1.jpg")
    photo(tmp_path / "2.jpg")
    listed = [("/cam/a/1.jpg", "a"), ("/cam/b/1.jpg", "b"), ("/cam/a/2.jpg", "c")]
    found = checks.Photos(tmp_path, problems=problems).find_all(listed)
    assert found == [None, None, tmp_path / "2.jpg"]
    assert where(problems) == [(checks.ABSENT, "a"), (checks.ABSENT, "b"), (checks.ELSEWHERE, "c")]
    assert "1.jpg may also be ['/cam/b/1.jpg']" in str(problems.found[0])


def test_one_name_at_a_time_is_not_found_by_its_end(tmp_path, problems):
    photo(tmp_path / "a.jpg")
    assert checks.Photos(tmp_path, problems=problems).find("/elsewhere/a.jpg", "here") is None
    assert where(problems) == [(checks.OUTSIDE, "here")]


def test_absent_images_have_the_place_where_they_should_be(tmp_path, problems):
    (tmp_path / "images").mkdir()
    found = checks.Photos(tmp_path / "images", root=tmp_path, needed=False, problems=problems)
    places = [found.find(name, name) for name in ("a.jpg", "images/b.jpg", "sub\\c.jpg")]
    assert [found.below(place) for place in places] == ["a.jpg", "b.jpg", "sub/c.jpg"]
    assert found.find("../d.jpg", "d") is None
    assert found.find("..%2Fe.jpg", "e") == tmp_path / "images/..%2Fe.jpg"
    assert where(problems) == [(checks.OUTSIDE, "d")]


def test_a_link_within_the_set_is_no_way_out(tmp_path, problems):
    photo(tmp_path / "set/data/a.jpg")
    photo(tmp_path / "other/b.jpg")
    (tmp_path / "set/images").mkdir()
    (tmp_path / "set/images/a.jpg").symlink_to("../data/a.jpg")
    (tmp_path / "set/images/b.jpg").symlink_to(tmp_path / "other/b.jpg")
    found = checks.Photos(tmp_path / "set/images", root=tmp_path / "set", problems=problems)
    assert found.find("a.jpg", "a") == Path(tmp_path / "set/images/a.jpg")
    assert found.find("b.jpg", "b") is None
    assert where(problems) == [(checks.OUTSIDE, "b")]
