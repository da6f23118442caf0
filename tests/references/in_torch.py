"""The PyTorch libraries' part of the golden files; `make_goldens.py` runs it in its environment.

python in_torch.py FOLDER
"""

from __future__ import annotations

import importlib
import sys
import types
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from golden_parts import Parts

# Small beside every size here, and large enough that an area of 10,000 + EPS is not rounded to
# 10,000: the complete IoU of identical boxes would be 0 / 0.
EPS = 1e-9

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def package(name: str, **contents: Any) -> types.ModuleType:
    """An installed package as a bare folder: its modules can be imported, its __init__ is not run."""
    parent, _, last = name.rpartition(".")
    if parent:
        folders = [f"{folder}/{last}" for folder in sys.modules[parent].__path__]
    else:
        spec = find_spec(name)
        assert spec is not None
        folders = list(spec.submodule_search_locations or [])
    module = stub(name, **contents)
    module.__path__ = folders
    return module


def stub(name: str, **contents: Any) -> types.ModuleType:
    """An invented module `name`."""
    module = types.ModuleType(name)
    vars(module).update(contents)
    sys.modules[name] = module
    return module


class Registry:
    """Stands in for a registry, whose method decorates with and without a call."""

    def register_module(self, cls: type | None = None) -> Any:
        """Register nothing."""
        return cls if cls is not None else lambda registered: registered


def torchvision() -> types.SimpleNamespace:
    """Its loss functions; its __init__ insists on operators compiled for the very same torch."""
    package("torchvision")
    package("torchvision.ops")
    names = ("giou", "diou", "ciou")
    giou, diou, ciou = (importlib.import_module(f"torchvision.ops.{n}_loss") for n in names)
    return types.SimpleNamespace(
        giou=giou.generalized_box_iou_loss,
        diou=diou.distance_box_iou_loss,
        ciou=ciou.complete_box_iou_loss,
    )


def mmdet() -> types.ModuleType:
    """mmdet/models/losses/iou_loss.py, without mmcv."""
    for name in ("mmdet", "mmdet.models", "mmdet.models.losses", "mmdet.structures"):
        package(name)
    stub("mmdet.registry", MODELS=Registry())
    bbox = package("mmdet.structures.bbox", HorizontalBoxes=None)
    overlaps = importlib.import_module("mmdet.structures.bbox.bbox_overlaps")
    vars(bbox)["bbox_overlaps"] = overlaps.bbox_overlaps
    return importlib.import_module("mmdet.models.losses.iou_loss")


def mmyolo() -> types.ModuleType:
    """mmyolo/models/losses/iou_loss.py, which uses mmdet's."""
    for name in ("mmyolo", "mmyolo.models", "mmyolo.models.losses"):
        package(name)
    stub("mmyolo.registry", MODELS=Registry())
    return importlib.import_module("mmyolo.models.losses.iou_loss")


def easycv() -> types.ModuleType:
    """easycv/models/loss/iou_loss.py, for YOLOX_IOULoss, which needs none of what is left out."""

    def as_it_is(function: Any) -> Any:
        return function

    stub("mmcv", jit=lambda **_: as_it_is)
    for name in ("easycv", "easycv.framework", "easycv.models", "easycv.models.loss"):
        package(name)
    package("easycv.models.detection")
    stub("easycv.models.detection.utils", bbox_overlaps=None)
    stub("easycv.models.loss.utils", weighted_loss=as_it_is)
    stub("easycv.models.registry", LOSSES=Registry())
    return importlib.import_module("easycv.models.loss.iou_loss")


def yolov6() -> types.ModuleType:
    """yolov6/utils/figure_iou.py."""
    for name in ("yolov6", "yolov6.utils"):
        package(name)
    return importlib.import_module("yolov6.utils.figure_iou")


def xywh(boxes: torch.Tensor) -> torch.Tensor:
    """Centre and size of xyxy `boxes`; differentiable, so that gradients are those of xyxy."""
    low, high = boxes[:, :2], boxes[:, 2:]
    return torch.cat([(low + high) / 2, high - low], dim=-1)


