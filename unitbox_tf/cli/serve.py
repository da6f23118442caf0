"""`unitbox serve`: a detector for programs on other machines."""

from __future__ import annotations

import argparse
import sys

import unitbox_tf
from unitbox_tf import loading
from unitbox_tf.cli import options as cli_options
from unitbox_tf.serve import server
from unitbox_tf.serve.application import Bounds
from unitbox_tf.web.hosts import is_loopback


def run(options: argparse.Namespace) -> int:
    """Runs the command until a signal comes. It never returns."""
    server.check_libraries()  # before the detector is loaded
    name = server.checked_name(options.name) if options.name else server.name_of(options.model)
    decode = cli_options.decoding(options)
    detector = loading.open_adjustable(options.model, trust=options.trust, **decode)
    if not is_loopback(options.host):
        print(
            f"unitbox: warning: other machines can reach {options.host} and use the detector, which asks for no "
            "password and does not encrypt",
            file=sys.stderr,
        )
    with server.Server(
        detector,
        name,
        unitbox_tf.__version__,
        host=options.host,
        port=options.port,
        public_hosts=options.public_host,
        max_photos=options.max_photos,
        bounds=Bounds(round(options.max_request_mb * 2**20), options.max_requests),
        max_batch=options.max_batch,
        max_wait=options.max_wait_ms / 1000,
    ) as serving:
        print(f"{serving.url} serves {name} until Ctrl-C", flush=True)
        serving.wait()
    raise OSError("the server ended by itself")
