"""Detects in many images and videos, and writes into a folder. It goes on where it was stopped.

The folder gets a copy of each image with its boxes, COCO's results of all images, an annotated video and a
json file for each video, and a list of unreadable inputs. A journal in the folder lists finished inputs.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from unitbox_tf import files, images, inputs, visualize
from unitbox_tf.datasets import checks
from unitbox_tf.detect import journal as journals
from unitbox_tf.detect import video as videos
from unitbox_tf.detect import video_reading
from unitbox_tf.detect.detector import Detector
from unitbox_tf.problems import PROBLEMS_FILE, Problems, printable
from unitbox_tf.progress import Progress

logger = logging.getLogger(__name__)

RESULTS_FILE = "detections.json"
JOURNAL_FILE = "journal.jsonl"
OWN_FILES = frozenset({RESULTS_FILE, JOURNAL_FILE, PROBLEMS_FILE})
# Kinds of problems, beside that of an image that cannot be decoded.
UNREAD, UNREADABLE, DAMAGED = (
    "image that cannot be read",
    "video that cannot be read",
    "damaged video",
)
LONGEST_STEM, LONGEST_SUFFIX = (
    200,
    9,
)  # bytes; a number, and the mark of a partial file, come to them
FEW = 20  # images that have a line each in the log


class Inputs(NamedTuple):
    """The inputs, each once: image files, then video files, addresses of streams and numbers of webcams."""

    images: list[Path]
    clips: list[Path | str | int]


class ImagesDone(NamedTuple):
    """The outcome of detection in images.

    Attributes:
        images: the number of images.
        earlier: the number of images that an earlier call had finished.
        broken: the number of unreadable images.
        objects: the number of objects found in the other images.
        results: the file of COCO's results.
    """

    images: int
    earlier: int
    broken: int
    objects: int
    results: Path


class VideoDone(NamedTuple):
    """The outcome of detection in a video.

    Attributes:
        name: the path of the video, the address of the stream, or "webcam 0".
        output: the annotated video. A json file beside it has the detections of each frame.
        frames: the number of frames.
        objects: the number of objects found in all frames together.
    """

    name: str
    output: Path
    frames: int
    objects: int


@dataclasses.dataclass(frozen=True)
class Summary:
    """The outcome of `detect_into`.

    Attributes:
        output: the folder.
        images: the outcome for images; None if the inputs have no images.
        videos: the outcome for each readable video, stream and webcam.
        problems: the unreadable inputs.
    """

    output: Path
    images: ImagesDone | None
    videos: tuple[VideoDone, ...]
    problems: Problems


def find(names: Iterable[str | os.PathLike[str] | int], output: str | os.PathLike[str]) -> Inputs:
    """The named images, videos, streams and webcams, each once, without files in the folder `output`.

    Args:
        names: images, folders of images, patterns, videos, addresses of streams (`rtsp://...`), and numbers of
            webcams.
        output: the folder to write. Its files are no inputs, because an earlier call wrote them.

    Raises:
        ValueError: a folder or pattern stands for no image, or only for images in `output`.
        FileNotFoundError: no named file exists. A file that is absent beside others is not refused here.
    """
    photos: dict[str, Path] = {}
    clips: dict[str, Path | str | int] = {}
    own = checks.Folder(Path(output))
    for name in map(str, names):
        if name.isdecimal() and not os.path.exists(name):
            clips[name] = int(name)
            continue
        if video_reading.is_stream(name):
            clips[name] = name
            continue
        found = inputs.files(name)
        if found != [Path(name)]:
            found = [path for path in found if not own.contains(path)]
            if not found:
                raise ValueError(f"{output}: expected a folder for the results other than {name}")
        for path in found:
            chosen: dict[str, Any] = clips if inputs.is_video(path) else photos
            chosen.setdefault(os.path.abspath(path), path)
    paths = [path for path in (*photos.values(), *clips.values()) if isinstance(path, Path)]
    live = len(photos) + len(clips) - len(paths)
    if paths and not live and not any(map(os.path.exists, paths)):
        others = f" (and {len(paths) - 1} more)" if len(paths) > 1 else ""
        raise FileNotFoundError(f"{paths[0]}{others}: no such file")
    return Inputs(list(photos.values()), list(clips.values()))


def detect_into(
    detector: Detector,
    names: Iterable[str | os.PathLike[str] | int],
    output: str | os.PathLike[str],
    *,
    restart: bool = False,
    tile: int | None = None,
    blur: visualize.Shape | None = None,
    digest: str | None = None,
    progress: bool = False,
    problems: Problems | None = None,
) -> Summary:
    """Detects in images and videos, and writes the results into a folder.

    The same call goes on where an earlier call was stopped, and handles inputs that are new or changed. An
    unreadable input is left out, and the next call tries it again. Files in the folder that no call wrote
    stay as they are.

    Args:
        detector: finds the objects.
        names: see `find`.
        output: the folder to write.
        restart: deletes the files that earlier calls wrote, and begins again.
        tile: also searches tiles of large images. This is the side of a tile, in pixels; 0 stands for the
            detector's `decode.max_side`.
        blur: blurs objects in this shape instead of drawing boxes.
        digest: checksum of the weights. Results of different weights are not mixed.
        progress: shows bars on a terminal.
        problems: unreadable inputs are added here.

    Raises:
        ValueError: the inputs cannot be used, `output` is no folder, it has results of other settings or a
            damaged journal, or another process writes into it.
        FileNotFoundError: no named file exists.
    """
    output = Path(output)
    found = find(names, output)
    decode = dataclasses.asdict(detector.decode)
    decode.pop("max_pixels")  # does not change what is found in an image that was read
    settings = {"weights": digest, "class_names": detector.class_names, **decode}
    settings |= {"tile": tile, "blur": blur}
    if tile is not None:
        detector = detector.tiled(tile or None)
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"{output}: expected a folder to write: {error}") from error
    problems = Problems() if problems is None else problems
    draw = _blurred(blur) if blur else visualize.draw_detections
    with files.locked(output, "writes into"):
        if restart:
            journals.discard(output / JOURNAL_FILE, OWN_FILES)
            (output / RESULTS_FILE).unlink(missing_ok=True)
        files.remove_partial(output)
        with journals.Journal(output / JOURNAL_FILE, settings, OWN_FILES) as journal:
            work = _Work(detector, draw, output, journal, problems, progress)
            images_done = work.images(found.images) if found.images else None
            clips = (work.video(clip) for clip in found.clips)
            videos_done = tuple(done for done in clips if done is not None)
        (output / PROBLEMS_FILE).unlink(missing_ok=True)
        if problems.found:
            problems.save(output / PROBLEMS_FILE)
    return Summary(output, images_done, videos_done, problems)


def _blurred(shape: visualize.Shape) -> videos.Draw:
    """Draws images in which the objects are blurred, instead of boxes."""
    return lambda image, found, class_names: visualize.blur(image, found.boxes, shape=shape)


@dataclasses.dataclass(frozen=True)
class _Work:
    """Detects in images and videos, and skips inputs that are in the journal of the folder."""

    detector: Detector
    draw: videos.Draw
    output: Path
    journal: journals.Journal
    problems: Problems
    progress: bool
    numbers: dict[str, int] = dataclasses.field(default_factory=dict)

    def images(self, paths: Sequence[Path]) -> ImagesDone:
        """Detects in images, and writes each image with its boxes, and the results of all."""
        left = [path for path in paths if not _has_detections(self._finished(path))]
        earlier = len(paths) - len(left)
        if earlier:
            logger.info("%d of %d images were done before", earlier, len(paths))
        bar: Iterable[Path] = Progress(left, "images", len(left)) if self.progress else left
        broken = set()
        for path in bar:
            count = self._image(path)
            if count is None:
                broken.add(path)
            elif len(left) <= FEW:
                logger.info("%s: %d found", printable(str(path)), count)
        whole = [path.as_posix() for path in paths if path not in broken]
        results = self.output / RESULTS_FILE
        return ImagesDone(len(paths), earlier, len(broken), self._save_results(whole), results)

    def _image(self, path: Path) -> int | None:
        """Detects in an image, and returns the number of objects; None if it cannot be read."""
        name = path.as_posix()
        try:
            stamp = _stamp(path)
            image = self.detector.read(path)
            found = self.detector(image)
            drawn = self.draw(image, found, self.detector.class_names)
        except images.UNREADABLE as error:
            kind = UNREAD if isinstance(error, OSError) else images.UNDECODABLE
            self.problems.add(kind, name, str(error).removeprefix(f"{path}: "))
            return None
        suffix = images.suffix_for_writing(path)
        output = self._path(name, path.stem, suffix)
        with files.replacing(output) as partial:
            images.save_image(drawn, partial)
            rows = found.to_coco(name, class_names=self.detector.class_names)
            self._add(name, stamp, output, detections=rows)
        return len(found)

    def video(self, clip: Path | str | int) -> VideoDone | None:
        """Detects in a video, stream or webcam, and writes it with boxes, and its json. None if it cannot be read."""
        if not isinstance(clip, Path):
            webcam = isinstance(clip, int)
            name = f"webcam {clip}" if webcam else video_reading.without_password(str(clip))
            stem = f"webcam-{clip}" if webcam else "stream"
            logger.info("%s: Ctrl-C ends it", printable(name))
        else:
            name, stem = clip.as_posix(), clip.stem
            row = self._finished(clip)
            if row is not None and _has_frames(row):
                logger.info("%s was done before", printable(name))
                return self._video_done(name, row)
        path = self._path(name, stem, ".mp4")
        try:
            stamp = _stamp(clip) if isinstance(clip, Path) else None
            if stamp is not None:
                self._add(name, None, path)  # so that it has this name when it is begun again
            summary = self.detector.annotate_video(
                clip, path, draw=self.draw, progress=self.progress
            )
        except (OSError, ValueError) as error:
            self.problems.add(UNREADABLE, name, str(error).removeprefix(f"{name}: "))
            return None
        facts = {"frames": summary.frames, "objects": summary.objects, "fault": summary.fault}
        if stamp is not None:
            self._add(name, stamp, path, **facts)
        return self._video_done(name, {"file": path.name, **facts})

    def _video_done(self, name: str, row: dict[str, Any]) -> VideoDone:
        if row["fault"]:
            self.problems.add(DAMAGED, name, row["fault"])
        return VideoDone(name, self.output / row["file"], row["frames"], row["objects"])

    def _finished(self, path: Path) -> dict[str, Any] | None:
        """The row of an input that is finished and has not changed since; else None."""
        row = self.journal.get(path.as_posix())
        if row is None or not (self.output / row["file"]).is_file():
            return None
        try:
            return row if row.get("stamp") == _stamp(path) else None
        except OSError:
            return None

    def _add(self, name: str, stamp: list[int] | None, path: Path, **more: Any) -> None:
        self.journal.add({"name": name, "stamp": stamp, "file": path.name, **more})

    def _path(self, name: str, stem: str, suffix: str) -> Path:
        """The path of the result of an input: the path of the last call, or else a new path."""
        row = self.journal.get(name)
        if row is not None:
            return self.output / row["file"]
        stem, suffix = _usable(stem, LONGEST_STEM), _usable(suffix, LONGEST_SUFFIX)
        # Many folders may have images of one name: each goes on where the one before has found a free name.
        number = self.numbers.get(stem + suffix, 1)
        while not self._is_free(path := self._numbered(stem, number, suffix)):
            number += 1
        self.numbers[stem + suffix] = number + 1
        return path

    def _numbered(self, stem: str, number: int, suffix: str) -> Path:
        return self.output / (f"{stem}-{number}{suffix}" if number > 1 else f"{stem}{suffix}")

    def _is_free(self, path: Path) -> bool:
        paths = [path, path.with_suffix(".json")] if path.suffix == ".mp4" else [path]
        return not any(
            each.name in OWN_FILES or each.name in self.journal.files or os.path.lexists(each)
            for each in paths
        )

    def _save_results(self, names: Sequence[str]) -> int:
        """Writes COCO's results of the finished images, and returns the number of their objects."""
        count = 0
        with (
            files.replacing(self.output / RESULTS_FILE) as partial,
            partial.open("w", encoding="utf-8") as file,
        ):
            file.write("[")
            for name in names:
                for row in (self.journal.get(name) or {})["detections"]:
                    file.write((",\n" if count else "\n") + json.dumps(row))
                    count += 1
            file.write("\n]\n")
        return count


def _has_detections(row: dict[str, Any] | None) -> bool:
    """True if the row is one of a finished image."""
    found = (row or {}).get("detections")
    return isinstance(found, list) and all(isinstance(each, dict) for each in found)


def _has_frames(row: dict[str, Any]) -> bool:
    """True if the row is one of a finished video."""
    counts = all(type(row.get(name)) is int for name in ("frames", "objects"))
    return counts and isinstance(row.get("fault"), str | type(None))


def _usable(name: str, most: int) -> str:
    """A part of the name of a file: `name` without signs that a terminal obeys or that are no text, and shortened.

    Args:
        name: the part.
        most: the largest number of bytes.
    """
    text = "".join(sign if sign.isprintable() and sign not in "/\\:" else "_" for sign in name)
    text = text.encode()[:most].decode(errors="ignore")
    return f"_{text[1:]}" if text.startswith(".") and most == LONGEST_STEM else text


def _stamp(path: Path) -> list[int]:
    """Length and time of change, in nanoseconds, of a regular file. They tell whether it was written again."""
    with files.open_regular(path) as file:
        facts = os.fstat(file.fileno())
    return [facts.st_size, facts.st_mtime_ns]
