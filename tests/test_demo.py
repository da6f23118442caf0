import dataclasses
import io
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

import unitbox_tf
from tests.train.test_pipeline import exif_jpeg
from unitbox_tf import cli, config, demo, runs, visualize
from unitbox_tf.cli.demo import is_loopback
from unitbox_tf.datasets import synthetic
from unitbox_tf.detect import detector
from unitbox_tf.records import Detections

SCALES = {"scales": (0.5, 1.0), "largest_object": 30.0}


@pytest.fixture(scope="module")
def viewer(untrained_run):
    return demo.Viewer(untrained_run, **SCALES)


def seen_of(confidence, distances, size):
    photo = np.full((*size, 3), 128, np.uint8)
    maps = {"confidence": np.float32(confidence)[None], "distances": np.float32(distances)[None]}
    return demo.Seen(size, photo, (maps,), 0.0, 0.0)


@pytest.mark.parametrize("decoder", ["peaks", "ellipse"])
def test_settings_give_what_the_detector_finds_with_them(viewer, untrained_run, decoder):
    of_run = config.load(untrained_run / runs.CONFIG_FILE)
    model = detector.load_model(untrained_run, of_run)
    encoded = synthetic.draw(0).image
    seen = viewer.see(encoded, 10**6)
    everything = dataclasses.replace(viewer.decode, decoder=decoder, score_threshold=0.0)
    median = float(np.median(viewer.find(seen, everything).scores))
    counts = []
    for changes in (
        {},
        {"score_threshold": median},
        {"nms_iou": 0.9, "blob_threshold": 0.45},
        {"nms_iou": 0.1, "blob_threshold": 0.45},
    ):
        decode = dataclasses.replace(everything, **changes)
        find = detector.from_model(model, dataclasses.replace(of_run, decode=decode))
        expected, found = find(encoded), viewer.find(seen, decode)
        np.testing.assert_allclose(found.boxes, expected.boxes, atol=1e-3)
        np.testing.assert_allclose(found.scores, expected.scores, atol=1e-5)
        np.testing.assert_array_equal(found.classes, expected.classes)
        assert found.image_size == expected.image_size
        counts.append(len(found))
    assert counts[1] < counts[0]
    assert decoder == "ellipse" or counts[3] < counts[2]  # blobs of one scale do not overlap


def test_a_photo_is_seen_as_it_is_displayed(viewer):
    image = np.zeros((40, 60, 3), np.uint8)
    seen = viewer.see(exif_jpeg(image, 6, "big"), 10**6)
    assert seen.size == seen.photo.shape[:2] == (60, 40)
    assert [maps["confidence"].shape[1:3] for maps in seen.maps] == [(30, 20), (60, 40)]


def test_a_large_photo_is_shown_smaller(viewer):
    encoded = cv2.imencode(".png", np.zeros((10, 2400, 3), np.uint8))[1].tobytes()
    seen = viewer.see(encoded, 10**6)
    assert seen.size == (10, 2400)
    assert seen.photo.shape == (5, 1200, 3)


