"""A detector of torchvision on VGG-16, trained on a COCO json within a budget of CPU time: see `on_own_data`.

The environment has torch, torchvision, h5py and pycocotools, and nothing of this project.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import math
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import torch
import torchvision
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torchvision import io as images_io
from torchvision import models, ops, tv_tensors
from torchvision.models import detection
from torchvision.transforms import v2

# The ImageNet weights of Keras' VGG-16 are those of Caffe: BGR, 0 to 255, minus this mean. Here RGB, 0 to 1.
MEAN = [123.68 / 255, 116.779 / 255, 103.939 / 255]
STD = [1 / 255] * 3
STAGE4, STAGE5 = "22", "29"  # relu4_3 and relu5_3 in torchvision's VGG-16
JUDGED = (0.6, 0.8, 1.0)  # shares of the budget
WARMUP = 0.04  # share of the budget
CLIP_NORM = 20.0

Photo = tuple[torch.Tensor, dict[str, torch.Tensor]]


@dataclasses.dataclass
class Data:
    """A COCO json with its images in memory.

    Attributes:
        photos: RGB uint8 `[3, H, W]`, with `boxes` (corners, pixels) and `labels` (from 1).
        ids: the `id` of each image in the json.
        categories: the `id` of each category, in order; label 1 is the first.
        coco: the json, for judging.
    """

    photos: list[Photo]
    ids: list[int]
    categories: list[int]
    coco: COCO


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a detector is trained; the help of `on_own_data` says what the fields mean."""

    rival: str
    cpu_minutes: float
    side: int
    batch_size: int
    learning_rate: float
    new_layers: float
    weight_decay: float
    threads: int
    seed: int


def read(path: Path) -> Data:
    """The images and boxes of a COCO json; objects marked as `ignore` or `iscrowd` are left out."""
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(path))
    categories = sorted(coco.cats)
    photos = []
    for name in coco.imgs:
        entry = coco.imgs[name]
        places = (path.parent / entry["file_name"], path.parent / "images" / entry["file_name"])
        file = next(place for place in places if place.is_file())
        image = images_io.decode_image(str(file), images_io.ImageReadMode.RGB)
        boxes, labels = [], []
        for row in coco.imgToAnns[name]:
            x, y, width, height = row["bbox"]
            if width > 0 and height > 0 and not row.get("ignore") and not row.get("iscrowd"):
                boxes.append([x, y, x + width, y + height])
                labels.append(categories.index(row["category_id"]) + 1)
        target = {
            "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
            "labels": torch.tensor(labels, dtype=torch.int64),
        }
        photos.append((image, target))
    return Data(photos, list(coco.imgs), categories, coco)


def ssd300(num_classes: int, side: int) -> torch.nn.Module:
    """SSD300 as torchvision builds it, which shows itself each image as a square of 300 px, whatever `side` is."""
    return detection.ssd300_vgg16(
        weights=None,
        weights_backbone=None,
        num_classes=num_classes,
        image_mean=MEAN,
        image_std=STD,
    )


