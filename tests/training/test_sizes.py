"""Recall by size on composed photos, by detectors that know the truth or a part of it."""

import dataclasses
import json
import sys

import cv2
import numpy as np
import pytest

from tests.training.test_rivals import FAKE
from training.rivals import by_size, catalogue, composed, sizes, workers
from training.rivals.catalogue import Rival
from unitbox_tf import inputs
from unitbox_tf.records import Annotation, Detections


def photo_of_a_face(number, ignore=False, place=(40, 30)):
    """A grey photo with a red box of 40 x 48 px, and a second, ignored object."""
    image = np.full((120, 160, 3), 90, np.uint8)
    x, y = place
    image[y : y + 48, x : x + 40] = (220, 10, 10)
    boxes = [[100, 10, 110, 20], [x, y, x + 40, y + 48]]
    return Annotation(f"{number}.png", image, boxes, ignore=[True, ignore])


def test_the_largest_whole_face_of_each_photo_is_taken():
    cut = Annotation("cut", np.zeros((60, 60, 3), np.uint8), [[-1, 0, 50, 50], [10, 10, 20, 22]])
    photos = [photo_of_a_face(0), photo_of_a_face(1, ignore=True), cut]
    found = composed.faces(photos, 5)
    assert [(f.photo.name, f.index, f.long_side) for f in found] == [
        ("0.png", 1, 48),
        ("cut", 1, 12),
    ]
    assert len(composed.faces(photos, 1)) == 1
    with pytest.raises(ValueError, match="photos with whole faces"):
        composed.faces([photo_of_a_face(1, ignore=True)], 5)


@pytest.mark.parametrize("size", [12, 48, 190])
def test_a_face_has_the_size_asked_for_and_lies_where_the_box_says(size):
    [face] = composed.faces([photo_of_a_face(0)], 1)
    scene = np.full((50, 90, 3), 30, np.uint8)
    places = set()
    for seed in range(3):
        generator = np.random.default_rng(seed)
        image, boxes, ignore = composed.compose(face, size, scene, 200, generator)
        assert image.shape == (200, 200, 3)
        x0, y0, _, y1 = boxes[0]
        assert y1 - y0 == pytest.approx(size, abs=0.02 * size + 0.2)
        assert ignore.tolist() in ([False, True], [False])  # the other object may be outside
        rows, columns = np.nonzero(image[..., 0] > 150)
        assert abs(columns.min() - x0) <= 1.5
        assert abs(rows.max() + 1 - y1) <= 1.5
        assert min(boxes[0]) >= 0
        assert max(boxes[0]) <= 200
        places.add((x0, y0))
    assert len(places) > 1
    again = composed.compose(face, size, scene, 200, np.random.default_rng(2))
    np.testing.assert_array_equal(again[0], image)


def test_other_pixels_have_other_names_and_the_same_ones_are_written_once(tmp_path):
    [face] = composed.faces([photo_of_a_face(0)], 1)
    other = dataclasses.replace(face, photo=dataclasses.replace(face.photo, image=blue(face.photo)))
    scenes = [[Annotation("s", np.full((50, 90, 3), grey, np.uint8), [])] for grey in (30, 60)]
    written = []
    for one, scene in ((face, scenes[0]), (other, scenes[0]), (face, scenes[1]), (face, scenes[0])):
        written.append(next(composed.write_all([one], scene, [48], 96, 0, tmp_path)))
    assert len({each.name for each in written}) == len(list(tmp_path.iterdir())) == 3
    assert written[0].name == written[3].name
    for each, channel in ((written[0], 0), (written[1], 2)):
        x0, y0, x1, y1 = each.boxes[0].astype(int)
        pixels = cv2.imread(str(tmp_path / each.name))[y0:y1, x0:x1, ::-1]
        assert pixels.mean(axis=(0, 1)).argmax() == channel


def blue(photo):
    """The pixels of a photo with red and blue exchanged."""
    return inputs.read_image(photo.encoded())[..., ::-1].copy()


def test_intervals_and_flatness_are_those_computed_by_hand():
    # Wilson's interval of 8 of 10, as in tables: .490 to .943.
    assert by_size.wilson(8, 10) == pytest.approx([0.490, 0.943], abs=1e-3)
    assert by_size.wilson(10, 10)[1] == 1
    hits = np.array([[1, 1, 1, 1], [1, 1, 1, 0], [0, 0, 0, 0]], bool)
    flat = by_size.flatness(hits, [16, 32, 600], 16, 400)
    assert flat["points"] == 25
    assert flat["interval"] == [0, pytest.approx(75, abs=25)]
    assert by_size.flatness(hits, [16, 32, 600], 12, 600)["points"] == 100


def test_a_face_is_found_by_the_best_detection_that_overlaps_it():
    truth = [Annotation(str(n), b"", [[0, 0, 20, 20]], size=(50, 50)) for n in range(2)]
    boxes = np.array([[0, 0, 20, 18], [0, 1, 20, 20], [30, 30, 45, 45]], float)
    both = Detections(boxes, np.array([0.6, 0.9, 0.2]), np.zeros(3, int), (50, 50))
    none = Detections(np.zeros((0, 4)), np.zeros(0), np.zeros(0, int), (50, 50))
    found = composed.find([both, none], truth, 2)
    np.testing.assert_allclose(found.scores, [[0.9], [0]])
    np.testing.assert_allclose(found.overlaps, [[0.95], [0]])
    assert found.threshold == 0.9  # one lower, and there is a false positive in two photos
    assert found.hits().tolist() == [[True], [False]]
    assert not found.hits(0.95).any()


