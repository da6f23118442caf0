"""Compares choices of a light network in short trainings on images drawn from seeds. No data is needed.

    python -m training.choices [base iou linear stride8] [--steps 600] [--seeds 0 1 2] [--output choices]

Images have 128 px and objects of 8 to 115 px, alone and in crowds, made of `synthetic` images by random crops and
mosaics. All trainings with a seed have the same settings and images, but for one choice:

    base      the recipe of `faces_light`, at half of its width
    iou       the confidence learns the IoU of the box at its point
    linear    distances are a ReLU of the head's numbers, not an exponential
    stride8   a map at stride 8

The table has the metrics of `matching.summarize` for each decoder, on images that were not trained on: their means over
the seeds, and the lowest and highest.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from unittest import mock

import keras
import numpy as np
import tensorflow as tf

import unitbox_tf
from unitbox_tf import Annotation, images
from unitbox_tf.config import Config
from unitbox_tf.datasets import synthetic
from unitbox_tf.network import layers
from unitbox_tf.presets import PRESETS
from unitbox_tf.train import augment

SIZE = 128  # side of the images, in pixels
OBJECT_SIZE = (8.0, 115.0)
JUDGED = (
    1_000_000  # the number of the first image that is judged; training takes the first thousands
)
METRICS = ("recall", "mean_iou", "ap50", "ap75")
Results = dict[str, dict[str, float]]  # metrics by decoder


def scene(number: int) -> Annotation:
    """Image `number` that is judged: a crop, or a mosaic of four or nine."""
    rows = 1 + number % 3
    side = -(-SIZE // rows)
    parts = []
    for part in range(rows**2):
        drawn = synthetic.draw(JUDGED + 9 * number + part)
        count = len(drawn.boxes)
        objects = {
            "boxes": tf.constant(drawn.boxes, tf.float32),
            "classes": tf.zeros([count], tf.int32),
            "ignore": tf.zeros([count], tf.bool),
        }
        image = tf.constant(images.decode_photo(drawn.encoded()))
        seed = tf.constant([number, part])
        parts.append(augment.random_crop(image, objects, side, OBJECT_SIZE, 2.0, seed))
    image, objects = augment.mosaic(
        tf.stack([part for part, _ in parts]), [objects for _, objects in parts], rows
    )
    image, objects = image[:SIZE, :SIZE], augment.clip_objects(objects, SIZE, SIZE)
    boxes = objects["boxes"].numpy()
    small = (boxes[:, 2:] - boxes[:, :2]).max(axis=-1) < OBJECT_SIZE[0]
    png = images.encode_png(np.clip(image.numpy().round(), 0, 255).astype(np.uint8))
    return Annotation(f"scene/{number}", png, boxes, ignore=objects["ignore"].numpy() | small)


def settings(steps: int, seed: int, output: str) -> Config:
    """The settings of `base`."""
    preset = PRESETS["faces_light"]
    return dataclasses.replace(
        preset,
        data=dataclasses.replace(
            preset.data,
            train_sources=("synthetic:#0-3000",),
            image_size=SIZE,
            object_size=OBJECT_SIZE,
            mosaic=0.6,
            min_object=OBJECT_SIZE[0],
        ),
        model=dataclasses.replace(preset.model, class_names=("object",), width=0.5),
        train=dataclasses.replace(
            preset.train,
            epochs=1,
            steps_per_epoch=steps,
            warmup=0.1,
            seed=seed,
            precision="float32",
            output=output,
        ),
        decode=dataclasses.replace(preset.decode, max_side=SIZE),
    )


def with_iou(config: Config) -> Config:
    """The confidence learns the IoU of the box at its point."""
    return dataclasses.replace(
        config, loss=dataclasses.replace(config.loss, confidence_target="iou")
    )


def with_stride8(config: Config) -> Config:
    """A map at stride 8."""
    return dataclasses.replace(config, model=dataclasses.replace(config.model, map_stride=8))


@keras.saving.register_keras_serializable("training")
class LinearDistances(layers.ExpDistances):
    """Distances as a ReLU that begins with the value and the slope of `ExpDistances`: unit (1 + x), not negative."""

    def call(self, x: tf.Tensor) -> tf.Tensor:  # noqa: D102
        return layers._side_relu(self.unit * (1 + x))


CHOICES: dict[str, Callable[[Config], Config]] = {
    "base": lambda config: config,
    "iou": with_iou,
    "linear": lambda config: config,
    "stride8": with_stride8,
}


@contextlib.contextmanager
def _distances(name: str) -> Iterator[None]:
    """Networks that are made in this context have the distances of a choice."""
    if name != "linear":
        yield
        return
    with mock.patch.object(layers, "ExpDistances", LinearDistances):
        yield


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("choices", nargs="*", default=list(CHOICES), metavar="CHOICE")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--images", type=int, default=90, help="number of images that are judged")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--output", default="choices", help="folder of the runs")
    options = parser.parse_args()
    unknown = set(options.choices) - set(CHOICES)
    if unknown:
        parser.error(f"expected choices of {list(CHOICES)}. Received: {sorted(unknown)}")
    judged = [scene(number) for number in range(options.images)]
    rows: dict[str, list[Results]] = {name: [] for name in options.choices}
    for seed in options.seeds:
        for name in options.choices:
            config = CHOICES[name](settings(options.steps, seed, options.output))
            with _distances(name):
                run = unitbox_tf.fit(config, validation=judged, name=f"{name}-{seed}")
            rows[name].append(run.results)
            (Path(options.output) / f"{run.folder.name}.json").write_text(json.dumps(run.results))
    print(table(rows))


def table(rows: Mapping[str, Sequence[Results]]) -> str:
    """The metrics by choice and decoder, in Markdown. There is a result for each seed."""
    lines = [f"| choice | decoder | {' | '.join(METRICS)} |", "|---|---|" + "---|" * len(METRICS)]
    for name, results in rows.items():
        for decoder in results[0]:
            found = ([each[decoder][metric] for each in results] for metric in METRICS)
            lines.append(f"| {name} | {decoder} | {' | '.join(map(_shown, found))} |")
    return "\n".join(lines)


def _shown(values: Sequence[float]) -> str:
    mean = f"{statistics.mean(values):.3f}"
    return mean if len(values) == 1 else f"{mean} ({min(values):.3f} to {max(values):.3f})"


if __name__ == "__main__":
    main()
