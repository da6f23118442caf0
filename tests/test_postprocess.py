import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from unitbox_tf import boxes as box_ops
from unitbox_tf import postprocess, targets
from unitbox_tf.config import DecodeConfig

CONFIG = DecodeConfig(score_threshold=0.3, max_detections=30)


def heatmaps(boxes, height, width, classes=None, num_classes=1):
    """What a perfect network predicts: logits that peak at the centres, exact distances."""
    boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
    classes = np.zeros(len(boxes), np.int32) if classes is None else np.asarray(classes, np.int32)
    maps, _ = targets.encode(
        boxes, classes, np.zeros(len(boxes), bool), height, width, num_classes=num_classes
    )
    t, b, l, r = (d.numpy() for d in tf.unstack(maps["distances"], axis=-1))  # noqa: E741
    with np.errstate(all="ignore"):
        middle = 1 - np.nan_to_num(np.hypot((t - b) / (t + b), (l - r) / (l + r)))
    logits = np.where(maps["confidence"].numpy() > 0, 2 + 6 * middle[..., None], -8)
    return logits[None].astype(np.float32), maps["distances"].numpy()[None]


def peaks(confidence, distances, config=CONFIG):
    padded = postprocess.decode_peaks(tf.constant(confidence), tf.constant(distances), config)
    return postprocess.unpad(padded, [confidence.shape[1:3]] * len(confidence))


DECODERS = {
    "peaks": peaks,
    "ellipse": lambda c, d, config=CONFIG: postprocess.decode_ellipses(c, d, config),
}


@st.composite
def scenes(draw):
    """Boxes in the cells of a grid, so that they do not touch, of sizes that show as blobs."""
    cell = 40
    rows, columns = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    boxes = []
    for row in range(rows):
        for column in range(columns):
            if draw(st.booleans()):
                x, y = draw(st.floats(1, 15)), draw(st.floats(1, 15))
                w, h = draw(st.floats(9, 24)), draw(st.floats(9, 24))
                left, top = column * cell + x, row * cell + y
                boxes.append((left, top, left + w, top + h))
    return np.float32(boxes).reshape(-1, 4), rows * cell, columns * cell - 3


@pytest.mark.parametrize("decoder", DECODERS)
@given(scenes())
def test_decoding_inverts_encoding(decoder, scene):
    boxes, height, width = scene
    (found,) = DECODERS[decoder](*heatmaps(boxes, height, width))
    assert len(found) == len(boxes)
    if len(boxes):
        iou = box_ops.pairwise_iou(box_ops.clip(boxes, height, width), found.boxes)
        assert iou.max(axis=1).min() > 0.999
        assert (found.scores > 0.9).all()
        assert (np.diff(found.scores) <= 0).all()


@pytest.mark.parametrize("decoder", DECODERS)
def test_images_of_a_batch_do_not_mix(decoder):
    first, second = [(5, 5, 30, 40)], [(20, 10, 50, 35), (60, 30, 80, 55)]
    maps = [heatmaps(boxes, 64, 96) for boxes in (first, [], second)]
    confidence, distances = (np.concatenate(m) for m in zip(*maps, strict=True))
    found = DECODERS[decoder](confidence, distances)
    assert [len(f) for f in found] == [1, 0, 2]
    np.testing.assert_allclose(found[0].boxes, first, atol=0.01)
    np.testing.assert_allclose(found[2].boxes[np.argsort(found[2].boxes[:, 0])], second, atol=0.01)


@pytest.mark.parametrize("decoder", DECODERS)
def test_classes_are_told_apart(decoder):
    boxes = [(5, 5, 30, 40), (50, 5, 80, 40)]
    (found,) = DECODERS[decoder](*heatmaps(boxes, 64, 96, [2, 0], num_classes=3))
    order = np.argsort(found.boxes[:, 0])
    assert found.classes[order].tolist() == [2, 0]
    np.testing.assert_allclose(found.boxes[order], boxes, atol=0.01)


