"""One page with all that `inspect` has found: facts, suggestions, duplicates, pictures. It needs no other file.

Names of files and classes, and messages, come from the data, and may be hostile. They are escaped, and the page
itself forbids scripts and everything that is not in it.
"""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import cv2
import numpy as np

from unitbox_tf import files, visualize
from unitbox_tf.datasets import words
from unitbox_tf.datasets.duplicates import Repeat
from unitbox_tf.datasets.inspection import Inspection
from unitbox_tf.inspection import pictures
from unitbox_tf.problems import PROBLEMS_FILE, printable
from unitbox_tf.records import Annotation

PAGE, FACTS = "index.html", "facts.json"
ANNOTATED, BATCH, TARGETS = "annotated.png", "batch.png", "targets.png"
NUM_ANNOTATED, NUM_BATCH, NUM_PAIRS = 12, 8, 8
NUM_PROBLEMS = 200  # listed on the page; all are in problems.txt

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2em auto; max-width: 1120px; padding: 0 1em; color: #222 }
h2 { margin-top: 2em; border-bottom: 1px solid #ccc }
table { border-collapse: collapse; display: block; overflow-x: auto }
td, th { padding: .15em .8em; text-align: right; font-weight: normal; white-space: pre }
td:first-child, th:first-child { text-align: left }
tr:first-child { background: #eee }
pre { background: #eee; padding: .7em; white-space: pre-wrap; overflow-wrap: anywhere }
figure { display: inline-block; margin: 0 .5em .8em 0; vertical-align: top; max-width: 100% }
figure img { display: block; max-width: 100% }
figcaption { font-size: 12px; color: #555; overflow-wrap: anywhere; max-width: 480px }
.wrong { background: #fdd; padding: .1em .7em }
li { overflow-wrap: anywhere }
.swatch { display: inline-block; width: .8em; height: .8em; margin: 0 .3em 0 1em }
"""
# No script runs, and nothing is loaded, whatever a name holds.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def write(found: Inspection, folder: Path) -> None:
    """Writes the page, its pictures as PNG, the facts as json and the list of problems into `folder`."""
    annotated = list(
        pictures.drawable(
            pictures.chosen(found.training_images, len(found.class_names), NUM_ANNOTATED),
            found.class_names,
            found.config.decode.max_pixels,
        )
    )
    shown: list[pictures.Shown] = []
    if annotated:  # otherwise no image can be decoded, or there is none
        shown = pictures.batch(
            found.training_images,
            found.config,
            len(found.class_names),
            NUM_BATCH,
            problems=found.problems,
        )
    with files.replacing(folder) as partial:
        partial.mkdir()
        if annotated:
            _save(partial / ANNOTATED, visualize.tile([image for _, image in annotated], 4))
            _save(partial / BATCH, visualize.tile([each.image for each in shown], 4))
            maps = [map_ for each in shown for map_ in (each.confidence, each.distances)]
            _save(partial / TARGETS, visualize.tile(maps, 4))
        files.write(partial / FACTS, json.dumps(found.to_dict(), indent=2, allow_nan=False))
        found.problems.save(partial / PROBLEMS_FILE)
        files.write(partial / PAGE, page(found, annotated, shown))


def _save(path: Path, image: np.ndarray) -> None:
    path.write_bytes(_encoded(image, ".png"))


def _encoded(image: np.ndarray, suffix: str) -> bytes:
    return cv2.imencode(suffix, np.ascontiguousarray(image[..., ::-1]))[1].tobytes()


def page(
    found: Inspection,
    annotated: Sequence[tuple[Annotation, np.ndarray]],
    shown: Sequence[pictures.Shown],
) -> str:
    """The page as html.

    Args:
        found: the facts.
        annotated: training images, and pictures of them with their boxes.
        shown: training images as the network gets them.
    """
    sections = [
        _listed("unitbox fit would refuse this", found.obstacles, "wrong"),
        _section("Images and objects", _table(words.count_rows(found)), _SIZES),
        _shown_sizes(found),
        _suggestions(found),
        _listed("Worth knowing", found.remarks),
        _duplicates(found),
        _annotated(found, annotated),
        _batch(found, shown),
        _problems(found),
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>unitbox inspect</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f"<h1>A look before training</h1>\n{''.join(sections)}</body>\n</html>\n"
    )


_SIZES = f"<p>Sizes are in pixels: {words.QUARTILES}.</p>"


def _safe(text: str) -> str:
    """Text from the data: printable, and without any sign that html gives a meaning."""
    return html.escape(printable(text))


def _section(title: str, *parts: str) -> str:
    return f"<section><h2>{_safe(title)}</h2>\n{''.join(parts)}</section>\n"


def _listed(title: str, lines: Iterable[str], style: str = "") -> str:
    items = "".join(f"<li>{_safe(line)}</li>\n" for line in lines)
    return _section(title, f'<ul class="{style}">\n{items}</ul>\n') if items else ""


def _table(rows: Sequence[Sequence[str]]) -> str:
    cells = ["".join(f"<td>{_safe(cell)}</td>" for cell in row) for row in rows]
    return f"<table>{''.join(f'<tr>{row}</tr>' for row in cells)}</table>\n"


def _figure(image: np.ndarray, caption: str, suffix: str = ".jpg") -> str:
    kind = {".jpg": "jpeg", ".png": "png"}[suffix]
    data = base64.b64encode(_encoded(image, suffix)).decode()
    return (
        f'<figure><img alt="" src="data:image/{kind};base64,{data}">'
        f"<figcaption>{_safe(caption)}</figcaption></figure>\n"
    )


def _shown_sizes(found: Inspection) -> str:
    rows = words.shown_rows(found)
    if not rows:
        return ""
    text = f"<p>{_safe(words.limits_in_words(found))}</p>\n"
    return _section("Objects as the network is shown them, in pixels", _table(rows), text)


def _suggestions(found: Inspection) -> str:
    if not found.suggestions:
        return ""
    rows = "".join(
        f"<li><code>{_safe(each.option)}</code>: {_safe(each.reason)}</li>\n"
        for each in found.suggestions
    )
    return _section(
        "Suggested settings, from the training images",
        f"<ul>\n{rows}</ul>\n<pre>{_safe(found.options)}</pre>\n",
    )


def _duplicates(found: Inspection) -> str:
    parts = []
    for text, repeats in words.duplicate_lines(found):
        pairs = "".join(_pair(found, repeat) for repeat in repeats[:NUM_PAIRS])
        more = len(repeats) - NUM_PAIRS
        rest = f"<p>and {more} more, in {FACTS}</p>\n" if more > 0 else ""
        parts.append(f"<h3>{_safe(text)}</h3>\n{pairs}{rest}")
    if found.duplicates.flat:
        parts.append(f"<p>{_safe(words.flat_line(found))}</p>\n")
    if not found.duplicates.compared:
        parts.append("<p>Only bytes were compared: near-duplicates were not looked for.</p>\n")
    return _section("Duplicates", *parts or ["<p>None.</p>\n"])


def _pair(found: Inspection, repeat: Repeat) -> str:
    both = [found.annotations[index] for index in (repeat.other, repeat.image)]
    most = found.config.decode.max_pixels
    drawn = [image for _, image in pictures.drawable(both, found.class_names, most)]
    how = "the same bytes" if repeat.distance is None else f"{repeat.distance} of 256 bits differ"
    caption = f"{both[0].where} and {both[1].where}: {how}"
    if not drawn:
        return f"<p>{_safe(caption)}</p>\n"
    return _figure(visualize.tile(drawn, 2, height=180), caption)


def _legend(found: Inspection) -> str:
    parts = [
        f'<span class="swatch" style="background: rgb{pictures.colour(label)}"></span>{_safe(name)}'
        for label, name in enumerate(found.class_names)
    ]
    return f"<p>{''.join(parts)}</p>\n"


def _annotated(found: Inspection, annotated: Sequence[tuple[Annotation, np.ndarray]]) -> str:
    if not annotated:
        return ""
    figures = "".join(_figure(image, annotation.where) for annotation, image in annotated)
    text = "<p>Training images with their boxes. Ignored boxes are grey.</p>\n"
    return _section("Annotated images", text, _legend(found), figures)


def _batch(found: Inspection, shown: Sequence[pictures.Shown]) -> str:
    if not shown:
        return ""
    text = (
        "<p>The first training images, as the network gets them, with their targets: the changed image; the pixels "
        "at which the confidence of a class must be 1, in the colour of the class, with pixels that do not count "
        "hatched in grey; the boxes that the distances must give, with the four distances at one pixel of "
        "each.</p>\n"
    )
    figures = "".join(
        _figure(np.hstack([each.image, each.confidence, each.distances]), "", ".png")
        for each in shown
    )
    return _section("A batch of training, and its targets", text, _legend(found), figures)


def _problems(found: Inspection) -> str:
    problems = found.problems
    if not problems.found:
        return ""
    counts = "; ".join(f"{count} x {kind}" for kind, count in problems.counts.items())
    listed = "".join(
        f"<li>{_safe(f'{each.kind}: {each}')}</li>\n" for each in problems.found[:NUM_PROBLEMS]
    )
    more = len(problems.found) - NUM_PROBLEMS
    rest = f"<p>and {more} more, in {PROBLEMS_FILE}</p>\n" if more > 0 else ""
    return _section("Problems", f"<p>{_safe(counts)}</p>\n<ul>\n{listed}</ul>\n{rest}")
