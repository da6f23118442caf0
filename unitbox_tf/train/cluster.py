"""The machines that train together, as the program that starts their processes describes them.

* `TF_CONFIG`: the json of TensorFlow, `{"cluster": {"worker": ["host:port", ...]}, "task": {"type": "worker", "index":
  0}}`.
* Slurm: the variables that `srun` sets for each task.
* Kubernetes: `JOB_COMPLETION_INDEX`, which an indexed Job sets, and `UNITBOX_WORKERS`, which the manifest sets: the
  addresses `host:port` of all workers in their order, with commas between.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

PORT = 8888  # of the first task of a machine, under Slurm
WORKERS = "UNITBOX_WORKERS"
INDEX = "JOB_COMPLETION_INDEX"
_ADDRESS = re.compile(r"[^\s:,/]+:\d{1,5}|\[[0-9a-fA-F:]+\]:\d{1,5}")
_FORM = '{"cluster": {"worker": ["host:port", ...]}, "task": {"type": "worker", "index": 0}}'


@dataclasses.dataclass(frozen=True)
class Workers:
    """The addresses `host:port` of the workers of a cluster, and the number of this one."""

    addresses: tuple[str, ...]
    index: int

    def resolver(self, gpus: int) -> tf.distribute.cluster_resolver.ClusterResolver:
        """The cluster for TensorFlow. This worker has so many GPUs."""
        return tf.distribute.cluster_resolver.SimpleClusterResolver(
            tf.train.ClusterSpec({"worker": list(self.addresses)}),
            task_type="worker",
            task_id=self.index,
            num_accelerators={"GPU": gpus},
            rpc_layer="grpc",
        )


def workers(environment: Mapping[str, str] = os.environ) -> Workers | None:
    """The workers that the variables of `environment` describe; None if there is one at most.

    Raises:
        ValueError: a variable has another form.
    """
    if environment.get("TF_CONFIG"):
        found = _of_tf_config(environment["TF_CONFIG"])
    elif environment.get(WORKERS):
        found = _of_kubernetes(environment)
    elif "SLURM_PROCID" in environment:
        found = _of_slurm(environment)
    else:
        return None
    return found if len(found.addresses) > 1 else None


def _of_tf_config(text: str) -> Workers:
    try:
        stated = json.loads(text)
    except ValueError as error:
        raise ValueError(f"TF_CONFIG: expected json as {_FORM}. Received: {text!r:.200}") from error
    cluster = stated.get("cluster") if isinstance(stated, dict) else None
    task = stated.get("task") if isinstance(stated, dict) else None
    if not (isinstance(cluster, dict) and isinstance(task, dict)):
        raise ValueError(f"TF_CONFIG: expected {_FORM}. Received: {text!r:.200}")
    kinds = sorted({*cluster, task.get("type", "worker")})
    if kinds != ["worker"]:
        raise ValueError(
            'TF_CONFIG: expected tasks of the type "worker" only, the first of which is the chief. '
            f"Received: {kinds!r:.200}"
        )
    return _checked(cluster["worker"], task.get("index"), "TF_CONFIG")


def _of_kubernetes(environment: Mapping[str, str]) -> Workers:
    index = environment.get(INDEX, "")
    if not index.isdecimal():
        raise ValueError(
            f"{INDEX}: expected the number of this worker beside {WORKERS}. Received: {index!r:.50}"
        )
    return _checked(environment[WORKERS].split(","), int(index), WORKERS)


def _of_slurm(environment: Mapping[str, str]) -> Workers:
    """The tasks of a step of Slurm, on the ports from `PORT` on of each machine."""
    tasks = environment.get("SLURM_STEP_NUM_TASKS", "1")
    if tasks == "1":
        return Workers(("localhost",), 0)
    missing = [name for name in _OF_SLURM if not environment.get(name)]
    if missing or not tasks.isdecimal():
        raise ValueError(
            f"Slurm: expected {', '.join(_OF_SLURM)}, as srun sets them. Missing: {missing}. Start workers with srun"
        )
    count = int(tasks)
    # It numbers ports by GPUs, so each task gets one here. Slurm itself shows each task its own.
    found = tf.distribute.cluster_resolver.SlurmClusterResolver(
        {"worker": count}, PORT, gpus_per_node=count, gpus_per_task=1, auto_set_gpu=False
    )
    addresses = found.cluster_spec().as_dict()["worker"]
    return _checked(addresses, int(environment["SLURM_PROCID"]), "Slurm")


def _checked(addresses: Any, index: Any, where: str) -> Workers:
    """Raises `ValueError` if the addresses are not those of workers, or this worker is not among them."""
    are_texts = isinstance(addresses, list) and all(isinstance(each, str) for each in addresses)
    if not (are_texts and addresses and all(map(_ADDRESS.fullmatch, addresses))):
        raise ValueError(
            f"{where}: expected the addresses of workers as host:port. Received: {addresses!r:.200}"
        )
    if len(set(addresses)) < len(addresses):
        raise ValueError(f"{where}: expected different addresses. Received: {addresses!r:.200}")
    if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < len(addresses):
        raise ValueError(
            f"{where}: expected an index below {len(addresses)}, the number of workers. Received: {index!r:.50}"
        )
    return Workers(tuple(addresses), index)


_OF_SLURM = ("SLURM_STEP_NUM_TASKS", "SLURM_STEP_NODELIST", "SLURM_STEP_TASKS_PER_NODE")
