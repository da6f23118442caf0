"""The comparison with other detectors, without them: fakes speak as they do, and nothing is installed."""

import ast
import dataclasses
import json
import math
import subprocess
import sys
import types
from pathlib import Path

import cv2
import numpy as np
import pytest

from training import command
from training.rivals import catalogue, comparison, judging, on_own_data, workers
from training.rivals.catalogue import Rival
from training.rivals.workers import RivalError, Worker
from unitbox_tf import boxes as box_ops
from unitbox_tf.config import DecodeConfig
from unitbox_tf.records import Annotation, Detections

FAKE = f"""
import runpy
import numpy as np

def fake(calls, score=0.5, smallest=0, blind=0):
    print("loaded")
    def detect(image):
        print("called")  # into the log, not between the answers
        open(calls, "a").write("x")
        if len(image) < smallest:
            raise ValueError("photo too small")
        y, x = np.nonzero((image[..., 0] > 150) & (image[..., 1] < 80))  # what is red
        if max(np.ptp(x), np.ptp(y)) < blind:
            return []
        return [(x.min(), y.min(), np.ptp(x) + 1, np.ptp(y) + 1, np.float32(score))]
    return detect

rival_worker = runpy.run_path({str(catalogue.SCRIPT)!r})
rival_worker["DETECTORS"]["fake"] = fake
rival_worker["main"]()
"""
BOX = [8, 6, 20, 30]  # x, y, width, height
YUNET = Path(__file__).parents[3] / "shared" / "rivals" / "yunet_n_640_640.onnx"


@pytest.fixture
def fake(tmp_path):
    """A detector of red boxes, run by this interpreter."""
    script = tmp_path / "fake.py"
    script.write_text(FAKE)
    settings = {"calls": str(tmp_path / "calls")}
    return Rival("Fake", "fake", settings, {"score": 0.75}, script=script, note="a fake")


def write_photo(path, height=48):
    image = np.zeros((height, 64, 3), np.uint8)
    x, y, width, height = BOX
    image[y : y + height, x : x + width, 2] = 255  # OpenCV's order is blue, green, red
    cv2.imwrite(str(path), image)
    return path


def test_a_worker_answers_photo_after_photo_whatever_the_detector_prints(fake, tmp_path):
    photo = write_photo(tmp_path / "photo.png")
    with Worker([sys.executable], fake, fake.settings, tmp_path / "log") as worker:
        assert worker.versions["packages"]["numpy"] == np.__version__
        for _ in range(2):
            rows, seconds = worker.detect(photo)
            assert rows == [[*BOX, 0.5]]
            assert 0 < seconds < 10
    assert (tmp_path / "log").read_text().split() == ["loaded", "called", "called"]


def test_a_worker_that_stops_says_why(fake, tmp_path):
    with pytest.raises(RivalError, match=r"stopped with status 1: .*unexpected keyword.*'colour'"):
        Worker([sys.executable], fake, {**fake.settings, "colour": 1}, tmp_path / "log")
    settings = {**fake.settings, "smallest": 48}
    small = write_photo(tmp_path / "small.png", 40)
    with Worker([sys.executable], fake, settings, tmp_path / "log") as worker:
        reason = "^stopped with status 1: ValueError: photo too small$"
        with pytest.raises(RivalError, match=reason):
            worker.detect(small)