def png_header(width, height):
    """A PNG of some 70 bytes that states this size."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def test_a_photo_with_too_many_pixels_is_refused_before_it_is_decoded(viewer, monkeypatch):
    monkeypatch.setattr(demo.images, "decode_photo", lambda encoded: pytest.fail("decoded"))
    expected = "expected a photo of at most 12 million pixels. Received: "
    with pytest.raises(ValueError, match=f"{expected}4001 x 3000, 12.0 million"):
        viewer.see(png_header(4001, 3000), 12_000_000)
    with pytest.raises(ValueError, match=expected):
        viewer.see(png_header(60000, 60000), 12_000_000)


def encoded_as(form):
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, form)
    return file.getvalue()


@pytest.mark.parametrize("encoded", [b"", b"some text", encoded_as("GIF"), encoded_as("TIFF")])
def test_what_is_no_jpeg_or_png_is_named(viewer, encoded):
    message = f"^expected a JPEG or PNG photo, which these {len(encoded)} bytes are not$"
    with pytest.raises(ValueError, match=message):
        viewer.see(encoded, 10**6)


def test_a_photo_that_ends_early_is_named(viewer):
    encoded = exif_jpeg(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8), 1, "big")
    with pytest.raises(ValueError, match=r"expected a JPEG or PNG photo, which these \d+ bytes"):
        viewer.see(encoded[: len(encoded) // 2], 10**6)


def test_maps_are_probabilities_and_pixels_of_the_photo():
    logits = np.zeros((2, 4, 2))
    logits[0, 1, 1] = np.log(3)  # a probability of 3/4
    seen = seen_of(logits, np.ones((2, 4, 4)) * [1, 2, 3, 4], (6, 8))  # 3 times as high, 2 as wide
    confidence = demo.confidence_map(seen, 0)
    assert confidence[0, 1] == pytest.approx(0.75)
    assert confidence[1, 1] == pytest.approx(0.5)
    np.testing.assert_allclose(demo.distance_maps(seen, 0)[0, 0], [3, 6, 6, 8])


def test_distances_have_the_colours_of_their_scale_where_something_is():
    logits = np.full((40, 40, 1), -9.0)
    logits[:, 20:] = 9.0
    seen = seen_of(logits, np.ones((40, 40, 4)) * [10, 20, 30, 40], (40, 40))
    pictures, highest = demo.draw_distances(seen, 0)
    assert highest == 40
    for picture, distance in zip(pictures, (10, 20, 30, 40), strict=True):
        colour = visualize.heatmap(np.full((1, 1), distance, np.float32), 0, 40)[0, 0]
        np.testing.assert_array_equal(picture[20, 30], colour)
        assert len(set(picture[20, 10].tolist())) == 1  # grey
    pictures, _ = demo.draw_distances(seen, 0, everywhere=True)
    assert len(set(pictures[0][20, 10].tolist())) > 1


def test_a_map_without_anything_says_so():
    seen = seen_of(np.full((4, 4, 1), -9.0), np.ones((4, 4, 4)), (4, 4))
    assert "No pixel has a confidence of 0.5 or more" in demo.maps_html(seen, 0)
    assert "No pixel" not in demo.maps_html(seen, 0, everywhere=True)


def test_names_are_text_and_no_part_of_the_page():
    seen = seen_of(np.zeros((4, 4, 2)), np.ones((4, 4, 4)), (4, 4))
    found = Detections(np.float32([[0, 0, 2, 2]]), np.float32([0.5]), np.int32([1]), (4, 4))
    names = ("a", "<script>")
    pages = (
        demo.summary_html("<script>.jpg", seen, found, 1.0),
        demo.photo_html(seen, found, names),
        demo.table_html(found, names),
        demo.error_html("<script>.jpg: expected a photo"),
    )
    for page in pages:
        assert "&lt;script&gt;" in page
        assert "<script" not in page


def test_boxes_stand_where_the_table_says():
    seen = seen_of(np.zeros((4, 4, 1)), np.ones((4, 4, 4)), (50, 200))
    found = Detections(np.float32([[20, 10, 60, 35]]), np.float32([0.5]), np.int32([0]), (50, 200))
    style = "left: 10.00%; top: 20.00%; width: 20.00%; height: 50.00%"
    assert style in demo.photo_html(seen, found, ("face",))
    assert "<td>20.0</td><td>10.0</td><td>60.0</td><td>35.0</td>" in demo.table_html(
        found, ("face",)
    )


def test_the_example_can_be_opened(viewer):
    assert viewer.see(demo.EXAMPLE.read_bytes(), 10**6).size == (600, 512)


def test_folders_without_a_run_are_named(untrained_run, tmp_path):
    for folder in (untrained_run / "saved_model", tmp_path / "gone"):
        with pytest.raises(ValueError, match=f"{folder.name}: expected the folder of a run"):
            demo.Viewer(folder)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.0.2", False),
        ("localhost.example.org", False),
    ],
)
def test_the_loopback_is_known(host, expected):
    assert is_loopback(host) is expected


def test_a_missing_gradio_is_named_with_its_extra(untrained_run, monkeypatch, capsys):
    monkeypatch.setenv("GRADIO_TEMP_DIR", "")  # set by the command
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert cli.main(["demo", str(untrained_run)]) == 1
    assert "pip install 'unitbox_tf[demo]'" in capsys.readouterr().err


def test_limits_are_above_zero(untrained_run, capsys):
    for option in ("--max-upload-mb", "--max-megapixels"):
        assert cli.main(["demo", str(untrained_run), option, "0"]) == 1
        assert f"Expected {option} above 0. Received: 0" in capsys.readouterr().err


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_the_command_warns_where_others_can_reach_it(viewer, host, monkeypatch, capsys):
    pytest.importorskip("gradio", reason="needs gradio: the extra demo")
    served = []

    def launch(page, *arguments):
        served.append(arguments)
        monkeypatch.setattr(page, "block_thread", lambda: None)
        return "http://address/"

    monkeypatch.setenv("GRADIO_TEMP_DIR", "")
    monkeypatch.setattr(demo, "Viewer", lambda *arguments, **options: viewer)
    monkeypatch.setattr(demo, "launch", launch)
    assert cli.main(["demo", "faces", "--host", host, "--port", "7", "--max-upload-mb", "3"]) == 0
    assert served == [(host, 7, 3.0)]
    printed = capsys.readouterr()
    assert "http://address/" in printed.out
    assert ("0.0.0.0 is not the loopback" in printed.err) == (host == "0.0.0.0")


# Tells of each connection that leaves the machine.
COMMAND = """
import signal, sys
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
            assert server.wait(timeout=60) == 0
        finally:
            server.kill()
    assert not list((folder / "temporary").glob("unitbox-demo-*"))


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
    page.get_by_text("Drop a photo").wait_for()
    yield page
    context.close()
    outside = [url for url in asked if not url.startswith((served[0], "data:", "blob:"))]
    assert asked
    assert not outside
    assert "connects to" not in served[2].read_text()


