"""Keeps requests of other pages and other hosts from the page, and bounds what a request may send and for how long.

A browser sends requests of any page to a server on the same machine. Two things tell them apart. `Host` is the name
that the browser looked up: a page of another name, whose owner lets it point to this machine ("DNS rebinding"), has
that name. `Origin` and `Sec-Fetch-Site` say which page asks; scripts of pages cannot set them.
"""

from __future__ import annotations

import asyncio
import dataclasses
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from unitbox_tf import limits
from unitbox_tf.web.hosts import Hosts

Scope = Mapping[str, Any]
Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

UPLOAD, PROGRESS = "/gradio_api/upload", "/gradio_api/upload_progress"
# What the page asks for. gradio has many more routes; they answer nothing.
READ = re.compile(
    r"/(?:|config|theme\.css|manifest\.json|favicon\.ico|robots\.txt|(?:assets|static|svelte)/[^?]+"
    r"|gradio_api/(?:upload_progress|queue/data|heartbeat/[^/]+))"
)
WRITTEN = re.compile(r"/gradio_api/(?:upload|queue/join|cancel|reset)")
_HEADERS = [
    (b"x-frame-options", b"DENY"),  # no other page shows this one below its own buttons
    (b"content-security-policy", b"frame-ancestors 'none'"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"referrer-policy", b"same-origin"),
    (b"x-content-type-options", b"nosniff"),
]


@dataclasses.dataclass(frozen=True)
class Refusal:
    """The answer to a request that goes no further."""

    status: int
    text: str


@dataclasses.dataclass(frozen=True)
class Guard:
    """An ASGI application that answers some requests itself, and gives the others to `app`.

    Attributes:
        hosts: the names of the page.
        largest_upload: bytes of an upload, with what the form adds.
    """

    app: App
    hosts: Hosts
    largest_upload: int

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            return
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        limit = self.largest_upload if scope["path"] == UPLOAD else limits.MAX_REQUEST_BYTES
        refusal = self._refusal(scope, headers) or _refused_length(headers, limit)
        if refusal:
            await _answer(send, refusal)
            return
        exchange = _Exchange(receive, send, limit)
        try:
            await self.app(scope, exchange.receive, exchange.send)
        except Exception:
            if exchange.refusal is None:
                raise
        if exchange.refusal and not exchange.started:
            await _answer(send, exchange.refusal)

    def _refusal(self, scope: Scope, headers: Mapping[bytes, str]) -> Refusal | None:
        """Why a request is answered without a look at its body; None if it is not."""
        method, host = scope["method"], headers.get(b"host", "")
        if sum(name == b"host" for name, _ in scope["headers"]) != 1 or not self.hosts.know(host):
            return Refusal(
                421, "this page has another name; name it with --public-host to serve it here"
            )
        reads = method in ("GET", "HEAD")
        origin, site = headers.get(b"origin"), headers.get(b"sec-fetch-site", "none")
        # Links of other pages lead to this one, and to nothing else here.
        followed = reads and scope["path"] == "/" and headers.get(b"sec-fetch-mode") == "navigate"
        foreign = site not in ("same-origin", "none") and not followed
        if foreign or (origin is not None and not self.hosts.own(origin, host)):
            return Refusal(403, "another page may not use this one")
        if not (READ if reads else WRITTEN).fullmatch(scope["path"]):
            return Refusal(404, "not found")
        if not reads and method != "POST":
            return Refusal(405, "expected GET, HEAD or POST")
        return None


def _refused_length(headers: Mapping[bytes, str], limit: int) -> Refusal | None:
    length = headers.get(b"content-length", "0")
    if not re.fullmatch("[0-9]{1,18}", length) or int(length) > limit:
        return Refusal(413, f"expected at most {limit:,} bytes, which is the maximum allowed size")
    return None


class _Exchange:
    """A request whose body is bounded in size and time, and its answer, which gets headers.

    If a bound is passed, the application is told that the browser is gone.
    """

    def __init__(self, receive: Receive, send: Send, limit: int) -> None:
        self.refusal: Refusal | None = None
        self.started = False
        self._receive, self._send, self._left = receive, send, limit
        self._deadline = asyncio.get_running_loop().time() + limits.REQUEST_SECONDS
        self._arriving = True

    async def receive(self) -> Message:
        if not self._arriving:  # the application waits for the browser to go
            return await self._receive()
        seconds = self._deadline - asyncio.get_running_loop().time()
        try:
            message = await asyncio.wait_for(self._receive(), max(seconds, 0))
        except asyncio.TimeoutError:
            text = f"the body did not arrive within {limits.REQUEST_SECONDS} seconds"
            return self._refused(Refusal(408, text))
        self._left -= len(message.get("body", b""))
        self._arriving = message.get("more_body", False)
        if self._left < 0:
            return self._refused(Refusal(413, "the body passes the maximum allowed size"))
        return message

    async def send(self, message: Message) -> None:
        if self.refusal:
            return
        if message["type"] == "http.response.start":
            self.started = True
            own = {name for name, _ in _HEADERS}
            kept = [pair for pair in message.get("headers", []) if pair[0].lower() not in own]
            message = {**message, "headers": [*kept, *_HEADERS]}
        await self._send(message)

    def _refused(self, refusal: Refusal) -> Message:
        self.refusal, self._arriving = refusal, False
        return {"type": "http.disconnect"}


async def _answer(send: Send, refusal: Refusal) -> None:
    body = refusal.text.encode()
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),  # the rest of the body is not read
        *_HEADERS,
    ]
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
