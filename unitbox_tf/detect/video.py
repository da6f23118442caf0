"""Reads video files and webcams frame by frame, and writes videos with the detections in each frame.

OpenCV reads and writes. Sound is not kept.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from unitbox_tf import files, inputs, visualize
from unitbox_tf.records import Detections, coco_rows

CODEC = "mp4v"  # OpenCV's wheels can write it, and nearly every player shows it
DEFAULT_RATE = 25.0  # frames a second, if a file states no plausible rate
LIVE_RATE = 10.0  # frames a second of a video written from a webcam
# The largest number of successive frames that cannot be decoded. A webcam waits seconds for each.
MOST_BROKEN, MOST_BROKEN_LIVE = 1000, 10

Draw = Callable[[np.ndarray, Detections, Sequence[str]], np.ndarray]


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


class Video:
    """The frames of a video file or a webcam, one after the other. A context manager, to be used once.

    Attributes:
        name: the path, or "webcam 0".
        live: True if it is a webcam.
        rate: frames a second of a file.
        stated: the number of frames that the file states; None if it does not. Formats without an index
            give an estimate.
    """

    def __init__(self, source: str | os.PathLike[str] | int) -> None:
        """`source` is a path, or the number of a webcam.

        Raises:
            OSError: there is no such file or webcam.
            ValueError: the file is no video that OpenCV can read, or an address of the network.
        """
        self.live = isinstance(source, int)
        if isinstance(source, int):
            self.name = f"webcam {source}"
            self._capture = cv2.VideoCapture(source)
            if not self._capture.isOpened():
                raise OSError(f"{self.name}: cannot be opened")
        else:
            path = inputs.local(source)
            self.name = path.as_posix()
            path.open("rb").close()  # OpenCV does not say why it cannot open a file
            self._capture = cv2.VideoCapture(str(path))
            if not self._capture.isOpened():
                raise ValueError(f"{path}: expected a video that OpenCV can read")
        rate = self._capture.get(cv2.CAP_PROP_FPS)
        self.rate = rate if 0 < rate <= 1000 else DEFAULT_RATE  # NaN and ticks of a clock occur
        stated = self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self.stated = int(stated) if not self.live and 0 < stated < math.inf else None

    def __enter__(self) -> Video:
        return self

    def __exit__(self, *error: object) -> None:
        self._capture.release()

    def __iter__(self) -> Iterator[Frame]:
        """The frames. A frame that cannot be decoded has no image. It only counts if a later one can be decoded.

        At the end of a file, and after a webcam was pulled out, nothing more can be decoded.
        """
        index, last, broken, start = 0, 0.0, 0, time.monotonic()
        most = MOST_BROKEN_LIVE if self.live else MOST_BROKEN
        while broken < most:
            image = self._capture.retrieve()[1] if self._capture.grab() else None
            if image is None:
                broken += 1
                continue
            now = time.monotonic() - start if self.live else self._time(index + broken, last)
            # Evenly between the frames around them; the first of all is at 0.
            times = (
                np.linspace(last, now, broken + 2)[1:-1]
                if index
                else np.linspace(0, now, broken, False)
            )
            for between in times.tolist():
                yield Frame(index, between, None)
                index += 1
            yield Frame(index, now, np.ascontiguousarray(image[..., ::-1]))
            index, last, broken = index + 1, now, 0

    def _time(self, index: int, last: float) -> float:
        """The time of the frame just read, in seconds, from its time stamp or, without one, from its index."""
        stamp = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
        return stamp if stamp > last else index / self.rate


class Summary(NamedTuple):
    """The outcome of detection in a video.

    Attributes:
        frames: the number of frames. Frames that could not be decoded count, too.
        broken: the number of frames that could not be decoded.
        stated: see `Video`.
        objects: the number of objects found in all frames together.
    """

    frames: int
    broken: int
    stated: int | None
    objects: int

    @property
    def fault(self) -> str | None:
        """The unreadable part in words; None if nothing is missing."""
        if self.broken:
            return f"{self.broken} of {self.frames} frames could not be decoded"
        # A format without an index may state one frame too many.
        if self.stated is not None and self.frames < self.stated - 1:
            return f"ends after {self.frames} of the {self.stated} frames that the file states"
        return None


def annotate(
    video: Video,
    found: Iterable[tuple[Frame, Detections | None]],
    output: Path,
    class_names: Sequence[str],
    draw: Draw = visualize.draw_detections,
) -> Summary:
    """Writes a video of the frames with their detections, and all detections as json.

    Both files appear when they are complete, and replace older ones only then. A frame that could not be
    decoded shows the image before it. The video of a webcam plays in real time, however long detection
    takes. Ctrl-C ends it, and the files then hold everything so far.

    Args:
        video: gives rate and name.
        found: all or some of its frames with their detections; None for a frame without an image.
        output: an .mp4 file. The json file beside it has the same name.
        class_names: the class names of the detections.
        draw: draws a frame.

    Raises:
        OSError: the video cannot be written.
        ValueError: `output` has another suffix, or no frame could be decoded.
    """
    if output.suffix.lower() != ".mp4":
        raise ValueError(f"Expected an .mp4 file to write. Received: {output}")
    with (
        files.replacing(output) as partial,
        files.replacing(output.with_suffix(".json")) as partial_json,
        _Writer(partial, video) as writer,
        partial_json.open("w", encoding="utf-8") as file,
    ):
        categories = [{"id": n, "name": name} for n, name in enumerate(class_names, 1)]
        facts: dict[str, Any] = {"video": video.name, "categories": categories}
        file.write(json.dumps(facts)[:-1] + ', "frames": [')
        frames = broken = objects = 0
        try:
            for frame, detections in found:
                row = _row(frame, detections, class_names)
                if frame.image is None or detections is None:
                    writer.skip()
                else:
                    writer.write(draw(frame.image, detections, class_names), frame.time)
                file.write((",\n" if frames else "\n") + json.dumps(row))
                frames += 1
                broken += "error" in row
                objects += len(row.get("detections", ()))
        except KeyboardInterrupt:
            if not video.live:
                raise
        if frames == broken:
            raise ValueError(f"{video.name}: no frame could be decoded")
        width, height = writer.size
        facts = {"frames_per_second": writer.rate, "width": width, "height": height}
        facts |= {"num_frames": frames, "num_broken": broken, "num_stated": video.stated}
        file.write("\n], " + json.dumps(facts)[1:] + "\n")
    return Summary(frames, broken, video.stated, objects)


def _row(frame: Frame, detections: Detections | None, class_names: Sequence[str]) -> dict[str, Any]:
    """The entry of a frame in the json file: COCO's results, without the name of the video."""
    row: dict[str, Any] = {"index": frame.index, "time": round(frame.time, 4)}
    if frame.image is None or detections is None:
        return {**row, "error": "cannot be decoded"}
    return {
        **row,
        "detections": coco_rows(
            None, detections.rectangles(), detections.classes, class_names=class_names
        ),
    }