def upload(page, name, content):
    page.locator("#drop input[type=file]").set_input_files(
        {"name": name, "mimeType": "image/jpeg", "buffer": content}
    )


def count(page):
    return int(re.match(r"(\d+) found", page.locator(".summary").inner_text()).group(1))


def test_a_photo_gets_boxes_that_thresholds_change(page, served, untrained_run):
    encoded = synthetic.draw(0).image
    find = unitbox_tf.load(untrained_run)
    expected = find(encoded)
    upload(page, "a photo.png", encoded)
    page.locator(".photo img").wait_for()
    assert count(page) == len(expected) > 1
    assert page.locator(".rows tbody tr").count() == page.locator(".box").count() == len(expected)
    assert "a photo.png, 96 x 96 px" in page.locator(".summary").inner_text()
    assert page.locator(".maps img").count() == 5
    photo, box = (page.locator(name).last.bounding_box() for name in (".photo img", ".box"))
    assert box["x"] - photo["x"] == pytest.approx(expected.boxes[0, 0] / 96 * photo["width"], abs=1)
    uploads = list(served[1].glob("unitbox-demo-*/**/*"))
    assert uploads
    assert not [path for path in uploads if path.is_file() and path.stat().st_size]  # none is kept

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
    upload(page, "notes.jpg", b"no photo at all")
    message = page.get_by_role("alert").filter(has_text="notes.jpg")
    message.wait_for()
    text = "notes.jpg: expected a JPEG or PNG photo, which these 15 bytes are not"
    assert message.inner_text() == text
    page.get_by_role("button", name="Try an example photo").click()
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
    photo, settings = (page.locator(name).bounding_box() for name in (".photo", "#settings"))
    assert photo["y"] < settings["y"]
