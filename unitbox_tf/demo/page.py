"""The page itself, made with gradio (extra `demo`), which is imported when a page is made."""

from __future__ import annotations

import dataclasses
import functools
import html
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from unitbox_tf import images, optional, registry
from unitbox_tf.config import DecodeConfig
from unitbox_tf.demo.drawing import (
    FOUND,
    NOTHING,
    Html,
    error_html,
    image_html,
    maps_html,
    summary_html,
    table_html,
)
from unitbox_tf.demo.style import STYLE
from unitbox_tf.demo.uploads import Uploads
from unitbox_tf.demo.viewer import Seen, Viewer

# Grace Hopper, photo by the US Navy, in the public domain.
EXAMPLE = Path(__file__).parents[1] / "demo_example.jpg"

SESSIONS = 8  # sessions whose images are kept in memory, so that sliders need not read them again
SESSION_SECONDS = 3600
WAITING = 16  # largest number of visitors in the queue for the network

# One image or slider at a time has the network and the cores.
_ALONE = {"concurrency_limit": 1, "concurrency_id": "network", "api_visibility": "private"}


def make_page(viewer: Viewer, name: str, uploads: Uploads) -> Any:
    """The page, a `gradio.Blocks`.

    Args:
        viewer: searches the images.
        name: the name of the detector, for the title.
        uploads: where the server puts images.

    Raises:
        ImportError: gradio is not installed.
    """
    gr = import_gradio()
    with gr.Blocks(title=f"UnitBox: {name}", analytics_enabled=False) as page:
        session = gr.State(None, time_to_live=SESSION_SECONDS)
        gr.HTML(
            f'<div class="intro"><h1>UnitBox: {html.escape(name)}</h1><p class="note">Images go to the '
            "machine that serves this page and no further. No image is kept.</p></div>"
        )
        answers = _Answers(gr, viewer)
        pixels = viewer.decode.max_pixels / 1e6
        most = f"up to {uploads.largest / 2**20:g} MB and {pixels:g} million pixels"
        label = f"{images.names_of_formats()}, {most}"
        upload = functools.partial(_upload_element, gr, uploads.take, label=label)
        elements = _lay_out(gr, session, viewer.decode, upload, answers)
        _connect(gr, elements, answers)
    page.state_session_capacity = SESSIONS
    return page.queue(max_size=WAITING, api_open=False)


def _upload_element(gr: Any, take: Callable[[str], tuple[str, bytes]], **look: Any) -> Any:
    """An element for one file. Its value is the name and the bytes of the file, which is deleted.

    gradio's own value is a path, and an empty temporary file that stays. A class of our own would be the usual way, but
    gradio writes a file beside the source of each such class.
    """
    element = gr.File(**look)

    async def stay(path: Any) -> Any:
        return path  # copies nothing and loads nothing: `take` knows which paths are uploads

    def read(payload: Any) -> tuple[str, bytes] | None:
        if payload is None:
            return None
        try:
            return take(payload.path)
        except LookupError:
            text = "The image has been deleted. Please drop it again."
            raise gr.Error(text, print_exception=False) from None

    element.async_move_resource_to_block_cache = stay
    element.preprocess = read
    return element


@dataclasses.dataclass(frozen=True)
class _Answers:
    """The answers of the page to events of its visitors. Results go into its elements.

    Attributes:
        gr: the module gradio.
    """

    gr: Any
    viewer: Viewer

    def uploaded(self, image: tuple[str, bytes] | None, *settings: Any) -> tuple[Any, ...]:
        """Searches an image that was uploaded."""
        if image is None:
            return (self.gr.skip(),) * 7
        return None, *self.search(*image, *settings)

    def example(self, *settings: Any) -> tuple[Any, ...]:
        """Searches the example."""
        return self.search(EXAMPLE.name, EXAMPLE.read_bytes(), *settings)

    def search(
        self, name: str, encoded: bytes, index: int, everywhere: bool, *settings: Any
    ) -> tuple[Any, ...]:
        """The session of an image, its summary, boxes and table, and its heatmaps at scale number `index`."""
        try:
            seen = self.viewer.see(encoded)
        except images.UNREADABLE as error:
            hidden = self.gr.update(visible=False)
            return None, error_html(f"{name}: {error}"), NOTHING, "", hidden, ""
        shown = self._decoded(name, seen, *settings)
        drawn = maps_html(seen, index, everywhere)
        return (name, seen), *shown, self.gr.update(visible=True), drawn

    def changed(self, session: tuple[str, Seen] | None, *settings: Any) -> tuple[Any, ...]:
        """The detections in the image with other settings."""
        return self._decoded(*session, *settings) if session else (self.gr.skip(),) * 3

    def redrawn(self, session: tuple[str, Seen] | None, index: int, everywhere: bool) -> Any:
        """The heatmaps at another scale."""
        return maps_html(session[1], index, everywhere) if session else self.gr.skip()

    def applicable(self, decoder: str) -> tuple[Any, Any]:
        """Enables the sliders of NMS and of blobs if they have an effect."""
        facts = registry.DECODERS[decoder]
        repeated = not facts.once or len(self.viewer.decode.scales) > 1
        return (
            self.gr.update(interactive=repeated and "nms_iou" in facts.options),
            self.gr.update(interactive="blob_threshold" in facts.options),
        )

    def _decoded(
        self, name: str, seen: Seen, decoder: str, score: float, iou: float, blob: float
    ) -> tuple[Html, Html, Html]:
        decode = dataclasses.replace(
            self.viewer.decode,
            decoder=decoder,
            score_threshold=score,
            nms_iou=iou,
            blob_threshold=blob,
        )
        start = time.perf_counter()
        found = self.viewer.find(seen, decode)
        elapsed = 1e3 * (time.perf_counter() - start)
        names = self.viewer.class_names
        return (
            summary_html(name, seen, found, elapsed),
            image_html(seen, found, names),
            table_html(found, names),
        )


