"""Draws the losses of overlap and their gradients against offset, scale and aspect, for docs/losses.md.

python training/plot_losses.py [--output docs/losses]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure

from unitbox_tf import registry

SIDE = 100.0  # of the true box, a square at the origin; px
OPTIONS = {"alpha_iou": ("linear_iou", 3.0)}  # 1 - IoU^3 beside the others
NAMES = [name for name in registry.LOSSES if name not in ("l2", "smooth_l1")] + [*OPTIONS]
LABELS = {"iou": "-ln IoU", "linear_iou": "1 - IoU", "alpha_iou": "1 - IoU^3"}
# Many coincide: later lines are thinner and broken, so that those below show.
DASHES = ("-", "-", "--", "-.", ":", (0, (6, 2)), (0, (3, 3)), "-")


def evaluate(name: str, boxes: tf.Tensor, motion: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Loss `[N]` of `boxes` `xyxy` `[N, 4]`, and its slope `[N]` along `motion` `[N, 4]`."""
    loss, alpha = OPTIONS.get(name, (name, 1.0))
    options = {} if alpha == 1 else {"alpha": alpha}
    made = registry.LOSSES[loss](box_format="xyxy", **options)
    truth = tf.zeros_like(boxes) + np.array([0.0, 0.0, SIDE, SIDE])
    with tf.GradientTape() as tape:
        tape.watch(boxes)
        value = made.call(truth, boxes)
    gradient = tape.gradient(value, boxes).numpy()
    return value.numpy(), (gradient * motion).sum(axis=-1)


def draw(path: Path) -> None:
    """Values above, slopes below; offset to the left, scale in the middle, aspect to the right."""
    offset = np.linspace(-1.5, 1.5, 1200)  # an even number, which avoids the kink
    scale = np.exp(np.linspace(np.log(0.1), np.log(10), 1200))
    corners, half = np.array([0, 0, SIDE, SIDE]), np.array([-0.5, -0.5, 0.5, 0.5]) * SIDE
    along_x, along_y = np.array([1.0, 0, 1, 0]), np.array([0, 1.0, 0, 1])
    shifted = corners + offset[:, None] * SIDE * along_x
    larger = scale[:, None] * half
    wider = larger * along_x + half * along_y / scale[:, None]
    columns: tuple[tuple[str, np.ndarray, np.ndarray, np.ndarray], ...] = (
        ("offset in x, in sides", offset, shifted, SIDE * along_x),
        ("sides, of the true ones", scale, larger + SIDE / 2, larger),
        (
            "width, of the true one, at the same area",
            scale,
            wider + SIDE / 2,
            wider * (along_x - along_y),
        ),
    )
    figure = Figure(figsize=(14, 7.5), layout="constrained")
    axes = figure.subplots(2, 3, sharex="col", sharey="row")
    for column, (label, x, boxes, motion) in enumerate(columns):
        for index, name in enumerate(NAMES):
            value, slope = evaluate(name, tf.constant(boxes), motion)
            style = {
                "color": f"C{index}",
                "label": LABELS.get(name, name),
                "linewidth": 3 - 0.25 * index,
                "linestyle": DASHES[index],
            }
            axes[0, column].plot(x, value, **style)
            axes[1, column].plot(x, slope, **style)
        for axis in axes[:, column]:
            axis.set_xscale("linear" if x is offset else "log")
            axis.grid(alpha=0.3)
        axes[1, column].set_xlabel(label)
    axes[0, 0].set_ylim(0, 5)
    axes[1, 0].set_ylim(-4, 4)
    axes[0, 0].set_ylabel("loss")
    axes[1, 0].set_ylabel("slope (against the logarithm where the axis is one)")
    axes[0, 2].legend(loc="upper center", ncols=2, fontsize="small")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=80)


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("docs/losses"))
    arguments = parser.parse_args()
    draw(arguments.output / "family.png")


if __name__ == "__main__":
    main()
