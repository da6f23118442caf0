"""Detects in video files, network streams and webcams frame by frame, and writes videos with the detections."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from unitbox_tf import files, visualize
from unitbox_tf.detect import video_reading, video_writing
from unitbox_tf.detect.video_reading import Frame
from unitbox_tf.records import Detections, coco_rows

Draw = Callable[[np.ndarray, Detections, Sequence[str]], np.ndarray]


class Video:
    """The frames of a video file, a stream or a webcam, one after the other. A context manager, to be used once.

    Attributes:
        name: the path, the address without a password, or "webcam 0".
        live: True if it is a webcam or a stream.
        expected: about how many frames a file has; None if that is unknown.
        source: reads the frames.
        path: the file; None for a webcam or stream.
    """

    def __init__(self, source: str | os.PathLike[str] | int) -> None:
        """`source` is a path, an address `rtsp://...`, or the number of a webcam.

        Raises:
            OSError: there is no such file, stream or webcam.
            ValueError: the file is no video that FFmpeg can read, or another address of the network.
        """
        self.source = video_reading.opened(source)
        self.name, self.live = self.source.name, self.source.live
        self.expected = self.source.expected
        self.path = None if self.live or isinstance(source, int) else Path(source)

    def __enter__(self) -> Video:
        return self

    def __exit__(self, *error: object) -> None:
        self.source.close()

    def __iter__(self) -> Iterator[Frame]:
        """The frames. A frame that cannot be decoded has no image. It only counts if a later one can be decoded.

        At the end of a file, and after a webcam was pulled out, nothing more can be decoded.
        """
        return self.source.frames()


class Summary(NamedTuple):
    """The outcome of detection in a video.

    Attributes:
        frames: the number of frames. Frames that could not be decoded count, too.
        broken: the number of frames that could not be decoded.
        seconds: how long the video is.
        stated: how long the file says that it is, if it ends earlier; else None.
        objects: the number of objects found in all frames together.
    """

    frames: int
    broken: int
    seconds: float
    stated: float | None
    objects: int

    @property
    def fault(self) -> str | None:
        """The unreadable part in words; None if nothing is missing."""
        faults = []
        if self.broken:
            faults.append(f"{self.broken} of {self.frames} frames could not be decoded")
        if self.stated is not None:
            faults.append(
                f"ends after {self.seconds:.2f} of the {self.stated:.2f} seconds that the file states"
            )
        return "; ".join(faults) or None


def annotate(
    video: Video,
    found: Iterable[tuple[Frame, Detections | None]],
    output: Path,
    class_names: Sequence[str],
    draw: Draw = visualize.draw_detections,
) -> Summary:
    """Writes a video of the frames with their detections, and all detections as json.

    Each frame is shown when it is shown in `video`, and a file's sound is kept. A frame that could not be
    decoded shows the image before it. Both files appear when they are complete, and replace older ones
    only then. Ctrl-C ends a webcam or stream, and the files then hold everything so far.

    Args:
        video: gives times, sound and name.
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
        video_writing.Writer(partial, video.source.tick) as writer,
        partial_json.open("w", encoding="utf-8") as file,
    ):
        categories = [{"id": n, "name": name} for n, name in enumerate(class_names, 1)]
        facts: dict[str, Any] = {"video": video.name, "categories": categories}
        file.write(json.dumps(facts)[:-1] + ', "frames": [')
        frames = broken = objects = 0
        shown: np.ndarray | None = None
        waiting: list[float] = []  # the times of frames that were lost before the first picture
        try:
            for frame, detections in found:
                row = _row(frame, detections, class_names)
                if frame.image is not None and detections is not None:
                    shown = draw(frame.image, detections, class_names)
                    if not writer.count:
                        writer.open(shown, video.path, video.source.begin)
                        for time in waiting:
                            writer.put(shown, time)
                    writer.put(shown, frame.time)
                elif shown is None:
                    waiting.append(frame.time)
                else:
                    writer.put(shown, frame.time)
                file.write((",\n" if frames else "\n") + json.dumps(row))
                frames += 1
                broken += "error" in row
                objects += len(row.get("detections", ()))
        except KeyboardInterrupt:
            if not video.live:
                raise
        if frames == broken:
            raise ValueError(f"{video.name}: no frame could be decoded")
        seconds, stated = video.source.end, None
        writer.finish(seconds)
        if video.source.missing:
            seconds, stated = video.source.missing
        width, height = writer.size
        facts = {"seconds": round(seconds, 4), "stated_seconds": stated}
        facts |= {"width": width, "height": height, "num_frames": frames, "num_broken": broken}
        file.write("\n], " + json.dumps(facts)[1:] + "\n")
    return Summary(frames, broken, seconds, stated, objects)


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
