"""Workers that share each batch show the images that one worker alone shows."""

import numpy as np
import pytest
import tensorflow as tf

from tests.train.test_pipeline import AUGMENTED, annotations
from tests.train.test_reading import dataset, element
from unitbox_tf.config import DataConfig
from unitbox_tf.problems import Problems
from unitbox_tf.records import Annotation
from unitbox_tf.train import order, pipeline

BATCH = 6


def batches(source, share=None, start=0, data=AUGMENTED):
    """The first images of each batch, those of workers with a share too."""
    found = pipeline.training_dataset(
        source,
        data,
        labels=pipeline.Labels(1),
        batch_size=BATCH,
        seed=1,
        start=start,
        share=share,
        problems=Problems(),
    )
    return list(found.take(4).as_numpy_iterator())


def joined(of_workers):
    """The batches of all workers, put together."""
    return [
        tf.nest.map_structure(lambda *parts: np.concatenate(parts), *parts)
        for parts in zip(*of_workers, strict=True)
    ]


@pytest.mark.slow
def test_the_shares_of_a_batch_are_the_batch():
    """Also in the middle, and where an image takes the place of one that cannot be decoded."""
    source = [*annotations(3), Annotation("broken", b"no image", [(1, 1, 5, 5)])]
    whole = batches(source, start=2 * BATCH)
    shares = [order.Share(index, 3, BATCH) for index in range(3)]
    parts = joined([batches(source, share, 2 * BATCH) for share in shares])
    tf.nest.map_structure(np.testing.assert_array_equal, whole, parts)


def test_workers_share_a_data_set():
    source = dataset(*(element(((1, 2, n + 3, n + 4),)) for n in range(5)))
    data = DataConfig(image_size=16)
    whole = batches(source, data=data)
    parts = joined([batches(source, order.Share(index, 2, BATCH), data=data) for index in range(2)])
    tf.nest.map_structure(np.testing.assert_array_equal, whole, parts)


@pytest.mark.parametrize(("index", "count", "size"), [(2, 2, 4), (-1, 2, 4), (0, 2, 5), (0, 3, 4)])
def test_shares_are_whole(index, count, size):
    with pytest.raises(ValueError, match="expected a worker below"):
        order.Share(index, count, size)


def test_a_share_has_its_part_of_each_batch():
    share = order.Share(1, 2, 6)
    assert [place for place in range(12) if share.has(place)] == [3, 4, 5, 9, 10, 11]
    assert share.size == 3


@pytest.mark.parametrize("index", [0, 1])
def test_images_that_a_worker_has_shown_are_counted(index, monkeypatch):
    monkeypatch.setattr(pipeline, "CHUNK", 5)
    share, mosaics = order.Share(index, 2, 6), order.Mosaics(0.4, (2, 3))
    shown = [place for place in range(18) if share.has(place)]
    kinds = [mosaics.at(place) for place in shown]
    counted = [pipeline._shown_before(share, mosaics, kind, 18) for kind in range(3)]
    assert counted == [kinds.count(None), 4 * kinds.count(0), 9 * kinds.count(1)]
    assert all(counted)