def test_environments_are_made_once_and_anew_with_other_pins_or_if_incomplete(tmp_path):
    commands = []

    def call(command, **options):
        commands.append(command)
        if "venv" in command:
            Path(command[-1]).mkdir(parents=True)
        if command[-1] == "gone==1":
            raise subprocess.CalledProcessError(1, command, output="Looking\n\nno gone==1\n")

    rival = Rival("R", "r", {}, requirements=("a==1", "b==2"), alone=("c==3",))
    python = workers.interpreter(rival, tmp_path, call)
    assert python[0].startswith(str(tmp_path / "r"))
    assert python[1:] == ("-I",)
    assert [command[-2:] for command in commands[1:]] == [["a==1", "b==2"], ["--no-deps", "c==3"]]
    assert workers.interpreter(rival, tmp_path, call) == python
    assert len(commands) == 3
    (tmp_path / "r" / "old").touch()
    other = dataclasses.replace(rival, requirements=("a==2",), alone=())
    workers.interpreter(other, tmp_path, call)
    assert len(commands) == 5
    assert not (tmp_path / "r" / "old").exists()
    broken = dataclasses.replace(rival, alone=("gone==1",))
    for _ in range(2):  # what is half made is not taken for made
        with pytest.raises(RivalError, match="cannot be installed: Looking / no gone==1"):
            workers.interpreter(broken, tmp_path, call)
    assert len(commands) == 11
    assert workers.interpreter(Rival("Ours", "unitbox", {}), tmp_path, call) == (sys.executable,)


def test_rivals_are_pinned_and_run_by_functions_that_exist():
    worker = catalogue.SCRIPT.read_text()
    for rival in catalogue.RIVALS:
        assert all("==" in pin for pin in (*rival.requirements, *rival.alone))
        assert f"\ndef {rival.detector}(" in worker
        assert set(rival.timed) <= set(rival.settings)
    for names in ({r.label for r in catalogue.RIVALS}, {r.detector for r in catalogue.RIVALS}):
        assert len(names) == len(catalogue.RIVALS)


def test_recall_by_size_is_that_counted_by_hand():
    boxes = [
        [0, 0, 16, 40],
        [50, 0, 74, 30],
        [100, 0, 123.5, 40],
        [0, 60, 10, 90],
        [90, 60, 130, 99],
    ]
    ignore = [False, False, False, False, True]
    annotation = Annotation("a", b"", boxes, ignore=ignore)
    # The first and the third are found; the second with too low a score; the fifth is ignored.
    scores = [0.9, 0.8, 0.3, 0.2]
    found = Detections(
        np.array(boxes)[[0, 2, 4, 1]], np.array(scores), np.zeros(4, int), (100, 200)
    )
    by_size = judging.recall_by_size([found], [annotation], [16, 24, 32, math.inf], 0.25)
    assert {size: row["objects"] for size, row in by_size.items()} == {
        "16-24": 2,  # the borders belong to the upper size: 24 is not here
        "24-32": 1,
        "32+": 0,
    }
    assert by_size["16-24"]["recall"] == 1
    assert by_size["24-32"]["recall"] == 0
    assert math.isnan(by_size["32+"]["recall"])
    # Cut to the photo, the box is as narrow as what is seen of it.
    seen = dataclasses.replace(found, image_size=(100, 120))
    by_size = judging.recall_by_size([seen], [annotation], [16, 24, 32], 0)
    assert by_size["16-24"]["objects"] == 2
    assert by_size["16-24"]["recall"] == 1
    narrow = dataclasses.replace(found, image_size=(100, 115))
    by_size = judging.recall_by_size([narrow], [annotation], [16, 24, 32], 0)
    assert by_size["16-24"]["objects"] == 1


def test_sizes_begin_at_the_smallest_that_counts():
    annotation = Annotation("a", b"", [[0, 0, 30, 30], [40, 40, 49, 49]])
    found = Detections(np.zeros((0, 4)), np.zeros(0), np.zeros(0, int), (50, 50))
    for smallest, sizes in ((0, "0-24"), (28, "28-32")):
        _, figures = judging.judge([found], [annotation], smallest)
        assert next(iter(figures["recall_by_size"])) == sizes
        counts = [row["objects"] for row in figures["recall_by_size"].values()]
        assert sum(counts) == figures["objects"]


