"""Detectors whose maps have a stride, in every format."""

import dataclasses
import json
import zipfile

import cv2
import keras
import numpy as np
import pytest
import tensorflow as tf

import unitbox_tf
from tests.helpers import light_models
from unitbox_tf import config, formats
from unitbox_tf.detect import graph, padding
from unitbox_tf.detect.model import UnitBox
from unitbox_tf.formats import litert, numpy_decoder, onnx, onnx_graph, saved_graph
from unitbox_tf.network import folding, layers
from unitbox_tf.network.backbones import Backbone

SUFFIXES = {"onnx": ".onnx", "litert": ".tflite", "saved_model": "", "keras": ".keras"}
LIBRARIES = {"onnx": "tf2onnx", "litert": "ai_edge_litert"}


@pytest.fixture(scope="module")
def light():
    return light_models.model()


@pytest.fixture(scope="module")
def wanted(light, photos):
    found = [light.detector()(photo) for photo in photos]
    assert sum(len(each) for each in found) > 5 * len(found)
    assert sum(photo.shape[0] % 4 and photo.shape[1] % 4 for photo in photos) > 10
    return found


@pytest.fixture(scope="module")
def in_half_precision(light):
    """The detector in Python with the weights that a LiteRT file has: folded, then rounded."""
    network = folding.folded(light)
    network.set_weights([w.astype(np.float16).astype(np.float32) for w in network.get_weights()])
    return graph.InferenceModule(light, light.decode, network=network)


@pytest.fixture(scope="module")
def exported(light, tmp_path_factory):
    """The path of the detector in a format, which is written once."""
    folder, known = tmp_path_factory.mktemp("strides"), {}

    def export(name):
        if name in LIBRARIES:
            pytest.importorskip(LIBRARIES[name])
        if name not in known:
            known[name] = folder / f"light{SUFFIXES[name]}"
            if name == "keras":
                light.save(known[name])
            else:
                formats.export(light, known[name])
        return known[name]

    return export


def without_partner(found, expected, *, pixels, scores):
    """The number of detections without one of the same class with nearly the same box and score."""
    assert found.image_size == expected.image_size
    left = list(range(len(found)))
    for box, score, label in zip(expected.boxes, expected.scores, expected.classes, strict=True):
        near = [
            i
            for i in left
            if np.abs(found.boxes[i] - box).max() < pixels
            and abs(found.scores[i] - score) < scores
            and found.classes[i] == label
        ]
        left = [i for i in left if i not in near[:1]]
    return len(left) + len(expected) - (len(found) - len(left))


def assert_partners(found, expected, *, pixels, scores):
    """At most one detection differs: rounding may decide about a score at the threshold, or an overlap."""
    assert without_partner(found, expected, pixels=pixels, scores=scores) <= 1


@pytest.mark.parametrize("name", SUFFIXES)
def test_each_format_finds_what_python_finds_at_any_size(
    name, exported, photos, wanted, in_half_precision
):
    find, alone = unitbox_tf.load(exported(name)), 0
    # Each size takes a runtime a second or more.
    for photo, expected in zip(photos[::3], wanted[::3], strict=True):
        if name == "litert":
            padded = in_half_precision.detect_images(photo[None])
            [expected] = padding.unpad(padded, [photo.shape[:2]])
        alone += without_partner(find(photo), expected, pixels=0.01, scores=1e-4)
    # Of some 170: rounding may decide about a score at the threshold, or an overlap.
    assert alone <= 1


def test_nothing_is_normalised_in_an_exported_graph(exported):
    onnx = pytest.importorskip("onnx")
    written = onnx.load(exported("onnx")).graph
    kinds = [node.op_type for node in written.node]
    assert "BatchNormalization" not in kinds
    assert "Pad" not in {node.op_type for node in written.node if "functional" in node.name}
    convolutions = [node for node in written.node if node.op_type == "Conv"]
    assert all(len(node.input) == 3 for node in convolutions)  # each has a bias
    functions = saved_graph._read_graph(exported("saved_model")).graph_def.library.function
    operations = {node.op for function in functions for node in function.node_def}
    assert not operations & {"Rsqrt", "FusedBatchNormV3"}


def test_a_graph_for_onnx_is_read_as_it_lies_in_memory_and_doubles_maps(exported):
    onnx = pytest.importorskip("onnx")
    written = onnx.load(exported("onnx")).graph
    constants = {each.name: onnx.numpy_helper.to_array(each) for each in written.initializer}
    first = next(node for node in written.node if node.op_type == "Conv")
    assert constants[first.input[1]].shape == (4, 1, 3, 9)
    doubled = [node for node in written.node if node.op_type == "Resize"]
    assert len(doubled) == 3 * 2  # for each scale
    assert all(constants[node.input[2]].tolist() == [1, 1, 2, 2] for node in doubled)
    used = {name for node in written.node for name in onnx_graph._inputs(node)}
    assert not set(constants) - used - set(formats.onnx.OPTIONS)


class EnlargedByFour(keras.layers.Layer):
    def call(self, x):
        return tf.image.resize(x, 4 * tf.shape(x)[1:3], "nearest")

    def compute_output_shape(self, shape):
        return (shape[0], *(length and 4 * length for length in shape[1:3]), shape[3])


