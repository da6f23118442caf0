"""The server as an ASGI application: whom it answers, and how much a client may ask for."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import dataclasses
import logging
import re
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any

from unitbox_tf import images, limits
from unitbox_tf.records import Detections
from unitbox_tf.serve import open_inference, tensorflow_rest
from unitbox_tf.serve.metrics import Metrics
from unitbox_tf.serve.question import Answer, Model, Parse, Question, Refused
from unitbox_tf.serve.worker import Worker
from unitbox_tf.web.hosts import Hosts

Scope = Mapping[str, Any]
Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

RETRY_SECONDS = 1  # after which a client that found the server full may come again
PARSERS = 2  # threads that read and write json; each needs several times the memory of its request
GONE = 499  # in the place of a status, for metrics: the client did not wait for its answer
_HEADERS = [(b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store")]
_log = logging.getLogger(__name__)


class _Gone(Exception):
    """The client does not wait for its answer."""


@dataclasses.dataclass(frozen=True)
class Bounds:
    """How much clients may ask for.

    Attributes:
        body: bytes of a request.
        requests: requests for detections that arrive, wait or are searched at the same time.
    """

    body: int
    requests: int


class Application:
    """Answers requests by both protocols, `/healthz` and `/metrics`."""

    def __init__(
        self, model: Model, worker: Worker, hosts: Hosts, bounds: Bounds, metrics: Metrics
    ) -> None:
        """`hosts` are the names that requests may be for."""
        self._model, self._worker, self._hosts = model, worker, hosts
        self._bounds, self._metrics = bounds, metrics
        self._requests = self._bytes = 0
        self._parsers = concurrent.futures.ThreadPoolExecutor(PARSERS, "parser")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request."""
        if scope["type"] != "http":
            return
        start = time.perf_counter()
        protocol = _protocol(scope["path"])
        try:
            answer = await self._answer(scope, protocol, receive)
        except _Gone:
            self._metrics.answered(protocol, GONE, time.perf_counter() - start)
            return
        self._metrics.answered(protocol, answer.status, time.perf_counter() - start)
        await _send(answer, send)

    async def _answer(self, scope: Scope, protocol: str, receive: Receive) -> Answer:
        try:
            return await self._answer_or_refuse(scope, protocol, receive)
        except Refused as refused:
            return refused.answer
        except _Gone:
            raise
        except (
            asyncio.CancelledError
        ):  # the server ends, and has waited for this answer long enough
            return Refused(503, "the server ends", **{"retry-after": str(RETRY_SECONDS)}).answer
        except Exception:
            _log.exception("a request failed")
            return Answer.of({"error": "the server failed; its log says why"}, 500)

    async def _answer_or_refuse(self, scope: Scope, protocol: str, receive: Receive) -> Answer:
        headers = {name.decode("latin-1"): v.decode("latin-1") for name, v in scope["headers"]}
        method, path = scope["method"], scope["path"]
        self._check_origin(scope, headers)
        if method not in ("GET", "HEAD", "POST"):
            raise Refused(405, "expected GET or POST", allow="GET, HEAD, POST")
        if protocol == "other":
            return self._fact(method, path)
        module = tensorflow_rest if protocol == "tensorflow" else open_inference
        routed = module.route(self._model, "GET" if method == "HEAD" else method, path)
        if isinstance(routed, Answer):
            return routed
        return await self._detections(routed, headers, receive)

    def _check_origin(self, scope: Scope, headers: Mapping[str, str]) -> None:
        """Raises `Refused` for a request for another host, or of another page in a browser."""
        host = headers.get("host", "")
        if sum(name == b"host" for name, _ in scope["headers"]) != 1 or not self._hosts.know(host):
            text = "this server has another name; name it with --public-host to serve it here"
            raise Refused(421, text, connection="close")
        if "origin" in headers and not self._hosts.own(headers["origin"], host):
            raise Refused(403, "pages of other hosts may not use this server", connection="close")

    def _fact(self, method: str, path: str) -> Answer:
        if method != "POST" and path == "/healthz":
            return Answer.of({"status": "ok"})
        if method != "POST" and path == "/metrics":
            text, kind = self._metrics.text()
            return Answer(200, text, {"content-type": kind})
        raise Refused(404, f"there is no {method} {path[:200]}")

    async def _detections(
        self, parse: Parse, headers: Mapping[str, str], receive: Receive
    ) -> Answer:
        """The answer to a request for detections."""
        size = _declared_size(headers, self._bounds.body)
        try:
            with self._room(self._bounds.body if size is None else size):
                body = await _read_body(receive, self._bounds.body)
                question = await self._apart(parse, body, headers)
                del body
                found = await self._search(question, receive)
                return await self._apart(question.respond, found)
        except _Full:
            # Or a client that still sends its body would see a broken connection in place of the answer.
            await _skip_body(receive, self._bounds.body)
            text = "too many requests at the moment; try again"
            raise Refused(503, text, **{"retry-after": str(RETRY_SECONDS)}) from None

    @contextlib.contextmanager
    def _room(self, size: int) -> Iterator[None]:
        """Keeps room for a request whose body has at most `size` bytes. Raises `_Full` if there is none."""
        full = self._requests >= self._bounds.requests
        if full or self._bytes + size > max(limits.MAX_WAITING_BYTES, self._bounds.body):
            raise _Full
        self._requests, self._bytes = self._requests + 1, self._bytes + size
        self._metrics.in_flight.inc()
        try:
            yield
        finally:
            self._requests, self._bytes = self._requests - 1, self._bytes - size
            self._metrics.in_flight.dec()

    async def _apart(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Calls a function that takes time, such as reading json, beside other requests."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._parsers, function, *arguments)

    async def _search(self, question: Question, receive: Receive) -> list[Detections]:
        """The detections in all photos of a request. The first error ends it."""
        pairs = zip(question.photos, question.decodes, strict=True)
        jobs = [self._worker.submit(photo, decode) for photo, decode in pairs]
        try:
            return await _unless_gone(_each(jobs), receive)
        finally:
            for job in jobs:  # those that still wait, after an error
                job.cancel()


class _Full(Exception):
    """There is no room for another request."""


def _protocol(path: str) -> str:
    """The protocol of a path, as metrics name it."""
    if path.startswith(tensorflow_rest.PREFIX):
        return "tensorflow"
    prefix = open_inference.PREFIX
    return "open_inference" if path == prefix or path.startswith(f"{prefix}/") else "other"


def _declared_size(headers: Mapping[str, str], most: int) -> int | None:
    """The bytes of a body as its head says; None if it does not."""
    if headers.get("content-encoding", "identity") != "identity":
        raise Refused(415, "expected a body that is not compressed", connection="close")
    length = headers.get("content-length")
    if length is None:
        return None
    if not re.fullmatch("[0-9]{1,18}", length) or int(length) > most:
        raise _too_large(most)
    return int(length)


def _too_large(most: int) -> Refused:
    # The rest of the body is not read.
    return Refused(413, f"expected a body of at most {most:,} bytes", connection="close")


async def _read_body(receive: Receive, most: int) -> bytes:
    """The body of a request.

    Raises:
        Refused: it has more than `most` bytes, or does not come within `limits.REQUEST_SECONDS`.
        _Gone: the client broke off.
    """
    parts: list[bytes] = []
    async for part in _parts(receive):
        parts.append(part)
        if sum(map(len, parts)) > most:
            raise _too_large(most)
    return b"".join(parts)


async def _skip_body(receive: Receive, most: int) -> None:
    """Reads a body of at most `most` bytes without keeping it."""
    left = most
    async for part in _parts(receive):
        left -= len(part)
        if left < 0:
            raise _too_large(most)


async def _parts(receive: Receive) -> Any:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + limits.REQUEST_SECONDS
    arriving = True
    while arriving:
        try:
            message = await asyncio.wait_for(receive(), max(deadline - loop.time(), 0))
        except asyncio.TimeoutError:
            text = f"the body did not arrive within {limits.REQUEST_SECONDS} seconds"
            raise Refused(408, text, connection="close") from None
        if message["type"] == "http.disconnect":
            raise _Gone
        yield message.get("body", b"")
        arriving = message.get("more_body", False)


async def _each(jobs: Sequence[concurrent.futures.Future[Detections]]) -> list[Detections]:
    """The results of all photos, or `Refused` for the first photo that has none."""
    found = []
    for index, job in enumerate(jobs):
        try:
            found.append(await asyncio.wrap_future(job))
        except images.UNREADABLE as error:
            status = 500 if isinstance(error, MemoryError) else 400
            raise Refused(status, f"photo {index}: {error}") from error
    return found


async def _unless_gone(work: Any, receive: Receive) -> list[Detections]:
    """The result of `work`, unless the client goes before. Raises `_Gone` then."""
    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise _Gone
        found: list[Detections] = task.result()
        return found
    finally:
        for each in (task, gone):
            each.cancel()


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _send(answer: Answer, send: Send) -> None:
    headers = [(name.encode(), value.encode("latin-1")) for name, value in answer.headers.items()]
    length = (b"content-length", str(len(answer.body)).encode())
    start = {"type": "http.response.start", "status": answer.status}
    await send({**start, "headers": [*headers, length, *_HEADERS]})
    await send({"type": "http.response.body", "body": answer.body})
