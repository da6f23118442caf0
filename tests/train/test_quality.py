import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from unitbox_tf import boxes as box_ops
from unitbox_tf import losses
from unitbox_tf.config import LossConfig
from unitbox_tf.train import fit, objective, quality, targets


@pytest.fixture
def scene(random):
    """Targets at stride 4 of two objects of two classes and an ignored one, and a prediction."""
    boxes = tf.constant([[3.0, 2, 30, 26], [34, 8, 58, 40], [4, 40, 20, 60]])
    truth, weights = targets.encode(
        boxes,
        tf.constant([0, 1, 0]),
        tf.constant([False, False, True]),
        64,
        64,
        num_classes=2,
        stride=4,
    )
    predicted = {
        "confidence": tf.constant(random.normal(size=(16, 16, 2)), tf.float32),
        "distances": tf.constant(random.uniform(2, 20, (16, 16, 4)), tf.float32),
    }
    return truth, weights, predicted


def test_a_point_of_an_object_stays_one_if_its_box_is_empty(scene):
    """The focal loss is divided by the weights of such points."""
    truth, _, predicted = scene
    empty = {**predicted, "distances": 0 * predicted["distances"]}
    found = quality.with_quality(truth, empty)["confidence"].numpy()
    np.testing.assert_array_equal(found > 0, truth["confidence"].numpy() > 0)
    assert found.max() < 1e-5


def test_the_target_is_the_iou_of_the_box_at_its_point(scene):
    truth, _, predicted = scene
    found = quality.with_quality(truth, predicted)
    assert found["distances"] is truth["distances"]
    points = box_ops.map_points(64, 64, 4)
    true, boxes = (
        box_ops.distances_to_boxes(maps["distances"], points).numpy() for maps in (truth, predicted)
    )
    positive = truth["confidence"].numpy()
    assert positive.any(axis=(0, 1)).all()
    for i, j in np.ndindex(16, 16):
        [[overlap]] = box_ops.pairwise_iou(true[i, j][None], boxes[i, j][None])
        np.testing.assert_allclose(
            found["confidence"][i, j], positive[i, j] * overlap, rtol=1e-4, atol=1e-6
        )


@pytest.fixture
def batch(scene):
    """A batch of one image whose prediction `small_model` can be asked for."""
    truth, weights, _ = scene
    one = [{name: value[None] for name, value in maps.items()} for maps in (truth, weights)]
    image = np.random.default_rng(1).uniform(0, 255, (1, 16, 16, 3)).astype(np.float32)
    return image, *one


@pytest.mark.parametrize("name", ["cross_entropy", "focal"])
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_training_minimises_it_in_both_losses_and_does_not_move_boxes_for_it(
    tiny_config, small_model, batch, name, reduction
):
    model = keras.models.clone_model(small_model)
    loss = LossConfig(
        confidence_loss=name, confidence_target="iou", reduction=reduction, confidence_weight=2.0
    )
    fit.compile_model(model, dataclasses.replace(tiny_config, loss=loss), False)
    images, truth, weights = batch
    reported = model.test_on_batch(images, truth, weights, return_dict=True)
    predicted = model(images)
    overlap = losses.iou(truth["distances"], predicted["distances"]).numpy()[..., None]
    known = objective.losses_of(loss, "sum" if reduction == "sum" else losses.MEAN, gather=True)
    expected = known["confidence"](
        truth["confidence"] * overlap, predicted["confidence"], weights["confidence"]
    )
    assert 0 < overlap.max() < 1
    assert reported["confidence_loss"] == pytest.approx(float(expected), rel=1e-4)

    head = model.layers[-1].trainable_weights  # of the distances
    gradients = []
    for weight in (2.0, 0.0):
        with tf.GradientTape() as tape:
            predicted = model(images)
            total = losses.IoULoss(reduction="sum" if reduction == "sum" else losses.MEAN)(
                truth["distances"], predicted["distances"], weights["distances"]
            )
            if weight:
                total = model.compute_loss(
                    x=images, y=truth, y_pred=predicted, sample_weight=weights
                )
        gradients.append(tape.gradient(total, head))
    for a, b in zip(*gradients, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_a_region_as_target_stays_as_it_is(tiny_config, small_model, batch):
    model = keras.models.clone_model(small_model)
    fit.compile_model(model, tiny_config, False)
    assert "compute_loss" not in vars(model)
