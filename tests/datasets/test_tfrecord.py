"""Shards hold annotations to the last bit, go on where they were interrupted, and name what is damaged."""

import dataclasses
import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from tests.helpers import data_sets
from tests.helpers.data_sets import photo, png, where
from tests.helpers.shards import NAMES, pictures, read, write
from unitbox_tf import cli, registry
from unitbox_tf.datasets import checks, synthetic, tfrecord
from unitbox_tf.files import Part
from unitbox_tf.presets import PRESETS
from unitbox_tf.problems import Problems
from unitbox_tf.records import Annotation
from unitbox_tf.train import pipeline


def shards(root):
    return sorted(root.glob("*.tfrecord"))


def contents(root):
    return {path.name: path.read_bytes() for path in root.iterdir()}


@pytest.fixture
def small(monkeypatch):
    """Shards of at most 1,000 bytes of images."""
    monkeypatch.setattr(tfrecord, "SHARD_BYTES", 1000)


@st.composite
def annotations(draw):
    """Annotations that have anything they can."""
    count = draw(st.integers(0, 3))

    def some(dtype, *shape, **more):
        return draw(arrays_of.arrays(dtype, (count, *shape), **more))

    finite = st.floats(-1e307, 1e307)
    size = draw(st.none() | st.tuples(st.integers(1, 2**31 - 1), st.integers(1, 2**31 - 1)))
    boxes = some(np.float64, 4, elements=finite)
    ignore = checks.ignored(boxes, some(np.bool_), [""] * count, size)
    named = st.dictionaries(st.text(max_size=5), st.just(0), min_size=1, max_size=3)
    attributes = draw(st.none() | named)
    return Annotation(
        draw(st.sampled_from(["a", "b.jpg", "deep/c.PNG", "鳥.jpeg"])),
        draw(st.binary(max_size=300) | st.just(png(6, 8))),
        boxes,
        some(np.int32, elements=st.integers(0, 1)),
        ignore,
        size,
        draw(st.none() | st.just(1)) and some(np.float64, 5),
        attributes and {name: some(np.int32) for name in attributes},
    )


@given(annotation=annotations())
def test_every_field_comes_back_bit_by_bit(annotation, tmp_path_factory):
    root = tmp_path_factory.mktemp("shards") / "out"
    assert write([annotation], root) == (1, len(annotation.boxes), annotation.ignore.sum())
    (found,) = read(root)
    assert isinstance(found.image, Part)
    assert found.encoded() == annotation.image
    for field in dataclasses.fields(Annotation):
        expected, value = getattr(annotation, field.name), getattr(found, field.name)
        if field.name == "attributes" and expected is not None:
            assert list(value) == list(expected)
            expected, value = (np.stack(list(a.values())) for a in (expected, value))
        if isinstance(expected, np.ndarray):
            assert (value.dtype, value.shape) == (expected.dtype, expected.shape)
            assert value.tobytes() == expected.tobytes()
        elif field.name != "image":
            assert value == expected


def test_no_field_of_an_annotation_is_forgotten():
    apart = {"name", "image", "size", "attributes"}
    assert {f.name for f in dataclasses.fields(Annotation)} == {*tfrecord.EXACT, *apart}


