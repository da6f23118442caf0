"""The faults of Keras that `keras_distribution` names. When Keras mends one, its test fails: the way around can go."""

import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import pytest

from tests.train.test_workers import ports
from unitbox_tf.train import keras_distribution

ROOT = Path(__file__).parents[2]
PLAIN = """
import keras, tensorflow as tf
strategy = tf.distribute.MultiWorkerMirroredStrategy()
with strategy.scope():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
data = tf.data.Dataset.from_tensors((tf.ones([4, 2]), tf.ones([4, 1]))).repeat()
options = tf.data.Options()
options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
model.fit(data.with_options(options), epochs=1, steps_per_epoch=1, verbose=0)
print("trained", flush=True)
"""


def test_an_optimizer_that_adds_up_in_another_way_is_refused():
    class Other:
        pass

    with pytest.raises(RuntimeError, match="Expected an optimizer of Keras that adds up"):
        keras_distribution.adds_nothing(Other())


def test_gradients_are_taken_as_they_are():
    optimizer = keras.optimizers.SGD()
    keras_distribution.adds_nothing(optimizer)
    pairs = [(1.0, "a"), (None, "b")]
    assert optimizer._all_reduce_sum_gradients(pairs) == pairs


@pytest.mark.slow
def test_fit_of_keras_fails_with_several_workers():
    """keras-team/keras#20585. If this fails, `loop` could call `fit` in its place."""
    addresses = [f"localhost:{port}" for port in ports(2)]
    cluster = {"worker": addresses}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PLAIN],
            env={
                **os.environ,
                "TF_CONFIG": json.dumps(
                    {"cluster": cluster, "task": {"type": "worker", "index": index}}
                ),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(2)
    ]
    try:
        ended = [process.communicate(timeout=300) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert "trained" not in ended[0][0] + ended[1][0], "Keras has mended it"
    assert "keras" in ended[0][1]
