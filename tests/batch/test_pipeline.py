import dataclasses
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from unitbox_tf import files, runs
from unitbox_tf.batch import pipeline, storage
from unitbox_tf.batch import plan as plans
from unitbox_tf.records import Detections


@pytest.fixture
def plan(photos, job):
    names = [path.as_posix() for path in sorted(photos.iterdir())]
    return plans.open_plan(storage.folder(job.output), {}, names, 3)


def rows_in(plan, kind="detections"):
    files = sorted(name for name in plan.folder.names() if name.startswith(kind))
    return [json.loads(line) for name in files for line in plan.folder.read(name).splitlines()]


def in_one_process(job, plan):
    """The work of the pipeline, without Beam."""
    for shard in plan.left():
        pipeline.write(pipeline.detect(pipeline.opened(shard, job.output), job.load()), job.output)


def by_beam(job, plan):
    pytest.importorskip("apache_beam", reason="needs Apache Beam: pip install 'unitbox_tf[beam]'")
    pipeline.run(job, plan.left(), "direct")


@pytest.fixture(params=[in_one_process, by_beam])
def run(request):
    return request.param


def test_each_photo_has_one_row_or_one_problem(plan, job, detector, photos, run):
    run(job, plan)
    assert [row["path"] for row in rows_in(plan)] == [f"{photos}/{n}.png" for n in range(7)]
    [problem] = rows_in(plan, "problems")
    assert problem["path"] == f"{photos}/broken.png"
    assert problem["kind"] == "image that cannot be decoded"
    assert problem["reason"].startswith("expected a JPEG, PNG, BMP, GIF, TIFF or WebP image")
    for row in rows_in(plan):
        found = Detections(
            np.float32(row["boxes"]),
            np.float32(row["scores"]),
            [0] * len(row["scores"]),
            (row["height"], row["width"]),
        )
        assert found == detector(row["path"])  # to the last bit
        assert row["classes"] == ["object"]


def test_only_what_is_missing_is_done(plan, job, shown, run):
    run(job, plan)
    whole = rows_in(plan)
    plan.folder.delete(["detections-00001.jsonl"])
    shown.clear()
    run(job, plan)
    assert len(shown) == 3  # of the shard that was absent; the broken photo was not shown
    assert rows_in(plan) == whole


def test_a_photo_that_was_mended_has_its_row_and_is_no_problem(plan, job, photos, shown, run):
    run(job, plan)
    (photos / "broken.png").write_bytes((photos / "3.png").read_bytes())
    (photos / "6.png").unlink()  # has its row
    shown.clear()
    run(job, plan)
    assert len(shown) == 1
    assert rows_in(plan, "problems") == []
    assert "problems-00002.jsonl" not in plan.folder.names()
    counts = Counter(row["path"] for row in rows_in(plan))
    assert counts == dict.fromkeys(
        [*(f"{photos}/{n}.png" for n in range(7)), f"{photos}/broken.png"], 1
    )
    assert plan.left() == []


def test_an_absent_photo_is_a_problem(plan, job, photos, run):
    (photos / "2.png").unlink()
    run(job, plan)
    kinds = {row["path"]: row["kind"] for row in rows_in(plan, "problems")}
    assert kinds[f"{photos}/2.png"] == "image that cannot be read"


def stopped(self, name, content):
    """A worker that is killed when it has written a file."""
    files.write(Path(self.path) / name, content)
    raise KeyboardInterrupt


def test_a_worker_that_was_stopped_while_it_wrote_leaves_the_shard_unfinished(
    plan, job, photos, monkeypatch
):
    shard = plan.shards[2]
    for mended in (False, True):
        if mended:
            (photos / "broken.png").write_bytes((photos / "3.png").read_bytes())
        done = pipeline.detect(pipeline.opened(shard, job.output), job.load())
        with monkeypatch.context() as patch:
            patch.setattr(storage.LocalFolder, "write", stopped)
            with pytest.raises(KeyboardInterrupt):
                pipeline.write(done, job.output)
        assert shard in plan.left()
    in_one_process(job, plan)
    assert plan.left() == []
    assert len(rows_in(plan)) == 8


def test_a_worker_with_another_detector_is_refused(job, monkeypatch):
    monkeypatch.setattr(runs, "digest", lambda model: "def")
    with pytest.raises(ValueError, match=r"SHA-256 abc, with which the job began\. Received: def"):
        job.load()


def test_tiles_are_searched(job, detector, shown):
    dataclasses.replace(job, tile=20).load()(np.zeros((30, 50, 3), np.uint8))
    assert len(shown) > 1


def test_names_that_are_no_text_are_kept(job, detector, photos):
    name = f"{photos}/half\udc80.png"
    folder = storage.folder(job.output)
    plan = plans.open_plan(folder, {}, [name], 1)
    done = pipeline.detect(pipeline.opened(plan.shards[0], job.output), detector)
    assert json.loads(done.problems[0])["path"] == name


def test_a_detector_is_loaded_once_for_all_shards(plan, job, beam, monkeypatch):
    loads = []
    load = pipeline.Job.load
    monkeypatch.setattr(pipeline.Job, "load", lambda self: loads.append(1) or load(self))
    pipeline.run(job, plan.left(), "direct")
    assert plan.without_rows() == []
    assert len(loads) == 1
