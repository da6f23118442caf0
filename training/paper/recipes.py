"""Settings that the experiments share: the data, the network, and training with which both losses learn."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from unitbox_tf.config import Config
from unitbox_tf.presets import PRESETS

IMAGE_SIZE = 128
SEEDS = (0, 1, 2)


def base(data: str, weights: str | None) -> Config:
    """Settings of all runs: whole images of 128 px without augmentation, shared branches, batches of 10.

    Branches tap the stages before they are pooled: at this size, pooled maps have 8 and 4 pixels a side.
    """
    paper = PRESETS["paper"]
    return dataclasses.replace(
        paper,
        data=dataclasses.replace(
            paper.data,
            data=data,
            train_sources=(
                "fddb:fddb#1-7",
                "coco:other/multiface",
                "negatives:other/nonface_scenes",
            ),
            validation_sources=("fddb:fddb#8",),
            image_size=IMAGE_SIZE,
        ),
        model=dataclasses.replace(
            paper.model,
            weights=weights,
            unshared=False,
            confidence_tap="before_pool",
            distances_tap="before_pool",
        ),
        train=dataclasses.replace(
            paper.train, validation_protocol="fddb", validation_images=140, steps_per_epoch=20
        ),
        decode=dataclasses.replace(paper.decode, max_side=IMAGE_SIZE),
    )


def tuned(shared: Config, loss: str, rate: float, weight: float, seed: int, epochs: int) -> Config:
    """Losses averaged over pixels, features of stage 4 scaled to those of stage 5, a box to start from."""
    return dataclasses.replace(
        shared,
        model=dataclasses.replace(
            shared.model, stage4_scale=0.01, initial_box_size=40.0, head_stddev=1e-3
        ),
        loss=dataclasses.replace(
            shared.loss, distance_loss=loss, reduction="mean", distance_weight=weight
        ),
        train=dataclasses.replace(
            shared.train, learning_rate=rate, clip_norm=20.0, seed=seed, epochs=epochs
        ),
    )


def changed(config: Config, **groups: Mapping[str, Any]) -> Config:
    """`config` with other fields in some of its groups: `changed(config, model={"unshared": True})`."""
    changes: dict[str, Any] = {
        group: dataclasses.replace(getattr(config, group), **fields)
        for group, fields in groups.items()
    }
    return dataclasses.replace(config, **changes)
