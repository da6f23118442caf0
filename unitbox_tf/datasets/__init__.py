"""Data sets: reads sources into `Annotation`s, and converts them. Each format has a module.

    source = datasets.open("coco:photos/instances.json")
    annotations = source.annotations()

The module of a format has a class derived from `DataSet`, which reads, and a function `write`. Its
`FORMAT` holds both, and `registry.DATASETS` names `FORMAT`.

A file that a list names is read only if it lies in the data set's folder after links are followed.
Folders and lists whose names the format fixes (`images`, `annotations`) may themselves be links.
"""

from __future__ import annotations

from unitbox_tf.datasets.base import DataSet, Format, Ids
from unitbox_tf.datasets.conversion import Conversion, convert, writable
from unitbox_tf.datasets.sizes import check_sizes
from unitbox_tf.datasets.source import Source, class_names, load, open, open_all
from unitbox_tf.datasets.summary import Summary

__all__ = [
    "Conversion",
    "DataSet",
    "Format",
    "Ids",
    "Source",
    "Summary",
    "check_sizes",
    "class_names",
    "convert",
    "load",
    "open",
    "open_all",
    "writable",
]
