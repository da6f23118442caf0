"""All protocols that judge detections, behind one interface: for `unitbox evaluate` and for training.

`make` makes a protocol once for a set of annotations and for options. Its `judge` then takes the results
of any detector on these images.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import functools
import hashlib
import logging
import math
import re
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from unitbox_tf import images
from unitbox_tf.config import Protocol
from unitbox_tf.datasets import Source, checks
from unitbox_tf.evaluation import by_class, coco, fddb, matching, wider_face
from unitbox_tf.evaluation.by_class import ByClass
from unitbox_tf.evaluation.results import Results
from unitbox_tf.problems import Problems
from unitbox_tf.records import Annotation

logger = logging.getLogger(__name__)

NAMES: tuple[str, ...] = typing.get_args(Protocol)
TITLES = {
    "summary": "recall and box quality at 0.1 false positives an image; average precision",
    "coco": "COCO (Lin et al., 2014), by pycocotools",
    "fddb": "FDDB (Jain and Learned-Miller, 2010), discrete and continuous ROC",
    "wider_face": "WIDER FACE (Yang et al., 2016), average precision at IoU 0.5",
}
# The metrics whose mean chooses the best epoch of a training.
CHOOSING = {
    "summary": ("ap50", "ap75"),
    "coco": ("ap",),
    "fddb": ("discrete_at_100", "continuous_at_100"),
    "wider_face": wider_face.DIFFICULTIES,
}
FALSE_POSITIVES = (5, 100, 1000)  # in all images together; FDDB's rates are stated at these numbers
# Below a source of WIDER FACE; the last two as its tools and their copies have them.
GROUND_TRUTH_FOLDERS = (".", "wider_face_split", "ground_truth", "eval_tools/ground_truth")
UNCUT = (2**31, 2**31)  # height and width of an image so large that no box is cut


@dataclasses.dataclass(frozen=True)
class Report:
    """The metrics of a detector by one protocol.

    Attributes:
        metrics: the metrics by name. Undefined metrics are NaN.
        save: writes curves into a folder, and plots of them over the curves of other detectors. The
            second argument is the name of this detector.
        by_class: the best score threshold and the metrics of each class, for the names of the classes; None
            for protocols that know one class.
    """

    metrics: dict[str, float]
    save: Callable[[Path, str], None]
    by_class: Callable[[Sequence[str]], ByClass] | None = None


Judge = Callable[[Results], Report]


@dataclasses.dataclass(frozen=True)
class Options:
    """The options of protocols.

    Attributes:
        min_size: `summary`: objects whose shorter side is less, in pixels, are ignored.
        shape: `fddb`: judges boxes as they are, or as the ellipses inscribed in them.
        iou: `wider_face`: the original's integer arithmetic, or ordinary overlap.
        ground_truth: `wider_face`: folder of the four official .mat files. None searches for it below
            the source.
        image_sizes: `fddb`, `summary`: json of `name: [width, height]`, which replaces the images.
        curves: `fddb`, `wider_face`: folder with curves of other detectors to draw beside.
    """

    min_size: float = 0.0
    shape: Literal["rectangle", "ellipse"] = "rectangle"
    iou: Literal["official", "exact"] = "official"
    ground_truth: Path | None = None
    image_sizes: Path | None = None
    curves: Path | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.min_size < math.inf:
            raise ValueError(f"Expected a min_size from 0, in pixels. Received: {self.min_size}")
        hints = typing.get_type_hints(Options)
        for name in ("shape", "iou"):
            value, known = getattr(self, name), typing.get_args(hints[name])
            if value not in known:
                raise ValueError(f"Expected {name} as one of {known}. Received: {value!r}")
        for name in ("ground_truth", "image_sizes", "curves"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, Path(getattr(self, name)))


USED_BY = {
    "min_size": ("summary",),
    "shape": ("fddb",),
    "iou": ("wider_face",),
    "ground_truth": ("wider_face",),
    "image_sizes": ("fddb", "summary"),
    "curves": ("fddb", "wider_face"),
}


def make(
    name: str,
    annotations: Sequence[Annotation],
    sources: Sequence[Source] = (),
    *,
    options: Options | None = None,
    problems: Problems | None = None,
) -> Judge:
    """The protocol `name` for these annotations.

    Args:
        name: one of `NAMES`.
        annotations: the annotations of all judged images, in the order of results.
        sources: the sources of the annotations.
        options: the options of the protocol.
        problems: images whose size cannot be read are added here.

    Raises:
        ValueError: the name is unknown, an option belongs to another protocol, or facts are missing
            that the protocol needs: ellipses (FDDB), the official lists (WIDER FACE), sizes of images.
        ImportError: a library that the protocol needs is not installed. The message names the extra.
    """
    problems = Problems.of(problems)
    options = options or Options()
    check_options(name, options)
    if name == "wider_face":
        return _wider_face(annotations, sources, options)
    if name == "coco":
        return _coco(annotations, sources)
    return (_fddb if name == "fddb" else _summary)(annotations, options, problems)


def check_options(name: str, options: Options) -> None:
    """Raises `ValueError` if the protocol is unknown, or an option belongs to another protocol."""
    if name not in NAMES:
        raise ValueError(f"Unknown protocol {name!r}. Expected one of {NAMES}.")
    for field in dataclasses.fields(Options):
        used_by = USED_BY[field.name]
        if getattr(options, field.name) != field.default and name not in used_by:
            raise ValueError(
                f"{field.name} is for the protocol {' or '.join(used_by)}, received with {name!r}"
            )


def digest(annotations: Sequence[Annotation]) -> str:
    """Sixteen hexadecimal digits of SHA-256 that tell versions of annotations apart.

    The digest covers the images, sorted by name: name without suffix, boxes to the fourth decimal, classes
    and ignored marks. It is the same in every format that keeps these facts.
    """
    total = hashlib.sha256()
    for annotation in sorted(annotations, key=lambda one: checks.without_suffix(one.name)):
        name = checks.without_suffix(annotation.name)
        total.update(name.encode("utf-8", "surrogateescape") + b"\0")
        boxes = np.round(annotation.boxes, 4) + 0.0  # no negative zero
        for array, dtype in ((boxes, "<f8"), (annotation.classes, "<i4"), (annotation.ignore, "?")):
            total.update(np.ascontiguousarray(array, dtype).tobytes())
    return total.hexdigest()[:16]


def _summary(annotations: Sequence[Annotation], options: Options, problems: Problems) -> Judge:
    sizes = image_sizes(annotations, options.image_sizes, problems=problems)

    def judge(results: Results) -> Report:
        known = [
            _known(size, annotation) for size, annotation in zip(sizes, annotations, strict=True)
        ]
        detections = results.detections(known)
        matches = matching.match(detections, annotations, min_size=options.min_size)

        def save(folder: Path, label: str) -> None:
            draw(matching.plot, {label: matches.curve()}, folder / "curves.png")

        def of_classes(class_names: Sequence[str]) -> ByClass:
            def by_coco() -> coco.Judgement:
                return coco.judge_as_matching(detections, annotations, options.min_size)

            known = (detections, annotations, matches, class_names, by_coco)
            return by_class.judge(*known, min_size=options.min_size)

        metrics = matching.summarize(detections, annotations, options.min_size)
        return Report(metrics, save, of_classes)

    return judge


def _coco(annotations: Sequence[Annotation], sources: Sequence[Source]) -> Judge:
    coco.require()
    # COCO's program takes images by ascending id. This order decides between equal scores.
    order = _by_id(annotations, sources)
    ordered = [annotations[index] for index in order]

    def judge(results: Results) -> Report:
        found = results.detections([UNCUT] * len(annotations))
        detections = [found[index] for index in order]
        matches = matching.match(detections, ordered)
        judged = coco.judge(detections, ordered)

        def save(folder: Path, label: str) -> None:
            draw(matching.plot, {label: matches.curve()}, folder / "curves.png")

        def of_classes(class_names: Sequence[str]) -> ByClass:
            return by_class.judge(detections, ordered, matches, class_names, lambda: judged)

        return Report(judged.figures, save, of_classes)

    return judge


def _by_id(annotations: Sequence[Annotation], sources: Sequence[Source]) -> list[int]:
    """Indices of the images. If the source is a single COCO json, they are sorted by ascending id."""
    order = list(range(len(annotations)))
    ids = sources[0].ids() if len(sources) == 1 else None
    if ids is not None:
        known = ids.by_image
        with contextlib.suppress(TypeError):  # numbers and words mixed
            order.sort(key=lambda index: known[annotations[index].name])
    return order


def _fddb(annotations: Sequence[Annotation], options: Options, problems: Problems) -> Judge:
    fddb.require()
    truth: dict[str, np.ndarray] = {}
    for annotation in annotations:
        if annotation.ellipses is None:
            raise ValueError(
                f"{annotation.where}: FDDB's protocol needs faces annotated as ellipses, which the "
                "format fddb has"
            )
        truth[annotation.name] = annotation.ellipses
    sizes = image_sizes(annotations, options.image_sizes, problems=problems)
    others = {kind: roc_files(options.curves, kind) for kind in ("disc", "cont")}

    def judge(results: Results) -> Report:
        detections, known = {}, {}
        for annotation, rows, labels, size in zip(
            annotations, results.rows, results.classes, sizes, strict=True
        ):
            _check_one_class(labels, annotation)
            if rows is None:
                continue
            if len(rows):
                known[annotation.name] = _known(size, annotation)
            if options.shape == "ellipse" and rows.shape[1] == 5:
                rows = fddb.rectangles_to_ellipses(rows)
            detections[annotation.name] = rows
        curves = fddb.evaluate(detections, truth, known, problems=problems)
        metrics: dict[str, float] = {}
        for count in FALSE_POSITIVES:
            metrics[f"discrete_at_{count}"] = fddb.rate_at(curves.discrete, count)
            metrics[f"continuous_at_{count}"] = fddb.rate_at(curves.continuous, count)
        metrics["discrete"] = fddb.rate_at(curves.discrete, math.inf)
        metrics["continuous"] = fddb.rate_at(curves.continuous, math.inf)
        metrics["false_positives"] = int(curves.discrete[:, 1].max())

        def save(folder: Path, label: str) -> None:
            fddb.save_curves(curves, folder / f"{label}-")
            fddb.write_detections(detections, folder / f"{label}.txt")
            for kind, score in (("disc", "discrete"), ("cont", "continuous")):
                path = folder / f"{score}.png"
                draw(fddb.plot, {label: curves}, path, score=score, others=others[kind])

        return Report(metrics, save)

    return judge


def draw(plot: Callable[..., None], *arguments: Any, **options: Any) -> None:
    """Draws curves; without matplotlib, a line in the log says how to get it."""
    try:
        plot(*arguments, **options)
    except ImportError as error:
        _log_once(f"Curves are not drawn: {error}")


@functools.cache
def _log_once(message: str) -> None:
    logger.info("%s", message)


def roc_files(folder: Path | None, kind: str) -> dict[str, Path]:
    """Published curves of one kind by the detector's name: `MTCNN-DiscROC.txt`, `BAIDU-IDL-disc.txt`."""
    if folder is None:
        return {}
    pattern = re.compile(rf"[-_]?{kind}(roc)?(?=[-_]|$)", re.IGNORECASE)
    files = [path for path in sorted(folder.glob("*.txt")) if pattern.search(path.stem)]
    if not files:
        raise ValueError(
            f"{folder}: expected curves such as NAME-{kind.title()}ROC.txt, found none"
        )
    for path in files:
        fddb.read_curve(path)  # reports errors before anything is judged
    return {pattern.sub("", path.stem): path for path in files}


