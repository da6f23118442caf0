"""`unitbox demo`: a page to try a detector on images."""

from __future__ import annotations

import argparse
import ipaddress
import os
import sys
import tempfile

from unitbox_tf import runs
from unitbox_tf.cli import options as cli_options
from unitbox_tf.demo import page as pages
from unitbox_tf.demo import viewer as viewers


def run(options: argparse.Namespace) -> int:
    """Runs the command until Ctrl-C, and returns the exit status."""
    # Only this user can read the folder. It is deleted at the end with all files of gradio. gradio looks
    # for it when it is imported.
    with tempfile.TemporaryDirectory(prefix="unitbox-demo-", ignore_cleanup_errors=True) as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        return _serve(options)


def _serve(options: argparse.Namespace) -> int:
    pages.import_gradio()  # fails before the detector is loaded
    viewer = viewers.Viewer(options.model, **cli_options.decoding(options))
    name = runs.find(options.model).resolve().name
    page = pages.make_page(viewer, name, options.max_upload_mb)
    if not is_loopback(options.host):
        print(
            f"unitbox: warning: other machines can reach {options.host} and use the page, which asks for no "
            "password and does not encrypt",
            file=sys.stderr,
        )
    url = pages.launch(page, options.host, options.port, options.max_upload_mb)
    print(f"{url} until Ctrl-C", flush=True)
    page.block_thread()
    return 0


def is_loopback(host: str) -> bool:
    """True if only this machine can reach the address, or for `localhost`; False for other names."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
