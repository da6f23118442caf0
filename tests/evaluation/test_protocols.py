import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest

from tests.helpers import figures
from tests.helpers.data_sets import png
from tests.helpers.matching import SIZE, detections, random_set
from tests.helpers.wider_face import make_truth, mat_content, write_mats
from unitbox_tf import datasets
from unitbox_tf.evaluation import coco, fddb, matching, protocols, wider_face
from unitbox_tf.evaluation.results import Results
from unitbox_tf.problems import Problems
from unitbox_tf.records import Annotation


@pytest.fixture
def sized(random):
    """Detections, and annotations that state the size of their images."""
    found, truth = random_set(random)
    return found, [dataclasses.replace(annotation, size=SIZE) for annotation in truth]


def test_summary_and_coco_say_what_their_judges_say(sized, drawn, tmp_path):
    found, truth = sized
    for name, expected in (
        ("summary", matching.summarize(found, truth)),
        ("coco", coco.evaluate(found, truth)),
    ):
        report = protocols.make(name, truth)(Results.of(found))
        assert report.metrics == pytest.approx(expected, nan_ok=True)
        assert 0.02 < report.metrics["ap50"] < 0.98
        folder = tmp_path / name
        folder.mkdir()
        report.save(folder, "ours")
        figure, path, _ = drawn.pop()
        assert path == folder / "curves.png"
        left = figure.axes[0]
        assert figures.described(left)["legend"] == ["ours"]
        curve = matching.match(found, truth).curve()
        points = np.stack([curve.recall, curve.precision], axis=1).tolist()
        assert [line["points"] for line in figures.lines(left)] == [points]


def test_small_objects_are_ignored_by_the_summary_only(sized):
    found, truth = sized
    options = protocols.Options(min_size=30)
    report = protocols.make("summary", truth, options=options)(Results.of(found))
    assert report.metrics == matching.summarize(found, truth, 30)
    with pytest.raises(
        ValueError, match="min_size is for the protocol summary, received with 'coco'"
    ):
        protocols.make("coco", truth, options=options)


def with_ellipses(annotations):
    ellipses = [fddb.rectangles_to_ellipses(as_rows(a.boxes))[:, :5] for a in annotations]
    return [
        dataclasses.replace(a, ellipses=rows) for a, rows in zip(annotations, ellipses, strict=True)
    ]


def as_rows(boxes):
    sides = boxes[:, 2:] - boxes[:, :2]
    return np.concatenate([boxes[:, :2], sides, np.ones((len(boxes), 1))], axis=1)


@pytest.mark.parametrize("shape", ["rectangle", "ellipse"])
def test_fddb_says_what_its_judge_says_and_writes_official_files(sized, drawn, tmp_path, shape):
    found, truth = sized
    # A number alone is no name in FDDB's lists: it would be a count.
    truth = [dataclasses.replace(a, name=f"img_{a.name}") for a in with_ellipses(truth)]
    published = tmp_path / "published"
    published.mkdir()
    for name in ("A-DiscROC.txt", "A-ContROC.txt", "B_disc.txt", "B_cont.txt"):
        (published / name).write_text("0.5 10\n0.25 0\n")
    options = protocols.Options(shape=shape, curves=published)
    report = protocols.make("fddb", truth, options=options)(Results.of(found))
    rows = {a.name: f.rectangles() for a, f in zip(truth, found, strict=True)}
    if shape == "ellipse":
        rows = {name: fddb.rectangles_to_ellipses(row) for name, row in rows.items()}
    curves = fddb.evaluate(rows, {a.name: a.ellipses for a in truth}, dict.fromkeys(rows, SIZE))
    expected = {
        f"{kind}{name}": fddb.rate_at(getattr(curves, kind), count)
        for kind in ("discrete", "continuous")
        for name, count in (("_at_5", 5), ("_at_100", 100), ("_at_1000", 1000), ("", math.inf))
    }
    assert report.metrics == {**expected, "false_positives": curves.discrete[0, 1]}
    assert 0 < report.metrics["discrete_at_5"] < report.metrics["discrete_at_100"]
    assert report.by_class is None
    report.save(tmp_path, "ours")
    np.testing.assert_allclose(
        fddb.read_curve(tmp_path / "ours-DiscROC.txt"), curves.discrete, rtol=1e-5
    )
    again = fddb.read_detections(tmp_path / "ours.txt")
    assert all(np.array_equal(again[name], row) for name, row in rows.items() if len(row))
    for (figure, path, _), kind in zip(drawn, ("discrete", "continuous"), strict=True):
        assert path == tmp_path / f"{kind}.png"
        shown = figures.described(figure.axes[0])
        assert shown["title"].startswith(f"FDDB, {kind} score, 25 images")
        ours = f"{fddb.rate_at(getattr(curves, kind), 2000):.3f} ours"
        assert sorted(shown["legend"]) == sorted([ours, "0.500 A", "0.500 B"])


