"""Figure 5 of the paper: one portrait at six sizes, its box read at one fixed pixel.

The winner of each loss in figure 4 is trained on, on faces of all sizes (`train`); then it and the
network of figure 4, which has seen faces of few sizes, are shown validation photos (`measure`).
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import experiments
import figure4
import numpy as np
import recipes
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from unitbox_tf import boxes as box_ops
from unitbox_tf import datasets
from unitbox_tf.config import Config
from unitbox_tf.problems import Problems
from unitbox_tf.records import Annotation

logger = logging.getLogger(__name__)

SIDES = (60, 120, 240, 360, 480, 960)  # px; long side of the portrait, as in the paper
WITHIN_FIELD = 240  # px; up to here the centre of each of these faces sees all of it (228 px)
PHOTOS = 60  # validation photos, those with the largest faces
KINDS = {
    "final": "faces of figure 4's training",
    "scales": "trained on at all scales",
}  # by the names of the runs
COLOURS = ("C0", "C3", "C2", "C1")  # the first two: of -ln IoU and l2
# The paper's figure, by sides: width as a share of the image; None where it leaves the image.
PAPER = {
    "iou": (0.545, 0.503, 0.527, 0.507, 0.521, 0.551),
    "l2": (0.503, None, 0.774, 0.603, 0.479, 0.279),
}


def configs(shared: Config, winners: Mapping[str, Config], arguments: Any) -> dict[str, Config]:
    """Each winner of figure 4's search, trained on from its first final run on crops of 256 px.

    Raises:
        ValueError: that run is not trained.
    """
    found = {}
    for loss, won in winners.items():
        start = arguments.output / run_name("final", loss)
        if not experiments.is_trained(start):
            raise ValueError(
                f"{start}: is not trained. Run `figures.py figure4 final` with the same --output first"
            )
        tuned = recipes.tuned(
            shared, loss, won.train.learning_rate, won.loss.distance_weight, 0, arguments.epochs
        )
        found[f"scales-{loss}"] = dataclasses.replace(
            tuned,
            data=dataclasses.replace(
                tuned.data,
                image_size=256,
                random_crop=True,
                object_size=(14.0, 230.0),
                max_enlargement=3.0,
                flip=True,
            ),
            train=dataclasses.replace(tuned.train, init=str(start), batch_size=4),
        )
    return found


def probe(model: Any, image: np.ndarray, point: tuple[float, float]) -> np.ndarray:
    """Boxes `xyxy` `[6, 4]`, as shares of the image, that one pixel predicts at each of `SIDES`.

    Args:
        model: a network.
        image: RGB uint8 `[H, W, 3]`.
        point: of the pixel, x and y as shares of the image.
    """
    boxes = []
    for side in SIDES:
        scale = side / max(image.shape[:2])
        height, width = (max(1, round(length * scale)) for length in image.shape[:2])
        method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        shown = cv2.resize(image, (width, height), interpolation=method)
        x, y = int(point[0] * width), int(point[1] * height)
        distances = model(shown[None], training=False)["distances"][0, y, x].numpy()
        box = box_ops.distances_to_boxes(distances[None], [[x + 0.5, y + 0.5]])
        boxes.append(np.asarray(box)[0] / ([width, height] * 2))
    return np.array(boxes)


def variation(values: np.ndarray) -> np.ndarray:
    """Coefficients of variation over the first axis: standard deviation by mean; inf where the mean is 0."""
    mean = values.mean(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(mean > 0, values.std(axis=0) / mean, np.inf)


def portraits(annotations: Sequence[Annotation], count: int) -> list[Annotation]:
    """Photos with one face, those in which it takes the largest share of the long side."""
    from unitbox_tf import inputs

    rated = []
    for annotation in annotations:
        if len(annotation.boxes) == 1:
            height, width = inputs.read_image(annotation.encoded()).shape[:2]
            box = annotation.boxes[0]
            rated.append((max(box[2:] - box[:2]) / max(height, width), annotation))
    rated.sort(key=lambda item: -item[0])
    return [annotation for _, annotation in rated[:count]]


def measure(runs: Mapping[str, Path], photos: Sequence[Annotation]) -> dict[str, np.ndarray]:
    """For each run the width and height `[N, 6, 2]` of the box that the centre of each photo's face predicts."""
    from unitbox_tf import inputs

    found = {}
    for name, run in runs.items():
        model = network(run)
        rows = []
        for photo in photos:
            image = inputs.read_image(photo.encoded())
            x0, y0, x1, y1 = photo.boxes[0]
            centre = ((x0 + x1) / 2 / image.shape[1], (y0 + y1) / 2 / image.shape[0])
            boxes = probe(model, image, centre)
            rows.append(boxes[:, 2:] - boxes[:, :2])
        found[name] = np.array(rows)
    return found


