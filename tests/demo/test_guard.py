"""Requests of other hosts and other pages are refused, and requests are bounded in size and time."""

import asyncio

import pytest

from unitbox_tf import limits
from unitbox_tf.demo.guard import Guard
from unitbox_tf.web.hosts import Hosts

HERE = "127.0.0.1:7860"


async def application(scope, receive, send):
    """Reads the whole request, and answers with its size."""
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionError
        size, more = size + len(message["body"]), message["more_body"]
    await send(
        {"type": "http.response.start", "status": 200, "headers": [(b"x-frame-options", b"ALLOW")]}
    )
    await send({"type": "http.response.body", "body": str(size).encode()})


def ask(method, path, host=HERE, bodies=(b"",), seconds=0.0, hosts=None, **headers):
    """The status, the headers and the body of the answer to a request, whose body comes in parts."""
    pairs = [(name.replace("_", "-").encode(), text.encode()) for name, text in headers.items()]
    pairs += [(b"host", host.encode())] if host is not None else []
    parts, sent = list(bodies), []

    async def receive():
        await asyncio.sleep(seconds)
        body = parts.pop(0)
        return {"type": "http.request", "body": body, "more_body": bool(parts)}

    async def send(message):
        sent.append(message)

    guard = Guard(application, hosts or Hosts.of("127.0.0.1"), largest_upload=1000)
    scope = {"type": "http", "method": method, "path": path, "headers": pairs}
    asyncio.run(guard(scope, receive, send))
    start, body = sent
    return start["status"], dict(start["headers"]), body["body"].decode()


@pytest.mark.parametrize("host", [HERE, "localhost:7860", "LOCALHOST", "[::1]:7860", "localhost."])
def test_the_page_answers_to_its_names(host):
    assert ask("GET", "/", host)[0] == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:7860",
        "127.0.0.1.evil.example",
        "192.168.0.2",
        "",
        None,
        "localhost:7860@evil.example",
        "evil.example/localhost",
        "[::1].evil.example",
        "2130706433",
    ],
)
@pytest.mark.parametrize("path", ["/", "/gradio_api/upload"])
def test_another_host_is_refused(host, path):
    method = "GET" if path == "/" else "POST"
    status, _, text = ask(method, path, host)
    assert status == 421
    assert "--public-host" in text


def test_two_hosts_are_refused():
    assert ask("GET", "/", HERE, **{"Host": "x"})[0] == 200  # servers give names in lower case
    assert ask("GET", "/", HERE, host2="x")[0] == 200
    guard = Guard(application, Hosts.of("127.0.0.1"), 1)
    assert (
        guard._refusal(
            {"method": "GET", "path": "/", "headers": [(b"host", b"localhost")] * 2},
            {b"host": "localhost"},
        ).status
        == 421
    )


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example",
        "null",
        "http://localhost:3000",
        "http://127.0.0.1",
        "file://",
        "x",
        "",
        "http://127.0.0.1:7860.evil.example",
        "http://evil.example:7860",
        "http://127.0.0.1:99999",
    ],
)
@pytest.mark.parametrize("path", ["/gradio_api/upload", "/gradio_api/queue/join"])
def test_another_page_cannot_post(origin, path):
    assert ask("POST", path, origin=origin)[0] == 403
    assert ask("OPTIONS", path, origin=origin)[0] == 403  # what a browser asks first


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_what_a_browser_says_about_the_asking_page_counts(site):
    for method, path in (
        ("POST", "/gradio_api/upload"),
        ("POST", "/gradio_api/queue/join"),
        ("GET", "/gradio_api/queue/data"),
        ("GET", "/config"),
        ("GET", "/"),
    ):
        assert ask(method, path, sec_fetch_site=site)[0] == 403
    # A link leads to the page.
    assert ask("GET", "/", sec_fetch_site=site, sec_fetch_mode="navigate")[0] == 200
    assert ask("GET", "/config", sec_fetch_site=site, sec_fetch_mode="navigate")[0] == 403
    assert (
        ask("POST", "/gradio_api/upload", sec_fetch_site=site, sec_fetch_mode="navigate")[0] == 403
    )


def test_the_page_itself_and_programs_can_post():
    for headers in ({}, {"origin": f"http://{HERE}", "sec_fetch_site": "same-origin"}):
        assert ask("POST", "/gradio_api/upload", bodies=[b"ab", b"c"], **headers)[::2] == (200, "3")
    assert ask("POST", "/gradio_api/upload", "localhost", origin="http://localhost:80")[0] == 200


def test_a_proxy_may_pass_on_another_host():
    hosts = Hosts.of("127.0.0.1", ["demo.example.org"])
    for host in (HERE, "demo.example.org"):
        for origin, status in (("https://demo.example.org", 200), ("https://example.org", 403)):
            assert ask("POST", "/gradio_api/upload", host, hosts=hosts, origin=origin)[0] == status


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/file=/etc/passwd",
        "/gradio_api/proxy=x",
        "/docs",
        "/gradio_api/info",
        "/monitoring",
        "/gradio_api/run/predict",
        "/gradio_api/component_server",
        "/gradio_api/vibe-code",
        "//",
        "",
        "/gradio_api/upload/",
        "/gradio_api/process_recording",
        "/login",
        "/gradio_api/stream/x",
    ],
)
def test_routes_that_the_page_does_not_use_answer_nothing(path):
    assert ask("GET", path)[0] == 404
    assert ask("POST", path)[0] == 404


def test_other_methods_are_refused():
    assert ask("PUT", "/gradio_api/upload")[0] == 405


def test_bodies_are_bounded():
    assert ask("POST", "/gradio_api/upload", bodies=[b"x" * 1000])[0] == 200
    assert ask("POST", "/gradio_api/upload", content_length="1001")[0] == 413
    assert ask("POST", "/gradio_api/upload", content_length="-1")[0] == 413
    status, _, text = ask("POST", "/gradio_api/upload", bodies=[b"x" * 501, b"x" * 501])
    assert (status, "maximum allowed size" in text) == (413, True)  # which did not say its length
    large = str(limits.MAX_REQUEST_BYTES + 1)
    assert ask("POST", "/gradio_api/queue/join", content_length=large)[0] == 413


def test_bodies_that_do_not_come_are_not_waited_for(monkeypatch):
    monkeypatch.setattr(limits, "REQUEST_SECONDS", 0.2)
    assert ask("POST", "/gradio_api/upload", bodies=[b"x"], seconds=0.0)[0] == 200
    assert ask("POST", "/gradio_api/upload", bodies=[b"x"] * 90, seconds=0.01)[0] == 408


def test_no_other_page_can_show_this_one():
    for path in ("/", "/gone"):
        headers = ask("GET", path)[1]
        assert headers[b"x-frame-options"] == b"DENY"
        assert headers[b"cross-origin-resource-policy"] == b"same-origin"


def test_an_error_of_the_application_is_not_hidden():
    async def broken(scope, receive, send):
        raise LookupError("a fault")

    guard = Guard(broken, Hosts.of("127.0.0.1"), 1)
    scope = {"type": "http", "method": "GET", "path": "/", "headers": [(b"host", b"localhost")]}
    with pytest.raises(LookupError, match="a fault"):
        asyncio.run(guard(scope, None, None))
    assert asyncio.run(guard({"type": "websocket"}, None, None)) is None