def test_names_of_published_rocs_are_seen(tmp_path):
    for name in (
        "MTCNN-DiscROC",
        "BAIDU-IDL-disc",
        "Uni-Ubi_DiscROC-2",
        "Face++DiscROC",
        "AcfContROC",
    ):
        (tmp_path / f"{name}.txt").write_text("0.5 10\n")
    assert list(protocols.roc_files(tmp_path, "disc")) == [
        "BAIDU-IDL",
        "Face++",
        "MTCNN",
        "Uni-Ubi-2",
    ]
    assert list(protocols.roc_files(tmp_path, "cont")) == ["Acf"]


def test_what_a_protocol_lacks_is_said(sized, tmp_path):
    found, truth = sized
    unsized = [dataclasses.replace(a, size=None, image=tmp_path / "gone.jpg") for a in truth]
    results = Results.of(found)
    with pytest.raises(ValueError, match="faces annotated as ellipses, which the format fddb has"):
        protocols.make("fddb", truth)
    for name in ("fddb", "summary"):
        judge = protocols.make(name, with_ellipses(unsized))
        with pytest.raises(ValueError, match=r"gone\.jpg: expected the image, or the size of"):
            judge(results)
    with pytest.raises(ValueError, match=r"Expected the folder with wider_face_val\.mat"):
        protocols.make("wider_face", truth)
    with pytest.raises(ValueError, match="Unknown protocol 'voc'"):
        protocols.make("voc", truth)
    with pytest.raises(ValueError, match=r"expected curves such as NAME-DiscROC\.txt, found none"):
        protocols.make("fddb", with_ellipses(truth), options=protocols.Options(curves=tmp_path))
    (tmp_path / "A-DiscROC.txt").write_text("hello")
    with pytest.raises(ValueError, match=r"A-DiscROC\.txt:1: expected 2 to 4 numbers"):
        protocols.make("fddb", with_ellipses(truth), options=protocols.Options(curves=tmp_path))
    for size in (-1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="Expected a min_size from 0"):
            protocols.make("summary", truth, options=protocols.Options(min_size=size))
    several = dataclasses.replace(results, classes=tuple(c + 1 for c in results.classes))
    with pytest.raises(ValueError, match="one class, faces; received a detection of class 2"):
        protocols.make("fddb", with_ellipses(truth))(several)


def test_sizes_come_from_the_file_then_the_photo_then_the_annotation(tmp_path):
    (tmp_path / "b.png").write_bytes(png(30, 40))
    (tmp_path / "d.png").write_bytes(b"no image")
    file = tmp_path / "sizes.json"
    file.write_text('{"a": [10, 20]}')
    images = [tmp_path / f"{name}.png" for name in "abcd"]
    truth = [Annotation(i.stem, i, np.zeros((0, 4)), size=(5, 6)) for i in images]
    problems = Problems()
    sizes = protocols.image_sizes(truth, file, problems=problems)
    assert sizes == [(20, 10), (30, 40), (5, 6), (5, 6)]
    assert [p.where for p in problems.found] == [str(images[3])]


def test_names_of_sizes_may_lack_suffix_and_folder(tmp_path):
    file = tmp_path / "sizes.json"
    file.write_text('{"a": [1, 2], "x/b.jpg": [3, 4], "c": [5, 6], "y/d.png": [7, 8]}')
    names = ["0--Parade/a.jpg", "x/b", "x/c.jpg", "y/c.jpg", "y/d.jpg", "d.jpg"]
    truth = [Annotation(name, tmp_path / "gone", np.zeros((0, 4))) for name in names]
    sizes = protocols.image_sizes(truth, file)
    assert sizes == [(2, 1), (4, 3), None, None, (8, 7), None]


