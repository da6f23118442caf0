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


class TooLarge(ValueError):
    """Input that asks for more than a limit allows."""
