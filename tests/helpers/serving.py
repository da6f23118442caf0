"""Requests to the server's application, without a network."""

import asyncio
import base64
import contextlib
import json

import cv2

from unitbox_tf.serve.application import Application, Bounds
from unitbox_tf.serve.metrics import Metrics
from unitbox_tf.serve.question import Model
from unitbox_tf.serve.worker import Worker
from unitbox_tf.web.hosts import Hosts

NAME = "faces"
HOST = "localhost:8501"
LARGEST = 1 << 20  # bytes of a body


class Client:
    """An application with a worker of its own."""

    def __init__(self, detector, *, requests=8, max_photos=4, largest=LARGEST, **options):
        self.metrics = Metrics()
        self.worker = Worker(detector, self.metrics, **options)
        model = Model(NAME, detector.decode, detector.options, max_photos, "0.0")
        hosts, bounds = Hosts.of("127.0.0.1"), Bounds(largest, requests)
        self.application = Application(model, self.worker, hosts, bounds, self.metrics)

    def ask(self, method, path, body=b"", **headers):
        """The status, the headers and the body of the answer."""
        return asyncio.run(self.asked(method, path, [body], **headers))

    def json(self, method, path, content=None, **headers):
        """The status and the json of the answer to a request with json."""
        body = b"" if content is None else json.dumps(content).encode()
        status, _, answer = self.ask(method, path, body, **headers)
        return status, json.loads(answer)

    async def asked(self, method, path, bodies, seconds=0.0, host=HOST, leaves=False, **headers):
        """`ask`, where the body comes in parts, each after some seconds. A client that leaves does so after them."""
        pairs = [(name.replace("_", "-").encode(), text.encode()) for name, text in headers.items()]
        pairs += [(b"host", host.encode())] if host is not None else []
        parts, sent = list(bodies), []

        async def receive():
            if not parts:
                await asyncio.sleep(0.05 if leaves else 600)
                return {"type": "http.disconnect"}
            await asyncio.sleep(seconds)
            body = parts.pop(0)
            return {"type": "http.request", "body": body, "more_body": bool(parts)}

        async def send(message):
            sent.append(message)

        scope = {"type": "http", "method": method, "path": path, "headers": pairs}
        await self.application(scope, receive, send)
        if leaves and not sent:
            return None
        start, body = sent
        headers = {name.decode(): value.decode() for name, value in start["headers"]}
        assert headers["content-length"] == str(len(body["body"]))
        return start["status"], headers, body["body"]

    def counted(self, name, **labels):
        """The value of a metric."""
        return self.metrics._registry.get_sample_value(name, labels) or 0


@contextlib.contextmanager
def client(detector, **options):
    """A `Client`, whose worker ends afterwards."""
    made = Client(detector, **options)
    yield made
    made.worker.close(10)


def b64(encoded):
    return {"b64": base64.b64encode(encoded).decode()}


def png(image):
    return cv2.imencode(".png", image[..., ::-1])[1].tobytes()