@pytest.fixture
def wider(tmp_path):
    """A source with its list and the official lists, and the truth."""
    faces = [[[10, 10, 20, 30], [50, 50, 8, 9]], [[5, 5, 40, 40]]]
    truth = make_truth((faces[0], [0], [0, 1], [0, 1]), (faces[1], [0], [0], [0]))
    root = tmp_path / "wider"
    (root / "ground_truth").mkdir(parents=True)
    write_mats(mat_content(truth), root / "ground_truth")
    lines = []
    for name, boxes in zip(truth.names, truth.boxes, strict=True):
        lines += [name, str(len(boxes)), *(" ".join(map(str, box)) for box in boxes.tolist())]
    (root / "wider_face_val_bbx_gt.txt").write_text("\n".join(lines) + "\n")
    return datasets.open("wider_face:wider#val", tmp_path), truth


@pytest.mark.parametrize("iou", ["official", "exact"])
def test_wider_face_says_what_its_judge_says_and_writes_official_files(wider, drawn, tmp_path, iou):
    source, truth = wider
    annotations = source.annotations(photos=False)
    rows = (np.array([[11, 9, 20.5, 30, 0.9], [80, 80, 9, 9, 0.5]]), None)
    results = Results(rows, (np.zeros(2, int), np.zeros(0, int)))
    baseline = tmp_path / "others" / "S3FD"
    expected = wider_face.evaluate({truth.names[0]: rows[0]}, truth, iou)
    wider_face.save_curves(expected, baseline, "S3FD")
    options = protocols.Options(iou=iou, curves=baseline.parent)
    report = protocols.make("wider_face", annotations, [source], options=options)(results)
    assert report.metrics == {name: curve.average_precision for name, curve in expected.items()}
    assert 0 < report.metrics["hard"] < report.metrics["easy"] < 1
    out = tmp_path / "out"
    out.mkdir()
    report.save(out, "ours")
    saved = wider_face.read_curves(out)
    np.testing.assert_array_equal(saved["easy"].recall, expected["easy"].recall)
    back = wider_face.read_detections(out / "results", truth.names)
    np.testing.assert_array_equal(back[truth.names[0]], rows[0])
    [(figure, path, _)] = drawn
    assert path == out / "curves.png"
    for axes in figure.axes:
        labels = {label.split()[0] for label in figures.described(axes)["legend"]}
        assert labels == {"ours", "S3FD"}
    assert report.by_class is None


def test_curves_of_other_detectors_are_in_a_folder_each(wider, tmp_path):
    source, _ = wider
    options = protocols.Options(curves=tmp_path / "others")
    options.curves.mkdir()
    with pytest.raises(ValueError, match=r"others: expected a folder for each detector's curves"):
        protocols.make("wider_face", source.annotations(photos=False), [source], options=options)


def test_the_official_lists_are_looked_for_below_the_source(wider):
    source, _ = wider
    lists = source.root / "ground_truth"
    truth = source.annotations(photos=False)
    for folder in (".", "wider_face_split", "eval_tools/ground_truth"):
        (source.root / folder).mkdir(parents=True, exist_ok=True)
        for file in list(lists.iterdir()):
            file.rename(source.root / folder / file.name)
        lists = source.root / folder
        assert protocols._ground_truth([source]) == lists
        protocols.make("wider_face", truth, [source])
        protocols.make("wider_face", truth, options=protocols.Options(ground_truth=str(lists)))
        if folder == ".":  # the lists alone: the folder has other files, too
            lists = lists / "moved"
            lists.mkdir()
            for file in source.root.glob("*.mat"):
                file.rename(lists / file.name)
    for file in lists.iterdir():
        file.unlink()
    with pytest.raises(
        ValueError, match=r"wider_hard_val\.mat; looked in .*, .*wider_face_split, "
    ):
        protocols.make("wider_face", truth, [source])
    with pytest.raises(ValueError, match=r"no source is of the format wider_face, below which"):
        protocols.make("wider_face", truth)


def test_options_are_checked():
    for name, value in (("shape", "circle"), ("iou", "exactly")):
        known = r"\('rectangle', 'ellipse'\)" if name == "shape" else r"\('official', 'exact'\)"
        with pytest.raises(
            ValueError, match=f"Expected {name} as one of {known}. Received: '{value}'"
        ):
            protocols.Options(**{name: value})
    options = protocols.Options(image_sizes="sizes.json", ground_truth="lists", curves="curves")
    assert (options.image_sizes, options.ground_truth) == (Path("sizes.json"), Path("lists"))
    assert options.curves == Path("curves")
    with pytest.raises(
        ValueError, match="image_sizes is for the protocol fddb or summary, received with"
    ):
        protocols.check_options("coco", protocols.Options(image_sizes="sizes.json"))
    protocols.check_options("fddb", protocols.Options(image_sizes="sizes.json", curves="curves"))


