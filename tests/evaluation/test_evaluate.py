"""The verb: what the command line can do, Python can do."""

import dataclasses
import json
import re
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from tests.helpers import classes as by_classes
from tests.helpers.coco import coco_set
from unitbox_tf import cli, datasets, loading, registry
from unitbox_tf.config import DecodeConfig
from unitbox_tf.datasets import coco, synthetic
from unitbox_tf.evaluation import evaluate as evaluate_module
from unitbox_tf.evaluation import matching, outcome, protocols
from unitbox_tf.evaluation.evaluate import evaluate
from unitbox_tf.problems import Problems
from unitbox_tf.records import Annotation, Detections


class Perfect:
    """A detector that knows the synthetic images."""

    def __init__(self, numbers=range(4)):
        self.class_names = ("object",)
        self.decode = DecodeConfig()
        self.known = {synthetic.draw(number).image: synthetic.draw(number) for number in numbers}

    def __call__(self, image):
        if image not in self.known:
            raise ValueError("no image")
        boxes = self.known[image].boxes
        return Detections(boxes, np.full(len(boxes), 0.5), np.zeros(len(boxes)), (96, 96))


def pictures(count=4):
    return [synthetic.draw(number) for number in range(count)]


def test_a_detector_is_judged_on_annotations_in_memory(tmp_path):
    found = evaluate(Perfect(), pictures())
    assert list(found.metrics) == ["peaks"]
    assert found.metrics["peaks"]["recall"] == found.metrics["peaks"]["ap75"] == 1
    assert found.annotations["peaks"] == pictures()
    assert [len(each) for each in found.detections["peaks"]] == [len(p.boxes) for p in pictures()]
    assert found.class_names == ("object",)
    assert found.facts["annotations"]["sources"] == []
    assert "in memory: 4 images" in found.table()
    assert "4 present, 0 absent; 96 x 96 px" in found.table()
    found.save(tmp_path / "out")
    assert json.loads((tmp_path / "out/results.json").read_text()) == found.to_dict()
    assert len(list((tmp_path / "out/peaks").glob("*.jpg"))) == 4
    with pytest.raises(ValueError, match="out: expected a new or empty folder"):
        found.save(tmp_path / "out")


def test_a_wrong_source_is_reported_before_the_detector_is_opened(
    untrained_run, tmp_path, monkeypatch
):
    (tmp_path / "set").mkdir()
    (tmp_path / "set/train.json").write_text("{}")
    monkeypatch.setattr(loading, "load", lambda *_, **__: pytest.fail("was opened"))
    with pytest.raises(ValueError, match=r"expected nope\.json"):
        evaluate(untrained_run, ["coco:set#nope"], data=tmp_path)


def test_an_iterator_of_annotations_is_read_once():
    assert evaluate(Perfect(), iter(pictures())).metrics == evaluate(Perfect(), pictures()).metrics


def test_a_keras_model_is_judged_as_its_detector(untrained_run):
    from unitbox_tf.detect.model import UnitBox

    model = UnitBox.from_preset(untrained_run, max_side=64)
    found = evaluate(model, pictures(2))
    np.testing.assert_equal(found.metrics, evaluate(model.detector(), pictures(2)).metrics)
    assert sum(map(len, found.detections["peaks"])) > 0
    assert found.facts["detector"] == "UnitBox"


def test_sources_give_the_figures_of_their_annotations():
    one = evaluate(Perfect(), "synthetic:#0-4")
    several = evaluate(Perfect(), ["synthetic:#0-1", datasets.open("synthetic:#1-4")])
    assert one.metrics == several.metrics == evaluate(Perfect(), pictures()).metrics
    assert one.facts["annotations"]["digest"] == several.facts["annotations"]["digest"]
    assert several.facts["annotations"]["sources"] == ["synthetic:#0-1", "synthetic:#1-4"]


def test_classes_have_the_names_of_the_data_set(tmp_path):
    coco_set(tmp_path)
    found = evaluate(tmp_path / "found.json", "coco:set.json", data=tmp_path)
    assert [row.name for row in found.by_class["found"].classes] == ["cat", "dog"]
    stored = found.to_dict()["by_class"]["found"]
    assert stored["confusion_matrix"]["classes"] == ["cat", "dog", "background"]
    assert np.sum(stored["confusion_matrix"]["matrix"]) > 50
    assert "best F1 of found at IoU 0.5: " in found.table()
    assert "\n  cat " in found.table()
    found.save(tmp_path / "out")
    png = (tmp_path / "out/found/confusion_matrix.png").read_bytes()
    assert png.startswith(b"\x89PNG")


