"""Data that are broken or in bad faith: a named error or a counted problem, and nothing read outside the root."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.data_sets import photo, png, read, where
from unitbox_tf import datasets, limits, registry
from unitbox_tf.datasets import checks, json_files
from unitbox_tf.problems import Problems
from unitbox_tf.records import Annotation

OUTSIDE = "path outside the data set"


def wider(root, text, *names):
    for name in names:
        photo(root / "WIDER_val/images" / name)
    path = root / "wider_face_val_bbx_gt.txt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize(
    ("row", "number_of_boxes"),
    [
        ("1 2 3 4", 1),
        ("1 2 3", 0),
        ("1 2 3 4 5", 0),
        ("1 2 3 four", 0),
        ("1 2 3 nan", 0),
        ("1 2 3 1e999", 0),
        ("1 2 3 1_0", 0),
        ("1 2 3 4 0 0 0 0 0 0.5", 0),
        ("1 2 3 4 0 0 0 0 0 1e12", 0),
    ],
)
def test_lines_that_are_no_object_are_reported_with_their_number(
    tmp_path, problems, row, number_of_boxes
):
    wider(tmp_path, f"a.jpg\n2\n5 5 5 5 0 0 0 0 0 0\n{row}\n", "a.jpg")
    found = read("wider_face", tmp_path, "val", problems)
    assert [len(annotation.boxes) for annotation in found] == [2][:number_of_boxes]
    if not number_of_boxes:
        assert where(problems) == [(checks.UNREADABLE, "wider_face_val_bbx_gt.txt:4")]
        assert str(problems.found[0]).endswith(": the image is left out")


def test_a_photo_with_another_number_of_lines_than_stated_takes_none_from_the_next(
    tmp_path, problems
):
    row = "5 5 5 5 0 0 0 0 0 0\n"
    names = [f"{letter}.jpg" for letter in "abcd"]
    wider(tmp_path, f"a.jpg\n3\n{row}b.jpg\n1\n{row}{row}{row}c.jpg\n1\n{row}d.jpg\n", *names)
    found = read("wider_face", tmp_path, "val", problems)
    assert [(a.name, len(a.boxes)) for a in found] == [("c.jpg", 1)]
    assert where(problems) == [
        ("image ends early", "wider_face_val_bbx_gt.txt:2"),
        ("image ends late", "wider_face_val_bbx_gt.txt:7"),
        ("malformed line", "wider_face_val_bbx_gt.txt:13"),
    ]
    assert "expected 3 lines of objects, the next image follows 1" in str(problems.found[0])
    assert "expected 1 lines of objects, received more: '5 5 5 5" in str(problems.found[1])
    assert all(str(problem).endswith(": the image is left out") for problem in problems.found)


@pytest.mark.parametrize("count", ["", "-1", "1.5", "²", "9" * 5000])
def test_counts_that_are_none_lose_their_photo_alone(tmp_path, problems, count):
    wider(tmp_path, f"a.jpg\n{count}\n1 2 3 4\nb.jpg\n0\n0 0 0 0\n", "a.jpg", "b.jpg")
    assert [a.name for a in read("wider_face", tmp_path, "val", problems)] == ["b.jpg"]
    assert where(problems)[0] == ("malformed line", "wider_face_val_bbx_gt.txt:2")


def test_attributes_of_some_faces_only_are_reported_and_invalid_is_heeded(tmp_path, problems):
    wider(tmp_path, "a.jpg\n2\n1 2 3 4 0 0 0 1 0 0\n5 6 7 8\n", "a.jpg")
    (annotation,) = read("wider_face", tmp_path, "val", problems)
    assert annotation.attributes is None
    assert annotation.ignore.tolist() == [True, False]
    assert where(problems) == [("attributes incomplete", "wider_face_val_bbx_gt.txt:1")]


def test_lines_that_are_not_utf8_are_named_with_their_byte(tmp_path, problems):
    text = "ä.jpg\n1\n1 2 3 4\n".encode() + b"caf\xe9.jpg\n1\n1 2 3 4\n" + b"b.jpg\n1\n1 2 \xff 4\n"
    wider(tmp_path, text, "ä.jpg", "b.jpg")
    assert [a.name for a in read("wider_face", tmp_path, "val", problems)] == ["ä.jpg"]
    assert where(problems)[:2] == [
        ("wrong encoding", "wider_face_val_bbx_gt.txt:4"),
        ("wrong encoding", "wider_face_val_bbx_gt.txt:9"),
    ]
    assert "expected UTF-8, received 0xe9 as byte 4 of the line" in str(problems.found[0])


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-32", "utf-32-be"])
def test_other_encodings_are_named(tmp_path, problems, encoding):
    text = "\ufeffa.jpg\n0\n".encode(encoding)
    wider(tmp_path, text, "a.jpg")
    with pytest.raises(ValueError, match=r"gt\.txt: expected text in UTF-8, received UTF-16 or"):
        read("wider_face", tmp_path, "val", problems)


@pytest.mark.parametrize(
    ("begin", "end"), [(b"\xef\xbb\xbf", b"\n"), (b"", b"\r\n"), (b"", b"\r"), (b"\n\n", b"\n\n")]
)
def test_marks_of_editors_are_no_harm(tmp_path, problems, begin, end):
    lines = b"a.jpg\n1\n1 2 3 4\nb.jpg\n0\n0 0 0 0"
    text = begin + lines.replace(b"\n", end if end != b"\n\n" else b"\n") + end
    wider(tmp_path, text, "a.jpg", "b.jpg")
    assert [a.name for a in read("wider_face", tmp_path, "val", problems)] == ["a.jpg", "b.jpg"]
    assert not problems.found


NAMES_OUTSIDE = [
    "/etc/passwd.jpg",
    "../x.jpg",
    "a/../../x.jpg",
    "C:\\x.jpg",
    "..\\x.jpg",
    "\\\\server\\x.jpg",
]


@pytest.mark.parametrize("name", NAMES_OUTSIDE)
@pytest.mark.parametrize("photos", [True, False])
def test_names_that_leave_the_folder_are_refused_by_every_format(tmp_path, problems, name, photos):
    photo(tmp_path / "x.jpg", png(9, 9))
    for form in ("wider_face", "fddb", "coco", "voc", "yolo", "csv"):
        root = tmp_path / form
        (root / "images").mkdir(parents=True)
        if form == "wider_face":
            wider(root, f"{name}\n1\n1 2 3 4\n")
        elif form == "fddb":
            photo(root / "FDDB-folds/FDDB-fold-01-ellipseList.txt", f"{name}\n0\n".encode())
        elif form == "coco":
            image = {"id": 1, "file_name": name}
            content = {"images": [image], "annotations": [], "categories": []}
            photo(root / "x.json", json.dumps(content).encode())
        elif form == "voc":
            xml = f"<annotation><filename>{name}</filename></annotation>"
            photo(root / "Annotations/y.xml", xml.encode())
        elif form == "yolo":
            photo(root / "data.yaml", b"train: x.txt\nnames: [cat]\n")
            photo(root / "x.txt", f"{name}\n".encode())
        else:
            photo(root / "x.csv", f"image,x0,y0,x1,y1,class\n{name},1,2,3,4,cat\n".encode())
        split = {"fddb": "1", "wider_face": "val", "yolo": "train"}.get(form, "")
        assert list(read(form, root, split, problems, photos=photos)) == []
        assert problems.counts[OUTSIDE] == 1, form
        problems.counts.clear()


@pytest.mark.parametrize("name", ["a\x00.jpg", "a\x1b[2J.jpg", ".", "\ud800.jpg", ""])
def test_names_that_no_photo_has_are_refused(tmp_path, problems, name):
    content = {"images": [{"id": 1, "file_name": name}], "annotations": [], "categories": []}
    (tmp_path / "x.json").write_text(json.dumps(content))
    assert read("coco", tmp_path, "", problems, photos=False) == []
    assert problems.counts["unusable name"] == 1
    problems.save(tmp_path / "problems.txt")


def test_photos_beyond_a_link_are_refused_but_the_folder_may_be_one(tmp_path, problems):
    photo(tmp_path / "elsewhere/b.jpg")
    photo(tmp_path / "disk/a.jpg")
    images = tmp_path / "set/WIDER_val/images"
    images.parent.mkdir(parents=True)
    images.symlink_to(tmp_path / "disk")
    (images / "within.jpg").symlink_to("a.jpg")
    (images / "file.jpg").symlink_to(tmp_path / "elsewhere/b.jpg")
    (images / "folder").symlink_to(tmp_path / "elsewhere")
    text = "".join(f"{n}.jpg\n0\n" for n in ("a", "within", "file", "folder/b"))
    wider(tmp_path / "set", text)
    found = [a.name for a in read("wider_face", tmp_path / "set", "val", problems)]
    assert found == ["a.jpg", "within.jpg"]
    assert where(problems) == [
        (OUTSIDE, "wider_face_val_bbx_gt.txt:5"),
        (OUTSIDE, "wider_face_val_bbx_gt.txt:7"),
    ]


def test_a_photo_that_is_listed_twice_has_the_objects_of_both(tmp_path, problems):
    text = "a.jpg\n1\n1 2 3 4\nb.jpg\n0\n./a.jpg\n2\n5 6 7 8\n1 2 3 4\n"
    wider(tmp_path, text, "a.jpg", "b.jpg")
    first, other = read("wider_face", tmp_path, "val", problems)
    assert (first.name, other.name) == ("a.jpg", "b.jpg")
    assert first.boxes.tolist() == [[1, 2, 4, 6], [5, 6, 12, 14]]  # the same object counts once
    assert where(problems) == [("image listed twice", "wider_face_val_bbx_gt.txt:6")]
    assert "gt.txt:1 already: the objects of both are joined" in str(problems.found[0])


def test_a_photo_that_is_listed_twice_is_left_out_if_one_of_both_is_broken(tmp_path, problems):
    wider(tmp_path, "a.jpg\n1\n1 2 3 4\n./a.jpg\n1\n5 6 7 x\n", "a.jpg")
    assert read("wider_face", tmp_path, "val", problems) == []


BOMB = """<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">
<!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;"><!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;&b;&b;">]>
<annotation><filename>&c;</filename></annotation>"""
FILE = """<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]>
<annotation><filename>&a;</filename></annotation>"""


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
@pytest.mark.parametrize("xml", [BOMB, FILE])
def test_entities_of_xml_are_refused(tmp_path, problems, xml, encoding):
    photo(tmp_path / "a.jpg")
    (tmp_path / "a.xml").write_text(xml, encoding=encoding)
    assert read("voc", tmp_path, "", problems) == []
    assert where(problems) == [("malformed xml", "a.xml")]
    message = "expected no document type with entities: the image is left out"
    assert problems.found[0].message == message


def test_numbers_that_python_refuses_are_named_without_its_advice(tmp_path):
    path = tmp_path / "long.json"
    path.write_text("[" + "9" * 5000 + "]")
    message = r"long\.json: not valid JSON: Exceeds the limit \(\d+ digits\)[^;]*5000 digits$"
    with pytest.raises(ValueError, match=message):
        json_files.read(path)


def test_xml_beyond_a_link_and_of_great_length_is_not_read(tmp_path, problems, monkeypatch):
    monkeypatch.setattr(limits, "MAX_IMAGE_FILE_BYTES", 100)
    root = tmp_path / "set"
    photo(root / "long.xml", b"<annotation>" + b" " * 100 + b"</annotation>")
    photo(tmp_path / "secret.xml", b"<annotation/>")
    (root / "secret.xml").symlink_to(tmp_path / "secret.xml")
    assert read("voc", root, "", problems) == []
    assert where(problems) == [("malformed xml", "long.xml"), (OUTSIDE, "secret.xml")]
    assert "expected a file of at most 100 bytes" in str(problems.found[0])


def test_an_alias_bomb_of_yaml_is_refused_before_it_is_written_out(tmp_path, problems):
    (tmp_path / "images").mkdir()
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    for n in range(1, 12):
        lines.append(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]")
    (tmp_path / "data.yaml").write_text("\n".join([*lines, "train: images", "names: *a11"]))
    with pytest.raises(ValueError, match=r"data\.yaml:1: not valid YAML: expected no alias"):
        read("yolo", tmp_path, "train", problems)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b'{"images": [\n{"id": 1', r"x\.json:2: not valid JSON"),
        (b"[" * 100_000, r"x\.json: not valid JSON"),
        (b'{"images": [' + b"9" * 5000 + b"]}", r"x\.json: not valid JSON"),
        (b'{"images": "\xe9"}', r"x\.json:1: not valid JSON: .*0xe9"),
        (b"[]", r"x\.json: expected COCO's images, annotations and categories"),
        (b'{"images": 1, "annotations": 2, "categories": 3}', r"x\.json: expected COCO's images"),
        (
            b'{"images":[],"annotations":[],"categories":[{"id":1},{"id":[]}]}',
            "categories with ids",
        ),
        (b'{"images":[],"annotations":[],"categories":[7]}', "categories with ids"),
    ],
)
def test_json_that_is_none_or_not_of_coco_is_named(tmp_path, problems, text, message):
    (tmp_path / "x.json").write_bytes(text)
    with pytest.raises(ValueError, match=message):
        read("coco", tmp_path, "", problems)


MEASURE = """
import logging, resource, sys
from pathlib import Path
from unitbox_tf.datasets.coco import Coco
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
before = peak()
count = sum(len(a.boxes) for a in Coco(Path(sys.argv[1]), "").annotations(photos=False))
print(count, peak() - before)
"""


@pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="ru_maxrss is in KiB on Linux only"
)
@pytest.mark.parametrize(
    ("points", "most"),
    [
        (0, 5.0),  # bare boxes: the file is little more than numbers, and each becomes an object
        (40, 3.0),  # polygons, as COCO's own files have: they are never held
    ],
)
def test_a_large_json_takes_a_bounded_multiple_of_its_length(tmp_path, points, most):
    polygon = [[123.25 + 0.5 * n for n in range(2 * points)]] if points else []
    count = 20_000 if points else 120_000
    path = tmp_path / "x.json"
    with path.open("w") as file:
        images = [{"id": n, "file_name": f"{n}.jpg"} for n in range(1000)]
        file.write(
            f'{{"images": {json.dumps(images)}, "categories": [{{"id": 1}}], "annotations": ['
        )
        for n in range(count):
            item = {"id": n, "image_id": n % 1000, "category_id": 1, "segmentation": polygon}
            item |= {"bbox": [n + 0.5, 7.25, 30.125, 40.5], "area": 99.5, "iscrowd": 0}
            file.write((", " if n else "") + json.dumps(item))
        file.write("]}")
    result = subprocess.run(
        [sys.executable, "-c", MEASURE, str(path)], capture_output=True, text=True, check=True
    )
    found, peak = map(int, result.stdout.split())
    assert found == count
    assert peak < most * os.path.getsize(path) + 10e6


def test_folds_without_photos_are_whole(tmp_path, problems):
    text = "2002/a\n1\n30 20 0.5 100 50 1\n"
    photo(tmp_path / "FDDB-folds/FDDB-fold-03-ellipseList.txt", text.encode())
    assert read("fddb", tmp_path, "3", problems) == []
    (annotation,) = read("fddb", tmp_path, "3", problems, photos=False)
    assert annotation.name == "2002/a"
    assert annotation.image == tmp_path / "originalPics/2002/a.jpg"
    np.testing.assert_array_equal(annotation.ellipses, [[30, 20, 0.5, 100, 50]])


@pytest.fixture(scope="module")
def whole_sets(tmp_path_factory):
    """A small set in each format."""
    root = tmp_path_factory.mktemp("whole")
    boxes = [[1, 2, 3.5, 4], [5, 6, 17, 18]]
    source = [Annotation(f"p/{n}", png(20, 30), boxes[:n]) for n in range(3)]
    for form in datasets.writable():
        split = "1" if form == "fddb" else "train"
        registry.DATASETS[form].write(source, root / form, split, ["face"])
    return root


fragments = st.sampled_from(
    [
        b"",
        b"\0",
        b"\xff",
        b"\n",
        b"nan",
        b"-1",
        b"1e999",
        b"9" * 5000,
        b"/",
        b"../",
        b'"',
        b"<",
        b"{",
        b"[",
        b"&a;",
        b": ",
    ]
)


@pytest.mark.parametrize("form", datasets.writable())
@given(data=st.data())
def test_files_that_are_damaged_anywhere_are_read_or_named(form, data, whole_sets):
    """Whatever happens to a file: annotations that can be used, or a `ValueError` which names it."""
    root = whole_sets / form
    path = data.draw(
        st.sampled_from(sorted(p for p in root.rglob("*") if p.is_file() and p.suffix != ".png"))
    )
    whole = path.read_bytes()
    first = data.draw(st.integers(0, len(whole)))
    last = data.draw(st.integers(first, min(first + 9, len(whole))) | st.just(len(whole)))
    problems, message = Problems(), str(root)
    try:
        path.write_bytes(whole[:first] + data.draw(fragments) + whole[last:])
        split = "1" if form == "fddb" else "train"
        for photos in (True, False):
            for annotation in read(form, root, split, problems, photos=photos):
                assert np.isfinite(annotation.boxes).all()
                assert (annotation.classes >= 0).all()
                flat = (annotation.boxes[:, 2:] <= annotation.boxes[:, :2]).any(axis=1)
                assert annotation.ignore[flat].all()
                image = annotation.image.path if form == "tfrecord" else annotation.image
                assert image.resolve().is_relative_to(root.resolve())
    except ValueError as error:
        message = str(error)
    finally:
        path.write_bytes(whole)
    assert str(root) in message
