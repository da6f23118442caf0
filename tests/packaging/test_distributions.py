"""The wheel and the source distribution have all their files, and users can work with the wheel.

Environments are made without a download. The wheel is installed, and the distributions that it requires are
linked from the environment that runs the tests. Nothing else is there, so a requirement that setup.cfg forgets
makes these tests fail.
"""

import email
import importlib.metadata
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import urllib.request
import venv
import zipfile
from pathlib import Path

import numpy as np
import pytest
from packaging.metadata import Metadata
from packaging.requirements import Requirement

from unitbox_tf import boxes as box_ops

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
FACE = np.array([[178.0, 130, 356, 335]])  # in demo_example.jpg, by eye

# A module of each environment. It refuses connections that leave the machine, and writes a line about each.
OFFLINE = """
import sys
def watch(event, arguments):
    if event == "socket.connect" and isinstance(arguments[1], tuple):
        host = arguments[1][0]
    elif event == "socket.getaddrinfo":
        host = arguments[0]
    else:
        return
    if host not in (None, "", "127.0.0.1", "::1", "localhost", "0.0.0.0", b"localhost"):
        print("LEAVES THE MACHINE:", host, file=sys.stderr, flush=True)
        raise OSError("no network in this test")
sys.addaudithook(watch)
"""


# Building ---------------------------------------------------------------------------------------


PUBLISHED = ("saved_models/faces", "saved_models/faces_light")


def files_below(folder):
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix() for path in paths}


def copy_repository(destination):
    """Copies what git tracks, but for files that are git's and continuous integration's."""
    if not (ROOT / ".git").exists():
        pytest.skip("needs a clone: git tells which files are the repository's")
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
    for name in map(os.fsdecode, filter(None, listing.stdout.split(b"\0"))):
        if not name.startswith("."):
            (destination / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, destination / name)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Names of the repository's files, its source distribution, and the wheel that this gives.

    They are built from a copy in which there are runs that are not published.
    """
    folder = tmp_path_factory.mktemp("built")
    source = folder / "source"
    copy_repository(source)
    expected = files_below(source)
    for stray in (
        "mine/weights.npz",
        "faces/checkpoints/step-00000001.npz",
        "faces/run/history.json",
    ):
        path = source / "saved_models" / stray
        path.parent.mkdir(exist_ok=True)
        path.write_text("not published")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder / "dist", source]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    [archive], [wheel] = (folder / "dist").glob("*.tar.gz"), (folder / "dist").glob("*.whl")
    return expected, archive, wheel


def test_the_source_distribution_has_what_the_repository_has(built):
    expected, archive, _ = built
    with tarfile.open(archive) as content:
        files = {member.name.partition("/")[2] for member in content if member.isfile()}
    generated = {name for name in files if name.startswith("unitbox_tf.egg-info/")} | {"PKG-INFO"}
    assert files - generated == expected
    assert archive.stat().st_size < 40e6


def test_the_wheel_has_the_package_and_what_is_published(built):
    files, _, wheel = built
    received = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    expected = {name for name in files if name.startswith("unitbox_tf/")}
    for folder in PUBLISHED:
        published = {f"unitbox_tf/{name}" for name in files if name.startswith(f"{folder}/")}
        assert f"unitbox_tf/{folder}/weights.npz" in published
        expected |= published
    assert received == expected
    assert wheel.stat().st_size < 36e6


def metadata(wheel):
    content = zipfile.ZipFile(wheel)
    [name] = [name for name in content.namelist() if name.endswith(".dist-info/METADATA")]
    return content.read(name)


def test_the_metadata_say_what_the_terms_are_and_name_nobody(built):
    wheel = zipfile.ZipFile(built[2])
    known = Metadata.from_email(metadata(built[2]), validate=True)
    assert known.license_expression == "Apache-2.0 AND LicenseRef-faces-weights"
    cards = {f"{folder}/README.md" for folder in PUBLISHED}
    assert set(known.license_files) == {"LICENSE", *cards}
    for card in cards:
        [copy] = [name for name in wheel.namelist() if name.endswith(f"licenses/{card}")]
        text = wheel.read(f"unitbox_tf/{card}")
        assert wheel.read(copy) == text
        assert b"for research and not for commerce" in text.replace(b"\n", b" ")
    assert known.description.strip() == (ROOT / "README.md").read_text("utf-8").strip()
    assert known.author == "The unitbox_tf developers"
    assert known.author_email is None
    assert not known.project_urls


def test_the_source_distribution_passes_its_tests(built, tmp_path):
    _, archive, _ = built
    with tarfile.open(archive) as content:
        content.extractall(tmp_path, filter="data")
    [folder] = tmp_path.iterdir()
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    command += ["-m", "not slow and not nightly"]
    tests = ["tests/test_boxes.py", "tests/test_package.py", "tests/packaging"]
    tests += ["tests/docs/test_docs.py::test_links_lead_somewhere"]
    done = subprocess.run(
        [*command, *tests], cwd=folder, env=clean(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) > 30


# Using ------------------------------------------------------------------------------------------


def required(requirements, extras=()):
    """Installed distributions that these requirements name, and that those require, and so on."""
    found, waiting = {}, [(line, frozenset(extras)) for line in requirements]
    while waiting:
        line, wanted = waiting.pop()
        requirement = Requirement(line)
        marker = requirement.marker
        if marker and not any(marker.evaluate({"extra": extra}) for extra in wanted or {""}):
            continue
        distribution = importlib.metadata.distribution(requirement.name)
        key = (distribution.name, frozenset(requirement.extras))
        if key not in found:
            found[key] = distribution
            extras_of = frozenset(requirement.extras)
            waiting += [(each, extras_of) for each in distribution.requires or ()]
    return list(found.values())


def clean():
    """Environment variables without those that would let the clone be found."""
    return {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}


def environment(folder, wheel, extras=()):
    """Makes an environment with the wheel in `folder`; returns the folder of its programs."""
    venv.create(folder, symlinks=True)
    [site] = folder.glob("lib/python*/site-packages")
    requirements = email.message_from_bytes(metadata(wheel)).get_all("Requires-Dist")
    for distribution in required(requirements, extras):
        for name in {path.parts[0] for path in distribution.files} - {"..", "__pycache__"}:
            if not (site / name).exists():
                (site / name).symlink_to(distribution.locate_file(name))
    (site / "offline.pth").write_text("import watch_connections\n")
    (site / "watch_connections.py").write_text(OFFLINE)
    python = folder / "bin" / "python"
    command = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet"]
    subprocess.run([*command, "--no-deps", "--no-index", wheel], env=clean(), check=True)
    return folder / "bin"


@pytest.fixture(scope="module")
def programs(built, tmp_path_factory):
    return environment(tmp_path_factory.mktemp("installed") / "environment", built[2])


@pytest.fixture
def here(programs, tmp_path, monkeypatch):
    """The current folder, outside the clone, with an image from the wheel."""
    [image] = programs.parent.glob("lib/python*/site-packages/unitbox_tf/demo_example.jpg")
    shutil.copy(image, tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*command):
    done = subprocess.run(list(map(str, command)), env=clean(), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    assert "LEAVES THE MACHINE" not in done.stderr
    return done.stdout


def test_the_environment_has_neither_clone_nor_extras(programs, here):
    code = (
        "import importlib.util as u, unitbox_tf; print(unitbox_tf.__file__, *map(u.find_spec, {}))"
    )
    names = ["pytest", "matplotlib", "scipy", "pycocotools", "tyro", "gradio", "tensorflow_serving"]
    place, *specs = run(programs / "python", "-c", code.format(names)).split()
    assert Path(place).is_relative_to(programs.parent)
    assert specs == ["None"] * len(names)


def test_an_image_is_searched_from_the_command_line(programs, here):
    run(programs / "unitbox", "detect", "faces", "photo.jpg", "--output", "found")
    [found] = json.loads(Path("found/detections.json").read_text())
    x, y, width, height = found["bbox"]
    assert box_ops.pairwise_iou(np.array([[x, y, x + width, y + height]]), FACE)[0, 0] > 0.7


def test_an_image_is_searched_from_python(programs, here):
    code = """
