"""The page of `unitbox demo`: a photo in; boxes, heatmaps and timings out.

The photo is searched on the machine that serves the page, and forgotten: its file is deleted as soon
as it is read, pictures reach the browser inside the page, and the page asks for nothing elsewhere.

Made with gradio (extra `demo`), which is imported where a page is made.
"""

from __future__ import annotations

import base64
import dataclasses
import html
import io
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tensorflow as tf
from PIL import Image

from unitbox_tf import config as configs
from unitbox_tf import images, runs, visualize
from unitbox_tf.config import DecodeConfig
from unitbox_tf.detect import decoders, detector, graph, padding
from unitbox_tf.records import Detections

# Grace Hopper, photo by the US Navy, in the public domain.
EXAMPLE = Path(__file__).with_name("demo_example.jpg")

PHOTO_SIDE = 1200  # px; long side of the photo on the page, at most
MAP_SIDE = 560  # px; long side of heatmaps on the page
JPEG_QUALITY = 90
FOUND = 0.5  # confidence from which a pixel counts as one of an object, and its distances are shown
SIDES = ("top", "bottom", "left", "right")  # the order of `tblr`

SESSIONS = 8  # whose photos are kept in memory at a time, so that sliders need not read them again
SESSION_SECONDS = 3600
CROWD = 40  # more boxes have their scores shown where the mouse is only
WAITING = 16  # visitors in the queue for the network, at most
CACHE_SECONDS = 300  # age at which what was uploaded and never asked for is deleted

Html = str


@dataclasses.dataclass(frozen=True)
class Seen:
    """What is kept of a photo: what the network says of it, which thresholds do not change.

    Attributes:
        size: height and width of the photo, in pixels.
        photo: RGB uint8 `[H, W, 3]`, shrunk to `PHOTO_SIDE`.
        maps: what the model predicts at each scale: `confidence` logits `[1, h, w, C]`, `distances`
            `[1, h, w, 4]` in pixels of these maps.
        reading: how long the photo took to be decoded, in ms.
        network: how long the network took for it, in ms.
    """

    size: tuple[int, int]
    photo: np.ndarray
    maps: tuple[dict[str, np.ndarray], ...]
    reading: float
    network: float


class Viewer:
    """A detector whose heatmaps are kept apart from their decoding, so that this can be repeated.

    Attributes:
        decode: the settings of the run.
        class_names: of the model.
    """

    def __init__(self, run: Path, **decode: Any) -> None:
        """Opens the detector of the folder `run`, or of that published name; `decode` as in `detector.load`.

        Raises:
            ValueError: the folder holds no run, or an exported SavedModel, whose decoding is fixed.
        """
        folder = runs.find(run)
        if not (folder / runs.CONFIG_FILE).is_file():
            raise ValueError(
                f"{folder}: expected the folder of a run (with {runs.CONFIG_FILE}) or a published name"
                + ("" if folder.exists() else "; it does not exist")
            )
        config = configs.load(folder / runs.CONFIG_FILE)
        config = dataclasses.replace(config, decode=dataclasses.replace(config.decode, **decode))
        self.decode, self.class_names = config.decode, config.model.class_names
        model = detector.load_model(folder, config)
        self._module = graph.InferenceModule(model, self.decode)
        # Graphs are traced now, not with the first photo, whose times are shown.
        blank = cv2.imencode(".png", np.zeros((64, 64, 3), np.uint8))[1].tobytes()
        self.find(self.see(blank, max_pixels=64 * 64), self.decode)

    def _predict(self, image: np.ndarray) -> tuple[dict[str, np.ndarray], ...]:
        scales = [self._module.heatmaps_at(image[None], scale) for scale in self.decode.scales]
        return tuple({name: value.numpy() for name, value in maps.items()} for maps in scales)

    def see(self, encoded: bytes, max_pixels: int) -> Seen:
        """Runs the network on an encoded photo.

        Raises:
            ValueError: it is no JPEG or PNG photo, or has more than `max_pixels`.
        """
        start = time.perf_counter()
        check_size(encoded, max_pixels)
        image = images.decode_photo(encoded).numpy()
        read = time.perf_counter()
        maps = self._predict(image)
        predicted = time.perf_counter()
        size = (image.shape[0], image.shape[1])
        return Seen(
            size, _fit(image, PHOTO_SIDE), maps, 1e3 * (read - start), 1e3 * (predicted - read)
        )

    def find(self, seen: Seen, decode: DecodeConfig) -> Detections:
        """What `Detector` finds in the photo with these settings, whose scales are those of `self.decode`."""
        found = decoders.decode_scales(seen.maps, tf.constant(seen.size), decode)
        return padding.unpad(found, [seen.size])[0]


