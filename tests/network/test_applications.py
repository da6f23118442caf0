import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

import unitbox_tf
from unitbox_tf import boxes as box_ops
from unitbox_tf import losses, registry
from unitbox_tf.config import DecodeConfig, ModelConfig
from unitbox_tf.detect.model import UnitBox
from unitbox_tf.formats import saved_graph
from unitbox_tf.network.folding import folded

NAMES = tuple(name for name in registry.BACKBONES if name not in ("vgg16", "light"))
SMALLEST = "mobilenet_v3_small"
BATCH = 8  # EfficientNet leaves out a block for every fifth image; it must be there for one
# At the ends of strides 4 to 32: from the papers' tables, for the last of MobileNet and EfficientNet the layer after.
CHANNELS = {
    "mobilenet_v3_small": [16, 24, 48, 576],
    "mobilenet_v3_large": [24, 40, 112, 960],
    "efficientnet_v2_b0": [32, 48, 112, 1280],
    "convnext_tiny": [96, 192, 384, 768],
    "resnet50": [256, 512, 1024, 2048],
}
slow = pytest.mark.slow
each_network = pytest.mark.parametrize(
    "name", [name if name == SMALLEST else pytest.param(name, marks=slow) for name in NAMES]
)
IMAGE = np.random.default_rng(0).integers(0, 256, (50, 61, 3), np.uint8)


def settings(name, neck="top_down", **more):
    return ModelConfig(
        class_names=("cat", "dog"), backbone=name, neck=neck, initial_box_size=20.0, **more
    )


@pytest.fixture(scope="module")
def models():
    """Each network once, with its weights after a step of training."""
    made = {}

    def of(name, neck="top_down"):
        if (name, neck) not in made:
            decode = DecodeConfig(max_side=64, score_threshold=0.001)
            made[name, neck] = trained(UnitBox.from_settings(settings(name, neck), decode))
        return made[name, neck][0]

    of.made = made
    return of


def trained(model):
    """The network, the weights of before, and the loss of the step."""
    for weight in model.weights:
        if (
            "layer_scale" in weight.path
        ):  # else blocks of ConvNeXt begin with a millionth of their value
            weight.assign(weight + 0.1)
    before = {weight.path: weight.numpy() for weight in model.weights}
    names = ("confidence", "distances")
    iou = losses.IoULoss(reduction="mean_with_sample_weight")
    cross = keras.losses.BinaryCrossentropy(from_logits=True)
    # Adam moves each weight that has a gradient, however small.
    model.compile("adam", loss=dict(zip(names, (cross, iou), strict=True)), run_eagerly=True)
    side = 64 // model.map_stride
    images = np.random.default_rng(0).uniform(0, 255, (BATCH, 64, 64, 3)).astype(np.float32)
    classes = np.random.default_rng(1).integers(0, 2, (BATCH, side, side, 2))
    targets = {"confidence": classes, "distances": np.full((BATCH, side, side, 4), 9.0)}
    ones = {name: np.ones((BATCH, side, side)) for name in names}
    logs = model.train_on_batch(images, targets, ones, return_dict=True)
    return model, before, logs["loss"]


@each_network
def test_the_ends_of_the_strides_are_those_of_the_network(name):
    """The widths are those of the papers' tables; `Backbone` compares the strides itself."""
    backbone = registry.BACKBONES[name](ModelConfig(backbone=name), 0)
    assert list(backbone.pyramid) == [4, 8, 16, 32]
    shapes = [backbone.model.get_layer(tap).output.shape for tap in backbone.pyramid.values()]
    assert [shape[-1] for shape in shapes] == CHANNELS[name]
    assert (backbone.confidence, backbone.distances) == ("stride8", "stride16")
    keras_network = keras.applications.__dict__[registry.BACKBONES[name].args[0].name]
    whole = keras_network(include_top=False, weights=None, input_shape=(None, None, 3))
    assert backbone.model.count_params() == whole.count_params()
    # The output of the whole is the end of the last stride, and it gets what the network expects.
    whole.set_weights(backbone.model.get_weights())
    image = np.random.default_rng(0).uniform(0, 255, (1, 64, 64, 3)).astype(np.float32)
    expected, found = whole(image), backbone.features(["stride32"], "last")(image)
    np.testing.assert_allclose(keras.tree.flatten(found)[0], expected, rtol=1e-4, atol=1e-5)


@each_network
def test_a_step_moves_the_weights_and_the_loss_is_finite(name, models):
    model = models(name)
    _, before, loss = models.made[name, "top_down"]
    assert np.isfinite(loss)
    still = {w.path for w in model.weights if np.array_equal(before[w.path], w.numpy())}
    assert not still
    if "convnext" not in name:
        assert {path for path in before if "moving" in path}


@each_network
def test_files_of_keras_give_the_model_that_was_saved(name, models, tmp_path):
    model = models(name)
    expected = model(IMAGE[None], training=False)
    model.save(tmp_path / "model.keras")
    model.save_weights(tmp_path / "a.weights.h5")
    again = UnitBox.from_preset(tmp_path / "model.keras")
    for _ in range(2):
        for each, values in again(IMAGE[None], training=False).items():
            np.testing.assert_array_equal(values, expected[each])
        again.set_weights([0 * values for values in again.get_weights()])
        again.load_weights(tmp_path / "a.weights.h5")


CONVERTED = ("onnx", "litert", "litert-int8")  # what a SavedModel contains is tested below