def test_tensorflow_and_other_tools_read_the_shards(tmp_path):
    boxes = [[8, 6, 40, 30], [0, 0, 80, 60]]
    content = png(60, 80)
    write([Annotation("a", content, boxes, [1, 0], [False, True])], tmp_path / "out")
    (path,) = shards(tmp_path / "out")
    (record,) = tf.data.TFRecordDataset(str(path))
    usual = {
        "image/encoded": tf.io.FixedLenFeature([], tf.string),
        "image/filename": tf.io.FixedLenFeature([], tf.string),
        "image/height": tf.io.FixedLenFeature([], tf.int64),
        "image/width": tf.io.FixedLenFeature([], tf.int64),
        "image/object/class/label": tf.io.VarLenFeature(tf.int64),
        "image/object/class/text": tf.io.VarLenFeature(tf.string),
        "image/object/is_crowd": tf.io.VarLenFeature(tf.int64),
        **{f"image/object/bbox/{c}": tf.io.VarLenFeature(tf.float32) for c in tfrecord.CORNERS},
    }
    found = tf.io.parse_single_example(record, usual)
    assert found["image/encoded"].numpy() == content
    assert found["image/filename"].numpy() == b"a.png"
    assert (found["image/height"], found["image/width"]) == (60, 80)
    assert found["image/object/class/label"].values.numpy().tolist() == [2, 1]
    assert found["image/object/class/text"].values.numpy().tolist() == [b"dog", b"cat"]
    assert found["image/object/is_crowd"].values.numpy().tolist() == [0, 1]
    edges = [found[f"image/object/bbox/{c}"].values.numpy() for c in tfrecord.CORNERS]
    np.testing.assert_array_equal(
        np.stack(edges, 1), np.float32([[0.1, 0.1, 0.5, 0.5], [0, 0, 1, 1]])
    )
    # What another tool takes apart and puts together, in any order, is as exact as before.
    message = tf.train.Example.FromString(record.numpy())
    with tf.io.TFRecordWriter(str(path)) as writer:
        writer.write(message.SerializeToString(deterministic=True))
    (again,) = read(tmp_path / "out")
    assert again.encoded() == content
    assert again.boxes.tolist() == boxes


def example(**features):
    kinds = {bytes: "bytes_list", int: "int64_list", float: "float_list"}
    message = tf.train.Example()
    for name, values in features.items():
        key = "image/" + name.replace("__", "/")
        for value in values:
            getattr(message.features.feature[key], kinds[type(value)]).value.append(value)
    return message


USUAL = {
    "encoded": [png(60, 80)],
    "filename": [b"a.png"],
    "height": [60],
    "width": [80],
    "object__bbox__xmin": [0.25, 0.0],
    "object__bbox__ymin": [0.5, 0.0],
    "object__bbox__xmax": [0.5, 1.0],
    "object__bbox__ymax": [1.0, 1.0],
    "object__class__label": [2, 1],
    "object__difficult": [0, 1],
}


@pytest.mark.parametrize(
    "name", ["train.record-00000-of-00001", "train.tfrecord", "train-00000-of-00001"]
)
def test_shards_of_other_tools_are_read(name, tmp_path):
    with tf.io.TFRecordWriter(str(tmp_path / name)) as writer:
        writer.write(example(**USUAL).SerializeToString())
        bare = {key: USUAL[key] for key in ("encoded", "filename", "height", "width")}
        writer.write(example(**bare).SerializeToString())
    for root, split in ((tmp_path, "train"), (tmp_path, ""), (tmp_path / name, "")):
        first, second = read(root, split=split)
        assert (first.name, first.size) == ("a.png", (60, 80))
        assert first.encoded() == second.encoded() == png(60, 80)
        assert first.boxes.tolist() == [[20, 30, 40, 60], [0, 0, 80, 60]]
        assert first.classes.tolist() == [1, 0]
        assert first.ignore.tolist() == [False, True]
        assert second.boxes.shape == (0, 4)
    assert data_sets.class_names("tfrecord", tmp_path, "train") is None
    (tmp_path / "labels.txt").write_text("cat\ndog\n")
    assert data_sets.class_names("tfrecord", tmp_path / name, "") == NAMES


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"encoded": []}, "received no feature 'image/encoded', but .*'image/filename'"),
        ({"encoded": [b"a", b"b"]}, "received 2 values of a feature that has one"),
        ({"encoded": [1]}, "received 0 values"),
        ({"filename": []}, "received 0 values of 'image/filename'"),
        ({"height": []}, "received 0 values of 'image/height'"),
        ({"height": [0]}, "expected a height and width above 0"),
        ({"object__bbox__xmin": [0.5]}, "inhomogeneous"),
        ({"object__class__label": [1]}, "a.png: expected 2 classes, one for each box, received 1"),
        ({"object__difficult": [1, 1, 1]}, "received 3 values of 'image/object/difficult' for 2"),
    ],
)
def test_records_of_other_content_are_named(change, message, tmp_path):
    path = tmp_path / "train.tfrecord"
    with tf.io.TFRecordWriter(str(path)) as writer:
        writer.write(example(**USUAL).SerializeToString())
        writer.write(example(**{**USUAL, **change}).SerializeToString())
    with pytest.raises(
        ValueError, match=rf"train\.tfrecord: record 2: expected an image.*{message}"
    ):
        read(tmp_path)


