import io
import json
import zipfile

import h5py
import keras
import numpy as np
import pytest

import unitbox_tf
from tests.helpers import tiny_models
from unitbox_tf import runs, weights_files
from unitbox_tf.archives import Unusable
from unitbox_tf.detect import keras_files
from unitbox_tf.limits import TooLarge
from unitbox_tf.network import weights as network_weights


@pytest.fixture(scope="module")
def model():
    return tiny_models.model()


@pytest.fixture(scope="module")
def saved(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("keras") / "model.keras"
    model.save(path)
    return path


def with_config(saved, to, change):
    """A copy of the file, in which `change` has edited the configuration."""

    def edit(name, content):
        if name != "config.json":
            return content
        described = json.loads(content)
        return json.dumps(change(described) or described).encode()

    return tiny_models.rewrite(saved, edit, to)


def layers(described):
    return described["config"]["backbone"]["config"]["model"]["config"]["layers"]


def test_a_file_gives_the_model_that_was_saved(model, saved):
    again = keras_files.open_model(saved)
    assert (again.class_names, again.decode) == (model.class_names, model.decode)
    for ours, theirs in zip(again.weights, model.weights, strict=True):
        assert ours.path == theirs.path
        np.testing.assert_array_equal(ours, theirs)
    assert unitbox_tf.load(saved)(tiny_models.IMAGE).image_size == tiny_models.IMAGE.shape[:2]


def lambda_layer(described):
    """It would write a file when the model is made."""
    code = "open('evil', 'w')"
    layer = keras.layers.Lambda(lambda x: (eval(code), x)[1], name="evil")
    layers(described)[1] = keras.saving.serialize_keras_object(layer)


def layer_of_a_saved_model(described):
    layers(described)[1].update(class_name="TFSMLayer", config={"filepath": "evil"})


def any_function(described):
    layers(described)[1] = {
        "module": "os",
        "class_name": "system",
        "config": {"command": "touch evil"},
    }


def function_as_activation(described):
    layers(described)[1]["config"]["activation"] = {
        "module": "os", "class_name": "function", "config": "system", "registered_name": "function"
    }  # fmt: skip


def vocabulary_in_a_file(described):
    layers(described)[1].update(class_name="StringLookup", config={"vocabulary": "/etc/passwd"})


def lambda_as_value(described):
    layers(described)[1]["config"]["kernel_initializer"] = {
        "class_name": "__lambda__",
        "config": {},
    }


def class_of_our_module(described):
    described["config"]["backbone"]["registered_name"] = "Backbone"


def another_registered_class(described):
    described["config"]["backbone"]["registered_name"] = "unitbox_tf>Crop"


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda_layer, "Lambda"),
        (layer_of_a_saved_model, "TFSMLayer"),
        (any_function, r"os\.system"),
        (function_as_activation, r"os\.function"),
        (vocabulary_in_a_file, "StringLookup"),
        (lambda_as_value, "__lambda__"),
        (class_of_our_module, "Backbone"),
        (another_registered_class, "Backbone"),
    ],
)
def test_no_class_is_made_but_listed_ones(change, name, saved, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = with_config(saved, tmp_path / "model.keras", change)
    with pytest.raises(Unusable, match=rf"model\.keras: expected Keras' layers .*: .*{name}$"):
        unitbox_tf.load(path)
    assert [each.name for each in tmp_path.iterdir()] == ["model.keras"]


def test_a_class_that_the_program_has_registered_is_made(tmp_path):
    @keras.saving.register_keras_serializable("test_keras_files")
    class Doubled(keras.layers.Layer):
        def call(self, x):
            return 2 * x

    one = tiny_models.model()
    inside = one.backbone.model
    changed = keras.Model(inside.input, Doubled(name="end")(inside.output))
    own = type(one.backbone)(changed, confidence="pool", distances="end", stride=2)
    unitbox_tf.UnitBox(own, ("cat",)).save(tmp_path / "model.keras")
    assert keras_files.open_model(tmp_path / "model.keras").class_names == ("cat",)


def many_filters(described):
    layers(described)[1]["config"]["filters"] = 10**9


def many_channels(described):
    """Without weights of their own, layers can make the weights of a head large."""
    layers(described)[2].update(
        class_name="Reshape", config={"name": "pool", "target_shape": [1, 1, 10**9]}
    )


def many_classes(described):
    described["config"]["class_names"] = [f"class {number}" for number in range(9_000)]


@pytest.mark.parametrize("change", [many_filters, many_channels, many_classes])
def test_a_network_that_is_larger_than_its_weights_is_not_made(change, saved, tmp_path):
    path = with_config(saved, tmp_path / "model.keras", change)
    with pytest.raises(Unusable, match=r"model\.keras: expected a"):
        unitbox_tf.load(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: {"class_name": "Sequential"}, "expected a UnitBox model. Received: 'Sequential'"),
        (lambda d: [], r"expected a UnitBox model. Received: \[\]"),
        (lambda d: d["config"].update(class_names=["a" * 201]), "class_names: expected a list"),
        (lambda d: d["config"].update(class_names=[str(i) for i in range(10_001)]), "expected a"),
        (lambda d: d["config"]["decode"].update(score_threshold=2), "score_threshold: expected a"),
        (lambda d: d["config"].pop("backbone"), "expected a Keras file of a UnitBox model"),
        (lambda d: d.update(config=None), "expected a Keras file of a UnitBox model"),
    ],
)  # fmt: skip
def test_another_configuration_is_refused(change, message, saved, tmp_path):
    def edit(name, content):
        if name != "config.json":
            return content
        described = json.loads(content)
        changed = change(described)
        is_whole = changed == [] or (isinstance(changed, dict) and set(changed) == {"class_name"})
        return json.dumps(changed if is_whole else described).encode()

    path = tiny_models.rewrite(saved, edit, tmp_path / "model.keras")
    with pytest.raises(ValueError, match=rf"model\.keras: .*{message}"):
        unitbox_tf.load(path)


