"""Two devices that share each batch train as one does. The processor is divided into two devices."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
BOUND = 1e-4  # float32, added up in another order, after three steps; 3e-5 is usual


@pytest.fixture(scope="module")
def compared():
    """The numbers that `tests.train.devices` prints."""
    process = subprocess.run(
        [sys.executable, "-m", "tests.train.devices"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TF_ENABLE_ONEDNN_OPTS": "0"},
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert process.returncode == 0, process.stderr[-3000:]
    return json.loads(process.stdout.splitlines()[-1])


@pytest.mark.parametrize("case", ["mean", "sum", "giou", "focal", "focal sum", "quality"])
def test_weights_and_means_are_those_of_one_device(case, compared):
    """With batch normalisation, clipping, an average, and objects that most images lack."""
    assert compared[case] < BOUND


def test_a_step_that_is_not_finite_on_one_device_changes_no_device(compared):
    assert compared["bad steps"] == [1, 1, 3]
    alone, together = compared["not finite"]
    assert alone == together
    assert alone["loss"]
    means, same = compared["means beside a bad step"]
    assert same == pytest.approx(means, rel=BOUND)


def test_keras_clips_the_gradient_of_each_device(compared):
    """If this fails, Keras clips the sum, which is 1 here: see what `keras_distribution.adds_nothing` is still for."""
    assert compared["clipped by keras"] == -2.0
