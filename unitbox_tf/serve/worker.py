"""Searches the photos of all requests, in one thread: the detector has the cores to itself."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from typing import NamedTuple

import numpy as np

from unitbox_tf import image_headers, images, inputs
from unitbox_tf.config import DecodeConfig
from unitbox_tf.formats import Exported
from unitbox_tf.records import Detections
from unitbox_tf.serve.metrics import Metrics


class _Job(NamedTuple):
    photo: bytes | np.ndarray
    decode: DecodeConfig
    found: Future[Detections]


class Worker:
    """A queue of photos, and the thread that searches them, oldest first.

    With `max_batch` 1, each photo is searched alone, and gives what the detector gives for it. With more, photos of one
    size and the same settings that wait at the same time go through the network together. This pays on a GPU. Rounding
    may then depend on the other photos, in the last digits.
    """

    def __init__(
        self,
        detector: Exported,
        metrics: Metrics,
        *,
        max_batch: int = 1,
        max_wait: float = 0.0,
    ) -> None:
        """Starts the thread.

        Args:
            detector: searches the photos.
            metrics: counts them.
            max_batch: the largest number of photos that are searched together.
            max_wait: seconds to wait for more photos when there are fewer.
        """
        self._detector, self._metrics = detector, metrics
        self._max_batch, self._max_wait = max_batch, max_wait
        self._queue: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def submit(self, photo: bytes | np.ndarray, decode: DecodeConfig) -> Future[Detections]:
        """The detections in a photo, when it has been searched. Cancelled, it is not searched if it still waits.

        Its errors are those of `Detector.__call__`.
        """
        found: Future[Detections] = Future()
        self._queue.put(_Job(photo, decode, found))
        return found

    def close(self, seconds: float) -> None:
        """Ends the thread after the photos that wait, or returns after so many seconds."""
        self._queue.put(None)
        self._thread.join(seconds)

    def _work(self) -> None:
        while (job := self._queue.get()) is not None:
            batch = [job, *self._more()]
            with self._failing(batch):
                self._search(batch)

    def _more(self) -> Iterator[_Job]:
        """Photos that wait, or come while `max_wait` passes, for a batch that has one."""
        deadline = time.monotonic() + self._max_wait
        for _ in range(self._max_batch - 1):
            try:
                job = self._queue.get(timeout=max(deadline - time.monotonic(), 0))
            except queue.Empty:
                return
            if job is None:
                self._queue.put(None)
                return
            yield job

    def _search(self, batch: list[_Job]) -> None:
        """Decodes the photos and searches them. In memory are at most `max_pixels` of them, or one."""
        most = self._detector.decode.max_pixels
        read: list[tuple[_Job, np.ndarray]] = []
        for job in batch:
            if not job.found.set_running_or_notify_cancel():
                continue
            with self._failing([job]):
                image = self._read(job.photo)
                pixels = sum(other.shape[0] * other.shape[1] for _, other in read)
                if read and pixels + image.shape[0] * image.shape[1] > most:
                    self._detect(read)
                    read = []
                read.append((job, image))
        self._detect(read)

    def _read(self, photo: bytes | np.ndarray) -> np.ndarray:
        try:
            most = self._detector.decode.max_pixels
            image = inputs.read_image(photo, self._detector.decode_image, most)
            image_headers.check_size(image.shape[:2], most)
        except images.UNREADABLE:
            self._metrics.decode_failures.inc()
            raise
        return image

    def _detect(self, read: list[tuple[_Job, np.ndarray]]) -> None:
        """Searches images: those of one size and the same settings together."""
        groups: dict[object, list[tuple[_Job, np.ndarray]]] = {}
        for job, image in read:
            groups.setdefault((image.shape, job.decode), []).append((job, image))
        together = self._detector.detect_batch
        for group in groups.values():
            if together is None or len(group) == 1:
                self._detect_alone(group)
                continue
            jobs, pictures = zip(*group, strict=True)
            try:
                with self._timed(len(group)):
                    found = together(np.stack(pictures), jobs[0].decode)
            except Exception:  # such as memory, which may suffice for one
                self._detect_alone(group)
                continue
            for job, each in zip(jobs, found, strict=True):
                job.found.set_result(each)

    def _detect_alone(self, group: list[tuple[_Job, np.ndarray]]) -> None:
        for job, image in group:
            with self._failing([job]):
                with self._timed(1):
                    found = self._detector.detect(image, job.decode)
                job.found.set_result(found)

    @contextlib.contextmanager
    def _timed(self, count: int) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self._metrics.batch_size.observe(count)
        self._metrics.search_seconds.observe(time.perf_counter() - start)

    @contextlib.contextmanager
    def _failing(self, jobs: list[_Job]) -> Iterator[None]:
        """An error within goes to those who wait for the jobs. The thread goes on."""
        try:
            yield
        except BaseException as error:
            for job in jobs:
                if not job.found.done():
                    job.found.set_exception(error)
