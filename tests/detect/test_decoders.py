import dataclasses
import functools
import itertools

import cv2
import numpy as np
import pytest
import scipy.ndimage
import tensorflow as tf
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.helpers.peaks import peaks as peaks_by_definition
from unitbox_tf import boxes as box_ops
from unitbox_tf import registry
from unitbox_tf.config import DecodeConfig
from unitbox_tf.detect import decoders, padding
from unitbox_tf.train import targets

CONFIG = DecodeConfig(score_threshold=0.3, max_detections=30)


def heatmaps(boxes, height, width, classes=None, num_classes=1):
    """The prediction of a perfect network: logits that peak at the centres, exact distances."""
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


def decoded(decoder, confidence, distances, config=CONFIG):
    maps = {"confidence": tf.constant(confidence), "distances": tf.constant(distances)}
    size = confidence.shape[1:3]
    padded = decoders.decode_scales(
        [maps], tf.constant(size), dataclasses.replace(config, decoder=decoder)
    )
    return padding.unpad(padded, [size] * len(confidence))


peaks = functools.partial(decoded, "peaks")
ellipses = functools.partial(decoded, "ellipse")
DECODERS = {"peaks": peaks, "ellipse": ellipses}


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


def test_boxes_that_are_kept_overlap_less_than_the_threshold(random):
    corners = random.uniform(0, 60, (1, 200, 2)).astype(np.float32)
    boxes = np.concatenate([corners, corners + random.uniform(3, 40, (1, 200, 2))], axis=-1)
    evidence = random.uniform(1, 5, (1, 200, 1)).astype(np.float32)
    padded = decoders.suppress(tf.constant(boxes, tf.float32), tf.constant(evidence), CONFIG)
    kept = padded["boxes"][0, : int(padded["num_detections"][0])].numpy()
    assert len(kept) > 3
    iou = box_ops.pairwise_iou(kept, kept) - np.eye(len(kept))
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
    assert len(ellipses(*maps)[0]) == 1
    assert len(peaks(*maps)[0]) == 2


def test_the_papers_decoder_reads_the_box_at_the_centre_of_the_ellipse():
    confidence, distances = heatmaps([(10, 10, 60, 40)], 64, 96)
    distances[0, 25, 35] = (5, 6, 7, 8)  # the ellipse's centre is (35, 25)
    distances[0, 24:27, 34:37] = (5, 6, 7, 8)
    (found,) = ellipses(confidence, distances)
    x0, y0, x1, y1 = found.boxes[0]
    assert (x1 - x0, y1 - y0) == (15, 11)


def test_ellipse_scores_are_the_mean_confidence_around_the_centre():
    confidence, distances = heatmaps([(10, 10, 60, 40)], 64, 96)
    confidence[confidence > 0] = 1.5
    (found,) = ellipses(confidence, distances)
    assert found.scores[0] == pytest.approx(1 / (1 + np.exp(-1.5)), abs=1e-5)


def test_the_centre_of_a_bent_blob_stays_within_its_bounds():
    confidence = np.full((1, 40, 40, 1), -9, np.float32)
    confidence[0, 5, 5:35] = 3
    confidence[0, 5:35, 5] = 3
    distances = np.full((1, 40, 40, 4), 4, np.float32)
    (found,) = ellipses(confidence, distances, DecodeConfig(score_threshold=0.0))
    x0, y0, x1, y1 = found.boxes[0]
    # The mean of its 59 pixels is at 12.4 in both directions.
    assert ((x0 + x1) / 2, (y0 + y1) / 2) == (12.5, 12.5)


def test_ellipses_are_centred_where_opencv_fits_them(random):
    """The paper does not say how it fits; OpenCV's least squares on the contour is what others use."""
    distances = np.full((1, 120, 160, 4), 6, np.float32)
    for _ in range(20):
        centre, axes = random.uniform(45, 75, 2), random.uniform(12, 70, 2)
        mask = np.zeros((120, 160), np.uint8)
        cv2.ellipse(mask, (tuple(centre), tuple(axes), random.uniform(0, 180)), 1, cv2.FILLED)
        confidence = np.where(mask, 3, -9).astype(np.float32)[None, ..., None]
        (found,) = ellipses(confidence, distances)
        [contour], _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        fitted = np.array(cv2.fitEllipse(contour.astype(np.float32))[0])
        x0, y0, x1, y1 = found.boxes[0]
        np.testing.assert_allclose([(x0 + x1) / 2, (y0 + y1) / 2], fitted + 0.5, atol=1.0)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.4, 0.6, 1.0])
