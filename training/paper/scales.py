"""Figure 4 with objects of many sizes: the paper's claim about its loss, where it can show.

Both losses get the same network, data, batches and tuning. For each loss:

1. Search, with one seed and a quarter of the steps: three learning rates and three weights of the distance loss,
   each the root of 30 (5.5) times the one before. While the best of all lies at an edge, its missing neighbours are
   tried, too. So 5.5 times lower and 5.5 times higher values of both were tried, unless `ROUNDS` end the search.
2. Half: the best three with half of the steps. If the best of them lies at an edge, its neighbours are tried as well.
3. Final: the best of these with all steps and all seeds.

A run is chosen by the mean of AP at IoU 0.5 and 0.75 on validation images, at its best epoch. The final runs are
judged on other images, by the long side of objects as the network sees them. Every run has a cosine schedule of its own
length. The last doubling of the steps says if a loss still improves.

Distances are in pixels in both losses. The light network predicts them as a unit times e to a number; the losses see
the product. VGG predicts them directly, as the paper does.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import logging
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from matplotlib.figure import Figure

from training import outputs
from training.paper import experiments, figure5
from unitbox_tf import boxes as box_ops
from unitbox_tf import datasets, files, inputs
from unitbox_tf.config import (
    Config,
    DataConfig,
    DecodeConfig,
    LossConfig,
    ModelConfig,
    TrainConfig,
)
from unitbox_tf.evaluation import matching
from unitbox_tf.presets import PRESETS
from unitbox_tf.problems import Problems
from unitbox_tf.records import Annotation, Detections

logger = logging.getLogger(__name__)

SETS = ("multiscale", "faces")
NETWORKS = ("light", "vgg")
STEP = math.sqrt(30)  # from one learning rate or weight to the next
RATE = 1.5e-3  # the middle of the search
# A side of 40 px that is a tenth wrong costs about .1 in -ln IoU and, with all four sides, 64 in l2.
WEIGHTS = {"l2": 1e-3, "smooth_l1": 3e-2}  # 1 for all others
ROUNDS = 4  # of the search at most
FALSE_POSITIVES = 1.0  # an image, at which recall is taken; an image has some five objects
KEPT = 3  # runs of the search that are trained longer
EPOCHS = 4  # of each run
EDGES = (8.0, 16.0, 32.0, 64.0, 128.0, math.inf)  # long sides, at which objects are divided; px
METRICS = {
    "recall50": "recall at IoU .5",
    "recall75": "recall at IoU .75",
    "mean_iou": "mean IoU of objects found",
    "centre_iou": "mean IoU of the box at the centre of each object",
    "ap50": "AP .5",
    "ap75": "AP .75",
}
# Two-sided quantiles of Student's t for intervals of 95 %, by the degrees of freedom.
STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
JUDGED = "by_size.json"  # in the folder of a run

Cell = tuple[int, int]  # steps of the learning rate and of the weight from the middle of the search


@dataclasses.dataclass(frozen=True)
class Setting:
    """What all runs of an experiment share.

    Attributes:
        kind: one of `SETS`.
        network: one of `NETWORKS`.
        width: factor of its channels.
        side: of training images and of images in detection; px.
        images: how many synthetic images there are to train on.
        batch_size: images in a step.
        steps: of a final run.
        data: folder of the data sets; not used by synthetic images.
    """

    kind: str = "multiscale"
    network: str = "light"
    width: float = 0.5
    side: int = 320
    images: int = 1500
    batch_size: int = 4
    steps: int = 2400
    data: str = "."

    @property
    def tested(self) -> tuple[str, ...]:
        """The sources on which final runs are judged."""
        if self.kind == "multiscale":
            return (f"multiscale:#2000000-2000300/{self.side}",)
        return ("wider_face:wider/val_416", "fddb:fddb#8")

    def config(self, loss: str, rate: float, weight: float, seed: int, share: int = 1) -> Config:
        """The configuration of a run with the steps divided by `share`."""
        return Config(
            data=self._data(),
            model=self.model(),
            loss=LossConfig(
                distance_loss=loss,
                confidence_loss="focal",
                confidence_shares="root",
                reduction="object_mean",
                distance_weight=weight,
            ),
            train=TrainConfig(
                epochs=EPOCHS,
                steps_per_epoch=max(1, self.steps // share // EPOCHS),
                batch_size=self.batch_size,
                optimizer="adamw",
                learning_rate=rate,
                weight_decay=0.02,
                schedule="cosine",
                warmup=0.05,
                clip_norm=10.0,
                validation_images=200,
                seed=seed,
                precision="float32",  # so that no loss suffers from rounding
            ),
            decode=DecodeConfig(max_side=self.side, score_threshold=0.4),
        )

    def _data(self) -> DataConfig:
        if self.kind == "multiscale":
            return DataConfig(
                train_sources=(f"multiscale:#0-{self.images}/{self.side}",),
                validation_sources=(f"multiscale:#1000000-1000200/{self.side}",),
                image_size=self.side,
                flip=True,
            )
        return dataclasses.replace(
            PRESETS["faces_light"].data,
            data=self.data,
            image_size=self.side,
            object_size=(EDGES[0], 0.9 * self.side),
        )

    def model(self) -> ModelConfig:
        """The network."""
        names = ("object",) if self.kind == "multiscale" else ("face",)
        if self.network == "vgg":
            return ModelConfig(
                class_names=names, width=self.width, initial_box_size=40.0, head_stddev=1e-3
            )
        return dataclasses.replace(
            PRESETS["faces_light"].model,
            class_names=names,
            width=self.width,
            neck_channels=max(8, round(32 * self.width)),
        )


def value(middle: float, steps: int) -> float:
    """A learning rate or a weight so many steps from the middle of the search, with two digits."""
    return float(f"{middle * STEP**steps:.2g}")


def settings_of(loss: str, cell: Cell) -> tuple[float, float]:
    """The learning rate and the weight of the distance loss of a cell."""
    return value(RATE, cell[0]), value(WEIGHTS.get(loss, 1.0), cell[1])


def neighbours(cell: Cell) -> list[Cell]:
    """The cell and those around it."""
    return [(cell[0] + i, cell[1] + j) for i in (-1, 0, 1) for j in (-1, 0, 1)]


def name_of(stage: str, loss: str, cell: Cell) -> str:
    """The name of a run of the search."""
    rate, weight = settings_of(loss, cell)
    return f"{stage}-{loss}-{rate:g}-{weight:g}"


def quality(run: Path) -> float:
    """The mean of AP at IoU 0.5 and 0.75 at the best epoch of a run; 0 if it diverged."""
    if not experiments.is_trained(run):
        return 0.0
    epochs = experiments.history(run)
    return max(statistics.mean((e["val_ap50"], e["val_ap75"])) for e in epochs)


def search(setting: Setting, loss: str, folder: Path) -> dict[Cell, float]:
    """Trains the search of a loss; the quality of each cell, the best first."""
    found = try_around((0, 0), setting, loss, {}, folder)
    for _ in range(ROUNDS - 1):
        if is_surrounded(next(iter(found)), found):
            break
        found = try_around(next(iter(found)), setting, loss, found, folder)
    return found


def try_around(
    centre: Cell, setting: Setting, loss: str, found: Mapping[Cell, float], folder: Path
) -> dict[Cell, float]:
    """`found` with the cell `centre` and its neighbours, which are trained if they are not there; the best first."""
    missing = [cell for cell in neighbours(centre) if cell not in found]
    names = {cell: name_of("search", loss, cell) for cell in missing}
    configs = {
        names[cell]: setting.config(loss, *settings_of(loss, cell), seed=0, share=4)
        for cell in missing
    }
    experiments.train_all(configs, folder)
    rated = {**found, **{cell: quality(folder / names[cell]) for cell in missing}}
    return dict(sorted(rated.items(), key=lambda item: -item[1]))


def is_surrounded(cell: Cell, found: Iterable[Cell]) -> bool:
    """True if all neighbours of the cell have been tried."""
    return set(neighbours(cell)) <= set(found)


def halve(
    setting: Setting, loss: str, found: Mapping[Cell, float], folder: Path
) -> dict[Cell, float]:
    """Trains the best cells of the search for longer; the quality of each, the best first."""
    kept = list(found)[:KEPT]
    names = {cell: name_of("half", loss, cell) for cell in kept}
    configs = {
        names[cell]: setting.config(loss, *settings_of(loss, cell), seed=0, share=2)
        for cell in kept
    }
    experiments.train_all(configs, folder)
    rated = {cell: quality(folder / names[cell]) for cell in kept}
    return dict(sorted(rated.items(), key=lambda item: -item[1]))


def tune(setting: Setting, loss: str, folder: Path) -> tuple[dict[Cell, float], dict[Cell, float]]:
    """Trains `search` and `halve`, and once more around the best of `halve` if it lies at an edge of the search."""
    found = search(setting, loss, folder)
    halved = halve(setting, loss, found, folder)
    best = next(iter(halved))
    if not is_surrounded(best, found):
        found = try_around(best, setting, loss, found, folder)
        again = halve(setting, loss, found, folder)
        halved = dict(sorted({**halved, **again}.items(), key=lambda item: -item[1]))
    return found, halved


def name_of_final(loss: str, seed: int) -> str:
    """The name of a final run."""
    return f"final-{loss}-{seed}"


def judge(run: Path, setting: Setting) -> dict[str, dict[str, Any]]:
    """The metrics of a run by size of object; written into its folder, and read if they are there.

    A run that diverged has found nothing.
    """
    file = run / JUDGED
    if file.is_file():
        return json.loads(file.read_text(encoding="utf-8"))
    problems = Problems()
    truth = datasets.load(
        setting.tested, setting.model().class_names, data=setting.data, problems=problems
    )
    detections, seen = _detect(run, truth, problems)
    problems.log_counts()
    if experiments.is_trained(run):
        overlaps = centre_overlaps(figure5.network(run), seen, setting.side)
    else:
        overlaps = [np.zeros(len(annotation.boxes)) for annotation in seen]
    found = by_size(detections, seen, overlaps, setting.side)
    outputs.write_json(file, found)
    return found


def _detect(
    run: Path, truth: Sequence[Annotation], problems: Problems
) -> tuple[list[Detections], list[Annotation]]:
    from unitbox_tf import loading
    from unitbox_tf.detect import detector

    if not experiments.is_trained(run):
        sizes = [a.size or inputs.read_image(a.encoded()).shape[:2] for a in truth]
        empty = np.zeros((0, 4)), np.zeros(0), np.zeros(0, int)
        return [Detections(*empty, size) for size in sizes], list(truth)
    model = loading.load(run, score_threshold=matching.EVALUATED_SCORE)
    return detector.detect_annotated(model, truth, problems=problems)


def centre_overlaps(
    model: Any, annotations: Sequence[Annotation], max_side: int
) -> list[np.ndarray]:
    """IoU `[N]` of each object with the box that the network predicts at its centre, whatever its confidence is there.

    Args:
        model: the network.
        annotations: the images.
        max_side: to which larger images are shrunk first; px.
    """
    stride = getattr(model, "map_stride", 1)
    found = []
    for annotation in annotations:
        image = inputs.read_image(annotation.encoded())
        scale = min(1.0, max_side / max(image.shape[:2]))
        if scale < 1:
            shape = [max(1, round(length * scale)) for length in image.shape[1::-1]]
            image = cv2.resize(image, shape, interpolation=cv2.INTER_AREA)
        height, width = image.shape[:2]
        truth = box_ops.clip(annotation.boxes * scale, height, width)
        centres = (truth[:, :2] + truth[:, 2:]) / 2
        cells = np.minimum(centres, [width - 1, height - 1]).astype(int) // stride  # x, y
        distances = model(image[None], training=False)["distances"][0].numpy()
        boxes = box_ops.distances_to_boxes(
            distances[cells[:, 1], cells[:, 0]], ((cells + 0.5) * stride).astype(np.float32)
        )
        found.append(np.diag(box_ops.pairwise_iou(np.asarray(boxes), truth)))
    return found


def by_size(
    detections: Sequence[Detections],
    annotations: Sequence[Annotation],
    overlaps: Sequence[np.ndarray],
    max_side: int,
) -> dict[str, dict[str, Any]]:
    """Metrics of all objects and by their long side, in pixels as the network sees it.

    Recall and the mean IoU of the objects found are those at the score with one false positive an image. For
    objects of one size, those of other sizes are ignored, and so are unmatched detections of other sizes, as COCO
    does with areas.

    Args:
        detections: of each image.
        annotations: the images.
        overlaps: of `centre_overlaps`.
        max_side: to which larger images are shrunk before the network sees them; px.

    Returns:
        by size, `all` first: `objects`, and the metrics of `METRICS`, None where they are not defined.
    """
    threshold = matching.match(detections, annotations).threshold_at(FALSE_POSITIVES)
    bins = {"all": (0.0, math.inf)}
    for low, high in itertools.pairwise(EDGES):
        bins[f"{low:g}+" if high == math.inf else f"{low:g}-{high:g}"] = (low, high)
    found = {}
    for name, (low, high) in bins.items():
        pairs = [
            _of_size(result, annotation, max_side, low, high)
            for result, annotation in zip(detections, annotations, strict=True)
        ]
        results, chosen = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        at50 = matching.match(results, chosen, iou_threshold=0.5)
        at75 = matching.match(results, chosen, iou_threshold=0.75)
        metrics = {
            "recall50": at50.recall(threshold),
            "recall75": at75.recall(threshold),
            "mean_iou": at50.mean_iou(threshold),
            "centre_iou": _mean(
                each[~one.ignore] for each, one in zip(overlaps, chosen, strict=True)
            ),
            "ap50": at50.average_precision(),
            "ap75": at75.average_precision(),
        }
        defined = {key: None if math.isnan(each) else each for key, each in metrics.items()}
        found[name] = {"objects": at50.num_objects, **defined}
    return found


def _mean(parts: Iterable[np.ndarray]) -> float:
    values = np.concatenate([np.zeros(0), *parts])
    return float(values.mean()) if len(values) else math.nan


def _of_size(
    result: Detections, annotation: Annotation, max_side: int, low: float, high: float
) -> tuple[Detections, Annotation]:
    """The image with objects of other sizes ignored, and without unmatched detections of other sizes."""
    scale = min(1.0, max_side / max(result.image_size))

    def outside(boxes: np.ndarray) -> np.ndarray:
        longs = box_ops.long_sides(boxes) * scale
        return (longs < low) | (longs >= high)

    truth = box_ops.clip(annotation.boxes, *result.image_size)
    chosen = dataclasses.replace(annotation, ignore=annotation.ignore | outside(truth))
    matched = matching.match_image(result, chosen).overlaps > 0
    kept = matched | ~outside(result.boxes)
    boxes, scores, classes = (
        values[kept] for values in (result.boxes, result.scores, result.classes)
    )
    return Detections(boxes, scores, classes, result.image_size), chosen


def interval(values: Sequence[float]) -> dict[str, float | None]:
    """The mean of values of several seeds and the half of its interval of 95 %, by Student's t."""
    mean = statistics.mean(values)
    if len(values) < 2:
        return {"mean": mean, "error": None}
    quantile = STUDENT[min(len(values) - 2, len(STUDENT) - 1)]
    return {"mean": mean, "error": quantile * statistics.stdev(values) / math.sqrt(len(values))}


