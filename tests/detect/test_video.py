import json
import socket
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.videos import (
    HEIGHT,
    RATE,
    WIDTH,
    damage,
    find,
    frames_of,
    number_of,
    picture,
    shown,
    sounds,
    write,
    write_timed,
)
from unitbox_tf.detect import video, video_reading, video_writing


@pytest.mark.parametrize(("name", "codec"), [("clip.avi", "MJPG"), ("clip.mp4", "mp4v")])
def test_each_frame_comes_once_with_its_time_in_rgb(tmp_path, name, codec):
    with video.Video(write(tmp_path / name, codec=codec)) as opened:
        assert (opened.expected, opened.live) == (20, False)
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
    assert summary == (20, 2, 2.0, None, 18)
    assert summary.fault == "2 of 20 frames could not be decoded"
    frames, rate = frames_of(output)
    assert rate == RATE
    # In place of the first that is missing is the one after it, then the one before it.
    assert [number_of(frame) for frame in frames] == [1, *range(1, 7), 6, *range(8, 20)]
    content = json.loads((tmp_path / "out" / "seen.json").read_text())
    assert content["video"] == path.as_posix()
    assert content["categories"] == [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    assert (content["width"], content["height"]) == (WIDTH, HEIGHT)
    assert (content["num_frames"], content["num_broken"]) == (20, 2)
    assert (content["seconds"], content["stated_seconds"]) == (2, None)
    for number, frame in enumerate(content["frames"]):
        assert frame["index"] == number
        assert frame["time"] == pytest.approx(number / RATE)
        if number in (0, 7):
            assert frame["error"] == "cannot be decoded"
            assert "detections" not in frame
        else:
            [row] = frame["detections"]
            box = [number, 1, 40 - number, 30]
            dog = {"category_id": 2, "category_name": "dog"}
            assert row == {**dog, "bbox": box, "score": 0.75}
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
    seconds = summary.frames / RATE
    assert (summary.seconds, summary.stated) == (pytest.approx(seconds), 2)
    assert summary.fault == f"ends after {seconds:.2f} of the 2.00 seconds that the file states"
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
    put = video_writing.Writer.put

    def lose_one(writer, picture, time):
        if writer.count == 9:
            writer.count += 1
        else:
            put(writer, picture, time)

    monkeypatch.setattr(video_writing.Writer, "put", lose_one)
    with pytest.raises(OSError, match="19 of 20 frames were written: is the disk full"):
        find.annotate_video(write(tmp_path / "clip.avi"), tmp_path / "seen.mp4")
    assert [file.name for file in tmp_path.iterdir()] == ["clip.avi"]


def test_what_is_no_video_is_named(tmp_path):
    (tmp_path / "notes.mp4").write_text("no video")
    with pytest.raises(ValueError, match=r"notes\.mp4: expected a video that FFmpeg can read"):
        find.frames(tmp_path / "notes.mp4")
    with pytest.raises(FileNotFoundError):
        find.frames(tmp_path / "gone.mp4")
    with pytest.raises(ValueError, match="nothing is downloaded"):
        find.frames("https://example.org/clip.mp4")
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
    # At the speed of life: each image is shown when it came.
    times = [frame["time"] for frame in content["frames"]]
    written, end = shown(tmp_path / "seen.mp4")
    np.testing.assert_allclose(written, np.array(times) - times[0], atol=2e-3)
    assert end == pytest.approx(content["seconds"] - times[0], abs=2e-3)


def test_a_webcam_that_is_absent_is_named():
    with pytest.raises(OSError, match="webcam 97: cannot be opened"):
        find.frames(97)


CASES = Path(__file__).parents[1] / "data/cases/videos"


@pytest.mark.parametrize(
    ("name", "frames", "seconds"),
    [("mediarecorder.webm", 30, 1.225), ("vfr.mkv", 12, 2.08), ("vfr.webm", 12, 2.08)],
)
def test_recordings_of_a_variable_rate_play_as_long_as_before(tmp_path, name, frames, seconds):
    summary = find.annotate_video(CASES / name, tmp_path / "seen.mp4")
    assert (summary.frames, summary.fault) == (frames, None)
    assert summary.seconds == pytest.approx(seconds, abs=1e-3)
    before, _ = shown(CASES / name)
    after, end = shown(tmp_path / "seen.mp4")
    np.testing.assert_allclose(after, before, atol=1e-3)
    assert end == pytest.approx(seconds, abs=1e-3)
    content = json.loads((tmp_path / "seen.json").read_text())
    np.testing.assert_allclose([frame["time"] for frame in content["frames"]], before, atol=1e-4)


gaps = st.lists(st.integers(1, 400), min_size=1, max_size=12)
ticks = st.sampled_from(
    [("mkv", Fraction(1, 1000)), ("mp4", Fraction(1, 12_800)), ("mp4", Fraction(1, 30_000))]
)


@settings(max_examples=25)
@given(gaps=gaps, form=ticks, begin=st.integers(0, 900), last=st.integers(1, 400))
def test_each_frame_keeps_its_time_to_a_tick(gaps, form, begin, last, tmp_path_factory):
    folder = tmp_path_factory.mktemp("timed")
    suffix, tick = form
    at = [begin, *(begin + np.cumsum(gaps)).tolist()]
    path = write_timed(folder / f"clip.{suffix}", at, tick, last=last)
    summary = find.annotate_video(path, folder / "seen.mp4")
    assert summary.fault is None
    times, end = shown(folder / "seen.mp4")
    unit = float(tick)
    np.testing.assert_allclose(times, [(a - begin) * unit for a in at], atol=unit / 2)
    if suffix == "mp4":  # Matroska holds no duration of a frame that is as long as most
        assert end == pytest.approx((at[-1] + last - begin) * unit, abs=unit)


@pytest.mark.parametrize(
    ("suffix", "codec", "sound", "kept"),
    [
        ("mp4", "mpeg4", "aac", "aac"),
        ("ts", "mpeg2video", "aac", "aac"),
        ("avi", "mpeg4", "mp3", "mp3float"),
        ("mkv", "mpeg4", "libopus", "opus"),
        ("mov", "mpeg4", "pcm_s16le", "aac"),
        ("mkv", "mpeg4", "flac", "aac"),
    ],
)
def test_sound_is_kept(tmp_path, caplog, suffix, codec, sound, kept):
    path = write_timed(tmp_path / f"clip.{suffix}", range(25), Fraction(1, 25), codec, sound)
    find.annotate_video(path, tmp_path / "seen.mp4")
    times, end = shown(tmp_path / "seen.mp4")
    assert (len(times), end) == (25, pytest.approx(shown(path)[1], abs=1e-3))
    assert not caplog.messages
    [(name, seconds)] = sounds(tmp_path / "seen.mp4")
    assert (name, seconds) == (kept, pytest.approx(1, abs=0.1))


def test_time_stamps_that_begin_anew_go_on(tmp_path):
    clock = video_reading._Clock(Fraction(1, 1000), 25)
    stamps = [(5000, 40), (5040, 40), (5040, 40), (None, 0), (10, 30), (50, 40)]
    assert [clock.time(*stamp) for stamp in stamps] == [0, 40, 41, 81, 121, 161]
    assert clock.end == 201


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_frames_are_turned_as_opencv_turns_them(tmp_path, degrees):
    path = tmp_path / "clip.mp4"
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    image[: HEIGHT // 2, : WIDTH // 2] = 255
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    matrices = {
        0: (1, 0, 0, 1), 90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0),
    }  # fmt: skip
    content = path.read_bytes()
    place = content.index(b"tkhd") + 44

    def rows(a, b, c, d):
        values = [a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30]
        return b"".join((value % (1 << 32)).to_bytes(4, "big") for value in values)

    assert content[place : place + 36] == rows(1, 0, 0, 1)
    path.write_bytes(content[:place] + rows(*matrices[degrees]) + content[place + 36 :])
    [(frame, _)] = find.frames(path)
    expected = frames_of(path)[0][0]
    assert frame.image.shape == expected.shape
    assert np.abs(frame.image.astype(int) - expected).mean() < 10
    assert (frame.image.shape[0] > frame.image.shape[1]) == (degrees in (90, 270))


def test_gaps_in_sound_become_silence(tmp_path):
    path = write_timed(tmp_path / "clip.mkv", range(50), Fraction(1, 25), sound="flac", pause=0.5)
    find.annotate_video(path, tmp_path / "seen.mp4")
    [(_, seconds)] = sounds(tmp_path / "seen.mp4")
    assert seconds == pytest.approx(1.5, abs=0.1)
    with av.open(str(tmp_path / "seen.mp4")) as container:
        loud = np.concatenate([np.abs(f.to_ndarray()[0]) for f in container.decode(audio=0)])
    rate = 48_000
    assert loud[: rate // 3].max() > 0.1
    assert loud[round(0.6 * rate) : round(0.9 * rate)].max() < 0.01
    assert loud[round(1.1 * rate) : round(1.4 * rate)].max() > 0.1


def test_a_stream_gives_the_newest_frames_and_names_no_password(tmp_path, monkeypatch):
    path = write_timed(tmp_path / "clip.mkv", range(0, 4000, 40), Fraction(1, 1000))
    monkeypatch.setattr(video_reading, "_container", lambda address, **options: av.open(str(path)))
    with video.Video("rtsp://me:secret@camera/live") as opened:
        assert (opened.live, opened.name) == (True, "rtsp://camera/live")
        times = []
        for frame in opened:
            times.append(frame.time)
            time.sleep(0.05)
    assert times == sorted(times)
    assert len(times) < 50
    assert times[-1] == pytest.approx(3.96)


def test_a_stream_that_is_left_early_is_closed(tmp_path, monkeypatch):
    path = write_timed(tmp_path / "clip.mkv", range(0, 4000, 40), Fraction(1, 1000))
    monkeypatch.setattr(video_reading, "_container", lambda address, **options: av.open(str(path)))
    with video.Video("rtsp://camera/live") as opened:
        next(iter(opened))
    assert not opened.source._reader.is_alive()


def test_a_stream_that_cannot_be_opened_is_named_without_its_password():
    with pytest.raises(OSError, match=r"^rtsp://127\.0\.0\.1:9/live: cannot be opened: ") as error:
        find.frames("rtsp://me:secret@127.0.0.1:9/live")
    assert error.value.__cause__ is None


PUSH = """
import sys, time, av, numpy as np
for attempt in range(50):
    try:
        container = av.open(sys.argv[1], "w", format="rtsp", options={"rtsp_transport": "tcp"})
        stream = container.add_stream("mpeg4", rate=20)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        container.start_encoding()
        break
    except av.error.FFmpegError:
        time.sleep(0.1)
for number in range(40):
    frame = av.VideoFrame.from_ndarray(np.zeros((64, 96, 3), np.uint8), format="rgb24")
    container.mux(stream.encode(frame))
    time.sleep(0.05)
container.close()
"""


@pytest.mark.slow
def test_a_camera_of_the_network_is_recorded_at_the_speed_of_life(tmp_path, monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"rtsp://127.0.0.1:{free.getsockname()[1]}/live"
    opened = video_reading._container
    # FFmpeg is no server of RTSP, but can wait for a camera that pushes.
    listen = {"rtsp_flags": "listen", "listen_timeout": "20", "rtsp_transport": "tcp"}
    monkeypatch.setattr(
        video_reading,
        "_container",
        lambda name, **more: opened(name, **{**more, "options": listen}),
    )
    camera = subprocess.Popen([sys.executable, "-c", PUSH, address])
    try:
        summary = find.annotate_video(address, tmp_path / "seen.mp4")
    finally:
        camera.kill()
        camera.wait()
    assert summary.frames > 5
    assert summary.seconds == pytest.approx(2, abs=0.3)