def fcos(num_classes: int, side: int) -> torch.nn.Module:
    """FCOS on stages 4 and 5 of VGG-16 and two coarser levels: strides 8, 16, 32 and 64."""
    backbone = detection.backbone_utils.BackboneWithFPN(
        models.vgg16(weights=None).features[: int(STAGE5) + 1],
        {STAGE4: "0", STAGE5: "1"},
        [512, 512],
        256,
        ops.feature_pyramid_network.LastLevelP6P7(256, 256),
    )
    sizes = ((8,), (16,), (32,), (64,))
    anchors = detection.anchor_utils.AnchorGenerator(sizes, ((1.0,),) * len(sizes))
    scales = (
        *range(side * 3 // 4, side * 5 // 4 + 1, 32),
        side,
    )  # training draws one, detecting takes the last
    return detection.FCOS(
        backbone,
        num_classes,
        min_size=scales,
        max_size=side * 5 // 2,
        image_mean=MEAN,
        image_std=STD,
        anchor_generator=anchors,
    )


DETECTORS = {"fcos": fcos, "ssd300": ssd300}


def load_weights(network: torch.nn.Module, path: Path) -> None:
    """Puts Keras' VGG-16 into the first 13 convolutions of the backbone."""
    with h5py.File(path) as file:
        found: list[Any] = []
        file.visititems(
            lambda name, item: found.append((name, item[()])) if _is_array(item) else None
        )
    kernels = [array for _, array in sorted(found) if array.ndim == 4]
    biases = [array for _, array in sorted(found) if array.ndim == 1]
    layers = pretrained(network)
    with torch.no_grad():
        for index, (kernel, bias) in enumerate(zip(kernels, biases, strict=True)):
            if index == 0:
                kernel = kernel[:, :, ::-1].copy()  # from BGR to RGB
            layers[index].weight.copy_(torch.from_numpy(kernel).permute(3, 2, 0, 1))
            layers[index].bias.copy_(torch.from_numpy(bias))


def pretrained(network: torch.nn.Module) -> list[torch.nn.Conv2d]:
    """The 13 convolutions of VGG-16, which come first in both backbones."""
    layers = [layer for layer in network.backbone.modules() if isinstance(layer, torch.nn.Conv2d)]
    return layers[:13]


def _is_array(item: Any) -> bool:
    return isinstance(item, h5py.Dataset)


def compute_in_bfloat16(module: torch.nn.Module) -> None:
    """Lets a module compute in bfloat16 and return float32, as `--precision auto` does for ours."""
    forward = module.forward

    def cast(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return value.float() if value.is_floating_point() else value
        return type(value)((name, cast(item)) for name, item in value.items())

    def wrapped(*arguments: Any) -> Any:
        with torch.autocast("cpu", torch.bfloat16):
            found = forward(*arguments)
        return cast(found)

    module.forward = wrapped


def augmentation(detector: str) -> Callable[..., Photo]:
    """The random changes of torchvision's own recipes; FCOS scales images itself."""
    mean = {tv_tensors.Image: tuple(int(255 * value) for value in MEAN), "others": 0}
    changes: list[torch.nn.Module] = [v2.RandomPhotometricDistort()]
    if detector == "ssd300":
        changes += [v2.RandomZoomOut(fill=mean), v2.RandomIoUCrop()]
    changes += [
        v2.RandomHorizontalFlip(),
        v2.SanitizeBoundingBoxes(),
        v2.ToDtype({tv_tensors.Image: torch.float32, "others": None}, scale=True),
    ]
    return v2.Compose(changes)


def batches(data: Data, change: Callable[..., Photo], size: int) -> Iterator[tuple[Any, Any]]:
    """Endless batches of changed images with objects, in a new order each epoch."""
    order: list[int] = []
    while True:
        images: list[torch.Tensor] = []
        targets: list[dict[str, torch.Tensor]] = []
        while len(images) < size:
            if not order:
                order = random.sample(range(len(data.photos)), len(data.photos))
            image, target = data.photos[order.pop()]
            boxes = tv_tensors.BoundingBoxes(
                target["boxes"], format="XYXY", canvas_size=image.shape[-2:]
            )
            image, target = change(tv_tensors.Image(image), {**target, "boxes": boxes})
            images.append(image.as_subclass(torch.Tensor))
            targets.append({**target, "boxes": target["boxes"].as_subclass(torch.Tensor)})
        yield images, targets


def detect(network: torch.nn.Module, data: Data) -> list[dict[str, Any]]:
    """COCO's rows of all images."""
    network.eval()
    rows = []
    with torch.inference_mode():
        for name, (image, _) in zip(data.ids, data.photos, strict=True):
            [found] = network([image.float() / 255])
            for box, score, label in zip(
                found["boxes"].tolist(),
                found["scores"].tolist(),
                found["labels"].tolist(),
                strict=True,
            ):
                x0, y0, x1, y1 = box
                rows.append(
                    {
                        "image_id": name,
                        "category_id": data.categories[label - 1],
                        "bbox": [x0, y0, x1 - x0, y1 - y0],
                        "score": score,
                    }
                )
    network.train()
    return rows


def judge(rows: list[dict[str, Any]], data: Data) -> dict[str, float]:
    """COCO's AP and AP at IoU .5."""
    if not rows:
        return {"ap": 0.0, "ap50": 0.0}
    with contextlib.redirect_stdout(io.StringIO()):
        judged = COCOeval(data.coco, data.coco.loadRes(rows), "bbox")
        judged.evaluate()
        judged.accumulate()
        judged.summarize()
    return {"ap": float(judged.stats[0]), "ap50": float(judged.stats[1])}


def learn(
    network: torch.nn.Module, training: Data, validation: Data, recipe: Recipe
) -> list[dict[str, float]]:
    """Trains until the budget is used. Leaves the best weights in the network, and returns the history."""
    budget = recipe.cpu_minutes * 60
    old = [value for layer in pretrained(network) for value in layer.parameters()]
    known = {id(value) for value in old}
    new = [value for value in network.parameters() if id(value) not in known]
    optimizer = torch.optim.AdamW(
        [{"params": old, "scale": 1.0}, {"params": new, "scale": recipe.new_layers}],
        recipe.learning_rate,
        weight_decay=recipe.weight_decay,
    )
    history: list[dict[str, float]] = []
    best: dict[str, torch.Tensor] = {}
    losses: list[float] = []
    # The last judgement must end within the budget, so the time of one is set aside, once it is known.
    aside, steps, due = 0.0, 0, list(JUDGED)
    stream = batches(training, augmentation(recipe.rival), recipe.batch_size)
    while due:
        used = min(1.0, time.process_time() / (budget - aside))
        if used >= due[0]:
            due.pop(0)
            before = time.process_time()
            figures = judge(detect(network, validation), validation)
            aside = 2 * (time.process_time() - before)  # the test images come after
            entry = {"steps": steps, "cpu_minutes": time.process_time() / 60, **figures}
            entry["loss"] = sum(losses) / max(1, len(losses))
            losses = []
            print(json.dumps(entry), flush=True)
            if figures["ap"] > max([each["ap"] for each in history], default=-1.0):
                best = {name: value.clone() for name, value in network.state_dict().items()}
            history.append(entry)
            continue
        rate = min(1.0, used / WARMUP) * (1 + math.cos(math.pi * used)) / 2
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * group["scale"] * rate
        loss = sum(network(*next(stream)).values())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), CLIP_NORM)
        optimizer.step()
        losses.append(loss.item())
        steps += 1
        if steps % 20 == 0:
            mean = sum(losses[-20:]) / len(losses[-20:])
            print(f"step {steps}: {time.process_time():.0f} s, loss {mean:.3f}", flush=True)
    network.load_state_dict(best)
    return history