def test_our_detectors_are_runs_with_fields_of_their_decoding(tiny_config, tmp_path):
    run = tmp_path / "c:old" / "run"
    run.mkdir(parents=True)
    with pytest.raises(ValueError, match="expected the folder of a run"):
        catalogue.ours(str(run))
    (run / "config.json").write_text(tiny_config.to_json())
    with pytest.raises(ValueError, match=r"expected one class.*'other'"):
        catalogue.ours(str(run))
    model = dataclasses.replace(tiny_config.model, class_names=("face",))
    (run / "config.json").write_text(dataclasses.replace(tiny_config, model=model).to_json())
    plain = catalogue.ours(str(run))
    assert plain.settings == {"path": str(run), "score_threshold": 0.05, "max_side": 64}
    assert plain.timed == {"score_threshold": 0.5}
    other = catalogue.ours(f"{run}:max_side=96:decoder=ellipse:score_threshold=0.3")
    assert other.label == "UnitBox run max_side=96 decoder=ellipse score_threshold=0.3"
    assert other.settings["decoder"] == "ellipse"
    assert (other.settings["max_side"], other.settings["score_threshold"]) == (96, 0.3)
    assert other.timed == {}
    with pytest.raises(ValueError, match=r"expected a field of .*Received: 'side'"):
        catalogue.ours(f"{run}:side=96")


def test_our_detectors_may_be_exported_files_with_a_size_of_their_own(tmp_path, monkeypatch):
    opened = types.SimpleNamespace(class_names=("face",), decode=DecodeConfig(score_threshold=0.3))
    monkeypatch.setattr(catalogue.unitbox_tf, "load", lambda path: opened)
    file = tmp_path / "detector.onnx"
    file.write_bytes(b"weights")
    found = catalogue.ours(f"{file}:nms_iou=0.5")
    assert found.settings == {"path": str(file), "score_threshold": 0.05, "nms_iou": 0.5}
    assert found.timed == {"score_threshold": 0.3}
    photos = comparison.Photos([], [], [], [])
    before = comparison.identity(found, photos)
    file.write_bytes(b"other weights")
    assert comparison.identity(found, photos) != before


def test_yunet_comes_from_a_file_that_an_option_names(tmp_path):
    with pytest.raises(ValueError, match=r"expected the ONNX file of YuNet \(--yunet\)"):
        comparison.chosen([], [], tmp_path / "gone.onnx")
    file = tmp_path / "yunet.onnx"
    file.write_bytes(b"")
    [found] = comparison.chosen([], [], file)
    assert found.base
    assert f"\ndef {found.detector}(" in catalogue.SCRIPT.read_text()


@pytest.mark.skipif(not YUNET.is_file(), reason=f"needs {YUNET.name}")
def test_yunet_finds_faces(tmp_path):
    photo = Path(__file__).parents[2] / "unitbox_tf" / "demo_example.jpg"
    rival = catalogue.yunet(YUNET)
    with Worker([sys.executable], rival, rival.settings, tmp_path / "log") as worker:
        rows, _ = worker.detect(photo)
    x, y, width, height, score = max(rows, key=lambda row: row[4])
    assert score > 0.8
    truth = [[177, 110, 357, 337]]  # read off the portrait
    assert box_ops.pairwise_iou([[x, y, x + width, y + height]], truth)[0, 0] > 0.7


