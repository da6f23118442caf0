"""How much input from outside may ask for. `SECURITY.md` lists these limits and says why they are as they are.

Most of them are far above honest use, and far below what ends a program. The budget of pixels of an image is a
setting, `max_pixels`, of which the default is here.
"""

from __future__ import annotations

MAX_PIXELS = 50_000_000  # of an image: height times width, before turning
BYTES_PER_PIXEL = 8  # a file that is larger than its budget of pixels in RGBA of 16 bits is refused
MAX_ANNOTATION_BYTES = 1 << 30  # of one file of annotations, class names or results
MAX_DETECTIONS = 10_000  # in an image
MAX_SIDE = 8192  # of an image as the network is shown it, in pixels, at the largest scale
MAX_BATCH = 1024  # images that an exported graph is given at once
MAX_SCALES = 16  # at which the network is shown an image
MAX_UPLOAD_BYTES = 1 << 29  # of all images that visitors of the page have uploaded, on the disk
MAX_REQUEST_BYTES = 1 << 20  # of a request to the page that is no upload
REQUEST_SECONDS = 60  # in which the body of a request to the page must have come
UPLOAD_SECONDS = 10  # after which an upload is deleted if nobody waits for its answer
MAX_CONNECTIONS = 256  # to the page at the same time


class TooLarge(ValueError):
    """Input that asks for more than a limit allows."""
