"""Figure 5 of the paper: one portrait at six sizes, its box read at one fixed pixel.

`train` continues the training of each loss's winner in figure 4 with faces of all sizes. `measure` shows
validation images to these networks and to those of figure 4, which have seen faces of few sizes, where they are
trained, and to any other run or published detector.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from training import outputs
from training.paper import experiments, figure4, recipes
from unitbox_tf import boxes as box_ops
from unitbox_tf import datasets, files, inputs
from unitbox_tf.config import Config
from unitbox_tf.problems import Problems
from unitbox_tf.records import Annotation

logger = logging.getLogger(__name__)

SIDES = (60, 120, 240, 360, 480, 960)  # px; long side of the portrait, as in the paper
WITHIN_FIELD = (
    240  # px; up to this size, the field of view at the centre (228 px) holds the whole face
)
PHOTOS = 60  # validation images, those with the largest faces
KINDS = {
    "final": "faces of figure 4's training",
    "scales": "trained on at all scales",
}  # by the names of the runs
COLOURS = ("C0", "C3", "C2", "C1")  # the first two are those of -ln IoU and l2
# The paper's figure, by sides: width as a share of the image; None where it leaves the image.
PAPER = {
    "iou": (0.545, 0.503, 0.527, 0.507, 0.521, 0.551),
    "l2": (0.503, None, 0.774, 0.603, 0.479, 0.279),
}


def configs(winners: Mapping[str, Config], folder: Path, epochs: int) -> dict[str, Config]:
    """Each winner of figure 4's search, trained on from its first final run on crops of 256 px.

    Args:
        winners: by loss.
        folder: of figure 4's runs.
        epochs: of each run.

    Raises:
        ValueError: a final run is not trained.
    """
    found = {}
    for loss, won in winners.items():
        start = folder / run_name("final", loss)
        if not experiments.is_trained(start):
            raise ValueError(
                f"{start}: is not trained. Run `python -m training.paper figure4 final` with the same "
                "--output first"
            )
        found[f"scales-{loss}"] = recipes.changed(
            won,
            data={
                "image_size": 256,
                "random_crop": True,
                "object_size": (14.0, 230.0),
                "max_enlargement": 3.0,
                "flip": True,
            },
            train={"seed": 0, "epochs": epochs, "init": str(start), "batch_size": 4},
        )
    return found


def probe(model: Any, image: np.ndarray, point: tuple[float, float]) -> np.ndarray:
    """Boxes `xyxy` `[6, 4]`, as shares of the image, that one pixel predicts at each of `SIDES`.

    With maps of a stride, the point of the map whose cell holds the pixel predicts the box.

    Args:
        model: a network.
        image: RGB uint8 `[H, W, 3]`.
        point: of the pixel, x and y as shares of the image.
    """
    stride = getattr(model, "map_stride", 1)
    boxes = []
    for side in SIDES:
        scale = side / max(image.shape[:2])
        height, width = (max(1, round(length * scale)) for length in image.shape[:2])
        method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        shown = cv2.resize(image, (width, height), interpolation=method)
        column, row = int(point[0] * width) // stride, int(point[1] * height) // stride
        distances = model(shown[None], training=False)["distances"][0, row, column].numpy()
        centre = [[(column + 0.5) * stride, (row + 0.5) * stride]]
        box = box_ops.distances_to_boxes(distances[None], centre)
        boxes.append(np.asarray(box)[0] / ([width, height] * 2))
    return np.array(boxes)


def variation(values: np.ndarray) -> np.ndarray:
    """Coefficients of variation over the first axis: standard deviation by mean; inf where the mean is 0."""
    mean = values.mean(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(mean > 0, values.std(axis=0) / mean, np.inf)


def portraits(annotations: Sequence[Annotation], count: int) -> list[Annotation]:
    """The images with one face in which it takes the largest share of the long side."""
    rated = []
    for annotation in annotations:
        if len(annotation.boxes) == 1:
            height, width = inputs.read_image(annotation.encoded()).shape[:2]
            box = annotation.boxes[0]
            rated.append((max(box[2:] - box[:2]) / max(height, width), annotation))
    rated.sort(key=lambda item: -item[0])
    return [annotation for _, annotation in rated[:count]]


def measure(runs: Mapping[str, Path], photos: Sequence[Annotation]) -> dict[str, np.ndarray]:
    """For each run the width and height `[N, 6, 2]` of the box that the centre of each image's face predicts."""
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
    from unitbox_tf.detect.model import UnitBox

    return UnitBox.from_preset(run)


