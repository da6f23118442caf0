"""A real server in a process of its own: many clients at once, its end, and Triton's own client."""

import base64
import concurrent.futures
import contextlib
import http.client
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

from tests.helpers.serving import b64
from unitbox_tf.serve import server

ROOT = Path(__file__).parents[2]
COMMAND = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # which shells switch off in the background
from unitbox_tf import cli
sys.exit(cli.main(sys.argv[1:]))
"""
PREDICT = "/v1/models/faces:predict"


class Site:
    """A server in a process of its own."""

    def __init__(self, model, folder, *options):
        pytest.importorskip("uvicorn", reason="needs uvicorn: the extra serve")
        self.errors = folder / "errors"
        self.process = subprocess.Popen(
            [sys.executable, "-c", COMMAND, "serve", str(model), "--port", "0", *options],
            stdout=subprocess.PIPE,
            stderr=self.errors.open("w"),
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        line = self.process.stdout.readline()
        assert line.startswith("http://"), self.errors.read_text()
        self.host = urllib.parse.urlsplit(line.split()[0]).netloc

    def ask(self, method, path, content=None):
        """The status and the json of an answer."""
        connection = http.client.HTTPConnection(self.host, timeout=120)
        try:
            body = None if content is None else json.dumps(content)
            connection.request(method, path, body)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    def end(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


@pytest.fixture(scope="module")
def site(saved, tmp_path_factory):
    site = Site(saved, tmp_path_factory.mktemp("site"), "--max-requests", "100")
    yield site
    site.end()


def wanted(detector, photo):
    from unitbox_tf import inputs

    return detector.detect(inputs.read_image(photo), detector.decode)


def test_clients_at_the_same_time_get_their_own_answers(site, detector, photos):
    def ask(index):
        return site.ask("POST", PREDICT, {"instances": [b64(photos[index % 3])]})

    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(ask, range(36)))
    for index, (status, answer) in enumerate(answers):
        found = wanted(detector, photos[index % 3])
        [row] = answer["predictions"]
        assert (status, row["num_detections"]) == (200, len(found))
        np.testing.assert_allclose(row["boxes"][: len(found)], found.boxes, atol=1e-3)
    assert "Traceback" not in site.errors.read_text()


def test_answers_under_way_are_given_when_it_ends(saved, photos, tmp_path):
    site = Site(saved, tmp_path, "--max-batch", "8", "--max-wait-ms", "1000")
    try:
        asked = {"instances": [b64(photos[0])]}  # which waits a second for other photos
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            jobs = [pool.submit(site.ask, "POST", PREDICT, asked) for _ in range(2)]
            while not begun(site, 2):
                assert not jobs[0].done()
                time.sleep(0.01)
            site.process.send_signal(signal.SIGTERM)
            statuses = [job.result()[0] for job in jobs]
        assert statuses == [200] * 2
        assert site.process.wait(60) == 143
        assert "Traceback" not in site.errors.read_text()
        host, _, port = site.host.partition(":")
        with pytest.raises(OSError, match="refused"):
            socket.create_connection((host, int(port)))
    finally:
        site.end()


def begun(site, count):
    """True when so many requests are under way."""
    connection = http.client.HTTPConnection(site.host, timeout=20)
    with contextlib.closing(connection):
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
    return f"unitbox_requests_in_flight {count}.0" in text


def test_a_name_that_cannot_stand_in_a_path_is_refused(untrained_run, tmp_path):
    assert server.name_of("faces") == "faces"
    assert server.name_of(str(untrained_run)) == untrained_run.name
    file = tmp_path / "our_faces.v2.onnx"
    file.touch()
    assert server.name_of(str(file)) == "our_faces.v2"
    for name in ("our faces", "a/b", "a:predict", "", ".", "é"):
        with pytest.raises(ValueError, match="choose one with --name"):
            server.checked_name(name)


PAGE = (ROOT / "docs/serving.md").read_text("utf-8")
EXAMPLES = [
    block for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if "urlopen" in block
]


@pytest.mark.parametrize("example", EXAMPLES, ids=["tensorflow", "open_inference"])
def test_the_examples_of_the_page_are_answered(site, example, photos, tmp_path, monkeypatch):
    (tmp_path / "photo.jpg").write_bytes(photos[0])
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(example.replace("localhost:8501", site.host), names)
    assert {"boxes", "num_detections"} <= set(names["outputs"])


def test_triton_s_own_client_is_answered(site, detector, photos):
    reason = "needs tritonclient, which is in no extra: it holds ml_dtypes below TensorFlow's"
    triton = pytest.importorskip("tritonclient.http", reason=reason)
    from tritonclient.utils import InferenceServerException

    client = triton.InferenceServerClient(site.host)
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("faces")
    assert client.is_model_ready("faces", "1")
    assert not client.is_model_ready("cats")
    assert client.get_server_metadata()["extensions"] == ["binary_tensor_data"]
    assert client.get_model_metadata("faces")["inputs"][0]["datatype"] == "BYTES"
    for as_bytes in (True, False):
        given = triton.InferInput("encoded", [3], "BYTES")
        contents = photos if as_bytes else [base64.b64encode(photo) for photo in photos]
        given.set_data_from_numpy(np.array(contents, object), binary_data=as_bytes)
        score = triton.InferInput("score_threshold", [1], "FP32")
        score.set_data_from_numpy(
            np.float32([detector.decode.score_threshold]), binary_data=as_bytes
        )
        outputs = [
            triton.InferRequestedOutput(name, binary_data=as_bytes)
            for name in ("boxes", "num_detections")
        ]
        for chosen in (None, outputs):
            answer = client.infer("faces", [given, score], outputs=chosen, request_id="7")
            assert answer.get_response()["id"] == "7"
            for index, photo in enumerate(photos):
                found = wanted(detector, photo)
                assert answer.as_numpy("num_detections")[index] == len(found)
                boxes = answer.as_numpy("boxes")[index, : len(found)]
                np.testing.assert_allclose(boxes, found.boxes, atol=1e-3)
    broken = triton.InferInput("encoded", [1], "BYTES")
    broken.set_data_from_numpy(np.array([b"no photo"], object))
    with pytest.raises(InferenceServerException, match="photo 0: encoded image: expected a JPEG"):
        client.infer("faces", [broken])
