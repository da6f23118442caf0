"""Video files whose frames tell their number, and a detector that knows them."""

import cv2
import numpy as np

from unitbox_tf.config import DecodeConfig
from unitbox_tf.detect.detector import Detector
from unitbox_tf.records import Detections

HEIGHT, WIDTH, RATE = 64, 96, 10.0


def picture(number):
    """A frame that its brightness tells from others, through any codec."""
    return np.full((HEIGHT, WIDTH, 3), (12 * number, 0, 60), np.uint8)


def number_of(image):
    return round(float(image[..., 0].mean()) / 12)


def write(path, count=20, codec="MJPG"):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), RATE, (WIDTH, HEIGHT))
    assert writer.isOpened()
    for number in range(count):
        writer.write(picture(number)[..., ::-1])
    writer.release()
    return path


def damage(path, frames):
    """Makes frames of a Motion JPEG file undecodable: their bytes become zeros."""
    content = bytearray(path.read_bytes())
    place, count = content.index(b"movi"), 0
    while frames:
        place = content.index(b"00dc", place) + 8
        length = int.from_bytes(content[place - 4 : place], "little")
        if count in frames:
            content[place : place + length] = bytes(length)
            frames = [frame for frame in frames if frame != count]
        place += length
        count += 1
    path.write_bytes(content)
    return path


def found_in(image):
    """One object, whose place tells the frame."""
    boxes = np.float32([[number_of(image), 1, 40, 31]])
    return Detections(boxes, np.float32([0.75]), np.int32([1]), image.shape[:2])


find = Detector(found_in, ("cat", "dog"), DecodeConfig())


def frames_of(path):
    capture = cv2.VideoCapture(str(path))
    frames = []
    while True:
        there, image = capture.read()
        if not there:
            return frames, capture.get(cv2.CAP_PROP_FPS)
        frames.append(image[..., ::-1])