def compare(judged: Mapping[str, Mapping[int, Mapping[str, Any]]]) -> dict[str, Any]:
    """Mean and interval of each metric by size and loss, and of the first loss minus each other one, seed by seed.

    Sizes without an object are left out.

    Args:
        judged: by loss and seed the metrics of `by_size`. What is not defined, as the mean IoU of nothing, counts as 0.
    """
    first, *others = judged
    content: dict[str, Any] = {}
    for size, one in next(iter(judged[first].values())).items():
        if not one["objects"]:
            continue
        row: dict[str, Any] = {"objects": one["objects"]}
        for metric in METRICS:
            values = {
                loss: {seed: each[size][metric] or 0.0 for seed, each in runs.items()}
                for loss, runs in judged.items()
            }
            cells: dict[str, Any] = {
                loss: interval(list(seeds.values())) for loss, seeds in values.items()
            }
            for other in others:
                both = values[first].keys() & values[other].keys()
                differences = [values[first][seed] - values[other][seed] for seed in both]
                cells[f"{first} - {other}"] = interval(differences)
            row[metric] = cells
        content[size] = row
    return content


def markdown(content: Mapping[str, Any]) -> str:
    """The table for people: one for each metric, what was chosen, and the conditions."""
    lines = []
    for metric, title in METRICS.items():
        sizes = content["by_size"]
        columns = list(next(iter(sizes.values()))[metric])
        lines += [f"| {title} | objects | " + " | ".join(columns) + " |"]
        lines += ["|---|---:|" + "---:|" * len(columns)]
        for size, row in sizes.items():
            name = size if size == "all" else f"{size} px"
            cells = [_shown(row[metric][column], " - " in column) for column in columns]
            lines.append(f"| {name} | {row['objects']} | " + " | ".join(cells) + " |")
        lines.append("")
    for loss, chosen in content["chosen"].items():
        doubled = chosen["doubling"]
        inside = "in the middle of what was tried" if chosen["surrounded"] else "at an edge"
        lines.append(
            f"* {loss}: learning rate {chosen['rate']:g}, weight {chosen['weight']:g}, {inside}; tried: learning rates "
            f"{_range(chosen['rates'])}, weights {_range(chosen['weights'])}. Twice the steps: {doubled[0]:.3f} to "
            f"{doubled[1]:.3f}."
        )
    setting = content["setting"]
    lines += [
        "",
        f"{setting['kind']} images, network {setting['network']} of width {setting['width']:g}, images of "
        f"{setting['side']} px, {setting['steps']} steps of {setting['batch_size']}, seeds {content['seeds']}. "
        f"Tested on {', '.join(f'`{s}`' for s in content['tested'])}, by the long side of objects as the network sees "
        "them. Recall and mean IoU of objects found: at the score with one false positive an image. ±: interval of "
        "95 % over seeds (Student's t); differences are taken seed by seed.",
        "",
    ]
    return "\n".join(lines)