@dataclasses.dataclass(frozen=True)
class _Elements:
    """The elements of the page that events come from or go to."""

    session: Any
    upload: Any
    example: Any
    results: list[Any]  # summary, image, table
    settings: list[Any]  # decoder, score, iou, blob
    heatmaps: Any
    scale: Any
    everywhere: Any
    maps: Any


def _lay_out(
    gr: Any, session: Any, decode: DecodeConfig, make_upload: Callable[..., Any], answers: _Answers
) -> _Elements:
    with gr.Column(elem_id="bench"):
        with gr.Column(elem_id="drop"):
            upload = make_upload(file_types=sorted(images.IMAGE_SUFFIXES), height=170)
            example = gr.Button("Try an example image", size="sm")
            summary = gr.HTML()
        with gr.Column(elem_id="photo"):
            image = gr.HTML(NOTHING)
            table = gr.HTML()
        with gr.Column(elem_id="settings"):
            settings = _settings(gr, decode, answers)
    with gr.Column(visible=False) as heatmaps:
        gr.HTML('<div class="intro"><h2>What the network says about each pixel</h2></div>')
        with gr.Row():
            scale = gr.Radio(
                [(f"x {value:g}", index) for index, value in enumerate(decode.scales)],
                value=int(np.argmax(decode.scales)),
                label="Scale at which the network sees the image",
                visible=len(decode.scales) > 1,
            )
            everywhere = gr.Checkbox(
                label="All distances",
                info=f"also at pixels with a confidence below {FOUND:g}, where they mean little",
                container=True,
            )
        maps = gr.HTML()
    results = [summary, image, table]
    return _Elements(session, upload, example, results, settings, heatmaps, scale, everywhere, maps)


def _settings(gr: Any, decode: DecodeConfig, answers: _Answers) -> list[Any]:
    """The elements of the settings, which start at the detector's settings."""
    decoder = gr.Radio(
        list(registry.DECODERS),
        value=decode.decoder,
        label="Decoder",
    )
    suppressed, blobs = answers.applicable(decode.decoder)
    score = gr.Slider(
        0,
        1,
        decode.score_threshold,
        step=0.01,
        label="Score threshold",
        info="lowest score of a detection",
    )
    iou = gr.Slider(
        0,
        1,
        decode.nms_iou,
        step=0.01,
        label="NMS IoU",
        info="if two boxes overlap more, only the better one is kept",
        interactive=suppressed["interactive"],
    )
    blob = gr.Slider(
        0.01,
        0.99,
        decode.blob_threshold,
        step=0.01,
        label="Blob threshold",
        info="lowest confidence of a pixel of a blob",
        interactive=blobs["interactive"],
    )
    return [decoder, score, iou, blob]


def _connect(gr: Any, page: _Elements, answers: _Answers) -> None:
    """Connects the events of elements to their answers."""
    _, image, _ = page.results
    decoder, _, iou, blob = page.settings
    given = [page.scale, page.everywhere, *page.settings]
    shown = [page.session, *page.results, page.heatmaps, page.maps]
    page.upload.upload(
        answers.uploaded,
        [page.upload, *given],
        [page.upload, *shown],
        show_progress_on=image,
        **_ALONE,
    )
    page.example.click(answers.example, given, shown, show_progress_on=image, **_ALONE)
    # Only the last of several moves of a slider is answered.
    last = {"show_progress": "hidden", "trigger_mode": "always_last", **_ALONE}
    gr.on(
        [setting.change for setting in page.settings],
        answers.changed,
        [page.session, *page.settings],
        page.results,
        **last,
    )
    gr.on(
        [page.scale.change, page.everywhere.change],
        answers.redrawn,
        [page.session, page.scale, page.everywhere],
        page.maps,
        **last,
    )
    decoder.change(answers.applicable, decoder, [iou, blob], api_visibility="private")


def import_gradio() -> Any:
    """The module gradio. If it is not installed, an `ImportError` names the extra."""
    return optional.load("gradio", "demo", "the page")


def look() -> dict[str, Any]:
    """The colours and fonts of the page, as arguments of gradio."""
    gr = import_gradio()
    # Fonts of the system: gradio's own come from the network.
    theme = gr.themes.Default(
        font=("system-ui", "sans-serif"), font_mono=("ui-monospace", "monospace")
    ).set(
        body_text_color_subdued="*neutral_600", block_info_text_color="*neutral_600"
    )  # the default grey is hard to read
    return {"css": STYLE, "theme": theme}
