"""Writes and reads TFRecord shards."""

from tests.helpers import data_sets
from unitbox_tf.datasets import tfrecord
from unitbox_tf.problems import Problems
from unitbox_tf.records import Annotation

NAMES = ("cat", "dog")


def write(annotations, root, problems=None, split="train", names=NAMES):
    problems = Problems() if problems is None else problems
    return tfrecord.write(annotations, root, split, names, problems=problems)


def read(root, problems=None, split="train"):
    return data_sets.read("tfrecord", root, split, problems)


def pictures(count, length=400):
    """Annotations of so many images, two in a shard if it is small."""
    return [
        Annotation(f"p/{n}.png", bytes([n]) * length, [[1, 2, 3.1, n + 4]], [n % 2], size=(60, 80))
        for n in range(count)
    ]