def run(
    *, train: Path, validation: Path, test: Path, weights: Path, output: Path, **settings: Any
) -> None:
    """Trains, and detects in the test images. `settings` are the fields of a `Recipe`."""
    recipe = Recipe(**settings)
    random.seed(recipe.seed)
    torch.manual_seed(recipe.seed)
    torch.set_num_threads(recipe.threads)
    training, validated, tested = (read(path) for path in (train, validation, test))
    network = DETECTORS[recipe.rival](len(training.categories) + 1, recipe.side)
    load_weights(network, weights)
    compute_in_bfloat16(network.backbone)
    compute_in_bfloat16(network.head)
    network = network.to(memory_format=torch.channels_last)  # some 1.7 times as fast
    network.train()
    history = learn(network, training, validated, recipe)
    rows = detect(network, tested)
    output.mkdir(parents=True, exist_ok=True)
    (output / "detections.json").write_text(json.dumps(rows))
    torch.save(network.state_dict(), output / "weights.pt")
    summary = {
        "recipe": dataclasses.asdict(recipe),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "cpu_minutes": time.process_time() / 60,
        "test": judge(rows, tested),
        "history": history,
    }
    (output / "history.json").write_text(json.dumps(summary, indent=1))
    print(json.dumps({name: summary[name] for name in ("cpu_minutes", "test")}))