@pytest.fixture
def arguments(tmp_path):
    """A comparison on two images with one face each."""
    images, annotations = [], []
    for number in (1, 2):
        write_photo(tmp_path / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "width": 64, "height": 48})
        row = {"id": number, "image_id": number, "category_id": 7, "bbox": BOX, "iscrowd": 0}
        annotations.append({**row, "area": 600})
    categories = [{"id": 7, "name": "face"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (tmp_path / "instances.json").write_text(json.dumps(content))
    return dict(
        sources=["coco:."],
        data=tmp_path,
        ours=["ours"],
        others=["fake", "gone"],
        yunet=None,
        output=tmp_path / "out",
        environments=None,
        min_size=16,
        photos=None,
        rounds=3,
    )


def test_detectors_are_compared_and_those_that_fail_are_absent(fake, arguments, monkeypatch):
    def interpreter(rival, folder):
        if rival.detector == "gone":
            raise RivalError("cannot be installed: no gone | here")
        return (sys.executable,)

    ours = dataclasses.replace(fake, label="Ours", note="")
    stops = dataclasses.replace(fake, label="Stops", timed={"smallest": 481})
    late = dataclasses.replace(fake, label="Other", settings={**fake.settings, "score": 0.25})
    monkeypatch.setattr(catalogue, "RIVALS", (stops, late, Rival("Gone", "gone", {})))
    monkeypatch.setattr(workers, "interpreter", interpreter)
    monkeypatch.setattr(catalogue, "ours", lambda text: ours)
    comparison.compare(**arguments)
    content = json.loads((arguments["output"] / "table.json").read_text())
    assert content["cores"] >= 1
    rows = content["detectors"]
    assert list(rows) == ["Ours", "Stops", "Other", "Gone"]
    assert content["sources"]["coco:."]["photos"] == 2
    metrics = content["sources"]["coco:."]["detectors"]
    for label in ("Ours", "Stops", "Other"):
        row = metrics[label]
        assert (row["ap50"], row["ap75"], row["mean_iou"], row["objects"]) == (1, 1, 1, 2)
        assert row["recall_by_size"]["16-24"] == {"objects": 2, "recall": 1}
        assert row["recall_by_size"]["24-32"] == {"objects": 0, "recall": None}
    assert "Gone" not in metrics
    assert rows["Ours"]["ratio_quartiles"] == {"Ours": [1, 1, 1]}  # none of the others is a base
    assert len(rows["Other"]["seconds"]) == 3
    assert "photo too small" in rows["Stops"]["untimed"]
    assert "milliseconds" not in rows["Stops"]
    assert "no gone" in rows["Gone"]["absent"]
    text = (arguments["output"] / "table.md").read_text()
    assert (arguments["output"] / "coco" / "curves.png").stat().st_size > 0
    for table in text.split("\n\n"):
        lines = [line for line in table.splitlines() if line.startswith("|")]
        assert len({line.replace("\\|", "").count("|") for line in lines}) <= 1
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert lines[2].startswith("| faces | 2 | 2 |  | 2 | 2 | 0 | 0 | 0 | 0 |")
    assert lines[3] == "| Ours | 1.000 | 1.000 | 1.000 | 1.000 | 1.000 | - | - | - | - |"
    assert "absent: cannot be installed: no gone \\| here" in lines[6]
    assert lines[7] == "| detector | ms | time / Ours [quartiles] |"
    assert lines[9].endswith("| 1.00 [1.00, 1.00] |")
    assert lines[10] == "| Stops | - | - |"


def test_each_source_has_its_own_table_and_times_are_ratios_to_the_bases(
    fake, arguments, monkeypatch, tmp_path
):
    base = dataclasses.replace(fake, label="Base", base=True)
    monkeypatch.setattr(catalogue, "RIVALS", (base,))
    monkeypatch.setattr(catalogue, "ours", lambda text: fake)
    (tmp_path / "more").mkdir()
    for name in ("1.png", "2.png", "instances.json"):
        (tmp_path / "more" / name).write_bytes((tmp_path / name).read_bytes())
    comparison.compare(**{**arguments, "sources": ["coco:.", "coco:more"], "others": ["fake"]})
    content = json.loads((arguments["output"] / "table.json").read_text())
    assert list(content["sources"]) == ["coco:.", "coco:more"]
    for found in content["sources"].values():
        assert {label: row["ap50"] for label, row in found["detectors"].items()} == {
            "Fake": 1,
            "Base": 1,
        }
    assert content["detectors"]["Base"]["ratio_quartiles"] == {"Base": [1, 1, 1]}
    assert list(content["detectors"]["Fake"]["ratio_quartiles"]) == ["Base"]
    assert (arguments["output"] / "coco_more" / "Fake" / "detections.json").is_file()


def test_detections_that_are_there_are_not_made_again(fake, arguments, tmp_path, monkeypatch):
    arguments["rounds"] = 0
    monkeypatch.setattr(catalogue, "RIVALS", ())
    monkeypatch.setattr(catalogue, "ours", lambda text: fake)
    calls = tmp_path / "calls"
    for repeated, count in ((False, 2), (True, 2)):
        comparison.compare(**arguments)
        assert len(calls.read_text()) == count, repeated
    monkeypatch.setattr(
        catalogue,
        "ours",
        lambda text: dataclasses.replace(fake, settings={**fake.settings, "score": 0.4}),
    )
    comparison.compare(**arguments)
    assert len(calls.read_text()) == 4
    (arguments["output"] / "coco" / "Fake" / "detections.json").unlink()
    comparison.compare(**arguments)
    assert len(calls.read_text()) == 6
    arguments["photos"] = 1
    comparison.compare(**arguments)
    assert len(calls.read_text()) == 7


def test_a_stopped_detector_goes_on_at_the_next_photo(fake, tmp_path):
    small = write_photo(tmp_path / "small.png", 40)
    files = [write_photo(tmp_path / f"{number}.png") for number in range(2)] + [small]
    truth = [Annotation(file.name, file, [[8, 6, 28, 36]]) for file in files]
    photos = comparison.Photos(truth, files, [(48, 64), (48, 64), (40, 64)], [])
    stops = dataclasses.replace(fake, settings={**fake.settings, "smallest": 48})
    folder, calls = tmp_path / "out", tmp_path / "calls"
    with pytest.raises(RivalError, match="photo too small"):
        comparison.detect_all(stops, [sys.executable], photos, folder)
    with (folder / comparison.PARTIAL).open("a") as file:
        file.write("[[1, 2")  # the end of a program that was killed
    write_photo(small)
    count = len(calls.read_text())
    result = comparison.detect_all(stops, [sys.executable], photos, folder)
    assert len(calls.read_text()) == count + 1
    assert result["detections"] == 3
    assert not (folder / comparison.PARTIAL).exists()
    content = json.loads((folder / "detections.json").read_text())
    assert [row["file_name"] for row in content] == [file.name for file in files]
    # Detections by other settings are of no use.
    (folder / "facts.json").unlink()
    (folder / comparison.PARTIAL).write_text('{"detector": "other"}\n[]\n')
    assert comparison.detect_all(stops, [sys.executable], photos, folder)["detections"] == 3
    assert len(calls.read_text()) == count + 4


def test_the_same_detector_twice_is_refused(fake, arguments, monkeypatch):
    monkeypatch.setattr(catalogue, "ours", lambda text: fake)
    arguments["ours"] = ["a", "a"]
    with pytest.raises(ValueError, match=r"Received twice: \['Fake'\]"):
        comparison.compare(**arguments)


def test_own_data_gives_its_trainer_what_that_takes(monkeypatch):
    """The trainer is read, not imported: torch is not here."""
    given = {}
    monkeypatch.setattr(
        command, "call", lambda parser, function, options: given.update({function: options})
    )
    files = "--train a.json --validation b.json --test c.json --weights vgg16.h5 --output out"
    monkeypatch.setattr("sys.argv", ["on_own_data", "fcos", *files.split()])
    on_own_data.main()
    [(function, options)] = given.items()
    module, name = function.split(":")
    tree = ast.parse(
        (Path(on_own_data.__file__).parent / f"{module.rpartition('.')[2]}.py").read_text("utf-8")
    )
    parts = {each.name: each for each in tree.body if hasattr(each, "name")}
    fields = {each.target.id for each in parts["Recipe"].body if isinstance(each, ast.AnnAssign)}
    assert options.keys() == {each.arg for each in parts[name].args.kwonlyargs} | fields
    [table] = [each.value for each in tree.body if ast.unparse(each).startswith("DETECTORS = ")]
    assert {ast.literal_eval(key) for key in table.keys} == {"fcos", "ssd300"}
