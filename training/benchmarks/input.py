"""The input pipeline of training, from encoded images to batches, against decoding JPEG alone.

Decoding alone reads and decodes the same files with TensorFlow, in parallel like the pipeline. Times are processor
seconds until all work for the images has ended, also that of other threads, so that other programs count less. Every
image was read once before, as in all passes of training but the first. Labels are those of the preset `faces_light`.
With augmentation, images are cropped, flipped and changed as in that preset; without it, they keep their size.

With `--stages`, the stages of the pipeline are switched on one after the other, and take turns.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import platform
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import tensorflow as tf

from training.benchmarks.turns import quartiles, take_turns
from unitbox_tf import files, images
from unitbox_tf.config import DataConfig
from unitbox_tf.datasets import tfrecord
from unitbox_tf.presets import PRESETS
from unitbox_tf.problems import Problems
from unitbox_tf.records import Annotation
from unitbox_tf.train import order, pipeline, reading

SIZES = ((224, 224), (320, 320), (480, 640))  # height and width
BOX_SIDES = (8.0, 80.0)  # px, shortest and longest long side of a box
DECODING = "decoding alone"
WARMING = 3  # rounds before those that are measured: memory and the number of threads settle
# Changes of images in their order, with the settings that switch them off.
CHANGES: dict[str, dict[str, Any]] = {
    "cutting and resizing": {},
    "flip": {"flip": False},
    "colour": {"colour": 0.0},
    "blur": {"blur": 0.0},
    "mosaics": {"mosaic": 0.0, "mosaic_rows": (2,)},
}
QUIET, QUIETS = (
    0.05,
    4,
)  # seconds in which a process does nothing, and how often, when its work has ended
MOST_QUIET = 600  # such times that are waited for at most
TASKS = Path("/proc/self/task")


class Case(NamedTuple):
    """One pipeline that is measured."""

    boxes: int  # in each image
    augmented: bool
    stored: str  # in "files" or "shards"; or "dataset": a `tf.data.Dataset` that decodes the files

    def __str__(self) -> str:
        """The case in words."""
        return f"{self.boxes} boxes, {'augmented' if self.augmented else 'plain'}, {self.stored}"


def benchmark(
    photos: Path | None,
    *,
    count: int,
    sizes: Sequence[str] | None,
    boxes: Sequence[int],
    stored: Sequence[str],
    stride: int,
    batch: int,
    stages: bool,
    rounds: int,
) -> dict[str, Any]:
    """Prints the table; returns its numbers.

    Args:
        photos: a folder of JPEG images, which are resized; None draws them from a seed.
        count: of images; a round takes each once.
        sizes: `HEIGHTxWIDTH` of the images; None: `SIZES`.
        boxes: in each image.
        stored: "files", "shards", "dataset" or several; see `Case`.
        stride: of the targets.
        batch: images in a batch.
        stages: True measures each stage of the pipelines with all before it.
        rounds: of taking turns.

    Raises:
        ValueError: a size is wrong, there are fewer images than in a batch, or the folder has no JPEG.
    """
    if not 0 < batch <= count:
        raise ValueError(
            f"Expected --count from --batch {batch}, which is above 0. Received: {count}"
        )
    wanted = [_size(text) for text in sizes] if sizes else list(SIZES)
    cases = [Case(*each) for each in itertools.product(boxes, (False, True), stored)]
    found = []
    print(f"{_environment()}; {count} images, batches of {batch}, stride {stride}, {rounds} rounds")
    print(
        "| images | pipeline | images/s of a processor | time by decoding alone (quartiles) |\n|---|---|---|---|"
    )
    for height, width in wanted:
        with tempfile.TemporaryDirectory(prefix="input-") as folder:
            paths = _photos(Path(folder), photos, count, height, width)
            variants = {DECODING: _drawing(_decoding(paths), batch * (count // batch))}
            for case in cases:
                whole = Pipeline(Path(folder), paths, case, max(height, width), stride, batch)
                if stages:
                    for name, images_of_stage in whole.stages().items():
                        variants[f"{case}: {name}"] = _drawing(
                            images_of_stage, batch * (count // batch)
                        )
                    variants[f"{case}: batches"] = _drawing(whole.batches(False), count // batch)
                variants[f"{case}: targets" if stages else str(case)] = _drawing(
                    whole.batches(), count // batch
                )
            for draw in [*variants.values()] * WARMING:
                draw()
            seconds = take_turns(variants, rounds, time.process_time)
        rows = {}
        for name, values in seconds.items():
            ratio = quartiles(values, seconds[DECODING])
            speed = batch * (count // batch) / float(np.median(values))
            rows[name] = {"images_per_second": speed, "ratio_quartiles": ratio}
            low, middle, high = ratio
            text = f"{middle:.2f} ({low:.2f} to {high:.2f})"
            print(f"| {height} x {width} | {name} | {speed:.0f} | {text} |", flush=True)
        found.append({"height": height, "width": width, "rows": rows})
    return {"environment": _environment(), "results": found}


def _size(text: str) -> tuple[int, int]:
    """Height and width from `HEIGHTxWIDTH`."""
    height, cross, width = text.partition("x")
    if not (cross and height.isdecimal() and width.isdecimal() and int(height) * int(width)):
        raise ValueError(f"Expected sizes HEIGHTxWIDTH in pixels. Received: {text!r}")
    return int(height), int(width)


def _environment() -> str:
    return (
        f"TensorFlow {tf.__version__}, {platform.system()} {platform.machine()}, "
        f"{os.cpu_count()} processors"
    )


def _photos(folder: Path, photos: Path | None, count: int, height: int, width: int) -> list[Path]:
    """`count` files of JPEG images of one size."""
    given = sorted(itertools.chain(photos.rglob("*.jpg"), photos.rglob("*.jpeg"))) if photos else []
    if photos and not given:
        raise ValueError(f"Expected a folder with JPEG images. Received: {photos}")
    paths = []
    for number in range(count):
        if given:
            image = images.decode_with_pillow(images.read_file(given[number % len(given)]))
            image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        else:
            image = _drawn(number, height, width)
        encoded = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])[1]
        paths.append(folder / f"{number}.jpg")
        files.write(paths[-1], encoded.tobytes())
    return paths


def _drawn(seed: int, height: int, width: int) -> np.ndarray:
    """An image with detail at all scales, as photos have: an octave of noise adds half as much as the one above."""
    random = np.random.default_rng(seed)
    image = np.full((height, width, 3), 120.0, np.float32)
    for octave in range(1, 9):
        shape = (max(2, height >> (9 - octave)), max(2, width >> (9 - octave)), 3)
        noise = random.normal(0, 100 / 1.7**octave, shape).astype(np.float32)
        image += cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(image, 0, 255).astype(np.uint8)


def _annotations(paths: Sequence[Path], boxes: int, side: int) -> list[Annotation]:
    """The images with boxes at random places."""
    random = np.random.default_rng(boxes)
    shortest, longest = np.log(BOX_SIDES)
    found = []
    for path in paths:
        sides = np.exp(random.uniform(shortest, longest, (boxes, 1)))
        sides = sides * random.uniform(0.8, 1.0, (boxes, 2))
        corners = random.uniform(0, side, (boxes, 2)) * 0.6
        found.append(
            Annotation(path.name, path, np.concatenate([corners, corners + sides], axis=1))
        )
    return found


def _decoding(paths: Sequence[Path]) -> tf.data.Dataset:
    """The images alone, one by one: copying them into batches is the pipeline's work."""

    def decode(path: tf.Tensor) -> tf.Tensor:
        return tf.io.decode_jpeg(tf.io.read_file(path), channels=3)

    each = tf.data.Dataset.from_tensor_slices([str(path) for path in paths]).repeat()
    return each.map(decode, tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)