def network(run: Path) -> Any:
    """The network of a run, with its best weights."""
    from unitbox_tf import config as configurations
    from unitbox_tf import runs
    from unitbox_tf.detect import detector

    return detector.load_model(run, configurations.load(run / runs.CONFIG_FILE))


def summarize(values: np.ndarray) -> dict[str, Any]:
    """The coefficients of variation of widths and heights `[N, 6, 2]`: mean and spread over photos."""
    each = np.array([variation(photo) for photo in values])  # [N, 2]
    summary: dict[str, Any] = {"photos": len(values)}
    seen = SIDES.index(WITHIN_FIELD) + 1
    for index, what in enumerate(("width", "height")):
        column = each[:, index]
        within = np.array([variation(photo[:seen, index]) for photo in values])
        within = within[np.isfinite(within)]
        known = column[np.isfinite(column)]  # in the others there is no box at any size
        summary[what] = {
            "photos_without_box": int(len(column) - len(known)),
            "mean": float(known.mean()) if len(known) else None,
            "standard_deviation": float(known.std()) if len(known) else None,
            "median": float(np.median(known)) if len(known) else None,
            "share_up_to_6_percent": float((column <= 0.06).mean()),
            f"mean_up_to_{WITHIN_FIELD}_px": float(within.mean()) if len(within) else None,
        }
    # Which sizes are to blame.
    ratios = by_middle(values)
    medians = np.median(ratios, axis=0) if len(ratios) else []
    summary["median_by_240_px"] = {
        str(side): {"width": float(width), "height": float(height)}
        for side, (width, height) in zip(SIDES, medians, strict=False)
    }
    return summary


def by_middle(values: np.ndarray) -> np.ndarray:
    """Widths and heights `[N, 6, 2]` by those at 240 px, of the photos in which there is a box at that size."""
    middle = values[:, SIDES.index(240)]
    known = (middle > 0).all(axis=1)
    return values[known] / middle[known, None]


def plot(
    values: Mapping[str, np.ndarray], pictures: Mapping[str, tuple[np.ndarray, Any]], path: Path
) -> None:
    """The box's width over the portrait's size, with the paper's; below, the picture with its six boxes a run."""
    panels = {
        title: {run_name(kind, loss): figure4.NAMES[loss] for loss in figure4.LOSSES}
        for kind, title in KINDS.items()
    }
    own = {name for names in panels.values() for name in names}
    if others := {name: name for name in values if name not in own}:
        panels["other networks"] = others
    rows = 1 + bool(pictures)
    figure = Figure(figsize=(5.5 * len(panels), 4.4 * rows), layout="constrained")
    parts = figure.subfigures(rows, 1, squeeze=False)[:, 0]
    for column, (title, names) in enumerate(panels.items()):
        axes = parts[0].add_subplot(1, len(panels), column + 1)
        for number, (name, label) in enumerate(names.items()):
            if name in values:
                width = by_middle(values[name])[..., 0]
                low, middle, high = np.percentile(width, [25, 50, 75], axis=0)
                colour = COLOURS[number % len(COLOURS)]
                axes.plot(SIDES, middle, color=colour, marker="o", label=label)
                axes.fill_between(SIDES, low, high, color=colour, alpha=0.2)
        for loss, colour in zip(figure4.LOSSES, COLOURS, strict=False):
            paper = [np.nan if share is None else share for share in PAPER[loss]]
            label = f"{figure4.NAMES[loss]}, the paper's portrait"
            line = np.array(paper) / paper[SIDES.index(240)]
            axes.plot(SIDES, line, color=colour, linestyle=":", label=label)
        axes.set(xscale="log", xlabel="long side of the photo (px)", ylim=(0, 2), title=title)
        axes.set_ylabel("width of the box, by that at 240 px")
        axes.set_xticks(SIDES, [str(side) for side in SIDES])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    for column, (name, (image, found)) in enumerate(pictures.items()):
        axes = parts[1].add_subplot(1, len(pictures), column + 1)
        _draw(axes, image, found)
        axes.set_title(name)
    figure.savefig(path, dpi=110)


