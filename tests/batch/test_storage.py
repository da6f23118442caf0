import pytest

from unitbox_tf.batch import storage
from unitbox_tf.limits import TooLarge


@pytest.fixture
def kept(beam):
    """The files of a remote file system, by address."""
    from tests.helpers import beam_files

    beam_files.FILES.clear()
    return beam_files.FILES


@pytest.fixture(params=["local", "remote"])
def folder(request, tmp_path):
    if request.param == "local":
        return storage.folder(str(tmp_path / "out"))
    request.getfixturevalue("kept")
    return storage.folder("kept://bucket/out/")


def test_files_are_written_read_listed_and_deleted(folder):
    assert folder.names() == set()
    folder.write("a.gz", b"first")
    folder.write("a.gz", b"0123456789")
    folder.write("b", b"")
    assert folder.names() == {"a.gz", "b"}
    assert folder.read("a.gz") == b"0123456789"
    assert folder.read("a.gz", 3, 4) == b"3456"
    with pytest.raises(OSError, match=r"a\.gz"):
        folder.read("a.gz", 8, 4)
    with pytest.raises(OSError, match="c"):
        folder.read("c")
    folder.delete([])
    folder.delete(["b"])
    assert folder.names() == {"a.gz"}


def test_what_killed_workers_were_writing_is_deleted(folder):
    for name in (".partial-0123abcd-detections-00000.jsonl", ".partial-mine", "a"):
        folder.write(name, b"")
    folder.remove_partial()
    assert folder.names() == {".partial-mine", "a"}


def test_a_remote_file_that_could_not_be_written_leaves_the_earlier_one(kept, monkeypatch):
    from tests.helpers.beam_files import KeptFileSystem

    folder = storage.folder("kept://bucket/out")
    folder.write("a", b"1")
    monkeypatch.setattr(KeptFileSystem, "rename", _full)
    with pytest.raises(OSError, match="full"):
        folder.write("a", b"2")
    assert kept == {"kept://bucket/out/a": b"1"}


def _full(*_):
    raise OSError("full")


def test_a_name_with_a_scheme_is_remote_unless_it_is_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert storage.is_remote("gs://bucket/a.jpg")
    assert not storage.is_remote("photos/a.jpg")
    assert not storage.is_remote("C:/photos/a.jpg")
    (tmp_path / "gs:" / "bucket").mkdir(parents=True)
    assert not storage.is_remote("gs://bucket")


def test_remote_folders_and_patterns_stand_for_their_photos(kept):
    for name in ("b.JPG", "deep/a.png", "notes.txt", "deep/c.tiff"):
        kept[f"kept://bucket/{name}"] = b""
    photos = [f"kept://bucket/{name}" for name in ("b.JPG", "deep/a.png", "deep/c.tiff")]
    assert storage.find_remote("kept://bucket") == photos
    assert storage.find_remote("kept://bucket/") == photos
    assert storage.find_remote("kept://bucket/*") == [photos[0], "kept://bucket/notes.txt"]
    assert storage.find_remote("kept://bucket/absent.jpg") == ["kept://bucket/absent.jpg"]
    with pytest.raises(ValueError, match="kept://other: no JPEG"):
        storage.find_remote("kept://other")


def test_a_file_system_that_beam_does_not_know_is_an_error(beam):
    with pytest.raises(ValueError, match=r"Unable to get filesystem .* nowhere://bucket/a\.jpg"):
        storage.read_remote("nowhere://bucket/a.jpg", 10)


def test_a_remote_file_that_is_too_long_is_refused(kept):
    kept["kept://a"] = b"01234"
    assert storage.read_remote("kept://a", 5) == b"01234"
    with pytest.raises(TooLarge, match="at most 4 bytes"):
        storage.read_remote("kept://a", 4)


@pytest.mark.parametrize("name", ["list.txt", "kept://list.txt"])
def test_a_list_has_a_photo_in_each_line(name, tmp_path, monkeypatch, request):
    monkeypatch.chdir(tmp_path)
    content = "a.jpg\r\n\n  gs://bucket/b.jpg\né.jpg".encode() + b"\n\xff.jpg\n"
    if name == "list.txt":
        (tmp_path / name).write_bytes(content)
    else:
        request.getfixturevalue("kept")[name] = content
    assert storage.read_list(name) == ["a.jpg", "gs://bucket/b.jpg", "é.jpg", "\udcff.jpg"]


def test_an_empty_list_is_refused(tmp_path):
    (tmp_path / "list.txt").write_text("\n \n")
    with pytest.raises(ValueError, match="expected a photo in each line"):
        storage.read_list(str(tmp_path / "list.txt"))
