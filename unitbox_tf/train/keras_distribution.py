"""Faults of Keras 3 with `tf.distribute`, and the ways around them.

* An optimizer clips the gradient of each device before it adds them up (`BaseOptimizer._backend_apply_gradients`). The
  norm that counts is that of the sum. So training adds up gradients itself, and `adds_nothing` keeps the optimizer from
  doing it again.
* `Model.fit` fails with `MultiWorkerMirroredStrategy` in two places (keras-team/keras#20585): it reduces a batch that
  each worker has for itself, and it reads logs that each worker has for itself. `train.loop` runs the epochs of several
  devices itself, by public functions only, so nothing in it depends on Keras' version.

`tests/train/test_keras_distribution.py` shows both faults, and fails when Keras no longer has them.
"""

from __future__ import annotations

import keras

_ADDS = "_all_reduce_sum_gradients"


def adds_nothing(optimizer: keras.optimizers.Optimizer) -> None:
    """Lets `optimizer` take gradients that are added up over all devices already.

    Raises:
        RuntimeError: Keras adds up in another way than versions 3.12 to 3.15 do.
    """
    if not callable(getattr(optimizer, _ADDS, None)):
        raise RuntimeError(
            f"Expected an optimizer of Keras that adds up gradients in {_ADDS}, to train on several devices. "
            f"Received: {type(optimizer).__name__} of Keras {keras.__version__}"
        )
    setattr(optimizer, _ADDS, list)
