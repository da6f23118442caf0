"""`unitbox detect`: objects in photos, as COCO's results and as pictures."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unitbox_tf import detector, visualize
from unitbox_tf.cli import decoding
from unitbox_tf.datasets import checks
from unitbox_tf.evaluation.results import Results, coco_rows


def run(options: argparse.Namespace) -> int:
    """The command; returns the exit status."""
    photos = _photos(options.photos, options.output)
    names = ("decoder", *decoding.FIELDS, "score_threshold")
    model = detector.load(options.model, **decoding.changes(options, names))
    options.output.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    failed = 0
    for photo, name in zip(photos, _picture_names(photos, options.output), strict=True):
        try:
            image = detector.read_image(photo)
        except (OSError, ValueError) as error:
            failed += 1
            print(f"unitbox: left out: {error}", file=sys.stderr)
            continue
        found = model(image)
        own = Results.of([found]).rectangles(0)
        rows.extend(coco_rows(photo.as_posix(), own, found.classes))
        picture = visualize.draw_detections(image, found, model.class_names)
        visualize.save_image(picture, name)
        print(f"{photo}: {len(found)} found")
    (options.output / "detections.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")
    print(
        f"{len(rows)} objects in {len(photos) - failed} photos: {options.output / 'detections.json'}"
    )
    if failed:
        print(f"unitbox: {failed} of {len(photos)} photos could not be read", file=sys.stderr)
    return 1 if failed else 0


def _photos(paths: Sequence[Path], output: Path) -> list[Path]:
    """The photos that `paths` name, those in folders included, without those in the folder `output`."""
    photos: list[Path] = []
    for path in paths:
        if not path.is_dir():
            photos.append(path)
            continue
        if path.resolve() == output.resolve():
            raise ValueError(f"{output}: expected another folder for --output than the photos'")
        within = [p for p in checks.photos(path) if output.resolve() not in p.resolve().parents]
        if not within:
            raise ValueError(f"{path}: no JPEG or PNG file in this folder")
        photos.extend(within)
    return photos


def _picture_names(photos: Sequence[Path], folder: Path) -> list[Path]:
    """Where the pictures of `photos` go: each has a name of its own, and none is that of a photo."""
    taken = {photo.resolve() for photo in photos}
    names = []
    for photo in photos:
        suffix = photo.suffix if photo.suffix.lower() in checks.IMAGE_SUFFIXES else ".jpg"
        path, number = folder / f"{photo.stem}{suffix}", 1
        while path.resolve() in taken:
            number += 1
            path = folder / f"{photo.stem}-{number}{suffix}"
        taken.add(path.resolve())
        names.append(path)
    return names
