"""`unitbox detect`: objects in photos and videos, as COCO's results and as pictures."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import hashlib
import itertools
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unitbox_tf import images, inputs, loading, runs, visualize
from unitbox_tf.cli import decoding
from unitbox_tf.cli import journal as journals
from unitbox_tf.detect import detector
from unitbox_tf.detect import video as videos
from unitbox_tf.problems import Problem
from unitbox_tf.progress import Progress

RESULTS_FILE = "detections.json"
JOURNAL_FILE = "journal.jsonl"
PROBLEMS_FILE = "problems.txt"
OWN_FILES = frozenset({RESULTS_FILE, JOURNAL_FILE, PROBLEMS_FILE})
# Kinds of problems, beside that of a photo that cannot be decoded.
UNREAD, UNREADABLE, DAMAGED = (
    "photo that cannot be read",
    "video that cannot be read",
    "damaged video",
)
FEW = 20  # photos, or problems, that have a line each on the terminal


def run(options: argparse.Namespace) -> int:
    """The command; returns the exit status."""
    # FFmpeg's own words about broken frames would run through the bar.
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    photos, clips = _inputs(options.inputs, options.output)
    names = ("decoder", *decoding.FIELDS, "score_threshold")
    model = loading.load(options.model, **decoding.changes(options, names))
    settings = {
        "weights": _digest(options.model),
        "class_names": model.class_names,
        **dataclasses.asdict(model.decode),
        "tile": options.tile,
        "blur": options.blur,
    }
    if options.tile is not None:
        model = model.tiled(options.tile or None)
    try:
        options.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"--output {options.output}: expected a folder to write: {error}"
        ) from error
    if options.restart:
        journals.discard(options.output / JOURNAL_FILE)
    with journals.Journal(options.output / JOURNAL_FILE, settings) as journal:
        draw = _blurred(options.blur) if options.blur else visualize.draw_detections
        work = _Work(model, draw, options.output, journal)
        try:
            problems = work.photos(photos)
            for clip in clips:
                problems.extend(work.video(clip))
        except KeyboardInterrupt:
            print("unitbox: the same command goes on with what is left", file=sys.stderr)
            raise
    return _report(problems, len(photos), options.output / PROBLEMS_FILE)


def _blurred(shape: visualize.Shape) -> videos.Draw:
    """A picture in which what was found is blurred, in place of one with boxes."""
    return lambda image, found, class_names: visualize.blur(image, found.boxes, shape=shape)


def _inputs(names: Sequence[str], output: Path) -> tuple[list[Path], list[Path | int]]:
    """The photos, and the videos and webcams, that the command names, each once; none that it wrote itself."""
    photos: dict[str, Path] = {}
    clips: dict[str, Path | int] = {}
    own = output.resolve()
    for name in names:
        if name.isdecimal() and not os.path.exists(name):
            clips[name] = int(name)
            continue
        found = inputs.files(name)
        if found != [Path(name)]:
            found = [path for path in found if own not in path.resolve().parents]
            if not found:
                raise ValueError(
                    f"{output}: expected another folder for --output than that of {name}"
                )
        for path in found:
            chosen: dict[str, Any] = clips if inputs.is_video(path) else photos
            chosen.setdefault(os.path.abspath(path), path)
    return list(photos.values()), list(clips.values())


def _digest(model: Path) -> str:
    """SHA-256 of the weights: a model that was trained further is another, whatever its name."""
    path = runs.find(model)
    files = (runs.WEIGHTS_FILE, runs.BEST_FILE, runs.LAST_FILE)
    path = next((path / name for name in files if (path / name).is_file()), path)
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file():
            with file.open("rb") as content:
                for block in iter(functools.partial(content.read, 1 << 20), b""):
                    digest.update(block)
    return digest.hexdigest()


@dataclasses.dataclass(frozen=True)
class _Work:
    """Detects in photos and videos, and skips what the journal of the folder has already."""

    model: detector.Detector
    draw: videos.Draw
    output: Path
    journal: journals.Journal

    def photos(self, photos: Sequence[Path]) -> list[Problem]:
        """Detects in photos, and writes their pictures and the results of all; returns what could not be read."""
        left = [photo for photo in photos if self._finished(photo) is None]
        if len(left) < len(photos):
            print(f"{len(photos) - len(left)} of {len(photos)} photos were done before")
        problems = []
        for photo in Progress(left, "photos", len(left)):
            try:
                stamp = _stamp(photo)
                image = inputs.read_image(photo)
            except (OSError, ValueError) as error:
                message = str(error).removeprefix(f"{photo}: ")
                kind = UNREAD if isinstance(error, OSError) else images.UNDECODABLE
                problems.append(Problem(kind, photo.as_posix(), message))
                continue
            found = self.model(image)
            suffix = photo.suffix if photo.suffix.lower() in images.IMAGE_SUFFIXES else ".jpg"
            path = self._path(photo.as_posix(), photo.stem, suffix)
            partial = path.with_name(f".{path.stem}.partial{suffix}")
            images.save_image(self.draw(image, found, self.model.class_names), partial)
            rows = found.to_coco(photo.as_posix())
            self._add(photo.as_posix(), stamp, path, detections=rows)
            os.replace(partial, path)
            if len(left) <= FEW:
                print(f"{photo}: {len(found)} found")
        if photos:
            broken = {problem.where for problem in problems}
            self._save_results([p.as_posix() for p in photos if p.as_posix() not in broken])
        return problems

    def video(self, clip: Path | int) -> list[Problem]:
        """Detects in a video or a webcam, and writes it with boxes, and a json; returns what was wrong with it."""
        if isinstance(clip, int):
            name, stem, stamp = f"webcam {clip}", f"webcam-{clip}", None
            print(f"{name}: Ctrl-C ends it")
        else:
            name, stem = clip.as_posix(), clip.stem
            row = self._finished(clip)
            if row is not None:
                print(f"{name} was done before")
                return [Problem(DAMAGED, name, row["fault"])] if row["fault"] else []
        path = self._path(name, stem, ".mp4")
        try:
            if not isinstance(clip, int):
                stamp = _stamp(clip)
                self._add(name, None, path)  # so that it has this name when it is begun again
            summary = self.model.annotate_video(clip, path, draw=self.draw, progress=True)
        except (OSError, ValueError) as error:
            return [Problem(UNREADABLE, name, str(error).removeprefix(f"{name}: "))]
        if not isinstance(clip, int):
            self._add(name, stamp, path, fault=summary.fault)
        print(f"{name}: {summary.objects} found in {summary.frames} frames: {path}")
        return [Problem(DAMAGED, name, summary.fault)] if summary.fault else []

    def _finished(self, path: Path) -> dict[str, Any] | None:
        """The row of a photo or video that is done and has not changed since; else None."""
        row = self.journal.get(path.as_posix())
        if row is None or not (self.output / row["file"]).is_file():
            return None
        try:
            return row if row["stamp"] == _stamp(path) else None
        except OSError:
            return None

    def _add(self, name: str, stamp: list[int] | None, path: Path, **more: Any) -> None:
        self.journal.add({"name": name, "stamp": stamp, "file": path.name, **more})

    def _path(self, name: str, stem: str, suffix: str) -> Path:
        """Where to write what an input gives: where it was before, or else where nothing is."""
        row = self.journal.get(name)
        if row is not None:
            return self.output / row["file"]
        numbered = (f"{stem}-{number}{suffix}" for number in itertools.count(2))
        names = map(self.output.joinpath, itertools.chain([f"{stem}{suffix}"], numbered))
        return next(filter(self._is_free, names))

    def _is_free(self, path: Path) -> bool:
        paths = [path, path.with_suffix(".json")] if path.suffix == ".mp4" else [path]
        taken = OWN_FILES | self.journal.files
        return not any(path.name in taken or os.path.lexists(path) for path in paths)

    def _save_results(self, names: Sequence[str]) -> None:
        """Writes COCO's results of photos that are done."""
        path = self.output / RESULTS_FILE
        partial = path.with_name(f".{path.name}.partial")
        count = 0
        with partial.open("w", encoding="utf-8") as file:
            file.write("[")
            for name in names:
                for row in (self.journal.get(name) or {})["detections"]:
                    file.write((",\n" if count else "\n") + json.dumps(row))
                    count += 1
            file.write("\n]\n")
        os.replace(partial, path)
        print(f"{count} objects in {len(names)} photos: {path}")


def _stamp(path: Path) -> list[int]:
    """What changes when a file is written again: its length, and when it was changed, in nanoseconds."""
    facts = path.stat()
    return [facts.st_size, facts.st_mtime_ns]


def _report(problems: Sequence[Problem], num_photos: int, path: Path) -> int:
    """Says, on the terminal and in the file `path`, what could not be read; returns the exit status."""
    path.unlink(missing_ok=True)
    if not problems:
        return 0
    # What is quoted from broken files need not be text.
    lines = [f"{problem.kind}\t{problem}\n" for problem in problems]
    path.write_bytes("".join(lines).encode("utf-8", "backslashreplace"))
    for problem in problems[:FEW]:
        print(f"unitbox: {problem.kind}: {problem}", file=sys.stderr)
    if len(problems) > FEW:
        print(f"unitbox: and {len(problems) - FEW} more", file=sys.stderr)
    broken = sum(problem.kind in (images.UNDECODABLE, UNREAD) for problem in problems)
    if broken:
        print(f"unitbox: {broken} of {num_photos} photos could not be read", file=sys.stderr)
    print(f"unitbox: all of these: {path}", file=sys.stderr)
    return 1
