"""Trains a detector: `python training/fit.py [preset] [--field value ...]`; the same as `unitbox fit`."""

import sys

from unitbox_tf.cli import main

if __name__ == "__main__":
    sys.exit(main(["fit", *sys.argv[1:]]))
