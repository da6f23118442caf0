"""Video files whose frames tell their number, and a detector that knows them."""

from fractions import Fraction

import av
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


def write_timed(path, ticks, tick, codec="mpeg4", sound=None, last=1, pause=0):
    """Writes frames that are shown from `ticks` on, in units of `tick` seconds; the last one for `last` ticks.

    `sound` is the codec of a second of sound, after half of which there is a `pause` in seconds.
    """
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.time_base = stream.time_base = tick
        noise = container.add_stream(sound, rate=48_000, layout="mono") if sound else None
        packets = []
        for number, at in enumerate(ticks):
            frame = av.VideoFrame.from_ndarray(picture(number % 20), format="rgb24")
            frame.pts, frame.time_base = at, tick
            packets += stream.encode(frame)
        packets += stream.encode(None)
        for packet, at, after in zip(packets, ticks, [*ticks[1:], ticks[-1] + last], strict=True):
            packet.duration = round((after - at) * tick / packet.time_base)
            container.mux(packet)
        if noise is not None:
            wave = np.sin(np.arange(48_000) / 20)[None]
            for half, begin in enumerate([0, 24_000 + round(48_000 * pause)]):
                part = wave[:, 24_000 * half :][:, :24_000]
                frame = av.AudioFrame.from_ndarray(
                    np.ascontiguousarray(part * 30_000, np.int16), format="s16", layout="mono"
                )
                frame.rate, frame.pts, frame.time_base = 48_000, begin, Fraction(1, 48_000)
                container.mux(noise.encode(frame))
            container.mux(noise.encode(None))
    return path


def shown(path):
    """The seconds from which each frame of a file is shown, from the first one on, and the end of the last."""
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
        times = [float((frame.pts - frames[0].pts) * frame.time_base) for frame in frames]
        return times, times[-1] + float(frames[-1].duration * frames[-1].time_base)


def sounds(path):
    """The codec and the length in seconds of each sound of a file."""
    with av.open(str(path)) as container:
        return [
            (stream.codec_context.name, float(stream.duration * stream.time_base))
            for stream in container.streams.audio
        ]
