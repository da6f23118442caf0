"""Whom the server answers, and how much a client may ask for."""

import asyncio
import json
import logging
import threading

import pytest

from tests.helpers import hostile, serving
from tests.helpers.serving import HOST, LARGEST, b64
from unitbox_tf import limits
from unitbox_tf.serve import application

PREDICT = "/v1/models/faces:predict"
INFER = "/v2/models/faces/infer"
PATHS = ["/healthz", "/metrics", "/v1/models/faces", "/v2", "/v2/models/faces"]


def predict(client, *encoded, **headers):
    return client.json("POST", PREDICT, {"inputs": [b64(each) for each in encoded]}, **headers)


@pytest.fixture
def counter(counting):
    """A client of a detector whose photos are `b"LEVEL HEIGHT"`."""
    with serving.client(counting.exported()) as made:
        yield made


@pytest.mark.parametrize("path", PATHS)
def test_only_requests_for_its_own_names_are_answered(client, path):
    for host in (HOST, "127.0.0.1", "[::1]:8501"):
        assert client.ask("GET", path, host=host)[0] == 200
    for host in ("evil.example", "evil.example:8501", "192.168.0.2", "", None):
        status, _, answer = client.ask("GET", path, host=host)
        assert status == 421
        assert "--public-host" in json.loads(answer)["error"]
    assert client.ask("POST", PREDICT, host="evil.example")[0] == 421


def test_pages_of_other_hosts_cannot_use_it(counter):
    assert predict(counter, b"1 10")[0] == 200
    assert predict(counter, b"1 10", origin=f"http://{HOST}")[0] == 200
    for origin in ("http://evil.example", "null", "http://localhost:3000"):
        assert predict(counter, b"1 10", origin=origin)[0] == 403


@pytest.mark.parametrize("path", ["/", "/v1", "/v3/models", "/v2x", "/healthz/", "/docs", "//", ""])
def test_there_is_nothing_else(client, path):
    for method in ("GET", "POST"):
        status, answer = client.json(method, path)
        assert (status, list(answer)) == (404, ["error"])


def test_other_methods_are_refused(client):
    for method in ("PUT", "DELETE", "OPTIONS"):
        status, headers, _ = client.ask(method, PREDICT)
        assert (status, headers["allow"]) == (405, "GET, HEAD, POST")


def test_it_is_healthy(client):
    assert client.json("GET", "/healthz") == (200, {"status": "ok"})
    assert client.ask("HEAD", "/healthz")[0] == 200


def test_a_body_that_is_too_large_is_refused_before_it_comes(counter):
    status, headers, _ = counter.ask("POST", PREDICT, content_length=str(LARGEST + 1))
    assert (status, headers["connection"]) == (413, "close")
    assert counter.ask("POST", PREDICT, content_length="-1")[0] == 413
    bodies = [b" " * (LARGEST // 2 + 1)] * 2
    assert asyncio.run(counter.asked("POST", PREDICT, bodies))[0] == 413
    assert counter.ask("POST", PREDICT, content_encoding="gzip")[0] == 415
    assert predict(counter, b"1 10")[0] == 200


def test_a_body_that_does_not_come_is_not_waited_for(counter, monkeypatch):
    monkeypatch.setattr(limits, "REQUEST_SECONDS", 0.2)
    slow = counter.asked("POST", PREDICT, [b"x"] * 90, seconds=0.01)
    assert asyncio.run(slow)[0] == 408
    assert predict(counter, b"1 10")[0] == 200


def test_json_that_fills_the_memory_is_refused(client, monkeypatch):
    monkeypatch.setattr(limits, "MAX_REQUEST_LISTS", 100)
    for body, message in (
        (b'{"inputs": [' + b"[]," * 100 + b"[]]}", "at most 100 lists and objects. Received: 103"),
        (b'{"inputs": ' + b'{"a":' * 100 + b"1" + b"}" * 101, "at most 100 lists and objects"),
    ):
        status, _, answer = client.ask("POST", PREDICT, body)
        assert status == 400
        assert message in json.loads(answer)["error"]


@pytest.mark.parametrize("path", [PREDICT, INFER])
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"null",
        b'{"inputs": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"inputs": [' + b"9" * 10_000 + b"]}",
        b'{"inputs": [1e999]}',
        b'{"inputs": ["\\ud800"]}',
    ],
)
def test_what_is_no_json_is_an_error_of_the_client(client, path, body):
    status, _, answer = client.ask("POST", path, body)
    assert status == 400
    assert list(json.loads(answer)) == ["error"]


def test_images_that_ask_for_too_much_are_refused_and_counted(detector):
    names = hostile.files()
    with serving.client(detector, largest=64 << 20) as client:
        for name, (encoded, message) in names.items():
            status, answer = predict(client, encoded)
            assert status == 400, name
            assert message in answer["error"], name
        assert client.counted("unitbox_decode_failures_total") == len(names)


async def several(client, count, encoded=b"1 10"):
    """The statuses and headers of requests that come at the same time."""
    body = json.dumps({"inputs": [b64(encoded)]}).encode()
    asked = [client.asked("POST", PREDICT, [body], seconds=0.1) for _ in range(count)]
    return [(status, headers) for status, headers, _ in await asyncio.gather(*asked)]


def test_whom_there_is_no_room_for_is_told_to_come_again(counting):
    with serving.client(counting.exported(), requests=3) as client:
        answers = asyncio.run(several(client, 5))
        assert sorted(status for status, _ in answers) == [200] * 3 + [503] * 2
        assert all(("retry-after" in headers) == (status == 503) for status, headers in answers)
        assert {status for status, _ in asyncio.run(several(client, 3))} == {200}
        assert client.counted("unitbox_requests_in_flight") == 0


