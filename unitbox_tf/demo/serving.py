"""Serves the page: an application around that of gradio, and its server."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable
from typing import Any

from unitbox_tf import optional
from unitbox_tf.demo.guard import PROGRESS, UPLOAD, Guard
from unitbox_tf.demo.uploads import Full, Uploads
from unitbox_tf.web import server
from unitbox_tf.web.hosts import Hosts

FIRST_PORT, PORTS = 7860, 100  # where a free port is looked for
FORM_BYTES = 1 << 16  # of a form besides its file
ENDING_SECONDS = 2  # for answers that are under way when the server ends
SWEEP_SECONDS = 1.0


def application(page: Any, uploads: Uploads, hosts: Hosts, **look: Any) -> Guard:
    """The page as an ASGI application.

    Args:
        page: a `gradio.Blocks`.
        uploads: where its uploads go.
        hosts: the names of the page.
        look: arguments of `gradio.mount_gradio_app`.
    """
    gr = optional.load("gradio", "demo", "the page")
    applications = optional.load("starlette.applications", "demo", "the page")
    routing = optional.load("starlette.routing", "demo", "the page")

    @contextlib.asynccontextmanager
    async def sweeping(_: Any) -> AsyncIterator[None]:
        task = asyncio.create_task(_sweep(page, uploads))
        try:
            yield
        finally:
            task.cancel()

    routes = [
        routing.Route(UPLOAD, _upload_to(uploads), methods=["POST"]),
        routing.Route(PROGRESS, _progress(), methods=["GET"]),
    ]
    app = applications.Starlette(routes=routes, lifespan=sweeping)
    gr.mount_gradio_app(
        app,
        page,
        path="/",
        max_file_size=uploads.largest,
        ssr_mode=False,
        enable_monitoring=False,
        run_history=False,
        mcp_server=False,
        footer_links=[],
        **look,
    )
    return Guard(app, hosts, uploads.largest + FORM_BYTES)


async def _sweep(page: Any, uploads: Uploads) -> None:
    """Deletes uploads whose visitors went away, again and again."""
    while True:
        await asyncio.sleep(SWEEP_SECONDS)
        events = list(page._queue.event_ids_to_events.values())
        uploads.forget({path for event in events for path in _paths(event.data.data)})


def _paths(inputs: Iterable[Any]) -> Iterable[str]:
    """The paths of uploads among the inputs of an event, which come from outside."""
    for each in inputs:
        if isinstance(each, dict) and isinstance(each.get("path"), str):
            yield each["path"]


def _upload_to(uploads: Uploads) -> Any:
    """The answer to a form with one file: a list with its path."""
    responses = optional.load("starlette.responses", "demo", "the page")
    requests = optional.load("starlette.requests", "demo", "the page")
    concurrency = optional.load("starlette.concurrency", "demo", "the page")

    def said(text: str, status: int) -> Any:
        return responses.PlainTextResponse(text, status)

    async def kept(request: Any) -> Any:
        # A file of this form has no name on the disk: it ends with the request, or with the program.
        async with request.form(max_files=1, max_fields=1) as form:
            [file] = form.getlist("files")
            if file.size > uploads.largest:
                return said("larger than the maximum allowed size", 413)
            path = await concurrency.run_in_threadpool(uploads.keep, file.filename or "", file.file)
        return responses.JSONResponse([str(path)])

    async def upload(request: Any) -> Any:
        length = request.headers.get("content-length")
        if length is None:
            return said("expected a Content-Length", 411)
        try:
            try:
                with uploads.room(int(length)):
                    return await kept(request)
            except Full:
                async for _ in request.stream():  # or the browser would see a broken connection
                    pass
                return said("too many images at the moment; try again in a minute", 503)
        except (ValueError, AttributeError):  # none or several, or a text
            return said("expected a form with one file, 'files'", 400)
        except requests.ClientDisconnect:
            return said("broken off", 400)  # nobody reads it

    return upload


def _progress() -> Any:
    """The answer to the page's question how far an upload has come, which it shows: no further news."""
    responses = optional.load("starlette.responses", "demo", "the page")

    async def progress(request: Any) -> Any:
        return responses.Response('data: {"msg": "done"}\n\n', media_type="text/event-stream")

    return progress


class Server(server.Server):
    """Serves the page at the first free port, or at the one that is named."""

    def __init__(self, app: Any, host: str, port: int | None) -> None:
        """See `web.server.Server`; None takes the first free port from 7860 on."""
        ports = [port] if port else range(FIRST_PORT, FIRST_PORT + PORTS)
        uvicorn = optional.load("uvicorn", "demo", "the page")
        super().__init__(app, host, ports, uvicorn=uvicorn, ending_seconds=ENDING_SECONDS)