def test_one_image_is_no_images():
    table = evaluate([Perfect()(synthetic.draw(0).image)], pictures(1)).table()
    assert "in memory: 1 image, " in table
    assert "in 1 image\n" in table
    assert "1 images" not in table


def test_metrics_that_are_none_have_words():
    nothing = Detections([], [], [], (96, 96))
    table = evaluate([nothing], pictures(1)).table()
    assert re.search(r"^threshold +none$", table, re.MULTILINE)
    assert re.search(r"^mean_iou +undefined$", table, re.MULTILINE)
    assert "best F1 of detections at IoU 0.5: none, as no object is found" in table


def test_images_that_cannot_be_read_are_left_out(tmp_path):
    truth = [*pictures(2), Annotation("broken", b"no image", [[0, 0, 5, 5]])]
    truth.append(Annotation("gone", tmp_path / "gone.png", [[0, 0, 5, 5]]))
    problems = Problems()
    found = evaluate(Perfect(), truth, problems=problems)
    assert len(found.annotations["peaks"]) == 2
    images = found.facts["images"]
    assert (images["present"], images["absent"], images["unreadable"]) == (3, 1, 1)
    assert found.problems is problems
    assert problems.counts["image that cannot be decoded"] == 1
    assert problems.counts["image listed but absent"] == 1


def test_a_list_of_detections_is_judged_like_a_file_of_them(tmp_path):
    found = [Perfect()(picture.image) for picture in pictures()]
    listed = evaluate(found, pictures(), output=tmp_path / "out")
    assert listed.detections == {"detections": found}
    path = tmp_path / "out/detections/detections.json"
    filed = evaluate(path, "synthetic:#0-4")
    assert filed.metrics == listed.metrics == {"detections": matching.summarize(found, pictures())}
    assert filed.detections == {"detections": None}
    assert listed.facts["detections"] == filed.facts["detections"]
    assert not list((tmp_path / "out").rglob("*.jpg"))


@pytest.mark.slow
def test_every_decoder_is_judged_by_its_name_or_one(untrained_run):
    both = evaluate(untrained_run, "synthetic:#200-202", max_side=64)
    assert list(both.metrics) == list(registry.DECODERS)
    one = evaluate(untrained_run, "synthetic:#200-202", max_side=64, decoders="ellipse")
    same = evaluate(untrained_run, "synthetic:#200-202", max_side=64, decoder="ellipse")
    assert one.detections == same.detections == {"ellipse": both.detections["ellipse"]}
    assert len(one.detections["ellipse"][0]) > 0
    assert one.facts["model"]["lowest_score"] == matching.EVALUATED_SCORE
    fewer = evaluate(untrained_run, pictures(2), decoders=["peaks"], score_threshold=0.5)
    assert fewer.facts["model"]["lowest_score"] == 0.5
    with pytest.raises(ValueError, match=r"Unknown decoder 'best'\. Expected some of \['peaks'"):
        evaluate(untrained_run, pictures(2), decoders=["best"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            (None, "synthetic:#0-1"),
            "Expected a detector as a path, a name, a UnitBox or a .*NoneType",
        ),
        (([], "synthetic:#0-1"), "Expected Detections for each of 1 annotations.*Received: 0"),
        (([1], "synthetic:#0-1"), "Expected a list of Detections. Received: int"),
        ((Perfect(), []), "Expected annotated images. Received none"),
        ((Perfect(), [5]), "or a list of annotations. Received: int"),
        ((Perfect(), ["synthetic:#0-1", synthetic.draw(1)]), "expected sources.*Received: str"),
        ((Perfect(), 3), "^sources: expected sources.*Received: int"),
        ((Perfect(), None), "^sources: expected sources.*Received: NoneType"),
        ((Perfect(), Path("x")), "^sources: expected sources.*Received: PosixPath"),
        ((Perfect(), synthetic.draw(1)), "^sources: expected sources.*Received: Annotation"),
        (
            (Perfect(), [Annotation("a", b"x", [])] * 2),
            "None of the 2 images can be read.*: a: no image",
        ),
        (
            (Perfect(), [Annotation("a", "gone.png", [])]),
            "None of the 1 images is there.*: gone.png",
        ),
        ((Perfect(), [Annotation("a", b"", [[0, 0, 1, 1]], [3])]), "Received: 4 classes"),
        (("gone", "synthetic:#0-1"), "^unknown detector 'gone'.*published here is faces"),
        (("./gone", "synthetic:#0-1"), "gone: no such file or folder. Expected a run"),
    ],
)
def test_what_is_wrong_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        evaluate(*arguments)


