"""Objects in a photo, with an exported LiteRT file, LiteRT and NumPy alone.

    python examples/litert_numpy.py detector.tflite photo.ppm

`numpy_decoder.py`, which lies beside the exported file, does what is not in it. How a photo becomes an
array is the application's: PPM is the one format that NumPy can read.
"""

import json
import pathlib
import sys
import zipfile

import numpy as np
from ai_edge_litert.interpreter import Interpreter

path, photo = sys.argv[1:]
sys.path.insert(0, str(pathlib.Path(path).parent))
import numpy_decoder  # noqa: E402


def read_ppm(path):
    """The image uint8 [H, W, 3] in a binary PPM file without comments."""
    with open(path, "rb") as file:
        magic = file.read(2)
        if magic != b"P6":
            raise ValueError(f"{path}: expected a binary PPM file (P6). Received: {magic!r}")
        width, height, _ = (file.readline() + file.readline() + file.readline()).split()
        return np.frombuffer(file.read(), np.uint8).reshape(int(height), int(width), 3)


with zipfile.ZipFile(path) as inside:
    names = json.loads(inside.read("class_names.json"))
    settings = json.loads(inside.read("decode_config.json"))
    preprocessing = json.loads(inside.read("preprocessing.json"))
    heatmaps = json.loads(inside.read("heatmaps.json"))
interpreter = Interpreter(path)
index = interpreter.get_input_details()[0]["index"]


def network(image):
    """Confidence and distances of an image [H, W, 3], at the network's own resolution."""
    interpreter.resize_tensor_input(index, [1, *image.shape])
    interpreter.allocate_tensors()
    interpreter.set_tensor(index, image[None])
    interpreter.invoke()
    outputs = sorted(interpreter.get_output_details(), key=lambda output: output["name"])
    return [interpreter.get_tensor(output["index"])[0] for output in outputs]


found = numpy_decoder.detect(network, read_ppm(photo), settings, preprocessing, heatmaps)
for i, box in enumerate(found["boxes"]):
    print(names[found["classes"][i]], f"{found['scores'][i]:.3f}", *(f"{side:.1f}" for side in box))
