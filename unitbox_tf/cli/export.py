"""`unitbox export`: a detector as a file for applications."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unitbox_tf import config as configs
from unitbox_tf import formats, images, inputs, runs
from unitbox_tf.cli import options as cli_options
from unitbox_tf.cli import output
from unitbox_tf.detect import detector
from unitbox_tf.formats.runtimes import LITERT_SUFFIX, ONNX_SUFFIX

SUFFIXES = {"onnx": ONNX_SUFFIX, "litert": LITERT_SUFFIX, "litert-int8": LITERT_SUFFIX}


def run(options: argparse.Namespace) -> int:
    """The command; returns the exit status."""
    form = _form(options)
    if (form == "litert-int8") != bool(options.calibration):
        raise ValueError(
            "Expected --calibration with photos for the format litert-int8, and for no other. Received: "
            f"{form}" + (" and photos" if options.calibration else " without photos")
        )
    run = runs.find(options.model)
    if not (run / runs.CONFIG_FILE).is_file():
        raise ValueError(
            f"Expected a run's folder (with {runs.CONFIG_FILE}) or a published name. Received: {run}"
            + (", which is no such folder" if run.exists() else ", which does not exist")
        )
    config = configs.load(run / runs.CONFIG_FILE)
    decode = dataclasses.replace(config.decode, **cli_options.decoding(options))
    arguments: dict[str, Any] = {}
    if form == "litert-int8":
        arguments = {"precision": "int8", "calibration": _images(options.calibration)}
    module = importlib.import_module(f"unitbox_tf.formats.{form.partition('-')[0]}")
    model = detector.load_model(run, config)
    names, card = config.model.class_names, runs.model_card(run, config)
    module.save(model, decode, names, options.output, card, **arguments)
    output.show({"format": form, "output": options.output}, f"written: {options.output}")
    return 0


def _form(options: argparse.Namespace) -> str:
    """The format: the one that is asked for, or that of the name to be written."""
    suffix = options.output.suffix
    by_suffix = {ONNX_SUFFIX: "onnx", LITERT_SUFFIX: "litert"}.get(suffix, "saved_model")
    form = options.format or by_suffix
    if form in SUFFIXES and suffix != SUFFIXES[form]:
        raise ValueError(
            f"Expected a file that ends in {SUFFIXES[form]} for {form}. Received: {options.output}"
        )
    return form


def _images(paths: Sequence[Path]) -> Iterator[np.ndarray]:
    """The photos that can be read; the others are reported."""
    for photo in _photos(paths):
        try:
            yield inputs.read_image(photo)
        except (OSError, ValueError) as error:
            print(f"unitbox: left out of calibration: {error}", file=sys.stderr)


def _photos(paths: Sequence[Path]) -> list[Path]:
    """The photos among `paths`, those in folders included, as many as calibration needs."""
    photos = []
    for path in paths:
        photos += images.photos(path) if path.is_dir() else [path]
    if not photos:
        raise ValueError(f"{paths[0]}: no JPEG or PNG file in this folder")
    count = min(len(photos), formats.CALIBRATION_PHOTOS)
    return [photos[i] for i in np.linspace(0, len(photos) - 1, count).round().astype(int)]
