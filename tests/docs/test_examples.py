"""The programs in examples/ find what the package finds, with nothing but what they say."""

import subprocess
import sys
import venv
from pathlib import Path

import cv2
import numpy as np
import pytest

from unitbox_tf import inputs, loading
from unitbox_tf.datasets import synthetic
from unitbox_tf.detect.model import UnitBox
from unitbox_tf.formats import litert, onnx, saved_model

EXAMPLES = Path(__file__).parents[2] / "examples"
PROGRAMS = {  # by name: suffix of the export and of the image, what it needs
    "tensorflow_only": ("", ".png", ["tensorflow>=2.21,<2.22"]),
    "onnxruntime_numpy": (".onnx", ".ppm", ["onnxruntime", "numpy"]),
    "litert_numpy": (".tflite", ".ppm", ["ai-edge-litert", "numpy"]),
}
# With the others' environment, these must not be what makes a program run.
FOREIGN = {"unitbox_tf", "cv2", "PIL", "scipy", "matplotlib", "onnx", "tf2onnx"}


@pytest.fixture(scope="module")
def folder(untrained_run, tmp_path_factory):
    """Exports of one network, and an image in two formats."""
    folder = tmp_path_factory.mktemp("examples")
    model = UnitBox.from_preset(untrained_run)
    for module, suffix in ((saved_model, ""), (onnx, ".onnx"), (litert, ".tflite")):
        module.save(model, folder / f"detector{suffix}")
    image = inputs.read_image(synthetic.draw(0).image)
    for suffix in (".png", ".ppm"):
        assert cv2.imwrite(str(folder / f"photo{suffix}"), image[..., ::-1])
    return folder


def check(result, run, folder):
    assert result.returncode == 0, result.stderr[-2000:]
    find = loading.load(run)
    expected = find(folder / "photo.png")
    rows = [line.split() for line in result.stdout.splitlines()]
    assert len(rows) == len(expected) > 0
    assert [row[0] for row in rows] == [find.class_names[label] for label in expected.classes]
    found = np.array([row[1:] for row in rows], float)
    np.testing.assert_allclose(found[:, 0], expected.scores, atol=1e-2)
    np.testing.assert_allclose(found[:, 1:], expected.boxes, atol=1.0)


@pytest.mark.slow
@pytest.mark.parametrize("name", PROGRAMS)
def test_each_finds_what_the_package_finds(name, folder, untrained_run):
    suffix, photo, needs = PROGRAMS[name]
    if "tensorflow" not in needs[0]:
        pytest.importorskip(needs[0].replace("-", "_"))
    refused = FOREIGN if name == "tensorflow_only" else FOREIGN | {"tensorflow", "keras"}
    code = f"""
import runpy, sys
class Refuse:
    def find_spec(self, name, *_):
        if name.partition(".")[0] in {sorted(refused)!r}:
            raise ImportError(name)
sys.meta_path.insert(0, Refuse())
sys.argv = [{str(EXAMPLES / name)!r} + ".py", "detector{suffix}", "photo{photo}"]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
    command = [sys.executable, "-c", code]
    check(
        subprocess.run(command, cwd=folder, capture_output=True, text=True), untrained_run, folder
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", PROGRAMS)
def test_each_runs_in_an_environment_of_its_own(name, folder, untrained_run, tmp_path):
    suffix, photo, needs = PROGRAMS[name]
    venv.create(tmp_path / "environment", with_pip=True)
    python = tmp_path / "environment" / "bin" / "python"
    installed = subprocess.run(
        [python, "-m", "pip", "install", "--quiet", *needs], capture_output=True, text=True
    )
    if installed.returncode:
        pytest.skip(f"{needs} could not be installed: {installed.stderr[-300:]}")
    command = [python, EXAMPLES / f"{name}.py", f"detector{suffix}", f"photo{photo}"]
    check(
        subprocess.run(command, cwd=folder, capture_output=True, text=True), untrained_run, folder
    )
