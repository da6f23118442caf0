import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.helpers import videos
from unitbox_tf import cli, files, images, inputs, loading, visualize
from unitbox_tf.batch import job
from unitbox_tf.cli import signals
from unitbox_tf.config import DecodeConfig
from unitbox_tf.detect import detector
from unitbox_tf.problems import Problems
from unitbox_tf.records import Detections


def test_detect_writes_coco_results_and_pictures(untrained_run, photos, tmp_path, capsys):
    out = tmp_path / "out"
    status = cli.main(
        [
            "detect",
            str(untrained_run),
            str(photos),
            "--output",
            str(out),
            "--score-threshold",
            "0.01",
        ]
    )
    assert status == 0
    rows = json.loads((out / "detections.json").read_text())
    assert rows
    for row in rows:
        assert set(row) == {"file_name", "bbox", "score", "category_id", "category_name"}
        x, y, width, height = row["bbox"]
        # The turned image is displayed 60 wide and 96 high.
        right, bottom = (60, 96) if row["file_name"].endswith("turned.jpg") else (96, 96)
        assert 0 <= x <= x + width <= right + 0.01
        assert 0 <= y <= y + height <= bottom + 0.01
        assert row["category_id"] in (1, 2)
    assert {row["file_name"] for row in rows} <= {
        (photos / "a.png").as_posix(),
        (photos / "deep/turned.jpg").as_posix(),
    }
    assert cv2.imread(str(out / "turned.jpg")).shape == (96, 60, 3)
    assert "2 images" in capsys.readouterr().out


def test_detect_goes_on_after_a_broken_photo(untrained_run, photos, tmp_path, capsys, caplog):
    (photos / "b.jpg").write_bytes(b"")
    out = tmp_path / "out"
    assert cli.main(["detect", str(untrained_run), str(photos), "--output", str(out)]) == 1
    assert (
        "b.jpg: expected a JPEG, PNG, BMP, GIF, TIFF or WebP image, received an empty file"
        in caplog.text
    )
    assert "1 of 3 images could not be read" in capsys.readouterr().err
    assert (out / "a.png").is_file()
    assert (out / "detections.json").is_file()