def summarize(values: np.ndarray) -> dict[str, Any]:
    """The coefficients of variation of widths and heights `[N, 6, 2]`: mean and spread over images."""
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
    # These tell which sizes are to blame.
    ratios = by_middle(values)
    medians = np.median(ratios, axis=0) if len(ratios) else []
    summary["median_by_240_px"] = {
        str(side): {"width": float(width), "height": float(height)}
        for side, (width, height) in zip(SIDES, medians, strict=False)
    }
    return summary


def by_middle(values: np.ndarray) -> np.ndarray:
    """Widths and heights `[N, 6, 2]` by those at 240 px, in images that have a box at that size."""
    middle = values[:, SIDES.index(240)]
    known = (middle > 0).all(axis=1)
    return values[known] / middle[known, None]


def plot(
    values: Mapping[str, np.ndarray], pictures: Mapping[str, tuple[np.ndarray, Any]], path: Path
) -> None:
    """Draws the box's width over the portrait's size, with the paper's; below, an image with six boxes a run.

    Args:
        values: of `measure`.
        pictures: by run, an image with a point in it and the boxes of `probe`.
        path: of the figure.
    """
    panels = {
        title: {run_name(kind, loss): figure4.NAMES[loss] for loss in figure4.LOSSES}
        for kind, title in KINDS.items()
    }
    own = {name for names in panels.values() for name in names}
    panels = {title: names for title, names in panels.items() if names.keys() & values.keys()}
    if others := {name: name for name in values if name not in own}:
        panels["other networks"] = others
    rows = 1 + bool(pictures)
    figure = Figure(figsize=(5.5 * len(panels), 4.4 * rows), layout="constrained")
    parts = figure.subfigures(rows, 1, squeeze=False)[:, 0]
    for column, (title, names) in enumerate(panels.items()):
        axes = parts[0].add_subplot(1, len(panels), column + 1)
        axes.set_title(title)
        _draw_widths(axes, names, values)
    for column, (name, (image, found)) in enumerate(pictures.items()):
        axes = parts[1].add_subplot(1, len(pictures), column + 1)
        _draw(axes, image, found)
        axes.set_title(name)
    outputs.write_figure(path, figure, dpi=110)


def _draw_widths(axes: Axes, labels: Mapping[str, str], values: Mapping[str, np.ndarray]) -> None:
    """Median and quartiles of the widths of the runs that `labels` names, and the widths of the paper."""
    for number, (name, label) in enumerate(labels.items()):
        if name not in values:
            continue
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
    axes.set(xscale="log", xlabel="long side of the image (px)", ylim=(0, 2))
    axes.set_ylabel("width of the box, by that at 240 px")
    axes.set_xticks(SIDES, [str(side) for side in SIDES])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")


def _draw(axes: Axes, image: np.ndarray, found: tuple[tuple[float, float], np.ndarray]) -> None:
    """The image and, around the pixel, the boxes of all sizes `xyxy` `[6, 4]`, as shares of the image."""
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