@pytest.mark.slow
def test_resizing_by_a_backbone_of_ones_own_stays_as_it_is(tmp_path):
    """Beside that of the neck, which then keeps its sizes, too."""
    pytest.importorskip("onnxruntime")
    maps = [keras.Input((None, None, 3))]
    for stride in (2, 4, 8, 16):
        layer = keras.layers.Conv2D(8, 3, 2, padding="same", activation="relu", name=f"at{stride}")
        maps.append(layer(maps[-1]))
    merged = keras.layers.Add(name="merged")([maps[2], EnlargedByFour()(maps[4])])
    pyramid = {4: "merged", 8: "at8", 16: "at16"}
    backbone = Backbone(keras.Model(maps[0], merged), stride=16, pyramid=pyramid)
    decode = dataclasses.replace(light_models.DECODE, scales=(1.0,), score_threshold=1e-4)
    model = UnitBox(
        backbone, ("cat",), decode=decode, neck="top_down", initial_box_size=12.0, head_stddev=0.01
    )
    path = tmp_path / "own.onnx"
    unitbox_tf.export(model, path)
    photo = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    [expected], found = model.detect(photo), unitbox_tf.load(path)(photo)
    assert len(expected) > 3
    np.testing.assert_allclose(found.boxes, expected.boxes, atol=1e-2)


@pytest.mark.parametrize("stride", [4, 8])
def test_the_module_for_onnx_has_the_heatmaps_of_the_network(stride, photos):
    model = light_models.model(stride)
    ours = onnx_graph.module(model, model.decode)
    theirs = graph.InferenceModule(model, model.decode)
    for photo in photos[1:12]:
        for scale in (0.5, 1.0):
            expected = theirs.heatmaps_at(photo[None], scale)
            for name, values in ours.heatmaps_at(tf.constant(photo[None]), scale).items():
                np.testing.assert_allclose(values, expected[name], rtol=1e-3, atol=2e-3)


