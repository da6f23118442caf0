"""Opens a detector and serves it."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from unitbox_tf import images, optional, runs
from unitbox_tf.formats import Exported
from unitbox_tf.serve.application import Application, Bounds
from unitbox_tf.serve.metrics import Metrics
from unitbox_tf.serve.question import Model
from unitbox_tf.serve.worker import Worker
from unitbox_tf.web import server
from unitbox_tf.web.hosts import Hosts

ENDING_SECONDS = 8  # for answers that are under way; Docker kills after 10
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


def check_libraries() -> None:
    """Raises `ImportError`, which names the extra, if a library of the server is not installed."""
    optional.load("uvicorn", "serve", "the server")
    optional.load("prometheus_client", "serve", "the server")


def name_of(path: str) -> str:
    """The name of a detector in the server's paths, from its own name or path.

    Raises:
        ValueError: it has signs that cannot stand there.
    """
    found: Path = runs.find(path).resolve()
    return checked_name(found.name if found.is_dir() else found.stem)


def checked_name(name: str) -> str:
    """`name`, if it can stand in a path. Raises `ValueError` if it cannot."""
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"Expected a name of letters, digits, '_', '.' and '-' for the detector. Received: {name!r}; choose one "
            "with --name"
        )
    return name


def _warm_up(detector: Exported) -> None:
    """Decodes and searches an image, with the detector's settings and with others, so that graphs are made now."""
    decode = detector.decode
    encoded = images.encode_png(np.zeros((32, 32, 3), np.uint8))
    image = np.asarray(detector.decode_image(encoded, decode.max_pixels))
    other = dataclasses.replace(decode, max_detections=decode.max_detections % 2 + 1)
    for settings in (decode, other):
        detector.detect(image, settings)


class Server(server.Server):
    """Serves a detector. A context manager, which ends it: first the answers that are under way."""

    def __init__(
        self,
        detector: Exported,
        name: str,
        version: str,
        *,
        host: str,
        port: int,
        public_hosts: Iterable[str] = (),
        max_photos: int,
        bounds: Bounds,
        max_batch: int = 1,
        max_wait: float = 0.0,
    ) -> None:
        """Starts to listen when the detector has searched its first images.

        Args:
            detector: see `loading.open_adjustable`.
            name: its name in paths.
            version: the version of this package, for clients that ask.
            host: the address to listen at.
            port: the port to listen at; 0 is any that is free.
            public_hosts: further names that requests may be for.
            max_photos: the largest number of photos in a request.
            bounds: of requests.
            max_batch: see `Worker`, also for the next argument.
            max_wait: in seconds.

        Raises:
            OSError: the port is taken, or there is no such address here.
            ImportError: a library of the server is not installed.
        """
        uvicorn = optional.load("uvicorn", "serve", "the server")
        metrics = Metrics()
        _warm_up(detector)
        facts = checked_name(name), detector.decode, detector.options, max_photos, version
        self._worker = Worker(detector, metrics, max_batch=max_batch, max_wait=max_wait)
        app = Application(
            Model(*facts), self._worker, Hosts.of(host, public_hosts), bounds, metrics
        )
        super().__init__(app, host, [port], uvicorn=uvicorn, ending_seconds=ENDING_SECONDS)

    def close(self) -> None:
        """Stops to listen, ends the answers that are under way, within `ENDING_SECONDS`, and ends the worker."""
        super().close()
        # Photos that wait are cancelled by now. A runtime whose thread is at work would abort the process at its end.
        self._worker.close(ENDING_SECONDS)

    def __exit__(self, *error: Any) -> None:
        self.close()