def test_decoders_are_names():
    with pytest.raises(ValueError, match=r"^decoders: expected names of decoders\. Received: 3"):
        evaluate(Perfect(), pictures(1), decoders=3)


@pytest.mark.parametrize("detector", [Perfect(), [Perfect()(synthetic.draw(0).image)]])
@pytest.mark.parametrize("decode", [{"max_side": 64}, {"decoders": "peaks"}])
def test_decoding_is_for_models_that_are_opened(detector, decode):
    with pytest.raises(ValueError, match=r"^(max_side|decoder) is for models: a run's folder"):
        evaluate(detector, pictures(1), **decode)


@pytest.mark.parametrize("protocol", ["summary", "coco"])
def test_evaluating_parses_the_json_of_the_data_set_once(tmp_path, monkeypatch, protocol):
    """And that of the detections once: five times and once before."""
    coco_set(tmp_path)
    parsed, loads = [], json.loads
    monkeypatch.setattr(
        json, "loads", lambda text, **more: parsed.append(text) or loads(text, **more)
    )
    opened = []
    monkeypatch.setattr(
        coco.Coco,
        "__init__",
        lambda self, *given, make=coco.Coco.__init__: opened.append(given) or make(self, *given),
    )
    evaluate(
        tmp_path / "found.json",
        "coco:set.json",
        data=tmp_path,
        protocol=protocol,
        output=tmp_path / "out",
    )
    texts = [(tmp_path / name).read_text() for name in ("set.json", "found.json")]
    assert sorted(parsed) == sorted(texts)
    assert len(opened) == 1


def test_options_of_protocols_check_themselves(tmp_path):
    with pytest.raises(ValueError, match=r"Expected iou as one of .*'exact'.*Received: 'best'"):
        protocols.Options(iou="best")
    with pytest.raises(ValueError, match="Expected shape as one of"):
        protocols.Options(shape="circle")
    assert protocols.Options(curves=str(tmp_path)).curves == tmp_path


def test_the_worst_images_come_first():
    box = np.float32([[0, 0, 10, 10]])

    def found(boxes):
        count = len(boxes)
        return Detections(
            np.float32(boxes).reshape(-1, 4), np.ones(count), np.zeros(count), (20, 20)
        )

    truth = [Annotation(name, b"", box) for name in "abc"]
    detections = [found(box), found([]), found([[0, 0, 10, 8]])]
    assert outcome.worst_first(detections, truth) == [1, 2, 0]


# The judges' libraries are optional. Each program runs where none of them can be imported.
WITHOUT = """
import logging, sys
for name in ("scipy", "h5py", "pycocotools", "matplotlib", "supervision"):
    sys.modules[name] = None
logging.basicConfig(level=logging.INFO, format="%(message)s")
import numpy as np
from unitbox_tf.datasets import coco, synthetic
from unitbox_tf.evaluation import fddb, protocols, wider_face
from unitbox_tf.evaluation.evaluate import evaluate
from unitbox_tf.records import Annotation, Detections
truth = [synthetic.draw(number) for number in range(3)]
found = [Detections(a.boxes, np.full(len(a.boxes), .5), a.classes, a.size) for a in truth]
"""


def without(program):
    return subprocess.run(
        [sys.executable, "-c", WITHOUT + program], capture_output=True, text=True, check=False
    )


