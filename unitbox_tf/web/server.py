"""A server of an ASGI application that ends when a command is interrupted."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Sequence
from typing import Any

from unitbox_tf import limits


class Server:
    """Serves an application in a thread of its own. A context manager, which ends it.

    Attributes:
        url: the address of the server on this machine.
    """

    def __init__(
        self,
        app: Any,
        host: str,
        ports: Sequence[int],
        *,
        uvicorn: Any,
        ending_seconds: int,
    ) -> None:
        """Starts to listen.

        Args:
            app: an ASGI application.
            host: the address to listen at.
            ports: the ports to listen at; the first one that is free is taken. 0 is any.
            uvicorn: the module.
            ending_seconds: time for answers that are under way when the server ends.

        Raises:
            OSError: the ports are taken, or there is no such address here.
        """
        self._ending_seconds = ending_seconds
        self._socket = _listen(host, ports)
        number = self._socket.getsockname()[1]
        name = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
        self.url = f"http://[{name}]:{number}/" if ":" in name else f"http://{name}:{number}/"
        config = uvicorn.Config(
            app,
            log_level="critical",
            http="h11",
            ws="none",
            proxy_headers=False,
            server_header=False,
            limit_concurrency=limits.MAX_CONNECTIONS,
            timeout_keep_alive=5,
            timeout_graceful_shutdown=ending_seconds,
        )
        self._server = uvicorn.Server(config)
        # Not `Thread.join`: after a signal within it, Python 3.11 takes the thread for ended, and the server would lose
        # its socket while it gives its last answers.
        self._ended = threading.Event()
        threading.Thread(target=self._run, daemon=True).start()
        while not (self._ended.is_set() or self._server.started):
            time.sleep(0.01)

    def _run(self) -> None:
        try:
            self._server.run(sockets=[self._socket])
        finally:
            self._ended.set()

    def wait(self) -> None:
        """Waits until the server has ended by itself, which it does after an error."""
        while not self._ended.wait(0.5):
            pass

    def close(self) -> None:
        """Ends the server: it stops to listen, and its answers have `ending_seconds` to end."""
        self._server.should_exit = True
        self._ended.wait(self._ending_seconds + 5)
        self._socket.close()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _listen(host: str, ports: Sequence[int]) -> socket.socket:
    """A socket that is bound to the first free port."""
    family, _, _, _, address = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0]
    for number in ports:
        # asyncio lets answers go without delay only where the protocol is stated. Else each waits 40 ms until the
        # client acknowledges its head.
        bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind((address[0], number, *address[2:]))
            bound.listen(128)
        except OSError as error:
            bound.close()
            if number == ports[-1]:
                raise OSError(f"{host}: port {number} cannot be listened at: {error}") from error
        else:
            return bound
    raise AssertionError("there are ports")
