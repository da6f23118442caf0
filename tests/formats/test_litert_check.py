import json
import zipfile

import numpy as np
import pytest

import unitbox_tf
from tests.helpers import tiny_models
from unitbox_tf.archives import Unusable
from unitbox_tf.formats import litert, litert_check

pytest.importorskip("ai_edge_litert")
schema = pytest.importorskip("ai_edge_litert.schema_py_generated")
flatbuffers = pytest.importorskip("flatbuffers")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "detector.tflite"
    litert.save(tiny_models.model(), path, "a card")
    return path


@pytest.fixture
def edit(saved, tmp_path):
    """A copy of the file, in which `change` has edited the network, and `texts` the files at its end."""

    def write(change=lambda network: None, **texts):
        network = schema.ModelT.InitFromPackedBuf(saved.read_bytes(), 0)
        change(network)
        builder = flatbuffers.Builder(1 << 16)
        builder.Finish(network.Pack(builder), b"TFL3")
        path = tmp_path / "detector.tflite"
        path.write_bytes(builder.Output())
        with zipfile.ZipFile(saved) as old, zipfile.ZipFile(path, "a") as new:
            for name in old.namelist():
                content = texts.get(name.partition(".")[0], old.read(name))
                if content is not None:
                    new.writestr(name, content)
        return path

    return write


def test_what_is_ours_is_opened(edit):
    assert unitbox_tf.load(edit())(tiny_models.IMAGE).image_size == tiny_models.IMAGE.shape[:2]


def own_operator(network):
    network.operatorCodes[0].builtinCode = schema.BuiltinOperator.CUSTOM
    network.operatorCodes[0].customCode = "FlexWriteFile"


def name_of_an_own_operator(network):
    network.operatorCodes[0].customCode = "FlexWriteFile"


def two_graphs(network):
    network.subgraphs.append(network.subgraphs[0])


def weights_in_other_files(network):
    group = schema.ExternalBufferGroupT()
    group.name = "canary"
    network.externalBufferGroups = [group]


def weights_outside(network):
    network.buffers[2].data = None
    network.buffers[2].offset = 10**6
    network.buffers[2].size = 16


def large_tensor(network):
    network.subgraphs[0].tensors[1].shape = [1, 10**6, 10**6, 3]


def negative_tensor(network):
    network.subgraphs[0].tensors[1].shape = [1, -5, 3, 3]


def buffer_that_is_not_there(network):
    network.subgraphs[0].tensors[1].buffer = 10**6


def tensor_that_is_not_there(network):
    network.subgraphs[0].operators[0].inputs = [10**6]


def operator_that_is_not_there(network):
    network.subgraphs[0].operators[0].opcodeIndex = 99


def another_input(network):
    graph = network.subgraphs[0]
    graph.tensors[graph.inputs[0]].shape = [1, 64, 64, 1]


def another_output(network):
    graph = network.subgraphs[0]
    graph.tensors[graph.outputs[0]].shape = [64, 64]


def more_outputs(network):
    graph = network.subgraphs[0]
    graph.outputs = [*graph.outputs, graph.inputs[0]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (own_operator, "it has operators that are not LiteRT's own, which may run any code"),
        (name_of_an_own_operator, "it has operators that are not LiteRT's own"),
        (two_graphs, "it has several graphs, or weights in other files"),
        (weights_in_other_files, "it has several graphs, or weights in other files"),
        (weights_outside, "it has weights outside of the graph"),
        (large_tensor, r"it has a tensor \[1, 1000000, 1000000, 3\]"),
        (negative_tensor, r"it has a tensor \[1, -5, 3, 3\]"),
        (buffer_that_is_not_there, "it has tensors of buffers that are not there"),
        (tensor_that_is_not_there, "it has operators of tensors that are not there"),
        (operator_that_is_not_there, "it has operators of tensors that are not there"),
        (another_input, r"its input is \[1, 64, 64, 1\], and not an image"),
        (another_output, "its outputs are no maps"),
        (more_outputs, "it does not have one input and two outputs"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_network_of_others_is_not_opened(change, message, edit, monkeypatch):
    from ai_edge_litert import interpreter

    path = edit(change)
    monkeypatch.setattr(interpreter, "Interpreter", pytest.fail)
    with pytest.raises(Unusable, match=rf"detector\.tflite: .*{message}"):
        unitbox_tf.load(path)


def preprocessing(**changes):
    values = {"stride": 2, "channels": "rgb", "mean": [0.0, 0.0, 0.0], "scale": 1.0}
    return {"preprocessing": json.dumps(values | changes)}


def heatmaps(**changes):
    return {"heatmaps": json.dumps({"stride": 1, "unit": 1.0} | changes)}


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (heatmaps(stride=0), "heatmaps.json: expected stride and unit"),
        (heatmaps(stride=1.5), "heatmaps.json: expected stride and unit"),
        (heatmaps(stride=10**9), "heatmaps.json: expected stride and unit"),
        (heatmaps(unit=0), "heatmaps.json: expected stride and unit"),
        (heatmaps(unit=float("nan")), "heatmaps.json: expected stride and unit"),
        (heatmaps(unit=[]), "heatmaps.json: expected stride and unit"),
        ({"heatmaps": "3"}, "heatmaps.json: expected stride and unit"),
        ({"heatmaps": None}, "not exported by unitbox_tf: it has no heatmaps.json"),
        (preprocessing(stride=0), "preprocessing.json: expected stride"),
        (preprocessing(stride=10**9), "preprocessing.json: expected stride"),
        (preprocessing(channels="x"), "preprocessing.json: expected stride"),
        (preprocessing(mean=[1]), "preprocessing.json: expected stride"),
        (preprocessing(scale=float("nan")), "preprocessing.json: expected stride"),
        (preprocessing(scale="a"), "preprocessing.json: expected stride"),
        ({"preprocessing": "[]"}, "preprocessing.json: expected stride"),
        ({"preprocessing": "[" * 10**5}, "preprocessing.json: not usable JSON"),
        ({"preprocessing": None}, "not exported by unitbox_tf: it has no preprocessing.json"),
        ({"class_names": b'"\xff"'}, "expected JSON in UTF-8"),
        ({"class_names": '["a", "b", "c"]'}, "its outputs have .* channels for 3 classes"),
        ({"decode_config": '{"score_threshold": 7}'}, "score_threshold: expected"),
    ],
)
def test_the_texts_in_the_file_are_checked(texts, message, edit):
    with pytest.raises(ValueError, match=rf"detector\.tflite: .*{message}"):
        unitbox_tf.load(edit(**texts))


def test_other_bytes_are_not_opened(saved):
    for content in (b"", b"TFL3", b"nonsense" * 9):
        with pytest.raises(Unusable, match="expected a LiteRT file"):
            litert_check.check(saved, content)


def test_damaged_files_are_our_error(saved, tmp_path):
    content = saved.read_bytes()
    end = content.index(b"PK\x03\x04")
    path, random, errors = tmp_path / "detector.tflite", np.random.default_rng(7), []
    for number in range(60):
        if number % 3:
            network = tiny_models.mutated(content[:end], random).ljust(end, b"\0")
            path.write_bytes(network + content[end:])
        else:
            path.write_bytes(tiny_models.mutated(content, random))
        try:
            unitbox_tf.load(path)(tiny_models.IMAGE)
        except ValueError as error:
            errors.append(str(error))
    assert len(errors) > 30
    assert all(error.startswith(f"{path}: ") and "\n" not in error for error in errors)
