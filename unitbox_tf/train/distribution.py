"""Several devices, of one machine or of several, that train one network together.

Each device has a copy of the variables and takes its part of each batch (`tf.distribute`). One process uses all devices
of a machine. With several machines, each runs a process, a *worker*; the first one is the *chief*, which alone writes.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from unitbox_tf.config import TrainConfig
from unitbox_tf.train import cluster, order

logger = logging.getLogger(__name__)


class WorkerLost(OSError):
    """Another worker has ended, so that this one cannot go on."""


@dataclasses.dataclass(frozen=True)
class Distribution:
    """The devices that train together.

    Attributes:
        strategy: TensorFlow's strategy.
        index: the number of this worker.
        workers: the number of workers.
    """

    strategy: tf.distribute.Strategy
    index: int = 0
    workers: int = 1

    @property
    def is_chief(self) -> bool:
        """True in the worker that writes."""
        return self.index == 0

    @property
    def devices(self) -> int:
        """The number of devices of all workers together."""
        return int(self.strategy.num_replicas_in_sync)

    def share(self, batch_size: int) -> order.Share:
        """The part of each batch that this worker reads."""
        return order.Share(self.index, self.workers, batch_size, self.devices // self.workers)

    def distributed(self, batches: tf.data.Dataset) -> Any:
        """The batches of this worker's `share`, in a form that hands them to its devices in turns."""
        return self.strategy.distribute_datasets_from_function(lambda _: batches)

    def synchronise(self, model: keras.Model) -> None:
        """Lets batch normalisation in `model` normalise with the statistics of the whole batch."""
        for layer in model._flatten_layers():
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.synchronized = True

    def gathered(self, numbers: Sequence[int]) -> np.ndarray:
        """The numbers of each worker, `[workers, n]` int64. All workers must call this."""
        own = tf.constant([list(numbers)], tf.int64)

        def gather() -> tf.Tensor:
            return tf.distribute.get_replica_context().all_gather(own, axis=0)

        found = tf.function(lambda: self.strategy.run(gather), autograph=False)()
        each = self.strategy.experimental_local_results(found)[0].numpy()
        return np.asarray(each[:: self.devices // self.workers])

    def check_agree(self, facts: Mapping[str, Any]) -> None:
        """Compares facts that all workers must have alike. All workers must call this, with the same names.

        Raises:
            ValueError: workers have different facts.
        """
        sums = [zlib.crc32(json.dumps(fact).encode()) for fact in facts.values()]
        found = self.gathered(sums)
        for place, (name, fact) in enumerate(facts.items()):
            others = np.flatnonzero(found[:, place] != found[0, place])
            if len(others):
                raise ValueError(
                    f"expected the same {name} in all workers. Worker {others[0]} has another than worker 0. "
                    f"Worker {self.index} has {fact!r:.200}"
                )

    def any(self, value: bool) -> bool:
        """True if it is true in one of the workers. All workers must call this."""
        return bool(self.gathered([int(value)]).any())


def started(settings: TrainConfig, gpus: Sequence[Any]) -> Distribution | None:
    """The devices that train; None if it is one.

    They are those of a cluster that the environment describes (see `cluster`), or the GPUs of this machine.

    Args:
        settings: they say how many devices of this machine train.
        gpus: the GPUs that TensorFlow sees.

    Raises:
        ValueError: there are fewer devices than are asked for, or settings do not fit several devices.
    """
    found = cluster.workers()
    if found is None:
        distribution = _of_machine(settings, gpus)
    else:
        if settings.run is None:
            raise ValueError(
                "run (--run): expected a name, which is the same in all workers. Received None"
            )
        distribution = _of_cluster(found, gpus)
    if distribution is None:
        return None
    _check(settings, distribution)
    logger.info(
        "%d devices train together. This is worker %d of %d",
        distribution.devices,
        distribution.index,
        distribution.workers,
    )
    return distribution


def _of_machine(settings: TrainConfig, gpus: Sequence[Any]) -> Distribution | None:
    wanted = settings.devices or max(1, len(gpus))
    if wanted == 1:
        return None
    kind = "GPU" if gpus else "CPU"
    seen = tf.config.list_logical_devices(kind) if gpus else _logical_cpus(wanted)
    if len(seen) < wanted:
        raise ValueError(
            f"devices (--devices): expected at most {len(seen)}, the number that TensorFlow sees. Received: {wanted}"
        )
    names = [device.name for device in seen[:wanted]]
    return Distribution(tf.distribute.MirroredStrategy(names))


def _logical_cpus(count: int) -> list[Any]:
    """The processor as several devices, for tests. It trains no faster."""
    [processor] = tf.config.list_physical_devices("CPU")
    try:
        tf.config.set_logical_device_configuration(
            processor, [tf.config.LogicalDeviceConfiguration()] * count
        )
    except RuntimeError:
        logger.warning("TensorFlow has started: it cannot divide the processor any more")
    return list(tf.config.list_logical_devices("CPU"))


def _of_cluster(found: cluster.Workers, gpus: Sequence[Any]) -> Distribution:
    try:
        strategy = tf.distribute.MultiWorkerMirroredStrategy(found.resolver(len(gpus)))
    except RuntimeError as error:
        raise ValueError(
            "TensorFlow has started, and cannot join other workers any more. Train in a new process, and make no "
            f"tensor before `fit`: {error}"
        ) from error
    return Distribution(strategy, found.index, len(found.addresses))


def _check(settings: TrainConfig, distribution: Distribution) -> None:
    if settings.batch_size % distribution.devices:
        raise ValueError(
            f"batch_size (--batch-size): expected a multiple of {distribution.devices}, the number of devices. "
            f"Received: {settings.batch_size}"
        )
    if settings.jit == "on":
        raise ValueError(
            "jit (--jit): expected 'off' or 'auto' with several devices. Received 'on'"
        )
    if settings.precision == "mixed_float16":
        raise ValueError(
            "precision (--precision): expected float32 or mixed_bfloat16 with several devices, whose gradients need "
            "no scale. Received: mixed_float16"
        )
