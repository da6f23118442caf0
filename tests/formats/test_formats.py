import dataclasses
import json
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

import unitbox_tf
from tests.helpers.exports import CONFIG
from unitbox_tf import formats, images, inputs, registry
from unitbox_tf.datasets import synthetic
from unitbox_tf.detect.model import UnitBox
from unitbox_tf.formats import litert
from unitbox_tf.problems import Problems


@pytest.fixture
def onnx_of_others(tmp_path):
    onnx = pytest.importorskip("onnx")
    info = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    node = onnx.helper.make_node("Identity", ["x"], ["y"])
    result = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    graph = onnx.helper.make_graph([node], "other", [info], [result])
    opset = onnx.helper.make_opsetid("", 18)
    onnx.save(
        onnx.helper.make_model(graph, ir_version=10, opset_imports=[opset]), tmp_path / "other.onnx"
    )
    return tmp_path / "other.onnx"


def test_an_onnx_file_of_others_is_named(onnx_of_others):
    pytest.importorskip("onnxruntime")
    with pytest.raises(
        ValueError, match=r"other\.onnx: an ONNX file, but not exported by unitbox_tf"
    ):
        unitbox_tf.load(onnx_of_others)
    onnx_of_others.write_bytes(b"nonsense")
    with pytest.raises(ValueError, match=r"other\.onnx: expected an ONNX file"):
        unitbox_tf.load(onnx_of_others)


def write_archive(path):
    """A file that says about itself what a LiteRT file says, and holds no network."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(formats.CLASS_NAMES, '["face"]')
        archive.writestr(formats.DECODE_CONFIG, "{}")
        preprocessing = {"stride": 32, "channels": "rgb", "mean": [0, 0, 0], "scale": 1}
        archive.writestr(litert.PREPROCESSING, json.dumps(preprocessing))
        archive.writestr(litert.HEATMAPS, '{"stride": 1, "unit": 1}')


def test_a_litert_file_of_others_is_named(tmp_path):
    path = tmp_path / "other.tflite"
    path.write_bytes(b"nonsense")
    message = r"other\.tflite: a LiteRT file, but not exported by unitbox_tf"
    with pytest.raises(ValueError, match=message):
        unitbox_tf.load(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("labels.txt", "face")
    with pytest.raises(ValueError, match=message):
        unitbox_tf.load(path)
    write_archive(path)
    pytest.importorskip("ai_edge_litert")
    with pytest.raises(ValueError, match=r"other\.tflite: expected a LiteRT file"):
        unitbox_tf.load(path)


@pytest.mark.parametrize(
    ("suffix", "library"), [(".onnx", "onnxruntime"), (".tflite", "ai_edge_litert")]
)
def test_a_library_that_is_missing_is_named(suffix, library, tmp_path, monkeypatch):
    path = tmp_path / f"detector{suffix}"
    write_archive(path)
    name = "onnxruntime" if suffix == ".onnx" else "ai_edge_litert.interpreter"
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(
        ImportError, match=rf"opening it needs {library}: pip install 'unitbox_tf\["
    ):
        unitbox_tf.load(path)


def test_what_is_no_export_is_left_to_the_caller(tmp_path):
    assert formats.open_exported(tmp_path) is None
    (tmp_path / "notes.txt").write_text("none")
    assert formats.open_exported(tmp_path / "notes.txt") is None
    with pytest.raises(ValueError, match=r"or a file that ends in \.keras, \.onnx, \.tflite"):
        unitbox_tf.load(tmp_path)


@pytest.mark.slow
def test_a_saved_model_heeds_its_options(untrained_run):
    image = np.full((60, 80, 3), 120, np.uint8)
    folder = untrained_run / "saved_model"
    for changes in ({"decoder": "ellipse"}, {"score_threshold": 0.4}, {"max_detections": 2}):
        exported, run = (unitbox_tf.load(path, **changes) for path in (folder, untrained_run))
        assert exported.decode == run.decode
        np.testing.assert_allclose(exported(image).boxes, run(image).boxes, atol=0.5)
    options = "decoder, score_threshold, blob_threshold, nms_iou, max_detections, max_pixels"
    with pytest.raises(ValueError, match=f"only {options} of its decoding can be changed"):
        unitbox_tf.load(folder, max_side=32)
    with pytest.raises(ValueError, match="score_threshold: expected a number from 0 to 1"):
        unitbox_tf.load(folder, score_threshold=2.0)
    with pytest.raises(ValueError, match="Unknown field of DecodeConfig: 'threshold'"):
        unitbox_tf.load(folder, threshold=0.5)


def test_each_format_is_known_by_its_name():
    for name in registry.FORMATS:
        assert registry.FORMATS[name].name == name


@pytest.fixture
def saves(monkeypatch):
    """Calls of `save` of all formats, none of which writes; images for calibration are taken."""
    calls = []

    def fake(format):
        def save(model, path, card, **options):
            if format.calibrated:
                options["calibration"] = list(options["calibration"])
            calls.append((format.name, model, path, card, options))

        return dataclasses.replace(format, save=save)

    for name in registry.FORMATS:
        monkeypatch.setitem(registry.FORMATS._values, name, fake(registry.FORMATS[name]))
    return calls


@pytest.fixture
def pictures(tmp_path):
    """A folder with three images, one of which is broken."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name, content in (("a", synthetic.draw(0).image), ("b", b"no"), ("c", b"no")):
        (folder / f"{name}.png").write_bytes(content)
    (folder / "c.png").write_bytes(synthetic.draw(1).image)
    return folder


