"""The counts of the server, for Prometheus (library prometheus_client, extra `serve`)."""

from __future__ import annotations

from unitbox_tf import optional

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_COUNTS = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """The counters of one server. Threads may use them at the same time."""

    def __init__(self) -> None:
        """Counters at zero.

        Raises:
            ImportError: prometheus_client is not installed.
        """
        self._library = library = optional.load("prometheus_client", "serve", "the server")
        self._registry = registry = library.CollectorRegistry()
        self._requests = library.Counter(
            "unitbox_requests",
            "Requests that were answered, by protocol and status",
            ["protocol", "status"],
            registry=registry,
        )
        self._seconds = library.Histogram(
            "unitbox_request_seconds",
            "Time from the head of a request to its answer",
            ["protocol"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.in_flight = library.Gauge(
            "unitbox_requests_in_flight",
            "Requests for detections that arrive, wait or are searched",
            registry=registry,
        )
        self.batch_size = library.Histogram(
            "unitbox_batch_size",
            "Photos that the detector searched at once",
            buckets=_COUNTS,
            registry=registry,
        )
        self.search_seconds = library.Histogram(
            "unitbox_search_seconds",
            "Time of the detector for the photos that it searched at once",
            buckets=_SECONDS,
            registry=registry,
        )
        self.decode_failures = library.Counter(
            "unitbox_decode_failures",
            "Photos that could not be decoded, or were too large",
            registry=registry,
        )

    def answered(self, protocol: str, status: int, seconds: float) -> None:
        """Counts a request and its answer."""
        self._requests.labels(protocol, str(status)).inc()
        self._seconds.labels(protocol).observe(seconds)

    def text(self) -> tuple[bytes, str]:
        """All counters in the text format of Prometheus, and its content type."""
        return self._library.generate_latest(self._registry), self._library.CONTENT_TYPE_LATEST