@pytest.mark.parametrize(
    "record", [b"", b"\0", b"text", b"\x0a\x05", b"\xff" * 20, b"\x0a\x02\x0a\x00"]
)
def test_records_that_are_no_example_are_named(record, tmp_path):
    with tf.io.TFRecordWriter(str(tmp_path / "train.tfrecord")) as writer:
        writer.write(record)
    with pytest.raises(ValueError, match=r"train\.tfrecord: record 1: expected an image"):
        read(tmp_path)


@given(data=st.data())
def test_records_of_any_content_are_read_or_named(data, tmp_path_factory):
    """Checksums are right, as an attacker's are."""
    root = tmp_path_factory.mktemp("shards")
    write([dataclasses.replace(pictures(2)[1], attributes={"blur": [1]})], root / "out")
    (path,) = shards(root / "out")
    (record,) = tf.data.TFRecordDataset(str(path)).as_numpy_iterator()
    first = data.draw(st.integers(0, 200) | st.integers(0, len(record)))
    last = data.draw(st.integers(first, min(first + 9, len(record))))
    some = st.binary(max_size=9) | st.sampled_from([b"[" * 9, b"null", b"-1", b"1e9", b'"', b"{}"])
    with tf.io.TFRecordWriter(str(path)) as writer:
        writer.write(record[:first] + data.draw(some) + record[last:])
    problems, message = Problems(), str(path)
    try:
        for annotation in data_sets.read("tfrecord", root / "out", "train", problems):
            assert np.isfinite(annotation.boxes).all()
            assert (annotation.classes >= 0).all()
            assert isinstance(annotation.encoded(), bytes)
    except ValueError as error:
        message = str(error)
    assert f"{path}: record 1" in message or message == str(path)


def test_objects_that_no_model_can_learn_are_reported(tmp_path, problems):
    change = {"object__bbox__xmin": [float("nan"), 0.0], "object__class__label": [1, 0]}
    with tf.io.TFRecordWriter(str(tmp_path / "train.tfrecord")) as writer:
        writer.write(example(**{**USUAL, **change}).SerializeToString())
        writer.write(example(**{**USUAL, "filename": [b"/home/a.png"]}).SerializeToString())
    assert read(tmp_path, problems) == []
    assert where(problems) == [
        (checks.UNREADABLE, "train.tfrecord: a.png, object 1"),
        (checks.UNREADABLE, "train.tfrecord: a.png, object 2"),
        (checks.OUTSIDE, "train.tfrecord: record 2"),
    ]


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError("No space left on device")])
def test_an_interrupted_run_goes_on(tmp_path, monkeypatch, error, caplog):
    source = pictures(9)
    write(source, tmp_path / "whole")
    assert len(shards(tmp_path / "whole")) == 5

    example_of = tfrecord._example

    def interrupted(annotation, *more):
        if annotation.name == "p/7.png":
            raise error
        return example_of(annotation, *more)

    root = tmp_path / "out"
    monkeypatch.setattr(tfrecord, "_example", interrupted)
    with pytest.raises(type(error) if isinstance(error, Exception) else error):
        write(source, root)
    monkeypatch.setattr(tfrecord, "_example", example_of)
    with pytest.raises(ValueError, match=r"train-00003-of-00005\.tfrecord: no such file, one of 5"):
        read(root)
    assert not list(root.glob(".*"))
    before = {path.name: path.stat() for path in shards(root)}
    (root / ".partial-0123abcd-train-00003-of-00005.tfrecord").write_bytes(b"what kill -9 left")
    assert {"train-00000-of-00005.tfrecord", "train-00002-of-00005.tfrecord"} <= before.keys()

    with caplog.at_level("INFO"):
        assert write(iter(source), root) == (9, 9, 0)
    assert f"{len(before)} of 5 shards were there already" in caplog.text
    assert contents(root) == contents(tmp_path / "whole")
    for name, stat in before.items():
        now = (root / name).stat()
        assert (now.st_ino, now.st_mtime_ns) == (stat.st_ino, stat.st_mtime_ns)


