"""The two branches of section 3 of the paper: convolution, up-sampling and crop on the features of a backbone.

    image ─ Preprocess ─ stages 1 to 4 ─ 3x3 conv ─ Resize ─ Crop ─▶ confidence [B, H, W, C], logits
                               └─ stage 5 ─ 3x3 conv ─ Resize ─ Crop ─ SideReLU ─▶ distances [B, H, W, 4], pixels

Alignment: each pooling halves the map and drops a last odd row, so the image is padded at its
bottom and right to a multiple of the stride. Then a map of stride s covers exactly the padded
image, resizing it to the *padded* size is free of shift and of scale error (with TensorFlow's
half-pixel convention), and the crop takes the padding off again.
"""

from __future__ import annotations

import keras

from unitbox_tf.network import backbones, layers

HEADS = ("confidence_head", "distances_head")  # layers whose outputs are not up-sampled yet
BACKBONES = {
    False: ("backbone",),
    True: ("confidence_backbone", "distances_backbone"),
}  # by `unshared`
PREPROCESS = "preprocess"  # the layer whose output is the backbone's input


def preprocess(image: keras.KerasTensor, backbone: backbones.Backbone) -> keras.KerasTensor:
    """The input of the backbone, `[B, h, w, 3]`, where h and w are H and W rounded up to multiples of its stride."""
    given = backbone.preprocessing
    layer = layers.Preprocess(
        stride=backbone.stride,
        channels=given.channels,
        mean=given.mean,
        scale=given.scale,
        name=PREPROCESS,
        dtype="float32",
    )
    return layer(image)


def heatmaps(
    image: keras.KerasTensor,
    backbone: backbones.Backbone,
    num_classes: int,
    *,
    unshared: bool,
    stage4_scale: float,
    initial_box_size: float,
    head_stddev: float,
    seed: int,
) -> dict[str, keras.KerasTensor]:
    """`confidence` `[B, H, W, C]`, logits, and `distances` `[B, H, W, 4]`, `tblr` in pixels, of `image` `[B, H, W, 3]`.

    `config.ModelConfig` explains the settings. `seed` decides the random weights of the heads.

    Raises:
        ValueError: the backbone does not name the layers that both branches read.
    """
    confidence_tap, distances_tap = backbone.confidence, backbone.distances
    if confidence_tap is None or distances_tap is None:
        raise ValueError(
            "Expected a backbone that names the layers confidence and distances with the neck none. Received: one with "
            f"the pyramid of strides {list(backbone.pyramid)} alone, which the neck top_down reads"
        )
    padded = preprocess(image, backbone)
    names = BACKBONES[unshared]
    if unshared:
        [stage4] = backbone.features([confidence_tap], names[0])(padded)
        [stage5] = backbone.copy().features([distances_tap], names[1])(padded)
    else:
        stage4, stage5 = backbone.features([confidence_tap, distances_tap], names[0])(padded)

    # The heads always compute in float32: bfloat16 would round a distance of 200 px to whole pixels, and
    # the heads are small.
    initializer = keras.initializers.RandomNormal(stddev=head_stddev, seed=seed)
    x = keras.layers.Rescaling(stage4_scale, name="stage4_scale", dtype="float32")(stage4)
    x = keras.layers.Conv2D(
        num_classes,
        3,
        padding="same",
        kernel_initializer=initializer,
        name=HEADS[0],
        dtype="float32",
    )(x)
    x = layers.Resize(name="confidence_resize", dtype="float32")([x, padded])
    confidence = layers.Crop(name="confidence", dtype="float32")([x, image])

    x = keras.layers.Conv2D(
        4,
        3,
        padding="same",
        kernel_initializer=initializer.clone(),
        bias_initializer=keras.initializers.Constant(initial_box_size / 2),
        name=HEADS[1],
        dtype="float32",
    )(stage5)
    x = layers.Resize(name="distances_resize", dtype="float32")([x, padded])
    x = layers.Crop(name="distances_crop", dtype="float32")([x, image])
    distances = layers.SideReLU(name="distances", dtype="float32")(x)
    return {"confidence": confidence, "distances": distances}
