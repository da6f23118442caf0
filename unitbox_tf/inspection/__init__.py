"""Looks at data sets before training: facts, duplicates, suggestions, and pictures on a page.

`datasets.inspection` has the facts. `pictures` draws what training shows the network, and needs TensorFlow;
`page` puts all on one page. Importing this module does not import TensorFlow.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from unitbox_tf.config import Config
from unitbox_tf.datasets import inspection as facts
from unitbox_tf.datasets.classes import Rename
from unitbox_tf.datasets.inspection import DEFAULT_PRESET, Given, Inspection
from unitbox_tf.datasets.source import Source
from unitbox_tf.presets import PRESETS
from unitbox_tf.problems import Problems

__all__ = ["Inspection", "inspect"]


def inspect(
    *sources: str | Source,
    validation: Given = (),
    config: Config = PRESETS[DEFAULT_PRESET],
    classes: Sequence[str] | None = None,
    rename: Rename | None = None,
    data: str | Path = ".",
    pixels: bool = True,
    output: str | Path | None = None,
    problems: Problems | None = None,
) -> Inspection:
    """Looks at data sets before training: counts, sizes, duplicates, suggested settings, pictures.

    Args:
        sources: training images: texts `FORMAT:PATH#SPLIT`, or opened sources.
        validation: sources of validation images. None of them may be among the training images.
        config: the settings by which sizes are judged, and with which pictures are made. Sources and class
            names in it do not matter: those of the arguments do.
        classes: only objects of these classes are counted; None takes those of `config`, or all.
        rename: new names of classes: texts `old=new`, or a mapping; None takes those of `config`.
        data: the folder that relative paths start from.
        pixels: decodes every image, and compares their pixels. False compares their bytes alone, in a fraction
            of the time.
        output: a new or empty folder for the page `index.html` with pictures, the pictures as PNG, the facts as
            json and the list of problems. None writes nothing.
        problems: unusable items are added here.

    Raises:
        ValueError: there is no source, one is not of that form, or nothing can be read at all; or there are
            files in the folder `output`.
    """
    if output is not None and Path(output).exists() and list(Path(output).iterdir()):
        raise ValueError(f"{output}: expected a new or empty folder. Received one with files in it")
    found = facts.inspect(
        *sources,
        validation=validation,
        config=config,
        classes=classes,
        rename=rename,
        data=data,
        pixels=pixels,
        problems=problems,
    )
    if output is not None:
        from unitbox_tf.inspection import page

        page.write(found, Path(output))
    return found