@pytest.fixture
def folder(tmp_path):
    """Data of three red faces and a grey scene, and a script of fake detectors."""
    images, annotations = [], []
    (tmp_path / "scenes").mkdir()
    cv2.imwrite(str(tmp_path / "scenes" / "s.png"), np.full((64, 64, 3), 60, np.uint8))
    (tmp_path / "faces").mkdir()
    for number, place in enumerate([(40, 30), (5, 8), (90, 60)]):
        made = photo_of_a_face(number, place=place)
        (tmp_path / "faces" / made.name).write_bytes(made.image)
        images.append({"id": number, "file_name": made.name, "width": 160, "height": 120})
        box = [*place, 40, 48]
        annotations.append({"id": number, "image_id": number, "category_id": 1, "bbox": box})
    content = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 1, "name": "face"}],
    }
    (tmp_path / "faces" / "instances.json").write_text(json.dumps(content))
    (tmp_path / "fake.py").write_text(FAKE)
    return tmp_path


def test_recall_by_size_shows_a_detector_that_is_blind_to_small_faces(folder, monkeypatch):
    knows = Rival(
        "Knows",
        "fake",
        {"calls": str(folder / "calls")},
        {"score": 0.25},
        script=folder / "fake.py",
    )
    blind = dataclasses.replace(knows, label="Blind", settings={**knows.settings, "blind": 30})
    monkeypatch.setattr(catalogue, "RIVALS", (blind,))
    monkeypatch.setattr(catalogue, "ours", lambda text: knows)
    monkeypatch.setattr(workers, "interpreter", lambda rival, folder: (sys.executable,))
    arguments = {
        "faces": ["coco:faces"],
        "scenes": ["negatives:scenes"],
        "data": folder,
        "ours": ["knows"],
        "others": ["fake"],
        "yunet": None,
        "output": folder / "out",
        "environments": None,
        "sizes": [64.0, 16.0],
        "count": 3,
        "side": 96,
        "seed": 0,
    }
    by_size.measure(**arguments)
    rows = json.loads((folder / "out" / "sizes.json").read_text())["detectors"]
    for size in ("16", "64"):
        assert rows["Knows"]["by_size"][size]["recall"] == 1
        assert rows["Knows"]["by_size"][size]["mean_iou"] > 0.75
    assert rows["Knows"]["flatness"] == {
        name: {"points": 0, "interval": [0, 0]} for name in ("16-400", "12-600")
    }
    assert rows["Blind"]["by_size"]["16"]["recall"] == 0
    assert rows["Blind"]["by_size"]["16"]["mean_iou"] is None
    assert rows["Blind"]["by_size"]["64"]["recall"] == 1
    assert rows["Blind"]["flatness"]["16-400"]["points"] == 100
    text = (folder / "out" / "sizes.md").read_text()
    assert "| Blind | recall | .00 (.00, .56) | 1.00 (.44, 1.00) |" in text
    assert "* Blind, 16-400 px: 100.0 (100.0 to 100.0)" in text
    assert (folder / "out" / "sizes.png").stat().st_size > 0
    # What is there is not made again, and another seed is another set of photos.
    count = len((folder / "calls").read_text())
    assert count == 2 * 2 * 3
    by_size.measure(**arguments)
    assert len((folder / "calls").read_text()) == count
    by_size.measure(**{**arguments, "seed": 1})
    assert len((folder / "calls").read_text()) == 2 * count
    with pytest.raises(ValueError, match=r"sizes up to 97% of the side .* 93 px. Received: 95"):
        by_size.measure(**{**arguments, "sizes": [95.0]})


def test_our_detectors_look_once_and_exported_ones_are_checked(tmp_path, monkeypatch):
    run = Rival("R", "unitbox", {"path": str(tmp_path), "max_side": 224, "score_threshold": 0.05})
    assert by_size.one_pass(run, 640).settings == {
        "path": str(tmp_path),
        "max_side": 640,
        "score_threshold": 0.05,
        "scales": [1.0],
        "largest_object": None,
    }
    import unitbox_tf
    from unitbox_tf.config import DecodeConfig

    file = dataclasses.replace(run, settings={"path": "x.onnx"})
    for decode, fits in (
        (DecodeConfig(max_side=640), True),
        (DecodeConfig(max_side=416), False),
        (DecodeConfig(max_side=640, scales=(0.5, 1.0)), False),
    ):
        opened = dataclasses.make_dataclass("Opened", ["decode"])(decode)
        monkeypatch.setattr(unitbox_tf, "load", lambda path, opened=opened: opened)
        if fits:
            assert by_size.one_pass(file, 640) == file
        else:
            with pytest.raises(ValueError, match="Export it with --max-side 640 --scales 1"):
                by_size.one_pass(file, 640)


def test_sizes_of_the_aim_are_measured_by_default():
    assert sizes.SIZES[0] == 12
    assert sizes.SIZES[-1] == 600
    assert set(by_size.RANGES) == {(16, 400), (12, 600)}
