"""Fixtures that several test files use."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import sys
import threading
from pathlib import Path

import hypothesis
import numpy as np
import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

# Tracing a graph makes the first example slow, and machines differ.
hypothesis.settings.register_profile("unitbox", deadline=None, max_examples=50)
hypothesis.settings.load_profile("unitbox")

LEFT_BEHIND = 100 * 2**20  # bytes after which a test's garbage is collected
DATA = Path(__file__).parents[2] / "shared" / "data"


def pytest_addoption(parser):
    parser.addoption(
        "--data", type=Path, default=DATA, help="folder with fddb, wider, other and vgg16_notop.h5"
    )


def pytest_configure():
    """Lets coverage see the Python that TensorFlow calls in its own threads, where Python does not start a trace."""
    if threading.gettrace() is None:
        return
    from tensorflow.python.ops import script_ops

    call = script_ops.FuncRegistry.__call__

    def traced(self, token, device, args):
        if sys.gettrace() is None:
            sys.settrace(threading.gettrace())
        return call(self, token, device, args)

    script_ops.FuncRegistry.__call__ = traced


def pytest_collection_modifyitems(items):
    if any(item.get_closest_marker("gpu") for item in items):
        import tensorflow as tf

        if not tf.config.list_physical_devices("GPU"):
            for item in items:
                if item.get_closest_marker("gpu"):
                    item.add_marker(pytest.mark.skip(reason="needs a GPU; TensorFlow sees none"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():
    """Captured text may quote names that are no text, which cannot go from one process to another."""
    report = yield
    report.sections = [
        (title, text.encode("utf-8", "backslashreplace").decode())
        for title, text in report.sections
    ]
    return report


@pytest.fixture(autouse=True)
def _memory_is_given_back():
    """Collects networks and graphs, which are garbage in cycles, as soon as a test leaves much behind.

    Python itself collects them so rarely that a process with many tests grew to 10 GB.
    """
    before = _resident()
    yield
    if _resident() - before > LEFT_BEHIND:
        gc.collect()
        with contextlib.suppress(AttributeError):  # not glibc
            ctypes.CDLL(None).malloc_trim(0)


def _resident() -> int:
    """The memory of this process in bytes; 0 where the system has no /proc."""
    try:
        pages = Path("/proc/self/statm").read_text().split()[1]
    except OSError:
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


@pytest.fixture(scope="session")
def data(request):
    """`data("fddb/FDDB-folds")`: that path below --data; skips where it is absent."""
    root = request.config.getoption("--data")

    def below(name: str) -> Path:
        path = root / name
        if not path.exists():
            pytest.skip(f"needs {path}; name the folder that holds {name} with --data")
        return path

    return below


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def tiny_config(tmp_path_factory):
    """A configuration that trains in seconds, with a class more than the images show."""
    import dataclasses

    from unitbox_tf.presets import PRESETS

    smoke = PRESETS["smoke"]
    return dataclasses.replace(
        smoke,
        model=dataclasses.replace(smoke.model, class_names=("object", "other")),
        data=dataclasses.replace(
            smoke.data,
            train_sources=("synthetic:#0-12",),
            validation_sources=("synthetic:#100-104",),
            image_size=64,
            absent_classes=True,
        ),
        train=dataclasses.replace(
            smoke.train,
            optimizer="sgd",
            clip_norm=1.0,
            weight_decay=2e-4,
            epochs=2,
            steps_per_epoch=2,
            batch_size=2,
            precision="float32",
            validation_protocol="coco",
            output=str(tmp_path_factory.mktemp("runs")),
        ),
        decode=dataclasses.replace(smoke.decode, max_side=64, max_detections=20),
    )


@pytest.fixture(scope="session")
def tiny_run(tiny_config):
    """A finished run of `tiny_config`."""
    import dataclasses

    from unitbox_tf.train import fit

    settings = dataclasses.replace(tiny_config.train, run="tiny")
    return fit.fit(dataclasses.replace(tiny_config, train=settings))


@pytest.fixture(scope="session")
def untrained_run(tiny_config, tmp_path_factory):
    """The folder of a run whose network is untrained, and finds something nearly everywhere."""
    import dataclasses

    from unitbox_tf import runs
    from unitbox_tf.detect.model import UnitBox
    from unitbox_tf.formats import saved_model

    folder = tmp_path_factory.mktemp("untrained")
    config = dataclasses.replace(
        tiny_config,
        model=dataclasses.replace(tiny_config.model, head_stddev=0.01, initial_box_size=25.0),
        decode=dataclasses.replace(tiny_config.decode, score_threshold=0.01),
    )
    model = UnitBox.from_settings(config.model, config.decode, seed=3)
    runs.Run(folder).config_file.write_text(config.to_json())
    model.save_weights(runs.Run(folder).best)
    saved_model.save(model, runs.Run(folder).saved_model)
    return folder