@pytest.mark.parametrize(("mean", "channels"), [((10.0, 20.0, 30.0), "bgr"), ((0.0,) * 3, "bgr")])
def test_the_module_for_onnx_preprocesses_like_the_network(mean, channels, photos):
    model = light_models.model()
    layer = model.get_layer("preprocess")
    layer.mean, layer.channels, layer.scale = mean, channels, 0.5
    ours = onnx_graph._AtStride(model, model.decode, model)
    for photo in photos[6:9]:
        height, width = photo.shape[:2]
        for size in ((height, width), (height // 2 + 1, width // 2 + 1)):
            expected = layer(graph.resize(photo[None], size))
            seen = ours._seen(tf.constant(photo[None]), tf.constant(size))
            np.testing.assert_allclose(seen, expected, atol=1e-2)


def test_doubling_without_sizes_is_the_enlargement(random):
    x = random.normal(size=(2, 3, 5, 7)).astype(np.float32)
    reference = np.zeros((2, 6, 10, 1), np.float32)
    expected = x.repeat(2, axis=1).repeat(2, axis=2)
    for layer in (layers.Enlarge(), layers.Double()):
        np.testing.assert_array_equal(layer([x, reference]), expected)
        assert layer.compute_output_shape([x.shape, reference.shape]) == (2, 6, 10, 7)


def test_a_litert_file_says_what_its_maps_are(light, exported):
    with zipfile.ZipFile(exported("litert")) as inside:
        assert json.loads(inside.read(litert.HEATMAPS)) == {"stride": 4, "unit": 8.0}
    network = litert.network(litert.interpreter(exported("litert")))
    for height, width in ((64, 64), (32, 96)):
        confidence, distances = network(np.zeros((height, width, 3), np.float32))
        assert confidence.shape == (height // 4, width // 4, 2)
        assert distances.shape == (height // 4, width // 4, 4)


def test_eight_bits_find_nearly_the_same(light, exported, photos, tmp_path):
    pytest.importorskip("ai_edge_litert")
    path = tmp_path / "int8.tflite"
    large = [photo for photo in photos if min(photo.shape[:2]) > 20]
    litert.save(light, path, precision="int8", calibration=large[:20])
    assert path.stat().st_size < 0.8 * exported("litert").stat().st_size
    networks = [litert.network(litert.interpreter(each)) for each in (exported("litert"), path)]
    image = np.float32(cv2.resize(large[0], (96, 64)))  # another size than the stored one
    for floats, integers in zip(*(network(image) for network in networks), strict=True):
        assert floats.shape == integers.shape == (16, 24, floats.shape[-1])
        assert np.abs(floats - integers).mean() < 0.1 * floats.std()
    assert len(unitbox_tf.load(path)(large[0])) > 0


def test_the_signature_of_heatmaps_has_a_point_each_stride(light, exported):
    opened = tf.saved_model.load(str(exported("saved_model")))
    assert opened.map_stride().numpy() == 4
    image = np.random.default_rng(1).integers(0, 256, (1, 41, 30, 3), np.uint8)
    maps = opened.signatures["heatmaps"](images=tf.constant(image))
    expected = light(image)
    for name in ("confidence", "distances"):
        assert maps[name].shape[1:3] == (11, 8)
        np.testing.assert_allclose(maps[name], expected[name], rtol=1e-3, atol=2e-3)


def test_tiles_and_batches_and_a_smaller_side(light, exported, photos, in_half_precision):
    large = cv2.resize(photos[20], (150, 110))
    options = {"max_side": 50}
    find = unitbox_tf.load(exported("litert"), **options)
    decode = dataclasses.replace(light.decode, **options)
    module = graph.InferenceModule(light, decode, network=in_half_precision.model)
    [expected] = padding.unpad(module.detect_images(large[None]), [large.shape[:2]])
    assert_partners(find(large), expected, pixels=0.05, scores=1e-3)
    tiled = unitbox_tf.load(exported("onnx")).tiled(64)
    assert_partners(tiled(large), light.detector().tiled(64)(large), pixels=0.01, scores=1e-4)
    module = graph.InferenceModule(light, light.decode)
    batch = np.stack([large, large[::-1]])
    found = module.detect_images(batch)
    for index, image in enumerate(batch):
        single = module.detect_images(image[None])
        np.testing.assert_allclose(found["boxes"][index], single["boxes"][0], atol=1e-2)


def test_the_numpy_decoder_is_given_points_of_a_stride_by_hand():
    """An image of 9 x 13 px has 3 x 4 points at stride 4. The last ones lie beyond it."""
    confidence = np.full((8, 8, 1), -9, np.float32)
    distances = np.log(np.full((8, 8, 4), 3 / 2, np.float32))  # 3 px
    confidence[1, 0], confidence[2, 3] = 2.0, 3.0
    confidence[4, 4] = 9.0  # in the padding
    distances[1, 0] = np.log(np.float32([1, 2, 3, 4]) / 2)
    settings = dataclasses.asdict(
        config.DecodeConfig(max_side=64, score_threshold=0.5, max_detections=5)
    )
    preprocessing = {"stride": 32, "channels": "rgb", "mean": [0, 0, 0], "scale": 1}
    arguments = (np.zeros((9, 13, 3), np.uint8), settings, preprocessing)
    found = numpy_decoder.detect(
        lambda image: (confidence, distances), *arguments, {"stride": 4, "unit": 2.0}
    )
    # Points (14, 10) and (2, 6): y, x are ((i + .5) * 4, (j + .5) * 4).
    np.testing.assert_allclose(found["boxes"], [[11, 7, 13, 9], [0, 5, 6, 8]], atol=1e-5)
    distances[2, 3, [0, 2]] = np.log(0.9 / 2)  # the box lies beyond the image
    found = numpy_decoder.detect(
        lambda image: (confidence, distances), *arguments, {"stride": 4, "unit": 2.0}
    )
    np.testing.assert_allclose(found["boxes"], [[0, 5, 6, 8]], atol=1e-5)


def test_the_padding_of_a_dilation_is_stated_for_onnx(random):
    """Also where both sides differ: a kernel of 2 rows with a dilation of 3 has 1 row above and 2 below."""
    tf2onnx = pytest.importorskip("tf2onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    image = random.normal(size=(1, 9, 12, 3)).astype(np.float32)
    layer = layers.DilatedConv2D(4, (2, 3), padding="same", dilation_rate=(3, 2))
    expected = layer(image)
    spec = tf.TensorSpec([1, None, None, 3], tf.float32, "images")
    function = tf.function(layer, input_signature=[spec])
    proto, _ = tf2onnx.convert.from_function(function, input_signature=[spec], opset=18)
    onnx_graph.state_padding(proto.graph)
    [node] = [each for each in proto.graph.node if each.op_type == "Conv"]
    assert "auto_pad" not in {each.name for each in node.attribute}
    [found] = onnxruntime.InferenceSession(proto.SerializeToString()).run(None, {"images": image})
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [(8, 640), (24, 2000)], ids=["smaller", "the same"])
def test_images_are_resized_in_bfloat16(size):
    """OpenVINO's precision where the processor can; it would round places in the image to 8 bits, so to 8 px here."""
    tf2onnx = pytest.importorskip("tf2onnx")
    openvino = pytest.importorskip("openvino")
    y, x = np.mgrid[:24, :2000]
    image = np.stack([x * 255 / 2000, 127 + 100 * np.sin(x / 30), y * 10], axis=-1)
    image = image.astype(np.uint8)[None]
    specs = [graph.IMAGES, tf.TensorSpec([2], tf.int32, "size")]
    function = tf.function(onnx_graph.resize_by_matrices, input_signature=specs)
    proto, _ = tf2onnx.convert.from_function(function, input_signature=specs, opset=onnx.OPSET)
    core, given = openvino.Core(), {"images": image, "size": np.array(size, np.int32)}
    network = core.read_model(proto.SerializeToString())
    for hint, close in (("f32", 1e-3), ("bf16", 1.0)):
        compiled = core.compile_model(network, "CPU", {"INFERENCE_PRECISION_HINT": hint})
        np.testing.assert_allclose(compiled(given)[0], graph.resize(image, size), atol=close)