def _shown(cell: Mapping[str, float | None], signed: bool) -> str:
    text = f"{cell['mean']:+.3f}" if signed else f"{cell['mean']:.3f}"
    return text if cell["error"] is None else f"{text} ± {cell['error']:.3f}"


def _range(values: Sequence[float]) -> str:
    return f"{min(values):g} to {max(values):g}"


def plot(content: Mapping[str, Any], path: Path) -> None:
    """Each metric by size of object, with its interval over seeds; a line for each loss."""
    figure = Figure(figsize=(11, 7), layout="constrained")
    rows = {size: row for size, row in content["by_size"].items() if size != "all"}
    for number, (metric, title) in enumerate(METRICS.items(), 1):
        axes = figure.add_subplot(2, 3, number)
        for loss in content["chosen"]:
            means = [row[metric][loss]["mean"] for row in rows.values()]
            errors = [row[metric][loss]["error"] or 0 for row in rows.values()]
            axes.errorbar(range(len(rows)), means, errors, marker="o", capsize=3, label=loss)
        axes.set_xticks(range(len(rows)), rows)
        axes.set_title(title, fontsize="medium")
        axes.set(xlabel="long side of the object (px)", ylim=(0, 1.02))
        axes.grid(alpha=0.3)
        axes.legend()
    outputs.write_figure(path, figure)