def check_size(encoded: bytes, max_pixels: int) -> None:
    """Raises `ValueError` if the header of a JPEG or PNG photo cannot be read, or states more than `max_pixels`.

    A file of some kilobytes may state a size that fills the memory when it is decoded.
    """
    expected = f"expected a photo of at most {max_pixels / 1e6:g} million pixels. Received: "
    try:
        with Image.open(io.BytesIO(encoded), formats=("JPEG", "PNG")) as photo:
            width, height = photo.size
    except Image.DecompressionBombError as error:  # Pillow's own limit
        raise ValueError(f"{expected}{error}") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(
            f"expected a JPEG or PNG photo, which these {len(encoded)} bytes are not"
        ) from error
    if width * height > max_pixels:
        raise ValueError(f"{expected}{width} x {height}, {width * height / 1e6:.1f} million")


def _fit(image: np.ndarray, side: int) -> np.ndarray:
    """`image` shrunk, where it is larger, to a long side of `side` pixels."""
    scale = min(1.0, side / max(image.shape[:2]))
    height, width = (max(1, round(length * scale)) for length in image.shape[:2])
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)


def confidence_map(seen: Seen, index: int) -> np.ndarray:
    """Probabilities `[h, w]` of the best class, at scale number `index`."""
    logits = seen.maps[index]["confidence"][0].max(axis=-1)
    return 0.5 * (1 + np.tanh(0.5 * logits))


def distance_maps(seen: Seen, index: int) -> np.ndarray:
    """Distances `tblr` `[h, w, 4]` in pixels of the photo, at scale number `index`."""
    distances = seen.maps[index]["distances"][0]
    (height, width), shown = seen.size, distances.shape
    rows, columns = height / shown[0], width / shown[1]
    return distances * np.array([rows, rows, columns, columns], np.float32)


def draw_confidence(seen: Seen, index: int) -> np.ndarray:
    """Confidence in colours over the photo in grey."""
    grey = _grey(seen)
    coloured = visualize.heatmap(_enlarge(confidence_map(seen, index), grey), 0, 1)
    return cv2.addWeighted(grey, 0.35, coloured, 0.65, 0)


