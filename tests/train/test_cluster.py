import json
import re
import shlex
from pathlib import Path

import pytest
import yaml

from unitbox_tf.cli import parser
from unitbox_tf.train import cluster
from unitbox_tf.train.cluster import Workers

ROOT = Path(__file__).parents[2]
TWO = ("a:1", "b:2")


def tf_config(addresses=TWO, index=1, **task):
    stated = {"cluster": {"worker": list(addresses)}, "task": {"index": index, **task}}
    return {"TF_CONFIG": json.dumps(stated)}


def kubernetes(index="1", addresses="a:1,b:2"):
    return {"JOB_COMPLETION_INDEX": index, "UNITBOX_WORKERS": addresses}


SLURM = {
    "SLURM_PROCID": "2",
    "SLURM_STEP_NUM_TASKS": "3",
    "SLURM_STEP_NODELIST": "node[07-08]",
    "SLURM_STEP_TASKS_PER_NODE": "2,1",
}


def test_tf_config_names_the_workers():
    assert cluster.workers(tf_config(type="worker")) == Workers(TWO, 1)


def test_kubernetes_names_the_workers():
    assert cluster.workers(kubernetes()) == Workers(TWO, 1)


def test_slurm_names_the_workers(monkeypatch):
    for name, value in SLURM.items():
        monkeypatch.setenv(name, value)
    expected = ("node07:8888", "node07:8889", "node08:8888")
    assert cluster.workers() == Workers(expected, 2)


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"TF_CONFIG": ""},
        tf_config(["a:1"], 0),
        kubernetes("0", "a:1"),
        {"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1"},
        {"SLURM_PROCID": "0"},
        {"JOB_COMPLETION_INDEX": "3"},
    ],
)
def test_one_worker_is_no_cluster(environment):
    assert cluster.workers(environment) is None


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"TF_CONFIG": "{"}, "TF_CONFIG: expected json"),
        ({"TF_CONFIG": "[]"}, "TF_CONFIG: expected {"),
        ({"TF_CONFIG": '{"cluster": {"worker": ["a:1", "b:1"]}}'}, "TF_CONFIG: expected {"),
        (
            {"TF_CONFIG": '{"cluster": {"ps": ["a:1"]}, "task": {}}'},
            'expected tasks of the type "worker"',
        ),
        (tf_config(type="chief"), 'expected tasks of the type "worker"'),
        (tf_config(["a", "b:1"]), "expected the addresses of workers as host:port"),
        (tf_config(["http://a:1", "b:1"]), "expected the addresses of workers as host:port"),
        (tf_config([]), "expected the addresses"),
        (tf_config([1, 2]), "expected the addresses"),
        (tf_config(["a:1", "a:1"]), "expected different addresses"),
        (tf_config(index=2), "expected an index below 2"),
        (tf_config(index=-1), "expected an index below 2"),
        (tf_config(index="0"), "expected an index below 2"),
        (tf_config(index=True), "expected an index below 2"),
        (kubernetes(index=""), "JOB_COMPLETION_INDEX: expected the number of this worker"),
        (kubernetes(index="2"), "UNITBOX_WORKERS: expected an index below 2"),
        (kubernetes(addresses="a,b"), "UNITBOX_WORKERS: expected the addresses"),
        ({**SLURM, "SLURM_STEP_NODELIST": ""}, "Start workers with srun"),
    ],
)
def test_other_forms_are_refused(environment, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        cluster.workers(environment)


def test_the_resolver_has_the_workers_and_the_gpus():
    found = Workers(TWO, 1).resolver(gpus=3)
    assert found.cluster_spec().as_dict() == {"worker": list(TWO)}
    assert (found.task_type, found.task_id) == ("worker", 1)
    assert found.num_accelerators() == {"GPU": 3}


def test_the_manifest_names_its_workers():
    """As JobSet names them: NAME-JOB-REPLICA-INDEX.SUBDOMAIN."""
    manifest = yaml.safe_load((ROOT / "docs/distributed/jobset.yaml").read_text("utf-8"))
    [job] = manifest["spec"]["replicatedJobs"]
    spec = job["template"]["spec"]
    [container] = spec["template"]["spec"]["containers"]
    [variable] = container["env"]
    [port] = container["ports"]
    count = spec["parallelism"]
    assert (spec["completions"], spec["completionMode"]) == (count, "Indexed")
    environment = {variable["name"]: variable["value"], cluster.INDEX: str(count - 1)}
    found = cluster.workers(environment)
    first = f"{manifest['metadata']['name']}-{job['name']}-0"
    subdomain = manifest["spec"]["network"]["subdomain"]
    assert found.addresses == tuple(
        f"{first}-{index}.{subdomain}:{port['containerPort']}" for index in range(count)
    )
    [command] = re.findall(r"exec unitbox (.*)", container["args"][0])
    options = parser.parse([word for word in shlex.split(command) if word != "$@"])
    devices = count * container["resources"]["limits"]["nvidia.com/gpu"]
    assert options.batch_size % devices == 0