KILLED = """
import os, sys
from pathlib import Path
from tests.helpers.shards import pictures, write
from unitbox_tf.datasets import tfrecord
tfrecord.SHARD_BYTES = 1000
example = tfrecord._example
tfrecord._example = lambda a, *more: os._exit(9) if a.name == "p/7.png" else example(a, *more)
write(pictures(9), Path(sys.argv[1]))
"""


@pytest.mark.usefixtures("small")
def test_a_run_that_was_killed_goes_on(tmp_path):
    result = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "out")])
    assert result.returncode == 9
    assert list((tmp_path / "out").glob(".partial-*"))
    write(pictures(9), tmp_path / "out")
    write(pictures(9), tmp_path / "whole")
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_files_that_a_killed_run_left_are_no_shards(tmp_path):
    root = tmp_path / "out"
    write(pictures(1), root)
    (root / ".partial-0123abcd-b-00000-of-00001.tfrecord").write_bytes(b"half")
    (root / ".partial-0123abcd-b.shards.json").write_text("{")
    assert len(read(root, split="")) == 1
    for path in root.glob("[a-z]*"):
        path.unlink()
    (root / "other.txt").touch()
    with pytest.raises(ValueError, match="expected a new or empty folder, or one of shards"):
        write(pictures(1), root)


