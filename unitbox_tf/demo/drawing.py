"""The parts of the page as HTML: the image with its boxes, tables and heatmaps."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence

import cv2
import numpy as np

from unitbox_tf import visualize
from unitbox_tf.demo.viewer import Seen, confidence_map, distance_maps, fit
from unitbox_tf.records import Detections

MAP_SIDE = 560  # px; long side of heatmaps on the page
JPEG_QUALITY = 90
FOUND = 0.5  # from this confidence on, a pixel belongs to an object, and its distances are shown
SIDES = ("top", "bottom", "left", "right")  # the order of `tblr`
CROWD = 40  # with more boxes, scores are shown only under the mouse

Html = str

NOTHING = '<div class="empty">Drop an image, or try the example.<br>Boxes are drawn here.</div>'


def draw_confidence(seen: Seen, index: int) -> np.ndarray:
    """Confidence in colours over the image in grey."""
    grey = _grey(seen)
    coloured = visualize.heatmap(_enlarge(confidence_map(seen, index), grey), 0, 1)
    return cv2.addWeighted(grey, 0.35, coloured, 0.65, 0)


def draw_distances(
    seen: Seen, index: int, everywhere: bool = False
) -> tuple[list[np.ndarray], float]:
    """An image for each of the four sides, and the distance with the brightest colour, in pixels of the image.

    Colours are unmixed colours of the scale. Pixels with a confidence below `FOUND` show the image in grey,
    unless `everywhere` is True.
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
    image = fit(seen.image, MAP_SIDE)
    return cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)


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


def image_html(seen: Seen, found: Detections, class_names: Sequence[str]) -> Html:
    """The image with boxes, their scores and, where there are several classes, their names.

    Boxes are elements of the page, not pixels, so that they are sharp and legible on a phone, too.
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
    image = _image(seen.image, f"The image with {len(found)} boxes")
    return f'<div class="photo"><div class="frame{crowd}">{image}{"".join(boxes)}</div></div>'


def table_html(found: Detections, class_names: Sequence[str]) -> Html:
    """Detections, best first, in pixels of the image."""
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
        '</table></div><p class="note">Edges in pixels of the image.</p>'
    )


def summary_html(name: str, seen: Seen, found: Detections, decoding: float) -> Html:
    """The image's name and size, the number of objects, and the time of each step. `decoding` is in ms."""
    height, width = seen.size
    steps = {"reading": seen.reading, "network": seen.network, "decoding": decoding}
    times = "".join(f"<div><dt>{step}</dt><dd>{ms:.0f} ms</dd></div>" for step, ms in steps.items())
    return (
        f'<div class="summary" role="status"><p><strong>{len(found)} found</strong> in '
        f"{html.escape(name)}, {width} x {height} px</p><dl>{times}</dl></div>"
    )


def error_html(message: str) -> Html:
    """An error message, in the place of the summary."""
    return f'<div class="fault" role="alert">{html.escape(message)}</div>'


def maps_html(seen: Seen, index: int, everywhere: bool = False) -> Html:
    """Confidence and the four distances at scale number `index`, each with its scale of colours."""
    height, width = seen.shown[index]
    points = f" The maps have a point each {seen.stride} px." if seen.stride > 1 else ""
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
        f'<p class="note">Shown to the network with {width} x {height} px.{points}</p><div class="maps">'
        '<section><h3>Confidence</h3><p class="note">that the pixel lies in an object</p>'
        f"{confidence}{_colour_bar(['0', '0.25', '0.5', '0.75', '1'])}</section>"
        "<section><h3>Distances</h3>"
        '<p class="note">from the pixel to the four sides of its box, in pixels of the image</p>'
        f'<div class="sides">{sides}</div>{bar}</section></div>'
    )
