"""The page under load: everybody is served or told that it is full, and nothing stays on the disk or in memory."""

import collections
import concurrent.futures
import contextlib
import http.client
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unitbox_tf.datasets import synthetic

SECONDS = 3  # that a body may take here
CLOSED = 0  # in the place of a status

COMMAND = f"""
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # which shells switch off in the background
from unitbox_tf import limits
limits.REQUEST_SECONDS, limits.UPLOAD_SECONDS = {SECONDS}, 2
from unitbox_tf import cli
sys.exit(cli.main(sys.argv[1:]))
"""


class Site:
    """A server in a process of its own."""

    def __init__(self, run, folder, *options):
        pytest.importorskip("gradio", reason="needs gradio: the extra demo")
        self.temporary, self.errors = folder / "temporary", folder / "errors"
        self.temporary.mkdir(exist_ok=True)
        self.process = subprocess.Popen(
            [sys.executable, "-c", COMMAND, "demo", str(run), *options],
            stdout=subprocess.PIPE,
            stderr=self.errors.open("w"),
            text=True,
            env={**os.environ, "TMPDIR": str(self.temporary)},
        )
        line = self.process.stdout.readline()
        assert line.startswith("http://"), self.errors.read_text()
        self.host = urllib.parse.urlsplit(line.split()[0]).netloc
        self._event, self._rest = self._upload_event()

    def ask(self, method, path, body=None, **headers):
        connection = http.client.HTTPConnection(self.host, timeout=120)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        except ConnectionError:  # after a 408, the rest is not taken
            return CLOSED, b""
        finally:
            connection.close()

    def _upload_event(self):
        """The number of the event of an upload, and its inputs but the upload."""
        config = json.loads(self.ask("GET", "/config")[1])
        values = {each["id"]: each["props"].get("value") for each in config["components"]}
        [event] = [e for e in config["dependencies"] if [*e["targets"][0]][1] == "upload"]
        return event["id"], [values[number] for number in event["inputs"][1:]]

    def upload(self, content, name="a.png", **headers):
        """The status and the answer to an upload."""
        kind = {"Content-Type": "multipart/form-data; boundary=x", **headers}
        return self.ask("POST", "/gradio_api/upload", form(content, name), **kind)

    def join(self, path, session, **headers):
        """The status and the answer to a question for the objects of an upload."""
        data = {"path": path, "orig_name": "a.png", "meta": {"_type": "gradio.FileData"}}
        body = {"data": [data, *self._rest], "fn_index": self._event, "session_hash": session}
        kind = {"Content-Type": "application/json", **headers}
        return self.ask("POST", "/gradio_api/queue/join", json.dumps(body), **kind)

    def visit(self, content):
        """The answer that a visitor sees: "served", "full" or an error."""
        session = os.urandom(6).hex()
        status, answer = self.upload(content)
        if status == 503:
            return "full"
        if status != 200:
            return f"upload: {status} {answer[:80]!r}"
        status, answer = self.join(json.loads(answer)[0], session)
        if status == 503:
            return "full"
        if status != 200:
            return f"join: {status} {answer[:80]!r}"
        text = self.ask("GET", f"/gradio_api/queue/data?session_hash={session}")[1].decode()
        found = re.search(r"\d+ found</strong> in a\.png", text)
        return "served" if '"success":true' in text.replace(" ", "") and found else text[-200:]

    def begin(self, content):
        """A connection on which an upload has begun and has not ended."""
        host, _, port = self.host.partition(":")
        connection = socket.create_connection((host, int(port)))
        body = form(content, "a.png")
        lines = [
            "POST /gradio_api/upload HTTP/1.1",
            f"Host: {self.host}",
            f"Content-Length: {len(body)}",
        ]
        lines += ["Content-Type: multipart/form-data; boundary=x", "", ""]
        with contextlib.suppress(OSError):  # if the page is full, it closes the connection
            connection.sendall("\r\n".join(lines).encode() + body[: len(body) // 2])
        return connection

    def files(self):
        """Sizes of the files of the server on the disk, by name; those without a name are "deleted"."""
        [folder] = self.temporary.glob("unitbox-demo-*")
        found = {}
        # The server deletes folders meanwhile. `os.walk` skips them.
        for parent, _, names in os.walk(folder):
            for name in names:
                with contextlib.suppress(FileNotFoundError):
                    found[name] = (Path(parent) / name).stat().st_size
        found.pop(".lock", None)
        for link in Path(f"/proc/{self.process.pid}/fd").iterdir():
            try:
                if str(self.temporary) in os.readlink(link):
                    size = link.stat().st_size
                    if size:
                        found[f"deleted {link.name}"] = size
            except OSError:
                continue
        return found

    def memory(self, name="VmHWM"):
        """The largest memory so far, in bytes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(rf"{name}:\s+(\d+) kB", status)[1]) * 1024

    def end(self, number):
        self.process.send_signal(number)
        status = self.process.wait(60)
        return status, list(self.temporary.iterdir())


def form(content, name):
    head = f'--x\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'
    return head.encode() + content + b"\r\n--x--\r\n"


@pytest.fixture
def site(untrained_run, tmp_path):
    site = Site(untrained_run, tmp_path)
    yield site
    site.process.kill()
    site.process.wait()
    site.process.stdout.close()


def noise(megabytes):
    """A PNG of about this size."""
    side = int((megabytes * 2**20 / 3) ** 0.5)
    pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=0)
    return file.getvalue()


def eventually(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_real_server_refuses_foreign_requests_and_deletes_what_nobody_waits_for(site):
    photo = synthetic.draw(0).image
    for headers, status in (
        ({"Host": "evil.example"}, 421),
        ({"Origin": "http://evil.example"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Origin": f"http://{site.host}", "Sec-Fetch-Site": "same-origin"}, 200),
    ):
        assert site.upload(photo, **headers)[0] == status
        assert site.join("x", "s", **headers)[0] == status
    assert site.ask("GET", "/", Host="evil.example")[0] == 421
    assert site.ask("GET", "/gradio_api/file=/etc/passwd")[0] == 404
    large = {"Content-Type": "multipart/form-data; boundary=x", "Content-Length": str(21 << 20)}
    assert site.ask("POST", "/gradio_api/upload", **large)[0] == 413  # before any of it arrives
    assert site.ask("POST", "/gradio_api/upload", "x", **{"Content-Type": "text/plain"})[0] == 400
    # Only one of these uploads is asked for; the other goes without.
    assert site.visit(photo) == "served"
    eventually(lambda: not site.files())
    assert site.end(signal.SIGTERM) == (143, [])
    assert "Traceback" not in site.errors.read_text()


@pytest.mark.slow
def test_fifty_visitors_at_once_and_many_that_break_off(site):
    small, large = synthetic.draw(0).image, noise(15)
    assert site.visit(small) == "served"
    before = site.memory()
    most, counts = 0, collections.Counter()
    slow = [site.begin(large) for _ in range(10)]
    gone = [site.begin(large) for _ in range(20)]
    for connection in gone[:10]:
        connection.close()
    with concurrent.futures.ThreadPoolExecutor(50) as pool:
        visits = [pool.submit(site.visit, small) for _ in range(50)]
        for connection in gone[10:]:
            connection.close()
        while not all(visit.done() for visit in visits):
            most = max(most, sum(site.files().values()))
            time.sleep(0.05)
        counts.update(visit.result() for visit in visits)
    assert set(counts) <= {"served", "full"}
    assert counts["served"] >= 16  # as many as may wait
    for connection in slow:
        connection.settimeout(30)
        assert b"408" in connection.recv(1000).partition(b"\r\n")[0]
        connection.close()
    assert site.visit(small) == "served"
    eventually(lambda: not site.files())
    grown = site.memory() - before
    print(
        f"\n{dict(counts)}, at most {most / 2**20:.0f} MiB on the disk, {grown / 2**20:.0f} MiB of memory"
    )
    assert most < 512 * 2**20
    assert grown < 600 * 2**20


@pytest.mark.slow
def test_uploads_that_nobody_asks_for_do_not_fill_the_disk(site):
    large, most = noise(19), 0
    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        uploads = [pool.submit(site.upload, large) for _ in range(80)]
        while not all(upload.done() for upload in uploads):
            most = max(most, sum(site.files().values()))
            time.sleep(0.05)
    statuses = collections.Counter(upload.result()[0] for upload in uploads)
    # Those for which there is no room, and on a slow machine those that take too long.
    assert statuses[200]
    assert statuses[503] + statuses[408] + statuses[CLOSED]
    print(f"\n{dict(statuses)}, at most {most / 2**20:.0f} MiB on the disk")
    assert set(statuses) <= {200, 503, 408, CLOSED}
    assert most <= 512 * 2**20
    eventually(lambda: not site.files())
    assert site.upload(large)[0] == 200


@pytest.mark.slow
def test_what_a_killed_server_left_goes_with_the_next(site, untrained_run, tmp_path):
    assert site.upload(synthetic.draw(0).image)[0] == 200
    [left] = site.temporary.glob("unitbox-demo-*")
    site.process.kill()
    site.process.wait()
    assert list(left.rglob("a.png"))
    following = Site(untrained_run, tmp_path)
    assert not left.exists()
    assert following.end(signal.SIGINT)[0] == 130
    assert not list(site.temporary.glob("unitbox-demo-*"))