def chosen(
    found: Mapping[Cell, float], halved: Mapping[Cell, float], loss: str, final: float
) -> dict[str, Any]:
    """What the tuning of a loss tried and chose.

    Args:
        found: of `search`.
        halved: of `halve`.
        loss: the loss.
        final: the quality of its first final run.
    """
    best = next(iter(halved))
    rate, weight = settings_of(loss, best)
    tried = [settings_of(loss, cell) for cell in found]
    return {
        "rate": rate,
        "weight": weight,
        "surrounded": is_surrounded(best, found),
        "rates": sorted({each[0] for each in tried}),
        "weights": sorted({each[1] for each in tried}),
        "doubling": [halved[best], final],
        "search": {name_of("search", loss, cell): each for cell, each in found.items()},
        "half": {name_of("half", loss, cell): each for cell, each in halved.items()},
    }


def make(
    *, losses: Sequence[str], seeds: Sequence[int], output: Path, **setting_fields: Any
) -> None:
    """Trains all runs, judges the final ones, and writes scales.json, scales.md and scales.png.

    Args:
        losses: names of distance losses; differences are those of the first to each other one.
        seeds: of the final runs.
        output: folder of the runs.
        setting_fields: the fields of `Setting`.
    """
    setting = Setting(**setting_fields)
    tuned = {loss: tune(setting, loss, output) for loss in losses}
    best = {loss: next(iter(halved)) for loss, (_, halved) in tuned.items()}
    configs = {
        name_of_final(loss, seed): setting.config(loss, *settings_of(loss, best[loss]), seed)
        for seed in seeds
        for loss in losses
    }
    experiments.train_all(configs, output)
    judged = {
        loss: {seed: judge(output / name_of_final(loss, seed), setting) for seed in seeds}
        for loss in losses
    }
    choices = {
        loss: chosen(*tuned[loss], loss, quality(output / name_of_final(loss, seeds[0])))
        for loss in losses
    }
    content = {
        "setting": dataclasses.asdict(setting) | {"data": ""},
        "seeds": list(seeds),
        "tested": list(setting.tested),
        "chosen": choices,
        "by_size": compare(judged),
        "runs": judged,
    }
    outputs.write_json(output / "scales.json", content)
    text = markdown(content)
    files.write(output / "scales.md", text)
    plot(content, output / "scales.png")
    print(text)
