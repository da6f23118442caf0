import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import unitbox_tf
from unitbox_tf import files
from unitbox_tf.batch import job as jobs
from unitbox_tf.batch import pipeline
from unitbox_tf.cli import signals
from unitbox_tf.detect import folders


@pytest.fixture
def cluster(beam, job, monkeypatch):
    """A function that detects with `detector`, by a runner that stands for one of a cluster and is in this process."""
    monkeypatch.setitem(pipeline.RUNNERS, "flink", pipeline.RUNNERS["direct"])

    def detect(names, output, **options):
        return jobs.detect_into("model", names, output, runner="flink", shard_size=3, **options)

    return detect


def rows_in(output, kind="detections"):
    paths = sorted(Path(output).glob(f"{kind}-*.jsonl"))
    return [json.loads(line) for path in paths for line in path.read_text().splitlines()]


def test_rows_are_those_of_detect_into(cluster, detector, photos, tmp_path):
    summary = cluster([photos], tmp_path / "out")
    assert (summary.photos, summary.earlier, summary.broken, summary.shards) == (8, 0, 1, 3)
    assert summary.problems.counts == {"image that cannot be decoded": 1}
    folders.detect_into(detector, [photos], tmp_path / "plain")
    expected = json.loads((tmp_path / "plain/detections.json").read_text())
    found = []
    for row in rows_in(tmp_path / "out"):
        [[x0, y0, x1, y1]], [score] = row["boxes"], row["scores"]
        [expected_row] = [each for each in expected if each["file_name"] == row["path"]]
        found.append(row["path"])
        assert expected_row["bbox"][:2] == [x0, y0]
        assert expected_row["bbox"][2:] == pytest.approx([x1 - x0, y1 - y0], abs=1e-5)
        assert expected_row["score"] == score
        assert [expected_row["category_name"]] == row["classes"]
    assert found == [each["file_name"] for each in expected]
    [problem] = rows_in(tmp_path / "out", "problems")
    [line] = (tmp_path / "plain/problems.txt").read_text().splitlines()
    assert line == f"{problem['kind']}\t{problem['path']}: {problem['reason']}"


def test_a_job_goes_on_with_new_and_mended_photos(cluster, photos, shown, tmp_path):
    cluster([photos / "1.png", photos / "broken.png"], tmp_path / "out")
    shown.clear()
    (photos / "broken.png").write_bytes((photos / "0.png").read_bytes())
    again = cluster([photos], tmp_path / "out")
    assert (again.photos, again.earlier, again.broken, again.shards) == (8, 0, 0, 3)
    assert len(shown) == 7
    assert len({row["path"] for row in rows_in(tmp_path / "out")}) == 8
    assert cluster([photos], tmp_path / "out").earlier == 8
    assert len(shown) == 7
    assert cluster([photos], tmp_path / "out", restart=True).earlier == 0
    assert len(shown) == 7 + 8


def test_results_of_other_settings_are_not_mixed(cluster, photos, tmp_path):
    cluster([photos], tmp_path / "out")
    with pytest.raises(ValueError, match="other settings: tile was None, is now 20"):
        cluster([photos], tmp_path / "out", tile=20)


def test_a_second_process_is_refused(cluster, photos, tmp_path):
    (tmp_path / "out").mkdir()
    with (
        files.locked(tmp_path / "out", "writes into"),
        pytest.raises(ValueError, match="another process writes into this folder"),
    ):
        cluster([photos], tmp_path / "out")


