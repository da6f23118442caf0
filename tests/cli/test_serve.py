import contextlib
import sys
import types

import pytest

import unitbox_tf
from unitbox_tf import cli, loading
from unitbox_tf.serve import server
from unitbox_tf.serve.application import Bounds


def test_a_missing_library_is_named_with_its_extra_before_the_detector_is_loaded(
    monkeypatch, capsys
):
    def open_adjustable(*arguments, **options):
        raise AssertionError

    monkeypatch.setattr(loading, "open_adjustable", open_adjustable)
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    assert cli.main(["serve", "faces"]) == 1
    assert "pip install 'unitbox_tf[serve]'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--port", "65536"], "--port: expected a whole number from 0 to 65535"),
        (["--max-request-mb", "0"], "--max-request-mb: expected a number above 0"),
        (["--max-photos", "0"], "--max-photos: expected a whole number from 1 to 1024"),
        (["--max-requests", "257"], "--max-requests: expected a whole number from 1 to 256"),
        (["--max-batch", "0"], "--max-batch: expected a whole number from 1 to 1024"),
        (["--max-wait-ms", "-1"], "--max-wait-ms: expected a number from 0 to 1000"),
    ],
)
def test_limits_have_bounds(options, message, capsys):
    assert cli.main(["serve", "faces", *options]) == 2
    assert message in capsys.readouterr().err


def test_a_name_that_cannot_stand_in_a_path_is_an_error(capsys):
    assert cli.main(["serve", "faces", "--name", "a b"]) == 1
    assert "Expected a name of letters, digits" in capsys.readouterr().err


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_options_reach_the_server_and_others_are_warned_of(host, monkeypatch, capsys):
    served, opened = [], []

    @contextlib.contextmanager
    def serve(*arguments, **options):
        served.append((arguments, options))
        yield types.SimpleNamespace(url="http://address/", wait=interrupt)

    def interrupt():
        raise KeyboardInterrupt

    def open_adjustable(*arguments, **options):
        opened.append((arguments, options))
        return "detector"

    monkeypatch.setattr(loading, "open_adjustable", open_adjustable)
    monkeypatch.setattr(server, "Server", serve)
    command = "--port 7 --max-request-mb 3 --max-photos 5 --max-requests 6 --max-batch 8"
    command += " --max-wait-ms 20 --public-host a b --score-threshold .3 --trust"
    assert cli.main(["serve", "faces", "--host", host, *command.split()]) == 130
    assert opened == [(("faces",), {"trust": True, "score_threshold": 0.3})]
    [(arguments, options)] = served
    assert arguments == ("detector", "faces", unitbox_tf.__version__)
    assert options == {
        "host": host,
        "port": 7,
        "public_hosts": ["a", "b"],
        "max_photos": 5,
        "bounds": Bounds(3 << 20, 6),
        "max_batch": 8,
        "max_wait": 0.02,
    }
    printed = capsys.readouterr()
    assert "http://address/ serves faces" in printed.out
    assert ("other machines can reach 0.0.0.0" in printed.err) == (host == "0.0.0.0")
