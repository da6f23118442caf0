"""Data sets: sources, which are read into `Annotation`s; converting and inspecting them. One module a format.

    source = datasets.open("coco:photos/instances.json")
    annotations = source.annotations()

A module of a format has a class derived from `DataSet`, which reads, a function `write`, and both in
its `FORMAT`, which `registry.DATASETS` names.

A file that a list names is read only if it lies in the data set's folder, links followed. Where a
format fixes the names of folders and lists (`images`, `annotations`), these may themselves be links.
"""

from __future__ import annotations

from unitbox_tf.datasets.base import DataSet, Format, Ids
from unitbox_tf.datasets.conversion import Conversion, convert, writable
from unitbox_tf.datasets.inspection import Inspection, Summary, inspect
from unitbox_tf.datasets.source import Source, load, open, open_all

__all__ = [
    "Conversion",
    "DataSet",
    "Format",
    "Ids",
    "Inspection",
    "Source",
    "Summary",
    "convert",
    "inspect",
    "load",
    "open",
    "open_all",
    "writable",
]
