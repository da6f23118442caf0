"""The losses: forward and backward of -ln IoU over a batch of distance heatmaps of which a tenth is positive.

This measures the loss of this package, autodiff of the same formula, two public implementations that are
written again here, and the other losses of this package. Bounds are the times of memory access alone.
For all pixels, the bound is the time of adding the two inputs: each is read once, and as many bytes as the
gradient has are written. For positive pixels, it is the time of reading the weights and writing a gradient
of zeros. Memory is the peak of one step above inputs and returned gradient, as the median of several
separate processes.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from training.benchmarks.apart import call_apart
from training.benchmarks.turns import quartiles, take_turns
from unitbox_tf import losses, registry

# Truth and prediction [B, H, W, 4], weight [B, H, W].
Heatmaps = tuple[tf.Tensor, tf.Tensor, tf.Tensor]


@dataclasses.dataclass(frozen=True)
class Work:
    """The batch on which a loss is measured, and how it is compiled."""

    batch: int
    height: int
    width: int
    positive: float
    jit: bool


def heatmaps(batch: int, height: int, width: int, positive: float) -> Heatmaps:
    """One box in each image that covers the share `positive`, and predictions with errors of about a third."""
    random = np.random.default_rng(0)
    h, w = round(height * positive**0.5), round(width * positive**0.5)
    y, x = np.indices((height, width)) + 0.5
    truth = np.zeros((batch, height, width, 4), np.float32)
    for image in truth:
        top, left = random.integers(0, height - h), random.integers(0, width - w)
        distances = np.stack([y - top, top + h - y, x - left, left + w - x], axis=-1)
        image[...] = distances * (distances > 0).all(axis=-1, keepdims=True)
    weight = (truth[..., 0] > 0).astype(np.float32)
    prediction = random.uniform(0.5, 1.5, truth.shape) * np.where(truth > 0, truth, 40)
    return tf.constant(truth), tf.constant(prediction, tf.float32), tf.constant(weight)


def same_formula(y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
    """-ln IoU with the floors of `losses.iou_loss`, for autodiff."""
    t, b, l, r = tf.unstack(y_true, axis=-1)  # noqa: E741
    there = (t + b > 0) & (l + r > 0)
    true_h, true_w = tf.where(there, t + b, 1), tf.where(there, l + r, 1)
    pt, pb, pl, pr = tf.unstack(y_pred, axis=-1)
    least_h, least_w = losses.RELATIVE_FLOOR * true_h, losses.RELATIVE_FLOOR * true_w
    h, w = tf.maximum(pt + pb, least_h), tf.maximum(pl + pr, least_w)
    common_h = tf.maximum(tf.minimum(t, pt) + tf.minimum(b, pb), least_h)
    common_w = tf.maximum(tf.minimum(l, pl) + tf.minimum(r, pr), least_w)
    common = common_h * common_w
    union = h * w + true_h * true_w - common
    return tf.where(there, tf.math.log(union) - tf.math.log(common), 0)


def weighted_mean(values: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
    """Over the pixels that count."""
    return tf.reduce_sum(values * weight) / tf.reduce_sum(weight)


def autodiff(y_true: tf.Tensor, y_pred: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
    """The formula at every pixel, in its simplest form."""
    return weighted_mean(same_formula(y_true, y_pred), weight)


def autodiff_gathered(y_true: tf.Tensor, y_pred: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
    """The formula at positive pixels. The remaining difference is the gain of the written gradient."""
    kept = weight > 0
    true, pred, weight = (tf.boolean_mask(y, kept) for y in (y_true, y_pred, weight))
    return weighted_mean(same_formula(true, pred), weight)


def unitbox_2017(y_true: tf.Tensor, y_pred: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
    """As zhimingluo/UnitBox_TF: dense, pixels where the top distance is near 0 masked, mean over all."""
    top = y_true[..., 0]
    area = (y_pred[..., 0] + y_pred[..., 1]) * (y_pred[..., 2] + y_pred[..., 3])
    true_area = (top + y_true[..., 1]) * (y_true[..., 2] + y_true[..., 3])
    height = tf.minimum(y_pred[..., 0], top) + tf.minimum(y_pred[..., 1], y_true[..., 1])
    width = tf.minimum(y_pred[..., 2], y_true[..., 2]) + tf.minimum(y_pred[..., 3], y_true[..., 3])
    common = height * width
    iou = common / (area + true_area - common + 1e-6)
    return tf.reduce_mean(tf.where(top <= 0.01, tf.zeros_like(iou), -tf.math.log(iou + 1e-6)))


def fcos_2019(y_true: tf.Tensor, y_pred: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
    """As tianzhi0549/FCOS: positive pixels gathered, 1 px^2 added to intersection and union."""
    true = tf.boolean_mask(y_true, weight > 0)
    pred = tf.boolean_mask(y_pred, weight > 0)
    area = (pred[:, 0] + pred[:, 1]) * (pred[:, 2] + pred[:, 3])
    true_area = (true[:, 0] + true[:, 1]) * (true[:, 2] + true[:, 3])
    inner = tf.minimum(true, pred)
    common = (inner[:, 0] + inner[:, 1]) * (inner[:, 2] + inner[:, 3])
    return tf.reduce_mean(-tf.math.log((common + 1) / (area + true_area - common + 1)))


def unitbox_tf(name: str, gather: bool) -> Callable[..., tf.Tensor]:
    """A loss of this package, as `model.fit` calls it."""
    loss = registry.LOSSES[name]()
    loss.gather = gather
    return lambda y_true, y_pred, weight: loss(y_true, y_pred, sample_weight=weight)


BASE = "autodiff of the same formula"
DENSE_BOUND = "bound: read two, write one"
GATHER_BOUND = "bound: read weights, write zeros"
BOUNDS: dict[str, Callable[..., tf.Tensor]] = {
    DENSE_BOUND: lambda y_true, y_pred, weight: y_true + y_pred,
    GATHER_BOUND: lambda y_true, y_pred, weight: tf.fill(tf.shape(y_pred), tf.reduce_min(weight)),
}
MEMORY_PROCESSES = 3


def variants(jit: bool) -> dict[str, Callable[..., tf.Tensor]]:
    """Losses by name. Losses of this package gather without XLA, where this is faster."""
    return {
        BASE: autodiff,
        "the same, positives gathered": autodiff_gathered,
        "unitbox_tf IoULoss": unitbox_tf("iou", gather=True),
        "unitbox_tf IoULoss, gather = False": unitbox_tf("iou", gather=False),
        "UnitBox_TF (2017)": unitbox_2017,
        "FCOS (2019)": fcos_2019,
        **{
            f"unitbox_tf {name}": unitbox_tf(name, gather=not jit)
            for name in registry.LOSSES
            if name != "iou"
        },
    }


def make_step(name: str, jit: bool) -> Callable[..., tuple[tf.Tensor, tf.Tensor]]:
    """Value and gradient of a variant for any shape, so that it can be traced with a small one."""
    heatmap = tf.TensorSpec([None, None, None, 4], tf.float32)
    signature = [heatmap, heatmap, tf.TensorSpec([None, None, None], tf.float32)]

    def step(
        y_true: tf.Tensor, y_pred: tf.Tensor, weight: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        if name in BOUNDS:
            return tf.zeros([]), BOUNDS[name](y_true, y_pred, weight)
        with tf.GradientTape() as tape:
            tape.watch(y_pred)
            value = variants(jit)[name](y_true, y_pred, weight)
        return value, tape.gradient(value, y_pred)

    return tf.function(step, input_signature=signature, jit_compile=jit, autograph=False)


def run(step: Callable[..., tuple[tf.Tensor, tf.Tensor]], inputs: Heatmaps) -> float:
    """Runs the step to its end, and returns the value."""
    value, gradient = step(*inputs)
    float(tf.reduce_sum(gradient[0, 0, 0]))  # an accelerator has to have finished for it
    return float(value)


def measure_memory(name: str, work: Work) -> float | None:
    """Peak MiB of one step above inputs and the gradient; None where the system does not tell."""
    gpus = tf.config.list_physical_devices("GPU")
    if not gpus and (work.jit or not os.access("/proc/self/clear_refs", os.W_OK)):
        return None  # XLA on CPUs keeps its memory from the step that compiles
    step = make_step(name, work.jit)
    inputs = heatmaps(work.batch, work.height, work.width, work.positive)
    run(step, heatmaps(2, 32, 32, work.positive))
    if work.jit:  # compiles for each shape
        run(step, inputs)
    if gpus:
        before = tf.config.experimental.get_memory_info("GPU:0")["current"]
        tf.config.experimental.reset_memory_stats("GPU:0")
        run(step, inputs)
        peak = tf.config.experimental.get_memory_info("GPU:0")["peak"]
    else:
        before = resident("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak
        run(step, inputs)
        peak = resident("VmHWM")
    gradient = inputs[1].shape.num_elements() * 4
    return (peak - before - gradient) / 2**20


def resident(field: str) -> int:
    """Bytes of this process in memory, by a field of Linux' /proc/self/status."""
    text = Path("/proc/self/status").read_text(encoding="utf-8")
    lines = dict(line.split(":", 1) for line in text.splitlines())
    return int(lines[field].split()[0]) * 1024


