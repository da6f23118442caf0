import json
import time

import cv2
import numpy as np
import pytest

from tests.helpers.videos import (
    HEIGHT,
    RATE,
    WIDTH,
    damage,
    find,
    frames_of,
    number_of,
    picture,
    write,
)
from unitbox_tf.detect import video


@pytest.mark.parametrize(("name", "codec"), [("clip.avi", "MJPG"), ("clip.mp4", "mp4v")])
def test_each_frame_comes_once_with_its_time_in_rgb(tmp_path, name, codec):
    with video.Video(write(tmp_path / name, codec=codec)) as opened:
        assert (opened.rate, opened.stated, opened.live) == (RATE, 20, False)
        frames = list(opened)
    assert [frame.index for frame in frames] == list(range(20))
    np.testing.assert_allclose([frame.time for frame in frames], np.arange(20) / RATE, atol=1e-6)
    assert [number_of(frame.image) for frame in frames] == list(range(20))
    assert frames[3].image[..., 2].mean() == pytest.approx(60, abs=6)


@pytest.mark.parametrize("broken", [[0], [7], [18], [0, 1, 5, 6, 7, 12]])
def test_frames_that_cannot_be_decoded_are_told_and_the_others_come(tmp_path, broken):
    path = damage(write(tmp_path / "clip.avi"), broken)
    found = list(find.frames(path))
    assert [frame.index for frame, _ in found] == list(range(20))
    np.testing.assert_allclose([frame.time for frame, _ in found], np.arange(20) / RATE, atol=1e-6)
    for frame, detections in found:
        if frame.index in broken:
            assert frame.image is None
            assert detections is None
        else:
            assert number_of(frame.image) == frame.index == detections.boxes[0, 0]


def test_an_annotated_video_has_every_frame_and_the_json_what_is_in_it(tmp_path):
    path = damage(write(tmp_path / "clip.avi"), [0, 7])
    output = tmp_path / "out" / "seen.mp4"

    def draw(image, detections, class_names):
        assert class_names == ("cat", "dog")
        return image

    summary = find.annotate_video(path, output, draw=draw)
    assert summary == (20, 2, 20, 18)
    assert summary.fault == "2 of 20 frames could not be decoded"
    frames, rate = frames_of(output)
    assert rate == RATE
    # In place of the first that is missing is the one after it, then the one before it.
    assert [number_of(frame) for frame in frames] == [1, *range(1, 7), 6, *range(8, 20)]
    content = json.loads((tmp_path / "out" / "seen.json").read_text())
    assert content["video"] == path.as_posix()
    assert content["categories"] == [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    assert (content["width"], content["height"]) == (WIDTH, HEIGHT)
    assert (content["num_frames"], content["num_broken"], content["num_stated"]) == (20, 2, 20)
    for number, frame in enumerate(content["frames"]):
        assert frame["index"] == number
        assert frame["time"] == pytest.approx(number / RATE)
        if number in (0, 7):
            assert frame["error"] == "cannot be decoded"
            assert "detections" not in frame
        else:
            [row] = frame["detections"]
            assert row == {"category_id": 2, "bbox": [number, 1, 40 - number, 30], "score": 0.75}
    assert {file.name for file in output.parent.iterdir()} == {"seen.mp4", "seen.json"}


def test_detections_are_drawn(tmp_path):
    find.annotate_video(write(tmp_path / "clip.avi", 2), tmp_path / "seen.mp4")
    frames, _ = frames_of(tmp_path / "seen.mp4")
    assert np.abs(frames[0].astype(int) - picture(0)).max() > 100


def test_pictures_of_odd_and_changing_sizes_are_written(tmp_path):
    def draw(image, *rest):
        return image[:-1, :-1] if number_of(image) < 3 else image

    find.annotate_video(write(tmp_path / "clip.avi", 5), tmp_path / "seen.mp4", draw=draw)
    assert [number_of(frame) for frame in frames_of(tmp_path / "seen.mp4")[0]] == list(range(5))


def test_a_video_that_is_cut_off_gives_what_it_has_and_says_so(tmp_path):
    path = write(tmp_path / "clip.avi")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])
    summary = find.annotate_video(path, tmp_path / "seen.mp4")
    assert 0 < summary.frames < 19
    assert summary.fault == f"ends after {summary.frames} of the 20 frames that the file states"
    assert len(frames_of(tmp_path / "seen.mp4")[0]) == summary.frames


