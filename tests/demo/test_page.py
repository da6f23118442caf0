import os
import re
import shutil
import signal
import subprocess
import sys
import types

import pytest

import unitbox_tf
from unitbox_tf import registry
from unitbox_tf.config import DecodeConfig
from unitbox_tf.datasets import synthetic
from unitbox_tf.demo import page as pages
from unitbox_tf.detect import decoders

EXAMPLE_BUTTON = "Try an example image"


def test_the_example_can_be_opened(viewer):
    assert viewer.see(pages.EXAMPLE.read_bytes()).size == (600, 512)


def test_sliders_are_enabled_by_what_the_decoder_reads():
    gr = types.SimpleNamespace(update=lambda *, interactive: interactive)
    once = decoders.Decoder(pytest.fail, ("score_threshold", "max_detections"), (), once=True)
    registry.DECODERS.register("once", once)
    try:
        for scales, name, expected in (
            ((1.0,), "peaks", (True, False)),
            ((1.0,), "ellipse", (False, True)),
            ((1.0, 2.0), "ellipse", (True, True)),
            ((1.0, 2.0), "once", (False, False)),
        ):
            viewer = types.SimpleNamespace(decode=DecodeConfig(scales=scales))
            assert pages._Answers(gr, viewer).applicable(name) == expected
    finally:
        registry.DECODERS.unregister("once")


# Tells of each connection that leaves the machine. Bodies have little time to arrive.
COMMAND = """
import signal, sys
from unitbox_tf import limits
limits.REQUEST_SECONDS = 4
signal.signal(signal.SIGINT, signal.default_int_handler)  # which shells switch off in the background
def watch(event, arguments):
    if event == "socket.connect" and isinstance(arguments[1], tuple):
        if arguments[1][0] not in ("127.0.0.1", "::1", "localhost"):
            print("connects to", arguments[1], file=sys.stderr, flush=True)
sys.addaudithook(watch)
from unitbox_tf import cli
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def served(untrained_run, tmp_path_factory):
    """The page's address, the folder for the server's temporary files, and the file of what it says; ends by Ctrl-C."""
    pytest.importorskip("gradio", reason="needs gradio: the extra demo")
    folder = tmp_path_factory.mktemp("served")
    (folder / "temporary").mkdir()
    environment = {**os.environ, "TMPDIR": str(folder / "temporary")}
    command = [sys.executable, "-c", COMMAND, "demo", str(untrained_run), "--max-upload-mb", "1"]
    with (
        (folder / "errors").open("w") as errors,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment
        ) as server,
    ):
        try:
            line = server.stdout.readline()
            assert line.startswith("http://127.0.0.1:"), (folder / "errors").read_text()
            yield line.split()[0], folder / "temporary", folder / "errors"
            server.send_signal(signal.SIGINT)
            assert server.wait(timeout=60) == 130
        finally:
            server.kill()
    assert not list((folder / "temporary").iterdir())


@pytest.fixture(scope="module")
def browser():
    api = pytest.importorskip("playwright.sync_api", reason="needs playwright: the extra dev")
    names = ("chromium", "chromium-browser", "google-chrome")
    found = next(filter(None, map(shutil.which, names)), None)  # else playwright's own
    with api.sync_playwright() as playwright:
        arguments = ["--no-sandbox"] if getattr(os, "geteuid", lambda: 1)() == 0 else []
        try:
            browser = playwright.chromium.launch(executable_path=found, args=arguments)
        except api.Error as error:
            pytest.skip(f"needs Chromium: apt install chromium, or playwright install: {error}")
        yield browser
        browser.close()


@pytest.fixture
def page(browser, served):
    """The page, opened and ready; fails where anything was asked of another machine."""
    asked = []
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.set_default_timeout(60_000)
    page.on("request", lambda request: asked.append(request.url))
    page.goto(served[0])
    page.get_by_text("Drop an image").wait_for()
    yield page
    context.close()
    outside = [url for url in asked if not url.startswith((served[0], "data:", "blob:"))]
    assert asked
    assert not outside
    assert "connects to" not in served[2].read_text()


def kept_files(served):
    """The names of the files in the folder of the server, but for its lock."""
    [folder] = served[1].glob("unitbox-demo-*")
    return [path.name for path in folder.rglob("*") if path.is_file() and path.name != ".lock"]


def upload(page, name, content):
    page.locator("#drop input[type=file]").set_input_files(
        {"name": name, "mimeType": "image/jpeg", "buffer": content}
    )


def count(page):
    return int(re.match(r"(\d+) found", page.locator(".summary").inner_text()).group(1))


def test_an_image_gets_boxes_that_thresholds_change(page, served, untrained_run):
    encoded = synthetic.draw(0).image
    find = unitbox_tf.load(untrained_run)
    expected = find(encoded)
    upload(page, "an image.png", encoded)
    page.locator(".photo img").wait_for()
    assert count(page) == len(expected) > 1
    assert page.locator(".rows tbody tr").count() == page.locator(".box").count() == len(expected)
    assert "an image.png, 96 x 96 px" in page.locator(".summary").inner_text()
    assert page.locator(".maps img").count() == 5
    image, box = (page.locator(name).last.bounding_box() for name in (".photo img", ".box"))
    assert box["x"] - image["x"] == pytest.approx(expected.boxes[0, 0] / 96 * image["width"], abs=1)
    assert kept_files(served) == []

    threshold = round((1 + float(expected.scores.min())) / 2, 2)
    fewer = len(expected.above(threshold))
    number = page.get_by_label("number input for Score threshold")
    number.fill(str(threshold))
    number.press("Enter")
    page.get_by_text(f"{fewer} found").wait_for()
    assert page.locator(".box").count() == fewer < len(expected)

    blob = page.get_by_label("number input for Blob threshold")
    assert blob.is_disabled()
    page.get_by_label("ellipse").check()
    of_paper = unitbox_tf.load(untrained_run, decoder="ellipse", score_threshold=threshold)(encoded)
    page.get_by_text(f"{len(of_paper)} found").wait_for()
    page.wait_for_function(
        "document.querySelector('[aria-label=\"number input for Blob threshold\"]').disabled == false"
    )


def test_a_corrupt_file_is_named_and_the_page_goes_on(page):
    upload(page, "notes.jpg", b"no image at all")
    message = page.get_by_role("alert").filter(has_text="notes.jpg")
    message.wait_for()
    text = "notes.jpg: expected a JPEG, PNG, BMP, GIF, TIFF or WebP image, which these 15 bytes are not"
    assert message.inner_text() == text
    page.get_by_role("button", name=EXAMPLE_BUTTON).click()
    page.locator(".photo img").wait_for()
    assert page.locator(".fault").count() == 0
    assert count(page) > 0


def test_a_file_that_is_too_large_is_refused(page, served):
    upload(page, "large.jpg", bytes(2**20 + 1))
    page.get_by_text("exceed the maximum allowed size").wait_for()
    file = {"name": "large.jpg", "mimeType": "image/jpeg", "buffer": bytes(2**21)}
    answer = page.request.post(f"{served[0]}gradio_api/upload", multipart={"files": file})
    assert answer.status == 413
    upload(page, "b.png", synthetic.draw(1).image)
    page.locator(".photo img").wait_for()


def test_the_page_fits_a_phone(page):
    page.set_viewport_size({"width": 375, "height": 700})
    upload(page, "a.png", synthetic.draw(0).image)
    page.locator(".maps img").first.wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= 375
    image, settings = (page.locator(name).bounding_box() for name in (".photo", "#settings"))
    assert image["y"] < settings["y"]
