import pytest

from training.benchmarks import normalisation
from unitbox_tf.network import layers


@pytest.mark.slow
def test_each_kind_of_normalisation_runs_and_the_package_stays_as_it_is(capsys):
    before = layers.BatchNormalization.call
    found = normalisation.benchmark(batch=1, side=64, rounds=1)["ratios"]
    assert layers.BatchNormalization.call is before
    assert len(found) == 4
    assert found[normalisation.BASE] == [1, 1, 1]
    assert all(low > 0 for low, _, _ in found.values())
    assert capsys.readouterr().out.count("\n") == 6
