"""Configurations to start from. They are data: nothing else knows their names."""

from __future__ import annotations

import dataclasses

from unitbox_tf.config import Config, DataConfig, DecodeConfig, LossConfig, ModelConfig, TrainConfig

_SMOKE = Config(
    data=DataConfig(image_size=96),
    # From He initialisation the distance head dies if its random weights are not small.
    model=ModelConfig(head_stddev=1e-4, initial_box_size=40.0),
    train=TrainConfig(
        epochs=6,
        steps_per_epoch=40,
        batch_size=16,
        optimizer="adam",
        learning_rate=3e-4,
        schedule="cosine",
        warmup=0.08,
    ),
    decode=DecodeConfig(max_side=96),
)


_FACES = Config(
    data=DataConfig(
        train_sources=("fddb:fddb#1-7", "coco:other/multiface", "negatives:other/nonface_scenes"),
        validation_sources=("fddb:fddb#8",),
        image_size=192,
        random_crop=True,
        object_size=(14.0, 170.0),
        flip=True,
        colour=0.3,
        mosaic=0.3,
        min_object=10.0,
    ),
    model=ModelConfig(
        weights="imagenet",
        stage4_scale=0.01,
        initial_box_size=40.0,
        head_stddev=1e-3,
    ),
    # Averaged over objects, small faces are found more often: docs/losses.md.
    loss=LossConfig(reduction="object_mean"),
    # In 100 steps of this recipe at 160 px, mean IoU at face pixels of fold 8 was .70 with SGD
    # (learning rate 2e-3), .74 with Adam at 1e-4 and .69 at 3e-4.
    train=TrainConfig(
        epochs=12,
        steps_per_epoch=100,
        batch_size=8,
        optimizer="adam",
        learning_rate=1e-4,
        schedule="cosine",
        warmup=0.04,
        clip_norm=20.0,
        validation_images=64,
    ),
    decode=DecodeConfig(max_side=224),
)


_FACES_LIGHT = Config(
    data=DataConfig(
        train_sources=(
            "fddb:fddb#1-7",
            "coco:other/multiface",
            "coco:other/wider_train",
            "coco:other/wider_train",  # twice, because crowds of small faces are the most difficult
            "coco:other/facemask724/faces.json",
            "negatives:other/nonface_scenes",
        ),
        validation_sources=("coco:wider/val_640",),
        image_size=416,
        random_crop=True,
        object_size=(9.0, 374.0),
        max_enlargement=2.0,
        stretch=1.6,
        flip=True,
        colour=0.4,
        blur=0.1,
        mosaic=0.4,
        mosaic_rows=(2, 3),
        min_object=7.0,
    ),
    model=ModelConfig(backbone="light", neck="top_down", initial_box_size=16.0, head_stddev=0.01),
    loss=LossConfig(confidence_loss="focal", confidence_shares="root", reduction="object_mean"),
    train=TrainConfig(
        epochs=36,
        steps_per_epoch=500,
        batch_size=8,
        optimizer="adamw",
        learning_rate=1.5e-3,
        weight_decay=0.02,
        schedule="cosine",
        warmup=0.02,
        clip_norm=10.0,
        ema_momentum=0.998,
        validation_images=126,
    ),
    decode=DecodeConfig(max_side=640, score_threshold=0.4),
)


# Section 4 of the paper. Where it is silent: one image size of 640 px, pooled taps (as everyone
# else read "the end of stage"), both losses weighted alike, 16,000 iterations for the best model.
_PAPER = Config(
    data=DataConfig(
        train_sources=("wider_face:wider_face#train",),
        validation_sources=("wider_face:wider_face#val",),
        image_size=640,
    ),
    model=ModelConfig(
        weights="imagenet",
        unshared=True,
        confidence_tap="after_pool",
        distances_tap="after_pool",
    ),
    loss=LossConfig(distance_loss="iou", reduction="sum"),
    train=TrainConfig(
        epochs=32,
        steps_per_epoch=500,
        batch_size=10,
        learning_rate=1e-8,
        momentum=0.9,
        weight_decay=2e-4,
    ),
    decode=DecodeConfig(decoder="ellipse", max_side=640),
)


# "The l2 variant: only the loss replaced, learning rate 1e-13"; its best model came at 29k.
_PAPER_L2 = dataclasses.replace(
    _PAPER,
    loss=dataclasses.replace(_PAPER.loss, distance_loss="l2"),
    train=dataclasses.replace(_PAPER.train, learning_rate=1e-13, epochs=58),
)


PRESETS: dict[str, Config] = {
    "smoke": _SMOKE,
    "faces": _FACES,
    "faces_light": _FACES_LIGHT,
    "paper": _PAPER,
    "paper_l2": _PAPER_L2,
}
