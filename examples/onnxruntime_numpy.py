"""Objects in a photo, with an exported ONNX file, ONNX Runtime and NumPy alone.

    python examples/onnxruntime_numpy.py detector.onnx photo.ppm

How a photo becomes an array is the application's: PPM is the one format that NumPy can read.
"""

import json
import sys

import numpy as np
import onnxruntime


def read_ppm(path):
    """The image uint8 [H, W, 3] in a binary PPM file without comments."""
    with open(path, "rb") as file:
        magic = file.read(2)
        if magic != b"P6":
            raise ValueError(f"{path}: expected a binary PPM file (P6). Received: {magic!r}")
        width, height, _ = (file.readline() + file.readline() + file.readline()).split()
        return np.frombuffer(file.read(), np.uint8).reshape(int(height), int(width), 3)


path, photo = sys.argv[1:]
session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
names = json.loads(session.get_modelmeta().custom_metadata_map["class_names.json"])

outputs = ["boxes", "scores", "classes", "num_detections"]
boxes, scores, classes, counts = session.run(outputs, {"images": read_ppm(photo)[None]})
for i in range(counts[0]):
    print(names[classes[0, i]], f"{scores[0, i]:.3f}", *(f"{side:.1f}" for side in boxes[0, i]))