def test_components_are_those_of_scipy(share, random):
    mask = random.random((3, 47, 61)) < share
    labels = decoders.label_components(tf.constant(mask)).numpy()
    np.testing.assert_array_equal(labels >= 0, mask)
    for ours, plane in zip(labels, mask, strict=True):
        theirs, count = scipy.ndimage.label(plane, structure=np.ones((3, 3)))
        pairs = set(zip(ours[plane].tolist(), theirs[plane].tolist(), strict=True))
        assert len(pairs) == count == len(np.unique(ours[plane]))
    index = np.arange(mask.size).reshape(mask.shape)
    for label in np.unique(labels[mask])[:20]:
        assert index[labels == label].max() == label


def test_a_spiral_is_one_component():
    mask = np.zeros((1, 41, 41), bool)
    y, x, low, high = 0, 0, 0, 40
    while low < high:
        for end_y, end_x in ((low, high), (high, high), (high, low), (low + 2, low)):
            rows, columns = sorted([y, end_y]), sorted([x, end_x])
            mask[0, rows[0] : rows[1] + 1, columns[0] : columns[1] + 1] = True
            y, x = end_y, end_x
        low, high = low + 2, high - 2
    assert scipy.ndimage.label(mask[0], structure=np.ones((3, 3)))[1] == 1
    labels = decoders.label_components(tf.constant(mask)).numpy()
    assert len(np.unique(labels[mask])) == 1


def test_flat_tops_give_one_peak():
    """Up-sampling makes them at the border; which of their pixels is a maximum is not left to rounding."""
    confidence = np.full((1, 48, 64, 1), -6, np.float32)
    confidence[0, :9, 20:33] = 4
    _, evidence = decoders.find_peaks(tf.constant(confidence), tf.ones([1, 48, 64, 4]), CONFIG)
    assert np.count_nonzero(evidence.numpy() > 1) == 1


def test_peaks_are_ranked_where_scores_are_one():
    """In float32 both scores are 1; the box of the surer pixel comes first."""
    confidence = np.full((1, 40, 60, 1), 20, np.float32)
    confidence[0, 15:25, 35:45] = 40
    distances = np.full((1, 40, 60, 4), 30, np.float32)
    (found,) = peaks(confidence, distances)
    assert (found.scores == 1).all()
    assert 35 < found.boxes[0, 0] + 30 < 45


# Against plain formulas in NumPy


def test_boxes_near_a_peak_are_averaged_as_by_the_plain_formula(random):
    confidence = random.normal(0, 3, (2, 21, 16, 3)).astype(np.float32)
    distances = np.exp(random.normal(3.5, 0.2, (2, 21, 16, 4))).astype(np.float32)
    config = dataclasses.replace(CONFIG, max_detections=10)
    boxes, evidence = decoders.find_peaks(
        tf.constant(confidence), tf.constant(distances), config, stride=4
    )
    rows, columns = np.mgrid[:21, :16]
    t, b, l, r = np.moveaxis(distances, -1, 0)  # noqa: E741
    x, y = 4 * columns + 2, 4 * rows + 2
    points = np.stack([x - l, y - t, x + r, y + b], axis=-1)
    averaged = set()
    for n in range(2):
        smooth = confidence[n] - 2e-5 * (rows % 16 + columns % 16)[..., None]
        largest = scipy.ndimage.maximum_filter(smooth, (3, 3, 1), mode="nearest")
        order = np.argsort(-np.where(smooth == largest, smooth, -np.inf), axis=None)[:40]
        for k, (i, j, label) in enumerate(zip(*np.unravel_index(order, smooth.shape), strict=True)):
            around = np.s_[n, max(i - 2, 0) : i + 3, max(j - 2, 0) : j + 3]
            near = points[around].reshape(-1, 4)
            alike = box_ops.pairwise_iou(points[n, i, j][None], near)[0] >= 0.5
            weights = alike / (1 + np.exp(-confidence[around][..., label].reshape(-1)))
            averaged.add(np.count_nonzero(alike))
            np.testing.assert_allclose(boxes[n, k], weights @ near / weights.sum(), atol=1e-3)
            assert evidence[n, k, label] > 0
    assert len(averaged) > 5
    assert min(averaged) < 10 < 20 < max(averaged)


