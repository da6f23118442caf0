"""A light backbone for CPUs: residual stages of plain 3x3 convolutions with few channels.

Depthwise convolutions need fewer multiply-adds, but on CPUs, at these sizes, more time: see docs/backbones.md.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import keras

from unitbox_tf.config import ModelConfig
from unitbox_tf.network import backbones, layers

# Runtimes for CPUs compute channels in blocks of 16, so other numbers of channels cost as much as the next multiple.
STEM = 16  # channels at stride 2
STAGES = ((32, 1), (48, 2), (96, 2), (128, 3))  # channels and blocks, at strides 4, 8, 16 and 32
# Of the blocks of the last stage, one after the other. So a point sees 1,047 px of the image, where it would see 535,
# for the same multiply-adds. YOLOF (Chen et al., CVPR 2021) lets one map see large objects in this way.
DILATIONS = (1, 2, 4)


def light(config: ModelConfig, seed: int = 0) -> backbones.Backbone:
    """The backbone with random weights. `config.width` is a factor of all numbers of channels.

    Raises:
        ValueError: `config` names weights, of which there are none, or other taps.
    """
    backbones.check_settings(config, "weights", "confidence_tap", "distances_tap")
    seeds = itertools.count(seed)

    image = keras.Input((None, None, 3), name="image")
    x = convolution(image, _scaled(STEM, config), 3, 2, "stem_conv", seeds)
    x = keras.layers.ReLU(name="stem")(x)
    for number, (channels, blocks) in enumerate(STAGES, 1):
        for block in range(1, blocks + 1):
            name, stride = f"stage{number}_block{block}", 2 if block == 1 else 1
            dilation = DILATIONS[block - 1] if number == len(STAGES) else 1
            width = _scaled(channels, config)
            y = convolution(x, width, 3, stride, f"{name}_conv1", seeds, dilation)
            y = keras.layers.ReLU(name=f"{name}_relu")(y)
            y = convolution(y, width, 3, 1, f"{name}_conv2", seeds, dilation)
            if block == 1:
                # A 1x1 convolution with a stride of 2 computes the same, but its gradient in oneDNN (TensorFlow 2.21)
                # writes beyond its memory where there are at most 16 channels on both sides.
                x = keras.layers.MaxPooling2D(1, 2, name=f"{name}_every_second")(x)
                x = convolution(x, width, 1, 1, f"{name}_shortcut", seeds)
            x = keras.layers.Add(name=f"{name}_add")([x, y])
            x = keras.layers.ReLU(name=name)(x)
    ends = {2 ** (n + 1): f"stage{n}_block{blocks}" for n, (_, blocks) in enumerate(STAGES, 1)}
    return backbones.Backbone(
        keras.Model(image, x, name="light"),
        confidence=ends[8],
        distances=ends[16],
        stride=32,
        pyramid=ends,
    )


def _scaled(channels: int, config: ModelConfig) -> int:
    return max(1, round(channels * config.width))


def convolution(
    x: keras.KerasTensor,
    channels: int,
    size: int,
    stride: int,
    name: str,
    seeds: Iterator[int],
    dilation: int = 1,
) -> keras.KerasTensor:
    """A convolution without bias and the batch normalisation after it, which exports fold into one convolution."""
    x = keras.layers.Conv2D(
        channels,
        size,
        stride,
        padding="same",
        dilation_rate=dilation,
        use_bias=False,
        kernel_initializer=keras.initializers.HeNormal(seed=next(seeds)),
        name=name,
    )(x)
    return layers.BatchNormalization(momentum=0.99, epsilon=1e-3, name=f"{name}_bn")(x)
