"""The public losses with their options, and their gradients."""

import tensorflow as tf

from unitbox_tf import losses

OVERLAP = ("linear_iou_loss", "giou_loss", "diou_loss", "ciou_loss", "eiou_loss", "siou_loss")

CASES = {
    "iou_loss tblr": (losses.iou_loss, {"box_format": "tblr"}),
    "iou_loss xyxy": (losses.iou_loss, {"box_format": "xyxy"}),
    **{
        f"{name} {box_format} {alpha}": (
            getattr(losses, name),
            {"box_format": box_format, "alpha": alpha},
        )
        for name in OVERLAP
        for box_format in ("tblr", "xyxy")
        for alpha in (1.0, 3.0)
    },
    "l2_loss": (losses.l2_loss, {}),
    "smooth_l1_loss": (losses.smooth_l1_loss, {}),
    "smooth_l1_loss 0.1": (losses.smooth_l1_loss, {"beta": 0.1}),
    "iou tblr": (losses.iou, {"box_format": "tblr"}),
    "iou xyxy": (losses.iou, {"box_format": "xyxy"}),
}

# For the places where losses run: box format and power are independent in the code, so that tracing
# or compiling a function with both of each, once, meets all of it.
PLACED = {
    name: (function, options)
    for name, (function, options) in CASES.items()
    if "alpha" not in options or (options["box_format"] == "xyxy") == (options["alpha"] == 3)
}


def gradient(function, y_true, y_pred, **options):
    """Value and gradient with respect to `y_pred`."""
    y_pred = tf.convert_to_tensor(y_pred)
    with tf.GradientTape() as tape:
        tape.watch(y_pred)
        value = function(y_true, y_pred, **options)
    return value, tape.gradient(value, y_pred)