def test_what_is_remote_is_read_and_written_by_beam(cluster, photos, tmp_path):
    from tests.helpers.beam_files import FILES

    FILES.clear()
    FILES.update({f"kept://in/{p.name}": p.read_bytes() for p in photos.iterdir()})
    FILES["kept://list"] = b"kept://in/absent.png\n"
    summary = cluster(["kept://in", "@kept://list", photos / "1.png"], "kept://out")
    assert (summary.photos, summary.broken, summary.shards) == (10, 2, 4)
    found = [
        json.loads(line)
        for name in sorted(FILES)
        if name.startswith("kept://out/detections-")
        for line in FILES[name].splitlines()
    ]
    local = cluster([photos], tmp_path / "out")
    assert local.photos == 8
    expected = {Path(row["path"]).name: row["boxes"] for row in rows_in(tmp_path / "out")}
    assert len(found) == 8
    assert all(expected[Path(row["path"]).name] == row["boxes"] for row in found)
    problems = {problem.where: problem for problem in summary.problems.found}
    assert set(problems) == {"kept://in/absent.png", "kept://in/broken.png"}
    assert problems["kept://in/absent.png"].kind == "image that cannot be read"
    assert problems["kept://in/broken.png"].message.startswith("encoded image: expected a JPEG")


def test_photos_are_named_once_and_in_order(photos, tmp_path):
    (tmp_path / "list.txt").write_text(f"{photos}/3.png\n{photos}/9.png\n")
    names = [f"@{tmp_path}/list.txt", photos / "3.png", str(photos / "[12].png")]
    found = jobs.find(names, str(tmp_path / "out"))
    assert found == [f"{photos}/{number}.png" for number in (3, 9, 1, 2)]


@pytest.mark.parametrize("name", ["clip.mp4", "rtsp://camera/live", "0"])
def test_videos_are_refused(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clip.mp4").touch()
    with pytest.raises(ValueError, match="expected photos, which --runner takes"):
        jobs.find([name], str(tmp_path / "out"))


def test_a_runner_that_did_not_do_its_work_is_an_error(cluster, photos, tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline, "run", lambda *_: None)
    with pytest.raises(RuntimeError, match=r"expected detections-00000\.jsonl in "):
        cluster([photos], tmp_path / "out")


@pytest.mark.slow
def test_the_direct_runner_finds_what_the_detector_finds(onnx, photos, tmp_path):
    detector = unitbox_tf.load(onnx, score_threshold=0.2)
    summary = jobs.detect_into(
        onnx, [photos], tmp_path / "out", workers=2, shard_size=3, score_threshold=0.2
    )
    assert summary.broken == 1
    assert len(rows_in(tmp_path / "out")) == 7
    for row in rows_in(tmp_path / "out"):
        found = detector(row["path"])
        assert len(found) > 0
        assert json.loads(pipeline.row(row["path"], found, detector.class_names)) == row
    # The plain command writes the same numbers as x, y, width, height.
    folders.detect_into(detector, [photos], tmp_path / "plain")
    plain = json.loads((tmp_path / "plain/detections.json").read_text())
    assert sum(len(row["boxes"]) for row in rows_in(tmp_path / "out")) == len(plain)


@pytest.mark.slow
def test_a_command_goes_on_where_ctrl_c_stopped_it(onnx, large_photos, tmp_path):
    out = tmp_path / "out"
    command = [sys.executable, "-m", "unitbox_tf", "detect", str(onnx), str(large_photos)]
    command += ["--output", str(out), "--runner", "direct", "--shard-size", "4"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as first:
        while first.poll() is None and not list(out.glob("detections-*.jsonl")):
            time.sleep(0.02)
        first.send_signal(signal.SIGINT)
        _, said = first.communicate(timeout=120)
    assert first.returncode == signals.INTERRUPTED, said
    expected = "the same command goes on with the remaining photos\nunitbox: interrupted\n"
    assert said.endswith(expected)
    assert 0 < len(list(out.glob("detections-*.jsonl"))) < 30
    second = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert second.returncode == 0, second.stderr
    assert second.stdout == f"120 photos have rows in 30 files: {out}/detections-*.jsonl\n"
    assert "photos were done before" in second.stderr
    assert len({row["path"] for row in rows_in(out)}) == len(rows_in(out)) == 120
    assert not [path for path in out.iterdir() if files.whole_name(path)]
