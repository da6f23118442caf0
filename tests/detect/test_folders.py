import cv2
import numpy as np
import pytest

from tests.helpers import videos
from unitbox_tf import images
from unitbox_tf.config import DecodeConfig
from unitbox_tf.detect import folders
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
    assert names == {"0.png", "detections.json", "journal.jsonl", ".partial-mine"}


def test_a_stream_is_an_input_whose_password_is_not_written(tmp_path):
    address = "rtsp://me:secret@127.0.0.1:9/live"
    assert folders.find([address], tmp_path / "out") == ([], [address])
    summary = folders.detect_into(videos.find, [address], tmp_path / "out")
    assert summary.problems.counts == {"video that cannot be read": 1}
    written = [path.read_text() for path in (tmp_path / "out").iterdir()]
    assert "rtsp://127.0.0.1:9/live" in "".join(written)
    assert "secret" not in "".join(written)


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