FULL = """
import resource, sys
from pathlib import Path
from tests.helpers.shards import pictures, write
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    write(pictures(2, 90_000), Path(sys.argv[1]))
except OSError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot limit the length of files")
def test_a_file_that_cannot_grow_is_named(tmp_path):
    root = tmp_path / "out"
    call = [sys.executable, "-c", FULL, str(root)]
    result = subprocess.run(call, capture_output=True, text=True, check=True)
    assert f"File too large: '{root}/train-00000-of-00001.tfrecord'" in result.stdout
    assert sorted(path.name for path in root.iterdir()) == ["labels.txt", "train.shards.json"]


@pytest.mark.parametrize("full", ["train.shards.json", "labels.txt"])
def test_a_run_that_ends_before_the_first_shard_goes_on(tmp_path, monkeypatch, full):
    """A disk that is full from the start: nothing is half there."""
    write_text = Path.write_text

    def no_space(path, *arguments, **more):
        if full in path.name:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write_text(path, *arguments, **more)

    root = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", no_space)
        with pytest.raises(OSError, match=f"No space left on device: .*{full}"):
            write(pictures(2), root)
    (root / ".partial-0123abcd-train.shards.json").write_text("{")  # of a run that was killed
    write(pictures(2), root)
    assert [a.name for a in read(root)] == [a.name for a in pictures(2)]


@pytest.mark.parametrize("other", ["a", "a-b"])
def test_of_two_runs_at_once_the_later_one_wins_where_they_meet(tmp_path, monkeypatch, other):
    root, example, runs = tmp_path / "out", tfrecord._example, [other]

    def meanwhile(annotation, *more):
        if runs:
            write(pictures(1), root, split=runs.pop())
        return example(annotation, *more)

    monkeypatch.setattr(tfrecord, "_example", meanwhile)
    if other == "a":
        with pytest.raises(OSError, match=r"a-00000-of-00001\.tfrecord: .* nothing else writes to"):
            write(pictures(1), root, split="a")
    else:  # splits of one folder do not meet
        write(pictures(1), root, split="a")
        assert len(read(root, split="a-b")) == 1
    assert len(read(root, split="a")) == 1
    assert not list(root.glob(".partial-*"))


@pytest.mark.usefixtures("small")
def test_a_shard_that_was_cut_off_or_deleted_is_written_again(tmp_path):
    root = tmp_path / "out"
    write(pictures(9), root)
    whole = contents(root)
    first, second, *_ = shards(root)
    os.truncate(first, first.stat().st_size - 1)
    second.unlink()
    write(pictures(9), root)
    assert contents(root) == whole


@pytest.mark.usefixtures("small")
def test_shards_of_other_annotations_are_never_mixed(tmp_path):
    source, root = pictures(5), tmp_path / "out"
    write(source, root)
    whole = contents(root)
    moved = dataclasses.replace(source[3], boxes=source[3].boxes + 1e-13)
    longer = dataclasses.replace(source[3], image=b"x" * 401)
    for other in ([*source[:3], moved, source[4]], [*source[:3], longer, source[4]], source[:4]):
        with pytest.raises(ValueError, match=r"train\.shards\.json: shards of other images, boxes"):
            write(other, root)
    with pytest.raises(ValueError, match=r"shards of other images, boxes or classes"):
        write(source, root, names=("cat", "cow"))
    with pytest.raises(ValueError, match=r"out: has shards of the classes .*'dog'.*'cow'"):
        write(source, root, split="val", names=("cat", "cow"))
    assert contents(root) == whole


@pytest.mark.usefixtures("small")
def test_a_folder_holds_several_splits(tmp_path):
    root = tmp_path / "out"
    write(pictures(5), root)
    write(pictures(2), root, split="val")
    write(pictures(1), root, split="")
    assert [len(read(root, split=split)) for split in ("train", "val", "photos", "")] == [
        5,
        2,
        1,
        8,
    ]
    with pytest.raises(
        ValueError, match=r"expected shards as test-00000-of-00001\.tfrecord, found"
    ):
        read(root, split="test")
    assert data_sets.class_names("tfrecord", root, "val") == NAMES


def test_folders_of_other_files_are_left_alone(tmp_path):
    photo(tmp_path / "full/mine.txt")
    with pytest.raises(ValueError, match="full: expected a new or empty folder, or one of shards"):
        write(pictures(1), tmp_path / "full")
    write(pictures(1), tmp_path / "out")
    (tmp_path / "out/val-00000-of-00002.tfrecord").touch()
    with pytest.raises(ValueError, match=r"has shards of 'val' of which val\.shards\.json says"):
        write(pictures(1), tmp_path / "out", split="val")


def test_photos_that_are_absent_or_change_are_reported(tmp_path, problems, monkeypatch):
    photo(tmp_path / "a.jpg", b"an image")
    source = [Annotation(f"{n}.jpg", tmp_path / f"{n}.jpg", []) for n in ("gone", "a")]
    assert write(source, tmp_path / "out", problems) == (1, 0, 0)
    assert where(problems) == [(checks.ABSENT, "gone.jpg")]
    example_of = tfrecord._example

    def changed(annotation, *more):
        annotation.image.write_bytes(content)
        return example_of(annotation, *more)

    monkeypatch.setattr(tfrecord, "_example", changed)
    for content in (b"another image", b"short"):
        photo(tmp_path / "a.jpg", b"an image")
        with pytest.raises(ValueError, match=r"a\.jpg: expected 8 bytes, received \d+: "):
            write(source, tmp_path / f"other{len(content)}")


@pytest.mark.parametrize("photos", ["link", "none"])
def test_photos_can_only_be_copied(photos, tmp_path):
    with pytest.raises(ValueError, match="Expected images to be copied, as shards hold them"):
        tfrecord.write(pictures(1), tmp_path / "out", "train", NAMES, photos=photos)
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda c: c[:-1], "record 2, at byte {second}: cut off or damaged"),
        (lambda c: c[: len(c) // 2 + 5], "record 2, at byte {second}: cut off"),
        (lambda c: c[: len(c) // 2], "expected 2 records, received 1: it is cut off"),
        (lambda c: b"", "expected 2 records, received 0: it is cut off"),
        (lambda c: c + b"more", "record 3, at byte {end}: cut off or damaged"),
        (lambda c: b"\x89PNG" + c, "record 1, at byte 0: cut off or damaged, or no TFRecord file"),
        (lambda c: c[:500] + b"!" + c[501:], "record 1, at byte 0: damaged"),
        (lambda c: c[:9] + b"!" + c[10:], "record 1, at byte 0: damaged"),
        (lambda c: bytes([c[0] ^ 1]) + c[1:], "record 1, at byte 0: damaged"),
        (lambda c: c[:-1] + bytes([c[-1] ^ 1]), "record 2, at byte {second}: damaged"),
        (lambda c: c + c[: len(c) // 2], "expected 2 records, received 3"),
    ],
)
def test_damage_is_named_with_file_and_record(damage, message, tmp_path):
    write(pictures(4), tmp_path / "out")
    path = shards(tmp_path / "out")[1]
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    expected = message.format(second=len(whole) // 2, end=len(whole))
    with pytest.raises(ValueError, match=rf"train-00001-of-00002\.tfrecord: {expected}"):
        read(tmp_path / "out")


def masked_crc32c(content):
    """As in tensorflow/core/lib/hash/crc32c.h."""
    crc = 0xFFFFFFFF
    for byte in content:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ 0x82F63B78 * (crc & 1)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) % 2**32


def test_a_length_that_the_file_does_not_have_is_not_believed(tmp_path):
    """TensorFlow asks for as much memory as a header says whose checksum is right, as an attacker's is."""
    path = tmp_path / "a.tfrecord"
    with tf.io.TFRecordWriter(str(path)) as writer:
        writer.write(b"12345")

    def header(length):
        content = length.to_bytes(8, "little")
        return content + masked_crc32c(content).to_bytes(4, "little")

    assert path.read_bytes().startswith(header(5))
    path.write_bytes(header(1 << 60) + b"x" * 100)
    with pytest.raises(ValueError, match=r"a\.tfrecord: record 1, at byte 0: cut off"):
        read(path)


