"""Images whose orientation shows, and files with an EXIF header."""

import cv2
import numpy as np


def exif_jpeg(image, orientation, byte_order):
    """A JPEG with an EXIF header, written by hand from the Exif 2.32 specification."""
    jpeg = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 98])[1].tobytes()
    order = {"little": b"II", "big": b"MM"}[byte_order]

    def number(value, size):
        return value.to_bytes(size, byte_order)

    def entry(tag, kind, value):
        field = number(value, 2) + b"\0\0" if kind == 3 else number(value, 4)
        return number(tag, 2) + number(kind, 2) + number(1, 4) + field

    entries = [entry(0x0100, 4, 77), entry(0x0112, 3, orientation), entry(0x0128, 3, 2)]
    tiff = order + number(42, 2) + number(8, 4) + number(len(entries), 2)
    body = b"Exif\0\0" + tiff + b"".join(entries) + number(0, 4)
    return jpeg[:2] + b"\xff\xe1" + (len(body) + 2).to_bytes(2, "big") + body + jpeg[2:]


def picture(height=40, width=60):
    """An image none of whose eight orientations are alike."""
    image = np.full((height, width, 3), 90, np.uint8)
    image[:12, :20] = (250, 20, 20)
    image[-10:, :30] = (20, 250, 20)
    return image
