"""Reads the frames of video files, network streams and webcams, each with the time at which it is shown.

PyAV (FFmpeg) reads files and streams, since it gives their time stamps exactly. OpenCV reads webcams.
"""

from __future__ import annotations

import abc
import dataclasses
import logging
import os
import queue
import re
import threading
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import av
import cv2
import numpy as np

from unitbox_tf import files, inputs

DEFAULT_RATE = 25.0  # frames a second, if a file states no plausible rate
LIVE_RATE = 10.0  # the last frame of a webcam is shown for the time of one frame at this rate
MILLISECOND = Fraction(1, 1000)
MOST_BROKEN = (
    10  # the largest number of successive frames of a webcam that fail: it waits seconds for each
)
STREAM = re.compile(r"rtsps?://", re.IGNORECASE)
PATIENCE = 10.0  # seconds to wait for a stream
JUMP = 1.0  # seconds; a time stamp that is earlier by more begins a new count

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Frame:
    """One frame of a video.

    Attributes:
        index: number from 0. Frames that cannot be decoded count, too.
        time: seconds since the first frame, or since a webcam was opened.
        image: RGB uint8 `[H, W, 3]`, turned as the file says; None if it cannot be decoded.
    """

    index: int
    time: float
    image: np.ndarray | None


class Source(abc.ABC):
    """A video that is open.

    Attributes:
        name: its path or address, or "webcam 0".
        live: True if it goes on until somebody ends it.
        tick: the unit of its time stamps, in seconds.
        expected: about how many frames it has; None if that is unknown.
        end: the time when the last frame that was read is no longer shown, in seconds.
        begin: the time stamp of the first frame in the file, in seconds.
    """

    name: str
    live: bool
    tick = MILLISECOND
    expected: int | None = None
    end = 0.0
    begin = Fraction(0)

    @abc.abstractmethod
    def frames(self) -> Iterator[Frame]:
        """The frames, in the order in which they are shown."""

    @abc.abstractmethod
    def close(self) -> None:
        """Frees the file or the device."""

    @property
    def missing(self) -> tuple[float, float] | None:
        """Where a file ends and where it says that it ends, in seconds; None if these are the same."""
        return None


def opened(source: str | os.PathLike[str] | int) -> Source:
    """The video in a file, at an address `rtsp://...`, or of the webcam with a number. `Video` lists the errors."""
    if isinstance(source, int):
        return Webcam(source)
    if is_stream(source):
        return Stream(str(source))
    return File(inputs.local(source))


def is_stream(source: object) -> bool:
    """True for an address `rtsp://...` or `rtsps://...`."""
    return isinstance(source, str) and bool(STREAM.match(source))


def without_password(address: str) -> str:
    """An address without the name and the password in it, for names and messages."""
    return re.sub(r"(?<=//)[^/]*@", "", address)


class _Clock:
    """The times of frames from their time stamps, in ticks: from 0, and growing with each frame.

    A time stamp that is missing, or not later than the last one, is mended: by the time of one frame
    if the stamps begin anew, else by one tick.
    """

    def __init__(self, tick: Fraction, rate: float) -> None:
        self._step = max(1, round(1 / rate / float(tick)))
        self._jump = JUMP / float(tick)
        self._first: int | None = None
        self._last: int | None = None
        self._shown = self._step

    def time(self, stamp: int | None, duration: int | None, begin: int | None = None) -> int:
        """The time of the next frame. `duration` is how long the file says it is shown.

        `begin` is the stamp of an earlier frame that could not be decoded.
        """
        if self._first is None:
            self._first = begin if begin is not None else stamp or 0
        last, shown = self._last, self._shown
        if stamp is None:
            now = 0 if last is None else last + shown
        else:
            now = stamp - self._first
            if last is not None and now < last - self._jump:
                self._first -= last + shown - now
                now = last + shown
        self._last = max(now, 0 if last is None else last + 1)
        self._shown = duration or self._step
        return self._last

    @property
    def end(self) -> int:
        """The time when the last frame is no longer shown."""
        return 0 if self._last is None else self._last + self._shown