class Pipeline:
    """The input pipeline of a case, and its stages."""

    def __init__(
        self, folder: Path, paths: Sequence[Path], case: Case, side: int, stride: int, batch: int
    ) -> None:
        """The pipeline of images in `paths`; shards are written to `folder`."""
        annotations = _annotations(paths, case.boxes, side)
        if case.stored == "shards":
            shards = folder / f"shards{case.boxes}"
            if not shards.exists():
                tfrecord.write(annotations, shards, "train", ["object"], problems=Problems())
            annotations = list(tfrecord.Shards(shards, "train").annotations(problems=Problems()))
        self._examples: Sequence[Annotation] | tf.data.Dataset = annotations
        if case.stored == "dataset":
            self._examples = _dataset(annotations)
        self._data = (
            dataclasses.replace(PRESETS["faces_light"].data, image_size=side)
            if case.augmented
            else DataConfig(image_size=side)
        )
        self._labels = pipeline.Labels(1, equal_objects=True, share_power=0.5, stride=stride)
        self._batch = batch

    def batches(self, with_objects: bool = True) -> tf.data.Dataset:
        """Batches as training gets them, or without objects in their targets."""
        shown = self._shown(self._data)
        if not with_objects:
            shown = shown.map(_without_objects, tf.data.AUTOTUNE)
        return pipeline.batches(shown, self._data, self._data.image_size, self._labels, self._batch)

    def stages(self) -> dict[str, tf.data.Dataset]:
        """Single images after each stage before batches, by its name; each stage has all stages before it."""
        given = self._examples
        if isinstance(given, tf.data.Dataset):
            read = reading.from_elements(given, 1, problems=_unreported())
        else:
            known = order.Order(len(given), 0)
            read = reading.in_order(given, known, tf.data.Dataset.counter(), problems=_unreported())
        found = {"reading and decoding": read}
        names = list(CHANGES) if self._data.random_crop else list(CHANGES)[:1]
        for place, name in enumerate(names):
            off: dict[str, Any] = {}
            for later in names[place + 1 :]:
                off |= CHANGES[later]
            found[name] = self._shown(dataclasses.replace(self._data, **off))
        return {name: shown.prefetch(tf.data.AUTOTUNE) for name, shown in found.items()}

    def _shown(self, data: DataConfig) -> tf.data.Dataset:
        return pipeline.shown_images(
            self._examples, data, num_classes=1, seed=0, problems=_unreported()
        )