def test_a_peak_without_scores_keeps_its_box():
    """Beyond logits of -104, sigmoids in float32 are 0."""
    confidence = np.full((1, 9, 9, 1), -150, np.float32)
    confidence[0, 4, 4] = -120
    boxes, _ = decoders.find_peaks(
        tf.constant(confidence), tf.fill([1, 9, 9, 4], 8.0), CONFIG, stride=4
    )
    np.testing.assert_array_equal(boxes[0, 0], [10, 10, 26, 26])


def test_peaks_are_those_of_the_plain_formula(random):
    confidence = random.normal(0, 3, (2, 37, 23, 3)).astype(np.float32)
    distances = random.uniform(1, 30, (2, 37, 23, 4)).astype(np.float32)
    config = dataclasses.replace(CONFIG, max_detections=20)
    boxes, evidence = decoders.find_peaks(tf.constant(confidence), tf.constant(distances), config)
    assert boxes.shape == (2, 80, 4)
    assert evidence.shape == (2, 80, 3)
    for n in range(2):
        wanted = np.log1p(np.exp(peaks_by_definition(confidence[n])))
        order = np.argsort(-wanted, axis=None)[:80]
        y, x, label = np.unravel_index(order, wanted.shape)
        assert wanted[y, x, label].min() > 0
        expected = wanted[y, x, label][:, None] * np.eye(3)[label]
        np.testing.assert_allclose(evidence[n], expected, atol=1e-5)
        t, b, l, r = distances[n, y, x].T  # noqa: E741
        sides = np.stack([x + 0.5 - l, y + 0.5 - t, x + 0.5 + r, y + 0.5 + b], axis=1)
        np.testing.assert_allclose(boxes[n], sides, atol=1e-4)


def test_blobs_are_those_of_the_plain_formula(random):
    logits = scipy.ndimage.gaussian_filter(random.normal(0, 1, (2, 41, 57, 2)), (0, 2, 2, 0)) * 20
    logits[1, ..., 0] = -9  # an image without a blob of this class
    logits[0, :2, :2, 1] = 8  # a blob in a corner, whose patch is cut
    distances = random.uniform(1, 30, (2, 41, 57, 4)).astype(np.float32)
    config = dataclasses.replace(CONFIG, blob_threshold=0.6)
    boxes, evidence = decoders.find_blobs(
        tf.constant(logits, tf.float32), tf.constant(distances), config
    )
    counts = []
    for n in range(2):
        expected = []
        for label in range(2):
            probability = 1 / (1 + np.exp(-logits[n, ..., label]))
            blobs, count = scipy.ndimage.label(probability >= 0.6, structure=np.ones((3, 3)))
            for blob in range(1, count + 1):
                y, x = np.rint(np.argwhere(blobs == blob).mean(axis=0)).astype(int)
                patch = probability[max(y - 2, 0) : y + 2, max(x - 2, 0) : x + 2]
                t, b, l, r = distances[n, y, x]  # noqa: E741
                box = (x + 0.5 - l, y + 0.5 - t, x + 0.5 + r, y + 0.5 + b)
                expected.append((*box, *(-np.log1p(-patch.mean()) * np.eye(2)[label])))
        counts.append(len(expected))
        found = np.concatenate([boxes[n], evidence[n]], axis=1)
        assert not found[len(expected) :].any()
        order, wanted = np.lexsort(found[: len(expected)].T), np.float32(expected)
        np.testing.assert_allclose(found[order], wanted[np.lexsort(wanted.T)], rtol=1e-3, atol=1e-3)
    assert min(counts) > 5
    assert counts[0] != counts[1]
    assert boxes.shape == (2, max(counts), 4)


