import json
import multiprocessing
import os
import signal
from pathlib import Path

import pytest

from unitbox_tf import runs
from unitbox_tf.batch import pipeline, storage, workers
from unitbox_tf.batch import plan as plans


@pytest.fixture
def job(onnx, tmp_path):
    return pipeline.Job(str(onnx), runs.digest(onnx), {}, False, None, str(tmp_path / "out"))


@pytest.fixture
def plan(job, large_photos):
    names = [path.as_posix() for path in sorted(large_photos.iterdir())]
    return plans.open_plan(storage.folder(job.output), {}, names, 4)


def children():
    """The worker processes of this one."""
    return [each.pid for each in multiprocessing.active_children()]


def paths_of_rows(plan):
    lines = (plan.folder.read(shard.rows_file).splitlines() for shard in plan.shards)
    return [json.loads(line)["path"] for each in lines for line in each]


@pytest.mark.slow
def test_killed_workers_are_replaced_and_each_photo_has_one_row(
    plan, job, large_photos, monkeypatch, caplog
):
    monkeypatch.setattr(workers, "WAIT", 0.01)
    killed = []
    for shard in workers.run(plan, job, 2):
        if shard.number in (4, 5) or not killed:
            killed += children()[:1]
            os.kill(killed[-1], signal.SIGKILL)
    assert len(set(killed)) > 1
    assert "a worker was killed by signal 9; another one takes its place" in caplog.text
    assert plan.left() == []
    assert paths_of_rows(plan) == [path.as_posix() for path in sorted(large_photos.iterdir())]
    assert children() == []


@pytest.mark.slow
def test_a_run_that_is_left_ends_its_workers_and_another_one_goes_on(
    plan, job, large_photos, monkeypatch
):
    monkeypatch.setattr(workers, "WAIT", 0.01)
    running = workers.run(plan, job, 1)
    next(running)
    assert len(children()) == 1
    running.close()
    assert children() == []
    unfinished = plan.left()
    assert 0 < len(unfinished) < len(plan.shards)
    before = {shard: stamp(plan, shard) for shard in plan.shards if shard not in unfinished}
    assert set(workers.run(plan, job, 1)) == set(unfinished)
    assert all(
        stamp(plan, shard) == stamp_ for shard, stamp_ in before.items()
    )  # not written again
    assert paths_of_rows(plan) == [path.as_posix() for path in sorted(large_photos.iterdir())]


def stamp(plan, shard):
    return (Path(plan.folder.path) / shard.rows_file).stat().st_mtime_ns


def die():
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
def test_workers_that_are_killed_again_and_again_are_an_error(plan, job, caplog):
    with pytest.raises(
        ChildProcessError, match=r"killed 3 times by signal 9 and could not finish "
    ):
        list(workers.run(plan, job, 2, prepare=die))
    assert len(plan.without_rows()) == len(plan.shards)


@pytest.mark.slow
def test_an_error_of_a_worker_is_that_of_the_run(plan, job):
    folder = Path(job.output)
    (folder / "detections-00001.jsonl").mkdir()
    with pytest.raises(ChildProcessError, match=r"^\[Errno 21\] Is a directory: .*-00001\.jsonl'$"):
        list(workers.run(plan, job, 1))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "Traceback\n  File\nOSError: [Errno 28] No space [while running 'write']",
            "[Errno 28] No space",
        ),
        ("ValueError: a: b [while running 'detect/x-ptransform-1']\n", "a: b"),
        ("FileNotFoundError: c", "c"),
        ("TypeError: d [while running 'write']", None),
        ("exit: 3", None),
        ("no error", None),
        ("", None),
    ],
)
def test_errors_about_files_and_input_are_understood(text, expected):
    assert workers._understood(text) == expected