def test_bodies_together_are_bounded(counting, monkeypatch):
    monkeypatch.setattr(limits, "MAX_WAITING_BYTES", 2 * LARGEST)
    with serving.client(counting.exported(), requests=50) as client:
        # They do not say their length, so each is taken for the largest.
        assert sorted(s for s, _ in asyncio.run(several(client, 5))) == [200] * 2 + [503] * 3
        body = json.dumps({"inputs": [b64(b"1 10")]}).encode()

        async def known():
            length = str(len(body))
            asked = [
                client.asked("POST", PREDICT, [body], seconds=0.1, content_length=length)
                for _ in range(5)
            ]
            return [status for status, *_ in await asyncio.gather(*asked)]

        assert asyncio.run(known()) == [200] * 5


def test_requests_at_the_same_time_get_their_own_answers(counting):
    with serving.client(counting.exported(), requests=50, max_batch=4, max_wait=0.01) as client:

        async def all_of_them():
            bodies = [{"inputs": [b64(b"%d 10" % n), b64(b"%d 20" % (n + 1))]} for n in range(20)]
            bodies[7] = {"inputs": [b64(b"broken")]}
            asked = [client.asked("POST", PREDICT, [json.dumps(b).encode()]) for b in bodies]
            return await asyncio.gather(*asked)

        for number, (status, _, answer) in enumerate(asyncio.run(all_of_them())):
            if number == 7:
                assert (status, b"photo 0: " in answer) == (400, True)
            else:
                assert json.loads(answer)["outputs"]["num_detections"] == [number, number + 1]


def test_photos_of_a_client_that_left_are_not_searched(counting):
    with serving.client(counting.exported(), requests=50) as client:

        async def left():
            begun = asyncio.Event()
            loop = asyncio.get_running_loop()
            read = client.worker._read

            def slow(photo):
                loop.call_soon_threadsafe(begun.set)
                asyncio.run_coroutine_threadsafe(asyncio.sleep(0.3), loop).result()
                return read(photo)

            client.worker._read = slow
            body = json.dumps({"inputs": [b64(b"1 10")] * 4}).encode()
            answer = await client.asked("POST", PREDICT, [body], leaves=True)
            await begun.wait()
            client.worker._read = read
            await asyncio.sleep(0.5)
            return answer

        assert asyncio.run(left()) is None
        assert predict(client, b"2 10")[0] == 200
        assert len(counting.seen) <= 2
        labels = {"protocol": "tensorflow", "status": str(application.GONE)}
        assert client.counted("unitbox_requests_total", **labels) == 1
        assert client.counted("unitbox_requests_in_flight") == 0


def test_a_request_that_the_server_can_wait_for_no_longer_is_told_so(counting):
    with serving.client(counting.exported()) as client:

        async def cancelled():
            begun, event = asyncio.Event(), threading.Event()
            loop, read = asyncio.get_running_loop(), client.worker._read

            def wait(photo):
                loop.call_soon_threadsafe(begun.set)
                event.wait(20)
                return read(photo)

            client.worker._read = wait
            body = json.dumps({"inputs": [b64(b"1 10")]}).encode()
            task = asyncio.ensure_future(client.asked("POST", PREDICT, [body]))
            await begun.wait()
            task.cancel()
            event.set()
            return await task

        status, headers, answer = asyncio.run(cancelled())
        assert (status, json.loads(answer)) == (503, {"error": "the server ends"})
        assert "retry-after" in headers


def test_a_fault_is_logged_and_not_told(counting, caplog):
    def detect(image, decode):
        raise RuntimeError("a secret of the server")

    with serving.client(counting.exported(detect=detect)) as client:
        with caplog.at_level(logging.ERROR):
            status, answer = predict(client, b"1 10")
        assert status == 500
        assert "secret" not in answer["error"]
        assert "a secret of the server" in caplog.text


def test_memory_that_does_not_suffice_is_told(counting):
    def detect(image, decode):
        raise MemoryError("memory does not suffice")

    with serving.client(counting.exported(detect=detect)) as client:
        status, answer = predict(client, b"1 10")
    assert (status, answer["error"]) == (500, "photo 0: memory does not suffice")


def test_metrics_are_those_of_prometheus(counter):
    from prometheus_client import parser

    predict(counter, b"1 10")
    predict(counter, b"broken")
    counter.json("POST", INFER, {})
    counter.ask("GET", "/gone")
    status, headers, text = counter.ask("GET", "/metrics")
    assert status == 200
    assert headers["content-type"].startswith("text/plain; version=")
    samples = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in parser.text_string_to_metric_families(text.decode())
        for sample in family.samples
    }
    for protocol, code in (
        ("tensorflow", 200),
        ("tensorflow", 400),
        ("open_inference", 400),
        ("other", 404),
    ):
        labels = ("protocol", protocol), ("status", str(code))
        assert samples[("unitbox_requests_total", *labels)] == 1
    assert samples["unitbox_request_seconds_count", ("protocol", "tensorflow")] == 2
    assert samples["unitbox_decode_failures_total",] == 1
    assert samples["unitbox_batch_size_count",] == 1
    assert samples["unitbox_search_seconds_count",] == 1
    assert samples["unitbox_requests_in_flight",] == 0


def test_another_kind_of_connection_is_not_answered(client):
    assert asyncio.run(client.application({"type": "websocket"}, None, None)) is None