def _wider_face(
    annotations: Sequence[Annotation], sources: Sequence[Source], options: Options
) -> Judge:
    folder = options.ground_truth or _ground_truth(sources)
    truth = wider_face.read_ground_truth(folder).select([a.name for a in annotations])
    for annotation, faces in zip(annotations, truth.boxes, strict=True):
        boxes = annotation.boxes.copy()
        boxes[:, 2:] -= boxes[:, :2]
        if not np.array_equal(boxes, faces):
            raise ValueError(
                f"{annotation.name}: its boxes differ from those in {folder}: expected the original "
                "images and their official annotations"
            )
    others = {}
    if options.curves is not None:
        folders = sorted(path for path in options.curves.iterdir() if path.is_dir())
        if not folders:
            raise ValueError(f"{options.curves}: expected a folder for each detector's curves")
        others = {path.name: wider_face.read_curves(path) for path in folders}

    def judge(results: Results) -> Report:
        detections = {}
        for index, annotation in enumerate(annotations):
            _check_one_class(results.classes[index], annotation)
            if results.rows[index] is not None:
                detections[annotation.name] = results.rectangles(index)
        curves = wider_face.evaluate(detections, truth, options.iou)

        def save(folder: Path, label: str) -> None:
            wider_face.save_curves(curves, folder, label)
            wider_face.write_detections(detections, folder / "results")
            draw(wider_face.plot, curves, folder / "curves.png", label, others)

        metrics = {name: curve.average_precision for name, curve in curves.items()}
        return Report(metrics, save)

    return judge


