import logging

import pytest

from unitbox_tf.config import TrainConfig
from unitbox_tf.train import hardware


@pytest.fixture
def measured(monkeypatch):
    """Seconds by policy, which stand in for a measurement; and the calls."""
    times, calls = {"float32": 2.0, "mixed_bfloat16": 0.62, "mixed_float16": 1.9}, []

    def seconds(policy, large):
        calls.append((policy, large))
        return times[policy]

    monkeypatch.setattr(hardware, "seconds", seconds)
    hardware.share_of_float32.cache_clear()
    yield times, calls
    hardware.share_of_float32.cache_clear()


@pytest.fixture
def flags(monkeypatch, tmp_path):
    """Writes what the processor says of itself."""
    file = tmp_path / "cpuinfo"
    monkeypatch.setattr(hardware, "CPU_INFO", file)
    monkeypatch.setattr(hardware.tf.config, "list_physical_devices", lambda kind: [])
    return file.write_text


def chosen(caplog, **settings):
    """The policy while training, and what is logged of it."""
    with caplog.at_level(logging.INFO), hardware._hardware(TrainConfig(**settings)):
        policy = hardware.keras.config.dtype_policy().name
    [record] = [r for r in caplog.records if r.name == hardware.__name__]
    caplog.clear()
    return policy, record.getMessage()


def test_the_faster_precision_is_taken_and_the_log_says_why(measured, flags, caplog):
    times, calls = measured
    flags("flags : fpu avx512_bf16 amx_bf16")
    policy, line = chosen(caplog)
    assert policy == "mixed_bfloat16"
    assert line == (
        "CPU, precision mixed_bfloat16: a convolution in mixed_bfloat16 takes 0.31 of its time in float32"
    )
    assert chosen(caplog) == (policy, line)
    assert calls == [("mixed_bfloat16", False), ("float32", False)]  # once a process
    hardware.share_of_float32.cache_clear()
    times["mixed_bfloat16"] = 3.3  # a processor that names bfloat16 and is slow in it
    policy, line = chosen(caplog)
    assert policy == "float32"
    assert line.startswith("CPU, precision float32: a convolution in mixed_bfloat16 takes 1.65 of")
    hardware.share_of_float32.cache_clear()
    times["mixed_bfloat16"] = 1.9  # not worth the digits
    assert chosen(caplog)[0] == "float32"
    assert hardware.keras.config.dtype_policy().name == "float32"


def test_nothing_is_measured_where_there_is_no_choice(measured, flags, caplog):
    _, calls = measured
    flags("flags : fpu avx2")
    assert chosen(caplog) == ("float32", "CPU, precision float32: this hardware has no other")
    assert chosen(caplog, precision="mixed_float16") == (
        "mixed_float16",
        "CPU, precision mixed_float16: as set",
    )
    assert not calls


def test_a_system_without_cpuinfo_trains_in_float32(measured, flags):
    assert hardware.best_precision([])[0] == "float32"


@pytest.mark.parametrize(
    ("capability", "time", "expected"),
    [
        ((9, 0), 1.0, "mixed_bfloat16"),
        ((9, 0), 1.9, "float32"),
        ((7, 5), 1.0, "mixed_float16"),
        ((6, 1), 0.0, "float32"),
    ],
)
def test_precision_on_a_gpu_is_among_those_it_computes_natively(
    measured, monkeypatch, capability, time, expected
):
    times, calls = measured
    times.update(mixed_bfloat16=time, mixed_float16=time)
    details = {"compute_capability": capability}
    monkeypatch.setattr(hardware.tf.config.experimental, "get_device_details", lambda gpu: details)
    assert hardware.best_precision(["gpu"])[0] == expected
    assert all(large for _, large in calls)


def test_measuring_is_done_once():
    hardware.share_of_float32.cache_clear()
    share = hardware.share_of_float32("mixed_bfloat16", False)
    assert 0.02 < share < 50
    assert hardware.share_of_float32("mixed_bfloat16", False) == share
    assert hardware.share_of_float32.cache_info().misses == 1


def test_a_gpu_that_is_not_there_is_an_error(flags):
    with (
        pytest.raises(ValueError, match=r"device='gpu', but TensorFlow sees none.*--device cpu"),
        hardware._hardware(TrainConfig(device="gpu")),
    ):
        pass


def test_a_gpu_that_tensorflow_has_started_on_is_used_and_the_log_says_so(monkeypatch, caplog):
    def started(*_):
        raise RuntimeError("Visible devices cannot be modified after being initialized")

    config = hardware.tf.config
    monkeypatch.setattr(config, "list_physical_devices", lambda kind: ["gpu"])
    monkeypatch.setattr(config, "set_visible_devices", started)
    monkeypatch.setattr(config.experimental, "set_memory_growth", started)
    with hardware._hardware(TrainConfig(device="cpu", precision="float32")):
        pass
    lines = [record.getMessage() for record in caplog.records]
    assert "trains on it in spite of device='cpu'" in lines[0]
    monkeypatch.setattr(config, "set_visible_devices", lambda *_: None)
    assert hardware._gpus("cpu") == []


def test_xla_and_bfloat16_are_not_asked_for_together():
    with (
        pytest.raises(ValueError, match="XLA cannot compile"),
        hardware._hardware(TrainConfig(jit="on", precision="mixed_bfloat16")),
    ):
        pass
