"""Writes pictures to an mp4 file by their times, with the sound of another file.

The pictures become H.264 and the sound stays as it is, if mp4 can hold it, else it becomes AAC.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import cv2
import numpy as np

from unitbox_tf.detect import video_reading

CODEC = "h264"  # nearly every player and browser shows it
# Quick, and so good that the eye sees no loss. Without frames that refer to later ones, stamps need no shift.
OPTIONS = {"preset": "veryfast", "crf": "20", "bf": "0"}
BT601 = 5  # the constants with which RGB becomes YUV (AVCOL_SPC_BT470BG)
KEPT_SOUND = frozenset({"aac", "ac3", "alac", "eac3", "mp3", "opus"})  # codecs that mp4 holds
LARGEST_SOUND_RATE = 48_000  # of AAC, in samples a second
FINEST = 1_000_000  # ticks a second

logger = logging.getLogger(__name__)


class Writer:
    """Writes an mp4 file. It is opened with the first picture, whose size it takes. A context manager.

    Attributes:
        size: width and height of the first picture.
        count: how many pictures were written.
    """

    def __init__(self, path: Path, tick: Fraction) -> None:
        """`tick` is the unit of times in the file, in seconds."""
        self.size = (0, 0)
        self.count = 0
        self._path = path
        # A file counts in whole ticks of a second's parts; 1001/30000 becomes 1/30000.
        self._tick = Fraction(1, min(tick.denominator, FINEST))
        self._container: Any = None
        self._stream: Any = None
        self._sound: Sound | None = None
        self._held: Any = None  # the last packet, whose duration is known at the end
        self._last = -1

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._sound is not None:
            self._sound.close()
        if self._container is None:
            return
        try:
            self._container.close()
        except (av.error.FFmpegError, OSError):
            if error is None:
                raise
        if error is None:
            self._check()

    def open(self, picture: np.ndarray, sound: Path | None, begin: Fraction) -> None:
        """Opens the file for pictures like `picture`, with the sound of a file from the time `begin` in it."""
        height, width = picture.shape[:2]
        self.size = (width, height)
        try:
            self._container = av.open(str(self._path), "w", format="mp4")
            self._stream = self._container.add_stream(CODEC, options=OPTIONS)
            self._stream.width, self._stream.height = width + width % 2, height + height % 2
            self._stream.pix_fmt = "yuv420p"
            self._stream.codec_context.colorspace = BT601
            self._stream.codec_context.time_base = self._stream.time_base = self._tick
            if sound is not None:
                self._sound = Sound(sound, begin, self._container)
            self._container.start_encoding()
        except (av.error.FFmpegError, ValueError) as error:
            raise OSError(
                f"{self._path}: FFmpeg cannot write a video of {width} x {height} pixels: {error}"
            ) from error

    def put(self, picture: np.ndarray, time: float) -> None:
        """Adds the RGB picture uint8 `[H, W, 3]`, to be shown from `time` in seconds on."""
        if (picture.shape[1], picture.shape[0]) != self.size:  # some formats may change it
            picture = cv2.resize(picture, self.size)
        width, height = self.size
        if width % 2 or height % 2:  # H.264 has pictures of even sides
            picture = np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), "edge")
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
        self._last = max(round(time / self._tick), self._last + 1)
        frame.pts, frame.time_base = self._last, self._tick
        self._mux(self._stream.encode(frame))
        self.count += 1
        if self._sound is not None:
            self._sound.write_until(time)

    def finish(self, end: float) -> None:
        """Ends the file: the last picture is shown until `end` in seconds."""
        self._mux(self._stream.encode(None))
        if self._held is not None:
            length = round(end / self._held.time_base) - self._held.pts
            self._held.duration = max(1, length)
            self._container.mux(self._held)
        if self._sound is not None:
            self._sound.write_until(float("inf"))

    def _mux(self, packets: list[Any]) -> None:
        for packet in packets:
            if self._held is not None:
                self._container.mux(self._held)
            self._held = packet

    def _check(self) -> None:
        """Raises `OSError` if the file lacks pictures. Nothing else reports a full disk for certain."""
        with av.open(str(self._path)) as written:
            count = written.streams.video[0].frames
        if count != self.count:
            raise OSError(
                f"{self._path}: {count} of {self.count} frames were written: is the disk full?"
            )


class Sound:
    """Copies the sound of a file, from a time in it, into a file that is being written."""

    def __init__(self, path: Path, begin: Fraction, output: Any) -> None:
        """Adds a stream to `output` for each stream of sound in the file."""
        self._name, self._begin, self._output = path.as_posix(), begin, output
        self._input: Any = av.open(video_reading.local_name(path), metadata_errors="replace")
        self._outputs: dict[int, Any] = {}
        self._encoders: dict[int, Encoder] = {}
        self._last: dict[int, int] = {}
        for stream in self._input.streams.audio:
            if stream.codec_context is None:  # FFmpeg does not know the codec
                continue
            if stream.codec_context.codec.canonical_name in KEPT_SOUND:
                self._outputs[stream.index] = output.add_stream_from_template(stream)
            else:
                self._encoders[stream.index] = Encoder(stream, output)
        self._packets = self._all_packets()
        self._next = next(self._packets, None)

    def write_until(self, time: float) -> None:
        """Writes the sound up to `time` in seconds. Sound that cannot be read ends it, with a warning."""
        try:
            while self._next is not None and self._next[0] <= time:
                self._output.mux(self._next[1])
                self._next = next(self._packets, None)
        except av.error.FFmpegError as error:
            logger.warning("%s: the rest of the sound is lost: %s", self._name, error.strerror)
            self._next = None

    def close(self) -> None:
        """Closes the file of the sound."""
        self._input.close()

    def _all_packets(self) -> Iterator[tuple[float, Any]]:
        """The packets to write, and their times in seconds."""
        for packet in self._input.demux(list(self._input.streams.audio)):
            output = self._outputs.get(packet.stream_index)
            encoder = self._encoders.get(packet.stream_index)
            if encoder is not None:
                for encoded in encoder.encode(packet, self._begin):
                    yield float((encoded.pts or 0) * encoded.time_base), encoded
            elif output is not None and packet.dts is not None and packet.pts is not None:
                shift = round(self._begin / packet.time_base)
                packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
                # Stamps that do not grow, or lie before the first picture, cannot be written.
                if packet.dts > self._last.get(packet.stream_index, -1):
                    self._last[packet.stream_index] = packet.dts
                    packet.stream = output
                    yield float(packet.pts * packet.time_base), packet


class Encoder:
    """Decodes a stream of sound, and encodes it as AAC. Gaps in it become silence."""

    def __init__(self, stream: Any, output: Any) -> None:
        """Adds a stream to `output` for `stream`."""
        self._rate = min(stream.rate or LARGEST_SOUND_RATE, LARGEST_SOUND_RATE)
        self._layout = "mono" if stream.channels == 1 else "stereo"
        self._output = output.add_stream("aac", rate=self._rate, layout=self._layout)
        self._resampler = av.AudioResampler(format="fltp", layout=self._layout, rate=self._rate)
        self._fifo = av.AudioFifo()
        self._filled = self._encoded = 0  # samples

    def encode(self, packet: Any, begin: Fraction) -> Iterator[Any]:
        """The packets of AAC that are complete after `packet`; the last packet, which is empty, gives the rest."""
        try:
            frames = packet.decode()
        except av.error.InvalidDataError:
            frames = []
        for frame in frames:
            start = self._filled
            if frame.pts is not None:
                start = round((frame.pts * frame.time_base - begin) * self._rate)
            if start > self._filled + self._rate // 10:
                self._fill(start - self._filled)
            if start > -frame.samples:
                frame.pts = None
                self._write(self._resampler.resample(frame))
        end = packet.dts is None and packet.size == 0
        if end and self._filled:
            self._write(self._resampler.resample(None))
        while frame := self._fifo.read(self._output.codec_context.frame_size or 1024, end):
            frame.pts, frame.time_base = self._encoded, Fraction(1, self._rate)
            self._encoded += frame.samples
            yield from self._output.encode(frame)
        if end:
            yield from self._output.encode(None)

    def _write(self, frames: list[Any]) -> None:
        for frame in frames:
            frame.pts = None
            self._filled += frame.samples
            self._fifo.write(frame)

    def _fill(self, samples: int) -> None:
        channels = 1 if self._layout == "mono" else 2
        while samples > 0:
            part = min(samples, self._rate)
            silence = np.zeros((channels, part), np.float32)
            frame = av.AudioFrame.from_ndarray(silence, format="fltp", layout=self._layout)
            frame.rate = self._rate
            self._write([frame])
            samples -= part
