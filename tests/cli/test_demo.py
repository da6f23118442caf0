import contextlib
import os
import socket
import sys
import types

import pytest

from unitbox_tf import cli
from unitbox_tf.demo import serving
from unitbox_tf.demo import viewer as viewers
from unitbox_tf.web.hosts import Hosts


def test_a_missing_gradio_is_named_with_its_extra(untrained_run, monkeypatch, capsys):
    monkeypatch.setenv("GRADIO_TEMP_DIR", "")  # set by the command
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert cli.main(["demo", str(untrained_run)]) == 1
    assert "pip install 'unitbox_tf[demo]'" in capsys.readouterr().err


def test_limits_are_above_zero(capsys):
    for option, expected in (("--max-upload-mb", "above 0"), ("--max-pixels", "from 1 to")):
        assert cli.main(["demo", "faces", option, "0"]) == 2
        message = capsys.readouterr().err
        assert f"{option}: expected" in message
        assert expected in message


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_the_command_warns_where_others_can_reach_it(untrained_run, host, monkeypatch, capsys):
    pytest.importorskip("gradio", reason="needs gradio: the extra demo")
    served = []

    @contextlib.contextmanager
    def server(app, *place):
        served.append((app.hosts, app.largest_upload, *place))
        yield types.SimpleNamespace(url="http://address/", wait=interrupt)

    def interrupt():
        raise KeyboardInterrupt

    monkeypatch.setenv("GRADIO_TEMP_DIR", "")
    viewer = viewers.Viewer(untrained_run)
    monkeypatch.setattr(viewers, "Viewer", lambda *arguments, **options: viewer)
    monkeypatch.setattr(serving, "Server", server)
    command = ["demo", "faces", "--host", host, "--port", "7", "--max-upload-mb", "3"]
    assert cli.main([*command, "--public-host", "demo.example.org"]) == 130
    hosts = Hosts.of(host, ["demo.example.org"])
    assert served == [(hosts, 3 * 2**20 + serving.FORM_BYTES, host, 7)]
    printed = capsys.readouterr()
    assert "http://address/" in printed.out
    assert ("other machines can reach 0.0.0.0" in printed.err) == (host == "0.0.0.0")
    assert not os.path.exists(os.environ["GRADIO_TEMP_DIR"])


def test_a_port_that_is_taken_is_named(untrained_run, capsys):
    pytest.importorskip("gradio", reason="needs gradio: the extra demo")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"127.0.0.1: port {port} cannot be listened at"):
            serving.Server(None, "127.0.0.1", port)
