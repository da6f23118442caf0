import os
import re
import shutil
import subprocess

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework import node_def_pb2
from tensorflow.core.protobuf import saved_model_pb2

import unitbox_tf
from tests.helpers import tiny_models
from unitbox_tf import cli
from unitbox_tf.archives import Unusable
from unitbox_tf.datasets import synthetic
from unitbox_tf.formats import saved_graph, saved_model

TRUST = "It was not opened, because a graph can read and write files"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "detector"
    saved_model.save(tiny_models.model(), path, "a card")
    return path


@pytest.fixture
def graph(saved):
    [graph] = read(saved).meta_graphs
    return graph


@pytest.fixture
def copy(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "detector")


def read(folder):
    stored = saved_model_pb2.SavedModel()
    stored.ParseFromString((folder / saved_graph.GRAPH_FILE).read_bytes())
    return stored


def edit(folder, change):
    """Changes the graph, and writes digests that fit: whoever attacks can do that."""
    stored = read(folder)
    change(stored.meta_graphs[0])
    (folder / saved_graph.GRAPH_FILE).write_bytes(stored.SerializeToString())
    saved_graph.write_digests(folder)


def functions(graph):
    """The functions that save and restore weights, and the others."""
    found = ([], [])
    for function in graph.graph_def.library.function:
        is_saver = saved_graph.SAVING & {node.op for node in function.node_def}
        found[not is_saver].append(function)
    return found


def test_exports_contain_what_is_listed_and_nothing_else(saved):
    [graph] = read(saved).meta_graphs
    savers, others = functions(graph)
    assert {node.op for each in others for node in each.node_def} == saved_graph.OPERATIONS
    assert {node.op for node in graph.graph_def.node} == saved_graph.OUTSIDE
    assert len(savers) == 2
    in_savers = {node.op for each in savers for node in each.node_def}
    assert in_savers == saved_graph.SAVING | saved_graph._AROUND_SAVING
    saved_graph.check(saved)


def test_no_listed_operation_has_to_do_with_files_code_or_networks():
    words = re.compile(
        "File|Save|Restore|Py|Print|Summary|Dataset|Iterator|Reader|Table|Lookup|Send|Recv|Remote|Rpc|Debug|Load|"
        "Checkpoint|Symbolic|Compile|Session|Handle|Queue|Stage|Barrier"
    )
    listed = saved_graph.OPERATIONS | saved_graph.OF_BACKBONES
    assert not {name for name in listed if words.search(name)}


def test_an_export_is_opened_without_trust(copy):
    assert unitbox_tf.load(copy)(tiny_models.IMAGE).image_size == tiny_models.IMAGE.shape[:2]


def test_an_earlier_export_whose_default_takes_images_is_opened(copy):
    def change(graph):
        graph.signature_def["serving_default"].CopyFrom(graph.signature_def["images"])

    edit(copy, change)
    assert unitbox_tf.load(copy)(tiny_models.IMAGE).image_size == tiny_models.IMAGE.shape[:2]
    edit(copy, lambda graph: graph.signature_def["images"].CopyFrom(graph.signature_def["encoded"]))
    with pytest.raises(Unusable, match="its signature images has other inputs or outputs"):
        unitbox_tf.load(copy)


class Evil(tf.Module):
    """It has what `saved_model.open` asks for, and writes a file when it is asked."""

    def __init__(self, path):
        super().__init__()
        self._path = str(path)

    @tf.function(input_signature=[])
    def class_names(self):
        tf.io.write_file(self._path, "evil")
        return tf.constant(["face"])

    @tf.function(input_signature=[])
    def decode_config(self):
        return tf.constant("{}")

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8, "images")])
    def images_with_options(self, images):
        return {"boxes": tf.zeros([1, 0, 4])}


@pytest.fixture
def evil(tmp_path):
    """A SavedModel with the name of the published detector, in the working folder."""
    module = Evil(tmp_path / "written")
    signatures = {"images_with_options": module.images_with_options}
    tf.saved_model.save(module, str(tmp_path / "faces"), signatures=signatures)
    return tmp_path / "faces"


