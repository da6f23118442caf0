import sys
import zipfile

import numpy as np
import pytest

import unitbox_tf
from unitbox_tf.formats import runtimes


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
    with pytest.raises(ValueError, match=r"other\.onnx: an ONNX file, but none that unitbox_tf e"):
        unitbox_tf.load(onnx_of_others)
    onnx_of_others.write_bytes(b"nonsense")
    with pytest.raises(ValueError, match=r"other\.onnx: expected an ONNX file"):
        unitbox_tf.load(onnx_of_others)


def test_a_litert_file_of_others_is_named(tmp_path):
    path = tmp_path / "other.tflite"
    path.write_bytes(b"nonsense")
    with pytest.raises(
        ValueError, match=r"other\.tflite: a LiteRT file, but none that unitbox_tf e"
    ):
        unitbox_tf.load(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(runtimes.CLASS_NAMES, '["face"]')
        archive.writestr(runtimes.DECODE_CONFIG, "{}")
    pytest.importorskip("ai_edge_litert")
    with pytest.raises(ValueError, match=r"other\.tflite: expected a LiteRT file"):
        unitbox_tf.load(path)


@pytest.mark.parametrize(
    ("suffix", "library"), [(".onnx", "onnxruntime"), (".tflite", "ai_edge_litert")]
)
def test_a_library_that_is_missing_is_named(suffix, library, tmp_path, monkeypatch):
    path = tmp_path / f"detector{suffix}"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(runtimes.CLASS_NAMES, '["face"]')
        archive.writestr(runtimes.DECODE_CONFIG, "{}")
    name = "onnxruntime" if suffix == ".onnx" else "ai_edge_litert.interpreter"
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(
        ImportError, match=rf"opening it needs {library}: pip install 'unitbox_tf\["
    ):
        unitbox_tf.load(path)


def test_what_is_no_export_is_left_to_the_caller(tmp_path):
    assert runtimes.open_exported(tmp_path) is None
    (tmp_path / "notes.txt").write_text("none")
    assert runtimes.open_exported(tmp_path / "notes.txt") is None
    with pytest.raises(ValueError, match=r"or a file that ends in \.onnx or \.tflite"):
        unitbox_tf.load(tmp_path)


def test_a_saved_model_heeds_its_options(untrained_run):
    image = np.full((60, 80, 3), 120, np.uint8)
    folder = untrained_run / "saved_model"
    for changes in ({"decoder": "ellipse"}, {"score_threshold": 0.4}, {"max_detections": 2}):
        exported, run = (unitbox_tf.load(path, **changes) for path in (folder, untrained_run))
        assert exported.decode == run.decode
        np.testing.assert_allclose(exported(image).boxes, run(image).boxes, atol=0.5)
    with pytest.raises(ValueError, match=r"of whose decoding only score_threshold, .* can be chan"):
        unitbox_tf.load(folder, max_side=32)
    with pytest.raises(ValueError, match="score_threshold, 0 to 1"):
        unitbox_tf.load(folder, score_threshold=2.0)
