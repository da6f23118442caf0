import hashlib

import pytest

from unitbox_tf import files


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
