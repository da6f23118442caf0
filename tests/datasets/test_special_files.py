"""Pipes, devices, sockets, folders and loops of links in the place of files: nothing is waited for, all is said."""

import os
import signal
import socket

import pytest

from tests.fuzz.annotations import SETS, write_set
from unitbox_tf import datasets
from unitbox_tf.datasets import checks
from unitbox_tf.problems import Problems

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs a system with pipes")


def pipe(path):
    os.mkfifo(path)


def folder(path):
    path.mkdir()


def loop(path):
    path.symlink_to(path.name)


def device(path):
    path.symlink_to("/dev/zero")


def unix_socket(path):
    here = os.open(path.parent, os.O_RDONLY)
    try:  # the path of a socket must be short
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(f"/proc/self/fd/{here}/{path.name}")
    finally:
        os.close(here)


KINDS = [pipe, folder, loop, device, unix_socket]


@pytest.fixture(autouse=True)
def _nothing_is_waited_for():
    def waits(*_):
        raise AssertionError("a special file is waited for")

    before = signal.signal(signal.SIGALRM, waits)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def exchange(path, kind):
    path.unlink()
    kind(path)


def load(form, root, problems):
    split = "1" if form == "fddb" else "train"
    return datasets.load(f"{form}:{root}/set#{split}", problems=problems)


@pytest.mark.parametrize("form", SETS)
@pytest.mark.parametrize("kind", KINDS)
def test_special_files_in_the_place_of_annotations_are_named(form, kind, tmp_path):
    write_set(form)(tmp_path)
    for path in [p for p in (tmp_path / "set").rglob("*") if p.is_file() and p.suffix != ".png"]:
        whole = path.read_bytes()
        exchange(path, kind)
        problems = Problems(logged=False)
        said = ""
        try:
            load(form, tmp_path, problems)
        except (ValueError, OSError) as error:
            said = str(error)
        unlisted = form == "fddb" and "ellipseList" not in path.name  # not read
        assert unlisted or str(path.parent) in said or problems.found
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        else:
            path.unlink()
        path.write_bytes(whole)
    assert len(load(form, tmp_path, None)) == 3


@pytest.mark.parametrize("form", [*sorted({*SETS} - {"tfrecord"}), "negatives"])
@pytest.mark.parametrize("kind", KINDS)
def test_special_files_in_the_place_of_an_image_lose_it_alone(form, kind, tmp_path):
    write_set("yolo" if form == "negatives" else form)(tmp_path)
    photo = next(iter(sorted((tmp_path / "set").rglob("*.png"))))
    exchange(photo, kind)
    problems = Problems(logged=False)
    found = datasets.load(
        f"{form}:{tmp_path}/set" + {"fddb": "#1", "negatives": ""}.get(form, "#train"),
        problems=problems,
    )
    assert len(found) == 2
    assert any(str(photo) in problem.message + problem.where for problem in problems.found)
    assert checks.ABSENT in problems.counts or checks.OUTSIDE in problems.counts or form == "voc"


@pytest.mark.parametrize("kind", [pipe, device, unix_socket])
def test_a_source_that_is_a_special_file_is_refused(kind, tmp_path):
    kind(tmp_path / "x.json")
    with pytest.raises(OSError, match=r"x\.json: expected a regular file\. Received: a "):
        datasets.open(f"coco:{tmp_path}/x.json")


def test_folders_with_loops_of_links_are_listed_once(tmp_path):
    write_set("yolo")(tmp_path)
    root = tmp_path / "set"
    for name in ("again", "and_again"):
        (root / "images" / name).symlink_to(root, target_is_directory=True)
    assert len(load("yolo", tmp_path, None)) == 3
    assert len(datasets.load(f"negatives:{root}")) == 3
