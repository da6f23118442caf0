"""A top-down path and heads at one fine map: features of all strides in one map, one box at each of its points.

    strides 4 │ 8 │ 16 │ 32 of the backbone ─ 1x1 conv each
    32 ─ up ─ + 16 ─ up ─ + 8 ─ up ─ + 4 ─ 3x3 convs ─┬─ 1x1 conv ─ Crop ─▶ confidence [B, h, w, C], logits
                                                       └─ 1x1 conv ─ ExpDistances ─ Crop ─▶ distances [B, h, w, 4], px

There is one map, so objects of all sizes have one place. This is still UnitBox: no levels and no anchors.
Source of the path: Lin et al., Feature Pyramid Networks, CVPR 2017; here only its finest map has heads.
"""

from __future__ import annotations

import itertools
import math

import keras

from unitbox_tf.network import backbones, layers, light
from unitbox_tf.network import heatmaps as branches

TOWERS = (1, 2)
PRIOR = 0.01  # confidence before training, which keeps a focal loss from exploding (RetinaNet, 4.1)


def heatmaps(
    image: keras.KerasTensor,
    backbone: backbones.Backbone,
    num_classes: int,
    *,
    map_stride: int,
    channels: int,
    initial_box_size: float,
    head_stddev: float,
    seed: int,
) -> dict[str, keras.KerasTensor]:
    """`confidence` `[B, h, w, C]`, logits, and `distances` `[B, h, w, 4]` in pixels of `image` `[B, H, W, 3]`.

    h is H / `map_stride`, rounded up; w likewise. Point (i, j) of the maps is at `((j + .5) * map_stride,
    (i + .5) * map_stride)` in the image. `config.ModelConfig` explains the settings.

    Raises:
        ValueError: the backbone has no pyramid, or no map of this stride.
    """
    if not backbone.pyramid:
        raise ValueError(
            "Expected a backbone that names a pyramid of layers with the neck top_down. Received: one without"
        )
    possible = [stride for stride in backbone.pyramid if stride > 1]
    if map_stride not in possible:
        raise ValueError(
            f"map_stride: expected a stride of the pyramid of the backbone, {possible}. Received: {map_stride}"
        )
    padded = branches.preprocess(image, backbone)
    strides = [stride for stride in backbone.pyramid if stride >= map_stride]
    taps = [backbone.pyramid[stride] for stride in strides]
    features = backbone.features(taps, "backbone")(padded)
    seeds = itertools.count(seed)
    x = None
    for stride, feature in zip(reversed(strides), reversed(features), strict=True):
        lateral = light.convolution(feature, channels, 1, 1, f"lateral{stride}", seeds)
        if x is not None:
            larger = layers.Enlarge(name=f"enlarge{stride}")([x, lateral])
            lateral = keras.layers.Add(name=f"merge{stride}")([lateral, larger])
        x = keras.layers.ReLU(name=f"merged{stride}")(lateral)
    for number in TOWERS:
        x = light.convolution(x, channels, 3, 1, f"tower{number}", seeds)
        x = keras.layers.ReLU(name=f"tower{number}_relu")(x)

    initializer = keras.initializers.RandomNormal(stddev=head_stddev, seed=seed)
    confidence = keras.layers.Conv2D(
        num_classes,
        1,
        kernel_initializer=initializer,
        bias_initializer=keras.initializers.Constant(-math.log(1 / PRIOR - 1)),
        name=branches.HEADS[0],
        dtype="float32",
    )(x)
    confidence = layers.Crop(map_stride, name="confidence", dtype="float32")([confidence, image])
    y = keras.layers.Conv2D(
        4,
        1,
        kernel_initializer=initializer.clone(),
        name=branches.HEADS[1],
        dtype="float32",
    )(x)
    y = layers.Crop(map_stride, name="distances_crop", dtype="float32")([y, image])
    unit = initial_box_size / 2 or 2.0 * map_stride
    distances = layers.ExpDistances(unit, name="distances", dtype="float32")(y)
    return {"confidence": confidence, "distances": distances}
