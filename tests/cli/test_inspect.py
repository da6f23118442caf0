import argparse

from unitbox_tf.cli import inspect


def test_inspect_prints_what_is_in_each_source_and_in_all(capsys):
    options = argparse.Namespace(sources=["synthetic:#0-3", "synthetic:#3-4"], data=".")
    assert inspect.run(options) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].split() == ["synthetic:#0-3", "synthetic:#3-4", "total"]
    assert printed[1].split() == ["images", "3", "1", "4"]
