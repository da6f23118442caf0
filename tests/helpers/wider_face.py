"""The truth of WIDER FACE and its official files, made for tests."""

import gzip

import numpy as np
import scipy.io

from unitbox_tf.evaluation.wider_face import DIFFICULTIES, GroundTruth


def make_truth(*images, names=None):
    """Truth of images that are given as (faces, easy, medium, hard): `x y w h` and indices of those that count."""
    boxes = tuple(np.array(image[0], np.int32).reshape(-1, 4) for image in images)
    counted = {
        difficulty: tuple(
            np.isin(np.arange(len(b)), image[n]) for b, image in zip(boxes, images, strict=True)
        )
        for n, difficulty in enumerate(DIFFICULTIES, 1)
    }
    names = names or tuple(f"{i % 3}--Event/{i}.jpg" for i in range(len(images)))
    return GroundTruth(names, boxes, counted)


def read_parity(path):
    detections, rows = {}, []
    with gzip.open(path, "rt") as file:
        for line in file:
            if line.startswith("# "):
                rows = detections.setdefault(f"{line.split()[1]}.jpg", [])
            else:
                rows.append([float(word) for word in line.split()])
    return {name: np.array(rows).reshape(-1, 5) for name, rows in detections.items()}


FILES = ["face", *DIFFICULTIES]


def cell(values):
    array = np.empty((len(values), 1), object)
    for i, value in enumerate(values):
        array[i, 0] = value
    return array


def mat_content(truth):
    """The contents of the four official files of a truth: cells of events that hold cells of images."""
    events = sorted({name.split("/")[0] for name in truth.names})
    members = [[i for i, n in enumerate(truth.names) if n.startswith(f"{e}/")] for e in events]
    stems = [name.split("/")[1].removesuffix(".jpg") for name in truth.names]

    def nested(values):
        return cell([cell([values[i] for i in numbers]) for numbers in members])

    common = {
        "event_list": cell(events),
        "file_list": nested(stems),
        "face_bbx_list": nested(truth.boxes),
        "blur_label_list": cell([np.zeros((1, 1))] * len(events)),
    }
    lists = {
        difficulty: nested([np.flatnonzero(m)[:, None].astype(np.uint8) + 1 for m in masks])
        for difficulty, masks in truth.counted.items()
    }
    return {name: common | ({"gt_list": lists[name]} if name in lists else {}) for name in FILES}


def write_mats(content, folder):
    for name, variables in content.items():
        scipy.io.savemat(folder / f"wider_{name}_val.mat", variables, do_compression=True)