class _Writer:
    """Writes images to a video file. The file is opened with the first image, whose size it takes.

    Attributes:
        rate: frames a second.
        size: width and height of the first image.
    """

    def __init__(self, path: Path, video: Video) -> None:
        self.rate = LIVE_RATE if video.live else video.rate
        self.size = (0, 0)
        self._path, self._live = path, video.live
        self._writer: Any = None
        self._last: np.ndarray | None = None
        self._skipped = self._written = 0

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, *error: object) -> None:
        if self._writer is None:
            return
        self._writer.release()
        if error[0] is not None:
            return
        # Nothing else reports a full disk.
        written = cv2.VideoCapture(str(self._path))
        count = int(written.get(cv2.CAP_PROP_FRAME_COUNT))
        written.release()
        if count != self._written:
            raise OSError(
                f"{self._path}: {count} of {self._written} frames were written: is the disk full?"
            )

    def skip(self) -> None:
        """Repeats the last image in place of a missing one. At the start, the next image is repeated."""
        if self._last is None:
            self._skipped += 1
        elif not self._live:
            self._put(self._last)

    def write(self, picture: np.ndarray, time: float) -> None:
        """Adds the image at `time`, in seconds. A webcam's image is repeated to fill the time since the last."""
        if self._writer is None:
            self._open(picture)
        if (picture.shape[1], picture.shape[0]) != self.size:  # some formats may change it
            picture = cv2.resize(picture, self.size)
        if self._live:
            while self._last is not None and self._written < int(time * self.rate):
                self._put(self._last)
            if self._written <= int(time * self.rate):
                self._put(picture)
        else:
            for _ in range(self._skipped + 1):
                self._put(picture)
        self._last, self._skipped = picture, 0

    def _put(self, picture: np.ndarray) -> None:
        self._writer.write(np.ascontiguousarray(picture[..., ::-1]))
        self._written += 1

    def _open(self, picture: np.ndarray) -> None:
        self.size = (picture.shape[1], picture.shape[0])
        codec = cv2.VideoWriter.fourcc(*CODEC)
        self._writer = cv2.VideoWriter(str(self._path), codec, self.rate, self.size)
        if not self._writer.isOpened():
            width, height = self.size
            raise OSError(
                f"{self._path}: OpenCV cannot write a video of {width} x {height} pixels at "
                f"{self.rate:g} frames a second"
            )
