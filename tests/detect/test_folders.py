import json
import os
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.helpers import videos
from unitbox_tf import files, images
from unitbox_tf.config import DecodeConfig
from unitbox_tf.detect import folders, journal
from unitbox_tf.detect.detector import Detector
from unitbox_tf.problems import Problems
from unitbox_tf.records import Detections


@pytest.fixture
def photos(tmp_path):
    """A folder of three images, one of them broken, and a video."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(2):
        cv2.imwrite(str(folder / f"{number}.png"), np.full((40, 50, 3), 90, np.uint8))
    (folder / "broken.png").write_bytes(b"no image")
    videos.write(folder / "clip.avi", 5)
    return folder


@pytest.fixture
def shown():
    """How many images the detector was shown."""
    return []


@pytest.fixture
def detector(shown):
    def find(image):
        shown.append(image.shape[:2])
        return Detections(
            np.float32([[1, 2, 11, 22]]), np.float32([1]), np.int32([0]), image.shape[:2]
        )

    return Detector(find, ("object",), DecodeConfig())


def test_what_is_done_is_told_and_not_done_again(photos, detector, shown, tmp_path):
    out = tmp_path / "out"
    named = [photos, photos / "clip.avi", str(photos / "0.png")]
    for earlier, count in ((0, 7), (2, 0)):
        problems = Problems()
        summary = folders.detect_into(detector, named, out, problems=problems)
        results = out / "detections.json"
        assert summary.images == folders.ImagesDone(3, earlier, 1, 2, results)
        assert [tuple(video)[1:] for video in summary.videos] == [(out / "clip.mp4", 5, 5)]
        assert summary.problems is problems
        assert problems.counts == {images.UNDECODABLE: 1}
        assert (out / "problems.txt").is_file()
        assert len(shown) == count
        shown.clear()


def test_results_of_other_weights_are_not_mixed(photos, detector, tmp_path):
    folders.detect_into(detector, [photos / "0.png"], tmp_path / "out", digest="a")
    with pytest.raises(ValueError, match="has results of other settings: weights was a, is now b"):
        folders.detect_into(detector, [photos / "0.png"], tmp_path / "out", digest="b")
    again = folders.detect_into(
        detector, [photos / "0.png"], tmp_path / "out", digest="b", restart=True
    )
    assert again.images.earlier == 0
    assert again.videos == ()


def test_what_a_killed_program_was_writing_is_deleted(photos, detector, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".partial-0123abcd-clip.mp4").touch()
    (tmp_path / "out" / ".partial-mine").touch()
    folders.detect_into(detector, [photos / "0.png"], tmp_path / "out")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"0.png", "detections.json", "journal.jsonl", ".lock", ".partial-mine"}


def test_a_stream_is_an_input_whose_password_is_not_written(tmp_path):
    address = "rtsp://me:secret@127.0.0.1:9/live"
    assert folders.find([address], tmp_path / "out") == ([], [address])
    summary = folders.detect_into(videos.find, [address], tmp_path / "out")
    assert summary.problems.counts == {"video that cannot be read": 1}
    written = [path.read_text() for path in (tmp_path / "out").iterdir()]
    assert "rtsp://127.0.0.1:9/live" in "".join(written)
    assert "secret" not in "".join(written)


def photo(path):
    path.write_bytes(cv2.imencode(".png", np.full((40, 50, 3), 90, np.uint8))[1].tobytes())


def listed(out):
    return {row["file_name"] for row in json.loads((out / "detections.json").read_text())}


@pytest.fixture
def strange(tmp_path):
    """A folder of images with strange names, and of special files."""
    folder = tmp_path / "strange"
    folder.mkdir()
    names = [b"\xff.png", b"new\nline.png", b"\x1b[31mred.png", b"-x.png", b"a:b.png", b".png.png"]
    for name in [*names, b"x" * 251 + b".png", "é".encode() * 125 + b".png"]:
        photo(Path(os.fsdecode(os.fsencode(folder) + b"/" + name)))
    return folder


def test_strange_names_are_kept_in_results_and_made_plain_elsewhere(
    strange, detector, tmp_path, caplog
):
    caplog.set_level("INFO")
    (strange / "\udcfe\x1b.png").write_bytes(b"broken")
    out = tmp_path / "out"
    for earlier in (0, 8):
        done = folders.detect_into(detector, [strange], out).images
        assert (done.images, done.earlier, done.broken) == (9, earlier, 1)
    assert listed(out) == {
        path.as_posix() for path in strange.iterdir() if path.stat().st_size > 10
    }
    pictures = [path.name for path in out.iterdir() if path.suffix == ".png"]
    assert len(pictures) == 8
    assert all(name.isprintable() and len(name.encode()) < 220 for name in pictures)
    [line] = (out / "problems.txt").read_text("utf-8").splitlines()
    assert r"\udcfe\x1b.png" in line
    assert all(message.isprintable() for message in caplog.messages)
    assert any(r"\x1b[31mred.png: 1 found" in message for message in caplog.messages)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs a system with pipes")
def test_special_files_are_left_out_and_named(strange, detector, tmp_path):
    os.mkfifo(strange / "pipe.png")
    os.mkfifo(strange / "pipe.mp4")
    (strange / "folder.png").mkdir()
    (strange / "loop.png").symlink_to("loop.png")
    (strange / "endless.png").symlink_to("/dev/zero")
    (strange / "again").symlink_to(strange)
    problems = Problems()
    summary = folders.detect_into(
        detector, [strange, strange / "pipe.mp4"], tmp_path / "out", problems=problems
    )
    assert summary.images.objects == 8
    assert {Path(problem.where).name: problem.message for problem in problems.found} == {
        "pipe.png": "expected a regular file. Received: a named pipe",
        "pipe.mp4": "expected a regular file. Received: a named pipe",
        "folder.png": "expected a regular file. Received: a folder",
        "endless.png": "expected a regular file. Received: a device",
        "loop.png": f"[Errno 40] Too many levels of symbolic links: '{strange / 'loop.png'}'",
    }


def test_a_video_whose_name_is_no_text_is_read(photos, detector, tmp_path):
    clip = Path(os.fsdecode(os.fsencode(photos) + b"/\xfe.avi"))
    (photos / "clip.avi").rename(clip)
    [done] = folders.detect_into(detector, [clip], tmp_path / "out").videos
    assert (done.output.name, done.frames) == ("_.mp4", 5)
    assert json.loads((tmp_path / "out/_.json").read_text())["video"] == clip.as_posix()


@pytest.mark.parametrize(
    "file",
    [
        "../../secret",
        "../secret",
        "/tmp/secret",
        "..",
        "",
        "a/b.png",
        "a\\b.png",
        "C:x",
        "\0",
        ".lock",
        "journal.jsonl",
        "detections.json",
        "x" * 300,
        "\ud800",
        None,
        1,
        ["a"],
    ],
)
def test_a_journal_that_names_a_file_elsewhere_is_damaged(photos, detector, tmp_path, file):
    out, secret = tmp_path / "deep/out", tmp_path / "secret"
    secret.write_text("mine")
    folders.detect_into(detector, [photos / "0.png"], out)
    row = {"name": (photos / "1.png").as_posix(), "stamp": None, "file": file, "detections": []}
    with (out / "journal.jsonl").open("a") as journal:
        journal.write(json.dumps(row) + "\n")
    with pytest.raises(
        ValueError, match=r"journal\.jsonl:3: damaged, or no journal\. Name another"
    ):
        folders.detect_into(detector, [photos / "1.png"], out)
    folders.detect_into(detector, [photos / "1.png"], out, restart=True)
    assert listed(out) == {(photos / "1.png").as_posix()}
    assert secret.read_text() == "mine"
    assert {path.name for path in tmp_path.iterdir()} == {"deep", "secret", "photos"}


def test_links_in_the_output_are_replaced_and_not_followed(photos, detector, tmp_path):
    out = tmp_path / "out"
    named = [photos / "0.png", photos / "clip.avi"]
    folders.detect_into(detector, named, out)
    written = ["0.png", "clip.mp4", "clip.json", "detections.json"]
    for name in written:
        (out / name).unlink()
        (tmp_path / f"elsewhere-{name}").write_text("mine")
        (out / name).symlink_to(tmp_path / f"elsewhere-{name}")
    (photos / "0.png").touch()
    (photos / "clip.avi").touch()
    folders.detect_into(detector, named, out)
    for name in written:
        assert (tmp_path / f"elsewhere-{name}").read_text() == "mine"
        assert not (out / name).is_symlink()
    (out / "journal.jsonl").rename(tmp_path / "journal")
    (out / "journal.jsonl").symlink_to(tmp_path / "new")
    with pytest.raises(
        OSError, match=r"journal\.jsonl: expected a regular file\. Received: a link"
    ):
        folders.detect_into(detector, named, out)
    assert not (tmp_path / "new").exists()


def test_a_second_process_is_refused(photos, detector, tmp_path):
    (tmp_path / "out").mkdir()
    with files.locked(tmp_path / "out", "writes into"):
        with pytest.raises(ValueError, match="another process writes into this folder"):
            folders.detect_into(detector, [photos], tmp_path / "out")


def test_restart_deletes_what_was_written_and_nothing_else(photos, detector, tmp_path):
    out = tmp_path / "out"
    folders.detect_into(detector, [photos / "0.png", photos / "clip.avi"], out)
    (out / "mine.png").touch()
    folders.detect_into(detector, [photos / "clip.avi"], out, restart=True)
    names = {path.name for path in out.iterdir()}
    assert names == {"mine.png", "clip.mp4", "clip.json", ".lock", "journal.jsonl"}


def test_rows_that_lack_facts_are_done_again(photos, detector, tmp_path):
    out = tmp_path / "out"
    named = [photos / "0.png", photos / "clip.avi"]
    folders.detect_into(detector, named, out)
    lines = (out / "journal.jsonl").read_text().splitlines()
    rows = [{k: v for k, v in json.loads(line).items() if k != "detections"} for line in lines]
    rows[-1]["frames"] = "many"
    (out / "journal.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    again = folders.detect_into(detector, named, out)
    assert (again.images.earlier, again.images.objects, again.videos[0].frames) == (0, 1, 5)


def test_images_of_one_name_take_linear_work(detector, tmp_path, monkeypatch):
    count, looked = 150, 0
    for number in range(count):
        (tmp_path / f"in/{number}").mkdir(parents=True)
        photo(tmp_path / f"in/{number}/a.png")

    def exists(path):
        nonlocal looked
        looked += 1
        return lexists(path)

    lexists = os.path.lexists
    monkeypatch.setattr(os.path, "lexists", exists)
    assert (
        folders.detect_into(detector, [tmp_path / "in"], tmp_path / "out").images.objects == count
    )
    assert looked < 3 * count


def test_a_larger_budget_takes_up_the_images_that_were_refused(photos, shown, tmp_path):
    (photos / "broken.png").unlink()
    cv2.imwrite(str(photos / "large.png"), np.full((60, 70, 3), 90, np.uint8))

    def find(image):
        shown.append(image.shape[:2])
        return Detections([], [], [], image.shape[:2])

    def detector(most):
        return Detector(find, ("object",), DecodeConfig(max_pixels=most))

    problems = Problems()
    summary = folders.detect_into(detector(2000), [photos], tmp_path / "out", problems=problems)
    assert summary.images.broken == 1
    assert "raise max_pixels" in problems.found[0].message
    shown.clear()
    summary = folders.detect_into(detector(5000), [photos], tmp_path / "out")
    assert summary.images.broken == 0
    assert shown == [(60, 70)]


@pytest.mark.skipif(sys.platform == "win32", reason="has no limits of the length of files")
@pytest.mark.parametrize("length", [10, 100])  # of the journal: within the settings, and after them
def test_a_full_disk_is_an_error_with_the_name_of_the_journal(tmp_path, length):
    import resource

    path, limits_before = tmp_path / "journal.jsonl", resource.getrlimit(resource.RLIMIT_FSIZE)
    row = {"name": "a.png", "file": "a.png", "detections": [0] * 1000}
    resource.setrlimit(resource.RLIMIT_FSIZE, (length, limits_before[1]))
    try:
        with pytest.raises(OSError, match=r"File too large: .*journal\.jsonl"):
            with journal.Journal(path, {"weights": "0" * 20}) as opened:
                opened.add(row)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits_before)
    with journal.Journal(path, {"weights": "0" * 20}) as opened:  # goes on
        assert opened.get("a.png") is None
        opened.add(row)
    with journal.Journal(path, {"weights": "0" * 20}) as opened:
        assert opened.get("a.png") == row