def test_json_that_is_deep_or_large_is_our_error(saved, tmp_path):
    def replaced(content):
        return lambda name, old: content if name == "config.json" else old

    path = tiny_models.rewrite(saved, replaced(b"[" * 100_000), tmp_path / "model.keras")
    with pytest.raises(Unusable, match=r"config\.json: not usable JSON: .* nested too deep"):
        unitbox_tf.load(path)
    tiny_models.rewrite(saved, replaced(b" " * (5 << 20)), path)
    with pytest.raises(ValueError, match=r"config\.json: expected at most .* characters of JSON"):
        unitbox_tf.load(path)
    tiny_models.rewrite(saved, lambda name, old: old, path, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(Unusable, match="expected a stored member"):
        unitbox_tf.load(path)


def test_weights_elsewhere_are_refused_also_in_a_keras_file(saved, tmp_path):
    (tmp_path / "canary").write_bytes(b"sixteen secrets!")

    def edit(name, content):
        if name != "model.weights.h5":
            return content
        file = io.BytesIO(content)
        with h5py.File(file, "r+") as weights:
            bias = weights["layers/conv2d/vars"]
            del bias["1"]
            bias.create_dataset("1", (4,), "f4", external=[(tmp_path / "canary", 0, 16)])
        return file.getvalue()

    path = tiny_models.rewrite(saved, edit, tmp_path / "model.keras")
    with pytest.raises(Unusable, match=r"model\.keras: .*expected data in the file"):
        unitbox_tf.load(path)


def test_weights_that_do_not_fit_leave_the_model_as_it_is(model, tmp_path):
    path, before = tmp_path / "a.weights.h5", model.get_weights()
    other = tiny_models.model()
    for values, message in (
        (np.float32([1, np.nan, 3, 4]), r"distances_head/bias: expected finite .* 1 of 4"),
        (np.float32([1, np.inf, 3, 4]), r"distances_head/bias: expected finite .* 1 of 4"),
    ):
        other.get_layer("distances_head").bias.assign(values)
        other.save_weights(path)
        with pytest.raises(Unusable, match=rf"a\.weights\.h5: {message}"):
            network_weights.load(model, path, "the weights of X")
    keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]).save_weights(path)
    with pytest.raises(Unusable, match=r"a\.weights\.h5: expected the weights of X: "):
        network_weights.load(model, path, "the weights of X")
    for ours, theirs in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_file_that_is_larger_than_the_weights_is_not_read(model, tmp_path):
    path = tmp_path / "a.weights.h5"
    size = weights_files.largest(weight.shape for weight in model.weights) + 1
    with path.open("wb") as file:
        file.truncate(size)
    with pytest.raises(TooLarge, match=r"a\.weights\.h5: expected a file of at most"):
        network_weights.load(model, path, "the weights of X")


def test_weights_that_are_not_finite_are_not_published(tmp_path):
    with pytest.raises(ValueError, match=r"head/bias: expected finite numbers\. Received: 1 of 2"):
        runs.Run(tmp_path).publish(unitbox_tf.Config(), [("head/bias", np.float32([1, np.nan]))])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["keras", "weights"])
def test_damaged_files_are_our_error(kind, model, saved, tmp_path):
    weights = tmp_path / "whole.weights.h5"
    model.save_weights(weights)
    content = (saved if kind == "keras" else weights).read_bytes()
    path = tmp_path / ("a.keras" if kind == "keras" else "a.weights.h5")
    random, errors = np.random.default_rng(5), []
    for _ in range(40):
        path.write_bytes(tiny_models.mutated(content, random))
        try:
            if kind == "keras":
                keras_files.open_model(path)
            else:
                network_weights.load(model, path, "the weights of X")
        except Unusable as error:
            errors.append(str(error))
    assert len(errors) > 15
    assert all(error.startswith(f"{path}: ") and "\n" not in error for error in errors)