def by_hand(*scales, once, **settings):
    """The detections in an image of 40 x 80 px where a decoder finds boxes `xyxy` with a score and a class.

    The heatmaps of each scale have 20 x 20 px.
    """
    found = iter(scales)

    def find(confidence, distances, config, stride):
        rows = next(found)
        evidence = [-np.log(1 - score) * np.eye(2)[label] for *_, score, label in rows]
        return tf.constant([[row[:4] for row in rows]], tf.float32), tf.constant(
            [evidence], tf.float32
        )

    registry.DECODERS.register("by_hand", decoders.Decoder(find, (), once=once))
    try:
        config = decoders.with_tensors(CONFIG, decoder="by_hand", **settings)
        empty = {"confidence": tf.zeros([1, 20, 20, 2]), "distances": tf.zeros([1, 20, 20, 4])}
        padded = decoders.decode_scales([empty] * len(scales), tf.constant([40, 80]), config)
    finally:
        registry.DECODERS.unregister("by_hand")
    assert padded["boxes"].shape == (1, config.max_detections, 4)
    count = int(padded["num_detections"][0])
    for name in ("boxes", "scores", "classes"):
        assert not padded[name][0, count:].numpy().any()
    assert padded["classes"].dtype == padded["num_detections"].dtype == tf.int32
    return [
        (*box, pytest.approx(score, abs=1e-5), label)
        for box, score, label in zip(
            *(padded[n][0, :count].numpy().tolist() for n in ("boxes", "scores", "classes")),
            strict=True,
        )
    ]


def test_boxes_are_in_pixels_of_the_image_and_cut_to_it():
    rows = [(1, 2, 11, 10, 0.6, 1), (-3, 15, 5, 25, 0.9, 0)]
    found = by_hand(rows, once=False, scales=(1.0,), max_detections=5)
    assert found == [(0, 30, 20, 40, 0.9, 0), (4, 4, 44, 20, 0.6, 1)]


def test_a_scale_finds_objects_up_to_its_size_and_the_smallest_scale_all():
    rows = [(0, 0, 8, 3, 0.9, 0), (5, 5, 10, 13.5, 0.8, 0), (0, 10, 8.5, 12, 0.7, 0)]
    settings = {"once": False, "scales": (1.0, 0.5), "nms_iou": 0.5}
    large = [(0, 0, 32, 6, 0.9, 0), (20, 10, 40, 27, 0.8, 0), (0, 20, 34, 24, 0.7, 0)]
    assert by_hand(rows, [(0, 0, 0, 0, 0, 0)], largest_object=8.0, **settings) == large[:1]
    assert by_hand([(0, 0, 0, 0, 0, 0)], rows, largest_object=8.0, **settings) == large
    assert by_hand(rows, [(0, 0, 0, 0, 0, 0)], largest_object=None, **settings) == large


def test_boxes_that_overlap_are_merged_unless_each_was_found_once():
    one, two = [(0, 0, 10, 10, 0.9, 0)], [(0, 0, 10, 9, 0.8, 0)]
    both = [(0, 0, 40, 20, 0.9, 0), (0, 0, 40, 18, 0.8, 0)]
    settings = {"nms_iou": 0.5, "largest_object": None}
    assert by_hand(one + two, once=True, scales=(1.0,), **settings) == both
    assert by_hand(one + two, once=False, scales=(1.0,), **settings) == both[:1]
    assert by_hand(one, two, once=True, scales=(1.0, 0.5), **settings) == both[:1]
    assert by_hand(one + two, once=False, scales=(1.0,), **settings | {"nms_iou": 0.95}) == both


def test_detections_have_the_least_score_an_area_and_a_number():
    boxes = [(0, 0, 4, 4), (6, 0, 10, 4), (12, 0, 16, 4), (18, 0, 18, 9), (5, 19, 8, 15)]
    rows = [(*box, score, 0) for box, score in zip(boxes, (0.5, 0.29, 0.31, 0.9, 0.9), strict=True)]
    settings = {"once": False, "scales": (1.0,), "score_threshold": 0.3, "largest_object": None}
    found = by_hand(rows, max_detections=30, **settings)
    assert found == [(0, 0, 16, 8, 0.5, 0), (48, 0, 64, 8, 0.31, 0)]
    assert by_hand(rows, max_detections=1, **settings) == found[:1]


def test_the_decoders_say_what_they_read_and_where_they_run():
    peaks, ellipse = registry.DECODERS["peaks"], registry.DECODERS["ellipse"]
    shared = ("score_threshold", "nms_iou", "max_detections")
    assert (peaks.options, peaks.once) == (shared, False)
    assert peaks.engines == ("tensorflow", "onnx", "numpy")
    assert (ellipse.options, ellipse.once) == ((*shared, "blob_threshold"), True)
    assert ellipse.engines == ("tensorflow",)


