"""Fixtures of the tests of readers and writers."""

import pytest

from unitbox_tf.problems import Problems


@pytest.fixture
def problems():
    return Problems()
