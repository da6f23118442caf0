"""The losses under `MirroredStrategy` on two logical devices; run by `test_losses.py` in a process of its own.

    python -m tests.losses_on_two_devices FOLDER

Reads `FOLDER/boxes.npz`, `[2, N, 4]` truth and prediction for each case, and writes `found.npz`.
"""

import sys
from pathlib import Path

import numpy as np
import tensorflow as tf

from tests.helpers.losses import PLACED, gradient
from unitbox_tf import registry


def main(folder: Path) -> None:
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    assert strategy.num_replicas_in_sync == 2

    def on_both(function, *arrays):
        """The result of `function` in each replica for its half of `arrays`."""
        halves = [np.array_split(array, 2) for array in arrays]
        inputs = [
            strategy.experimental_distribute_values_from_function(
                lambda context, pair=pair: tf.constant(pair[context.replica_id_in_sync_group])
            )
            for pair in halves
        ]
        result = tf.function(lambda *values: strategy.run(function, values))(*inputs)
        return [strategy.experimental_local_results(part) for part in result]

    boxes, found = np.load(folder / "boxes.npz"), {}
    for case, (function, options) in PLACED.items():
        value, slope = on_both(
            lambda t, p, f=function, o=options: gradient(f, t, p, **o), *boxes[case]
        )
        found[f"{case}/value"] = np.concatenate(value)
        found[f"{case}/gradient"] = np.concatenate(slope)
    y_true, y_pred = boxes["l2_loss"]
    weight = (np.arange(len(y_true)) % 3 == 0).astype(np.float32)
    for name in registry.LOSSES:
        for reduction, key in (("sum", "sum"), ("mean_with_sample_weight", "mean")):
            loss = registry.LOSSES[name](reduction=reduction)
            (values,) = on_both(
                lambda t, p, w, loss=loss: (loss(t, p, sample_weight=w),), y_true, y_pred, weight
            )
            found[f"{name}/{key}"] = np.sum(values)  # Keras divides means by the number of replicas
            halves = [
                float(loss(t, p, sample_weight=w))
                for t, p, w in zip(
                    *(np.array_split(array, 2) for array in (y_true, y_pred, weight)), strict=True
                )
            ]
            found[f"{name}/mean of halves"] = np.mean(halves)
            if key == "sum":
                found[f"{name}/sum of all"] = float(loss(y_true, y_pred, sample_weight=weight))
    np.savez(folder / "found.npz", **found)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
