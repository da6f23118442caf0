"""Detections and annotations drawn at random."""

import numpy as np

from unitbox_tf.records import Annotation, Detections

SIZE = (200, 200)


def detections(boxes, scores, classes=None):
    scores = np.asarray(scores, np.float32)
    classes = np.zeros(len(scores), np.int32) if classes is None else np.asarray(classes)
    return Detections(np.asarray(boxes, np.float32).reshape(-1, 4), scores, classes, SIZE)


def random_set(random, num_images=25, num_classes=1, ignored=0.0):
    found, truth = [], []
    for number in range(num_images):
        count = random.integers(0, 6)
        corner = random.uniform(0, 120, (count, 2))
        boxes = np.concatenate([corner, corner + random.uniform(8, 70, (count, 2))], axis=1)
        noisy = boxes + random.normal(0, 5, boxes.shape)
        stray = random.uniform(0, 100, (3, 2))
        extra = np.concatenate([stray, stray + random.uniform(8, 70, (3, 2))], axis=1)
        candidates = np.concatenate([noisy, boxes[: count // 2] + 2, extra])
        labels = random.integers(0, num_classes, len(candidates))
        labels[:count] = classes = random.integers(0, num_classes, count)
        scores = np.round(random.uniform(0, 1, len(candidates)), 2)  # with ties
        order = np.argsort(-scores, kind="stable")
        clipped = np.clip(candidates, 0, 200)
        found.append(detections(clipped[order], scores[order], labels[order]))
        ignore = random.uniform(size=count) < ignored
        truth.append(Annotation(str(number), b"", boxes.clip(0, 200), classes, ignore))
    return found, truth