MEASURE = """
import resource, sys
from pathlib import Path
from tests.helpers.shards import pictures, read, write
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
root, files = Path(sys.argv[1]), Path(sys.argv[2])
write(pictures(1), root / "first")
read(root / "first")
before = peak()
from unitbox_tf.records import Annotation
write([Annotation(p.name, p, []) for p in sorted(files.iterdir())], root / "out")
assert len(read(root / "out")) == 60
print(peak() - before)
"""


@pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="ru_maxrss is in KiB on Linux only"
)
def test_writing_and_reading_take_the_memory_of_a_few_photos(tmp_path):
    for n in range(60):
        photo(tmp_path / f"files/{n}.jpg", bytes([n]) * 2_000_000)
    call = [sys.executable, "-c", MEASURE, str(tmp_path), str(tmp_path / "files")]
    result = subprocess.run(call, capture_output=True, text=True, check=True)
    assert int(result.stdout) < 40e6  # of 120e6


def test_what_is_no_set_of_shards_is_named(tmp_path):
    for names, message in (
        (["a-00000-of-00002.tfrecord"], r"a-00001-of-00002\.tfrecord: no such file, one of 2"),
        (
            ["a-00000-of-00001", "a-00000-of-00002"],
            r"expected shards a-.* one N, found N of \[1, 2\]",
        ),
        (
            ["a.tfrecord", "a-00000-of-00001"],
            r"a\.tfrecord: expected one of this and a-00000-of-00001",
        ),
    ):
        folder = tmp_path / str(len(message))
        for name in names:
            photo(folder / name, b"")
        with pytest.raises(ValueError, match=message):
            read(folder, split="")
    with pytest.raises(ValueError, match="gone: no such folder"):
        read(tmp_path / "gone")
    with pytest.raises(
        ValueError, match=r"expected shards as NAME-00000-of-00001\.tfrecord, found"
    ):
        read(tmp_path, split="")
    write(pictures(1), tmp_path / "out")
    with pytest.raises(
        ValueError, match=r"labels\.txt: record 1, at byte 0: cut off or damaged, or no"
    ):
        read(tmp_path / "out/labels.txt")
    plan = tmp_path / "out/train.shards.json"
    whole = json.loads(plan.read_text())
    for change in ({"photos": 1}, {"photos": [-1]}, {"photos": [True]}, {"version": "1"}):
        plan.write_text(json.dumps(whole | change))
        with pytest.raises(ValueError, match=r"train\.shards\.json: expected version, digest and"):
            read(tmp_path / "out")
    plan.write_text(json.dumps(whole | {"version": 2}))
    with pytest.raises(ValueError, match=r"expected shards of version 1, received 2"):
        read(tmp_path / "out")
    plan.write_text(json.dumps(whole))
    (shard,) = shards(tmp_path / "out")
    shard.rename(tmp_path / "elsewhere")
    shard.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="is a link that leaves the folder"):
        read(tmp_path / "out")


