"""Loads the server of `unitbox serve` with clients, and compares its latencies with the bare runtime.

The server runs in a process of its own. Each client has one connection, and sends a photo when it has the answer to the
one before. They are coroutines of a second process, so that none shares Python's lock with the server. The bare runtime
is the same detector, opened in the same way in a third process, called in a loop on the same bytes.

Bare runtime and clients take turns, and the server idles while the bare runtime is measured. So other programs on the
machine slow all of them alike. The unit is the median of the bare runtime in the same round. The throughput of a server
that adds nothing is 1, and with N clients its latency is N, since photos are searched one after the other.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import functools
import json
import multiprocessing
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from training.benchmarks.turns import VGA, take_turns

BARE = "bare runtime"
PERCENTILES = (50, 95, 99)
# By protocol: the path for the detector `load`, and the json around a photo in base64.
PROTOCOLS = {
    "tensorflow": ("/v1/models/load:predict", '{{"inputs": [{{"b64": "{}"}}]}}'),
    "open_inference": (
        "/v2/models/load/infer",
        '{{"inputs": [{{"name": "encoded", "shape": [1], "datatype": "BYTES", "data": ["{}"]}}]}}',
    ),
}


def benchmark(
    model: str,
    *,
    photo: Path | None,
    clients: Sequence[int],
    requests: int,
    protocol: str,
    max_batch: int,
    max_wait_ms: float,
    rounds: int,
) -> dict[str, Any]:
    """Prints the table, and returns its numbers.

    Args:
        model: a detector as `unitbox_tf.load` takes it.
        photo: an image file; without it, noise of 640 x 480 as JPEG.
        clients: numbers of clients at the same time.
        requests: of all clients together, in a round.
        protocol: a name of `PROTOCOLS`.
        max_batch: the option of the server, also the next argument.
        max_wait_ms: in milliseconds.
        rounds: of taking turns.
    """
    if min(clients) < 1 or requests < max(clients):
        raise ValueError(
            f"Expected from 1 client on, and a request for each of them. Received: {list(clients)} "
            f"clients, {requests} requests"
        )
    encoded = photo.read_bytes() if photo else noise()
    path, around = PROTOCOLS[protocol]
    body = around.format(base64.b64encode(encoded).decode()).encode()
    options = ["--max-batch", str(max_batch), "--max-wait-ms", str(max_wait_ms)]
    latencies: dict[str, list[list[float]]] = {BARE: []}
    latencies |= {_clients(count): [] for count in clients}
    with serving(model, *options) as host, _apart() as bare, _apart() as others:

        def call_bare(calls: int = requests) -> None:
            latencies[BARE].append(bare.submit(call_in_loop, model, encoded, calls).result())

        def load(count: int, calls: int = requests) -> None:
            asked = others.submit(ask_at_once, host, path, body, count, calls)
            latencies[_clients(count)].append(asked.result())

        variants: dict[str, Callable[[], object]] = {BARE: call_bare}
        variants |= {_clients(count): functools.partial(load, count) for count in clients}
        call_bare(4)  # makes graphs and memory
        load(min(clients), min(clients))
        for each in latencies.values():
            each.clear()
        seconds = take_turns(variants, rounds)
    return {"rows": _table(latencies, seconds)}


def _clients(count: int) -> str:
    return "1 client" if count == 1 else f"{count} clients"


def noise() -> bytes:
    """A JPEG of 640 x 480, the same each time."""
    pixels = np.random.default_rng(0).integers(0, 256, (*VGA[::-1], 3), np.uint8)
    smooth = cv2.GaussianBlur(pixels, (0, 0), 4)
    return cv2.imencode(".jpg", smooth)[1].tobytes()


def _table(
    latencies: dict[str, list[list[float]]], seconds: dict[str, list[float]]
) -> dict[str, Any]:
    """Prints latencies and throughputs by those of the bare runtime in the same round, and returns them."""
    units = [float(np.median(each)) for each in latencies[BARE]]
    heads = " | ".join(f"latency, {percentile} %" for percentile in PERCENTILES)
    print(f"| | {heads} | throughput |\n|---|{'---|' * (len(PERCENTILES) + 1)}")
    rows: dict[str, Any] = {}
    for name, each in latencies.items():
        ratios = [np.percentile(t, PERCENTILES) / u for t, u in zip(each, units, strict=True)]
        pairs = zip(seconds[BARE], seconds[name], strict=True)
        throughput = float(np.median([bare / own for bare, own in pairs]))
        middle = [float(value) for value in np.median(ratios, axis=0)]
        cells = " | ".join(f"{value:.2f}" for value in middle)
        print(f"| {name} | {cells} | {throughput:.2f} |")
        rows[name] = {
            "latency": dict(zip(map(str, PERCENTILES), middle, strict=True)),
            "throughput": throughput,
            "latency_of_rounds": [list(map(float, ratio)) for ratio in ratios],
        }
    print(f"\nThe unit of latencies is {1000 * float(np.median(units)):.1f} ms here.")
    return rows


@contextlib.contextmanager
def serving(model: str, *options: str) -> Iterator[str]:
    """A server in a process of its own; gives its host and port."""
    command = [sys.executable, "-m", "unitbox_tf", "serve", model, "--port", "0", "--name", "load"]
    command += ["--max-requests", "256", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        line = process.stdout.readline() if process.stdout else ""
        if not line:
            raise OSError("the server did not start; its message stands above")
        yield urllib.parse.urlsplit(line.split()[0]).netloc
    finally:
        process.terminate()
        process.wait()
        if process.stdout:
            process.stdout.close()


@contextlib.contextmanager
def _apart() -> Iterator[ProcessPoolExecutor]:
    """A process for several calls."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        try:
            yield pool
        except KeyboardInterrupt:
            for process in multiprocessing.active_children():  # or the pool would wait for them
                process.terminate()
            raise