def _draw(axes: Axes, image: np.ndarray, found: tuple[tuple[float, float], np.ndarray]) -> None:
    """The photo and, around the pixel, the boxes of all sizes `xyxy` `[6, 4]`, as shares of the image."""
    from matplotlib.patches import Rectangle

    (x, y), boxes = found
    height, width = image.shape[:2]
    axes.imshow(image)
    axes.plot(x * width, y * height, "r+", markersize=10)
    for number, (side, box) in enumerate(zip(SIDES, boxes, strict=True)):
        x0, y0, x1, y1 = box * ([width, height] * 2)
        patch = Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, color=f"C{number}")
        patch.set_label(f"{side} px")
        axes.add_patch(patch)
    axes.set(xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[])
    axes.legend(fontsize="x-small", loc="lower right")


def run_name(kind: str, loss: str) -> str:
    """The folder of a run."""
    return f"final-{loss}-0" if kind == "final" else f"{kind}-{loss}"


def make(arguments: argparse.Namespace) -> None:
    """Trains, or measures and writes figure5.csv, figure5.json and figure5.png."""
    folder, shared = arguments.output, recipes.base(arguments.data, arguments.weights)
    if "train" in arguments.stages:
        winners = figure4.winners(folder, shared, arguments)
        experiments.train_all(configs(shared, winners, arguments), folder)
    if "measure" not in arguments.stages:
        return
    if min(arguments.pixel) < 0 or max(arguments.pixel) >= 1:
        raise ValueError(f"Expected --pixel from 0 to below 1. Received: {arguments.pixel}")
    from unitbox_tf import inputs

    image = inputs.read_image(arguments.picture) if arguments.picture else None
    names = [run_name(kind, loss) for kind in KINDS for loss in figure4.LOSSES]
    runs = {name: folder / name for name in names if experiments.is_trained(folder / name)}
    for name, run in experiments.named(arguments.runs).items():
        if name in names:
            raise ValueError(f"Expected --runs of other names than {names}. Received: {name}")
        runs[name] = run
    if not runs:
        raise ValueError(f"{folder}: none of {names} is trained. Run `figures.py figure4` first")
    for name in sorted(set(names) - runs.keys()):
        logger.warning("%s: is not trained, and left out", folder / name)
    problems = Problems()
    truth = datasets.load(
        shared.data.validation_sources, ("face",), data=arguments.data, problems=problems
    )
    problems.log_counts()
    photos = portraits(truth, PHOTOS)
    values = measure(runs, photos)
    with (folder / "figure5.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["run", "photo", "side", "width", "height"])
        for name, rows in values.items():
            for photo, sizes in zip(photos, rows, strict=True):
                for side, (width, height) in zip(SIDES, sizes, strict=True):
                    writer.writerow([name, photo.name, side, f"{width:.5f}", f"{height:.5f}"])
    summary = {name: summarize(rows) for name, rows in values.items()}
    (folder / "figure5.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    pictures = {}
    if image is not None:
        for name, run in runs.items():
            point = tuple(arguments.pixel)
            pictures[name] = (image, (point, probe(network(run), image, point)))
    plot(values, pictures, folder / "figure5.png")