def test_a_lower_threshold_is_proposed_where_nothing_is_found(
    untrained_run, photos, tmp_path, capsys
):
    detect = ["detect", str(untrained_run), str(photos), "--output", str(tmp_path / "out")]
    assert cli.main([*detect, "--score-threshold", "1"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("0 objects in 2 images: ")
    assert printed[1:] == [
        "no object has a score of at least 1: a lower --score-threshold finds more"
    ]


def test_detect_never_overwrites_photos(untrained_run, photos, tmp_path):
    before = (photos / "a.png").read_bytes()
    other = photos / "deep" / "a.png"
    other.write_bytes(before)
    detect = ["detect", str(untrained_run), str(photos)]
    assert cli.main([*detect, "--output", str(photos)]) == 1  # the images' own folder
    inside = photos / "found"
    # Later, images of the first time are not searched, and those of a new beginning replace them.
    for more in ([], [], ["--restart"]):
        assert cli.main([*detect, "--output", str(inside), *more]) == 0
        names = {"a.png", "a-2.png", "turned.jpg", "detections.json", "journal.jsonl"}
        assert {p.name for p in inside.iterdir()} - {files.LOCK_FILE} == names
    assert cli.main(["detect", str(untrained_run), str(other), "--output", str(other.parent)]) == 0
    assert other.read_bytes() == before
    assert (other.parent / "a-2.png").is_file()


def test_detect_takes_photos_of_any_name(untrained_run, photos, tmp_path):
    for name, written in (("photo.jfif", "photo.jfif"), ("photo", "photo.jpg")):
        (tmp_path / name).write_bytes((photos / "deep" / "turned.jpg").read_bytes())
        out = tmp_path / "out"
        assert (
            cli.main(["detect", str(untrained_run), str(tmp_path / name), "--output", str(out)])
            == 0
        )
        assert (out / written).is_file()


def test_detect_says_what_is_missing(untrained_run, tmp_path, capsys):
    empty = tmp_path / "empty"
    empty.mkdir()
    out = ["--output", str(tmp_path / "out")]
    assert cli.main(["detect", str(tmp_path / "gone"), "x.jpg", *out]) == 1
    assert "gone: no such file or folder. Expected a run's folder" in capsys.readouterr().err
    assert cli.main(["detect", str(untrained_run), str(empty), *out]) == 1
    assert "no JPEG, PNG, BMP, GIF, TIFF or WebP file in this folder" in capsys.readouterr().err
    assert cli.main(["detect", str(untrained_run), "https://example.org/a.jpg", *out]) == 1
    assert "nothing is downloaded. Received: https://example.org/a.jpg" in capsys.readouterr().err


# `unitbox detect` with a detector that takes no time, finds one object in each image, and keeps a list of
# what it was asked for. Images have a width of their own, by which it knows them. At the width in
# STOP_AT, it ends like a kill. The memory in use at the 100th image and at the last is printed.
QUICK_DETECT = """
import os, resource, signal, sys
import numpy as np
from unitbox_tf import cli, loading
from unitbox_tf.detect import detector
from unitbox_tf.problems import Problems
from unitbox_tf.config import DecodeConfig
from unitbox_tf.records import Detections

memory = []

def find(image):
    with open(os.environ["ASKED"], "a") as file:
        file.write(f"{image.shape[1]}\\n")
    if str(image.shape[1]) == os.environ.get("STOP_AT"):
        os.kill(os.getpid(), signal.SIGKILL)
    memory.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    box = np.float32([[1, 2, 11, 2 + image.shape[1] % 40 + 1]])
    return Detections(box, np.float32([0.5]), np.int32([0]), image.shape[:2])

loading.load = lambda path, **changes: detector.Detector(find, ("object",), DecodeConfig())
status = cli.main(sys.argv[1:])
print("grown by", memory[-1] - memory[min(100, len(memory) - 1)], "KiB")
sys.exit(status)
"""


def interrupted_and_continued(folder, count, height):
    """Runs the command on `count` images, three of them broken, twice: the first time, it is killed half-way.

    Returns:
        The widths of the images that each run was shown, what the second printed, and its status.
    """
    (folder / "photos").mkdir()
    broken = (3, count // 2 + 2, count - 1)
    for number in range(count):
        image = np.full((height, 50 + number, 3), number % 251, np.uint8)
        encoded = cv2.imencode(".jpg", image)[1].tobytes()
        content = encoded[: len(encoded) // 3] if number in broken else encoded
        (folder / "photos" / f"{number:04}.jpg").write_bytes(content)
    (folder / "weights").touch()
    command = [
        sys.executable,
        "-c",
        QUICK_DETECT,
        "detect",
        "./weights",
        "photos",
        "--output",
        "out",
    ]
    shown, results = [], []
    for stop_at in (50 + count // 2, None):
        settings = {"ASKED": str(folder / "asked"), "PYTHONPATH": str(Path(__file__).parents[2])}
        environment = {**os.environ, **settings, "STOP_AT": str(stop_at)}
        results.append(
            subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        )
        shown.append([int(line) for line in (folder / "asked").read_text().split()])
        (folder / "asked").unlink()
    assert results[0].returncode == -signal.SIGKILL, results[0].stderr
    # Only the image at which it was killed is shown again.
    assert shown[0] == [50 + n for n in range(count // 2 + 1) if n not in broken]
    assert shown[1] == [50 + n for n in range(count // 2, count) if n not in broken]
    rows = json.loads((folder / "out" / "detections.json").read_text())
    good = [number for number in range(count) if number not in broken]
    assert [row["file_name"] for row in rows] == [f"photos/{n:04}.jpg" for n in good]
    assert [row["bbox"][3] for row in rows] == [(50 + n) % 40 + 1 for n in good]
    pictures = {path.name for path in (folder / "out").glob("*.jpg")}
    assert pictures == {f"{n:04}.jpg" for n in good}
    assert [path.name for path in (folder / "out").glob(".*")] in ([], [files.LOCK_FILE])
    assert results[1].returncode == 1
    errors = results[1].stderr
    assert f"3 of {count} images could not be read" in errors
    listed = (folder / "out" / "problems.txt").read_text().splitlines()
    assert len(listed) == 3
    for number, line in zip(broken, listed, strict=True):
        assert f"photos/{number:04}.jpg: the file is cut off: " in line
        assert f"photos/{number:04}.jpg: the file is cut off: " in errors
    return results[1].stdout + errors


@pytest.mark.slow
def test_detect_goes_on_after_it_was_killed(tmp_path):
    printed = interrupted_and_continued(tmp_path, 30, 40)
    assert "14 of 30 images were done before" in printed
    assert "27 objects in 27 images" in printed


@pytest.mark.slow
def test_detect_takes_a_thousand_photos_in_the_memory_of_a_few(tmp_path):
    printed = interrupted_and_continued(tmp_path, 1000, 600)
    assert "499 of 1000 images were done before" in printed
    assert "997 objects in 997 images" in printed
    assert len(printed.splitlines()) < 15
    # Of the last 400 images, 750 to 1,050 pixels wide, a single one held takes 1,600 KiB.
    assert int(printed.split("grown by ")[1].split()[0]) < 50_000


@pytest.fixture
def quick(tmp_path, monkeypatch):
    """`run(inputs, **decode)`: the command in a folder of four images, with a detector that takes no time.

    Returns the names of the images that it was shown.
    """
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    (tmp_path / "weights").touch()
    widths = {f"{number}.png": 50 + number for number in range(4)}
    for name, width in widths.items():
        cv2.imwrite(f"photos/{name}", np.full((40, width, 3), 90, np.uint8))

    def run(*inputs, status=0, **decode):
        shown = []

        def find(image):
            shown.append(image.shape[1])
            box = np.float32([[1, 2, 11, 22]])
            return Detections(box, np.float32([0.5]), np.int32([0]), image.shape[:2])

        model = detector.Detector(find, ("object",), DecodeConfig(**decode))
        monkeypatch.setattr(loading, "load", lambda path, **changes: model)
        assert cli.main(["detect", "./weights", "--output", "out", *inputs]) == status
        return [width - 50 for width in shown]

    return run


def results_of(folder="out"):
    rows = json.loads(Path(folder, "detections.json").read_text())
    return [row["file_name"] for row in rows]


def test_detect_does_what_is_new_and_what_has_changed(quick, caplog):
    assert quick("photos/0.png", "photos/1.png") == [0, 1]
    assert quick("photos") == [2, 3]
    assert "2 of 4 images were done before" in caplog.text
    assert quick("photos") == []
    assert results_of() == [f"photos/{n}.png" for n in range(4)]
    cv2.imwrite("photos/1.png", np.full((40, 59, 3), 90, np.uint8))
    Path("out/2.png").unlink()
    assert quick("photos") == [9, 2]
    assert cv2.imread("out/1.png").shape == (40, 59, 3)
    assert results_of() == [f"photos/{n}.png" for n in range(4)]
    # What is found is what the command names, whatever was done before.
    assert quick("photos/3.png") == []
    assert results_of() == ["photos/3.png"]


def test_detect_tries_broken_photos_again(quick, capsys):
    whole = Path("photos/1.png").read_bytes()
    Path("photos/1.png").write_bytes(whole[:50])
    assert quick("photos", "photos/gone.png", status=1) == [0, 2, 3]
    assert "2 of 5 images could not be read" in capsys.readouterr().err
    listed = Path("out/problems.txt").read_text().splitlines()
    assert [line.split("\t")[1].split(":")[0] for line in listed] == [
        "photos/1.png",
        "photos/gone.png",
    ]
    Path("photos/1.png").write_bytes(whole)
    assert quick("photos") == [1]
    assert not Path("out/problems.txt").exists()
    # One that was whole and is broken now has no results.
    Path("photos/1.png").write_bytes(whole[:50])
    assert quick("photos", status=1) == []
    assert results_of() == [f"photos/{n}.png" for n in (0, 2, 3)]


def test_detect_does_a_photo_once_however_it_is_named(quick):
    assert quick("photos/2.png", "photos/[1-2].png", "./photos", "photos") == [2, 1, 0, 3]
    assert len(results_of()) == 4


def test_detect_does_not_mix_results_of_other_settings(quick, capsys):
    quick("photos")
    before = Path("out/detections.json").read_bytes()
    assert quick("photos", status=1, score_threshold=0.25, scales=(1.0, 2.0)) == []
    error = capsys.readouterr().err
    assert (
        "out: the folder has results of other settings: scales was [1.0], is now [1.0, 2.0]; score_threshold was 0.5"
        in error
    )
    assert "or begin anew there with restart (--restart)" in error
    assert Path("out/detections.json").read_bytes() == before
    Path("weights").write_bytes(b"of another model")
    quick("photos", status=1)
    assert "out: the folder has results of other settings: weights was " in capsys.readouterr().err
    Path("out/mine.png").write_bytes(b"mine")
    assert quick("photos/1.png", "--restart", score_threshold=0.25) == [1]
    names = {path.name for path in Path("out").iterdir()} - {files.LOCK_FILE}
    assert names == {"1.png", "mine.png", "detections.json", "journal.jsonl"}


def test_detect_overwrites_nothing_that_it_has_not_written(quick):
    Path("out").mkdir()
    Path("out/1.png").write_bytes(b"mine")
    for more in ([], ["--restart"]):
        assert quick("photos", *more) == [0, 1, 2, 3]
        assert Path("out/1.png").read_bytes() == b"mine"
        assert Path("out/1-2.png").is_file()
        assert not Path("out/1-3.png").exists()


@pytest.mark.parametrize("cut", [1, 30])
def test_detect_drops_the_end_of_a_journal_that_was_cut_off(quick, cut):
    quick("photos")
    journal = Path("out/journal.jsonl")
    journal.write_bytes(journal.read_bytes()[:-cut])
    assert quick("photos") == [3]
    assert len(results_of()) == 4
    assert quick("photos") == []


def test_detect_names_a_damaged_journal(quick, capsys):
    quick("photos")
    lines = Path("out/journal.jsonl").read_bytes().splitlines(keepends=True)
    Path("out/journal.jsonl").write_bytes(b"".join([*lines[:2], b"damage\n", *lines[3:]]))
    quick("photos", status=1)
    assert "journal.jsonl:3: damaged, or no journal. Name another" in capsys.readouterr().err
    assert quick("photos", "--restart") == [0, 1, 2, 3]


def test_what_ctrl_c_stops_is_gone_on_with(quick, monkeypatch, capsys):

    def interrupted(image, path):
        if path.name.endswith("-2.png"):
            raise KeyboardInterrupt
        save_image(image, path)

    save_image = images.save_image
    monkeypatch.setattr(images, "save_image", interrupted)
    assert quick("photos", status=signals.INTERRUPTED) == [0, 1, 2]
    assert "the same command goes on with the remaining inputs" in capsys.readouterr().err
    monkeypatch.setattr(images, "save_image", save_image)
    assert quick("photos") == [2, 3]
    assert len(results_of()) == 4


def test_detect_has_a_line_for_each_of_few_photos_and_none_for_many(quick, capsys, caplog):
    quick("photos")
    assert "photos/3.png: 1 found" in caplog.messages
    assert capsys.readouterr().out == "4 objects in 4 images: out/detections.json\n"
    caplog.clear()
    for number in range(21):
        cv2.imwrite(f"photos/many-{number}.png", np.zeros((40, 50, 3), np.uint8))
    quick("photos")
    assert caplog.messages == ["4 of 25 images were done before"]
    assert capsys.readouterr().out == "25 objects in 25 images: out/detections.json\n"


def test_detect_writes_videos_and_what_is_in_each_frame(quick, capsys, caplog):
    videos.damage(videos.write(Path("photos/detections.avi")), [4])
    videos.write(Path("photos/whole.mp4"), 5, "mp4v")
    assert quick("photos/*.avi", "photos/whole.mp4", "photos/0.png", status=1)[:1] == [0]
    printed = capsys.readouterr()
    # Its json would be that of the images.
    assert "photos/detections.avi: 19 found in 20 frames: out/detections-2.mp4" in printed.out
    assert "photos/detections.avi: 1 of 20 frames could not" in caplog.text
    assert results_of() == ["photos/0.png"]
    content = json.loads(Path("out/detections-2.json").read_text())
    assert [n for n, frame in enumerate(content["frames"]) if "error" in frame] == [4]
    assert len(videos.frames_of("out/whole.mp4")[0]) == 5
    # Done before, with the same to report.
    caplog.clear()
    assert quick("photos/detections.avi", "photos/whole.mp4", status=1) == []
    assert "photos/whole.mp4 was done before" in caplog.text
    assert "photos/detections.avi: 1 of 20 frames could not" in caplog.text
    assert "photos/whole.mp4: 5 found in 5 frames: out/whole.mp4" in capsys.readouterr().out
    assert Path("out/problems.txt").read_text().startswith("damaged video\tphotos/detections.avi")


def test_detect_goes_on_after_a_video_that_is_none(quick):
    Path("photos/notes.mp4").write_text("no video")
    assert quick("photos/notes.mp4", "photos/1.png", "99", status=1) == [1]
    listed = Path("out/problems.txt").read_text()
    assert "video that cannot be read\tphotos/notes.mp4: expected a video that FFmpeg" in listed
    assert "video that cannot be read\twebcam 99: cannot be opened" in listed


def test_a_video_that_was_stopped_is_begun_again_under_its_name(quick, monkeypatch):
    videos.write(Path("clip.avi"), 5)

    annotate = detector.Detector.annotate_video

    def stopped(*arguments, **options):
        annotate(*arguments, **options)  # its files are there, and the journal does not know it
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(detector.Detector, "annotate_video", stopped)
        assert len(quick("clip.avi", status=signals.INTERRUPTED)) == 5
    assert len(quick("clip.avi")) == 5
    names = {path.name for path in Path("out").iterdir()} - {files.LOCK_FILE}
    assert names == {"clip.mp4", "clip.json", "journal.jsonl"}


@pytest.mark.slow
def test_detect_looks_at_tiles_and_blurs(untrained_run, photos, tmp_path):
    large = np.tile(inputs.read_image(photos / "a.png"), (2, 2, 1))
    assert cv2.imwrite(str(tmp_path / "large.png"), large[..., ::-1])
    command = ["detect", str(untrained_run), str(tmp_path / "large.png"), "--output"]
    out = tmp_path / "found"
    assert cli.main([*command, str(out), "--tile", "96", "--blur", "box"]) == 0
    rows = json.loads((out / "detections.json").read_text())
    found = loading.load(untrained_run).tiled(96)(large)
    assert len(rows) == len(found) > len(loading.load(untrained_run)(large))
    drawn = inputs.read_image(out / "large.png")
    np.testing.assert_array_equal(drawn, visualize.blur(large, found.boxes, shape="box"))
    assert cli.main([*command, str(out), "--tile"]) == 1  # other settings
    assert cli.main([*command, str(tmp_path / "other"), "--tile"]) == 0


def test_an_output_that_is_no_folder_and_a_photo_that_is_gone_are_named(
    untrained_run, photos, tmp_path, capsys
):
    command = ["detect", str(untrained_run), "gone.jpg", str(photos / "a.png"), "--output"]
    assert cli.main([*command, str(photos / "a.png")]) == 1
    assert "a.png: expected a folder to write" in capsys.readouterr().err
    assert cli.main([*command, str(tmp_path / "out"), "--tile", "-5"]) == 2
    assert "--tile: expected a whole number of at least 1. Received: -5" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert cli.main([*command, str(tmp_path / "out")]) == 1
    assert "1 of 2 images could not be read" in capsys.readouterr().err
    listed = (tmp_path / "out" / "problems.txt").read_text()
    assert listed.startswith("image that cannot be read\tgone.jpg: [Errno 2]")


def test_what_is_found_lies_in_found(untrained_run, photos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["detect", str(untrained_run), str(photos / "a.png")]) == 0
    assert {path.name for path in (tmp_path / "found").iterdir()} >= {"a.png", "detections.json"}


PIPELINE = ["--workers=2", "--shard-size=5", "--beam-options=a"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        *(([each], f"{each.partition('=')[0]} needs --runner") for each in PIPELINE),
        (["--runner=direct", "--blur"], "--blur writes images, and --runner writes none"),
        (
            ["--runner=flink", "--workers=2"],
            "--workers is for --runner direct; flink takes its own",
        ),
        (["--runner=hadoop"], "invalid choice: 'hadoop'"),
        (["--runner=direct", "--workers=0"], "expected a whole number of at least 1. Received: 0"),
    ],
)
def test_options_of_the_pipeline_that_do_not_go_together_are_refused(
    untrained_run, photos, tmp_path, options, message, capsys
):
    assert cli.main(["detect", str(untrained_run), str(photos), *options]) == 2
    assert message in capsys.readouterr().err


def test_a_pipeline_without_beam_says_what_to_install(
    untrained_run, photos, tmp_path, monkeypatch, capsys
):
    for name in [name for name in sys.modules if name.partition(".")[0] == "apache_beam"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    out = str(tmp_path / "out")
    assert (
        cli.main(["detect", str(untrained_run), str(photos), "--output", out, "--runner=direct"])
        == 1
    )
    expected = "unitbox detect --runner needs apache_beam: pip install 'unitbox_tf[beam]'"
    assert expected in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("broken", [False, True])
def test_a_pipeline_is_run_with_what_the_options_say(
    untrained_run, photos, tmp_path, monkeypatch, capsys, broken
):
    given = {}

    def detect_into(*arguments, **options):
        given.update(options, arguments=arguments)
        problems = Problems(logged=False)
        if broken:
            problems.add("a kind", "b.jpg", "a reason")
        return job.Summary("out/", 12, 3, int(broken), 2, problems)

    monkeypatch.setattr(job, "detect_into", detect_into)
    status = cli.main(
        [
            "detect",
            str(untrained_run),
            "gs://bucket/photos",
            "--output=gs://bucket/found",
            "--runner=direct",
            "--workers=3",
            "--beam-options",
            "project=a",
            "streaming",
            "--score-threshold=0.5",
        ]
    )
    assert status == int(broken)
    prepare = given.pop("prepare")
    assert prepare.__module__ == "unitbox_tf.cli.quiet_start"
    assert given == {
        "arguments": (str(untrained_run), ["gs://bucket/photos"], "gs://bucket/found"),
        "runner": "direct",
        "workers": 3,
        "beam_options": ["--project=a", "--streaming"],
        "restart": False,
        "tile": None,
        "trust": False,
        "progress": True,
        "score_threshold": 0.5,
    }
    printed = capsys.readouterr()
    assert printed.out == f"{12 - broken} photos have rows in 2 files: out/detections-*.jsonl\n"
    reason = "unitbox: 1 of 12 photos could not be read\nunitbox: see out/problems-*.jsonl\n"
    assert printed.err.endswith(reason) == broken
