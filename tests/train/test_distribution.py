import dataclasses
import os
import re
import subprocess
import sys

import pytest
import tensorflow as tf

from unitbox_tf.config import TrainConfig
from unitbox_tf.train import distribution
from unitbox_tf.train.distribution import Distribution

ONE = tf.distribute.get_strategy()


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """No cluster."""
    for name in ("TF_CONFIG", "UNITBOX_WORKERS", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def two(monkeypatch):
    """Two GPUs, which this machine may lack; gives the names of those that a strategy was made of."""
    gpus = [tf.config.LogicalDevice(f"/device:GPU:{n}", "GPU") for n in range(2)]
    named = []

    class Strategy:
        num_replicas_in_sync = 2

        def __init__(self, names):
            named.extend(names)

    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: gpus)
    monkeypatch.setattr(tf.distribute, "MirroredStrategy", Strategy)
    return gpus, named


def test_all_gpus_train_together(two):
    gpus, named = two
    together = distribution.started(TrainConfig(batch_size=4), gpus)
    assert named == ["/device:GPU:0", "/device:GPU:1"]
    assert (together.devices, together.workers, together.is_chief) == (2, 1, True)
    share = together.share(4)
    assert (share.size, share.size_of_device) == (4, 2)


@pytest.mark.parametrize("gpus", [[], ["a GPU"]])
def test_one_device_needs_no_strategy(gpus):
    assert distribution.started(TrainConfig(), gpus) is None


def test_one_of_several_gpus_needs_no_strategy(two):
    gpus, named = two
    assert distribution.started(TrainConfig(devices=1), gpus) is None
    assert not named


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"devices": 3}, "devices (--devices): expected at most 2"),
        ({"batch_size": 5}, "batch_size (--batch-size): expected a multiple of 2"),
        ({"jit": "on"}, "jit (--jit): expected 'off' or 'auto' with several devices"),
        ({"precision": "mixed_float16"}, "expected float32 or mixed_bfloat16 with several devices"),
    ],
)
def test_settings_that_do_not_fit_several_devices_are_refused(settings, said, two):
    gpus, _ = two
    config = dataclasses.replace(TrainConfig(batch_size=4), **settings)
    with pytest.raises(ValueError, match=re.escape(said)):
        distribution.started(config, gpus)


def test_workers_need_the_name_of_the_run(monkeypatch):
    monkeypatch.setenv("UNITBOX_WORKERS", "a:1,b:1")
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "0")
    with pytest.raises(ValueError, match="run \\(--run\\): expected a name"):
        distribution.started(TrainConfig(), [])


def test_a_started_tensorflow_cannot_join_a_cluster(monkeypatch):
    tf.zeros([])
    monkeypatch.setenv("UNITBOX_WORKERS", "localhost:1,localhost:2")
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "0")
    with pytest.raises(ValueError, match="TensorFlow has started"):
        distribution.started(TrainConfig(run="a"), [])


def test_facts_of_workers_are_compared(monkeypatch):
    together = Distribution(ONE, index=1, workers=3)
    monkeypatch.setattr(Distribution, "devices", 3)
    together.check_agree({"number": 3, "text": "same"})

    def gathered(self, numbers):
        found = distribution.np.array([numbers] * 3)
        found[2, 1] += 1
        return found

    monkeypatch.setattr(Distribution, "gathered", gathered)
    expected = (
        "expected the same step in all workers. Worker 2 has another than worker 0. Worker 1 has 7"
    )
    with pytest.raises(ValueError, match=expected):
        together.check_agree({"number": 3, "step": 7})


DIVIDED = """
from unitbox_tf.config import TrainConfig
from unitbox_tf.train import distribution
together = distribution.started(TrainConfig(device="cpu", devices=2, batch_size=4), [])
print(together.devices, together.gathered([5, 6]).tolist(), together.any(False), together.any(True))
"""


def test_the_processor_can_be_divided():
    process = subprocess.run(
        [sys.executable, "-c", DIVIDED],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TF_ENABLE_ONEDNN_OPTS": "0"},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert process.stdout == "2 [[5, 6]] False True\n", process.stderr[-3000:]
