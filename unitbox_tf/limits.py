"""How much input from outside may ask for. `SECURITY.md` lists these limits and says why they are as they are.

Most of them are far above honest use, and far below what ends a program. The budget of pixels of an image is a
setting, `max_pixels`, of which the default is here.
"""

from __future__ import annotations

MAX_PIXELS = 50_000_000  # of an image: height times width, before turning
BYTES_PER_PIXEL = 8  # a file that is larger than its budget of pixels in RGBA of 16 bits is refused
MAX_ANNOTATION_BYTES = 1 << 30  # of one file of annotations, class names or results
MAX_SETTINGS_BYTES = 1 << 20  # of a YAML or json file of settings; a megabyte of YAML takes seconds
MAX_IMAGE_FILE_BYTES = 1 << 24  # of a file of annotations about one image
MAX_LINES = 20_000_000  # of a text file or table
MAX_VALUES = 20_000_000  # objects and lists in a json file
MAX_OBJECTS = 2_000_000  # in an image
MAX_NAME = 4096  # characters in the name of an image or class
MAX_PROBLEMS = 1_000_000  # that are kept; others are only counted
MAX_DETECTIONS = 10_000  # in an image
MAX_SIDE = 8192  # of an image as the network is shown it, in pixels, at the largest scale
MAX_BATCH = 1024  # images that an exported graph is given at once
MAX_SCALES = 16  # at which the network is shown an image
MAX_WEIGHTS_BYTES = 2 << 30  # of a file with the weights of a network, or with a network
MAX_TENSOR_ELEMENTS = 1 << 30  # of a map or of weights in a LiteRT file
MAX_GRAPH_BYTES = 16 << 20  # of the graph of a SavedModel, without its weights
MAX_CONFIG_BYTES = 4 << 20  # of a configuration, class names or a model card, also in a model file
MAX_FACTS_BYTES = 64 << 20  # of the JSON in a checkpoint; a run of 100,000 epochs has some 50 MB
MAX_MEMBERS = 10_000  # files in an archive, arrays in a file of weights
MAX_CLASSES = 10_000  # of a detector
MAX_CLASS_NAME = 200  # characters
MAX_UPLOAD_BYTES = 1 << 29  # of all images that visitors of the page have uploaded, on the disk
MAX_REQUEST_BYTES = 1 << 20  # of a request to the page that is no upload
REQUEST_SECONDS = 60  # in which the body of a request to the page or the server must have come
UPLOAD_SECONDS = 10  # after which an upload is deleted if nobody waits for its answer
MAX_CONNECTIONS = 256  # to the page or the server at the same time
MAX_WAITING_BYTES = 1 << 29  # of the bodies of all requests that the server reads and searches
MAX_REQUEST_LISTS = 2_000_000  # lists and objects in the json of a request to the server


class TooLarge(ValueError):
    """Input that asks for more than a limit allows."""
