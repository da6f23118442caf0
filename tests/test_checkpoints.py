import errno
import io
import os
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unitbox_tf import checkpoints, limits
from unitbox_tf.checkpoints import Damaged, Spec

SPECS = [Spec("kernel", (2, 3), "float32"), Spec("count", (), "int64")]
VALUES = [np.arange(6, dtype=np.float32).reshape(2, 3), np.array(7)]
EXPECTED = {"model": SPECS}
FACTS = {"steps": 4, "history": [{"loss": float("nan")}]}


def store(folder, number, values=VALUES):
    folder.mkdir(exist_ok=True)
    path = checkpoints.path_of(folder, number)
    checkpoints.write(path, {"model": list(zip(SPECS, values, strict=True))}, FACTS)
    return path


def test_what_was_written_is_read(tmp_path):
    path = store(tmp_path, 12)
    assert path.name == "step-00000012.npz"
    found = checkpoints.read(path, EXPECTED)
    assert found.facts["steps"] == 4
    assert np.isnan(found.facts["history"][0]["loss"])
    for expected, received in zip(VALUES, found.groups["model"], strict=True):
        np.testing.assert_array_equal(expected, received)
    assert checkpoints.read(path, {}).groups == {}


def test_checkpoints_are_ordered_by_their_steps(tmp_path):
    assert checkpoints.stored(tmp_path / "absent") == []
    paths = [store(tmp_path, number) for number in (9, 10, 123_456_789)]
    (tmp_path / "step-1.npz").touch()
    (tmp_path / "notes.txt").touch()
    assert checkpoints.stored(tmp_path) == paths[::-1]


@pytest.mark.parametrize(
    ("expected", "message"),
    [
        (SPECS[:1], r"another model.*as number 2: no more. Received: count \(\) int64"),
        ([*SPECS, SPECS[0]], r"number 3: kernel \(2, 3\) float32. Received: no more"),
        ([SPECS[0]._replace(shape=(3, 2)), SPECS[1]], r"number 1: kernel \(3, 2\).*\(2, 3\)"),
        ([SPECS[0]._replace(name="bias"), SPECS[1]], "bias.*Received: kernel"),
        ([SPECS[0], SPECS[1]._replace(dtype="int32")], "int32. Received: count .. int64"),
    ],
)
def test_other_arrays_are_refused(tmp_path, expected, message):
    with pytest.raises(ValueError, match=message) as error:
        checkpoints.read(store(tmp_path, 1), {"model": expected})
    assert not isinstance(error.value, Damaged)


def test_a_damaged_checkpoint_gives_way_to_the_one_before_and_both_are_named(tmp_path, caplog):
    first, second, third = (store(tmp_path, number) for number in (1, 2, 3))
    third.write_bytes(third.read_bytes()[:-100])
    found = checkpoints.read_newest(tmp_path, EXPECTED)
    assert found.path == second
    [message] = caplog.messages
    assert message.startswith(f"{third}: expected a whole checkpoint")
    assert message.endswith(f"Taking the one before: {second}")
    for path in (first, second):
        path.write_bytes(b"")
    with pytest.raises(ValueError, match="no checkpoint is whole") as error:
        checkpoints.read_newest(tmp_path, EXPECTED)
    assert all(str(path) in str(error.value) for path in (first, second, third))
    assert str(error.value).endswith("start a new run that names this one as init (--init)")
    assert checkpoints.read_newest(tmp_path / "absent", EXPECTED) is None


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    return store(tmp_path_factory.mktemp("whole"), 1).read_bytes()


@settings(max_examples=300)
@given(st.data())
def test_no_change_of_a_byte_and_no_cut_is_read_as_other_values(content, tmp_path_factory, data):
    """It is refused as damaged, or changes what nobody reads, such as a date."""
    path = tmp_path_factory.getbasetemp() / "changed.npz"
    changed = bytearray(content)
    if data.draw(st.booleans()):
        changed[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    else:
        del changed[data.draw(st.integers(0, len(content) - 1)) :]
    path.write_bytes(changed)
    try:
        found = checkpoints.read(path, EXPECTED)
    except ValueError as error:
        message = str(error)
    else:
        message = str(path)
        assert found.facts["steps"] == 4
        for expected, received in zip(VALUES, found.groups["model"], strict=True):
            np.testing.assert_array_equal(expected, received)
    assert str(path) in message


def archive(parts, compression=zipfile.ZIP_STORED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as made:
        for name, part in parts.items():
            made.writestr(name, part)
    return file.getvalue()


def npy(values):
    file = io.BytesIO()
    np.lib.format.write_array(file, values, version=(1, 0))
    return file.getvalue()


LARGE = b"\x93NUMPY\x01\x00v\x00" + (
    b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,), }".ljust(117) + b"\n"
)


@pytest.mark.parametrize(
    ("parts", "compression", "message"),
    [
        ({}, zipfile.ZIP_STORED, "facts.npy"),
        ({"facts.npy": npy(np.zeros(3, np.uint8))}, zipfile.ZIP_STORED, "whole checkpoint"),
        ({"facts.npy": npy(np.frombuffer(b"[]", np.uint8))}, zipfile.ZIP_STORED, "is no dict"),
        ({"facts.npy": npy(np.zeros(9, np.uint8))}, zipfile.ZIP_DEFLATED, "is compressed"),
        ({"facts.npy": npy(np.array([{}]))}, zipfile.ZIP_STORED, "allow_pickle"),
        ({"facts.npy": LARGE}, zipfile.ZIP_STORED, "whole checkpoint"),
    ],
)
def test_what_is_no_checkpoint_is_damaged(tmp_path, parts, compression, message):
    path = tmp_path / "a.npz"
    path.write_bytes(archive(parts, compression))
    with pytest.raises(Damaged, match=message):
        checkpoints.read(path, EXPECTED)


def test_an_array_is_compared_before_it_is_allocated(tmp_path):
    path = tmp_path / "a.npz"
    facts = npy(np.frombuffer(b"{}", np.uint8))
    path.write_bytes(archive({"facts.npy": facts, "model/0000 kernel.npy": LARGE}))
    with pytest.raises(ValueError, match=r"Received: kernel \(1000000000000,\) float32"):
        checkpoints.read(path, {"model": SPECS[:1]})


def test_facts_have_a_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "MAX_FACTS_BYTES", 100)
    assert limits.MAX_FACTS_BYTES > 100
    with pytest.raises(Damaged, match=r"facts.npy has .* bytes, more than 100"):
        checkpoints.read(store(tmp_path, 1), EXPECTED)


class Full(io.BytesIO):
    """A file on a disk that is full after some bytes."""

    def __init__(self, space):
        super().__init__()
        self.space = space

    def write(self, content):
        if self.tell() + len(content) > self.space:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().write(content)


def test_a_disk_that_is_full_at_any_byte_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    path = store(tmp_path, 1)
    old, opened = path.read_bytes(), checkpoints.Path.open
    for space in range(0, len(old), 40):

        def full(self, mode="r", *more, space=space):
            return Full(space) if mode == "wb" else opened(self, mode, *more)

        with monkeypatch.context() as patch:
            patch.setattr(checkpoints.Path, "open", full)
            with pytest.raises(OSError, match=f"No space left on device: '{path}'"):
                store(tmp_path, 1, [VALUES[0] + 1, VALUES[1]])
        assert path.read_bytes() == old
        assert list(tmp_path.iterdir()) == [path]
