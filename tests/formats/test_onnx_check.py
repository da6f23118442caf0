import json

import numpy as np
import pytest

import unitbox_tf
from tests.helpers import tiny_models
from unitbox_tf.archives import Unusable
from unitbox_tf.formats import onnx as onnx_format
from unitbox_tf.formats import onnx_check
from unitbox_tf.limits import TooLarge

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
DEFAULTS = {"score_threshold": 0.5, "nms_iou": 0.4, "max_detections": 3}


def model():
    """A file with the inputs, outputs and texts of an export, whose graph finds nothing."""
    proto, types, tensor = onnx.TensorProto, onnx.numpy_helper.from_array, []
    helper = onnx.helper
    zeros = {
        "boxes": np.zeros((1, 3, 4), np.float32),
        "scores": np.zeros((1, 3), np.float32),
        "classes": np.zeros((1, 3), np.int32),
        "num_detections": np.zeros(1, np.int32),
    }
    nodes = [helper.make_node("Constant", [], [n], value=types(v)) for n, v in zeros.items()]
    images = helper.make_tensor_value_info("images", proto.UINT8, [None, None, None, 3])
    inputs = [images]
    for name, dtype in onnx_format.OPTIONS.items():
        tensor.append(types(np.array(DEFAULTS[name], dtype), name))
        inputs.append(helper.make_tensor_value_info(name, tensor[-1].data_type, []))
    outputs = [
        helper.make_tensor_value_info(n, types(v).data_type, v.shape) for n, v in zeros.items()
    ]
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, tensor)
    made = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 18)])
    texts = {"class_names.json": '["cat"]', "decode_config.json": "{}", "model_card.md": "a card"}
    for key, value in texts.items():
        made.metadata_props.add(key=key, value=value)
    return made


@pytest.fixture
def save(tmp_path):
    def write(change=lambda made: None):
        made = model()
        change(made)
        path = tmp_path / "a.onnx"
        path.write_bytes(made.SerializeToString())
        return path

    return write


def test_what_is_ours_is_opened(save):
    find = unitbox_tf.load(save(), score_threshold=0.2)
    assert find.class_names == ("cat",)
    assert len(find(tiny_models.IMAGE)) == 0


def external(tensor):
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="canary")


def external_weights(made):
    external(made.graph.initializer[0])


def external_constant(made):
    external(made.graph.node[0].attribute[0].t)


def external_in_a_branch(made):
    graph = onnx.helper.make_graph([], "inner", [], [], [made.graph.initializer[0]])
    external(graph.initializer[0])
    node = onnx.helper.make_node("If", ["x"], ["y"], then_branch=graph, else_branch=graph)
    made.graph.node.append(node)


def external_without_location(made):
    made.graph.initializer[0].external_data.add(key="location", value="/etc/passwd")


def other_domain(made):
    made.graph.node.append(onnx.helper.make_node("EPContext", [], ["y"], domain="com.microsoft"))


def other_domain_in_a_branch(made):
    inner = onnx.helper.make_node("Evil", [], ["y"], domain="evil")
    graph = onnx.helper.make_graph([inner], "inner", [], [])
    node = onnx.helper.make_node("Loop", ["x"], ["y"])
    node.attribute.add(name="body", type=onnx.AttributeProto.GRAPHS).graphs.append(graph)
    made.graph.node.append(node)


def own_function(made):
    made.functions.add(name="f", domain="evil")


def training(made):
    made.training_info.add()


def sparse(made):
    made.graph.sparse_initializer.add()


def deep(made):
    for _ in range(15):
        node = onnx.helper.make_node("If", ["x"], ["y"], then_branch=made.graph)
        made.graph.CopyFrom(onnx.helper.make_graph([node], "outer", [], []))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (external_weights, "it has weights in another file"),
        (external_constant, "it has weights in another file"),
        (external_in_a_branch, "it has weights in another file"),
        (external_without_location, "it has weights in another file"),
        (other_domain, "it has operators of 'com.microsoft', which may run any code"),
        (other_domain_in_a_branch, "it has operators of 'evil', which may run any code"),
        (own_function, "it has functions"),
        (training, "it has training"),
        (sparse, "it has sparse weights"),
        (deep, "nested too deep or too long"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_reaches_beyond_the_file_is_refused(change, message, save, tmp_path, monkeypatch):
    import onnxruntime

    monkeypatch.setattr(onnxruntime, "InferenceSession", pytest.fail)  # nothing is opened
    monkeypatch.chdir(tmp_path)
    (tmp_path / "canary").write_bytes(bytes(100))
    path = save(change)
    with pytest.raises(Unusable, match=rf"a\.onnx: .*{message}"):
        unitbox_tf.load(path)


def change_metadata(key, value):
    def change(made):
        [entry] = [each for each in made.metadata_props if each.key == key]
        entry.value = value

    return change


def rename_output(made):
    made.graph.node[0].output[0] = made.graph.output[0].name = "other"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (change_metadata("class_names.json", "[" * 100_000), "class_names.json: not usable JSON"),
        (change_metadata("class_names.json", '["a", '), "class_names.json:1: not valid JSON"),
        (change_metadata("class_names.json", "[]"), "expected the name of each class"),
        (change_metadata("class_names.json", '"face"'), "class_names: expected a list of texts"),
        (change_metadata("class_names.json", json.dumps(["a" * 201])), "class_names: expected"),
        (change_metadata("class_names.json", "1" * 5000), "class_names.json: not usable JSON"),
        (change_metadata("decode_config.json", " " * (5 << 20)), "expected at most .* characters"),
        (change_metadata("decode_config.json", '{"nms_iou": 7}'), "nms_iou: expected a number"),
        (change_metadata("decode_config.json", '{"evil": 7}'), "unknown field 'evil'"),
        (rename_output, "but not exported by unitbox_tf: it has the inputs .*, or other outputs"),
        (lambda made: made.graph.initializer.pop(), "it has the inputs"),
        (lambda made: made.metadata_props.pop(0), "but not exported by unitbox_tf"),
    ],
)
def test_texts_inputs_and_outputs_are_checked(change, message, save):
    with pytest.raises(ValueError, match=rf"a\.onnx: .*{message}"):
        unitbox_tf.load(save(change))


def test_another_form_of_models_is_not_opened(save):
    path = save()
    path.write_bytes(b"\x00\x00\x00\x00ORTM" + path.read_bytes())
    with pytest.raises(Unusable, match="Received: a model in the form of ONNX Runtime"):
        unitbox_tf.load(path)


def test_large_files_are_not_read(save, monkeypatch):
    path = save()
    monkeypatch.setattr(onnx_format, "MAX_WEIGHTS_BYTES", 100)
    with pytest.raises(TooLarge, match=r"a\.onnx: expected a file of at most 100 bytes"):
        unitbox_tf.load(path)
    monkeypatch.setattr(onnx_check, "MAX_FIELDS", 10)
    with pytest.raises(Unusable, match="nested too deep or too long"):
        onnx_check.check(path, path.read_bytes())


def test_damaged_files_are_our_error(save, capfd):
    path = save()
    whole, random, errors = path.read_bytes(), np.random.default_rng(4), []
    for _ in range(60):
        path.write_bytes(tiny_models.mutated(whole, random))
        try:
            unitbox_tf.load(path)
        except ValueError as error:
            errors.append(str(error))
    assert len(errors) > 30
    assert all(error.startswith(f"{path}: ") and "\n" not in error for error in errors)
    assert capfd.readouterr().out == ""