def test_coco_judges_images_in_the_order_of_their_ids(tmp_path):
    """Between equal scores, the first image counts first: with a hit there, the curve is higher."""
    boxes = [[10, 10, 50, 50], [100, 100, 140, 140]]
    photos = [
        {"id": number, "file_name": f"{number}.png", "width": 200, "height": 200}
        for number in (7, 3)
    ]
    rows = [
        {
            "id": n,
            "image_id": n,
            "category_id": 1,
            "bbox": [10, 10, 40, 40],
            "area": 1600,
            "iscrowd": 0,
        }
        for n in (7, 3)
    ]
    content = {"images": photos, "annotations": rows, "categories": [{"id": 1, "name": "face"}]}
    (tmp_path / "set.json").write_text(json.dumps(content))
    source = datasets.open("coco:set.json", tmp_path)
    truth = source.annotations(photos=False)
    first = [annotation.name.startswith("3") for annotation in truth].index(True)
    for hit, expected in ((first, 51 / 101), (1 - first, 51 / 101 / 2)):
        found = [detections([boxes[index != hit]], [0.5]) for index in range(2)]
        report = protocols.make("coco", truth, [source])(Results.of(found))
        assert report.metrics["ap50"] == pytest.approx(expected)
        assert [row.name for row in report.by_class(("face",)).classes] == ["face"]


def test_without_matplotlib_the_log_says_once_how_to_get_it(caplog):
    def plot(*arguments, **options):
        assert (arguments, options) == ((1, 2), {"score": 3})
        raise ImportError("it needs matplotlib")

    caplog.set_level("INFO")
    protocols._log_once.cache_clear()
    for _ in range(2):
        protocols.draw(plot, 1, 2, score=3)
    assert caplog.messages == ["Curves are not drawn: it needs matplotlib"]


def test_a_part_of_wider_face_is_judged_alone(wider):
    source, _ = wider
    annotations = source.annotations(photos=False)[1:]
    results = Results((np.array([[5, 5, 40, 40, 0.9], [90, 90, 5, 5, 0.1]]),), (np.zeros(2, int),))
    report = protocols.make("wider_face", annotations, [source])(results)
    assert report.metrics == {"easy": 1, "medium": 1, "hard": 1}


def test_resized_photos_are_not_wider_face(wider):
    source, _ = wider
    annotations = [
        dataclasses.replace(a, boxes=a.boxes / 2) for a in source.annotations(photos=False)
    ]
    with pytest.raises(ValueError, match=r"0--Event/0\.jpg: its boxes differ from those in"):
        protocols.make("wider_face", annotations, [source])


def test_the_version_of_annotations_is_that_of_images_boxes_and_what_is_ignored(random):
    _, truth = random_set(random)
    version = protocols.digest(truth)
    assert version == protocols.digest([dataclasses.replace(a, image=b"other") for a in truth])
    assert version == protocols.digest(
        [dataclasses.replace(a, boxes=a.boxes + 1e-9) for a in truth]
    )
    # Neither does it depend on what formats do not keep: the order of images and their suffixes.
    assert version == protocols.digest(truth[::-1])
    assert version == protocols.digest(
        [dataclasses.replace(a, name=f"{a.name}.png") for a in truth]
    )
    others = [
        truth[1:],
        [dataclasses.replace(a, boxes=a.boxes + 1) for a in truth],
        [dataclasses.replace(a, ignore=~a.ignore) for a in truth],
        [dataclasses.replace(a, classes=a.classes + 1) for a in truth],
        [dataclasses.replace(a, name=a.name + "x") for a in truth],
    ]
    assert len({version, *map(protocols.digest, others)}) == 1 + len(others)


def test_every_protocol_has_its_words():
    assert set(protocols.NAMES) == set(protocols.TITLES) == set(protocols.CHOOSING)
    options = {field.name for field in dataclasses.fields(protocols.Options)}
    assert options == set(protocols.USED_BY)
    assert {name for names in protocols.USED_BY.values() for name in names} <= set(protocols.NAMES)
