"""A server ends after the answers that are under way, and lets its port go."""

import asyncio
import http.client
import signal
import socket
import threading
import urllib.parse

import pytest

from unitbox_tf.web.server import Server

uvicorn = pytest.importorskip("uvicorn", reason="needs uvicorn: the extra serve")


class Slow:
    """An application whose answers take a second."""

    def __init__(self):
        self.begun = threading.Event()

    async def __call__(self, scope, receive, send):
        if scope["type"] == "http":
            self.begun.set()
            await asyncio.sleep(1)
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"whole"})


def ask(address, answers):
    connection = http.client.HTTPConnection(*address, timeout=60)
    connection.request("GET", "/")
    answers.append(connection.getresponse().read())
    connection.close()


def test_answers_go_without_delay(monkeypatch):
    """Or each would wait 40 ms for the acknowledgement of its head, if the client's system delays it."""
    accepted = []
    accept = socket.socket.accept

    def watched(self):
        pair = accept(self)
        accepted.append(pair[0])
        return pair

    monkeypatch.setattr(socket.socket, "accept", watched)
    app, answers = Slow(), []
    with Server(app, "127.0.0.1", [0], uvicorn=uvicorn, ending_seconds=5) as server:
        parts = urllib.parse.urlsplit(server.url)
        client = threading.Thread(target=ask, args=((parts.hostname, parts.port), answers))
        client.start()
        assert app.begun.wait(30)
        assert accepted[0].getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        client.join(30)
    assert answers == [b"whole"]


@pytest.mark.parametrize(("ending", "answer"), [(30, b"whole"), (0, b"Internal Server Error")])
def test_a_signal_while_it_waits_lets_answers_end(ending, answer):
    app, answers = Slow(), []

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            serve(app, ending, answers)
    finally:
        signal.signal(signal.SIGINT, before)
    address, client = answers.pop(0)
    client.join(60)
    assert answers == [answer]
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(address)


def serve(app, ending, noted):
    """Serves until a signal that comes when a client waits. Notes the address, the client and its answer."""

    def interrupt():
        app.begun.wait(60)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    with Server(app, "127.0.0.1", [0], uvicorn=uvicorn, ending_seconds=ending) as server:
        parts = urllib.parse.urlsplit(server.url)
        address = parts.hostname, parts.port
        client = threading.Thread(target=ask, args=(address, noted))
        noted.append((address, client))
        client.start()
        threading.Thread(target=interrupt).start()
        server.wait()


def test_the_first_free_port_is_taken():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        options = {"uvicorn": uvicorn, "ending_seconds": 1}
        with pytest.raises(OSError, match=f"127.0.0.1: port {number} cannot be listened at"):
            Server(Slow(), "127.0.0.1", [number], **options)
        with Server(Slow(), "127.0.0.1", [number, 0], **options) as server:
            assert urllib.parse.urlsplit(server.url).port not in (0, number)