def test_the_summary_needs_no_other_library_and_says_how_to_get_the_rest(tmp_path):
    done = without(
        f"evaluate(found, truth, output={str(tmp_path / 'out')!r})\n"
        f"evaluate(found, truth, output={str(tmp_path / 'again')!r})\n"
        "assert 'tensorflow' not in sys.modules\n"
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines() == [
        "Without pycocotools and supervision, these are left out: AP and recall of each class, the confusion matrix: "
        "pip install 'unitbox_tf[coco,supervision]'",
        "Curves are not drawn: drawing curves needs matplotlib: pip install 'unitbox_tf[plots]'",
    ]
    stored = json.loads((tmp_path / "out/results.json").read_text())["by_class"]["detections"]
    assert stored["best_f1"]["f1"] == 1
    assert stored.keys() == {"best_f1", "classes"}
    assert stored["classes"][0].keys() == {"name", "objects", "best_f1"}
    names = {path.name for path in (tmp_path / "out/detections").iterdir()}
    assert names == {"detections.json"}


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (
            "evaluate(found, truth, protocol='coco')",
            r"COCO's protocol needs pycocotools: pip install 'unitbox_tf[coco]'",
        ),
        (
            "evaluate(found, truth, protocol='fddb')",
            r"FDDB's protocol needs scipy: pip install 'unitbox_tf[fddb]'",
        ),
        (
            "from pathlib import Path\nPath(FILE).write_bytes(b'')\n"
            "wider_face.read_ground_truth(Path(FILE).parent)",
            r"reading MATLAB's files needs scipy: pip install 'unitbox_tf[wider_face]'",
        ),
    ],
)
def test_a_library_that_a_protocol_needs_is_named(program, message, tmp_path):
    done = without(program.replace("FILE", repr(str(tmp_path / "wider_face_val.mat"))))
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == f"ImportError: {message}"


def test_curves_of_wider_face_in_text_need_no_other_library(tmp_path):
    program = f"""
curve = wider_face.Curve(np.array([1, .5]), np.array([.5, 1]), 3)
wider_face.save_curves(dict.fromkeys(wider_face.DIFFICULTIES, curve), Path({str(tmp_path)!r}), "x")
assert wider_face.read_curves(Path({str(tmp_path)!r}))["easy"].recall.tolist() == [.5, 1]
"""
    done = without("from pathlib import Path" + program)
    assert done.returncode == 0, done.stderr


def test_undefined_metrics_are_null():
    nothing = dataclasses.replace(
        synthetic.draw(0), boxes=np.zeros((0, 4)), classes=None, ignore=None
    )
    found = evaluate(Perfect(), [nothing])
    assert np.isnan(found.metrics["peaks"]["recall"])
    assert found.to_dict()["metrics"]["peaks"]["recall"] is None


class Named:
    """A detector that finds all objects of `sets` in `tests.helpers.classes`, and knows their names."""

    def __init__(self, class_names, objects):
        self.class_names = tuple(class_names)
        self.decode = DecodeConfig()
        self.objects = objects

    def __call__(self, image):
        boxes = [[x, y, x + w, y + h] for x, y, w, h in map(by_classes.box_of, range(9))]
        found = boxes[: len(self.objects)]
        labels = [self.class_names.index(name) for name in self.objects]
        return Detections(found, [0.9] * len(found), labels, (by_classes.SIDE, by_classes.SIDE))


def test_classes_of_a_detector_and_of_the_data_are_matched_by_name(tmp_path, caplog):
    caplog.set_level("INFO")
    source = by_classes.coco_set(
        tmp_path / "set", "dog", "cat", "dog", names=["cat", "dog"], ids=[0, 7]
    )
    find = Named(["fox", "dog", "cat"], ["dog", "cat", "dog"])
    found = evaluate(find, source, output=tmp_path / "out")
    assert found.metrics["peaks"]["ap50"] == 1
    assert "The sources lack the classes fox" in caplog.text
    [saved] = (tmp_path / "out").glob("*/detections.json")
    rows = json.loads(saved.read_text())
    assert [(row["category_name"], row["category_id"]) for row in rows] == [
        ("dog", 7),
        ("cat", 0),
        ("dog", 7),
    ]
    assert evaluate(saved, source).metrics["detections"]["ap50"] == 1