def draw_distances(
    seen: Seen, index: int, everywhere: bool = False
) -> tuple[list[np.ndarray], float]:
    """A picture for each of the four sides, and the distance in pixels of the photo that is brightest in all.

    Colours are those of the scale, unmixed; where confidence is below `FOUND` there is the photo in grey, but
    for `everywhere`.
    """
    distances, grey = distance_maps(seen, index), _grey(seen)
    inside = (confidence_map(seen, index) >= FOUND) | everywhere
    highest = float(distances[inside].max(initial=0))
    shown = cv2.resize(inside.astype(np.uint8), grey.shape[1::-1], interpolation=cv2.INTER_NEAREST)[
        ..., None
    ]
    pictures = [
        np.where(shown, visualize.heatmap(_enlarge(side, grey), 0, highest), grey // 2 + 24)
        for side in np.moveaxis(distances, -1, 0)
    ]
    return pictures, highest


def _grey(seen: Seen) -> np.ndarray:
    photo = _fit(seen.photo, MAP_SIDE)
    return cv2.cvtColor(cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)


def _enlarge(values: np.ndarray, like: np.ndarray) -> np.ndarray:
    return cv2.resize(values, like.shape[1::-1], interpolation=cv2.INTER_LINEAR)


def _image(image: np.ndarray, description: str) -> Html:
    ok, encoded = cv2.imencode(
        ".jpg", np.ascontiguousarray(image[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    )
    if not ok:
        raise ValueError(f"{description}: could not be encoded")
    data = base64.b64encode(encoded.tobytes()).decode("ascii")
    return f'<img src="data:image/jpeg;base64,{data}" alt="{html.escape(description)}">'


def _colour_bar(ticks: Sequence[str]) -> Html:
    """The colours of `visualize.heatmap` from low to high, with `ticks` at equal distances below."""
    colours = visualize.heatmap(np.linspace(0, 1, 17, dtype=np.float32)[None], 0, 1)[0]
    gradient = ", ".join(f"rgb({r}, {g}, {b})" for r, g, b in colours.tolist())
    below = "".join(f"<span>{html.escape(tick)}</span>" for tick in ticks)
    return (
        f'<div class="bar" style="background: linear-gradient(to right, {gradient})"></div>'
        f'<div class="ticks">{below}</div>'
    )


def photo_html(seen: Seen, found: Detections, class_names: Sequence[str]) -> Html:
    """The photo with boxes, their scores and, where there are several classes, their names.

    Boxes are elements of the page, not pixels, so that they are as sharp and as legible on a phone.
    """
    height, width = seen.size
    shares = 100 * found.boxes / np.array([width, height, width, height])
    boxes = []
    # The best last, on top of the others.
    for (x0, y0, x1, y1), score, label in list(
        zip(shares, found.scores, found.classes, strict=True)
    )[::-1]:
        name = f"{html.escape(class_names[label])} " if len(class_names) > 1 else ""
        place = "inside" if y0 < 5 else "above"
        boxes.append(
            f'<span class="box" style="left: {x0:.2f}%; top: {y0:.2f}%; width: {x1 - x0:.2f}%; '
            f'height: {y1 - y0:.2f}%"><b class="{place}">{name}{score:.2f}</b></span>'
        )
    crowd = " crowd" if len(found) > CROWD else ""
    image = _image(seen.photo, f"The photo with {len(found)} boxes")
    return f'<div class="photo"><div class="frame{crowd}">{image}{"".join(boxes)}</div></div>'


def table_html(found: Detections, class_names: Sequence[str]) -> Html:
    """Detections, best first, in pixels of the photo."""
    if not len(found):
        return '<p class="note">Nothing was found with these settings. Try a lower score threshold.</p>'
    named = len(class_names) > 1
    titles = ["#", *(["class"] if named else []), "score", "left", "top", "right", "bottom"]
    rows = []
    for number, (box, score, label) in enumerate(
        zip(found.boxes, found.scores, found.classes, strict=True), 1
    ):
        name = [html.escape(class_names[label])] if named else []
        cells = [str(number), *name, f"{score:.3f}", *(f"{edge:.1f}" for edge in box)]
        rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    head = "".join(f"<th>{title}</th>" for title in titles)
    return (
        f'<div class="rows"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody>'
        '</table></div><p class="note">Edges in pixels of the photo.</p>'
    )


def summary_html(name: str, seen: Seen, found: Detections, decoding: float) -> Html:
    """The photo's name and size, how many were found, and the time of each step; `decoding` in ms."""
    height, width = seen.size
    steps = {"reading": seen.reading, "network": seen.network, "decoding": decoding}
    times = "".join(f"<div><dt>{step}</dt><dd>{ms:.0f} ms</dd></div>" for step, ms in steps.items())
    return (
        f'<div class="summary" role="status"><p><strong>{len(found)} found</strong> in '
        f"{html.escape(name)}, {width} x {height} px</p><dl>{times}</dl></div>"
    )


def error_html(message: str) -> Html:
    """What went wrong, where the summary stands otherwise."""
    return f'<div class="fault" role="alert">{html.escape(message)}</div>'


def maps_html(seen: Seen, index: int, everywhere: bool = False) -> Html:
    """Confidence and the four distances at scale number `index`, each with its scale of colours."""
    height, width = seen.maps[index]["confidence"].shape[1:3]
    pictures, highest = draw_distances(seen, index, everywhere)
    sides = "".join(
        f"<figure>{_image(picture, f'Distances to the {side} side')}<figcaption>{side}</figcaption></figure>"
        for side, picture in zip(SIDES, pictures, strict=True)
    )
    if highest > 0:
        ticks = [f"{highest * share:.0f}" for share in (0, 0.25, 0.5, 0.75)]
        bar = _colour_bar([*ticks, f"{highest:.0f} px"])
    else:
        bar = f'<p class="note">No pixel has a confidence of {FOUND:g} or more at this scale.</p>'
    confidence = _image(draw_confidence(seen, index), "Map of confidence")
    return (
        f'<p class="note">Shown to the network with {width} x {height} px.</p><div class="maps">'
        '<section><h3>Confidence</h3><p class="note">that the pixel lies in an object</p>'
        f"{confidence}{_colour_bar(['0', '0.25', '0.5', '0.75', '1'])}</section>"
        "<section><h3>Distances</h3>"
        '<p class="note">from the pixel to the four sides of its box, in pixels of the photo</p>'
        f'<div class="sides">{sides}</div>{bar}</section></div>'
    )


NOTHING = '<div class="empty">Drop a photo, or try the example.<br>Boxes are drawn here.</div>'
STYLE = """
#bench { display: grid; grid-template-columns: minmax(280px, 350px) minmax(0, 1fr); gap: 16px 24px;
  grid-template-areas: "drop photo" "settings photo"; grid-template-rows: auto 1fr; }
/* Else it covers the field after a file of another type, until it is clicked away. */
#drop [data-testid="status-tracker"] { display: none; }
#drop { grid-area: drop; } #photo { grid-area: photo; } #settings { grid-area: settings; }
.html-container, .prose { padding: 0 !important; }
.intro h1 { margin: 0; font-size: 1.5rem; }
.intro h2 { margin: 16px 0 0; font-size: 1.2rem; }
.note { color: var(--body-text-color-subdued); font-size: 0.9rem; margin: 4px 0 8px !important; }
.empty, .fault, .summary { border-radius: 8px; padding: 12px 14px; }
.empty { border: 1px dashed var(--border-color-primary); color: var(--body-text-color-subdued);
  min-height: 320px; display: grid; place-content: center; text-align: center; }
.fault { background: var(--error-background-fill); border: 1px solid var(--error-border-color);
  color: var(--error-text-color); overflow-wrap: anywhere; }
.summary { background: var(--block-background-fill); border: 1px solid var(--border-color-primary); }
.summary p { margin: 0 0 8px !important; overflow-wrap: anywhere; }
.summary dl { margin: 0; display: flex; flex-wrap: wrap; gap: 4px 20px; }
.summary dt { color: var(--body-text-color-subdued); font-size: 0.85rem; }
.summary dd { margin: 0; font-variant-numeric: tabular-nums; }
.photo { display: grid; place-items: center; }
.frame { position: relative; }
.frame img { display: block; max-width: 100%; max-height: 72vh; border-radius: 6px; }
.box { position: absolute; border: 2px solid COLOUR; outline: 1px solid rgb(0 0 0 / 50%); }
.box b { position: absolute; left: -2px; padding: 0 4px; background: COLOUR; color: black;
  font-size: 12px; line-height: 16px; white-space: nowrap; }
.box b.above { bottom: 100%; } .box b.inside { top: 0; }
.crowd .box b { display: none; } .crowd .box:hover b { display: block; z-index: 1; }
.rows { max-height: 270px; overflow: auto; }
.rows table { width: 100%; border-collapse: collapse; font-variant-numeric: tabular-nums; }
.rows th, .rows td { text-align: right !important; padding: 4px 8px !important;
  border-width: 0 0 1px !important; border-color: var(--border-color-primary) !important; }
.rows table, .rows tr { border-width: 0 !important; }
.rows th { position: sticky; top: 0; background: var(--body-background-fill); }
.maps { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 24px; }
.maps h3 { margin: 0; }
.maps img { width: 100%; border-radius: 6px; }
.sides { display: grid; grid-template-columns: 1fr 1fr; gap: 8px; }
.sides figure { margin: 0; position: relative; }
.sides figcaption { position: absolute; left: 8px; top: 6px; padding: 0 8px; border-radius: 4px;
  background: rgb(0 0 0 / 65%); color: white; font-size: 0.85rem; }
.bar { height: 14px; border-radius: 4px; margin-top: 10px; }
.ticks { display: flex; justify-content: space-between; font-size: 0.85rem; }
@media (max-width: 760px) {
  #bench { grid-template-columns: minmax(0, 1fr); grid-template-rows: none;
    grid-template-areas: "drop" "photo" "settings"; }
  .empty { min-height: 120px; }
  .rows { font-size: 0.8rem; }
  .rows th, .rows td { padding: 4px !important; }
  .maps { grid-template-columns: minmax(0, 1fr); }
}
""".replace("COLOUR", "rgb({}, {}, {})".format(*visualize.DETECTION_COLOUR))


def make_page(viewer: Viewer, name: str, max_megapixels: float, max_megabytes: float) -> Any:
    """The page, a `gradio.Blocks`, for photos of at most so many million pixels and bytes.

    Raises:
        ValueError: gradio is not installed.
    """
    gr = import_gradio()
    decode, names = viewer.decode, viewer.class_names

    def settings_of(decoder: str, score: float, iou: float, blob: float) -> DecodeConfig:
        return dataclasses.replace(
            decode, decoder=decoder, score_threshold=score, nms_iou=iou, blob_threshold=blob
        )

    def decoded(photo_name: str, seen: Seen, *settings: Any) -> tuple[Html, Html, Html]:
        start = time.perf_counter()
        found = viewer.find(seen, settings_of(*settings))
        elapsed = 1e3 * (time.perf_counter() - start)
        return (
            summary_html(photo_name, seen, found, elapsed),
            photo_html(seen, found, names),
            table_html(found, names),
        )

    def search(path: Path, index: int, everywhere: bool, *settings: Any) -> tuple[Any, ...]:
        try:
            seen = viewer.see(path.read_bytes(), round(max_megapixels * 1e6))
        except ValueError as error:
            hidden = gr.update(visible=False)
            return None, error_html(f"{path.name}: {error}"), NOTHING, "", hidden, ""
        shown = decoded(path.name, seen, *settings)
        drawn = maps_html(seen, index, everywhere)
        return (path.name, seen), *shown, gr.update(visible=True), drawn

    def uploaded(path: str, *settings: Any) -> tuple[Any, ...]:
        try:
            return None, *search(Path(path), *settings)
        finally:
            Path(path).unlink(missing_ok=True)

    def changed(session: tuple[str, Seen] | None, *settings: Any) -> tuple[Any, ...]:
        return decoded(*session, *settings) if session else (gr.skip(),) * 3

    def redrawn(session: tuple[str, Seen] | None, index: int, everywhere: bool) -> Any:
        return maps_html(session[1], index, everywhere) if session else gr.skip()

    def applicable(decoder: str) -> tuple[Any, Any]:
        suppressed = decoder == "peaks" or len(decode.scales) > 1
        return gr.update(interactive=suppressed), gr.update(interactive=decoder == "ellipse")

    # One photo or slider at a time has the network and the cores.
    alone = {"concurrency_limit": 1, "concurrency_id": "network", "api_visibility": "private"}
    with gr.Blocks(
        title=f"UnitBox: {name}",
        analytics_enabled=False,
        delete_cache=(CACHE_SECONDS, CACHE_SECONDS),
    ) as page:
        session = gr.State(None, time_to_live=SESSION_SECONDS)
        gr.HTML(
            f'<div class="intro"><h1>UnitBox: {html.escape(name)}</h1><p class="note">Photos go to the '
            "machine that serves this page and no further. None is kept.</p></div>"
        )
        with gr.Column(elem_id="bench"):
            with gr.Column(elem_id="drop"):
                upload = gr.File(
                    label=f"JPEG or PNG, up to {max_megabytes:g} MB and {max_megapixels:g} million pixels",
                    file_types=[".jpg", ".jpeg", ".png"],
                    height=170,
                )
                example = gr.Button("Try an example photo", size="sm")
                summary = gr.HTML()
            with gr.Column(elem_id="photo"):
                photo = gr.HTML(NOTHING)
                table = gr.HTML()
            with gr.Column(elem_id="settings"):
                decoder = gr.Radio(
                    [("peaks", "peaks"), ("ellipse (the paper's)", "ellipse")],
                    value=decode.decoder,
                    label="Decoder",
                )
                on, off = applicable(decode.decoder)
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
                    info="of two boxes that overlap more, the better one is kept",
                    interactive=on["interactive"],
                )
                blob = gr.Slider(
                    0.01,
                    0.99,
                    decode.blob_threshold,
                    step=0.01,
                    label="Blob threshold",
                    info="ellipse: lowest confidence of a pixel of a blob",
                    interactive=off["interactive"],
                )
        with gr.Column(visible=False) as heatmaps:
            gr.HTML('<div class="intro"><h2>What the network says of each pixel</h2></div>')
            with gr.Row():
                scale = gr.Radio(
                    [(f"x {value:g}", index) for index, value in enumerate(decode.scales)],
                    value=int(np.argmax(decode.scales)),
                    label="Scale at which the photo is shown to it",
                    visible=len(decode.scales) > 1,
                )
                everywhere = gr.Checkbox(
                    label="All distances",
                    info=f"also where confidence is below {FOUND:g}, and they mean little",
                    container=True,
                )
            maps = gr.HTML()

        settings = [decoder, score, iou, blob]
        results = [summary, photo, table]
        of_photo = [scale, everywhere, *settings]
        upload.upload(
            uploaded,
            [upload, *of_photo],
            [upload, session, *results, heatmaps, maps],
            show_progress_on=photo,
            **alone,
        )
        example.click(
            lambda *values: search(EXAMPLE, *values),
            of_photo,
            [session, *results, heatmaps, maps],
            show_progress_on=photo,
            **alone,
        )
        gr.on(
            [setting.change for setting in settings],
            changed,
            [session, *settings],
            results,
            show_progress="hidden",
            trigger_mode="always_last",
            **alone,
        )
        gr.on(
            [scale.change, everywhere.change],
            redrawn,
            [session, scale, everywhere],
            maps,
            show_progress="hidden",
            trigger_mode="always_last",
            **alone,
        )
        decoder.change(applicable, decoder, [iou, blob], api_visibility="private")
    return page.queue(max_size=WAITING, api_open=False)


def import_gradio() -> Any:
    """The module gradio. Raises `ValueError` that names the extra where it is not installed."""
    try:
        import gradio
    except ModuleNotFoundError as error:
        raise ValueError(
            "Expected gradio for the page, which is not installed: pip install 'unitbox_tf[demo]'"
        ) from error
    return gradio


def launch(page: Any, host: str, port: int | None, max_megabytes: float) -> str:
    """Serves the page in the background, and returns its address; `page.close()` ends it.

    Args:
        page: what `make_page` returns.
        host: the address to listen at.
        port: to listen at; None for the first that is free from 7860 on.
        max_megabytes: of a file; larger ones are refused while they arrive.

    Raises:
        OSError: the port is taken.
    """
    gr = import_gradio()
    _, url, _ = page.launch(
        server_name=host,
        server_port=port,
        max_file_size=round(max_megabytes * 2**20),  # as gradio's message counts
        state_session_capacity=SESSIONS,
        share=False,
        ssr_mode=False,
        enable_monitoring=False,
        run_history=False,
        footer_links=[],
        quiet=True,
        prevent_thread_lock=True,
        css=STYLE,
        # Fonts of the system: gradio's own come from the network.
        theme=gr.themes.Default(
            font=("system-ui", "sans-serif"), font_mono=("ui-monospace", "monospace")
        ).set(
            body_text_color_subdued="*neutral_600", block_info_text_color="*neutral_600"
        ),  # the default grey is hard to read
    )
    return url
