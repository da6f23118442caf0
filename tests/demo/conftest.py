import pytest

from unitbox_tf.demo import viewer as viewers

SCALES = {"scales": (0.5, 1.0), "largest_object": 30.0}


@pytest.fixture(scope="module")
def viewer(untrained_run):
    return viewers.Viewer(untrained_run, **SCALES)
