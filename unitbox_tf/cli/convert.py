"""`unitbox convert`: a data set in another format."""

from __future__ import annotations

import argparse

from unitbox_tf import datasets
from unitbox_tf.cli import output
from unitbox_tf.datasets.writing import PhotosAs


def run(options: argparse.Namespace) -> int:
    """Runs the command, and returns the exit status."""
    photos: PhotosAs = "link" if options.link else "none" if options.no_photos else "copy"
    done = datasets.convert(
        options.source,
        options.destination,
        classes=options.classes,
        rename=options.rename,
        data=options.data,
        photos=photos,
    )
    output.show(done.to_dict(), done.table())
    return 0
