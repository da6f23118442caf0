"""`unitbox demo`: a page to try a detector on images."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from unitbox_tf import runs
from unitbox_tf.cli import options as cli_options
from unitbox_tf.demo import page as pages
from unitbox_tf.demo import serving, uploads
from unitbox_tf.demo import viewer as viewers
from unitbox_tf.web.hosts import Hosts, is_loopback


def run(options: argparse.Namespace) -> int:
    """Runs the command until a signal comes. It never returns."""
    with uploads.temporary_folder() as folder:
        os.environ["GRADIO_TEMP_DIR"] = str(folder)  # gradio looks for it when it is imported
        return _serve(options, folder)


def _serve(options: argparse.Namespace, folder: Path) -> int:
    pages.import_gradio()  # fails before the detector is loaded
    viewer = viewers.Viewer(options.model, **cli_options.decoding(options))
    name = runs.find(options.model).resolve().name
    kept = uploads.Uploads(folder, round(options.max_upload_mb * 2**20))  # as gradio counts
    page = pages.make_page(viewer, name, kept)
    hosts = Hosts.of(options.host, options.public_host)
    if not is_loopback(options.host):
        print(
            f"unitbox: warning: other machines can reach {options.host} and use the page, which asks for no "
            "password and does not encrypt",
            file=sys.stderr,
        )
    app = serving.application(page, kept, hosts, **pages.look())
    with serving.Server(app, options.host, options.port) as server:
        print(f"{server.url} until Ctrl-C", flush=True)
        server.wait()
    raise OSError("the server ended by itself")