import unitbox_tf
find = unitbox_tf.load("faces")
found = find("photo.jpg")
print(*find.class_names, *found.boxes[0])
"""
    name, *box = run(programs / "python", "-c", code).split()
    assert name == "face"
    assert box_ops.pairwise_iou(np.array([box], float), FACE)[0, 0] > 0.7


def test_a_detector_is_trained_and_used(programs, here):
    few = "--epochs 1 --steps-per-epoch 2 --batch-size 2 --image-size 64 --max-side 64"
    few += " --validation-images 2 --precision float32 --run tiny"
    printed = run(programs / "unitbox", "fit", "smoke", *few.split())
    assert "unitbox detect saved_models/tiny" in printed
    assert set(json.loads(Path("saved_models/tiny/results.json").read_text())) == {
        "peaks",
        "ellipse",
    }
    run(programs / "unitbox", "detect", "saved_models/tiny", "photo.jpg", "--output", "found")
    assert Path("found/detections.json").is_file()


def test_the_page_is_served_with_its_extra(built, here, tmp_path):
    pytest.importorskip("gradio", reason="needs gradio: the extra demo")
    programs = environment(tmp_path / "environment", built[2], ["demo"])
    command = [programs / "unitbox", "demo"]
    with (
        Path("errors").open("w") as errors,
        subprocess.Popen(
            command,
            env=clean(),
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            # A program in the background may have to ignore Ctrl-C, and its children with it.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        ) as server,
    ):
        try:
            line = server.stdout.readline()
            assert line.startswith("http://127.0.0.1:"), Path("errors").read_text()[-3000:]
            with urllib.request.urlopen(line.split()[0]) as page:
                assert b"UnitBox" in page.read()
            server.send_signal(signal.SIGINT)
            server.wait(timeout=60)
        finally:
            server.kill()
    assert "LEAVES THE MACHINE" not in Path("errors").read_text()