def measure_memory_apart(name: str, work: Work) -> list[float]:
    """`measure_memory` in processes of their own, whose memory nothing has used before; sorted."""
    found = [call_apart(measure_memory, name, work) for _ in range(MEMORY_PROCESSES)]
    return sorted(value for value in found if value is not None)


def benchmark(
    *, batch: int, height: int, width: int, positive: float, jit: bool, rounds: int
) -> dict[str, Any]:
    """Prints the table; returns its numbers.

    Args:
        batch: images.
        height: of an image.
        width: of an image.
        positive: the share of pixels that lie in a box.
        jit: compiles with XLA.
        rounds: of taking turns.
    """
    work = Work(batch, height, width, positive, jit)
    inputs = heatmaps(batch, height, width, positive)
    names = [*variants(jit), *BOUNDS]
    steps = {name: make_step(name, jit) for name in names}
    values = {name: run(step, inputs) for name, step in steps.items()}
    calls = {name: functools.partial(run, step, inputs) for name, step in steps.items()}
    seconds = take_turns(calls, rounds)
    memory = {name: measure_memory_apart(name, work) for name in names if name not in BOUNDS}
    rows = {}
    for name in names:
        low, middle, high = quartiles(seconds[name], seconds[BASE])
        rows[name] = {
            "value": values[name],
            "time_ratio": middle,
            "time_ratio_quartiles": [low, high],
            "extra_mib": memory.get(name, []),
        }
    print(
        f"-ln IoU, forward and backward, {batch} x {height} x {width} x 4, {positive:.0%} positive, "
        f"{'XLA' if jit else 'graph'}, {rounds} rounds"
    )
    print_table(rows)
    return {"losses": rows}


def print_table(rows: Mapping[str, Mapping[str, Any]]) -> None:
    """Prints a row for each variant."""
    print(
        f"{'':34}{'loss':>10}{'time, ratio [quartiles]':>26}{'extra MiB [range]':>20}{'ratio':>7}"
    )
    base = rows[BASE]["extra_mib"]
    for name, row in rows.items():
        extra, (low, high) = row["extra_mib"], row["time_ratio_quartiles"]
        shown = "" if name in BOUNDS else f"{row['value']:.4f}"
        peak, share = "", ""
        if extra and base:
            peak = f"{np.median(extra):.0f} [{extra[0]:.0f}, {extra[-1]:.0f}]"
            share = f"{np.median(extra) / np.median(base):.2f}"
        times = f"{row['time_ratio']:.3f} [{low:.3f}, {high:.3f}]"
        print(f"{name:34}{shown:>10}{times:>26}{peak:>20}{share:>7}")
