import errno
import hashlib
import os
import shutil
import socket
import subprocess
import sys
import time

import pytest

from unitbox_tf import files
from unitbox_tf.limits import TooLarge


def test_a_file_is_replaced_when_it_is_whole(tmp_path):
    path = tmp_path / "new" / "one.txt"
    files.write(path, "first")
    with files.replacing(path) as partial:
        assert partial.name.endswith("one.txt")
        partial.write_text("second")
        assert path.read_text() == "first"
    assert path.read_text() == "second"
    files.write(path, b"\xff")
    assert path.read_bytes() == b"\xff"
    assert [p.name for p in path.parent.iterdir()] == ["one.txt"]


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_an_error_leaves_the_old_one_and_nothing_else(tmp_path, kind):
    path = tmp_path / "one"
    path.write_text("old") if kind == "file" else path.mkdir()

    def write():
        with files.replacing(path) as partial:
            partial.write_text("new") if kind == "file" else partial.mkdir()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write()
    assert list(tmp_path.iterdir()) == [path]
    assert path.is_dir() if kind == "folder" else path.read_text() == "old"


def test_a_folder_takes_the_place_of_a_folder(tmp_path):
    path = tmp_path / "one"
    path.mkdir()
    (path / "old").touch()
    with files.replacing(path) as partial:
        partial.mkdir()
        (partial / "new").touch()
    assert [p.name for p in path.iterdir()] == ["new"]
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_does_not_take_the_place_of_a_folder_with_files(tmp_path):
    folder = tmp_path / "model.onnx"
    folder.mkdir()
    (folder / "thesis.txt").write_text("precious")
    with pytest.raises(OSError, match=r"model\.onnx"):
        files.write(folder, "new")
    assert (folder / "thesis.txt").read_text() == "precious"
    assert list(tmp_path.iterdir()) == [folder]


def test_a_folder_is_back_where_the_new_one_cannot_take_its_place(tmp_path, monkeypatch):
    path = tmp_path / "one"
    path.mkdir()
    (path / "old").touch()
    replace, calls = files.os.replace, []

    def fails_once(source, destination):
        calls.append(source)
        if len(calls) == 2:
            raise OSError("no space left")
        replace(source, destination)

    monkeypatch.setattr(files.os, "replace", fails_once)

    def write():
        with files.replacing(path) as partial:
            partial.mkdir()

    with pytest.raises(OSError, match="no space left"):
        write()
    assert [p.name for p in path.iterdir()] == ["old"]
    assert list(tmp_path.iterdir()) == [path]


def test_the_digest_is_that_of_all_contents(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b/2").write_bytes(b"two")
    (tmp_path / "a").write_bytes(b"one")
    assert files.digest(tmp_path / "a") == hashlib.sha256(b"one").hexdigest()
    assert files.digest(tmp_path) == hashlib.sha256(b"onetwo").hexdigest()


def test_partial_files_are_known_by_their_names(tmp_path):
    with files.replacing(tmp_path / "one.txt") as partial:
        assert files.whole_name(partial) == "one.txt"
        partial.touch()
    for name in ("one.txt", ".partial-one.txt", ".partial-0123abcd-"):
        assert files.whole_name(tmp_path / name) is None


def test_a_file_that_must_last_is_synchronised_before_it_gets_its_name(tmp_path, monkeypatch):
    path, synchronised = tmp_path / "one.txt", []
    monkeypatch.setattr(files.os, "fsync", lambda file: synchronised.append(path.exists()))
    files.write(path, "some")
    assert synchronised == []
    files.write(tmp_path / "one.txt", "more", durable=True)
    assert synchronised == [True, True]  # the file, then the list of names in the folder
    path.unlink()
    synchronised.clear()
    files.write(path, "new", durable=True)
    assert synchronised == [False, True]


def test_an_error_without_a_name_gets_that_of_the_file(tmp_path):
    with pytest.raises(OSError, match=r"No space left on device: '.*one\.txt'"):
        with files.replacing(tmp_path / "one.txt"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(OSError, match=r"other\.txt"):
        with files.replacing(tmp_path / "one.txt"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "other.txt")


def test_a_folder_that_was_put_aside_comes_back_if_the_new_one_never_came(tmp_path):
    aside = tmp_path / ".earlier-01234567-model"
    for whole in (False, True):
        aside.mkdir()
        (aside / "old").touch()
        (tmp_path / ".partial-89abcdef-model").mkdir()
        if whole:
            shutil.rmtree(tmp_path / "model")
            (tmp_path / "model").mkdir()
        files.remove_partial(tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == ["model"]
        assert (tmp_path / "model" / "old").exists() != whole


def test_only_partial_files_that_nobody_writes_any_more_are_deleted(tmp_path):
    path = tmp_path / "model"
    names = ("01234567-model", "89abcdef-model", "01234567-other")
    old, young, other = (tmp_path / f".partial-{name}" for name in names)
    day = time.time() - files.ABANDONED - 60
    for folder in (old, young, other):
        folder.mkdir()
        (folder / "variables").touch()
        os.utime(folder / "variables", (day, day))
        os.utime(folder, (day, day))
    os.utime(young / "variables")
    assert files.remove_abandoned(path) == [old]
    assert sorted(tmp_path.iterdir()) == sorted([young, other])
    assert files.remove_abandoned(tmp_path / "absent" / "model") == []


def _make_special(path, kind):
    if kind == "a named pipe":
        os.mkfifo(path)
    elif kind == "a socket":
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(str(path))
    elif kind == "a device":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()


@pytest.mark.parametrize("kind", ["a named pipe", "a socket", "a device", "a folder"])
def test_only_regular_files_are_opened(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)  # names of sockets are short
    path = tmp_path / "x.jpg"
    _make_special(path.relative_to(tmp_path), kind) if kind == "a socket" else _make_special(
        path, kind
    )
    with pytest.raises(files.SpecialFile, match=f"x.jpg: expected a regular file.*{kind}"):
        files.open_regular(path)


def test_links_in_a_circle_and_absent_files_are_errors(tmp_path):
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    for name in ("a", "absent"):
        with pytest.raises(OSError, match=name):
            files.open_regular(tmp_path / name)


def test_a_file_above_the_limit_is_not_read(tmp_path):
    path = tmp_path / "one"
    path.write_bytes(b"12345")
    assert files.read(path, 5) == b"12345"
    with pytest.raises(TooLarge, match=r"one: expected a file of at most 4 bytes. Received: 5 b"):
        files.read(path, 4)
    os.truncate(path, 1 << 40)  # a file with a hole, which would not fit into memory
    with pytest.raises(TooLarge, match="1,099,511,627,776"):
        files.read(path, 1000)


def test_a_locked_folder_refuses_a_second_time(tmp_path):
    with files.locked(tmp_path, "trains in"):
        with pytest.raises(ValueError, match="another process trains in this folder"):
            with files.locked(tmp_path, "trains in"):
                pass
    with files.locked(tmp_path, "trains in"):
        pass


def test_a_lock_ends_with_its_process(tmp_path):
    program = f"""
import os, signal
from unitbox_tf import files
with files.locked({str(tmp_path)!r}, "trains in"):
    print("locked", flush=True)
    signal.pause()
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"locked\n"
        with pytest.raises(ValueError, match="another process"):
            with files.locked(tmp_path, "trains in"):
                pass
        process.kill()
        process.wait()
    with files.locked(tmp_path, "trains in"):
        pass