@pytest.mark.parametrize(
    ("name", "format", "chosen"),
    [
        ("detector", None, "saved_model"),
        ("detector.v2", None, "saved_model"),
        ("detector.onnx", None, "onnx"),
        ("detector.tflite", None, "litert"),
        ("detector.tflite", "litert", "litert"),
        ("detector.onnx", "saved_model", "saved_model"),
    ],
)
def test_the_suffix_or_a_name_gives_the_format(name, format, chosen, saves, model, tmp_path):
    path = tmp_path / name
    assert formats.export(model, str(path), format=format, score_threshold=0.3) == path
    [(saved_as, saved, saved_to, card, options)] = saves
    assert (saved_as, saved, saved_to) == (chosen, model, path)
    assert card == "# UnitBox detector: cat, dog\n"
    assert options == {"decode": dataclasses.replace(CONFIG.decode, score_threshold=0.3)}
    assert model.decode == CONFIG.decode


def test_a_run_is_exported_with_its_card_and_its_best_weights(saves, untrained_run, tmp_path):
    formats.export(str(untrained_run), tmp_path / "a.onnx", max_side=32)
    [(_, exported, _, card, options)] = saves
    assert card.startswith("# UnitBox detector: object, other\n\nTrained on synthetic:")
    assert exported.class_names == ("object", "other")
    assert options["decode"].max_side == 32
    expected = UnitBox.from_preset(untrained_run)
    for a, b in zip(exported.get_weights(), expected.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_images_for_calibration_may_be_whatever_stands_for_images(saves, model, pictures):
    good = inputs.read_image(pictures / "a.png")
    path = pictures / "detector.tflite"
    for given, count in ((pictures, 2), ([good, pictures / "c.png"], 2), (iter([good] * 250), 100)):
        problems = Problems()
        formats.export(model, path, format="litert-int8", calibration=given, problems=problems)
        calibration = saves[-1][-1]["calibration"]
        assert len(calibration) == count
        np.testing.assert_array_equal(calibration[0], good)
        broken = [str(pictures / "b.png")] if given is pictures else []
        assert [Path(problem.where) for problem in problems.found] == [Path(b) for b in broken]
    with pytest.raises(ValueError, match=r"b\.png: expected a JPEG, PNG, "):
        formats.export(model, path, format="litert-int8", calibration=pictures)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("a.onnx", {"format": "litert"}, r"Expected a file that ends in \.tflite for litert"),
        ("a", {"format": "onnx"}, r"Expected a file that ends in \.onnx for onnx"),
        ("a.onnx", {"format": "onxn"}, "Unknown export format 'onxn'. Expected one of"),
        ("a.tflite", {"format": "litert-int8"}, "Expected images for cal.* Received: none"),
        ("a", {"calibration": "."}, "Expected no images .* saved_model. Received: [0-9]+ images"),
        ("a.tflite", {"format": "litert-int8", "calibration": "gone/*"}, "no file matches"),
        ("a", {"score_threshold": 2}, "score_threshold: expected a number from 0 to 1"),
        ("a", {"treshold": 0.2}, "Unknown field of DecodeConfig: 'treshold'"),
        ("a.onnx", {"decoder": "ellipse"}, r"runs in onnx, one of \['peaks'\]\. Received: 'ell"),
    ],
)
def test_what_does_not_fit_is_said(name, options, message, model, pictures, tmp_path, monkeypatch):
    monkeypatch.chdir(pictures)
    with pytest.raises(ValueError, match=message):
        formats.export(model, tmp_path / name, **options)
    assert [path.name for path in tmp_path.iterdir()] == ["pictures"]


def test_a_folder_without_a_run_is_named(tmp_path):
    with pytest.raises(
        ValueError, match=r"gone: expected the folder of a run.*: there is no such folder"
    ):
        formats.export("./gone", tmp_path / "a")
    with pytest.raises(
        ValueError, match=r"expected the folder of a run.*: there is no such config\.json"
    ):
        formats.export(tmp_path, tmp_path / "a")
    assert not list(tmp_path.iterdir())


def test_a_new_format_is_one_entry_in_the_registry(model, tmp_path):
    def save(model, path, card, *, decode):
        path.write_text(" ".join(model.class_names))

    def open(path, trust):
        def detect(image, decode):
            return unitbox_tf.Detections(
                np.zeros((0, 4)), np.zeros(0), np.zeros(0, int), image.shape[:2]
            )

        names = tuple(path.read_text().split())
        return formats.Exported(detect, names, CONFIG.decode, (), images.decode_with_pillow)

    registry.FORMATS.register("names", formats.Format("names", ".names", save, open))
    try:
        path = formats.export(model, tmp_path / "a.names")
        find = unitbox_tf.load(path)
        assert find.class_names == ("cat", "dog")
        assert find(np.zeros((3, 4, 3), np.uint8)).image_size == (3, 4)
    finally:
        registry.FORMATS.unregister("names")