def test_a_model_of_others_is_not_run(evil, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in (evil, "./faces"):
        with pytest.raises(Unusable, match=rf"expected a SavedModel that unitbox_tf exp.*{TRUST}"):
            unitbox_tf.load(path)
    (evil / "assets.extra").mkdir()
    saved_graph.write_digests(evil)
    with pytest.raises(Unusable, match="it has the signatures images_with_options"):
        unitbox_tf.load(evil)
    assert not (tmp_path / "written").exists()
    unitbox_tf.load(evil, trust=True)
    assert (tmp_path / "written").read_text() == "evil"


def test_a_folder_beside_the_images_does_not_take_the_place_of_a_published_name(
    evil, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.png").write_bytes(synthetic.draw(0).image)
    assert cli.main(["detect", "faces", "a.png"]) == 0
    assert cli.main(["detect", "./faces", "a.png", "--restart"]) == 1
    assert "(on the command line --trust)" in capsys.readouterr().err
    assert not (tmp_path / "written").exists()


def test_trust_on_the_command_line(copy, tmp_path, capsys):
    edit(copy, lambda graph: add(graph, "OnesLike", T=tf.int32))
    (tmp_path / "a.png").write_bytes(synthetic.draw(0).image)
    arguments = ["detect", str(copy), str(tmp_path / "a.png"), "--output", str(tmp_path / "found")]
    assert cli.main(arguments) == 1
    assert "it contains the operation OnesLike" in capsys.readouterr().err
    assert cli.main([*arguments, "--trust"]) == 0


def add(graph, op, **types):
    """Adds a node to a function that is not called, so that the graph stays usable."""
    _, others = functions(graph)
    whole = [each for each in others if each.signature.name.startswith("__inf")]
    # The order of the functions in a saved graph changes from run to run.
    original, source = next(
        (each, node)
        for each in whole
        for node in each.node_def
        if node.op == "Const" and tf.as_dtype(node.attr["dtype"].type) == tf.int32
    )
    function = graph.graph_def.library.function.add()
    function.CopyFrom(original)
    function.signature.name = "__inference_added_1"
    node = function.node_def.add(name="added", op=op)
    node.input.append(f"{source.name}:output:0")
    for name, dtype in types.items():
        node.attr[name].type = tf.as_dtype(dtype).as_datatype_enum


OTHERS = """
    WriteFile ReadFile MatchingFiles PyFunc PyFuncStateless EagerPyFunc SaveV2 Save RestoreV2 Restore
    InitializeTableFromTextFileV2 HashTableV2 PrintV2 Print CreateSummaryFileWriter TFRecordDataset TextLineReaderV2
    DebugIdentityV2 AssignVariableOp VarHandleOp RemoteCall SymbolicGradient Batch TPUExecute OurOwnOperation
    """


@pytest.mark.parametrize("op", OTHERS.split())
def test_another_operation_in_a_function_is_refused_by_name(op, tmp_path):
    node = node_def_pb2.NodeDef(name="evil", op=op)
    with pytest.raises(Unusable, match=f"it contains the operation {op}.*{TRUST}"):
        saved_graph._check_nodes(tmp_path, [node], saved_graph.OPERATIONS, set())


def outside(graph):
    graph.graph_def.node.add(name="evil", op="WriteFile")


def call_of_the_saver(graph):
    savers, others = functions(graph)
    node = others[0].node_def.add(name="evil", op="StatefulPartitionedCall")
    node.attr["f"].func.name = savers[0].signature.name


def call_of_the_saver_in_a_list(graph):
    savers, others = functions(graph)
    node = others[0].node_def.add(name="evil", op="StatelessCase")
    node.attr["branches"].list.func.add().name = savers[0].signature.name


def call_of_an_operation(graph):
    _, others = functions(graph)
    node = others[0].node_def.add(name="evil", op="StatefulPartitionedCall")
    node.attr["f"].func.name = "WriteFile"


def saver_with_the_name_of_an_operation(graph):
    functions(graph)[0][0].signature.name = "Identity"


def saver_that_is_offered(graph):
    savers, _ = functions(graph)
    graph.object_graph_def.concrete_functions[savers[0].signature.name].SetInParent()


def saver_that_is_an_object(graph):
    savers, _ = functions(graph)
    node = graph.object_graph_def.nodes.add()
    node.bare_concrete_function.concrete_function_name = savers[0].signature.name


def third_saver(graph):
    savers, _ = functions(graph)
    graph.graph_def.library.function.add().CopyFrom(savers[0])


def gradient(graph):
    graph.graph_def.library.gradient.add(function_name="a", gradient_func="b")


def session(graph):
    for function in functions(graph)[1]:
        for node in function.node_def:
            if "config_proto" in node.attr:
                node.attr["config_proto"].s = b"\x1a\x00" + b"\x72\x00"  # ConfigProto.cluster_def


def executor(graph):
    for function in functions(graph)[1]:
        for node in function.node_def:
            if node.op == "StatefulPartitionedCall":
                node.attr["executor_type"].s = b"OTHER"


def constant(graph):
    for node in graph.graph_def.node:
        if node.op == "Const":
            return node.attr["value"].tensor
    raise AssertionError


def long_constant(graph):
    tensor = constant(graph)
    del tensor.tensor_shape.dim[:]
    tensor.tensor_shape.dim.add(size=10**12)


def long_constant_in_a_function(graph):
    for function in functions(graph)[1]:
        for node in function.node_def:
            if node.op == "Const":
                node.attr["value"].tensor.tensor_shape.dim.add(size=10**12)
                node.attr["value"].tensor.tensor_shape.dim.add(size=1)
                return


def constant_of_unknown_size(graph):
    constant(graph).tensor_shape.dim.add(size=-1)


def handle(graph):
    constant(graph).dtype = tf.resource.as_datatype_enum


def two_tags(graph):
    graph.meta_info_def.tags.append("gpu")


def form_of_tensorflow_1(graph):
    graph.ClearField("object_graph_def")


def asset(graph):
    graph.asset_file_def.add(filename="../../etc/passwd")


def collection(graph):
    graph.collection_def["assets"].SetInParent()


def other_input(graph):
    graph.signature_def["images"].inputs["path"].dtype = tf.string.as_datatype_enum


def other_type(graph):
    graph.signature_def["images"].inputs["images"].dtype = tf.float32.as_datatype_enum


def other_output(graph):
    del graph.signature_def["heatmaps"].outputs["distances"]


def more_signatures(graph):
    graph.signature_def["evil"].CopyFrom(graph.signature_def["images"])


def asset_object(graph):
    graph.object_graph_def.nodes.add().asset.asset_file_def_index = 0


def resource_object(graph):
    graph.object_graph_def.nodes.add().resource.device = ""


def class_of_the_program(graph):
    graph.object_graph_def.nodes.add().user_object.identifier = "_tf_keras_layer"


def registered_class(graph):
    node = graph.object_graph_def.nodes.add(registered_name="tf.StaticHashTable")
    node.user_object.identifier = "_generic_user_object"


def code_for_restoring(graph):
    graph.object_graph_def.nodes[0].saveable_objects["a"].restore_function = 1


def registered_saver(graph):
    graph.object_graph_def.nodes[0].registered_saver = "a"


def large_weights(graph):
    for node in graph.object_graph_def.nodes:
        if node.WhichOneof("kind") == "variable":
            node.variable.shape.dim[0].size = 10**12
            return


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (outside, "it contains the operation WriteFile"),
        (call_of_the_saver, "it calls the function __inference__traced_"),
        (call_of_the_saver_in_a_list, "it calls the function __inference__traced_"),
        (call_of_an_operation, "it calls the function WriteFile"),
        (saver_with_the_name_of_an_operation, "it has a function with the name Identity"),
        (saver_that_is_offered, "it offers functions that write files"),
        (saver_that_is_an_object, "it offers functions that write files"),
        (third_saver, "it has functions that do not belong there"),
        (gradient, "it has functions that do not belong there"),
        (session, "it has calls with the setting"),
        (executor, "it has calls with an executor of their own"),
        (long_constant, "it has a constant of 1000000000000 elements"),
        (long_constant_in_a_function, "it has a constant of [0-9]{13} elements"),
        (constant_of_unknown_size, "it has a constant of -"),
        (handle, "it has a constant that is no numbers and no text"),
        (two_tags, "it has other tags than 'serve'"),
        (form_of_tensorflow_1, "or the form of TensorFlow 1"),
        (asset, "it names files or collections"),
        (collection, "it names files or collections"),
        (other_input, "its signature images has other inputs or outputs"),
        (other_type, "its signature images has other inputs or outputs"),
        (other_output, "its signature heatmaps has other inputs or outputs"),
        (more_signatures, "it has the signatures encoded, encoded_with_options, evil,"),
        (asset_object, "it has an object of the kind .*asset"),
        (resource_object, "it has an object of the kind .*resource"),
        (class_of_the_program, "it has an object of the kind .*_tf_keras_layer"),
        (registered_class, "it has an object of the kind"),
        (code_for_restoring, "it has objects with code of their own for opening"),
        (registered_saver, "it has objects with code of their own for opening"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_whatever_is_not_ours_is_refused(change, message, saved, graph):
    change(graph)
    message = rf"detector: expected a SavedModel that .*{message}.*{TRUST}"
    with pytest.raises(Unusable, match=message):
        saved_graph.check_graph(saved, graph)


def test_weights_that_the_files_do_not_hold_are_refused(saved, graph):
    large_weights(graph)
    with pytest.raises(Unusable, match=r"detector: expected weights of 8 shapes"):
        saved_graph.check_graph(saved, graph)


def test_weights_of_another_model_are_refused(copy, tmp_path):
    other = tf.train.Checkpoint(a=tf.Variable(tf.zeros([3])))
    written = other.write(str(tmp_path / "other"))
    for suffix in (".index", ".data-00000-of-00001"):
        shutil.copy(written + suffix, copy / f"variables/variables{suffix}")
    saved_graph.write_digests(copy)
    with pytest.raises(Unusable, match=r"expected weights of 8 shapes.* Received: 1 arrays"):
        saved_graph.check(copy)


@pytest.mark.parametrize(
    "name",
    ["saved_model.cpb", "saved_model.pbtxt", "debug/saved_model_debug_info.pb", "assets/words.txt", "variables/x"],
)  # fmt: skip
def test_other_files_are_refused(name, copy):
    (copy / name).parent.mkdir(exist_ok=True)
    shutil.copy(copy / saved_graph.GRAPH_FILE, copy / name)
    saved_graph.write_digests(copy)
    with pytest.raises(Unusable, match=rf"it has '{name.split('/')[0]}.*do not belong there"):
        unitbox_tf.load(copy)


@pytest.mark.parametrize("name", ["saved_model.pb", "variables/variables.index", "variables"])
def test_links_are_refused(name, copy, tmp_path):
    os.replace(copy / name, tmp_path / "elsewhere")
    (copy / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Unusable, match=rf"it has '{name}', and such files do not belong there"):
        unitbox_tf.load(copy)


def test_a_pipe_is_not_waited_for(copy):
    (copy / "fingerprint.pb").unlink()
    os.mkfifo(copy / "fingerprint.pb")
    for trust in (False, True):
        with pytest.raises((Unusable, OSError), match=r"fingerprint\.pb"):
            unitbox_tf.load(copy, trust=trust)


@pytest.mark.parametrize("trust", [False, True])
@pytest.mark.parametrize(
    "name", [*saved_graph._FILES, "assets.extra/model_card.md", "assets.extra/tf_serving_warmup_requests"]
)  # fmt: skip
def test_damage_is_found_before_anything_is_opened(name, trust, copy):
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(content)
    message = rf"{re.escape(name)}: expected the SHA-256 in {saved_graph.DIGESTS}.*is damaged"
    with pytest.raises(Unusable, match=message):
        unitbox_tf.load(copy, trust=trust)


def test_a_copy_that_is_not_whole_is_told(copy):
    (copy / "variables/variables.data-00000-of-00001").unlink()
    with pytest.raises(Unusable, match=r"It has no variables/variables\.data.* may not be whole"):
        unitbox_tf.load(copy)
    with pytest.raises(Unusable, match="Received: no file"):
        unitbox_tf.load(copy, trust=True)


def test_the_digests_are_those_of_sha256sum(copy):
    if not shutil.which("sha256sum"):
        pytest.skip("needs sha256sum")
    done = subprocess.run(
        ["sha256sum", "--check", "--strict", saved_graph.DIGESTS], cwd=copy, capture_output=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(b": OK") == 6


@pytest.mark.parametrize(
    "name", ["../canary", "/etc/passwd", "assets.extra/../../canary", "assets.extra/.."]
)
def test_digests_name_no_files_elsewhere(name, copy):
    with (copy / saved_graph.DIGESTS).open("a") as file:
        file.write(f"{'0' * 64}  {name}\n")
    with pytest.raises(Unusable, match=r"expected names of files in the export\. Received: "):
        unitbox_tf.load(copy)


def test_a_file_without_digest_is_told(copy):
    path = copy / saved_graph.DIGESTS
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(Unusable, match=r"expected its SHA-256 in .* Received: none"):
        unitbox_tf.load(copy)
    path.unlink()
    with pytest.raises(Unusable, match=rf"it has no {saved_graph.DIGESTS}.*{TRUST}"):
        unitbox_tf.load(copy)
    assert (
        unitbox_tf.load(copy, trust=True)(tiny_models.IMAGE).image_size
        == tiny_models.IMAGE.shape[:2]
    )


def test_two_graphs_are_refused(copy):
    stored = read(copy)
    stored.meta_graphs.add()
    (copy / saved_graph.GRAPH_FILE).write_bytes(stored.SerializeToString())
    saved_graph.write_digests(copy)
    with pytest.raises(Unusable, match="it has 2 graphs"):
        saved_graph.check(copy)


def test_damaged_graphs_are_our_error(copy):
    random, errors = np.random.default_rng(2), []
    for name in ("saved_model.pb", "variables/variables.index"):
        content = (copy / name).read_bytes()
        for _ in range(8):
            (copy / name).write_bytes(tiny_models.mutated(content, random))
            saved_graph.write_digests(copy)
            try:
                saved_graph.check(copy)
            except Unusable as error:
                errors.append(str(error))
        (copy / name).write_bytes(content)
    assert len(errors) > 8
    assert all(error.startswith(str(copy)) and "\n" not in error for error in errors)
