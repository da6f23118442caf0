"""Pascal VOC: objects of other tools, names of images, and no image without one of its objects."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.data_sets import photo, png, read, where
from unitbox_tf.datasets import checks
from unitbox_tf.problems import Problems


def bndbox(x0=11, y0=11, x1=30, y1=30):
    return f"<bndbox><xmin>{x0}</xmin><ymin>{y0}</ymin><xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox>"


def item(content=None, name="cat"):
    return f"<object><name>{name}</name>{bndbox() if content is None else content}</object>"


def one(root, objects, head="<filename>a.jpg</filename>", name="a"):
    photo(root / f"{name}.xml", f"<annotation>{head}{objects}</annotation>".encode())
    photo(root / "a.jpg", png(48, 64))


POINTS = [(11, 12), (30, 11), (20, 30)]
POLYGONS = [
    "".join(f"<x{n}>{x}</x{n}><y{n}>{y}</y{n}>" for n, (x, y) in enumerate(POINTS, 1)),
    "".join(f"<pt><x>{x}</x><y>{y}</y></pt>" for x, y in POINTS),
]


@pytest.mark.parametrize(
    "content",
    [
        bndbox(),
        bndbox(30, 30, 11, 11),
        bndbox(30, 11, 11, 30),
        bndbox("11.0", " 11 ", "30,0", "3e1"),
        bndbox() + bndbox(11.0),
        bndbox() + f"<polygon>{POLYGONS[0]}</polygon>",
        "<BndBox><xMin>11</xMin><yMin>11</yMin><xMax>30</xMax><yMax>30</yMax></BndBox>",
        *(f"<polygon>{polygon}</polygon>" for polygon in POLYGONS),
        "<robndbox><cx>20.5</cx><cy>20.5</cy><w>19</w><h>19</h><angle>0</angle></robndbox>",
        f"<part><name>head</name>{bndbox(1, 1, 5, 5)}</part>{bndbox()}",
        bndbox() + "<difficult>False</difficult><truncated>1</truncated>",
    ],
)
def test_objects_of_other_tools_are_read(tmp_path, problems, content):
    one(tmp_path, item(content))
    (annotation,) = read("voc", tmp_path, "", problems)
    np.testing.assert_allclose(annotation.boxes, [[10, 10, 30, 30]])
    assert annotation.ignore.tolist() == [False]
    assert not problems.found


def test_a_rotated_box_has_the_box_of_its_corners(tmp_path, problems):
    angle = "<angle>0.7853981633974483</angle>"
    one(tmp_path, item(f"<robndbox><cx>21</cx><cy>21</cy><w>10</w><h>10</h>{angle}</robndbox>"))
    (annotation,) = read("voc", tmp_path, "", problems)
    half = 5 * math.sqrt(2)
    expected = [20 - half, 20 - half, 21 + half, 21 + half]  # the first corner counts from 1
    np.testing.assert_allclose(annotation.boxes, [expected])


@pytest.mark.parametrize(
    "start", ['<annotation xmlns="http://x.y/z">', '<Annotation xmlns:p="http://x.y/z" p:a="1">']
)
def test_namespaces_and_capital_letters_are_no_harm(tmp_path, problems, start):
    photo(tmp_path / "a.xml", f"{start}<objects>{item()}</objects></{start[1:11]}>".encode())
    photo(tmp_path / "a.jpg")
    (annotation,) = read("voc", tmp_path, "", problems)
    assert annotation.boxes.tolist() == [[10, 10, 30, 30]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "expected a bndbox, polygon or robndbox, received none"),
        (bndbox(1, 1, 5, 5) + bndbox(), "expected one bndbox, received"),
        (bndbox("one"), r"expected 4 numbers in bndbox, received \['one', '11', '30', '30'\]"),
        (bndbox(""), "expected one xmin"),
        ("<bndbox><xmin>1</xmin></bndbox>", "expected one ymin"),
        (bndbox("nan"), "expected 4 numbers"),
        (bndbox("1,234.5"), "expected 4 numbers"),
        ("<polygon><x1>1</x1><y1>2</y1></polygon>", "x and y of 3 or more points in polygon"),
        ("<name>dog</name>" + bndbox(), "expected one name"),
        (
            "<robndbox><cx>2</cx><cy>2</cy><w>1</w><h>1</h><angle>45</angle></robndbox>",
            "expected an angle in radians",
        ),
    ],
)
def test_objects_that_cannot_be_read_leave_their_image_out(tmp_path, problems, content, message):
    one(tmp_path, item() + item(content))
    one(tmp_path, "", name="b", head="<filename>b.jpg</filename>")
    photo(tmp_path / "b.jpg")
    assert [a.name for a in read("voc", tmp_path, "", problems)] == ["b.jpg"]
    assert where(problems) == [(checks.UNREADABLE, "a.xml: object 2")]
    with pytest.raises(ValueError, match=f"{message}.*: the image is left out$"):
        raise ValueError(problems.found[0])


@pytest.mark.parametrize("name", ["", "  "])
def test_objects_without_a_name_leave_their_image_out(tmp_path, problems, name):
    one(tmp_path, item(name=name))
    assert read("voc", tmp_path, "", problems) == []
    assert where(problems) == [(checks.UNREADABLE, "a.xml: object 1")]


def test_corners_from_0_are_cut_and_reported_once(tmp_path, problems):
    one(tmp_path, item(bndbox(0, 5, 20, 20)) + item(bndbox(5, 0, 20, 20)))
    (annotation,) = read("voc", tmp_path, "", problems)
    assert annotation.boxes.tolist() == [[0, 4, 20, 20], [4, 0, 20, 20]]
    assert where(problems) == [("corners from 0", tmp_path.name)]


@pytest.mark.parametrize("size", ["<size><width>64.0</width><height>48</height></size>", ""])
def test_a_size_may_be_missing_or_have_a_point(tmp_path, problems, size):
    one(tmp_path, item(), head=size)
    (annotation,) = read("voc", tmp_path, "", problems)
    assert annotation.size == ((48, 64) if size else None)
    assert not problems.found


@pytest.mark.parametrize(
    ("xml", "stated", "files", "taken"),
    [
        ("a", "a.png", ["a.jpg", "a.png"], "a.png"),
        ("a", "a.jpg", ["a.jpg", "a.png"], "a.jpg"),
        ("a", "a", ["a.png"], "a.png"),
        ("a", "b.jpg", ["a.jpg"], "a.jpg"),
        ("a", "a.jpeg", ["a.png"], "a.png"),
        ("a", "b.jpeg", ["b.png"], "b.png"),
        ("a", "C:\\work\\b.jpg", ["b.jpg"], "b.jpg"),
        ("a", "/elsewhere/b.jpg", ["b.jpg"], "b.jpg"),
        ("a", "sub/b.jpg", ["sub/b.jpg", "b.jpg"], "sub/b.jpg"),
        ("sub/a", "b.jpg", ["sub/b.jpg", "b.jpg"], "sub/b.jpg"),
        ("a", "", ["a.JPG"], "a.JPG"),
        ("a", "b.jpg", ["some/b.jpg"], "some/b.jpg"),
        ("xmls/a", "a.jpg", ["a.jpg"], "a.jpg"),
    ],
)
def test_the_image_is_the_one_that_is_meant(tmp_path, problems, xml, stated, files, taken):
    for name in files:
        photo(tmp_path / "JPEGImages" / name)
    head = f"<folder>some</folder><filename>{stated}</filename>"
    text = f"<annotation>{head}{item()}</annotation>"
    photo(tmp_path / f"Annotations/{xml}.xml", text.encode())
    (annotation,) = read("voc", tmp_path, "", problems)
    assert annotation.name == taken
    assert annotation.image == tmp_path / "JPEGImages" / taken
    assert not problems.found


def test_a_file_name_of_another_image_is_reported(tmp_path, problems):
    photo(tmp_path / "b.jpg")
    one(tmp_path, item(), head="<filename>b.jpg</filename>")
    (annotation,) = read("voc", tmp_path, "", problems)
    assert annotation.name == "a.jpg"
    assert where(problems) == [("file name of another image", "a.xml")]


def test_two_xml_files_of_one_image_are_put_together(tmp_path, problems):
    one(tmp_path, item() + item(name="dog"))
    one(tmp_path, item() + item(bndbox(1, 1, 5, 5)), name="a_more")
    (annotation,) = read("voc", tmp_path, "", problems)
    assert annotation.boxes.tolist() == [[10, 10, 30, 30], [10, 10, 30, 30], [0, 0, 5, 5]]
    assert annotation.classes.tolist() == [0, 1, 0]
    one(tmp_path, item(""), name="a_more")
    assert read("voc", tmp_path, "", problems) == []


def test_xml_of_another_format_is_named(tmp_path, problems):
    photo(tmp_path / "annotations.xml", b"<annotations><image><box/></image></annotations>")
    assert read("voc", tmp_path, "", problems) == []
    assert where(problems) == [("malformed xml", "annotations.xml")]


@pytest.mark.parametrize("line", ["a", "a.jpg", "a.xml", "a -1", "a  1", ".\\a"])
def test_lists_may_name_files_and_mark_classes(tmp_path, problems, line):
    one(tmp_path, item())
    photo(tmp_path / "ImageSets/Main/train.txt", f"{line}\n".encode())
    assert [a.name for a in read("voc", tmp_path, "train", problems)] == ["a.jpg"]
    assert not problems.found


damages = st.sampled_from(
    ["", "x", "nan", "1e999", "-5", "1,5", "<a/>", "<xmin>3</xmin>", "cow", "1 2", "<!-- -->", "0"]
)


@given(counts=st.lists(st.integers(0, 3), min_size=1, max_size=3), data=st.data())
def test_no_image_is_used_without_one_of_its_objects(counts, data, tmp_path_factory):
    root = tmp_path_factory.mktemp("voc")
    photo(root / "labels.txt", b"cat\n")
    for n, count in enumerate(counts):
        parts = ["<annotation>", *[item()] * count, "</annotation>"]
        if count and data.draw(st.booleans()):
            texts = ["11", "30", "cat", bndbox()]
            damaged = item().replace(data.draw(st.sampled_from(texts)), data.draw(damages), 1)
            parts[data.draw(st.integers(1, count))] = damaged
        photo(root / f"{n}.xml", "".join(parts).encode())
        photo(root / f"{n}.jpg")
    problems = Problems(logged=False)
    used = {a.name: len(a.boxes) for a in read("voc", root, "", problems)}
    left_out = {
        p.where.rsplit("/", 1)[-1].split(".")[0] + ".jpg"
        for p in problems.found
        if p.kind == checks.UNREADABLE
    }
    assert used.keys() | left_out == {f"{n}.jpg" for n in range(len(counts))}
    assert not used.keys() & left_out
    assert all(counts[int(name[0])] == count for name, count in used.items())


@pytest.mark.parametrize("element", ["item", "obj", "annotation"])
def test_boxes_outside_objects_leave_their_image_out(tmp_path, problems, element):
    one(tmp_path, item() + f"<{element}><name>cat</name>{bndbox()}</{element}>")
    assert not read("voc", tmp_path, "", problems)
    assert where(problems) == [(checks.UNREADABLE, "a.xml")]
    assert "received 1 without it: the image is left out" in str(problems.found[0])


def test_many_swapped_corners_are_reported_as_they_may_be_sides(tmp_path, problems):
    one(tmp_path, item(bndbox(30, 30, 20, 10)) * 4 + item())
    read("voc", tmp_path, "", problems)
    assert not problems.found
    one(tmp_path, item(bndbox(30, 30, 20, 10)) * 5 + item())
    read("voc", tmp_path, "", problems)
    assert [problem.kind for problem in problems.found] == [checks.SWAPPED]
    assert "of 5 of 6 boxes" in str(problems.found[0])