_OPENED: dict[str, Any] = {}


def call_in_loop(model: str, encoded: bytes, count: int) -> list[float]:
    """Seconds of each of `count` calls of a detector, which this process opens once."""
    if model not in _OPENED:
        from unitbox_tf import inputs, loading

        detector = loading.open_adjustable(model)

        def find() -> object:
            image = inputs.read_image(encoded, detector.decode_image, detector.decode.max_pixels)
            return detector.detect(image, detector.decode)

        _OPENED[model] = find
    seconds = []
    for _ in range(count):
        start = time.perf_counter()
        _OPENED[model]()
        seconds.append(time.perf_counter() - start)
    return seconds


def ask_at_once(host: str, path: str, body: bytes, clients: int, requests: int) -> list[float]:
    """Seconds of each request, of clients that ask at the same time and share `requests` among them."""
    name, _, port = host.rpartition(":")
    head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(body)}\r\n\r\n".encode()

    async def one(count: int) -> list[float]:
        reader, writer = await asyncio.open_connection(name, int(port))
        seconds = []
        for _ in range(count):
            start = time.perf_counter()
            writer.write(head + body)
            await writer.drain()
            await _read_answer(reader)
            seconds.append(time.perf_counter() - start)
        writer.close()
        await writer.wait_closed()
        return seconds

    async def everybody() -> list[list[float]]:
        counts = [len(part) for part in np.array_split(np.arange(requests), clients)]
        return await asyncio.gather(*map(one, counts))

    return [each for seconds in asyncio.run(everybody()) for each in seconds]


async def _read_answer(reader: asyncio.StreamReader) -> None:
    """Reads an answer. Raises `OSError` if it has no detections."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    length = int(head.partition("content-length:")[2].partition("\r\n")[0])
    answer = await reader.readexactly(length)
    if " 200 " not in head.partition("\r\n")[0]:
        raise OSError(f"the server refused a request: {json.loads(answer)}")