def test_a_class_that_the_detector_lacks_is_an_error_unless_classes_are_chosen(tmp_path):
    source = by_classes.coco_set(tmp_path / "set", "dog", "cat", "fox", names=["cat", "dog", "fox"])
    find = Named(["dog", "cat"], ["dog", "cat", "dog"])
    with pytest.raises(ValueError, match=r"'fox' \(1 objects\).*--classes dog cat\)"):
        evaluate(find, source)
    found = evaluate(find, source, classes=["cat"])
    assert found.metrics["peaks"]["ap50"] == 1
    assert [each.classes.tolist() for each in found.detections["peaks"]] == [[1]]
    renamed = evaluate(find, source, rename=["fox=dog"])
    assert renamed.metrics["peaks"]["ap50"] == 1
    with pytest.raises(ValueError, match="no source has the class 'cow'"):
        evaluate(find, source, classes=["cow"])
    with pytest.raises(ValueError, match="no source has the class 'cow'"):
        evaluate(find, source, rename=["cow=cat"])
    with pytest.raises(ValueError, match="rename: expected sources"):
        evaluate(find, datasets.load(source), rename=["fox=dog"])


def test_classes_of_annotations_in_memory_are_those_of_the_detector():
    truth = pictures()
    find = Perfect()
    find.class_names = ("object", "other")
    found = evaluate(find, truth, classes=["object"])
    assert found.metrics["peaks"]["objects"] == sum(len(picture.boxes) for picture in truth)
    assert evaluate(find, truth, classes=["other"]).metrics["peaks"]["objects"] == 0
    with pytest.raises(ValueError, match="the detector lacks"):
        evaluate(find, truth, classes=["cow"])
    listed = [find(picture.image) for picture in truth]
    with pytest.raises(ValueError, match="classes: expected a detector that names its classes"):
        evaluate(listed, truth, classes=["object"])


def test_detections_in_a_list_are_those_of_the_chosen_classes(tmp_path):
    source = by_classes.coco_set(tmp_path / "set", "dog", "cat", "dog", names=["cat", "dog"])
    [listed] = [Named(["cat", "dog"], ["dog", "cat", "dog"])(None)]
    found = evaluate([listed], source, classes=["dog"])
    assert [len(each) for each in found.detections["detections"]] == [2]
    assert found.metrics["detections"]["objects"] == 2


def test_the_decoder_of_a_file_is_the_only_one(monkeypatch):
    opened = types.SimpleNamespace(decode=types.SimpleNamespace(decoder="peaks"))
    given = []
    monkeypatch.setattr(loading, "load", lambda path, **given_: given.append(given_) or opened)
    assert evaluate_module._models(Path("a.onnx"), ["peaks"], {"max_side": 9}, False) == {
        "peaks": opened
    }
    assert given == [{"trust": False, "score_threshold": 0.05, "max_side": 9}]
    with pytest.raises(
        ValueError, match=r"decoder 'peaks', which a\.onnx has alone. Received: ellipse"
    ):
        evaluate_module._models(Path("a.onnx"), ["ellipse"], {}, False)
    with pytest.raises(ValueError, match=r"Unknown decoder 'circle'. Expected some of \['peaks'"):
        evaluate_module._models(Path("a.onnx"), ["peaks", "circle"], {}, False)


def test_annotations_that_state_other_sizes_than_their_images_are_refused():
    truth = [dataclasses.replace(picture, size=(7, 9)) for picture in pictures(2)]
    with pytest.raises(ValueError, match="No annotation has the size of its image: "):
        evaluate(Perfect(), truth)


def test_problems_are_stored_with_the_results(tmp_path, drawn):
    truth = [*pictures(2), Annotation("broken", b"no image", [[0, 0, 5, 5]])]
    evaluate(Perfect(), truth, output=tmp_path / "out")
    assert "image that cannot be decoded" in (tmp_path / "out/problems.txt").read_text()
    assert {path.name for _, path, _ in drawn} == {"curves.png", "confusion_matrix.png"}


def test_the_command_judges_by_names(tmp_path, capsys):
    source = by_classes.coco_set(tmp_path / "set", "a", "b", names=["b", "a"], ids=[0, 1])
    rows = [
        {"file_name": "p.png", "category_id": n, "bbox": by_classes.box_of(n - 1), "score": 0.9}
        for n in (2, 1)
    ]
    (tmp_path / "detections.json").write_text(json.dumps(rows))
    assert cli.main(["evaluate", str(tmp_path / "detections.json"), source, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["metrics"]["detections"]["ap50"] == 0
    for row, name in zip(rows, "ba", strict=True):
        row["category_name"] = name
    (tmp_path / "detections.json").write_text(json.dumps(rows))
    more = ["--rename", "b=c", "--classes", "a"]
    assert cli.main(["evaluate", str(tmp_path / "detections.json"), source, *more, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["metrics"]["detections"]["ap50"] == 1
