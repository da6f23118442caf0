import subprocess
import sys

import keras
import numpy as np
import pytest

import unitbox_tf
from unitbox_tf.config import DecodeConfig, ModelConfig
from unitbox_tf.datasets import synthetic
from unitbox_tf.detect.model import UnitBox
from unitbox_tf.network.backbones import Backbone, Preprocessing

DECODE = DecodeConfig(max_side=64, score_threshold=0.3, max_detections=9, scales=(0.5, 1))


def own_backbone():
    """One that nothing in the package knows, of stride 4."""
    image = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(4, 3, 2, padding="same", activation="relu", name="first")(image)
    x = keras.layers.Conv2D(6, 3, 2, padding="same", activation="relu", name="second")(x)
    return Backbone(
        keras.Model(image, x, name="own"),
        confidence="first",
        distances="second",
        stride=4,
        preprocessing=Preprocessing("rgb", (127.5, 127.5, 127.5), 1 / 127.5),
    )


@pytest.fixture(scope="module")
def model():
    """An untrained detector that finds something nearly everywhere."""
    return UnitBox(
        own_backbone(),
        ("cat", "dog"),
        decode=DECODE,
        initial_box_size=20.0,
        head_stddev=0.1,
        seed=3,
    )


def image(number=0):
    return synthetic.draw(number).image


def same(found, expected):
    assert len(found) == len(expected) > 0
    np.testing.assert_array_equal(found.boxes, expected.boxes)
    np.testing.assert_array_equal(found.scores, expected.scores)
    np.testing.assert_array_equal(found.classes, expected.classes)


def test_detect_gives_the_boxes_of_each_image(model, tmp_path):
    path = tmp_path / "one.png"
    path.write_bytes(image(1))
    found = model.detect([image(0), path])
    assert [f.image_size for f in found] == [(synthetic.SIZE, synthetic.SIZE)] * 2
    same(model.detect(image(0))[0], found[0])
    same(model.detect(path)[0], found[1])


def test_decode_can_be_replaced(model):
    [before] = model.detect(image())
    model.decode = DecodeConfig(max_side=64, score_threshold=0.3, max_detections=2)
    try:
        [found] = model.detect(image())
        assert len(found) <= 2 < len(before)
    finally:
        model.decode = DECODE
    same(model.detect(image())[0], before)


@pytest.mark.parametrize("unshared", [False, True])
def test_a_keras_file_has_all_of_it(unshared, tmp_path):
    one = UnitBox(
        own_backbone(),
        ("cat", "dog"),
        decode=DECODE,
        unshared=unshared,
        stage4_scale=0.5,
        initial_box_size=20.0,
        head_stddev=0.1,
    )
    one.compile(
        unitbox_tf.train.optimizers.CoupledSGD(0.1),
        loss={"confidence": "mse", "distances": unitbox_tf.losses.IoULoss()},
    )
    path = tmp_path / "model.keras"
    one.save(path)
    again = keras.saving.load_model(path)
    assert type(again) is UnitBox
    assert (again.class_names, again.decode) == (("cat", "dog"), DECODE)
    assert again.backbone.preprocessing == one.backbone.preprocessing
    assert again.backbone.stride == 4
    assert type(again.loss["distances"]) is unitbox_tf.losses.IoULoss
    same(again.detect(image())[0], one.detect(image())[0])
    detector = unitbox_tf.load(path)
    assert detector.class_names == ("cat", "dog")
    same(detector(image()), one.detect(image())[0])
    assert len(unitbox_tf.load(path, max_detections=1)(image())) == 1


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """The file of a model that is compiled with classes of the package."""
    path = tmp_path_factory.mktemp("compiled") / "model.keras"
    model = UnitBox(own_backbone(), ("cat", "dog"))
    distances = unitbox_tf.losses.IoULoss()
    optimizer = unitbox_tf.train.optimizers.CoupledSGD(0.1)
    model.compile(optimizer, loss={"confidence": "mse", "distances": distances})
    model.save(path)
    return path


@pytest.mark.parametrize(
    "imports",
    [
        "import unitbox_tf, keras",
        "import keras, unitbox_tf",
        "import unitbox_tf.losses, keras",
        "import unitbox_tf.network.layers, keras",
        "import unitbox_tf.detect.model, keras",
        "import unitbox_tf.train.fit, keras",
    ],
)
def test_keras_opens_a_model_after_importing_the_package_alone(compiled, imports):
    """Whichever comes first; the file has the loss and the optimizer in it."""
    code = (
        f"{imports}; model = keras.saving.load_model({str(compiled)!r});"
        "assert type(model).__name__ == 'UnitBox', type(model);"
        "assert type(model.loss['distances']).__name__ == 'IoULoss', model.loss;"
        "assert unitbox_tf.losses.IoULoss is type(model.loss['distances'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_modules_can_be_had_without_importing_them():
    code = (
        "import unitbox_tf; print(unitbox_tf.losses.IoULoss.__name__, unitbox_tf.iou_loss.__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.split() == ["IoULoss", "iou_loss"], done.stderr
    with pytest.raises(AttributeError, match="no attribute 'looses'"):
        unitbox_tf.looses  # noqa: B018


def test_a_run_is_a_preset(untrained_run):
    one = UnitBox.from_preset(untrained_run, max_detections=7)
    assert one.decode.max_detections == 7
    same(one.detect(image())[0], unitbox_tf.load(untrained_run, max_detections=7)(image()))
    with pytest.raises(ValueError, match="Unknown field of DecodeConfig: 'max_detection'"):
        UnitBox.from_preset(untrained_run, max_detection=7)
    with pytest.raises(ValueError, match=r"gone: expected the folder of a run.*no such folder"):
        UnitBox.from_preset("./gone")


def test_weights_of_another_network_are_refused(untrained_run):
    other = UnitBox.from_settings(ModelConfig(class_names=("a", "b", "c", "d", "e")))
    with pytest.raises(ValueError, match=r"best\.weights\.h5: expected the weights of the model"):
        other.load_run(untrained_run)


def test_another_keras_file_is_refused(tmp_path):
    path = tmp_path / "other.keras"
    keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]).save(path)
    with pytest.raises(ValueError, match=r"expected a UnitBox model\. Received: 'Sequential'"):
        unitbox_tf.load(path)
    path.write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"other\.keras: expected a zip archive"):
        unitbox_tf.load(path)


def test_frozen_layers_stay_frozen(tmp_path):
    one = UnitBox(own_backbone(), ("cat",))
    one.get_layer("confidence_head").trainable = False
    one.backbone.model.get_layer("first").trainable = False
    one.save(tmp_path / "some.keras")
    some = keras.saving.load_model(tmp_path / "some.keras")
    names = [weight.path for weight in some.trainable_weights]
    assert names == [weight.path for weight in one.trainable_weights]
    assert len(names) == 4
    one.trainable = False
    one.save(tmp_path / "all.keras")
    assert not keras.saving.load_model(tmp_path / "all.keras").trainable_weights


def test_settings_of_the_network_are_checked():
    with pytest.raises(ValueError, match="class_names: expected a list of texts"):
        UnitBox(own_backbone(), "face")
    with pytest.raises(ValueError, match=r"Expected a Backbone\. Received: 'vgg16'"):
        UnitBox("vgg16", ("a",))
    with pytest.raises(ValueError, match="channels 'rgb' or 'bgr'"):
        Preprocessing("xyz")
    with pytest.raises(ValueError, match="all different"):
        UnitBox(own_backbone(), ("cat", "cat"))
    with pytest.raises(ValueError, match=r"class_names: expected the name of each class.*none"):
        UnitBox(own_backbone(), ())