def test_what_goes_wrong_leaves_finished_files_as_they_are(tmp_path):
    path, output = write(tmp_path / "clip.avi"), tmp_path / "out" / "seen.mp4"
    find.annotate_video(path, output)
    before = {file.name: file.read_bytes() for file in output.parent.iterdir()}

    def interrupted(image, *rest):
        if number_of(image) == 5:
            raise KeyboardInterrupt
        return image

    with pytest.raises(KeyboardInterrupt):
        find.annotate_video(path, output, draw=interrupted)
    damage(path, list(range(20)))
    with pytest.raises(ValueError, match=r"clip\.avi: no frame could be decoded"):
        find.annotate_video(path, output)
    assert {file.name: file.read_bytes() for file in output.parent.iterdir()} == before


def test_a_video_that_was_not_written_to_its_end_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(video._Writer, "_put", lambda self, picture: _lose_one(self, picture))
    with pytest.raises(OSError, match="19 of 20 frames were written: is the disk full"):
        find.annotate_video(write(tmp_path / "clip.avi"), tmp_path / "seen.mp4")
    assert [file.name for file in tmp_path.iterdir()] == ["clip.avi"]


def _lose_one(writer, picture):
    writer._written += 1
    if writer._written != 9:
        writer._writer.write(np.ascontiguousarray(picture[..., ::-1]))


def test_what_is_no_video_is_named(tmp_path):
    (tmp_path / "notes.mp4").write_text("no video")
    with pytest.raises(ValueError, match=r"notes\.mp4: expected a video that OpenCV can read"):
        find.frames(tmp_path / "notes.mp4")
    with pytest.raises(FileNotFoundError):
        find.frames(tmp_path / "gone.mp4")
    with pytest.raises(ValueError, match="nothing is downloaded"):
        find.frames("rtsp://example.org/stream")
    with pytest.raises(
        ValueError, match=r"Expected an \.mp4 file to write\. Received: .*seen\.avi"
    ):
        find.annotate_video(write(tmp_path / "clip.avi", 2), tmp_path / "seen.avi")


class Webcam:
    """A webcam as OpenCV shows it: an image every 0.05 s, one of them lost, until it is pulled out."""

    count = 12

    def __init__(self, source):
        assert source == 3
        self.taken = 0

    def isOpened(self):
        return True

    def get(self, what):
        return {cv2.CAP_PROP_FPS: 0.0, cv2.CAP_PROP_FRAME_COUNT: -1.0}[what]

    def grab(self):
        time.sleep(0.05)
        self.taken += 1
        return self.taken <= self.count and self.taken != 4

    def retrieve(self):
        return True, picture(self.taken)[..., ::-1]

    def release(self):
        pass


@pytest.fixture
def webcam(monkeypatch):
    opened = cv2.VideoCapture
    monkeypatch.setattr(
        cv2, "VideoCapture", lambda source: (opened if isinstance(source, str) else Webcam)(source)
    )


def test_a_webcam_is_seen_until_it_gives_nothing_more(tmp_path, webcam):
    frames = [frame for frame, _ in find.frames(3)]
    assert [frame.index for frame in frames] == list(range(12))
    assert [frame.index for frame in frames if frame.image is None] == [3]
    times = [frame.time for frame in frames]
    assert times == sorted(times)
    assert times[-1] >= 11 * 0.05


def test_ctrl_c_ends_a_webcam_and_keeps_what_was_seen(tmp_path, webcam):
    def draw(image, *rest):
        if number_of(image) == 10:
            raise KeyboardInterrupt
        return image

    summary = find.annotate_video(3, tmp_path / "seen.mp4", draw=draw)
    assert (summary.frames, summary.broken, summary.stated) == (9, 1, None)
    content = json.loads((tmp_path / "seen.json").read_text())
    assert content["video"] == "webcam 3"
    assert len(content["frames"]) == 9
    # At the speed of life: as many images as the time of the last asks for.
    frames, rate = frames_of(tmp_path / "seen.mp4")
    assert rate == video.LIVE_RATE
    assert len(frames) in range(int(content["frames"][-1]["time"] * rate), 12)


def test_a_webcam_that_is_absent_is_named():
    with pytest.raises(OSError, match="webcam 97: cannot be opened"):
        find.frames(97)