def test_a_part_that_its_file_does_not_have_is_named(tmp_path):
    (tmp_path / "a").write_bytes(b"12345")
    assert Part(tmp_path / "a", 1, 3).read() == b"234"
    with pytest.raises(OSError, match=r"a: expected 9 bytes at byte 3, the file ends after 2"):
        Part(tmp_path / "a", 3, 9).read()


def test_batches_are_those_of_the_source_bit_by_bit(tmp_path):
    """Same images, same order, same augmentation, mosaics among them."""
    source = [synthetic.draw(n) for n in range(6)]
    write(source, tmp_path / "out", names=("object",))
    data = dataclasses.replace(PRESETS["smoke"].data, image_size=64, mosaic=0.5)

    def batches(annotations):
        options = {"labels": pipeline.Labels(1), "batch_size": 2, "seed": 5, "problems": Problems()}
        return list(pipeline.training_dataset(annotations, data, **options).take(4))

    ours = batches(read(tmp_path / "out"))
    for a, b in zip(tf.nest.flatten(batches(source)), tf.nest.flatten(ours), strict=True):
        np.testing.assert_array_equal(a, b)


def test_convert_goes_on_and_keeps_the_problems_of_all_splits(tmp_path, capsys):
    faces = tmp_path / "faces"
    for split in ("train", "val"):
        photo(faces / f"WIDER_{split}/images/a.png", png(60, 80))
        text = f"a.png\n1\n1 2 30 40 0 0 0 0 0 0\n{split}.png\n0\n"
        (faces / f"wider_face_{split}_bbx_gt.txt").write_text(text)
    for split in ("train", "val", "train"):
        shards_of = f"tfrecord:{tmp_path / 'out'}#{split}"
        assert cli.main(["convert", f"wider_face:{faces}#{split}", shards_of]) == 0
        assert "written  1 images, 1 boxes" in capsys.readouterr().out
        lines = (tmp_path / "out/problems.txt").read_text().splitlines()
        assert len(lines) == (1 if split == "train" and len(shards(tmp_path / "out")) == 1 else 2)
    for name in ("train.png", "val.png"):
        assert sum(name in line for line in lines) == 1
    convert = ["convert", f"tfrecord:{tmp_path / 'out'}#val", f"wider_face:{tmp_path / 'back'}#val"]
    assert cli.main(convert) == 0
    path = tmp_path / "back/wider_face_split/wider_face_val_bbx_gt.txt"
    assert path.read_text() == "a.png\n1\n1 2 30 40 0 0 0 0 0 0 \n"
    assert cli.main([*convert[:2], f"tfrecord:{tmp_path / 'linked'}", "--link"]) == 1
    assert "Expected images to be copied" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["a.JPG", "b.jpeg", "c.png", "d"])
def test_files_keep_their_names_on_the_way_through_shards(name, tmp_path):
    path = tmp_path / (name if "." in name else f"{name}.jpg")
    photo(path, b"\xff\xd8 a JPEG")  # be it called .png
    write([Annotation(name, path, [], size=(6, 8))], tmp_path / "out")
    problems = Problems()
    found = read(tmp_path / "out")
    for form, source in (("coco", [Annotation(name, path, [], size=(6, 8))]), ("csv", found)):
        registry.DATASETS[form].write(source, tmp_path / form, "", NAMES, problems=problems)
    assert os.listdir(tmp_path / "coco/images") == os.listdir(tmp_path / "csv/images")