def box_losses(parts: Parts) -> None:
    """All in float64."""
    vision, detection, yolo = torchvision(), mmdet(), mmyolo()
    yolox_loss, yolov6_loss = easycv().YOLOX_IOULoss, yolov6().IOUloss
    clipped = "clips at 2 (gradient 0), which no pair here reaches"

    def add(key: str, name: str, call: str, loss: Loss, deviation: str = "") -> None:
        prediction = torch.tensor(parts.prediction, dtype=torch.float64, requires_grad=True)
        values = loss(prediction, torch.tensor(parts.truth, dtype=torch.float64)).reshape(-1)
        values.sum().backward()
        assert prediction.grad is not None
        gradient = prediction.grad.numpy()
        parts.add(key, name, call + ", float64", values.detach().numpy(), gradient, deviation)

    def one_minus_overlap(mode: str, p: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return 1 - yolo.bbox_overlaps(p, t, iou_mode=mode, bbox_format="xyxy", eps=EPS)

    def of_xywh(loss: Loss, p: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return loss(xywh(p), xywh(t))

    for name, loss in [
        ("generalized_box_iou_loss", vision.giou),
        ("distance_box_iou_loss", vision.diou),
        ("complete_box_iou_loss", vision.ciou),
    ]:
        add(
            f"torchvision/{name}",
            "torchvision",
            f"torchvision.ops.{name}(prediction, truth, reduction='none', eps={EPS})",
            partial(loss, reduction="none", eps=EPS),
            "its distance part keeps eps=1e-7" if loss is vision.ciou else "",
        )

    cases: list[tuple[str, dict[str, Any], str]] = [
        ("iou_loss", {"mode": "linear"}, ""),
        ("iou_loss", {"mode": "log"}, "IoU is at least eps: 20.72 where boxes are disjoint"),
        ("giou_loss", {}, ""),
        ("diou_loss", {}, ""),
        ("ciou_loss", {}, "alpha is 0 up to IoU 1/2, as in CIoU's second paper; others' is not"),
        (
            "siou_loss",
            {"neg_gamma": True},
            f"{clipped}; without neg_gamma=True the distance cost has the wrong sign",
        ),
    ]
    for name, options, deviation in cases:
        mode = f"({options['mode']})" if "mode" in options else ""
        told = "".join(f", {option}={value!r}" for option, value in options.items())
        add(
            f"mmdet/{name}{mode}",
            "mmdet",
            f"mmdet.models.losses.iou_loss.{name}"
            f"(prediction, truth, reduction='none', eps={EPS}{told})",
            partial(getattr(detection, name), reduction="none", eps=EPS, **options),
            deviation,
        )

    for mode in ("giou", "ciou", "siou"):
        add(
            f"mmyolo/bbox_overlaps({mode})",
            "mmyolo",
            "1 - mmyolo.models.losses.iou_loss.bbox_overlaps"
            f"(prediction, truth, iou_mode={mode!r}, bbox_format='xyxy', eps={EPS})",
            partial(one_minus_overlap, mode),
            "" if mode == "giou" else clipped,
        )

    for mode, deviation in [
        ("diou", ""),
        ("ciou", clipped),
        ("eiou", "clips at 2 (gradient 0), which one pair in eight reaches"),
        (
            "siou",
            "takes |centre difference| + mean size for the enclosing box's size, which is more where "
            "a box lies within the other in x or in y; no eps: 0 / 0 where the centres are the same",
        ),
    ]:
        add(
            f"easycv/YOLOX_IOULoss({mode})",
            "pai-easycv",
            "easycv.models.loss.iou_loss.YOLOX_IOULoss"
            f"(reduction='none', loss_type={mode!r})(prediction_xywh, truth_xywh)",
            partial(of_xywh, yolox_loss(reduction="none", loss_type=mode)),
            deviation,
        )

    add(
        "yolov6/IOUloss(siou)",
        "yolov6detect",
        "yolov6.utils.figure_iou.IOUloss"
        f"(box_format='xyxy', iou_type='siou', reduction='none', eps={EPS})(prediction, truth)",
        yolov6_loss(box_format="xyxy", iou_type="siou", reduction="none", eps=EPS),
    )


def optimizers(parts: Parts) -> None:
    """torch's SGD adds the decay to the gradient, before momentum."""
    problem = parts.problem
    matrix = torch.tensor(problem["A"], dtype=torch.float64)
    offset = torch.tensor(problem["b"], dtype=torch.float64)
    rate, decay = problem["learning_rate"], problem["decay"]
    for momentum in (0.0, problem["momentum"]):
        weights = torch.tensor(problem["start"], dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.SGD([weights], lr=rate, momentum=momentum, weight_decay=decay)
        seen = [weights.detach().numpy().copy()]
        for _ in range(problem["steps"]):
            weights.grad = (matrix @ weights - offset).detach()
            optimizer.step()
            seen.append(weights.detach().numpy().copy())
        call = f"torch.optim.SGD(lr={rate}, momentum={momentum}, weight_decay={decay}), float64"
        parts.add_trajectory(f"torch/SGD(momentum={momentum})", "torch", call, seen)


if __name__ == "__main__":
    parts = Parts(Path(sys.argv[1]), "torch")
    box_losses(parts)
    optimizers(parts)
    parts.write()