def _dataset(annotations: Sequence[Annotation]) -> tf.data.Dataset:
    """The images and boxes as a data set of a user's own."""

    def read(path: tf.Tensor, boxes: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"image": tf.io.decode_jpeg(tf.io.read_file(path), channels=3), "boxes": boxes}

    paths = [str(annotation.image) for annotation in annotations]
    boxes = np.stack([annotation.boxes for annotation in annotations])
    return tf.data.Dataset.from_tensor_slices((paths, boxes)).map(read, tf.data.AUTOTUNE)


def _without_objects(image: Any, objects: dict[str, tf.Tensor]) -> tuple[Any, Any]:
    return image, {name: value[:0] for name, value in objects.items()}


def _unreported() -> Problems:
    """Boxes outside their images are reported once, and are not of interest."""
    return Problems(logged=False)


def _drawing(dataset: tf.data.Dataset, elements: int) -> Callable[[], None]:
    """A function that takes the next elements, and waits until the buffers behind them are full again."""
    iterator: Iterator[Any] = iter(dataset)

    def draw() -> None:
        for _ in range(elements):
            next(iterator)
        _wait_until_idle()

    return draw


def _wait_until_idle() -> None:
    """Waits until no other thread of this process works. A thread that waits for a processor works, too."""
    quiet = 0
    for _ in range(MOST_QUIET):
        before = time.process_time()
        time.sleep(QUIET)
        works = _runnable() if TASKS.exists() else time.process_time() - before > 0.1 * QUIET
        quiet = 0 if works else quiet + 1
        if quiet == QUIETS:
            return


def _runnable() -> bool:
    """True if another thread has work, by Linux."""
    own = threading.get_native_id()
    for task in TASKS.iterdir():
        try:
            state = (task / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:  # it has ended
            continue
        if state in "RD" and int(task.name) != own:
            return True
    return False