@pytest.mark.parametrize("part", ["confidence", "distances"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("decoder", DECODERS.values(), ids=DECODERS)
def test_numbers_that_are_not_finite_give_no_box_that_is_not_finite(decoder, part, value):
    confidence, distances = heatmaps([(8, 8, 24, 24), (30, 30, 44, 44)], 48, 56)
    values = {"confidence": confidence, "distances": distances}
    for places in (np.s_[:, 10:20, 10:20], np.s_[:]):
        changed = {name: array.copy() for name, array in values.items()}
        changed[part][places] = value
        [found] = decoder(**changed, config=dataclasses.replace(CONFIG, score_threshold=0.0))
        assert np.isfinite(found.boxes).all()
        assert np.isfinite(found.scores).all()
        assert (found.boxes >= 0).all()
        assert (found.boxes <= [56, 48, 56, 48]).all()


@pytest.mark.parametrize("decoder", ["peaks", "ellipse"])
def test_candidates_are_bounded_where_every_score_counts(decoder):
    """Every second pixel of every second row is a blob, and a peak."""
    side = 300
    confidence = np.full((1, side, side, 1), -9, np.float32)
    confidence[:, ::2, ::2] = 3 + np.arange(side // 2, dtype=np.float32)[:, None, None] / side
    config = dataclasses.replace(CONFIG, score_threshold=0.0, nms_iou=1.0, max_detections=5)
    find = registry.DECODERS[decoder].find
    boxes, evidence = find(
        tf.constant(confidence), tf.constant(np.full((1, side, side, 4), 1, np.float32)), config
    )
    assert boxes.shape[1] == evidence.shape[1] == decoders.CANDIDATES * 5
    [found] = decoded(decoder, confidence, np.full((1, side, side, 4), 1, np.float32), config)
    assert len(found) == 5


def test_the_candidates_of_blobs_are_the_best(random):
    """A bound that is not reached changes nothing; one that is reached keeps the boxes that come first."""
    confidence = np.full((2, 60, 60, 2), -9, np.float32)
    confidence[:, ::4, ::4] = random.uniform(0, 4, (2, 15, 15, 2))
    distances = random.uniform(1, 3, (2, 60, 60, 4)).astype(np.float32)
    every_score = dataclasses.replace(CONFIG, score_threshold=0.0)
    few = ellipses(confidence, distances, dataclasses.replace(every_score, max_detections=20))
    many = ellipses(confidence, distances, dataclasses.replace(every_score, max_detections=450))
    for some, every in zip(few, many, strict=True):
        assert len(some) == 20 < len(every)
        assert some == every.select(np.arange(20))


# Maps of a stride


def at_stride(decoder, stride, size, points, num_classes=1, **settings):
    """The detections in an image of `size` where the network finds boxes at `points`: (i, j, class, logit, tblr)."""
    shape = [-(-side // stride) for side in size]
    confidence = np.full((1, *shape, num_classes), -9, np.float32)
    distances = np.full((1, *shape, 4), 0.5, np.float32)
    for i, j, label, logit, sides in points:
        confidence[0, i, j, label] = logit
        distances[0, i, j] = sides
    config = dataclasses.replace(CONFIG, decoder=decoder, **settings)
    maps = {"confidence": tf.constant(confidence), "distances": tf.constant(distances)}
    padded = decoders.decode_scales([maps], tf.constant(size), config, stride)
    [found] = padding.unpad(padded, [size])
    return found


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("stride", [4, 8])
def test_point_i_j_of_a_map_is_in_the_middle_of_its_square(decoder, stride):
    points = [(2, 5, 0, 3.0, (10, 11, 12, 13)), (6, 1, 0, 2.0, (5, 7, 3, 9))]
    found = at_stride(decoder, stride, (9 * stride, 11 * stride), points)
    x, y = 5.5 * stride, 2.5 * stride
    first = [x - 12, max(y - 10, 0), x + 13, y + 11]
    x, y = 1.5 * stride, 6.5 * stride
    second = [x - 3, y - 5, x + 9, y + 7]
    np.testing.assert_allclose(found.boxes, [first, second], atol=1e-4)
    np.testing.assert_allclose(found.scores, 1 / (1 + np.exp([-3.0, -2.0])), atol=1e-4)


@pytest.mark.parametrize("decoder", DECODERS)
def test_the_last_points_of_an_image_may_lie_beyond_it(decoder):
    """An image of 33 x 41 px has 9 x 11 points of stride 4; the last are at 42 and 34."""
    sides = (8.0, 8.0, 8.0, 8.0)
    found = at_stride(decoder, 4, (33, 41), [(8, 10, 0, 3.0, sides)])
    np.testing.assert_allclose(found.boxes, [[34, 26, 41, 33]], atol=1e-4)
    for beyond in ((8, 8, 0.9, 8), (0.9, 8, 8, 8)):
        assert not len(at_stride(decoder, 4, (33, 41), [(8, 10, 0, 3.0, beyond)]))


def test_boxes_of_a_stride_are_in_pixels_of_the_image_that_was_shrunk():
    """An image of 100 x 60 px is shown with 50 x 30 px, on which a stride of 8 makes 7 x 4 points."""
    maps = {"confidence": np.full((1, 7, 4, 1), -9.0), "distances": np.full((1, 7, 4, 4), 6.0)}
    maps["confidence"][0, 3, 2] = 4.0
    config = dataclasses.replace(CONFIG, max_side=50)
    maps = {name: tf.constant(values, tf.float32) for name, values in maps.items()}
    padded = decoders.decode_scales([maps], tf.constant([100, 60]), config, 8)
    [found] = padding.unpad(padded, [(100, 60)])
    np.testing.assert_allclose(found.boxes, [[28, 44, 52, 68]], atol=1e-4)


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("size", [(120, 160), (117, 158)])
@given(scenes())
def test_decoding_inverts_encoding_at_a_stride(decoder, size, scene):
    boxes, _, _ = scene
    boxes = boxes + np.float32([0, 0, 4, 4])  # no object between the points
    if decoder == "ellipse":  # blobs touch where no point lies between them: docs/detection.md
        for one, other in itertools.combinations(boxes, 2):
            assume(np.maximum(one[:2] - other[2:], other[:2] - one[2:]).max() > 4)
    maps, _ = targets.encode(
        boxes,
        np.zeros(len(boxes), np.int32),
        np.zeros(len(boxes), bool),
        *size,
        num_classes=1,
        stride=4,
    )
    sides = maps["distances"].numpy()
    with np.errstate(all="ignore"):
        middle = np.nan_to_num(
            np.minimum(sides[..., 0::2], sides[..., 1::2]).min(axis=-1) / sides.max(axis=-1)
        )
    logits = np.where(maps["confidence"].numpy() > 0, 2 + 6 * middle[..., None], -8)
    values = {"confidence": logits[None].astype(np.float32), "distances": sides[None]}
    config = dataclasses.replace(CONFIG, decoder=decoder)
    padded = decoders.decode_scales([values], tf.constant(size), config, 4)
    [found] = padding.unpad(padded, [size])
    inside = box_ops.clip(boxes, *size)
    inside = inside[(inside[:, 2:] - inside[:, :2] > 8).all(axis=1)]
    if len(inside):
        iou = box_ops.pairwise_iou(inside, found.boxes)
        assert iou.max(axis=1).min() > 0.999


def test_maps_of_a_stride_are_not_smoothed():
    """Two points with one between them are two peaks, which smoothing over 5 points would join."""
    sides = (3.0, 3.0, 3.0, 3.0)
    points = [(3, 3, 0, 4.0, sides), (3, 5, 0, 3.0, sides), (7, 7, 1, 1.0, sides)]
    found = at_stride("peaks", 4, (40, 40), points, num_classes=2)
    np.testing.assert_allclose(
        found.boxes, [[11, 11, 17, 17], [19, 11, 25, 17], [27, 27, 33, 33]], atol=1e-4
    )
    assert found.classes.tolist() == [0, 0, 1]
    tilt = decoders.TILT * np.array([6, 8, 14])
    np.testing.assert_allclose(
        found.scores, 1 / (1 + np.exp(-(np.array([4.0, 3.0, 1.0]) - tilt))), atol=1e-6
    )


@pytest.mark.parametrize(("stride", "side"), [(1, 4), (2, 2), (4, 1), (8, 1)])
def test_the_score_of_an_ellipse_is_of_a_patch_of_pixels(stride, side):
    confidence = np.full((1, 20, 20, 1), -9, np.float32)
    confidence[0, 5:14, 5:14] = 1.0
    confidence[0, 9 - side // 2 : 9 - side // 2 + side, 9 - side // 2 : 9 - side // 2 + side] = 3.0
    _, evidence = decoders.find_blobs(
        tf.constant(confidence), tf.ones([1, 20, 20, 4]), CONFIG, stride
    )
    assert 1 - np.exp(-evidence.numpy().max()) == pytest.approx(1 / (1 + np.exp(-3.0)), abs=1e-5)
