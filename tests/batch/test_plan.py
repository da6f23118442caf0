import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unitbox_tf.batch import plan as plans
from unitbox_tf.batch import storage

SETTINGS = {"weights": "abc", "class_names": ("a", "b"), "nms_iou": 0.4}


@pytest.fixture
def folder(tmp_path):
    return storage.folder(str(tmp_path / "out"))


def names_of(plan):
    return [name for shard in plan.shards for name in shard.names(plan.folder)]


@given(
    st.lists(st.text(st.characters()), unique=True, min_size=1),
    st.lists(st.text(st.characters()), unique=True),
    st.integers(1, 5),
    st.integers(1, 5),
)
def test_each_photo_is_in_one_shard_and_stays_there(tmp_path_factory, first, more, size, other):
    folder = storage.folder(str(tmp_path_factory.mktemp("out")))
    before = plans.open_plan(folder, SETTINGS, first, size)
    assert names_of(before) == first
    assert all(shard.photos == size for shard in before.shards[:-1])
    after = plans.open_plan(folder, SETTINGS, more, other)
    assert after.shards[: len(before.shards)] == before.shards
    assert names_of(after) == list(dict.fromkeys([*first, *more]))
    assert [shard.number for shard in after.shards] == list(range(len(after.shards)))
    assert plans.open_plan(folder, SETTINGS, more, 1) == plans.Plan(folder, after.shards)


def test_a_shard_is_finished_if_it_has_rows_and_no_problems(folder):
    plan = plans.open_plan(folder, SETTINGS, "abcd", 1)
    folder.write("detections-00001.jsonl", b"")
    folder.write("detections-00002.jsonl", b"")
    folder.write("problems-00002.jsonl", b"")
    assert [shard.number for shard in plan.left()] == [0, 2, 3]
    assert [shard.number for shard in plan.without_rows()] == [0, 3]
    assert [shard.number for shard in plan.with_problems()] == [2]


def test_results_of_other_settings_are_not_mixed(folder):
    plans.open_plan(folder, SETTINGS, "abc", 2)
    with pytest.raises(ValueError, match=r"other settings: nms_iou was 0\.4, is now 0\.5"):
        plans.open_plan(folder, SETTINGS | {"nms_iou": 0.5}, "abc", 2)
    plans.clear(folder)
    assert len(plans.open_plan(folder, SETTINGS | {"nms_iou": 0.5}, "abc", 2).shards) == 2


def test_a_list_that_was_cut_off_before_its_plan_was_written_changes_nothing(folder, monkeypatch):
    before = plans.open_plan(folder, SETTINGS, "abc", 2)
    write = storage.LocalFolder.write

    def stopped(self, name, content):
        if name == plans.PLAN_FILE:
            raise KeyboardInterrupt
        write(self, name, content)

    with monkeypatch.context() as patch:
        patch.setattr(storage.LocalFolder, "write", stopped)
        with pytest.raises(KeyboardInterrupt):
            plans.open_plan(folder, SETTINGS, "abcde", 2)
    assert plans.open_plan(folder, SETTINGS, "abc", 2).shards == before.shards
    assert names_of(plans.open_plan(folder, SETTINGS, "abcxy", 2)) == list("abcxy")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{}",
        b'{"settings": {}, "shards": []}',
        b'{"settings": {}, "shards": [[1, 0, 4, 1]]}',
        b'{"settings": {}, "shards": [[0, 0, 4]]}',
        b'{"settings": {}, "shards": [[0, 0, 4, 2]]}',
        b'{"settings": {}, "shards": [[0, 0, 3, 1]]}',
        b"[" * 100_000,
    ],
)
def test_a_damaged_plan_is_refused_and_restart_deletes_it(folder, content):
    folder.write(plans.PHOTOS_FILE, b'"a"\n"b"\n')
    folder.write(plans.PLAN_FILE, content)
    with pytest.raises(ValueError, match=r"batch\.json or photos\.jsonl is damaged"):
        plans.open_plan(folder, {}, "a", 1)
    plans.clear(folder)
    assert folder.names() == set()


def test_rows_without_a_plan_are_not_taken_for_finished(folder):
    folder.write("detections-00000.jsonl", b"")
    with pytest.raises(ValueError, match=r"expected batch\.json beside detections-00000\.jsonl"):
        plans.open_plan(folder, SETTINGS, "abc", 2)


def test_restart_deletes_the_files_of_a_job_and_nothing_else(folder):
    others = {"detections.json", "detections-1.jsonl", "problems-00000.jsonl.gz", "photo.jpg"}
    for name in (*others, "detections-00000.jsonl", "problems-00000.jsonl"):
        folder.write(name, b"")
    plans.clear(folder)
    assert "detections-00000.jsonl" in folder.names()  # of no job
    folder.delete(["detections-00000.jsonl", "problems-00000.jsonl"])
    plans.open_plan(folder, SETTINGS, "abc", 2)
    folder.write("detections-00000.jsonl", b"")
    plans.clear(folder)
    assert folder.names() == others


def test_more_shards_than_numbers_are_refused(folder, monkeypatch):
    monkeypatch.setattr(plans, "MANY", 3)
    assert len(plans.open_plan(folder, SETTINGS, "abc", 1).shards) == 3
    with pytest.raises(ValueError, match="at most 3 shards"):
        plans.open_plan(folder, SETTINGS, "abcd", 1)
    assert names_of(plans.open_plan(folder, SETTINGS, "abc", 1)) == list("abc")


def test_the_plan_says_where_names_are(folder):
    plans.open_plan(folder, SETTINGS, ["a", "é", "new\nline"], 2)
    plan = json.loads(folder.read(plans.PLAN_FILE))
    assert plan["settings"] == {**SETTINGS, "class_names": ["a", "b"]}
    ends = list(itertools.accumulate(length for _, _, length, _ in plan["shards"]))
    assert [offset for _, offset, _, _ in plan["shards"]] == [0, *ends[:-1]]
    assert ends[-1] == len(folder.read(plans.PHOTOS_FILE))
