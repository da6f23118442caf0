"""Uploads are bounded, are read once, and leave nothing on the disk, whatever ends the program."""

import io
import os
import signal
import subprocess
import sys
import tempfile
import threading

import pytest

from unitbox_tf import files, limits
from unitbox_tf.demo import uploads as kept
from unitbox_tf.demo.uploads import Full, Uploads


@pytest.fixture
def uploads(tmp_path):
    return Uploads(tmp_path, largest=1000)


def test_an_upload_is_read_once_and_deleted(uploads, tmp_path):
    first = uploads.keep("a photo.jpg", io.BytesIO(b"first"))
    second = uploads.keep("a photo.jpg", io.BytesIO(b"second"))
    assert uploads.used == 11
    assert uploads.take(str(first)) == ("a photo.jpg", b"first")
    assert second.exists()
    with pytest.raises(LookupError):
        uploads.take(str(first))
    assert uploads.take(str(second)) == ("a photo.jpg", b"second")
    assert uploads.used == 0
    assert not list(tmp_path.iterdir())


def test_only_uploads_can_be_read(uploads, tmp_path):
    (tmp_path / "secret").write_text("not uploaded")
    path = uploads.keep("a", io.BytesIO(b"a"))
    for wanted in (
        tmp_path / "secret",
        "/etc/passwd",
        f"{path}/../../secret",
        "http://x/",
        path.parent,
    ):
        with pytest.raises(LookupError):
            uploads.take(str(wanted))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\photos\\a.jpg", "a.jpg"),
        ("a\0b\n<c>.png", "abc.png"),
        ("..", "image"),
        ("", "image"),
        ("\ud800.png", ".png"),
        ("Übung.jpg", "Übung.jpg"),
    ],
)
def test_names_are_harmless(uploads, name, expected):
    path = uploads.keep(name, io.BytesIO(b""))
    assert path.name == expected
    assert path.resolve().is_relative_to(uploads.folder.resolve())


def test_long_names_keep_their_end(uploads):
    path = uploads.keep("ü" * 500 + ".jpg", io.BytesIO(b""))
    assert path.name.endswith("ü.jpg")
    assert len(os.fsencode(path.name)) <= 200


def test_the_sum_is_bounded(uploads):
    uploads.total = 5000
    with uploads.room(1000), uploads.room(1000):
        with pytest.raises(Full), uploads.room(1000):
            pytest.fail("there is room for 2.5")
    path = uploads.keep("a", io.BytesIO(bytes(4000)))
    with pytest.raises(Full), uploads.room(1000):
        pytest.fail("what waits counts")
    uploads.take(str(path))
    with uploads.room(1000):
        assert uploads.used == 2000
    assert uploads.used == 0


def test_room_is_given_back_after_an_error(uploads):
    with pytest.raises(OSError, match="broken off"), uploads.room(1000):
        raise OSError("broken off")
    assert uploads.used == 0


def test_what_cannot_be_written_leaves_nothing(uploads, tmp_path):
    class Broken(io.BytesIO):
        def read(self, size=-1):
            raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        uploads.keep("a", Broken())
    assert not list(tmp_path.iterdir())


def test_uploads_that_nobody_waits_for_are_deleted(uploads, tmp_path, monkeypatch):
    waiting = str(uploads.keep("waits.jpg", io.BytesIO(b"a")))
    uploads.keep("left.jpg", io.BytesIO(b"b"))
    uploads.forget({waiting})
    assert len(list(tmp_path.iterdir())) == 2  # its visitor may be about to ask
    monkeypatch.setattr(limits, "UPLOAD_SECONDS", 0)
    uploads.forget({waiting})
    assert [path.name for path in tmp_path.rglob("*.jpg")] == ["waits.jpg"]
    assert uploads.used == 1
    uploads.forget(())
    assert not list(tmp_path.iterdir())


def test_threads_share_the_room(uploads):
    uploads.total, full = 10_000, []

    def use():
        for _ in range(200):
            try:
                with uploads.room(1000):
                    path = uploads.keep("a", io.BytesIO(bytes(100)))
                    uploads.take(str(path))
            except Full:
                full.append(1)

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert uploads.used == 0
    assert not list(uploads.folder.iterdir())


# Folders ----------------------------------------------------------------------------------------

HOLD = """
import signal, sys
from unitbox_tf.demo import uploads
with uploads.temporary_folder() as folder:
    (folder / "photo.jpg").write_text("private")
    print(folder, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def hold(temporary):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(temporary)},
    )
    return process, process.stdout.readline().strip()


def test_a_folder_is_private_and_goes_with_the_context(temporary):
    def fail():
        with kept.temporary_folder() as folder:
            assert folder.stat().st_mode & 0o077 == 0
            (folder / "photo.jpg").write_text("private")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert not list(temporary.iterdir())


def test_the_next_start_deletes_what_a_killed_program_left(temporary):
    (lives, in_use), (dies, left) = hold(temporary), hold(temporary)
    try:
        dies.send_signal(signal.SIGKILL)
        dies.wait(20)
        assert "photo.jpg" in os.listdir(left)
        with kept.temporary_folder() as folder:
            assert {str(path) for path in temporary.iterdir()} == {in_use, str(folder)}
            assert "photo.jpg" in os.listdir(in_use)
    finally:
        dies.kill()
        lives.communicate("", timeout=20)
        dies.communicate(timeout=20)
    assert not list(temporary.iterdir())


def test_only_own_folders_are_deleted(temporary, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    (other / "file").write_text("stays")
    (temporary / f"{kept.PREFIX}link").symlink_to(other)
    (temporary / f"{kept.PREFIX}file").write_text("no folder")
    kept.remove_abandoned()
    assert (other / "file").exists()
    assert len(list(temporary.iterdir())) == 2


def test_a_new_folder_that_was_taken_for_an_abandoned_one_is_made_again(temporary, monkeypatch):
    made, real = [], tempfile.mkdtemp

    def mkdtemp(**options):
        folder = real(**options)
        if not made:
            os.rmdir(folder)
        made.append(folder)
        return folder

    monkeypatch.setattr(tempfile, "mkdtemp", mkdtemp)
    with kept.temporary_folder() as folder:
        assert str(folder) == made[1]
        with (
            pytest.raises(ValueError, match="another process"),
            files.locked(folder, "serves from"),
        ):
            pytest.fail("it is locked")
