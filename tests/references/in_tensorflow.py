"""The TensorFlow libraries' part of the golden files; `make_goldens.py` runs it in its environment.

python in_tensorflow.py FOLDER
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras_cv
import numpy as np
import tensorflow as tf
import tensorflow_addons as tfa
from golden_parts import Parts

CHUNK = 1000  # keras_cv compares all with all and then takes the diagonal


def box_losses(parts: Parts) -> None:
    """tensorflow_addons in float64, keras_cv in float32, which it casts to."""
    truth = tf.constant(parts.truth[:, [1, 0, 3, 2]], tf.float64)
    prediction = tf.constant(parts.prediction[:, [1, 0, 3, 2]], tf.float64)
    for mode in ("iou", "giou"):
        values = tfa.losses.giou_loss(truth, prediction, mode=mode).numpy()
        call = f"tfa.losses.giou_loss(truth_yxyx, prediction_yxyx, mode={mode!r}), float64"
        parts.add(f"tfa/giou_loss({mode})", "tensorflow-addons", call, values)

    options = {"bounding_box_format": "xyxy", "reduction": "none"}
    unreduced = {**options, "axis": "no_reduction"}
    told = "keras_cv.losses.{}(bounding_box_format='xyxy', reduction='none'{})(truth, prediction)"
    note = "called on [1000, 4] at a time: of batches [N, 1, 4] it takes the wrong diagonal"
    for mode in ("linear", "log"):
        deviation = note if mode == "linear" else note + "; infinite where IoU is 0"
        parts.add(
            f"keras_cv/IoULoss({mode})",
            "keras-cv",
            told.format("IoULoss", f", axis='no_reduction', mode={mode!r}") + ", float32",
            _chunked(keras_cv.losses.IoULoss(mode=mode, **unreduced), parts),
            deviation=deviation,
        )
    parts.add(
        "keras_cv/GIoULoss",
        "keras-cv",
        told.format("GIoULoss", ", axis='no_reduction'") + ", float32",
        _chunked(keras_cv.losses.GIoULoss(**unreduced), parts),
        deviation=note,
    )
    parts.add(
        "keras_cv/CIoULoss",
        "keras-cv",
        told.format("CIoULoss", "") + ", float32",
        _chunked(keras_cv.losses.CIoULoss(**options), parts),
        deviation="squares 4 / pi^2 too: its v is 4 / pi^2 = 0.405 times the published one",
    )


def _chunked(loss: tf.keras.losses.Loss, parts: Parts) -> np.ndarray:
    starts = range(0, len(parts.truth), CHUNK)
    chunks = [slice(start, start + CHUNK) for start in starts]
    return np.concatenate([loss(parts.truth[c], parts.prediction[c]).numpy() for c in chunks])


def optimizers(parts: Parts) -> None:
    """SGDW takes what is to be subtracted, learning rate included, and decays outside momentum."""
    problem = parts.problem
    matrix, offset = tf.constant(problem["A"], tf.float64), tf.constant(problem["b"], tf.float64)
    rate, decay = problem["learning_rate"], problem["decay"]
    for momentum in (0.0, problem["momentum"]):
        optimizer = tfa.optimizers.SGDW(
            weight_decay=rate * decay, learning_rate=rate, momentum=momentum
        )
        weights = tf.Variable(problem["start"], dtype=tf.float64)
        seen = [weights.numpy()]
        for _ in range(problem["steps"]):
            gradient = tf.linalg.matvec(matrix, weights) - offset
            optimizer.apply_gradients([(gradient, weights)])
            seen.append(weights.numpy())
        arguments = f"learning_rate={rate}, momentum={momentum}"
        call = f"tfa.optimizers.SGDW(weight_decay={rate} * {decay}, {arguments}), float64"
        call += "; it rounds its hyperparameters to float32"
        parts.add_trajectory(f"tfa/SGDW(momentum={momentum})", "tensorflow-addons", call, seen)


if __name__ == "__main__":
    parts = Parts(Path(sys.argv[1]), "tensorflow")
    box_losses(parts)
    optimizers(parts)
    parts.write()