class File(Source):
    """A video file."""

    live = False

    def __init__(self, path: Path) -> None:
        """Raises `OSError` if there is no such file, and `ValueError` if it is no video."""
        self.name = path.as_posix()
        files.open_regular(path).close()  # FFmpeg would wait for a pipe
        try:
            self._container = _container(local_name(path))
        except (av.error.FFmpegError, OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ValueError(f"{path}: expected a video that FFmpeg can read: {reason}") from error
        if not self._container.streams.video:
            self._container.close()
            raise ValueError(f"{path}: expected a video, received a file without pictures")
        self._stream = self._container.streams.best("video")
        self.tick = self._stream.time_base or MILLISECOND
        rate = _rate(self._stream)
        self._clock = _Clock(self.tick, rate)
        self.stated = _stated_seconds(self._stream)
        # Matroska counts it from the start of the file, and not from the first frame.
        self._counts_from_0 = not self._stream.duration
        if (
            self._container.format.name == "avi"
        ):  # FFmpeg guesses the duration of a part from its bytes
            self.stated = float(self._stream.frames * self.tick) or self.stated
        self._length = (self._container.duration or 0) / av.time_base
        self.expected = self._stream.frames or round((self.stated or self._length) * rate) or None
        self._first_packet: float | None = None
        self._last_packet = 0.0
        self._gap = 0.0

    def frames(self) -> Iterator[Frame]:
        """The frames. A frame that cannot be decoded has no image. It only counts if a later one can be decoded."""
        index, last, broken = 0, 0.0, 0
        begin: int | None = None
        for packet in self._packets():
            try:
                decoded = packet.decode()
            except av.error.FFmpegError:
                begin = packet.pts if begin is None and index == 0 else begin
                broken += 1
                continue
            for picture in decoded:
                if index == 0 and not broken:
                    begin = picture.pts
                now = self._clock.time(picture.pts, picture.duration, begin) * float(self.tick)
                # Evenly between the frames around them; the first of all is at 0.
                between = (
                    np.linspace(last, now, broken + 2)[1:-1]
                    if index
                    else np.linspace(0, now, broken, False)
                )
                if index == 0:
                    self.begin = (begin or 0) * self.tick
                for at in between.tolist():
                    yield Frame(index, at, None)
                    index += 1
                self._gap = max(self._gap, now - last)
                self.end = self._clock.end * float(self.tick)
                yield Frame(index, now, _rgb(picture))
                index, last, broken = index + 1, now, 0

    def _packets(self) -> Iterator[Any]:
        """The packets of the pictures. The times of all packets are noted."""
        packets = self._container.demux()
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except av.error.FFmpegError as error:  # the rest cannot be parsed
                logger.debug("%s: %s", self.name, error)
                return
            if packet.pts is not None:
                start = float(packet.pts * packet.time_base)
                if self._first_packet is None:
                    self._first_packet = start
                length = float((packet.duration or 0) * packet.time_base)
                self._last_packet = max(self._last_packet, start + length)
            if packet.stream_index == self._stream.index:
                yield packet

    @property
    def missing(self) -> tuple[float, float] | None:
        """Where the file ends and where it says that it ends, in seconds; None if these are the same.

        If the file states nothing about its pictures, its own length counts, and then sound counts, too.
        """
        end, stated = self.end, self.stated
        if stated is None:
            stated = self._length
            end = max(end, self._last_packet - (self._first_packet or 0))
        elif self._counts_from_0:
            stated -= max(0.0, float(self.begin))
        # The stated length is rounded, and may count the last frame for longer than it does itself.
        return (end, stated) if stated - end > max(0.1, 1.5 * self._gap) else None

    def close(self) -> None:
        """Closes the file."""
        self._container.close()


def local_name(path: Path) -> str | BinaryIO:
    """The name by which PyAV opens a file, or the open file if the name is no text, which FFmpeg refuses."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return files.open_regular(path)
    return str(path)


def _container(name: str | BinaryIO, **options: Any) -> Any:
    return av.open(name, metadata_errors="replace", **options)


def _rate(stream: Any) -> float:
    """Frames a second, as the file states it."""
    rate = float(stream.average_rate or stream.guessed_rate or 0)
    return rate if 0 < rate <= 1000 else DEFAULT_RATE


def _stated_seconds(stream: Any) -> float | None:
    """How long the pictures last, as the file says; None if it does not."""
    if stream.duration:
        return float(stream.duration * stream.time_base)
    # Matroska: 00:00:02.080000000
    match = re.fullmatch(r"(\d+):(\d\d):(\d\d(?:\.\d*)?)", stream.metadata.get("DURATION", ""))
    if match is None:
        return None
    hours, minutes, seconds = map(float, match.groups())
    return 3600 * hours + 60 * minutes + seconds


def _rgb(picture: Any) -> np.ndarray:
    """A decoded picture as RGB uint8 `[H, W, 3]`, turned as the file says."""
    image = picture.to_ndarray(format="rgb24")
    turns = round(picture.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(image, turns)) if turns else image


class Stream(Source):
    """A stream of the network (RTSP). Frames that come while one is looked at are left out, but for the last."""

    live = True

    def __init__(self, address: str) -> None:
        """Raises `OSError` if the stream cannot be opened."""
        self.name = without_password(address)
        try:
            self._container = _container(
                address, options={"rtsp_transport": "tcp"}, timeout=PATIENCE
            )
        except (av.error.FFmpegError, OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or type(error).__name__
            raise OSError(
                f"{self.name}: cannot be opened: {reason}"
            ) from None  # it quotes the password
        if not self._container.streams.video:
            self._container.close()
            raise OSError(f"{self.name}: cannot be opened: the stream has no pictures")
        self._stream = self._container.streams.best("video")
        self.tick = self._stream.time_base
        self._clock = _Clock(self.tick, _rate(self._stream))
        self._newest: queue.Queue[Any] = queue.Queue(maxsize=1)
        self._stopped = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)

    def frames(self) -> Iterator[Frame]:
        """The frames that have come last, until the stream ends."""
        self._reader.start()
        index = 0
        while True:
            try:
                newest = self._newest.get(timeout=0.2)  # so that Ctrl-C is heard everywhere
            except queue.Empty:
                continue
            if newest is None:
                return
            at, picture = newest
            now = at * float(self.tick)
            self.end = now + 1 / LIVE_RATE
            yield Frame(index, now, _rgb(picture))
            index += 1

    def _read(self) -> None:
        """Decodes the stream as fast as it comes, and keeps the newest picture."""
        try:
            for packet in self._container.demux(self._stream):
                if self._stopped.is_set():
                    break
                try:
                    decoded = packet.decode()
                except av.error.InvalidDataError:
                    continue  # after lost packets
                for picture in decoded:
                    self._put((self._clock.time(picture.pts, picture.duration), picture))
        except av.error.FFmpegError as error:
            logger.warning("%s: the stream ended: %s", self.name, error.strerror)
        finally:
            self._container.close()
            self._put(None, keep=True)

    def _put(self, item: Any, keep: bool = False) -> None:
        """Puts `item` in the place of the newest picture, or behind it."""
        if not keep:
            try:
                self._newest.get_nowait()
            except queue.Empty:
                pass
        while not self._stopped.is_set():
            try:
                return self._newest.put(item, timeout=0.1)
            except queue.Full:
                pass

    def close(self) -> None:
        """Ends the reading."""
        self._stopped.set()
        if self._reader.is_alive():
            self._reader.join()
        self._container.close()


class Webcam(Source):
    """A webcam."""

    live = True

    def __init__(self, number: int) -> None:
        """Raises `OSError` if there is no such webcam."""
        self.name = f"webcam {number}"
        self._capture = cv2.VideoCapture(number)
        if not self._capture.isOpened():
            raise OSError(f"{self.name}: cannot be opened")

    def frames(self) -> Iterator[Frame]:
        """The frames until the webcam gives none, because it was pulled out."""
        index, last, broken, start = 0, 0.0, 0, time.monotonic()
        while broken < MOST_BROKEN:
            image = self._capture.retrieve()[1] if self._capture.grab() else None
            if image is None:
                broken += 1
                continue
            now = time.monotonic() - start
            for between in np.linspace(last, now, broken + 2)[1:-1].tolist():
                yield Frame(index, between, None)
                index += 1
            self.end = now + 1 / LIVE_RATE
            yield Frame(index, now, np.ascontiguousarray(image[..., ::-1]))
            index, last, broken = index + 1, now, 0

    def close(self) -> None:
        """Frees the webcam."""
        self._capture.release()