def make(
    stages: Sequence[str],
    *,
    data: str,
    weights: str | None,
    output: Path,
    epochs: int,
    search_epochs: int,
    runs: Sequence[str],
    picture: Path | None,
    pixel: tuple[float, float],
) -> None:
    """Trains, or measures and writes figure5.csv, figure5.json, figure5.md and figure5.png.

    Args:
        stages: "train", "measure" or both.
        data: folder of the data sets.
        weights: "imagenet", or a file of VGG-16's weights; "train" needs it.
        output: folder of figure 4's runs and of these.
        epochs: of each run.
        search_epochs: of the runs of figure 4's search.
        runs: other networks to measure, as texts NAME=RUN.
        picture: file of a portrait to draw the boxes in.
        pixel: where its boxes are read, x and y as shares of the image.
    """
    if "train" in stages and weights is None:
        raise ValueError("expected --weights to train, 'imagenet' or a file. Received none")
    shared = recipes.base(data, weights)
    if "train" in stages:
        winners = figure4.winners(output, shared, search_epochs)
        experiments.train_all(configs(winners, output, epochs), output)
    if "measure" not in stages:
        return
    if min(pixel) < 0 or max(pixel) >= 1:
        raise ValueError(f"Expected --pixel from 0 to below 1. Received: {pixel}")
    image = inputs.read_image(picture) if picture else None
    measured = measured_runs(output, runs)
    problems = Problems()
    sources = shared.data.validation_sources
    truth = datasets.load(sources, ("face",), data=data, problems=problems)
    problems.log_counts()
    photos = portraits(truth, PHOTOS)
    values = measure(measured, photos)
    write(values, [photo.name for photo in photos], output)
    pictures = {}
    if image is not None:
        point = (pixel[0], pixel[1])
        for name, run in measured.items():
            pictures[name] = (image, (point, probe(network(run), image, point)))
    plot(values, pictures, output / "figure5.png")


def measured_runs(folder: Path, others: Sequence[str]) -> dict[str, Path]:
    """The runs of figures 4 and 5 that are trained, and others, given as NAME=RUN.

    Raises:
        ValueError: there are none, or another has a name of these.
    """
    names = [run_name(kind, loss) for kind in KINDS for loss in figure4.LOSSES]
    runs = {name: folder / name for name in names if experiments.is_trained(folder / name)}
    for name, run in experiments.named(others).items():
        if name in names:
            raise ValueError(f"Expected --runs of other names than {names}. Received: {name}")
        runs[name] = run
    if not runs:
        raise ValueError(
            f"{folder}: none of {names} is trained. Name detectors (--runs), or run `python -m training.paper "
            "figure4` first"
        )
    for name in sorted(set(names) - runs.keys()):
        logger.info("%s: is not trained, and left out", folder / name)
    return runs


def write(values: Mapping[str, np.ndarray], photos: Sequence[str], folder: Path) -> None:
    """Writes figure5.csv, with the widths and heights of `measure`, and figure5.json and .md, which sum them up."""
    lines = [
        [name, photo, side, f"{width:.5f}", f"{height:.5f}"]
        for name, rows in values.items()
        for photo, sizes in zip(photos, rows, strict=True)
        for side, (width, height) in zip(SIDES, sizes, strict=True)
    ]
    head = ["run", "photo", "side", "width", "height"]
    outputs.write_csv(folder / "figure5.csv", head, lines)
    summary = {name: summarize(rows) for name, rows in values.items()}
    outputs.write_json(folder / "figure5.json", summary)
    text = markdown(summary)
    files.write(folder / "figure5.md", text)
    print(text)


def markdown(summary: Mapping[str, Mapping[str, Any]]) -> str:
    """The table of coefficients of variation, with those of the paper's portrait."""
    lines = [
        "| coefficient of variation, mean over images (standard deviation) | images | width | height | width, 60 to "
        f"{WITHIN_FIELD} px alone | share of images with a width of at most .06 |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for loss, widths in PAPER.items():
        known = np.array([[width] for width in widths if width is not None])
        lines.append(
            f"| the paper's portrait, {figure4.NAMES[loss]} | 1 | {variation(known)[0]:.3f} | | | |"
        )
    for name, row in summary.items():
        width, height = row["width"], row["height"]
        cells = [
            str(row["photos"]),
            *(
                f"{_number(each['mean'])} ({_number(each['standard_deviation'])})"
                for each in (width, height)
            ),
            _number(width[f"mean_up_to_{WITHIN_FIELD}_px"]),
            f"{width['share_up_to_6_percent']:.2f}",
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