def conversions():
    """The smallest network goes into each format on each change, and the others into one in turn."""
    for place, name in enumerate(NAMES):
        for format in CONVERTED:
            is_quick = name == SMALLEST or CONVERTED[place % len(CONVERTED)] == format
            yield pytest.param(name, format, marks=slow if is_quick else pytest.mark.nightly)


@pytest.mark.parametrize(("name", "format"), list(conversions()))
def test_each_network_goes_into_each_format(name, format, models, tmp_path):
    check_export(models(name), format, tmp_path)


@slow
@pytest.mark.parametrize("format", registry.FORMATS)
def test_vgg16_with_a_neck_goes_into_each_format(format, tmp_path):
    """It has a mean to subtract, and activations in its convolutions."""
    decode = DecodeConfig(max_side=64, score_threshold=0.001)
    model = UnitBox.from_settings(settings("vgg16", width=0.1), decode)
    check_export(model, format, tmp_path)


@slow
@pytest.mark.parametrize("format", registry.FORMATS)
def test_a_network_without_a_neck_goes_into_each_format(format, models, tmp_path):
    check_export(models(SMALLEST, "none"), format, tmp_path)


def check_export(model, format, folder):
    """An export finds what the model finds. Its numbers have 16 bits in LiteRT, or 8."""
    more = {"calibration": [IMAGE]} if format == "litert-int8" else {}
    path = folder / f"exported{registry.FORMATS[format].suffix}"
    unitbox_tf.export(model, path, format=format, **more)
    [expected], found = model.detect(IMAGE), unitbox_tf.load(path)(IMAGE)
    assert len(expected) > 5
    if format == "litert-int8":  # peaks of a network that has learned nothing are lost in 8 bits
        assert len(found) > 0
        return
    overlaps = box_ops.pairwise_iou(expected.boxes, found.boxes).max(axis=1)
    tolerance = 1e-2 if format == "litert" else 1e-4
    assert abs(len(found) - len(expected)) <= 1 + 0.1 * len(expected)
    np.testing.assert_allclose(np.sort(found.scores)[-5:], np.sort(expected.scores)[-5:], tolerance)
    assert np.median(overlaps) > 1 - tolerance


@slow
def test_their_exports_contain_what_is_listed_and_nothing_else(models):
    """The operations of a SavedModel beside those that the tests of `saved_graph` find."""
    necks = [models(name) for name in NAMES]
    necks.append(UnitBox.from_settings(settings("light", width=0.1)))
    # Exports are folded. Dilations of the light network have other operations before.
    found = set().union(*(operations(each) for each in necks[:-1]))
    found |= set().union(*(operations(folded(each)) for each in necks))
    listed = saved_graph.OPERATIONS | saved_graph.OF_BACKBONES
    assert found - {"Placeholder"} <= listed
    assert found >= saved_graph.OF_BACKBONES


def operations(model):
    spec = tf.TensorSpec([None, None, None, 3], tf.float32)
    function = tf.function(lambda image: model(image, training=False), input_signature=[spec])
    graph = function.get_concrete_function().graph.as_graph_def()
    bodies = (node.op for body in graph.library.function for node in body.node_def)
    return {node.op for node in graph.node} | set(bodies)


def test_the_seed_decides_the_weights_and_leaves_other_random_numbers_alone():
    keras.utils.set_random_seed(7)
    expected = (np.random.random(), float(tf.random.uniform([])))  # noqa: NPY002
    keras.utils.set_random_seed(7)
    values = []
    for seed in (1, 1, 2):
        backbone = registry.BACKBONES[SMALLEST](ModelConfig(backbone=SMALLEST), seed)
        values.append([v for v in backbone.model.get_weights() if v.ndim == 4])
    found = (np.random.random(), float(tf.random.uniform([])))  # noqa: NPY002
    assert found == expected
    for a, b, c in zip(*values, strict=True):
        np.testing.assert_array_equal(a, b)
        assert (a != c).any()
    assert len({v.tobytes() for v in values[0]}) == len(values[0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 0.5}, "width: expected 1.0 with the backbone mobilenet_v3_small.*: 0.5$"),
        ({"confidence_tap": "after_pool"}, "confidence_tap: expected 'before_pool' with the"),
        ({"weights": "gone.h5"}, r"weights='gone\.h5': no such file.*MobileNetV3Small without"),
    ],
)
def test_what_a_network_does_not_have_is_an_error(changes, message):
    with pytest.raises(ValueError, match=message):
        registry.BACKBONES[SMALLEST](
            dataclasses.replace(ModelConfig(backbone=SMALLEST), **changes), 0
        )


def test_weights_can_be_a_file_of_the_whole_network(tmp_path):
    whole = keras.applications.MobileNetV3Small(
        include_top=False, weights=None, input_shape=(None, None, 3)
    )
    for suffix in ("weights.h5", "h5"):  # as Keras 3 and its published files have it
        path = tmp_path / f"a.{suffix}"
        whole.save_weights(tmp_path / "a.weights.h5")
        if suffix == "h5":
            old_form(whole, path)
        config = ModelConfig(backbone=SMALLEST, weights=str(path))
        found = registry.BACKBONES[SMALLEST](config, 3).model.get_weights()
        for one, other in zip(whole.get_weights(), found, strict=True):
            np.testing.assert_array_equal(one, other)


def old_form(model, path):
    """Writes weights by layer, as the files of keras.applications have them."""
    import h5py
    from keras.src.legacy.saving import legacy_h5_format

    with h5py.File(path, "w") as file:
        legacy_h5_format.save_weights_to_hdf5_group(file, model)