def _ground_truth(sources: Sequence[Source]) -> Path:
    """The folder with the official lists of easy, medium and hard faces, at its usual places below the source."""
    roots = [source.root for source in sources if source.format == "wider_face"]
    candidates = [root / name for root in roots for name in GROUND_TRUTH_FOLDERS]
    for candidate in candidates:
        if (candidate / "wider_face_val.mat").is_file():
            return candidate
    looked = "; no source is of the format wider_face, below which they are looked for"
    if candidates:
        looked = f"; looked in {', '.join(map(str, candidates))}"
    raise ValueError(
        "Expected the folder with wider_face_val.mat, wider_easy_val.mat, wider_medium_val.mat and "
        f"wider_hard_val.mat{looked}; or give it to `unitbox evaluate` as --ground-truth"
    )


def _check_one_class(labels: np.ndarray, annotation: Annotation) -> None:
    if labels.any():
        raise ValueError(
            f"{annotation.name}: the protocol knows one class, faces; received a detection of class "
            f"{labels.max() + 1}"
        )


def image_sizes(
    annotations: Sequence[Annotation],
    file: Path | None = None,
    *,
    problems: Problems | None = None,
) -> list[tuple[int, int] | None]:
    """Height and width of each image from `file`, from the image, or from the annotation; None if unknown."""
    problems = Problems.of(problems)
    listed = fddb.read_sizes(file) if file else {}
    # Names may lack their suffix, or their folder where no other has the same.
    stems = [checks.without_suffix(name) for name in listed]
    by_name = dict(zip(stems, listed.values(), strict=True))
    counts = collections.Counter(
        checks.without_suffix(a.name).rpartition("/")[2] for a in annotations
    )
    sizes: list[tuple[int, int] | None] = []
    for annotation in annotations:
        name = checks.without_suffix(annotation.name)
        last = name.rpartition("/")[2]
        size = by_name.get(name, by_name.get(last) if counts[last] == 1 else None)
        if size is None:
            size = annotation.size
            try:
                size = images.photo_size(annotation.image)
            except FileNotFoundError:
                pass
            except (OSError, ValueError) as error:
                problems.add("image of unknown size", annotation.where, str(error))
        sizes.append(size)
    return sizes


def _known(size: tuple[int, int] | None, annotation: Annotation) -> tuple[int, int]:
    if size is None:
        raise ValueError(
            f"{annotation.where}: expected the image, or the size of {annotation.name!r} in a json of "
            "name: [width, height] (--image-sizes), as the annotations do not state it"
        )
    return size