@pytest.mark.parametrize("decoder", DECODERS)
def test_noise_decodes_without_error(decoder, random):
    confidence = random.normal(0, 4, (2, 37, 50, 2)).astype(np.float32)
    distances = random.uniform(0, 30, (2, 37, 50, 4)).astype(np.float32)
    distances[:, :10] = 0
    for found in DECODERS[decoder](confidence, distances):
        assert len(found) <= CONFIG.max_detections
        assert (found.scores >= CONFIG.score_threshold).all()
        assert (found.boxes >= 0).all()
        assert (found.boxes <= [50, 37, 50, 37]).all()
        assert (box_ops.areas(found.boxes) >= 0).all()


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("size", [(1, 1), (2, 3), (1, 40)])
def test_tiny_maps_decode(decoder, size):
    confidence = np.full((1, *size, 1), 3, np.float32)
    distances = np.full((1, *size, 4), 0.5, np.float32)
    (found,) = DECODERS[decoder](confidence, distances)
    assert len(found) >= 1


@pytest.mark.parametrize("decoder", DECODERS)
def test_a_distance_head_that_predicts_nothing_gives_no_boxes(decoder):
    confidence = np.full((1, 40, 40, 1), 3, np.float32)
    (found,) = DECODERS[decoder](confidence, np.zeros((1, 40, 40, 4), np.float32))
    assert len(found) == 0


def test_peaks_that_are_kept_overlap_less_than_the_threshold(random):
    confidence = random.normal(2, 2, (1, 60, 60, 1)).astype(np.float32)
    distances = random.uniform(3, 25, (1, 60, 60, 4)).astype(np.float32)
    padded = postprocess.decode_peaks(tf.constant(confidence), tf.constant(distances), CONFIG)
    boxes = padded["boxes"][0, : int(padded["num_detections"][0])].numpy()
    assert len(boxes) > 3
    iou = box_ops.pairwise_iou(boxes, boxes) - np.eye(len(boxes))
    assert iou.max() <= CONFIG.nms_iou + 1e-5


def test_overlapping_boxes_of_two_classes_are_both_kept():
    boxes = [(5, 5, 40, 40), (6, 6, 41, 41)]
    one, two = (heatmaps([box], 48, 48) for box in boxes)
    confidence = np.concatenate([one[0], two[0]], axis=-1)
    (found,) = peaks(confidence, one[1])
    assert sorted(found.classes.tolist()) == [0, 1]


def test_touching_blobs_are_one_to_the_papers_decoder():
    """The limit that the paper's decoder has, and the other has not."""
    maps = heatmaps([(5, 10, 45, 50), (38, 10, 78, 50)], 64, 96)
    assert len(postprocess.decode_ellipses(*maps, CONFIG)[0]) == 1
    assert len(peaks(*maps)[0]) == 2


def test_the_papers_decoder_reads_the_box_at_the_centre_of_the_ellipse():
    confidence, distances = heatmaps([(10, 10, 60, 40)], 64, 96)
    distances[0, 25, 35] = (5, 6, 7, 8)  # the ellipse's centre is (35, 25)
    distances[0, 24:27, 34:37] = (5, 6, 7, 8)
    (found,) = postprocess.decode_ellipses(confidence, distances, CONFIG)
    x0, y0, x1, y1 = found.boxes[0]
    assert (x1 - x0, y1 - y0) == (15, 11)


def test_ellipse_scores_are_the_mean_confidence_around_the_centre():
    confidence, distances = heatmaps([(10, 10, 60, 40)], 64, 96)
    confidence[confidence > 0] = 1.5
    (found,) = postprocess.decode_ellipses(confidence, distances, CONFIG)
    assert found.scores[0] == pytest.approx(1 / (1 + np.exp(-1.5)), abs=1e-5)


def test_one_bad_fit_does_not_leave_the_blob():
    # A thin bent line, whose fitted ellipse has its centre far from it.
    confidence = np.full((1, 40, 40, 1), -9, np.float32)
    confidence[0, 5, 5:35] = 3
    confidence[0, 5:35, 5] = 3
    distances = np.full((1, 40, 40, 4), 4, np.float32)
    (found,) = postprocess.decode_ellipses(confidence, distances, DecodeConfig(score_threshold=0.0))
    assert len(found) == 1
    assert (found.boxes >= 0).all()
