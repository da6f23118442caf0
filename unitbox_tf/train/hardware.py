"""Chooses the device, the precision and the use of XLA for training."""

from __future__ import annotations

import contextlib
import functools
import logging
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from unitbox_tf.config import TrainConfig
from unitbox_tf.train import distribution
from unitbox_tf.train.distribution import Distribution

logger = logging.getLogger(__name__)

CPU_INFO = Path("/proc/cpuinfo")
BFLOAT16_FLAGS = ("avx512_bf16", "amx_bf16")  # flags of processors that may compute in bfloat16
# The other precision is chosen only below this share of float32's time: low precision has a price, and
# measurements are not exact.
WORTH_IT = 0.9
ROUNDS = 3  # the fastest counts
_TYPES = {"float32": "float32", "mixed_bfloat16": "bfloat16", "mixed_float16": "float16"}


class Hardware(NamedTuple):
    """The hardware of a training.

    Attributes:
        jit: Keras' `jit_compile`.
        distribution: the devices, if there are several.
    """

    jit: bool | str
    distribution: Distribution | None = None


@contextlib.contextmanager
def _hardware(settings: TrainConfig) -> Iterator[Hardware]:
    """Chooses the devices, and sets the precision within the context."""
    gpus = _gpus(settings.device)
    together = distribution.started(settings, gpus)
    precision, reason = _precision(settings, gpus, together)
    jit: bool | str = settings.jit == "on"
    if jit and precision == "mixed_bfloat16":
        raise ValueError(
            "XLA cannot compile the gradient of VGG-16's ReLU in bfloat16. Expected jit='off' (--jit off), or "
            "precision='float32' (--precision float32) beside jit='on'."
        )
    if settings.jit == "auto":
        # It also slows VGG-16 on CPUs.
        usable = gpus and precision != "mixed_bfloat16" and together is None
        jit = "auto" if usable else False
    device = f"{len(gpus)} GPU" if gpus else "CPU"
    logger.info("%s, precision %s: %s", device, precision, reason)
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)
    try:
        yield Hardware(jit, together)
    finally:
        keras.config.set_dtype_policy(before)


def _precision(
    settings: TrainConfig, gpus: Sequence[Any], together: Distribution | None
) -> tuple[str, str]:
    """The dtype policy, and the reason in words. All workers take what the chief measures."""
    if settings.precision != "auto":
        return settings.precision, "as set"
    precision, reason = best_precision(gpus)
    if together is None:
        return precision, reason
    known = [policy for policy in _TYPES if policy != "mixed_float16"]
    own = known.index(precision) if precision in known else 0
    return known[together.gathered([own])[0, 0]], "as the first worker has measured"


def _gpus(device: str) -> list[Any]:
    """The GPUs that train. Raises `ValueError` if `device` is `"gpu"` and there is none."""
    gpus = tf.config.list_physical_devices("GPU")
    if device == "gpu" and not gpus:
        raise ValueError(
            "device='gpu', but TensorFlow sees none. Install with pip install 'unitbox_tf[gpu]' "
            "and check the driver with nvidia-smi, or train with device='cpu' (--device cpu)."
        )
    if device == "cpu" and gpus:
        try:
            tf.config.set_visible_devices([], "GPU")
            gpus = []
        except RuntimeError:
            logger.warning(
                "TensorFlow has started: it cannot leave the GPU any more, and trains on it in spite of "
                "device='cpu'. Train in a new process to use the CPU."
            )
    try:
        for gpu in gpus:
            tf.config.experimental.set_memory_growth(gpu, True)
    except RuntimeError:  # TensorFlow is in use already, as in a notebook
        logger.warning("TensorFlow has started: it keeps all memory of the GPU")
    return list(gpus)


def best_precision(gpus: Sequence[Any]) -> tuple[str, str]:
    """The fastest Keras dtype policy on this hardware, and the reason in words."""
    other = lower_precision(gpus)
    if other is None:
        return "float32", "this hardware has no other"
    share = share_of_float32(other, large=bool(gpus))
    chosen = other if share < WORTH_IT else "float32"
    return chosen, f"a convolution in {other} takes {share:.2f} of its time in float32"


def lower_precision(gpus: Sequence[Any]) -> str | None:
    """The policy below float32 that the hardware states; None if there is none."""
    if gpus:
        details = tf.config.experimental.get_device_details(gpus[0])
        major = details.get("compute_capability", (0, 0))[0]
        return "mixed_bfloat16" if major >= 8 else "mixed_float16" if major >= 7 else None
    try:
        flags = CPU_INFO.read_text()
    except OSError:
        return None
    return "mixed_bfloat16" if any(flag in flags for flag in BFLOAT16_FLAGS) else None


@functools.cache  # measured once in a process
def share_of_float32(policy: str, large: bool) -> float:
    """The time that a convolution takes in `policy`, as a share of its time in float32."""
    return seconds(policy, large) / seconds("float32", large)


def seconds(policy: str, large: bool) -> float:
    """The time of a 3x3 convolution of VGG-16's middle, forward and backward.

    The flags of a processor do not tell this: some name bfloat16, but take twice the time in it.

    Args:
        policy: Keras' dtype policy.
        large: True measures a batch that is large enough for a GPU.
    """
    dtype = _TYPES[policy]

    def step(images: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            tape.watch([images, kernel])
            result = tf.nn.conv2d(tf.cast(images, dtype), tf.cast(kernel, dtype), 1, "SAME")
        gradients = tape.gradient(result, [images, kernel])
        return tf.add_n([tf.reduce_sum(gradient) for gradient in gradients])

    run = tf.function(step, autograph=False)
    inputs = tf.ones([32 if large else 1, 56, 56, 256]), tf.ones([3, 3, 256, 256])
    times = []
    for _ in range(ROUNDS + 1):
        start = time.perf_counter()
        float(run(*inputs))  # waits until it is done
        times.append(time.perf_counter() - start)
    return min(times[1:])  # the first call traces
